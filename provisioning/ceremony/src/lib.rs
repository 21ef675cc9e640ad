//! Ceremonies: security officers approve an exact action, M of N of them, and whoever carries it out checks that for
//! itself. Pure: no I/O, no clock, no randomness but for sealing.
//!
//! Custody, the ledger and the verifier call [`judge`] on the same bytes. [`Approved`] has no other constructor, so what
//! needs the officers' approval takes one.

mod card;
mod describe;
pub mod file;
pub mod paper;
mod recovery;
mod release;
mod rule;
mod shamir;

pub use card::{CardError, OfficerCard};
pub use describe::{describe, describe_named, describe_text, grouped};
pub use recovery::{RecoveryError, RecoveryKey, RecoveryRecord, SealedShare, Share};
pub use release::{RecoveryRequest, ReleaseError, ShareRelease, open_release, release};
pub use rule::{Approved, CeremonyError, OfficerRule, approve, assemble, judge};
pub use shamir::SharingError;
pub use zixt_crypto::digest::action_hash;
