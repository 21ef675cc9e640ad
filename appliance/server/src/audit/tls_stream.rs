//! The way to a syslog receiver: TLS over TCP with certificates (RFC 5425), and a bound on the time of every operation.

use nix::sys::socket::{setsockopt, sockopt};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection};
use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs as _};
use std::sync::Arc;
use std::time::{Duration, Instant};
use zixt_audit::syslog::Connect;

/// What the kernel keeps for us at most while the receiver is slow. Less is lost with a connection than comes again.
const SEND_BUFFER_BYTES: usize = 32 * 1024;
/// Reads in one look at what the receiver sends. It has nothing to say but the end of the connection.
const READS_MAX: usize = 16;
/// The farewell is not waited for longer than this.
const FAREWELL_WAIT_MAX: Duration = Duration::from_millis(200);

/// How long the steps of a connection may take.
#[derive(Clone, Copy, Debug)]
pub struct Waits {
    /// Until there is a TCP connection to one address.
    pub connect: Duration,
    /// For the handshake, and for each message.
    pub step: Duration,
}

impl Default for Waits {
    fn default() -> Self {
        Self { connect: Duration::from_secs(10), step: Duration::from_secs(10) }
    }
}

/// A receiver.
pub struct TlsTarget {
    /// `host:port`.
    pub address: String,
    /// The name or address that its certificate has to have.
    pub name: ServerName<'static>,
    /// Whom to trust, and who we are.
    pub config: Arc<ClientConfig>,
    /// How long the steps may take.
    pub waits: Waits,
}

impl Connect for TlsTarget {
    fn connect(&mut self) -> io::Result<Box<dyn Write + Send>> {
        let mut failed = None;
        for address in self.address.to_socket_addrs()? {
            match TcpStream::connect_timeout(&address, self.waits.connect) {
                Ok(tcp) => return Ok(Box::new(TlsStream::new(tcp, self)?)),
                Err(error) => failed = Some(error),
            }
        }
        Err(failed.unwrap_or_else(|| io::Error::new(io::ErrorKind::NotFound, "the name has no address")))
    }
}

/// A TCP connection whose reads and writes end at a point in time, however little each of them moves.
struct Timed {
    tcp: TcpStream,
    until: Instant,
}

impl Timed {
    fn left(&self) -> io::Result<Duration> {
        let left = self.until.saturating_duration_since(Instant::now());
        if left.is_zero() { Err(late()) } else { Ok(left) }
    }
}

fn late() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "the receiver is too slow, or does not answer")
}

fn named(error: io::Error) -> io::Error {
    // What a time limit of a socket is called on Linux.
    if error.kind() == io::ErrorKind::WouldBlock { late() } else { error }
}

impl Read for Timed {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        self.tcp.set_read_timeout(Some(self.left()?))?;
        self.tcp.read(bytes).map_err(named)
    }
}

impl Write for Timed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.tcp.set_write_timeout(Some(self.left()?))?;
        self.tcp.write(bytes).map_err(named)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct TlsStream {
    connection: ClientConnection,
    socket: Timed,
    wait: Duration,
}

impl TlsStream {
    fn new(tcp: TcpStream, target: &TlsTarget) -> io::Result<Self> {
        tcp.set_nodelay(true)?;
        setsockopt(&tcp, sockopt::SndBuf, &SEND_BUFFER_BYTES)?;
        // A receiver that is gone without a word is noticed although the kernel took what was written.
        let millis = u32::try_from(target.waits.step.as_millis()).unwrap_or(u32::MAX);
        setsockopt(&tcp, sockopt::TcpUserTimeout, &millis)?;
        // And also while nothing is written: asked after 15 s, and given up after three questions.
        setsockopt(&tcp, sockopt::KeepAlive, &true)?;
        setsockopt(&tcp, sockopt::TcpKeepIdle, &15)?;
        setsockopt(&tcp, sockopt::TcpKeepInterval, &5)?;
        setsockopt(&tcp, sockopt::TcpKeepCount, &3)?;
        let connection = ClientConnection::new(Arc::clone(&target.config), target.name.clone())
            .map_err(io::Error::other)?;
        let wait = target.waits.step;
        let mut stream = Self { connection, socket: Timed { tcp, until: Instant::now() + wait }, wait };
        while stream.connection.is_handshaking() {
            stream.connection.complete_io(&mut stream.socket)?;
        }
        stream.send()?;
        Ok(stream)
    }

    /// Whether the receiver is still there: RFC 5425 gives it no way to acknowledge, but it can close.
    fn look(&mut self) -> io::Result<()> {
        self.socket.tcp.set_nonblocking(true)?;
        let looked = self.read_what_came();
        self.socket.tcp.set_nonblocking(false)?;
        looked
    }

    fn read_what_came(&mut self) -> io::Result<()> {
        let closed =
            || io::Error::new(io::ErrorKind::ConnectionAborted, "the receiver closed the connection");
        for _ in 0..READS_MAX {
            match self.connection.read_tls(&mut &self.socket.tcp) {
                Ok(0) => return Err(closed()),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
            let state = self.connection.process_new_packets().map_err(io::Error::other)?;
            if state.peer_has_closed() {
                return Err(closed());
            }
            let mut dropped = [0; 4096];
            let mut left = state.plaintext_bytes_to_read();
            while left > 0 {
                match self.connection.reader().read(&mut dropped)? {
                    0 => break,
                    read => left = left.saturating_sub(read),
                }
            }
        }
        Ok(())
    }

    fn send(&mut self) -> io::Result<()> {
        while self.connection.wants_write() {
            if self.connection.write_tls(&mut self.socket)? == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
        }
        Ok(())
    }
}

impl Write for TlsStream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.socket.until = Instant::now() + self.wait;
        self.look()?;
        let taken = self.connection.writer().write(bytes)?;
        self.send()?;
        Ok(taken)
    }

    /// Sends what is left, and tells whether the receiver is there.
    fn flush(&mut self) -> io::Result<()> {
        self.socket.until = Instant::now() + self.wait;
        self.look()?;
        self.send()
    }
}

impl Drop for TlsStream {
    fn drop(&mut self) {
        // RFC 5425 section 4.4. If it does not get through, the receiver sees the end without it.
        self.socket.until = Instant::now() + FAREWELL_WAIT_MAX;
        self.connection.send_close_notify();
        let _ = self.send();
        let _ = self.socket.tcp.shutdown(std::net::Shutdown::Write);
    }
}
