//! What readers ask for.

use super::rows::{self, Reading, entry_columns};
use super::{SqliteStore, int};
use crate::{Delivery, Mailbox, Position, StoreError, StoredEntry, StoredHeader};
use futures_util::TryStreamExt;
use sqlx::sqlite::SqliteRow;
use std::collections::HashMap;
use std::fmt::Write;
use std::sync::Arc;
use zixt_ledger::tree::NodeId;
use zixt_ledger::{Thread, TreeId};
use zixt_types::{Hash, Height, Member, MessageId, Seq, ThreadId, ThreadKind};

/// Bytes of envelopes, or of bodies, in one answer; but one at least. Some two hundred messages.
const PAGE_BYTES_MAX: u64 = 1024 * 1024;
/// How far a mailbox looks at first; it looks further when it finds too little. Keeps a page's cost independent of how
/// much waits behind it.
const WINDOW: u64 = 4096;

impl SqliteStore {
    pub(crate) async fn header(&self, height: Height) -> Result<Option<StoredHeader>, StoreError> {
        let sql = "SELECT height, hash, header, certificate, first FROM headers WHERE height = ?";
        let row = sqlx::query(sql).bind(int(height.0)).fetch_optional(&mut *self.reader().await?).await?;
        row.as_ref().map(rows::header).transpose()
    }

    pub(crate) async fn last_header(&self) -> Result<Option<StoredHeader>, StoreError> {
        let sql = "SELECT height, hash, header, certificate, first FROM headers ORDER BY height DESC LIMIT 1";
        let row = sqlx::query(sql).fetch_optional(&mut *self.reader().await?).await?;
        row.as_ref().map(rows::header).transpose()
    }

    pub(crate) async fn headers(&self, from: Height, limit: usize) -> Result<Vec<StoredHeader>, StoreError> {
        let sql = "SELECT height, hash, header, certificate, first FROM headers WHERE height >= ? \
                   ORDER BY height LIMIT ?";
        let found = sqlx::query(sql)
            .bind(int(from.0))
            .bind(int(limit as u64))
            .fetch_all(&mut *self.reader().await?)
            .await?;
        found.iter().map(rows::header).collect()
    }

    pub(crate) async fn receipt_source(
        &self,
        thread: &ThreadId,
        message_id: &MessageId,
    ) -> Result<Option<StoredEntry>, StoreError> {
        let sql = concat!(
            "SELECT ",
            entry_columns!(),
            " FROM threads t JOIN entries e ON e.thread = t.no \
             WHERE t.thread = ? AND e.message_id = ? ORDER BY e.position LIMIT 1"
        );
        let row = sqlx::query(sql)
            .bind(thread.as_ref())
            .bind(message_id.as_ref())
            .fetch_optional(&mut *self.reader().await?)
            .await?;
        row.as_ref().map(rows::entry).transpose()
    }

    pub(crate) async fn entry(&self, thread: &ThreadId, seq: Seq) -> Result<Option<StoredEntry>, StoreError> {
        let sql = concat!(
            "SELECT ",
            entry_columns!(),
            " FROM threads t JOIN entries e ON e.thread = t.no WHERE t.thread = ? AND e.seq = ?"
        );
        let row = sqlx::query(sql)
            .bind(thread.as_ref())
            .bind(int(seq.0))
            .fetch_optional(&mut *self.reader().await?)
            .await?;
        row.as_ref().map(rows::entry).transpose()
    }

    pub(crate) async fn entries(
        &self,
        thread: &ThreadId,
        from: Seq,
        limit: usize,
    ) -> Result<Vec<StoredEntry>, StoreError> {
        let sql = concat!(
            "SELECT ",
            entry_columns!(),
            " FROM threads t JOIN entries e ON e.thread = t.no WHERE t.thread = ? AND e.seq >= ? \
             ORDER BY e.seq LIMIT ?"
        );
        let mut reader = self.reader().await?;
        let mut rows = sqlx::query(sql)
            .bind(thread.as_ref())
            .bind(int(from.0))
            .bind(int(limit as u64))
            .fetch(&mut *reader);
        let (mut entries, mut bytes) = (Vec::new(), 0);
        while let Some(row) = rows.try_next().await? {
            let entry = rows::entry(&row)?;
            // A short body's signatures are longer than the body.
            let possession = entry.possession.as_ref().map_or(0, Vec::len);
            bytes += (entry.body_bytes.len() + entry.signature.len() + possession) as u64;
            if bytes > PAGE_BYTES_MAX && !entries.is_empty() {
                break;
            }
            entries.push(entry);
        }
        Ok(entries)
    }

    pub(crate) async fn last_position(&self) -> Result<Position, StoreError> {
        let last: i64 = sqlx::query_scalar("SELECT coalesce(max(position), 0) FROM entries")
            .fetch_one(&mut *self.reader().await?)
            .await?;
        Ok(Position(u64::try_from(last).unwrap_or_default()))
    }

    pub(crate) async fn last_told(
        &self,
        thread: &ThreadId,
        member: &Member,
    ) -> Result<Option<Position>, StoreError> {
        let sql = "SELECT max(m.last) FROM memberships m JOIN threads t ON t.no = m.thread \
                   WHERE t.thread = ? AND m.account = ? AND m.device = ?";
        let last: Option<i64> = sqlx::query_scalar(sql)
            .bind(thread.as_ref())
            .bind(member.account.as_ref())
            .bind(member.device.as_ref())
            .fetch_one(&mut *self.reader().await?)
            .await?;
        Ok(last.map(|last| Position(u64::try_from(last).unwrap_or_default())))
    }

    pub(crate) async fn mailbox(
        &self,
        member: &Member,
        after: Position,
        limit: usize,
    ) -> Result<Mailbox, StoreError> {
        let recent = self.recent().since(member, after, limit, PAGE_BYTES_MAX);
        if let Some(mailbox) = recent {
            return Ok(mailbox);
        }
        // Each membership contributes a range of the index (thread, position); only the window's part is looked at.
        let sql = "SELECT e.position, e.envelope_bytes FROM memberships m \
                   JOIN entries e INDEXED BY entries_by_thread ON e.thread = m.thread \
                   AND e.position >= max(m.first, ?1) AND e.position <= min(coalesce(m.last, ?2), ?2) \
                   WHERE m.account = ?3 AND m.device = ?4 ORDER BY e.position LIMIT ?5";
        let end = int(self.last_position().await?.0);
        let mut found: Vec<SqliteRow> = Vec::new();
        let (mut from, mut window) = (int(after.0).saturating_add(1), int(WINDOW));
        while from <= end && found.len() < limit {
            let to = from.saturating_add(window - 1).min(end);
            let more = sqlx::query(sql)
                .bind(from)
                .bind(to)
                .bind(member.account.as_ref())
                .bind(member.device.as_ref())
                .bind(int((limit - found.len()) as u64))
                .fetch_all(&mut *self.reader().await?)
                .await?;
            found.extend(more);
            from = to.saturating_add(1);
            window = window.saturating_mul(8);
        }
        let (positions, envelope_bytes) = page(&found)?;
        let upto = match positions.last() {
            Some(last) if positions.len() < found.len() || found.len() >= limit => *last,
            _ => after.max(Position(u64::try_from(end).unwrap_or_default())),
        };
        Ok(Mailbox { positions, envelope_bytes, upto })
    }

    /// What the cache has, and the rest in one query.
    pub(crate) async fn deliveries(&self, positions: &[Position]) -> Result<Vec<Delivery>, StoreError> {
        let mut found: HashMap<Position, Delivery> = HashMap::with_capacity(positions.len());
        let mut missing = Vec::new();
        for position in positions {
            match self.cache().get(*position) {
                Some(delivery) => {
                    found.insert(*position, delivery);
                }
                None => missing.push(position.0),
            }
        }
        if !missing.is_empty() {
            let sql = concat!(
                "SELECT ",
                entry_columns!(),
                ", a.bytes FROM json_each(?) j JOIN entries e ON e.position = j.value \
                 JOIN threads t ON t.no = e.thread \
                 LEFT JOIN attachments a ON a.id = e.position * 4 AND e.kind <= 1"
            );
            let mut reader = self.reader().await?;
            let mut rows = sqlx::query(sql).bind(json_list(missing.into_iter())).fetch(&mut *reader);
            while let Some(row) = rows.try_next().await? {
                let delivery = delivery(&row)?;
                // What is missing may be put back.
                if delivery.envelope.is_some() || delivery.entry.envelope_digest().is_none() {
                    self.cache().put(delivery.clone());
                }
                found.insert(delivery.entry.position, delivery);
            }
        }
        let take = |position: &Position| {
            let gone = || StoreError::corrupt("entries", position, "an index names it, but it is not there");
            found.remove(position).ok_or_else(gone)
        };
        positions.iter().map(take).collect()
    }

    pub(crate) async fn attachment(
        &self,
        entry: &StoredEntry,
        index: usize,
    ) -> Result<Option<Vec<u8>>, StoreError> {
        if index >= entry.attachment_count() {
            return Ok(None);
        }
        let bytes: Option<Vec<u8>> = sqlx::query_scalar("SELECT bytes FROM attachments WHERE id = ?")
            .bind(rows::attachment_id(entry.position, index))
            .fetch_optional(&mut *self.reader().await?)
            .await?;
        if let Some(bytes) = &bytes {
            rows::check_attachment(entry, index, bytes)?;
        }
        Ok(bytes)
    }

    /// The length of a blob stands before it, so that SQLite does not read it.
    pub(crate) async fn attachment_bytes(
        &self,
        entry: &StoredEntry,
        index: usize,
    ) -> Result<Option<u64>, StoreError> {
        if index >= entry.attachment_count() {
            return Ok(None);
        }
        let bytes: Option<i64> = sqlx::query_scalar("SELECT length(bytes) FROM attachments WHERE id = ?")
            .bind(rows::attachment_id(entry.position, index))
            .fetch_optional(&mut *self.reader().await?)
            .await?;
        Ok(bytes.map(|bytes| u64::try_from(bytes).unwrap_or_default()))
    }

    pub(crate) async fn nodes(
        &self,
        wanted: &[(TreeId, NodeId)],
    ) -> Result<HashMap<(TreeId, NodeId), Hash>, StoreError> {
        // A node stands in the row of the last leaf below it.
        let row_of = |node: &NodeId| ((node.index + 1) << node.level) - 1;
        let mut list = String::from("[");
        for (tree, node) in wanted {
            let comma = if list.len() > 1 { "," } else { "" };
            let _ = write!(list, "{comma}[{},{}]", rows::tree_number(*tree), row_of(node));
        }
        list.push(']');
        let sql = "SELECT n.tree, n.leaf, n.hashes FROM json_each(?) j \
                   JOIN nodes n ON n.tree = j.value ->> 0 AND n.leaf = j.value ->> 1";
        let mut found: HashMap<(i64, u64), Vec<Hash>> = HashMap::with_capacity(wanted.len());
        for row in sqlx::query(sql).bind(list).fetch_all(&mut *self.reader().await?).await? {
            let row = Reading { row: &row, table: "nodes", key: "?".to_owned() };
            let (tree, leaf): (i64, u64) = (row.get("tree")?, row.number("leaf")?);
            found.insert((tree, leaf), rows::hashes(tree, leaf, row.get("hashes")?)?);
        }
        let hash = |(tree, node): &(TreeId, NodeId)| {
            let row = found.get(&(rows::tree_number(*tree), row_of(node)))?;
            Some(((*tree, *node), *row.get(usize::from(node.level))?))
        };
        Ok(wanted.iter().filter_map(hash).collect())
    }

    /// Leaves in each tree, by the rows that there are.
    pub(crate) async fn tree_size(&self, tree: TreeId) -> Result<u64, StoreError> {
        let leaf: Option<i64> = sqlx::query_scalar("SELECT max(leaf) FROM nodes WHERE tree = ?")
            .bind(rows::tree_number(tree))
            .fetch_one(&mut *self.reader().await?)
            .await?;
        Ok(leaf.map_or(0, |leaf| u64::try_from(leaf).map_or(0, |leaf| leaf.saturating_add(1))))
    }

    /// Hands every thread to `take`, one at a time.
    pub(crate) async fn each_thread(
        &self,
        mut take: impl FnMut(ThreadId, Thread) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let mut reader = self.reader().await?;
        let mut rows = sqlx::query("SELECT no, thread, state FROM threads ORDER BY no").fetch(&mut *reader);
        while let Some(row) = rows.try_next().await? {
            let (id, thread) = thread(&row)?;
            take(id, thread)?;
        }
        Ok(())
    }

    /// Hands every entry of every account's thread to `take`: thread by thread, each in order.
    pub(crate) async fn each_account_entry(
        &self,
        mut take: impl FnMut(StoredEntry) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        // Ids of accounts' threads are the range that begins with their kind, so that messages are not looked at. The
        // joins run in this order, along the indexes of threads by id and of entries by thread and seq.
        let sql = concat!(
            "SELECT ",
            entry_columns!(),
            " FROM threads t CROSS JOIN entries e ON e.thread = t.no WHERE t.thread >= ? AND t.thread < ? \
             ORDER BY t.thread, e.seq"
        );
        let kind = ThreadKind::Account as u8;
        let mut reader = self.reader().await?;
        let mut rows = sqlx::query(sql).bind(vec![kind]).bind(vec![kind + 1]).fetch(&mut *reader);
        while let Some(row) = rows.try_next().await? {
            take(rows::entry(&row)?)?;
        }
        Ok(())
    }

    /// Hands every device addition with its identity key to `take`.
    pub(crate) async fn each_device_key(
        &self,
        mut take: impl FnMut(StoredEntry, Vec<u8>) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let sql = concat!(
            "SELECT ",
            entry_columns!(),
            ", a.bytes FROM entries e INDEXED BY entries_of_devices JOIN threads t ON t.no = e.thread \
             LEFT JOIN attachments a ON a.id = e.position * 4 WHERE e.kind = 3 ORDER BY e.position"
        );
        let mut reader = self.reader().await?;
        let mut rows = sqlx::query(sql).fetch(&mut *reader);
        while let Some(row) = rows.try_next().await? {
            let entry = rows::entry(&row)?;
            let name = rows::attachment_name(entry.position, 0);
            let row = Reading { row: &row, table: "attachments", key: name };
            let key: Vec<u8> =
                row.get::<Option<Vec<u8>>>("bytes")?.ok_or_else(|| row.corrupt("the key is missing"))?;
            rows::check_attachment(&entry, 0, &key)?;
            take(entry, key)?;
        }
        Ok(())
    }
}

pub(super) fn thread(row: &SqliteRow) -> Result<(ThreadId, Thread), StoreError> {
    let no: i64 =
        sqlx::Row::try_get(row, "no").map_err(|error| StoreError::corrupt("threads", "?", error))?;
    let row = Reading { row, table: "threads", key: no.to_string() };
    let id: ThreadId = row.id("thread")?;
    let row = Reading { key: id.to_string(), ..row };
    let bytes: &[u8] = row.get("state")?;
    let thread: Thread = minicbor::decode(bytes).map_err(|error| row.corrupt(error))?;
    if super::commit::thread_bytes(&thread) != bytes {
        return Err(row.corrupt("the state is not deterministic CBOR"));
    }
    Ok((id, thread))
}

fn delivery(row: &SqliteRow) -> Result<Delivery, StoreError> {
    let entry = rows::entry(row)?;
    let name = rows::attachment_name(entry.position, 0);
    let row = Reading { row, table: "attachments", key: name };
    let whole = |bytes: Option<Vec<u8>>| match bytes {
        Some(bytes) => rows::check_attachment(&entry, 0, &bytes).map(|()| Some(bytes)),
        None => Ok(None),
    };
    let envelope = row.get("bytes").and_then(whole).unwrap_or_else(|error| {
        log::error!("an envelope is damaged: {error}");
        None
    });
    Ok(Delivery { entry: Arc::new(entry), envelope: envelope.map(Arc::new) })
}

/// The positions of an answer and the bytes of their envelopes, cut where their envelopes become too many bytes; never before the first.
fn page(found: &[SqliteRow]) -> Result<(Vec<Position>, u64), StoreError> {
    let mut bytes = 0u64;
    let mut positions = Vec::with_capacity(found.len());
    for row in found {
        let row = Reading { row, table: "entries", key: "?".to_owned() };
        let more = bytes.saturating_add(row.number("envelope_bytes")?);
        if more > PAGE_BYTES_MAX && !positions.is_empty() {
            break;
        }
        bytes = more;
        positions.push(Position(row.number("position")?));
    }
    Ok((positions, bytes))
}

fn json_list(numbers: impl Iterator<Item = u64>) -> String {
    let mut list = String::from("[");
    for number in numbers {
        let comma = if list.len() > 1 { "," } else { "" };
        let _ = write!(list, "{comma}{number}");
    }
    list.push(']');
    list
}
