//! Titles are for all members.

use crate::appliance::{Appliance, Person};
use zixt_client::{ClientError, MessageKind};
use zixt_types::ThreadId;

async fn title(person: &Person, thread: ThreadId) -> String {
    let threads = person.client().threads().await.unwrap();
    threads.into_iter().find(|summary| summary.thread == thread).unwrap().title
}

/// The titles in the history: author and title.
async fn named(person: &Person, thread: ThreadId) -> Vec<(String, String)> {
    let history = person.client().history(thread, None, 100).await.unwrap();
    history
        .into_iter()
        .filter_map(|line| match line.kind {
            MessageKind::Title(title) => Some((line.author_name, title)),
            _ => None,
        })
        .collect()
}

#[tokio::test]
async fn a_title_is_the_first_message_and_reaches_who_joins_later() {
    let appliance = Appliance::new();
    let (ada, bob) = (appliance.enrol("ada").await, appliance.enrol("bob").await);
    let (cay, dan) = (appliance.enrol("cay").await, appliance.enrol("dan").await);
    let thread = ada.client().start_conversation(&["bob"], Some(" the crew ")).await.unwrap();
    ada.say(thread, "hello").await.unwrap();
    bob.sync().await;
    assert_eq!(
        (title(&ada, thread).await, title(&bob, thread).await),
        ("the crew".into(), "the crew".into())
    );
    let history = bob.client().history(thread, None, 10).await.unwrap();
    assert_eq!(history[1].kind, MessageKind::Title("the crew".into()));
    assert_eq!((history[1].seq.unwrap().0, history[1].text.as_str()), (1, ""));
    let summary = &bob.client().threads().await.unwrap()[0];
    assert_eq!((summary.unread, summary.last_text.as_deref()), (1, Some("hello")));
    assert!(summary.title_is_shared);
    // The title goes with the message that it came with: evidence discloses it like a text.
    let path = bob.folder.path().join("title.zixt-evidence");
    bob.client().export_evidence(thread, Some(zixt_types::Seq(1)), true, &path).await.unwrap();

    // Who did not choose it tells it again, to whom it adds.
    bob.client().add_members(thread, &["cay"]).await.unwrap();
    cay.sync().await;
    assert_eq!(title(&cay, thread).await, "the crew");
    assert_eq!(named(&cay, thread).await, [("bob".into(), "the crew".into())]);

    // A title of one's own stays, on this device only.
    bob.client().set_local_title(thread, Some("them")).await.unwrap();
    bob.client().add_members(thread, &["dan"]).await.unwrap();
    dan.sync().await;
    bob.sync().await;
    assert_eq!((title(&dan, thread).await, title(&bob, thread).await), ("the crew".into(), "them".into()));
    bob.client().set_local_title(thread, None).await.unwrap();
    assert_eq!(title(&bob, thread).await, "the crew");
    ada.sync().await;
    assert_eq!(named(&ada, thread).await.len(), 3);
    for person in [&ada, &bob, &cay, &dan] {
        assert!(person.alarms().await.is_empty());
    }
}

#[tokio::test]
async fn a_title_survives_a_lost_answer_and_a_crash() {
    let appliance = Appliance::new();
    let (mut ada, bob) = (appliance.enrol("ada").await, appliance.enrol("bob").await);
    appliance.lock().lose = vec!["/v1/submissions"];
    assert!(ada.client().start_conversation(&["bob"], Some("crew")).await.is_err());
    ada.restart().await;
    appliance.lock().lose.clear();
    ada.sync().await;
    bob.sync().await;
    let thread = bob.client().threads().await.unwrap()[0].thread;
    assert_eq!((title(&ada, thread).await, title(&bob, thread).await), ("crew".into(), "crew".into()));
    assert_eq!(named(&bob, thread).await.len(), 1);
    let long = "x".repeat(129);
    let refused = ada.client().start_conversation(&["bob"], Some(&long)).await;
    assert!(matches!(refused, Err(ClientError::TextTooLong { got: 129, max: 128 })), "{refused:?}");
}

#[tokio::test]
async fn an_own_commit_overtakes_an_own_message_that_lay_encrypted() {
    let appliance = Appliance::new();
    let (ada, bob) = (appliance.enrol("ada").await, appliance.enrol("bob").await);
    let cay = appliance.enrol("cay").await;
    let thread = ada.client().start_conversation(&["bob"], None).await.unwrap();
    appliance.offline(true);
    assert!(ada.say(thread, "waits").await.is_err());
    appliance.offline(false);
    ada.client().add_members(thread, &["cay"]).await.unwrap();
    assert_eq!(ada.client().flush().await.unwrap(), 1);
    for person in [&bob, &cay] {
        person.sync().await;
        assert_eq!(person.texts(thread).await, ["waits"]);
    }
}
