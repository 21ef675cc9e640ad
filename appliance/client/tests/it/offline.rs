//! Lost answers, races, restarts and an appliance that is away.

use crate::appliance::{Appliance, Person};
use serde_json::json;
use zixt_api::{ErrorCode, Problem};
use zixt_client::{ClientError, Mark};

#[tokio::test]
async fn what_is_written_offline_is_sent_when_the_appliance_returns() {
    let appliance = Appliance::new();
    let (mut ada, bob) = (appliance.enrol("ada").await, appliance.enrol("bob").await);
    let thread = ada.client().start_conversation(&["bob"], None).await.unwrap();
    appliance.offline(true);
    for text in ["one", "two", "three"] {
        ada.client().send(thread, text).await.unwrap();
    }
    assert!(matches!(ada.client().flush().await, Err(ClientError::Connection(_))));
    let marks = async |ada: &Person| -> Vec<Mark> {
        ada.client().history(thread, None, 10).await.unwrap().iter().map(|line| line.mark).collect()
    };
    // The first was under way before the appliance was found to be away. A restart forgets that: it is handed in again.
    assert_eq!(marks(&ada).await, [Mark::Recorded, Mark::Sent, Mark::Queued, Mark::Queued]);
    ada.restart().await;
    assert_eq!(marks(&ada).await, [Mark::Recorded, Mark::Queued, Mark::Queued, Mark::Queued]);
    assert_eq!(ada.client().threads().await.unwrap()[0].queued, 3);
    appliance.offline(false);
    let report = ada.client().sync_once().await.unwrap();
    assert_eq!((report.sent, report.queued), (3, 0));
    bob.sync().await;
    assert_eq!(bob.texts(thread).await, ["one", "two", "three"]);
}

#[tokio::test]
async fn a_lost_answer_makes_no_second_message() {
    let appliance = Appliance::new();
    let (mut ada, bob) = (appliance.enrol("ada").await, appliance.enrol("bob").await);
    let thread = ada.client().start_conversation(&["bob"], None).await.unwrap();
    appliance.lock().lose = vec!["/v1/submissions"];
    assert!(ada.say(thread, "once").await.is_err());
    assert!(ada.client().flush().await.is_err());
    ada.restart().await;
    assert!(ada.client().flush().await.is_err());
    appliance.lock().lose.clear();
    assert_eq!(ada.client().flush().await.unwrap(), 1);
    assert_eq!(ada.say(thread, "twice").await.unwrap(), 1);
    bob.sync().await;
    assert_eq!(bob.texts(thread).await, ["once", "twice"]);

    // Lost again, but the stream tells of the entry before the answer is asked for again.
    appliance.lock().lose = vec!["/v1/submissions"];
    assert!(ada.say(thread, "by the stream").await.is_err());
    ada.sync().await;
    assert_eq!(ada.texts(thread).await, ["once", "twice", "by the stream"]);
    assert_eq!(ada.client().flush().await.unwrap(), 0);
    assert!(ada.alarms().await.is_empty());
}

#[tokio::test]
async fn a_lost_answer_to_a_commit_is_made_good() {
    let appliance = Appliance::new();
    let (mut ada, bob) = (appliance.enrol("ada").await, appliance.enrol("bob").await);
    let cay = appliance.enrol("cay").await;
    appliance.lock().lose = vec!["/v1/submissions"];
    assert!(ada.client().start_conversation(&["bob"], Some("t")).await.is_err());
    ada.restart().await;
    appliance.lock().lose.clear();
    ada.client().flush().await.unwrap();
    let thread = ada.client().threads().await.unwrap()[0].thread;
    assert_eq!(ada.client().threads().await.unwrap()[0].title, "t");
    appliance.lock().lose = vec!["/v1/submissions"];
    assert!(ada.client().add_members(thread, &["cay"]).await.is_err());
    ada.restart().await;
    appliance.lock().lose.clear();
    // It is queued, before the message that follows.
    ada.say(thread, "welcome").await.unwrap();
    for person in [&bob, &cay] {
        person.sync().await;
        assert_eq!(person.texts(thread).await, ["welcome"]);
    }
}

#[tokio::test]
async fn events_that_come_twice_are_shown_once() {
    let appliance = Appliance::new();
    let (ada, bob) = (appliance.enrol("ada").await, appliance.enrol("bob").await);
    let thread = ada.client().start_conversation(&["bob"], None).await.unwrap();
    appliance.lock().twice = true;
    for text in ["a", "b"] {
        ada.say(thread, text).await.unwrap();
    }
    bob.sync().await;
    bob.sync().await;
    assert_eq!(bob.texts(thread).await, ["a", "b"]);
    ada.sync().await;
    assert_eq!(ada.texts(thread).await, ["a", "b"]);
    assert!(ada.alarms().await.is_empty() && bob.alarms().await.is_empty());
}

#[tokio::test]
async fn a_message_that_lost_against_a_commit_is_encrypted_again() {
    let appliance = Appliance::new();
    let (ada, bob) = (appliance.enrol("ada").await, appliance.enrol("bob").await);
    let cay = appliance.enrol("cay").await;
    let thread = ada.client().start_conversation(&["bob"], None).await.unwrap();
    bob.sync().await;
    // Bob does not know yet that Ada changed the group: his message is for an epoch that is over.
    ada.client().add_members(thread, &["cay"]).await.unwrap();
    assert_eq!(bob.say(thread, "late").await.unwrap(), 1);
    for person in [&ada, &cay] {
        person.sync().await;
        assert_eq!(person.texts(thread).await, ["late"]);
    }
    // The same with an encrypted message that lay prepared, through a restart.
    appliance.offline(true);
    let mut bob = bob;
    assert!(bob.say(thread, "later").await.is_err());
    bob.restart().await;
    appliance.offline(false);
    ada.client().remove_members(thread, &["cay"]).await.unwrap();
    assert_eq!(bob.client().flush().await.unwrap(), 1);
    ada.sync().await;
    cay.sync().await;
    assert_eq!(ada.texts(thread).await, ["late", "later"]);
    assert_eq!(cay.texts(thread).await, ["late"]);
    assert!(bob.alarms().await.is_empty());
}

/// A change of members that waits for somebody's keys holds up its own conversation only.
#[tokio::test]
async fn who_has_no_keys_holds_up_one_conversation_only() {
    let appliance = Appliance::new();
    let (ada, bob) = (appliance.enrol("ada").await, appliance.enrol("bob").await);
    let (_cay, dan) = (appliance.enrol("cay").await, appliance.enrol("dan").await);
    let (first, other) = (
        ada.client().start_conversation(&["bob"], None).await.unwrap(),
        ada.client().start_conversation(&["dan"], None).await.unwrap(),
    );
    bob.sync().await;
    appliance.lock().refuse = Some(("/v1/submissions", Problem::new(ErrorCode::Busy, "later")));
    assert!(ada.client().add_members(first, &["cay"]).await.is_err());
    appliance.lock().refuse = None;
    // The change that waits is for an epoch that is over now; it takes cay's keys once more, and they are gone.
    bob.client().add_members(first, &["dan"]).await.unwrap();
    appliance.lock().tamper = Some(Box::new(|path, answer| {
        if path.starts_with("/v1/key-packages/claim") {
            answer["key_packages"] = json!([]);
        }
    }));
    for (thread, text) in [(first, "waits"), (other, "goes")] {
        ada.client().send(thread, text).await.unwrap();
    }
    let error = ada.client().flush().await.unwrap_err();
    assert!(matches!(&error, ClientError::NoKeys(name) if name == "cay"), "{error}");
    dan.sync().await;
    assert_eq!((dan.texts(other).await, dan.texts(first).await), (vec!["goes".to_owned()], vec![]));
    appliance.lock().tamper = None;
    assert_eq!(ada.client().flush().await.unwrap(), 1);
    dan.sync().await;
    assert_eq!(dan.texts(first).await, ["waits"]);
}

#[tokio::test]
async fn of_two_changes_at_once_both_happen() {
    let appliance = Appliance::new();
    let (ada, bob) = (appliance.enrol("ada").await, appliance.enrol("bob").await);
    let (cay, dan) = (appliance.enrol("cay").await, appliance.enrol("dan").await);
    let thread = ada.client().start_conversation(&["bob"], None).await.unwrap();
    bob.sync().await;
    // Neither has heard of the other's change when making its own.
    ada.client().add_members(thread, &["cay"]).await.unwrap();
    bob.client().add_members(thread, &["dan"]).await.unwrap();
    bob.say(thread, "everybody?").await.unwrap();
    for person in [&ada, &cay, &dan] {
        person.sync().await;
        assert_eq!(person.texts(thread).await, ["everybody?"]);
        assert_eq!(person.client().threads().await.unwrap()[0].people.len(), 4);
    }
    assert!(ada.alarms().await.is_empty() && bob.alarms().await.is_empty());
}

#[tokio::test]
async fn a_restart_between_any_two_steps_loses_nothing() {
    let appliance = Appliance::new();
    let (mut ada, mut bob) = (appliance.enrol("ada").await, appliance.enrol("bob").await);
    ada.restart().await;
    let thread = ada.client().start_conversation(&["bob"], None).await.unwrap();
    ada.restart().await;
    bob.sync().await;
    bob.restart().await;
    for round in 0..3 {
        ada.client().send(thread, &format!("ada {round}")).await.unwrap();
        ada.restart().await;
        ada.client().flush().await.unwrap();
        ada.restart().await;
        bob.sync().await;
        bob.restart().await;
        bob.client().send(thread, &format!("bob {round}")).await.unwrap();
        bob.restart().await;
        bob.sync().await;
        ada.sync().await;
    }
    let expected = ["ada 0", "bob 0", "ada 1", "bob 1", "ada 2", "bob 2"];
    assert_eq!(ada.texts(thread).await, expected);
    assert_eq!(bob.texts(thread).await, expected);
    assert!(ada.alarms().await.is_empty() && bob.alarms().await.is_empty());
}

#[tokio::test]
async fn an_entry_that_the_stream_left_out_is_fetched() {
    let appliance = Appliance::new();
    let (ada, bob) = (appliance.enrol("ada").await, appliance.enrol("bob").await);
    let thread = ada.client().start_conversation(&["bob"], None).await.unwrap();
    for text in ["one", "two", "three"] {
        ada.say(thread, text).await.unwrap();
    }
    appliance.lock().hide = vec![(thread, 1), (thread, 2)];
    bob.sync().await;
    assert_eq!(bob.texts(thread).await, ["one", "two", "three"]);
    assert!(bob.alarms().await.is_empty());
}

#[tokio::test]
async fn a_backlog_ends_with_a_heartbeat_or_else_with_silence() {
    let appliance = Appliance::new();
    let (ada, bob) = (appliance.enrol("ada").await, appliance.enrol("bob").await);
    let thread = ada.client().start_conversation(&["bob"], None).await.unwrap();
    ada.say(thread, "one").await.unwrap();
    bob.sync().await;
    // No silence is waited for, which would take longer.
    let before = std::time::Instant::now();
    bob.sync().await;
    assert!(before.elapsed() < std::time::Duration::from_secs(2), "{:?}", before.elapsed());
    appliance.lock().no_end = true;
    ada.say(thread, "two").await.unwrap();
    bob.sync().await;
    assert_eq!(bob.texts(thread).await, ["one", "two"]);
}
