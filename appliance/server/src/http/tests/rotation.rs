//! Officers replace the appliance's consensus key.

use crate::decisions::Records;
use crate::testing::Stack;
use http::StatusCode;
use std::sync::Arc;
use std::time::Duration;
use zixt_api::{
    AdminDecision, AdminStatus, CustodyState, Health, Receipt, SubmitResponse, SystemView, endpoints,
};
use zixt_crypto::digest;
use zixt_ledger::certificate::verify_certificate;
use zixt_types::{
    Action, ApplianceId, Body, Canonical as _, CustodyMode, Decision, KeyPurpose, Payload, Seq, Transcript,
};

fn request(transcript: &Transcript) -> AdminDecision {
    AdminDecision { transcript: transcript.to_bytes().into(), key: None }
}

impl Stack {
    async fn decide(&self, transcript: &Transcript) -> crate::testing::Answer {
        self.call_admin("POST", endpoints::ADMIN_DECISIONS, &request(transcript)).await
    }

    /// What officers approve, and custody's new key with it.
    fn decided(&mut self) -> (Box<dyn zixt_crypto::SigningKey>, Transcript) {
        let (key, transcript, _) = self.net.activation(0);
        (key, transcript)
    }

    /// The same, and the next decision comes after it, though the ledger does not know it yet.
    fn decided_now(&mut self) -> (Box<dyn zixt_crypto::SigningKey>, Transcript) {
        let decided = self.decided();
        self.count(&decided.1);
        decided
    }

    /// A decision that changes no key.
    fn decided_fact(&mut self) -> Transcript {
        let fact = self.net.approve(&self.net.action(0, Decision::RotateRoot), 1);
        self.count(&fact);
        fact
    }

    fn count(&mut self, transcript: &Transcript) {
        let action = Action::parse(&transcript.action).unwrap();
        let (genesis, now) = (Arc::clone(&self.net.state.genesis), self.net.now);
        Arc::make_mut(&mut self.net.state.system).apply(&genesis, &action, now).unwrap();
    }

    fn me(&self) -> ApplianceId {
        self.net.state.genesis.validators[0].appliance
    }

    async fn restart(&mut self) {
        self.stop().await;
        self.start_again().await;
    }

    async fn health(&self) -> Health {
        let answer = self.call(None, "GET", endpoints::HEALTHZ, Vec::new()).await;
        serde_json::from_slice(&answer.body).unwrap()
    }
}

/// The whole rotation with a restart between every step.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_is_rotated_whatever_is_restarted_in_between() {
    let mut stack = Stack::new().await;
    let (ada, bob) = (stack.person("ada").await, stack.person("bob").await);
    let thread = stack.conversation(&ada, &bob).await;
    let first = stack.app.view.read().state.validators[0].clone();
    for round in 0..3 {
        let (key, transcript) = stack.decided();
        // The officers' word alone is not enough: custody has to use the key.
        assert_eq!(stack.decide(&transcript).await.code(), "key-not-active");
        let public = key.public_key().to_vec();
        stack.custody.activate(key);
        stack.restart().await;
        let health = stack.health().await;
        assert_eq!((health.ok, health.custody), (false, CustodyState::AwaitingActivation));
        let status: AdminStatus = stack.call_admin("GET", endpoints::ADMIN_STATUS, &()).await.json();
        assert_eq!(status.custody, CustodyState::AwaitingActivation);
        let message = stack.message(thread, &ada, "waits");
        let before = stack.app.view.read().state.height;
        assert_eq!(stack.submit(&ada, &[&message]).await.code(), "awaiting-activation");

        let receipt: Receipt = stack.decide(&transcript).await.json();
        assert_eq!(receipt.seq, round);
        stack.restart().await;
        assert_eq!(stack.health().await.custody, CustodyState::Operational);
        {
            let state = &stack.app.view.read().state;
            assert_eq!(state.height, before.next(), "alone in its height");
            assert_eq!(state.validators[0].consensus, digest::key_hash(stack.net.suite, &public));
            assert_eq!(state.validators[0].custody, CustodyMode::SealedByTpm);
        }
        stack.follow();
        let answer: SubmitResponse = stack.submit(&ada, &[&message]).await.json();
        assert_eq!(answer.refused, None);
        stack.follow();
        // Once more: the receipt again. Another decision with the same number: no.
        let again: Receipt = stack.decide(&transcript).await.json();
        assert_eq!(again.entry, receipt.entry);
    }
    let last = stack.app.view.read().state.validators[0].clone();
    assert_ne!(first.consensus, last.consensus);

    // Whoever was away gets everything that leads to the present validators.
    let view: SystemView = stack.call(None, "GET", endpoints::SYSTEM, Vec::new()).await.json();
    assert_eq!((view.entries.len(), view.keys.len(), view.next), (3, 3, None));
    // What kind of action, which keys, and where the new one lives, as officers approved it.
    let mut active = first.consensus;
    for (number, (entry, key)) in (0u64..).zip(view.entries.iter().zip(&view.keys)) {
        let Payload::Decision { action } = Body::parse(&entry.body.0).unwrap().payload else { panic!() };
        assert_eq!((action.sequence, action.decision.name()), (number, "activate-key"));
        let activates = digest::key_hash(stack.net.suite, &key.key.0);
        assert_eq!(
            action.decision,
            Decision::ActivateKey {
                purpose: KeyPurpose::Consensus,
                retires: active,
                activates,
                suite: stack.net.suite,
                custody: CustodyMode::SealedByTpm,
            }
        );
        active = activates;
    }
    assert_eq!(active, last.consensus);
    let rest: SystemView = stack.call(None, "GET", "/v1/system?from=2", Vec::new()).await.json();
    assert_eq!(rest.entries.len(), 1);
    // Every stored header is certified by the set of its time, and fsck agrees.
    stack.stop().await;
    stack.start_again().await;
    let state = stack.app.view.read().state.clone();
    let stored = stack.app.store.last_header().await.unwrap().unwrap();
    let keys = &state.keyring;
    let backend = &*stack.net.backend;
    verify_certificate(&stored.header, &stored.certificate, &state.validators, keys, backend).unwrap();
    let genesis = (*state.genesis).clone();
    let report = zixt_storage::fsck(&stack.app.store, genesis, stack.net.keyring.clone(), backend, None)
        .await
        .unwrap();
    assert!(report.is_clean(), "{:?}", report.findings);
    stack.stop().await;
}

/// What officers decided while the server was down: some of it before the activation of the present key. Whoever hands in
/// whichever of it, all of it is recorded in one height, in its order, and nothing is lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn decisions_from_before_an_activation_are_recorded_with_it() {
    for by_hand in [None, Some(0), Some(1), Some(2), Some(3)] {
        let mut stack = Stack::new().await;
        let (ada, bob) = (stack.person("ada").await, stack.person("bob").await);
        let thread = stack.conversation(&ada, &bob).await;
        let message = stack.message(thread, &ada, "before");
        let answer: SubmitResponse = stack.submit(&ada, &[&message]).await.json();
        assert_eq!(answer.refused, None);
        stack.follow();
        stack.stop().await;
        let fact = stack.decided_fact();
        let [first, second] = [stack.decided_now(), stack.decided_now()];
        let later = stack.decided_fact();
        let transcripts = [fact, first.1, second.1, later];
        let last = digest::key_hash(stack.net.suite, second.0.public_key());
        stack.custody.activate(first.0);
        stack.custody.activate(second.0);
        transcripts.iter().for_each(|transcript| stack.custody.take(transcript));

        stack.start_again().await;
        assert_eq!(stack.health().await.custody, CustodyState::AwaitingActivation);
        let before = stack.app.view.read().state.height;
        let mut records = Records::default();
        match by_hand {
            Some(3) => {
                // It comes after the activation, and does not take its place.
                assert_eq!(stack.decide(&transcripts[3]).await.code(), "awaiting-activation");
                assert_eq!(stack.app.view.read().state.height, before);
            }
            Some(at) => {
                let receipt: Receipt = stack.decide(&transcripts[at]).await.json();
                assert_eq!(receipt.seq, at as u64);
                assert_eq!(stack.app.view.read().state.height, before.next());
            }
            None => {}
        }
        stack.record_decisions(&mut records).await;
        assert_eq!(stack.health().await.custody, CustodyState::Operational);
        assert_eq!(stack.app.view.read().state.height, before.next().next());
        let mut times = Vec::new();
        for (at, transcript) in transcripts.iter().enumerate() {
            let receipt: Receipt = stack.decide(transcript).await.json();
            assert_eq!(receipt.seq, at as u64, "{by_hand:?}");
            times.push(receipt.time);
        }
        assert!(times[0] == times[2] && times[2] < times[3], "three in one height: {times:?}");
        stack.follow();
        assert_eq!(stack.net.state.validators[0].consensus, last);
        let message = stack.message(thread, &ada, "after");
        let answer: SubmitResponse = stack.submit(&ada, &[&message]).await.json();
        assert_eq!(answer.refused, None);

        // Whoever follows it arrives at the same: a client, a restart, `fsck`.
        let view: SystemView = stack.call(None, "GET", endpoints::SYSTEM, Vec::new()).await.json();
        assert_eq!((view.entries.len(), view.keys.len(), view.next), (4, 2, None));
        stack.restart().await;
        assert_eq!(stack.health().await.custody, CustodyState::Operational);
        let genesis = (*stack.net.state.genesis).clone();
        let (keyring, backend) = (stack.net.keyring.clone(), &*stack.net.backend);
        let report = zixt_storage::fsck(&stack.app.store, genesis, keyring, backend, None).await.unwrap();
        assert!(report.is_clean(), "{:?}", report.findings);
        stack.stop().await;
    }
}

/// An activation that custody has not carried out, or that leads elsewhere, records nothing of what stands before it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn decisions_that_lead_to_no_present_key_are_not_recorded() {
    let mut stack = Stack::new().await;
    stack.person("ada").await;
    let fact = stack.decided_fact();
    let [first, second] = [stack.decided_now(), stack.decided_now()];
    stack.custody.activate(first.0);
    stack.custody.activate(second.0);
    stack.custody.take(&fact);
    // The transcript of the first activation is lost.
    stack.custody.take(&second.1);
    let before = stack.app.view.read().state.height;
    assert_eq!(stack.decide(&fact).await.code(), "awaiting-activation");
    assert_eq!(stack.decide(&second.1).await.code(), "not-the-present-key");
    let mut records = Records::default();
    stack.record_decisions(&mut records).await;
    assert_eq!(stack.app.view.read().state.height, before);
    // It is found, and handed in.
    let receipt: Receipt = stack.decide(&first.1).await.json();
    assert_eq!(receipt.seq, 1);
    stack.record_decisions(&mut records).await;
    let receipt: Receipt = stack.decide(&second.1).await.json();
    assert_eq!(receipt.seq, 2);
    assert_eq!(stack.app.view.read().state.height, before.next());
    assert_eq!(stack.health().await.custody, CustodyState::Operational);
    stack.stop().await;
}

/// Custody was locked when the first of two was handed in: the second does not go before it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_decision_that_fails_once_is_not_lost() {
    for votes in [0, 1] {
        let mut stack = Stack::new().await;
        stack.person("ada").await;
        stack.follow();
        let facts = [stack.decided_fact(), stack.decided_fact(), stack.decided_fact()];
        facts.iter().for_each(|fact| stack.custody.take(fact));
        let mut records = Records::default();
        stack.custody.lock_after(votes);
        stack.record_decisions(&mut records).await;
        assert_eq!(stack.net.head(&digest::system_thread(stack.net.state.genesis_hash)), None);
        stack.custody.unlock();
        stack.refresh_custody().await;
        // The sequencer opens its log again in the meantime.
        for _ in 0..200 {
            stack.record_decisions(&mut records).await;
            if stack.app.view.read().state.system.sequence(&stack.me()) == Some(2) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        for (at, fact) in facts.iter().enumerate() {
            let receipt: Receipt = stack.decide(fact).await.json();
            assert_eq!(receipt.seq, at as u64, "{votes}");
        }
        stack.stop().await;
    }
}

/// A restart between the prevote of an activation and its precommit, and another rotation meanwhile: what the key in the
/// middle has voted for is dropped, and both activations end in one height.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rotation_in_the_middle_of_an_activation_is_recorded_with_it() {
    for votes in [1, 2] {
        let mut stack = Stack::new().await;
        stack.person("ada").await;
        stack.follow();
        let [first, second] = [stack.decided_now(), stack.decided_now()];
        stack.custody.activate(first.0);
        stack.custody.take(&first.1);
        stack.restart().await;
        stack.custody.lock_after(votes);
        let answer = stack.decide(&first.1).await;
        assert_eq!(answer.status == StatusCode::OK, votes == 2);
        stack.stop().await;
        stack.custody.activate(second.0);
        stack.custody.take(&second.1);
        stack.custody.unlock();
        stack.start_again().await;
        let mut records = Records::default();
        for _ in 0..200 {
            stack.record_decisions(&mut records).await;
            if stack.health().await.custody == CustodyState::Operational {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let receipts: [Receipt; 2] =
            [stack.decide(&first.1).await.json(), stack.decide(&second.1).await.json()];
        assert_eq!(receipts.each_ref().map(|receipt| receipt.seq), [0, 1]);
        assert_eq!(receipts[0].time == receipts[1].time, votes == 1);
        stack.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn custody_may_change_its_key_while_the_server_runs() {
    let mut stack = Stack::new().await;
    let (ada, bob) = (stack.person("ada").await, stack.person("bob").await);
    let thread = stack.conversation(&ada, &bob).await;
    let (key, transcript) = stack.decided();
    let old = stack.custody.activate(key);
    let receipt: Receipt = stack.decide(&transcript).await.json();
    assert_eq!(receipt.seq, 0);
    let message = {
        stack.follow();
        stack.message(thread, &ada, "goes on")
    };
    let answer: SubmitResponse = stack.submit(&ada, &[&message]).await.json();
    assert_eq!(answer.refused, None);

    // The old key comes back, from a copy of custody's state: it certifies nothing any more.
    stack.custody.activate(old);
    stack.refresh_custody().await;
    stack.follow();
    let message = stack.message(thread, &ada, "never");
    assert_eq!(stack.submit(&ada, &[&message]).await.code(), "awaiting-activation");
    stack.stop().await;
}

/// Custody rotates in the middle of a height: after none, one or both of its votes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rotation_in_the_middle_of_a_height_loses_nothing_that_was_certified() {
    for votes in [0, 1, 2] {
        for restart in [false, true] {
            let mut stack = Stack::new().await;
            let (ada, bob) = (stack.person("ada").await, stack.person("bob").await);
            let thread = stack.conversation(&ada, &bob).await;
            let message = stack.message(thread, &ada, "hello");
            let (key, transcript) = stack.decided();
            stack.custody.lock_after(votes);
            let answer = stack.submit(&ada, &[&message]).await;
            let recorded = answer.status == StatusCode::OK;
            assert_eq!(recorded, votes == 2);
            if restart {
                stack.stop().await;
            }
            stack.custody.activate(key);
            stack.custody.unlock();
            if restart {
                stack.start_again().await;
            } else {
                stack.refresh_custody().await;
            }
            let receipt: Receipt = loop {
                let answer = stack.decide(&transcript).await;
                if answer.status == StatusCode::OK {
                    break answer.json();
                }
                assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE, "{}", answer.problem());
                tokio::time::sleep(Duration::from_millis(20)).await;
            };
            assert_eq!(receipt.seq, 0, "votes {votes}, restart {restart}");
            let answer: SubmitResponse = stack.submit(&ada, &[&message]).await.json();
            assert_eq!(answer.receipts[0].seq, 1);
            stack.follow();
            assert_eq!(stack.net.head(&thread).unwrap().seq, Seq(1), "once");
            stack.stop().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_officers_did_not_decide_is_refused_by_name() {
    let mut stack = Stack::new().await;
    let ada = stack.person("ada").await;
    let (key, good) = stack.decided();
    let public = key.public_key().to_vec();
    let admin = |request: AdminDecision| {
        let stack = &stack;
        async move { stack.call_admin("POST", endpoints::ADMIN_DECISIONS, &request).await.code() }
    };
    let bytes = |bytes: &[u8]| AdminDecision { transcript: bytes.to_vec().into(), key: None };
    assert_eq!(admin(bytes(b"no transcript")).await, "transcript-malformed");
    let mut forged = good.to_bytes();
    let last = forged.len() - 1;
    forged[last] ^= 1;
    assert_eq!(admin(bytes(&forged)).await, "not-approved");
    let mut altered = good.clone();
    altered.action =
        zixt_types::Action { sequence: 9, ..stack.net.action(0, Decision::RotateRoot) }.to_bytes();
    assert_eq!(admin(request(&altered)).await, "not-approved", "approvals of another action");

    // Facts are recorded without a word of custody; another appliance's key has to be handed in.
    let fact = stack.net.approve(&stack.net.action(0, Decision::RotateRoot), 1);
    let receipt: Receipt = stack.decide(&fact).await.json();
    assert_eq!(receipt.seq, 0);
    let enroller = stack.net.key();
    let decision = Decision::ActivateKey {
        purpose: KeyPurpose::Enroller,
        retires: stack.net.state.genesis.enrollers[0],
        activates: digest::key_hash(stack.net.suite, enroller.public_key()),
        suite: stack.net.suite,
        custody: CustodyMode::SealedByTpm,
    };
    stack.follow();
    let transcript = stack.net.approve(&stack.net.action(0, decision), 1);
    assert_eq!(stack.decide(&transcript).await.code(), "key-missing");
    let other = AdminDecision { key: Some(public.clone().into()), ..request(&transcript) };
    assert_eq!(stack.call_admin("POST", endpoints::ADMIN_DECISIONS, &other).await.code(), "key-missing");
    let with_key = AdminDecision { key: Some(enroller.public_key().to_vec().into()), ..request(&transcript) };
    let receipt: Receipt = stack.call_admin("POST", endpoints::ADMIN_DECISIONS, &with_key).await.json();
    assert_eq!(receipt.seq, 1);
    stack.follow();
    // The number of the activation from the beginning is used up meanwhile.
    stack.custody.activate(key);
    assert_eq!(stack.decide(&good).await.code(), "decision-replayed");
    // Nobody hands a decision in as a device.
    let (_, _, submission) = stack.net.activation(0);
    assert_eq!(stack.submit(&ada, &[&submission]).await.code(), "author-mismatch");
    stack.stop().await;
}
