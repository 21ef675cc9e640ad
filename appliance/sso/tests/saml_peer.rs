//! Against pysaml2, a SAML identity provider of other people, over TLS on loopback.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test program")]

mod lab;

use lab::peer::{Page, Peer, Person, field};
use lab::saml::{BROWSER, LOGIN, form, program, text};
use lab::{Authority, random};
use serde_json::json;
use std::collections::BTreeSet;
use std::time::{SystemTime, UNIX_EPOCH};
use zixt_identity::Role;
use zixt_sso::saml::{Cause, Config, ConfigDocument, LogoutMessage, Refusal, ResponseForm, ServiceProvider};
use zixt_sso::{Browser, Waits};
use zixt_types::Timestamp;

fn clock() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    Timestamp(u64::try_from(since.as_millis()).unwrap())
}

struct World {
    peer: Peer,
    service: ServiceProvider,
    authority: Authority,
}

impl World {
    async fn start(sign_response: bool) -> Self {
        let authority = Authority::new("Zixt test authority");
        let (tls_cert, tls_key) = authority.server();
        let document = lab::saml::document();
        let settings = json!({
            "tls_cert": tls_cert, "tls_key": tls_key, "cert": text("keys/idp.cert.pem"), "key": text("keys/idp.key.pem"),
            "sp": document.sp_entity_id, "acs": document.acs_url, "slo": document.slo_url, "sign_response": sign_response,
        });
        let mut peer = Peer::saml(&settings);
        let document = ConfigDocument {
            idp_sso_url: format!("{}/sso", peer.origin()),
            idp_slo_url: Some(format!("{}/slo", peer.origin())),
            ..document
        };
        let service =
            ServiceProvider::new(Config::new(&document).unwrap(), Some(lab::saml::key()), program());
        peer.tell(&json!(service.metadata(clock()).await.unwrap()));
        peer.hear("READY");
        Self { peer, service, authority }
    }

    fn person(&self) -> Person {
        Person::new(&self.peer.origin(), &self.authority.pem)
    }

    async fn answer(&self) -> (zixt_sso::saml::Pending, Page) {
        let begun = self.service.begin(LOGIN, Browser::of(&BROWSER), clock(), &mut random).await.unwrap();
        let page = self.person().get(&begun.url).await.page();
        (begun.pending, page)
    }
}

#[tokio::test]
async fn a_person_signs_in_once() {
    for sign_response in [false, true] {
        let world = World::start(sign_response).await;
        let (pending, page) = world.answer().await;
        let relay_state = field(&page, "RelayState");
        assert_eq!(relay_state, pending.handle());
        let form = ResponseForm::parse(&form(field(&page, "SAMLResponse"), relay_state)).unwrap();
        let assertion =
            world.service.finish(pending, LOGIN, &Browser::of(&BROWSER), &form, &clock).await.unwrap();
        assert_eq!(assertion.unchanging_id(), b"alice-1");
        assert_eq!(assertion.roles(), &BTreeSet::from([Role::User]));
        assert!(assertion.authenticated_at().is_some());
        // The same answer for the next sign-in.
        let (pending, _) = world.answer().await;
        let message = field(&page, "SAMLResponse");
        let stolen = ResponseForm::parse(&lab::saml::form(message, pending.handle())).unwrap();
        let refused = world.service.finish(pending, LOGIN, &Browser::of(&BROWSER), &stolen, &clock).await;
        assert!(matches!(refused, Err(Refusal::Message(Cause::InResponseTo))), "{refused:?}");
    }
}

#[tokio::test]
async fn log_outs_go_both_ways() {
    let world = World::start(false).await;
    let (pending, page) = world.answer().await;
    let form = ResponseForm::parse(&form(field(&page, "SAMLResponse"), field(&page, "RelayState"))).unwrap();
    let assertion =
        world.service.finish(pending, LOGIN, &Browser::of(&BROWSER), &form, &clock).await.unwrap();

    // From here.
    let hint = assertion.hint().unwrap();
    let (url, pending) =
        world.service.begin_logout(hint, assertion.session(), LOGIN, clock(), &mut random).await.unwrap();
    let back = world.person().get(&url).await.elsewhere();
    let message = LogoutMessage::from_query(back.query().unwrap()).unwrap();
    assert_eq!(message.relay_state().as_deref(), Some(pending.handle()));
    world.service.finish_logout(pending, &message, &clock).await.unwrap();

    // From there.
    let start = url.join("/start_logout").unwrap();
    let request = world.person().get(&start).await.elsewhere();
    let message = LogoutMessage::from_query(request.query().unwrap()).unwrap();
    let logout = world.service.logout(&message, &clock).await.unwrap();
    assert_eq!(
        (logout.name().as_bytes(), logout.sessions()),
        (assertion.unchanging_id(), &["session-1".to_owned()][..])
    );
    let page = world.person().get(logout.response_url()).await.page();
    assert_eq!(page.text, "logged out");
    assert_eq!(world.service.logout(&message, &clock).await.unwrap_err().code(), "sso-replay");
}
