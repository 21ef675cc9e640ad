//! Bad input over the real PQ-TLS listener: every fault is answered with one HTTP status and one stable code, and the
//! server works on as if nothing had been asked of it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a failure here is a failed test")]

#[path = "bad_input/careless.rs"]
mod careless;
#[path = "bad_input/device.rs"]
mod device;

use careless::AnyServer;
use device::{Device, ENVELOPE, Findings, Newcomer, TREE, WELCOME, Wire, commit, message, now, random};
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::kx_group;
use rustls::version::{TLS12, TLS13};
use std::io::Write as _;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use zixt_api::{
    AdminInvitation, EntryPage, ErrorCode, Invitation, InvitationSeed, SubmissionItem, SubmitRequest,
    endpoints,
};
use zixt_crypto::{cose, digest, labels};
use zixt_hsm_protocol::{BlockingHsmClient, KeyPurpose};
use zixt_tests::Appliance;
use zixt_types::{
    AccountId, Author, Body, Canonical as _, DeviceId, Hash, Head, Member, MessageId, Payload, Salt, Seq,
    SuiteId, ThreadId, ThreadKind, Timestamp, limits,
};

/// How much more memory the server may hold after every single fault.
const GROWTH_KIB_MAX: u64 = 64 * 1024;
/// How much more it may ever hold, with as many of the largest requests at once as anybody likes to send: 72 MiB of
/// requests, twice more the one that is parsed, and what the allocator keeps for the next time.
const PEAK_KIB_MAX: u64 = 192 * 1024;

fn invitation(appliance: &Appliance, name: &str) -> Invitation {
    Invitation::from_text(&appliance.invite(name)).expect("an invitation")
}

fn thread() -> ThreadId {
    ThreadId::new(ThreadKind::Conversation, &random())
}

/// A number of /proc/PID/status, in KiB.
fn memory_kib(appliance: &Appliance, what: &str) -> u64 {
    let pid = appliance.pids().0.expect("zixtd runs");
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("its status");
    let line = status.lines().find_map(|line| line.strip_prefix(what)).expect("the line");
    line.trim_matches(|c: char| !c.is_ascii_digit()).parse().expect("a number")
}

fn healthy(appliance: &Appliance) -> bool {
    appliance.admin(&["status", "--json"]).status.success()
}

#[test]
fn bad_input_is_refused_by_code_and_the_server_works_on() {
    let mut appliance = Appliance::lab();
    let [alice, bob, carol] =
        ["alice", "bob", "carol"].map(|name| Device::enrol(&invitation(&appliance, name)));
    let talk = Talk::begin(invitation(&appliance, "dora"), alice, bob, carol);
    let before = memory_kib(&appliance, "VmRSS:");
    let mut found = Findings::default();

    requests(&talk, &mut found);
    bodies(&talk, &mut found);
    rules(&talk, &mut found);
    invitations(&appliance, &talk.open, &mut found);
    admin(&appliance, &talk.open, &mut found);
    let after = memory_kib(&appliance, "VmRSS:");
    found.expect("memory after single faults", after < before + GROWTH_KIB_MAX, (before, after));
    flood(&appliance, &talk, &mut found);
    let peak = memory_kib(&appliance, "VmHWM:");
    println!("zixtd: {before} KiB before, {after} after single faults, {peak} at most");
    found.expect("memory at most", peak < before + PEAK_KIB_MAX, (before, peak));

    // As if nothing had happened.
    let next = talk.alice.message(talk.thread, talk.next, 2);
    let answer = talk.alice.submit(&next, &[ENVELOPE]);
    found.expect("a good message afterwards", answer.status == 200, &answer);
    found.expect("healthy", healthy(&appliance), "");
    let log = appliance.logged("zixtd.log");
    found.expect("no panic in the log", !log.contains("panicked"), &log);
    found.done();
    appliance.stop_zixtd();
    appliance.fsck();
}

/// A conversation of alice and bob, from which carol was removed.
struct Talk {
    /// An invitation that nobody has used yet.
    open: Invitation,
    alice: Device,
    bob: Device,
    carol: Device,
    thread: ThreadId,
    /// alice's next counter.
    next: u64,
    /// alice's last good message.
    last: Body,
}

impl Talk {
    fn begin(open: Invitation, alice: Device, bob: Device, carol: Device) -> Self {
        let thread = thread();
        let joined = commit(0, vec![bob.member, carol.member], vec![]);
        let removed = commit(1, vec![], vec![carol.member]);
        let last = alice.message(thread, 2, 2);
        let entries: [(Body, &[&[u8]]); 3] = [
            (alice.body(thread, 0, joined), &[ENVELOPE, WELCOME, TREE]),
            (alice.body(thread, 1, removed), &[ENVELOPE]),
            (last.clone(), &[ENVELOPE]),
        ];
        for (body, attachments) in entries {
            let answer = alice.submit(&body, attachments);
            assert_eq!(answer.status, 200, "{:?}", answer.problem());
        }
        Self { open, alice, bob, carol, thread, next: 3, last }
    }

    /// alice's next message, good unless it is changed.
    fn next(&self) -> Body {
        self.alice.message(self.thread, self.next, 2)
    }
}

/// What is wrong before anybody looks at an entry.
fn requests(talk: &Talk, found: &mut Findings) {
    let wire = &talk.alice.wire;
    let good =
        serde_json::to_vec(&SubmitRequest { submissions: vec![talk.alice.sign(&talk.next(), &[ENVELOPE])] })
            .expect("JSON");
    let post = |body: &[u8]| wire.call("POST", endpoints::SUBMISSIONS, body);
    let malformed = ErrorCode::MalformedRequest;

    found.check("JSON cut in the middle", &post(&good[..good.len() / 2]), 400, malformed);
    found.check("not JSON", &post(b"\xFF\x00 no JSON at all"), 400, malformed);
    found.check("an empty body", &post(b""), 400, malformed);
    found.check("JSON of another type", &post(b"{\"submissions\":{}}"), 400, malformed);
    found.check("an unknown field", &post(b"{\"submissions\":[],\"admin\":true}"), 400, malformed);
    found.check("base64url instead of base64", &post(&base64url(&good)), 400, malformed);
    let deep = [b"[".repeat(100_000), b"]".repeat(100_000)].concat();
    found.check("JSON 10^5 levels deep", &post(&deep), 400, malformed);
    let deep = [b"{\"submissions\":".as_slice(), &b"[".repeat(100_000), &b"]".repeat(100_000), b"}"].concat();
    found.check("JSON 10^5 levels deep inside a request", &post(&deep), 400, malformed);
    found.check("no entry", &post(b"{\"submissions\":[]}"), 400, ErrorCode::TooManyItems);
    let item = talk.alice.sign(&talk.next(), &[ENVELOPE]);
    let many = wire.submit(vec![item; limits::SUBMISSIONS_MAX + 1]);
    found.check("too many entries", &many, 400, ErrorCode::TooManyItems);

    // The body ends before its announced length, and so does the connection's writing side.
    let mut stream = wire.open();
    let head = format!(
        "POST {} HTTP/1.1\r\nHost: zixt\r\n{}Content-Length: 5000\r\n\r\n",
        endpoints::SUBMISSIONS,
        wire.authorization()
    );
    stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&good[..1000])).expect("a write");
    stream.conn.send_close_notify();
    stream.flush().expect("a write");
    match device::answer(&mut stream) {
        Some(answer) => drop(found.check("a body shorter than announced", &answer, 400, malformed)),
        None => found.expect("a body shorter than announced", false, "closed without an answer"),
    }

    let announced = limits::REQUEST_BYTES_MAX + 1;
    let head = format!(
        "POST {} HTTP/1.1\r\nHost: zixt\r\n{}Content-Length: {announced}\r\n\r\n",
        endpoints::SUBMISSIONS,
        wire.authorization()
    );
    let large = ErrorCode::RequestTooLarge;
    let answer = wire.raw(&[head.as_bytes()]).expect("an answer");
    found.check("a larger body announced", &answer, 413, large);
    // The refusal comes before the body was read, and is read after all of it was sent.
    let answer = wire.raw(&[head.as_bytes(), &vec![b' '; announced]]).expect("an answer");
    found.check("a larger body announced and sent", &answer, 413, large);
    let head =
        format!("POST {} HTTP/1.1\r\nHost: zixt\r\nTransfer-Encoding: chunked\r\n\r\n", endpoints::ENROL);
    let chunk = [b"8000\r\n".as_slice(), &[b' '; 0x8000], b"\r\n"].concat();
    let answer = wire.raw(&[head.as_bytes(), &chunk.repeat(8), b"1\r\n \r\n"]).expect("an answer");
    found.check("a larger body in chunks", &answer, 413, large);

    found.check("an unknown path", &wire.get("/v1/nothing"), 404, ErrorCode::UnknownEndpoint);
    let admin = wire.get(endpoints::ADMIN_STATUS);
    found.check("the admin API from the network", &admin, 404, ErrorCode::UnknownEndpoint);
    let answer = wire.call("DELETE", endpoints::SUBMISSIONS, b"");
    found.check("an unknown method", &answer, 405, ErrorCode::MethodNotAllowed);
    let short = wire.get(&endpoints::fill(endpoints::THREAD, &[&"abc"]));
    found.check("an id that is none", &short, 400, malformed);
    let query = wire.get(&format!("{}?from_height=-1", endpoints::CONSISTENCY));
    found.check("a query that is none", &query, 400, malformed);
    let shards =
        wire.get(&format!("{}?from_height=0&shards={}", endpoints::CONSISTENCY, "0:0,".repeat(1000)));
    found.check("a query with too many items", &shards, 400, ErrorCode::TooManyItems);
    let height = wire.get(&endpoints::fill(endpoints::HEADER, &[&u64::MAX]));
    found.check("a height that is none", &height, 404, ErrorCode::UnknownHeight);

    // A TLS key that no device has may see the network, and nothing else.
    let stranger = Wire::stranger(&talk.open);
    let unknown = ErrorCode::UnknownCaller;
    let answer = stranger.call("POST", endpoints::SUBMISSIONS, &good);
    found.check("a submission by an unknown TLS key", &answer, 401, unknown);
    let answer = stranger.get(&endpoints::fill(endpoints::THREAD, &[&talk.thread]));
    found.check("a thread for an unknown TLS key", &answer, 401, unknown);
    found.check("the stream for an unknown TLS key", &stranger.get(endpoints::STREAM), 401, unknown);
    let answer = stranger.get(&format!("{}?name=alice", endpoints::ACCOUNTS));
    found.check("a name for an unknown TLS key", &answer, 401, unknown);
    let network = stranger.get(endpoints::NETWORK);
    found.expect("the network is for everybody", network.status == 200, &network);

    // No HTTP at all: whatever is said, the connection ends.
    for garbage in [&b"\x16\x03\x01\x02\x00"[..], &[0; 4096], &[b'A'; 100_000]] {
        if let Some(answer) = wire.raw(&[garbage]) {
            found.expect("no HTTP", (400..500).contains(&answer.status), &answer);
        }
    }
}

fn base64url(json: &[u8]) -> Vec<u8> {
    json.iter().map(|byte| if *byte == b'+' || *byte == b'/' { b'_' } else { *byte }).collect()
}

/// What is wrong with an entry's bytes.
fn bodies(talk: &Talk, found: &mut Findings) {
    let alice = &talk.alice;
    let author = Author::Device(alice.member);
    let bytes = talk.next().to_bytes();
    let submit = |bytes: Vec<u8>| alice.wire.submit(vec![alice.sign_bytes(bytes, &author, &[ENVELOPE])]);
    let changed = |at: usize, byte: u8| {
        let mut bytes = bytes.clone();
        bytes[at] = byte;
        submit(bytes)
    };

    let cut = submit(bytes[..bytes.len() - 1].to_vec());
    found.check("a body cut short", &cut, 400, ErrorCode::BodyMalformed);
    let more = submit([bytes.as_slice(), &[0]].concat());
    found.check("a body with a byte too many", &more, 400, ErrorCode::BodyMalformed);
    found.check("an unknown version", &changed(1, 7), 400, ErrorCode::UnknownVersion);
    found.check("an unknown suite", &changed(2, 9), 400, ErrorCode::UnknownSuite);
    // The version as a byte of its own: the same number, another encoding.
    let longer = [&bytes[..1], &[0x18, 0x01], &bytes[2..]].concat();
    found.check("another encoding of the same", &submit(longer), 400, ErrorCode::BodyNotCanonical);
    let deep = submit(vec![0x81; 1_000_000]);
    found.check("CBOR 10^6 levels deep", &deep, 413, ErrorCode::BodyTooLong);
    let deep = submit(vec![0x81; limits::BODY_BYTES_MAX]);
    found.check("CBOR as deep as a body is long", &deep, 400, ErrorCode::BodyTooDeep);
    found.check("no CBOR", &submit(vec![0x1C; 64]), 400, ErrorCode::BodyMalformed);
    let open = submit(vec![0x9F; 64]);
    found.check("CBOR of indefinite length", &open, 400, ErrorCode::BodyNotCanonical);

    let mut other = talk.next();
    other.suite = SuiteId::Cnsa;
    let answer = alice.submit(&other, &[ENVELOPE]);
    found.check("another suite than the signature's", &answer, 400, ErrorCode::SignatureLength);
    let mut item = alice.sign(&other, &[ENVELOPE]);
    item.signature = vec![0; zixt_crypto::suite_params(SuiteId::Cnsa).signature_bytes].into();
    let answer = alice.wire.submit(vec![item]);
    found.check("another suite than the author's key", &answer, 400, ErrorCode::KeyUnknown);

    let mut item = alice.sign(&talk.next(), &[ENVELOPE]);
    item.signature.0[100] ^= 1;
    let answer = alice.wire.submit(vec![item]);
    found.check("a flipped bit in the signature", &answer, 400, ErrorCode::BadSignature);
    let mut item = alice.sign(&talk.next(), &[ENVELOPE]);
    item.signature.0.pop();
    let answer = alice.wire.submit(vec![item]);
    found.check("a signature cut short", &answer, 400, ErrorCode::SignatureLength);
    let item = talk.bob.sign(&talk.next(), &[ENVELOPE]);
    let answer = alice.wire.submit(vec![item]);
    found.check("signed by another device", &answer, 400, ErrorCode::BadSignature);
    let answer = talk.bob.wire.submit(vec![alice.sign(&talk.next(), &[ENVELOPE])]);
    found.check("sent by another device", &answer, 403, ErrorCode::AuthorMismatch);
    let mut item = alice.sign(&talk.next(), &[ENVELOPE]);
    item.possession = Some(item.signature.clone());
    let answer = alice.wire.submit(vec![item]);
    found.check("a second signature on a message", &answer, 400, ErrorCode::PossessionMissing);

    let answer = alice.submit(&talk.next(), &[b"another envelope"]);
    found.check("another envelope than the body names", &answer, 400, ErrorCode::AttachmentDigest);
    let answer = alice.submit(&talk.next(), &[]);
    found.check("an envelope left out", &answer, 400, ErrorCode::AttachmentCount);
    let long = vec![0; limits::ENVELOPE_BYTES_MAX + 1];
    let answer = alice.submit(&alice.body(talk.thread, talk.next, message(2, &long)), &[&long]);
    found.check("an envelope that is too long", &answer, 413, ErrorCode::AttachmentTooLong);

    let mut account = talk.next();
    account.thread = digest::account_thread(alice.member.account);
    let answer = alice.submit(&account, &[ENVELOPE]);
    found.check("a message in an account's thread", &answer, 400, ErrorCode::BodyInvalid);
    let mut relabelled = talk.next();
    relabelled.author = Author::Invitation(alice.member.account);
    let answer = alice.wire.submit(vec![alice.sign_bytes(relabelled.to_bytes(), &author, &[ENVELOPE])]);
    found.check("a message by an invitation", &answer, 400, ErrorCode::BodyInvalid);
}

/// What is wrong by the ledger's rules.
fn rules(talk: &Talk, found: &mut Findings) {
    let alice = &talk.alice;
    let one = |body: &Body| alice.submit(body, &[ENVELOPE]);

    let again = one(&talk.last);
    found.expect("the same entry again has its receipt again", again.status == 200, &again);
    let mut conflict = talk.next();
    conflict.message_id = talk.last.message_id;
    found.check("the same message id, another body", &one(&conflict), 409, ErrorCode::MessageIdConflict);
    let replayed = alice.message(talk.thread, talk.next - 1, 2);
    let problem = found.check("a counter replayed", &one(&replayed), 409, ErrorCode::CounterReplayed);
    found.expect("the next counter is said", problem.and_then(|it| it.expected) == Some(talk.next), "");
    let gap = alice.message(talk.thread, talk.next + 1, 2);
    let problem = found.check("a gap in the counters", &one(&gap), 409, ErrorCode::CounterGap);
    found.expect("the next counter is said", problem.and_then(|it| it.expected) == Some(talk.next), "");
    let largest = alice.message(talk.thread, u64::MAX, 2);
    found.check("the largest counter", &one(&largest), 409, ErrorCode::CounterGap);

    for (what, epoch) in [("an old epoch", 1), ("an epoch to come", 3), ("the largest epoch", u64::MAX)] {
        let answer = one(&alice.message(talk.thread, talk.next, epoch));
        let problem = found.check(what, &answer, 409, ErrorCode::StaleEpoch);
        let said = problem.map(|it| (it.expected, it.since));
        found.expect("the epoch and its commit are said", said == Some((Some(2), Some(1))), said);
    }
    let mut genesis = talk.next();
    genesis.genesis = Hash([9; 48]);
    found.check("another network", &one(&genesis), 400, ErrorCode::WrongGenesis);
    let nowhere = alice.message(thread(), 0, 2);
    found.check("a conversation that nobody began", &one(&nowhere), 404, ErrorCode::UnknownThread);
    let mut seen = talk.next();
    seen.last_seen = Some(Head { seq: Seq(2), hash: Hash([3; 48]) });
    found.check("another history seen", &one(&seen), 409, ErrorCode::OtherHistory);

    let carol = &talk.carol;
    let answer = carol.submit(&carol.message(talk.thread, 0, 2), &[ENVELOPE]);
    found.check("a message by a removed member", &answer, 403, ErrorCode::NotAMember);
    let answer = carol.wire.get(&endpoints::fill(endpoints::THREAD, &[&talk.thread]));
    found.check("a thread for a removed member", &answer, 404, ErrorCode::UnknownThread);
    let answer = carol.wire.get(&endpoints::fill(endpoints::ATTACHMENT, &[&talk.thread, &2, &0]));
    found.check("a later envelope for a removed member", &answer, 404, ErrorCode::UnknownAttachment);
    let answer = carol.wire.get(&endpoints::fill(endpoints::PROOF, &[&talk.thread, &2]));
    found.check("a later proof for a removed member", &answer, 404, ErrorCode::UnknownEntry);
    // Up to the removal she reads what she was told of.
    let page = carol.wire.get(&endpoints::fill(endpoints::ENTRIES, &[&talk.thread]));
    let page: EntryPage = serde_json::from_slice(&page.body).expect("a page");
    let seqs: Vec<u64> = page.entries.iter().map(|entry| entry.seq).collect();
    found.expect(
        "entries for a removed member",
        (&seqs[..], page.next) == (&[0, 1], None),
        (seqs, page.next),
    );

    let joins =
        |added| (alice.body(talk.thread, talk.next, commit(2, added, vec![])), [ENVELOPE, WELCOME, TREE]);
    let (body, attachments) = joins(vec![talk.bob.member]);
    let answer = alice.submit(&body, &attachments);
    found.check("a member added twice", &answer, 409, ErrorCode::AlreadyAMember);
    let ghost = Member { account: alice.member.account, device: DeviceId([1; 16]) };
    let (body, attachments) = joins(vec![ghost]);
    let answer = alice.submit(&body, &attachments);
    found.check("a device added that is none", &answer, 409, ErrorCode::AddedInactive);
    let leaves = |removed| alice.body(talk.thread, talk.next, commit(2, vec![], removed));
    found.check("somebody removed twice", &one(&leaves(vec![carol.member])), 409, ErrorCode::RemovedNobody);
    found.check("oneself removed", &one(&leaves(vec![alice.member])), 400, ErrorCode::RemovedSelf);
    let lonely = alice.body(thread(), 0, commit(0, vec![], vec![]));
    found.check("a conversation with nobody", &one(&lonely), 400, ErrorCode::NobodyAdded);

    let two =
        vec![alice.sign(&talk.next(), &[ENVELOPE]), alice.sign(&alice.message(thread(), 0, 0), &[ENVELOPE])];
    found.check("entries of two threads", &alice.wire.submit(two), 400, ErrorCode::MixedThreads);
    let answer = alice.wire.enrol(alice.sign(&talk.next(), &[ENVELOPE]), None);
    found.check("a message to the enrolment", &answer, 400, ErrorCode::WrongKind);

    let packages = |packages: Vec<Vec<u8>>| {
        let packages: Vec<_> = packages.into_iter().map(zixt_api::Bytes64).collect();
        let upload = serde_json::json!({ "one_time": packages });
        alice.wire.call("POST", endpoints::KEY_PACKAGES, upload.to_string().as_bytes())
    };
    let many = packages(vec![vec![1]; limits::KEY_PACKAGES_MAX + 1]);
    found.check("too many key packages", &many, 409, ErrorCode::TooManyKeyPackages);
    let long = packages(vec![vec![1; limits::KEY_PACKAGE_BYTES_MAX + 1]]);
    found.check("a key package that is too long", &long, 400, ErrorCode::KeyPackageTooLong);
    let foreign = packages(vec![vec![1; 1_000]]);
    found.check("what is no key package of this device", &foreign, 400, ErrorCode::KeyPackageForeign);
    found.check("an empty key package", &packages(vec![vec![]]), 400, ErrorCode::KeyPackageTooLong);
    let claim = |accounts: Vec<String>| {
        let claim = serde_json::json!({ "accounts": accounts });
        alice.wire.call("POST", endpoints::KEY_PACKAGES_CLAIM, claim.to_string().as_bytes())
    };
    let many = claim(vec![alice.member.account.to_hex(); limits::ROSTER_CHANGE_MAX + 1]);
    found.check("key packages of too many accounts", &many, 400, ErrorCode::TooManyItems);
    let nobody = claim(vec![AccountId([9; 16]).to_hex()]);
    found.check("key packages of nobody", &nobody, 404, ErrorCode::UnknownAccount);
    let nobody = alice.wire.get(&format!("{}?name=nobody", endpoints::ACCOUNTS));
    found.check("a name that nobody has", &nobody, 404, ErrorCode::UnknownName);
}

/// What is wrong with an enrolment.
fn invitations(appliance: &Appliance, open: &Invitation, found: &mut Findings) {
    let name = || Some(open.name.clone());
    let enrol = |newcomer: &Newcomer| newcomer.wire.enrol(newcomer.item(), name());

    let mut odd = Newcomer::of(open);
    odd.attachments.swap(0, 1);
    found.check("keys in another order", &enrol(&odd), 400, ErrorCode::AttachmentDigest);
    let mut odd = Newcomer::of(open);
    if let Payload::DeviceAdd { device, .. } = &mut odd.body.payload {
        *device = DeviceId([1; 16]);
    }
    found.check("a device id of one's choice", &enrol(&odd), 400, ErrorCode::DeviceIdMismatch);
    let odd = Newcomer::of(open);
    let mut item = odd.item();
    item.possession = None;
    let answer = odd.wire.enrol(item, name());
    found.check("no signature of the new key", &answer, 400, ErrorCode::PossessionMissing);
    let mut item = odd.item();
    item.possession = Newcomer::of(open).item().possession;
    let answer = odd.wire.enrol(item, name());
    found.check("the new key signed something else", &answer, 400, ErrorCode::BadPossession);
    let answer = odd.wire.enrol(odd.item(), Some("alice".to_owned()));
    found.check("another name than the invitation's", &answer, 400, ErrorCode::NameMismatch);
    let mut guessed = open.clone();
    guessed.seed = InvitationSeed::new(random());
    let answer = enrol(&Newcomer::of(&guessed));
    found.check("a guessed invitation key", &answer, 403, ErrorCode::InvitationKey);
    let mut nobody = open.clone();
    nobody.account = AccountId(random());
    let answer = enrol(&Newcomer::of(&nobody));
    found.check("an account that nobody created", &answer, 404, ErrorCode::UnknownAccount);

    let first = Newcomer::of(open);
    let answer = enrol(&first);
    found.expect("the invitation works", answer.status == 200, &answer);
    let answer = enrol(&first);
    found.expect("the same enrolment again has its receipt again", answer.status == 200, &answer);
    let answer = enrol(&Newcomer::of(open));
    found.check("an invitation used twice", &answer, 409, ErrorCode::InvitationUsed);

    // One that was good until a moment before it was made: the custody daemon signs what an enroller asks for.
    let expired = invite(appliance, open, "emil", Timestamp(now().0 - 1));
    found.expect("an account with an invitation that ended", expired.1.status == 200, &expired.1);
    let answer = Newcomer::of(&expired.0);
    let answer = answer.wire.enrol(answer.item(), Some("emil".to_owned()));
    found.check("an expired invitation", &answer, 410, ErrorCode::InvitationExpired);
}

/// What is wrong with what an administrator's program asks for.
fn admin(appliance: &Appliance, open: &Invitation, found: &mut Findings) {
    let later = Timestamp(now().0 + 3_600_000);
    for name in ["", "a/b", "a\u{202e}b", &"x".repeat(65)] {
        let (_, answer) = invite(appliance, open, name, later);
        found.check("a name that may mislead", &answer, 400, ErrorCode::NameInvalid);
    }
    let (_, answer) = invite(appliance, open, "ALICE", later);
    found.check("a name that is taken", &answer, 409, ErrorCode::NameTaken);

    let (body, salt, _) = invite_body(appliance, open, "frieda", later);
    let mine = device::fresh(open.suite);
    let signed = |body: &Body| cose::sign(&*mine, labels::BODY, &body.to_bytes()).expect("a signature");
    let answer = ask_admin(appliance, &body, signed(&body), "frieda", salt);
    found.check("an invitation signed by a stranger", &answer, 400, ErrorCode::BadSignature);
    let mut other = body.clone();
    other.author = Author::Enroller(digest::key_hash(open.suite, mine.public_key()));
    let answer = ask_admin(appliance, &other, signed(&other), "frieda", salt);
    found.check("an enroller who is not appointed", &answer, 403, ErrorCode::UnknownEnroller);
    let answer = ask_admin(appliance, &body, signed(&body), "gerda", salt);
    found.check("another name than the commitment's", &answer, 400, ErrorCode::NameMismatch);
}

fn invite_body(
    appliance: &Appliance,
    like: &Invitation,
    name: &str,
    expires_at: Timestamp,
) -> (Body, Salt, Invitation) {
    let custody = BlockingHsmClient::new(appliance.hsmd_socket());
    let enroller = custody.status().expect("custody").key(KeyPurpose::Enroller).expect("its key").hash;
    let seed = zixt_crypto::SigningSeed::generate().expect("randomness");
    let key = zixt_crypto::Backend::signing_key(&zixt_crypto_fast::AwsLc, like.suite, &seed).expect("a key");
    let (account, salt) = (AccountId(random()), Salt(random()));
    let body = Body {
        version: Body::VERSION,
        suite: like.suite,
        genesis: like.genesis,
        thread: digest::account_thread(account),
        author: Author::Enroller(enroller),
        counter: 0,
        message_id: MessageId(random()),
        sent_at: now(),
        last_seen: None,
        payload: Payload::Invite {
            account,
            name: digest::name_commitment(&salt, name),
            key: digest::key_hash(like.suite, key.public_key()),
            expires_at,
        },
    };
    let invitation = Invitation {
        account,
        name: name.to_owned(),
        salt,
        seed: InvitationSeed::new(*seed.as_bytes()),
        ..like.clone()
    };
    (body, salt, invitation)
}

/// Creates an account as `zixt-admin invite` does, without its checks.
fn invite(
    appliance: &Appliance,
    like: &Invitation,
    name: &str,
    expires_at: Timestamp,
) -> (Invitation, device::Answer) {
    let (body, salt, invitation) = invite_body(appliance, like, name, expires_at);
    let custody = BlockingHsmClient::new(appliance.hsmd_socket());
    let signature = custody.sign_invite(&body).expect("a signature");
    let answer = ask_admin(appliance, &body, signature, name, salt);
    (invitation, answer)
}

fn ask_admin(
    appliance: &Appliance,
    body: &Body,
    signature: Vec<u8>,
    name: &str,
    salt: Salt,
) -> device::Answer {
    let submission = SubmissionItem {
        body: body.to_bytes().into(),
        signature: signature.into(),
        possession: None,
        attachments: Vec::new(),
    };
    let request = AdminInvitation { submission, name: name.to_owned(), salt: salt.into(), link: None };
    let request = serde_json::to_vec(&request).expect("JSON");
    let mut stream = UnixStream::connect(appliance.run().join("admin.sock")).expect("the admin socket");
    let head = format!(
        "POST {} HTTP/1.1\r\nHost: zixtd\r\nContent-Length: {}\r\n\r\n",
        endpoints::ADMIN_INVITATIONS,
        request.len()
    );
    stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&request)).expect("a write");
    device::answer(&mut stream).expect("an answer")
}

/// The largest requests, several at a time and again and again: some are too many, none stays in memory.
fn flood(appliance: &Appliance, talk: &Talk, found: &mut Findings) {
    let wire = &talk.alice.wire;
    let text = vec![b'A'; limits::REQUEST_BYTES_MAX - 64 * 1024];
    let item = SubmissionItem { body: text.into(), ..talk.alice.sign(&talk.next(), &[ENVELOPE]) };
    let request = serde_json::json!({ "submissions": [{
        "body": String::from_utf8_lossy(&item.body.0), "signature": item.signature,
    }] });
    let request = request.to_string().into_bytes();
    let answer = wire.call("POST", endpoints::SUBMISSIONS, &request);
    found.check("the largest request, one body", &answer, 413, ErrorCode::BodyTooLong);
    let rounds = [
        ("blanks", vec![b' '; limits::REQUEST_BYTES_MAX], ErrorCode::MalformedRequest),
        ("blanks again", vec![b' '; limits::REQUEST_BYTES_MAX], ErrorCode::MalformedRequest),
        (
            "millions of empty attachments",
            stuffed("\"attachments\":[", b"\"\",", "\"\"]"),
            ErrorCode::BodyMalformed,
        ),
        ("millions of empty entries", many_entries(), ErrorCode::TooManyItems),
        ("the largest commits", large_commit(talk), ErrorCode::BadSignature),
        ("escaped text", stuffed("\"possession\":\"\\u0041", b"A", "?\""), ErrorCode::MalformedRequest),
    ];
    let head = |length| {
        format!(
            "POST {} HTTP/1.1\r\nHost: zixt\r\n{}Content-Length: {length}\r\n\r\n",
            endpoints::SUBMISSIONS,
            wire.authorization()
        )
    };
    for (what, body, code) in rounds {
        let answers: Vec<_> = std::thread::scope(|scope| {
            let post = || wire.raw(&[head(body.len()).as_bytes(), &body]);
            let threads: Vec<_> = (0..6).map(|_| scope.spawn(post)).collect();
            threads.into_iter().map(|thread| thread.join().expect("a thread")).collect()
        });
        let answers: Vec<_> = answers.into_iter().map(|it| it.expect("an answer")).collect();
        let codes: Vec<_> =
            answers.iter().map(|it| (it.status, it.problem().map(|problem| problem.code))).collect();
        let peak = memory_kib(appliance, "VmHWM:");
        println!("six of the largest requests at once: {what}: {peak} KiB so far, {codes:?}");
        // Who is too many is refused before its body is read.
        let fits = |answer: &(u16, Option<ErrorCode>)| {
            [(400, Some(code)), (503, Some(ErrorCode::Busy))].contains(answer)
        };
        found.expect(what, codes.iter().all(fits), &codes);
    }
}

/// A request of the largest length, with one entry in which something is repeated.
fn stuffed(before: &str, repeated: &[u8], after: &str) -> Vec<u8> {
    let before = format!("{{\"submissions\":[{{\"body\":\"\",\"signature\":\"\",{before}");
    let after = format!("{after}}}]}}");
    let count = (limits::REQUEST_BYTES_MAX - before.len() - after.len()) / repeated.len();
    [before.as_bytes(), &repeated.repeat(count), after.as_bytes()].concat()
}

/// As large as a commit may be, and signed by somebody else.
fn large_commit(talk: &Talk) -> Vec<u8> {
    let lengths = [limits::COMMIT_BYTES_MAX, limits::WELCOME_BYTES_MAX, limits::TREE_BYTES_MAX];
    let [envelope, welcome, tree] = lengths.map(|length| vec![5; length]);
    let mut body = talk.next();
    body.payload = commit(2, vec![talk.carol.member], vec![]);
    if let Payload::Commit { envelope: of_envelope, welcome: of_welcome, tree: of_tree, .. } =
        &mut body.payload
    {
        *of_envelope = digest::envelope_digest(&envelope);
        *of_welcome = Some(digest::attachment_digest(&welcome));
        *of_tree = Some(digest::attachment_digest(&tree));
    }
    let item = talk.bob.sign(&body, &[&envelope, &welcome, &tree]);
    serde_json::to_vec(&SubmitRequest { submissions: vec![item] }).expect("JSON")
}

fn many_entries() -> Vec<u8> {
    let entry = b"{\"body\":\"\",\"signature\":\"\"},";
    let count = limits::REQUEST_BYTES_MAX / entry.len() - 2;
    let entries = entry.repeat(count);
    [b"{\"submissions\":[", &entries[..entries.len() - 1], b"]}"].concat()
}

/// Whoever opens connections and leaves them idle, at whatever point of their beginning, keeps nobody out.
#[test]
fn idle_connections_keep_nobody_out() {
    let appliance = Appliance::lab();
    let alice = Device::enrol(&invitation(&appliance, "alice"));
    let open = invitation(&appliance, "bob");
    let address = alice.wire.address;
    let connect = || std::net::TcpStream::connect(address).expect("a socket");

    // More than there are places for handshakes.
    let silent: Vec<_> = (0..600).map(|_| connect()).collect();
    // Who has said hello is answered with a signature, and not waited for.
    let greeted: Vec<_> = (0..150)
        .map(|_| {
            let config = Arc::clone(&Wire::stranger(&open).config);
            let mut hello = rustls::ClientConnection::new(config, zixt_crypto_fast::tls::server_name())
                .expect("a connection");
            let mut socket = connect();
            hello.write_tls(&mut socket).expect("a hello");
            socket
        })
        .collect();
    // More strangers than there are places for them, connected for good and with nothing to say.
    let strangers: Vec<_> = (0..70).map(|_| Wire::stranger(&open).open()).collect();

    let body = alice.message(thread(), 0, 2);
    let refused = alice.submit(&body, &[ENVELOPE]);
    assert_eq!(refused.problem().expect("an answer").code, ErrorCode::UnknownThread);
    let bob = Device::enrol(&open);
    assert_eq!(bob.wire.get("/healthz").status, 200);
    drop((silent, greeted, strangers));
    assert!(healthy(&appliance));
}

/// A client that offers any other key exchange is refused in the handshake; nothing else of it differs.
#[test]
fn a_client_with_a_classical_key_exchange_is_refused() {
    let appliance = Appliance::lab();
    let stranger = Wire::stranger(&invitation(&appliance, "alice"));
    let like = &stranger.config;
    let with = |groups: Vec<&'static dyn rustls::crypto::SupportedKxGroup>| {
        let provider = CryptoProvider { kx_groups: groups, ..(**like.crypto_provider()).clone() };
        let mut config = rustls::ClientConfig::builder_with_provider(Arc::new(provider))
            .with_protocol_versions(&[&TLS13])
            .expect("a configuration")
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(AnyServer {
                provider: Arc::clone(like.crypto_provider()),
                raw: true,
            }))
            .with_client_cert_resolver(Arc::clone(&like.client_auth_cert_resolver));
        config.alpn_protocols.clone_from(&like.alpn_protocols);
        config.enable_sni = false;
        device::open(stranger.address, Arc::new(config))
    };
    // The control: the one group of the product, and even this client, which believes any server, gets through.
    let mut stream = with(vec![kx_group::MLKEM1024]).expect("the product's own group");
    stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: zixt\r\n\r\n").expect("a write");
    assert_eq!(device::answer(&mut stream).expect("an answer").status, 200);

    for (what, groups) in [
        ("X25519", vec![kx_group::X25519]),
        ("P-256 and P-384", vec![kx_group::SECP256R1, kx_group::SECP384R1]),
        ("X25519MLKEM768", vec![kx_group::X25519MLKEM768]),
        ("X25519MLKEM768 and X25519", vec![kx_group::X25519MLKEM768, kx_group::X25519]),
        ("ML-KEM-768", vec![kx_group::MLKEM768]),
    ] {
        let error = with(groups).map(|_| ()).expect_err(what);
        let alert = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
        println!("{what:<28} {error}");
        assert!(matches!(alert, Some(rustls::Error::AlertReceived(_))), "{what}: {error:?}");
    }

    // What a browser or curl of today would say, in both versions of TLS.
    for versions in [&[&TLS13][..], &[&TLS12][..], &[&TLS12, &TLS13][..]] {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(versions)
            .expect("a configuration")
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(AnyServer { provider, raw: false }))
            .with_no_client_auth();
        let error = device::open(stranger.address, Arc::new(config)).map(|_| ()).expect_err("refused");
        let alert = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
        println!("default of rustls, {versions:?}: {error}");
        assert!(matches!(alert, Some(rustls::Error::AlertReceived(_))), "{error:?}");
    }
    assert!(healthy(&appliance));
}
