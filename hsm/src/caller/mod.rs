//! Who is at the other end of a connection: what the kernel says, not what the peer says.

use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use std::os::unix::net::UnixStream;

/// A peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Caller {
    /// Its user id when it connected.
    pub uid: u32,
    /// Its process id then; for the log only, because numbers are reused.
    pub pid: i32,
}

impl Caller {
    /// The peer of a connection (SO_PEERCRED).
    ///
    /// # Errors
    /// The system's error.
    pub fn of(stream: &UnixStream) -> std::io::Result<Self> {
        let peer = getsockopt(stream, PeerCredentials)?;
        Ok(Self { uid: peer.uid(), pid: peer.pid() })
    }
}
