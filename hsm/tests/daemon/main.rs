//! The daemon and its admin tool as processes, against SoftHSM.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test; helpers outside #[test] functions count as well"
)]

mod common;
mod kill;
mod requests;
