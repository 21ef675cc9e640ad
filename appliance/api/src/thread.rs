//! Threads and their entries.

use crate::{AccountHex, Bytes64, DeviceHex, HashHex, HeadProof, SaltHex, ThreadHex};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A device as a member of a conversation.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize, ToSchema)]
pub struct MemberRef {
    /// The account.
    pub account: AccountHex,
    /// Its device.
    pub device: DeviceHex,
}

/// A thread as it stands at the latest height.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct ThreadView {
    /// The thread.
    pub thread: ThreadHex,
    /// Place of its last entry.
    pub seq: u64,
    /// Hash of its last entry.
    pub head: HashHex,
    /// The counter that the asking device's next body has to have.
    pub next_counter: u64,
    /// The MLS epoch, in conversations.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch: Option<u64>,
    /// Where the commit stands that began it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch_since: Option<u64>,
    /// The members, ascending; in conversations.
    #[serde(default)]
    pub members: Vec<MemberRef>,
    /// Proof of the head.
    pub proof: HeadProof,
}

/// An entry as it was recorded.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct Entry {
    /// Its thread.
    pub thread: ThreadHex,
    /// Its place in the thread.
    pub seq: u64,
    /// Hash of the entry before it.
    pub prev: HashHex,
    /// Ledger time.
    pub time: u64,
    /// The height that added it.
    pub height: u64,
    /// Its entry hash, for convenience: `zixt_crypto::digest::entry_hash` recomputes it.
    pub entry: HashHex,
    /// What blinds its leaf.
    pub salt: SaltHex,
    /// `zixt_types::Body`, as signed.
    pub body: Bytes64,
    /// The author's signature.
    pub signature: Bytes64,
    /// The new device's own signature; in device additions only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub possession: Option<Bytes64>,
    /// How many attachments it has. They are fetched one by one.
    pub attachments: u32,
}

/// Entries of the system thread, in order: what officers decided, so that whoever knows the genesis knows the validators.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct SystemView {
    /// The entries.
    pub entries: Vec<Entry>,
    /// Public keys that these entries activate.
    pub keys: Vec<crate::PublicKey>,
    /// Where the next page begins; absent at the thread's end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<u64>,
    /// Proof of the thread's head, or that it has none; absent before the first height.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proof: Option<HeadProof>,
}

/// Entries of a thread, in order.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct EntryPage {
    /// The entries.
    pub entries: Vec<Entry>,
    /// Where the next page begins; absent at the thread's end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<u64>,
}
