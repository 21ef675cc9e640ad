//! From the client's values to what the terminal chat shows. Here foreign text is escaped, all of it.

use super::model::{Alarm, Head, Kind, Mark, Message};
use crate::cli::escape::{escape, escape_line};
use std::collections::BTreeSet;
use zixt_client::{MessageKind, MessageView, ThreadSummary};
use zixt_types::{MessageId, ThreadId};

/// A line of a conversation.
pub fn message(view: &MessageView) -> Message {
    let from = escape_line(&view.author_name);
    // The text of an own message that was refused for good is still there.
    let is_refused = view.own && view.seq.is_none() && matches!(view.kind, MessageKind::Unreadable(_));
    let (kind, text) = match &view.kind {
        MessageKind::Unreadable(reason) if is_refused => {
            (Kind::Said, format!("{}\n({})", escape(&view.text), escape_line(reason)))
        }
        MessageKind::Text => (Kind::Said, escape(&view.text)),
        MessageKind::Members { added, removed } => (Kind::Event, members(&from, added, removed)),
        MessageKind::Title(title) => (Kind::Event, named(&from, title)),
        MessageKind::Unreadable(reason) => {
            (Kind::Warning, format!("a message of {from} cannot be shown: {}", escape(reason)))
        }
    };
    let mark = match kind {
        Kind::Said if is_refused => Mark::Refused,
        Kind::Said if view.own => self::mark(view.mark),
        _ => Mark::None,
    };
    let at_ms = view.ledger_time.unwrap_or(view.sent_at).0;
    Message { id: view.id, seq: view.seq.map(|seq| seq.0), at_ms, from, mark, kind, text }
}

/// What a change of the roster says.
pub fn members(by: &str, added: &[String], removed: &[String]) -> String {
    let list = |names: &[String]| names.iter().map(|name| escape_line(name)).collect::<Vec<_>>().join(", ");
    match (added.is_empty(), removed.is_empty()) {
        (false, true) => format!("{by} added {}", list(added)),
        (true, false) => format!("{by} removed {}", list(removed)),
        _ => format!("{by} added {} and removed {}", list(added), list(removed)),
    }
}

/// What a title says.
pub fn named(by: &str, title: &str) -> String {
    if title.is_empty() {
        format!("{by} took this conversation's name away")
    } else {
        format!("{by} named this conversation '{}'", escape_line(title))
    }
}

/// How far a message of ours has come.
pub const fn mark(mark: zixt_client::Mark) -> Mark {
    match mark {
        zixt_client::Mark::Queued => Mark::Queued,
        zixt_client::Mark::Sent => Mark::Sent,
        zixt_client::Mark::Recorded => Mark::Recorded,
        zixt_client::Mark::Read => Mark::Read,
    }
}

/// A conversation in the list.
pub fn head(view: &ThreadSummary, me: &str, verified: &BTreeSet<String>) -> Head {
    let unverified = view.people.iter().filter(|name| *name != me && !verified.contains(*name));
    let closed = match &view.blocked {
        Some(reason) => Some(format!("Stopped by an alarm: {}", escape_line(reason))),
        None if view.removed => {
            Some("You are not in this conversation any more; the history stays.".to_owned())
        }
        None => None,
    };
    Head {
        id: view.thread,
        title: escape_line(&view.title),
        epoch: view.epoch.0,
        members: view.people.iter().map(|name| escape_line(name)).collect(),
        closed,
        unread: view.unread,
        queued: view.queued,
        unverified: unverified.map(|name| escape_line(name)).collect(),
        last_ms: view.last_time.map_or(0, |time| time.0),
    }
}

/// An alarm, with the titles that the person knows.
pub fn alarm(view: &zixt_client::Alarm, heads: &[Head]) -> Alarm {
    let titled = |id: ThreadId| heads.iter().find(|head| head.id == id).map(|head| head.title.clone());
    let place = view.thread.and_then(titled).map_or_else(String::new, |title| format!("[{title}] "));
    let advice = if view.has_proof {
        "Stop. Keep this device. End this program and run: zixt alarms --export-fork FILE; give the file to an \
         administrator or auditor by another way."
    } else {
        "Stop, and tell an administrator by another way."
    };
    Alarm { what: format!("{place}{}", escape_line(&view.text)), advice: advice.to_owned() }
}

/// A line that only this screen knows: why something failed, or a key change.
pub fn remark(about: MessageId, at_ms: u64, text: &str) -> Message {
    // An id of its own, so that it stands beside the message that it is about.
    let id = MessageId(about.0.map(|byte| !byte));
    Message {
        id,
        seq: None,
        at_ms,
        from: String::new(),
        mark: Mark::None,
        kind: Kind::Warning,
        text: escape(text),
    }
}
