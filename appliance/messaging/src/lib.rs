//! End-to-end encryption for clients: MLS (RFC 9420) bound to the ledger. The server never links this crate.
//!
//! A [`Device`] makes key packages, creates, joins and opens [`Conversation`]s. A conversation makes and takes commits
//! and messages, and believes nothing that the ledger does not say too: who a member is ([`KeyDirectory`]), what a
//! commit changed ([`CommitEntry`]), what a message commits to ([`MessageEntry`]).
//!
//! There is no I/O here. Each operation gives back what changed of the state, encrypted ([`SealedState`]); the caller
//! stores it, with the envelope, **before** anything leaves the device. Time is an argument.
//!
//! ```text
//! sender                                     ledger                      receiver
//! commit()  -> store state, draft -> submit    |
//! confirm_commit(entry)       <- certified entry -> process_commit(envelope, entry) | join(welcome, tree, entry)
//! encrypt() -> store state, envelope -> submit |
//!                                certified entry -> decrypt(envelope, entry) -> store state, content
//! ```

pub mod content;
mod conversation;
mod device;
mod draft;
mod entry;
mod fault;
#[cfg(test)]
mod hostile;
pub mod identity;
pub mod key_package;
pub mod provider;
mod refusal;
mod rules;
mod staging;
mod state;

pub use content::{
    Content, ContentKey, ContentKind, SeenHeader, TITLE_BYTES_MAX, TextTooLong, content_commitment,
};
pub use conversation::{
    Change, CommitDraft, CommitOutcome, Conversation, OutgoingMessage, Received, RotationReason,
};
pub use device::{CreateError, Device, JoinError, Joined, OpenError};
pub use entry::{CommitEntry, MessageEntry};
pub use fault::{MlsFault, StateFault};
pub use identity::{IdentityError, KeyDirectory};
pub use key_package::{
    KeyPackageError, KeyPackageId, KeyPackageInfo, KeyPackageUse, NewKeyPackage, SealedKeyPackage,
    welcome_key_packages,
};
pub use refusal::{CommitError, DecryptError, DraftError, EncryptError};
pub use rules::RuleError;
pub use staging::PAST_EPOCHS_MAX;
pub use state::{STATE_VERSION, SealedState, StatePart, StoredState, UnsealError};
