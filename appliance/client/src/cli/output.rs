//! What commands print: the stable JSON shapes, and lines for people.
//!
//! Field names never change their meaning; fields may be added. Times are milliseconds since 1970-01-01 UTC and end in
//! `_ms`. Ids are lower-case hexadecimal.

use super::escape::{self, escape_line};
use super::exit::{Exit, Failure};
use crate::tui::{clock, roster_text, title_text};
use serde_json::{Value, json};
use std::io::{ErrorKind, Write as _, stdout};
use zixt_client::{
    Alarm, ClientEvent, ContactView, DeviceView, KeyChangeView, Mark, MessageKind, MessageView, Profile,
    SyncReport, ThreadSummary,
};
use zixt_types::{Member, RevokeReason};

/// Where results go.
#[derive(Clone, Copy, Debug)]
pub struct Output {
    /// Whether JSON was asked for.
    pub json: bool,
}

impl Output {
    /// Prints a result: the JSON document, or the text.
    pub fn result(self, document: &Value, text: impl FnOnce() -> String) -> Result<(), Failure> {
        if self.json { line(&escape::json(&document.to_string())) } else { line(text().trim_end()) }
    }

    /// Says something to a person beside the result. With `--json` nothing is said.
    pub fn remark(self, text: &str) {
        if !self.json {
            eprintln!("{}", escape::escape(text));
        }
    }
}

/// Prints a line at once.
pub fn line(text: &str) -> Result<(), Failure> {
    let mut out = stdout().lock();
    match writeln!(out, "{text}").and_then(|()| out.flush()) {
        Ok(()) => Ok(()),
        // Whoever read it has enough (`zixt read | head`). Everything of value is durable already.
        Err(error) if error.kind() == ErrorKind::BrokenPipe => std::process::exit(0),
        Err(error) => Err(Failure::new(Exit::Disk, format!("standard output: {error}"), "")),
    }
}

/// A device of an account.
fn member(member: &Member) -> Value {
    json!({ "account": member.account.to_hex(), "device": member.device.to_hex() })
}

/// Who this device is.
pub fn profile(profile: &Profile) -> Value {
    json!({
        "name": profile.name,
        "account": profile.member.account.to_hex(),
        "device": profile.member.device.to_hex(),
        "network": profile.network(),
        "genesis": profile.genesis_hash.to_hex(),
        "suite": profile.suite.name(),
        "lab": profile.lab(),
        "address": profile.address,
    })
}

/// How far a message got.
pub const fn mark(mark: Mark) -> &'static str {
    match mark {
        Mark::Queued => "queued",
        Mark::Sent => "sent",
        Mark::Recorded => "recorded",
        Mark::Read => "read",
    }
}

/// A line of a conversation.
pub fn message(view: &MessageView) -> Value {
    let mut document = json!({
        "thread": view.thread.to_hex(),
        "id": view.id.to_hex(),
        "seq": view.seq.map(|seq| seq.0),
        "author": member(&view.author),
        "author_name": view.author_name,
        "own": view.own,
        "text": view.text,
        "sent_at_ms": view.sent_at.0,
        "ledger_time_ms": view.ledger_time.map(|time| time.0),
        "mark": mark(view.mark),
    });
    let (kind, more) = match &view.kind {
        MessageKind::Text => ("text", Value::Null),
        MessageKind::Members { added, removed } => ("members", json!({ "added": added, "removed": removed })),
        MessageKind::Title(title) => ("title", json!({ "title": title })),
        MessageKind::Unreadable(reason) => ("unreadable", json!({ "reason": reason })),
    };
    document["kind"] = kind.into();
    merge(&mut document, more);
    document
}

/// A conversation.
pub fn thread(view: &ThreadSummary) -> Value {
    json!({
        "thread": view.thread.to_hex(),
        "title": view.title,
        "people": view.people,
        "members": view.members.iter().map(member).collect::<Vec<_>>(),
        "epoch": view.epoch.0,
        "last_seq": view.last_seq.map(|seq| seq.0),
        "last_time_ms": view.last_time.map(|time| time.0),
        "last_text": view.last_text,
        "unread": view.unread,
        "queued": view.queued,
        "removed": view.removed,
        "blocked": view.blocked,
    })
}

/// A device.
pub fn device(view: &DeviceView) -> Value {
    let revoked =
        view.revoked.as_ref().map(|(at, reason)| json!({ "at_ms": at.0, "reason": revoke_reason(*reason) }));
    json!({
        "device": view.id.to_hex(),
        "fingerprint": view.fingerprint,
        "identity": view.identity.to_hex(),
        "added_at_ms": view.added_at.0,
        "revoked": revoked,
        "own": view.own,
    })
}

/// A person.
pub fn contact(view: &ContactView) -> Value {
    let change = |change: &KeyChangeView| json!({ "at_ms": change.at.0, "device": change.device.to_hex(), "added": change.added });
    json!({
        "account": view.account.to_hex(),
        "name": view.name,
        "verified": view.verified,
        "changed_since_verified": view.changed_since_verified,
        "devices": view.devices.iter().map(device).collect::<Vec<_>>(),
        "changes": view.changes.iter().map(change).collect::<Vec<_>>(),
    })
}

/// An alarm.
pub fn alarm(view: &Alarm) -> Value {
    json!({
        "number": view.number,
        "at_ms": view.at.0,
        "thread": view.thread.map(|thread| thread.to_hex()),
        "code": view.code,
        "text": view.text,
        "has_proof": view.has_proof,
    })
}

/// What a synchronisation did.
pub fn report(report: &SyncReport) -> Value {
    json!({
        "events": report.events,
        "messages": report.messages,
        "sent": report.sent,
        "queued": report.queued,
        "height": report.height.0,
        "alarms": report.alarms,
    })
}

/// An event: `event` names it, the other fields depend on it.
pub fn event(event: &ClientEvent) -> Value {
    let named = |name: &str, more: Value| {
        let mut document = json!({ "event": name });
        merge(&mut document, more);
        document
    };
    match event {
        ClientEvent::Message(view) => named("message", message(view)),
        ClientEvent::MembersChanged { thread } => {
            named("members-changed", json!({ "thread": thread.to_hex() }))
        }
        ClientEvent::Removed { thread } => named("removed", json!({ "thread": thread.to_hex() })),
        ClientEvent::Mark { thread, message, seq, mark } => named(
            "mark",
            json!({
                "thread": thread.to_hex(),
                "id": message.to_hex(),
                "seq": seq.map(|seq| seq.0),
                "mark": self::mark(*mark),
            }),
        ),
        ClientEvent::SendFailed { thread, message, reason } => named(
            "send-failed",
            json!({ "thread": thread.to_hex(), "id": message.to_hex(), "reason": reason }),
        ),
        ClientEvent::KeyChange { account, name, was_verified } => named(
            "key-change",
            json!({ "account": account.to_hex(), "name": name, "was_verified": was_verified }),
        ),
        ClientEvent::Alarm(view) => named("alarm", alarm(view)),
        ClientEvent::ConnectionUp => named("connection-up", Value::Null),
        ClientEvent::ConnectionDown { reason } => named("connection-down", json!({ "reason": reason })),
    }
}

/// Adds the fields of one object to another.
pub fn merge(document: &mut Value, more: Value) {
    if let (Value::Object(fields), Value::Object(more)) = (document, more) {
        fields.extend(more);
    }
}

/// A line of a conversation, for people: place, time, how far it got, who, what.
pub fn message_line(view: &MessageView) -> String {
    let (date, time) = clock(view.ledger_time.unwrap_or(view.sent_at).0);
    let place = view.seq.map_or_else(|| "-".to_owned(), |seq| seq.0.to_string());
    let from = escape_line(&view.author_name);
    let what = match &view.kind {
        // Every line of a text is indented, so that no text can look like a line of its own.
        MessageKind::Text => {
            let mark = if view.own { format!(" [{}]", mark(view.mark)) } else { String::new() };
            format!("{from}{mark}: {}", escape::escape(&view.text).replace('\n', "\n        "))
        }
        MessageKind::Members { added, removed } => format!("* {}", roster_text(&from, added, removed)),
        MessageKind::Title(title) => format!("* {}", title_text(&from, title)),
        MessageKind::Unreadable(reason) if view.own && view.seq.is_none() => {
            let text = escape::escape(&view.text).replace('\n', "\n        ");
            format!("! {}: {from}: {text}", escape_line(reason))
        }
        MessageKind::Unreadable(reason) => {
            format!("! a message of {from} cannot be shown: {}", escape_line(reason))
        }
    };
    format!("{place:>6}  {date} {time}Z  {what}")
}

/// A device, for people.
pub fn device_lines(view: &DeviceView) -> String {
    let (date, time) = clock(view.added_at.0);
    let own = if view.own { "  (this device)" } else { "" };
    let mut text = format!("  device {}  added {date} {time}Z{own}\n", view.id);
    text.push_str(&format!("    fingerprint {}\n", escape_line(&view.fingerprint)));
    if let Some((at, reason)) = &view.revoked {
        let (date, time) = clock(at.0);
        text.push_str(&format!("    REVOKED {date} {time}Z: {}\n", revoke_reason(*reason)));
    }
    text
}

const fn revoke_reason(reason: RevokeReason) -> &'static str {
    match reason {
        RevokeReason::CessationOfOperation => "cessation-of-operation",
        RevokeReason::KeyCompromise => "key-compromise",
        RevokeReason::AffiliationChanged => "affiliation-changed",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use zixt_types::{AccountId, DeviceId, MessageId, Seq, ThreadId, Timestamp};

    fn view() -> MessageView {
        MessageView {
            thread: ThreadId([2; 32]),
            id: MessageId([7; 16]),
            seq: Some(Seq(4)),
            author: Member { account: AccountId([1; 16]), device: DeviceId([3; 16]) },
            author_name: "ada\u{202e}".into(),
            own: true,
            kind: MessageKind::Text,
            text: "one\n99  2026 bob: two\u{1b}[2J".into(),
            sent_at: Timestamp(1_764_000_000_000),
            ledger_time: None,
            mark: Mark::Recorded,
        }
    }

    #[test]
    fn a_text_cannot_look_like_another_line() {
        let shown = message_line(&view());
        insta::assert_snapshot!(shown, @"     4  2025-11-24 16:00Z  ada<U+202E> [recorded]: one
        99  2026 bob: two<U+001B>[2J");
    }

    #[test]
    fn the_shape_of_a_message_stays() {
        let own = message(&view());
        let fields: Vec<&str> = own.as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(
            fields,
            [
                "author",
                "author_name",
                "id",
                "kind",
                "ledger_time_ms",
                "mark",
                "own",
                "sent_at_ms",
                "seq",
                "text",
                "thread"
            ]
        );
        let joined = MessageView {
            kind: MessageKind::Members { added: vec!["bob".into()], removed: Vec::new() },
            ..view()
        };
        assert_eq!(message(&joined)["added"], json!(["bob"]));
        let named =
            MessageView { kind: MessageKind::Title("crew\u{1b}".into()), text: String::new(), ..view() };
        let document = message(&named);
        assert_eq!((&document["kind"], &document["title"]), (&json!("title"), &json!("crew\u{1b}")));
        assert!(message_line(&named).ends_with("* ada<U+202E> named this conversation 'crew<U+001B>'"));
        let event = event(&ClientEvent::Message(Box::new(joined)));
        assert_eq!((&event["event"], &event["kind"]), (&json!("message"), &json!("members")));
        assert_eq!(super::event(&ClientEvent::ConnectionUp), json!({ "event": "connection-up" }));
    }
}
