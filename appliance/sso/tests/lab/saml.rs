//! The corpus of SAML responses, and the side that reads it.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use secrecy::SecretString;
use serde::Deserialize;
use std::path::PathBuf;
use url::form_urlencoded;
use zixt_identity::LoginId;
use zixt_sso::saml::{
    Config, ConfigDocument, Logout, LogoutMessage, Pending, Refusal, ResponseForm, ServiceProvider,
    SigningKey,
};
use zixt_sso::{Assertion, Browser, RoleRule, Waiting};
use zixt_types::Timestamp;

/// The moment of the manifest: 2026-11-28T01:00:05Z.
pub const NOW_MS: u64 = 1_795_827_605_000;
pub const LOGIN: LoginId = LoginId([5; 16]);
pub const BROWSER: [u8; 32] = [6; 32];

#[derive(Deserialize)]
pub struct Manifest {
    pub now: String,
    pub sp: String,
    pub acs: String,
    pub idp: String,
    pub request: String,
    pub relay: String,
    pub cases: Vec<Case>,
}

/// A file and what becomes of it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Case {
    pub file: String,
    pub expected: String,
    pub why: String,
    /// Its name, where several cases are of one file.
    name: Option<String>,
    /// `raw` for a file that is the form's field itself, and not what it encodes; `logout` for a LogoutRequest.
    kind: Option<String>,
    /// How often the form comes.
    times: Option<usize>,
    /// `each`: a sign-in waits for every one of them.
    waiting: Option<String>,
    /// The request that is waited for.
    request: Option<String>,
    relay: Option<String>,
    browser: Option<String>,
    later_s: Option<u64>,
}

impl Case {
    /// Whether it has to be taken.
    pub fn is_good(&self) -> bool {
        matches!(self.expected.as_str(), "signed-in" | "logged-out")
    }

    pub fn name(&self) -> &str {
        self.name.as_deref().unwrap_or(&self.file)
    }
}

pub fn folder() -> PathBuf {
    super::crate_folder().join("tests/corpus/saml")
}

pub fn manifest() -> Manifest {
    serde_json::from_slice(&std::fs::read(folder().join("manifest.json")).unwrap()).unwrap()
}

pub fn read(file: &str) -> Vec<u8> {
    std::fs::read(folder().join(file)).unwrap()
}

pub fn text(file: &str) -> String {
    String::from_utf8(read(file)).unwrap()
}

/// The parser's program: beside the test's own, or beside the folder of an example.
pub fn program() -> PathBuf {
    if let Some(program) = option_env!("CARGO_BIN_EXE_zixt-saml") {
        return PathBuf::from(program);
    }
    let own = std::env::current_exe().unwrap();
    let found = own.ancestors().skip(1).map(|folder| folder.join("zixt-saml")).find(|path| path.is_file());
    found.expect("zixt-saml is built before the corpora are run: cargo build -p zixt-sso")
}

pub fn document() -> ConfigDocument {
    let manifest = manifest();
    ConfigDocument {
        sp_entity_id: manifest.sp,
        acs_url: manifest.acs,
        slo_url: Some("https://zixt.test/saml/slo".to_owned()),
        idp_entity_id: manifest.idp,
        idp_sso_url: "https://idp.test/sso".to_owned(),
        idp_slo_url: Some("https://idp.test/slo".to_owned()),
        idp_certificates_pem: text("keys/idp.cert.pem") + &text("keys/next.cert.pem"),
        subject_attribute: None,
        roles_attribute: Some("groups".to_owned()),
        roles: vec![
            RoleRule { value: "zixt-users".to_owned(), role: "user".to_owned() },
            RoleRule { value: "zixt-ops".to_owned(), role: "operator".to_owned() },
        ],
        authn_contexts: Vec::new(),
        force_authn: false,
        max_age_s: None,
        skew_s: 60,
    }
}

pub fn key() -> SigningKey {
    SigningKey {
        key_pem: SecretString::from(text("keys/sp.key.pem")),
        certificate_pem: text("keys/sp.cert.pem"),
    }
}

pub fn service(document: &ConfigDocument) -> ServiceProvider {
    ServiceProvider::new(Config::new(document).unwrap(), Some(key()), program())
}

/// The body of the form with a message.
pub fn form(message: &str, relay_state: &str) -> String {
    form_urlencoded::Serializer::new(String::new())
        .append_pair("SAMLResponse", message)
        .append_pair("RelayState", relay_state)
        .finish()
}

/// How a case ended.
#[derive(Debug)]
pub enum Ended {
    Signed(Assertion),
    Refused(Refusal),
    NoPending,
    LoggedOut(Logout),
}

impl Ended {
    pub fn code(&self) -> &'static str {
        match self {
            Self::Signed(_) => "signed-in",
            Self::Refused(refusal) => refusal.code(),
            Self::NoPending => "no-pending",
            Self::LoggedOut(_) => "logged-out",
        }
    }
}

/// Runs one case, with a memory of its own.
pub async fn run(manifest: &Manifest, case: &Case) -> Ended {
    let content = read(&case.file);
    let message = match case.kind.as_deref() {
        Some("raw") => String::from_utf8(content).unwrap(),
        _ => BASE64_STANDARD.encode(content),
    };
    let service = service(&document());
    if case.kind.as_deref() == Some("logout") {
        let form =
            form_urlencoded::Serializer::new(String::new()).append_pair("SAMLRequest", &message).finish();
        let message = LogoutMessage::from_form(&form).unwrap();
        return match service.logout(&message, &|| Timestamp(NOW_MS)).await {
            Ok(logout) => Ended::LoggedOut(logout),
            Err(refusal) => Ended::Refused(refusal),
        };
    }
    let form = ResponseForm::parse(&form(&message, case.relay.as_ref().unwrap_or(&manifest.relay))).unwrap();
    let now = Timestamp(NOW_MS + case.later_s.unwrap_or_default() * 1000);
    let clock = move || now;
    let browser = if case.browser.is_some() { [0; 32] } else { BROWSER };
    let request = case.request.as_ref().unwrap_or(&manifest.request);
    let mut waiting = Waiting::default();
    let mut ended = Ended::NoPending;
    for turn in 0..case.times.unwrap_or(1) {
        if turn == 0 || case.waiting.as_deref() == Some("each") {
            let begun = Timestamp(NOW_MS - 10_000);
            let pending = Pending::recorded(LOGIN, Browser::of(&BROWSER), &manifest.relay, request, begun);
            waiting.keep(pending, begun).unwrap();
        }
        let Some(pending) = waiting.take(Some(form.relay_state())) else { return Ended::NoPending };
        ended = match service.finish(pending, LOGIN, &Browser::of(&browser), &form, &clock).await {
            Ok(assertion) => Ended::Signed(assertion),
            Err(refusal) => Ended::Refused(refusal),
        };
    }
    ended
}
