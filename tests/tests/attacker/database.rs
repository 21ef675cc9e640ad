//! The attacker's hands: the rows of the ledger's file, and everything that can be derived again without a key.

use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection, SqliteRow};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, Row as _};
use std::path::Path;
use tokio::runtime::{Builder, Runtime};
use zixt_crypto::digest;
use zixt_ledger::Thread;
use zixt_types::{Body, Canonical as _, EntryPosition, Hash, Salt, Seq, ThreadId, Timestamp};

/// An open ledger file, without any rule of ours.
pub struct Database {
    runtime: Runtime,
    connection: SqliteConnection,
}

/// A row of `entries`, as far as an attacker changes it.
#[derive(Clone)]
pub struct Entry {
    pub position: i64,
    pub place: EntryPosition,
    pub body: Vec<u8>,
    pub signature: Vec<u8>,
    pub possession: Option<Vec<u8>>,
    pub salt: Salt,
    pub hash: Hash,
}

impl Database {
    pub fn open(state: &Path) -> Self {
        let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
        let options = SqliteConnectOptions::new()
            .filename(state.join("server/ledger.sqlite"))
            .foreign_keys(false)
            .disable_statement_logging();
        let connection = runtime.block_on(options.connect()).expect("the ledger's file");
        Self { runtime, connection }
    }

    pub fn close(self) {
        self.runtime.block_on(self.connection.close()).expect("a close");
    }

    /// Runs statements, which have to change something.
    pub fn run(&mut self, sql: &str) {
        let query = sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(&mut self.connection);
        let done = self.runtime.block_on(query).unwrap_or_else(|error| panic!("{sql}: {error}"));
        assert!(done.rows_affected() > 0, "{sql} changes nothing");
    }

    fn one(&mut self, sql: &str) -> SqliteRow {
        let query = sqlx::query(AssertSqlSafe(sql.to_owned())).fetch_one(&mut self.connection);
        self.runtime.block_on(query).unwrap_or_else(|error| panic!("{sql}: {error}"))
    }

    /// A number.
    pub fn number(&mut self, sql: &str) -> i64 {
        self.one(sql).get(0)
    }

    /// Bytes.
    pub fn bytes(&mut self, sql: &str) -> Vec<u8> {
        self.one(sql).get(0)
    }

    /// Writes bytes: the statement has one parameter.
    pub fn put(&mut self, sql: &str, bytes: &[u8]) {
        let query = sqlx::query(AssertSqlSafe(sql.to_owned())).bind(bytes).execute(&mut self.connection);
        let done = self.runtime.block_on(query).unwrap_or_else(|error| panic!("{sql}: {error}"));
        assert!(done.rows_affected() > 0, "{sql} changes nothing");
    }

    /// The number of a thread.
    pub fn thread(&mut self, thread: &ThreadId) -> i64 {
        self.number(&format!("SELECT no FROM threads WHERE thread = x'{thread}'"))
    }

    /// The position of an entry of a thread, counted from the end: 0 is the last.
    pub fn position(&mut self, thread: &ThreadId, from_end: u32) -> i64 {
        let no = self.thread(thread);
        self.number(&format!(
            "SELECT position FROM entries WHERE thread = {no} ORDER BY seq DESC LIMIT 1 OFFSET {from_end}"
        ))
    }

    pub fn entry(&mut self, position: i64) -> Entry {
        let row = self.one(&format!(
            "SELECT seq, prev, time, body, signature, possession, salt, hash FROM entries WHERE position = {position}"
        ));
        let number = |at: usize| u64::try_from(row.get::<i64, _>(at)).expect("a number");
        let bytes = |at: usize| row.get::<Vec<u8>, _>(at);
        Entry {
            position,
            place: EntryPosition {
                seq: Seq(number(0)),
                prev: Hash::try_from(bytes(1).as_slice()).expect("a hash"),
                time: Timestamp(number(2)),
            },
            body: bytes(3),
            signature: bytes(4),
            possession: row.get(5),
            salt: Salt::try_from(bytes(6).as_slice()).expect("a salt"),
            hash: Hash::try_from(bytes(7).as_slice()).expect("a hash"),
        }
    }

    /// Writes an entry back with the hash that it has now, so that its row is whole in itself.
    pub fn write(&mut self, entry: &mut Entry) {
        entry.hash = digest::entry_hash(
            &entry.body,
            digest::signature_digest(&entry.signature),
            entry.possession.as_deref().map(digest::signature_digest),
            &entry.place,
        );
        let body = Body::parse(&entry.body).expect("a body");
        let query = sqlx::query(
            "UPDATE entries SET seq = ?, prev = ?, time = ?, body = ?, signature = ?, salt = ?, hash = ?, \
             message_id = ?, kind = ? WHERE position = ?",
        )
        .bind(i64::try_from(entry.place.seq.0).expect("a number"))
        .bind(entry.place.prev.as_ref())
        .bind(i64::try_from(entry.place.time.0).expect("a number"))
        .bind(&entry.body)
        .bind(&entry.signature)
        .bind(entry.salt.as_ref())
        .bind(entry.hash.as_ref())
        .bind(body.message_id.as_ref())
        .bind(body.payload.kind() as i64)
        .bind(entry.position);
        let done = self.runtime.block_on(query.execute(&mut self.connection)).expect("a write");
        assert_eq!(done.rows_affected(), 1);
    }

    /// Changes an entry's body, and derives the row again.
    pub fn change_body(&mut self, position: i64, change: impl FnOnce(&mut Body)) {
        let mut entry = self.entry(position);
        let mut body = Body::parse(&entry.body).expect("a body");
        change(&mut body);
        entry.body = body.to_bytes();
        self.write(&mut entry);
    }

    /// Changes a thread's state; its head stays what the last header certifies.
    pub fn change_thread(&mut self, thread: &ThreadId, change: impl FnOnce(&mut Thread)) {
        let mut state = self.state(thread);
        change(&mut state);
        self.put_state(thread, &state);
    }

    pub fn state(&mut self, thread: &ThreadId) -> Thread {
        let bytes = self.bytes(&format!("SELECT state FROM threads WHERE thread = x'{thread}'"));
        minicbor::decode(&bytes).expect("a thread")
    }

    pub fn put_state(&mut self, thread: &ThreadId, state: &Thread) {
        let bytes = minicbor::to_vec(state).expect("encoding to memory");
        self.put(&format!("UPDATE threads SET state = ? WHERE thread = x'{thread}'"), &bytes);
    }
}
