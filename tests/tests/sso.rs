//! Single sign-on as a person meets it: Chromium, `zixtd`'s web listener, and oidc-provider, an OpenID provider of other
//! people, which also ends sessions over the back channel.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests; helpers outside #[test] functions count as well"
)]

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType};
use serde_json::{Value, json};
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};
use zixt_tests::browser::{Browser, Page};
use zixt_tests::{Appliance, PATIENCE};

const ISSUER: &str = "00112233445566778899aabbccddeeff";
const PASSWORD: &str = "seven tall trees lean west";

/// An authority of the test's own.
struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        params.distinguished_name.push(DnType::CommonName, "zixt lab authority");
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self { pem, issuer: Issuer::new(params, key) }
    }

    /// Certificate and key of a server at 127.0.0.1, in PEM.
    fn server(&self) -> (String, String) {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.subject_alt_names.push(SanType::IpAddress(Ipv4Addr::LOCALHOST.into()));
        let key = KeyPair::generate().unwrap();
        (params.signed_by(&key, &self.issuer).unwrap().pem(), key.serialize_pem())
    }
}

fn free_port() -> u16 {
    TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port()
}

fn repository() -> PathBuf {
    let folder = std::env::var_os("CARGO_MANIFEST_DIR");
    folder.map_or_else(|| env!("CARGO_MANIFEST_DIR").into(), PathBuf::from).join("..")
}

/// oidc-provider, until it is dropped.
struct Provider {
    child: Child,
    origin: String,
}

impl Provider {
    fn start(authority: &Authority, folder: &Path, appliance: &str) -> Self {
        let installed = Command::new(repository().join("scripts/install-peers.sh"))
            .args(["--print", "oidc"])
            .output()
            .unwrap();
        assert!(installed.status.success(), "oidc-provider is not installed: run scripts/install-peers.sh");
        let ca = folder.join("authority.pem");
        fs::write(&ca, &authority.pem).unwrap();
        let (cert, key) = authority.server();
        let at = |what: &str| format!("{appliance}/v1/sso/{ISSUER}/{what}");
        let settings = json!({
            "cert": cert, "key": key,
            "pems": [
                include_str!("../../appliance/sso/tests/corpus/oidc/rsa-one.pem"),
                include_str!("../../appliance/sso/tests/corpus/oidc/p256.pem"),
            ],
            "client": {
                "client_id": "zixt", "client_secret": "a secret of the test, long enough",
                "redirect_uris": [at("callback")], "response_types": ["code"],
                "grant_types": ["authorization_code"], "id_token_signed_response_alg": "ES256",
                "backchannel_logout_uri": at("logout"), "backchannel_logout_session_required": true,
            },
        });
        let mut child = Command::new("node")
            .arg(repository().join("appliance/sso/tests/peers/oidc/provider.mjs"))
            .arg(String::from_utf8(installed.stdout).unwrap().trim())
            .env("NODE_EXTRA_CA_CERTS", &ca)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(fs::File::create(folder.join("provider.log")).unwrap())
            .spawn()
            .expect("node is installed; scripts/install-deps.sh --test does it");
        writeln!(child.stdin.as_mut().unwrap(), "{settings}").unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let port = lines
            .by_ref()
            .map_while(Result::ok)
            .find_map(|line| line.strip_prefix("PORT ").map(|port| port.parse::<u16>().unwrap()));
        let port = port.expect("oidc-provider says its port");
        std::thread::spawn(move || lines.map_while(Result::ok).for_each(drop));
        Self { child, origin: format!("https://127.0.0.1:{port}") }
    }
}

impl Drop for Provider {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Goes to a URL, wherever it leads.
fn go(page: &mut Page<'_>, url: &str) {
    let opened = page.call("Page.navigate", &json!({ "url": url }));
    assert!(opened["errorText"].is_null(), "{url}: {}", opened["errorText"]);
}

/// Waits until an expression of the page gives what is wanted; the page may be on its way elsewhere meanwhile.
fn until(page: &mut Page<'_>, expression: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    let begun = Instant::now();
    loop {
        let ran = page.run(expression);
        match &ran {
            Ok(value) if wanted(value) => return value.clone(),
            _ if begun.elapsed() > PATIENCE => panic!("{expression} stays {ran:?}"),
            _ => sleep(Duration::from_millis(100)),
        }
    }
}

/// At the provider's own pages: says who it is, and agrees. Then the browser is back.
fn at_the_provider(page: &mut Page<'_>, provider: &str, name: &str, home: &str) {
    let place = "location.origin + ' ' + (document.querySelector('[name=prompt]')?.value ?? '')";
    loop {
        let where_ = until(page, place, |value| {
            let value = value.as_str().unwrap_or_default();
            value.starts_with(home)
                || value.starts_with(&format!("{provider} log"))
                || value.ends_with(" consent")
        });
        let where_ = where_.as_str().unwrap();
        if where_.starts_with(home) {
            return;
        }
        let step = if where_.ends_with("login") {
            format!(
                "(() => {{ const f = document.forms[0]; f.login.value = {name:?}; f.password.value = 'x'; f.submit(); }})()"
            )
        } else {
            "document.forms[0].submit()".to_owned()
        };
        let before = page.run("location.href");
        let _ = page.run(&step);
        until(page, "location.href", |now| Ok(now) != before.as_ref());
    }
}

/// What the page says of whoever is signed in.
const SHOWN: &str = "document.getElementById('in').hidden ? '' : document.getElementById('me').innerText";

#[test]
fn a_person_links_their_account_signs_in_by_the_provider_and_is_out_when_it_says_so() {
    let mut appliance = Appliance::lab();
    let folder = appliance.folder().to_owned();
    let alice = appliance.person("alice");
    let word = folder.join("word");
    fs::write(&word, PASSWORD).unwrap();
    alice.must(&["account", "password", "--new-password-file", word.to_str().unwrap()]);
    drop(alice);

    let authority = Authority::new();
    let port = free_port();
    let home = format!("https://127.0.0.1:{port}");
    let provider = Provider::start(&authority, &folder, &home);
    let file = |name: &str, text: &str| {
        let path = folder.join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        path.display().to_string()
    };
    let (certificate, key) = authority.server();
    let config = |redirect: &str| {
        let settings = format!(
            "issuer = {:?}\nclient_id = \"zixt\"\nredirect_uri = {redirect:?}\nauthorities_pem = '''\n{}'''\n\
             require_iss = true\n",
            provider.origin, authority.pem
        );
        format!(
            "[web]\nlisten = \"127.0.0.1:{port}\"\ncertificate = {:?}\nkey = {:?}\n\
             [[sso]]\nname = \"office\"\nissuer = \"{ISSUER}\"\nsettings = {:?}\nsecret = {:?}\n",
            file("web.pem", &certificate),
            file("web.key", &key),
            file("office.toml", &settings),
            file("office.secret", "a secret of the test, long enough\n"),
        )
    };
    appliance.stop_zixtd();
    // A provider that would send people elsewhere is a mistake, and nothing is started.
    appliance.configure(&config("https://elsewhere.test/callback"));
    appliance.spawn_zixtd();
    assert!(!appliance.comes_up());
    let told = appliance.logged("zixtd.log");
    assert!(told.contains(&format!("redirect_uri has to be {home}/v1/sso/{ISSUER}/callback")), "{told}");
    appliance.configure(&config(&format!("{home}/v1/sso/{ISSUER}/callback")));
    appliance.start_zixtd();
    appliance.until("the provider has answered", || {
        appliance.logged("zixtd.log").contains("identity provider office: ready")
    });

    let alice = appliance.known("alice");
    let mut browser = Browser::start(&authority.pem, &["127.0.0.1"]);
    let mut page = browser.page();
    page.open(&format!("{home}/"));
    let link = "document.querySelector('#ways a')?.textContent ?? ''";
    until(&mut page, link, |text| text == "Sign in with office");
    // Whom no account is linked to does not come in, whoever the provider says they are.
    go(&mut page, &format!("{home}/v1/sso/{ISSUER}/begin"));
    at_the_provider(&mut page, &provider.origin, "alice-1", &home);
    let refused = until(&mut page, "document.getElementById('told').textContent", |text| text != "");
    assert_eq!(refused, "The sign-in was not taken (sign-in-refused).");

    // She signs in with her password, on the page; the token is in a cookie that the page does not see.
    let sign_in = format!(
        "(async () => {{
            const ask = async (path, body) => (await fetch(path, {{ method: 'POST', body: JSON.stringify(body) }})).json();
            const begun = await ask('/v1/sign-in', {{ name: 'alice' }});
            const done = await ask(`/v1/sign-in/${{begun.sign_in}}/proof`, {{ factor: 'password', password: {PASSWORD:?} }});
            return [done.step, document.cookie];
        }})()"
    );
    assert_eq!(page.run(&sign_in), Ok(json!(["done", ""])));
    // She links her account: a page of the appliance asks, and the provider says who she is there.
    let link = format!(
        "fetch('/v1/me/sso-links', {{ method: 'POST', body: JSON.stringify({{ issuer: {ISSUER:?} }}) }})
            .then((answer) => answer.json()).then((answer) => answer.url)"
    );
    let url = page.run(&link).unwrap();
    go(&mut page, url.as_str().unwrap());
    at_the_provider(&mut page, &provider.origin, "alice-1", &home);
    until(&mut page, SHOWN, |text| text.as_str().is_some_and(|text| text.contains("office")));
    let told = page.run("document.getElementById('told').textContent");
    assert_eq!(told, Ok(json!("Your account is linked.")));

    // Out, and in again on the provider's word alone.
    let _ = page.run("document.getElementById('leave').click()");
    until(&mut page, "document.querySelector('#ways a')?.textContent ?? ''", |text| text != "");
    let _ = page.run("document.querySelector('#ways a').click()");
    at_the_provider(&mut page, &provider.origin, "alice-1", &home);
    let shown = until(&mut page, SHOWN, |text| text != "");
    assert!(shown.as_str().unwrap().contains("alice"), "{shown}");
    assert_eq!(page.run("document.cookie"), Ok(json!("")));
    let sessions = alice.json(&["account", "sessions"]);
    let by_sso = |sessions: &Value| {
        let all = sessions["sessions"].as_array().unwrap();
        all.iter().filter(|session| session["factors"] == json!(["sso"])).count()
    };
    assert_eq!(by_sso(&sessions), 1, "{sessions}");
    // The provider's word gives access, and nothing that a proof of her own is needed for.
    let forbidden = "fetch('/v1/me/totp', { method: 'POST' }).then((answer) => answer.status)";
    assert_eq!(page.run(forbidden), Ok(json!(403)));
    // An answer of before is good no more, and one that another browser began neither.
    go(&mut page, &format!("{home}/v1/sso/{ISSUER}/callback?code=abc&state=def&iss={}", provider.origin));
    let refused = until(&mut page, "document.getElementById('told').textContent", |text| text != "");
    assert_eq!(refused, "The sign-in was not taken (unknown-sign-in).");

    // She ends her session at the provider: it tells the appliance, and her session here is over.
    go(&mut page, &format!("{home}/v1/sso/{ISSUER}/end"));
    until(&mut page, "location.origin", |origin| origin == &json!(provider.origin));
    let _ = page.run("document.querySelector('button[name=logout]').click()");
    appliance.until("the provider's log-out has come", || by_sso(&alice.json(&["account", "sessions"])) == 0);
    page.open(&format!("{home}/"));
    until(&mut page, "document.getElementById('out').hidden", |hidden| hidden == &json!(false));
    assert_eq!(page.run("fetch('/v1/me').then((answer) => answer.status)"), Ok(json!(401)));
    // Her device and its keys are as they were.
    alice.must(&["sync"]);
    let audit = appliance.must("zixt-admin", &["audit", "show", "--run", appliance.run().to_str().unwrap()]);
    assert!(audit.contains("\"sso\"") && audit.contains("\"sessions-revoked\""), "{audit}");
}
