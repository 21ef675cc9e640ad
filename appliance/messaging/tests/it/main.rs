//! Conversations as the client drives them, with a small ledger in between.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests, outside of the test functions")]

mod lies;
mod packages;
mod schedule;
mod secrecy;
mod sizes;
mod talk;
mod world;
