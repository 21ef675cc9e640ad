//! Every way in which the client can fail, and what to do about it.

use crate::connection::ConnectionError;
use crate::shared::OUTBOX_MAX;
use crate::store::StoreError;
use crate::trust::TrustError;
use std::path::PathBuf;
use thiserror::Error;
use zixt_api::{ErrorCode, FactorKind, Problem};
use zixt_types::ThreadId;

/// Why an operation failed. [`ClientError::advice`] says what to do.
#[derive(Debug, Error)]
pub enum ClientError {
    /// The local store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The appliance cannot be reached.
    #[error(transparent)]
    Connection(#[from] ConnectionError),
    /// The appliance refused.
    #[error("{0}")]
    Refused(Box<Problem>),
    /// Whoever answers wants a signature for another connection or appliance: somebody relays. Nothing was signed.
    #[error("the sign-in was not answered: {0}")]
    Relayed(String),
    /// The sign-in asks for more than this device's key, and nobody gave it.
    #[error("the sign-in asks for one more of: {}", names(.0))]
    MoreFactors(Vec<FactorKind>),
    /// The appliance, the ledger or another member lied.
    #[error(transparent)]
    Trust(#[from] Box<TrustError>),
    /// The invitation does not fit.
    #[error("the invitation cannot be used: {0}")]
    Invitation(String),
    /// No such conversation on this device.
    #[error("there is no conversation {0} on this device")]
    UnknownThread(ThreadId),
    /// Nobody has this name.
    #[error("nobody here is called '{0}'")]
    UnknownPerson(String),
    /// A conversation needs somebody else.
    #[error("nobody was named")]
    NobodyNamed,
    /// Somebody is in the conversation already.
    #[error("'{0}' is in the conversation already")]
    AlreadyIn(String),
    /// Somebody is not in the conversation.
    #[error("'{0}' is not in the conversation")]
    NotIn(String),
    /// A member cannot remove itself.
    #[error("you cannot remove yourself; another member has to")]
    OwnRemoval,
    /// Somebody has published no key package.
    #[error("'{0}' cannot be added now: no device of theirs has published keys yet")]
    NoKeys(String),
    /// This device was removed.
    #[error("this device is not in the conversation any more")]
    Removed,
    /// A trust alarm stopped it.
    #[error("stopped by a trust alarm: {0}")]
    Blocked(String),
    /// The text is too long.
    #[error("the text has {got} bytes; at most {max} are allowed")]
    TextTooLong {
        /// Its length.
        got: usize,
        /// What is allowed.
        max: usize,
    },
    /// Too much waits.
    #[error("{OUTBOX_MAX} messages wait to be sent; no more are queued")]
    OutboxFull,
    /// No such message.
    #[error("the conversation has no recorded message {0}")]
    UnknownMessage(u64),
    /// The content of a message is not on this device.
    #[error("the content of message {0} is not on this device, so it cannot be disclosed")]
    NoContent(u64),
    /// Encryption or its state.
    #[error("encryption: {0}")]
    Messaging(String),
    /// Cryptography below.
    #[error("cryptography: {0}")]
    Crypto(String),
    /// The evidence would not have passed verification; nothing was written.
    #[error("no evidence was written, because it would not pass verification: {0}")]
    Evidence(String),
    /// There is no proof of a fork.
    #[error("this device has found no fork, so there is no proof to export")]
    NoFork,
    /// The ledger moved on all the time while proofs were collected.
    #[error("the ledger moved on while proofs were collected")]
    Moving,
    /// A file cannot be written.
    #[error("{}: {source}", path.display())]
    File {
        /// The path.
        path: PathBuf,
        /// The fault.
        #[source]
        source: std::io::Error,
    },
}

fn names(factors: &[FactorKind]) -> String {
    let names: Vec<_> = factors.iter().map(|factor| factor.name()).collect();
    names.join(", ")
}

impl From<Problem> for ClientError {
    fn from(problem: Problem) -> Self {
        Self::Refused(Box::new(problem))
    }
}

impl From<TrustError> for ClientError {
    fn from(error: TrustError) -> Self {
        Self::Trust(Box::new(error))
    }
}

/// What kind of answer an error asks for; a face maps it to exit codes and colours.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Advice {
    /// The user asked for something impossible: say it differently.
    Usage,
    /// The appliance is away or busy: it passes; what was queued stays queued.
    Wait,
    /// The local store needs the user (passphrase, disk, another program).
    Local,
    /// Somebody with more rights has to act.
    Administrator,
    /// Trust is violated: stop, keep the proof, tell an administrator.
    Alarm,
    /// A fault of the program or of versions that do not fit.
    Fault,
}

impl ClientError {
    /// Which kind of answer it asks for.
    #[must_use]
    pub fn kind(&self) -> Advice {
        match self {
            Self::Store(StoreError::Altered { .. })
            | Self::Trust(_)
            | Self::Blocked(_)
            | Self::Relayed(_) => Advice::Alarm,
            Self::Store(_) | Self::File { .. } => Advice::Local,
            Self::Connection(error) => match error {
                ConnectionError::WrongKey => Advice::Alarm,
                ConnectionError::Protocol(_) | ConnectionError::TooLarge { .. } => Advice::Fault,
                _ => Advice::Wait,
            },
            Self::Moving | Self::NoKeys(_) | Self::OutboxFull => Advice::Wait,
            Self::Refused(problem) => match problem.code {
                ErrorCode::OtherHistory | ErrorCode::CounterReplayed => Advice::Alarm,
                ErrorCode::CustodyLocked
                | ErrorCode::CustodyUnavailable
                | ErrorCode::CallerRevoked
                | ErrorCode::UnknownCaller
                | ErrorCode::SignInRefused
                | ErrorCode::InvitationUsed
                | ErrorCode::InvitationExpired
                | ErrorCode::StoreFailed
                | ErrorCode::AttachmentDamaged
                | ErrorCode::LedgerStopped => Advice::Administrator,
                ErrorCode::SignInLocked => Advice::Wait,
                _ if problem.status >= 500 => Advice::Wait,
                _ => Advice::Usage,
            },
            Self::Messaging(_) | Self::Crypto(_) | Self::Evidence(_) => Advice::Fault,
            Self::Invitation(_) => Advice::Administrator,
            _ => Advice::Usage,
        }
    }

    /// What to do, for people.
    #[must_use]
    pub fn advice(&self) -> &'static str {
        match self {
            Self::Store(StoreError::WrongPassphrase) => {
                "Try again. Nobody can recover a forgotten passphrase."
            }
            Self::Store(StoreError::DiskFull) => "Make room on the disk and try again; nothing was lost.",
            Self::Store(StoreError::Absent(_)) => "Enrol this device with your invitation first.",
            Self::Store(StoreError::InUse) => "Close the other program that uses this account.",
            Self::Store(StoreError::Altered { .. }) => {
                "Do not trust this device's history. Ask an administrator for a new invitation and enrol again."
            }
            Self::Connection(ConnectionError::WrongKey) => {
                "Nothing was sent. The address may be taken over: tell an administrator."
            }
            Self::Refused(problem) if problem.code == ErrorCode::SignInRefused => {
                "The account may be suspended, or a code was wrong. Ask an administrator; what is queued stays queued."
            }
            Self::Refused(problem) => problem.code.advice(),
            Self::Relayed(_) => "Nothing was signed. Somebody may stand between: tell an administrator.",
            Self::MoreFactors(_) => "Run the command in a terminal, where it can ask you.",
            Self::Trust(error) => error.advice(),
            Self::Blocked(_) => "Export the proof if there is one, and tell an administrator.",
            Self::Moving => "Try again in a moment.",
            Self::NoKeys(_) => "They have to open their client once; then try again.",
            Self::Invitation(_) => "Ask for a new invitation.",
            Self::UnknownPerson(_) => "Check the spelling.",
            Self::Removed => "The history stays. Ask a member to add you again.",
            Self::OutboxFull => "Connect to the appliance and run `zixt sync`: it sends what waits.",
            Self::TextTooLong { .. } => "Split the text.",
            Self::NoContent(_) => "Export without content.",
            _ => match self.kind() {
                Advice::Usage => "Check what was asked for.",
                Advice::Wait => "The appliance is away. What you write is queued and sent when it returns.",
                Advice::Local => "Look after the local folder and try again.",
                Advice::Administrator => "Ask an administrator.",
                Advice::Alarm => "Stop, and tell an administrator.",
                Advice::Fault => "Update client and appliance; if it stays, report it.",
            },
        }
    }
}
