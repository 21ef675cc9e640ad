//! The admin API, on a Unix socket of the appliance only.

use crate::{Bytes64, CustodyState, HashHex, SaltHex, SubmissionItem};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Creates an account: the enroller's entry and the name that it commits to.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AdminInvitation {
    /// An `Invite` signed by an enroller.
    pub submission: SubmissionItem,
    /// The account's name.
    pub name: String,
    /// The salt of the name's commitment.
    pub salt: SaltHex,
}

/// Records what officers decided.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AdminDecision {
    /// `zixt_types::Transcript`.
    pub transcript: Bytes64,
    /// The public key that the decision activates. The appliance knows its own; needed for another appliance's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<Bytes64>,
}

/// A header in short.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct HeaderInfo {
    /// Its height; 0 is the genesis.
    pub height: u64,
    /// Its hash; all zero at height 0.
    pub hash: HashHex,
    /// Its ledger time.
    pub time: u64,
}

/// Records of the audit journal, in order.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct AuditPage {
    /// One record each, or a gap, in the form that was asked for: a JSON object or a CEF line.
    pub lines: Vec<String>,
    /// The number to go on with.
    pub next: u64,
    /// There are more.
    pub more: bool,
}

/// What an administrator sees.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct AdminStatus {
    /// The program's version.
    pub version: String,
    /// The network's name.
    pub network: String,
    /// The genesis hash, which names the network.
    pub genesis: HashHex,
    /// Whether it is a lab: not for production.
    pub lab: bool,
    /// Name of the suite for new keys.
    pub suite: String,
    /// Number of the suite for new keys.
    pub suite_id: u16,
    /// Where clients connect.
    pub listen: String,
    /// Hash of the appliance's TLS key, which invitations pin.
    pub tls: HashHex,
    /// The last header.
    pub latest: HeaderInfo,
    /// State of the custody daemon.
    pub custody: CustodyState,
    /// Where the consensus key lives.
    pub custody_mode: String,
    /// Whether the store takes writes.
    pub store_writable: bool,
    /// Accounts.
    pub accounts: u64,
    /// Active devices.
    pub devices: u64,
    /// Conversations.
    pub conversations: u64,
    /// Open connections of clients.
    pub connections: u64,
    /// Open push streams.
    pub streams: u64,
    /// Entries that wait for their height.
    pub queued: u64,
    /// Milliseconds since the program started.
    pub uptime_ms: u64,
}
