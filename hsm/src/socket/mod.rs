//! The socket: accepts peers, reads frames, answers. One thread per connection; a thread is cheap beside a signature.

use crate::caller::Caller;
use crate::policy::Policy;
use crate::service::Service;
use std::collections::HashMap;
use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use zixt_hsm_protocol::{
    CustodyError, FrameError, Purpose, Request, Response, decode, encode, read_frame_blocking,
    write_frame_blocking,
};

/// Connections at a time: several clients with a few connections each.
const CONNECTIONS_MAX: usize = 32;
/// Stack of a connection's thread, all of it locked memory. Signing needs less than half of it.
const STACK_BYTES: usize = 512 * 1024;
/// Longest wait for a peer that does not take its answer.
const WRITE_WAIT_MAX: Duration = Duration::from_secs(10);

/// Accepts connections until [`Server::stop`].
pub struct Server {
    service: Arc<Service>,
    policy: Policy,
    connections: Mutex<Connections>,
    closed: Condvar,
}

#[derive(Default)]
struct Connections {
    stopped: bool,
    next: u64,
    open: HashMap<u64, UnixStream>,
}

/// Binds the socket. The caller holds the state folder's lock, so a socket that is there already is a dead one's.
///
/// # Errors
/// The system's error; a file that is no socket is not removed.
pub fn bind(path: &Path) -> io::Result<UnixListener> {
    match fs::symlink_metadata(path) {
        Ok(file) if file.file_type().is_socket() => fs::remove_file(path)?,
        Ok(_) => {
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, "a file that is no socket is there"));
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let listener = UnixListener::bind(path)?;
    // Who may connect is decided by the group; who may do what, by the allow-list.
    fs::set_permissions(path, Permissions::from_mode(0o660))?;
    Ok(listener)
}

impl Server {
    /// A server of `service` for the peers of `policy`.
    #[must_use]
    pub fn new(service: Arc<Service>, policy: Policy) -> Arc<Self> {
        Arc::new(Self { service, policy, connections: Mutex::default(), closed: Condvar::new() })
    }

    /// Accepts connections; runs until the process ends.
    pub fn accept(self: &Arc<Self>, listener: &UnixListener) {
        for stream in listener.incoming() {
            match stream {
                Ok(stream) => self.start(stream),
                Err(error) => {
                    log::error!("cannot accept a connection: {error}");
                    std::thread::sleep(Duration::from_millis(100));
                }
            }
        }
    }

    /// Lets running requests finish, and closes everything. Waits at most `wait`.
    pub fn stop(&self, wait: Duration) {
        let mut connections = self.connections();
        connections.stopped = true;
        for stream in connections.open.values() {
            // Ends the wait for a next request; an answer that is being made can still be written.
            let _ = stream.shutdown(std::net::Shutdown::Read);
        }
        let _ = self.closed.wait_timeout_while(connections, wait, |connections| !connections.open.is_empty());
    }

    fn start(self: &Arc<Self>, stream: UnixStream) {
        let id = match self.admit(&stream) {
            Ok(id) => id,
            Err(error) => {
                let mut stream = stream;
                let _ = stream.set_write_timeout(Some(WRITE_WAIT_MAX));
                let _ = write_frame_blocking(&mut stream, &encode(&Response::Error(error)));
                return;
            }
        };
        let server = Arc::clone(self);
        let thread = std::thread::Builder::new().name("connection".to_owned()).stack_size(STACK_BYTES);
        let started = thread.spawn(move || {
            let left = Left { server: &server, id };
            server.serve(stream);
            drop(left);
        });
        if let Err(error) = started {
            log::error!("cannot start a thread: {error}");
            self.leave(id);
        }
    }

    fn admit(&self, stream: &UnixStream) -> Result<u64, CustodyError> {
        let internal = |error: io::Error| CustodyError::Internal { detail: error.to_string() };
        let caller = Caller::of(stream).map_err(internal)?;
        if !self.policy.knows(caller.uid) {
            log::warn!("user {} (process {}) is not on the allow-list", caller.uid, caller.pid);
            return Err(CustodyError::NotAllowed { uid: caller.uid, purpose: Purpose::Status });
        }
        let copy = stream.try_clone().map_err(internal)?;
        let mut connections = self.connections();
        if connections.stopped || connections.open.len() >= CONNECTIONS_MAX {
            return Err(CustodyError::Busy);
        }
        connections.next += 1;
        let id = connections.next;
        connections.open.insert(id, copy);
        Ok(id)
    }

    fn leave(&self, id: u64) {
        self.connections().open.remove(&id);
        self.closed.notify_all();
    }

    /// Answers one request after the other until the peer leaves or breaks the protocol.
    fn serve(&self, mut stream: UnixStream) {
        let Ok(caller) = Caller::of(&stream) else { return };
        if stream.set_write_timeout(Some(WRITE_WAIT_MAX)).is_err() {
            return;
        }
        loop {
            let response = match read_frame_blocking(&mut stream) {
                Ok(frame) => match decode::<Request>(&frame) {
                    Ok(request) => self.answer(caller, &request),
                    Err(error) => Response::Error(CustodyError::Malformed { why: error.to_string() }),
                },
                Err(error @ (FrameError::TooLong { .. } | FrameError::Empty)) => {
                    // What follows cannot be told apart from the next frame: say why, and close.
                    let response = Response::Error(CustodyError::Malformed { why: error.to_string() });
                    let _ = write_frame_blocking(&mut stream, &encode(&response));
                    return;
                }
                Err(FrameError::Closed | FrameError::Io(_)) => return,
            };
            if write_frame_blocking(&mut stream, &encode(&response)).is_err() {
                return;
            }
        }
    }

    fn answer(&self, caller: Caller, request: &Request) -> Response {
        if let Err(error) = self.policy.check(caller.uid, request.purpose()) {
            log::warn!("user {} (process {}) asked for {}", caller.uid, caller.pid, request.purpose());
            return Response::Error(error);
        }
        self.service.answer(request)
    }

    fn connections(&self) -> MutexGuard<'_, Connections> {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Removes a connection also when its thread panics.
struct Left<'a> {
    server: &'a Server,
    id: u64,
}

impl Drop for Left<'_> {
    fn drop(&mut self) {
        self.server.leave(self.id);
    }
}
