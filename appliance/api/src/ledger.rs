//! Headers, certificates and proofs as they travel. Every one is checked by the client with `zixt_ledger`; the bytes
//! are the ones that hashes and signatures are made over.

use crate::{Bytes64, HashHex, ThreadHex};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A header with the certificate that makes it final.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct CertifiedHeader {
    /// Its height.
    pub height: u64,
    /// `zixt_types::Header`, as hashed.
    pub header: Bytes64,
    /// `zixt_types::Certificate`.
    pub certificate: Bytes64,
}

/// What a network is and where its ledger stands.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct Network {
    /// `zixt_types::Genesis`, as hashed.
    pub genesis: Bytes64,
    /// `zixt_ledger::Keyring`: the public keys that the genesis names by hash.
    pub keyring: Bytes64,
    /// The last header; absent before the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latest: Option<CertifiedHeader>,
}

/// The state of a shard's tree and the proof that a header commits to it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct ShardProof {
    /// The shard.
    pub shard: u16,
    /// Leaves in its tree.
    pub size: u64,
    /// Its tree's root.
    pub root: HashHex,
    /// Inclusion proof of this state in the header's `shards` (`zixt_ledger::tree::verify_inclusion`; the leaf is
    /// `shard_leaf`, its index the shard, the tree's size the genesis' shard count).
    pub path: Vec<HashHex>,
}

/// The proof that an entry is in the ledger, at one height.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct EntryProof {
    /// The header that the proof leads to.
    pub certified: CertifiedHeader,
    /// The entry's shard at that height.
    pub shard: ShardProof,
    /// The number of the entry's leaf in the shard's tree.
    pub leaf: u64,
    /// Inclusion proof of the leaf in the shard's tree.
    pub path: Vec<HashHex>,
}

/// The proof of a thread's head, or of its absence, at the latest height.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct HeadProof {
    /// The thread.
    pub thread: ThreadHex,
    /// Proof in the header's head map: the deterministic CBOR of `zixt_ledger::map::MapProof`.
    pub map: Bytes64,
    /// The header that the proof leads to.
    pub certified: CertifiedHeader,
}

/// The proof that an older header is in the past of the latest, and that shards only grew.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct Consistency {
    /// The older header's height.
    pub from_height: u64,
    /// The latest header.
    pub latest: CertifiedHeader,
    /// Inclusion proof of the older header's `history_leaf` (index `from_height - 1`) in the latest header's history
    /// (`latest.height - 1` leaves). Empty if the older header is the latest or `from_height` is 0.
    pub history: Vec<HashHex>,
    /// For each pair asked for.
    pub shards: Vec<ShardConsistency>,
}

/// The proof that a shard's tree began with an older state of it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct ShardConsistency {
    /// Leaves of the older tree.
    pub from_size: u64,
    /// The shard at the latest header.
    pub latest: ShardProof,
    /// `zixt_ledger::tree::verify_consistency`.
    pub path: Vec<HashHex>,
}
