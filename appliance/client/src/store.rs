//! The user's local store: one SQLite file in which every value is sealed under the passphrase.
//!
//! A random data key seals each value with AES-256-GCM; the data key itself is wrapped under a key that Argon2id makes
//! of the passphrase, so that changing the passphrase rewrites one row. The additional data of a value is its place
//! (space and key), so that values cannot be exchanged for each other. Keys that would tell something (a thread's id)
//! are replaced by a keyed hash.
//!
//! Everything that belongs together is written by one [`Batch`] in one transaction with one fsync. That is what
//! 'persist before send' rests on.
//!
//! The small spaces, which every message asks for, stay open in memory once they were read: a question to SQLite is a
//! trip to its thread and back.

use nix::fcntl::{Flock, FlockArg};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous};
use sqlx::{ConnectOptions as _, Connection as _, QueryBuilder, Row as _, SqliteConnection};
use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use thiserror::Error;
use zeroize::Zeroizing;
use zixt_crypto::hash::hmac_sha384;
use zixt_crypto::password::{self, Params, SALT_BYTES};
use zixt_crypto::{AeadKey, RandomError, aead, fill_random, labels};

/// Rows in one statement: three values each stay well below SQLite's 32,766 variables.
const ROWS_MAX: usize = 500;
/// Schema that this program reads and writes.
const SCHEMA: i64 = 2;

/// Where the values lie. The key in an index of its own: in a table that is sorted by it, a search reads the values that it
/// passes, with all the pages that a long one fills.
const SEALED: &str = "CREATE TABLE sealed (space INTEGER NOT NULL, key BLOB NOT NULL, value BLOB NOT NULL, \
                      PRIMARY KEY (space, key)) STRICT";

/// What a value is about. The numbers are stored: never reuse one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Space {
    /// Who this device is, and in which network. One value.
    Profile = 1,
    /// Verified headers, by height.
    Header = 2,
    /// Verified accounts, by account.
    Account = 3,
    /// What is known of a thread, by thread.
    Thread = 4,
    /// MLS state, by thread and part.
    MlsState = 5,
    /// Private parts of key packages, by id.
    KeyPackage = 6,
    /// Messages, by thread and place.
    Message = 7,
    /// What waits to be sent, in order.
    Outbox = 8,
    /// Small facts: stream cursor, sizes seen.
    Fact = 9,
    /// Entries of a thread that are needed for evidence, by thread and place.
    Entry = 10,
}

impl Space {
    /// Where the small spaces lie in [`Memory`].
    const fn slot(self) -> Option<usize> {
        match self {
            Self::Account => Some(0),
            Self::Thread => Some(1),
            Self::Outbox => Some(2),
            Self::Fact => Some(3),
            Self::Profile
            | Self::Header
            | Self::MlsState
            | Self::KeyPackage
            | Self::Message
            | Self::Entry => None,
        }
    }
}

/// The values of a space.
type Values = BTreeMap<Vec<u8>, Zeroizing<Vec<u8>>>;
/// The small spaces, unsealed; `None` while one has to be read (again).
type Memory = [Option<Values>; 4];

/// Why the store could not be used.
#[derive(Debug, Error)]
pub enum StoreError {
    /// There is no store.
    #[error("there is no account on this device yet ({}); enrol with your invitation first", .0.display())]
    Absent(PathBuf),
    /// There is one already.
    #[error("this folder holds an account already ({}); choose another one with --store", .0.display())]
    Exists(PathBuf),
    /// The passphrase does not open it.
    #[error("the passphrase is wrong")]
    WrongPassphrase,
    /// Another program has it open.
    #[error("another zixt program uses this account right now; close it first")]
    InUse,
    /// A newer program made it.
    #[error("the store has format {got}; this program reads {SCHEMA}: use the newer program that made it")]
    NewerSchema {
        /// The format found.
        got: i64,
    },
    /// A value was altered, or exchanged for another.
    #[error("the local store was altered or is damaged ({space:?}); restore the device or enrol a new one")]
    Altered {
        /// Where.
        space: Space,
    },
    /// The disk is full. Nothing was lost: the last transaction did not happen.
    #[error("the disk is full; make room and try again (nothing was lost)")]
    DiskFull,
    /// The file cannot be read or written.
    #[error("local store: {0}")]
    Database(#[source] sqlx::Error),
    /// The folder cannot be used.
    #[error("{}: {source}", path.display())]
    File {
        /// The path.
        path: PathBuf,
        /// The fault.
        #[source]
        source: std::io::Error,
    },
    /// No randomness or memory for the cryptography.
    #[error("{0}")]
    Crypto(String),
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        // SQLITE_FULL is primary result code 13; extended codes carry it in the low byte.
        let code = error.as_database_error().and_then(|e| e.code()).and_then(|code| code.parse::<i32>().ok());
        if code.is_some_and(|code| code & 0xFF == 13) { Self::DiskFull } else { Self::Database(error) }
    }
}

impl From<RandomError> for StoreError {
    fn from(error: RandomError) -> Self {
        Self::Crypto(error.to_string())
    }
}

/// The last change of each place: by number of the space and key.
type Changes = BTreeMap<(u8, Vec<u8>), (Space, Option<Zeroizing<Vec<u8>>>)>;

/// Changes that happen together or not at all.
#[derive(Clone, Default)]
#[must_use = "nothing is stored before Store::commit"]
pub struct Batch(Vec<Change>);

#[derive(Clone)]
struct Change {
    space: Space,
    key: Vec<u8>,
    value: Option<Zeroizing<Vec<u8>>>,
}

impl Batch {
    /// No change yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Stores a value, replacing the one before.
    pub fn put(&mut self, space: Space, key: impl Into<Vec<u8>>, value: impl Into<Vec<u8>>) -> &mut Self {
        self.0.push(Change { space, key: key.into(), value: Some(Zeroizing::new(value.into())) });
        self
    }

    /// Removes a value, if it is there.
    pub fn delete(&mut self, space: Space, key: impl Into<Vec<u8>>) -> &mut Self {
        self.0.push(Change { space, key: key.into(), value: None });
        self
    }

    /// Adds the changes of another batch after these.
    pub fn append(&mut self, other: Self) -> &mut Self {
        self.0.extend(other.0);
        self
    }

    /// Whether it changes nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// An open store. Clones share it.
#[derive(Clone)]
pub struct Store(Arc<Inner>);

struct Inner {
    /// Not sqlx's pool: before and after each use that asks a connection whether it lives, and each such question is a
    /// trip to SQLite's thread and back.
    database: tokio::sync::Mutex<Database>,
    /// Seals the values.
    data: AeadKey,
    /// Hides the keys.
    index: AeadKey,
    /// What the small spaces hold.
    memory: Mutex<Memory>,
    /// Held by whoever writes, or fills `memory`: what is read is never older than what is written.
    turn: tokio::sync::Mutex<()>,
    path: PathBuf,
    /// Held as long as the store is open.
    _lock: Flock<File>,
}

struct Database {
    connection: SqliteConnection,
    /// Whether a transaction was begun and not ended: its caller may have given up in the middle.
    open: bool,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Store({})", self.0.path.display())
    }
}

impl Store {
    /// Makes an empty store in `folder`.
    ///
    /// # Errors
    /// [`StoreError::Exists`] if there is one; see [`StoreError`].
    pub async fn create(folder: &Path, passphrase: &[u8], cost: Params) -> Result<Self, StoreError> {
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)
            .map_err(|source| StoreError::File { path: folder.to_owned(), source })?;
        let path = file_of(folder);
        let lock = lock(folder)?;
        if path.exists() {
            return Err(StoreError::Exists(folder.to_owned()));
        }
        // Made under another name and renamed, so that a half-made store is never taken for one.
        let fresh = folder.join("store.new");
        let _absent_is_fine = std::fs::remove_file(&fresh);
        let mut root = Zeroizing::new([0; 32]);
        fill_random(&mut *root)?;
        {
            let mut connection = connect(&fresh, true).await?;
            let statements = [
                "CREATE TABLE wrapped (id INTEGER PRIMARY KEY CHECK (id = 1), memory_kib INTEGER NOT NULL, \
                 passes INTEGER NOT NULL, lanes INTEGER NOT NULL, salt BLOB NOT NULL, root BLOB NOT NULL) STRICT",
                SEALED,
            ];
            for statement in statements {
                sqlx::query(statement).execute(&mut connection).await?;
            }
            wrap(&mut connection, passphrase, cost, &root).await?;
            sqlx::query("PRAGMA user_version = 2").execute(&mut connection).await?;
            connection.close().await?;
        }
        std::fs::rename(&fresh, &path)
            .and_then(|()| File::open(folder)?.sync_all())
            .map_err(|source| StoreError::File { path: path.clone(), source })?;
        let connection = connect(&path, false).await?;
        Ok(Self::assemble(connection, &root, path, lock))
    }

    /// Opens the store in `folder`.
    ///
    /// # Errors
    /// [`StoreError::Absent`], [`StoreError::WrongPassphrase`], [`StoreError::InUse`]; see [`StoreError`].
    pub async fn open(folder: &Path, passphrase: &[u8]) -> Result<Self, StoreError> {
        let path = file_of(folder);
        if !path.exists() {
            return Err(StoreError::Absent(folder.to_owned()));
        }
        let lock = lock(folder)?;
        let mut connection = connect(&path, false).await?;
        let got: i64 = sqlx::query_scalar("PRAGMA user_version").fetch_one(&mut connection).await?;
        if got > SCHEMA {
            return Err(StoreError::NewerSchema { got });
        }
        let root = unwrap(&mut connection, passphrase).await?;
        if got < SCHEMA {
            rearrange(&mut connection).await?;
        }
        Ok(Self::assemble(connection, &root, path, lock))
    }

    fn assemble(connection: SqliteConnection, root: &[u8; 32], path: PathBuf, lock: Flock<File>) -> Self {
        let key =
            |purpose: &[u8]| zixt_crypto::hash::derive_key(&[], root, labels::CLIENT_STORE_DEK, &[purpose]);
        Self(Arc::new(Inner {
            database: tokio::sync::Mutex::new(Database { connection, open: false }),
            data: key(b"data"),
            index: key(b"index"),
            memory: Mutex::default(),
            turn: tokio::sync::Mutex::default(),
            path,
            _lock: lock,
        }))
    }

    /// Wraps the data key under another passphrase.
    ///
    /// # Errors
    /// [`StoreError::WrongPassphrase`] if `old` is not the passphrase; see [`StoreError`].
    pub async fn change_passphrase(&self, old: &[u8], new: &[u8], cost: Params) -> Result<(), StoreError> {
        let mut database = self.database().await;
        let mut transaction = database.connection.begin().await?;
        let root = unwrap(&mut transaction, old).await?;
        wrap(&mut transaction, new, cost, &root).await?;
        transaction.commit().await?;
        Ok(())
    }

    /// A key that tells nothing to whoever reads the file: 16 bytes that stand for `parts`.
    #[must_use]
    pub fn hidden(&self, parts: &[&[u8]]) -> [u8; 16] {
        let mut out = [0; 16];
        let mac = hmac_sha384(self.0.index.as_bytes(), labels::CLIENT_STORE_DEK, parts);
        out.copy_from_slice(&mac.0[..16]);
        out
    }

    /// Reads a value.
    ///
    /// # Errors
    /// [`StoreError::Altered`] if it was changed or exchanged; see [`StoreError`].
    pub async fn get(&self, space: Space, key: &[u8]) -> Result<Option<Zeroizing<Vec<u8>>>, StoreError> {
        if let Some(slot) = space.slot() {
            return self.kept(space, slot, |values| values.get(key).cloned()).await;
        }
        let row = sqlx::query("SELECT value FROM sealed WHERE space = ? AND key = ?")
            .bind(space as u8)
            .bind(key)
            .fetch_optional(&mut self.database().await.connection)
            .await?;
        row.map(|row| self.unseal(space, key, row.try_get::<&[u8], _>(0)?)).transpose()
    }

    /// Reads up to `limit` values whose keys begin with `prefix` and are not below `from`, in order of key.
    ///
    /// # Errors
    /// See [`Store::get`].
    pub async fn scan(
        &self,
        space: Space,
        prefix: &[u8],
        from: &[u8],
        limit: u32,
    ) -> Result<Vec<(Vec<u8>, Zeroizing<Vec<u8>>)>, StoreError> {
        let start = prefix.max(from);
        if let Some(slot) = space.slot() {
            let chosen = |values: &Values| {
                values
                    .range(start.to_vec()..)
                    .take_while(|(key, _)| key.starts_with(prefix))
                    .take(usize::try_from(limit).unwrap_or(usize::MAX))
                    .map(|(key, value)| (key.clone(), value.clone()))
                    .collect()
            };
            return self.kept(space, slot, chosen).await;
        }
        self.rows(space, start, prefix, limit).await
    }

    /// How many values a small space has.
    ///
    /// # Errors
    /// See [`Store::get`].
    pub async fn count(&self, space: Space) -> Result<usize, StoreError> {
        self.look(space, BTreeMap::len).await
    }

    /// The first answer of `look` to the values of a small space, in order of key or from the end. Nothing is copied.
    ///
    /// # Errors
    /// See [`Store::get`].
    pub async fn find<T>(
        &self,
        space: Space,
        from_end: bool,
        mut look: impl FnMut(&[u8], &[u8]) -> Option<T>,
    ) -> Result<Option<T>, StoreError> {
        let mut look = |(key, value): (&Vec<u8>, &Zeroizing<Vec<u8>>)| look(key, value);
        let first = |values: &Values| {
            if from_end { values.iter().rev().find_map(&mut look) } else { values.iter().find_map(&mut look) }
        };
        self.look(space, first).await
    }

    async fn look<T>(&self, space: Space, read: impl FnOnce(&Values) -> T) -> Result<T, StoreError> {
        match space.slot() {
            Some(slot) => self.kept(space, slot, read).await,
            None => Ok(read(&self.rows(space, &[], &[], u32::MAX).await?.into_iter().collect())),
        }
    }

    /// Reads a small space, from memory if it is there.
    async fn kept<T>(
        &self,
        space: Space,
        slot: usize,
        read: impl FnOnce(&Values) -> T,
    ) -> Result<T, StoreError> {
        loop {
            if let Some(values) = self.memory().get(slot).and_then(Option::as_ref) {
                return Ok(read(values));
            }
            // Whoever writes has taken it out, and puts it back with the changes.
            let _turn = self.0.turn.lock().await;
            if self.memory().get(slot).is_some_and(Option::is_none) {
                let values = self.rows(space, &[], &[], u32::MAX).await?.into_iter().collect();
                self.replace(slot, Some(values));
            }
        }
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        // A panic while it was locked cannot leave anything wrong behind: a space is replaced whole.
        self.0.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn replace(&self, slot: usize, values: Option<Values>) -> Option<Values> {
        self.memory().get_mut(slot).and_then(|place| std::mem::replace(place, values))
    }

    async fn rows(
        &self,
        space: Space,
        start: &[u8],
        prefix: &[u8],
        limit: u32,
    ) -> Result<Vec<(Vec<u8>, Zeroizing<Vec<u8>>)>, StoreError> {
        let rows = sqlx::query(
            "SELECT key, value FROM sealed WHERE space = ? AND key >= ? AND substr(key, 1, ?) = ? ORDER BY key LIMIT ?",
        )
        .bind(space as u8)
        .bind(start)
        .bind(i64::try_from(prefix.len()).unwrap_or(i64::MAX))
        .bind(prefix)
        .bind(limit)
        .fetch_all(&mut self.database().await.connection)
        .await?;
        rows.iter()
            .map(|row| {
                let key: &[u8] = row.try_get(0)?;
                Ok((key.to_vec(), self.unseal(space, key, row.try_get(1)?)?))
            })
            .collect()
    }

    /// Reads the last `limit` values whose keys begin with `prefix` and are below `before`, in order of key.
    ///
    /// # Errors
    /// See [`Store::get`].
    pub async fn scan_back(
        &self,
        space: Space,
        prefix: &[u8],
        before: Option<&[u8]>,
        limit: u32,
    ) -> Result<Vec<(Vec<u8>, Zeroizing<Vec<u8>>)>, StoreError> {
        let rows = sqlx::query(
            "SELECT key, value FROM sealed WHERE space = ?1 AND key >= ?2 AND substr(key, 1, ?3) = ?2 \
             AND (?4 IS NULL OR key < ?4) ORDER BY key DESC LIMIT ?5",
        )
        .bind(space as u8)
        .bind(prefix)
        .bind(i64::try_from(prefix.len()).unwrap_or(i64::MAX))
        .bind(before)
        .bind(limit)
        .fetch_all(&mut self.database().await.connection)
        .await?;
        rows.iter()
            .rev()
            .map(|row| {
                let key: &[u8] = row.try_get(0)?;
                Ok((key.to_vec(), self.unseal(space, key, row.try_get(1)?)?))
            })
            .collect()
    }

    /// Makes all changes of a batch durable, or none. When this returns, they survive a power cut.
    ///
    /// # Errors
    /// [`StoreError::DiskFull`]; see [`StoreError`]. Nothing has changed then.
    pub async fn commit(&self, batch: Batch) -> Result<(), StoreError> {
        if batch.is_empty() {
            return Ok(());
        }
        // The last change of a place counts. All goes in one trip to SQLite's thread and back; a single statement is a
        // transaction of itself.
        let mut last = Changes::new();
        for Change { space, key, value } in batch.0 {
            last.insert((space as u8, key), (space, value));
        }
        let _turn = self.0.turn.lock().await;
        // Taken out: if this fails, or nobody waits for its end, they are read anew.
        let mut taken: BTreeMap<usize, Values> = BTreeMap::new();
        for slot in last.values().filter_map(|(space, _)| space.slot()) {
            if let Some(values) = self.replace(slot, None) {
                taken.insert(slot, values);
            }
        }
        self.write(&last).await?;
        for ((_, key), (space, value)) in last {
            let Some(values) = space.slot().and_then(|slot| taken.get_mut(&slot)) else { continue };
            match value {
                Some(value) => drop(values.insert(key, value)),
                None => drop(values.remove(&key)),
            }
        }
        for (slot, values) in taken {
            self.replace(slot, Some(values));
        }
        Ok(())
    }

    async fn write(&self, changes: &Changes) -> Result<(), StoreError> {
        let mut puts = Vec::new();
        let mut deletes = Vec::new();
        for ((number, key), (space, value)) in changes {
            match value {
                Some(value) => {
                    let sealed = aead::seal(&self.0.data, &place(*space, key), value)
                        .map_err(|error| StoreError::Crypto(error.to_string()))?;
                    puts.push((*number, key.as_slice(), sealed));
                }
                None => deletes.push((*number, key.as_slice())),
            }
        }
        let mut database = self.database().await;
        let (puts, deletes) = (puts.chunks(ROWS_MAX), deletes.chunks(ROWS_MAX));
        let alone = puts.len() + deletes.len() == 1;
        let mut query = QueryBuilder::new(if alone { "" } else { "BEGIN IMMEDIATE; " });
        for rows in puts {
            query.push("INSERT INTO sealed (space, key, value) ");
            query.push_values(rows, |mut row, (space, key, value)| {
                row.push_bind(*space).push_bind(*key).push_bind(value.as_slice());
            });
            query.push(" ON CONFLICT (space, key) DO UPDATE SET value = excluded.value; ");
        }
        for rows in deletes {
            query.push("DELETE FROM sealed WHERE (space, key) IN (");
            query.push_values(rows, |mut row, (space, key)| {
                row.push_bind(*space).push_bind(*key);
            });
            query.push("); ");
        }
        query.push(if alone { "" } else { "COMMIT" });
        database.open = !alone;
        let written = query.build().execute(&mut database.connection).await;
        if written.is_err() {
            database.roll_back().await;
        }
        database.open = false;
        written?;
        Ok(())
    }

    /// The database, outside of any transaction. What an abandoned one did must not even be read.
    async fn database(&self) -> tokio::sync::MutexGuard<'_, Database> {
        let mut database = self.0.database.lock().await;
        if database.open {
            database.roll_back().await;
            database.open = false;
        }
        database
    }

    fn unseal(&self, space: Space, key: &[u8], sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, StoreError> {
        aead::open(&self.0.data, &place(space, key), sealed).map_err(|_| StoreError::Altered { space })
    }
}

impl Database {
    async fn roll_back(&mut self) {
        // It fails if SQLite has rolled back already, or if the transaction was whole.
        if let Err(error) = sqlx::query("ROLLBACK").execute(&mut self.connection).await {
            log::debug!("rolling back: {error}");
        }
    }
}

/// Brings a store of schema 1, whose table was sorted by key, to schema 2.
async fn rearrange(connection: &mut SqliteConnection) -> Result<(), StoreError> {
    let mut transaction = connection.begin().await?;
    let statements = [
        "ALTER TABLE sealed RENAME TO sorted",
        SEALED,
        "INSERT INTO sealed (space, key, value) SELECT space, key, value FROM sorted",
        "DROP TABLE sorted",
        "PRAGMA user_version = 2",
    ];
    for statement in statements {
        sqlx::query(statement).execute(&mut *transaction).await?;
    }
    transaction.commit().await?;
    Ok(())
}

fn file_of(folder: &Path) -> PathBuf {
    folder.join("store.sqlite")
}

/// Where a value lies, as additional data of its seal.
fn place(space: Space, key: &[u8]) -> Vec<u8> {
    let mut aad = labels::CLIENT_STORE_DEK.to_vec();
    aad.push(space as u8);
    aad.extend_from_slice(key);
    aad
}

fn lock(folder: &Path) -> Result<Flock<File>, StoreError> {
    let path = folder.join("lock");
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(&path)
        .map_err(|source| StoreError::File { path, source })?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|_| StoreError::InUse)
}

async fn connect(path: &Path, create: bool) -> Result<SqliteConnection, StoreError> {
    let options = SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(create)
        .journal_mode(SqliteJournalMode::Wal)
        // FULL: a commit is on the disk when it returns.
        .synchronous(SqliteSynchronous::Full)
        .disable_statement_logging();
    Ok(options.connect().await?)
}

/// Derives the key that wraps the data key. Takes most of a second and 64 MiB: that is its purpose.
async fn wrapping_key(
    passphrase: &[u8],
    salt: [u8; SALT_BYTES],
    cost: Params,
) -> Result<AeadKey, StoreError> {
    let passphrase = Zeroizing::new(passphrase.to_vec());
    let derived = tokio::task::spawn_blocking(move || password::derive(cost, &salt, &passphrase))
        .await
        .map_err(|error| StoreError::Crypto(error.to_string()))?
        .map_err(|error| StoreError::Crypto(error.to_string()))?;
    Ok(zixt_crypto::hash::derive_key(&salt, &derived[..], labels::CLIENT_STORE_KEK, &[]))
}

async fn wrap(
    connection: &mut SqliteConnection,
    passphrase: &[u8],
    cost: Params,
    root: &[u8; 32],
) -> Result<(), StoreError> {
    let mut salt = [0; SALT_BYTES];
    fill_random(&mut salt)?;
    let key = wrapping_key(passphrase, salt, cost).await?;
    let sealed = aead::seal(&key, labels::CLIENT_STORE_KEK, root)
        .map_err(|error| StoreError::Crypto(error.to_string()))?;
    sqlx::query(
        "INSERT INTO wrapped (id, memory_kib, passes, lanes, salt, root) VALUES (1, ?, ?, ?, ?, ?) \
         ON CONFLICT (id) DO UPDATE SET memory_kib = excluded.memory_kib, passes = excluded.passes, \
         lanes = excluded.lanes, salt = excluded.salt, root = excluded.root",
    )
    .bind(cost.memory_kib())
    .bind(cost.passes())
    .bind(cost.lanes())
    .bind(salt.as_slice())
    .bind(sealed)
    .execute(connection)
    .await?;
    Ok(())
}

async fn unwrap(
    connection: &mut SqliteConnection,
    passphrase: &[u8],
) -> Result<Zeroizing<[u8; 32]>, StoreError> {
    let damaged = || StoreError::Altered { space: Space::Profile };
    let row = sqlx::query("SELECT memory_kib, passes, lanes, salt, root FROM wrapped WHERE id = 1")
        .fetch_optional(connection)
        .await?
        .ok_or_else(damaged)?;
    let cost = Params::new(row.try_get(0)?, row.try_get(1)?, row.try_get(2)?).map_err(|_| damaged())?;
    let salt: [u8; SALT_BYTES] = row.try_get::<&[u8], _>(3)?.try_into().map_err(|_| damaged())?;
    let key = wrapping_key(passphrase, salt, cost).await?;
    let opened = aead::open(&key, labels::CLIENT_STORE_KEK, row.try_get(4)?)
        .map_err(|_| StoreError::WrongPassphrase)?;
    let mut root = Zeroizing::new([0; 32]);
    if opened.len() != root.len() {
        return Err(damaged());
    }
    root.copy_from_slice(&opened);
    Ok(root)
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn fresh() -> (tempfile::TempDir, Store) {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::create(folder.path(), b"correct horse", Params::MIN).await.unwrap();
        (folder, store)
    }

    async fn raw(folder: &Path) -> SqliteConnection {
        connect(&file_of(folder), false).await.unwrap()
    }

    #[tokio::test]
    async fn values_survive_and_stay_secret() {
        let (folder, store) = fresh().await;
        let mut batch = Batch::new();
        batch.put(Space::Fact, b"a".as_slice(), b"the secret text".as_slice());
        batch.put(Space::Message, [1, 2].as_slice(), b"two".as_slice());
        store.commit(batch).await.unwrap();
        drop(store);
        assert!(matches!(Store::open(folder.path(), b"wrong horse").await, Err(StoreError::WrongPassphrase)));
        let store = Store::open(folder.path(), b"correct horse").await.unwrap();
        assert_eq!(store.get(Space::Fact, b"a").await.unwrap().unwrap().as_slice(), b"the secret text");
        assert_eq!(store.get(Space::Fact, b"b").await.unwrap(), None);
        for file in ["store.sqlite", "store.sqlite-wal"] {
            let bytes = std::fs::read(folder.path().join(file)).unwrap_or_default();
            assert!(!bytes.windows(6).any(|window| window == b"secret"), "{file}");
        }
    }

    #[tokio::test]
    async fn one_program_at_a_time_and_one_account_a_folder() {
        let (folder, store) = fresh().await;
        assert!(matches!(Store::open(folder.path(), b"correct horse").await, Err(StoreError::InUse)));
        drop(store);
        let again = Store::create(folder.path(), b"other", Params::MIN).await;
        assert!(matches!(again, Err(StoreError::Exists(_))));
        let nowhere = folder.path().join("nowhere");
        assert!(matches!(Store::open(&nowhere, b"x").await, Err(StoreError::Absent(_))));
    }

    #[tokio::test]
    async fn exchanged_and_altered_values_are_found() {
        let (folder, store) = fresh().await;
        let mut batch = Batch::new();
        batch.put(Space::Message, b"a".as_slice(), b"one".as_slice());
        batch.put(Space::Message, b"b".as_slice(), b"two".as_slice());
        store.commit(batch).await.unwrap();
        let mut connection = raw(folder.path()).await;
        sqlx::query(
            "UPDATE sealed SET value = (SELECT value FROM sealed WHERE key = x'62') WHERE key = x'61'",
        )
        .execute(&mut connection)
        .await
        .unwrap();
        assert!(matches!(store.get(Space::Message, b"a").await, Err(StoreError::Altered { .. })));
        assert!(store.get(Space::Message, b"b").await.is_ok());
    }

    #[tokio::test]
    async fn a_store_of_the_first_schema_is_brought_to_the_second() {
        let (folder, store) = fresh().await;
        let long = vec![7; 20_000];
        let mut batch = Batch::new();
        batch.put(Space::Fact, b"a".as_slice(), b"one".as_slice());
        batch.put(Space::MlsState, b"b".as_slice(), long.as_slice());
        store.commit(batch).await.unwrap();
        drop(store);
        let mut connection = raw(folder.path()).await;
        for statement in [
            "ALTER TABLE sealed RENAME TO new",
            "CREATE TABLE sealed (space INTEGER NOT NULL, key BLOB NOT NULL, value BLOB NOT NULL, \
             PRIMARY KEY (space, key)) STRICT, WITHOUT ROWID",
            "INSERT INTO sealed SELECT space, key, value FROM new",
            "DROP TABLE new",
            "PRAGMA user_version = 1",
        ] {
            sqlx::query(statement).execute(&mut connection).await.unwrap();
        }
        connection.close().await.unwrap();

        for _ in 0..2 {
            let store = Store::open(folder.path(), b"correct horse").await.unwrap();
            assert_eq!(*store.get(Space::Fact, b"a").await.unwrap().unwrap(), *b"one");
            assert_eq!(*store.get(Space::MlsState, b"b").await.unwrap().unwrap(), *long);
            let mut batch = Batch::new();
            batch.put(Space::Message, b"c".as_slice(), b"three".as_slice());
            store.commit(batch).await.unwrap();
        }
        let mut connection = raw(folder.path()).await;
        let version: i64 =
            sqlx::query_scalar("PRAGMA user_version").fetch_one(&mut connection).await.unwrap();
        let rows: i64 =
            sqlx::query_scalar("SELECT count(rowid) FROM sealed").fetch_one(&mut connection).await.unwrap();
        assert_eq!((version, rows), (SCHEMA, 3));
    }

    /// What stays in memory is what the file says, whatever is written, fails or is given up in the middle.
    #[tokio::test]
    async fn small_spaces_in_memory_are_those_of_the_file() {
        let (_folder, store) = fresh().await;
        let same = async |store: &Store| {
            let kept = store.scan(Space::Fact, b"", b"", 100).await.unwrap();
            assert_eq!(kept, store.rows(Space::Fact, b"", b"", 100).await.unwrap());
            kept.len()
        };
        for round in 0..40u8 {
            let mut batch = Batch::new();
            batch.put(Space::Fact, [round % 7], vec![round]);
            batch.delete(Space::Fact, [round % 5]);
            batch.put(Space::Message, [round], vec![0; 20_000]);
            let mut commit = Box::pin(store.commit(batch));
            // Given up at another place in each round.
            for _ in 0..round / 2 {
                let waker = std::task::Waker::noop();
                let mut context = std::task::Context::from_waker(waker);
                if commit.as_mut().poll(&mut context).is_ready() {
                    break;
                }
                tokio::time::sleep(std::time::Duration::from_micros(50)).await;
            }
            drop(commit);
            same(&store).await;
        }
        let mut batch = Batch::new();
        batch.put(Space::Fact, b"x".as_slice(), b"before".as_slice());
        store.commit(batch).await.unwrap();
        sqlx::query("PRAGMA max_page_count = 1")
            .execute(&mut store.database().await.connection)
            .await
            .unwrap();
        let mut batch = Batch::new();
        batch.put(Space::Fact, b"x".as_slice(), vec![1; 1 << 20]);
        assert!(matches!(store.commit(batch).await, Err(StoreError::DiskFull)));
        assert!(same(&store).await > 0);
        assert_eq!(store.get(Space::Fact, b"x").await.unwrap().unwrap().as_slice(), b"before");
        assert_eq!(store.scan(Space::Fact, b"x", b"", 0).await.unwrap(), []);
    }

    #[tokio::test]
    async fn a_batch_happens_whole_or_not_at_all_on_a_full_disk() {
        let (_folder, store) = fresh().await;
        let mut batch = Batch::new();
        batch.put(Space::Fact, b"kept".as_slice(), b"kept".as_slice());
        store.commit(batch).await.unwrap();
        let pages: i64 = sqlx::query_scalar("PRAGMA page_count")
            .fetch_one(&mut store.database().await.connection)
            .await
            .unwrap();
        sqlx::query(sqlx::AssertSqlSafe(format!("PRAGMA max_page_count = {}", pages + 2)))
            .execute(&mut store.database().await.connection)
            .await
            .unwrap();
        let mut batch = Batch::new();
        batch.put(Space::Fact, b"kept".as_slice(), b"changed".as_slice());
        batch.put(Space::Message, b"big".as_slice(), vec![7; 1 << 20]);
        assert!(matches!(store.commit(batch).await, Err(StoreError::DiskFull)));
        assert_eq!(store.get(Space::Fact, b"kept").await.unwrap().unwrap().as_slice(), b"kept");
    }

    #[tokio::test]
    async fn scans_keep_to_their_prefix_and_order() {
        let (_folder, store) = fresh().await;
        let mut batch = Batch::new();
        for (key, value) in [([1u8, 0], 10u8), ([1, 1], 11), ([1, 2], 12), ([2, 0], 20)] {
            batch.put(Space::Message, key.as_slice(), vec![value]);
        }
        store.commit(batch).await.unwrap();
        let values = |rows: Vec<(Vec<u8>, Zeroizing<Vec<u8>>)>| -> Vec<u8> {
            rows.iter().map(|(_, value)| value[0]).collect()
        };
        assert_eq!(values(store.scan(Space::Message, &[1], &[1, 1], 9).await.unwrap()), [11, 12]);
        assert_eq!(values(store.scan(Space::Message, &[], &[], 2).await.unwrap()), [10, 11]);
        assert_eq!(values(store.scan_back(Space::Message, &[1], None, 2).await.unwrap()), [11, 12]);
        assert_eq!(values(store.scan_back(Space::Message, &[1], Some(&[1, 1]), 2).await.unwrap()), [10]);
    }

    #[tokio::test]
    async fn the_last_change_of_a_place_counts_and_large_batches_fit() {
        let (_folder, store) = fresh().await;
        let mut batch = Batch::new();
        for number in 0..1_200u16 {
            batch.put(Space::Entry, number.to_be_bytes(), b"first".as_slice());
        }
        batch.put(Space::Fact, b"gone".as_slice(), b"x".as_slice());
        batch.delete(Space::Fact, b"gone".as_slice());
        batch.delete(Space::Entry, 7u16.to_be_bytes());
        batch.put(Space::Entry, 8u16.to_be_bytes(), b"second".as_slice());
        store.commit(batch).await.unwrap();
        assert_eq!(store.scan(Space::Entry, &[], &[], 5_000).await.unwrap().len(), 1_199);
        assert_eq!(store.get(Space::Fact, b"gone").await.unwrap(), None);
        assert_eq!(
            store.get(Space::Entry, &8u16.to_be_bytes()).await.unwrap().unwrap().as_slice(),
            b"second"
        );
        let mut batch = Batch::new();
        batch.delete(Space::Fact, b"gone".as_slice());
        batch.put(Space::Fact, b"gone".as_slice(), b"back".as_slice());
        store.commit(batch).await.unwrap();
        assert_eq!(store.get(Space::Fact, b"gone").await.unwrap().unwrap().as_slice(), b"back");
    }

    #[tokio::test]
    async fn a_new_passphrase_replaces_the_old_one() {
        let (folder, store) = fresh().await;
        let refused = store.change_passphrase(b"wrong", b"new", Params::MIN).await;
        assert!(matches!(refused, Err(StoreError::WrongPassphrase)));
        store.change_passphrase(b"correct horse", b"new", Params::MIN).await.unwrap();
        drop(store);
        assert!(matches!(
            Store::open(folder.path(), b"correct horse").await,
            Err(StoreError::WrongPassphrase)
        ));
        assert!(Store::open(folder.path(), b"new").await.is_ok());
    }
}
