//! Commands about people's keys, evidence and alarms.

use super::account::list;
use super::escape::{escape, escape_line};
use super::exit::Failure;
use super::output;
use super::session::Session;
use crate::tui::clock;
use serde_json::json;
use std::path::Path;
use zixt_client::ContactView;
use zixt_types::{Seq, ThreadId};

/// `zixt evidence export`
pub async fn export(
    session: &Session,
    to: &str,
    seq: Option<u64>,
    with_content: bool,
    path: &Path,
) -> Result<(), Failure> {
    let thread = session.find(to).await?.thread;
    session.wait(session.client.export_evidence(thread, seq.map(Seq), with_content, path)).await?;
    let bytes = std::fs::metadata(path).map_err(|error| Failure::file(path, &error))?.len();
    let genesis = session.client.profile().genesis_hash.to_hex();
    let document = json!({
        "file": path,
        "bytes": bytes,
        "thread": thread.to_hex(),
        "seq": seq,
        "with_content": with_content,
        "genesis": genesis,
    });
    session.output.result(&document, || {
        let (what, option) = match with_content {
            true => ("It discloses what was said.", "--content "),
            false => ("It does not hold what was said.", ""),
        };
        let file = escape_line(&path.display().to_string());
        format!(
            "{file}: {bytes} bytes. {what}\nAnybody can check it offline:\n  zixt-verify --genesis {genesis} \
             {option}{file}"
        )
    })
}

/// `zixt contacts`
pub async fn contacts(session: &Session) -> Result<(), Failure> {
    let contacts = session.client.contacts().await?;
    let document = list("contacts", contacts.iter().map(output::contact).collect());
    session.output.result(&document, || match contacts.is_empty() {
        true => "Nobody yet. Talk with somebody: zixt chat NAME".to_owned(),
        false => contacts.iter().map(contact_line).collect::<Vec<_>>().join("\n"),
    })
}

fn contact_line(contact: &ContactView) -> String {
    let active = contact.devices.iter().filter(|device| device.revoked.is_none()).count();
    let state = match (contact.verified, contact.changed_since_verified) {
        (true, _) => "verified",
        (false, true) => "CHANGED since you verified: zixt verify",
        (false, false) => "not verified",
    };
    format!("{}  {active} device(s)  {state}", escape_line(&contact.name))
}

/// `zixt verify`
pub async fn verify(session: &Session, name: &str, mark: bool) -> Result<(), Failure> {
    let mut contact = session.wait(session.client.contact(name)).await?;
    if mark {
        session.client.mark_verified(contact.account).await?;
        (contact.verified, contact.changed_since_verified) = (true, false);
    }
    let mut document = output::contact(&contact);
    output::merge(&mut document, json!({ "marked": mark }));
    session.output.result(&document, || {
        let mut text = format!("{}\n", contact_line(&contact));
        for device in &contact.devices {
            text.push_str(&output::device_lines(device));
        }
        for change in &contact.changes {
            let (date, time) = clock(change.at.0);
            let what = if change.added { "added" } else { "revoked" };
            text.push_str(&format!("  change: device {} {what} {date} {time}Z\n", change.device));
        }
        text.push_str(if mark {
            "Recorded: you compared these fingerprints with the person."
        } else {
            "Compare the fingerprints of all devices with the person by another way (in person, by telephone), then \
             run this with --mark."
        });
        text
    })
}

/// `zixt devices`
pub async fn devices(session: &Session) -> Result<(), Failure> {
    let devices = session.client.devices().await?;
    let document = list("devices", devices.iter().map(output::device).collect());
    session.output.result(&document, || devices.iter().map(output::device_lines).collect())
}

/// `zixt recheck`
pub async fn recheck(session: &Session, to: &str) -> Result<(), Failure> {
    let thread = session.find(to).await?;
    session.wait(session.client.recheck(thread.thread)).await?;
    let was_stopped = thread.blocked.is_some();
    let document = json!({ "thread": thread.thread.to_hex(), "was_stopped": was_stopped });
    session.output.result(&document, || {
        if was_stopped {
            "Everything that came since was checked, and holds: the conversation goes on. The alarm stays on record."
        } else {
            "The conversation was not stopped."
        }
        .to_owned()
    })
}

/// `zixt alarms`
pub async fn alarms(session: &Session, export: Option<&Path>) -> Result<(), Failure> {
    let alarms = session.client.alarms().await?;
    if let Some(path) = export {
        session.client.export_fork(path).await?;
    }
    let stopped: Vec<ThreadId> = session
        .client
        .threads()
        .await?
        .into_iter()
        .filter(|thread| thread.blocked.is_some())
        .map(|thread| thread.thread)
        .collect();
    let mut document = list("alarms", alarms.iter().map(output::alarm).collect());
    output::merge(&mut document, json!({ "exported": export }));
    session.output.result(&document, || {
        if alarms.is_empty() {
            return "No alarms: nothing wrong was found.".to_owned();
        }
        let mut text = String::new();
        for alarm in &alarms {
            let (date, time) = clock(alarm.at.0);
            text.push_str(&format!(
                "!!! {}. {date} {time}Z  {}: {}\n",
                alarm.number,
                escape_line(&alarm.code),
                escape(&alarm.text).replace('\n', "\n    "),
            ));
            if let Some(thread) = alarm.thread {
                let state = if stopped.contains(&thread) { "is stopped" } else { "goes on" };
                text.push_str(&format!("    conversation {thread} {state}\n"));
            }
            if alarm.has_proof && export.is_none() {
                text.push_str("    there is a proof: zixt alarms --export-fork FILE\n");
            }
        }
        if let Some(path) = export {
            let file = escape_line(&path.display().to_string());
            text.push_str(&format!("The proof is in {file}. It holds no messages: anybody may see it.\n"));
        }
        text.push_str("Tell an administrator or auditor by another way than this network.");
        text
    })
}
