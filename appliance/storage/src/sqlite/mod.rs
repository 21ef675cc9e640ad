//! The store on SQLite: one file, one writer, a few readers.
//!
//! The journal is a write-ahead log with `synchronous = FULL`: a commit is one append and one fsync, and a reader never
//! waits. Checkpoints run beside the commits, not inside them.

mod access;
mod commit;
mod packages;
mod read;
mod readers;
mod rows;
mod script;
mod side;
mod walk;

pub(crate) use commit::StagedHeight;
pub(crate) use walk::{EntryRow, HeightRows, SideRow};

use crate::cache::Cache;
use crate::recent::Recent;
use crate::{OpenError, Position, StoreError};
use readers::{Reader, Readers};
use script::Script;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, SqliteConnection};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex as SyncMutex, MutexGuard as SyncMutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Mutex, OwnedMutexGuard};
use zixt_types::{Hash, Height, Member};

/// The schema, one step for each version. Steps are only ever added.
const MIGRATIONS: [&str; 2] = [include_str!("0001.sql"), include_str!("0002.sql")];
/// "ZIXT": what SQLite's `application_id` says of our files.
const APPLICATION_ID: i64 = 0x5A49_5854;
/// A commit writes whole pages, about twenty for a single message: 80 kB of log with these, 139 kB with twice the size.
const PAGE_BYTES: u32 = 4096;
/// Page cache of the writer: a large batch has to fit, or its pages are written twice. Filled only as far as needed.
const WRITER_CACHE_KIB: u32 = 8192;
/// Page cache of each reader.
const READER_CACHE_KIB: u32 = 1024;
/// Readers: enough for both cores to read while one statement waits for the disk.
const READERS: u32 = 3;
/// Entries and envelopes that stay in memory: the last 800 short messages.
const CACHE_BYTES: usize = 8 * 1024 * 1024;
/// Bytes of the write-ahead log, about, after which it is copied into the database and written from its beginning again.
/// A sync of bytes that are written over is cheaper than one of a file that has grown (decision 0005).
const CHECKPOINT_BYTES: u64 = 8 * 1024 * 1024;

/// The store on SQLite. Copies share the connections.
#[derive(Clone, Debug)]
pub struct SqliteStore(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    path: PathBuf,
    writer: Arc<Mutex<Writer>>,
    readers: Readers,
    cache: Cache,
    recent: SyncMutex<Recent>,
    /// Acknowledgements that the next commit takes along: an fsync for each would cost more than losing some.
    cursors: SyncMutex<HashMap<Member, Position>>,
    unchecked_bytes: AtomicU64,
    checkpointing: AtomicBool,
}

#[derive(Debug)]
struct Writer {
    connection: SqliteConnection,
    /// Whether a transaction was begun and not ended: its caller may have given up in the middle.
    open: bool,
    /// The last stored height; `None` if it has to be read again.
    tip: Option<Tip>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Tip {
    height: Height,
    hash: Hash,
    next: Position,
}

// By hand, because a full disk makes SQLite end a transaction itself, and sqlx would still count it as open.
impl Writer {
    async fn begin(&mut self) -> Result<&mut SqliteConnection, StoreError> {
        self.open = true;
        sqlx::query("BEGIN IMMEDIATE").execute(&mut self.connection).await?;
        Ok(&mut self.connection)
    }

    /// Begins, and does what the script says.
    async fn begin_with(&mut self, script: Script) -> Result<(), StoreError> {
        self.open = true;
        script.between("BEGIN IMMEDIATE", "").run(&mut self.connection).await
    }

    /// Does what the script says and makes everything durable, or undoes it if that failed.
    async fn end_with(&mut self, script: Script) -> Result<(), StoreError> {
        match script.between("", "COMMIT").run(&mut self.connection).await {
            Ok(()) => {
                self.open = false;
                Ok(())
            }
            Err(error) => Err(self.undo(error).await),
        }
    }

    /// Makes durable what was done, or undoes it if it failed.
    async fn end<T, E: From<StoreError>>(&mut self, done: Result<T, E>) -> Result<T, E> {
        let done = match done {
            Ok(value) => match sqlx::query("COMMIT").execute(&mut self.connection).await {
                Ok(_) => Ok(value),
                Err(error) => Err(StoreError::from(error).into()),
            },
            Err(error) => Err(error),
        };
        match done {
            Ok(value) => {
                self.open = false;
                Ok(value)
            }
            Err(error) => Err(self.undo(error).await),
        }
    }

    /// Undoes what was done since [`Self::begin`].
    async fn undo<E>(&mut self, error: E) -> E {
        self.roll_back().await;
        self.open = false;
        error
    }

    async fn roll_back(&mut self) {
        // It fails if SQLite has rolled back already.
        if let Err(error) = sqlx::query("ROLLBACK").execute(&mut self.connection).await {
            log::debug!("rolling back: {error}");
        }
    }
}

impl SqliteStore {
    /// Opens the file, creates it if there is none, and brings its schema up to date.
    pub(crate) async fn open(path: &Path) -> Result<Self, OpenError> {
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .page_size(PAGE_BYTES)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            .busy_timeout(Duration::from_secs(10))
            .pragma("cache_size", format!("-{WRITER_CACHE_KIB}"))
            .pragma("wal_autocheckpoint", "0")
            .pragma("trusted_schema", "OFF")
            .disable_statement_logging();
        let mut connection = options.connect().await.map_err(StoreError::from)?;
        migrate(&mut connection, path).await?;
        let options = options
            .create_if_missing(false)
            .pragma("cache_size", format!("-{READER_CACHE_KIB}"))
            .pragma("query_only", "ON");
        let readers = Readers::new(options, READERS);
        Ok(Self(Arc::new(Inner {
            path: path.to_owned(),
            writer: Arc::new(Mutex::new(Writer { connection, open: false, tip: None })),
            readers,
            cache: Cache::in_process(CACHE_BYTES),
            recent: SyncMutex::default(),
            cursors: SyncMutex::default(),
            unchecked_bytes: AtomicU64::new(0),
            checkpointing: AtomicBool::new(false),
        })))
    }

    /// Writes what is only in memory, empties the write-ahead log and closes the readers.
    pub(crate) async fn close(&self) -> Result<(), StoreError> {
        self.flush_cursors().await?;
        self.0.readers.close().await;
        let mut writer = self.writer().await;
        sqlx::query("PRAGMA wal_checkpoint(TRUNCATE)").execute(&mut writer.connection).await?;
        Ok(())
    }

    /// For tests: a setting of the writing connection, such as a limit that stands for a full disk.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn hazmat_writer_pragma(&self, sql: &'static str) -> Result<(), StoreError> {
        sqlx::raw_sql(sql).execute(&mut self.writer().await.connection).await?;
        Ok(())
    }

    pub(crate) fn cache(&self) -> &Cache {
        &self.0.cache
    }

    pub(crate) fn recent(&self) -> SyncMutexGuard<'_, Recent> {
        self.0.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn reader(&self) -> Result<Reader, StoreError> {
        self.0.readers.acquire().await
    }

    /// The writer, outside of any transaction. What an abandoned one did must not even be read.
    async fn writer(&self) -> OwnedMutexGuard<Writer> {
        let mut writer = Arc::clone(&self.0.writer).lock_owned().await;
        if writer.open {
            writer.roll_back().await;
            writer.open = false;
        }
        writer
    }

    // A panic while it was locked cannot leave anything wrong behind: each change is one insertion.
    fn cursors(&self) -> SyncMutexGuard<'_, HashMap<Member, Position>> {
        self.0.cursors.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Copies the write-ahead log into the database once it has grown enough, beside whatever else runs.
    fn checkpoint_when_due(&self, bytes: u64) {
        let inner = &self.0;
        if inner.unchecked_bytes.fetch_add(bytes, Ordering::Relaxed) + bytes < CHECKPOINT_BYTES
            || inner.checkpointing.swap(true, Ordering::AcqRel)
        {
            return;
        }
        inner.unchecked_bytes.store(0, Ordering::Relaxed);
        let store = self.clone();
        tokio::spawn(async move {
            if let Err(error) = store.checkpoint().await {
                log::warn!("checkpoint of {}: {error}", store.0.path.display());
            }
            store.0.checkpointing.store(false, Ordering::Release);
        });
    }

    async fn checkpoint(&self) -> Result<(), StoreError> {
        const PASSIVE: &str = "PRAGMA wal_checkpoint(PASSIVE)";
        {
            let mut reader = self.reader().await?;
            // PASSIVE waits for nobody. `query_only` does not stop a checkpoint.
            sqlx::query(PASSIVE).execute(&mut *reader).await?;
        }
        // What was committed meanwhile, between two commits: only a log that is copied whole when a transaction begins is
        // written from its beginning again. Under load one is always open, and the log would grow without an end.
        let mut writer = self.writer().await;
        sqlx::query(PASSIVE).execute(&mut writer.connection).await?;
        Ok(())
    }
}

/// Brings the schema up to date, one transaction for each step.
async fn migrate(connection: &mut SqliteConnection, path: &Path) -> Result<(), OpenError> {
    let path = || path.display().to_string();
    let known = i64::try_from(MIGRATIONS.len()).unwrap_or(i64::MAX);
    let mut version = pragma(connection, "PRAGMA user_version").await?;
    let application = pragma(connection, "PRAGMA application_id").await?;
    let tables = pragma(connection, "SELECT count(*) FROM sqlite_schema").await?;
    if application != APPLICATION_ID && (application != 0 || version != 0 || tables != 0) {
        return Err(OpenError::NotOurs { path: path(), got: application });
    }
    if version > known {
        return Err(OpenError::NewerSchema { path: path(), got: version, known });
    }
    for step in MIGRATIONS.iter().skip(usize::try_from(version).unwrap_or(usize::MAX)) {
        version += 1;
        let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await.map_err(StoreError::from)?;
        let marks = format!("PRAGMA user_version = {version}; PRAGMA application_id = {APPLICATION_ID};");
        sqlx::raw_sql(*step).execute(&mut *transaction).await.map_err(StoreError::from)?;
        sqlx::raw_sql(AssertSqlSafe(marks)).execute(&mut *transaction).await.map_err(StoreError::from)?;
        transaction.commit().await.map_err(StoreError::from)?;
    }
    Ok(())
}

async fn pragma(connection: &mut SqliteConnection, sql: &'static str) -> Result<i64, StoreError> {
    Ok(sqlx::query_scalar(sql).fetch_one(connection).await?)
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        // The primary result codes, https://www.sqlite.org/rescode.html
        const SQLITE_CORRUPT: i64 = 11;
        const SQLITE_FULL: i64 = 13;
        const SQLITE_NOTADB: i64 = 26;
        let code = error
            .as_database_error()
            .and_then(|error| error.code())
            .and_then(|code| code.parse::<i64>().ok())
            .map(|code| code & 0xFF);
        match code {
            Some(SQLITE_FULL) => Self::Full,
            Some(SQLITE_CORRUPT | SQLITE_NOTADB) => Self::corrupt("(file)", "(page)", error),
            _ => Self::Database(error),
        }
    }
}

/// SQLite's integers are signed; no number of ours comes near the limit.
fn int(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
