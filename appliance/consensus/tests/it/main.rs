//! One and several validators in one process, on simulated disks, custody daemons and networks.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests may panic; clippy.toml exempts only functions marked as tests, not what they share"
)]

mod harness;

mod crash;
mod rotation;
mod several;
mod single;
