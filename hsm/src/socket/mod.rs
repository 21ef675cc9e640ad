//! The socket: accepts peers, reads frames, answers. One thread per connection; a thread is cheap beside a signature.

mod rate;

pub use rate::Rate;

use crate::caller::Caller;
use crate::policy::Policy;
use crate::service::Service;
use crate::socket::rate::{Buckets, Kind};
use std::collections::HashMap;
use std::fs::{self, Permissions};
use std::io::{self, Read};
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use zixt_hsm_protocol::{
    CustodyError, FRAME_BYTES_MAX, FRAME_BYTES_SMALL, FrameError, Purpose, Request, Response, decode, encode,
    read_frame_within, write_frame_blocking,
};

/// Stack of a connection's thread, all of it locked memory. Signing needs less than half of it.
const STACK_BYTES: usize = 512 * 1024;
/// Longest wait for a peer that does not take its answer.
const WRITE_WAIT_MAX: Duration = Duration::from_secs(10);

/// What peers may use up.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Connections at a time.
    pub connections: usize,
    /// Connections of one user at a time.
    pub connections_per_user: usize,
    /// Longest wait for a next request.
    pub idle: Duration,
    /// Longest wait for the rest of a request.
    pub request: Duration,
    /// How often one user may look at the state.
    pub looks: Rate,
    /// How often one user may change it, try a PIN or have everything tested.
    pub changes: Rate,
}

impl Default for Limits {
    /// A server holds eight connections and a tool up to four; in a lab all of them are one user's. What one user can
    /// hold leaves room for two more. Clients connect anew when they find a connection closed.
    fn default() -> Self {
        Self {
            connections: 48,
            connections_per_user: 16,
            idle: Duration::from_secs(60),
            request: Duration::from_secs(10),
            // A server asks every other second, a person less often; a script that provisions makes some dozen changes.
            looks: Rate { burst: 400, every: Duration::from_millis(10) },
            changes: Rate { burst: 60, every: Duration::from_millis(500) },
        }
    }
}

/// Accepts connections until [`Server::stop`].
pub struct Server {
    service: Arc<Service>,
    policy: Policy,
    limits: Limits,
    connections: Mutex<Connections>,
    closed: Condvar,
    buckets: Mutex<Buckets>,
}

#[derive(Default)]
struct Connections {
    stopped: bool,
    next: u64,
    /// User and stream.
    open: HashMap<u64, (u32, UnixStream)>,
}

impl Connections {
    fn have_room(&self, uid: u32, limits: &Limits) -> bool {
        let of_user = self.open.values().filter(|(user, _)| *user == uid).count();
        !self.stopped && self.open.len() < limits.connections && of_user < limits.connections_per_user
    }
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
    pub fn new(service: Arc<Service>, policy: Policy, limits: Limits) -> Arc<Self> {
        Arc::new(Self {
            service,
            policy,
            limits,
            connections: Mutex::default(),
            closed: Condvar::new(),
            buckets: Mutex::default(),
        })
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
        for (_, stream) in connections.open.values() {
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
        if !connections.have_room(caller.uid, &self.limits) {
            log::warn!("no room for another connection of user {} (process {})", caller.uid, caller.pid);
            return Err(CustodyError::Busy);
        }
        connections.next += 1;
        let id = connections.next;
        connections.open.insert(id, (caller.uid, copy));
        Ok(id)
    }

    fn leave(&self, id: u64) {
        self.connections().open.remove(&id);
        self.closed.notify_all();
    }

    /// Answers one request after the other until the peer leaves, falls silent or breaks the protocol.
    fn serve(&self, mut stream: UnixStream) {
        let Ok(caller) = Caller::of(&stream) else { return };
        if stream.set_write_timeout(Some(WRITE_WAIT_MAX)).is_err() {
            return;
        }
        // Memory is locked and given for four bytes: much of it only to who may send a whole recovery.
        let manages = self.policy.check(caller.uid, Purpose::Manage).is_ok();
        let longest = if manages { FRAME_BYTES_MAX } else { FRAME_BYTES_SMALL };
        loop {
            let request = read_frame_within(&mut Patience::new(&stream, &self.limits), longest);
            let (request, response) = match request {
                Ok(frame) => match decode::<Request>(&frame) {
                    Ok(request) => {
                        let response = self.answer(caller, &request);
                        (Some(request), response)
                    }
                    Err(error) => (None, Response::Error(CustodyError::Malformed { why: error.to_string() })),
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
            if let Some(request) = request {
                self.service.prepare(&request, &response);
            }
        }
    }

    fn answer(&self, caller: Caller, request: &Request) -> Response {
        if let Err(error) = self.policy.check(caller.uid, request.purpose()) {
            log::warn!("user {} (process {}) asked for {}", caller.uid, caller.pid, request.purpose());
            return Response::Error(error);
        }
        if let Err(error) = self.in_time(caller, request) {
            return Response::Error(error);
        }
        // A server asks again and again; devices are searched for who changes something by what is found.
        if matches!(request, Request::Doctor) && self.policy.check(caller.uid, Purpose::Manage).is_err() {
            return Response::Findings(self.service.doctor_as_last_seen());
        }
        self.service.answer(request)
    }

    /// Counts a request that one user may make only so often.
    fn in_time(&self, caller: Caller, request: &Request) -> Result<(), CustodyError> {
        let Some(kind) = rate::kind(request) else { return Ok(()) };
        let rate = match kind {
            Kind::Look => self.limits.looks,
            Kind::Change => self.limits.changes,
        };
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        buckets.take(caller.uid, kind, rate, Instant::now()).map_err(|wait| {
            // Rounded up: who waits as long as it is told to is not refused again.
            let retry_after_ms = u64::try_from(wait.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX);
            CustodyError::TooManyRequests { retry_after_ms }
        })
    }

    fn connections(&self) -> MutexGuard<'_, Connections> {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reads one request: waits long for its first byte, and not long for all the others together.
struct Patience<'a> {
    stream: &'a UnixStream,
    until: Instant,
    /// For the rest, until the first byte has come.
    rest: Option<Duration>,
}

impl<'a> Patience<'a> {
    fn new(stream: &'a UnixStream, limits: &Limits) -> Self {
        Self { stream, until: Instant::now() + limits.idle, rest: Some(limits.request) }
    }
}

impl Read for Patience<'_> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let left = self.until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        self.stream.set_read_timeout(Some(left))?;
        let read = self.stream.read(bytes)?;
        if let Some(rest) = self.rest.take() {
            self.until = Instant::now() + rest;
        }
        Ok(read)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::WrappedSeed;
    use crate::protector::testing::TestProtector;
    use crate::service::Devices;
    use crate::state::{Custody, DiskFolder, Held};
    use std::io::Write as _;
    use zixt_crypto::Reference;
    use zixt_hsm_protocol::BlockingHsmClient;
    use zixt_types::UnlockMode;

    fn serve(limits: Limits) -> (tempfile::TempDir, BlockingHsmClient) {
        serve_as(limits, Policy::own_user_and_root(nix::unistd::geteuid().as_raw()))
    }

    fn serve_as(limits: Limits, policy: Policy) -> (tempfile::TempDir, BlockingHsmClient) {
        let dir = tempfile::tempdir().unwrap();
        let devices = Devices {
            protectors: vec![Arc::new(TestProtector::open_one())],
            keys: Box::new(WrappedSeed::new(Box::new(Reference))),
            crypto: Box::new(Reference),
        };
        let folder = DiskFolder(dir.path().to_owned());
        let unprovisioned = Custody::Unprovisioned(Held::Nothing);
        let service = Service::new(folder, devices, UnlockMode::Attended, unprovisioned);
        let path = dir.path().join("socket");
        let listener = bind(&path).unwrap();
        let server = Server::new(Arc::new(service), policy, limits);
        std::thread::spawn(move || server.accept(&listener));
        (dir, BlockingHsmClient::new(path))
    }

    /// Waits for the end of the stream.
    fn is_closed(stream: &mut UnixStream) -> bool {
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        matches!(stream.read(&mut [0]), Ok(0))
    }

    #[test]
    fn silent_and_dripping_peers_are_closed_and_clients_connect_anew() {
        let idle = Duration::from_millis(300);
        let (_dir, client) = serve(Limits { idle, request: idle, ..Limits::default() });
        client.status().unwrap();
        let mut silent = UnixStream::connect(client.socket()).unwrap();
        let mut dripping = UnixStream::connect(client.socket()).unwrap();
        let mut drips = 0;
        // Each byte comes in time; the whole request does not. A pipe without a reader is an error.
        while drips < 40 && dripping.write_all(&[0]).is_ok() {
            drips += 1;
            if drips == 3 {
                dripping.write_all(&[200]).unwrap();
            }
            std::thread::sleep(idle / 5);
        }
        assert!(drips < 40, "a request may not take for ever");
        assert!(is_closed(&mut silent));
        client.status().unwrap();
    }

    /// Four bytes of somebody who merely looks take no megabytes of locked memory.
    #[test]
    fn a_long_frame_is_only_for_who_may_manage() {
        let mut looks = Policy::default();
        looks.allow(nix::unistd::geteuid().as_raw(), [Purpose::Status]);
        let manages = Policy::own_user_and_root(nix::unistd::geteuid().as_raw());
        for (policy, longest) in [(looks, FRAME_BYTES_SMALL), (manages, FRAME_BYTES_MAX)] {
            let (_dir, client) = serve_as(Limits::default(), policy);
            client.status().unwrap();
            for (announced, waits) in [(longest, true), (longest + 1, false)] {
                let mut stream = UnixStream::connect(client.socket()).unwrap();
                stream.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
                stream.write_all(&u32::try_from(announced).unwrap().to_be_bytes()).unwrap();
                // It waits for the rest, or says why not.
                assert_eq!(stream.read(&mut [0]).is_err(), waits, "{announced}");
            }
        }
    }

    #[test]
    fn a_user_who_asks_without_end_is_told_to_wait_and_signing_is_not() {
        let looks = Rate { burst: 3, every: Duration::from_millis(300) };
        let changes = Rate { burst: 2, every: Duration::from_secs(3600) };
        let (_dir, client) = serve(Limits { looks, changes, ..Limits::default() });
        let asked = |request: &Request| match client.call(request) {
            Err(zixt_hsm_protocol::ClientError::Custody(error)) => error.code(),
            _ => "",
        };
        let answers: Vec<_> = (0..4).map(|_| asked(&Request::Status)).collect();
        assert_eq!(answers, ["", "", "", "custody-too-many-requests"]);
        let Err(zixt_hsm_protocol::ClientError::Custody(error)) = client.status() else { panic!() };
        let CustodyError::TooManyRequests { retry_after_ms } = error else { panic!("{error}") };
        assert!((1..=300).contains(&retry_after_ms), "{retry_after_ms}");
        std::thread::sleep(Duration::from_millis(retry_after_ms));
        assert_eq!(asked(&Request::Status), "", "the time that it says is the time to wait");
        let answers: Vec<_> = (0..3).map(|_| asked(&Request::Doctor)).collect();
        assert_eq!(answers, ["", "", "custody-too-many-requests"]);
        for _ in 0..50 {
            for request in [Request::UnsealRowKey, Request::SignVote { vote: Vec::new() }] {
                assert_eq!(asked(&request), "custody-unprovisioned");
            }
            assert_eq!(asked(&Request::Lock), "");
        }
    }

    #[test]
    fn one_user_cannot_take_all_connections() {
        let limits = Limits { connections: 5, connections_per_user: 2, ..Limits::default() };
        let mut connections = Connections::default();
        for (id, uid) in [7, 7, 8, 8, 9].into_iter().enumerate() {
            assert!(connections.have_room(uid, &limits), "{id}");
            connections.open.insert(id as u64, (uid, UnixStream::pair().unwrap().0));
            assert!(!connections.have_room(7, &limits) || id == 0, "{id}");
        }
        assert!(!connections.have_room(9, &limits), "all are taken");
        connections.open.remove(&0);
        assert!(connections.have_room(7, &limits) && !connections.have_room(8, &limits));

        let (_dir, client) = serve(limits);
        let held: Vec<_> = (0..2).map(|_| UnixStream::connect(client.socket()).unwrap()).collect();
        let answer = client.status();
        assert!(
            matches!(answer, Err(zixt_hsm_protocol::ClientError::Custody(CustodyError::Busy))),
            "{answer:?}"
        );
        drop(held);
        let ends = Instant::now() + Duration::from_secs(10);
        while client.status().is_err() {
            assert!(Instant::now() < ends, "a connection that ended gives its room back");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}
