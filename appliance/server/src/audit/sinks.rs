//! Where records go beside the journal: a syslog receiver, systemd's journal. Each sink has a thread and a cursor of its
//! own and is in nobody's way (decision 0015). Nothing is sent that is not configured.

use super::tls_stream::{TlsTarget, Waits};
use crate::config::{AuditConfig, SyslogTarget};
use rustls::pki_types::ServerName;
use std::io;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::{Duration, Instant};
use thiserror::Error;
use zeroize::Zeroizing;
use zixt_api::{AuditSink, AuditSinkKind, AuditSinkState};
use zixt_audit::syslog::{Format, SyslogSink};
use zixt_audit::{Code, Delivery, Follower, FollowerHealth, FollowerThread, Journal, Sink, journald};
use zixt_crypto_fast::pkix::{self, ClientIdentity, PkixError};
use zixt_types::Hash;

/// The name that records bear in syslog and in systemd's journal.
const PROGRAM: &str = "zixt-audit";
/// The name of the sink that is systemd's journal.
const JOURNALD: &str = "journald";
/// A certificate, a chain of them, a key.
const PEM_BYTES_MAX: u64 = 1024 * 1024;
/// A datagram to systemd's journal waits this long for room in its queue.
const JOURNALD_WAIT_MAX: Duration = Duration::from_secs(10);
/// Records that come again after systemd's journal was away, at most: its queue may hold as many that it never read.
const JOURNALD_OVERLAP_MAX: u64 = 256;
/// Below this a sink counts as keeping up: it always is some records behind while there are new ones.
const BEHIND_MIN: Duration = Duration::from_secs(1);
/// Above this it counts as behind, however short it has been so.
const BEHIND_EVENTS_MAX: u64 = 256;

/// Why a sink cannot be set up.
#[derive(Debug, Error)]
pub enum SinkError {
    /// A file cannot be read.
    #[error("audit sink {name}: cannot read {}", path.display())]
    Read {
        /// The sink.
        name: String,
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// The certificates or the key cannot be used.
    #[error("audit sink {name}: TLS cannot be set up")]
    Tls {
        /// The sink.
        name: String,
        /// What is wrong.
        source: PkixError,
    },
    /// Its cursor cannot be read, or there is no thread for it.
    #[error("audit sink {name} cannot be started")]
    Start {
        /// The sink.
        name: String,
        /// The system's answer.
        source: io::Error,
    },
    /// Its configuration is wrong.
    #[error("audit sink {name}: {why}")]
    Wrong {
        /// The sink.
        name: String,
        /// What is wrong.
        why: String,
    },
}

/// Sinks whose configuration was read and found usable.
pub struct Prepared {
    hostname: String,
    enterprise: u32,
    journald: Option<PathBuf>,
    syslog: Vec<(Code, TlsTarget)>,
}

impl Prepared {
    /// Reads certificates and keys. Nobody is connected to.
    ///
    /// # Errors
    /// See [`SinkError`].
    pub fn new(config: &AuditConfig) -> Result<Self, SinkError> {
        let hostname = config.hostname.clone().unwrap_or_else(machine_name);
        let syslog = config.syslog.iter().map(target).collect::<Result<_, _>>()?;
        let journald = config.journald.then(|| config.journald_socket.clone());
        Ok(Self { hostname, enterprise: config.enterprise, journald, syslog })
    }

    /// Starts a thread for each.
    ///
    /// # Errors
    /// [`SinkError::Start`].
    pub fn start(self, journal: &Journal) -> Result<Sinks, SinkError> {
        let mut sinks = Vec::new();
        let mut start = |name: &Code, kind, sink: Box<dyn Sink>| {
            let thread = Follower::new(journal, name, sink).and_then(Follower::start);
            let thread =
                thread.map_err(|source| SinkError::Start { name: name.as_str().to_owned(), source })?;
            sinks.push((kind, thread));
            Ok(())
        };
        if let Some(path) = self.journald
            && let Ok(name) = Code::new(JOURNALD)
        {
            let sink = JournaldSink { path, chain: journal.chain(), socket: None };
            start(&name, AuditSinkKind::Journald, Box::new(sink))?;
        }
        for (name, target) in self.syslog {
            let format = Format {
                hostname: self.hostname.clone(),
                program: PROGRAM.to_owned(),
                process: std::process::id().to_string(),
                enterprise: self.enterprise,
                chain: journal.chain(),
            };
            start(&name, AuditSinkKind::Syslog, Box::new(SyslogSink::new(format, target)))?;
        }
        Ok(Sinks(sinks))
    }
}

/// Sinks at work.
#[derive(Default)]
pub struct Sinks(Vec<(AuditSinkKind, FollowerThread)>);

impl Sinks {
    /// How they are. It waits for none of them.
    #[must_use]
    pub fn status(&self) -> Vec<AuditSink> {
        self.0.iter().map(|(kind, thread)| status(*kind, thread.health())).collect()
    }

    /// Ends them. What can be delivered within `wait` is; a sink that hangs is left to the end of the process, and goes on
    /// from its cursor after the next start.
    pub fn stop(self, wait: Duration) {
        let until = Instant::now() + wait;
        let caught_up = || {
            self.0.iter().all(|(_, thread)| {
                let health = thread.health();
                health.behind_events == 0 || health.failing.is_some()
            })
        };
        while !caught_up() && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(10));
        }
        let (ended, end) = mpsc::channel();
        let left = self.0.len();
        for (_, thread) in self.0 {
            let ended = ended.clone();
            // Not waited for itself: only for its word.
            let _ = std::thread::Builder::new().name("audit-end".to_owned()).spawn(move || {
                thread.stop();
                let _ = ended.send(());
            });
        }
        for _ in 0..left {
            if end.recv_timeout(until.saturating_duration_since(Instant::now())).is_err() {
                return log::warn!("an audit sink did not end in time; it goes on from its cursor");
            }
        }
    }
}

fn status(kind: AuditSinkKind, health: FollowerHealth) -> AuditSink {
    let state = match (&health.failing, health.behind_events) {
        (Some(_), _) => AuditSinkState::Failing,
        (None, events @ 1..) if health.behind >= BEHIND_MIN || events > BEHIND_EVENTS_MAX => {
            AuditSinkState::Behind
        }
        _ => AuditSinkState::Ok,
    };
    let (last_error, since) = match health.failing {
        Some(failing) => (Some(failing.error), Some(failing.since.0)),
        None => (health.cursor_error.map(|error| format!("its cursor is not stored: {error}")), None),
    };
    AuditSink {
        name: health.name,
        kind,
        state,
        events_behind: health.behind_events,
        seconds_behind: health.behind.as_secs(),
        delivered: health.delivered.0,
        gaps: health.gaps,
        last_error,
        since,
    }
}

fn target(config: &SyslogTarget) -> Result<(Code, TlsTarget), SinkError> {
    let wrong = |why: String| SinkError::Wrong { name: config.name.clone(), why };
    let name = Code::new(&config.name).map_err(|error| wrong(error.to_string()))?;
    let server = ServerName::try_from(config.server_name.clone())
        .map_err(|_| wrong(format!("server-name = \"{}\" is no name and no address", config.server_name)))?;
    let read = |path: &Path| {
        read_pem(path).map_err(|source| SinkError::Read {
            name: config.name.clone(),
            path: path.to_owned(),
            source,
        })
    };
    let authorities = read(&config.ca)?;
    let identity = match (&config.certificate, &config.key) {
        (Some(certificate), Some(key)) => Some((read(certificate)?, read(key)?)),
        (None, None) => None,
        _ => return Err(wrong("certificate and key belong together".to_owned())),
    };
    let identity = identity.as_ref().map(|(certificates, key)| ClientIdentity { certificates, key });
    let tls = pkix::client_config(&authorities, identity)
        .map_err(|source| SinkError::Tls { name: config.name.clone(), source })?;
    let waits = Waits::default();
    Ok((name, TlsTarget { address: config.address.clone(), name: server, config: tls, waits }))
}

fn read_pem(path: &Path) -> io::Result<Zeroizing<Vec<u8>>> {
    let bytes = std::fs::metadata(path)?.len();
    if bytes > PEM_BYTES_MAX {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "larger than certificates and keys are"));
    }
    std::fs::read(path).map(Zeroizing::new)
}

/// The machine's name; the format writes a dash where there is none (RFC 5424 section 6.2.4).
fn machine_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    name.trim().to_owned()
}

/// systemd's journal.
struct JournaldSink {
    path: PathBuf,
    chain: Hash,
    socket: Option<UnixDatagram>,
}

impl Sink for JournaldSink {
    fn deliver(&mut self, delivery: Delivery<'_>) -> io::Result<()> {
        let socket = match self.socket.take() {
            Some(socket) => socket,
            None => {
                let socket = UnixDatagram::unbound()?;
                socket.connect(&self.path)?;
                socket.set_write_timeout(Some(JOURNALD_WAIT_MAX))?;
                socket
            }
        };
        let sent = socket.send(&journald::datagram(PROGRAM, self.chain, delivery));
        sent.map_err(|error| match error.kind() {
            io::ErrorKind::WouldBlock => {
                io::Error::new(io::ErrorKind::TimedOut, "systemd's journal takes nothing")
            }
            _ => error,
        })?;
        self.socket = Some(socket);
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn overlap(&self) -> u64 {
        // Taken by the kernel is not read by the journal: so many may lie in its queue, and go with it.
        let queue = std::fs::read_to_string("/proc/sys/net/unix/max_dgram_qlen");
        let queue = queue.ok().and_then(|text| text.trim().parse::<u64>().ok());
        queue.map_or(JOURNALD_OVERLAP_MAX, |queue| queue.saturating_add(1).min(JOURNALD_OVERLAP_MAX))
    }
}

#[cfg(test)]
mod tests;
