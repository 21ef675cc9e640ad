//! What stands beside the ledger: how far each device has read, names, and small settings.

use super::rows::Reading;
use super::script::Script;
use super::{SqliteStore, int};
use crate::{Position, PutNameError, SealedName, StoreError};
use sqlx::SqliteConnection;
use std::collections::HashMap;
use zixt_types::{AccountId, Member};

/// Acknowledgements kept in memory before they are written without waiting for a commit.
const CURSORS_MAX: usize = 1024;

impl SqliteStore {
    pub(crate) async fn acknowledge(&self, member: &Member, position: Position) -> Result<(), StoreError> {
        let waiting = {
            let mut cursors = self.cursors();
            let known = cursors.entry(*member).or_default();
            *known = position.max(*known);
            cursors.len()
        };
        if waiting > CURSORS_MAX { self.flush_cursors().await } else { Ok(()) }
    }

    pub(crate) async fn acknowledged(&self, member: &Member) -> Result<Position, StoreError> {
        let waiting = self.cursors().get(member).copied().unwrap_or_default();
        let row = sqlx::query("SELECT position FROM cursors WHERE account = ? AND device = ?")
            .bind(member.account.as_ref())
            .bind(member.device.as_ref())
            .fetch_optional(&mut *self.reader().await?)
            .await?;
        let Some(row) = row else { return Ok(waiting) };
        let row = Reading { row: &row, table: "cursors", key: member.device.to_string() };
        Ok(waiting.max(Position(row.number("position")?)))
    }

    pub(super) async fn flush_cursors(&self) -> Result<(), StoreError> {
        let mut writer = self.writer().await;
        let cursors = self.cursors().clone();
        if cursors.is_empty() {
            return Ok(());
        }
        let mut script = Script::default();
        add_cursors(&mut script, &cursors);
        let written = writer.begin_with(script).await;
        writer.end(written).await?;
        self.forget_cursors(&cursors);
        Ok(())
    }

    /// Forgets acknowledgements that are written, unless they have grown since.
    pub(super) fn forget_cursors(&self, written: &HashMap<Member, Position>) {
        self.cursors()
            .retain(|member, position| written.get(member).is_none_or(|written| *position > *written));
    }

    pub(crate) async fn put_name(
        &self,
        account: AccountId,
        sealed: &[u8],
        tag: &[u8],
    ) -> Result<(), PutNameError> {
        let mut writer = self.writer().await;
        let put = match writer.begin().await {
            Ok(connection) => put_name(connection, account, sealed, tag).await,
            Err(error) => Err(error.into()),
        };
        writer.end(put).await
    }

    pub(crate) async fn name_by_tag(&self, tag: &[u8]) -> Result<Option<SealedName>, StoreError> {
        let sql = "SELECT account, sealed FROM names WHERE tag = ?";
        let row = sqlx::query(sql).bind(tag).fetch_optional(&mut *self.reader().await?).await?;
        row.as_ref().map(name).transpose()
    }

    pub(crate) async fn name(&self, account: AccountId) -> Result<Option<SealedName>, StoreError> {
        let sql = "SELECT account, sealed FROM names WHERE account = ?";
        let row = sqlx::query(sql).bind(account.as_ref()).fetch_optional(&mut *self.reader().await?).await?;
        row.as_ref().map(name).transpose()
    }

    pub(crate) async fn meta_get(&self, key: &str) -> Result<Option<Vec<u8>>, StoreError> {
        let sql = "SELECT value FROM meta WHERE key = ?";
        Ok(sqlx::query_scalar(sql).bind(key).fetch_optional(&mut *self.reader().await?).await?)
    }

    pub(crate) async fn meta_put(&self, key: &str, value: &[u8]) -> Result<(), StoreError> {
        let sql = "INSERT INTO meta (key, value) VALUES (?, ?) \
                   ON CONFLICT (key) DO UPDATE SET value = excluded.value";
        let mut writer = self.writer().await;
        let put = match writer.begin().await {
            Ok(connection) => {
                let done = sqlx::query(sql).bind(key).bind(value).execute(connection).await;
                done.map(|_| ()).map_err(StoreError::from)
            }
            Err(error) => Err(error),
        };
        writer.end(put).await
    }
}

async fn put_name(
    connection: &mut SqliteConnection,
    account: AccountId,
    sealed: &[u8],
    tag: &[u8],
) -> Result<(), PutNameError> {
    let holder = sqlx::query("SELECT account, sealed FROM names WHERE tag = ? AND account <> ?")
        .bind(tag)
        .bind(account.as_ref())
        .fetch_optional(&mut *connection)
        .await
        .map_err(StoreError::from)?;
    if let Some(row) = holder {
        return Err(PutNameError::Taken(name(&row)?.account));
    }
    sqlx::query(
        "INSERT INTO names (account, tag, sealed) VALUES (?, ?, ?) \
         ON CONFLICT (account) DO UPDATE SET tag = excluded.tag, sealed = excluded.sealed",
    )
    .bind(account.as_ref())
    .bind(tag)
    .bind(sealed)
    .execute(connection)
    .await
    .map_err(StoreError::from)?;
    Ok(())
}

fn name(row: &sqlx::sqlite::SqliteRow) -> Result<SealedName, StoreError> {
    let row = Reading { row, table: "names", key: "?".to_owned() };
    Ok(SealedName { account: row.id("account")?, sealed: row.get("sealed")? })
}

pub(super) fn add_cursors(script: &mut Script, cursors: &HashMap<Member, Position>) {
    let sql = "INSERT INTO cursors (account, device, position) VALUES (?, ?, ?) \
               ON CONFLICT (account, device) DO UPDATE SET position = max(position, excluded.position)";
    for (member, position) in cursors {
        let row = script.add(sql);
        row.add(member.account.as_ref());
        row.add(member.device.as_ref());
        row.add(int(position.0));
    }
}
