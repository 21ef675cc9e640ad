//! Passkeys in a real browser: Chromium with its virtual authenticator, pages over HTTPS, and the appliance's own verifier
//! and sign-in machine behind them.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test program")]

#[allow(dead_code, reason = "shared with the tests of zixt-passkey, which use more of it")]
#[path = "../../appliance/passkey/tests/lab/server.rs"]
mod server;
#[path = "passkey/site.rs"]
mod site;

use serde_json::{Value, json};
use server::{PASSWORD, Server, party};
use site::{Answer, Site};
use std::sync::{Arc, Mutex, PoisonError};
use zixt_identity::{
    Because, Caller, CredentialChange, Factor, Login, Password, Proof, Role, Step, WebAuthnError,
};
use zixt_passkey::{FinishError, parse_assertion};
use zixt_tests::browser::Browser;

const HOSTS: [&str; 3] = ["zixt.test", "login.zixt.test", "evil.test"];

/// What the site does for an officer who has a session at one time and signs in at another. It tells the page why it
/// refuses, as an appliance never does.
struct Desk {
    server: Server,
    caller: Option<Caller>,
    login: Option<Login>,
}

impl Desk {
    fn answer(&mut self, path: &str, body: &[u8]) -> Value {
        match path {
            "/register/begin" => {
                let caller = self.server.session();
                let options = self.server.options(&caller);
                self.caller = Some(caller);
                json!(options)
            }
            "/register/end" => {
                let caller = self.caller.take().unwrap();
                match self.server.finish(&caller, body) {
                    Ok(credential) => {
                        self.server.change(CredentialChange::AddWebAuthn(credential));
                        json!("registered")
                    }
                    Err(FinishError::Refused(refused)) => json!(refused.code()),
                    Err(other) => json!(other.to_string()),
                }
            }
            "/sign-in/begin" => {
                let mut login = self.server.begin();
                let password = Proof::Password(Password::parse(PASSWORD).unwrap());
                let step = self.server.step(&mut login, password);
                assert!(matches!(&step, Step::Need(factors) if factors.has(Factor::WebAuthn)), "{step:?}");
                let options = self.server.ask(&login);
                self.login = Some(login);
                json!(options)
            }
            "/sign-in/end" => {
                let Ok(proof) = parse_assertion(body) else { return json!("no assertion") };
                let login = self.login.as_mut().unwrap();
                match self.server.step(login, Proof::WebAuthn(proof)) {
                    Step::Done(grant) => json!(format!("signed in, account {}", grant.account().0[0])),
                    Step::Refused { because: Because::WebAuthn(WebAuthnError::Rejected(code)), .. } => {
                        json!(code)
                    }
                    Step::Refused { because, .. } => json!(because.to_string()),
                    step => panic!("{step:?}"),
                }
            }
            other => panic!("a page asks for {other}"),
        }
    }
}

#[test]
fn an_officer_registers_and_signs_in_with_a_browser_and_nobody_else_does() {
    let mut server = Server::new(7, Role::SecurityOfficer);
    server.set_password();
    let desk = Arc::new(Mutex::new(Desk { server, caller: None, login: None }));
    let behind = Arc::clone(&desk);
    let answer: Arc<Answer> = Arc::new(move |method, path, body| match (method, path) {
        ("GET", "/" | "/inside") => {
            ("text/html", b"<!doctype html><title>Lab</title><script src=/page.js></script>".to_vec())
        }
        ("GET", "/page.js") => ("text/javascript", include_bytes!("passkey/page.js").to_vec()),
        ("POST", path) => {
            let mut desk = behind.lock().unwrap_or_else(PoisonError::into_inner);
            ("application/json", desk.answer(path, body).to_string().into_bytes())
        }
        _ => ("text/plain", Vec::new()),
    });
    let site = Site::start(&HOSTS, answer);
    let at = |host: &str| format!("https://{host}:{}", site.port);
    desk.lock().unwrap().server.party = party(&[&at("zixt.test")]);

    let mut browser = Browser::start(&site.authority, &HOSTS);
    let mut page = browser.page();
    page.open(&format!("{}/", at("zixt.test")));
    let key = page.plug_in_authenticator();

    // It registers, and once only: the browser itself knows it from the list of those that are registered.
    assert_eq!(page.run("register()"), Ok(json!("registered")));
    let again = page.run("register()").unwrap_err();
    assert!(again.starts_with("InvalidStateError"), "{again}");
    let credentials = page.credentials(&key);
    assert_eq!((credentials.len(), &credentials[0]["rpId"]), (1, &json!("zixt.test")));
    {
        let desk = desk.lock().unwrap();
        let [kept] = desk.server.credentials.webauthn() else { panic!("one passkey") };
        let passkey = zixt_passkey::Passkey::of(kept).unwrap();
        assert_eq!((&*passkey.name, passkey.last_used_at), ("blue key", None));
    }

    // It signs in; what it said is good once.
    assert_eq!(page.run("signIn()"), Ok(json!("signed in, account 7")));
    assert!(
        page.run("ask().then((said) => { window.said = said; return post('/sign-in/end', said) })").is_ok()
    );
    let replayed = page.run("post('/sign-in/begin').then(() => post('/sign-in/end', said))");
    assert_eq!(replayed, Ok(json!("other-challenge")));
    let again = page.run(
        "ask().then(async (said) => [await post('/sign-in/end', said), await post('/sign-in/end', said)])",
    );
    assert_eq!(again, Ok(json!(["signed in, account 7", "the sign-in is over"])));

    // Nobody gives the PIN. A browser then gives nothing; a page that asks for less gets something that is worth nothing.
    page.verify_user(&key, false);
    let without = page.run("signIn()").unwrap_err();
    assert!(without.starts_with("NotAllowedError"), "{without}");
    let less = "signIn((options) => ({ ...options, userVerification: 'discouraged' }))";
    assert_eq!(page.run(less), Ok(json!(WebAuthnError::UserNotVerified.to_string())));
    page.verify_user(&key, true);
    assert_eq!(page.run("signIn()"), Ok(json!("signed in, account 7")));

    // A copy of the key, with a counter of before.
    let now = page.credentials(&key)[0].clone();
    let mut copy = now.clone();
    copy["signCount"] = json!(1);
    page.replace_credential(&key, &copy);
    assert_eq!(page.run("signIn()"), Ok(json!(WebAuthnError::CounterWentBack.to_string())));
    page.replace_credential(&key, &now);
    assert_eq!(page.run("signIn()"), Ok(json!("signed in, account 7")));

    // A page below our host: the browser lets it use the key, and the appliance takes nothing from it.
    page.open(&format!("{}/", at("login.zixt.test")));
    assert_eq!(page.run("signIn()"), Ok(json!("other-origin")));

    // A page elsewhere: the browser does not let it ask for our keys, and has none for its own name.
    page.open(&format!("{}/", at("evil.test")));
    let ours = page.run("signIn()").unwrap_err();
    assert!(ours.starts_with("SecurityError"), "{ours}");
    let own_name = "(options) => ({ ...options, rpId: 'evil.test' })";
    let none = page.run(&format!("signIn({own_name})")).unwrap_err();
    assert!(none.starts_with("NotAllowedError"), "{none}");
    // It registers a key for itself and relays our challenge: what it gets says where it was made.
    let own_key =
        "(options) => ({ ...options, rp: { id: 'evil.test', name: 'Zixt' }, excludeCredentials: [] })";
    assert_eq!(page.run(&format!("register({own_key})")), Ok(json!("other-origin")));
    let relayed = "(options) => ({ ...options, rpId: 'evil.test', allowCredentials: [] })";
    assert_eq!(
        page.run(&format!("signIn({relayed})")),
        Ok(json!(WebAuthnError::UnknownCredential.to_string()))
    );

    // It shows our page inside of itself, and lets it use keys: what our page then sends says where it was.
    let inside = format!("{}/inside", at("zixt.test"));
    let around = format!(
        "new Promise((done) => {{
            addEventListener('message', (event) => done(event.data));
            const frame = document.createElement('iframe');
            frame.allow = 'publickey-credentials-get *';
            frame.src = {};
            document.body.append(frame);
        }})",
        json!(inside)
    );
    assert_eq!(page.run(&around), Ok(json!("cross-origin")));

    let groups = site.groups.lock().unwrap();
    assert!(groups.iter().all(|group| *group == rustls::NamedGroup::X25519MLKEM768) && !groups.is_empty());
    // Nothing of the above counted as the owner's: one passkey, still the same.
    assert_eq!(desk.lock().unwrap().server.credentials.webauthn().len(), 1);
}

#[test]
fn a_browser_opens_no_page_of_an_authority_that_it_was_not_given() {
    let answer: Arc<Answer> = Arc::new(|_, _, _| ("text/plain", Vec::new()));
    let (site, other) = (Site::start(&HOSTS, Arc::clone(&answer)), Site::start(&HOSTS, answer));
    let mut browser = Browser::start(&site.authority, &HOSTS);
    let mut page = browser.page();
    let failed = page.fails_to_open(&format!("https://zixt.test:{}/", other.port));
    assert_eq!(failed.as_deref(), Some("net::ERR_CERT_AUTHORITY_INVALID"));
    let failed = page.fails_to_open("https://elsewhere.test/");
    assert_eq!(failed.as_deref(), Some("net::ERR_NAME_NOT_RESOLVED"));
    page.open(&format!("https://zixt.test:{}/", site.port));
}
