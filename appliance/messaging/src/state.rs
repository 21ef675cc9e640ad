//! What is stored of a conversation. The saved form is a type of its own, versioned, and always encrypted.
//!
//! It has four parts, so that a message does not rewrite what only a commit changes: `core` (message keys, counters)
//! changes with every operation, `tree` (the public ratchet tree) with the epoch, `past` (keys of past epochs) with
//! the epoch and with late messages, `pending` with the commits that this device makes. The core names the other
//! three by hash, so that parts of different moments do not pass for one state.

use zeroize::Zeroizing;
use zixt_crypto::aead::{self, SealError};
use zixt_crypto::hash::sha384;
use zixt_crypto::{AeadKey, labels};
use zixt_types::{Hash, Member, Payload, SuiteId, ThreadId, Timestamp};

/// The version of the saved form that this program writes and reads.
pub const STATE_VERSION: u64 = 1;

/// The parts of a saved state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum StatePart {
    /// Message keys and counters.
    Core = 0,
    /// The public ratchet tree.
    Tree = 1,
    /// Keys of past epochs.
    Past = 2,
    /// A commit of this device that the ledger has not yet decided about.
    Pending = 3,
    /// The private part of a key package.
    KeyPackage = 4,
}

impl std::fmt::Display for StatePart {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Core => "core",
            Self::Tree => "tree",
            Self::Past => "past epochs",
            Self::Pending => "pending commit",
            Self::KeyPackage => "key package",
        })
    }
}

/// What one operation changed of the saved state, encrypted. Store all parts that are here in **one** transaction,
/// together with what the operation is about (the envelope in the outbox, the message received), and only then
/// release or show it. If that fails, drop the [`crate::Conversation`] and open it again from what is stored.
///
/// State must never be restored from a backup: an older state would use message keys twice.
#[derive(Clone, PartialEq, Eq)]
#[must_use = "the state has to be stored before anything of the operation leaves the device"]
pub struct SealedState {
    /// Always there.
    pub core: Vec<u8>,
    /// `None`: keep the stored one.
    pub tree: Option<Vec<u8>>,
    /// `None`: keep the stored one.
    pub past: Option<Vec<u8>>,
    /// `None`: keep the stored one.
    pub pending: Option<Vec<u8>>,
}

impl std::fmt::Debug for SealedState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SealedState({} bytes)", self.bytes())
    }
}

impl SealedState {
    /// Bytes that have to be written.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let parts = [&self.tree, &self.past, &self.pending];
        self.core.len() + parts.into_iter().flatten().map(Vec::len).sum::<usize>()
    }
}

/// A saved state as it lies in the store.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct StoredState {
    /// See [`SealedState::core`].
    pub core: Vec<u8>,
    /// See [`SealedState::tree`].
    pub tree: Vec<u8>,
    /// See [`SealedState::past`].
    pub past: Vec<u8>,
    /// See [`SealedState::pending`].
    pub pending: Vec<u8>,
}

impl StoredState {
    /// Replaces the parts that changed. For callers that keep the parts in one object.
    pub fn update(&mut self, sealed: SealedState) {
        self.core = sealed.core;
        let parts = [
            (&mut self.tree, sealed.tree),
            (&mut self.past, sealed.past),
            (&mut self.pending, sealed.pending),
        ];
        for (stored, changed) in parts {
            if let Some(changed) = changed {
                *stored = changed;
            }
        }
    }
}

impl From<SealedState> for StoredState {
    fn from(sealed: SealedState) -> Self {
        let mut stored = Self::default();
        stored.update(sealed);
        stored
    }
}

impl std::fmt::Debug for StoredState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let bytes = self.core.len() + self.tree.len() + self.past.len() + self.pending.len();
        write!(f, "StoredState({bytes} bytes)")
    }
}

/// Why saved bytes were not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum UnsealError {
    /// Another key, another conversation, another version, or altered bytes.
    #[error("the saved {0} does not authenticate")]
    Rejected(StatePart),
    /// It authenticates but is not what this version writes.
    #[error("the saved {0} is malformed")]
    Malformed(StatePart),
    /// A part is not the one that the core was saved with.
    #[error("the saved {0} belongs to another moment than the core")]
    Mixed(StatePart),
}

/// The plaintext of the core.
#[derive(minicbor::Encode, minicbor::Decode)]
#[cbor(array)]
pub(crate) struct SavedCore<'a> {
    #[n(0)]
    pub(crate) version: u64,
    #[n(1)]
    pub(crate) suite: SuiteId,
    #[n(2)]
    pub(crate) member: Member,
    #[n(3)]
    pub(crate) epoch_started_at: Timestamp,
    #[n(4)]
    pub(crate) epoch_messages: u64,
    #[n(5)]
    pub(crate) rotate_first: bool,
    #[cbor(b(6), with = "minicbor::bytes")]
    pub(crate) mls: &'a [u8],
    #[n(7)]
    pub(crate) tree: Hash,
    #[n(8)]
    pub(crate) past: Hash,
    #[n(9)]
    pub(crate) pending: Hash,
}

/// The plaintext of the past epochs is an array of these.
#[derive(minicbor::Encode, minicbor::Decode)]
#[cbor(array)]
pub(crate) struct SavedEpoch<'a> {
    #[n(0)]
    pub(crate) id: u64,
    #[cbor(b(1), with = "minicbor::bytes")]
    pub(crate) data: &'a [u8],
}

/// The plaintext of a pending commit; empty when there is none.
#[derive(minicbor::Encode, minicbor::Decode)]
#[cbor(array)]
pub(crate) struct SavedPending<'a> {
    #[n(0)]
    pub(crate) payload: Payload,
    #[cbor(b(1), with = "minicbor::bytes")]
    pub(crate) secrets: &'a [u8],
}

/// Encodes secrets: into memory of the right size from the start, so that growing leaves no copies behind.
pub(crate) fn encode<T: minicbor::Encode<()>>(value: &T, secret_bytes: usize) -> Zeroizing<Vec<u8>> {
    // Beside the secrets: a few fields, and in a pending commit the roster change of 512 members (18 kB).
    let mut bytes = Zeroizing::new(Vec::with_capacity(secret_bytes + zixt_types::limits::BODY_BYTES_MAX));
    match minicbor::encode(value, &mut *bytes) {
        Ok(()) => bytes,
        // Writing to a Vec cannot fail and none of these types has an error of its own.
        Err(_) => unreachable!("encoding to memory"),
    }
}

pub(crate) fn decode<'b, T: minicbor::Decode<'b, ()>>(
    part: StatePart,
    bytes: &'b [u8],
) -> Result<T, UnsealError> {
    minicbor::decode(bytes).map_err(|_| UnsealError::Malformed(part))
}

/// What a part is bound to: the thread of a conversation or the id of a key package.
pub(crate) trait Owner: AsRef<[u8]> {}
impl Owner for ThreadId {}
impl Owner for Hash {}

pub(crate) fn seal(
    key: &AeadKey,
    part: StatePart,
    owner: &impl Owner,
    plaintext: &[u8],
) -> Result<Vec<u8>, SealError> {
    aead::seal(key, &aad(part, owner), plaintext)
}

pub(crate) fn unseal(
    key: &AeadKey,
    part: StatePart,
    owner: &impl Owner,
    sealed: &[u8],
) -> Result<Zeroizing<Vec<u8>>, UnsealError> {
    aead::open(key, &aad(part, owner), sealed).map_err(|_| UnsealError::Rejected(part))
}

fn aad(part: StatePart, owner: &impl Owner) -> Vec<u8> {
    let mut aad = labels::MLS_STATE.to_vec();
    aad.extend_from_slice(&STATE_VERSION.to_be_bytes());
    aad.push(part as u8);
    aad.extend_from_slice(owner.as_ref());
    aad
}

/// The name that the core knows another part by.
pub(crate) fn part_hash(sealed: &[u8]) -> Hash {
    sha384(labels::MLS_STATE, &[sealed])
}
