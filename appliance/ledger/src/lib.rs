//! The verification ledger as pure functions: entries, thread chains, shard trees, the head map, headers,
//! certificates and evidence. No I/O, no clock and no randomness: a server, a client, an auditor and a test feed it
//! the same bytes and get the same answer.
//!
//! Reading order: [`Submission`] is what an author hands in, [`LedgerState`] judges it, [`BlockBuilder`] turns many
//! into the block of a height, [`certificate`] makes a block final, [`evidence`] proves any of it later.

mod account;
mod block;
pub mod certificate;
mod conversation;
pub mod evidence;
pub mod key_package;
pub mod map;
mod state;
mod submission;
pub mod system;
#[cfg(feature = "testing")]
pub mod testing;
pub mod tree;

pub use account::{Account, Device, DeviceKeys};
pub use block::{BlockBuilder, BlockError, ProposedBlock, RecordedEntry, TreeId, shard_states};
pub use conversation::Conversation;
pub use state::{Counters, LedgerState, Refusal, Signer, Thread, ThreadDetail};
pub use submission::{Submission, SubmissionError, label_for};
pub use system::{System, SystemFault, SystemThread};
pub use zixt_crypto::{Keyring, KeyringEntry};
