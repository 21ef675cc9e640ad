//! The daemon and its admin tool as processes, against SoftHSM, Kryoptic and a TPM simulator.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test; helpers outside #[test] functions count as well"
)]

mod common;
mod faults;
mod kill;
mod native;
mod protectors;
mod requests;
mod rollback;
mod search;
mod secrets;
/// The same simulator that the TPM backend's own tests start.
#[allow(dead_code, reason = "those tests use more of it")]
#[path = "../../tpm/tests/it/swtpm.rs"]
mod swtpm;
mod tpm;
