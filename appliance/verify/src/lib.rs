//! The offline verifier. What is checked, and how, is in `zixt_ledger::evidence`; this crate reads the file and says
//! what came out, in words for people and in JSON for programs.
//!
//! To read it in an evening: this crate, then `zixt-ledger` (`evidence`, `tree`, `map`, `certificate`, `account`,
//! `conversation`), then the formats in `zixt-types`. Signatures are checked by the `ml-dsa` crate.

pub mod json;
pub mod text;

use std::io::Read;
use std::path::Path;
use std::process::ExitCode;
use thiserror::Error;
use zixt_crypto::Backend;
use zixt_crypto::selftest::SelfTestError;
use zixt_ledger::evidence::{
    Evidence, EvidenceError, ForkError, ForkProof, ForkReport, OtherGenesis, Report, verify_fork,
};
use zixt_types::{Hash, limits};

/// What a file turned out to be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Checked {
    /// Evidence, with its verdicts.
    Evidence(Box<Report>),
    /// A fork proof, and what it proves.
    Fork(Result<ForkReport, ForkError>),
}

impl Checked {
    /// The exit code that it stands for.
    #[must_use]
    pub fn exit(&self) -> Exit {
        let proven = match self {
            Self::Evidence(report) => report.is_ok(),
            Self::Fork(fork) => fork.is_ok(),
        };
        if proven { Exit::Proven } else { Exit::Failed }
    }
}

/// What the report should show.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// Show disclosed content.
    pub content: bool,
}

/// The exit codes, for scripts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Exit {
    /// Everything that the file can prove is proven.
    Proven = 0,
    /// Something failed verification.
    Failed = 1,
    /// The file cannot be read, or is no file of ours.
    Unreadable = 2,
    /// The file is about another network.
    OtherGenesis = 3,
    /// Wrong usage (`EX_USAGE` of sysexits.h).
    Usage = 64,
    /// This program does not compute what it should (`EX_SOFTWARE`).
    Internal = 70,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Why there is no report.
#[derive(Debug, Error)]
pub enum Error {
    /// The file cannot be read.
    #[error("the file cannot be read: {0}")]
    Read(std::io::Error),
    /// The file is too large to be ours.
    #[error("the file is larger than {} bytes, which no evidence is", limits::EVIDENCE_BYTES_MAX)]
    TooLarge,
    /// The file is neither evidence nor a fork proof.
    #[error("the file begins neither like evidence (ZIXTEVD1) nor like a fork proof (ZIXTFRK1)")]
    NotOurs,
    /// The file is damaged.
    #[error(transparent)]
    Damaged(#[from] EvidenceError),
    /// The file is about another network.
    #[error("the file is about network {}, not {}", .0.got, .0.expected)]
    OtherGenesis(OtherGenesis),
    /// The cryptography does not give its known answers.
    #[error(transparent)]
    SelfTest(#[from] SelfTestError),
}

impl Error {
    /// The exit code that it stands for.
    #[must_use]
    pub const fn exit(&self) -> Exit {
        match self {
            Self::Read(_) | Self::TooLarge | Self::NotOurs | Self::Damaged(_) => Exit::Unreadable,
            Self::OtherGenesis(_) => Exit::OtherGenesis,
            Self::SelfTest(_) => Exit::Internal,
        }
    }

    /// What happened and what it means.
    #[must_use]
    pub fn explain(&self) -> String {
        let meaning = match self {
            Self::Read(_) | Self::TooLarge | Self::NotOurs => "Nothing was checked.",
            Self::Damaged(_) => {
                "The file was cut, changed or written by a newer version. It proves nothing; ask for it again."
            }
            Self::OtherGenesis(_) => {
                "Either it belongs to another network, or the description of the network in it was changed. \
                 It proves nothing about the network that you trust."
            }
            Self::SelfTest(_) => {
                "Nothing was checked. This program or machine is damaged: install it again, or use another machine."
            }
        };
        format!("{self}\n{meaning}")
    }
}

/// Reads a file, but never more than evidence may hold.
///
/// # Errors
/// [`Error::Read`], [`Error::TooLarge`].
pub fn read(path: &Path) -> Result<Vec<u8>, Error> {
    let max = Evidence::MAGIC.len() + limits::EVIDENCE_BYTES_MAX;
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).map_err(Error::Read)?;
    file.take(max as u64 + 1).read_to_end(&mut bytes).map_err(Error::Read)?;
    if bytes.len() > max { Err(Error::TooLarge) } else { Ok(bytes) }
}

/// Checks a file for somebody who trusts the network named by `genesis` and nothing else.
///
/// # Errors
/// See [`Error`]; what fails verification is part of the answer.
pub fn check(bytes: &[u8], genesis: Hash, backend: &dyn Backend) -> Result<Checked, Error> {
    if bytes.starts_with(Evidence::MAGIC) {
        let report = Evidence::parse(bytes)?.verify(genesis, backend).map_err(Error::OtherGenesis)?;
        Ok(Checked::Evidence(Box::new(report)))
    } else if bytes.starts_with(ForkProof::MAGIC) {
        match verify_fork(&ForkProof::parse(bytes)?, genesis, backend) {
            Err(ForkError::OtherGenesis(other)) => Err(Error::OtherGenesis(other)),
            fork => Ok(Checked::Fork(fork)),
        }
    } else {
        Err(Error::NotOurs)
    }
}
