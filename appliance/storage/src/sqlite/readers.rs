//! A few connections that read. Not sqlx's pool: that asks a connection whether it lives before and after each use,
//! and each such question is a trip to SQLite's thread and back, as long as a short query itself.

use crate::StoreError;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions as _, Connection as _, SqliteConnection};
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The connections. Each is opened when it is first needed, and stays.
#[derive(Debug)]
pub(super) struct Readers {
    options: SqliteConnectOptions,
    max: u32,
    room: Arc<Semaphore>,
    idle: Arc<Mutex<Vec<SqliteConnection>>>,
}

/// A connection, given back on drop. What an abandoned query left in it, SQLite's thread has reset by the next one.
#[derive(Debug)]
pub(crate) struct Reader {
    connection: Option<SqliteConnection>,
    idle: Arc<Mutex<Vec<SqliteConnection>>>,
    _place: OwnedSemaphorePermit,
}

impl Readers {
    pub(super) fn new(options: SqliteConnectOptions, max: u32) -> Self {
        Self { options, max, room: Arc::new(Semaphore::new(max as usize)), idle: Arc::default() }
    }

    /// Waits for a connection that nobody uses.
    pub(super) async fn acquire(&self) -> Result<Reader, StoreError> {
        let closed = |_| StoreError::from(sqlx::Error::PoolClosed);
        let place = Arc::clone(&self.room).acquire_owned().await.map_err(closed)?;
        let idle = idle(&self.idle).pop();
        let connection = match idle {
            Some(connection) => connection,
            None => self.options.connect().await?,
        };
        Ok(Reader { connection: Some(connection), idle: Arc::clone(&self.idle), _place: place })
    }

    /// Closes every connection, as soon as it is given back. Nobody gets one after this.
    pub(super) async fn close(&self) {
        // Whoever closes it a second time finds it closed.
        let all = self.room.acquire_many(self.max).await;
        self.room.close();
        drop(all);
        let connections = std::mem::take(&mut *idle(&self.idle));
        for connection in connections {
            if let Err(error) = connection.close().await {
                log::debug!("closing a reader: {error}");
            }
        }
    }
}

// A panic while it was locked cannot leave anything wrong behind: a connection is there or not.
fn idle(idle: &Mutex<Vec<SqliteConnection>>) -> std::sync::MutexGuard<'_, Vec<SqliteConnection>> {
    idle.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Deref for Reader {
    type Target = SqliteConnection;

    fn deref(&self) -> &SqliteConnection {
        match &self.connection {
            Some(connection) => connection,
            None => unreachable!("it is taken by drop only"),
        }
    }
}

impl DerefMut for Reader {
    fn deref_mut(&mut self) -> &mut SqliteConnection {
        match &mut self.connection {
            Some(connection) => connection,
            None => unreachable!("it is taken by drop only"),
        }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        // Before the place is given up, so that whoever gets it finds this.
        idle(&self.idle).extend(self.connection.take());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::TryStreamExt as _;

    const MANY: &str =
        "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 100000) SELECT i FROM n";

    #[tokio::test]
    async fn a_connection_is_good_after_an_abandoned_query() {
        let readers = Readers::new(SqliteConnectOptions::new().in_memory(true), 1);
        for taken in [0, 1, 60] {
            let mut reader = readers.acquire().await.unwrap();
            let mut rows = sqlx::query(MANY).fetch(&mut *reader);
            for _ in 0..taken {
                rows.try_next().await.unwrap().unwrap();
            }
            drop(rows);
            drop(reader);
            let mut reader = readers.acquire().await.unwrap();
            let one: i64 = sqlx::query_scalar("SELECT 7").fetch_one(&mut *reader).await.unwrap();
            assert_eq!(one, 7);
        }
        // Closing waits for who reads, and lets nobody in any more.
        let reader = readers.acquire().await.unwrap();
        let mut closing = Box::pin(readers.close());
        let context = &mut std::task::Context::from_waker(std::task::Waker::noop());
        assert!(closing.as_mut().poll(context).is_pending());
        drop(reader);
        closing.await;
        assert!(readers.acquire().await.is_err());
    }
}
