//! Accounts as others see them.

use crate::{AccountHex, Bytes64, Entry, HashHex, HeadProof, SaltHex};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// An account and its name. The salt opens the commitment that the account's invitation recorded.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct AccountName {
    /// The account.
    pub account: AccountHex,
    /// Its name.
    pub name: String,
    /// The salt of the name's commitment.
    pub salt: SaltHex,
}

/// A public key.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct PublicKey {
    /// The suite's number.
    pub suite: u16,
    /// Its hash, as entries and genesis name it.
    pub hash: HashHex,
    /// The encoded key.
    pub key: Bytes64,
}

/// An account's whole thread with everything needed to replay and check it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct AccountView {
    /// The account.
    pub account: AccountHex,
    /// Its name, if this appliance knows it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<AccountName>,
    /// All entries of its thread, from the first.
    pub entries: Vec<Entry>,
    /// The keys that the entries name: enrollers', invitation's, and every device's identity, MLS and TLS key.
    pub keys: Vec<PublicKey>,
    /// Proof that the last entry is the thread's head.
    pub proof: HeadProof,
}
