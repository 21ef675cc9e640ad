//! The client for callers with a thread of their own: the TLS signer and the consensus.

use crate::client::{ANSWER_WAIT_MAX, CONNECTIONS_MAX, calls};
use crate::codec::{decode, encode};
use crate::frame::{FrameError, read_frame_blocking, write_frame_blocking};
use crate::{ClientError, KeyInfo, Pin, Request, Response, StateKind, Status, VoteOutcome};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use zixt_crypto::AeadKey;
use zixt_types::{Body, Canonical, Hash, SuiteId, Vote};

/// A blocking client of the custody daemon. Share it by reference or `Arc`: up to four requests run side by side, each
/// on a connection of its own; a connection that the daemon closed (it was restarted) is replaced.
#[derive(Debug)]
pub struct BlockingHsmClient {
    socket: PathBuf,
    pool: Mutex<Pool>,
    returned: Condvar,
}

#[derive(Debug, Default)]
struct Pool {
    idle: Vec<UnixStream>,
    in_use: usize,
}

calls!(BlockingHsmClient,,);

impl BlockingHsmClient {
    /// A client of the daemon at `socket`. Connects when first asked.
    #[must_use]
    pub fn new(socket: impl Into<PathBuf>) -> Self {
        Self { socket: socket.into(), pool: Mutex::default(), returned: Condvar::new() }
    }

    /// The daemon's socket.
    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Sends any request and returns the answer; a refusal is [`ClientError::Custody`].
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn call(&self, request: &Request) -> Result<Response, ClientError> {
        let payload = encode(request);
        let (idle, _turn) = self.take_turn();
        if let Some(stream) = idle {
            match self.exchange(stream, &payload) {
                Err(ClientError::Frame(FrameError::Closed | FrameError::Io(_))) if request.may_repeat() => {
                    // The daemon was restarted since: the other idle connections are as dead as this one.
                    self.pool().idle.clear();
                }
                answer => return answer,
            }
        }
        let stream =
            self.connect().map_err(|source| ClientError::Connect { path: self.socket.clone(), source })?;
        self.exchange(stream, &payload)
    }

    fn connect(&self) -> std::io::Result<UnixStream> {
        let stream = UnixStream::connect(&self.socket)?;
        stream.set_read_timeout(Some(ANSWER_WAIT_MAX))?;
        stream.set_write_timeout(Some(ANSWER_WAIT_MAX))?;
        Ok(stream)
    }

    /// A stream goes back only after a whole answer.
    fn exchange(&self, mut stream: UnixStream, payload: &[u8]) -> Result<Response, ClientError> {
        let answer = match write_frame_blocking(&mut stream, payload) {
            Ok(()) => read_frame_blocking(&mut stream)?,
            // A daemon that does not take this peer says so and closes before it reads anything.
            Err(closed) if closed.is_hang_up() => read_frame_blocking(&mut stream).map_err(|_| closed)?,
            Err(error) => return Err(error.into()),
        };
        let response = decode::<Response>(&answer)?;
        self.pool().idle.push(stream);
        match response {
            Response::Error(error) => Err(error.into()),
            response => Ok(response),
        }
    }

    /// Waits until fewer than the allowed number of requests run; hands out an idle connection if one is still open.
    fn take_turn(&self) -> (Option<UnixStream>, Turn<'_>) {
        let mut pool = self
            .returned
            .wait_while(self.pool(), |pool| pool.in_use >= CONNECTIONS_MAX)
            .unwrap_or_else(PoisonError::into_inner);
        pool.in_use += 1;
        let mut idle = None;
        while let Some(stream) = pool.idle.pop() {
            if is_quiet(&stream) {
                idle = Some(stream);
                break;
            }
        }
        (idle, Turn(self))
    }

    fn pool(&self) -> MutexGuard<'_, Pool> {
        self.pool.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An idle connection has nothing to read; an end or a byte means that it is dead or out of step.
fn is_quiet(mut stream: &UnixStream) -> bool {
    use std::io::Read as _;
    if stream.set_nonblocking(true).is_err() {
        return false;
    }
    let nothing = matches!(stream.read(&mut [0]), Err(e) if e.kind() == std::io::ErrorKind::WouldBlock);
    nothing && stream.set_nonblocking(false).is_ok()
}

/// The right to one of the connections; returned on drop.
struct Turn<'a>(&'a BlockingHsmClient);

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.pool().in_use -= 1;
        self.0.returned.notify_one();
    }
}
