//! Evidence: a file that proves one message, a range or a whole thread to somebody who has nothing but the genesis
//! hash, and proof of a fork.
//!
//! What it holds and how one thing carries the next:
//!
//! ```text
//! genesis hash (the auditor's) ── genesis ── validators ── certificate ── header
//! header.map    ── head map proof ── last entry of an account's thread ── its whole chain
//! header.shards ── shard state ── inclusion proof ── an entry           (a message, or the end of a range)
//! header.map    ── head map proof ── last entry of the conversation     (complete up to this height)
//! genesis ── enroller ── invitation ── device ── message: each signs the next
//! genesis ── officers ── activations ── validators       (where a key was ever replaced)
//! ```
//!
//! [`Evidence::parse`] reads a file, [`Evidence::verify`] gives a [`Report`] with a verdict for each question that an
//! auditor asks; [`EvidenceBuilder`] makes one. A verdict never depends on bytes that nothing binds: every byte of a
//! file is either checked or refused.

mod build;
mod file;
mod fork;
mod pack;
mod report;
mod verify;

pub use build::{BuildError, EvidenceBuilder};
pub use file::EvidenceError;
pub use fork::{CertifiedHeader, Contradiction, ForkError, ForkProof, ForkReport, verify_fork};
pub use report::{EntryReport, Fault, Finding, Place, Report, Signer, SignerActivation, Verdict};
pub use verify::OtherGenesis;

use crate::Keyring;
use crate::map::MapProof;
use minicbor::{Decode, Encode};
use zixt_crypto::digest;
use zixt_types::{
    AccountId, BatchItem, Certificate, EntryPosition, Genesis, Hash, Header, Salt, ShardState, ThreadId,
};

/// Evidence about one conversation.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Evidence {
    /// The network.
    pub genesis: Genesis,
    /// The header that everything is proven under.
    pub header: Header,
    /// What makes the header final.
    pub certificate: Certificate,
    /// Public keys that genesis and bodies name by hash; no others.
    pub keyring: Keyring,
    /// The accounts of all authors, ascending by account.
    pub accounts: Vec<AccountEvidence>,
    /// The entries that the evidence is about.
    pub thread: ThreadEvidence,
    /// What officers decided about the keys of validators and enrollers; needed where one was ever replaced.
    pub system: Option<SystemEvidence>,
}

/// The whole system thread: how the validators that signed came to be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SystemEvidence {
    /// Every entry of the thread. Approvals may be left out (as digest) where a decision changes no set.
    pub entries: Vec<EvidenceEntry>,
    /// Proves that the last of them is the thread's head.
    pub head: MapProof,
}

/// An account's whole thread: who invited it and which devices it has and had.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AccountEvidence {
    /// The account.
    pub account: AccountId,
    /// Every entry of its thread.
    pub entries: Vec<EvidenceEntry>,
    /// Proves that the last of them is the thread's head.
    pub head: MapProof,
    /// The name under which the enroller invited it.
    pub name: Option<AccountName>,
}

/// A name with the salt of its commitment in the account's invitation.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
#[cbor(array)]
pub struct AccountName {
    /// The name.
    #[n(0)]
    pub name: String,
    /// The salt.
    #[n(1)]
    pub salt: Salt,
}

/// Entries of a conversation that follow one another: all of them, a range, or one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ThreadEvidence {
    /// The conversation.
    pub thread: ThreadId,
    /// The entries, ascending, without gaps.
    pub entries: Vec<EvidenceEntry>,
    /// Proves the last of them, and with it the chain that leads to it.
    pub anchor: Anchor,
}

/// What proves the last entry of a chain.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub enum Anchor {
    /// It is a leaf of its shard's tree. Later entries may exist.
    #[n(0)]
    Leaf(#[n(0)] LeafProof),
    /// It is the thread's head: there is no later entry up to the header's height.
    #[n(1)]
    Head(#[n(0)] MapProof),
}

/// Proof that an entry is in the ledger.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
#[cbor(array)]
pub struct LeafProof {
    /// The leaf's salt.
    #[n(0)]
    pub salt: Salt,
    /// The leaf's number in its shard's tree.
    #[n(1)]
    pub index: u64,
    /// The path from the leaf to the shard's root.
    #[n(2)]
    pub path: Vec<Hash>,
    /// The shard at the header's height.
    #[n(3)]
    pub shard: ShardState,
    /// The path from the shard's state to `header.shards`.
    #[n(4)]
    pub shards: Vec<Hash>,
}

/// An entry, with or without what it names by digest.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct EvidenceEntry {
    /// The signed body, as its author encoded it.
    pub body: Vec<u8>,
    /// The author's signature.
    pub signature: Signature,
    /// The new device's own signature; in device additions only.
    pub possession: Option<Signature>,
    /// Where the sequencer put it.
    pub position: EntryPosition,
    /// The envelope (ciphertext) that the body names.
    pub envelope: Option<Vec<u8>>,
    /// What was said.
    pub disclosure: Option<Disclosure>,
}

/// A signature, or its digest where it proves nothing that is asked. The entry's hash is the same.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub enum Signature {
    /// The signature.
    #[n(0)]
    Full(#[cbor(n(0), with = "minicbor::bytes")] Vec<u8>),
    /// Its digest.
    #[n(1)]
    Digest(#[n(0)] Hash),
}

/// Content with the key of its commitment. Whoever holds both can prove what was said.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
#[cbor(array)]
pub struct Disclosure {
    /// The canonical content.
    #[cbor(n(0), with = "minicbor::bytes")]
    pub content: Vec<u8>,
    /// The commitment's key.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub k: [u8; 32],
}

impl Signature {
    /// The digest that the entry's hash is made over.
    #[must_use]
    pub fn digest(&self) -> Hash {
        match self {
            Self::Full(signature) => digest::signature_digest(signature),
            Self::Digest(digest) => *digest,
        }
    }

    /// Drops the signature itself.
    #[must_use]
    pub fn to_digest(&self) -> Self {
        Self::Digest(self.digest())
    }
}

impl EvidenceEntry {
    /// The entry's hash: the link of its thread's chain.
    #[must_use]
    pub fn hash(&self) -> Hash {
        let possession = self.possession.as_ref().map(Signature::digest);
        digest::entry_hash(&self.body, self.signature.digest(), possession, &self.position)
    }
}

impl From<&BatchItem> for EvidenceEntry {
    /// The entry with its signatures and without its attachments.
    fn from(item: &BatchItem) -> Self {
        Self {
            body: item.body.clone(),
            signature: Signature::Full(item.signature.clone()),
            possession: item.possession.clone().map(Signature::Full),
            position: item.position,
            envelope: None,
            disclosure: None,
        }
    }
}
