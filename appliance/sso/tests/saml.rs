//! SAML: the corpus of hostile responses, and what becomes of a good one.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test program")]

mod lab;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use lab::random;
use lab::saml::{BROWSER, Ended, LOGIN, NOW_MS, manifest, run};
use std::collections::BTreeSet;
use url::form_urlencoded;
use zixt_identity::Role;
use zixt_sso::Browser;
use zixt_sso::saml::{
    Config, ConfigDocument, Logout, LogoutMessage, Pending, Refusal, ResponseForm, ServiceProvider,
};
use zixt_types::Timestamp;

#[tokio::test]
async fn every_hostile_response_is_refused_and_every_good_one_is_not() {
    let manifest = manifest();
    let names: BTreeSet<_> = manifest.cases.iter().map(lab::saml::Case::name).collect();
    assert_eq!(names.len(), manifest.cases.len(), "a name twice");
    let mut wrong = Vec::new();
    let mut hostile = 0;
    for case in &manifest.cases {
        let ended = run(&manifest, case).await;
        if case.is_good() {
            match &ended {
                Ended::LoggedOut(logout) => {
                    assert_eq!(
                        (logout.name(), logout.sessions()),
                        ("alice-1", &["session-1".to_owned()][..])
                    );
                }
                Ended::Signed(assertion) => {
                    assert_eq!(assertion.unchanging_id(), b"alice-1", "{}", case.name());
                    assert_eq!(assertion.roles(), &BTreeSet::from([Role::User]), "{}", case.name());
                    assert_eq!(assertion.session(), Some("session-1"), "{}", case.name());
                }
                other => wrong.push(format!("{}: {other:?}", case.name())),
            }
        } else {
            hostile += 1;
            if ended.code() != case.expected {
                wrong.push(format!("{}: expected {}, got {ended:?}", case.name(), case.expected));
            }
        }
    }
    assert!(hostile >= 40, "{hostile}");
    assert!(wrong.is_empty(), "{} of {hostile}:\n{}", wrong.len(), wrong.join("\n"));
}

/// A logout message as the HTTP-Redirect binding carries it, signed with a key of the corpus.
struct Query {
    name: &'static str,
    xml: String,
    relay_state: Option<&'static str>,
    algorithm: &'static str,
    key: &'static str,
}

const RSA_SHA256: &str = "http://www.w3.org/2001/04/xmldsig-more#rsa-sha256";

impl Query {
    fn request(change: impl Fn(String) -> String) -> Self {
        let xml = format!(
            "<samlp:LogoutRequest xmlns:samlp=\"urn:oasis:names:tc:SAML:2.0:protocol\" ID=\"_logout-1\" Version=\"2.0\" \
             IssueInstant=\"2026-11-28T01:00:00Z\" Destination=\"https://zixt.test/saml/slo\" \
             NotOnOrAfter=\"2026-11-28T01:05:00Z\">\
             <saml:Issuer xmlns:saml=\"{SAML}\">https://idp.test/metadata</saml:Issuer>\
             <saml:NameID xmlns:saml=\"{SAML}\" Format=\"urn:oasis:names:tc:SAML:2.0:nameid-format:persistent\">alice-1\
             </saml:NameID><samlp:SessionIndex>session-1</samlp:SessionIndex></samlp:LogoutRequest>"
        );
        Self {
            name: "SAMLRequest",
            xml: change(xml),
            relay_state: Some("r"),
            algorithm: RSA_SHA256,
            key: "idp",
        }
    }

    /// DEFLATE without compression (RFC 1951 section 3.2.4).
    fn deflated(xml: &str) -> Vec<u8> {
        let chunks: Vec<_> = xml.as_bytes().chunks(65_535).collect();
        let mut out = Vec::new();
        for (at, chunk) in chunks.iter().enumerate() {
            let length = u16::try_from(chunk.len()).unwrap();
            out.push(u8::from(at + 1 == chunks.len()));
            out.extend(length.to_le_bytes());
            out.extend((!length).to_le_bytes());
            out.extend(*chunk);
        }
        out
    }

    fn unsigned(&self) -> String {
        let mut query = form_urlencoded::Serializer::new(String::new());
        query.append_pair(self.name, &BASE64_STANDARD.encode(Self::deflated(&self.xml)));
        if let Some(state) = self.relay_state {
            query.append_pair("RelayState", state);
        }
        query.append_pair("SigAlg", self.algorithm).finish()
    }

    fn signed(&self) -> String {
        let query = self.unsigned();
        let signer = lab::oidc::Signer::rsa(&lab::saml::text(&format!("keys/{}.key.pem", self.key)));
        let signature = BASE64_STANDARD.encode(signer.sign("RS256", query.as_bytes()));
        let more =
            form_urlencoded::Serializer::new(String::new()).append_pair("Signature", &signature).finish();
        format!("{query}&{more}")
    }
}

const SAML: &str = "urn:oasis:names:tc:SAML:2.0:assertion";

async fn log_out(query: &str) -> Result<Logout, Refusal> {
    let service = lab::saml::service(&lab::saml::document());
    service.logout(&LogoutMessage::from_query(query)?, &|| Timestamp(NOW_MS)).await
}

#[tokio::test]
async fn logout_requests_of_the_provider_are_taken_once_and_hostile_ones_never() {
    let good = Query::request(|xml| xml).signed();
    let logout = log_out(&good).await.unwrap();
    assert_eq!((logout.name(), logout.sessions()), ("alice-1", &["session-1".to_owned()][..]));
    assert!(logout.response_url().as_str().starts_with("https://idp.test/slo?SAMLResponse="));
    assert!(logout.response_url().query_pairs().any(|(name, _)| name == "Signature"));
    let service = lab::saml::service(&lab::saml::document());
    let message = LogoutMessage::from_query(&good).unwrap();
    assert!(service.logout(&message, &|| Timestamp(NOW_MS)).await.is_ok());
    assert_eq!(service.logout(&message, &|| Timestamp(NOW_MS)).await.unwrap_err().code(), "sso-replay");
    let late = service.logout(&message, &|| Timestamp(NOW_MS + 3_600_000)).await;
    assert_eq!(late.unwrap_err().code(), "saml-time");

    let replaced =
        |from: &'static str, to: &'static str| Query::request(move |xml| xml.replace(from, to)).signed();
    let unsigned = Query::request(|xml| xml).unsigned();
    let sha1 = "http://www.w3.org/2000/09/xmldsig#rsa-sha1";
    let cases: Vec<(&str, String, &str)> = vec![
        ("no signature", unsigned.clone(), "saml-signature-missing"),
        (
            "no signature and no algorithm",
            unsigned.split("&SigAlg").next().unwrap().to_owned(),
            "saml-signature-missing",
        ),
        ("an empty signature", format!("{unsigned}&Signature="), "saml-signature"),
        ("another key", Query { key: "evil", ..Query::request(|xml| xml) }.signed(), "saml-signature"),
        ("SHA-1", Query { algorithm: sha1, ..Query::request(|xml| xml) }.signed(), "saml-algorithm"),
        (
            "another relay state than was signed",
            good.replace("RelayState=r", "RelayState=s"),
            "saml-signature",
        ),
        ("a parameter twice", format!("{good}&RelayState=r"), "saml-repeated"),
        ("a parameter more", format!("{good}&x=y"), "saml-profile"),
        (
            "another issuer",
            replaced("https://idp.test/metadata", "https://evil.test/metadata"),
            "saml-issuer",
        ),
        (
            "another destination",
            replaced("https://zixt.test/saml/slo", "https://other.test/slo"),
            "saml-destination",
        ),
        ("ended", replaced("01:05:00Z", "00:58:00Z"), "saml-time"),
        ("from the future", replaced("T01:00:00Z", "T01:30:00Z"), "saml-time"),
        ("no name", replaced("alice-1", ""), "saml-subject"),
        ("a document type", Query::request(|xml| format!("<!DOCTYPE x>{xml}")).signed(), "saml-markup"),
        ("a comment in the name", replaced("alice-1", "admin<!---->-1"), "saml-markup"),
        (
            "two names",
            replaced("<samlp:SessionIndex>", "<NameID>admin</NameID><samlp:SessionIndex>"),
            "saml-structure",
        ),
        ("another message", replaced("LogoutRequest", "AuthnRequest"), "saml-structure"),
        ("300 kB", Query::request(|xml| xml + &" ".repeat(300_000)).signed(), "saml-too-long"),
    ];
    for (what, query, code) in cases {
        match log_out(&query).await {
            // What does not fit into a query at all is refused before.
            Err(Refusal::Form) if what == "300 kB" => {}
            Err(refusal) => assert_eq!(refusal.code(), code, "{what}: {refusal:?}"),
            Ok(_) => panic!("{what} was taken"),
        }
    }
}

#[tokio::test]
async fn a_compressed_bomb_ends_at_the_limit() {
    // 50 MB of spaces, in a query of 65 kB: what a query may have.
    let bomb = lab::saml::read("bomb-deflated.bin");
    let query = |bytes: &[u8]| {
        form_urlencoded::Serializer::new(String::new())
            .append_pair("SAMLRequest", &BASE64_STANDARD.encode(bytes))
            .append_pair("SigAlg", RSA_SHA256)
            .append_pair("Signature", "AAAA")
            .finish()
    };
    let refused = log_out(&query(&bomb[..40_000])).await.unwrap_err();
    assert_eq!(refused.code(), "saml-too-long", "{refused:?}");
    assert_eq!(log_out(&query(b"\xff\xff\xff")).await.unwrap_err().code(), "saml-encoding");
}

#[tokio::test]
async fn without_a_key_or_a_place_there_is_no_single_logout() {
    let config = Config::new(&lab::saml::document()).unwrap();
    let service = ServiceProvider::new(config, None, lab::saml::program());
    let message = LogoutMessage::from_query(&Query::request(|xml| xml).signed()).unwrap();
    assert_eq!(service.logout(&message, &|| Timestamp(NOW_MS)).await.unwrap_err().code(), "saml-no-logout");
    // Sign-in works: its requests are not signed then.
    let begun = service.begin(LOGIN, Browser::of(&BROWSER), Timestamp(NOW_MS), &mut random).await.unwrap();
    assert!(begun.url.as_str().starts_with("https://idp.test/sso?SAMLRequest="));
    assert!(!begun.url.query_pairs().any(|(name, _)| name == "Signature"));
    let signing = lab::saml::service(&lab::saml::document());
    let begun = signing.begin(LOGIN, Browser::of(&BROWSER), Timestamp(NOW_MS), &mut random).await.unwrap();
    assert!(begun.url.query_pairs().any(|(name, value)| name == "SigAlg" && value == RSA_SHA256));
    assert!(begun.pending.request_id().len() >= 33, "at least 128 bits in hexadecimal");
}

#[tokio::test]
async fn what_is_demanded_of_the_sign_in_at_the_provider_is_checked() {
    let manifest = manifest();
    let good = lab::saml::read("good-assertion-signed.xml");
    let check = async |document: ConfigDocument| {
        let service = lab::saml::service(&document);
        let begun = Timestamp(NOW_MS - 10_000);
        let pending =
            Pending::recorded(LOGIN, Browser::of(&BROWSER), &manifest.relay, &manifest.request, begun);
        let form = lab::saml::form(&BASE64_STANDARD.encode(&good), &manifest.relay);
        let form = ResponseForm::parse(&form).unwrap();
        let ended =
            service.finish(pending, LOGIN, &Browser::of(&BROWSER), &form, &|| Timestamp(NOW_MS)).await;
        ended.map(|assertion| assertion.unchanging_id().to_vec()).map_err(|refusal| refusal.code())
    };
    let document = lab::saml::document;
    let context = "urn:oasis:names:tc:SAML:2.0:ac:classes:PasswordProtectedTransport".to_owned();
    let accepted = ConfigDocument { authn_contexts: vec![context], ..document() };
    assert_eq!(check(accepted).await, Ok(b"alice-1".to_vec()));
    let stronger = ConfigDocument { authn_contexts: vec!["urn:x:smartcard".into()], ..document() };
    assert_eq!(check(stronger).await, Err("sso-authentication-too-weak"));
    // It was 15 seconds ago.
    let fresh = |age| ConfigDocument { max_age_s: Some(age), skew_s: 0, ..document() };
    assert_eq!(check(fresh(15)).await, Ok(b"alice-1".to_vec()));
    assert_eq!(check(fresh(14)).await, Err("sso-authentication-too-old"));
    let attribute = |name: &str| ConfigDocument { subject_attribute: Some(name.into()), ..document() };
    assert_eq!(check(attribute("groups")).await, Ok(b"zixt-users".to_vec()));
    assert_eq!(check(attribute("objectGUID")).await, Err("saml-subject"));
    let other_key =
        ConfigDocument { idp_certificates_pem: lab::saml::text("keys/evil.cert.pem"), ..document() };
    assert_eq!(check(other_key).await, Err("saml-signature"));
    let garbage = ConfigDocument {
        idp_certificates_pem: "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n".into(),
        ..document()
    };
    assert!(matches!(check(garbage).await, Err("saml-signature" | "saml-configuration" | "saml-other")));
}
