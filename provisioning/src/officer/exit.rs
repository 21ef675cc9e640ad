//! How a command ends: stable exit codes, and what the officer is told.

use crate::officer::KeyFileError;
use std::fmt;
use std::io;
use std::path::Path;
use std::process::ExitCode;
use zixt_ceremony::file::FileError;
use zixt_ceremony::{CardError, CeremonyError, RecoveryError, ReleaseError};
use zixt_crypto::selftest::SelfTestError;

/// The exit codes. They stand in `docs/operating/officers.md` and never change their meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// It was done.
    Ok = 0,
    /// The officer said no; nothing was signed.
    Declined = 1,
    /// The passphrase is wrong, or the key file was altered.
    WrongPassphrase = 3,
    /// More approvals are needed; what is there was written.
    TooFew = 4,
    /// Not this network, not an officer, too late, twice: nothing that trying again changes.
    Refused = 5,
    /// A signature, share or checksum does not fit.
    Altered = 6,
    /// A file cannot be read or written, or is there already.
    File = 7,
    /// The command line or a file's kind was not understood.
    Usage = 64,
    /// A fault of this program or machine.
    Internal = 70,
}

impl Exit {
    /// All of them, in order.
    pub const ALL: [Self; 9] = [
        Self::Ok,
        Self::Declined,
        Self::WrongPassphrase,
        Self::TooFew,
        Self::Refused,
        Self::Altered,
        Self::File,
        Self::Usage,
        Self::Internal,
    ];

    /// The stable word for it, as `kind` in JSON.
    #[must_use]
    pub const fn kind(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Declined => "declined",
            Self::WrongPassphrase => "wrong-passphrase",
            Self::TooFew => "too-few",
            Self::Refused => "refused",
            Self::Altered => "altered",
            Self::File => "file",
            Self::Usage => "usage",
            Self::Internal => "internal",
        }
    }

    /// What it means, for `--help`.
    #[must_use]
    pub const fn meaning(self) -> &'static str {
        match self {
            Self::Ok => "done",
            Self::Declined => "you said no; nothing was signed",
            Self::WrongPassphrase => "the passphrase is wrong, or the key file was altered",
            Self::TooFew => "more approvals are needed; those given were written",
            Self::Refused => "another network, no officer, too late, or twice",
            Self::Altered => "a signature, share or checksum does not fit",
            Self::File => "a file cannot be read or written, or is there already",
            Self::Usage => "the command line or a file's kind was not understood",
            Self::Internal => "a fault of this program or machine",
        }
    }

    /// The table that `--help` ends with.
    #[must_use]
    pub fn table() -> String {
        let mut text = String::from("Exit codes:\n");
        for exit in Self::ALL {
            text.push_str(&format!("  {:>2}  {}\n", exit as u8, exit.meaning()));
        }
        text
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Why a command failed: the exit code, what happened, and what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The exit code.
    pub exit: Exit,
    /// What happened.
    pub what: String,
    /// What to do; may be empty when `what` says it.
    pub advice: String,
}

impl Failure {
    /// A failure.
    pub fn new(exit: Exit, what: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { exit, what: what.into(), advice: advice.into() }
    }

    /// A file of the officer's cannot be read or written.
    pub fn file(path: &Path, error: &io::Error) -> Self {
        let advice = match error.kind() {
            io::ErrorKind::AlreadyExists => {
                "Nothing is overwritten: choose another name, or move the file away."
            }
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => "Make room and try again.",
            io::ErrorKind::PermissionDenied => "Choose a place that you may use.",
            _ => "Check the path and the medium.",
        };
        Self::new(Exit::File, format!("{}: {error}", path.display()), advice)
    }

    /// The same failure, with the file that it is about in front.
    #[must_use]
    pub fn about(self, path: &Path) -> Self {
        Self { what: format!("{}: {}", path.display(), self.what), ..self }
    }

    /// The JSON document that `--json` prints to the standard error output.
    #[must_use]
    pub fn to_json(&self) -> serde_json::Value {
        serde_json::json!({ "error": {
            "exit": self.exit as u8,
            "kind": self.exit.kind(),
            "message": self.what,
            "advice": self.advice,
        }})
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)?;
        if self.advice.is_empty() { Ok(()) } else { write!(f, "\n  {}", self.advice) }
    }
}

impl std::error::Error for Failure {}

impl From<KeyFileError> for Failure {
    fn from(error: KeyFileError) -> Self {
        let (exit, advice) = match &error {
            KeyFileError::Rejected => (Exit::WrongPassphrase, "Try again, or use your copy of the key file."),
            KeyFileError::NotAKeyFile { .. } => {
                (Exit::Usage, "Give the file that `zixt-officer keygen` made.")
            }
            KeyFileError::Parse(_) | KeyFileError::OtherKeys => {
                (Exit::Altered, "Use your copy of the key file.")
            }
            KeyFileError::Card(CardError::Name) => (Exit::Usage, "Choose another name."),
            KeyFileError::Card(CardError::Signature { .. } | CardError::Parse(_)) => {
                (Exit::Altered, "Use your copy of the key file.")
            }
            KeyFileError::Card(CardError::Sign(_))
            | KeyFileError::Random(_)
            | KeyFileError::Derive(_)
            | KeyFileError::Seal(_)
            | KeyFileError::Key(_)
            | KeyFileError::Generate(_) => (Exit::Internal, "This machine cannot do it: use another one."),
        };
        Self::new(exit, error.to_string(), advice)
    }
}

impl From<SelfTestError> for Failure {
    fn from(error: SelfTestError) -> Self {
        Self::new(
            Exit::Internal,
            format!("{error}; nothing was done"),
            "This program or machine is damaged: use another one.",
        )
    }
}

impl From<FileError> for Failure {
    fn from(error: FileError) -> Self {
        let (exit, advice) = match &error {
            FileError::Other { .. } => (Exit::Usage, "`zixt-officer show FILE` tells what a file is."),
            FileError::Parse(_) => (Exit::Altered, "Copy the file again from where it was made."),
        };
        Self::new(exit, error.to_string(), advice)
    }
}

impl From<CardError> for Failure {
    fn from(error: CardError) -> Self {
        KeyFileError::Card(error).into()
    }
}

impl From<CeremonyError> for Failure {
    fn from(error: CeremonyError) -> Self {
        let (exit, advice) = match &error {
            CeremonyError::Parse(_) => (Exit::Altered, "Copy the file again from where it was made."),
            CeremonyError::BadSignature { .. } | CeremonyError::OutOfOrder => {
                (Exit::Altered, "Ask that officer for the approval of exactly this action.")
            }
            CeremonyError::Rule(_) => (Exit::Altered, "The genesis file is not usable; get it again."),
            CeremonyError::OtherNetwork { .. } => {
                (Exit::Refused, "Compare the network's hash with the one that you were told.")
            }
            CeremonyError::NotAnOfficer { .. } => {
                (Exit::Refused, "Compare the key with the officers that `zixt-officer show GENESIS` lists.")
            }
            CeremonyError::Repeated { .. } => (Exit::Refused, ""),
            CeremonyError::TooFew { .. } => {
                (Exit::TooFew, "Ask more officers, and collect again with all files.")
            }
            CeremonyError::OtherAppliance { .. }
            | CeremonyError::OtherSequence { .. }
            | CeremonyError::Expired { .. } => (Exit::Refused, ""),
        };
        Self::new(exit, error.to_string(), advice)
    }
}

impl From<RecoveryError> for Failure {
    fn from(error: RecoveryError) -> Self {
        let (exit, advice) = match &error {
            RecoveryError::Paper(_) => {
                (Exit::Altered, "Compare every word with the sheet and type them again.")
            }
            RecoveryError::OtherHolder { .. } => {
                (Exit::Refused, "Use the key file that this share was made for.")
            }
            RecoveryError::OtherRecovery { .. }
            | RecoveryError::NoSuchShare { .. }
            | RecoveryError::OtherShare { .. } => {
                (Exit::Refused, "Look for the sheet or file that belongs to it.")
            }
            RecoveryError::Open { .. } | RecoveryError::WrongShare { .. } | RecoveryError::OtherKey => {
                (Exit::Altered, "Use another copy, or the words on paper.")
            }
            RecoveryError::Repeated { .. }
            | RecoveryError::TooFew { .. }
            | RecoveryError::Holders(_)
            | RecoveryError::KeyMissing { .. } => (Exit::Refused, ""),
            RecoveryError::Random(_) | RecoveryError::Seal(_) | RecoveryError::Sharing(_) => {
                (Exit::Internal, "This machine cannot do it: use another one.")
            }
        };
        Self::new(exit, error.to_string(), advice)
    }
}

impl From<ReleaseError> for Failure {
    fn from(error: ReleaseError) -> Self {
        let (exit, advice) = match error {
            ReleaseError::Recovery(error) => return error.into(),
            ReleaseError::OtherOfficer { .. } => {
                (Exit::Refused, "Only the officer who holds a share releases it: use your own key file.")
            }
            ReleaseError::NotARecovery(_)
            | ReleaseError::OtherAction { .. }
            | ReleaseError::OtherRecipient { .. } => (Exit::Refused, ""),
            ReleaseError::Signature { .. } | ReleaseError::Open { .. } => {
                (Exit::Altered, "Ask that officer to release the share again.")
            }
            ReleaseError::Seal(_) | ReleaseError::Sign(_) => {
                (Exit::Internal, "This machine cannot do it: use another one.")
            }
        };
        Self::new(exit, error.to_string(), advice)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_and_words_are_distinct() {
        let mut codes: Vec<u8> = Exit::ALL.iter().map(|exit| *exit as u8).collect();
        let mut kinds: Vec<&str> = Exit::ALL.iter().map(|exit| exit.kind()).collect();
        kinds.sort_unstable();
        codes.dedup();
        kinds.dedup();
        assert_eq!((codes.len(), kinds.len()), (Exit::ALL.len(), Exit::ALL.len()));
    }
}
