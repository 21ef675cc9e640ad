//! What `/healthz` tells.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// State of the custody daemon as the server last saw it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum CustodyState {
    /// It cannot be reached.
    Absent,
    /// It has no keys yet.
    Unprovisioned,
    /// It waits for its PIN.
    Locked,
    /// It signs.
    Operational,
    /// It signs with a consensus key that the ledger does not know yet. Until the officers' decision is recorded (see
    /// `zixt-admin decide`) nothing else can be.
    AwaitingActivation,
    /// It holds keys but must not sign until officers decide.
    Quarantined,
    /// It is broken.
    Failed,
}

impl CustodyState {
    /// Whether its keys can be used for what is no vote: handshakes, names, invitations.
    #[must_use]
    pub const fn has_keys(self) -> bool {
        matches!(self, Self::Operational | Self::AwaitingActivation)
    }
}

/// Whether the appliance can do its work. Served with status 200 if `ok`, else with 503.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct Health {
    /// Whether messages can be recorded now.
    pub ok: bool,
    /// State of the custody daemon.
    pub custody: CustodyState,
    /// Whether the store takes writes.
    pub store_writable: bool,
    /// The ledger's height.
    pub height: u64,
    /// When the last height was committed, by the appliance's clock; absent if none was since the start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_commit_at: Option<u64>,
    /// Why not, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}
