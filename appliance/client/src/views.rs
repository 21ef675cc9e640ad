//! What is shown, made of what is stored. Reads the store only.

use crate::error::ClientError;
use crate::model::{ContactView, DeviceView, KeyChangeView, Mark, MessageKind, MessageView, ThreadSummary};
use crate::records::{
    self, AccountRecord, Disclosed, LineRecord, MessageRecord, OutboxRecord, Outgoing, ThreadRecord,
};
use crate::shared::Core;
use crate::store::Space;
use std::collections::BTreeMap;
use zixt_messaging::{Content, ContentKind};
use zixt_types::{AccountId, Canonical as _, Member, Seq, ThreadId};

/// Names of the accounts that this device knows.
pub struct Names(BTreeMap<AccountId, String>);

impl Names {
    /// All of them.
    pub async fn load(core: &Core) -> Result<Self, ClientError> {
        let mut names: BTreeMap<AccountId, String> = core
            .accounts()
            .await?
            .into_iter()
            .filter_map(|record| Some((record.account.id, record.name?.0)))
            .collect();
        names.insert(core.me().account, core.profile.name.clone());
        Ok(Self(names))
    }

    /// Those that one line shows.
    pub async fn of_line(core: &Core, message: &MessageRecord) -> Result<Self, ClientError> {
        let mut shown = vec![message.author.account];
        if let LineRecord::Members { added, removed } = &message.line {
            shown.extend(added.iter().chain(removed));
        }
        let mut names = BTreeMap::new();
        for account in shown {
            if let Some((name, _)) = core.account(account).await?.and_then(|record| record.name) {
                names.insert(account, name);
            }
        }
        names.insert(core.me().account, core.profile.name.clone());
        Ok(Self(names))
    }

    /// The name, or the id while it is not known.
    pub fn of(&self, account: AccountId) -> String {
        self.0.get(&account).cloned().unwrap_or_else(|| account.to_string())
    }
}

/// The text of a canonical content.
pub fn text_of(content: &[u8]) -> Option<String> {
    Content::parse(content).ok().map(|content| content.text)
}

/// The line that a content is.
pub fn line_of(disclosed: Disclosed) -> LineRecord {
    match Content::parse(&disclosed.content) {
        Ok(Content { kind: ContentKind::Title, .. }) => LineRecord::Title(disclosed),
        _ => LineRecord::Text(disclosed),
    }
}

/// A title that says something.
pub fn title_of(text: &str) -> Option<String> {
    Some(text.trim().to_owned()).filter(|title| !title.is_empty())
}

/// The last entry that a device of every other account in the conversation has verified.
pub fn read_upto(record: &ThreadRecord, me: AccountId) -> Option<Seq> {
    let mut others: BTreeMap<AccountId, Option<Seq>> = record
        .state
        .members
        .iter()
        .filter(|member| member.account != me)
        .map(|member| (member.account, None))
        .collect();
    for (member, seq) in &record.seen {
        if let Some(best) = others.get_mut(&member.account) {
            *best = (*best).max(Some(*seq));
        }
    }
    others.into_values().min().flatten()
}

/// A recorded line.
pub fn message(core: &Core, record: &ThreadRecord, message: MessageRecord, names: &Names) -> MessageView {
    let own = message.author == core.me();
    let people = |accounts: &[AccountId]| accounts.iter().map(|account| names.of(*account)).collect();
    let (kind, text) = match &message.line {
        LineRecord::Text(disclosed) => (MessageKind::Text, text_of(&disclosed.content).unwrap_or_default()),
        LineRecord::Members { added, removed } => {
            (MessageKind::Members { added: people(added), removed: people(removed) }, String::new())
        }
        LineRecord::Title(disclosed) => {
            let title = text_of(&disclosed.content).unwrap_or_default();
            (MessageKind::Title(title.trim().to_owned()), String::new())
        }
        LineRecord::Unreadable(why) => (MessageKind::Unreadable(why.clone()), String::new()),
    };
    let read = own && read_upto(record, core.me().account).is_some_and(|upto| message.seq <= upto);
    MessageView {
        thread: record.thread,
        id: message.id,
        seq: Some(message.seq),
        author: message.author,
        author_name: names.of(message.author.account),
        own,
        kind,
        text,
        sent_at: message.sent_at,
        ledger_time: Some(message.ledger_time),
        mark: if read { Mark::Read } else { Mark::Recorded },
    }
}

/// A message that waits, or was given up; `None` for a change of members, and for a title that is only told again.
pub fn queued(core: &Core, item: &OutboxRecord) -> Option<MessageView> {
    let (kind, text) = match (&item.what, &item.failed) {
        (Outgoing::Text(text), Some(reason)) => {
            (MessageKind::Unreadable(format!("not sent: {reason}")), text.clone())
        }
        (Outgoing::Text(text), None) => (MessageKind::Text, text.clone()),
        (Outgoing::Title(Some(title)), None) => (MessageKind::Title(title.clone()), String::new()),
        (Outgoing::Title(_) | Outgoing::Change { .. }, _) => return None,
    };
    Some(MessageView {
        thread: item.thread,
        id: item.id,
        seq: None,
        author: core.me(),
        author_name: core.profile.name.clone(),
        own: true,
        kind,
        text,
        sent_at: item.at,
        ledger_time: None,
        mark: if core.was_handed_in(item.id) { Mark::Sent } else { Mark::Queued },
    })
}

/// The end of a conversation's lines before `before`.
pub async fn history(
    core: &Core,
    thread: ThreadId,
    before: Option<Seq>,
    limit: usize,
) -> Result<Vec<MessageView>, ClientError> {
    let record = core.thread(thread).await?;
    let outbox = core.outbox().await?;
    let mut waiting: Vec<MessageView> = outbox
        .iter()
        .filter(|(_, item)| item.thread == thread && before.is_none())
        .filter_map(|(_, item)| queued(core, item))
        .collect();
    let Some(record) = record else {
        return if outbox.iter().any(|(_, item)| item.thread == thread) {
            Ok(waiting)
        } else {
            Err(ClientError::UnknownThread(thread))
        };
    };
    waiting.drain(..waiting.len().saturating_sub(limit));
    let rest = u32::try_from(limit - waiting.len()).unwrap_or(u32::MAX);
    let end = before.map(|seq| core.place_key(thread, seq));
    let rows = core.store.scan_back(Space::Message, &core.thread_key(thread), end.as_deref(), rest).await?;
    let names = Names::load(core).await?;
    let mut lines = Vec::with_capacity(rows.len() + waiting.len());
    for (_, bytes) in rows {
        lines.push(message(core, &record, records::decode(Space::Message, &bytes)?, &names));
    }
    lines.append(&mut waiting);
    Ok(lines)
}

/// The fact that says how many messages of others the user has seen.
pub fn shown_key(core: &Core, thread: ThreadId) -> Vec<u8> {
    [b"shown/", &core.thread_key(thread)[..]].concat()
}

/// All conversations, the latest first.
pub async fn threads(core: &Core) -> Result<Vec<ThreadSummary>, ClientError> {
    let names = Names::load(core).await?;
    let outbox = core.outbox().await?;
    let mut all = Vec::new();
    for record in core.threads().await? {
        let mut people: Vec<String> = Vec::new();
        for Member { account, .. } in &record.state.members {
            let name = names.of(*account);
            if !people.contains(&name) {
                people.push(name);
            }
        }
        let others: Vec<&str> =
            people.iter().map(String::as_str).filter(|name| *name != core.profile.name).collect();
        let shown = match core.store.get(Space::Fact, &shown_key(core, record.thread)).await? {
            Some(bytes) => records::decode(Space::Fact, &bytes)?,
            None => 0u64,
        };
        let waits = |item: &&(u64, OutboxRecord)| {
            let waits = item.1.thread == record.thread && item.1.failed.is_none();
            waits && matches!(item.1.what, Outgoing::Text(_))
        };
        all.push(ThreadSummary {
            thread: record.thread,
            title: record.title.clone().or_else(|| record.shared_title.clone()).unwrap_or_else(
                || match record.has_begun() {
                    true => others.join(", "),
                    false => record.thread.to_string(),
                },
            ),
            title_is_shared: record.title.is_none() && record.shared_title.is_some(),
            members: record.state.members.clone(),
            epoch: record.state.epoch,
            last_seq: record.has_begun().then_some(record.head.seq),
            last_time: record.has_begun().then_some(record.time),
            last_text: record.last_text.clone(),
            unread: record.received.saturating_sub(shown),
            queued: outbox.iter().filter(waits).count() as u64,
            removed: record.removed,
            blocked: record.blocked.clone(),
            people,
        });
    }
    all.sort_by_key(|summary| std::cmp::Reverse((summary.last_time, summary.thread)));
    Ok(all)
}

/// A person.
pub fn contact(core: &Core, record: &AccountRecord) -> ContactView {
    let active: Vec<_> = record.account.active_devices().map(|device| device.id).collect();
    let verified = record.verified.as_ref().is_some_and(|verified| *verified == active);
    ContactView {
        account: record.account.id,
        name: record.name.as_ref().map_or_else(|| record.account.id.to_string(), |(name, _)| name.clone()),
        devices: record
            .account
            .devices
            .iter()
            .map(|device| DeviceView {
                id: device.id,
                fingerprint: fingerprint(&device.keys.identity),
                identity: device.keys.identity,
                added_at: device.added_at,
                revoked: device.revoked,
                own: device.id == core.me().device,
            })
            .collect(),
        changes: record
            .changes
            .iter()
            .map(|(at, device, added)| KeyChangeView { at: *at, device: *device, added: *added })
            .collect(),
        verified,
        changed_since_verified: record.verified.is_some() && !verified,
    }
}

/// What two people read to each other: the first 32 bytes of the key's hash (256 bits, so that nobody finds a second
/// key for it), in groups of four digits.
fn fingerprint(identity: &zixt_types::Hash) -> String {
    let text = identity.to_hex();
    let groups: Vec<&str> =
        text.as_bytes()[..64].chunks(4).filter_map(|group| std::str::from_utf8(group).ok()).collect();
    groups.join(" ")
}
