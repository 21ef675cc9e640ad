//! Project Wycheproof's vectors on the aws-lc backend. See `tests/vectors/README.md`.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

#[path = "../../../tests/vectors/harness.rs"]
mod harness;

wycheproof_through_the_trait!(zixt_crypto_fast::AwsLc);
