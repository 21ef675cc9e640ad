//! Officers replace the validator's key: clients follow, and believe nobody else.

use crate::appliance::{Appliance, Person, flip};
use serde_json::{Value, json};
use std::sync::Arc;
use zixt_client::ClientError;
use zixt_crypto::{Reference, digest};
use zixt_ledger::evidence::Evidence;
use zixt_ledger::system::approvals_bytes;
use zixt_types::{Action, CustodyMode, Decision, KeyPurpose, ThreadId};

async fn pair(appliance: &Arc<Appliance>) -> (Person, Person, ThreadId) {
    let (ada, bob) = (appliance.enrol("ada").await, appliance.enrol("bob").await);
    let thread = ada.client().start_conversation(&["bob"], None).await.unwrap();
    ada.say(thread, "before").await.unwrap();
    bob.sync().await;
    (ada, bob, thread)
}

async fn evidence(person: &Person, thread: ThreadId) -> Evidence {
    let path = person.folder.path().join("it.zixt-evidence");
    person.client().export_evidence(thread, None, true, &path).await.unwrap();
    Evidence::parse(&std::fs::read(path).unwrap()).unwrap()
}

#[tokio::test]
async fn a_client_that_was_away_over_two_rotations_catches_up() {
    let appliance = Appliance::new();
    let (ada, mut bob, thread) = pair(&appliance).await;
    let old = evidence(&bob, thread).await;
    bob.close().await;
    appliance.lock().rotate();
    ada.say(thread, "between").await.unwrap();
    appliance.lock().rotate();
    ada.say(thread, "after").await.unwrap();
    bob.restart().await;
    bob.sync().await;
    assert_eq!(bob.texts(thread).await, ["before", "between", "after"]);
    assert_eq!((bob.alarms().await, ada.alarms().await), (vec![], vec![]));
    // What it learned stays: after a restart nothing is asked again.
    bob.say(thread, "hello").await.unwrap();
    bob.restart().await;
    appliance.lock().asked.clear();
    bob.say(thread, "again").await.unwrap();
    assert!(appliance.lock().asked.iter().all(|path| !path.starts_with("/v1/system")));

    let genesis = appliance.lock().net.state.genesis_hash;
    let new = evidence(&bob, thread).await;
    assert_eq!(old.system, None);
    assert_eq!(new.system.as_ref().map(|system| system.entries.len()), Some(2));
    for file in [old, new] {
        assert!(file.verify(genesis, &Reference).unwrap().is_ok());
    }
    // Newcomers begin in the middle.
    let carol = appliance.enrol("carol").await;
    let thread = carol.client().start_conversation(&["bob"], None).await.unwrap();
    carol.say(thread, "I am new").await.unwrap();
    bob.sync().await;
    assert_eq!(bob.texts(thread).await, ["I am new"]);
    assert_eq!(bob.alarms().await, Vec::<String>::new());
}

#[tokio::test]
async fn decisions_that_do_not_stand_raise_the_alarm() {
    type Lie = fn(&mut Value, &str);
    let lies: [(&str, Lie); 6] = [
        ("system", |view, _| flip(&mut view["entries"][0]["signature"])),
        ("system", |view, under_approved| view["entries"][0]["signature"] = json!(under_approved)),
        ("system", |view, _| view["entries"][0]["seq"] = json!(1)),
        ("system-head", |view, _| {
            view["entries"][0]["time"] = json!(view["entries"][0]["time"].as_u64().unwrap() - 1);
        }),
        ("other-validators", |view, _| view["entries"] = json!([])),
        ("key-missing", |view, _| view["keys"] = json!([])),
    ];
    for (code, lie) in lies {
        let appliance = Appliance::new();
        let (ada, bob, thread) = pair(&appliance).await;
        appliance.lock().rotate();
        ada.say(thread, "after").await.unwrap();
        let under_approved = {
            let inner = appliance.lock();
            let system = digest::system_thread(inner.net.state.genesis_hash);
            let entry = inner.net.entries_of(system).next().unwrap().clone();
            let zixt_types::Payload::Decision { action } = entry.body.payload else { panic!("a decision") };
            let approvals = inner.net.approve(&action, 1).approvals;
            serde_json::to_value(zixt_api::Bytes64(approvals_bytes(&approvals))).unwrap()
        };
        let under_approved = under_approved.as_str().unwrap().to_owned();
        appliance.lock().tamper = Some(Box::new(move |path, value| {
            if path.starts_with("/v1/system") {
                lie(value, &under_approved);
            }
        }));
        let error = bob.client().sync_once().await.unwrap_err();
        assert!(matches!(&error, ClientError::Trust(fault) if fault.code() == code), "{code}: {error}");
        assert_eq!(bob.alarms().await, [code]);
        assert_eq!(bob.texts(thread).await, ["before"]);
        // The appliance lied, the ledger did not.
        appliance.lock().tamper = None;
        bob.sync().await;
        assert_eq!(bob.texts(thread).await, ["before", "after"]);
    }
}

/// Two rotations that the ledger learned of in one height.
#[tokio::test]
async fn a_client_follows_two_rotations_in_one_height() {
    let appliance = Appliance::new();
    let (ada, bob, thread) = pair(&appliance).await;
    let old = evidence(&bob, thread).await;
    appliance.lock().rotate_often(2);
    ada.say(thread, "after").await.unwrap();
    bob.sync().await;
    assert_eq!(bob.texts(thread).await, ["before", "after"]);
    assert_eq!((bob.alarms().await, ada.alarms().await), (vec![], vec![]));
    let genesis = appliance.lock().net.state.genesis_hash;
    let new = evidence(&bob, thread).await;
    assert_eq!(new.system.as_ref().map(|system| system.entries.len()), Some(2));
    for file in [old, new] {
        assert!(file.verify(genesis, &Reference).unwrap().is_ok());
    }
}

/// A thief goes on with the retired key on the ledger's true entries.
#[tokio::test]
async fn a_retired_key_convinces_nobody_who_saw_its_end() {
    let appliance = Appliance::new();
    let (ada, bob, thread) = pair(&appliance).await;
    let stolen = {
        let mut inner = appliance.lock();
        let (key, _, submission) = inner.net.activation(0);
        let stolen = std::mem::replace(&mut inner.net.validators[0].1, key);
        let (block, _) = inner.net.seal(vec![submission]);
        inner.recorded(&block);
        stolen
    };
    ada.say(thread, "after").await.unwrap();
    bob.sync().await;
    assert_eq!(bob.texts(thread).await, ["before", "after"]);
    appliance.lock().net.validators[0].1 = stolen;
    assert!(ada.say(thread, "by the thief").await.is_err());
    bob.client().sync_once().await.unwrap_err();
    assert_eq!(bob.alarms().await, ["certificate"]);
    assert_eq!(bob.texts(thread).await, ["before", "after"]);
}

/// An enroller's key is replaced; nobody is told, and everybody finds out when somebody new appears.
#[tokio::test]
async fn a_new_enroller_is_followed() {
    let appliance = Appliance::new();
    let (_, bob, _) = pair(&appliance).await;
    {
        let mut inner = appliance.lock();
        let key = inner.net.key();
        let decision = Decision::ActivateKey {
            purpose: KeyPurpose::Enroller,
            retires: inner.net.state.genesis.enrollers[0],
            activates: digest::key_hash(inner.net.suite, key.public_key()),
            suite: inner.net.suite,
            custody: CustodyMode::WrappedByToken,
        };
        let action: Action = inner.net.action(0, decision);
        let transcript = inner.net.approve(&action, 2);
        let submission = inner.net.decision(&transcript, Some(key.public_key()));
        let (block, _) = inner.net.seal(vec![submission]);
        inner.recorded(&block);
        inner.net.enroller = Arc::from(key);
    }
    let carol = appliance.enrol("carol").await;
    let thread = carol.client().start_conversation(&["bob"], None).await.unwrap();
    carol.say(thread, "hello").await.unwrap();
    bob.sync().await;
    assert_eq!(bob.texts(thread).await, ["hello"]);
    assert_eq!((bob.alarms().await, carol.alarms().await), (vec![], vec![]));
    let genesis = appliance.lock().net.state.genesis_hash;
    let file = evidence(&bob, thread).await;
    assert!(file.verify(genesis, &Reference).unwrap().is_ok());
}
