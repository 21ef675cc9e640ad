//! Programs of others: their tokens, and what they can follow.

use crate::{AccountHex, DeviceHex, Secret, SessionHex};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A token for a program.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewServiceToken {
    /// What it is called in lists.
    pub name: String,
    /// What it is for: `accounts:read`, `accounts:hold`, `health:read`, `events:read`.
    pub scopes: Vec<String>,
    /// Days for which it is good; at most 366.
    pub days: u16,
    /// Addresses whose networks it is good from (IPv6: the first 64 bits). None: from everywhere.
    #[serde(default)]
    pub networks: Vec<String>,
}

/// A token that was made.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct ServiceTokenMade {
    /// What the program shows: `Authorization: Bearer …`. Shown once.
    pub token: Secret,
    /// Names it in lists.
    pub id: SessionHex,
    /// Its end, by the appliance's wall clock.
    pub expires_at: u64,
}

/// A token, without what it says.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct ServiceTokenInfo {
    /// Names it.
    pub id: SessionHex,
    /// What it is called.
    pub name: String,
    /// What it is for.
    pub scopes: Vec<String>,
    /// Where it is good from; none means everywhere.
    pub networks: Vec<String>,
    /// Who made it.
    pub made_by: AccountHex,
    /// When, by the appliance's wall clock.
    pub made_at: u64,
    /// Its end, by the same clock.
    pub expires_at: u64,
}

/// The tokens of a program.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct ServiceTokenList {
    /// The tokens.
    pub tokens: Vec<ServiceTokenInfo>,
}

/// Something that happened to an account, a device or a directory.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct EventInfo {
    /// Its number in the audit journal.
    pub sequence: u64,
    /// When, by the appliance's wall clock.
    pub at: u64,
    /// What: a word of the audit record.
    pub action: String,
    /// `ok`, or the code of what was against it.
    pub outcome: String,
    /// Whose account.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub account: Option<AccountHex>,
    /// Which device.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<DeviceHex>,
}

/// What happened, in order.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct EventPage {
    /// What happened.
    pub events: Vec<EventInfo>,
    /// Where to go on: `after` of the next request, whether or not there is more now.
    pub next: u64,
    /// Whether there is more already.
    pub more: bool,
}
