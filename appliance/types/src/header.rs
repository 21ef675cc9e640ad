//! The header of a height and the certificate over it. One certificate proves every entry, every key and every head.

use crate::{ApplianceId, Canonical, Hash, Height, Round, Seq, ShardId, SuiteId, Timestamp, limits};
use minicbor::{Decode, Encode};

/// The last entry of a thread's chain.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Encode, Decode)]
#[cbor(array)]
pub struct Head {
    /// Its place in the thread.
    #[n(0)]
    pub seq: Seq,
    /// Its entry hash.
    #[n(1)]
    pub hash: Hash,
}

/// The state of one shard's tree at a height.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Encode, Decode)]
#[cbor(array)]
pub struct ShardState {
    /// The shard.
    #[n(0)]
    pub shard: ShardId,
    /// Leaves in its tree.
    #[n(1)]
    pub size: u64,
    /// Merkle tree hash (RFC 9162 section 2.1.1, SHA-384).
    #[n(2)]
    pub root: Hash,
}

/// What one height certifies for all shards.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
#[cbor(array)]
pub struct Header {
    /// Format version: 1.
    #[n(0)]
    pub version: u64,
    /// The suite of the certificate's signatures.
    #[n(1)]
    pub suite: SuiteId,
    /// Hash of the genesis.
    #[n(2)]
    pub genesis: Hash,
    /// The height; the first header has height 1.
    #[n(3)]
    pub height: Height,
    /// Hash of the header before; [`Hash::ZERO`] at height 1.
    #[n(4)]
    pub previous: Hash,
    /// Merkle tree hash over the hashes of all headers before this one, in order: with it one short proof shows
    /// that an older header is in this one's past.
    #[n(5)]
    pub history: Hash,
    /// Merkle tree hash over the shards' [`ShardState`]s, in order of shard.
    #[n(6)]
    pub shards: Hash,
    /// Root of the head map: thread to [`Head`].
    #[n(7)]
    pub map: Hash,
    /// Hash of the validator set that certifies this header.
    #[n(8)]
    pub validators: Hash,
    /// Hash of the policy in force.
    #[n(9)]
    pub policy: Hash,
    /// Ledger time: the validators' clock, always later than in the header before.
    #[n(10)]
    pub time: Timestamp,
    /// Entries that this height adds.
    #[n(11)]
    pub entries: u32,
}

impl Header {
    /// The format version that this program writes.
    pub const VERSION: u64 = 1;
}

impl Canonical for Header {
    const WHAT: &'static str = "header";
    const BYTES_MAX: usize = limits::HEADER_BYTES_MAX;
    const VERSION: Option<u64> = Some(Self::VERSION);

    fn check(&self) -> Result<(), &'static str> {
        if self.height.0 == 0 {
            return Err("height 0 is the genesis and has no header");
        }
        if self.time.0 > limits::LEDGER_TIME_MS_MAX {
            return Err("its time is after the year 2199");
        }
        Ok(())
    }
}

/// One validator's precommit for a header.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
#[cbor(array)]
pub struct CertificateSignature {
    /// The validator.
    #[n(0)]
    pub validator: ApplianceId,
    /// Its ML-DSA signature over the precommit's bytes.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub signature: Vec<u8>,
}

/// The precommits of more than two thirds of all stake for one header. There is no other signature on a height.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
#[cbor(array)]
pub struct Certificate {
    /// Format version: 1.
    #[n(0)]
    pub version: u64,
    /// The height.
    #[n(1)]
    pub height: Height,
    /// The round in which it was decided.
    #[n(2)]
    pub round: Round,
    /// Hash of the header.
    #[n(3)]
    pub header: Hash,
    /// The precommits, ascending by validator, without repeats.
    #[n(4)]
    pub signatures: Vec<CertificateSignature>,
}

impl Certificate {
    /// The format version that this program writes.
    pub const VERSION: u64 = 1;
}

impl Canonical for Certificate {
    const WHAT: &'static str = "certificate";
    const BYTES_MAX: usize = limits::CERTIFICATE_BYTES_MAX;
    const VERSION: Option<u64> = Some(Self::VERSION);

    fn check(&self) -> Result<(), &'static str> {
        if self.signatures.len() > limits::GENESIS_KEYS_MAX {
            return Err("it has more signatures than a network may have validators");
        }
        if !self.signatures.windows(2).all(|pair| pair[0].validator < pair[1].validator) {
            return Err("its signatures are not sorted or repeat a validator");
        }
        Ok(())
    }
}
