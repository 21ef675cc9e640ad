//! Evidence as an auditor gets it: what it proves, what it costs, and that no change to it goes unnoticed.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "helpers of tests")]

use std::sync::{Arc, OnceLock};
use zixt_crypto::{Reference, digest};
use zixt_ledger::evidence::{
    AccountName, Anchor, BuildError, Disclosure, Evidence, EvidenceError, Fault, OtherGenesis, Place, Report,
    Signature, ThreadEvidence, Verdict,
};
use zixt_ledger::testing::{SampleDevice, SampleNetwork, opaque_parts, places_to_change, sample_content};
use zixt_ledger::{Keyring, Refusal};
use zixt_types::{Body, Canonical, Hash, MessageId, Payload, Salt, Seq, SuiteId, ThreadId, Timestamp};

struct Sample {
    network: SampleNetwork,
    alice: SampleDevice,
    bob: SampleDevice,
    thread: ThreadId,
}

/// Alice and Bob talk (entries 1 to 5 of the thread), somebody else before and after.
fn sample_of(suite: SuiteId, stakes: &[u64]) -> Sample {
    let mut network = SampleNetwork::new(Arc::new(Reference), suite, stakes);
    network.fill(2, 1);
    let (alice, bob) = (network.enrol("alice"), network.enrol("bob"));
    let thread = network.thread_id();
    let commit = network.commit(thread, &alice, vec![bob.member], vec![]);
    network.seal(vec![commit]);
    for (n, text) in ["hello", "hi", "deal?", "deal", "bye"].into_iter().enumerate() {
        network.say(thread, if n % 2 == 0 { &alice } else { &bob }, text);
    }
    network.fill(2, 1);
    Sample { network, alice, bob, thread }
}

fn sample() -> &'static Sample {
    static SAMPLE: OnceLock<Sample> = OnceLock::new();
    SAMPLE.get_or_init(|| sample_of(SuiteId::Standard, &[1]))
}

impl Sample {
    fn verify(&self, evidence: &Evidence) -> Report {
        evidence.verify(self.network.state.genesis_hash, &Reference).unwrap()
    }

    fn one(&self) -> Evidence {
        self.network.evidence(self.thread, 3..=3, false, false)
    }

    fn whole(&self) -> Evidence {
        self.network.evidence(self.thread, 0..=u64::MAX, true, true)
    }
}

fn codes(verdict: &Verdict) -> Vec<(&'static str, Place)> {
    verdict.findings().iter().map(|finding| (finding.fault.code(), finding.place)).collect()
}

fn parse(evidence: &Evidence) -> Evidence {
    let bytes = evidence.to_bytes();
    let parsed = Evidence::parse(&bytes).unwrap();
    assert_eq!(parsed, *evidence);
    assert_eq!(parsed.to_bytes(), bytes);
    parsed
}

#[test]
fn one_message_is_proven_without_its_content() {
    let sample = sample();
    let report = sample.verify(&parse(&sample.one()));
    assert!(report.is_ok(), "{report:#?}");
    for (name, verdict) in report.verdicts() {
        let included = !["envelope", "content", "complete"].contains(&name);
        assert_eq!(*verdict, if included { Verdict::Ok } else { Verdict::NotIncluded }, "{name}");
    }
    assert_eq!(report.stake.map(|stake| (stake.signed, stake.total)), Some((1, 1)));
    assert_eq!(report.entries.len(), 1);
    assert_eq!(report.entries[0].seq, Seq(3));
    assert!(report.lab);
}

#[test]
fn a_whole_thread_is_proven_with_its_contents() {
    let sample = sample();
    let report = sample.verify(&parse(&sample.whole()));
    assert!(report.verdicts().iter().all(|(_, verdict)| **verdict == Verdict::Ok), "{report:#?}");
    let said: Vec<_> = report.entries.iter().filter_map(|entry| entry.content.clone()).collect();
    assert_eq!(said.len(), 5);
    for (content, text) in said.iter().zip(["hello", "hi", "deal?", "deal", "bye"]) {
        assert!(content.windows(text.len()).any(|part| part == text.as_bytes()), "{text}");
    }
}

#[test]
fn content_that_no_client_would_show_is_flagged() {
    let mut network = SampleNetwork::new(Arc::new(Reference), SuiteId::Standard, &[1]);
    let (alice, bob) = (network.enrol("amy"), network.enrol("ben"));
    let thread = network.thread_id();
    let commit = network.commit(thread, &alice, vec![bob.member], vec![]);
    network.seal(vec![commit]);
    // Committed to, but it names another message than its entry; and one that is no content at all.
    for content in [sample_content(&MessageId([9; 16]), "I told him on that day"), b"I told him".to_vec()] {
        let k = [7; 32];
        let message = network.message(thread, &alice, b"sealed", digest::content_commitment(&k, &content));
        network.seal(vec![message]);
        let seq = network.head(&thread).unwrap().seq.0;
        let mut evidence = network.evidence(thread, seq..=seq, false, false);
        evidence.thread.entries[0].disclosure = Some(Disclosure { content, k });
        let report = evidence.verify(network.state.genesis_hash, &*network.backend).unwrap();
        assert_eq!(codes(&report.content), [("refused-content", Place::Entry(Seq(seq)))]);
    }
}

#[test]
fn a_range_is_proven_by_its_last_entry() {
    let sample = sample();
    let mut evidence = sample.network.evidence(sample.thread, 2..=4, false, false);
    assert!(sample.verify(&parse(&evidence)).is_ok());
    evidence.thread.entries.remove(1);
    let report = sample.verify(&evidence);
    assert_eq!(codes(&report.recorded), [("out-of-order", Place::Entry(Seq(4)))]);
}

#[test]
fn it_works_in_both_suites_and_with_several_validators() {
    let sample = sample_of(SuiteId::Cnsa, &[3, 2, 2, 1]);
    let report = sample.verify(&parse(&sample.one()));
    assert!(report.is_ok(), "{report:#?}");
    assert_eq!((report.suite, report.signers.len()), (SuiteId::Cnsa, 4));
}

/// The budget: one message, one validator, the standard suite, a ledger of about a thousand entries in four shards.
#[test]
fn one_message_fits_into_24_kilobytes() {
    let mut network = SampleNetwork::new(Arc::new(Reference), SuiteId::Standard, &[1]);
    network.fill(40, 40);
    let (alice, bob) = (network.enrol("alice"), network.enrol("bob"));
    let thread = network.thread_id();
    let commit = network.commit(thread, &alice, vec![bob.member], vec![]);
    network.seal(vec![commit]);
    network.say(thread, &alice, "hello");
    network.fill(2, 1);
    assert!((900..1000).contains(&network.recorded().count()), "{}", network.recorded().count());
    let evidence = network.evidence(thread, 1..=1, false, false);
    let bytes = evidence.to_bytes().len();

    let signatures = 4 * 3309;
    let keys = 4 * 1952;
    let proofs = evidence.accounts[0].head.to_bytes().len()
        + match &evidence.thread.anchor {
            Anchor::Leaf(proof) => minicbor::to_vec(proof).unwrap().len(),
            Anchor::Head(_) => 0,
        };
    println!("{bytes} bytes: signatures {signatures}, keys {keys}, proofs {proofs}");
    println!("genesis {}", evidence.genesis.to_bytes().len());
    println!("the rest {}", bytes - signatures - keys - proofs);
    assert!(bytes <= 24_000, "{bytes} bytes");
    assert!(evidence.verify(network.state.genesis_hash, &Reference).unwrap().is_ok());
}

#[test]
fn another_network_is_refused_before_anything_else() {
    let sample = sample();
    let other = Hash([1; 48]);
    let got = sample.network.state.genesis_hash;
    assert_eq!(sample.one().verify(other, &Reference), Err(OtherGenesis { expected: other, got }));
    let mut lab = sample.one();
    lab.genesis.lab = false;
    assert!(lab.verify(got, &Reference).is_err());
}

/// Bytes of two files are changed, one at a time: whatever is still a file must not pass.
#[test]
fn no_changed_byte_goes_unnoticed() {
    let sample = sample();
    let genesis = sample.network.state.genesis_hash;
    for evidence in [sample.one(), sample.whole()] {
        let bytes = evidence.to_bytes();
        let places = places_to_change(&bytes, &opaque_parts(&evidence));
        let mut read = 0;
        for at in &places {
            let mut forged = bytes.clone();
            forged[*at] ^= 1 << (at % 8);
            let Ok(parsed) = Evidence::parse(&forged) else { continue };
            read += 1;
            let Ok(report) = parsed.verify(genesis, &Reference) else { continue };
            assert!(!report.is_ok(), "byte {at} of {} changes nothing", bytes.len());
        }
        // Hashes, signatures and keys stay well-formed: the verdicts have to notice, not the parser.
        assert!(read > places.len() / 2, "{read} of {}", places.len());
    }
}

#[test]
fn what_is_no_file_is_refused() {
    let bytes = sample().one().to_bytes();
    for cut in [0, 7, 8, 9, 100, bytes.len() - 1] {
        assert!(Evidence::parse(&bytes[..cut]).is_err(), "{cut}");
    }
    assert!(Evidence::parse(&[&bytes[..], &[0]].concat()).is_err());
    assert!(matches!(Evidence::parse(b"ZIXTFRK1"), Err(EvidenceError::Magic { .. })));
    let mut later = bytes.clone();
    later[9] = 2;
    assert!(matches!(
        Evidence::parse(&later),
        Err(EvidenceError::Parse(zixt_types::ParseError::UnknownVersion { got: 2, .. }))
    ));
    assert!(Evidence::parse(&[&bytes[..8], &[0x81; 100_000]].concat()).is_err());
}

#[test]
fn a_dropped_last_message_is_noticed() {
    let sample = sample();
    let mut evidence = sample.whole();
    evidence.thread.entries.pop();
    let report = sample.verify(&evidence);
    assert_eq!(codes(&report.complete), [("other-head", Place::Thread)]);
    let Fault::OtherHead { certified, found } = &report.complete.findings()[0].fault else { panic!() };
    assert_eq!((certified.seq, found.seq), (Seq(5), Seq(4)));
    assert!(report.recorded.is_failed());
    assert!(!report.author.is_failed());
}

#[test]
fn reordered_entries_are_noticed() {
    let sample = sample();
    let mut evidence = sample.whole();
    evidence.thread.entries.swap(2, 3);
    let report = sample.verify(&evidence);
    assert!(codes(&report.recorded).contains(&("out-of-order", Place::Entry(Seq(3)))));
    // With the numbers put right, the links tell.
    let positions: Vec<_> = sample.whole().thread.entries.iter().map(|entry| entry.position).collect();
    for (entry, position) in evidence.thread.entries.iter_mut().zip(positions) {
        entry.position = position;
    }
    let report = sample.verify(&evidence);
    assert!(codes(&report.recorded).contains(&("broken-link", Place::Entry(Seq(3)))));
}

#[test]
fn a_relabelled_kind_is_noticed() {
    let sample = sample();
    let mut evidence = sample.one();
    let mut body = Body::parse(&evidence.thread.entries[0].body).unwrap();
    let Payload::Message { epoch, envelope, content } = body.payload else { panic!() };
    body.payload = Payload::Commit {
        epoch,
        envelope,
        welcome: None,
        tree: None,
        authenticator: content,
        added: vec![],
        removed: vec![],
    };
    evidence.thread.entries[0].body = body.to_bytes();
    let report = sample.verify(&parse(&evidence));
    assert_eq!(codes(&report.author), [("signature", Place::Entry(Seq(3)))]);
    assert_eq!(codes(&report.recorded), [("not-in-shard", Place::Entry(Seq(3)))]);
    // And with the byte alone: the payload's variant.
    let mut evidence = sample.one();
    let at = evidence.thread.entries[0].body.len() - 105 + 1;
    evidence.thread.entries[0].body[at] ^= 1;
    assert!(!sample.verify(&evidence).is_ok());
}

#[test]
fn changed_parts_are_named_where_they_are() {
    let sample = sample();
    let mut evidence = sample.whole();
    evidence.thread.entries[2].envelope.as_mut().unwrap()[0] ^= 1;
    evidence.thread.entries[3].disclosure.as_mut().unwrap().content.push(b'!');
    evidence.thread.entries[4].disclosure.as_mut().unwrap().k[0] ^= 1;
    let report = sample.verify(&evidence);
    assert_eq!(codes(&report.envelope), [("other-envelope", Place::Entry(Seq(2)))]);
    let expected = [Seq(3), Seq(4)].map(|seq| ("other-content", Place::Entry(seq)));
    assert_eq!(codes(&report.content), expected);
    assert!(!report.recorded.is_failed() && !report.author.is_failed());
}

#[test]
fn a_name_is_the_one_that_the_enroller_recorded() {
    let sample = sample();
    let mut evidence = sample.one();
    evidence.accounts[0].name = Some(AccountName { name: "alice".to_owned(), salt: Salt([9; 32]) });
    let report = sample.verify(&parse(&evidence));
    assert!(report.is_ok());
    assert_eq!(report.entries[0].name.as_deref(), Some("alice"));
    evidence.accounts[0].name = Some(AccountName { name: "mallory".to_owned(), salt: Salt([9; 32]) });
    let report = sample.verify(&evidence);
    let place = Place::Account(sample.alice.member.account);
    assert!(codes(&report.author).contains(&("other-name", place)));
}

#[test]
fn a_changed_time_is_noticed() {
    let sample = sample();
    let mut evidence = sample.whole();
    evidence.thread.entries[2].position.time = Timestamp(evidence.header.time.0 + 1);
    let report = sample.verify(&evidence);
    let at = Place::Entry(Seq(2));
    assert!(codes(&report.time).contains(&("time-after-header", at)));
    assert!(codes(&report.time).contains(&("time-backwards", Place::Entry(Seq(3)))));
    assert!(codes(&report.recorded).contains(&("broken-link", Place::Entry(Seq(3)))));
}

#[test]
fn a_certificate_needs_its_stake_and_each_signer_once() {
    let sample = sample_of(SuiteId::Standard, &[1, 1, 1]);
    let whole = sample.whole();
    assert!(sample.verify(&whole).is_ok());
    let failed = |evidence: &Evidence| {
        let report = sample.verify(evidence);
        assert_eq!(codes(&report.certificate)[0].0, "certificate");
        // Nothing under a header that is not certified is proven.
        for verdict in [&report.recorded, &report.author, &report.time, &report.complete, &report.custody] {
            assert_eq!(codes(verdict)[0], ("not-certified", Place::Header));
        }
        assert_eq!(report.stake, None);
    };
    let mut two_thirds = whole.clone();
    two_thirds.certificate.signatures.pop();
    failed(&two_thirds);
    let mut twice = whole.clone();
    twice.certificate.signatures[2] = twice.certificate.signatures[1].clone();
    assert!(Evidence::parse(&twice.to_bytes()).is_err());
    failed(&twice);
    let mut unknown = whole.clone();
    unknown.certificate.signatures[2].validator.0 = [0xFF; 48];
    failed(&unknown);
    let mut other_round = whole.clone();
    other_round.certificate.round.0 = 1;
    failed(&other_round);
    let mut other_header = whole;
    other_header.header.entries += 1;
    failed(&other_header);
}

#[test]
fn a_certificate_by_another_key_and_another_suite_are_refused() {
    let sample = sample();
    // Sealed by a key that is not the validator's.
    let mut evidence = sample.one();
    let vote = zixt_types::Vote {
        version: 1,
        suite: evidence.header.suite,
        genesis: sample.network.state.genesis_hash,
        height: evidence.header.height,
        round: evidence.certificate.round,
        step: zixt_types::VoteStep::Precommit,
        header: Some(evidence.certificate.header),
    };
    let message = zixt_crypto::digest::vote_bytes(&vote);
    evidence.certificate.signatures[0].signature = sample.bob.identity.sign(&message).unwrap();
    let report = sample.verify(&evidence);
    assert!(codes(&report.certificate).contains(&("certificate", Place::Certificate)));
    assert!(report.custody.is_failed());
    // A suite that this network does not allow, in a body and in the header.
    let mut evidence = sample.one();
    let body = Body::parse(&evidence.thread.entries[0].body).unwrap();
    evidence.thread.entries[0].body = Body { suite: SuiteId::Cnsa, ..body }.to_bytes();
    evidence.header.suite = SuiteId::Cnsa;
    let report = sample.verify(&evidence);
    let expected = [Place::Header, Place::Entry(Seq(3))].map(|place| ("suite-not-allowed", place));
    assert_eq!(codes(&report.suites), expected);
    assert!(report.author.is_failed() && report.certificate.is_failed());
}

#[test]
fn a_forged_message_and_a_forged_key_are_refused() {
    let sample = sample();
    // Signed by Bob's device in Alice's name.
    let mut evidence = sample.one();
    let body = evidence.thread.entries[0].body.clone();
    let forged = zixt_crypto::cose::sign(&*sample.bob.identity, zixt_crypto::labels::BODY, &body).unwrap();
    evidence.thread.entries[0].signature = Signature::Full(forged);
    let report = sample.verify(&evidence);
    assert_eq!(codes(&report.author), [("signature", Place::Entry(Seq(3)))]);
    // A key of the forger's own changes who signed, not whom the account names.
    let mut keyring = Keyring::default();
    for (_, entry) in evidence.keyring.iter() {
        keyring.insert(entry.suite, &entry.key);
    }
    let extra = keyring.insert(SuiteId::Standard, sample.bob.identity.public_key());
    let mut evidence = sample.one();
    evidence.keyring = keyring;
    let report = sample.verify(&evidence);
    assert_eq!(report.author.findings()[0].fault, Fault::KeyUnused(extra));
    // A signature that is left out proves no author.
    let mut evidence = sample.one();
    evidence.thread.entries[0].signature = evidence.thread.entries[0].signature.to_digest();
    let report = sample.verify(&evidence);
    assert!(codes(&report.author).contains(&("signature-left-out", Place::Entry(Seq(3)))));
    assert!(!report.recorded.is_failed());
    // So does an account that is left out.
    let mut evidence = sample.one();
    evidence.accounts.clear();
    let report = sample.verify(&evidence);
    assert!(codes(&report.author).contains(&("account-missing", Place::Entry(Seq(3)))));
}

#[test]
fn a_device_counts_from_after_its_addition_until_its_revocation() {
    let mut network = SampleNetwork::new(Arc::new(Reference), SuiteId::Standard, &[1]);
    let (alice, bob) = (network.enrol("alice"), network.enrol("bob"));
    let account = alice.member.account;
    let (second, submission) = network.device(account, Err(&alice));
    network.seal(vec![submission]);
    let thread = network.thread_id();
    let commit = network.commit(thread, &second, vec![bob.member], vec![]);
    network.seal(vec![commit]);
    network.say(thread, &second, "from my second device");
    // The message is recorded at the same height as the revocation of its device, and so before it counts.
    let revoke = network.revoke(second.member.device, &alice);
    let message = network.message(thread, &second, b"in time", Hash([1; 48]));
    network.seal(vec![revoke, message]);
    let evidence = network.evidence(thread, 0..=2, true, false);
    let genesis = network.state.genesis_hash;
    assert!(evidence.verify(genesis, &Reference).unwrap().is_ok());
    // The first device vouches for the second: both signatures are there, the revocation's is not needed.
    let full: Vec<bool> = evidence.accounts[0]
        .entries
        .iter()
        .map(|entry| matches!(entry.signature, Signature::Full(_)))
        .collect();
    assert_eq!(full, [true, true, true, false]);

    // A ledger whose validators let a revoked device write: certified, but no proof of authorship.
    let head = evidence.accounts[0].entries[3].position.time;
    let mut late = evidence.clone();
    late.thread.entries[2].position.time = Timestamp(head.0 + 1);
    let report = late.verify(genesis, &Reference).unwrap();
    assert!(codes(&report.author).contains(&("revoked", Place::Entry(Seq(2)))));
    let added = evidence.accounts[0].entries[2].position.time;
    let mut early = evidence.clone();
    early.thread.entries[0].position.time = added;
    let report = early.verify(genesis, &Reference).unwrap();
    assert!(codes(&report.author).contains(&("not-yet-active", Place::Entry(Seq(0)))));
    // Without the signature by which the first device vouches, the second one is nobody's.
    let mut unproven = evidence.clone();
    let addition = &mut unproven.accounts[0].entries[2];
    addition.signature = addition.signature.to_digest();
    let report = unproven.verify(genesis, &Reference).unwrap();
    assert!(codes(&report.author).contains(&("device-unproven", Place::Entry(Seq(0)))));
    // An account without its last entry hides the revocation: the head map tells.
    let mut hidden = evidence;
    hidden.accounts[0].entries.pop();
    let report = hidden.verify(genesis, &Reference).unwrap();
    assert!(codes(&report.author).contains(&("other-head", Place::Account(account))));
}

#[test]
fn other_histories_and_policies_are_refused() {
    let sample = sample();
    // An entry of the same network, but of another thread.
    let other = sample.network.recorded().find(|entry| {
        entry.body.thread != sample.thread && matches!(entry.body.payload, Payload::Message { .. })
    });
    let other = other.unwrap();
    let mut evidence = sample.one();
    evidence.thread.entries[0] = (&other.item).into();
    let report = sample.verify(&evidence);
    assert!(report.author.is_failed() && report.recorded.is_failed());
    // Proofs under another header of the same network.
    let mut older = sample.one();
    let (block, certificate) = &sample.network.blocks[sample.network.blocks.len() - 2];
    (older.header, older.certificate) = (block.header().clone(), certificate.clone());
    let report = sample.verify(&older);
    assert!(!report.certificate.is_failed());
    assert!(report.recorded.is_failed() && report.author.is_failed());
    // Rules of the conversation are checked from its beginning on.
    let mut evidence = sample.whole();
    let body = Body::parse(&evidence.thread.entries[1].body).unwrap();
    evidence.thread.entries[1].body = Body { counter: 7, ..body }.to_bytes();
    let report = sample.verify(&evidence);
    let gap = Fault::Refused(Refusal::CounterGap { expected: 1, got: 7 });
    assert!(report.author.findings().iter().any(|finding| finding.fault == gap));
}

#[test]
fn the_builder_refuses_what_would_fail() {
    let sample = sample();
    let network = &sample.network;
    let evidence = sample.one();
    let ThreadEvidence { thread, entries, .. } = evidence.thread;
    // An older proof under the newer header.
    let anchor = Anchor::Head(network.state.heads.prove(&thread));
    let builder = network.with_account(network.evidence_builder(), sample.alice.member.account);
    let result = builder.finish(ThreadEvidence { thread, entries, anchor }, &Reference);
    let Err(BuildError::WouldFail(report)) = result else { panic!("{result:?}") };
    assert!(report.complete.is_failed());
}
