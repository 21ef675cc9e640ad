//! Every lie is noticed, said, remembered, and stops what it is about.

use crate::appliance::{Appliance, Person, flip};
use serde_json::{Value, json};
use std::sync::Arc;
use zixt_api::{ErrorCode, Problem};
use zixt_client::trust::TrustError;
use zixt_client::{Advice, ClientError, ClientEvent, MessageKind};
use zixt_crypto::{Reference, digest};
use zixt_ledger::evidence::{ForkProof, verify_fork};
use zixt_types::{Canonical as _, Header, ThreadId};

async fn pair(appliance: &Arc<Appliance>) -> (Person, Person, ThreadId) {
    let (ada, bob) = (appliance.enrol("ada").await, appliance.enrol("bob").await);
    let thread = ada.client().start_conversation(&["bob"], None).await.unwrap();
    ada.say(thread, "before").await.unwrap();
    bob.sync().await;
    (ada, bob, thread)
}

fn tamper(appliance: &Appliance, path: &'static str, mut change: impl FnMut(&mut Value) + Send + 'static) {
    appliance.lock().tamper = Some(Box::new(move |asked, value| {
        // Heartbeats have nothing to change.
        if asked.starts_with(path) && (asked != "stream" || value["type"] == "event") {
            change(value);
        }
    }));
}

/// The lie about one conversation stops that conversation, for good.
async fn stops_the_conversation(person: &mut Person, thread: ThreadId, code: &str) {
    person.client().sync_once().await.unwrap();
    assert_eq!(person.alarms().await, [code]);
    assert_eq!(person.texts(thread).await, ["before"]);
    person.restart().await;
    assert_eq!(person.alarms().await, [code]);
    let summary = &person.client().threads().await.unwrap()[0];
    assert!(summary.blocked.is_some());
    assert!(matches!(person.client().send(thread, "x").await, Err(ClientError::Blocked(_))));
}

#[tokio::test]
async fn altered_entries_are_noticed() {
    type Lie = (&'static str, fn(&mut Value));
    let lies: [Lie; 5] = [
        ("other-entry", |line| flip(&mut line["entry"]["signature"])),
        ("other-entry", |line| line["entry"]["time"] = json!(line["entry"]["time"].as_u64().unwrap() + 1)),
        ("not-recorded", |line| flip(&mut line["entry"]["salt"])),
        ("shard", |line| flip(&mut line["proof"]["shard"]["root"])),
        ("other-entry", |line| flip(&mut line["attachment"])),
    ];
    for (code, lie) in lies {
        let appliance = Appliance::new();
        let (ada, mut bob, thread) = pair(&appliance).await;
        ada.say(thread, "altered on the way").await.unwrap();
        tamper(&appliance, "stream", lie);
        stops_the_conversation(&mut bob, thread, code).await;
    }
}

#[tokio::test]
async fn an_entry_in_the_place_of_another_is_noticed() {
    let appliance = Appliance::new();
    let (ada, mut bob, thread) = pair(&appliance).await;
    ada.say(thread, "one").await.unwrap();
    ada.say(thread, "two").await.unwrap();
    // The stream leaves one out, and the appliance denies that it has it.
    appliance.lock().hide = vec![(thread, 2)];
    tamper(&appliance, "/v1/threads/", |value| {
        if let Some(entries) = value.get_mut("entries") {
            entries.as_array_mut().unwrap().remove(0);
        }
    });
    stops_the_conversation(&mut bob, thread, "broken-chain").await;
}

#[tokio::test]
async fn withheld_entries_are_noticed() {
    let appliance = Appliance::new();
    let (ada, mut bob, thread) = pair(&appliance).await;
    ada.say(thread, "one").await.unwrap();
    ada.say(thread, "two").await.unwrap();
    appliance.lock().hide = vec![(thread, 2)];
    tamper(&appliance, "/v1/threads/", |value| {
        if value.get("entries").is_some() {
            value["entries"] = json!([]);
        }
    });
    stops_the_conversation(&mut bob, thread, "withheld").await;
}

#[tokio::test]
async fn a_forged_certificate_is_noticed_and_nothing_is_taken() {
    let appliance = Appliance::new();
    let (ada, bob, thread) = pair(&appliance).await;
    ada.say(thread, "later").await.unwrap();
    appliance.lock().tamper = Some(Box::new(|_, value| forge(value)));
    let error = bob.client().sync_once().await.unwrap_err();
    assert!(matches!(error, ClientError::Trust(_)), "{error}");
    assert_eq!(bob.texts(thread).await, ["before"]);
    assert_eq!(bob.alarms().await.len(), 1);
    // It was the appliance's answer, not the ledger: with a good answer everything goes on.
    appliance.lock().tamper = None;
    bob.sync().await;
    assert_eq!(bob.texts(thread).await, ["before", "later"]);
    assert_eq!(bob.alarms().await.len(), 1);
}

/// Breaks the signature of every certificate in an answer.
fn forge(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            for (name, field) in fields.iter_mut() {
                if name == "certificate" { flip(field) } else { forge(field) }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(forge),
        _ => {}
    }
}

#[tokio::test]
async fn a_fork_is_proven_stops_everything_and_can_be_exported() {
    let appliance = Appliance::new();
    let (ada, mut bob, thread) = pair(&appliance).await;
    ada.sync().await;
    // The validators certify another header for the height that Bob has verified last.
    let forged = {
        let mut inner = appliance.lock();
        let height = inner.net.state.height;
        let index = usize::try_from(height.0).unwrap() - 1;
        let mut block = inner.net.blocks[index].0.clone();
        block.batch.header.time.0 += 1;
        block.header_hash = digest::header_hash(&block.batch.header);
        let certificate = inner.net.certify(&block);
        inner.asked.clear();
        let header: Header = block.batch.header.clone();
        json!({
            "height": height.0,
            "header": serde_json::to_value(zixt_api::Bytes64(header.to_bytes())).unwrap(),
            "certificate": serde_json::to_value(zixt_api::Bytes64(certificate.to_bytes())).unwrap(),
        })
    };
    tamper(&appliance, "/v1/consistency", move |value| value["latest"] = forged.clone());
    let error = bob.client().sync_once().await.unwrap_err();
    assert!(matches!(&error, ClientError::Trust(fault) if matches!(**fault, TrustError::Fork(_))), "{error}");
    assert_eq!(bob.alarms().await, ["fork"]);
    let path = bob.folder.path().join("it.zixt-fork");
    bob.client().export_fork(&path).await.unwrap();
    let proof = ForkProof::parse(&std::fs::read(&path).unwrap()).unwrap();
    let genesis = bob.client().profile().genesis_hash;
    let report = verify_fork(&proof, genesis, &Reference).unwrap();
    assert_eq!(report.signed_both.len(), 1);
    // Nothing is sent any more, also after a restart and with an honest appliance.
    appliance.lock().tamper = None;
    bob.restart().await;
    assert!(matches!(bob.client().send(thread, "x").await, Err(ClientError::Blocked(_))));
    let start = bob.client().start_conversation(&["ada"], None).await;
    assert!(matches!(start, Err(ClientError::Blocked(_))), "{start:?}");
    assert!(matches!(ada.client().export_fork(&path).await, Err(ClientError::NoFork)));
}

#[tokio::test]
async fn a_ledger_that_was_set_back_is_noticed() {
    let appliance = Appliance::new();
    let (ada, bob, thread) = pair(&appliance).await;
    let before = {
        let inner = appliance.lock();
        (inner.net.state.clone(), inner.net.blocks.len())
    };
    for _ in 0..6 {
        ada.say(thread, "forgotten by the appliance").await.unwrap();
    }
    bob.sync().await;
    {
        let mut inner = appliance.lock();
        inner.net.state = before.0;
        inner.net.blocks.truncate(before.1);
    }
    let error = bob.client().sync_once().await.unwrap_err();
    assert!(
        matches!(&error, ClientError::Trust(fault) if matches!(**fault, TrustError::WentBack { .. })),
        "{error}"
    );
    assert_eq!(bob.alarms().await, ["went-back"]);
    // The ledger that is shown grows; it is the same fault.
    for name in ["cay", "dan"] {
        appliance.enrol(name).await;
        bob.client().sync_once().await.unwrap_err();
    }
    assert_eq!(bob.alarms().await, ["went-back"]);
}

#[tokio::test]
async fn a_wrong_view_of_an_account_is_noticed() {
    type Lie = (&'static str, fn(&mut Value));
    let lies: [Lie; 4] = [
        // The last device entry is left out: the head says otherwise.
        ("account-head", |view| drop(view["entries"].as_array_mut().unwrap().pop())),
        ("name", |view| view["name"]["name"] = json!("mallory")),
        ("other-entry", |view| flip(&mut view["entries"][1]["possession"])),
        ("key-missing", |view| view["keys"] = json!([])),
    ];
    for (code, lie) in lies {
        let appliance = Appliance::new();
        let (ada, _bob) = (appliance.enrol("ada").await, appliance.enrol("bob").await);
        tamper(&appliance, "/v1/accounts/", lie);
        let error = ada.client().start_conversation(&["bob"], None).await.unwrap_err();
        assert!(matches!(&error, ClientError::Trust(fault) if fault.code() == code), "{code}: {error}");
        assert_eq!(ada.alarms().await, [code]);
        assert!(ada.client().threads().await.unwrap().is_empty());
    }
}

#[tokio::test]
async fn a_false_receipt_is_noticed() {
    let appliance = Appliance::new();
    let (ada, _bob, thread) = pair(&appliance).await;
    tamper(&appliance, "/v1/submissions", |value| flip(&mut value["receipts"][0]["prev"]));
    ada.say(thread, "x").await.unwrap();
    assert_eq!(ada.alarms().await, ["receipt"]);
    assert!(matches!(ada.client().send(thread, "y").await, Err(ClientError::Blocked(_))));
}

#[tokio::test]
async fn a_store_that_was_set_back_is_noticed() {
    let appliance = Appliance::new();
    let (ada, _bob, thread) = pair(&appliance).await;
    let copy = tempfile::tempdir().unwrap();
    let mut ada = ada;
    for name in ["store.sqlite", "store.sqlite-wal"] {
        let from = ada.folder.path().join(name);
        if from.exists() {
            std::fs::copy(&from, copy.path().join(name)).unwrap();
        }
    }
    ada.say(thread, "after the backup").await.unwrap();
    ada.close().await;
    for name in ["store.sqlite", "store.sqlite-wal", "store.sqlite-shm"] {
        let _absent = std::fs::remove_file(ada.folder.path().join(name));
        let from = copy.path().join(name);
        if from.exists() {
            std::fs::copy(&from, ada.folder.path().join(name)).unwrap();
        }
    }
    ada.restart().await;
    ada.client().sync_once().await.unwrap();
    assert_eq!(ada.alarms().await, ["not-mine"]);
    assert!(matches!(ada.client().send(thread, "again").await, Err(ClientError::Blocked(_))));
}

#[tokio::test]
async fn a_device_that_appears_in_the_own_account_raises_an_alarm() {
    let appliance = Appliance::new();
    let (ada, bob, thread) = pair(&appliance).await;
    appliance.add_device_behind_the_back(&ada);
    ada.client().sync_once().await.unwrap();
    assert_eq!(ada.alarms().await, ["own-device"]);
    // Others see a changed person.
    let contact = bob.client().contact("ada").await.unwrap();
    assert_eq!((contact.devices.len(), contact.changes.len()), (2, 1));
    assert!(bob.say(thread, "still talking").await.is_ok());
}

#[tokio::test]
async fn an_alarm_is_an_event_too() {
    let appliance = Appliance::new();
    let (ada, bob, thread) = pair(&appliance).await;
    ada.say(thread, "x").await.unwrap();
    tamper(&appliance, "stream", |line| flip(&mut line["entry"]["signature"]));
    let (sender, mut events) = tokio::sync::mpsc::channel(8);
    let client = bob.client().clone();
    let running = tokio::spawn(async move { client.run(sender).await });
    let alarm = loop {
        if let ClientEvent::Alarm(alarm) = events.recv().await.unwrap() {
            break alarm;
        }
    };
    assert_eq!((alarm.code.as_str(), alarm.thread, alarm.number), ("other-entry", Some(thread), 1));
    drop(events);
    running.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_false_claim_of_a_member_raises_an_alarm_and_ends_nothing() {
    let appliance = Appliance::new();
    let (ada, bob) = (appliance.enrol("ada").await, appliance.enrol("bob").await);
    let mallory = appliance.enrol("mallory").await;
    let thread = ada.client().start_conversation(&["bob", "mallory"], None).await.unwrap();
    ada.say(thread, "before").await.unwrap();
    bob.sync().await;
    for _ in 0..3 {
        appliance.claim_another_entry(&mallory, thread, 0);
    }
    bob.sync().await;
    // Once, however often it is claimed; it says both possibilities and whose signature it is.
    let alarms = bob.client().alarms().await.unwrap();
    assert_eq!(alarms.len(), 1);
    let alarm = &alarms[0];
    assert_eq!((alarm.code.as_str(), alarm.thread), ("other-last-seen", Some(thread)));
    for word in ["mallory", "entry 2", "entry 0", "different histories", "client lies"] {
        assert!(alarm.text.contains(word), "{word}: {}", alarm.text);
    }
    // The claim proves nothing about Ada's message, and its signed body can be shown to others.
    assert!(bob.client().threads().await.unwrap()[0].blocked.is_none());
    let path = bob.folder.path().join("claim.zixt-evidence");
    bob.client().export_evidence(thread, Some(zixt_types::Seq(2)), false, &path).await.unwrap();
    // Everybody goes on.
    bob.say(thread, "still here").await.unwrap();
    ada.sync().await;
    assert_eq!(ada.texts(thread).await, ["before", "still here"]);
    assert_eq!(ada.alarms().await, ["other-last-seen"]);
    ada.say(thread, "me too").await.unwrap();
    bob.sync().await;
    assert_eq!(bob.texts(thread).await, ["before", "still here", "me too"]);
}

fn code(error: &ClientError) -> &'static str {
    match error {
        ClientError::Trust(fault) => fault.code(),
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn a_key_package_of_somebody_else_is_noticed() {
    type Lie = (&'static str, fn(&mut Value));
    let lies: [Lie; 4] = [
        ("it is the one of device", |claimed| {
            let (all, package) = (&mut claimed["key_packages"], "key_package");
            let (first, second) = (all[0][package].take(), all[1][package].take());
            (all[0][package], all[1][package]) = (second, first);
        }),
        ("the ledger has no such device", |claimed| {
            flip(&mut claimed["key_packages"][0]["member"]["device"]);
        }),
        ("nobody asked", |claimed| flip(&mut claimed["key_packages"][0]["member"]["account"])),
        ("second one", |claimed| {
            let again = claimed["key_packages"][0].clone();
            claimed["key_packages"].as_array_mut().unwrap().push(again);
        }),
    ];
    for (reason, lie) in lies {
        let appliance = Appliance::new();
        let (ada, _bob, thread) = pair(&appliance).await;
        let (_cay, _dan) = (appliance.enrol("cay").await, appliance.enrol("dan").await);
        tamper(&appliance, "/v1/key-packages/claim", lie);
        let error = ada.client().start_conversation(&["cay", "dan"], None).await.unwrap_err();
        assert_eq!((code(&error), error.kind()), ("key-package", Advice::Alarm));
        assert!(error.to_string().contains(reason), "{error}");
        let error = ada.client().add_members(thread, &["cay", "dan"]).await.unwrap_err();
        assert_eq!(code(&error), "key-package");
        let alarms = ada.alarms().await;
        assert!(!alarms.is_empty() && alarms.iter().all(|code| code == "key-package"), "{alarms:?}");
        // Who cannot be added ends no conversation.
        appliance.lock().tamper = None;
        assert_eq!(ada.say(thread, "after").await.unwrap(), 1);
        ada.client().add_members(thread, &["cay", "dan"]).await.unwrap();
    }
}

#[tokio::test]
async fn a_key_package_that_is_none_is_no_alarm() {
    let appliance = Appliance::new();
    let (ada, _bob) = (appliance.enrol("ada").await, appliance.enrol("bob").await);
    tamper(&appliance, "/v1/key-packages/claim", |claimed| {
        claimed["key_packages"][0]["key_package"] = json!("AAAA");
    });
    let error = ada.client().start_conversation(&["bob"], None).await.unwrap_err();
    assert!(matches!(&error, ClientError::NoKeys(name) if name == "bob"), "{error}");
    assert!(ada.alarms().await.is_empty());
}

fn refusal(code: ErrorCode, since: Option<u64>) -> Problem {
    let mut problem = Problem::new(code, "a lie");
    problem.since = since;
    problem
}

#[tokio::test]
async fn a_false_refusal_of_a_message_is_noticed() {
    for (code, since, alarm) in [
        (ErrorCode::StaleEpoch, Some(0), "false-refusal"),
        (ErrorCode::StaleEpoch, Some(1), "false-refusal"),
        (ErrorCode::StaleEpoch, None, "false-refusal"),
        (ErrorCode::StaleEpoch, Some(99), "withheld"),
        (ErrorCode::CounterGap, None, "false-refusal"),
        (ErrorCode::CounterReplayed, None, "false-refusal"),
        (ErrorCode::OtherHistory, None, "false-refusal"),
        (ErrorCode::NotAMember, None, "false-refusal"),
    ] {
        let appliance = Appliance::new();
        let (mut ada, bob, thread) = pair(&appliance).await;
        // That the conversation goes on meanwhile explains nothing.
        bob.say(thread, "meanwhile").await.unwrap();
        appliance.lock().refuse = Some(("/v1/submissions", refusal(code, since)));
        ada.client().send(thread, "x").await.unwrap();
        ada.client().flush().await.unwrap();
        assert_eq!(ada.alarms().await, [alarm], "{code} {since:?}");
        ada.restart().await;
        assert!(matches!(ada.client().send(thread, "y").await, Err(ClientError::Blocked(_))), "{code}");
    }
}

#[tokio::test]
async fn a_false_refusal_of_a_commit_is_noticed() {
    for code_of_it in [
        ErrorCode::StaleEpoch,
        ErrorCode::CounterGap,
        ErrorCode::CounterReplayed,
        ErrorCode::AlreadyAMember,
        ErrorCode::RemovedNobody,
        ErrorCode::OtherHistory,
        ErrorCode::NotAMember,
    ] {
        let appliance = Appliance::new();
        let (ada, _bob, thread) = pair(&appliance).await;
        let _cay = appliance.enrol("cay").await;
        appliance.lock().refuse = Some(("/v1/submissions", refusal(code_of_it, None)));
        let error = ada.client().add_members(thread, &["cay"]).await.unwrap_err();
        assert_eq!((code(&error), error.kind()), ("false-refusal", Advice::Alarm), "{code_of_it}");
        assert!(matches!(ada.client().send(thread, "y").await, Err(ClientError::Blocked(_))));
        let error = ada.client().start_conversation(&["cay"], None).await.unwrap_err();
        assert_eq!(code(&error), "false-refusal", "{code_of_it}");
    }
}

/// The appliance records an entry and says that it refuses it.
#[tokio::test]
async fn what_was_refused_and_recorded_all_the_same_is_noticed() {
    let lie = || Some(("/v1/submissions", refusal(ErrorCode::AttachmentTooLong, None)));
    let appliance = Appliance::new();
    let (mut ada, bob, thread) = pair(&appliance).await;
    appliance.lock().refuse_falsely = lie();
    ada.say(thread, "refused").await.unwrap();
    appliance.lock().refuse_falsely = None;
    let lines = ada.client().history(thread, None, 10).await.unwrap();
    assert!(matches!(lines.last().unwrap().kind, MessageKind::Unreadable(_)));
    bob.sync().await;
    assert_eq!(bob.texts(thread).await, ["before", "refused"]);
    // She is told what everybody else reads, and who lied.
    ada.restart().await;
    ada.sync().await;
    assert_eq!(ada.alarms().await, ["false-refusal"]);
    assert_eq!(ada.texts(thread).await, ["before", "refused"]);
    assert_eq!(ada.client().history(thread, None, 10).await.unwrap().len(), 3, "once");
    assert!(matches!(ada.client().send(thread, "y").await, Err(ClientError::Blocked(_))));
    ada.client().recheck(thread).await.unwrap();
    assert_eq!(ada.say(thread, "on").await.unwrap(), 1);

    // A commit's keys were dropped when it was refused; but nobody says that this device's own were stolen.
    let cay = appliance.enrol("cay").await;
    appliance.lock().refuse_falsely = lie();
    let error = ada.client().add_members(thread, &["cay"]).await.unwrap_err();
    assert!(matches!(&error, ClientError::Refused(problem) if problem.code == ErrorCode::AttachmentTooLong));
    let error = cay.client().start_conversation(&["bob"], None).await.unwrap_err();
    assert!(matches!(&error, ClientError::Refused(_)), "{error}");
    appliance.lock().refuse_falsely = None;
    for (person, alarms) in [(&ada, 2), (&cay, 1)] {
        assert_eq!(person.client().sync_once().await.unwrap().queued, 0);
        assert_eq!(person.alarms().await, vec!["false-refusal"; alarms]);
    }
    assert!(matches!(ada.client().send(thread, "y").await, Err(ClientError::Blocked(_))));
}

/// What was refused by right leaves nothing behind that is in the way.
#[tokio::test]
async fn what_was_refused_by_right_is_forgotten_with_its_epoch() {
    let appliance = Appliance::new();
    let (ada, bob, thread) = pair(&appliance).await;
    let _cay = appliance.enrol("cay").await;
    appliance.lock().refuse = Some(("/v1/submissions", refusal(ErrorCode::GroupTooLarge, None)));
    ada.client().add_members(thread, &["cay"]).await.unwrap_err();
    ada.say(thread, "refused").await.unwrap();
    appliance.lock().refuse = None;
    ada.client().add_members(thread, &["cay"]).await.unwrap();
    assert_eq!(ada.say(thread, "on").await.unwrap(), 1);
    bob.sync().await;
    assert_eq!(bob.texts(thread).await, ["before", "on"]);
    assert!(ada.alarms().await.is_empty() && bob.alarms().await.is_empty());
}

#[tokio::test]
async fn a_device_that_was_removed_and_writes_raises_no_alarm() {
    let appliance = Appliance::new();
    let (ada, bob, thread) = pair(&appliance).await;
    let _cay = appliance.enrol("cay").await;
    ada.client().add_members(thread, &["cay"]).await.unwrap();
    ada.client().remove_members(thread, &["bob"]).await.unwrap();
    bob.client().send(thread, "too late").await.unwrap();
    // Whatever the flush says of it.
    let _refused = bob.client().flush().await;
    assert!(bob.alarms().await.is_empty());
    bob.sync().await;
    assert!(bob.alarms().await.is_empty());
}

/// "You were removed, so you may not read that." Who was removed may read it.
#[tokio::test]
async fn a_removal_that_is_not_shown_is_noticed() {
    for first in ["a message", "a commit", "a recheck"] {
        let appliance = Appliance::new();
        let (ada, bob, thread) = pair(&appliance).await;
        let _cay = appliance.enrol("cay").await;
        if first == "a recheck" {
            // Any lie, so that it is stopped.
            ada.say(thread, "x").await.unwrap();
            tamper(&appliance, "stream", |line| flip(&mut line["entry"]["signature"]));
            bob.sync().await;
            appliance.lock().tamper = None;
        }
        let before = bob.alarms().await.len();
        appliance.lock().deny = Some(thread);
        appliance.lock().refuse = Some(("/v1/submissions", refusal(ErrorCode::NotAMember, None)));
        match first {
            "a message" => drop(bob.say(thread, "x").await.unwrap()),
            "a commit" => {
                let error = bob.client().add_members(thread, &["cay"]).await.unwrap_err();
                assert_eq!(code(&error), "withheld");
            }
            _ => {
                // Not even the head is shown, as to who was removed; and nothing says that it was.
                appliance.lock().deny = None;
                appliance.lock().hide_heads = true;
                let error = bob.client().recheck(thread).await.unwrap_err();
                assert_eq!(code(&error), "withheld");
            }
        }
        let alarms = bob.alarms().await;
        assert_eq!((alarms.len(), alarms.last().unwrap().as_str()), (before + 1, "withheld"), "{first}");
        let summary = &bob.client().threads().await.unwrap()[0];
        assert!(summary.blocked.is_some() && !summary.removed, "{first}");
    }
}

#[tokio::test]
async fn a_lie_found_while_keys_are_renewed_raises_an_alarm() {
    let appliance = Appliance::new();
    let (ada, bob, thread) = pair(&appliance).await;
    let cay = appliance.enrol("cay").await;
    ada.client().add_members(thread, &["cay"]).await.unwrap();
    bob.sync().await;
    // Bob's client has to remove her, and is told that it may not.
    appliance.revoke(&cay);
    appliance.lock().refuse = Some(("/v1/submissions", refusal(ErrorCode::CounterGap, None)));
    let report = bob.client().sync_once().await.unwrap();
    assert_eq!((report.alarms, bob.alarms().await), (1, vec!["false-refusal".to_owned()]));
}

#[tokio::test]
async fn an_account_or_a_proof_that_is_gone_is_noticed() {
    let appliance = Appliance::new();
    let (ada, bob, thread) = pair(&appliance).await;
    appliance.lock().refuse = Some(("/v1/accounts/", refusal(ErrorCode::UnknownAccount, None)));
    let error = ada.client().contact("bob").await.unwrap_err();
    assert_eq!(code(&error), "account-history");
    appliance.lock().refuse = None;
    bob.sync().await;
    ada.say(thread, "one").await.unwrap();
    ada.say(thread, "two").await.unwrap();
    appliance.lock().hide = vec![(thread, 2)];
    appliance.lock().hide_proofs = true;
    bob.sync().await;
    assert_eq!(bob.alarms().await, ["withheld"]);
}
