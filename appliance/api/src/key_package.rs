//! MLS key packages (RFC 9420 section 10): how somebody is added who is not online.

use crate::text::at_most;
use crate::{AccountHex, Bytes64, MemberRef};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use zixt_types::limits;

/// Key packages of the uploading device.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct KeyPackageUpload {
    /// Each is handed out once. Added to those that wait, up to `limits::KEY_PACKAGES_MAX`.
    #[serde(default, deserialize_with = "at_most::<_, _, { limits::KEY_PACKAGES_MAX }>")]
    pub one_time: Vec<Bytes64>,
    /// Handed out when no other is left, again and again; replaces the one before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_resort: Option<Bytes64>,
}

/// How many key packages of the asking device wait.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct KeyPackageCounts {
    /// One-time key packages.
    pub one_time: u32,
    /// Whether there is one of last resort.
    pub last_resort: bool,
}

/// Asks for a key package of every active device of some accounts.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ClaimRequest {
    /// The accounts. The asking device's own account may be among them; the asking device gets none of its own.
    pub accounts: Vec<AccountHex>,
}

/// A key package, handed out.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct ClaimedKeyPackage {
    /// Whose it is.
    pub member: MemberRef,
    /// The MLS KeyPackage message. Check its keys against the account's entries before use.
    pub key_package: Bytes64,
    /// Whether it is the one of last resort, which others may have got as well.
    pub last_resort: bool,
}

/// Key packages for the active devices of the accounts.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct ClaimResponse {
    /// One for each device that has any.
    pub key_packages: Vec<ClaimedKeyPackage>,
    /// Active devices that have none. They cannot be added now.
    pub missing: Vec<MemberRef>,
}
