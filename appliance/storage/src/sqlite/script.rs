//! Several statements for one trip to SQLite.

use crate::StoreError;
use sqlx::sqlite::SqliteArguments;
use sqlx::{Arguments, AssertSqlSafe, Encode, Sqlite, SqliteConnection, Type};

/// Up to this many rows, the prepared statements are kept for the next script of the same shape.
const KEPT_ROWS: usize = 16;

/// Statements with their values. Each trip to SQLite's thread and back is two changes of threads, as long as a short
/// statement itself: what belongs together goes together.
#[derive(Debug, Default)]
pub(super) struct Script {
    sql: String,
    values: Values,
    rows: usize,
}

/// The values of a script's statements, in their order.
#[derive(Debug, Default)]
pub(super) struct Values(SqliteArguments);

impl Values {
    pub(super) fn add<'t, T: Encode<'t, Sqlite> + Type<Sqlite>>(&mut self, value: T) {
        // Only text with a zero byte or a number out of range can fail to encode; we bind neither.
        if self.0.add(value).is_err() {
            unreachable!("numbers and bytes always encode");
        }
    }
}

impl Script {
    /// Adds a statement. One value has to be added for each of its question marks.
    pub(super) fn add(&mut self, sql: &str) -> &mut Values {
        if !self.sql.is_empty() {
            self.sql.push_str("; ");
        }
        self.sql.push_str(sql);
        self.rows += 1;
        &mut self.values
    }

    /// Inserts rows with few statements. Their lengths are few too, so that scripts have few shapes.
    pub(super) fn insert<R>(
        &mut self,
        prefix: &str,
        row: &str,
        suffix: &str,
        rows: &[R],
        bind: impl Fn(&mut Values, &R),
    ) {
        let mut rest = rows;
        while !rest.is_empty() {
            let len = [64, 16, 4].into_iter().find(|len| *len <= rest.len()).unwrap_or(1);
            let (chunk, later) = rest.split_at(len);
            rest = later;
            let values = self.add(&format!("{prefix}{}{suffix}", vec![row; len].join(", ")));
            chunk.iter().for_each(|row| bind(values, row));
            self.rows += len;
        }
    }

    /// Runs the statements in their order, up to the first that fails.
    pub(super) async fn run(self, connection: &mut SqliteConnection) -> Result<(), StoreError> {
        let persistent = self.rows <= KEPT_ROWS;
        sqlx::query_with(AssertSqlSafe(self.sql), self.values.0)
            .persistent(persistent)
            .execute(connection)
            .await?;
        Ok(())
    }

    /// This script between two statements.
    pub(super) fn between(self, first: &str, last: &str) -> Self {
        let parts = [first, self.sql.as_str(), last];
        let sql = parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("; ");
        Self { sql, ..self }
    }
}
