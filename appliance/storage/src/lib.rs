//! What the appliance keeps: the ledger with its envelopes, and a little beside it. One method for each use.
//!
//! The store is not trusted. What it answers is parsed by the same strict parsers as a stranger's input and compared
//! with the hashes it belongs to; a row that does not fit is an error that names it ([`StoreError::Corrupt`]).
//! [`Store::load`] compares every root with the last certified header, [`fsck`] derives everything again from the
//! entries. docs/storage.md describes the tables.

mod cache;
mod error;
mod fsck;
mod load;
mod membership;
mod model;
mod recent;
mod sqlite;

pub use cache::{Cache, InProcess};
pub use error::{CommitError, LoadError, OpenError, PutKeyPackagesError, PutNameError, StoreError};
pub use fsck::{Finding, FindingKind, FsckReport, NameCheck, fsck};
pub use model::{
    AccessChange, AccessKind, Committed, Delivery, KeyPackage, KeyPackageCounts, Mailbox, Position,
    SealedName, StoredEntry, StoredHeader,
};
pub use sqlite::SqliteStore;

use sqlite::{HeightRows, SideRow};
use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use zixt_crypto::Backend;
use zixt_ledger::tree::NodeId;
use zixt_ledger::{Keyring, LedgerState, ProposedBlock, Thread, TreeId};
use zixt_types::{AccountId, Certificate, DeviceId, Genesis, Hash, Height, Member, MessageId, Seq, ThreadId};

/// The store. Cheap to clone; copies share everything.
#[derive(Clone, Debug)]
pub enum Store {
    /// One file.
    Sqlite(SqliteStore),
}

/// Calls a method of whichever store it is.
macro_rules! on {
    ($store:expr, $inner:ident => $call:expr) => {
        match $store {
            Self::Sqlite($inner) => $call.await,
        }
    };
}

/// A height that is written and not yet durable; see [`Store::stage_batch`].
#[derive(Debug)]
pub struct Staged(sqlite::StagedHeight);

impl Store {
    /// Opens the embedded store at `path`; creates it if there is none, and brings its schema up to date.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub async fn open(path: &Path) -> Result<Self, OpenError> {
        SqliteStore::open(path).await.map(Self::Sqlite)
    }

    /// Writes what is only in memory and closes. Without it, nothing that was acknowledged is lost.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn close(&self) -> Result<(), StoreError> {
        on!(self, store => store.close())
    }

    /// Reads the ledger's state after the last stored height. Checks that header's certificate and that trees, heads
    /// and keys lead to it, and derives every account again from its entries. Conversations' rosters and counters are
    /// taken as stored: they are [`fsck`]'s to derive again.
    ///
    /// # Errors
    /// See [`LoadError`].
    pub async fn load(
        &self,
        genesis: Genesis,
        keyring: Keyring,
        backend: &dyn Backend,
    ) -> Result<LedgerState, LoadError> {
        load::load(self, genesis, keyring, backend).await
    }

    /// Writes a height that consensus has still to decide into the open transaction of the next commit, so that little
    /// is left to do once it is certified. No reader sees it, and a crash or a drop undoes it. Until the result is
    /// committed or dropped, whatever else writes waits.
    ///
    /// # Errors
    /// See [`CommitError`]; nothing is staged then, and [`Store::commit_batch`] can still store the height.
    pub async fn stage_batch(&self, block: Arc<ProposedBlock>) -> Result<Staged, CommitError> {
        on!(self, store => store.stage_batch(block)).map(Staged)
    }

    /// Makes a staged height durable: what is missing is its certificate and one fsync.
    ///
    /// # Errors
    /// See [`CommitError`]; nothing of the height is stored then.
    pub async fn commit_staged(
        &self,
        staged: Staged,
        certificate: &Certificate,
    ) -> Result<Committed, CommitError> {
        on!(self, store => store.commit_staged(staged.0, certificate))
    }

    /// Undoes a staged height that will not be decided now. If it is only dropped, whoever writes next does it.
    pub async fn discard(&self, staged: Staged) {
        on!(self, store => store.discard(staged.0));
    }

    /// Stores a certified height: one transaction, one fsync. When it returns, the height is durable and every reader
    /// sees it. A height that is stored already is compared and left alone, so that start-up may run it again.
    ///
    /// # Errors
    /// See [`CommitError`]; nothing of the height is stored then.
    pub async fn commit_batch(
        &self,
        block: &Arc<ProposedBlock>,
        certificate: &Certificate,
    ) -> Result<Committed, CommitError> {
        on!(self, store => store.commit_batch(block, certificate))
    }

    /// The entry that holds this message id, for the receipt of a repeated submission. If several do, the first.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn receipt_source(
        &self,
        thread: &ThreadId,
        message_id: &MessageId,
    ) -> Result<Option<StoredEntry>, StoreError> {
        on!(self, store => store.receipt_source(thread, message_id))
    }

    /// An entry of a thread.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn entry(&self, thread: &ThreadId, seq: Seq) -> Result<Option<StoredEntry>, StoreError> {
        on!(self, store => store.entry(thread, seq))
    }

    /// Entries of a thread, in order, at most `limit` from `from` on; fewer if they are large. An account's entries stand in the thread [`zixt_crypto::digest::account_thread`].
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn entries(
        &self,
        thread: &ThreadId,
        from: Seq,
        limit: usize,
    ) -> Result<Vec<StoredEntry>, StoreError> {
        on!(self, store => store.entries(thread, from, limit))
    }

    /// An attachment of an entry, checked against it. `None` if the entry has none such, or retention deleted it.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn attachment(&self, entry: &StoredEntry, index: usize) -> Result<Option<Vec<u8>>, StoreError> {
        on!(self, store => store.attachment(entry, index))
    }

    /// How long an attachment is, without reading it; see [`Store::attachment`].
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn attachment_bytes(
        &self,
        entry: &StoredEntry,
        index: usize,
    ) -> Result<Option<u64>, StoreError> {
        on!(self, store => store.attachment_bytes(entry, index))
    }

    /// The header of a height.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn header(&self, height: Height) -> Result<Option<StoredHeader>, StoreError> {
        on!(self, store => store.header(height))
    }

    /// At most `limit` headers from `from` on, ascending.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn headers(&self, from: Height, limit: usize) -> Result<Vec<StoredHeader>, StoreError> {
        on!(self, store => store.headers(from, limit))
    }

    /// The last header; `None` before height 1.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn last_header(&self) -> Result<Option<StoredHeader>, StoreError> {
        on!(self, store => store.last_header())
    }

    /// Complete nodes of trees, for proofs. What is not stored is not in the answer.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn nodes(
        &self,
        wanted: &[(TreeId, NodeId)],
    ) -> Result<HashMap<(TreeId, NodeId), Hash>, StoreError> {
        on!(self, store => store.nodes(wanted))
    }

    /// Where what a device is told of is, in order, at most `limit` entries after `after`; fewer if their envelopes are
    /// large. Without any only if there is nothing more.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn mailbox(
        &self,
        member: &Member,
        after: Position,
        limit: usize,
    ) -> Result<Mailbox, StoreError> {
        on!(self, store => store.mailbox(member, after, limit))
    }

    /// The entries at these positions with their envelopes.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn deliveries(&self, positions: &[Position]) -> Result<Vec<Delivery>, StoreError> {
        on!(self, store => store.deliveries(positions))
    }

    /// The last entry that somebody is told of who is no member of the thread any more: the one that removed them.
    /// `None` for who was never removed.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn last_told(
        &self,
        thread: &ThreadId,
        member: &Member,
    ) -> Result<Option<Position>, StoreError> {
        on!(self, store => store.last_told(thread, member))
    }

    /// Where the last entry is; 0 before the first.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn last_position(&self) -> Result<Position, StoreError> {
        on!(self, store => store.last_position())
    }

    /// Notes that a device has everything up to `position`. Becomes durable with the next commit: a crash may forget
    /// it, and then the device acknowledges again.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn acknowledge(&self, member: &Member, position: Position) -> Result<(), StoreError> {
        on!(self, store => store.acknowledge(member, position))
    }

    /// Up to where a device has acknowledged.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn acknowledged(&self, member: &Member) -> Result<Position, StoreError> {
        on!(self, store => store.acknowledged(member))
    }

    /// Takes key packages of a device; one of last resort replaces the one before. A package that was taken before is
    /// ignored, even if it was handed out since.
    ///
    /// # Errors
    /// See [`PutKeyPackagesError`]; none is taken then.
    pub async fn put_key_packages(
        &self,
        device: &DeviceId,
        one_time: &[Vec<u8>],
        last_resort: Option<&[u8]>,
    ) -> Result<KeyPackageCounts, PutKeyPackagesError> {
        on!(self, store => store.put_key_packages(device, one_time, last_resort))
    }

    /// Hands out one key package of each device, in the order of `devices`. A one-time package is handed out once;
    /// that is durable when this returns.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn claim_key_packages(
        &self,
        devices: &[DeviceId],
    ) -> Result<Vec<Option<KeyPackage>>, StoreError> {
        on!(self, store => store.claim_key_packages(devices))
    }

    /// The key packages that a device has left.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn key_package_counts(&self, device: &DeviceId) -> Result<KeyPackageCounts, StoreError> {
        on!(self, store => store.key_package_counts(device))
    }

    /// Stores an account's sealed name under a keyed hash of it; replaces the one before.
    ///
    /// # Errors
    /// See [`PutNameError`].
    pub async fn put_name(&self, account: AccountId, sealed: &[u8], tag: &[u8]) -> Result<(), PutNameError> {
        on!(self, store => store.put_name(account, sealed, tag))
    }

    /// The account whose name has this keyed hash.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn name_by_tag(&self, tag: &[u8]) -> Result<Option<SealedName>, StoreError> {
        on!(self, store => store.name_by_tag(tag))
    }

    /// An account's name.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn name(&self, account: AccountId) -> Result<Option<SealedName>, StoreError> {
        on!(self, store => store.name(account))
    }

    /// A row about who may come in.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn access(&self, kind: AccessKind, id: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        on!(self, store => store.access(kind, id))
    }

    /// All rows of a kind with their ids, ascending, at most `limit`.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn access_all(
        &self,
        kind: AccessKind,
        limit: usize,
    ) -> Result<Vec<(Vec<u8>, Vec<u8>)>, StoreError> {
        on!(self, store => store.access_all(kind, limit))
    }

    /// Makes these changes durable, all of them or none.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn write_access(&self, changes: &[AccessChange]) -> Result<(), StoreError> {
        on!(self, store => store.write_access(changes))
    }

    /// A small setting.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn meta_get(&self, key: &str) -> Result<Option<Vec<u8>>, StoreError> {
        on!(self, store => store.meta_get(key))
    }

    /// Sets a small setting.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn meta_put(&self, key: &str, value: &[u8]) -> Result<(), StoreError> {
        on!(self, store => store.meta_put(key, value))
    }

    /// Empties the cache of recent entries. Nothing depends on what is in it; tests and measurements of cold reads do.
    pub fn forget_cached(&self) {
        match self {
            Self::Sqlite(store) => {
                store.cache().clear();
                *store.recent() = recent::Recent::default();
            }
        }
    }

    async fn tree_size(&self, tree: TreeId) -> Result<u64, StoreError> {
        on!(self, store => store.tree_size(tree))
    }

    async fn each_thread(
        &self,
        take: impl FnMut(ThreadId, Thread) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        on!(self, store => store.each_thread(take))
    }

    async fn each_account_entry(
        &self,
        take: impl FnMut(StoredEntry) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        on!(self, store => store.each_account_entry(take))
    }

    async fn each_device_key(
        &self,
        take: impl FnMut(StoredEntry, Vec<u8>) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        on!(self, store => store.each_device_key(take))
    }

    async fn next_height(&self, after: Height) -> Result<Option<Height>, StoreError> {
        on!(self, store => store.next_height(after))
    }

    async fn integrity(&self) -> Result<Vec<String>, StoreError> {
        on!(self, store => store.integrity())
    }

    async fn schema_differences(&self) -> Result<Vec<(String, bool)>, StoreError> {
        on!(self, store => store.schema_differences())
    }

    async fn header_count(&self) -> Result<(u64, u64), StoreError> {
        on!(self, store => store.header_count())
    }

    async fn height_rows(&self, from: Position, to: Position) -> Result<HeightRows, StoreError> {
        on!(self, store => store.height_rows(from, to))
    }

    async fn outside(
        &self,
        next: Position,
        sizes: &[u64],
    ) -> Result<Vec<(&'static str, String)>, StoreError> {
        on!(self, store => store.outside(next, sizes))
    }

    async fn thread_rows(
        &self,
        take: impl FnMut(Result<(ThreadId, Thread), StoreError>),
    ) -> Result<(), StoreError> {
        on!(self, store => store.thread_rows(take))
    }

    async fn side_rows(&self, take: impl FnMut(Result<SideRow, StoreError>)) -> Result<(), StoreError> {
        on!(self, store => store.side_rows(take))
    }
}
