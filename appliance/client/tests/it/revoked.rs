//! Revoked devices receive nothing new.

use crate::appliance::{Appliance, Person};
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
