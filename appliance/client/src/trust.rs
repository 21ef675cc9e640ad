//! Nothing that the appliance says is believed before it is checked here.
//!
//! [`Checker`] is pure: it checks one object against the genesis that the invitation pinned. [`Ledger`] remembers what
//! was checked and demands that everything new continues it. What does not hold is a [`TrustError`].

mod account;
mod checker;
mod fault;
mod ledger;

pub use account::CheckedAccount;
pub use checker::{CheckedEntry, Checker, VerifiedHeader};
pub use fault::TrustError;
pub use ledger::Ledger;
