//! What the tests share: a software authenticator, and a server around the sign-in machine.
#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::panic,
    reason = "test support; each test program uses a part of it"
)]

pub mod server;
pub mod soft;

pub use server::*;
pub use soft::*;
