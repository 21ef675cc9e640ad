//! Two people and groups talk.

use crate::appliance::Appliance;
use std::time::Duration;
use tokio::sync::mpsc;
use zixt_client::{ClientError, ClientEvent, Mark, MessageKind};

#[tokio::test]
async fn two_people_talk_both_ways() {
    let appliance = Appliance::new();
    let (ada, bob) = (appliance.enrol("ada").await, appliance.enrol("bob").await);
    let thread = ada.client().start_conversation(&["bob"], Some("work")).await.unwrap();
    assert_eq!(ada.say(thread, "hello").await.unwrap(), 1);
    let report = bob.client().sync_once().await.unwrap();
    assert_eq!((report.messages, report.alarms), (1, 0), "{report:?}");
    assert_eq!(bob.texts(thread).await, ["hello"]);
    assert_eq!(bob.say(thread, "hello yourself").await.unwrap(), 1);
    ada.sync().await;
    assert_eq!(ada.texts(thread).await, ["hello", "hello yourself"]);
    // Bob's message names Ada's as the last that he had verified.
    let history = ada.client().history(thread, None, 10).await.unwrap();
    let hello = history.iter().find(|line| line.text == "hello").unwrap();
    assert_eq!((hello.mark, hello.own, hello.author_name.as_str()), (Mark::Read, true, "ada"));
    let answer = history.iter().find(|line| line.text == "hello yourself").unwrap();
    assert_eq!((answer.mark, answer.own, answer.author_name.as_str()), (Mark::Recorded, false, "bob"));
    let summary = &ada.client().threads().await.unwrap()[0];
    assert_eq!((summary.title.as_str(), summary.unread, summary.queued), ("work", 1, 0));
    ada.client().mark_shown(thread).await.unwrap();
    assert_eq!(ada.client().threads().await.unwrap()[0].unread, 0);
    assert_eq!(bob.client().threads().await.unwrap()[0].title, "work");
    assert!(ada.alarms().await.is_empty() && bob.alarms().await.is_empty());
    // Everything again, from the store alone.
    let before = history;
    let mut ada = ada;
    appliance.offline(true);
    ada.restart().await;
    assert_eq!(ada.client().history(thread, None, 10).await.unwrap(), before);
}

#[tokio::test]
async fn a_group_removes_a_member_who_then_reads_nothing() {
    let appliance = Appliance::new();
    let mut people = Vec::new();
    for name in ["ada", "bob", "cay", "dan", "eve"] {
        people.push(appliance.enrol(name).await);
    }
    let [ada, bob, cay, dan, eve] = people.as_slice() else { unreachable!() };
    let thread = ada.client().start_conversation(&["bob", "cay", "dan", "eve"], None).await.unwrap();
    ada.say(thread, "all five").await.unwrap();
    for person in &people {
        person.sync().await;
        assert_eq!(person.texts(thread).await, ["all five"]);
    }
    bob.client().remove_members(thread, &["eve"]).await.unwrap();
    bob.say(thread, "four").await.unwrap();
    for person in [ada, cay, dan] {
        person.sync().await;
        assert_eq!(person.texts(thread).await, ["all five", "four"]);
        assert!(person.alarms().await.is_empty());
    }
    eve.sync().await;
    assert_eq!(eve.texts(thread).await, ["all five"]);
    assert!(eve.client().threads().await.unwrap()[0].removed);
    assert!(matches!(eve.client().send(thread, "x").await, Err(ClientError::Removed)));
    let line =
        cay.client().history(thread, None, 10).await.unwrap().into_iter().find_map(|line| match line.kind {
            MessageKind::Members { removed, .. } if !removed.is_empty() => Some(removed),
            _ => None,
        });
    assert_eq!(line.unwrap(), ["eve"]);

    // Added again, she reads what follows and nothing of between.
    dan.client().add_members(thread, &["eve"]).await.unwrap();
    dan.say(thread, "five again").await.unwrap();
    eve.sync().await;
    assert_eq!(eve.texts(thread).await, ["all five", "five again"]);
    assert_eq!(eve.say(thread, "thanks").await.unwrap(), 1);
    ada.sync().await;
    assert_eq!(ada.texts(thread).await, ["all five", "four", "five again", "thanks"]);
    assert!(eve.alarms().await.is_empty() && ada.alarms().await.is_empty());
}

#[tokio::test]
async fn somebody_who_joins_late_replays_the_roster() {
    let appliance = Appliance::new();
    let (ada, bob, cay) =
        (appliance.enrol("ada").await, appliance.enrol("bob").await, appliance.enrol("cay").await);
    let thread = ada.client().start_conversation(&["bob"], None).await.unwrap();
    for n in 0..5 {
        ada.say(thread, &format!("before {n}")).await.unwrap();
    }
    ada.client().add_members(thread, &["cay"]).await.unwrap();
    ada.say(thread, "after").await.unwrap();
    cay.sync().await;
    bob.sync().await;
    assert_eq!(cay.texts(thread).await, ["after"]);
    assert_eq!(bob.texts(thread).await.len(), 6);
    assert_eq!(cay.client().threads().await.unwrap()[0].people, ["ada", "bob", "cay"]);
    let again = ada.client().add_members(thread, &["cay"]).await;
    assert!(matches!(again, Err(ClientError::AlreadyIn(_))), "{again:?}");
    let nobody = ada.client().add_members(thread, &["zoe"]).await;
    assert!(matches!(nobody, Err(ClientError::UnknownPerson(_))), "{nobody:?}");
    assert!(matches!(ada.client().remove_members(thread, &["ada"]).await, Err(ClientError::OwnRemoval)));
}

#[tokio::test]
async fn a_running_client_hears_at_once_and_comes_back() {
    let appliance = Appliance::new();
    let (ada, bob) = (appliance.enrol("ada").await, appliance.enrol("bob").await);
    let thread = ada.client().start_conversation(&["bob"], None).await.unwrap();
    let (sender, mut events) = mpsc::channel(64);
    let client = bob.client().clone();
    let running = tokio::spawn(async move { client.run(sender).await });
    let mut expect = async |wanted: &str| {
        tokio::time::timeout(Duration::from_secs(20), async {
            loop {
                let event = events.recv().await.unwrap();
                let name = match &event {
                    ClientEvent::Message(view) => view.text.clone(),
                    ClientEvent::ConnectionUp => "up".to_owned(),
                    ClientEvent::ConnectionDown { .. } => "down".to_owned(),
                    ClientEvent::Mark { mark, .. } => format!("{mark:?}"),
                    ClientEvent::Alarm(alarm) => panic!("{alarm:?}"),
                    _ => String::new(),
                };
                if name == wanted {
                    return;
                }
            }
        })
        .await
        .unwrap_or_else(|_| panic!("no {wanted}"));
    };
    expect("up").await;
    ada.say(thread, "live").await.unwrap();
    expect("live").await;
    bob.client().send(thread, "answer").await.unwrap();
    expect("Recorded").await;
    appliance.offline(true);
    expect("down").await;
    bob.client().send(thread, "queued meanwhile").await.unwrap();
    appliance.offline(false);
    expect("up").await;
    expect("Recorded").await;
    ada.sync().await;
    assert_eq!(ada.texts(thread).await, ["live", "answer", "queued meanwhile"]);
    ada.say(thread, "seen").await.unwrap();
    expect("Read").await;
    drop(events);
    running.await.unwrap().unwrap();
}
