//! How a command ends: stable exit codes, and what a person is told.

use serde::Serialize;
use std::fmt;
use std::process::ExitCode;

/// The exit codes. They are documented in `docs/operating/client.md` and never change their meaning.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Exit {
    /// It was done.
    Ok = 0,
    /// The passphrase is wrong.
    WrongPassphrase = 3,
    /// The appliance is away, or did not answer in time.
    Away = 4,
    /// The appliance refused it.
    Refused = 5,
    /// Something does not fit together that must: a pin, a proof, a signature, a fork.
    Trust = 6,
    /// The local store or disk cannot be used.
    Disk = 7,
    /// There is no account in this folder, or there is one already.
    Account = 8,
    /// Another program uses the account.
    InUse = 9,
    /// The command line, a name or an invitation cannot be understood.
    Usage = 64,
    /// A fault of this program.
    Internal = 70,
}

impl Exit {
    /// All of them, in order.
    pub const ALL: [Self; 10] = [
        Self::Ok,
        Self::WrongPassphrase,
        Self::Away,
        Self::Refused,
        Self::Trust,
        Self::Disk,
        Self::Account,
        Self::InUse,
        Self::Usage,
        Self::Internal,
    ];

    /// The stable word for it, as `kind` in JSON.
    #[must_use]
    pub const fn kind(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::WrongPassphrase => "wrong-passphrase",
            Self::Away => "appliance-away",
            Self::Refused => "refused",
            Self::Trust => "trust-violation",
            Self::Disk => "local-store",
            Self::Account => "account",
            Self::InUse => "in-use",
            Self::Usage => "usage",
            Self::Internal => "internal",
        }
    }

    /// What it means, for `--help`.
    #[must_use]
    pub const fn meaning(self) -> &'static str {
        match self {
            Self::Ok => "done",
            Self::WrongPassphrase => "the passphrase is wrong",
            Self::Away => "the appliance is away, or did not answer in time; what was queued stays queued",
            Self::Refused => "the appliance refused it",
            Self::Trust => "trust violation: a key, proof or history does not fit",
            Self::Disk => "the local store or disk cannot be used",
            Self::Account => "no account in this folder yet, or one already",
            Self::InUse => "another zixt program uses the account",
            Self::Usage => "the command line, a name or an invitation was not understood",
            Self::Internal => "a fault of this program",
        }
    }

    /// The table that `--help` ends with.
    #[must_use]
    pub fn table() -> String {
        let mut text = String::from("Exit codes:\n");
        for exit in Self::ALL {
            text.push_str(&format!("  {:>2}  {}\n", exit as u8, exit.meaning()));
        }
        text.push_str("\nMessages are signed by your device and recorded for good: you speak on the record.");
        text
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Why a command failed: the exit code, what happened, and what to do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Failure {
    /// The exit code.
    pub exit: Exit,
    /// The appliance's stable code, if it refused.
    pub code: Option<String>,
    /// What happened.
    pub what: String,
    /// What to do; may be empty when `what` says it.
    pub advice: String,
}

impl Failure {
    /// A failure without a code of the appliance.
    pub fn new(exit: Exit, what: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { exit, code: None, what: what.into(), advice: advice.into() }
    }

    /// The user's input was not understood.
    pub fn usage(what: impl Into<String>, advice: impl Into<String>) -> Self {
        Self::new(Exit::Usage, what, advice)
    }

    /// A file of the user's cannot be read or written.
    pub fn file(path: &std::path::Path, error: &std::io::Error) -> Self {
        let advice = match error.kind() {
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => {
                "The disk is full: make room and try again."
            }
            std::io::ErrorKind::PermissionDenied => "Choose a place that you may use.",
            std::io::ErrorKind::NotFound => "Check the path.",
            _ => "Check the path and the disk.",
        };
        Self::new(Exit::Disk, format!("{}: {error}", path.display()), advice)
    }

    /// The JSON document that `--json` prints to the standard error output.
    #[must_use]
    pub fn to_json(&self) -> serde_json::Value {
        #[derive(Serialize)]
        struct Error<'a> {
            exit: u8,
            kind: &'a str,
            code: Option<&'a str>,
            message: &'a str,
            advice: &'a str,
        }
        let error = Error {
            exit: self.exit as u8,
            kind: self.exit.kind(),
            code: self.code.as_deref(),
            message: &self.what,
            advice: &self.advice,
        };
        serde_json::json!({ "error": error })
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&super::escape::escape(&self.what))?;
        if !self.advice.is_empty() {
            write!(f, "\n  {}", super::escape::escape(&self.advice))?;
        }
        Ok(())
    }
}

impl std::error::Error for Failure {}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn codes_and_kinds_are_unique_and_documented() {
        let manual = include_str!("../../../../docs/operating/client.md");
        let codes: BTreeSet<u8> = Exit::ALL.iter().map(|exit| *exit as u8).collect();
        let kinds: BTreeSet<&str> = Exit::ALL.iter().map(|exit| exit.kind()).collect();
        assert_eq!((codes.len(), kinds.len()), (Exit::ALL.len(), Exit::ALL.len()));
        for exit in Exit::ALL {
            let row = format!("| {} | `{}` | {} |", exit as u8, exit.kind(), exit.meaning());
            assert!(manual.contains(&row), "docs/operating/client.md lacks: {row}");
            assert!(Exit::table().contains(exit.meaning()));
        }
    }

    #[test]
    fn a_failure_shows_foreign_text_safely() {
        let failure = Failure::usage("nobody is called \u{202e}ada\x1b[2J", "");
        assert_eq!(failure.to_string(), "nobody is called <U+202E>ada<U+001B>[2J");
    }
}
