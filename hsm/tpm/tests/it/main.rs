//! Against a real simulator: each test starts a TPM of its own.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests; helpers outside #[test] functions count as well"
)]

mod common;
mod custody;
mod proxy;
mod swtpm;
