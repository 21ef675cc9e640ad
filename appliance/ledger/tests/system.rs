//! The system thread: what officers decide about keys, who certifies after it, and what evidence proves then.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "helpers of tests")]

use proptest::prelude::*;
use std::sync::{Arc, OnceLock};
use zixt_crypto::{Reference, digest};
use zixt_ledger::certificate::{CertificateError, verify_certificate};
use zixt_ledger::evidence::{Evidence, Fault, Place, Signature};
use zixt_ledger::testing::{SampleDevice, SampleNetwork, opaque_parts, places_to_change};
use zixt_ledger::{
    ProposedBlock, Refusal, Submission, SubmissionError, System, SystemFault, SystemThread, ThreadDetail,
};
use zixt_types::{
    Action, ApplianceId, Attachment, Batch, Body, Canonical, CustodyMode, Decision, Genesis, Hash,
    KeyPurpose, Payload, ProtectorId, SuiteId, ThreadId, Timestamp, Transcript,
};

/// Three officers of whom two have to approve.
fn network(stakes: &[u64]) -> SampleNetwork {
    SampleNetwork::with_officers(Arc::new(Reference), SuiteId::Standard, stakes, 3, 2)
}

fn talk(network: &mut SampleNetwork) -> (SampleDevice, SampleDevice, ThreadId) {
    let (alice, bob) = (network.enrol("alice"), network.enrol("bob"));
    let thread = network.thread_id();
    let commit = network.commit(thread, &alice, vec![bob.member], vec![]);
    network.seal(vec![commit]);
    network.say(thread, &alice, "hello");
    (alice, bob, thread)
}

fn activate(purpose: KeyPurpose, retires: Hash, activates: Hash) -> Decision {
    let (suite, custody) = (SuiteId::Standard, CustodyMode::SealedByTpm);
    Decision::ActivateKey { purpose, retires, activates, suite, custody }
}

fn hash_of(key: &dyn zixt_crypto::SigningKey) -> Hash {
    digest::key_hash(SuiteId::Standard, key.public_key())
}

#[test]
fn the_height_that_records_an_activation_is_certified_by_the_key_that_it_activates() {
    let mut network = network(&[1]);
    talk(&mut network);
    let before = network.state.clone();
    let (key, _, submission) = network.activation(0);
    let block = network.propose(vec![submission]).unwrap();
    assert_ne!(block.validators, before.validators);
    assert_eq!(block.header().validators, digest::validator_set_hash(&block.validators));
    assert_eq!(block.validators[0].custody, CustodyMode::SealedByTpm);
    assert_eq!(block.validator_key(&before, &block.validators[0]), Some(key.public_key()));

    // The old key cannot certify it, nor anything after it.
    let mut keyring = before.keyring.clone();
    keyring.insert(network.suite, key.public_key());
    let by_old = network.certify(&block);
    let check = |certificate: &_, validators: &[_]| {
        verify_certificate(block.header(), certificate, validators, &keyring, &Reference)
    };
    assert!(matches!(check(&by_old, &block.validators), Err(CertificateError::Signature(..))));
    assert_eq!(check(&by_old, &before.validators), Err(CertificateError::OtherValidators));
    network.validators[0].1 = key;
    let by_new = network.certify(&block);
    assert!(check(&by_new, &block.validators).is_ok());

    let rebuilt = Batch::parse(&block.batch.to_bytes()).unwrap();
    let rebuilt = ProposedBlock::rebuild(&before, rebuilt, &Reference).unwrap();
    assert_eq!((rebuilt.header_hash, &rebuilt.validators), (block.header_hash, &block.validators));
    network.state.apply(&block);
    assert_eq!(network.state.validators, block.validators);
    assert!(network.state.keyring.get(&block.validators[0].consensus).is_some());
    network.enrol("carol");
}

#[test]
fn a_batch_cannot_claim_another_validator_set() {
    let mut network = network(&[1]);
    talk(&mut network);
    let (_, _, submission) = network.activation(0);
    let block = network.propose(vec![submission]).unwrap();
    let mut batch = Batch::parse(&block.batch.to_bytes()).unwrap();
    batch.header.validators = digest::validator_set_hash(&network.state.validators);
    assert!(ProposedBlock::rebuild(&network.state, batch, &Reference).is_err());
}

#[test]
fn approvals_have_to_be_good_and_enough() {
    let mut network = network(&[1]);
    talk(&mut network);
    let (key, transcript, good) = network.activation(0);
    let signer = network.state.signer(&good).unwrap();
    let verify = |submission: &Submission| submission.verify(&signer, &network.state.keyring, &Reference);
    assert_eq!(verify(&good), Ok(()));
    let action = Action::parse(&transcript.action).unwrap();

    let one = network.decision(&network.approve(&action, 1), Some(key.public_key()));
    assert!(matches!(verify(&one), Err(SubmissionError::Approvals(_))), "one of two");
    let all = network.decision(&network.approve(&action, 3), Some(key.public_key()));
    assert_eq!(verify(&all), Ok(()), "more than needed");
    // The approvals of another action.
    let other = Action { sequence: action.sequence + 1, ..action.clone() };
    let approvals = network.approve(&other, 2).approvals;
    let swapped = Transcript { approvals, ..transcript.clone() };
    let swapped = network.decision(&swapped, Some(key.public_key()));
    assert!(matches!(verify(&swapped), Err(SubmissionError::Approvals(_))));
    // One officer twice, or bytes that are no approvals, are not even read.
    let mut twice = good.clone();
    twice.signature.push(0);
    let parse = |submission: Submission| {
        let Submission { body_bytes, signature, possession, attachments, .. } = submission;
        Submission::parse(body_bytes, signature, possession, attachments)
    };
    assert!(matches!(parse(twice), Err(SubmissionError::Transcript(_))));
    // The key comes with the entry, and is the one that was approved.
    let mut bare = good.clone();
    bare.attachments.clear();
    assert!(matches!(parse(bare), Err(SubmissionError::AttachmentCount { expected: 1, got: 0 })));
    let mut other_key = good;
    other_key.attachments = vec![Attachment(vec![7; 1952])];
    assert_eq!(parse(other_key), Err(SubmissionError::AttachmentDigest { index: 0 }));
}

#[test]
fn only_officers_write_there_and_their_body_leaves_no_choice() {
    let mut network = network(&[1]);
    let (alice, _, _) = talk(&mut network);
    let (_, _, good) = network.activation(0);
    let changed = |change: fn(&mut Body)| {
        let mut submission = good.clone();
        change(&mut submission.body);
        submission.body_bytes = submission.body.to_bytes();
        submission
    };
    let place: fn(&mut Body) = |body| body.thread.0[9] ^= 1;
    let id: fn(&mut Body) = |body| body.message_id.0[0] ^= 1;
    for change in [place, id] {
        let refused = network.propose(vec![changed(change)]).unwrap_err();
        assert_eq!(refused, Refusal::WrongThread);
    }
    let ahead = network.propose(vec![changed(|body| body.counter = 1)]).unwrap_err();
    assert_eq!(ahead, Refusal::CounterGap { expected: 0, got: 1 });
    // A message in the system thread is no well-formed body.
    let thread = digest::system_thread(network.state.genesis_hash);
    let body = network.body(
        thread,
        zixt_types::Author::Device(alice.member),
        Payload::Message { epoch: zixt_types::Epoch(0), envelope: Hash::ZERO, content: Hash::ZERO },
    );
    assert!(Body::parse(&body.to_bytes()).is_err());
}

#[test]
fn a_decision_counts_once_and_in_order() {
    let mut network = network(&[2, 1]);
    talk(&mut network);
    let (key, transcript, submission) = network.activation(0);
    network.validators[0].1 = key;
    network.seal(vec![submission.clone()]);
    let refused = network.propose(vec![submission]).unwrap_err();
    assert_eq!(refused, Refusal::CounterReplayed { expected: 1, got: 0 }, "the same entry");
    let key = network.validators[0].1.public_key().to_vec();
    let again = network.decision(&transcript, Some(&key));
    let refused = network.propose(vec![again]).unwrap_err();
    assert_eq!(refused, Refusal::DecisionReplayed { last: 0, got: 0 }, "the same transcript");

    let fact = |network: &SampleNetwork, validator: usize, sequence: u64| {
        let action = Action { sequence, ..network.action(validator, Decision::RotateRoot) };
        network.decision(&network.approve(&action, 2), None)
    };
    // Custody counts decisions of its own that nobody records, so that numbers may be left out.
    let later = fact(&network, 0, 7);
    network.seal(vec![later]);
    let earlier = fact(&network, 0, 5);
    let refused = network.propose(vec![earlier]).unwrap_err();
    assert_eq!(refused, Refusal::DecisionReplayed { last: 7, got: 5 });
    // Another appliance counts for itself.
    let other = fact(&network, 1, 0);
    network.seal(vec![other]);
    let mut unknown = network.action(0, Decision::RotateRoot);
    unknown.appliance = ApplianceId([9; 48]);
    let unknown = network.decision(&network.approve(&unknown, 2), None);
    let refused = network.propose(vec![unknown]).unwrap_err();
    assert_eq!(refused, Refusal::UnknownAppliance(ApplianceId([9; 48])));
}

#[test]
fn other_decisions_are_facts_without_effect() {
    let mut network = network(&[1]);
    talk(&mut network);
    let before = network.state.validators.clone();
    let key = network.key();
    let decisions = [
        Decision::RemoveProtector { protector: ProtectorId([1; 16]) },
        Decision::RotateRoot,
        Decision::DestroyKey { purpose: KeyPurpose::Consensus, key: before[0].consensus },
        Decision::Recover { backup: Hash([1; 48]), recipient: Hash([2; 48]) },
        activate(KeyPurpose::Tls, before[0].tls, hash_of(&*key)),
    ];
    for decision in decisions {
        let brings = matches!(decision, Decision::ActivateKey { .. }).then(|| key.public_key());
        let action = network.action(0, decision);
        let entry = network.decision(&network.approve(&action, 2), brings);
        network.seal(vec![entry]);
    }
    assert_eq!(network.state.validators, before);
    let thread = network.state.thread(&digest::system_thread(network.state.genesis_hash)).unwrap();
    assert_eq!(thread.head.seq.0, 4);
    assert!(matches!(thread.detail, ThreadDetail::System(_)));
}

#[test]
fn an_activation_fits_the_present_and_brings_a_new_key() {
    let mut network = network(&[2, 1]);
    let (alice, _, _) = talk(&mut network);
    let fresh = hash_of(&*network.key());
    let genesis = (*network.state.genesis).clone();
    let validator = &genesis.validators[0];
    let refused = |network: &SampleNetwork, decision: Decision| {
        let mut system = (*network.state.system).clone();
        let action = network.action(0, decision);
        system.apply(&network.state.genesis, &action, Timestamp(9_000_000)).unwrap_err()
    };
    let present = validator.consensus;
    let consensus = |activates| activate(KeyPurpose::Consensus, present, activates);
    let other = activate(KeyPurpose::Consensus, genesis.validators[1].consensus, fresh);
    assert_eq!(refused(&network, other), Refusal::NotThePresentKey { present });
    for used in [
        genesis.organisation,
        genesis.officers[2].key,
        genesis.enrollers[0],
        genesis.validators[1].consensus,
        genesis.validators[1].tls,
    ] {
        assert_eq!(refused(&network, consensus(used)), Refusal::KeyUsedBefore(used));
    }
    let mut cnsa = consensus(fresh);
    if let Decision::ActivateKey { suite, .. } = &mut cnsa {
        *suite = SuiteId::Cnsa;
    }
    assert_eq!(refused(&network, cnsa), Refusal::SuiteNotAllowed);
    let nobody = activate(KeyPurpose::Enroller, present, fresh);
    assert_eq!(refused(&network, nobody), Refusal::NotThePresentKey { present: genesis.enrollers[0] });

    // A key in software: in a lab only. The sample network is one.
    let mut software = consensus(fresh);
    if let Decision::ActivateKey { custody, .. } = &mut software {
        *custody = CustodyMode::Software;
    }
    let action = network.action(0, software);
    assert!(System::new(&genesis).apply(&genesis, &action, Timestamp(1)).is_ok());
    let real = Genesis { lab: false, ..genesis.clone() };
    assert_eq!(System::new(&real).apply(&real, &action, Timestamp(1)), Err(Refusal::SoftwareKey));

    // Keys of people are asked for on the server, which knows them all.
    for key in [alice.identity.public_key(), &alice.mls, &alice.tls] {
        let used = digest::key_hash(network.suite, key);
        let action = network.action(0, consensus(used));
        let entry = network.decision(&network.approve(&action, 2), Some(key));
        assert_eq!(network.propose(vec![entry]).unwrap_err(), Refusal::KeyUsedBefore(used));
    }
    // A retired key never comes back.
    network.rotate(0);
    network.rotate(0);
    let back = activate(KeyPurpose::Consensus, network.state.validators[0].consensus, present);
    assert_eq!(refused(&network, back), Refusal::KeyUsedBefore(present));
}

#[test]
fn an_enroller_is_replaced_from_the_next_height_on() {
    let mut network = network(&[1]);
    talk(&mut network);
    let old = hash_of(&*network.enroller);
    let key = network.key();
    let action = network.action(0, activate(KeyPurpose::Enroller, old, hash_of(&*key)));
    let entry = network.decision(&network.approve(&action, 2), Some(key.public_key()));
    let (_, same_height) = network.invite("carol");
    let (_, too_late) = network.invite("dave");
    // In one batch with its replacement the old key still invites: it is judged by the height before.
    network.seal(vec![entry, same_height]);
    assert_eq!(network.propose(vec![too_late]).unwrap_err(), Refusal::UnknownEnroller);
    network.enroller = std::sync::Arc::from(key);
    network.enrol("erin");
    let appoints = |key: &Hash, time: Timestamp| network.state.system.appoints(key, time);
    assert!(!appoints(&old, network.state.time));
    assert!(appoints(&hash_of(&*network.enroller), network.state.time));
}

#[test]
fn evidence_from_before_and_after_verifies_with_the_same_genesis() {
    let mut network = network(&[1]);
    let genesis = network.state.genesis_hash;
    let (alice, bob, thread) = talk(&mut network);
    let before = network.evidence(thread, 1..=1, false, false);
    assert_eq!(before.system, None);
    network.rotate(0);
    network.say(thread, &bob, "between");
    let fact = network.decision(&network.approve(&network.action(0, Decision::RotateRoot), 2), None);
    network.seal(vec![fact]);
    network.rotate(0);
    network.say(thread, &alice, "after");
    let after = network.evidence(thread, 0..=3, true, true);
    let bytes = after.to_bytes();
    let parsed = Evidence::parse(&bytes).unwrap();
    assert_eq!(parsed, after);
    println!("evidence of 4 entries over two rotations and a fact: {} bytes", bytes.len());

    let old = before.verify(genesis, &Reference).unwrap();
    assert!(old.is_ok() && old.signers[0].activated.is_none(), "{old:?}");
    let new = parsed.verify(genesis, &Reference).unwrap();
    assert!(new.is_ok(), "{new:?}");
    assert_eq!(new.signers[0].custody, CustodyMode::SealedByTpm);
    let activated = new.signers[0].activated.clone().unwrap();
    let mut officers = activated.officers;
    officers.sort();
    assert_eq!(officers, ["officer", "officer 1"]);
    // What changes nothing is proven by the chain alone, and the keys between are not in the file.
    let system = parsed.system.as_ref().unwrap();
    assert!(matches!(system.entries[1].signature, Signature::Digest(_)));
    let retired = network.blocks.iter().find_map(|(block, _)| {
        (block.validators != network.state.validators
            && block.validators[0] != network.state.genesis.validators[0])
            .then(|| block.validators[0].consensus)
    });
    assert!(parsed.keyring.get(&retired.unwrap()).is_none());
    assert!(parsed.keyring.get(&network.state.validators[0].consensus).is_some());
}

/// Two rotations that nobody recorded in between end in one height. The key in the middle certifies nothing.
#[test]
fn of_several_activations_in_a_height_the_last_key_certifies() {
    let mut network = network(&[1]);
    let genesis = network.state.genesis_hash;
    let (_, bob, thread) = talk(&mut network);
    let before = network.evidence(thread, 1..=1, false, false);
    let (keys, submissions): (Vec<_>, Vec<_>) =
        network.activations(0, 2).into_iter().map(|(key, _, submission)| (key, submission)).unzip();
    let block = network.propose(submissions).unwrap();
    assert_eq!(block.validators[0].consensus, hash_of(&*keys[1]));
    assert_eq!(block.validator_key(&network.state, &block.validators[0]), Some(keys[1].public_key()));
    let rebuilt = ProposedBlock::rebuild(&network.state, block.batch.clone(), &Reference).unwrap();
    assert_eq!(rebuilt.header_hash, block.header_hash);
    let [middle, last] = <[_; 2]>::try_from(keys).ok().unwrap();
    network.validators[0].1 = middle;
    let by_middle = network.certify(&block);
    network.validators[0].1 = last;
    let certificate = network.certify(&block);
    network.state.apply(&block);
    let known = &network.state.keyring;
    let verify =
        |certificate| verify_certificate(block.header(), certificate, &block.validators, known, &Reference);
    assert!(verify(&certificate).is_ok());
    assert!(verify(&by_middle).is_err());
    network.blocks.push((block, certificate));
    network.say(thread, &bob, "after");
    let after = network.evidence(thread, 0..=2, true, true);
    for evidence in [before, Evidence::parse(&after.to_bytes()).unwrap()] {
        let report = evidence.verify(genesis, &Reference).unwrap();
        assert!(report.is_ok(), "{report:?}");
    }
    // Evidence of the very height: its header by the last key too.
    let system = digest::system_thread(genesis);
    let entries: Vec<_> = network.entries_of(system).map(|entry| entry.item.position.time).collect();
    assert_eq!(entries.len(), 2);
    assert_eq!(entries[0], entries[1]);
    let activation = network.activation(0);
    assert_eq!(Action::parse(&activation.1.action).unwrap().sequence, 2);
}

#[test]
fn forged_under_approved_and_replayed_activations_prove_nothing() {
    let mut network = network(&[1]);
    let genesis = network.state.genesis_hash;
    let (_, bob, thread) = talk(&mut network);
    network.rotate(0);
    network.rotate(0);
    network.say(thread, &bob, "after");
    let good = network.evidence(thread, 2..=2, false, false);
    let faults = |evidence: &Evidence| {
        let report = evidence.verify(genesis, &Reference).unwrap();
        assert!(report.certificate.is_failed() && report.custody.is_failed() && report.recorded.is_failed());
        report.certificate.findings().to_vec()
    };
    let left_out = Evidence { system: None, ..good.clone() };
    assert!(matches!(faults(&left_out)[0].fault, Fault::Certificate(CertificateError::OtherValidators)));
    let changed = |change: &dyn Fn(&mut Vec<zixt_ledger::evidence::EvidenceEntry>)| {
        let mut evidence = good.clone();
        change(&mut evidence.system.as_mut().unwrap().entries);
        faults(&evidence)
    };
    let first = |findings: Vec<zixt_ledger::evidence::Finding>| {
        let finding = findings[0].clone();
        match finding.fault {
            Fault::System(fault) => (finding.place, fault),
            other => panic!("{other:?}"),
        }
    };
    let digest_only = first(changed(&|entries| entries[0].signature = entries[0].signature.to_digest()));
    assert_eq!(digest_only, (Place::SystemEntry(zixt_types::Seq(0)), SystemFault::ApprovalsLeftOut));
    let replayed = first(changed(&|entries| entries.push(entries[1].clone())));
    assert_eq!(replayed.1, SystemFault::BrokenChain);
    let dropped = changed(&|entries| drop(entries.pop()));
    assert!(matches!(dropped[0].fault, Fault::OtherHead { .. }), "{dropped:?}");
    let swapped = first(changed(&|entries| entries.swap(0, 1)));
    assert_eq!(swapped.1, SystemFault::BrokenChain);
    let under = first(changed(&|entries| {
        let Signature::Full(approvals) = &entries[0].signature else { panic!("full") };
        let body = Body::parse(&entries[0].body).unwrap();
        let Payload::Decision { action } = body.payload else { panic!("a decision") };
        let transcript = zixt_ledger::system::transcript_bytes(&action, approvals);
        let mut transcript = Transcript::parse(&transcript).unwrap();
        transcript.approvals.pop();
        entries[0].signature = Signature::Full(zixt_ledger::system::approvals_bytes(&transcript.approvals));
    }));
    assert!(matches!(under.1, SystemFault::Approvals(_)), "{under:?}");
    let backdated = changed(&|entries| entries[0].position.time.0 -= 1);
    assert!(!backdated.is_empty());
}

#[test]
fn a_retired_key_certifies_nothing_after_its_end() {
    let mut network = network(&[1]);
    let genesis = network.state.genesis_hash;
    let (_, bob, thread) = talk(&mut network);
    let (key, _, submission) = network.activation(0);
    let stolen = std::mem::replace(&mut network.validators[0].1, key);
    network.seal(vec![submission]);
    network.say(thread, &bob, "after");
    let good = network.evidence(thread, 2..=2, false, false);
    assert!(good.verify(genesis, &Reference).unwrap().is_ok());
    // A thief certifies the same header with the key that was retired.
    network.validators[0].1 = stolen;
    let certificate = network.certify(&network.blocks.last().unwrap().0);
    let stolen = Evidence { certificate, ..good };
    let report = stolen.verify(genesis, &Reference).unwrap();
    let fault = &report.certificate.findings()[0].fault;
    assert!(matches!(fault, Fault::Certificate(CertificateError::Signature(..))), "{fault:?}");
}

#[test]
fn no_changed_byte_goes_unnoticed() {
    let mut network = network(&[1]);
    let genesis = network.state.genesis_hash;
    let (_, bob, thread) = talk(&mut network);
    network.rotate(0);
    network.say(thread, &bob, "after");
    let good = network.evidence(thread, 2..=2, false, false);
    let bytes = good.to_bytes();
    let mut opaque = opaque_parts(&good);
    let system = good.system.as_ref().unwrap();
    let Signature::Full(approvals) = &system.entries[0].signature else { panic!("full") };
    opaque.push(approvals);
    for at in places_to_change(&bytes, &opaque) {
        let mut forged = bytes.clone();
        forged[at] ^= 1 << (at % 8);
        let Ok(parsed) = Evidence::parse(&forged) else { continue };
        let Ok(report) = parsed.verify(genesis, &Reference) else { continue };
        assert!(!report.is_ok(), "byte {at} of {}", bytes.len());
    }
}

#[test]
fn several_validators_rotate_one_after_the_other() {
    let mut network = network(&[1, 1, 1, 1]);
    talk(&mut network);
    for validator in [2, 0, 2, 3] {
        let (block, certificate) = network.rotate(validator);
        let keys = &network.state.keyring;
        let stake = verify_certificate(block.header(), &certificate, &block.validators, keys, &Reference);
        assert_eq!(stake.unwrap().signed, 4);
    }
    // Two activations in one height: the set after both certifies it.
    let (_, _, one) = network.activation(0);
    let (two, _, other) = network.activation(1);
    let mut body = other.body.clone();
    body.counter += 1;
    let other = Submission { body_bytes: body.to_bytes(), body, ..other };
    let block = network.propose(vec![one, other]).unwrap();
    assert_eq!(block.validators[1].consensus, hash_of(&*two));
    let changed = block.validators.iter().zip(&*network.state.validators).filter(|(new, old)| new != old);
    assert_eq!(changed.count(), 2);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever officers decide, in whatever order it comes: a refused decision changes nothing, stakes and appliances
    /// never change, no key stands twice, and who follows the accepted ones arrives at the same set.
    #[test]
    fn any_decisions_keep_the_rules(steps in prop::collection::vec((0u8..3, 0u64..6, 0u8..5, 0u8..10, 0u8..10), 1..40)) {
        let genesis = rule_genesis();
        let genesis_hash = digest::genesis_hash(&genesis);
        let mut system = System::new(&genesis);
        let mut accepted = Vec::new();
        let mut time = 10;
        for (appliance, sequence, kind, retires, activates) in steps {
            time += 1;
            let key = |n: u8| if n < 3 { genesis.validators[usize::from(n)].consensus } else { Hash([100 + n; 48]) };
            let purpose = [KeyPurpose::Consensus, KeyPurpose::Consensus, KeyPurpose::Enroller, KeyPurpose::Tls];
            let decision = match purpose.get(usize::from(kind)) {
                Some(purpose) if retires != activates => {
                    let retires = match purpose {
                        KeyPurpose::Enroller if retires < 3 => genesis.enrollers[0],
                        _ => key(retires),
                    };
                    activate(*purpose, retires, key(activates))
                }
                _ => Decision::RotateRoot,
            };
            let appliance = genesis.validators.get(usize::from(appliance)).map_or(ApplianceId([99; 48]), |v| v.appliance);
            let action = Action {
                version: 1, genesis: genesis_hash, appliance, sequence, expires_at: Timestamp(1), decision,
            };
            let before = system.clone();
            match system.apply(&genesis, &action, Timestamp(time)) {
                Ok(()) => accepted.push((action, time)),
                Err(_) => prop_assert_eq!(&system, &before),
            }
            let fixed = |set: &[zixt_types::Validator]| -> Vec<_> { set.iter().map(|v| (v.appliance, v.stake, v.tls)).collect() };
            prop_assert_eq!(fixed(&system.validators), fixed(&genesis.validators));
            let mut keys: Vec<_> = system.validators.iter().map(|v| v.consensus).collect();
            keys.extend(system.enrollers.iter().map(|enroller| enroller.key));
            keys.sort_unstable();
            keys.dedup();
            prop_assert_eq!(keys.len(), system.validators.len() + system.enrollers.len());
            prop_assert_eq!(system.enrollers.iter().filter(|e| e.until.is_none()).count(), genesis.enrollers.len());
        }
        let mut again = System::new(&genesis);
        for (action, time) in &accepted {
            prop_assert_eq!(again.apply(&genesis, action, Timestamp(*time)), Ok(()));
            prop_assert!(again.apply(&genesis, action, Timestamp(*time)).is_err(), "replayed");
        }
        prop_assert_eq!(again, system);
    }
}

fn rule_genesis() -> Genesis {
    static GENESIS: OnceLock<Genesis> = OnceLock::new();
    GENESIS.get_or_init(|| (*network(&[1, 1, 1]).state.genesis).clone()).clone()
}

#[test]
fn whoever_follows_the_thread_knows_who_certified_when() {
    let mut network = network(&[1]);
    let (_, bob, thread) = talk(&mut network);
    let (one, _) = network.rotate(0);
    network.say(thread, &bob, "between");
    let (two, _) = network.rotate(0);
    let genesis = Arc::clone(&network.state.genesis);
    let mut follower = SystemThread::new(&genesis);
    let system = digest::system_thread(network.state.genesis_hash);
    let entries: Vec<_> = network.entries_of(system).map(|entry| entry.item.clone()).collect();
    for item in &entries {
        let approvals = Signature::Full(item.signature.clone());
        follower.append(&genesis, &item.body, &approvals, &item.position, &Reference).unwrap();
    }
    assert_eq!(follower.head(), network.head(&system));
    assert_eq!(**follower.validators_at(Timestamp(one.header().time.0 - 1)), genesis.validators);
    for (block, certificate) in &network.blocks {
        let validators = follower.validators_at(block.header().time);
        let keys = &network.state.keyring;
        assert!(verify_certificate(block.header(), certificate, validators, keys, &Reference).is_ok());
    }
    assert_eq!(follower.sets().count(), 3);
    assert_eq!(follower.validators_at(two.header().time), &network.state.validators);
    assert_eq!(follower.activations().len(), 2);
}
