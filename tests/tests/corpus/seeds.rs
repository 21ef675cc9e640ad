//! Where the corpora come from: valid samples of a whole network and a conversation, and the classic faults of each.
//! Signatures are hedged, so that every making differs; the names do not.

use crate::parsers::*;
use minicbor::Encoder;
use std::sync::Arc;
use zixt_api::{
    AccountName, AccountView, AdminDecision, AdminInvitation, AdminStatus, AuditHealth, AuditSink,
    AuditSinkKind, AuditSinkState, Bytes64, CertifiedHeader as ApiHeader, Checkpoint, ClaimRequest,
    ClaimResponse, ClaimedKeyPackage, ClockInfo, Consistency, CustodyState, DirectoryInfo, EnrolRequest,
    Entry, EntryPage, EntryProof, ErrorCode, HeadProof, HeaderInfo, Health, HeldPlanInfo, Hex, Invitation,
    InvitationSeed, KeyPackageCounts, KeyPackageUpload, MemberRef, Network as ApiNetwork, Problem, PublicKey,
    Receipt, ShardConsistency, ShardProof, StreamLine, SubmissionItem, SubmitRequest, SubmitResponse,
    SystemView, ThreadView, WebAddress,
};
use zixt_ceremony::file::{from_file, to_file};
use zixt_ceremony::{
    OfficerCard, RecoveryKey, RecoveryRecord, RecoveryRequest, SealedShare, ShareRelease, approve, assemble,
    release,
};
use zixt_consensus::{Content as Proposed, Message, Polka, ProposalHead, RoundChange, SignedVote};
use zixt_crypto::hpke::OpeningKey;
use zixt_crypto::{
    AeadKey, Backend as _, KemSeed, Keyring, Reference, SigningSeed, aead, cose, digest, hpke,
};
use zixt_hsm_protocol::{self as hsm, Pin, Request, Response, VoteOutcome};
use zixt_ledger::evidence::{CertifiedHeader, Contradiction, Evidence, ForkProof};
use zixt_ledger::map::MapProof;
use zixt_ledger::testing::SampleNetwork;
use zixt_ledger::tree::Frontier;
use zixt_ledger::{ProposedBlock, Submission};
use zixt_messaging::{
    CommitEntry, Content, KeyPackageInfo, KeyPackageUse, MessageEntry, SeenHeader, StatePart, StoredState,
    welcome_key_packages,
};
use zixt_types::*;

/// A file of a corpus.
pub(crate) struct Seed {
    pub(crate) target: &'static str,
    pub(crate) name: String,
    pub(crate) bytes: Vec<u8>,
}

#[derive(Default)]
struct Seeds(Vec<Seed>);

impl Seeds {
    fn add(&mut self, target: &'static str, name: &str, bytes: impl Into<Vec<u8>>) {
        self.0.push(Seed { target, name: name.to_owned(), bytes: bytes.into() });
    }

    /// A valid sample, cut off, followed by something, and with one bit flipped.
    fn damaged(&mut self, target: &'static str, what: &str, valid: &[u8]) {
        self.add(target, &format!("valid-{what}"), valid);
        self.add(target, &format!("truncated-{what}"), &valid[..valid.len() * 2 / 5]);
        self.add(target, &format!("trailing-byte-{what}"), [valid, &[0]].concat());
        let mut flipped = valid.to_vec();
        flipped[valid.len() / 2] ^= 0x10;
        self.add(target, &format!("flipped-bit-{what}"), flipped);
    }

    /// As [`Self::damaged`], and the faults of deterministic CBOR: `cbor` is where it starts.
    fn format(&mut self, target: &'static str, what: &str, valid: &[u8], cbor: usize) {
        self.damaged(target, what, valid);
        let (magic, body) = valid.split_at(cbor);
        let with = |parts: &[&[u8]]| [&[magic], parts].concat().concat();
        let first = &body[..1];
        self.add(target, "unknown-version", with(&[first, &[0x02], &body[2..]]));
        self.add(target, "version-not-shortest", with(&[first, &[0x18, 0x01], &body[2..]]));
        self.add(target, "unknown-suite", with(&[&body[..2], &[0x17], &body[3..]]));
        self.add(target, "string-of-2-64", with(&[&body[..2], &[0x5B], &[0xFF; 8]]));
        self.add(target, "array-of-2-63", with(&[&body[..2], &[0x9B, 0x7F], &[0xFF; 7]]));
        self.add(target, "indefinite-array", with(&[&[0x9F], &body[1..body.len().min(200)], &[0xFF]]));
        self.add(target, "map", with(&[&[0xA1, 0x01, 0x01]]));
        self.add(target, "nested-too-deep", with(&[&[0x81; 64], &[0x00]]));
        self.add(target, "null", with(&[&[0xF6]]));
    }
}

/// Inputs of a megabyte: they test bounds, and compress too well to be worth their place in a repository.
pub(crate) fn too_large_to_commit() -> Vec<(&'static str, Vec<u8>)> {
    const MILLION: usize = 1_000_000;
    let after = |prefix: &[u8], bytes: &[u8]| [prefix, bytes].concat();
    vec![
        ("nothing", Vec::new()),
        ("arrays, a million deep", vec![0x81; MILLION]),
        ("indefinite arrays, a million deep", vec![0x9F; MILLION]),
        ("maps, a million deep", vec![0xA1; MILLION]),
        ("tags, a million deep", vec![0xC1; MILLION]),
        ("COSE tag before arrays", after(&[0xD2], &vec![0x84; MILLION])),
        ("JSON arrays, a million deep", vec![b'['; MILLION]),
        ("JSON objects, 200,000 deep", b"{\"a\":".repeat(MILLION / 5)),
        ("a JSON event, deep", after(b"{\"type\":\"event\",\"entry\":", &vec![b'['; MILLION])),
        ("JSON submissions without end", after(b"{\"submissions\":[", &b"{},".repeat(MILLION / 3))),
        ("a JSON string without end", after(b"{\"submission\":{\"body\":\"", &vec![b'A'; MILLION])),
        ("evidence, deep", after(b"ZIXTEVD1", &vec![0x81; MILLION])),
        ("fork, deep", after(b"ZIXTFRK1", &vec![0x81; MILLION])),
        ("an invitation of a megabyte", after(b"zixt-invite:", &vec![b'A'; MILLION])),
        ("an invitation of white space", after(b"zixt-invite:", &vec![b'\n'; MILLION])),
        ("a frame of 70 kB, deep", after(&[0, 1, 0x11, 0x70], &vec![0x81; MILLION])),
        ("a log of frames' magics", after(b"ZIXT-WAL", &b"ZWL1".repeat(MILLION / 4))),
        ("parts of nothing", vec![0; MILLION]),
        ("ones", vec![0xFF; MILLION]),
    ]
}

/// Whether a target's parser takes an input, and what is said in it is also good where the target checks that.
pub(crate) fn accepts(target: &str, data: &[u8]) -> bool {
    fn parses<T: Canonical>(data: &[u8]) -> bool {
        T::parse(data).is_ok()
    }
    fn reads<T: for<'de> serde::Deserialize<'de>>(data: &[u8]) -> bool {
        serde_json::from_slice::<T>(data).is_ok()
    }
    let text = || std::str::from_utf8(data).unwrap_or_default();
    match target {
        "cbor" => cbor::scan("input", data).is_ok(),
        "body" => parses::<Body>(data),
        "header" => parses::<Header>(data),
        "certificate" => parses::<Certificate>(data),
        "vote" => parses::<Vote>(data),
        "genesis" => parses::<Genesis>(data),
        "batch" => Batch::parse(data).is_ok_and(|batch| {
            ProposedBlock::rebuild(genesis_state(), batch, &zixt_crypto::Reference).is_ok()
        }),
        "keyring" => parses::<Keyring>(data),
        "cose" => cose::from_cose_sign1(data).is_ok(),
        "aead" => aead::open(&AeadKey::from_bytes(&AEAD_KEY), AAD, data).is_ok(),
        "hpke" => opening_key().open(AAD, AAD, data).is_ok(),
        "submission" => {
            let parts = split_parts(data);
            let [body, signature, possession, attachments @ ..] = &parts[..] else { return false };
            let possession = Some(possession.to_vec()).filter(|bytes| !bytes.is_empty());
            let attachments = attachments.iter().map(|bytes| Attachment(bytes.to_vec())).collect();
            Submission::parse(body.to_vec(), signature.to_vec(), possession, attachments).is_ok()
        }
        "evidence" => Evidence::parse(data).is_ok_and(|evidence| {
            let genesis = digest::genesis_hash(&genesis_state().genesis);
            evidence.verify(genesis, &zixt_crypto::Reference).is_ok_and(|report| report.is_ok())
        }),
        "fork" => ForkProof::parse(data).is_ok_and(|proof| {
            let genesis = digest::genesis_hash(&genesis_state().genesis);
            zixt_ledger::evidence::verify_fork(&proof, genesis, &zixt_crypto::Reference).is_ok()
        }),
        "map_proof" => parses::<MapProof>(data),
        "frontier" => parses::<Frontier>(data),
        "invitation" => Invitation::from_text(text()).is_ok() || parses::<Invitation>(data),
        "submit_json" => reads::<SubmitRequest>(data),
        "enrol_json" => reads::<EnrolRequest>(data),
        "key_packages_json" => reads::<KeyPackageUpload>(data),
        "claim_json" => reads::<ClaimRequest>(data),
        "stream_json" => reads::<StreamLine>(data),
        "answers_json" => ANSWERS.iter().any(|read| read(data)),
        "admin_json" => reads::<AdminInvitation>(data) || reads::<AdminDecision>(data),
        "custody_frames" => {
            let mut stream = data;
            let mut frames = 0;
            while hsm::read_frame_blocking(&mut stream).is_ok() {
                frames += 1;
            }
            frames > 0 && stream.is_empty()
        }
        "custody_request" => hsm::decode::<Request>(data).is_ok(),
        "custody_response" => hsm::decode::<Response>(data).is_ok(),
        "consensus_message" => parses::<Message>(data),
        // What is in a log is asked for by its height only; the test of the log itself looks at that.
        "wal" => true,
        "content" => parses::<Content>(data),
        "key_package" => KeyPackageInfo::parse(data)
            .is_ok_and(|info| device(2).check_key_package(data, &info.member, NOW).is_ok()),
        "welcome" => welcome_key_packages(data).is_ok_and(|packages| !packages.is_empty()),
        "join" => {
            let parts = split_parts(data);
            let [welcome, tree] = parts[..] else { return false };
            let entry = CommitEntry {
                thread: thread(),
                author: member(1),
                time: NOW,
                epoch: Epoch(0),
                envelope: Hash::ZERO,
                welcome: Some(digest::attachment_digest(welcome)),
                tree: Some(digest::attachment_digest(tree)),
                authenticator: Fixture::get().joined,
                added: vec![member(2)],
                removed: vec![],
            };
            let packages = [Fixture::get().package.clone()];
            device(2).join(welcome, tree, &packages, &entry, &[member(1), member(2)]).is_ok()
        }
        "conversation" => {
            let mut conversation =
                device(2).open(thread(), &Fixture::get().state).expect("the fixture opens");
            let envelope = digest::envelope_digest(&data[2..]);
            let (thread, author, epoch) = (thread(), member(1), Epoch(1));
            if data[0] == 0 {
                let content = Fixture::get().content;
                let entry = MessageEntry { thread, author, message_id: MESSAGE, epoch, envelope, content };
                conversation.decrypt(&data[2..], &entry).is_ok()
            } else {
                let entry = CommitEntry {
                    thread,
                    author,
                    time: NOW,
                    epoch,
                    envelope,
                    welcome: None,
                    tree: None,
                    authenticator: Fixture::get().updated,
                    added: vec![],
                    removed: vec![],
                };
                conversation.process_commit(&data[2..], &entry).is_ok()
            }
        }
        "stored_state" => match split_parts(data)[..] {
            [[], ..] => true,
            [core, tree, past, pending] => {
                let [core, tree, past, pending] = [core, tree, past, pending].map(<[u8]>::to_vec);
                device(2).open(thread(), &StoredState { core, tree, past, pending }).is_ok()
            }
            _ => false,
        },
        "ceremony_file" => {
            let read = [
                from_file::<Action>(data).is_ok(),
                from_file::<Approval>(data).is_ok(),
                from_file::<Transcript>(data).is_ok(),
                from_file::<OfficerCard>(data).is_ok_and(|card| card.verify(&Reference).is_ok()),
                from_file::<SealedShare>(data).is_ok(),
                from_file::<RecoveryRecord>(data).is_ok(),
                from_file::<RecoveryRequest>(data).is_ok(),
                from_file::<ShareRelease>(data).is_ok_and(|release| release.verify(&Reference).is_ok()),
            ];
            read.contains(&true)
        }
        other => panic!("what does {other} accept?"),
    }
}

/// Every file of every corpus, made anew.
pub(crate) fn all() -> Vec<Seed> {
    let mut seeds = Seeds::default();
    cbor_items(&mut seeds);
    let mut network = new_network();
    let submissions = ledger(&mut seeds, &mut network);
    requests(&mut seeds, &submissions);
    evidence(&mut seeds, &network);
    sealed(&mut seeds);
    custody(&mut seeds, &network);
    consensus(&mut seeds, &network);
    messaging(&mut seeds);
    ceremony(&mut seeds);
    seeds.0
}

/// Two officers' files: one action of each kind, and a recovery with everything that it takes.
fn ceremony(seeds: &mut Seeds) {
    const TARGET: &str = "ceremony_file";
    let officer = |number: u8| {
        let seed = SigningSeed::from_bytes(&[number; 32]);
        let key = Reference.signing_key(SuiteId::Standard, &seed).expect("a key");
        let opening = OpeningKey::new(&KemSeed::from_bytes(&[number; 64]));
        let card = OfficerCard::new("Ada", &*key, &opening.encapsulation_key()).expect("a card");
        (key, opening, card)
    };
    let mut officers = [officer(1), officer(2)];
    officers.sort_by_key(|(_, _, card)| card.officer());
    let holders: Vec<ShareHolder> = officers.iter().map(|(_, _, card)| card.holder()).collect();
    let kems: Vec<Vec<u8>> = officers.iter().map(|(_, _, card)| card.kem.clone()).collect();
    let (genesis, appliance) = (Hash([1; 48]), ApplianceId([2; 48]));
    let recovery = RecoveryKey::generate().expect("randomness");
    let record = recovery.share(genesis, appliance, 2, &holders, &kems).expect("a record");
    let machine = OpeningKey::new(&KemSeed::from_bytes(&[3; 64])).encapsulation_key();
    let (protector, key) = (ProtectorId([4; 16]), Hash([5; 48]));
    let recover = Decision::Recover { backup: Hash([6; 48]), recipient: digest::kem_key_hash(&machine) };
    let decisions = [
        Decision::AddProtector {
            protector,
            kind: ProtectorKind::Pkcs11,
            description: "SoftHSM \"zixt\", serial 0123".to_owned(),
        },
        Decision::RemoveProtector { protector },
        Decision::SetRecovery { threshold: 2, holders },
        Decision::RotateRoot,
        Decision::ActivateKey {
            purpose: KeyPurpose::Consensus,
            retires: key,
            activates: Hash([7; 48]),
            suite: SuiteId::Cnsa,
            custody: CustodyMode::Token,
        },
        Decision::DestroyKey { purpose: KeyPurpose::Tls, key },
        recover.clone(),
    ];
    let action = |decision| Action { version: 1, genesis, appliance, sequence: 8, expires_at: NOW, decision };
    for decision in decisions {
        let name = decision.name();
        seeds.damaged(TARGET, name, &to_file(&action(decision)));
    }
    let request = RecoveryRequest::new(&action(recover), &machine, &record).expect("a request");
    let approvals = officers
        .iter()
        .map(|(key, _, _)| approve(&request.action, &**key).expect("an approval"))
        .collect::<Vec<Approval>>();
    seeds.damaged(TARGET, "approval", &to_file(&approvals[0]));
    let transcript = assemble(&request.action, approvals, &Reference).expect("a transcript");
    seeds.format(TARGET, "transcript", &to_file(&transcript), 8);
    seeds.damaged(TARGET, "card", &to_file(&officers[0].2));
    seeds.damaged(TARGET, "share", &to_file(&record.shares[0]));
    seeds.damaged(TARGET, "record", &to_file(&record));
    seeds.damaged(TARGET, "request", &to_file(&request));
    let share = record.shares[0].open(&officers[0].1).expect("a share");
    let released = release(&share, &request, &*officers[0].0).expect("a release");
    seeds.damaged(TARGET, "release", &to_file(&released));
}

fn cbor_items(seeds: &mut Seeds) {
    let mut nested = vec![0x81; limits::CBOR_DEPTH_MAX];
    nested.push(0x00);
    for (name, bytes) in [
        ("valid-array", &[0x84, 0x01, 0x42, 0xAB, 0xCD, 0x63, b'a', b'b', b'c', 0xF6][..]),
        ("valid-deepest", &nested),
        ("valid-negative-2-64", &[0x3B, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF]),
        ("one-too-deep", &[&[0x81], &nested[..]].concat()),
        ("not-shortest-8", &[0x18, 0x17]),
        ("not-shortest-16", &[0x19, 0x00, 0xFF]),
        ("not-shortest-32", &[0x1A, 0x00, 0x00, 0xFF, 0xFF]),
        ("not-shortest-64", &[0x1B, 0, 0, 0, 0, 0xFF, 0xFF, 0xFF, 0xFF]),
        ("not-shortest-length", &[0x58, 0x01, 0x00]),
        ("indefinite-string", &[0x5F, 0x41, 0x00, 0xFF]),
        ("indefinite-array", &[0x9F, 0xFF]),
        ("break-alone", &[0xFF]),
        ("reserved-info", &[0x1C]),
        ("map", &[0xA1, 0x01, 0x01]),
        ("tag", &[0xC1, 0x00]),
        ("half-float", &[0xF9, 0x3C, 0x00]),
        ("simple-255", &[0xF8, 0xFF]),
        ("undefined", &[0xF7]),
        ("string-of-2-64", &[0x5B, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF]),
        ("array-of-2-64", &[0x9B, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF]),
        ("array-one-longer-than-the-input", &[0x83, 0x00, 0x00]),
        ("trailing-byte", &[0x00, 0x00]),
        ("no-utf-8", &[0x62, 0xFF, 0xFE]),
        ("head-cut-off", &[0x1B, 0xFF]),
    ] {
        seeds.add("cbor", name, bytes);
    }
}

fn parts_of(submission: &Submission) -> Vec<u8> {
    let possession = submission.possession.clone().unwrap_or_default();
    let mut parts: Vec<&[u8]> = vec![&submission.body_bytes, &submission.signature, &possession];
    parts.extend(submission.attachments.iter().map(|attachment| attachment.0.as_slice()));
    join_parts(&parts)
}

/// Two people enrol, talk and part. Gives back the submissions: invitation, device, commit, message, revocation.
fn ledger(seeds: &mut Seeds, network: &mut SampleNetwork) -> Vec<(&'static str, Submission)> {
    let (_, alone) = new_network().invite("carol");
    let mut first = new_network();
    seeds.damaged("batch", "first", &first.seal(vec![alone]).0.batch.to_bytes());

    let (invitation, invite) = network.invite("ada");
    network.seal(vec![invite.clone()]);
    let (ada, device) = network.device(invitation.account, Ok(&invitation));
    network.seal(vec![device.clone()]);
    let bob = network.enrol("bob");
    let thread = network.thread_id();
    let commit = network.commit(thread, &ada, vec![bob.member], vec![]);
    network.seal(vec![commit.clone()]);
    network.say(thread, &ada, "hello");
    let message = network.message(thread, &bob, b"an envelope", Hash([3; 48]));
    let revocation = network.revoke(bob.member.device, &bob);
    let submissions = vec![
        ("invite", invite),
        ("device", device),
        ("commit", commit),
        ("message", message),
        ("revocation", revocation),
    ];
    for (name, submission) in &submissions {
        if *name == "commit" {
            seeds.format("body", name, &submission.body_bytes, 0);
        } else {
            seeds.add("body", &format!("valid-{name}"), submission.body_bytes.clone());
        }
        seeds.add("submission", &format!("valid-{name}"), parts_of(submission));
    }
    let (_, message) = &submissions[3];
    let parts = parts_of(message);
    let mut other_envelope = parts.clone();
    other_envelope[parts.len() - 1] ^= 1;
    seeds.add("submission", "attachment-of-another-digest", other_envelope);
    seeds.add("submission", "attachment-missing", &parts[..parts.len() - 14]);
    seeds.add("submission", "attachment-too-many", [&parts[..], &[0, 0, 1, 9]].concat());
    seeds.add("submission", "no-signature", join_parts(&[&message.body_bytes[..], &[], &[], b"an envelope"]));
    let mut forged = parts.clone();
    forged[message.body_bytes.len() + 100] ^= 1;
    seeds.add("submission", "forged-signature", forged);

    let sign1 = cose::to_cose_sign1(message.body.suite, &message.body_bytes, &message.signature);
    let sign1 = sign1.expect("a signature of the suite's length");
    seeds.damaged("cose", "message", &sign1);
    seeds.add("cose", "tagged", [&[0xD2], &sign1[..]].concat());
    seeds.add("cose", "detached", [&sign1[..7], &[0xF6, 0x40]].concat());
    seeds.add("cose", "string-of-2-64", [&[0x84, 0x5B], &[0xFF; 8][..]].concat());

    let (block, certificate) = network.blocks.last().expect("a block");
    seeds.format("header", "third", &block.header().to_bytes(), 0);
    let mut zero = block.header().clone();
    zero.height = Height(0);
    seeds.add("header", "height-0", zero.to_bytes());
    seeds.damaged("certificate", "of-three", &certificate.to_bytes());
    let mut unsorted = certificate.clone();
    unsorted.signatures.iter_mut().for_each(|signature| signature.signature.truncate(9));
    seeds.format("certificate", "short", &unsorted.to_bytes(), 0);
    unsorted.signatures.reverse();
    seeds.add("certificate", "unsorted", unsorted.to_bytes());
    unsorted.signatures[1] = unsorted.signatures[0].clone();
    seeds.add("certificate", "repeated-validator", unsorted.to_bytes());
    seeds.format("genesis", "sample", &network.state.genesis.to_bytes(), 0);
    seeds.damaged("keyring", "sample", &network.keyring.to_bytes());
    let mut short = Keyring::default();
    short.insert(SuiteId::Cnsa, &[1; 40]);
    seeds.add("keyring", "key-of-another-length", short.to_bytes());
    seeds.add("keyring", "array-of-2-63", [&[0x82, 0x01, 0x9B, 0x7F], &[0xFF; 7][..]].concat());

    for step in [VoteStep::Prevote, VoteStep::Precommit] {
        let header = (step == VoteStep::Precommit).then_some(block.header_hash);
        let vote = vote(network, step, header);
        match header {
            Some(_) => seeds.format("vote", "precommit", &vote.to_bytes(), 0),
            None => seeds.add("vote", "valid-prevote-nil", vote.to_bytes()),
        }
    }
    let heads = &network.state.heads;
    seeds.damaged("map_proof", "present", &heads.prove(&thread).to_bytes());
    let absent = ThreadId::new(ThreadKind::Conversation, &[9; 31]);
    seeds.add("map_proof", "valid-absent", heads.prove(&absent).to_bytes());
    seeds.add("map_proof", "valid-empty-map", zixt_ledger::map::HeadMap::new().prove(&absent).to_bytes());
    let mut frontier = Frontier::new();
    seeds.add("frontier", "valid-empty", frontier.to_bytes());
    for n in 0..11 {
        frontier.append(Hash([n; 48]), &mut Vec::new());
    }
    seeds.damaged("frontier", "of-11", &frontier.to_bytes());
    let mut full = vec![0x82, 0x1B];
    full.extend_from_slice(&[0xFF; 8]);
    full.extend_from_slice(&[0x98, 64]);
    for n in 0..64 {
        full.extend_from_slice(&[0x58, 48]);
        full.extend_from_slice(&[n; 48]);
    }
    seeds.add("frontier", "size-2-64-less-1", full);
    seeds.add("frontier", "peaks-missing", [0x82, 0x03, 0x80]);
    submissions
}

fn vote(network: &SampleNetwork, step: VoteStep, header: Option<Hash>) -> Vote {
    let genesis = network.state.genesis_hash;
    Vote {
        version: Vote::VERSION,
        suite: network.suite,
        genesis,
        height: Height(3),
        round: Round(1),
        step,
        header,
    }
}

fn item(submission: &Submission) -> SubmissionItem {
    SubmissionItem {
        body: submission.body_bytes.clone().into(),
        signature: submission.signature.clone().into(),
        possession: submission.possession.clone().map(Bytes64),
        attachments: submission.attachments.iter().map(|attachment| attachment.0.clone().into()).collect(),
    }
}

fn to_json(value: &impl serde::Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("JSON")
}

/// One of every answer, and what administrators ask for.
fn answers(seeds: &mut Seeds, entry: &Entry, proof: &EntryProof) {
    const TARGET: &str = "answers_json";
    let (hash, thread, account) = (entry.prev, entry.thread, Hex(AccountId([0xAB; 16])));
    let (header, shard) = (&proof.certified, &proof.shard);
    let head = HeadProof { thread, map: vec![6; 9].into(), certified: header.clone() };
    let member = MemberRef { account, device: Hex(DeviceId([0xCD; 16])) };
    let key = PublicKey { suite: 2, hash, key: vec![7; 5].into() };
    let name = AccountName { account, name: "ada \u{202E}".into(), salt: entry.salt };
    let receipt = Receipt {
        message_id: Hex(MessageId([8; 16])),
        thread,
        seq: 7,
        prev: hash,
        time: 8,
        salt: entry.salt,
        entry: hash,
        proof: proof.clone(),
    };
    let problem = Problem::new(ErrorCode::StaleEpoch, "another commit was first").at(1);
    let network =
        ApiNetwork { genesis: vec![1].into(), keyring: vec![2].into(), latest: Some(header.clone()) };
    seeds.damaged(TARGET, "network", &to_json(&network));
    seeds.add(TARGET, "valid-network-without-a-height", to_json(&ApiNetwork { latest: None, ..network }));
    seeds.damaged(TARGET, "header", &to_json(header));
    let grown = ShardConsistency { from_size: 3, latest: shard.clone(), path: vec![hash] };
    let consistency = Consistency {
        from_height: 2,
        latest: header.clone(),
        history: vec![hash, hash],
        shards: vec![grown],
    };
    seeds.damaged(TARGET, "consistency", &to_json(&consistency));
    let system = SystemView {
        entries: vec![entry.clone()],
        keys: vec![key.clone()],
        next: Some(4),
        proof: Some(head.clone()),
    };
    seeds.damaged(TARGET, "system", &to_json(&system));
    seeds.damaged(TARGET, "receipt", &to_json(&receipt));
    seeds.damaged(TARGET, "name", &to_json(&name));
    let view = AccountView {
        account,
        name: Some(name.clone()),
        entries: vec![entry.clone(); 2],
        keys: vec![key; 3],
        proof: head.clone(),
    };
    seeds.damaged(TARGET, "account", &to_json(&view));
    seeds.add(TARGET, "valid-counts", to_json(&KeyPackageCounts { one_time: u32::MAX, last_resort: true }));
    let claimed = ClaimedKeyPackage { member, key_package: vec![9; 40].into(), last_resort: false };
    let claim = ClaimResponse { key_packages: vec![claimed; 2], missing: vec![member] };
    seeds.damaged(TARGET, "claim", &to_json(&claim));
    let submitted = SubmitResponse { receipts: vec![receipt], refused: Some(problem.clone()) };
    seeds.damaged(TARGET, "submitted", &to_json(&submitted));
    let thread_view = ThreadView {
        thread,
        seq: 7,
        head: hash,
        next_counter: u64::MAX,
        epoch: Some(3),
        epoch_since: Some(2),
        members: vec![member; 3],
        proof: head,
    };
    seeds.damaged(TARGET, "thread", &to_json(&thread_view));
    seeds.damaged(TARGET, "page", &to_json(&EntryPage { entries: vec![entry.clone(); 2], next: Some(9) }));
    seeds.damaged(TARGET, "proof", &to_json(proof));
    seeds.damaged(TARGET, "problem", &to_json(&problem));
    let health = Health {
        ok: false,
        custody: CustodyState::AwaitingActivation,
        store_writable: true,
        height: 4,
        last_commit_at: Some(5),
        reason: Some("custody waits".into()),
    };
    seeds.damaged(TARGET, "health", &to_json(&health));
    let status = AdminStatus {
        version: "0.1.0".into(),
        network: "Lab".into(),
        genesis: hash,
        lab: true,
        suite: "standard".into(),
        suite_id: 1,
        listen: "127.0.0.1:7443".into(),
        tls: hash,
        latest: HeaderInfo { height: 4, hash, time: 8 },
        custody: CustodyState::Operational,
        custody_mode: "token-wrapped".into(),
        store_writable: true,
        accounts: 1,
        devices: 2,
        conversations: 3,
        connections: 4,
        streams: 5,
        queued: 6,
        uptime_ms: 7,
        audit: AuditHealth { head: 8, first: 1, reserved: true, room_bytes: 9, ..AuditHealth::default() },
        audit_sinks: vec![AuditSink {
            name: "siem".into(),
            kind: AuditSinkKind::Syslog,
            state: AuditSinkState::Failing,
            events_behind: 2,
            seconds_behind: 3,
            delivered: 6,
            gaps: 0,
            last_error: Some("refused".into()),
            since: Some(4),
        }],
        clock: ClockInfo { wall: 3, system: 2, ledger: 1, offset_ms: 1, ahead_of_ledger_ms: -2 },
        web: Some(WebAddress { origin: "https://zixt.test".into(), fingerprint: "AA:BB".into() }),
        directories: vec![DirectoryInfo {
            issuer: "0a".repeat(16),
            name: "office".into(),
            people: 3,
            last_success: Some(5),
            server: Some("ldaps://one.example:636".into()),
            took_ms: 6,
            failures: 1,
            last_error: Some("refused".into()),
            faults: vec!["uid=x has no id that can be used".into()],
            held: Some(HeldPlanInfo {
                digest: hash,
                reasons: vec!["2 of 3 would lose their access; 1 may".into()],
                suspends: 2,
                logins: vec!["ann".into(), "ben".into()],
            }),
        }],
    };
    seeds.damaged(TARGET, "status", &to_json(&status));
    seeds.add(TARGET, "unknown-code", to_json(&problem).to_ascii_uppercase());
    seeds.add(TARGET, "height-of-2-64", r#"{"height":18446744073709551616,"header":"","certificate":""}"#);
    seeds.add(TARGET, "hash-too-short", r#"{"account":"ab","name":"","salt":"00"}"#);
    seeds.add(
        TARGET,
        "members-without-end",
        [r#"{"key_packages":[],"missing":["#, &"{},".repeat(200)].concat(),
    );
    seeds.add(TARGET, "null", "null");

    let submission = SubmissionItem {
        body: entry.body.clone(),
        signature: vec![4].into(),
        possession: None,
        attachments: Vec::new(),
    };
    let invitation = AdminInvitation { submission, name: name.name, salt: entry.salt, link: None };
    seeds.damaged("admin_json", "invitation", &to_json(&invitation));
    let decision = AdminDecision { transcript: vec![1; 30].into(), key: Some(vec![2; 20].into()) };
    seeds.damaged("admin_json", "decision", &to_json(&decision));
    seeds.add("admin_json", "unknown-field", r#"{"transcript":"","more":1}"#);
    seeds.add("admin_json", "name-of-control-characters", r#"{"name":"\u0000\u001b[2J"}"#);
}

fn requests(seeds: &mut Seeds, submissions: &[(&'static str, Submission)]) {
    let (device, message) = (&submissions[1].1, &submissions[3].1);
    seeds.damaged("submit_json", "message", &to_json(&SubmitRequest { submissions: vec![item(message)] }));
    seeds.add("submit_json", "valid-empty", r#"{"submissions":[]}"#);
    seeds.add("submit_json", "unknown-field", r#"{"submissions":[],"more":1}"#);
    seeds.add("submit_json", "repeated-field", r#"{"submissions":[],"submissions":[]}"#);
    seeds.add("submit_json", "base64-without-padding", r#"{"submissions":[{"body":"QQ","signature":"QQ"}]}"#);
    seeds.add("submit_json", "byte-order-mark", "\u{FEFF}{\"submissions\":[]}");
    let name = Some("ada \u{202E}".to_owned());
    seeds.add("enrol_json", "valid-device", to_json(&EnrolRequest { submission: item(device), name }));
    let short = r#"{"submission":{"body":"QUI=","signature":"","attachments":["QQ=="]},"name":"b\u006fb"}"#;
    seeds.damaged("enrol_json", "short", short.as_bytes());
    seeds.add("enrol_json", "lone-surrogate", r#"{"submission":{"body":"","signature":""},"name":"\ud800"}"#);
    let upload =
        KeyPackageUpload { one_time: vec![vec![1, 2].into(); 3], last_resort: Some(vec![3; 70].into()) };
    seeds.damaged("key_packages_json", "upload", &to_json(&upload));
    seeds.add("key_packages_json", "valid-empty", "{}");
    seeds.add("key_packages_json", "null-list", r#"{"one_time":null}"#);
    let claim = ClaimRequest { accounts: vec![Hex(AccountId([0xAB; 16])); 2] };
    seeds.damaged("claim_json", "two", &to_json(&claim));
    seeds.add("claim_json", "short-id", r#"{"accounts":["abab"]}"#);
    seeds.add("claim_json", "no-ascii-id", r#"{"accounts":["aéaéaéaéaéaéaéaéaéaéa"]}"#);

    let hash = Hex(Hash([2; 48]));
    let shard = ShardProof { shard: 1, size: 9, root: hash, path: vec![hash] };
    let certified = ApiHeader { height: 4, header: vec![1].into(), certificate: vec![2].into() };
    let entry = Entry {
        thread: Hex(message.body.thread),
        seq: 7,
        prev: hash,
        time: 8,
        height: 4,
        entry: hash,
        salt: Hex(Salt([3; 32])),
        body: message.body_bytes.clone().into(),
        signature: vec![4].into(),
        possession: None,
        attachments: 1,
    };
    let proof = EntryProof { certified, shard, leaf: 8, path: vec![hash, hash] };
    answers(seeds, &entry, &proof);
    let event = StreamLine::Event { position: 1, entry, attachment: Some(vec![5].into()), proof };
    seeds.damaged("stream_json", "event", &to_json(&event));
    let heartbeat = StreamLine::Heartbeat { position: u64::MAX, height: 0 };
    seeds.add("stream_json", "valid-heartbeat", to_json(&heartbeat));
    let end = StreamLine::End { problem: Problem::new(ErrorCode::ALL[0], "why").at(3) };
    seeds.add("stream_json", "valid-end", to_json(&end));
    seeds.add("stream_json", "unknown-type", r#"{"type":"later","position":1}"#);
    seeds.add(
        "stream_json",
        "position-of-2-64",
        r#"{"type":"heartbeat","position":18446744073709551616,"height":1}"#,
    );
    seeds.add("stream_json", "position-negative", r#"{"type":"heartbeat","position":-1,"height":1e400}"#);

    let invitation = Invitation {
        version: 1,
        network: "Lab".into(),
        address: "127.0.0.1:7443".into(),
        suite: SuiteId::Standard,
        tls: Hash([1; 48]),
        genesis: Hash([2; 48]),
        checkpoint: Checkpoint { height: Height(3), header: Hash([4; 48]) },
        account: AccountId([5; 16]),
        name: "ada".into(),
        salt: Salt([6; 32]),
        seed: InvitationSeed::new([7; 32]),
        lab: true,
    };
    let text = invitation.to_text();
    seeds.damaged("invitation", "text", text.as_bytes());
    seeds.add("invitation", "valid-broken-lines", format!("  {}\r\n {}\n", &text[..70], &text[70..]));
    seeds.add("invitation", "wide-space", format!("\u{3000}{}", *text));
    seeds.add("invitation", "padding", format!("{}==", *text));
    seeds.add("invitation", "no-base64", "zixt-invite:ab!c");
    seeds.add("invitation", "valid-bytes", invitation.to_bytes());
}

fn evidence(seeds: &mut Seeds, network: &SampleNetwork) {
    let thread = network.state.threads().map(|(thread, _)| *thread);
    let thread = thread.into_iter().find(|id| id.kind() == Some(ThreadKind::Conversation));
    let thread = thread.expect("a conversation");
    let whole = network.evidence(thread, 0..=1, true, true).to_bytes();
    seeds.damaged("evidence", "thread-with-content", &whole);
    let one = network.evidence(thread, 1..=1, false, false).to_bytes();
    seeds.add("evidence", "valid-message", one.clone());
    seeds.add("evidence", "other-magic", [b"ZIXTEVD2", &one[8..40]].concat());
    seeds.add("evidence", "unknown-version", [&one[..9], &[2], &one[10..]].concat());
    seeds.add("evidence", "array-of-2-63", [&one[..10], &[0x9B, 0x7F], &[0xFF; 7]].concat());
    seeds.add("evidence", "nested-too-deep", [&one[..8], &[0x81; 64]].concat());
    seeds.add("evidence", "magic-only", b"ZIXTEVD1".as_slice());

    let fork = |name| {
        let mut other = new_network();
        let (_, invite) = other.invite(name);
        let (block, certificate) = other.seal(vec![invite]);
        (other, CertifiedHeader { header: block.header().clone(), certificate })
    };
    let ((one, first), (_, mut second)) = (fork("ada"), fork("bob"));
    if first.header == second.header {
        second = fork("eve").1;
    }
    let mut keyring = Keyring::default();
    for validator in &one.state.genesis.validators {
        let key = one.keyring.get(&validator.consensus).expect("a consensus key");
        keyring.insert(key.suite, &key.key);
    }
    let genesis = (*one.state.genesis).clone();
    let contradiction = Contradiction::SameHeight;
    let proof = ForkProof { genesis, keyring, first, second, contradiction, activations: Vec::new() };
    let bytes = proof.to_bytes();
    seeds.damaged("fork", "same-height", &bytes);
    let history = Contradiction::History { recorded: Hash([1; 48]), path: vec![Hash([2; 48]); 3] };
    seeds.add("fork", "no-history", ForkProof { contradiction: history, ..proof }.to_bytes());
    seeds.add("fork", "unknown-version", [&bytes[..9], &[2], &bytes[10..]].concat());
    seeds.add("fork", "string-of-2-64", [&bytes[..10], &[0x5B], &[0xFF; 8]].concat());
}

fn sealed(seeds: &mut Seeds) {
    let key = AeadKey::from_bytes(&AEAD_KEY);
    let sealed = aead::seal(&key, AAD, b"what is sealed").expect("sealing");
    seeds.damaged("aead", "text", &sealed);
    seeds.add("aead", "valid-nothing", aead::seal(&key, AAD, b"").expect("sealing"));
    seeds.add("aead", "one-byte-short-of-a-tag", &sealed[..aead::OVERHEAD_BYTES - 1]);
    let to = opening_key().encapsulation_key();
    let sealed = hpke::seal(&to, AAD, AAD, b"what is sealed").expect("sealing");
    seeds.damaged("hpke", "text", &sealed);
    seeds.add("hpke", "encapsulation-only", &sealed[..hpke::OVERHEAD_BYTES - 1]);
    let mut other_tag = sealed.clone();
    other_tag[sealed.len() - 1] ^= 1;
    seeds.add("hpke", "flipped-tag", other_tag);
}

fn custody(seeds: &mut Seeds, network: &SampleNetwork) {
    let pin = Pin::new("1234abcd".to_owned()).expect("a PIN");
    let header = network.blocks.last().map(|(block, _)| block.header_hash);
    let vote = vote(network, VoteStep::Precommit, header).to_bytes();
    let requests = [
        ("status", Request::Status),
        ("provision", Request::Provision { suite: SuiteId::Cnsa, lab: true }),
        ("bind", Request::BindGenesis { genesis: network.state.genesis.to_bytes() }),
        ("unlock", Request::Unlock { pin: pin.clone(), protector: None }),
        ("unlock-tpm", Request::Unlock { pin: pin.clone(), protector: Some("tpm".to_owned()) }),
        (
            "add",
            Request::AddProtector { name: "tpm".to_owned(), pin: pin.clone(), transcript: Some(vec![1; 9]) },
        ),
        ("generate", Request::GenerateKey { purpose: hsm::KeyPurpose::Consensus }),
        (
            "decide",
            Request::Decide {
                transcript: vec![1; 9],
                pins: vec![hsm::NamedPin { protector: "zixt".to_owned(), pin }],
                cards: vec![hsm::Card { officer: Hash([2; 48]), kem: vec![3; 9] }],
            },
        ),
        (
            "recover",
            Request::FinishRecovery { transcript: vec![1; 9], releases: vec![hsm::Blob(vec![2; 9])] },
        ),
        ("decisions", Request::Decisions { from: 7 }),
        ("lock", Request::Lock),
        ("tls", Request::SignTls { content: vec![0x20; 146] }),
        ("vote", Request::SignVote { vote: vote.clone() }),
        ("row-key", Request::UnsealRowKey),
    ];
    let mut wire = Vec::new();
    for (name, request) in &requests {
        let bytes = hsm::encode(request);
        seeds.add("custody_request", &format!("valid-{name}"), bytes.to_vec());
        if !matches!(request, Request::BindGenesis { .. }) {
            hsm::write_frame_blocking(&mut wire, &bytes).expect("writing to memory");
        }
    }
    seeds.add("custody_request", "unknown-request", [0x82, 0x01, 0x82, 0x18, 0x63, 0x80]);
    seeds.add("custody_request", "unknown-version", [0x82, 0x02, 0x82, 0x00, 0x80]);
    seeds.add("custody_request", "surplus-item", [0x82, 0x01, 0x82, 0x00, 0x81, 0x00]);
    seeds.add("custody_request", "surplus-message", [0x83, 0x01, 0x82, 0x00, 0x80, 0x00]);
    seeds.add(
        "custody_request",
        "pin-with-control-bytes",
        b"\x82\x01\x82\x03\x82\x64\x00\x1b[\x07\xf6".as_slice(),
    );
    seeds.damaged("custody_frames", "requests", &wire);
    let one_more = u32::try_from(hsm::FRAME_BYTES_MAX + 1).expect("a frame's length has four bytes");
    seeds.add("custody_frames", "empty-frame", [0; 4]);
    seeds.add("custody_frames", "frame-of-4-gib", [0xFF, 0xFF, 0xFF, 0xFF, 0x00]);
    seeds.add("custody_frames", "one-more-than-allowed", one_more.to_be_bytes());
    seeds.add("custody_frames", "length-cut-off", [0, 0]);
    let signature = network.blocks[0].1.signatures[0].signature.clone();
    for (name, response) in [
        ("locked", Response::Locked),
        ("bound", Response::Bound(Hash([1; 48]))),
        ("tls", Response::TlsSignature(vec![1; 40])),
        ("vote", Response::Vote(VoteOutcome::Signed { signature })),
        ("other-vote", Response::Vote(VoteOutcome::AlreadySigned { vote, signature: vec![5; 30] })),
        ("row-key", Response::RowKey(hsm::RowKey(AeadKey::from_bytes(&[9; 32])))),
        ("pin-backoff", Response::Error(hsm::CustodyError::PinBackoff { retry_after_s: 9 })),
    ] {
        seeds.add("custody_response", &format!("valid-{name}"), hsm::encode(&response).to_vec());
    }
    seeds.add("custody_response", "short-row-key", [0x82, 0x01, 0x82, 0x08, 0x81, 0x41, 0x00]);
    seeds.add(
        "custody_response",
        "string-of-2-64",
        [&[0x82, 0x01, 0x82, 0x05, 0x81, 0x5B], &[0xFF; 8][..]].concat(),
    );
}

fn consensus(seeds: &mut Seeds, network: &SampleNetwork) {
    let (block, certificate) = network.blocks.last().expect("a block");
    let (height, round, header) = (Height(3), Round(1), block.header_hash);
    let proposer = network.validators[0].0;
    let head = ProposalHead { height, round, polka: Some(Round(0)), proposer, header };
    let content = Proposed { header: block.header().to_bytes(), batch: block.batch.to_bytes() };
    let votes: Vec<SignedVote> = certificate
        .signatures
        .iter()
        .map(|signature| SignedVote {
            validator: signature.validator,
            vote: vote(network, VoteStep::Prevote, Some(header)),
            signature: signature.signature[..20].to_vec(),
        })
        .collect();
    let signatures = certificate.signatures.iter().cloned().map(|mut signature| {
        signature.signature.truncate(20);
        signature
    });
    let polka = Polka { height, round, header, signatures: signatures.collect() };
    let kind = zixt_consensus::RoundChangeKind::Skip;
    seeds.damaged("consensus_message", "proposal", &Message::Proposal(head, Arc::new(content)).to_bytes());
    seeds.damaged("consensus_message", "vote", &Message::Vote(votes[0].clone()).to_bytes());
    seeds.add("consensus_message", "valid-polka", Message::Polka(polka.clone()).to_bytes());
    let change = RoundChange { height, round, kind, votes: votes.clone() };
    seeds.add("consensus_message", "valid-round-change", Message::RoundChange(change).to_bytes());
    let long = Proposed { header: vec![0; limits::HEADER_BYTES_MAX + 1], batch: Vec::new() };
    seeds.add("consensus_message", "header-too-long", Message::Proposal(head, Arc::new(long)).to_bytes());
    seeds.add("consensus_message", "unknown-kind", [0x82, 0x18, 0x63, 0x80]);
    seeds.add(
        "consensus_message",
        "array-of-2-63",
        [&[0x82, 0x02, 0x84, 0x9B, 0x7F], &[0xFF; 7][..]].concat(),
    );

    // Records are enums: a number and an array of fields (see the log's module `record`).
    let record = |kind: u32, fields: &dyn Fn(&mut Encoder<&mut Vec<u8>>), tail: &[u8]| {
        let mut bytes = Vec::new();
        let mut encoder = Encoder::new(&mut bytes);
        encoder.array(2).and_then(|e| e.u32(kind)).expect("encoding to memory");
        fields(&mut encoder);
        bytes.extend_from_slice(tail);
        bytes
    };
    let value = |lengths: [u32; 2], tail: &[u8]| {
        let fields = |e: &mut Encoder<&mut Vec<u8>>| {
            let about = (round, None::<Round>, proposer, header);
            e.array(2).and_then(|e| e.encode(about)?.encode(lengths)).map(drop).expect("encoding to memory");
        };
        record(0, &fields, tail)
    };
    let proposal = record(1, &|e| drop(e.array(1).and_then(|e| e.encode(head))), &[]);
    let signed = record(2, &|e| drop(e.array(1).and_then(|e| e.encode(&votes[0]))), &[]);
    let timeout = record(3, &|e| drop(e.array(2).and_then(|e| e.u8(0)?.encode(round))), &[]);
    let polka = record(4, &|e| drop(e.array(1).and_then(|e| e.encode(&polka))), &[]);
    let good = value([3, 5], b"abcdefgh");
    let all = [&good, &proposal, &signed, &timeout, &polka].map(|record| &record[..]);
    seeds.add("wal", "valid-records", join_parts(&all));
    let file = log_of(&all);
    seeds.damaged("wal", "file", &file);
    seeds.add("wal", "content-shorter-than-it-says", join_parts(&[&value([3, 500], b"abcdefgh")]));
    seeds.add("wal", "content-lengths-overflow", join_parts(&[&value([u32::MAX, u32::MAX], b"abcdefgh")]));
    seeds.add("wal", "unknown-record", join_parts(&[&[0x82, 0x09, 0x80]]));
    seeds.add("wal", "record-nested-too-deep", join_parts(&[&[0x81; 600]]));
    seeds.add("wal", "record-of-an-indefinite-array", join_parts(&[&[0x9F, 0x02, 0x9F, 0xFF, 0xFF]]));
    seeds.add("wal", "no-records", log_of(&[]));
    seeds.add("wal", "superblock-only", &file[..24]);
    seeds.add("wal", "not-a-log", b"ZIXT-WAX".as_slice());
    let mut huge = file;
    huge[4096 + 12..4096 + 16].fill(0xFF);
    seeds.add("wal", "frame-of-4-gib", huge);
}

fn messaging(seeds: &mut Seeds) {
    const LIFETIME_MS: u64 = 30 * 24 * 60 * 60 * 1000;
    let (author, reader) = (device(1), device(2));
    let package = |device: &zixt_messaging::Device, usage| {
        device.generate_key_package(usage, NOW, LIFETIME_MS).expect("a key package")
    };
    let used = package(&reader, KeyPackageUse::OneTime);
    seeds.damaged("key_package", "one-time", &used.public);
    seeds.add("key_package", "valid-last-resort", package(&author, KeyPackageUse::LastResort).public);
    seeds.add("key_package", "head-only", &used.public[..4]);
    let mut other_suite = used.public[..200].to_vec();
    other_suite[6..8].copy_from_slice(&[0x00, 0x01]);
    seeds.add("key_package", "classical-suite", other_suite);
    seeds.add("key_package", "vector-of-2-30", [&used.public[..8], &[0xBF, 0xFF, 0xFF, 0xFF]].concat());

    let mut conversation = author.create(thread(), NOW).expect("a conversation");
    let draft = conversation.add(vec![used.public], NOW).expect("a commit");
    let entry = |payload: &Payload| {
        CommitEntry::of(thread(), member(1), NOW, payload).expect("a payload of a commit")
    };
    let created = entry(&draft.payload);
    let _stored = conversation.confirm_commit(&created).expect("its own commit");
    let (welcome, tree) = (draft.welcome.expect("a Welcome"), draft.tree.expect("a tree"));
    let packages = [used.private.clone()];
    let joined = reader.join(&welcome, &tree, &packages, &created, &[member(1), member(2)]);
    let joined = joined.expect("the reader joins");
    seeds.damaged("welcome", "for-one", &welcome);
    seeds.add("welcome", "vector-of-2-30", [&welcome[..6], &[0xBF, 0xFF, 0xFF, 0xFF]].concat());
    let both = join_parts(&[&welcome, &tree]);
    seeds.add("join", "valid-welcome-and-tree", both.clone());
    seeds.add("join", "other-tree", join_parts(&[&welcome[..], &tree[..200]]));
    seeds.add("join", "truncated-welcome", join_parts(&[&welcome[..900], &[]]));
    let mut flipped = both;
    flipped[welcome.len() / 2] ^= 4;
    seeds.add("join", "flipped-bit-welcome", flipped);

    let seen = SeenHeader { height: Height(3), hash: Hash([1; 48]) };
    let said = Content::text(MESSAGE, "héllo", Some(seen)).expect("a text");
    seeds.format("content", "text", &said.to_bytes(), 0);
    let nothing = Content::text(MESSAGE, "", None).expect("a text");
    seeds.add("content", "valid-empty", nothing.to_bytes());
    let message = conversation.encrypt(&said).expect("a message");
    let next = conversation.encrypt(&nothing).expect("a message");
    let update = conversation.update(NOW).expect("a commit");
    let framed = |kind: u8, epoch: u8, envelope: &[u8]| [&[kind, epoch], envelope].concat();
    seeds.damaged("conversation", "message", &framed(0, 1, &message.envelope));
    seeds.add("conversation", "other-content", framed(0, 1, &next.envelope));
    seeds.add("conversation", "message-of-a-later-epoch", framed(0, 9, &message.envelope));
    seeds.add("conversation", "message-as-commit", framed(1, 1, &message.envelope));
    seeds.add("conversation", "valid-update", framed(1, 1, &update.envelope));
    seeds.add("conversation", "commit-as-message", framed(0, 1, &update.envelope));
    seeds.add("conversation", "update-of-a-past-epoch", framed(1, 0, &update.envelope));
    seeds.add("conversation", "own-creation", framed(1, 1, &draft.envelope));
    seeds.add("conversation", "welcome", framed(1, 1, &welcome[..600]));
    seeds.add("conversation", "head-only", framed(0, 1, &message.envelope[..8]));
    seeds.add(
        "conversation",
        "vector-of-2-30",
        [&framed(0, 1, &message.envelope[..4])[..], &[0xBF, 0xFF, 0xFF, 0xFF]].concat(),
    );

    let Payload::Message { content, .. } = message.payload else { unreachable!("it is a message") };
    let fixture = Fixture {
        state: StoredState::from(joined.state),
        package: used.private,
        content,
        joined: created.authenticator,
        updated: entry(&update.payload).authenticator,
    };
    let StoredState { core, tree, past, pending } = &fixture.state;
    let parts = [core, tree, past, pending];
    seeds.add("stored_state", "valid-joined", join_parts(&parts));
    seeds.add("stored_state", "parts-swapped", join_parts(&[core, past, tree, pending]));
    seeds.add("stored_state", "core-truncated", join_parts(&[&core[..core.len() / 2], &[], &[], &[]]));
    let open = |part, sealed: &[u8]| {
        aead::open(&reader_key(), &state_aad(part), sealed).expect("it was sealed just now").to_vec()
    };
    let plain = open(StatePart::Core, core);
    let mut decoder = minicbor::Decoder::new(&plain);
    decoder.array().expect("an array");
    for _ in 0..6 {
        decoder.skip().expect("a field");
    }
    let mls = decoder.bytes().expect("its MLS state");
    let opened =
        [open(StatePart::Tree, tree), open(StatePart::Past, past), open(StatePart::Pending, pending)];
    let plains = [&[], mls, &opened[0], &opened[1], &opened[2]];
    seeds.add("stored_state", "valid-plaintexts", join_parts(&plains));
    seeds.add(
        "stored_state",
        "mls-state-truncated",
        join_parts(&[&[], &mls[..60], &opened[0], &[0x80], &[]]),
    );
    seeds.add("stored_state", "past-nested", join_parts(&[&[], &mls[..9], &[], &[0x9B; 90], &[]]));

    if std::env::var_os("ZIXT_CORPUS_WRITE").is_some() {
        let manifest = std::env::var_os("CARGO_MANIFEST_DIR").expect("cargo names the folder of the crate");
        let path = std::path::PathBuf::from(manifest).join("corpus/fixtures/conversation.bin");
        std::fs::write(path, fixture.to_bytes()).expect("a file");
    }
}
