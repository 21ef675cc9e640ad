//! Rows of authority at rest: accounts, sessions, recoveries, counts of failures.
//!
//! Who writes to the database must not be able to make themselves an officer. Each row carries an HMAC-SHA384 (RFC 2104)
//! over its kind, the id under which it stands and its bytes, under a key that the store does not have. A MAC, and no
//! encryption, because the rows hold no secrets and a busy appliance writes more of them than random nonces last for
//! (SP 800-38D section 8.3). What it does not notice is an older row in the place of a newer one, and a row that is
//! gone.

use minicbor::{Decode, Encode};
use thiserror::Error;
use zeroize::Zeroize as _;
use zixt_crypto::hash::{constant_time_eq, hmac_sha384};
use zixt_crypto::labels;
use zixt_types::{Canonical, Hash, ParseError};

use crate::account::AccountRecord;
use crate::attempts::{AttemptKey, AttemptRow};
use crate::recovery::Recovery;
use crate::secret::{Secret, SecretForm};
use crate::session::SessionRow;
use crate::token::TokenRow;
use zixt_types::{AccountId, RecoveryId, SessionId};

/// What rows are authenticated under: 32 bytes of custody's, and a key for each kind of row from it.
#[derive(Debug)]
pub struct RowKey(Secret<32>);

impl RowKey {
    /// The key as custody keeps it.
    #[must_use]
    pub fn from_bytes(bytes: &[u8; 32]) -> Self {
        Self(Secret::from_bytes(bytes))
    }

    fn tag(&self, kind: &[u8], id: &[u8], row: &[u8]) -> Hash {
        let mut derived = hmac_sha384(self.0.as_bytes(), labels::SIGN_IN_ROW_KEY, &[kind]);
        let key = Secret::from_bytes(&derived.0);
        derived.0.zeroize();
        hmac_sha384(key.as_bytes(), labels::SIGN_IN_ROW_TAG, &[kind, id, row])
    }
}

/// Why a row was not opened. Any of them is an alarm: somebody else writes to the store.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum OpenRowError {
    /// Another key, another kind, another id, or altered bytes.
    #[error("a {0} does not authenticate")]
    Rejected(&'static str),
    /// It is no row.
    #[error(transparent)]
    Parse(#[from] ParseError),
}

#[derive(Encode, Decode)]
#[cbor(array)]
struct SealedRow {
    #[n(0)]
    version: u64,
    #[cbor(n(1), with = "minicbor::bytes")]
    row: Vec<u8>,
    #[n(2)]
    tag: Hash,
}

impl Canonical for SealedRow {
    const WHAT: &'static str = "sealed row";
    const BYTES_MAX: usize = 2 * 1024;
    const VERSION: Option<u64> = Some(1);

    fn check(&self) -> Result<(), &'static str> {
        if self.version == 1 { Ok(()) } else { Err("the version is 1") }
    }
}

fn seal<R: SecretForm>(key: &RowKey, id: &[u8], row: &R) -> Vec<u8> {
    let row = row.to_secret_bytes().to_vec();
    let tag = key.tag(R::WHAT.as_bytes(), id, &row);
    SealedRow { version: 1, row, tag }.to_bytes()
}

fn open<R: SecretForm>(key: &RowKey, id: &[u8], sealed: &[u8]) -> Result<R, OpenRowError> {
    let sealed = SealedRow::parse(sealed)?;
    let tag = key.tag(R::WHAT.as_bytes(), id, &sealed.row);
    if !constant_time_eq(tag.as_bytes(), sealed.tag.as_bytes()) {
        return Err(OpenRowError::Rejected(R::WHAT));
    }
    Ok(R::parse_secret(&sealed.row)?)
}

macro_rules! sealed_rows {
    ($($row:ty, $id:ty, $bytes:expr, $get:expr;)*) => {$(
        impl $row {
            /// The row for the store, authenticated under its kind and id.
            #[must_use]
            pub fn seal(&self, key: &RowKey) -> Vec<u8> {
                let id: $id = $get(self);
                seal(key, $bytes(&id), self)
            }

            /// Reads the row that stands under `id` in the store.
            ///
            /// # Errors
            /// [`OpenRowError`]
            pub fn open(key: &RowKey, id: $id, sealed: &[u8]) -> Result<Self, OpenRowError> {
                let row: Self = open(key, $bytes(&id), sealed)?;
                if $get(&row) == id { Ok(row) } else { Err(OpenRowError::Rejected(Self::WHAT)) }
            }
        }
    )*};
}

sealed_rows! {
    AccountRecord, AccountId, AccountId::as_bytes, Self::id;
    SessionRow, SessionId, SessionId::as_bytes, Self::id;
    TokenRow, SessionId, SessionId::as_bytes, Self::id;
    Recovery, RecoveryId, RecoveryId::as_bytes, Self::id;
    AttemptRow, AttemptKey, AttemptKey::as_bytes, Self::key;
}

#[cfg(test)]
#[path = "rows_tests.rs"]
mod tests;
