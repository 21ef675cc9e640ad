//! What can go wrong, one type for each kind of work.

use thiserror::Error;
use zixt_ledger::certificate::CertificateError;
use zixt_types::{AccountId, Hash, Height};

/// The store did not answer, or its answer cannot be right.
#[derive(Debug, Error)]
pub enum StoreError {
    /// A row is not what this program wrote. `fsck` says what else is wrong.
    #[error("table {table}, row {key}: {why}")]
    Corrupt {
        /// The table.
        table: &'static str,
        /// The row, as `fsck` names it.
        key: String,
        /// What is wrong with it.
        why: String,
    },
    /// The disk is full. Nothing was written, and what was there is still there.
    #[error("the disk is full; nothing of this was stored")]
    Full,
    /// The database failed.
    #[error("the database failed")]
    Database(#[source] sqlx::Error),
}

impl StoreError {
    pub(crate) fn corrupt(table: &'static str, key: impl ToString, why: impl ToString) -> Self {
        Self::Corrupt { table, key: key.to_string(), why: why.to_string() }
    }
}

/// Why a store was not opened.
#[derive(Debug, Error)]
pub enum OpenError {
    /// The file is a database of another program.
    #[error("{path} is not a Zixt ledger (application id {got:#x})")]
    NotOurs {
        /// The file.
        path: String,
        /// The application id in it.
        got: i64,
    },
    /// A newer version of this program wrote it.
    #[error("{path} has schema {got}; this program knows schemas up to {known}. Use the newer program")]
    NewerSchema {
        /// The file.
        path: String,
        /// The schema in it.
        got: i64,
        /// The newest schema that this program knows.
        known: i64,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why a batch was not committed. Nothing of it was stored.
#[derive(Debug, Error)]
pub enum CommitError {
    /// Another header is stored for this height: the caller's state and the store's part ways. Fatal.
    #[error("height {height} is stored with header {stored}, not {given}")]
    OtherHeader {
        /// The height.
        height: Height,
        /// The stored header's hash.
        stored: Hash,
        /// The given header's hash.
        given: Hash,
    },
    /// The batch does not follow the last stored one.
    #[error("height {given} does not follow the last stored height {last}")]
    Gap {
        /// The last stored height.
        last: Height,
        /// The batch's.
        given: Height,
    },
    /// The header does not name the last stored one as the one before it.
    #[error("the header of height {height} follows {given}, but {stored} is stored")]
    Previous {
        /// The batch's height.
        height: Height,
        /// The hash of the last stored header.
        stored: Hash,
        /// What the given header names.
        given: Hash,
    },
    /// The certificate is for something else.
    #[error("the certificate is not for the header of height {0}")]
    Certificate(Height),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why no ledger state came out of the store.
#[derive(Debug, Error)]
pub enum LoadError {
    /// The store holds another network.
    #[error("the store holds the ledger of network {stored}, not {expected}")]
    OtherNetwork {
        /// The network asked for.
        expected: Hash,
        /// The network in the store.
        stored: Hash,
    },
    /// What is stored does not lead to the last certified header.
    #[error("the store does not lead to its last header: {what}. Run fsck")]
    Inconsistent {
        /// What does not fit.
        what: String,
    },
    /// The last header is not certified.
    #[error("the last header is not certified: {0}")]
    Certificate(#[from] CertificateError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why key packages were not taken.
#[derive(Debug, Error)]
pub enum PutKeyPackagesError {
    /// There would be too many.
    #[error("the device has {stored} key packages and offers {offered} more; {max} may be kept")]
    TooMany {
        /// One-time packages stored.
        stored: usize,
        /// New one-time packages offered.
        offered: usize,
        /// How many may be kept.
        max: usize,
    },
    /// One is too long.
    #[error("a key package has {got} bytes; at most {max} are allowed")]
    TooLong {
        /// Its length.
        got: usize,
        /// Bytes allowed.
        max: usize,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why a name was not stored.
#[derive(Debug, Error)]
pub enum PutNameError {
    /// Another account has it.
    #[error("account {0} has this name")]
    Taken(AccountId),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}
