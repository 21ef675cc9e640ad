//! The admin API, on a Unix socket of the appliance only.

use crate::{Bytes64, ClockInfo, CustodyState, DirectoryInfo, HashHex, SaltHex, SubmissionItem};
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
    /// Who the person is at a directory, if the account is linked from the beginning.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub link: Option<InvitationLink>,
}

/// A person at a directory.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct InvitationLink {
    /// The directory, by its name or issuer.
    pub directory: String,
    /// The login name there.
    pub login: String,
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

/// Where browsers connect.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct WebAddress {
    /// `https://host:port`
    pub origin: String,
    /// SHA-256 of the certificate, as browsers show it: compare it when a browser asks.
    pub fingerprint: String,
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

/// How the audit journal is.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct AuditHealth {
    /// The last record.
    pub head: u64,
    /// The first record that is still here.
    pub first: u64,
    /// Events that wait to be written.
    pub waiting: u64,
    /// There is a reserve for a full disk. If not, only what concerns security is recorded, and everything else refused.
    pub reserved: bool,
    /// Why there is no reserve.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reserve_error: Option<String>,
    /// Bytes left in the file that is being written. Without a reserve that is all there is.
    pub room_bytes: u64,
    /// Actions that were refused since the disk became full.
    pub refused: u64,
    /// Why nothing is recorded any more, until the next start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed: Option<String>,
}

/// Where audit records go beside the journal.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum AuditSinkKind {
    /// A syslog receiver, over TLS.
    Syslog,
    /// systemd's journal on the box.
    Journald,
}

/// How a sink is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum AuditSinkState {
    /// It keeps up.
    Ok,
    /// It has not got everything for a second or longer.
    Behind,
    /// It takes nothing.
    Failing,
}

/// A sink of audit records. Nothing waits for it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct AuditSink {
    /// Its name in the configuration.
    pub name: String,
    /// What it is.
    pub kind: AuditSinkKind,
    /// How it is.
    pub state: AuditSinkState,
    /// Records that were not handed on yet.
    pub events_behind: u64,
    /// For how long there has been one of those.
    pub seconds_behind: u64,
    /// The last record that was handed on.
    pub delivered: u64,
    /// Times since the start that it was told of records that it will never get.
    pub gaps: u64,
    /// The last error, as long as it lasts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
    /// When it began to fail, in milliseconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<u64>,
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
    /// The audit journal.
    pub audit: AuditHealth,
    /// Where its records go beside it.
    pub audit_sinks: Vec<AuditSink>,
    /// How the clocks stand.
    pub clock: ClockInfo,
    /// Where browsers connect.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub web: Option<WebAddress>,
    /// How directories are.
    pub directories: Vec<DirectoryInfo>,
}
