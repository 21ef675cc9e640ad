//! Handing in entries, and what comes back.

use crate::text::at_most;
use crate::{Bytes64, EntryProof, HashHex, MessageHex, Problem, SaltHex, ThreadHex};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use zixt_types::limits;

/// Attachments of the entry that has most: a device addition by invitation.
const ATTACHMENTS_MAX: usize = 4;

/// One entry as its author hands it in.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SubmissionItem {
    /// `zixt_types::Body`, as signed.
    pub body: Bytes64,
    /// The author's signature.
    pub signature: Bytes64,
    /// The new device's own signature; in device additions only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub possession: Option<Bytes64>,
    /// What the body names by digest, in the order of `zixt_types::BatchItem::attachments`.
    #[serde(default, deserialize_with = "at_most::<_, _, ATTACHMENTS_MAX>")]
    pub attachments: Vec<Bytes64>,
}

/// Entries for one thread, in order.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SubmitRequest {
    /// At most `limits::SUBMISSIONS_MAX`.
    #[serde(deserialize_with = "at_most::<_, _, { limits::SUBMISSIONS_MAX }>")]
    pub submissions: Vec<SubmissionItem>,
}

/// What became of the entries. If the first is refused, the answer is a plain problem instead.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct SubmitResponse {
    /// Receipts of the entries before the first that was refused, in order.
    pub receipts: Vec<Receipt>,
    /// Why the next entry was refused; those after it were not tried.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<Problem>,
}

/// The first device of an account, added with an invitation.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct EnrolRequest {
    /// A device addition signed by the invitation's key.
    pub submission: SubmissionItem,
    /// The account's name as the invitation says it; refused if the appliance knows the account by another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

/// The proof that an entry is recorded. Complete by itself: with genesis and keyring it can be checked offline.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct Receipt {
    /// The message id of the body that it is for.
    pub message_id: MessageHex,
    /// The thread.
    pub thread: ThreadHex,
    /// The entry's place in the thread.
    pub seq: u64,
    /// Hash of the entry before it.
    pub prev: HashHex,
    /// Ledger time.
    pub time: u64,
    /// What blinds its leaf.
    pub salt: SaltHex,
    /// Its entry hash.
    pub entry: HashHex,
    /// The proof at the entry's own height (a repeated submission may get one at a later height).
    pub proof: EntryProof,
}
