//! Rows about who may come in. What is in them is sealed or authenticated by who writes them; here they are bytes.

use super::SqliteStore;
use crate::{AccessChange, AccessKind, StoreError};
use sqlx::{Row as _, SqliteConnection};

impl SqliteStore {
    pub(crate) async fn access(&self, kind: AccessKind, id: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(sqlx::query_scalar("SELECT row FROM access WHERE kind = ? AND id = ?")
            .bind(kind as i64)
            .bind(id)
            .fetch_optional(&mut *self.reader().await?)
            .await?)
    }

    pub(crate) async fn access_all(
        &self,
        kind: AccessKind,
        limit: usize,
    ) -> Result<Vec<(Vec<u8>, Vec<u8>)>, StoreError> {
        let rows = sqlx::query("SELECT id, row FROM access WHERE kind = ? ORDER BY id LIMIT ?")
            .bind(kind as i64)
            .bind(i64::try_from(limit).unwrap_or(i64::MAX))
            .fetch_all(&mut *self.reader().await?)
            .await?;
        rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect()
    }

    pub(crate) async fn write_access(&self, changes: &[AccessChange]) -> Result<(), StoreError> {
        if changes.is_empty() {
            return Ok(());
        }
        let mut writer = self.writer().await;
        let done = match writer.begin().await {
            Ok(connection) => write(connection, changes).await,
            Err(error) => Err(error),
        };
        writer.end(done).await
    }
}

async fn write(connection: &mut SqliteConnection, changes: &[AccessChange]) -> Result<(), StoreError> {
    for AccessChange { kind, id, row } in changes {
        let done = match row {
            Some(row) => {
                let sql = "INSERT INTO access (kind, id, row) VALUES (?, ?, ?) \
                           ON CONFLICT (kind, id) DO UPDATE SET row = excluded.row";
                sqlx::query(sql).bind(*kind as i64).bind(id).bind(row).execute(&mut *connection).await
            }
            None => {
                let sql = "DELETE FROM access WHERE kind = ? AND id = ?";
                sqlx::query(sql).bind(*kind as i64).bind(id).execute(&mut *connection).await
            }
        };
        done?;
    }
    Ok(())
}
