//! The one durable step of a height.

use super::rows::{self, Reading};
use super::{SqliteStore, Tip, Writer, int};
use crate::membership::{self, Change};
use crate::recent::Told;
use crate::{CommitError, Committed, Delivery, Position, StoreError, StoredEntry};
use sqlx::sqlite::SqliteArguments;
use sqlx::{Arguments, AssertSqlSafe, Encode, Sqlite, SqliteConnection, Type};
use std::collections::HashMap;
use std::sync::Arc;
use tokio::sync::OwnedMutexGuard;
use zixt_ledger::{ProposedBlock, RecordedEntry, Thread, TreeId};
use zixt_types::{AccountId, Attachment, Canonical, Certificate, Hash, Height, Member, ThreadId};

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
        let written = match writer.begin().await {
            Ok(connection) => write(connection, &block, first, &cursors).await,
            Err(error) => Err(error),
        };
        if let Err(error) = written {
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
        let written = write_header(&mut writer.connection, &block, certificate, first).await;
        writer.end(written).await.map_err(CommitError::Store)?;
        self.forget_cursors(&cursors);
        let next = Position(first.0 + block.entries.len() as u64);
        writer.tip = Some(Tip { height: header.height, hash: block.header_hash, next });
        drop(writer);

        let mut bytes = 0;
        for (entry, index) in block.entries.iter().zip(0..) {
            let position = Position(first.0 + index);
            bytes += 8192 + entry.item.attachments.iter().map(|a| a.0.len() as u64).sum::<u64>();
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

async fn write_header(
    connection: &mut SqliteConnection,
    block: &ProposedBlock,
    certificate: &Certificate,
    first: Position,
) -> Result<(), StoreError> {
    let header = block.header();
    sqlx::query("INSERT INTO headers (height, hash, header, certificate, first) VALUES (?, ?, ?, ?, ?)")
        .bind(int(header.height.0))
        .bind(block.header_hash.as_ref())
        .bind(header.to_bytes())
        .bind(certificate.to_bytes())
        .bind(int(first.0))
        .execute(&mut *connection)
        .await?;
    Ok(())
}

/// Everything of a height but its header, which comes with the certificate.
async fn write(
    connection: &mut SqliteConnection,
    block: &ProposedBlock,
    first: Position,
    cursors: &HashMap<Member, Position>,
) -> Result<(), StoreError> {
    let height = int(block.header().height.0);
    // Entries name the header, which comes last.
    sqlx::query("PRAGMA defer_foreign_keys = ON").execute(&mut *connection).await?;
    let threads = write_threads(connection, &block.threads).await?;
    let number = |thread: &ThreadId| {
        threads
            .get(thread)
            .copied()
            .ok_or_else(|| StoreError::corrupt("threads", thread, "it was not written"))
    };

    let placed: Vec<(Position, i64, &RecordedEntry)> = block
        .entries
        .iter()
        .zip(first.0..)
        .map(|(entry, position)| Ok((Position(position), number(&entry.body.thread)?, entry)))
        .collect::<Result<_, StoreError>>()?;
    insert(
        connection,
        "INSERT INTO entries (position, height, thread, seq, kind, shard, leaf, time, envelope_bytes, message_id, \
         hash, prev, salt, body, signature, possession) VALUES ",
        16,
        &placed,
        |row, (position, thread, entry)| {
            let item = &entry.item;
            let first = item.attachments.first().map(|Attachment(bytes)| bytes.as_slice());
            row.add(int(position.0));
            row.add(height);
            row.add(*thread);
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
    )
    .await?;

    let attachments: Vec<(i64, &[u8])> = placed
        .iter()
        .flat_map(|(position, _, entry)| {
            let all = entry.item.attachments.iter().enumerate();
            all.map(|(index, Attachment(bytes))| (rows::attachment_id(*position, index), bytes.as_slice()))
        })
        .collect();
    let sql = "INSERT INTO attachments (id, bytes) VALUES ";
    insert(connection, sql, 2, &attachments, |row, (id, bytes)| {
        row.add(*id);
        row.add(*bytes);
    })
    .await?;

    let sql = "INSERT INTO nodes (tree, leaf, hashes) VALUES ";
    insert(connection, sql, 3, &node_rows(block), |row, (tree, leaf, hashes)| {
        row.add(*tree);
        row.add(int(*leaf));
        row.add(hashes.as_slice());
    })
    .await?;

    let accounts: HashMap<&ThreadId, AccountId> =
        block.threads.iter().filter_map(|(id, thread)| Some((id, thread.account()?.id))).collect();
    for (position, thread, entry) in &placed {
        for change in membership::changes(&entry.body, accounts.get(&entry.body.thread).copied()) {
            apply_membership(connection, *thread, *position, change).await?;
        }
    }
    super::side::write_cursors(connection, cursors).await
}

/// Stores the threads' new states and returns the numbers under which entries name them.
async fn write_threads(
    connection: &mut SqliteConnection,
    threads: &[(ThreadId, Arc<Thread>)],
) -> Result<HashMap<ThreadId, i64>, StoreError> {
    let mut numbers = HashMap::with_capacity(threads.len());
    let mut rest = threads;
    while !rest.is_empty() {
        let (chunk, later) = rest.split_at(chunk_len(rest.len()));
        rest = later;
        let sql = statement("INSERT INTO threads (thread, state) VALUES ", 2, chunk.len())
            + " ON CONFLICT (thread) DO UPDATE SET state = excluded.state RETURNING no, thread";
        let mut row = RowArguments::default();
        for (id, thread) in chunk {
            row.add(id.as_ref());
            row.add(thread_bytes(thread));
        }
        for row in sqlx::query_with(AssertSqlSafe(sql), row.0).fetch_all(&mut *connection).await? {
            let row = Reading { row: &row, table: "threads", key: String::new() };
            numbers.insert(row.id("thread")?, row.get("no")?);
        }
    }
    Ok(numbers)
}

async fn apply_membership(
    connection: &mut SqliteConnection,
    thread: i64,
    position: Position,
    change: Change,
) -> Result<(), StoreError> {
    let (member, at, sql) = match change {
        Change::Begin(member) => (
            member,
            position.0,
            "INSERT INTO memberships (first, thread, account, device) VALUES (?, ?, ?, ?)",
        ),
        Change::EndAfter(member) => (member, position.0, END_MEMBERSHIP),
        Change::EndBefore(member) => (member, position.0 - 1, END_MEMBERSHIP),
    };
    sqlx::query(sql)
        .bind(int(at))
        .bind(thread)
        .bind(member.account.as_ref())
        .bind(member.device.as_ref())
        .execute(connection)
        .await?;
    Ok(())
}

const END_MEMBERSHIP: &str =
    "UPDATE memberships SET last = ? WHERE thread = ? AND account = ? AND device = ? AND last IS NULL";

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

/// Values of many rows in one statement.
#[derive(Default)]
pub(super) struct RowArguments(pub(super) SqliteArguments);

impl RowArguments {
    pub(super) fn add<'t, T: Encode<'t, Sqlite> + Type<Sqlite>>(&mut self, value: T) {
        // Only text with a zero byte or a number out of range can fail to encode; we bind neither.
        if self.0.add(value).is_err() {
            unreachable!("numbers and bytes always encode");
        }
    }
}

/// Inserts rows with few statements. Their lengths are few too, so that each is prepared once.
pub(super) async fn insert<R>(
    connection: &mut SqliteConnection,
    prefix: &'static str,
    columns: usize,
    rows: &[R],
    bind: impl Fn(&mut RowArguments, &R),
) -> Result<(), StoreError> {
    let mut rest = rows;
    while !rest.is_empty() {
        let (chunk, later) = rest.split_at(chunk_len(rest.len()));
        rest = later;
        let mut arguments = RowArguments::default();
        chunk.iter().for_each(|row| bind(&mut arguments, row));
        let sql = statement(prefix, columns, chunk.len());
        sqlx::query_with(AssertSqlSafe(sql), arguments.0).execute(&mut *connection).await?;
    }
    Ok(())
}

fn chunk_len(rows: usize) -> usize {
    [64, 16, 4].into_iter().find(|len| *len <= rows).unwrap_or(1)
}

fn statement(prefix: &str, columns: usize, rows: usize) -> String {
    let row = format!("({})", vec!["?"; columns].join(", "));
    format!("{prefix}{}", vec![row; rows].join(", "))
}
