//! One and several validators in one process, on simulated disks, custody daemons and networks.

// Tests may panic; clippy.toml exempts only functions marked as tests, not what they share.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod harness;

mod crash;
mod several;
mod single;
