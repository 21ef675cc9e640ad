//! Figures of sign-in for `make bench`: how close it comes to what Argon2id allows, what is left for messages meanwhile, how
//! soon somebody is out, and what the programs of the directory and of single sign-on measure themselves.

use crate::Appliance;
use crate::officers::Officers;
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;
use zixt_client::{Client, ClientEvent, Deed};
use zixt_crypto::password::SALT_BYTES;
use zixt_types::AccountId;

const PASSWORD: &str = "seven tall trees lean west";
/// Connections that sign in at the same time: more than there are turns to hash, and fewer than may wait for one.
const CROWD: usize = 16;
/// Times that somebody is held and let in again.
const REVOCATIONS: usize = 11;

/// Everything about people, by the names in the report. `span` is how long each rate is counted.
///
/// # Panics
/// A measurement that cannot be made is none.
pub async fn measure(programs: Option<&Path>, span: Duration) -> Vec<(&'static str, Value)> {
    let mut appliance = Appliance::lab_of(programs.map(Path::to_owned), &[]);
    let web = SocketAddr::from(([127, 0, 0, 1], free_port()));
    appliance.stop_zixtd();
    appliance.configure(&format!("[web]\nlisten = \"{web}\"\n"));
    appliance.start_zixtd();
    let officers = Officers::of(&appliance);
    let root = appliance.person("root");
    let account = root.json(&["whoami"])["account"].as_str().expect("an account").to_owned();
    let transcript = officers.proposed(&appliance, &["set-roles", &account, "administrator"], [1, 3]);
    appliance.hsm(&["apply", &transcript]);
    appliance.until("root is an administrator", || {
        root.json(&["account", "show"])["roles"] == json!(["administrator"])
    });
    let word = appliance.folder().join("word");
    std::fs::write(&word, format!("{PASSWORD}\n")).expect("a file");
    // One account for each of the crowd: tries at one account at once are held back, as they should be.
    for at in 0..CROWD {
        let person = appliance.person(&member(at));
        person.must(&["account", "password", "--new-password-file", word.to_str().expect("a path")]);
    }
    let _ = (appliance.person("alice"), appliance.person("bob"));
    let certificate = appliance.state().join("server/web/127.0.0.1.pem");
    let pem = std::fs::read(certificate).expect("the web listener's certificate");
    let tls = zixt_crypto_fast::pkix::client_config(&pem, None).expect("TLS");

    let limit = argon2_per_s(span);
    let alone = storm(web, &tls, span, || async { 0 }).await;
    // Before the store is open: one program at a time has it.
    let account = appliance.known("bob").json(&["whoami"]);
    let account = AccountId::from_hex(account["account"].as_str().expect("an account")).expect("an id");
    let (alice, bob) = (client(&appliance, "alice").await, client(&appliance, "bob").await);
    let thread = alice.start_conversation(&["bob"], None).await.expect("a conversation");
    let talk = || async {
        let (begun, mut sent) = (Instant::now(), 0u64);
        while begun.elapsed() < span {
            alice.send(thread, &format!("message {sent}")).await.expect("queued");
            sent += alice.flush().await.expect("recorded") as u64;
        }
        sent
    };
    talk().await;
    let quiet = talk().await;
    let during = storm(web, &tls, span, talk).await;
    let again = talk().await;
    // What a noisy machine did between the two is not the storm's.
    let usual = (quiet + again) as f64 / 2.0;
    let administrator = client(&appliance, "root").await;
    let mut closed = revocations(&administrator, &bob, account).await;
    closed.sort_unstable();
    let share = |part: f64, whole: f64| (part / whole * 1e3).round() / 1e3;
    let mut figures = vec![
        ("people.argon2_per_s", json!((limit * 10.0).round() / 10.0)),
        ("people.signin_per_s", json!((alone.sign_ins_per_s * 10.0).round() / 10.0)),
        ("people.signin_share", json!(share(alone.sign_ins_per_s, limit))),
        ("people.messages_during_storm_share", json!(share(during.beside as f64, usual))),
        ("people.signin_per_s_beside_messages", json!((during.sign_ins_per_s * 10.0).round() / 10.0)),
        ("people.revoke_to_closed_ms", json!((closed[closed.len() / 2].as_secs_f64() * 1e5).round() / 1e2)),
        (
            "people.revoke_to_closed_max_ms",
            json!((closed[closed.len() - 1].as_secs_f64() * 1e5).round() / 1e2),
        ),
    ];
    drop((alice, bob));
    for (example, names) in [
        (
            "measure_sync",
            &["people.sync_50k_s", "people.incremental_s", "people.unchanged_s", "people.sync_rss_mib"][..],
        ),
        (
            "corpora",
            &[
                "people.hostile_saml_refused",
                "people.hostile_saml_total",
                "people.hostile_oidc_refused",
                "people.hostile_oidc_total",
            ],
        ),
    ] {
        let measured = example_of(programs, example);
        figures.extend(names.iter().map(|name| (*name, measured[*name].clone())));
    }
    figures
}

/// The name of one of the crowd.
fn member(at: usize) -> String {
    format!("crowd {at}")
}

fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("a port");
    listener.local_addr().expect("its address").port()
}

async fn client(appliance: &Appliance, name: &str) -> Client {
    let folder = appliance.folder().join("people").join(name);
    Client::open(&folder, crate::PASSPHRASE.as_bytes()).await.expect("the store opens")
}

/// How often this machine hashes with the server's parameters, by as many threads as the server lets hash: one less than
/// there are cores.
fn argon2_per_s(span: Duration) -> f64 {
    let threads = std::thread::available_parallelism().map_or(1, |cores| (cores.get() - 1).max(1));
    let count = AtomicU64::new(0);
    let begun = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while begun.elapsed() < span {
                    let params = zixt_crypto::password::Params::DEFAULT;
                    zixt_crypto::password::derive(params, &[7; SALT_BYTES], PASSWORD.as_bytes())
                        .expect("a hash");
                    count.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
    });
    count.load(Ordering::Relaxed) as f64 / begun.elapsed().as_secs_f64()
}

struct Storm {
    sign_ins_per_s: f64,
    beside: u64,
}

/// Signs in from many connections at once, by a password, for as long as `beside` takes, and at least for the span.
async fn storm<F: Future<Output = u64>>(
    web: SocketAddr,
    tls: &Arc<rustls::ClientConfig>,
    span: Duration,
    beside: impl FnOnce() -> F,
) -> Storm {
    let (over, count) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let mut crowd = Vec::new();
    for at in 0..CROWD {
        let mut connection = Connection::open(web, Arc::clone(tls), member(at)).await;
        let (over, count) = (Arc::clone(&over), Arc::clone(&count));
        crowd.push(tokio::spawn(async move {
            while !over.load(Ordering::Relaxed) {
                if connection.sign_in().await {
                    count.fetch_add(1, Ordering::Relaxed);
                }
            }
        }));
    }
    let begun = Instant::now();
    let beside = beside().await;
    tokio::time::sleep(span.saturating_sub(begun.elapsed())).await;
    let sign_ins_per_s = count.load(Ordering::Relaxed) as f64 / begun.elapsed().as_secs_f64();
    over.store(true, Ordering::Relaxed);
    for one in crowd {
        one.await.expect("the crowd goes home");
    }
    Storm { sign_ins_per_s, beside }
}

/// A connection of HTTP/1.1 that is used again and again, as a program of somebody else's would.
struct Connection(BufReader<TlsStream<TcpStream>>, SocketAddr, String);

impl Connection {
    async fn open(web: SocketAddr, tls: Arc<rustls::ClientConfig>, name: String) -> Self {
        let stream = TcpStream::connect(web).await.expect("the web listener answers");
        stream.set_nodelay(true).expect("an option");
        let host = rustls::pki_types::ServerName::from(web.ip());
        let stream = tokio_rustls::TlsConnector::from(tls).connect(host, stream).await.expect("TLS");
        Self(BufReader::new(stream), web, name)
    }

    async fn post(&mut self, path: &str, body: &Value) -> (u16, Value) {
        let body = body.to_string();
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            self.1,
            body.len()
        );
        self.0.write_all(format!("{head}{body}").as_bytes()).await.expect("sent");
        self.0.flush().await.expect("sent");
        let (mut status, mut length) = (0, 0);
        loop {
            let mut line = String::new();
            assert_ne!(self.0.read_line(&mut line).await.expect("an answer"), 0, "the connection ended");
            let line = line.trim_end().to_ascii_lowercase();
            if let Some(rest) = line.strip_prefix("http/1.1 ") {
                status = rest[..3].parse().expect("a status");
            } else if let Some(value) = line.strip_prefix("content-length:") {
                length = value.trim().parse().expect("a length");
            } else if line.is_empty() {
                break;
            }
        }
        let mut body = vec![0; length];
        self.0.read_exact(&mut body).await.expect("the body");
        (status, serde_json::from_slice(&body).unwrap_or_default())
    }

    /// `false` if the appliance is too busy for it.
    async fn sign_in(&mut self) -> bool {
        let who = json!({ "name": self.2 });
        let (status, begun) = self.post("/v1/sign-in", &who).await;
        assert_eq!(status, 200, "{begun}");
        let path = format!("/v1/sign-in/{}/proof", begun["sign_in"].as_str().expect("an id"));
        let proof = json!({ "factor": "password", "password": PASSWORD });
        let (status, answer) = self.post(&path, &proof).await;
        match status {
            200 => assert_eq!(answer["step"], "done", "{answer}"),
            503 => {}
            _ => panic!("a right password is refused: {answer}"),
        }
        status == 200
    }
}

/// From the moment at which an administrator's request is sent to the end of the other's open stream, as the other sees it.
async fn revocations(root: &Client, bob: &Client, account: AccountId) -> Vec<Duration> {
    let (events, mut told) = tokio::sync::mpsc::channel(64);
    let listening = tokio::spawn({
        let bob = bob.clone();
        async move { bob.run(events).await }
    });
    let mut taken = Vec::new();
    for _ in 0..REVOCATIONS {
        while !matches!(told.recv().await.expect("bob listens"), ClientEvent::ConnectionUp) {}
        let begun = Instant::now();
        let closed = async {
            while !matches!(told.recv().await.expect("bob listens"), ClientEvent::ConnectionDown { .. }) {}
            begun.elapsed()
        };
        let (done, closed) = tokio::join!(root.deal(account, &Deed::Suspend), closed);
        done.expect("suspended");
        taken.push(closed);
        root.deal(account, &Deed::Resume).await.expect("resumed");
    }
    listening.abort();
    taken
}

/// What a measuring program beside these says.
fn example_of(programs: Option<&Path>, name: &str) -> Value {
    let folder = programs
        .map(Path::to_owned)
        .or_else(|| std::env::current_exe().ok().and_then(|path| path.parent().map(PathBuf::from)));
    let Some(example) = folder.map(|folder| folder.join("examples").join(name)) else { return Value::Null };
    let Ok(output) = Command::new(example).output() else { return Value::Null };
    serde_json::from_slice(&output.stdout).unwrap_or_default()
}
