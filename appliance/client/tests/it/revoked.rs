//! Revoked devices receive nothing new.

use crate::appliance::{Appliance, Person};
use zixt_api::{ErrorCode, Problem};
use zixt_client::ClientError;
use zixt_types::{Author, Member, Payload, ThreadId};

/// Who was told of the last entry that is a message of `author`.
fn told(appliance: &Appliance, thread: ThreadId, author: &Person) -> Vec<Member> {
    let author = Author::Device(author.client().profile().member);
    let inner = appliance.lock();
    let mut told = Vec::new();
    for entry in inner.net.entries_of(thread) {
        if entry.body.author == author && matches!(entry.body.payload, Payload::Message { .. }) {
            told.clone_from(&entry.recipients);
        }
    }
    told
}

#[tokio::test]
async fn a_revoked_device_is_removed_before_the_next_message() {
    let appliance = Appliance::new();
    let (mut ada, bob) = (appliance.enrol("ada").await, appliance.enrol("bob").await);
    let eve = appliance.enrol("eve").await;
    let thief = eve.client().profile().member;
    let thread = ada.client().start_conversation(&["bob", "eve"], Some("crew")).await.unwrap();
    ada.say(thread, "all three").await.unwrap();
    assert!(told(&appliance, thread, &ada).contains(&thief));
    appliance.revoke(&eve);
    // A process that has just begun has looked nobody up, and sends without a synchronisation.
    ada.restart().await;
    ada.say(thread, "without eve").await.unwrap();
    let told_now = told(&appliance, thread, &ada);
    assert!(!told_now.contains(&thief) && told_now.contains(&bob.client().profile().member));
    bob.sync().await;
    assert_eq!(bob.texts(thread).await, ["all three", "without eve"]);
    assert_eq!(bob.client().threads().await.unwrap()[0].people, ["ada", "bob"]);
    assert!(ada.alarms().await.is_empty() && bob.alarms().await.is_empty());
}

#[tokio::test]
async fn what_lay_encrypted_for_a_revoked_device_is_encrypted_again() {
    let appliance = Appliance::new();
    let (mut ada, bob) = (appliance.enrol("ada").await, appliance.enrol("bob").await);
    let eve = appliance.enrol("eve").await;
    let thief = eve.client().profile().member;
    let thread = ada.client().start_conversation(&["bob", "eve"], None).await.unwrap();
    appliance.offline(true);
    assert!(ada.say(thread, "before it was stolen").await.is_err());
    ada.restart().await;
    appliance.offline(false);
    appliance.revoke(&eve);
    assert_eq!(ada.client().flush().await.unwrap(), 1);
    assert!(!told(&appliance, thread, &ada).contains(&thief));
    bob.sync().await;
    assert_eq!(bob.texts(thread).await, ["before it was stolen"]);
    assert!(ada.alarms().await.is_empty() && bob.alarms().await.is_empty());
}

#[tokio::test]
async fn a_client_that_only_listens_removes_a_revoked_device_too() {
    let appliance = Appliance::new();
    let (ada, eve) = (appliance.enrol("ada").await, appliance.enrol("eve").await);
    let bob = appliance.enrol("bob").await;
    let thread = ada.client().start_conversation(&["bob", "eve"], None).await.unwrap();
    bob.sync().await;
    appliance.revoke(&eve);
    bob.sync().await;
    let thief = eve.client().profile().member;
    assert!(!bob.client().threads().await.unwrap()[0].members.contains(&thief));
    ada.sync().await;
    assert!(!ada.client().threads().await.unwrap()[0].members.contains(&thief));
    assert_eq!(ada.client().threads().await.unwrap()[0].thread, thread);
}

/// Keys may come due while a message lies encrypted: it is encrypted anew under the next ones.
#[tokio::test]
async fn what_lay_encrypted_when_keys_came_due_is_encrypted_again() {
    let appliance = Appliance::with(|genesis| genesis.rotation.messages_max = 2);
    let (mut ada, bob) = (appliance.enrol("ada").await, appliance.enrol("bob").await);
    let thread = ada.client().start_conversation(&["bob"], None).await.unwrap();
    ada.say(thread, "one").await.unwrap();
    appliance.offline(true);
    // The second of its epoch, and the last that these keys may encrypt.
    ada.client().send(thread, "two").await.unwrap();
    ada.restart().await;
    appliance.offline(false);
    assert_eq!(ada.client().flush().await.unwrap(), 1);
    let epochs: Vec<(&str, u64)> = {
        let inner = appliance.lock();
        let kind = |payload: &Payload| match payload {
            Payload::Message { epoch, .. } => ("message", epoch.0),
            Payload::Commit { epoch, .. } => ("commit", epoch.0),
            other => panic!("{other:?}"),
        };
        inner.net.entries_of(thread).map(|entry| kind(&entry.body.payload)).collect()
    };
    assert_eq!(epochs, [("commit", 0), ("message", 1), ("commit", 1), ("message", 2)]);
    bob.sync().await;
    assert_eq!(bob.texts(thread).await, ["one", "two"]);
    assert!(ada.alarms().await.is_empty() && bob.alarms().await.is_empty());
}

/// A change of members may wait long. Key packages are judged by what their devices are when they are used.
#[tokio::test]
async fn a_change_that_waited_adds_no_device_that_was_revoked_meanwhile() {
    let appliance = Appliance::new();
    let (ada, bob) = (appliance.enrol("ada").await, appliance.enrol("bob").await);
    let (cay, _dan) = (appliance.enrol("cay").await, appliance.enrol("dan").await);
    let thread = ada.client().start_conversation(&["bob"], None).await.unwrap();
    bob.sync().await;
    // Cay's package is given out once, and then again and again, whatever became of her device.
    let mut kept = None;
    appliance.lock().tamper = Some(Box::new(move |path, answer| {
        if path.starts_with("/v1/key-packages/claim") {
            *answer = kept.get_or_insert_with(|| answer.clone()).clone();
        }
    }));
    appliance.lock().refuse = Some(("/v1/submissions", Problem::new(ErrorCode::Busy, "later")));
    ada.client().add_members(thread, &["cay"]).await.unwrap_err();
    appliance.lock().refuse = None;
    let tamper = appliance.lock().tamper.take();
    // The change that waits is for an epoch that is over then, and is made anew.
    bob.client().add_members(thread, &["dan"]).await.unwrap();
    appliance.lock().tamper = tamper;
    appliance.revoke(&cay);
    tokio::time::pause();
    tokio::time::advance(std::time::Duration::from_secs(61)).await;
    tokio::time::resume();
    let error = ada.client().sync_once().await.unwrap_err();
    assert!(matches!(&error, ClientError::NoKeys(name) if name == "cay"), "{error}");
    let thief = cay.client().profile().member;
    assert!(!ada.client().threads().await.unwrap()[0].members.contains(&thief));
    assert!(ada.alarms().await.is_empty());
}
