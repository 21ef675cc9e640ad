//! A batch: everything that one height adds, as a validator makes it durable before it precommits.

use crate::{Canonical, EntryPosition, Header, Salt, limits};
use minicbor::{Decode, Encode};

/// Bytes that a body names by digest: an envelope, a Welcome, a tree or a public key.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
#[cbor(transparent)]
pub struct Attachment(#[cbor(n(0), with = "minicbor::bytes")] pub Vec<u8>);

/// An entry with everything that belongs to it.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
#[cbor(array)]
pub struct BatchItem {
    /// The signed body, as its author encoded it.
    #[cbor(n(0), with = "minicbor::bytes")]
    pub body: Vec<u8>,
    /// The author's signature.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub signature: Vec<u8>,
    /// The new device's own signature over the same body; in device additions only.
    #[cbor(n(2), with = "minicbor::bytes")]
    pub possession: Option<Vec<u8>>,
    /// Where the sequencer put it.
    #[n(3)]
    pub position: EntryPosition,
    /// What blinds its leaf.
    #[n(4)]
    pub salt: Salt,
    /// What the body names by digest, in this order: message: envelope; commit: envelope, Welcome, tree (if members
    /// join); device addition: identity, MLS and TLS key, then the invitation's key if that signed; else nothing.
    #[n(5)]
    pub attachments: Vec<Attachment>,
}

/// Everything that one height adds.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
#[cbor(array)]
pub struct Batch {
    /// Format version: 1.
    #[n(0)]
    pub version: u64,
    /// The header that it leads to.
    #[n(1)]
    pub header: Header,
    /// The entries, in the order in which they take effect.
    #[n(2)]
    pub items: Vec<BatchItem>,
}

impl Batch {
    /// The format version that this program writes.
    pub const VERSION: u64 = 1;
}

impl Canonical for Batch {
    const WHAT: &'static str = "batch";
    const BYTES_MAX: usize = limits::BATCH_BYTES_MAX;
    const VERSION: Option<u64> = Some(Self::VERSION);

    fn check(&self) -> Result<(), &'static str> {
        self.header.check()?;
        if self.items.is_empty() || self.items.len() > limits::BATCH_ENTRIES_MAX {
            return Err("it has no entry or too many");
        }
        if u32::try_from(self.items.len()) != Ok(self.header.entries) {
            return Err("the header counts other entries than there are");
        }
        Ok(())
    }
}
