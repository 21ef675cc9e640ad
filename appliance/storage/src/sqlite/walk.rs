//! Reading everything, for `fsck`.

use super::rows::{self, Reading, entry_columns};
use super::{MIGRATIONS, SqliteStore, int};
use crate::{Position, StoreError, StoredEntry};
use futures_util::TryStreamExt;
use sqlx::sqlite::SqliteRow;
use sqlx::{Connection, Row, SqliteConnection};
use std::collections::{BTreeMap, BTreeSet};
use zixt_types::{AccountId, DeviceId, Height, Member, ThreadId};

/// What is stored of a height beside its header.
#[derive(Debug, Default)]
pub(crate) struct HeightRows {
    /// The entries by position.
    pub(crate) entries: BTreeMap<u64, Result<EntryRow, StoreError>>,
    /// Attachments by position and index.
    pub(crate) attachments: BTreeMap<(u64, usize), Vec<u8>>,
}

/// An entry with what its row says of it beside.
#[derive(Debug)]
pub(crate) struct EntryRow {
    pub(crate) entry: StoredEntry,
    /// The length of its envelope.
    pub(crate) envelope_bytes: u64,
    /// The thread under which it stands; `None` if there is no such row.
    pub(crate) thread: Option<ThreadId>,
}

/// A row of a table that the ledger does not bind, or a row that nothing refers to.
#[derive(Debug)]
pub(crate) enum SideRow {
    Membership { member: Member, thread: ThreadId, first: Position, last: Option<Position> },
    Cursor { member: Member, position: Position },
    KeyPackage { id: i64, device: DeviceId, package: Option<Vec<u8>> },
    Name { account: AccountId, tag: Vec<u8>, sealed: Vec<u8> },
}

impl SqliteStore {
    /// What SQLite itself finds wrong with the file, its indexes and references.
    pub(crate) async fn integrity(&self) -> Result<Vec<String>, StoreError> {
        let mut findings: Vec<String> =
            sqlx::query_scalar("PRAGMA integrity_check(100)").fetch_all(&mut *self.reader().await?).await?;
        findings.retain(|finding| finding != "ok");
        for row in sqlx::query("PRAGMA foreign_key_check").fetch_all(&mut *self.reader().await?).await? {
            let (table, parent): (String, String) = (text(&row, 0), text(&row, 2));
            let row = row.try_get::<i64, _>(1).map_or_else(|_| "?".to_owned(), |row| row.to_string());
            findings.push(format!("table {table}, row {row}: names a row of {parent} that is not there"));
        }
        Ok(findings)
    }

    /// Tables, indexes, triggers and views that are not the schema's, and those that are missing.
    pub(crate) async fn schema_differences(&self) -> Result<Vec<(String, bool)>, StoreError> {
        let mut fresh = SqliteConnection::connect("sqlite::memory:").await?;
        for step in MIGRATIONS {
            sqlx::raw_sql(step).execute(&mut fresh).await?;
        }
        let wanted = schema(&mut fresh).await?;
        fresh.close().await?;
        let found = schema(&mut *self.reader().await?).await?;
        let extra = found.difference(&wanted).map(|name| (name.clone(), true));
        let missing = wanted.difference(&found).map(|name| (name.clone(), false));
        Ok(extra.chain(missing).collect())
    }

    /// The number of headers and the largest height.
    pub(crate) async fn header_count(&self) -> Result<(u64, u64), StoreError> {
        let row = sqlx::query("SELECT count(*) AS n, coalesce(max(height), 0) AS last FROM headers")
            .fetch_one(&mut *self.reader().await?)
            .await?;
        let row = Reading { row: &row, table: "headers", key: "?".to_owned() };
        Ok((row.number("n")?, row.number("last")?))
    }

    /// The next stored height.
    pub(crate) async fn next_height(&self, after: Height) -> Result<Option<Height>, StoreError> {
        let sql = "SELECT min(height) FROM headers WHERE height > ?";
        let next: Option<i64> =
            sqlx::query_scalar(sql).bind(int(after.0)).fetch_one(&mut *self.reader().await?).await?;
        Ok(next.and_then(|height| u64::try_from(height).ok()).map(Height))
    }

    /// The rows of the entries `from..to`.
    pub(crate) async fn height_rows(&self, from: Position, to: Position) -> Result<HeightRows, StoreError> {
        let mut found = HeightRows::default();
        let sql = concat!(
            "SELECT ",
            entry_columns!(),
            " FROM entries e LEFT JOIN threads t ON t.no = e.thread WHERE e.position >= ? AND e.position < ?"
        );
        let mut reader = self.reader().await?;
        let mut rows = sqlx::query(sql).bind(int(from.0)).bind(int(to.0)).fetch(&mut *reader);
        while let Some(row) = rows.try_next().await? {
            let reading = Reading { row: &row, table: "entries", key: "?".to_owned() };
            let position = reading.number("position")?;
            let read = || {
                let entry = rows::entry_of_any_thread(&row)?;
                let thread = reading.get::<Option<&[u8]>>("thread")?;
                let thread = thread.and_then(|id| ThreadId::try_from(id).ok());
                Ok(EntryRow { entry, envelope_bytes: reading.number("envelope_bytes")?, thread })
            };
            found.entries.insert(position, read().map_err(|error| named(error, position)));
        }
        drop(rows);
        let sql = "SELECT id, bytes FROM attachments WHERE id >= ? AND id < ?";
        let (from, to) = (rows::attachment_id(from, 0), rows::attachment_id(to, 0));
        let mut reader = self.reader().await?;
        let mut rows = sqlx::query(sql).bind(from).bind(to).fetch(&mut *reader);
        while let Some(row) = rows.try_next().await? {
            let reading = Reading { row: &row, table: "attachments", key: "?".to_owned() };
            let id = reading.number("id")?;
            found.attachments.insert((id / 4, usize::from((id % 4) as u8)), reading.get("bytes")?);
        }
        Ok(found)
    }

    /// Rows of the ledger's tables that lie outside of what the headers count: table and key. `sizes` are the trees'
    /// sizes, by number.
    pub(crate) async fn outside(
        &self,
        next: Position,
        sizes: &[u64],
    ) -> Result<Vec<(&'static str, String)>, StoreError> {
        let mut findings = Vec::new();
        let next = int(next.0);
        for (table, sql, limit) in [
            ("headers", "SELECT height FROM headers WHERE height < 1 AND ?1 = ?1 LIMIT 100", next),
            ("entries", "SELECT position FROM entries WHERE position < 1 OR position >= ? LIMIT 100", next),
            (
                "attachments",
                "SELECT id FROM attachments WHERE id < 4 OR id >= ? LIMIT 100",
                next.saturating_mul(4),
            ),
        ] {
            let found: Vec<i64> =
                sqlx::query_scalar(sql).bind(limit).fetch_all(&mut *self.reader().await?).await?;
            findings.extend(found.into_iter().map(|key| match table {
                "attachments" => (table, format!("{}/{}", key.div_euclid(4), key.rem_euclid(4))),
                _ => (table, key.to_string()),
            }));
        }
        let mut trees = vec![(
            "SELECT tree, leaf FROM nodes WHERE tree < 0 OR tree >= ? OR leaf < 0 LIMIT 100",
            int(sizes.len() as u64),
            0,
        )];
        trees.extend(sizes.iter().zip(0i64..).map(|(size, tree)| {
            ("SELECT tree, leaf FROM nodes WHERE tree = ? AND leaf >= ? LIMIT 100", tree, int(*size))
        }));
        for (sql, first, second) in trees {
            let mut query = sqlx::query(sql).bind(first);
            if sql.contains("leaf >= ?") {
                query = query.bind(second);
            }
            for row in query.fetch_all(&mut *self.reader().await?).await? {
                let row = Reading { row: &row, table: "nodes", key: "?".to_owned() };
                findings.push(("nodes", format!("{}/{}", row.get::<i64>("tree")?, row.get::<i64>("leaf")?)));
            }
        }
        Ok(findings)
    }

    /// Hands every row of `threads` to `take`, readable or not.
    pub(crate) async fn thread_rows(
        &self,
        mut take: impl FnMut(Result<(ThreadId, zixt_ledger::Thread), StoreError>),
    ) -> Result<(), StoreError> {
        let mut reader = self.reader().await?;
        let mut rows = sqlx::query("SELECT no, thread, state FROM threads").fetch(&mut *reader);
        while let Some(row) = rows.try_next().await? {
            take(super::read::thread(&row));
        }
        Ok(())
    }

    /// Hands every row of the tables beside the ledger to `take`, readable or not.
    pub(crate) async fn side_rows(
        &self,
        mut take: impl FnMut(Result<SideRow, StoreError>),
    ) -> Result<(), StoreError> {
        type Read = fn(&SqliteRow) -> Result<SideRow, StoreError>;
        let tables: [(&'static str, Read); 4] = [
            (
                "SELECT m.account, m.device, t.thread, m.first, m.last FROM memberships m \
                 LEFT JOIN threads t ON t.no = m.thread",
                membership,
            ),
            ("SELECT account, device, position FROM cursors", cursor),
            ("SELECT id, device, digest, last_resort, package FROM key_packages", key_package),
            ("SELECT account, tag, sealed FROM names", name),
        ];
        for (sql, read) in tables {
            let mut reader = self.reader().await?;
            let mut rows = sqlx::query(sql).fetch(&mut *reader);
            while let Some(row) = rows.try_next().await? {
                take(read(&row));
            }
        }
        Ok(())
    }
}

fn membership(row: &SqliteRow) -> Result<SideRow, StoreError> {
    let row = Reading { row, table: "memberships", key: "?".to_owned() };
    let member = Member { account: row.id("account")?, device: row.id("device")? };
    let row = Reading { key: member.device.to_string(), ..row };
    let last = match row.get::<Option<i64>>("last")? {
        None => None,
        Some(_) => Some(Position(row.number("last")?)),
    };
    Ok(SideRow::Membership { member, thread: row.id("thread")?, first: Position(row.number("first")?), last })
}

fn cursor(row: &SqliteRow) -> Result<SideRow, StoreError> {
    let row = Reading { row, table: "cursors", key: "?".to_owned() };
    let member = Member { account: row.id("account")?, device: row.id("device")? };
    Ok(SideRow::Cursor { member, position: Position(row.number("position")?) })
}

fn key_package(row: &SqliteRow) -> Result<SideRow, StoreError> {
    let row = Reading { row, table: "key_packages", key: "?".to_owned() };
    let id: i64 = row.get("id")?;
    let row = Reading { key: id.to_string(), ..row };
    let package: Option<Vec<u8>> = row.get("package")?;
    if let Some(package) = &package
        && zixt_crypto::digest::attachment_digest(package).as_ref() != row.get::<&[u8]>("digest")?
    {
        return Err(row.corrupt("the package does not have the stored digest"));
    }
    Ok(SideRow::KeyPackage { id, device: row.id("device")?, package })
}

fn name(row: &SqliteRow) -> Result<SideRow, StoreError> {
    let row = Reading { row, table: "names", key: "?".to_owned() };
    let account: AccountId = row.id("account")?;
    let row = Reading { key: account.to_string(), ..row };
    Ok(SideRow::Name { account, tag: row.get("tag")?, sealed: row.get("sealed")? })
}

/// Names the row in an error that could not.
fn named(error: StoreError, position: u64) -> StoreError {
    match error {
        StoreError::Corrupt { table, why, .. } => StoreError::corrupt(table, position, why),
        other => other,
    }
}

async fn schema(connection: &mut SqliteConnection) -> Result<BTreeSet<String>, StoreError> {
    let sql = "SELECT type || ' ' || name || coalesce(': ' || sql, '') FROM sqlite_schema \
               WHERE name NOT LIKE 'sqlite_stat%'";
    Ok(sqlx::query_scalar(sql).fetch_all(connection).await?.into_iter().collect())
}

fn text(row: &SqliteRow, column: usize) -> String {
    row.try_get(column).unwrap_or_else(|_| "?".to_owned())
}
