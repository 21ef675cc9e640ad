//! Against a real simulator: each test starts a TPM of its own.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests; helpers outside #[test] functions count as well"
)]

mod attestation;
mod common;
mod counter;
mod custody;
mod protector;
mod proxy;
mod slots;
mod swtpm;
mod wire;
