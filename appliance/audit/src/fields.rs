//! An event taken apart into named values: the one source of syslog, CEF and JSON lines, so that they agree.

use crate::{Actor, Event, Origin, Record, Target};
use zixt_types::Timestamp;

/// A value of a field.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Field {
    Number(u64),
    Text(String),
}

impl core::fmt::Display for Field {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Number(number) => number.fmt(f),
            Self::Text(text) => f.write_str(text),
        }
    }
}

/// Everything but the details, in an order that puts first what must never be left out.
pub(crate) fn fields(record: &Record, event: &Event) -> Vec<(&'static str, Field)> {
    let text = |text: &dyn core::fmt::Display| Field::Text(text.to_string());
    let mut fields = vec![
        ("seq", Field::Number(record.sequence.0)),
        ("hash", text(&record.hash)),
        ("action", text(&event.action.name())),
        ("outcome", text(&event.outcome.name())),
    ];
    fields.extend(event.outcome.code().map(|code| ("code", text(code))));
    match &event.actor {
        Actor::Nobody => fields.push(("actor", text(&"nobody"))),
        Actor::Appliance => fields.push(("actor", text(&"appliance"))),
        Actor::Account(account) => {
            fields.extend([("actor", text(&"account")), ("actor_account", text(account))]);
        }
        Actor::Device(account, device) => fields.extend([
            ("actor", text(&"device")),
            ("actor_account", text(account)),
            ("actor_device", text(device)),
        ]),
        Actor::Officers(officers) => {
            let keys: Vec<String> = officers.keys().iter().map(ToString::to_string).collect();
            fields.extend([("actor", text(&"officers")), ("actor_officers", Field::Text(keys.join(" ")))]);
        }
        Actor::LocalUser(uid) => {
            fields.extend([("actor", text(&"local-user")), ("actor_uid", Field::Number(u64::from(*uid)))]);
        }
        Actor::Peer(appliance) => {
            fields.extend([("actor", text(&"peer")), ("actor_appliance", text(appliance))])
        }
    }
    match event.origin {
        Origin::Inside => fields.push(("origin", text(&"inside"))),
        Origin::Network(address) => fields.extend([
            ("origin", text(&"network")),
            ("address", text(&address.ip())),
            ("port", Field::Number(u64::from(address.port()))),
        ]),
        Origin::Console => fields.push(("origin", text(&"console"))),
        Origin::Socket(uid) => {
            fields.extend([("origin", text(&"socket")), ("origin_uid", Field::Number(u64::from(uid)))]);
        }
        Origin::Media => fields.push(("origin", text(&"media"))),
    }
    match &event.target {
        None => {}
        Some(Target::Account(account)) => {
            fields.extend([("target", text(&"account")), ("target_id", text(account))]);
        }
        Some(Target::Device(account, device)) => fields.extend([
            ("target", text(&"device")),
            ("target_id", text(device)),
            ("target_account", text(account)),
        ]),
        Some(Target::Officer(key)) => fields.extend([("target", text(&"officer")), ("target_id", text(key))]),
        Some(Target::Thread(thread)) => {
            fields.extend([("target", text(&"thread")), ("target_id", text(thread))])
        }
        Some(Target::Appliance(id)) => {
            fields.extend([("target", text(&"appliance")), ("target_id", text(id))])
        }
        Some(Target::Named(kind, name)) => {
            fields.extend([("target", text(kind)), ("target_name", text(name))])
        }
    }
    fields.push(("wall", Field::Text(event.when.wall.utc())));
    if let Some(ledger) = event.when.ledger {
        fields.extend([
            ("height", Field::Number(ledger.height.0)),
            ("ledger_time", Field::Text(ledger.time.utc())),
        ]);
    }
    fields.extend(event.before.map(|hash| ("before", text(&hash))));
    fields.extend(event.after.map(|hash| ("after", text(&hash))));
    fields
}

/// One line for people: what, how it ended, by whom, from where.
pub(crate) fn sentence(event: &Event) -> String {
    let mut line = format!("{} {}", event.action.name(), event.outcome.name());
    if let Some(code) = event.outcome.code() {
        line.push_str(&format!(" ({code})"));
    }
    match &event.actor {
        Actor::Nobody => line.push_str(" by nobody known"),
        Actor::Appliance => line.push_str(" by the appliance"),
        Actor::Account(account) | Actor::Device(account, _) => {
            line.push_str(&format!(" by account {account}"))
        }
        Actor::Officers(officers) => line.push_str(&format!(" by {} officer(s)", officers.keys().len())),
        Actor::LocalUser(uid) => line.push_str(&format!(" by local user {uid}")),
        Actor::Peer(appliance) => line.push_str(&format!(" by appliance {appliance}")),
    }
    match event.origin {
        Origin::Inside => {}
        Origin::Network(address) => line.push_str(&format!(" from {address}")),
        Origin::Console => line.push_str(" at the console"),
        Origin::Socket(uid) => line.push_str(&format!(" over the socket of user {uid}")),
        Origin::Media => line.push_str(" from a file"),
    }
    if let Some(Target::Named(kind, name)) = &event.target {
        line.push_str(&format!(" on {kind} {name}"));
    }
    line
}

/// A time that every calendar can tell; `None` for a clock that is beyond them.
pub(crate) fn calendar(time: Timestamp) -> Option<String> {
    (time.0 <= zixt_types::limits::LEDGER_TIME_MS_MAX).then(|| time.utc())
}
