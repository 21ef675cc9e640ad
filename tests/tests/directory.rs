//! A directory decides who comes in, with the real programs: `zixtd`, `zixt`, `zixt-admin`, OpenLDAP and curl.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests; helpers outside #[test] functions count as well"
)]

use peers::certificates::Authority;
use peers::slapd::{self, SUFFIX, Slapd, password};
use serde_json::{Value, json};
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use zixt_tests::officers::Officers;
use zixt_tests::{Appliance, text};

#[path = "../../appliance/directory/tests/peers/mod.rs"]
mod peers;

const ISSUER: &str = "0f0e0d0c0b0a09080706050403020100";

/// Calls the API as a program of somebody else's would.
fn curl(folder: &Path, url: &str, arguments: &[&str]) -> (u16, Value) {
    let output = Command::new("curl")
        .args(["--silent", "--show-error", "--tlsv1.3", "--cacert"])
        .arg(folder.join("web.pem"))
        .args(["--write-out", "\n%{http_code}", url])
        .args(arguments)
        .output()
        .expect("curl is installed; scripts/install-deps.sh --test does it");
    assert!(output.status.success(), "{url}: {}", text(&output));
    let all = String::from_utf8_lossy(&output.stdout);
    let (body, status) = all.rsplit_once('\n').unwrap();
    (status.parse().unwrap(), serde_json::from_str(body).unwrap_or(Value::Null))
}

#[test]
fn a_directory_lets_people_in_and_out() {
    let authority = Authority::new();
    let mut slapd = Slapd::new(&authority, ("", ""));
    slapd.load(&["ann", "ben"].map(slapd::person).concat());
    slapd.go();

    let mut appliance = Appliance::lab();
    let officers = Officers::of(&appliance);
    let root = appliance.person("root");
    let account = root.json(&["whoami"])["account"].as_str().unwrap().to_owned();
    let transcript = officers.proposed(&appliance, &["set-roles", &account, "administrator"], [1, 3]);
    appliance.hsm(&["apply", &transcript]);
    let store = appliance.folder().join("people/root");
    assert!(store.exists());
    drop(root);

    // The administrator sets a directory up, and a listener for programs. What is wrong is told, and nothing is started.
    let folder = appliance.folder().to_owned();
    let file = |name: &str, text: &str| {
        let path = folder.join(name);
        fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let settings = file(
        "office.toml",
        &format!(
            "name = \"office\"\nissuer = \"{ISSUER}\"\nkind = \"ldap\"\nservers = [{:?}]\nbind_dn = {:?}\n\
             people = [\"ou=people,{SUFFIX}\"]\ninterval_s = 5\nconnect_timeout_s = 20\n",
            slapd.ldaps_url(),
            slapd::READER
        ),
    );
    let secret = file("office.password", &format!("{}\n", slapd::READER_PASSWORD));
    let port = peers::free_port();
    let config = format!(
        "[web]\nlisten = \"127.0.0.1:{port}\"\n[[directory]]\nsettings = {settings:?}\npassword = {secret:?}\n\
         ca = {:?}\n",
        authority.pem_file().display().to_string()
    );
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o644)).unwrap();
    appliance.stop_zixtd();
    appliance.configure(&config);
    appliance.spawn_zixtd();
    assert!(!appliance.comes_up(), "a password that everybody can read is refused");
    let told = appliance.logged("zixtd.log");
    assert!(told.contains("is open to every user of this machine; chmod o-rwx it"), "{told}");
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o640)).unwrap();
    appliance.start_zixtd();
    let root = appliance.known("root");
    appliance.until("the directory was read", || {
        root.json(&["people", "directories"])["directories"][0]["people"] == 2
    });
    let status = text(&appliance.admin(&["status"]));
    assert!(status.contains("directory    office") && status.contains("2 people, read"), "{status}");
    assert!(status.contains(&format!("https://127.0.0.1:{port}, certificate SHA-256 ")), "{status}");

    // Ann links her account with the directory's password, and is listed with it.
    let (ann, bob) = (appliance.person("ann"), appliance.person("bob"));
    let word = file("word", "not that\n");
    let link = ["account", "link", "office", "ann", "--directory-password-file", &word];
    let refused = ann.refused(&link, 5);
    assert!(refused.contains("sign-in-refused"), "{refused}");
    fs::write(&word, password("ann")).unwrap();
    ann.must(&link);
    let me = ann.json(&["account", "show"]);
    assert_eq!((&me["links"][0]["name"], &me["links"][0]["login"]), (&json!("office"), &json!("ann")));
    assert!(ann.must(&["account", "show"]).contains("linked to     ann at office"));

    // A program signs in as her with that password, over a listener that curl understands; its token is good there alone.
    let certificate = appliance.state().join("server/web/127.0.0.1.pem");
    fs::copy(certificate, appliance.folder().join("web.pem")).unwrap();
    let at = |path: &str| format!("https://127.0.0.1:{port}{path}");
    let (code, ways) = curl(&folder, &at("/v1/sign-in/ways"), &[]);
    assert_eq!((code, &ways["ways"][0]["name"]), (200, &json!("office")));
    let begin = json!({ "name": "ann", "directory": "office" }).to_string();
    let (code, begun) = curl(&folder, &at("/v1/sign-in"), &["--json", &begin]);
    assert_eq!(code, 200, "{begun}");
    let proof = json!({ "factor": "directory", "password": password("ann") }).to_string();
    let path = at(&format!("/v1/sign-in/{}/proof", begun["sign_in"].as_str().unwrap()));
    let (code, done) = curl(&folder, &path, &["--json", &proof]);
    assert_eq!((code, &done["step"]), (200, &json!("done")), "{done}");
    let token = format!("Authorization: Bearer {}", done["token"].as_str().unwrap());
    assert_eq!(curl(&folder, &at("/v1/me"), &["-H", &token]).1["name"], "ann");
    assert_eq!(curl(&folder, &at("/v1/me"), &[]).0, 401);
    let other = curl(&folder, &at("/v1/me"), &["-H", &token, "-H", "Host: evil.test"]);
    assert_eq!((other.0, &other.1["code"]), (400, &json!("malformed-request")));
    // What takes a device is not there.
    assert_eq!(curl(&folder, &at("/v1/key-packages"), &["-H", &token]).0, 404);

    // Ben is invited by who he is at the directory.
    let refused = appliance.admin(&["invite", "ben", "--directory", "office", "--login", "nobody", "--json"]);
    assert!(!refused.status.success() && text(&refused).contains("unknown-person"), "{}", text(&refused));
    let invited = appliance.admin(&["invite", "ben", "--directory", "office", "--login", "ben", "--json"]);
    assert!(invited.status.success(), "{}", text(&invited));
    assert_eq!(root.json(&["people", "show", "ben"])["links"][0]["login"], "ben");

    // She is disabled there: her open stream ends and her program is out, though nobody did anything here.
    bob.must(&["send", "ann", "before"]);
    ann.must(&["sync"]);
    let mut watching = ann.command();
    let mut watching = watching.args(["watch"]).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut lines = BufReader::new(watching.stdout.take().unwrap()).lines();
    assert!(lines.by_ref().map(Result::unwrap).any(|line| line.contains("up")), "the stream stands");
    slapd.change(&format!(
        "dn: uid=ann,ou=people,{SUFFIX}\nchangetype: modify\nreplace: pwdAccountLockedTime\n\
         pwdAccountLockedTime: 000001010000Z\n\n"
    ));
    root.must(&["people", "read-directory", ISSUER]);
    let down = lines.map(Result::unwrap).find(|line| line.contains("down"));
    assert!(down.is_some_and(|line| line.contains("sign-in")));
    watching.kill().unwrap();
    watching.wait().unwrap();
    assert_eq!(root.json(&["people", "show", "ann"])["status"], "suspended");
    assert_eq!(curl(&folder, &at("/v1/me"), &["-H", &token]).0, 401);
    assert!(ann.refused(&["sync"], 5).contains("sign-in-refused"));
    let audit = appliance.must("zixt-admin", &["audit", "show", "--run", appliance.run().to_str().unwrap()]);
    assert!(audit.contains("\"account-suspended\"") && audit.contains("\"office\""), "{audit}");

    // And comes back.
    slapd.change(&format!(
        "dn: uid=ann,ou=people,{SUFFIX}\nchangetype: modify\ndelete: pwdAccountLockedTime\n\n"
    ));
    appliance.until("ann is in again", || root.json(&["people", "show", "ann"])["status"] == "active");
    ann.must(&["sync"]);
    assert!(ann.must(&["read", "bob"]).contains("before"));
}
