//! A device made by hand: its keys are the test's, and it writes what it likes over the real PQ-TLS listener.

use rustls::{ClientConfig, ClientConnection, StreamOwned};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use zixt_api::{
    Bytes64, EnrolRequest, ErrorCode, Invitation, Problem, SignInBegun, SignInProof, SignInRequest,
    SignInStep, SubmissionItem, SubmitRequest, endpoints,
};
use zixt_crypto::{Backend, SigningKey, SigningSeed, cose, digest, labels};
use zixt_crypto_fast::AwsLc;
use zixt_crypto_fast::tls::{PinnedKey, client_config, server_name};
use zixt_identity::{Challenge, DeviceProof};
use zixt_ledger::label_for;
use zixt_types::{
    Author, Body, Canonical as _, Epoch, Hash, Member, MessageId, Payload, SuiteId, ThreadId, Timestamp,
};

/// What the appliance answered.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub body: Vec<u8>,
}

impl Answer {
    /// The problem that it is; `None` if it is none.
    pub fn problem(&self) -> Option<Problem> {
        serde_json::from_slice(&self.body).ok()
    }
}

/// A way to the listener with one TLS key.
pub struct Wire {
    pub address: SocketAddr,
    pub config: Arc<ClientConfig>,
    /// The token of the session that was opened with it.
    session: OnceLock<String>,
}

pub type Tls = StreamOwned<ClientConnection, TcpStream>;

impl Wire {
    /// With a TLS key that nobody knows.
    pub fn stranger(invitation: &Invitation) -> Self {
        Self::with(invitation, fresh(invitation.suite))
    }

    fn with(invitation: &Invitation, tls: Box<dyn SigningKey>) -> Self {
        let pin = PinnedKey(invitation.tls);
        let config = client_config(invitation.suite, Arc::new(tls), pin).expect("a TLS configuration");
        let address = invitation.address.parse().expect("an address");
        Self { address, config, session: OnceLock::new() }
    }

    /// Signs in as `zixt` does.
    fn sign_in(&self, member: Member, identity: &dyn SigningKey) {
        let request = SignInRequest { account: Some(member.account.into()), name: None, directory: None };
        let request = serde_json::to_vec(&request).expect("JSON");
        let answer = self.call("POST", endpoints::SIGN_IN, &request);
        let begun: SignInBegun = serde_json::from_slice(&answer.body).expect("a sign-in");
        let challenge = Challenge::parse(&begun.challenge.0).expect("a challenge");
        let proof =
            DeviceProof::sign(identity, &challenge, member.account, member.device).expect("a signature");
        let proof = SignInProof::DeviceKey { proof: proof.to_bytes().into() };
        let proof = serde_json::to_vec(&proof).expect("JSON");
        let answer = self.call("POST", &endpoints::fill(endpoints::SIGN_IN_PROOF, &[&begun.sign_in]), &proof);
        let step: SignInStep = serde_json::from_slice(&answer.body).expect("a step");
        let SignInStep::Done { token, .. } = step else { panic!("a device's key is enough") };
        self.session.set(token.expose().to_owned()).expect("signed in once");
    }

    /// The line of a request's head that shows the session, if there is one.
    pub fn authorization(&self) -> String {
        self.session.get().map_or_else(String::new, |token| format!("Authorization: Bearer {token}\r\n"))
    }

    pub fn open(&self) -> Tls {
        open(self.address, Arc::clone(&self.config)).expect("a connection")
    }

    /// One request on a connection of its own.
    pub fn call(&self, method: &str, path: &str, body: &[u8]) -> Answer {
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: zixt\r\n{}Content-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            self.authorization(),
            body.len()
        );
        self.raw(&[head.as_bytes(), body]).expect("an answer")
    }

    pub fn get(&self, path: &str) -> Answer {
        self.call("GET", path, b"")
    }

    /// Writes these bytes and reads one answer; `None` if the appliance closed without one. A refusal may come while
    /// we are still writing.
    pub fn raw(&self, parts: &[&[u8]]) -> Option<Answer> {
        let mut stream = self.open();
        for part in parts {
            if stream.write_all(part).and_then(|()| stream.flush()).is_err() {
                break;
            }
        }
        answer(&mut stream)
    }

    pub fn submit(&self, items: Vec<SubmissionItem>) -> Answer {
        let request = SubmitRequest { submissions: items };
        self.call("POST", zixt_api::endpoints::SUBMISSIONS, &serde_json::to_vec(&request).expect("JSON"))
    }

    pub fn enrol(&self, submission: SubmissionItem, name: Option<String>) -> Answer {
        let request = EnrolRequest { submission, name };
        self.call("POST", zixt_api::endpoints::ENROL, &serde_json::to_vec(&request).expect("JSON"))
    }
}

/// Connects and finishes the handshake.
pub fn open(address: SocketAddr, config: Arc<ClientConfig>) -> std::io::Result<Tls> {
    let tcp = TcpStream::connect(address)?;
    tcp.set_read_timeout(Some(Duration::from_secs(60)))?;
    tcp.set_write_timeout(Some(Duration::from_secs(60)))?;
    tcp.set_nodelay(true)?;
    let connection = ClientConnection::new(config, server_name()).map_err(std::io::Error::other)?;
    let mut stream = StreamOwned::new(connection, tcp);
    while stream.conn.is_handshaking() {
        stream.conn.complete_io(&mut stream.sock)?;
    }
    Ok(stream)
}

/// Reads one HTTP answer.
pub fn answer(stream: &mut impl Read) -> Option<Answer> {
    let mut bytes = Vec::new();
    let mut chunk = [0; 16 * 1024];
    let mut wanted = usize::MAX;
    let mut head = 0;
    while bytes.len() < wanted {
        match stream.read(&mut chunk) {
            Ok(0) | Err(_) => break,
            Ok(count) => bytes.extend_from_slice(&chunk[..count]),
        }
        if head == 0
            && let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n")
        {
            head = end + 4;
            let text = String::from_utf8_lossy(&bytes[..end]).to_lowercase();
            let length = text.lines().find_map(|line| line.strip_prefix("content-length:"));
            wanted = head + length.and_then(|length| length.trim().parse::<usize>().ok()).unwrap_or(0);
        }
    }
    if head == 0 {
        return None;
    }
    let status = std::str::from_utf8(bytes.get(9..12)?).ok()?.parse().ok()?;
    Some(Answer { status, body: bytes.split_off(head) })
}

/// A signing key that was never used.
pub fn fresh(suite: SuiteId) -> Box<dyn SigningKey> {
    AwsLc.signing_key(suite, &SigningSeed::generate().expect("randomness")).expect("a key")
}

/// The keys of a device that is not in the ledger yet, and the addition that its invitation signs.
pub struct Newcomer {
    pub identity: Box<dyn SigningKey>,
    pub wire: Wire,
    pub body: Body,
    pub invitation: Box<dyn SigningKey>,
    pub attachments: Vec<Vec<u8>>,
}

impl Newcomer {
    pub fn of(invitation: &Invitation) -> Self {
        let suite = invitation.suite;
        let (identity, mls, tls) = (fresh(suite), fresh(suite), fresh(suite));
        let seed = SigningSeed::from_bytes(invitation.seed.as_bytes());
        let key = AwsLc.signing_key(suite, &seed).expect("the invitation's key");
        let hash = |key: &dyn SigningKey| digest::key_hash(suite, key.public_key());
        let payload = Payload::DeviceAdd {
            device: digest::device_id(hash(&*identity)),
            identity: hash(&*identity),
            mls: hash(&*mls),
            tls: hash(&*tls),
        };
        let thread = digest::account_thread(invitation.account);
        let author = Author::Invitation(invitation.account);
        let body = body(suite, invitation.genesis, thread, author, 0, payload);
        let attachments = [&identity, &mls, &tls, &key].iter().map(|key| key.public_key().to_vec()).collect();
        Self { identity, wire: Wire::with(invitation, tls), body, invitation: key, attachments }
    }

    pub fn item(&self) -> SubmissionItem {
        let bytes = self.body.to_bytes();
        let possession = cose::sign(&*self.identity, labels::DEVICE_CROSS_CERT, &bytes);
        SubmissionItem {
            signature: cose::sign(&*self.invitation, labels::INVITATION, &bytes).expect("a signature").into(),
            possession: Some(possession.expect("a signature").into()),
            attachments: self.attachments.iter().cloned().map(Bytes64).collect(),
            body: bytes.into(),
        }
    }
}

/// A device of the ledger.
pub struct Device {
    pub member: Member,
    pub suite: SuiteId,
    pub genesis: Hash,
    pub identity: Box<dyn SigningKey>,
    pub wire: Wire,
}

impl Device {
    /// Enrols by hand.
    pub fn enrol(invitation: &Invitation) -> Self {
        let newcomer = Newcomer::of(invitation);
        let answer = newcomer.wire.enrol(newcomer.item(), Some(invitation.name.clone()));
        assert_eq!(answer.status, 200, "{:?}", answer.problem());
        let Payload::DeviceAdd { device, .. } = newcomer.body.payload else { unreachable!() };
        let member = Member { account: invitation.account, device };
        newcomer.wire.sign_in(member, &*newcomer.identity);
        Self {
            member,
            suite: invitation.suite,
            genesis: invitation.genesis,
            identity: newcomer.identity,
            wire: newcomer.wire,
        }
    }

    pub fn body(&self, thread: ThreadId, counter: u64, payload: Payload) -> Body {
        body(self.suite, self.genesis, thread, Author::Device(self.member), counter, payload)
    }

    /// A message with an envelope that nobody can open: the server cannot tell.
    pub fn message(&self, thread: ThreadId, counter: u64, epoch: u64) -> Body {
        self.body(thread, counter, message(epoch, ENVELOPE))
    }

    /// The body, signed by this device's identity key.
    pub fn sign(&self, body: &Body, attachments: &[&[u8]]) -> SubmissionItem {
        let bytes = body.to_bytes();
        self.sign_bytes(bytes, &body.author, attachments)
    }

    /// Bytes that may be no body at all, signed.
    pub fn sign_bytes(&self, bytes: Vec<u8>, author: &Author, attachments: &[&[u8]]) -> SubmissionItem {
        SubmissionItem {
            signature: cose::sign(&*self.identity, label_for(author), &bytes).expect("a signature").into(),
            possession: None,
            attachments: attachments.iter().map(|bytes| Bytes64(bytes.to_vec())).collect(),
            body: bytes.into(),
        }
    }

    /// Signs and submits.
    pub fn submit(&self, body: &Body, attachments: &[&[u8]]) -> Answer {
        self.wire.submit(vec![self.sign(body, attachments)])
    }
}

/// The envelope of all messages.
pub const ENVELOPE: &[u8] = b"an envelope that nobody can open";

/// A message with this envelope.
pub fn message(epoch: u64, envelope: &[u8]) -> Payload {
    Payload::Message {
        epoch: Epoch(epoch),
        envelope: digest::envelope_digest(envelope),
        content: Hash([7; 48]),
    }
}

/// A commit; its envelope is [`ENVELOPE`], Welcome and tree are [`WELCOME`] and [`TREE`] if somebody joins.
pub fn commit(epoch: u64, mut added: Vec<Member>, removed: Vec<Member>) -> Payload {
    added.sort_unstable();
    let joins = !added.is_empty();
    Payload::Commit {
        epoch: Epoch(epoch),
        envelope: digest::envelope_digest(ENVELOPE),
        welcome: joins.then(|| digest::attachment_digest(WELCOME)),
        tree: joins.then(|| digest::attachment_digest(TREE)),
        authenticator: Hash([8; 48]),
        added,
        removed,
    }
}

pub const WELCOME: &[u8] = b"a welcome";
pub const TREE: &[u8] = b"a tree";

fn body(
    suite: SuiteId,
    genesis: Hash,
    thread: ThreadId,
    author: Author,
    counter: u64,
    payload: Payload,
) -> Body {
    Body {
        version: Body::VERSION,
        suite,
        genesis,
        thread,
        author,
        counter,
        message_id: MessageId(random()),
        sent_at: now(),
        last_seen: None,
        payload,
    }
}

pub fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    zixt_crypto::fill_random(&mut bytes).expect("randomness");
    bytes
}

pub fn now() -> Timestamp {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
    Timestamp(u64::try_from(since.as_millis()).expect("a date"))
}

/// Codes and what was expected of them, as they come; all faults are said at the end.
#[derive(Default)]
pub struct Findings {
    rows: Vec<String>,
    faults: Vec<String>,
}

impl Findings {
    pub fn check(&mut self, what: &str, answer: &Answer, status: u16, code: ErrorCode) -> Option<Problem> {
        let problem = answer.problem();
        let got = problem.as_ref().map_or("(no problem)", |problem| problem.code.code());
        self.rows.push(format!("{what:<58} {:>3} {got}", answer.status));
        if answer.status != status || got != code.code() {
            let shown: String = String::from_utf8_lossy(&answer.body).chars().take(300).collect();
            self.faults.push(format!("{what}: wanted {status} {code}, got {} {got}: {shown}", answer.status));
        }
        problem
    }

    pub fn expect(&mut self, what: &str, holds: bool, detail: impl std::fmt::Debug) {
        if !holds {
            self.faults.push(format!("{what}: {detail:?}"));
        }
    }

    pub fn done(self) {
        println!("{}", self.rows.join("\n"));
        assert!(self.faults.is_empty(), "{} fault(s):\n  {}", self.faults.len(), self.faults.join("\n  "));
    }
}
