//! A real browser, driven over the DevTools protocol: Chromium with a profile, an authority and an authenticator of its own,
//! which goes away with its value. It looks up no name and reaches nothing but this machine.
//!
//! The protocol's messages go through a pipe (`--remote-debugging-pipe`: JSON, each ended by a zero byte), so there is no
//! port that anybody else could find.

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use serde_json::{Value, json};
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Instant;
use tempfile::TempDir;

use crate::{PATIENCE, text};

/// A browser.
pub struct Browser {
    child: Child,
    to: ChildStdin,
    from: Receiver<Value>,
    number: u64,
    folder: TempDir,
}

/// What a page's script ended with: a value, or what it threw.
pub type Ran = Result<Value, String>;

impl Browser {
    /// Starts a browser that trusts one authority (a certificate in PEM, for this profile alone) and finds these hosts on
    /// this machine, and no others. A host may begin with `*.`.
    #[must_use]
    pub fn start(authority: &str, hosts: &[&str]) -> Self {
        let folder = tempfile::Builder::new().prefix("zixt-browser-").tempdir().expect("a folder");
        trust(folder.path(), authority);
        let here = hosts.iter().map(|host| format!("MAP {host} 127.0.0.1,")).collect::<String>();
        let mut command = Command::new("sh");
        // The browser reads from descriptor 3 and writes to 4. A shell puts them there, because a standard library has no
        // safe way to.
        command
            .args(["-c", "exec chromium \"$@\" 3<&0 4>&1 </dev/null >/dev/null", "sh"])
            .args(["--headless=new", "--remote-debugging-pipe"])
            // Only because tests run as root, for whom Chromium has no sandbox; the pages are our own.
            .arg("--no-sandbox")
            .args(["--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--disable-extensions"])
            // Nothing that a browser does by itself: no updates, no reports, no look-ups.
            .args(["--disable-background-networking", "--disable-component-update", "--disable-sync"])
            .arg(format!("--user-data-dir={}", folder.path().join("profile").display()))
            .arg(format!("--host-resolver-rules={here}MAP * ~NOTFOUND"))
            .arg("about:blank")
            .env("HOME", folder.path())
            .env_remove("XDG_CONFIG_HOME")
            .env_remove("XDG_DATA_HOME")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(fs::File::create(folder.path().join("log")).expect("a log"))
            // With its helpers in one group, so that all of them end.
            .process_group(0);
        let mut child = command.spawn().expect("sh starts");
        let to = child.stdin.take().expect("its input");
        let mut output = BufReader::new(child.stdout.take().expect("its output"));
        let (tell, from) = channel();
        std::thread::spawn(move || {
            let mut message = Vec::new();
            // Ends with the browser.
            while output.read_until(0, &mut message).is_ok_and(|length| length > 0) {
                message.pop();
                let said = serde_json::from_slice(&message).expect("the browser speaks JSON");
                message.clear();
                if tell.send(said).is_err() {
                    break;
                }
            }
        });
        let mut browser = Self { child, to, from, number: 0, folder };
        browser.call(None, "Browser.getVersion", &json!({}));
        browser
    }

    /// A new page.
    pub fn page(&mut self) -> Page<'_> {
        let target = self.call(None, "Target.createTarget", &json!({"url": "about:blank"}));
        let attach = json!({"targetId": target["targetId"], "flatten": true});
        let attached = self.call(None, "Target.attachToTarget", &attach);
        let session = attached["sessionId"].as_str().expect("a session").to_owned();
        let mut page = Page { browser: self, session };
        page.call("Page.enable", &json!({}));
        page
    }

    /// Asks and waits for the answer; fails if it is an error.
    fn call(&mut self, session: Option<&str>, method: &str, parameters: &Value) -> Value {
        self.ask(session, method, parameters).unwrap_or_else(|error| panic!("{method}: {error}"))
    }

    /// Asks and waits for the answer, which may be an error.
    fn ask(&mut self, session: Option<&str>, method: &str, parameters: &Value) -> Result<Value, String> {
        self.number += 1;
        let number = self.number;
        let mut message = json!({"id": number, "method": method, "params": parameters});
        if let Some(session) = session {
            message["sessionId"] = session.into();
        }
        let mut bytes = serde_json::to_vec(&message).expect("JSON");
        bytes.push(0);
        if let Err(error) = self.to.write_all(&bytes).and_then(|()| self.to.flush()) {
            panic!("{method}: the browser has ended ({error}); is chromium installed?\n{}", self.log());
        }
        let start = Instant::now();
        loop {
            let left = PATIENCE.saturating_sub(start.elapsed());
            match self.from.recv_timeout(left) {
                Ok(said) if said["id"] == number => {
                    let error = &said["error"];
                    return if error.is_null() { Ok(said["result"].clone()) } else { Err(error.to_string()) };
                }
                // Events, which nobody waits for.
                Ok(_) => {}
                Err(RecvTimeoutError::Timeout) => panic!("{method}: no answer\n{}", self.log()),
                Err(RecvTimeoutError::Disconnected) => {
                    panic!("{method}: the browser has ended; is chromium installed?\n{}", self.log())
                }
            }
        }
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let group = Pid::from_raw(i32::try_from(self.child.id()).expect("a pid"));
        // It may have ended by itself.
        let _gone_already = killpg(group, Signal::SIGKILL);
        let _reaped = self.child.wait();
    }
}

/// A page of a browser.
pub struct Page<'a> {
    browser: &'a mut Browser,
    session: String,
}

impl Page<'_> {
    /// Asks the browser about this page (Chrome DevTools Protocol).
    pub fn call(&mut self, method: &str, parameters: &Value) -> Value {
        self.browser.call(Some(&self.session), method, parameters)
    }

    /// Opens a URL and waits until the page is complete.
    pub fn open(&mut self, url: &str) {
        let opened = self.call("Page.navigate", &json!({"url": url}));
        assert!(opened["errorText"].is_null(), "{url}: {}", opened["errorText"]);
        let start = Instant::now();
        let is_there = format!("document.readyState === 'complete' && location.href === {}", json!(url));
        while self.run(&is_there) != Ok(Value::Bool(true)) {
            assert!(start.elapsed() < PATIENCE, "{url} does not load: {:?}", self.run("location.href"));
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    }

    /// The error with which a URL does not open.
    #[must_use]
    pub fn fails_to_open(&mut self, url: &str) -> Option<String> {
        let opened = self.call("Page.navigate", &json!({"url": url}));
        opened["errorText"].as_str().map(str::to_owned)
    }

    /// Runs an expression in the page, as if its user had just clicked, and waits for what it promises.
    pub fn run(&mut self, expression: &str) -> Ran {
        let parameters = json!({
            "expression": expression,
            "awaitPromise": true,
            "returnByValue": true,
            "userGesture": true,
        });
        // A page that goes elsewhere meanwhile answers with an error.
        let ran = self.browser.ask(Some(&self.session), "Runtime.evaluate", &parameters)?;
        match ran["exceptionDetails"]["exception"]["description"].as_str() {
            Some(thrown) => Err(thrown.to_owned()),
            None if ran["exceptionDetails"].is_null() => Ok(ran["result"]["value"].clone()),
            None => Err(ran["exceptionDetails"].to_string()),
        }
    }

    /// Plugs in an authenticator (CTAP 2.1 over USB, with PIN or biometrics), whose user touches it at once.
    pub fn plug_in_authenticator(&mut self) -> Authenticator {
        self.call("WebAuthn.enable", &json!({"enableUI": false}));
        let options = json!({
            "protocol": "ctap2",
            "ctap2Version": "ctap2_1",
            "transport": "usb",
            "hasResidentKey": true,
            "hasUserVerification": true,
            "isUserVerified": true,
            "automaticPresenceSimulation": true,
        });
        let added = self.call("WebAuthn.addVirtualAuthenticator", &json!({"options": options}));
        Authenticator(added["authenticatorId"].as_str().expect("an authenticator").to_owned())
    }

    /// Whether the authenticator's user gives the right PIN from now on.
    pub fn verify_user(&mut self, authenticator: &Authenticator, verified: bool) {
        let parameters = json!({"authenticatorId": authenticator.0, "isUserVerified": verified});
        self.call("WebAuthn.setUserVerified", &parameters);
    }

    /// The credentials in the authenticator, private keys included.
    pub fn credentials(&mut self, authenticator: &Authenticator) -> Vec<Value> {
        let got = self.call("WebAuthn.getCredentials", &json!({"authenticatorId": authenticator.0}));
        got["credentials"].as_array().expect("a list").clone()
    }

    /// Replaces a credential by a copy that differs, as who has copied the key could.
    pub fn replace_credential(&mut self, authenticator: &Authenticator, credential: &Value) {
        let id = json!({"authenticatorId": authenticator.0, "credentialId": credential["credentialId"]});
        self.call("WebAuthn.removeCredential", &id);
        let parameters = json!({"authenticatorId": authenticator.0, "credential": credential});
        self.call("WebAuthn.addCredential", &parameters);
    }
}

/// An authenticator that is plugged in.
pub struct Authenticator(String);

/// Puts the authority where Chromium looks for those of its user: a database of NSS in the home folder.
fn trust(home: &Path, authority: &str) {
    let database = home.join(".pki/nssdb");
    fs::create_dir_all(&database).expect("a folder");
    let file: PathBuf = home.join("authority.pem");
    fs::write(&file, authority).expect("a write");
    let of = format!("sql:{}", database.display());
    for arguments in [&["-N", "--empty-password"][..], &["-A", "-n", "lab", "-t", "C,,", "-i"]] {
        let mut command = Command::new("certutil");
        command.args(["-d", &of]).args(arguments);
        if arguments[0] == "-A" {
            command.arg(&file);
        }
        let output = command.output().expect("certutil runs (Debian: libnss3-tools)");
        assert!(output.status.success(), "{}", text(&output));
    }
}
