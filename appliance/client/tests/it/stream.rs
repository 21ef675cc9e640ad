//! No single entry, whoever wrote it and whatever the appliance says about it, holds up what comes after it.

use crate::appliance::{Appliance, Person, flip};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;
use zixt_api::{ErrorCode, Problem};
use zixt_client::ClientError;
use zixt_types::{Hash, ThreadId};

async fn trio(appliance: &Arc<Appliance>) -> (Person, Person, Person) {
    (appliance.enrol("ada").await, appliance.enrol("bob").await, appliance.enrol("cay").await)
}

/// Refuses everything that is asked about a conversation.
fn refuse(appliance: &Appliance, thread: ThreadId, code: ErrorCode) {
    let path: &'static str = format!("/v1/threads/{}", thread.to_hex()).leak();
    appliance.lock().refuse = Some((path, Problem::new(code, "the test says so")));
}

#[tokio::test]
async fn who_was_added_and_removed_while_away_goes_on() {
    let appliance = Appliance::new();
    let (ada, bob, mut cay) = trio(&appliance).await;
    let group = ada.client().start_conversation(&["bob"], None).await.unwrap();
    ada.say(group, "without cay").await.unwrap();
    ada.client().add_members(group, &["cay"]).await.unwrap();
    ada.say(group, "with cay").await.unwrap();
    ada.client().remove_members(group, &["cay"]).await.unwrap();
    ada.say(group, "without cay again").await.unwrap();
    let pair = ada.client().start_conversation(&["cay"], None).await.unwrap();
    ada.say(pair, "hello").await.unwrap();

    cay.sync().await;
    assert_eq!(cay.texts(pair).await, ["hello"]);
    assert_eq!(cay.texts(group).await, ["with cay"]);
    let threads = cay.client().threads().await.unwrap();
    let summary = threads.iter().find(|summary| summary.thread == group).unwrap();
    assert!(summary.removed && summary.blocked.is_none());
    assert!(cay.alarms().await.is_empty());
    // Again, once and twice, and the last time it stays.
    for _ in 0..2 {
        bob.sync().await;
        bob.client().add_members(group, &["cay"]).await.unwrap();
        bob.client().remove_members(group, &["cay"]).await.unwrap();
    }
    bob.client().add_members(group, &["cay"]).await.unwrap();
    bob.say(group, "back").await.unwrap();
    cay.restart().await;
    cay.sync().await;
    assert_eq!(cay.texts(group).await, ["with cay", "back"]);
    assert_eq!(cay.say(group, "thanks").await.unwrap(), 1);
    assert!(cay.alarms().await.is_empty());
}

#[tokio::test]
async fn what_is_refused_stops_its_conversation_only_and_can_be_taken_up_again() {
    for code in [ErrorCode::UnknownThread, ErrorCode::UnknownEntry, ErrorCode::Forbidden] {
        let appliance = Appliance::new();
        let (ada, bob, cay) = trio(&appliance).await;
        let group = ada.client().start_conversation(&["bob"], None).await.unwrap();
        ada.say(group, "one").await.unwrap();
        bob.sync().await;
        // The stream leaves one out, and what was left out cannot be fetched.
        ada.say(group, "two").await.unwrap();
        ada.say(group, "three").await.unwrap();
        ada.client().add_members(group, &["cay"]).await.unwrap();
        appliance.lock().hide = vec![(group, 2)];
        refuse(&appliance, group, code);
        let pair = ada.client().start_conversation(&["bob", "cay"], None).await.unwrap();
        ada.say(pair, "elsewhere").await.unwrap();
        for person in [&bob, &cay] {
            person.sync().await;
            assert_eq!(person.texts(pair).await, ["elsewhere"], "{code}");
            assert_eq!(person.alarms().await, ["withheld"], "{code}");
        }
        assert!(matches!(bob.client().send(group, "x").await, Err(ClientError::Blocked(_))));
        let again = bob.client().recheck(group).await;
        assert!(matches!(&again, Err(ClientError::Trust(fault)) if fault.code() == "withheld"), "{again:?}");
        assert!(matches!(bob.client().send(group, "x").await, Err(ClientError::Blocked(_))));
        appliance.lock().refuse = None;
        bob.client().recheck(group).await.unwrap();
        assert_eq!(bob.texts(group).await, ["one", "two", "three"]);
        assert_eq!(bob.say(group, "four").await.unwrap(), 1);
        assert!(!bob.alarms().await.is_empty(), "what happened stays on record");
        bob.client().recheck(group).await.unwrap();
    }
}

/// What the stream left out may remove a device and add it again.
#[tokio::test]
async fn a_removal_and_a_new_addition_that_the_stream_left_out_are_both_followed() {
    let appliance = Appliance::new();
    let (ada, bob, cay) = trio(&appliance).await;
    let group = ada.client().start_conversation(&["bob", "cay"], None).await.unwrap();
    ada.say(group, "one").await.unwrap();
    cay.sync().await;
    for _ in 0..2 {
        ada.say(group, "told").await.unwrap();
        ada.client().remove_members(group, &["cay"]).await.unwrap();
        ada.say(group, "secret").await.unwrap();
        ada.client().add_members(group, &["cay"]).await.unwrap();
    }
    ada.say(group, "again").await.unwrap();
    appliance.lock().hide = (2..=9).map(|seq| (group, seq)).collect();
    cay.sync().await;
    assert_eq!(cay.texts(group).await, ["one", "told", "told", "again"]);
    assert_eq!(cay.say(group, "thanks").await.unwrap(), 1);
    bob.sync().await;
    assert_eq!(bob.texts(group).await.last().unwrap(), "thanks");

    // The same, found out because a message was refused, which is sent then.
    appliance.lock().hide.clear();
    cay.client().send(group, "from before").await.unwrap();
    bob.client().remove_members(group, &["cay"]).await.unwrap();
    appliance.lock().lose = vec!["/v1/submissions"];
    assert!(cay.client().flush().await.is_err());
    appliance.lock().lose.clear();
    bob.client().add_members(group, &["cay"]).await.unwrap();
    appliance.lock().refuse_once = Some(("/v1/submissions", Problem::new(ErrorCode::NotAMember, "before")));
    assert_eq!(cay.client().flush().await.unwrap(), 1);
    bob.sync().await;
    assert_eq!(bob.texts(group).await.last().unwrap(), "from before");
    for person in [&ada, &bob, &cay] {
        assert!(person.alarms().await.is_empty());
    }
}

/// Whoever cannot be joined by one addition is joined by the next.
#[tokio::test]
async fn a_second_invitation_helps_who_could_not_follow_the_first() {
    let appliance = Appliance::new();
    let (ada, _bob, cay) = trio(&appliance).await;
    let group = ada.client().start_conversation(&["bob"], None).await.unwrap();
    ada.client().add_members(group, &["cay"]).await.unwrap();
    appliance.lock().damaged = vec![(group, 1)];
    cay.sync().await;
    assert_eq!(cay.alarms().await, ["damaged"]);
    ada.client().remove_members(group, &["cay"]).await.unwrap();
    ada.client().add_members(group, &["cay"]).await.unwrap();
    ada.say(group, "welcome").await.unwrap();
    cay.client().recheck(group).await.unwrap();
    assert_eq!(cay.texts(group).await, ["welcome"]);
    assert_eq!(cay.alarms().await, ["damaged"], "it is not told again");
    assert_eq!(cay.say(group, "thanks").await.unwrap(), 1);
}

/// An invitation is told once. Whatever goes wrong with it then, the conversation can be joined later.
#[tokio::test]
async fn a_join_that_failed_is_made_up_for() {
    for lie in [true, false] {
        let appliance = Appliance::new();
        let (ada, bob, mut cay) = trio(&appliance).await;
        let group = ada.client().start_conversation(&["bob"], Some("crew")).await.unwrap();
        ada.say(group, "without cay").await.unwrap();
        ada.client().add_members(group, &["cay"]).await.unwrap();
        if lie {
            appliance.lock().tamper = Some(Box::new(|asked, value| {
                if asked == "stream" && value["type"] == "event" && value["entry"]["seq"] == 3 {
                    flip(&mut value["entry"]["signature"]);
                }
            }));
        } else {
            refuse(&appliance, group, ErrorCode::UnknownThread);
        }
        cay.sync().await;
        assert_eq!(cay.alarms().await, [if lie { "other-entry" } else { "withheld" }]);
        // It is there, stopped, and says so.
        cay.restart().await;
        let threads = cay.client().threads().await.unwrap();
        assert_eq!((threads.len(), threads[0].thread, threads[0].last_seq), (1, group, None));
        assert!(threads[0].blocked.is_some() && threads[0].title == group.to_string());
        assert!(matches!(cay.client().send(group, "x").await, Err(ClientError::Blocked(_))));
        assert_eq!(cay.texts(group).await, Vec::<String>::new());
        ada.say(group, "with cay").await.unwrap();
        cay.sync().await;
        if !lie {
            let again = cay.client().recheck(group).await;
            assert!(matches!(&again, Err(ClientError::Trust(it)) if it.code() == "withheld"), "{again:?}");
            assert!(cay.client().threads().await.unwrap()[0].blocked.is_some());
        }
        appliance.lock().tamper = None;
        appliance.lock().refuse = None;
        cay.client().recheck(group).await.unwrap();
        assert_eq!(cay.texts(group).await, ["with cay"]);
        let summary = &cay.client().threads().await.unwrap()[0];
        assert_eq!((summary.title.as_str(), summary.blocked.as_deref()), ("crew", None));
        assert_eq!(cay.say(group, "here").await.unwrap(), 1);
        bob.sync().await;
        assert_eq!(bob.texts(group).await, ["without cay", "with cay", "here"]);
        assert!(!cay.alarms().await.is_empty(), "what happened stays on record");
    }
}

/// Nothing can be sent in a stopped conversation before everything is checked, whatever ends the check.
#[tokio::test]
async fn a_recheck_that_does_not_end_lifts_nothing() {
    let appliance = Appliance::new();
    let (ada, mut bob) = (appliance.enrol("ada").await, appliance.enrol("bob").await);
    let thread = ada.client().start_conversation(&["bob"], None).await.unwrap();
    ada.say(thread, "one").await.unwrap();
    bob.sync().await;
    ada.say(thread, "two").await.unwrap();
    appliance.lock().damaged = vec![(thread, 2)];
    bob.sync().await;
    assert_eq!(bob.alarms().await, ["damaged"]);
    for round in 0..3 {
        match round {
            0 => appliance.offline(true),
            1 => refuse(&appliance, thread, ErrorCode::Busy),
            _ => {}
        }
        let again = if round == 2 {
            // Dropped as soon as it asks for something.
            let patience = Duration::from_millis(1);
            timeout(patience, bob.client().recheck(thread)).await.unwrap_or(Err(ClientError::Moving))
        } else {
            bob.client().recheck(thread).await
        };
        again.unwrap_err();
        bob.restart().await;
        assert!(bob.client().threads().await.unwrap()[0].blocked.is_some(), "{round}");
        assert!(matches!(bob.client().send(thread, "x").await, Err(ClientError::Blocked(_))));
        appliance.offline(false);
        appliance.lock().refuse = None;
    }
    assert_eq!(bob.alarms().await, ["damaged"], "what passes is no alarm");
    appliance.lock().damaged.clear();
    bob.client().recheck(thread).await.unwrap();
    assert_eq!(bob.texts(thread).await, ["one", "two"]);
    // To one that goes on it does nothing.
    appliance.lock().asked.clear();
    bob.client().recheck(thread).await.unwrap();
    assert!(appliance.lock().asked.is_empty());
    let unknown = ThreadId::new(zixt_types::ThreadKind::Conversation, &[5; 31]);
    assert!(matches!(bob.client().recheck(unknown).await, Err(ClientError::UnknownThread(_))));
}

/// One damaged envelope, or invitation, in the appliance's store stops its conversation, until it is repaired.
#[tokio::test]
async fn what_is_damaged_stops_its_conversation_only() {
    let appliance = Appliance::new();
    let (ada, bob, cay) = trio(&appliance).await;
    let group = ada.client().start_conversation(&["bob"], None).await.unwrap();
    ada.say(group, "one").await.unwrap();
    bob.sync().await;
    ada.say(group, "two").await.unwrap();
    ada.client().add_members(group, &["cay"]).await.unwrap();
    let pair = ada.client().start_conversation(&["bob", "cay"], None).await.unwrap();
    ada.say(pair, "elsewhere").await.unwrap();
    let damage = |damaged| appliance.lock().damaged = damaged;
    damage(vec![(group, 2), (group, 3)]);
    for person in [&bob, &cay] {
        person.sync().await;
        assert_eq!(person.texts(pair).await, ["elsewhere"]);
        assert_eq!(person.alarms().await, ["damaged"]);
        let again = person.client().recheck(group).await;
        assert!(matches!(&again, Err(ClientError::Trust(it)) if it.code() == "damaged"), "{again:?}");
        assert_eq!(person.alarms().await, ["damaged"]);
    }
    damage(Vec::new());
    bob.client().recheck(group).await.unwrap();
    cay.client().recheck(group).await.unwrap();
    assert_eq!(bob.texts(group).await, ["one", "two"]);
    assert_eq!(cay.say(group, "here").await.unwrap(), 1);
    bob.sync().await;
    assert_eq!(bob.texts(group).await, ["one", "two", "here"]);
}

#[tokio::test]
async fn what_a_member_says_about_the_ledger_ends_nothing() {
    let appliance = Appliance::new();
    let (ada, mut bob) = (appliance.enrol("ada").await, appliance.enrol("bob").await);
    let mut mallory = appliance.enrol_liar("mallory");
    let thread = ada.client().start_conversation(&["bob", "mallory"], None).await.unwrap();
    mallory.join(thread);
    let (height, hash) = {
        let inner = appliance.lock();
        (inner.net.state.height.0, inner.net.state.header_hash)
    };
    mallory.say(thread, "true", Some((height, hash)));
    bob.sync().await;
    assert!(bob.alarms().await.is_empty());
    let mut said = vec!["true".to_owned()];
    let late = appliance.enrol("cay").await;
    for (number, height) in
        [1, 2, height, height + 1, height + 2, height + 1000, u64::MAX].into_iter().enumerate()
    {
        let text = format!("false {number}");
        mallory.say(thread, &text, Some((height, Hash([7; 48]))));
        said.push(text);
    }
    for person in [&ada, &bob] {
        person.sync().await;
        assert_eq!(person.texts(thread).await, said);
        let alarms = person.client().alarms().await.unwrap();
        assert_eq!(alarms.len(), 1, "once for each author and conversation");
        assert_eq!((alarms[0].code.as_str(), alarms[0].thread), ("split-view", Some(thread)));
        for word in ["mallory", "different ledgers", "client lies"] {
            assert!(alarms[0].text.contains(word), "{word}: {}", alarms[0].text);
        }
    }
    bob.restart().await;
    bob.say(thread, "it goes on").await.unwrap();
    ada.sync().await;
    assert_eq!(ada.texts(thread).await.last().unwrap(), "it goes on");
    // So does everything else.
    let pair = late.client().start_conversation(&["bob"], None).await.unwrap();
    late.say(pair, "hello").await.unwrap();
    bob.sync().await;
    assert_eq!(bob.texts(pair).await, ["hello"]);
    assert!(bob.client().threads().await.unwrap().iter().all(|thread| thread.blocked.is_none()));
}

#[tokio::test]
async fn a_header_that_cannot_be_compared_holds_nothing_up() {
    let appliance = Appliance::new();
    let (ada, bob) = (appliance.enrol("ada").await, appliance.enrol("bob").await);
    let mut mallory = appliance.enrol_liar("mallory");
    let thread = ada.client().start_conversation(&["bob", "mallory"], None).await.unwrap();
    mallory.join(thread);
    let first = appliance.lock().net.blocks[0].0.header_hash;
    mallory.say(thread, "true", Some((1, first)));
    appliance.lock().refuse = Some(("/v1/headers", Problem::new(ErrorCode::UnknownHeight, "x")));
    bob.sync().await;
    assert_eq!(
        (bob.texts(thread).await, bob.alarms().await),
        (vec!["true".to_owned()], vec!["split-view".to_owned()])
    );
    appliance.lock().refuse = None;
    ada.sync().await;
    assert_eq!((ada.texts(thread).await, ada.alarms().await), (vec!["true".to_owned()], vec![]));
}

#[tokio::test]
async fn only_what_the_ledger_has_judged_is_given_up() {
    let appliance = Appliance::new();
    let (ada, _bob) = (appliance.enrol("ada").await, appliance.enrol("bob").await);
    let thread = ada.client().start_conversation(&["bob"], None).await.unwrap();
    let refuse = |code| appliance.lock().refuse = Some(("/v1/submissions", Problem::new(code, "x")));
    let queued = async || ada.client().threads().await.unwrap()[0].queued;
    ada.client().send(thread, "waits").await.unwrap();
    for code in [
        ErrorCode::RequestTimeout,
        ErrorCode::TooManyStreams,
        ErrorCode::Busy,
        ErrorCode::StoreFailed,
        ErrorCode::CustodyLocked,
        ErrorCode::CallerRevoked,
        ErrorCode::UnknownEndpoint,
        ErrorCode::Unknown,
    ] {
        refuse(code);
        let error = ada.client().flush().await.unwrap_err();
        assert!(matches!(&error, ClientError::Refused(problem) if problem.code == code), "{code}: {error}");
        assert_eq!(queued().await, 1, "{code}");
    }
    refuse(ErrorCode::AttachmentTooLong);
    ada.client().send(thread, "never").await.unwrap();
    ada.client().flush().await.unwrap();
    appliance.lock().refuse = None;
    ada.say(thread, "goes").await.unwrap();
    assert_eq!(ada.texts(thread).await, ["goes"]);
    let lines = ada.client().history(thread, None, 10).await.unwrap();
    let given_up = |text: &str| lines.iter().any(|line| line.text == text && line.seq.is_none());
    assert!(given_up("waits") && given_up("never"));
}

/// A network may have many shards, and a client that talks in all of them sees many states of each.
#[tokio::test]
async fn many_shards_are_no_reason_to_stop() {
    let appliance = Appliance::with(|genesis| genesis.shard_count = 64);
    let (ada, bob) = (appliance.enrol("ada").await, appliance.enrol("bob").await);
    let mut threads: HashMap<u16, ThreadId> = HashMap::new();
    while threads.len() < 26 {
        let thread = ada.client().start_conversation(&["bob"], None).await.unwrap();
        threads.insert(thread.shard(64).0, thread);
    }
    // Fewer of each than make somebody ask.
    for round in 0..10 {
        for thread in threads.values() {
            ada.say(*thread, &format!("{round}")).await.unwrap();
        }
    }
    appliance.lock().asked.clear();
    ada.sync().await;
    let asked: Vec<usize> = {
        let inner = appliance.lock();
        let questions = inner.asked.iter().filter(|path| path.starts_with("/v1/consistency"));
        questions.map(|path| path.matches(':').count()).collect()
    };
    assert!(asked.iter().sum::<usize>() > 256, "{asked:?}");
    bob.sync().await;
    assert!(ada.alarms().await.is_empty() && bob.alarms().await.is_empty());
    for thread in threads.values() {
        assert_eq!(bob.texts(*thread).await.len(), 10);
    }
}

/// Whoever waits may stop waiting at any moment: what was queued is sent once, and nothing is in the way afterwards.
#[tokio::test]
async fn a_dropped_call_loses_nothing_and_does_nothing_twice() {
    let appliance = Appliance::new();
    let (ada, bob) = (appliance.enrol("ada").await, appliance.enrol("bob").await);
    let thread = ada.client().start_conversation(&["bob"], None).await.unwrap();
    let mut queued = Vec::new();
    for round in 0..60_u64 {
        let text = format!("message {round}");
        let patience = Duration::from_micros(round * 150);
        if let Ok(sent) = timeout(patience, ada.client().send(thread, &text)).await {
            sent.unwrap();
            queued.push(text);
        }
        if let Ok(flushed) = timeout(patience, ada.client().flush()).await {
            flushed.unwrap();
        }
        if let Ok(synced) = timeout(patience, bob.client().sync_once()).await {
            synced.unwrap();
        }
    }
    ada.sync().await;
    bob.sync().await;
    assert!(queued.len() > 10, "{} calls ended in time", queued.len());
    let got = bob.texts(thread).await;
    assert_eq!(got, ada.texts(thread).await);
    let mut times: HashMap<String, usize> = HashMap::new();
    got.into_iter().for_each(|text| *times.entry(text).or_default() += 1);
    assert!(times.values().all(|count| *count == 1), "{times:?}");
    for text in &queued {
        assert!(times.contains_key(text), "{text} was queued and is lost");
    }
    assert!(ada.alarms().await.is_empty() && bob.alarms().await.is_empty());
}
