//! A whole server in a test: real store, real consensus, real signatures; only custody is software, and TLS is left out.

use crate::access::{Access, AccessParts};
use crate::app::{About, App, Parts};
use crate::audit::{self, Audit};
use crate::custody::{Custody, CustodyKey, CustodyWatch, NotNow};
use crate::health::{Vitals, now};
use crate::http::{Peer, Remote, Web, admin_router, client_router, web_router};
use crate::push::Push;
use crate::sequencer::{Queue, Sequencer, SequencerError};
use crate::view::View;
use axum::Router;
use axum::body::Body as HttpBody;
use http::{Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;
use zixt_api::{
    AdminDecision, AdminInvitation, Bytes64, CustodyState, Method, Problem, Receipt, SignInBegun,
    SignInProof, SignInRequest, SignInStep, SubmissionItem, endpoints,
};
use zixt_audit::folder::{DiskFolder, Folder, Handle};
use zixt_consensus::{HostError, SignOutcome};
use zixt_crypto::{AeadKey, Backend, SigningKey, SuiteId, cose, digest, labels};
use zixt_crypto_fast::AwsLc;
use zixt_hsm_protocol::{StateKind, TakenDecision};
use zixt_identity::{Challenge, Channel, DeviceProof};
use zixt_ledger::Submission;
use zixt_ledger::testing::{SampleDevice, SampleNetwork};
use zixt_storage::Store;
use zixt_types::{
    AccountId, Action, Attachment, Body, Canonical as _, CustodyMode, Decision, Hash, Height, KeyPurpose,
    Payload, Role, Round, Salt, Transcript, Vote, VoteStep,
};

/// The salt that [`SampleNetwork`] commits to names with.
pub const NAME_SALT: Salt = Salt([9; 32]);

type Slot = (Height, Round, VoteStep);

/// Custody in software, with the double-sign guard of the real one. Outlives restarts of the server.
pub struct SoftCustody {
    key: Mutex<Box<dyn SigningKey>>,
    enroller: Arc<dyn SigningKey>,
    /// Public keys that were retired.
    retired: Mutex<Vec<Vec<u8>>>,
    /// Decisions that it carried out.
    taken: Mutex<Vec<TakenDecision>>,
    state: Mutex<CustodyState>,
    signed: Mutex<HashMap<Slot, (Vote, Vec<u8>)>>,
    /// Signs that many more votes, then locks itself.
    votes_left: Mutex<Option<u32>>,
    /// Locks itself when it is next asked what it has signed.
    lock_when_asked: AtomicBool,
}

impl SoftCustody {
    pub fn set(&self, state: CustodyState) {
        *self.state.lock().unwrap() = state;
    }

    pub fn lock_after(&self, votes: u32) {
        *self.votes_left.lock().unwrap() = Some(votes);
    }

    pub fn lock_when_asked(&self) {
        self.lock_when_asked.store(true, Ordering::SeqCst);
    }

    /// Another consensus key becomes active, and the one before retires at once.
    pub fn activate(&self, key: Box<dyn SigningKey>) -> Box<dyn SigningKey> {
        let old = std::mem::replace(&mut *self.key.lock().unwrap(), key);
        self.retired.lock().unwrap().push(old.public_key().to_vec());
        old
    }

    /// Keeps a decision, as custody does when it has carried it out.
    pub fn take(&self, transcript: &Transcript) {
        let sequence = Action::parse(&transcript.action).unwrap().sequence;
        let transcript = transcript.to_bytes();
        self.taken.lock().unwrap().push(TakenDecision { sequence, transcript });
    }

    pub fn unlock(&self) {
        *self.votes_left.lock().unwrap() = None;
        self.set(CustodyState::Operational);
    }
}

impl Custody for SoftCustody {
    fn seen(&self) -> (CustodyState, Vec<CustodyKey>) {
        let key = |public_key: &[u8], active| CustodyKey {
            purpose: KeyPurpose::Consensus,
            hash: digest::key_hash(SuiteId::Standard, public_key),
            public_key: public_key.to_vec(),
            custody: CustodyMode::WrappedByToken,
            active,
        };
        let enroller = CustodyKey { purpose: KeyPurpose::Enroller, ..key(self.enroller.public_key(), true) };
        let mut keys = vec![key(self.key.lock().unwrap().public_key(), true), enroller];
        keys.extend(self.retired.lock().unwrap().iter().map(|public_key| key(public_key, false)));
        (*self.state.lock().unwrap(), keys)
    }

    fn sign_vote(&self, vote: &Vote) -> Result<SignOutcome, HostError> {
        if let Some(left) = self.votes_left.lock().unwrap().as_mut() {
            if *left == 0 {
                self.set(CustodyState::Locked);
            }
            *left = left.saturating_sub(1);
        }
        if self.state() != CustodyState::Operational {
            return Ok(SignOutcome::Refused("locked".to_owned()));
        }
        let mut signed = self.signed.lock().unwrap();
        if let Some((earlier, signature)) = signed.get(&vote.slot()) {
            let (earlier, signature) = (earlier.clone(), signature.clone());
            return Ok(if earlier == *vote {
                SignOutcome::Signed(signature)
            } else {
                SignOutcome::AlreadySigned { vote: earlier, signature }
            });
        }
        let signature = self.key.lock().unwrap().sign(&digest::vote_bytes(vote))?;
        signed.insert(vote.slot(), (vote.clone(), signature.clone()));
        Ok(SignOutcome::Signed(signature))
    }

    fn last_precommit(&self) -> Result<Option<(Height, Round, Hash)>, HostError> {
        if self.lock_when_asked.swap(false, Ordering::SeqCst) {
            self.set(CustodyState::Locked);
            return Err(NotNow::State(StateKind::Locked).into());
        }
        let signed = self.signed.lock().unwrap();
        let precommits = signed.keys().filter(|slot| slot.2 == VoteStep::Precommit);
        let headers = precommits.filter_map(|slot| Some((slot.0, slot.1, signed.get(slot)?.0.header?)));
        Ok(headers.max_by_key(|(height, round, _)| (*height, *round)))
    }

    fn row_key(&self) -> Result<AeadKey, HostError> {
        Ok(AeadKey::from_bytes(&[7; 32]))
    }

    fn sign_revocation(&self, body: &Body) -> Result<Vec<u8>, HostError> {
        if self.state() != CustodyState::Operational {
            return Err(NotNow::State(StateKind::Locked).into());
        }
        Ok(cose::sign(&*self.enroller, labels::BODY, &body.to_bytes())?)
    }

    fn decisions(&self, from: u64) -> Result<Vec<TakenDecision>, HostError> {
        let taken = self.taken.lock().unwrap();
        // One at a time: the daemon's pages are small as well.
        Ok(taken.iter().filter(|decision| decision.sequence >= from).take(1).cloned().collect())
    }
}

/// A server that runs.
pub struct Stack {
    /// Makes entries as authors do; its state follows the server's by [`Stack::follow`].
    pub net: SampleNetwork,
    pub custody: Arc<SoftCustody>,
    pub app: Arc<App>,
    pub clients: Router,
    pub admin: Router,
    pub web: Router,
    watch: Arc<CustodyWatch>,
    shutdown: CancellationToken,
    thread: Option<JoinHandle<Result<(), SequencerError>>>,
    folder: tempfile::TempDir,
    /// Where the audit journal lies.
    pub disk: Arc<FaultyFolder>,
    /// Tokens of sessions, by the TLS key on which they were opened.
    pub tokens: Mutex<HashMap<Hash, String>>,
    directories: Directories,
}

/// Makes the directories of each start.
pub type Directories = Arc<dyn Fn() -> Vec<zixt_directory::Directory> + Send + Sync>;

/// An answer: status and body.
pub struct Answer {
    pub status: StatusCode,
    pub head: http::response::Parts,
    pub body: Vec<u8>,
}

impl Answer {
    #[track_caller]
    pub fn json<T: DeserializeOwned>(&self) -> T {
        assert_eq!(self.status, StatusCode::OK, "{}", String::from_utf8_lossy(&self.body));
        serde_json::from_slice(&self.body).unwrap()
    }

    #[track_caller]
    pub fn problem(&self) -> Problem {
        assert_ne!(self.status, StatusCode::OK, "{}", String::from_utf8_lossy(&self.body));
        let problem: Problem = serde_json::from_slice(&self.body).unwrap();
        assert_eq!(problem.status, self.status.as_u16());
        assert_eq!(self.head.headers["content-type"], zixt_api::PROBLEM_CONTENT_TYPE);
        problem
    }

    #[track_caller]
    pub fn code(&self) -> &'static str {
        self.problem().code.code()
    }
}

impl Stack {
    pub async fn new() -> Self {
        Self::with_directories(Arc::new(Vec::new)).await
    }

    /// With directories that people sign in with.
    pub async fn with_directories(directories: Directories) -> Self {
        let backend: Arc<dyn Backend> = Arc::new(AwsLc);
        let mut net = SampleNetwork::new(Arc::clone(&backend), SuiteId::Standard, &[1]);
        net.now = now();
        let (_, key) = net.validators.pop().unwrap();
        let custody = Arc::new(SoftCustody {
            key: Mutex::new(key),
            enroller: Arc::clone(&net.enroller),
            retired: Mutex::default(),
            taken: Mutex::default(),
            state: Mutex::new(CustodyState::Operational),
            signed: Mutex::default(),
            votes_left: Mutex::default(),
            lock_when_asked: AtomicBool::default(),
        });
        let folder = tempfile::tempdir().unwrap();
        let disk = Arc::new(FaultyFolder::new(folder.path()));
        let audit = Err(Arc::clone(&disk) as _);
        let started = Self::start(&net, &custody, folder.path(), audit, directories()).await;
        let (app, watch, shutdown, thread) = started;
        let (clients, admin) = (client_router(Arc::clone(&app)), admin_router(Arc::clone(&app)));
        let web = web_router(Arc::clone(&app));
        let tokens = Mutex::default();
        Self {
            net,
            custody,
            app,
            clients,
            admin,
            web,
            watch,
            shutdown,
            thread: Some(thread),
            folder,
            disk,
            tokens,
            directories,
        }
    }

    #[allow(clippy::type_complexity, reason = "one caller")]
    async fn start(
        net: &SampleNetwork,
        custody: &Arc<SoftCustody>,
        folder: &std::path::Path,
        audit: Result<Arc<Audit>, Arc<dyn Folder>>,
        directories: Vec<zixt_directory::Directory>,
    ) -> (Arc<App>, Arc<CustodyWatch>, CancellationToken, JoinHandle<Result<(), SequencerError>>) {
        let store = Store::open(&folder.join("ledger.sqlite")).await.unwrap();
        let genesis = (*net.state.genesis).clone();
        let me = genesis.validators[0].appliance;
        let state = store.load(genesis, net.keyring.clone(), &*net.backend).await.unwrap();
        let last = store.last_header().await.unwrap();
        let view = Arc::new(View::new(state, last.as_ref()));
        let watch = Arc::new(CustodyWatch::new(Arc::clone(custody) as _));
        watch.record(view.read().state.validators[0].consensus);
        let (push, vitals) = (Arc::new(Push::default()), Arc::new(Vitals::new(folder.to_owned())));
        let shutdown = CancellationToken::new();
        let (queue, receiver) = Queue::new();
        let sequencer = Sequencer {
            view: Arc::clone(&view),
            store: store.clone(),
            custody: Arc::clone(&watch),
            backend: Arc::clone(&net.backend),
            push: Arc::clone(&push),
            vitals: Arc::clone(&vitals),
            me,
            wal: folder.join("consensus.wal"),
            runtime: tokio::runtime::Handle::current(),
            shutdown: shutdown.clone(),
        };
        let thread = std::thread::spawn(move || sequencer.run(receiver));
        let audit = audit.unwrap_or_else(|disk| {
            Arc::new(Audit::over(disk, Arc::clone(&view), zixt_audit::limits::SEGMENT_BYTES_MIN).unwrap())
        });
        let access = Arc::new(Access::new(AccessParts {
            store: store.clone(),
            custody: Arc::clone(&watch),
            view: Arc::clone(&view),
            backend: Arc::clone(&net.backend),
            me,
            directories,
            providers: Vec::new(),
            passkeys: Some(zixt_passkey::Settings {
                rp_id: "zixt.test".to_owned(),
                name: "Zixt".to_owned(),
                origins: vec!["https://zixt.test".to_owned()],
            }),
        }));
        let with_custody = access.load().await.unwrap();
        let app = Arc::new(App::new(Parts {
            view,
            store,
            custody: Arc::clone(&watch),
            backend: Arc::clone(&net.backend),
            push,
            queue,
            vitals,
            audit,
            access,
            about: About { listen: "127.0.0.1:1".into(), tls: Hash([1; 48]), me, web: None },
            shutdown: shutdown.clone(),
        }));
        if with_custody {
            app.follow_decisions(None).await.unwrap();
        }
        crate::app::directories::watch(&app, &shutdown);
        (app, watch, shutdown, thread)
    }

    /// The folder that the server's files lie in.
    pub fn folder(&self) -> &std::path::Path {
        self.folder.path()
    }

    /// How the sequencer ended.
    pub async fn ended(&mut self) -> Result<(), SequencerError> {
        let thread = self.thread.take().unwrap();
        tokio::task::spawn_blocking(move || thread.join().unwrap()).await.unwrap()
    }

    /// Ends the server as SIGTERM would.
    pub async fn stop(&mut self) {
        self.shutdown.cancel();
        let thread = self.thread.take().unwrap();
        tokio::task::spawn_blocking(move || thread.join().unwrap().unwrap()).await.unwrap();
        self.app.store.close().await.unwrap();
    }

    /// Starts it again on the same folder.
    pub async fn start_again(&mut self) {
        let audit = Ok(Arc::clone(&self.app.audit));
        let (app, watch, shutdown, thread) =
            Self::start(&self.net, &self.custody, self.folder.path(), audit, (self.directories)()).await;
        (self.clients, self.admin) = (client_router(Arc::clone(&app)), admin_router(Arc::clone(&app)));
        self.web = web_router(Arc::clone(&app));
        (self.app, self.watch, self.shutdown, self.thread) = (app, watch, shutdown, Some(thread));
    }

    /// Takes over the server's state, so that new bodies have the right counters and heads.
    pub fn follow(&mut self) {
        self.net.state = self.app.view.read().state.clone();
    }

    /// What the task does now that brings custody's decisions into the ledger.
    pub async fn record_decisions(&self, records: &mut crate::decisions::Records) {
        records.go_on(&self.app, &self.watch).await;
    }

    /// What the watch task would do now.
    pub async fn refresh_custody(&self) {
        let watch = Arc::clone(&self.watch);
        tokio::task::spawn_blocking(move || watch.refresh()).await.unwrap();
    }

    pub async fn get(&self, device: &SampleDevice, path: &str) -> Answer {
        self.call(Some(tls_of(device)), "GET", path, Vec::new()).await
    }

    pub async fn post<T: Serialize>(&self, device: &SampleDevice, path: &str, body: &T) -> Answer {
        self.call(Some(tls_of(device)), "POST", path, serde_json::to_vec(body).unwrap()).await
    }

    pub async fn call(&self, tls: Option<Hash>, method: &str, path: &str, body: Vec<u8>) -> Answer {
        let mut request = Request::builder().method(method).uri(path).body(HttpBody::from(body)).unwrap();
        if let Some(tls) = tls {
            self.sign(&mut request, tls);
        }
        read(self.clients.clone().oneshot(request).await.unwrap()).await
    }

    /// A request to the web listener, with a token in the head if there is one.
    pub async fn web(&self, token: &str, method: &str, path: &str, fields: &[(&str, &str)]) -> Answer {
        self.web_from(std::net::SocketAddr::from(([192, 0, 2, 1], 1)), token, method, path, fields).await
    }

    /// The same from this address.
    pub async fn web_from(
        &self,
        from: std::net::SocketAddr,
        token: &str,
        method: &str,
        path: &str,
        fields: &[(&str, &str)],
    ) -> Answer {
        let mut request = Request::builder().method(method).uri(path);
        if !fields.iter().any(|(name, _)| *name == "host") {
            request = request.header("host", "zixt.test");
        }
        if !token.is_empty() {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        let mut request = request.body(HttpBody::empty()).unwrap();
        let web = Web { listener: Hash([8; 48]), origin: "https://zixt.test".into() };
        request.extensions_mut().insert(web);
        request.extensions_mut().insert(Remote(from));
        read(self.web.clone().oneshot(request).await.unwrap()).await
    }

    /// Says that a request comes over this key, and shows the session that was opened on it.
    pub fn sign(&self, request: &mut Request<HttpBody>, tls: Hash) {
        request.extensions_mut().insert(Peer(tls));
        if let Some(token) = self.tokens.lock().unwrap().get(&tls) {
            let shown = format!("Bearer {token}").parse().unwrap();
            request.headers_mut().insert(http::header::AUTHORIZATION, shown);
        }
    }

    /// Opens a device's stream in its session.
    pub async fn open_stream(&self, device: &SampleDevice, path: &str) -> HttpBody {
        let mut request = Request::builder().uri(path).body(HttpBody::empty()).unwrap();
        self.sign(&mut request, tls_of(device));
        let response = self.clients.clone().oneshot(request).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.headers()["content-type"], endpoints::NDJSON);
        response.into_body()
    }

    /// Gives an account other roles, by a decision of the officers.
    pub async fn give_roles(&mut self, account: AccountId, roles: &[Role]) {
        let decision = Decision::SetRoles { account, roles: roles.to_vec() };
        let transcript = self.net.approve(&self.net.action(0, decision), 1);
        let request = AdminDecision { transcript: transcript.to_bytes().into(), key: None };
        let _receipt: Receipt = self.call_admin("POST", endpoints::ADMIN_DECISIONS, &request).await.json();
        self.follow();
    }

    /// A person with one device and these roles, signed in.
    pub async fn person_as(&mut self, name: &str, roles: &[Role]) -> SampleDevice {
        let device = self.person(name).await;
        self.give_roles(device.member.account, roles).await;
        self.sign_in(&device).await;
        device
    }

    pub async fn call_admin<T: Serialize>(&self, method: &str, path: &str, body: &T) -> Answer {
        let body = HttpBody::from(serde_json::to_vec(body).unwrap());
        let request = Request::builder().method(method).uri(path).body(body).unwrap();
        read(self.admin.clone().oneshot(request).await.unwrap()).await
    }

    pub async fn invite(&mut self, name: &str) -> zixt_ledger::testing::SampleInvitation {
        let (invitation, submission) = self.net.invite(name);
        let request = AdminInvitation {
            submission: item(&submission),
            name: name.into(),
            salt: NAME_SALT.into(),
            link: None,
        };
        let receipt: Receipt = self.call_admin("POST", endpoints::ADMIN_INVITATIONS, &request).await.json();
        assert_eq!(receipt.seq, 0);
        self.follow();
        invitation
    }

    /// A person with one device.
    pub async fn person(&mut self, name: &str) -> SampleDevice {
        let invitation = self.invite(name).await;
        self.enrol(name, &invitation).await
    }

    /// Whoever was invited comes with their first device.
    pub async fn enrol(
        &mut self,
        name: &str,
        invitation: &zixt_ledger::testing::SampleInvitation,
    ) -> SampleDevice {
        let (device, submission) = self.net.device(invitation.account, Ok(invitation));
        let request = zixt_api::EnrolRequest { submission: item(&submission), name: Some(name.into()) };
        let receipt: Receipt = self.post(&device, endpoints::ENROL, &request).await.json();
        assert_eq!(receipt.seq, 1);
        self.follow();
        self.sign_in(&device).await;
        device
    }

    /// Signs a device in with its identity key, as `zixt` does. Later calls of it show the session.
    pub async fn sign_in(&self, device: &SampleDevice) {
        let SignInStep::Done { token, .. } = self.try_sign_in(device).await.json() else {
            panic!("a device's key is enough")
        };
        self.tokens.lock().unwrap().insert(tls_of(device), token.expose().to_owned());
    }

    pub async fn try_sign_in(&self, device: &SampleDevice) -> Answer {
        let (begun, challenge) = self.begin_sign_in(device).await;
        let proof =
            DeviceProof::sign(&*device.identity, &challenge, device.member.account, device.member.device)
                .unwrap();
        let proof = SignInProof::DeviceKey { proof: Bytes64(proof.to_bytes()) };
        self.prove(device, &begun, &proof).await
    }

    pub async fn begin_sign_in(&self, device: &SampleDevice) -> (SignInBegun, Challenge) {
        let request =
            SignInRequest { account: Some(device.member.account.into()), name: None, directory: None };
        let begun: SignInBegun = self.post(device, endpoints::SIGN_IN, &request).await.json();
        let challenge = Challenge::parse(&begun.challenge.0).unwrap();
        let channel = Channel::ClientKey(tls_of(device)).binding();
        challenge.check_for(&self.net.state.genesis_hash, &self.app.about.me, &channel).unwrap();
        (begun, challenge)
    }

    pub async fn prove(&self, device: &SampleDevice, begun: &SignInBegun, proof: &SignInProof) -> Answer {
        self.post(device, &endpoints::fill(endpoints::SIGN_IN_PROOF, &[&begun.sign_in]), proof).await
    }

    /// Hands entries in as `device`.
    pub async fn submit(&self, device: &SampleDevice, submissions: &[&Submission]) -> Answer {
        let submissions = submissions.iter().map(|submission| item(submission)).collect();
        self.post(device, endpoints::SUBMISSIONS, &zixt_api::SubmitRequest { submissions }).await
    }

    /// A conversation of the two.
    pub async fn conversation(&mut self, a: &SampleDevice, b: &SampleDevice) -> zixt_types::ThreadId {
        let thread = self.net.thread_id();
        let commit = self.net.commit(thread, a, vec![b.member], vec![]);
        let answer: zixt_api::SubmitResponse = self.submit(a, &[&commit]).await.json();
        assert_eq!(answer.refused, None);
        self.follow();
        thread
    }

    pub fn message(&mut self, thread: zixt_types::ThreadId, author: &SampleDevice, text: &str) -> Submission {
        self.net.message(thread, author, text.as_bytes(), Hash([3; 48]))
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

/// The name of a method.
pub const fn method(method: Method) -> &'static str {
    match method {
        Method::Get => "GET",
        Method::Post => "POST",
        Method::Put => "PUT",
        Method::Delete => "DELETE",
    }
}

pub async fn read(response: Response<HttpBody>) -> Answer {
    let (head, body) = response.into_parts();
    let body = body.collect().await.unwrap().to_bytes().to_vec();
    Answer { status: head.status, head, body }
}

pub fn tls_of(device: &SampleDevice) -> Hash {
    digest::key_hash(SuiteId::Standard, &device.tls)
}

/// A submission as it travels.
pub fn item(submission: &Submission) -> SubmissionItem {
    SubmissionItem {
        body: Bytes64(submission.body_bytes.clone()),
        signature: Bytes64(submission.signature.clone()),
        possession: submission.possession.clone().map(Bytes64),
        attachments: submission.attachments.iter().map(|Attachment(bytes)| Bytes64(bytes.clone())).collect(),
    }
}

/// The same submission with a changed body, signed again.
pub fn altered(
    stack: &Stack,
    submission: &Submission,
    author: &SampleDevice,
    change: impl FnOnce(&mut zixt_types::Body),
) -> Submission {
    let mut body = submission.body.clone();
    change(&mut body);
    let attachments: Vec<&[u8]> =
        submission.attachments.iter().map(|Attachment(bytes)| bytes.as_slice()).collect();
    debug_assert!(!matches!(body.payload, Payload::DeviceAdd { .. }) && body.check().is_ok());
    stack.net.sign(&body, &*author.identity, None, &attachments)
}

impl Stack {
    /// A message that somebody makes for a thread, member of it or not.
    pub fn message_of(&self, author: &SampleDevice, thread: zixt_types::ThreadId) -> Submission {
        use zixt_types::{Author, Epoch, MessageId};
        let known = self.net.state.thread(&thread);
        let author_id = Author::Device(author.member);
        let epoch = known.and_then(|t| t.conversation()).map_or(Epoch(0), |conversation| conversation.epoch);
        let mut rest = [0xBB; 31];
        rest.copy_from_slice(&thread.0[1..]);
        let body = Body {
            version: Body::VERSION,
            suite: SuiteId::Standard,
            genesis: self.net.state.genesis_hash,
            thread: zixt_types::ThreadId::new(zixt_types::ThreadKind::Conversation, &rest),
            author: author_id,
            counter: known.map_or(0, |thread| thread.counter(&author_id)),
            message_id: MessageId([0xCC; 16]),
            sent_at: now(),
            last_seen: None,
            payload: Payload::Message {
                epoch,
                envelope: digest::envelope_digest(b"made up"),
                content: Hash([3; 48]),
            },
        };
        self.net.sign(&body, &*author.identity, None, &[b"made up"])
    }
}

/// A disk that can fail.
pub struct FaultyFolder {
    disk: DiskFolder,
    fails: Arc<AtomicBool>,
    full: AtomicBool,
}

struct FaultyHandle {
    file: Arc<dyn Handle>,
    fails: Arc<AtomicBool>,
}

impl FaultyFolder {
    fn new(server: &std::path::Path) -> Self {
        let disk = DiskFolder::open(&server.join(audit::FOLDER)).unwrap();
        Self { disk, fails: Arc::default(), full: AtomicBool::new(false) }
    }

    /// From now on nothing becomes durable.
    pub fn fail(&self) {
        self.fails.store(true, Ordering::SeqCst);
    }

    /// From now on there is no room for another file, or there is again.
    pub fn fill(&self, full: bool) {
        self.full.store(full, Ordering::SeqCst);
    }

    fn handle(&self, file: Arc<dyn Handle>) -> Arc<dyn Handle> {
        Arc::new(FaultyHandle { file, fails: Arc::clone(&self.fails) })
    }
}

impl Folder for FaultyFolder {
    fn list(&self) -> io::Result<Vec<String>> {
        self.disk.list()
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn Handle>> {
        Ok(self.handle(self.disk.open(name)?))
    }

    fn create(&self, name: &str, bytes: u64) -> io::Result<Arc<dyn Handle>> {
        if self.full.load(Ordering::SeqCst) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        Ok(self.handle(self.disk.create(name, bytes)?))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.disk.rename(from, to)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.disk.remove(name)
    }

    fn replace(&self, name: &str, content: &[u8]) -> io::Result<()> {
        self.disk.replace(name, content)
    }
}

impl Handle for FaultyHandle {
    fn length(&self) -> io::Result<u64> {
        self.file.length()
    }

    fn read_at(&self, offset: u64, bytes: &mut [u8]) -> io::Result<usize> {
        self.file.read_at(offset, bytes)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<usize> {
        self.file.write_at(offset, bytes)
    }

    fn sync(&self) -> io::Result<()> {
        if self.fails.load(Ordering::SeqCst) {
            return Err(io::Error::other("made up"));
        }
        self.file.sync()
    }
}
