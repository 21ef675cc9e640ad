//! Against oidc-provider, an OpenID provider of other people, over TLS on loopback.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test program")]

mod lab;

use lab::oidc::{Answer, BROWSER, CLIENT, LOGIN, Lab, SECRET};
use lab::peer::{Peer, Person, Step, field};
use lab::random;
use secrecy::SecretString;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use url::Url;
use zixt_identity::Role;
use zixt_sso::oidc::{Callback, Config, ConfigDocument, Introspector, Pending, Provider, Refusal};
use zixt_sso::{Assertion, Browser, RoleRule};
use zixt_types::Timestamp;

fn clock() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    Timestamp(u64::try_from(since.as_millis()).unwrap())
}

/// The peer, and the server that it tells of log-outs.
struct World {
    peer: Peer,
    lab: Lab,
    _folder: tempfile::TempDir,
}

impl World {
    async fn start(algorithm: &str) -> Self {
        let lab = Lab::start().await;
        lab.set("/bcl", Answer::of(200, "text/plain", ""));
        let folder = tempfile::tempdir().unwrap();
        let authority = folder.path().join("authority.pem");
        std::fs::write(&authority, &lab.authority.pem).unwrap();
        let (cert, key) = lab.authority.server();
        let settings = json!({
            "cert": cert, "key": key,
            "pems": [include_str!("corpus/oidc/rsa-one.pem"), include_str!("corpus/oidc/p256.pem")],
            "client": {
                "client_id": CLIENT, "client_secret": SECRET, "redirect_uris": ["https://zixt.test/sso/callback"],
                "post_logout_redirect_uris": ["https://zixt.test/bye"], "response_types": ["code"],
                "grant_types": ["authorization_code"], "id_token_signed_response_alg": algorithm,
                "backchannel_logout_uri": format!("{}/bcl", lab.issuer), "backchannel_logout_session_required": true,
            },
            "others": [{
                "client_id": "backup-job", "client_secret": "the secret of a program, long enough",
                "redirect_uris": [], "response_types": [], "grant_types": ["client_credentials"],
            }],
        });
        let peer = Peer::oidc(&settings, &authority);
        Self { peer, lab, _folder: folder }
    }

    fn document(&self) -> ConfigDocument {
        ConfigDocument {
            issuer: self.peer.origin(),
            scopes: Vec::new(),
            roles: vec![RoleRule { value: "zixt-ops".into(), role: "operator".into() }],
            ..self.lab.document()
        }
    }

    async fn provider(&self, document: &ConfigDocument) -> Provider {
        let config = Config::new(document).unwrap();
        Provider::discover(config, SecretString::from(SECRET), &clock).await.unwrap()
    }

    fn person(&self) -> Person {
        Person::new(&self.peer.origin(), &self.lab.authority.pem)
    }
}

fn begin(provider: &Provider) -> (Url, Pending) {
    let begun = provider.begin(LOGIN, Browser::of(&BROWSER), clock(), &mut random).unwrap();
    (begun.url, begun.pending)
}

async fn finish(provider: &Provider, pending: Pending, callback: &Url) -> Result<Assertion, Refusal> {
    let callback = Callback::parse(callback.query().unwrap()).unwrap();
    provider.finish(pending, LOGIN, &Browser::of(&BROWSER), &callback, &clock).await
}

#[tokio::test]
async fn a_person_signs_in_and_a_code_is_redeemed_once() {
    let world = World::start("RS256").await;
    let provider = world.provider(&world.document()).await;
    let (url, pending) = begin(&provider);
    let mut person = world.person();
    let callback = person.sign_in(&url, "alice-1").await;
    assert!(callback.as_str().starts_with("https://zixt.test/sso/callback?"), "{callback}");
    assert!(
        callback.query_pairs().any(|(name, value)| name == "iss" && value == world.peer.origin()),
        "RFC 9207"
    );
    let assertion = finish(&provider, pending, &callback).await.unwrap();
    assert_eq!(assertion.unchanging_id(), b"alice-1");
    assert_eq!(assertion.roles(), &BTreeSet::from([Role::Operator]));
    assert!(assertion.session().is_some());

    // The same code in another sign-in: its verifier is another one, and it was used.
    let (url, pending) = begin(&provider);
    let state = url.query_pairs().find(|(name, _)| name == "state").unwrap().1.into_owned();
    let stolen: Vec<(String, String)> = callback
        .query_pairs()
        .map(|(name, value)| {
            (name.to_string(), if name == "state" { state.clone() } else { value.to_string() })
        })
        .collect();
    let mut callback = callback.clone();
    callback.query_pairs_mut().clear().extend_pairs(stolen);
    let refused = finish(&provider, pending, &callback).await.unwrap_err();
    assert!(matches!(&refused, Refusal::CodeRefused(code) if code == "invalid_grant"), "{refused:?}");
}

#[tokio::test]
async fn a_stolen_code_is_worth_nothing_without_its_verifier() {
    let world = World::start("ES256").await;
    let provider = world.provider(&world.document()).await;
    let (url, pending) = begin(&provider);
    let theirs = world.person().sign_in(&url, "alice-1").await;
    let (other, mine) = begin(&provider);
    let code = theirs.query_pairs().find(|(name, _)| name == "code").unwrap().1.into_owned();
    let mut callback = world.person().sign_in(&other, "mallory-1").await;
    let swapped: Vec<(String, String)> = callback
        .query_pairs()
        .map(|(name, value)| {
            (name.to_string(), if name == "code" { code.clone() } else { value.to_string() })
        })
        .collect();
    callback.query_pairs_mut().clear().extend_pairs(swapped);
    let refused = finish(&provider, mine, &callback).await.unwrap_err();
    assert!(matches!(&refused, Refusal::CodeRefused(code) if code == "invalid_grant"), "{refused:?}");
    drop(pending);
    // And a good one, with the other algorithm.
    let (url, pending) = begin(&provider);
    let callback = world.person().sign_in(&url, "bob-1").await;
    assert_eq!(finish(&provider, pending, &callback).await.unwrap().unchanging_id(), b"bob-1");
    let pinned = ConfigDocument { algorithms: vec!["RS256".into()], ..world.document() };
    let provider = world.provider(&pinned).await;
    let (url, pending) = begin(&provider);
    let callback = world.person().sign_in(&url, "bob-1").await;
    assert_eq!(finish(&provider, pending, &callback).await.unwrap_err().code(), "sso-token-algorithm");
}

#[tokio::test]
async fn a_log_out_that_begins_here_comes_back_over_the_back_channel() {
    let world = World::start("RS256").await;
    let provider = world.provider(&world.document()).await;
    let (url, pending) = begin(&provider);
    let mut person = world.person();
    let callback = person.sign_in(&url, "alice-1").await;
    let assertion = finish(&provider, pending, &callback).await.unwrap();
    let url = provider.logout_url(assertion.hint(), Some("back-1")).unwrap();
    let page = person.get(&url).await.page();
    let confirm = Url::parse(&format!("{}/session/end/confirm", world.peer.origin())).unwrap();
    let xsrf = field(&page, "xsrf").to_owned();
    let step = person.post(&confirm, &[("xsrf", &xsrf), ("logout", "yes")]).await;
    let Step::Elsewhere(back) = step else { panic!("stayed at the provider") };
    assert_eq!(back.as_str(), "https://zixt.test/bye?state=back-1");
    // The provider tells before it sends the browser back.
    let token = world.lab.form("/bcl")["logout_token"].clone();
    let logout = provider.back_channel_logout(&token, &clock).await.unwrap();
    assert_eq!(logout.session(), assertion.session());
    assert_eq!(logout.unchanging_id(), Some(&b"alice-1"[..]));
    assert_eq!(provider.back_channel_logout(&token, &clock).await.unwrap_err().code(), "sso-replay");
}

#[tokio::test]
async fn a_programs_token_is_asked_about() {
    let world = World::start("RS256").await;
    let provider = Arc::new(world.provider(&world.document()).await);
    let introspector = Introspector::new(Arc::clone(&provider), "zixt-api").unwrap();
    let token = program_token(&world, "resource=urn:zixt:api").await;
    let client = introspector.check(&SecretString::from(token.as_str()), &clock).await.unwrap();
    assert_eq!(client.client_id(), "backup-job");
    assert!(client.ends_at() > clock());
    let elsewhere = Introspector::new(provider, "another-api").unwrap();
    let refused = elsewhere.check(&SecretString::from(token), &clock).await;
    assert!(matches!(refused, Err(Refusal::Inactive)), "a token for another audience: {refused:?}");
    let refused = introspector.check(&SecretString::from("made-up"), &clock).await;
    assert!(matches!(refused, Err(Refusal::Inactive)), "{refused:?}");
}

async fn program_token(world: &World, more: &str) -> String {
    let origin = zixt_sso::WebOrigin::of(&Url::parse(&world.peer.origin()).unwrap()).unwrap();
    let web = zixt_sso::WebClient::new(origin, &world.lab.authority.pem).unwrap();
    let form = format!(
        "grant_type=client_credentials&client_id=backup-job&client_secret=the+secret+of+a+program%2C+long+enough&{more}"
    );
    let request = http::Request::builder()
        .method("POST")
        .uri(format!("{}/token", world.peer.origin()))
        .header("content-type", "application/x-www-form-urlencoded")
        .body(form.into_bytes())
        .unwrap();
    let answer = tokio::time::timeout(Duration::from_secs(60), web.call(request)).await.unwrap().unwrap();
    let answer: Value = serde_json::from_slice(answer.body()).unwrap();
    answer["access_token"].as_str().unwrap_or_else(|| panic!("{answer}")).to_owned()
}
