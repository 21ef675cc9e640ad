//! A model for tests: two conversations, one open.

use super::model::{Head, Kind, Link, Looks, Mark, Message, Model, Thread};
use zixt_types::{MessageId, ThreadId, ThreadKind};

/// 2026-11-22 14:00 UTC.
pub const START_MS: u64 = 1_795_356_000_000;

/// The id of a conversation.
pub fn id(number: u8) -> ThreadId {
    ThreadId::new(ThreadKind::Conversation, &[number; 31])
}

/// A message; its number is its place, its id and its minute.
pub fn message(number: u8, from: &str, mark: Mark, text: &str) -> Message {
    Message {
        id: MessageId([number; 16]),
        seq: (mark != Mark::Queued && mark != Mark::Sent).then_some(u64::from(number)),
        at_ms: START_MS + u64::from(number) * 60_000,
        from: from.into(),
        mark,
        kind: Kind::Said,
        text: text.into(),
    }
}

/// A conversation in the list.
pub fn head(number: u8, title: &str, members: &[&str]) -> Head {
    Head {
        id: id(number),
        title: title.into(),
        epoch: 4,
        members: members.iter().map(|name| (*name).to_owned()).collect(),
        closed: None,
        unread: 0,
        queued: 0,
        unverified: Vec::new(),
        last_ms: START_MS - u64::from(number),
    }
}

/// Two conversations; the one with bob is open.
pub fn model(columns: u16, rows: u16) -> Model {
    let mut bob = Thread::new(head(1, "bob", &["ada", "bob"]));
    bob.complete = true;
    bob.messages = vec![
        Message { kind: Kind::Event, ..message(0, "ada", Mark::None, "ada added bob") },
        message(1, "ada", Mark::Read, "Hello, Bob. Did the pumps arrive?"),
        message(
            2,
            "bob",
            Mark::None,
            "They did, all twelve. 日本 sent the papers, too; they are in the blue folder.",
        ),
        message(3, "ada", Mark::Recorded, "Good."),
    ];
    let mut team = Thread::new(head(2, "night shift", &["ada", "bob", "carol", "dave"]));
    team.head.unread = 3;
    Model {
        me: "ada".into(),
        network: "zixt lab".into(),
        lab: true,
        looks: Looks { colour: true, unicode: true },
        size: (columns, rows),
        threads: vec![bob, team],
        open: Some(id(1)),
        list: false,
        link: Link::Connected,
        alarms: Vec::new(),
        overlay: None,
        overlay_scroll: 0,
        notice: None,
    }
}
