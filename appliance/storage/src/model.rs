//! What the store answers with.

use crate::StoreError;
use core::fmt;
use std::sync::Arc;
use zixt_crypto::digest;
use zixt_types::{
    Body, Canonical, Certificate, Decision, EntryPosition, Hash, Header, Height, Payload, Salt, ShardId,
    ThreadId,
};

/// The place of an entry among all entries of the network: 1 for the first entry of height 1, without gaps. Push
/// streams use it as their cursor; 0 stands before the first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Position(pub u64);

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// An entry as the store holds it. Reading one checks that body, signatures and place hash to the stored hash; that
/// the hash is in the ledger is for proofs to show.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StoredEntry {
    /// Its place among all entries.
    pub position: Position,
    /// The height that added it.
    pub height: Height,
    /// Its shard.
    pub shard: ShardId,
    /// Its leaf's index in the shard's tree.
    pub leaf: u64,
    /// Its entry hash.
    pub hash: Hash,
    /// The parsed body.
    pub body: Body,
    /// The signed body, as its author encoded it.
    pub body_bytes: Vec<u8>,
    /// The author's signature.
    pub signature: Vec<u8>,
    /// The new device's own signature; in device additions only.
    pub possession: Option<Vec<u8>>,
    /// Its place in its thread.
    pub place: EntryPosition,
    /// What blinds its leaf.
    pub salt: Salt,
}

impl StoredEntry {
    /// The thread.
    #[must_use]
    pub const fn thread(&self) -> ThreadId {
        self.body.thread
    }

    /// Attachments that its body names, and a device addition by invitation the invitation's key.
    #[must_use]
    pub fn attachment_count(&self) -> usize {
        attachment_count(&self.body)
    }

    /// The digest of its envelope, if it has one.
    #[must_use]
    pub const fn envelope_digest(&self) -> Option<Hash> {
        match &self.body.payload {
            Payload::Message { envelope, .. } | Payload::Commit { envelope, .. } => Some(*envelope),
            _ => None,
        }
    }

    pub(crate) fn computed_hash(&self) -> Hash {
        digest::entry_hash(
            &self.body_bytes,
            digest::signature_digest(&self.signature),
            self.possession.as_deref().map(digest::signature_digest),
            &self.place,
        )
    }

    /// The digest that attachment `index` has to have; `None` for the invitation's key, which no body names.
    pub(crate) fn check_attachment(&self, index: usize, bytes: &[u8]) -> Result<(), &'static str> {
        let suite = self.body.suite;
        let fits = match (&self.body.payload, index) {
            (Payload::Message { envelope, .. } | Payload::Commit { envelope, .. }, 0) => {
                digest::envelope_digest(bytes) == *envelope
            }
            (Payload::Commit { welcome, .. }, 1) => Some(digest::attachment_digest(bytes)) == *welcome,
            (Payload::Commit { tree, .. }, 2) => Some(digest::attachment_digest(bytes)) == *tree,
            (Payload::DeviceAdd { identity, .. }, 0) => digest::key_hash(suite, bytes) == *identity,
            (Payload::DeviceAdd { mls, .. }, 1) => digest::key_hash(suite, bytes) == *mls,
            (Payload::DeviceAdd { tls, .. }, 2) => digest::key_hash(suite, bytes) == *tls,
            // The account's first entry names this key; whoever replays the thread compares.
            (Payload::DeviceAdd { .. }, 3) => true,
            (Payload::Decision { action }, 0) => match &action.decision {
                Decision::ActivateKey { activates, suite, .. } => {
                    digest::key_hash(*suite, bytes) == *activates
                }
                _ => return Err("its entry has no such attachment"),
            },
            _ => return Err("its entry has no such attachment"),
        };
        if fits { Ok(()) } else { Err("the digest is not the one that the entry names") }
    }
}

pub(crate) fn attachment_count(body: &Body) -> usize {
    match &body.payload {
        Payload::Message { .. } => 1,
        Payload::Commit { welcome, tree, .. } => {
            1 + usize::from(welcome.is_some()) + usize::from(tree.is_some())
        }
        Payload::DeviceAdd { .. } => {
            3 + usize::from(matches!(body.author, zixt_types::Author::Invitation(_)))
        }
        Payload::Decision { action } => usize::from(matches!(action.decision, Decision::ActivateKey { .. })),
        Payload::Invite { .. } | Payload::DeviceRevoke { .. } => 0,
    }
}

/// An entry with its envelope, as a push stream sends it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Delivery {
    /// The entry.
    pub entry: Arc<StoredEntry>,
    /// Its envelope, checked against the entry. `None` if its kind has none, retention deleted it, or it is damaged: who
    /// asks for it then by [`crate::Store::attachment`] is told which. One damaged envelope keeps nobody from the rest.
    pub envelope: Option<Arc<Vec<u8>>>,
}

/// A part of what a device is told. [`crate::Store::deliveries`] reads it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Mailbox {
    /// Where the entries are, in order.
    pub positions: Vec<Position>,
    /// What their envelopes take. More than about a MiB only if it is a single one.
    pub envelope_bytes: u64,
    /// Up to here, there is nothing else for the device: where to go on.
    pub upto: Position,
}

/// A header with its certificate.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StoredHeader {
    /// The header.
    pub header: Header,
    /// Its hash, computed from the header.
    pub hash: Hash,
    /// The certificate, as stored: nothing has checked its signatures.
    pub certificate: Certificate,
    /// The place of the height's first entry among all entries.
    pub first: Position,
}

impl StoredHeader {
    /// The place that the next height's first entry has.
    #[must_use]
    pub const fn next(&self) -> Position {
        Position(self.first.0.saturating_add(self.header.entries as u64))
    }

    pub(crate) fn parse(
        height: u64,
        hash: &[u8],
        header: &[u8],
        certificate: &[u8],
        first: u64,
    ) -> Result<Self, StoreError> {
        let corrupt = |why: &dyn fmt::Display| StoreError::corrupt("headers", height, why);
        let header = Header::parse(header).map_err(|error| corrupt(&error))?;
        let certificate = Certificate::parse(certificate).map_err(|error| corrupt(&error))?;
        let computed = digest::header_hash(&header);
        if header.height.0 != height {
            return Err(corrupt(&"it holds the header of another height"));
        }
        if computed.as_ref() != hash {
            return Err(corrupt(&"the header does not have the stored hash"));
        }
        Ok(Self { header, hash: computed, certificate, first: Position(first) })
    }
}

/// What [`crate::Store::commit_batch`] did.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Committed {
    /// The batch is durable now.
    Stored {
        /// The place of its first entry; the others follow.
        first: Position,
    },
    /// It was durable already.
    AlreadyStored {
        /// The place of its first entry; the others follow.
        first: Position,
    },
}

impl Committed {
    /// The place of the batch's first entry among all entries.
    #[must_use]
    pub const fn first(self) -> Position {
        match self {
            Self::Stored { first } | Self::AlreadyStored { first } => first,
        }
    }
}

/// A key package that was handed out.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KeyPackage {
    /// The bytes that its device uploaded.
    pub bytes: Vec<u8>,
    /// Whether others get it too, because the device has no one-time package left.
    pub last_resort: bool,
}

/// The key packages that a device has left.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct KeyPackageCounts {
    /// One-time packages.
    pub one_time: usize,
    /// Whether there is one of last resort.
    pub last_resort: bool,
}

/// The name of an account, readable by the server only.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SealedName {
    /// The account.
    pub account: zixt_types::AccountId,
    /// The sealed name.
    pub sealed: Vec<u8>,
}

/// What a row about who may come in is about. The numbers stand in the store.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(i64)]
pub enum AccessKind {
    /// An account's standing, by its id.
    Account = 1,
    /// What an account signs in with, by its id. Sealed.
    Credentials = 2,
    /// A session, by its id.
    Session = 3,
    /// A count of failed attempts, by its keyed hash.
    Attempts = 4,
    /// A request to recover an account, by its id.
    Recovery = 5,
    /// A user's vault, by the account's id. Sealed by the user.
    Vault = 6,
    /// The appliance's share of a vault, by the account's id. Sealed.
    VaultShare = 7,
    /// A setting of sign-in, by its name. Sealed.
    Setting = 8,
    /// A token of a program, by its id.
    ServiceToken = 9,
}

/// A change of one row about who may come in.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AccessChange {
    /// Its kind.
    pub kind: AccessKind,
    /// Its id.
    pub id: Vec<u8>,
    /// The row; `None` removes it.
    pub row: Option<Vec<u8>>,
}
