//! The one durable step of a height.

use super::rows;
use super::script::Script;
use super::{SqliteStore, Tip, Writer, int};
use crate::membership::{self, Change};
use crate::recent::Told;
use crate::{CommitError, Committed, Delivery, Position, StoreError, StoredEntry};
use sqlx::SqliteConnection;
use std::collections::HashMap;
use std::sync::Arc;
use tokio::sync::OwnedMutexGuard;
use zixt_ledger::{ProposedBlock, RecordedEntry, Thread, TreeId};
use zixt_types::{AccountId, Attachment, Canonical, Certificate, Hash, Height, Member, ThreadId};

/// What the write-ahead log grows by, about: a height of one short message changes some twenty pages.
const LOG_BYTES_PER_HEIGHT: u64 = 64 * 1024;
/// And for each entry: its own pages, and its share of the indexes'.
const LOG_BYTES_PER_ENTRY: u64 = 16 * 1024;

/// A height in an open transaction. If this is dropped, the transaction is undone by whoever writes next.
#[derive(Debug)]
pub(crate) struct StagedHeight {
    block: Arc<ProposedBlock>,
    step: Step,
}

#[derive(Debug)]
enum Step {
    /// The height was stored before, with another certificate perhaps.
    Stored { first: Position },
    /// Everything but header and certificate is written.
    Written { writer: OwnedMutexGuard<Writer>, first: Position, cursors: HashMap<Member, Position> },
}

impl SqliteStore {
    /// See [`crate::Store::stage_batch`].
    pub(crate) async fn stage_batch(&self, block: Arc<ProposedBlock>) -> Result<StagedHeight, CommitError> {
        let header = block.header();
        let mut writer = self.writer().await;
        let tip = match writer.tip {
            Some(tip) => tip,
            None => tip(&mut writer.connection).await?,
        };
        writer.tip = Some(tip);
        if header.height <= tip.height {
            let first = stored_already(&mut writer.connection, &block).await?;
            return Ok(StagedHeight { block, step: Step::Stored { first } });
        }
        if header.height != tip.height.next() {
            return Err(CommitError::Gap { last: tip.height, given: header.height });
        }
        if header.previous != tip.hash {
            return Err(CommitError::Previous {
                height: header.height,
                stored: tip.hash,
                given: header.previous,
            });
        }

        // If this future is dropped or fails half-way, whoever comes next reads it again.
        writer.tip = None;
        let first = tip.next;
        let cursors = self.cursors().clone();
        if let Err(error) = writer.begin_with(rows_of(&block, first, &cursors)).await {
            return Err(CommitError::Store(writer.undo(error).await));
        }
        Ok(StagedHeight { block, step: Step::Written { writer, first, cursors } })
    }

    /// See [`crate::Store::commit_staged`].
    pub(crate) async fn commit_staged(
        &self,
        staged: StagedHeight,
        certificate: &Certificate,
    ) -> Result<Committed, CommitError> {
        let StagedHeight { block, step } = staged;
        let header = block.header();
        if certificate.height != header.height || certificate.header != block.header_hash {
            return Err(CommitError::Certificate(header.height));
        }
        let (mut writer, first, cursors) = match step {
            Step::Written { writer, first, cursors } => (writer, first, cursors),
            Step::Stored { first } => return Ok(Committed::AlreadyStored { first }),
        };
        writer.end_with(header_row(&block, certificate, first)).await.map_err(CommitError::Store)?;
        self.forget_cursors(&cursors);
        let next = Position(first.0 + block.entries.len() as u64);
        writer.tip = Some(Tip { height: header.height, hash: block.header_hash, next });
        drop(writer);

        let mut bytes = LOG_BYTES_PER_HEIGHT;
        for (entry, index) in block.entries.iter().zip(0..) {
            let position = Position(first.0 + index);
            bytes +=
                LOG_BYTES_PER_ENTRY + entry.item.attachments.iter().map(|a| a.0.len() as u64).sum::<u64>();
            self.cache().put(delivery(entry, header.height, position));
            let first = entry.item.attachments.first().map(|Attachment(bytes)| bytes.as_slice());
            self.recent().push(Told {
                position,
                recipients: entry.recipients.clone(),
                envelope_bytes: u64::try_from(rows::envelope_bytes(&entry.body, first)).unwrap_or(u64::MAX),
            });
        }
        self.checkpoint_when_due(bytes);
        Ok(Committed::Stored { first })
    }

    /// See [`crate::Store::discard`].
    pub(crate) async fn discard(&self, staged: StagedHeight) {
        if let Step::Written { mut writer, .. } = staged.step {
            writer.undo(()).await;
        }
    }

    /// See [`crate::Store::commit_batch`].
    pub(crate) async fn commit_batch(
        &self,
        block: &Arc<ProposedBlock>,
        certificate: &Certificate,
    ) -> Result<Committed, CommitError> {
        let header = block.header();
        if certificate.height != header.height || certificate.header != block.header_hash {
            return Err(CommitError::Certificate(header.height));
        }
        let staged = self.stage_batch(Arc::clone(block)).await?;
        self.commit_staged(staged, certificate).await
    }
}

fn header_row(block: &ProposedBlock, certificate: &Certificate, first: Position) -> Script {
    let header = block.header();
    let mut script = Script::default();
    let row =
        script.add("INSERT INTO headers (height, hash, header, certificate, first) VALUES (?, ?, ?, ?, ?)");
    row.add(int(header.height.0));
    row.add(block.header_hash.as_ref());
    row.add(header.to_bytes());
    row.add(certificate.to_bytes());
    row.add(int(first.0));
    script
}

/// Everything of a height but its header, which comes with the certificate.
fn rows_of(block: &ProposedBlock, first: Position, cursors: &HashMap<Member, Position>) -> Script {
    let height = int(block.header().height.0);
    let mut script = Script::default();
    // Entries name the header, which comes last.
    script.add("PRAGMA defer_foreign_keys = ON");
    script.insert(
        "INSERT INTO threads (thread, state) VALUES ",
        "(?, ?)",
        " ON CONFLICT (thread) DO UPDATE SET state = excluded.state",
        &block.threads,
        |row, (id, thread)| {
            row.add(id.as_ref());
            row.add(thread_bytes(thread));
        },
    );

    let placed: Vec<(Position, &RecordedEntry)> =
        block.entries.iter().zip(first.0..).map(|(entry, position)| (Position(position), entry)).collect();
    script.insert(
        "INSERT INTO entries (position, height, thread, seq, kind, shard, leaf, time, envelope_bytes, message_id, \
         hash, prev, salt, body, signature, possession) VALUES ",
        "(?, ?, (SELECT no FROM threads WHERE thread = ?), ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        "",
        &placed,
        |row, (position, entry)| {
            let item = &entry.item;
            let first = item.attachments.first().map(|Attachment(bytes)| bytes.as_slice());
            row.add(int(position.0));
            row.add(height);
            row.add(entry.body.thread.as_ref());
            row.add(int(item.position.seq.0));
            row.add(entry.kind() as i64);
            row.add(i64::from(entry.shard.0));
            row.add(int(entry.leaf));
            row.add(int(item.position.time.0));
            row.add(rows::envelope_bytes(&entry.body, first));
            row.add(entry.body.message_id.as_ref());
            row.add(entry.hash.as_ref());
            row.add(item.position.prev.as_ref());
            row.add(item.salt.as_ref());
            row.add(item.body.as_slice());
            row.add(item.signature.as_slice());
            row.add(item.possession.as_deref());
        },
    );

    let attachments: Vec<(i64, &[u8])> = placed
        .iter()
        .flat_map(|(position, entry)| {
            let all = entry.item.attachments.iter().enumerate();
            all.map(|(index, Attachment(bytes))| (rows::attachment_id(*position, index), bytes.as_slice()))
        })
        .collect();
    script.insert(
        "INSERT INTO attachments (id, bytes) VALUES ",
        "(?, ?)",
        "",
        &attachments,
        |row, (id, bytes)| {
            row.add(*id);
            row.add(*bytes);
        },
    );

    script.insert(
        "INSERT INTO nodes (tree, leaf, hashes) VALUES ",
        "(?, ?, ?)",
        "",
        &node_rows(block),
        |row, (tree, leaf, hashes)| {
            row.add(*tree);
            row.add(int(*leaf));
            row.add(hashes.as_slice());
        },
    );

    let accounts: HashMap<&ThreadId, AccountId> =
        block.threads.iter().filter_map(|(id, thread)| Some((id, thread.account()?.id))).collect();
    for (position, entry) in &placed {
        let thread = &entry.body.thread;
        for change in membership::changes(&entry.body, accounts.get(thread).copied()) {
            add_membership(&mut script, thread, *position, change);
        }
    }
    super::side::add_cursors(&mut script, cursors);
    script
}

fn add_membership(script: &mut Script, thread: &ThreadId, position: Position, change: Change) {
    let (member, at, sql) = match change {
        Change::Begin(member) => (member, position.0, BEGIN_MEMBERSHIP),
        Change::EndAfter(member) => (member, position.0, END_MEMBERSHIP),
        Change::EndBefore(member) => (member, position.0 - 1, END_MEMBERSHIP),
    };
    let row = script.add(sql);
    row.add(int(at));
    row.add(thread.as_ref());
    row.add(member.account.as_ref());
    row.add(member.device.as_ref());
}

const BEGIN_MEMBERSHIP: &str = "INSERT INTO memberships (first, thread, account, device) \
                                VALUES (?, (SELECT no FROM threads WHERE thread = ?), ?, ?)";
const END_MEMBERSHIP: &str = "UPDATE memberships SET last = ? WHERE thread = (SELECT no FROM threads WHERE thread = ?) \
     AND account = ? AND device = ? AND last IS NULL";

/// The rows of `nodes`: for each leaf the nodes that it completes, from the leaf up.
fn node_rows(block: &ProposedBlock) -> Vec<(i64, u64, Vec<u8>)> {
    let mut rows: Vec<(i64, u64, Vec<u8>)> = Vec::with_capacity(block.entries.len() + 1);
    // The block lists them as each leaf completed them: a leaf begins a row, and what follows of its tree belongs to it.
    let mut last: HashMap<TreeId, usize> = HashMap::new();
    for (tree, node) in &block.nodes {
        if node.level == 0 {
            last.insert(*tree, rows.len());
            rows.push((rows::tree_number(*tree), node.index, node.hash.as_ref().to_vec()));
        } else if let Some(row) = last.get(tree).and_then(|at| rows.get_mut(*at)) {
            row.2.extend_from_slice(node.hash.as_ref());
        }
    }
    rows
}

async fn stored_already(
    connection: &mut SqliteConnection,
    block: &ProposedBlock,
) -> Result<Position, CommitError> {
    let height = block.header().height;
    let row = sqlx::query("SELECT height, hash, header, certificate, first FROM headers WHERE height = ?")
        .bind(int(height.0))
        .fetch_optional(connection)
        .await
        .map_err(StoreError::from)?
        .ok_or_else(|| StoreError::corrupt("headers", height, "the row is missing"))?;
    let stored = rows::header(&row)?;
    if stored.hash == block.header_hash {
        Ok(stored.first)
    } else {
        Err(CommitError::OtherHeader { height, stored: stored.hash, given: block.header_hash })
    }
}

async fn tip(connection: &mut SqliteConnection) -> Result<Tip, StoreError> {
    let sql = "SELECT height, hash, header, certificate, first FROM headers ORDER BY height DESC LIMIT 1";
    match sqlx::query(sql).fetch_optional(connection).await? {
        None => Ok(Tip { height: Height(0), hash: Hash::ZERO, next: Position(1) }),
        Some(row) => {
            let last = rows::header(&row)?;
            Ok(Tip { height: last.header.height, hash: last.hash, next: last.next() })
        }
    }
}

fn delivery(entry: &RecordedEntry, height: Height, position: Position) -> Delivery {
    let item = &entry.item;
    let stored = StoredEntry {
        position,
        height,
        shard: entry.shard,
        leaf: entry.leaf,
        hash: entry.hash,
        body: entry.body.clone(),
        body_bytes: item.body.clone(),
        signature: item.signature.clone(),
        possession: item.possession.clone(),
        place: item.position,
        salt: item.salt,
    };
    let envelope = stored.envelope_digest().and(item.attachments.first());
    let envelope = envelope.map(|Attachment(bytes)| Arc::new(bytes.clone()));
    Delivery { entry: Arc::new(stored), envelope }
}

pub(super) fn thread_bytes(thread: &Thread) -> Vec<u8> {
    let mut bytes = Vec::new();
    match minicbor::encode(thread, &mut bytes) {
        Ok(()) => bytes,
        Err(_) => unreachable!("encoding to memory"),
    }
}
