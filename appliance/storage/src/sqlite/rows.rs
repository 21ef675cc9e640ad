//! From rows to types. What a row may hold is decided here, and a row that holds anything else is named.

use super::int;
use crate::model::attachment_count;
use crate::{Position, StoreError, StoredEntry, StoredHeader};
use sqlx::sqlite::SqliteRow;
use sqlx::{Decode, Row, Sqlite, Type};
use zixt_ledger::TreeId;
use zixt_types::{
    Body, BodyKind, Canonical, EntryPosition, Hash, Height, MessageId, Salt, Seq, ShardId, ThreadId,
    Timestamp,
};

/// The columns that [`entry`] reads.
macro_rules! entry_columns {
    () => {
        "e.position, e.height, t.thread, e.seq, e.kind, e.shard, e.leaf, e.time, e.envelope_bytes, e.message_id, \
         e.hash, e.prev, e.salt, e.body, e.signature, e.possession"
    };
}
pub(super) use entry_columns;

/// A row under reading, with its name for error messages.
pub(super) struct Reading<'a> {
    pub(super) row: &'a SqliteRow,
    pub(super) table: &'static str,
    pub(super) key: String,
}

impl Reading<'_> {
    pub(super) fn corrupt(&self, why: impl ToString) -> StoreError {
        StoreError::corrupt(self.table, &self.key, why)
    }

    pub(super) fn get<'r, T: Decode<'r, Sqlite> + Type<Sqlite>>(
        &'r self,
        column: &'static str,
    ) -> Result<T, StoreError> {
        self.row.try_get(column).map_err(|error| self.corrupt(error))
    }

    pub(super) fn number(&self, column: &'static str) -> Result<u64, StoreError> {
        u64::try_from(self.get::<i64>(column)?).map_err(|_| self.corrupt(format!("{column} is negative")))
    }

    pub(super) fn id<T: for<'b> TryFrom<&'b [u8]>>(&self, column: &'static str) -> Result<T, StoreError> {
        T::try_from(self.get::<&[u8]>(column)?)
            .map_err(|_| self.corrupt(format!("{column} has the wrong length")))
    }
}

pub(super) fn entry(row: &SqliteRow) -> Result<StoredEntry, StoreError> {
    let entry = entry_of_any_thread(row)?;
    let row = Reading { row, table: "entries", key: entry.position.to_string() };
    if row.id::<ThreadId>("thread")? != entry.body.thread {
        return Err(row.corrupt("the body belongs into another thread"));
    }
    Ok(entry)
}

/// An entry, whichever thread its row stands under: `fsck` looks at that apart.
pub(super) fn entry_of_any_thread(row: &SqliteRow) -> Result<StoredEntry, StoreError> {
    let position: i64 =
        row.try_get("position").map_err(|error| StoreError::corrupt("entries", "?", error))?;
    let row = Reading { row, table: "entries", key: position.to_string() };
    let body_bytes: Vec<u8> = row.get("body")?;
    let body = Body::parse(&body_bytes).map_err(|error| row.corrupt(error))?;
    let shard = u16::try_from(row.number("shard")?).map_err(|_| row.corrupt("shard is too large"))?;
    let entry = StoredEntry {
        position: Position(row.number("position")?),
        height: Height(row.number("height")?),
        shard: ShardId(shard),
        leaf: row.number("leaf")?,
        hash: row.id::<Hash>("hash")?,
        body_bytes,
        signature: row.get("signature")?,
        possession: row.get("possession")?,
        place: EntryPosition {
            seq: Seq(row.number("seq")?),
            prev: row.id::<Hash>("prev")?,
            time: Timestamp(row.number("time")?),
        },
        salt: row.id::<Salt>("salt")?,
        body,
    };
    if row.id::<MessageId>("message_id")? != entry.body.message_id {
        return Err(row.corrupt("the body has another message id"));
    }
    if row.number("kind")? != entry.body.payload.kind() as u64 {
        return Err(row.corrupt("the body is of another kind"));
    }
    if entry.computed_hash() != entry.hash {
        return Err(row.corrupt("body, signatures and place do not have the stored hash"));
    }
    Ok(entry)
}

pub(super) fn header(row: &SqliteRow) -> Result<StoredHeader, StoreError> {
    let height: i64 = row.try_get("height").map_err(|error| StoreError::corrupt("headers", "?", error))?;
    let row = Reading { row, table: "headers", key: height.to_string() };
    StoredHeader::parse(
        row.number("height")?,
        row.get("hash")?,
        row.get("header")?,
        row.get("certificate")?,
        row.number("first")?,
    )
}

/// Attachments of one entry lie side by side; no entry has more than four.
pub(super) fn attachment_id(position: Position, index: usize) -> i64 {
    debug_assert!(index < 4);
    int(position.0.saturating_mul(4).saturating_add(index as u64 & 3))
}

/// An attachment's id as `fsck` names it.
pub(super) fn attachment_name(position: Position, index: usize) -> String {
    format!("{position}/{index}")
}

pub(super) fn check_attachment(entry: &StoredEntry, index: usize, bytes: &[u8]) -> Result<(), StoreError> {
    entry
        .check_attachment(index, bytes)
        .map_err(|why| StoreError::corrupt("attachments", attachment_name(entry.position, index), why))
}

/// How a tree is numbered: 0 is the history, a shard's tree is its number plus 1.
pub(super) fn tree_number(tree: TreeId) -> i64 {
    match tree {
        TreeId::History => 0,
        TreeId::Shard(shard) => i64::from(shard.0) + 1,
    }
}

/// The nodes that a leaf completes: itself and one more for each perfect subtree that ends with it.
pub(super) fn completed_by(leaf: u64) -> usize {
    leaf.trailing_ones() as usize + 1
}

/// Reads the hashes of a row of `nodes`.
pub(super) fn hashes(tree: i64, leaf: u64, bytes: &[u8]) -> Result<Vec<Hash>, StoreError> {
    if bytes.len() != completed_by(leaf) * Hash::LEN {
        let why = format!("it holds {} bytes, not {} hashes", bytes.len(), completed_by(leaf));
        return Err(StoreError::corrupt("nodes", format!("{tree}/{leaf}"), why));
    }
    Ok(bytes.as_chunks::<{ Hash::LEN }>().0.iter().map(|chunk| Hash(*chunk)).collect())
}

pub(super) fn envelope_bytes(body: &Body, first: Option<&[u8]>) -> i64 {
    match (attachment_count(body), body.payload.kind()) {
        // Keys are no envelopes.
        (0, _) | (_, BodyKind::DeviceAdd | BodyKind::Decision) => 0,
        _ => int(first.map_or(0, <[u8]>::len) as u64),
    }
}
