//! zixt-consensus
mod context;
mod engine;
mod host;
mod judge;
mod message;
mod shell;
mod validators;
mod wal;

pub use engine::{Config, Engine, EngineError, HeightStart, Received, Timeouts};
pub use host::{Decision, Equivocation, Host, HostError, Proposed, SignOutcome, Source, Timer, TimerKind};
pub use message::{Content, Message, Polka, ProposalHead, RoundChange, RoundChangeKind, SignedVote};
pub use validators::{STAKE_TOTAL_MAX, Validator, ValidatorSet, ValidatorSetError};
pub use wal::{DiskFile, Flush, Wal, WalError, WalFile, WalStats};
