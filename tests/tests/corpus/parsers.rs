//! One function for every parser that foreign bytes reach, each a property: it never panics, takes no more memory than
//! its input justifies, and what it accepts it writes again as the same bytes.
//!
//! The replay test and the fuzz targets compile this one file, so that an input found by one is an input of the other.
#![allow(clippy::expect_used, reason = "an assumption about the fixture that fails is a failed test")]

use std::cell::RefCell;
use std::fmt::Debug;
use std::io;
use std::sync::{Arc, Mutex, OnceLock};
use zixt_api::{
    AccountName, AccountView, AdminDecision, AdminInvitation, AdminStatus, CertifiedHeader, ClaimRequest,
    ClaimResponse, Consistency, EnrolRequest, EntryPage, EntryProof, Health, Invitation, KeyPackageCounts,
    KeyPackageUpload, Network, Problem, Receipt, StreamLine, SubmitRequest, SubmitResponse, SystemView,
    ThreadView,
};
use zixt_ceremony::file::{Filed, from_file, to_file};
use zixt_ceremony::{OfficerCard, RecoveryRecord, RecoveryRequest, SealedShare, ShareRelease};
use zixt_consensus::{Flush, Message, Wal, WalFile};
use zixt_crypto::{
    AeadKey, Backend, KemSeed, Keyring, Reference, SigningKey, SigningSeed, aead, cose, digest, hash, hpke,
    labels,
};
use zixt_hsm_protocol::{self as hsm, FRAME_BYTES_MAX, Request, Response};
use zixt_ledger::evidence::{Evidence, ForkProof, verify_fork};
use zixt_ledger::map::MapProof;
use zixt_ledger::testing::SampleNetwork;
use zixt_ledger::tree::Frontier;
use zixt_ledger::{BlockBuilder, LedgerState, ProposedBlock, Submission};
use zixt_messaging::{
    CommitEntry, Content, Conversation, Device, KeyDirectory, KeyPackageId, KeyPackageInfo, MessageEntry,
    STATE_VERSION, SealedKeyPackage, StatePart, StoredState, welcome_key_packages,
};
use zixt_types::{
    AccountId, Action, Approval, Attachment, Batch, Body, Canonical, Certificate, DeviceId, Epoch, Genesis,
    Hash, Header, Member, MessageId, Salt, SuiteId, ThreadId, ThreadKind, Timestamp, Transcript, Vote, cbor,
    limits,
};

/// A parser with its property.
pub type Property = fn(&[u8]);

/// Every target: its name, which is that of its corpus folder and of its fuzz target, and its property.
pub const TARGETS: &[(&str, Property)] = &[
    ("cbor", cbor_scan),
    ("body", canonical::<Body>),
    ("header", canonical::<Header>),
    ("certificate", canonical::<Certificate>),
    ("vote", canonical::<Vote>),
    ("genesis", canonical::<Genesis>),
    ("batch", batch),
    ("keyring", canonical::<Keyring>),
    ("cose", cose_sign1),
    ("aead", aead_open),
    ("hpke", hpke_open),
    ("submission", submission),
    ("evidence", evidence),
    ("fork", fork),
    ("map_proof", map_proof),
    ("frontier", frontier),
    ("invitation", invitation),
    ("submit_json", submit_json),
    ("enrol_json", json::<EnrolRequest>),
    ("key_packages_json", json::<KeyPackageUpload>),
    ("claim_json", json::<ClaimRequest>),
    ("stream_json", json::<StreamLine>),
    ("answers_json", answers_json),
    ("admin_json", admin_json),
    ("custody_frames", custody_frames),
    ("custody_request", custody_message::<Request>),
    ("custody_response", custody_message::<Response>),
    ("consensus_message", consensus_message),
    ("wal", wal),
    ("content", canonical::<Content>),
    ("key_package", key_package),
    ("welcome", welcome),
    ("join", join),
    ("conversation", conversation),
    ("stored_state", stored_state),
    ("ceremony_file", ceremony_file),
];

fn same(again: &[u8], data: &[u8]) {
    assert!(
        again == data,
        "accepted {} bytes and wrote {} other ones: an object has two encodings",
        data.len(),
        again.len()
    );
}

fn canonical<T: Canonical>(data: &[u8]) {
    if let Ok(value) = T::parse(data) {
        assert!(data.len() <= T::BYTES_MAX, "{} accepted beyond its limit", T::WHAT);
        same(&value.to_bytes(), data);
    }
}

/// A file of officers, whatever kind it says it is; it is read as no other kind.
fn ceremony_file(data: &[u8]) {
    fn read<T: Filed>(data: &[u8]) -> usize {
        let Ok(value) = from_file::<T>(data) else { return 0 };
        same(&to_file(&value), data);
        1
    }
    let kinds = [
        read::<Action>,
        read::<Approval>,
        read::<Transcript>,
        read::<OfficerCard>,
        read::<SealedShare>,
        read::<RecoveryRecord>,
        read::<RecoveryRequest>,
        read::<ShareRelease>,
    ];
    assert!(kinds.iter().map(|read| read(data)).sum::<usize>() <= 1, "a file of two kinds");
}

/// Puts parts into one input: each with its length, three bytes big-endian, in front.
pub fn join_parts<T: AsRef<[u8]>>(parts: &[T]) -> Vec<u8> {
    let mut out = Vec::new();
    for part in parts {
        let length = u32::try_from(part.as_ref().len()).unwrap_or(u32::MAX).to_be_bytes();
        out.extend_from_slice(&length[1..]);
        out.extend_from_slice(part.as_ref());
    }
    out
}

/// Takes an input apart. Total: a length beyond the end means the rest.
pub fn split_parts(mut data: &[u8]) -> Vec<&[u8]> {
    let mut parts = Vec::new();
    while let [a, b, c, rest @ ..] = data {
        let length = usize::from(*a) << 16 | usize::from(*b) << 8 | usize::from(*c);
        let (part, rest) = rest.split_at(length.min(rest.len()));
        parts.push(part);
        data = rest;
    }
    parts
}

fn cbor_scan(data: &[u8]) {
    if cbor::scan("input", data).is_ok() {
        // Another reader has to see one item of the same length. Whether a text is UTF-8 is asked by whoever reads it.
        let mut decoder = minicbor::Decoder::new(data);
        match decoder.skip() {
            Ok(()) => assert_eq!(decoder.position(), data.len(), "the scan and the decoder see other ends"),
            Err(error) => assert!(!error.is_end_of_input() && !error.is_type_mismatch(), "{error}"),
        }
    }
}

/// The sample network before its first entry: the same in every run.
pub fn genesis_state() -> &'static LedgerState {
    static STATE: OnceLock<LedgerState> = OnceLock::new();
    STATE.get_or_init(|| new_network().state)
}

/// A network whose keys, genesis and ids are the same in every run.
pub fn new_network() -> SampleNetwork {
    SampleNetwork::new(Arc::new(Reference), SuiteId::Standard, &[2, 1, 1])
}

/// A network in which two people have enrolled and talk. Ids and keys are the same in every run, hashes are not.
pub fn network() -> &'static SampleNetwork {
    static NETWORK: OnceLock<SampleNetwork> = OnceLock::new();
    NETWORK.get_or_init(|| {
        let mut network = new_network();
        let (a, b) = (network.enrol("ada"), network.enrol("bob"));
        let thread = network.thread_id();
        let commit = network.commit(thread, &a, vec![b.member], vec![]);
        network.seal(vec![commit]);
        network.say(thread, &a, "hello");
        network
    })
}

fn batch(data: &[u8]) {
    if let Ok(batch) = Batch::parse(data) {
        same(&batch.to_bytes(), data);
        let told = batch.clone();
        if let Ok(block) = ProposedBlock::rebuild(genesis_state(), batch, &Reference) {
            assert_eq!(block.batch, told, "a rebuilt block is another one");
        }
    }
}

fn cose_sign1(data: &[u8]) {
    if let Ok(object) = cose::from_cose_sign1(data) {
        let again = cose::to_cose_sign1(object.suite, &object.payload, &object.signature);
        same(&again.expect("what was read can be written"), data);
    }
}

/// The key and the associated data of the sealed seeds.
pub const AEAD_KEY: [u8; 32] = [0x5E; 32];
/// See [`AEAD_KEY`].
pub const AAD: &[u8] = b"corpus";

fn aead_open(data: &[u8]) {
    if let Ok(plaintext) = aead::open(&AeadKey::from_bytes(&AEAD_KEY), AAD, data) {
        assert_eq!(plaintext.len() + aead::OVERHEAD_BYTES, data.len());
    }
}

/// The key that opens the sealed seeds.
pub fn opening_key() -> &'static hpke::OpeningKey {
    static KEY: OnceLock<hpke::OpeningKey> = OnceLock::new();
    KEY.get_or_init(|| hpke::OpeningKey::new(&KemSeed::from_bytes(&[0x5E; 64])))
}

fn hpke_open(data: &[u8]) {
    if let Ok(plaintext) = opening_key().open(AAD, AAD, data) {
        assert_eq!(plaintext.len() + hpke::OVERHEAD_BYTES, data.len());
    }
}

/// Parts: body, signature, the new device's own signature (empty: none), attachments.
fn submission(data: &[u8]) {
    let parts = split_parts(data);
    let [body, signature, possession, attachments @ ..] = parts.as_slice() else { return };
    submit(
        body.to_vec(),
        signature.to_vec(),
        Some(possession.to_vec()).filter(|bytes| !bytes.is_empty()),
        attachments.iter().map(|bytes| Attachment(bytes.to_vec())).collect(),
    );
}

fn submit(
    body: Vec<u8>,
    signature: Vec<u8>,
    possession: Option<Vec<u8>>,
    attachments: Vec<Attachment>,
) -> bool {
    let Ok(submission) = Submission::parse(body, signature, possession, attachments) else { return false };
    same(&submission.body.to_bytes(), &submission.body_bytes);
    let state = &network().state;
    let Ok(signer) = state.signer(&submission) else { return false };
    if submission.verify(&signer, &state.keyring, &Reference).is_err() {
        return false;
    }
    let mut block = BlockBuilder::new(state, Timestamp(state.time.0 + 1));
    block.has_room(&submission) && block.add(submission, Salt([1; 32])).is_ok()
}

fn evidence(data: &[u8]) {
    if let Ok(evidence) = Evidence::parse(data) {
        same(&evidence.to_bytes(), data);
        let genesis = digest::genesis_hash(&genesis_state().genesis);
        let _verdict = evidence.verify(genesis, &Reference);
        // Whoever writes a file can name a network of its own, and so get past the first check.
        let _verdict = evidence.verify(digest::genesis_hash(&evidence.genesis), &Reference);
    }
}

fn fork(data: &[u8]) {
    if let Ok(proof) = ForkProof::parse(data) {
        same(&proof.to_bytes(), data);
        let _verdict = verify_fork(&proof, digest::genesis_hash(&proof.genesis), &Reference);
    }
}

fn map_proof(data: &[u8]) {
    if let Ok(proof) = MapProof::parse(data) {
        same(&proof.to_bytes(), data);
        let heads = &network().state.heads;
        for (thread, _) in network().state.threads() {
            if let Ok(head) = proof.verify(&heads.root(), thread) {
                assert_eq!(head, heads.get(thread), "a proof of something else than the map says");
            }
        }
    }
}

fn frontier(data: &[u8]) {
    if let Ok(mut frontier) = Frontier::parse(data) {
        same(&frontier.to_bytes(), data);
        let _root = frontier.root();
        let (before, mut nodes) = (frontier.size(), Vec::new());
        frontier.append(Hash([1; 48]), &mut nodes);
        assert_eq!(frontier.size(), before + 1);
        assert!(nodes.len() <= 64);
    }
}

fn invitation(data: &[u8]) {
    canonical::<Invitation>(data);
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(invitation) = Invitation::from_text(text) {
        let joined: String = text.trim().chars().filter(|letter| !letter.is_ascii_whitespace()).collect();
        same(invitation.to_text().as_bytes(), joined.as_bytes());
    }
}

/// JSON has many spellings of one value; what is written has to be read as the same value and written the same.
fn read_json<T>(data: &[u8]) -> Option<T>
where
    T: serde::Serialize + for<'de> serde::Deserialize<'de> + PartialEq + Debug,
{
    let value: T = serde_json::from_slice(data).ok()?;
    let written = serde_json::to_vec(&value).expect("what was read can be written");
    let again: T = serde_json::from_slice(&written).expect("what was written can be read");
    assert!(value == again, "a value changes when it is written and read");
    same(&serde_json::to_vec(&again).expect("it was written before"), &written);
    Some(value)
}

fn json<T>(data: &[u8])
where
    T: serde::Serialize + for<'de> serde::Deserialize<'de> + PartialEq + Debug,
{
    let _value: Option<T> = read_json(data);
}

fn submit_json(data: &[u8]) {
    let Some(request) = read_json::<SubmitRequest>(data) else { return };
    for item in request.submissions {
        let attachments = item.attachments.into_iter().map(|bytes| Attachment(bytes.0)).collect();
        submit(item.body.0, item.signature.0, item.possession.map(|bytes| bytes.0), attachments);
    }
}

/// Everything that an appliance answers to a client or an administrator, which may be a lie. Which of them it is follows
/// from what was asked, so that any bytes can come as any of them.
fn answers_json(data: &[u8]) {
    for read in ANSWERS {
        let _is_one = read(data);
    }
}

/// Every answer that is JSON: whether bytes are one.
pub const ANSWERS: &[fn(&[u8]) -> bool] = &[
    is_json::<Network>,
    is_json::<CertifiedHeader>,
    is_json::<Consistency>,
    is_json::<SystemView>,
    is_json::<Receipt>,
    is_json::<AccountName>,
    is_json::<AccountView>,
    is_json::<KeyPackageCounts>,
    is_json::<ClaimResponse>,
    is_json::<SubmitResponse>,
    is_json::<ThreadView>,
    is_json::<EntryPage>,
    is_json::<EntryProof>,
    is_json::<Problem>,
    is_json::<Health>,
    is_json::<AdminStatus>,
];

fn is_json<T>(data: &[u8]) -> bool
where
    T: serde::Serialize + for<'de> serde::Deserialize<'de> + PartialEq + Debug,
{
    read_json::<T>(data).is_some()
}

/// What an administrator asks for on the appliance's own socket.
fn admin_json(data: &[u8]) {
    json::<AdminInvitation>(data);
    json::<AdminDecision>(data);
}

fn custody_frames(data: &[u8]) {
    let (mut stream, mut written) = (data, Vec::new());
    while let Ok(frame) = hsm::read_frame_blocking(&mut stream) {
        assert!(frame.len() <= FRAME_BYTES_MAX && !frame.is_empty());
        custody_message::<Request>(&frame);
        custody_message::<Response>(&frame);
        hsm::write_frame_blocking(&mut written, &frame).expect("what was read can be written");
    }
    same(&written, &data[..written.len()]);
}

fn custody_message<T>(data: &[u8])
where
    T: minicbor::Encode<()> + for<'b> minicbor::Decode<'b, ()>,
{
    if let Ok(message) = hsm::decode::<T>(data) {
        same(&hsm::encode(&message), data);
    }
}

fn consensus_message(data: &[u8]) {
    if let Ok(message) = Message::parse(data) {
        same(&message.to_bytes(), data);
        let _height = message.height();
    }
}

/// A log in memory.
struct Memory(Mutex<Vec<u8>>);

impl WalFile for Memory {
    fn read_all(&self) -> io::Result<Vec<u8>> {
        Ok(self.0.lock().map_err(|_| io::ErrorKind::Other)?.clone())
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut file = self.0.lock().map_err(|_| io::ErrorKind::Other)?;
        let start = usize::try_from(offset).map_err(|_| io::ErrorKind::Other)?;
        let length = file.len().max(start + bytes.len());
        file.resize(length, 0);
        file[start..start + bytes.len()].copy_from_slice(bytes);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
}

/// A log's file as it is, or the bodies of its records, to which checksums are added: no fuzzer guesses those.
fn wal(data: &[u8]) {
    let bytes = if data.starts_with(b"ZIXT-WAL") || data.len() < 3 {
        data.to_vec()
    } else {
        log_of(&split_parts(data))
    };
    let file = Arc::new(Memory(Mutex::new(bytes)));
    let open = || Wal::open(file.clone(), 1, Flush::Inline).map(|wal| wal.unfinished());
    if let Ok(unfinished) = open() {
        assert_eq!(open().expect("it was opened before"), unfinished, "opening a log changes it");
    }
}

/// A log with these records, all of one height, every one promised by the next.
pub fn log_of(bodies: &[&[u8]]) -> Vec<u8> {
    let salt = 7u64.to_le_bytes();
    let mut file = b"ZIXT-WAL".to_vec();
    let version = 1u32.to_le_bytes();
    let checksum = [b"ZIXT-WAL".as_slice(), &version, &salt].iter().fold(0, |crc, part| crc32c(crc, part));
    file.extend_from_slice(&version);
    file.extend_from_slice(&checksum.to_le_bytes());
    file.extend_from_slice(&salt);
    file.resize(4096, 0);
    let mut prev = 0u32;
    for (seq, body) in (0u32..).zip(bodies) {
        let mut covered = prev.to_le_bytes().to_vec();
        covered.extend_from_slice(&u32::try_from(body.len()).unwrap_or(u32::MAX).to_le_bytes());
        for number in [1u64, 3] {
            covered.extend_from_slice(&number.to_le_bytes());
        }
        for number in [seq, seq] {
            covered.extend_from_slice(&number.to_le_bytes());
        }
        covered.extend_from_slice(body);
        prev = crc32c(crc32c(0, &salt), &covered);
        file.extend_from_slice(b"ZWL1");
        file.extend_from_slice(&prev.to_le_bytes());
        file.extend_from_slice(&covered);
        file.resize(file.len().next_multiple_of(8), 0);
    }
    file
}

fn crc32c(crc: u32, bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!crc, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ if crc & 1 == 1 { 0x82F6_3B78 } else { 0 })
    })
}

/// The time of everything that is said in the fixture.
pub const NOW: Timestamp = Timestamp(1_780_000_000_000);
/// The id of the fixture's message.
pub const MESSAGE: MessageId = MessageId([7; 16]);
const SUITE: SuiteId = SuiteId::Standard;

/// The fixture's members.
pub fn member(n: u8) -> Member {
    Member { account: AccountId([n; 16]), device: DeviceId([n; 16]) }
}

/// The fixture's conversation.
pub fn thread() -> ThreadId {
    ThreadId::new(ThreadKind::Conversation, &[1; 31])
}

fn signer(n: u8) -> Box<dyn SigningKey> {
    Reference.signing_key(SUITE, &SigningSeed::from_bytes(&[n; 32])).expect("a key from a seed")
}

struct Directory([Hash; 2]);

impl KeyDirectory for Directory {
    fn mls_key(&self, wanted: &Member) -> Option<Hash> {
        (1..).zip(self.0).find(|(n, _)| member(*n) == *wanted).map(|(_, key)| key)
    }
}

fn state_key(n: u8) -> AeadKey {
    AeadKey::from_bytes(&[n; 32])
}

/// Devices 1 and 2: the author and the reader.
pub fn device(n: u8) -> Device {
    let keys = [1, 2].map(|n| digest::key_hash(SUITE, signer(n).public_key()));
    let signer = Arc::from(signer(n));
    Device::new(Arc::new(Reference), member(n), signer, Arc::new(Directory(keys)), state_key(n))
}

fn reader() -> Device {
    static READER: OnceLock<Device> = OnceLock::new();
    READER.get_or_init(|| device(2)).clone()
}

/// What the reader has stored and the ledger says: parts of `corpus/fixtures/conversation.bin`, in this order.
pub struct Fixture {
    /// The reader's conversation with the author, in epoch 1.
    pub state: StoredState,
    /// The private part of the key package that it joined with.
    pub package: SealedKeyPackage,
    /// Commitment to the content of the author's first message.
    pub content: Hash,
    /// Authenticator of epoch 1, which began with the reader's joining.
    pub joined: Hash,
    /// Authenticator of epoch 2, which begins with the author's update.
    pub updated: Hash,
}

impl Fixture {
    /// The file.
    pub fn to_bytes(&self) -> Vec<u8> {
        let StoredState { core, tree, past, pending } = &self.state;
        let hashes = [self.package.id.0, self.content, self.joined, self.updated];
        let hashes: Vec<u8> = hashes.iter().flat_map(|hash| hash.0).collect();
        join_parts(&[core, tree, past, pending, &self.package.sealed, &hashes])
    }

    fn read() -> Self {
        let parts = split_parts(include_bytes!("../../corpus/fixtures/conversation.bin"));
        let [core, tree, past, pending, sealed, hashes] = parts[..] else {
            unreachable!("the fixture has six parts; write it again as docs/fuzzing.md says")
        };
        let hashes = |n: usize| Hash::try_from(&hashes[48 * n..][..48]).expect("48 bytes");
        Self {
            state: StoredState {
                core: core.to_vec(),
                tree: tree.to_vec(),
                past: past.to_vec(),
                pending: pending.to_vec(),
            },
            package: SealedKeyPackage { id: KeyPackageId(hashes(0)), sealed: sealed.to_vec() },
            content: hashes(1),
            joined: hashes(2),
            updated: hashes(3),
        }
    }

    /// The fixture of this build.
    pub fn get() -> &'static Self {
        static FIXTURE: OnceLock<Fixture> = OnceLock::new();
        FIXTURE.get_or_init(Self::read)
    }
}

fn key_package(data: &[u8]) {
    // What the server reads of it, without MLS.
    let signers: Vec<Hash> = zixt_ledger::key_package::signer(data).collect();
    if let Ok(info) = KeyPackageInfo::parse(data) {
        // The server may be stricter (another version of the protocol, say) and then takes nothing.
        let agrees = signers.is_empty() || signers.contains(&info.key);
        assert!(agrees, "server and clients see other makers of a key package");
        assert!(data.len() <= limits::KEY_PACKAGE_BYTES_MAX);
        let again = KeyPackageInfo::parse(data).ok();
        assert_eq!(again, Some(info), "a key package says two things");
        let _verdict = reader().check_key_package(data, &member(1), NOW);
    }
}

fn welcome(data: &[u8]) {
    if let Ok(packages) = welcome_key_packages(data) {
        assert!(packages.len() * Hash::LEN <= data.len(), "more key packages than bytes for them");
    }
}

fn commit_entry(author: u8, epoch: u64, envelope: Hash, authenticator: Hash) -> CommitEntry {
    CommitEntry {
        thread: thread(),
        author: member(author),
        time: NOW,
        epoch: Epoch(epoch),
        envelope,
        welcome: None,
        tree: None,
        authenticator,
        added: Vec::new(),
        removed: Vec::new(),
    }
}

/// Parts: Welcome and encrypted tree. The ledger names whatever was sent.
fn join(data: &[u8]) {
    let parts = split_parts(data);
    let [welcome, tree, ..] = parts[..] else { return };
    let fixture = Fixture::get();
    let entry = CommitEntry {
        welcome: Some(digest::attachment_digest(welcome)),
        tree: Some(digest::attachment_digest(tree)),
        added: vec![member(2)],
        ..commit_entry(1, 0, Hash::ZERO, fixture.joined)
    };
    let packages = std::slice::from_ref(&fixture.package);
    if let Ok(joined) = reader().join(welcome, tree, packages, &entry, &[member(1), member(2)]) {
        assert_eq!(joined.conversation.members(), [member(1), member(2)]);
        assert_eq!(joined.conversation.epoch(), Some(Epoch(1)));
    }
}

thread_local! {
    static CONVERSATION: RefCell<Option<Conversation>> = const { RefCell::new(None) };
}

/// Bytes: 0 for a message or 1 for a commit, the epoch that its entry names, the envelope. The ledger names whatever was
/// sent. After a refusal the conversation is as before, so it serves for the next input.
fn conversation(data: &[u8]) {
    let [kind, epoch, envelope @ ..] = data else { return };
    let fixture = Fixture::get();
    let open = || reader().open(thread(), &fixture.state).expect("the fixture opens");
    let mut conversation = CONVERSATION.take().unwrap_or_else(open);
    let digest = digest::envelope_digest(envelope);
    let accepted = if kind & 1 == 0 {
        let entry = MessageEntry {
            thread: thread(),
            author: member(1),
            message_id: MESSAGE,
            epoch: Epoch(u64::from(*epoch)),
            envelope: digest,
            content: fixture.content,
        };
        conversation.decrypt(envelope, &entry).is_ok()
    } else {
        let entry = commit_entry(1, u64::from(*epoch), digest, fixture.updated);
        conversation.process_commit(envelope, &entry).is_ok()
    };
    if !accepted {
        assert_eq!(conversation.epoch(), Some(Epoch(1)), "a refused envelope moved the conversation");
        assert_eq!(conversation.members(), [member(1), member(2)]);
        CONVERSATION.set(Some(conversation));
    }
}

/// What a sealed part is bound to.
pub fn state_aad(part: StatePart) -> Vec<u8> {
    let mut aad = labels::MLS_STATE.to_vec();
    aad.extend_from_slice(&STATE_VERSION.to_be_bytes());
    aad.push(part as u8);
    aad.extend_from_slice(thread().as_ref());
    aad
}

/// The key that seals the reader's state.
pub fn reader_key() -> AeadKey {
    state_key(2)
}

/// Parts: sealed core, tree, past epochs and pending commit; or, after an empty part, their plaintexts (of the core
/// only its MLS state), which are sealed here: nobody without the key gets that far.
fn stored_state(data: &[u8]) {
    let parts = split_parts(data);
    let state = match parts[..] {
        [[], mls, tree, past, pending, ..] => {
            let seal = |part, plaintext: &[u8]| {
                aead::seal(&reader_key(), &state_aad(part), plaintext).expect("sealing")
            };
            let (tree, past, pending) =
                (seal(StatePart::Tree, tree), seal(StatePart::Past, past), seal(StatePart::Pending, pending));
            let named = |sealed: &[u8]| hash::sha384(labels::MLS_STATE, &[sealed]);
            let mut core = Vec::new();
            let mut encoder = minicbor::Encoder::new(&mut core);
            encoder
                .array(10)
                .and_then(|e| e.u64(STATE_VERSION)?.encode(SUITE)?.encode(member(2))?.encode(NOW))
                .and_then(|e| e.u64(0)?.bool(false)?.bytes(mls))
                .and_then(|e| e.encode(named(&tree))?.encode(named(&past))?.encode(named(&pending)))
                .expect("encoding to memory");
            StoredState { core: seal(StatePart::Core, &core), tree, past, pending }
        }
        [core, tree, past, pending, ..] => StoredState {
            core: core.to_vec(),
            tree: tree.to_vec(),
            past: past.to_vec(),
            pending: pending.to_vec(),
        },
        _ => return,
    };
    if let Ok(conversation) = reader().open(thread(), &state) {
        let _state = (conversation.epoch(), conversation.members(), conversation.pending_commit().cloned());
        let _authenticator = conversation.authenticator();
    }
}
