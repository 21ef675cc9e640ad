//! The rules by which the ledger takes or refuses entries, one test per rule, with real keys and signatures.
#![allow(clippy::expect_used, reason = "helpers of tests")]

use std::sync::Arc;
use zixt_crypto::{Reference, digest};
use zixt_ledger::testing::{SampleDevice, SampleNetwork};
use zixt_ledger::{
    Account, BlockBuilder, Keyring, LedgerState, ProposedBlock, Refusal, Submission, SubmissionError,
    certificate,
};
use zixt_types::{
    Attachment, Author, Batch, Body, Canonical, Epoch, Genesis, Hash, Header, Member, Officer, Payload,
    RevokeReason, Salt, Seq, SuiteId, ThreadId, Timestamp, limits,
};

fn network() -> SampleNetwork {
    SampleNetwork::new(Arc::new(Reference), SuiteId::Standard, &[1])
}

fn pair(network: &mut SampleNetwork) -> (SampleDevice, SampleDevice, ThreadId) {
    let (alice, bob) = (network.enrol("alice"), network.enrol("bob"));
    let thread = network.thread_id();
    let commit = network.commit(thread, &alice, vec![bob.member], vec![]);
    network.seal(vec![commit]);
    (alice, bob, thread)
}

fn refusal(network: &mut SampleNetwork, submission: Submission) -> Refusal {
    network.propose(vec![submission]).expect_err("the ledger must refuse this")
}

/// Signs a body of the author's own making, with the right signature over it.
fn resign(network: &SampleNetwork, author: &SampleDevice, body: &Body, envelope: &[u8]) -> Submission {
    network.sign(body, &*author.identity, None, &[envelope])
}

#[test]
fn a_conversation_runs_and_every_height_is_certified() {
    let mut network = network();
    let (alice, bob, thread) = pair(&mut network);
    for turn in 0..4u8 {
        let author = if turn % 2 == 0 { &alice } else { &bob };
        let message = network.message(thread, author, &[turn; 64], Hash([turn; 48]));
        let (block, certificate) = network.seal(vec![message]);
        let stake = certificate::verify_certificate(
            block.header(),
            &certificate,
            &network.state.validators,
            &network.keyring,
            &*network.backend,
        );
        assert_eq!(stake.map(|stake| (stake.signed, stake.total)), Ok((1, 1)));
    }
    let state = network.state.thread(&thread).expect("the thread");
    assert_eq!(state.head.seq, Seq(4));
    assert_eq!(state.counter(&Author::Device(alice.member)), 3);
    assert_eq!(state.conversation().map(|c| c.members.len()), Some(2));
}

#[test]
fn every_validator_rebuilds_the_same_block_from_its_bytes() {
    let mut network = network();
    let (alice, bob, thread) = pair(&mut network);
    let before: LedgerState = network.state.clone();
    let (one, two) = (
        network.message(thread, &alice, b"one", Hash([1; 48])),
        network.message(thread, &bob, b"two", Hash([2; 48])),
    );
    let block = network.propose(vec![one, two]).expect("a block");
    let batch = Batch::parse(&block.batch.to_bytes()).expect("its bytes");
    let rebuilt = ProposedBlock::rebuild(&before, batch.clone(), &*network.backend).expect("the same block");
    assert_eq!(rebuilt.header_hash, block.header_hash);

    // Any change of what is in it leads to another header or a bad signature.
    let mut swapped = batch.clone();
    swapped.items.swap(0, 1);
    let mut salted = batch.clone();
    salted.items[0].salt = Salt([1; 32]);
    let mut forged = batch.clone();
    forged.items[1].signature[7] ^= 1;
    let mut misplaced = batch.clone();
    misplaced.items[1].position.seq = Seq(9);
    let mut back = batch;
    back.header.time = Timestamp(1);
    for wrong in [swapped, salted, forged, misplaced, back] {
        assert!(ProposedBlock::rebuild(&before, wrong, &*network.backend).is_err());
    }
}

#[test]
fn counters_are_gapless_and_never_repeat() {
    let mut network = network();
    let (alice, _, thread) = pair(&mut network);
    let message = network.message(thread, &alice, b"hello", Hash([1; 48]));
    network.seal(vec![message.clone()]);
    assert_eq!(refusal(&mut network, message.clone()), Refusal::CounterReplayed { expected: 2, got: 1 });
    let mut ahead = message.body;
    ahead.counter = 3;
    let ahead = resign(&network, &alice, &ahead, b"hello");
    assert_eq!(refusal(&mut network, ahead), Refusal::CounterGap { expected: 2, got: 3 });
}

#[test]
fn two_messages_of_one_author_share_a_block_in_order() {
    let mut network = network();
    let (alice, _, thread) = pair(&mut network);
    let first = network.message(thread, &alice, b"first", Hash([1; 48]));
    let mut second = network.message(thread, &alice, b"second", Hash([2; 48])).body;
    second.counter += 1;
    second.last_seen = None;
    let second = resign(&network, &alice, &second, b"second");
    let block = network.propose(vec![first, second]).expect("both");
    assert_eq!(block.entries[1].item.position.prev, block.entries[0].hash);
}

#[test]
fn a_message_id_stands_once_in_a_thread_of_a_block() {
    let mut network = network();
    let (alice, bob, thread) = pair(&mut network);
    let first = network.message(thread, &alice, b"first", Hash([1; 48]));
    // The author itself and another one; and a thread beside it, which is free to use the id.
    let mut own = network.message(thread, &alice, b"second", Hash([2; 48])).body;
    (own.counter, own.last_seen, own.message_id) = (own.counter + 1, None, first.body.message_id);
    let own = resign(&network, &alice, &own, b"second");
    let mut others = network.message(thread, &bob, b"third", Hash([3; 48])).body;
    (others.last_seen, others.message_id) = (None, first.body.message_id);
    let others = resign(&network, &bob, &others, b"third");
    for second in [own, others] {
        assert_eq!(network.propose(vec![first.clone(), second]).err(), Some(Refusal::MessageIdInUse));
    }
    let replay = network.propose(vec![first.clone(), first.clone()]).err();
    assert!(matches!(replay, Some(Refusal::CounterReplayed { .. })), "{replay:?}");
    let (_, submission) = network.invite("somebody");
    let mut elsewhere = submission.body;
    elsewhere.message_id = first.body.message_id;
    let elsewhere = network.sign(&elsewhere, &*network.enroller, None, &[]);
    assert_eq!(network.propose(vec![first, elsewhere]).map(|block| block.entries.len()), Ok(2));
}

#[test]
fn one_commit_per_epoch_and_messages_name_the_current_one() {
    let mut network = network();
    let (alice, bob, thread) = pair(&mut network);
    let (by_alice, by_bob) =
        (network.commit(thread, &alice, vec![], vec![]), network.commit(thread, &bob, vec![], vec![]));
    let late = network.message(thread, &bob, b"late", Hash([1; 48]));
    network.seal(vec![by_alice]);
    let stale = Refusal::StaleEpoch { current: Epoch(2), got: Epoch(1), since: Seq(1) };
    assert_eq!(refusal(&mut network, by_bob), stale);
    assert_eq!(refusal(&mut network, late), stale);
}

#[test]
fn a_removed_member_writes_nothing_any_more() {
    let mut network = network();
    let (alice, bob, thread) = pair(&mut network);
    let remove = network.commit(thread, &alice, vec![], vec![bob.member]);
    let (block, _) = network.seal(vec![remove]);
    assert!(block.entries[0].recipients.contains(&bob.member), "it is told of its removal");
    let message = network.message(thread, &bob, b"still here?", Hash([1; 48]));
    assert_eq!(refusal(&mut network, message), Refusal::NotAMember);
}

#[test]
fn rosters_change_only_as_said() {
    let mut network = network();
    let (alice, bob, thread) = pair(&mut network);
    let carol = network.enrol("carol");
    let again = network.commit(thread, &alice, vec![bob.member], vec![]);
    assert_eq!(refusal(&mut network, again), Refusal::AlreadyAMember(bob.member));
    let nobody = network.commit(thread, &alice, vec![], vec![carol.member]);
    assert_eq!(refusal(&mut network, nobody), Refusal::RemovedNobody(carol.member));
    let itself = network.commit(thread, &alice, vec![], vec![alice.member]);
    assert_eq!(refusal(&mut network, itself), Refusal::RemovedSelf);
    let ghost = Member { device: bob.member.device, account: carol.member.account };
    let ghost_added = network.commit(thread, &alice, vec![ghost], vec![]);
    assert_eq!(refusal(&mut network, ghost_added), Refusal::AddedInactive(ghost));
    let alone = network.thread_id();
    let alone = network.commit(alone, &alice, vec![], vec![]);
    assert_eq!(refusal(&mut network, alone), Refusal::NobodyAdded);
}

#[test]
fn only_the_ledger_makes_devices() {
    let mut network = network();
    let (alice, bob, thread) = pair(&mut network);
    // Signed by another device than the author's.
    let body = network.body(
        thread,
        Author::Device(alice.member),
        Payload::Message { epoch: Epoch(1), envelope: digest::envelope_digest(b"x"), content: Hash::ZERO },
    );
    let forged = resign(&network, &bob, &body, b"x");
    let key = network.state.signer(&forged).expect("the author is known");
    assert!(matches!(
        forged.verify(&key, &network.state.keyring, &*network.backend),
        Err(SubmissionError::Signature(_))
    ));
    // A device of one account cannot add a device to another.
    let (_, stolen) = network.device(bob.member.account, Err(&alice));
    assert_eq!(refusal(&mut network, stolen), Refusal::UnknownDevice);
}

#[test]
fn an_invitation_works_once_and_for_its_key() {
    let mut network = network();
    let (invitation, submission) = network.invite("dora");
    network.seal(vec![submission.clone()]);
    assert!(matches!(refusal(&mut network, submission), Refusal::CounterReplayed { .. }));
    let (_, first) = network.device(invitation.account, Ok(&invitation));
    network.seal(vec![first]);
    let (_, second) = network.device(invitation.account, Ok(&invitation));
    assert_eq!(network.state.signer(&second), Err(Refusal::InvitationUsed));

    let (other, submission) = network.invite("emil");
    network.seal(vec![submission]);
    let (_, mut swapped) = network.device(other.account, Ok(&invitation));
    swapped.body.author = Author::Invitation(other.account);
    let key = network.state.signer(&swapped).expect("the invitation's key");
    assert!(swapped.verify(&key, &network.state.keyring, &*network.backend).is_err());
}

#[test]
fn an_expired_invitation_and_a_revoked_device_are_refused() {
    let mut network = network();
    let (alice, bob, thread) = pair(&mut network);
    let (invitation, submission) = network.invite("late");
    network.seal(vec![submission]);
    let (_, device) = network.device(invitation.account, Ok(&invitation));
    network.now.0 += 2 * 86_400_000;
    assert!(matches!(network.propose(vec![device]), Err(Refusal::InvitationExpired { .. })));

    let revoke = network.revoke(bob.member.device, &bob);
    network.seal(vec![revoke]);
    let message = network.message(thread, &bob, b"x", Hash([1; 48]));
    assert_eq!(network.state.signer(&message), Err(Refusal::DeviceRevoked));
    let add = network.commit(thread, &alice, vec![], vec![bob.member]);
    network.seal(vec![add]);
    let again = network.commit(thread, &alice, vec![bob.member], vec![]);
    assert_eq!(refusal(&mut network, again), Refusal::AddedInactive(bob.member));
}

#[test]
fn attachments_are_the_ones_that_the_body_names() {
    let mut network = network();
    let (alice, _, thread) = pair(&mut network);
    let good = network.message(thread, &alice, b"hello", Hash([1; 48]));
    let parse = |attachments: &[&[u8]], possession: Option<Vec<u8>>| {
        Submission::parse(
            good.body_bytes.clone(),
            good.signature.clone(),
            possession,
            attachments.iter().map(|bytes| Attachment(bytes.to_vec())).collect(),
        )
    };
    assert!(matches!(parse(&[b"other"], None), Err(SubmissionError::AttachmentDigest { index: 0 })));
    assert!(matches!(parse(&[], None), Err(SubmissionError::AttachmentCount { expected: 1, got: 0 })));
    let long = vec![0; zixt_types::limits::ENVELOPE_BYTES_MAX + 1];
    assert!(matches!(parse(&[&long], None), Err(SubmissionError::AttachmentTooLong { .. })));
    let signature = good.signature.clone();
    assert!(matches!(parse(&[b"hello"], Some(signature)), Err(SubmissionError::Possession)));
    assert!(matches!(
        Submission::parse(good.body_bytes.clone(), vec![0; 12], None, vec![]),
        Err(SubmissionError::SignatureLength { got: 12, .. })
    ));
}

#[test]
fn certificates_need_more_than_two_thirds_of_all_stake() {
    let mut network = SampleNetwork::new(Arc::new(Reference), SuiteId::Standard, &[10, 5, 3, 2]);
    let (_, submission) = network.invite("alice");
    let block = network.propose(vec![submission]).expect("a block");
    let full = network.certify(&block);
    let stake_of = |id| network.state.validators.iter().find(|v| v.appliance == id).map_or(0, |v| v.stake);
    for mask in 0u8..16 {
        let mut partial = full.clone();
        let mut index = 0;
        partial.signatures.retain(|_| {
            index += 1;
            mask >> (index - 1) & 1 == 1
        });
        let signed: u64 = partial.signatures.iter().map(|s| stake_of(s.validator)).sum();
        let verdict = certificate::verify_certificate(
            block.header(),
            &partial,
            &network.state.validators,
            &network.keyring,
            &*network.backend,
        );
        assert_eq!(verdict.is_ok(), signed * 3 > 20 * 2, "stake {signed} of 20");
    }
    // A signer counted twice, a foreign signature, a missing key.
    let mut twice = full.clone();
    let first = twice.signatures[0].clone();
    twice.signatures.insert(0, first);
    let mut swapped = full.clone();
    swapped.signatures[0].signature = full.signatures[1].signature.clone();
    for wrong in [twice, swapped] {
        assert!(
            certificate::verify_certificate(
                block.header(),
                &wrong,
                &network.state.validators,
                &network.keyring,
                &*network.backend
            )
            .is_err()
        );
    }
    assert!(matches!(
        certificate::verify_certificate(
            block.header(),
            &full,
            &network.state.validators,
            &Keyring::default(),
            &*network.backend
        ),
        Err(certificate::CertificateError::KeyMissing(_))
    ));
}

#[test]
fn no_clock_ends_the_ledger() {
    let mut network = network();
    let last = limits::CLOCK_MS_MAX;
    for (now, time) in [
        (u64::MAX, network.state.time.0 + 1),
        (last + 1, network.state.time.0 + 2),
        (last, last),
        // From here on a millisecond each, whatever the clock says.
        (u64::MAX, last + 1),
        (limits::LEDGER_TIME_MS_MAX, last + 2),
        (5, last + 3),
    ] {
        let (_, submission) = network.invite("somebody");
        let mut builder = BlockBuilder::new(&network.state, Timestamp(now));
        builder.add(submission, Salt([1; 32])).expect("a valid entry");
        let block = builder.finish();
        assert_eq!(block.header().time, Timestamp(time));
        let batch = Batch::parse(&block.batch.to_bytes()).expect("a valid header");
        let block = ProposedBlock::rebuild(&network.state, batch, &*network.backend).expect("the same block");
        network.state.apply(&block);
    }
    // Nobody votes for a jump that the builder would not make.
    let (_, submission) = network.invite("somebody");
    let mut batch = network.propose(vec![submission]).expect("a block").batch;
    batch.header.time = Timestamp(limits::LEDGER_TIME_MS_MAX);
    batch.items[0].position.time = batch.header.time;
    assert!(ProposedBlock::rebuild(&network.state, batch.clone(), &*network.backend).is_err());
    batch.header.time.0 += 1;
    assert!(Header::parse(&batch.header.to_bytes()).is_err());
}

/// A device addition by `by`, a device of the account, that names `tls` whoever has that key; `later` others of
/// the author stand before it in the same block.
fn device_with_tls(
    network: &mut SampleNetwork,
    by: &SampleDevice,
    tls: &[u8],
    later: u64,
) -> (Member, Submission) {
    let (identity, mls) = (network.key(), network.key());
    let hash = |key: &[u8]| digest::key_hash(network.suite, key);
    let device = digest::device_id(hash(identity.public_key()));
    let payload = Payload::DeviceAdd {
        device,
        identity: hash(identity.public_key()),
        mls: hash(mls.public_key()),
        tls: hash(tls),
    };
    let account = by.member.account;
    let mut body = network.body(digest::account_thread(account), Author::Device(by.member), payload);
    body.counter += later;
    body.last_seen = body.last_seen.filter(|_| later == 0);
    let keys: [&[u8]; 3] = [identity.public_key(), mls.public_key(), tls];
    let submission = network.sign(&body, &*by.identity, Some(&*identity), &keys);
    (Member { account, device }, submission)
}

#[test]
fn a_tls_key_never_changes_hands() {
    let mut network = network();
    let (alice, mallory) = (network.enrol("alice"), network.enrol("mallory"));
    let tls = digest::key_hash(network.suite, &alice.tls);
    let (_, takeover) = device_with_tls(&mut network, &mallory, &alice.tls, 0);
    assert_eq!(refusal(&mut network, takeover.clone()), Refusal::TlsKeyInUse);
    let (_, own) = device_with_tls(&mut network, &alice, &alice.tls, 0);
    assert_eq!(refusal(&mut network, own), Refusal::TlsKeyInUse);
    assert_eq!(network.state.member_by_tls(&tls), Some(alice.member));
    // A revoked device's key is nobody's for ever.
    let revoke = network.revoke(alice.member.device, &alice);
    network.seal(vec![revoke]);
    assert_eq!(refusal(&mut network, takeover), Refusal::TlsKeyInUse);
    assert_eq!(network.state.member_by_tls(&tls), None);
    assert_eq!(network.state.holder_of_tls(&tls), Some(alice.member));
}

#[test]
fn of_two_claims_of_a_tls_key_at_one_height_one_wins_everywhere() {
    let mut network = network();
    let (alice, bob) = (network.enrol("alice"), network.enrol("bob"));
    let key = network.key();
    let tls = digest::key_hash(network.suite, key.public_key());
    let (one, by_alice) = device_with_tls(&mut network, &alice, key.public_key(), 0);
    let (other, by_bob) = device_with_tls(&mut network, &bob, key.public_key(), 0);
    network.seal(vec![by_bob, by_alice]);
    let winner = one.min(other);
    assert_eq!(network.state.member_by_tls(&tls), Some(winner));

    // The same from a store, in any order.
    let mut threads: Vec<_> = network.state.threads().map(|(id, thread)| (*id, Arc::clone(thread))).collect();
    for _ in 0..2 {
        threads.reverse();
        let mut restored = LedgerState::new((*network.state.genesis).clone(), network.keyring.clone());
        restored.restore_threads(threads.clone());
        assert_eq!(restored.member_by_tls(&tls), Some(winner));
        assert_eq!(restored.heads.root(), network.state.heads.root());
        assert_eq!(restored.heads.len(), network.state.heads.len());
    }
    // Inside one account the second claim of a height is refused.
    let key = network.key();
    let (_, first) = device_with_tls(&mut network, &alice, key.public_key(), 0);
    let (_, second) = device_with_tls(&mut network, &alice, key.public_key(), 1);
    assert_eq!(network.propose(vec![first, second]).err(), Some(Refusal::TlsKeyInUse));
}

#[test]
fn a_genesis_names_nobody_twice() {
    let network = SampleNetwork::new(Arc::new(Reference), SuiteId::Standard, &[1, 1]);
    let mut good = (*network.state.genesis).clone();
    good.officers.push(Officer { name: "another".to_owned(), key: Hash([2; 48]) });
    good.enrollers.push(Hash([3; 48]));
    good.officers_required = 2;
    assert!(Genesis::parse(&good.to_bytes()).is_ok());
    let changes: [fn(&mut Genesis); 7] = [
        |genesis| genesis.suites.push(genesis.suites[0]),
        |genesis| genesis.officers[1].key = genesis.officers[0].key,
        |genesis| genesis.officers[1].name = genesis.officers[0].name.clone(),
        |genesis| genesis.enrollers[1] = genesis.enrollers[0],
        |genesis| genesis.validators[1].consensus = genesis.validators[0].consensus,
        |genesis| genesis.validators[1].tls = genesis.validators[0].tls,
        |genesis| genesis.created_at = Timestamp(u64::MAX),
    ];
    for (index, change) in changes.into_iter().enumerate() {
        let mut genesis = good.clone();
        change(&mut genesis);
        assert!(Genesis::parse(&genesis.to_bytes()).is_err(), "change {index}");
    }
}

#[test]
fn an_account_has_an_end_of_devices() {
    let mut network = network();
    let alice = network.enrol("alice");
    let mut account = network.state.account(alice.member.account).expect("the account").clone();
    let (thread, author) = (digest::account_thread(account.id), Author::Device(alice.member));
    let mut change = |account: &mut Account, payload| {
        let body = network.body(thread, author, payload);
        account.apply(&body, network.now)
    };
    let add = |number: usize| {
        let key = |kind: u8| digest::envelope_digest(&[kind, (number >> 8) as u8, (number & 255) as u8]);
        let (identity, mls, tls) = (key(1), key(2), key(3));
        Payload::DeviceAdd { device: digest::device_id(identity), identity, mls, tls }
    };
    for number in 1..limits::DEVICES_EVER_MAX {
        assert_eq!(change(&mut account, add(number)), Ok(()), "device {number}");
        let device = account.devices[number].id;
        let revoke = Payload::DeviceRevoke { device, reason: RevokeReason::CessationOfOperation };
        assert_eq!(change(&mut account, revoke), Ok(()));
    }
    let one_more = change(&mut account, add(limits::DEVICES_EVER_MAX));
    assert_eq!(one_more, Err(Refusal::TooManyDevicesEver { max: limits::DEVICES_EVER_MAX }));
    assert_eq!((account.devices.len(), account.active_devices().count()), (limits::DEVICES_EVER_MAX, 1));
}
