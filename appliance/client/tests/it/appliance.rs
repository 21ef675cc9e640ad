//! An appliance in memory behind the client's [`Transport`]. It speaks the JSON of the API, so that the client's
//! whole path but TLS is used, and a test can change every answer.

mod liar;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use tokio::sync::watch;
use zixt_api::{
    AccountName, AccountView, CertifiedHeader, Checkpoint, ClaimRequest, ClaimResponse, ClaimedKeyPackage,
    Consistency, EnrolRequest, Entry, EntryPage, EntryProof, ErrorCode, HashHex, HeadProof, Invitation,
    InvitationSeed, KeyPackageCounts, KeyPackageUpload, MemberRef, Network, Problem, PublicKey, Receipt,
    ShardConsistency, ShardProof, StreamLine, SubmissionItem, SubmitRequest, SubmitResponse, SystemView,
    ThreadView,
};
use zixt_client::connection::{
    ConnectionError, Connector, Lines, Opened, Request, Response, Target, Transport,
};
use zixt_client::{Client, ClientError, PassphraseCost};
use zixt_crypto::{
    Backend, Ciphertext, DecapsulationKey, EncapsulateError, KemSeed, KeyError, RandomError, SharedSecret,
    SigningKey, SigningSeed, VerifyError, digest,
};
use zixt_crypto_fast::AwsLc;
use zixt_crypto_fast::tls::TlsSigner;
use zixt_ledger::testing::{SampleDevice, SampleNetwork};
use zixt_ledger::tree::{self, MemoryTree};
use zixt_ledger::{LedgerState, RecordedEntry, Refusal, Submission, TreeId, shard_states};
use zixt_types::{
    AccountId, Attachment, Author, Canonical as _, DeviceId, Genesis, Hash, Head, Height, Member, MessageId,
    Payload, Salt, Seq, SuiteId, ThreadId, Timestamp, limits,
};

/// Changes an answer: path, then the JSON.
pub type Tamper = Box<dyn FnMut(&str, &mut Value) + Send>;

pub struct Appliance {
    inner: Mutex<Inner>,
    version: watch::Sender<u64>,
}

pub struct Inner {
    pub net: SampleNetwork,
    mail: HashMap<Member, Vec<(ThreadId, u64)>>,
    packages: HashMap<DeviceId, (Vec<Vec<u8>>, Option<Vec<u8>>)>,
    names: HashMap<AccountId, (String, Salt)>,
    heights: HashMap<Hash, Height>,
    /// Nobody answers.
    pub offline: bool,
    /// Answers of paths that begin so get lost after the work was done.
    pub lose: Vec<&'static str>,
    pub tamper: Option<Tamper>,
    /// Requests of paths that begin so are refused.
    pub refuse: Option<(&'static str, Problem)>,
    /// The next request of a path that begins so is refused.
    pub refuse_once: Option<(&'static str, Problem)>,
    /// Requests of paths that begin so are refused after the work was done.
    pub refuse_falsely: Option<(&'static str, Problem)>,
    /// A conversation that nobody is told of.
    pub deny: Option<ThreadId>,
    /// Entries whose attachments are damaged.
    pub damaged: Vec<(ThreadId, u64)>,
    /// Entries that the stream leaves out.
    pub hide: Vec<(ThreadId, u64)>,
    /// No conversation shows its head.
    pub hide_heads: bool,
    /// No entry has a proof.
    pub hide_proofs: bool,
    /// Every event is sent twice.
    pub twice: bool,
    /// No heartbeat says that a backlog is over.
    pub no_end: bool,
    /// Requests so far, by path.
    pub asked: Vec<String>,
}

pub fn now() -> u64 {
    u64::try_from(std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis())
        .unwrap()
}

impl Appliance {
    pub fn new() -> Arc<Self> {
        Self::of(SampleNetwork::with_officers(Arc::new(AwsLc), SuiteId::Standard, &[1], 3, 2))
    }

    pub fn with(change: impl FnOnce(&mut Genesis)) -> Arc<Self> {
        let mut net = SampleNetwork::with_officers(Arc::new(AwsLc), SuiteId::Standard, &[1], 3, 2);
        let mut genesis = (*net.state.genesis).clone();
        change(&mut genesis);
        net.state = LedgerState::new(genesis, net.keyring.clone());
        Self::of(net)
    }

    fn of(mut net: SampleNetwork) -> Arc<Self> {
        net.now = Timestamp(now());
        let inner = Inner {
            net,
            mail: HashMap::new(),
            packages: HashMap::new(),
            names: HashMap::new(),
            heights: HashMap::new(),
            offline: false,
            lose: Vec::new(),
            tamper: None,
            refuse: None,
            refuse_once: None,
            refuse_falsely: None,
            deny: None,
            damaged: Vec::new(),
            hide: Vec::new(),
            hide_heads: false,
            hide_proofs: false,
            twice: false,
            no_end: false,
            asked: Vec::new(),
        };
        Arc::new(Self { inner: Mutex::new(inner), version: watch::Sender::new(0) })
    }

    pub fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap()
    }

    pub fn offline(&self, offline: bool) {
        self.lock().offline = offline;
        self.version.send_modify(|version| *version += 1);
    }

    pub fn invite(&self, name: &str) -> Invitation {
        let mut inner = self.lock();
        let unique = inner.net.unique();
        let mut seed = [0x1A; 32];
        seed[..8].copy_from_slice(&unique.to_be_bytes());
        let mut account = [0xAC; 16];
        account[..8].copy_from_slice(&unique.to_be_bytes());
        let account = AccountId(account);
        let salt = Salt([unique as u8; 32]);
        let suite = inner.net.suite;
        let key = inner.net.backend.signing_key(suite, &SigningSeed::from_bytes(&seed)).unwrap();
        let payload = Payload::Invite {
            account,
            name: digest::name_commitment(&salt, name),
            key: digest::key_hash(suite, key.public_key()),
            expires_at: Timestamp(now() + 86_400_000),
        };
        let author = Author::Enroller(digest::key_hash(suite, inner.net.enroller.public_key()));
        let body = inner.net.body(digest::account_thread(account), author, payload);
        let submission = inner.net.sign(&body, &*inner.net.enroller, None, &[]);
        inner.record(submission).unwrap();
        inner.names.insert(account, (name.to_owned(), salt));
        let state = &inner.net.state;
        Invitation {
            version: 1,
            network: "sample".into(),
            address: "127.0.0.1:1".into(),
            suite,
            tls: Hash([1; 48]),
            genesis: state.genesis_hash,
            checkpoint: Checkpoint { height: state.height, header: state.header_hash },
            account,
            name: name.into(),
            salt,
            seed: InvitationSeed::new(seed),
            lab: true,
        }
    }

    pub async fn enrol(self: &Arc<Self>, name: &str) -> Person {
        let folder = tempfile::tempdir().unwrap();
        let invitation = self.invite(name);
        let spy = Arc::new(Spy(Mutex::default()));
        let client = Client::enrol_with(
            &invitation,
            folder.path(),
            b"passphrase",
            PassphraseCost::MIN,
            Arc::clone(&spy) as Arc<dyn Backend>,
            &Way(Arc::clone(self)),
        )
        .await
        .unwrap();
        let identity = spy.0.lock().unwrap()[0];
        Person { appliance: Arc::clone(self), folder, client: Some(client), identity }
    }

    /// Somebody who stole a device's identity key adds another device to its account.
    pub fn add_device_behind_the_back(&self, person: &Person) {
        let mut inner = self.lock();
        let (member, thief) = (person.client().profile().member, person.stolen());
        let (_, submission) = inner.net.device(member.account, Err(&thief));
        inner.record(submission).unwrap();
        drop(inner);
        self.version.send_modify(|version| *version += 1);
    }

    /// A device is revoked by its own account.
    pub fn revoke(&self, person: &Person) {
        let mut inner = self.lock();
        let thief = person.stolen();
        let submission = inner.net.revoke(thief.member.device, &thief);
        inner.record(submission).unwrap();
        drop(inner);
        self.version.send_modify(|version| *version += 1);
    }

    /// A member signs, outside of its client, that it saw another entry than there is.
    pub fn claim_another_entry(&self, person: &Person, thread: ThreadId, seen: u64) {
        let mut inner = self.lock();
        let thief = person.stolen();
        let envelope = b"nobody can open this".to_vec();
        let payload = Payload::Message {
            epoch: inner.net.state.thread(&thread).unwrap().conversation().unwrap().epoch,
            content: Hash([5; 48]),
            envelope: digest::envelope_digest(&envelope),
        };
        let mut body = inner.net.body(thread, Author::Device(thief.member), payload);
        body.last_seen = Some(Head { seq: Seq(seen), hash: Hash([6; 48]) });
        let submission = inner.net.sign(&body, &*thief.identity, None, &[&envelope]);
        inner.record(submission).unwrap();
        drop(inner);
        self.version.send_modify(|version| *version += 1);
    }
}

/// The fast backend, which tells the seeds that it made.
struct Spy(Mutex<Vec<[u8; 32]>>);

impl Backend for Spy {
    fn name(&self) -> &'static str {
        AwsLc.name()
    }

    fn verify(
        &self,
        suite: SuiteId,
        public_key: &[u8],
        message: &[u8],
        signature: &[u8],
    ) -> Result<(), VerifyError> {
        AwsLc.verify(suite, public_key, message, signature)
    }

    fn generate_signing_seed(&self) -> Result<SigningSeed, RandomError> {
        let seed = SigningSeed::generate()?;
        self.0.lock().unwrap().push(*seed.as_bytes());
        Ok(seed)
    }

    fn signing_key(&self, suite: SuiteId, seed: &SigningSeed) -> Result<Box<dyn SigningKey>, KeyError> {
        AwsLc.signing_key(suite, seed)
    }

    fn decapsulation_key(&self, seed: &KemSeed) -> Result<Box<dyn DecapsulationKey>, KeyError> {
        AwsLc.decapsulation_key(seed)
    }

    fn validate_encapsulation_key(&self, key: &[u8]) -> Result<(), KeyError> {
        AwsLc.validate_encapsulation_key(key)
    }

    fn encapsulate(&self, key: &[u8]) -> Result<(Ciphertext, SharedSecret), EncapsulateError> {
        AwsLc.encapsulate(key)
    }
}

/// A person with a store.
pub struct Person {
    appliance: Arc<Appliance>,
    pub folder: tempfile::TempDir,
    client: Option<Client>,
    /// The seed of the identity key, for tests in which it is stolen.
    identity: [u8; 32],
}

impl Person {
    pub fn client(&self) -> &Client {
        self.client.as_ref().unwrap()
    }

    /// The device, in other hands.
    fn stolen(&self) -> SampleDevice {
        let seed = SigningSeed::from_bytes(&self.identity);
        let identity = AwsLc.signing_key(SuiteId::Standard, &seed).unwrap();
        SampleDevice { member: self.client().profile().member, identity, mls: Vec::new(), tls: Vec::new() }
    }

    /// The process ends and starts again.
    pub async fn restart(&mut self) {
        self.client = None;
        let open = Client::open_with(
            self.folder.path(),
            b"passphrase",
            Arc::new(AwsLc),
            &Way(Arc::clone(&self.appliance)),
        )
        .await;
        self.client = Some(open.unwrap());
    }

    pub async fn sync(&self) {
        self.client().sync_once().await.unwrap();
    }

    /// The process ends.
    pub async fn close(&mut self) {
        self.client = None;
        // SQLite closes its files on a thread of its own.
        tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    }

    /// Texts of a conversation, in order.
    pub async fn texts(&self, thread: ThreadId) -> Vec<String> {
        let history = self.client().history(thread, None, 1000).await.unwrap();
        history
            .into_iter()
            .filter(|line| line.kind == zixt_client::MessageKind::Text)
            .map(|line| line.text)
            .collect()
    }

    pub async fn alarms(&self) -> Vec<String> {
        self.client().alarms().await.unwrap().into_iter().map(|alarm| alarm.code).collect()
    }

    pub async fn say(&self, thread: ThreadId, text: &str) -> Result<u64, ClientError> {
        self.client().send(thread, text).await?;
        self.client().flush().await
    }
}

impl Connector for Way {
    fn transport(
        &self,
        _: &Target,
        signer: Arc<dyn TlsSigner>,
    ) -> Result<Arc<dyn Transport>, ConnectionError> {
        let tls = digest::key_hash(signer.suite(), signer.public_key());
        Ok(Arc::new(InMemory { appliance: Arc::clone(&self.0), tls }))
    }
}

pub struct Way(pub Arc<Appliance>);

struct InMemory {
    appliance: Arc<Appliance>,
    tls: Hash,
}

fn away() -> ConnectionError {
    ConnectionError::Unreachable { address: "memory".into(), reason: "the test says so".into() }
}

impl Transport for InMemory {
    fn request(&self, request: Request) -> BoxFuture<'_, Result<Response, ConnectionError>> {
        async move {
            let mut inner = self.appliance.lock();
            if inner.offline {
                return Err(away());
            }
            let before = inner.net.blocks.len();
            let path = request.path.clone();
            inner.asked.push(path.clone());
            let refused = inner.refuse.clone().filter(|(prefix, _)| path.starts_with(prefix));
            let refused =
                refused.or_else(|| inner.refuse_once.take_if(|(prefix, _)| path.starts_with(*prefix)));
            let answer = match refused.map(|(_, problem)| problem) {
                Some(problem) => Err(problem),
                None => inner.answer(self.tls, &request),
            };
            let lie = inner.refuse_falsely.as_ref().filter(|(prefix, _)| path.starts_with(prefix));
            let answer = match lie {
                Some((_, problem)) => answer.and(Err(problem.clone())),
                None => answer,
            };
            let moved = inner.net.blocks.len() != before;
            let lost = inner.lose.iter().any(|prefix| path.starts_with(prefix));
            let response = match answer {
                Ok(Answer::Bytes(body)) => Response { status: 200, body },
                Ok(Answer::Json(mut value)) => {
                    if let Some(tamper) = &mut inner.tamper {
                        tamper(&path, &mut value);
                    }
                    Response { status: 200, body: serde_json::to_vec(&value).unwrap() }
                }
                Err(problem) => {
                    Response { status: problem.status, body: serde_json::to_vec(&problem).unwrap() }
                }
            };
            drop(inner);
            if moved {
                self.appliance.version.send_modify(|version| *version += 1);
            }
            if lost {
                return Err(ConnectionError::Interrupted("the answer was lost".into()));
            }
            if response.body.len() > request.answer_bytes_max.max(4096) {
                return Err(ConnectionError::TooLarge { max: request.answer_bytes_max });
            }
            Ok(response)
        }
        .boxed()
    }

    fn stream(
        &self,
        after: u64,
        _: Option<zixt_api::Secret>,
    ) -> BoxFuture<'_, Result<Opened, ConnectionError>> {
        async move {
            let inner = self.appliance.lock();
            if inner.offline {
                return Err(away());
            }
            let Some(member) = inner.net.state.member_by_tls(&self.tls) else {
                let problem = Problem::new(ErrorCode::UnknownCaller, "test");
                let body = serde_json::to_vec(&problem).unwrap();
                return Ok(Opened::Refused(Response { status: problem.status, body }));
            };
            let (appliance, woken) = (Arc::clone(&self.appliance), self.appliance.version.subscribe());
            let lines =
                MemoryLines { appliance, woken, member, after, begun: false, ended: false, again: None };
            Ok(Opened::Stream(Box::new(lines)))
        }
        .boxed()
    }
}

struct MemoryLines {
    appliance: Arc<Appliance>,
    woken: watch::Receiver<u64>,
    member: Member,
    after: u64,
    begun: bool,
    ended: bool,
    again: Option<Vec<u8>>,
}

impl MemoryLines {
    fn ready(&mut self) -> Result<Option<Vec<u8>>, ConnectionError> {
        self.woken.mark_unchanged();
        let mut inner = self.appliance.lock();
        if inner.offline {
            return Err(away());
        }
        if !std::mem::replace(&mut self.begun, true) {
            let line = StreamLine::Heartbeat { position: self.after, height: inner.net.state.height.0 };
            return Ok(Some(serde_json::to_vec(&line).unwrap()));
        }
        if let Some(again) = self.again.take() {
            return Ok(Some(again));
        }
        let mail = inner.mail.get(&self.member).cloned().unwrap_or_default();
        for (index, (thread, seq)) in mail.iter().enumerate() {
            let position = index as u64 + 1;
            if position <= self.after {
                continue;
            }
            self.after = position;
            if inner.hide.contains(&(*thread, *seq)) {
                continue;
            }
            let recorded = inner.find(*thread, *seq).unwrap();
            let kind_has_envelope = thread.kind() == Some(zixt_types::ThreadKind::Conversation);
            let is_whole = kind_has_envelope && !inner.damaged.contains(&(*thread, *seq));
            let attachment = is_whole.then(|| recorded.item.attachments[0].0.clone().into());
            let line = StreamLine::Event {
                position,
                entry: inner.entry(&recorded),
                attachment,
                proof: inner.proof(&recorded),
            };
            let mut value = serde_json::to_value(&line).unwrap();
            if let Some(tamper) = &mut inner.tamper {
                tamper("stream", &mut value);
            }
            let bytes = serde_json::to_vec(&value).unwrap();
            if inner.twice {
                self.again = Some(bytes.clone());
            }
            return Ok(Some(bytes));
        }
        if !std::mem::replace(&mut self.ended, true) && !inner.no_end {
            let line = StreamLine::Heartbeat { position: self.after, height: inner.net.state.height.0 };
            return Ok(Some(serde_json::to_vec(&line).unwrap()));
        }
        Ok(None)
    }
}

impl Lines for MemoryLines {
    fn next(&mut self) -> BoxFuture<'_, Result<Option<Vec<u8>>, ConnectionError>> {
        async move {
            loop {
                if let Some(line) = self.ready()? {
                    return Ok(Some(line));
                }
                self.woken.changed().await.unwrap();
            }
        }
        .boxed()
    }
}

enum Answer {
    Json(Value),
    Bytes(Vec<u8>),
}

fn ok(value: impl serde::Serialize) -> Result<Answer, Problem> {
    Ok(Answer::Json(serde_json::to_value(value).unwrap()))
}

fn hex(path: Vec<Hash>) -> Vec<HashHex> {
    path.into_iter().map(Into::into).collect()
}

impl Inner {
    fn answer(&mut self, tls: Hash, request: &Request) -> Result<Answer, Problem> {
        let (path, query) = request.path.split_once('?').unwrap_or((&request.path, ""));
        let query: HashMap<&str, &str> = query.split('&').filter_map(|pair| pair.split_once('=')).collect();
        let parts: Vec<&str> = path.trim_start_matches("/v1/").split('/').collect();
        let body = request.body.as_deref().unwrap_or_default();
        match parts.as_slice() {
            ["network"] => {
                return ok(Network {
                    genesis: self.net.state.genesis.to_bytes().into(),
                    keyring: self.net.keyring.to_bytes().into(),
                    latest: self.latest(),
                });
            }
            ["system"] => return ok(self.system(query["from"].parse().unwrap())),
            ["headers", height] => return ok(self.certified(Height(height.parse().unwrap()))?),
            ["consistency"] => return ok(self.consistency(&query)?),
            ["enrol"] => {
                let request: EnrolRequest = serde_json::from_slice(body).unwrap();
                return ok(self.take(request.submission)?);
            }
            _ => {}
        }
        let caller = self
            .net
            .state
            .member_by_tls(&tls)
            .ok_or_else(|| Problem::new(ErrorCode::UnknownCaller, "test"))?;
        match parts.as_slice() {
            ["accounts"] => {
                let asked = query["name"];
                let found = self.names.iter().find(|(_, (name, _))| name == asked);
                let (account, (name, salt)) =
                    found.ok_or_else(|| Problem::new(ErrorCode::UnknownName, "test"))?;
                ok(AccountName { account: (*account).into(), name: name.clone(), salt: (*salt).into() })
            }
            ["accounts", account] => ok(self.account(AccountId::from_hex(account).unwrap())),
            ["key-packages"] if request.body.is_none() => ok(self.counts(caller)),
            ["key-packages"] => {
                let upload: KeyPackageUpload = serde_json::from_slice(body).unwrap();
                let own = self.packages.entry(caller.device).or_default();
                own.0.extend(upload.one_time.into_iter().map(|package| package.0));
                if let Some(last) = upload.last_resort {
                    own.1 = Some(last.0);
                }
                ok(self.counts(caller))
            }
            ["key-packages", "claim"] => {
                let claim: ClaimRequest = serde_json::from_slice(body).unwrap();
                ok(self.claim(caller, &claim))
            }
            ["submissions"] => {
                let request: SubmitRequest = serde_json::from_slice(body).unwrap();
                let mut receipts = Vec::new();
                for item in request.submissions {
                    receipts.push(self.take(item)?);
                }
                ok(SubmitResponse { receipts, refused: None })
            }
            ["threads", thread, rest @ ..] => {
                let thread = ThreadId::from_hex(thread).unwrap();
                self.thread(caller, thread, rest, &query)
            }
            other => panic!("the client asked for {other:?}"),
        }
    }

    fn thread(
        &self,
        caller: Member,
        thread: ThreadId,
        rest: &[&str],
        query: &HashMap<&str, &str>,
    ) -> Result<Answer, Problem> {
        let unknown = || Problem::new(ErrorCode::UnknownThread, "test");
        let known = self.net.state.thread(&thread).ok_or_else(unknown)?;
        let conversation = known.conversation().ok_or_else(unknown)?;
        // Who was removed reads up to its removal.
        let removes = |entry: &&RecordedEntry| matches!(&entry.body.payload, Payload::Commit { removed, .. } if removed.contains(&caller));
        let removal = self.net.entries_of(thread).filter(removes).last();
        let is_denied = self.deny == Some(thread);
        let upto = match (conversation.has(&caller), removal) {
            _ if is_denied => return Err(unknown()),
            (true, _) => u64::MAX,
            (false, Some(entry)) => entry.item.position.seq.0,
            (false, None) => return Err(unknown()),
        };
        match rest {
            // Where the others are is not for who was removed.
            [] if !conversation.has(&caller) || self.hide_heads => Err(unknown()),
            [] => ok(ThreadView {
                thread: thread.into(),
                seq: known.head.seq.0,
                head: known.head.hash.into(),
                next_counter: known.counter(&Author::Device(caller)),
                epoch: Some(conversation.epoch.0),
                epoch_since: Some(conversation.epoch_since.0),
                members: conversation.members.iter().map(member_ref).collect(),
                proof: self.head(thread),
            }),
            ["entries"] => {
                let from: u64 = query["from"].parse().unwrap();
                let all: Vec<Entry> = self
                    .net
                    .entries_of(thread)
                    .filter(|entry| (from..=upto).contains(&entry.item.position.seq.0))
                    .map(|entry| self.entry(entry))
                    .collect();
                // Small pages, so that paging is tested.
                let next = all.get(3).map(|entry| entry.seq);
                ok(EntryPage { entries: all.into_iter().take(3).collect(), next })
            }
            ["entries", seq, "proof"] => {
                let seq = seq.parse().unwrap();
                let entry = self.find(thread, seq).filter(|_| !self.hide_proofs && seq <= upto);
                ok(self.proof(&entry.ok_or_else(|| Problem::new(ErrorCode::UnknownEntry, "test"))?))
            }
            ["entries", seq, "attachments", index] => {
                let seq = seq.parse().unwrap();
                if self.damaged.contains(&(thread, seq)) {
                    return Err(Problem::new(ErrorCode::AttachmentDamaged, "test"));
                }
                let entry = self.find(thread, seq).filter(|_| seq <= upto);
                let bytes = entry.and_then(|entry| {
                    entry.item.attachments.get(index.parse::<usize>().unwrap()).map(|bytes| bytes.0.clone())
                });
                Ok(Answer::Bytes(bytes.ok_or_else(|| Problem::new(ErrorCode::UnknownAttachment, "test"))?))
            }
            other => panic!("the client asked for {other:?} of a thread"),
        }
    }

    /// What the server does with a submission.
    fn take(&mut self, item: SubmissionItem) -> Result<Receipt, Problem> {
        let attachments = item.attachments.into_iter().map(|bytes| Attachment(bytes.0)).collect();
        let possession = item.possession.map(|bytes| bytes.0);
        let submission = Submission::parse(item.body.0, item.signature.0, possession, attachments).unwrap();
        let (thread, id) = (submission.body.thread, submission.body.message_id);
        if let Some(known) = self.by_id(thread, id) {
            return if known.item.body == submission.body_bytes {
                Ok(self.receipt(&known))
            } else {
                Err(Problem::new(ErrorCode::MessageIdConflict, "test"))
            };
        }
        self.record(submission).map_err(|refusal| problem(&refusal))?;
        Ok(self.receipt(&self.by_id(thread, id).unwrap()))
    }

    pub fn record(&mut self, submission: Submission) -> Result<(), Refusal> {
        self.net.now = Timestamp(now());
        let block = self.net.propose(vec![submission])?;
        let certificate = self.net.certify(&block);
        self.net.state.apply(&block);
        for entry in &block.entries {
            self.heights.insert(entry.hash, block.header().height);
            for member in &entry.recipients {
                let mail = self.mail.entry(*member).or_default();
                mail.push((entry.body.thread, entry.item.position.seq.0));
            }
        }
        self.net.blocks.push((block, certificate));
        Ok(())
    }

    /// Officers replace the validator's key.
    pub fn rotate(&mut self) {
        self.rotate_often(1);
    }

    /// The same by several activations in one height.
    pub fn rotate_often(&mut self, count: usize) {
        self.net.now = Timestamp(now());
        let (block, _) = self.net.rotate_often(0, count);
        self.recorded(&block);
    }

    /// Makes the heights of a block's entries known.
    pub fn recorded(&mut self, block: &zixt_ledger::ProposedBlock) {
        for entry in &block.entries {
            self.heights.insert(entry.hash, block.header().height);
        }
    }

    /// One decision a page, so that paging is tested.
    fn system(&self, from: u64) -> SystemView {
        let thread = digest::system_thread(self.net.state.genesis_hash);
        let mut entries = self.net.entries_of(thread).filter(|entry| entry.item.position.seq.0 >= from);
        let entry = entries.next();
        let next = entries.next().map(|next| next.item.position.seq.0);
        let key = entry.and_then(|entry| entry.brought_key()).map(|(suite, key)| PublicKey {
            suite: suite.id(),
            hash: digest::key_hash(suite, key).into(),
            key: key.to_vec().into(),
        });
        SystemView {
            entries: entry.map(|entry| self.entry(entry)).into_iter().collect(),
            keys: key.into_iter().collect(),
            next,
            proof: self.latest().map(|_| self.head(thread)),
        }
    }

    fn by_id(&self, thread: ThreadId, id: MessageId) -> Option<RecordedEntry> {
        self.net.entries_of(thread).find(|entry| entry.body.message_id == id).cloned()
    }

    pub fn find(&self, thread: ThreadId, seq: u64) -> Option<RecordedEntry> {
        self.net.entries_of(thread).find(|entry| entry.item.position.seq.0 == seq).cloned()
    }

    fn latest(&self) -> Option<CertifiedHeader> {
        self.certified(self.net.state.height).ok()
    }

    fn certified(&self, height: Height) -> Result<CertifiedHeader, Problem> {
        let index = usize::try_from(height.0).unwrap().wrapping_sub(1);
        let (block, certificate) =
            self.net.blocks.get(index).ok_or_else(|| Problem::new(ErrorCode::UnknownHeight, "test"))?;
        Ok(CertifiedHeader {
            height: height.0,
            header: block.header().to_bytes().into(),
            certificate: certificate.to_bytes().into(),
        })
    }

    fn consistency(&self, query: &HashMap<&str, &str>) -> Result<Consistency, Problem> {
        let from: u64 = query["from_height"].parse().unwrap();
        let latest = self.net.state.height.0;
        if from > latest {
            return Err(Problem::new(ErrorCode::UnknownHeight, "test"));
        }
        let history = if from == 0 || from == latest {
            Vec::new()
        } else {
            self.net.build(&tree::inclusion_plan(from - 1, latest - 1).unwrap(), TreeId::History)
        };
        let mut shards = Vec::new();
        let pairs = query.get("shards").unwrap_or(&"").split(',').filter(|pair| !pair.is_empty());
        if pairs.clone().count() > usize::from(limits::SHARDS_MAX) {
            return Err(Problem::new(ErrorCode::TooManyItems, "test"));
        }
        for pair in pairs {
            let (shard, size) = pair.split_once(':').unwrap();
            let (shard, from_size): (u16, u64) = (shard.parse().unwrap(), size.parse().unwrap());
            let latest = self.shard(shard);
            let plan = tree::consistency_plan(from_size, latest.size).unwrap();
            let path = hex(self.net.build(&plan, TreeId::Shard(zixt_types::ShardId(shard))));
            shards.push(ShardConsistency { from_size, latest, path });
        }
        Ok(Consistency { from_height: from, latest: self.latest().unwrap(), history: hex(history), shards })
    }

    fn shard(&self, shard: u16) -> ShardProof {
        let states = shard_states(&self.net.state.shards);
        let shards: MemoryTree = states.iter().map(tree::shard_leaf).collect();
        let state = states[usize::from(shard)];
        ShardProof {
            shard,
            size: state.size,
            root: state.root.into(),
            path: hex(shards.prove_inclusion(u64::from(shard), shards.size()).unwrap()),
        }
    }

    fn entry(&self, entry: &RecordedEntry) -> Entry {
        Entry {
            thread: entry.body.thread.into(),
            seq: entry.item.position.seq.0,
            prev: entry.item.position.prev.into(),
            time: entry.item.position.time.0,
            height: self.heights[&entry.hash].0,
            entry: entry.hash.into(),
            salt: entry.item.salt.into(),
            body: entry.item.body.clone().into(),
            signature: entry.item.signature.clone().into(),
            possession: entry.item.possession.clone().map(Into::into),
            attachments: u32::try_from(entry.item.attachments.len()).unwrap(),
        }
    }

    fn proof(&self, entry: &RecordedEntry) -> EntryProof {
        let proof = self.net.prove_leaf(entry);
        EntryProof {
            certified: self.latest().unwrap(),
            shard: self.shard(entry.shard.0),
            leaf: proof.index,
            path: hex(proof.path),
        }
    }

    fn head(&self, thread: ThreadId) -> HeadProof {
        HeadProof {
            thread: thread.into(),
            map: self.net.state.heads.prove(&thread).to_bytes().into(),
            certified: self.latest().unwrap(),
        }
    }

    fn receipt(&self, entry: &RecordedEntry) -> Receipt {
        Receipt {
            message_id: entry.body.message_id.into(),
            thread: entry.body.thread.into(),
            seq: entry.item.position.seq.0,
            prev: entry.item.position.prev.into(),
            time: entry.item.position.time.0,
            salt: entry.item.salt.into(),
            entry: entry.hash.into(),
            proof: self.proof(entry),
        }
    }

    fn account(&self, account: AccountId) -> AccountView {
        let thread = digest::account_thread(account);
        let mut keys = Vec::new();
        let mut key = |bytes: &[u8]| {
            let suite = self.net.suite;
            let hash = digest::key_hash(suite, bytes).into();
            keys.push(PublicKey { suite: suite.id(), hash, key: bytes.to_vec().into() });
        };
        for entry in self.net.entries_of(thread) {
            if matches!(entry.body.payload, Payload::DeviceAdd { .. }) {
                entry.item.attachments.iter().for_each(|bytes| key(&bytes.0));
            }
        }
        let name = self.names.get(&account).map(|(name, salt)| AccountName {
            account: account.into(),
            name: name.clone(),
            salt: (*salt).into(),
        });
        let entries = self.net.entries_of(thread).map(|entry| self.entry(entry)).collect();
        AccountView { account: account.into(), name, entries, keys, proof: self.head(thread) }
    }

    fn counts(&self, caller: Member) -> KeyPackageCounts {
        let own = self.packages.get(&caller.device);
        KeyPackageCounts {
            one_time: own.map_or(0, |own| u32::try_from(own.0.len()).unwrap()),
            last_resort: own.is_some_and(|own| own.1.is_some()),
        }
    }

    fn claim(&mut self, caller: Member, claim: &ClaimRequest) -> ClaimResponse {
        let mut response = ClaimResponse { key_packages: Vec::new(), missing: Vec::new() };
        for account in &claim.accounts {
            for member in self.net.state.account(account.0).unwrap().active_members() {
                if member == caller {
                    continue;
                }
                let own = self.packages.entry(member.device).or_default();
                let package = own.0.pop().map(|package| (package, false));
                match package.or_else(|| own.1.clone().map(|package| (package, true))) {
                    Some((package, last_resort)) => response.key_packages.push(ClaimedKeyPackage {
                        member: member_ref(&member),
                        key_package: package.into(),
                        last_resort,
                    }),
                    None => response.missing.push(member_ref(&member)),
                }
            }
        }
        response
    }
}

fn member_ref(member: &Member) -> MemberRef {
    MemberRef { account: member.account.into(), device: member.device.into() }
}

fn problem(refusal: &Refusal) -> Problem {
    let code = match refusal {
        Refusal::StaleEpoch { .. } => ErrorCode::StaleEpoch,
        Refusal::CounterGap { .. } => ErrorCode::CounterGap,
        Refusal::CounterReplayed { .. } => ErrorCode::CounterReplayed,
        Refusal::NotAMember => ErrorCode::NotAMember,
        Refusal::OtherHistory => ErrorCode::OtherHistory,
        Refusal::AlreadyAMember(_) => ErrorCode::AlreadyAMember,
        Refusal::RemovedNobody(_) => ErrorCode::RemovedNobody,
        Refusal::InvitationUsed => ErrorCode::InvitationUsed,
        Refusal::DeviceRevoked => ErrorCode::DeviceRevoked,
        other => panic!("the client was refused: {other}"),
    };
    let mut problem = Problem::new(code, refusal.to_string());
    if let Refusal::StaleEpoch { since, .. } = refusal {
        problem.since = Some(since.0);
    }
    problem
}

/// Changes one hexadecimal digit or base64 letter of a string inside an answer.
pub fn flip(value: &mut Value) {
    let text = value.as_str().expect("a string").to_owned();
    let at = text.len() / 2;
    let other = if &text[at..=at] == "a" { "b" } else { "a" };
    *value = json!(format!("{}{other}{}", &text[..at], &text[at + 1..]));
}
