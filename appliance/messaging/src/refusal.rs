//! Why a conversation refuses: one enum per operation. After any of these the conversation is as before.

use mls_rs::error::MlsError;
use zixt_crypto::RandomError;
use zixt_crypto::aead::SealError;
use zixt_types::{Epoch, Member, ParseError, limits};

use crate::fault::{MlsFault, StateFault};
use crate::identity::IdentityError;
use crate::key_package::KeyPackageError;

/// Why no commit was made.
#[derive(Debug, thiserror::Error)]
pub enum DraftError {
    /// A commit of this device still waits for the ledger.
    #[error("a commit of this device still waits for the ledger")]
    Pending,
    /// The first commit has to add somebody.
    #[error("the first commit of a conversation has to add somebody")]
    Alone,
    /// More members leave or join than one commit may change.
    #[error("{got} members change at once; at most {} may", limits::ROSTER_CHANGE_MAX)]
    ChangeTooLarge {
        /// How many.
        got: usize,
    },
    /// The conversation would have too many members.
    #[error("the conversation would have {got} members; at most {} are allowed", limits::MEMBERS_MAX)]
    TooManyMembers {
        /// How many.
        got: usize,
    },
    /// A key package is not good.
    #[error("a key package was refused")]
    KeyPackage(#[from] KeyPackageError),
    /// Somebody who is to join is a member or stands twice in the list.
    #[error("device {} of account {} is a member already or is added twice", .0.device, .0.account)]
    AlreadyMember(Member),
    /// Somebody who is to leave is no member or stands twice in the list.
    #[error("device {} of account {} is no member or is removed twice", .0.device, .0.account)]
    NoMember(Member),
    /// MLS does not let a device remove itself: another member has to.
    #[error("a device cannot remove itself")]
    OwnRemoval,
    /// A member who stays is no longer in the ledger: the commit has to remove that device too.
    #[error("a member who would stay is not in the ledger")]
    Stale(#[source] IdentityError),
    /// The commit, its Welcome or its tree would be too long.
    #[error("the {what} has {got} bytes; at most {max} are allowed")]
    TooLong {
        /// Which of them.
        what: &'static str,
        /// Its length.
        got: usize,
        /// The longest that is allowed.
        max: usize,
    },
    /// No randomness for the key of the tree.
    #[error(transparent)]
    Random(#[from] RandomError),
    /// The tree could not be encrypted.
    #[error("the tree could not be encrypted")]
    Seal(#[from] SealError),
    /// MLS refused.
    #[error(transparent)]
    Mls(#[from] MlsFault),
    /// The state cannot be used or saved.
    #[error(transparent)]
    State(#[from] StateFault),
}

impl From<MlsError> for DraftError {
    fn from(error: MlsError) -> Self {
        Self::Mls(error.into())
    }
}

/// Why a commit was not taken. The conversation is as before.
#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    /// It belongs to another conversation.
    #[error("the commit belongs to another conversation")]
    OtherThread,
    /// It is longer than any commit.
    #[error("the commit has {got} bytes; at most {} are allowed", limits::COMMIT_BYTES_MAX)]
    TooLong {
        /// Its length.
        got: usize,
    },
    /// The envelope is not the one that the entry names.
    #[error("the envelope is not the one that the entry names")]
    Digest,
    /// It ends another epoch than the current one.
    #[error("the commit ends epoch {got}; the conversation is in epoch {current}")]
    Epoch {
        /// The conversation's.
        current: Epoch,
        /// The commit's.
        got: Epoch,
    },
    /// It is a commit of this device: [`crate::Conversation::confirm_commit`] takes those.
    #[error("the commit is of this device")]
    Own,
    /// No commit of this device waits, or another one.
    #[error("no such commit of this device waits for the ledger")]
    NotPending,
    /// The envelope is not an encrypted commit of this conversation and epoch.
    #[error("the envelope is not an encrypted commit of this conversation and epoch")]
    Malformed,
    /// Another member than the entry's author made it.
    #[error("another member than the author of the entry made the commit")]
    Author {
        /// Who made it.
        got: Member,
    },
    /// It adds or removes others than the entry says.
    #[error("the commit adds or removes others than the entry says")]
    Roster {
        /// Whom it adds.
        added: Vec<Member>,
        /// Whom it removes.
        removed: Vec<Member>,
    },
    /// The conversation would have too many members.
    #[error("the conversation would have {got} members; at most {} are allowed", limits::MEMBERS_MAX)]
    TooManyMembers {
        /// How many.
        got: usize,
    },
    /// It leads to another epoch authenticator than the entry says.
    #[error("the commit leads to another epoch authenticator than the entry says")]
    Authenticator,
    /// MLS refused.
    #[error(transparent)]
    Mls(#[from] MlsFault),
    /// The state cannot be used or saved.
    #[error(transparent)]
    State(#[from] StateFault),
}

impl From<MlsError> for CommitError {
    fn from(error: MlsError) -> Self {
        Self::Mls(error.into())
    }
}

/// Why nothing was encrypted.
#[derive(Debug, thiserror::Error)]
pub enum EncryptError {
    /// The conversation does not exist yet: its first commit is not in the ledger.
    #[error("the conversation has no first commit yet")]
    Alone,
    /// The content breaks a rule of its format.
    #[error("the content breaks a rule")]
    Content(#[source] ParseError),
    /// A member is no longer in the ledger and would read the message: remove that device first.
    #[error("a member is not in the ledger")]
    Stale(#[source] IdentityError),
    /// The envelope would be too long.
    #[error("the envelope has {got} bytes; at most {} are allowed", limits::ENVELOPE_BYTES_MAX)]
    TooLong {
        /// Its length.
        got: usize,
    },
    /// No randomness for k.
    #[error(transparent)]
    Random(#[from] RandomError),
    /// MLS refused.
    #[error(transparent)]
    Mls(#[from] MlsFault),
    /// The state cannot be used or saved.
    #[error(transparent)]
    State(#[from] StateFault),
}

impl From<MlsError> for EncryptError {
    fn from(error: MlsError) -> Self {
        Self::Mls(error.into())
    }
}

/// Why a message was not taken. The conversation is as before.
#[derive(Debug, thiserror::Error)]
pub enum DecryptError {
    /// It belongs to another conversation.
    #[error("the message belongs to another conversation")]
    OtherThread,
    /// It is longer than any message.
    #[error("the envelope has {got} bytes; at most {} are allowed", limits::ENVELOPE_BYTES_MAX)]
    TooLong {
        /// Its length.
        got: usize,
    },
    /// The envelope is not the one that the entry names.
    #[error("the envelope is not the one that the entry names")]
    Digest,
    /// It is a message of this device, which keeps what it sent.
    #[error("the message is of this device")]
    Own,
    /// The envelope is not an encrypted message of this conversation and epoch.
    #[error("the envelope is not an encrypted message of this conversation and of the entry's epoch")]
    Malformed,
    /// Its epoch has not begun here: commits are missing.
    #[error("the message is of epoch {got}; the conversation is in epoch {current}")]
    FutureEpoch {
        /// The conversation's.
        current: Epoch,
        /// The message's.
        got: Epoch,
    },
    /// The keys of its epoch are gone, or this device was not a member in it.
    #[error("the keys of epoch {got} are gone; the conversation is in epoch {current}")]
    EpochGone {
        /// The conversation's.
        current: Epoch,
        /// The message's.
        got: Epoch,
    },
    /// It was decrypted before: its key is gone.
    #[error("the message was decrypted before")]
    AlreadyDecrypted,
    /// More than 1024 messages of its author are missing before it.
    #[error("too many messages of its author are missing before it")]
    TooFarAhead,
    /// A late message of somebody who is no longer a member.
    #[error("the author of this late message is no longer a member")]
    AuthorGone,
    /// Another member than the entry's author sent it.
    #[error("another member than the author of the entry sent the message")]
    Author {
        /// Who sent it.
        got: Member,
    },
    /// It names another conversation or message than the entry.
    #[error("the message is bound to another message id")]
    MessageId,
    /// The plaintext is malformed.
    #[error("the plaintext is malformed")]
    Plaintext(#[source] ParseError),
    /// The content is not the one that the entry commits to.
    #[error("the content is not the one that the entry commits to")]
    Commitment,
    /// MLS refused: altered bytes or a signature that does not hold.
    #[error(transparent)]
    Mls(#[from] MlsFault),
    /// The state cannot be used or saved.
    #[error(transparent)]
    State(#[from] StateFault),
}
