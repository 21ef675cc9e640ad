//! The client against an appliance in memory: real MLS, real ledger, real signatures, and every lie that a test wants.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::result_large_err,
    clippy::type_complexity,
    reason = "helpers of tests, outside of the test functions"
)]

mod any;
mod appliance;
mod evidence;
mod offline;
mod people;
mod revoked;
mod rotation;
mod stream;
mod talk;
mod titles;
mod trust;
