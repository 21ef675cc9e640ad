//! What tests of sinks share: certificates, journals and receivers that do as they are told.

use crate::config::{AuditConfig, SyslogForm, SyslogTarget};
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig, ServerConnection, StreamOwned};
use std::io::{self, Read as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tempfile::TempDir;
use zixt_audit::folder::DiskFolder;
use zixt_audit::{Action, Actor, Details, Event, Journal, Origin, Settings, Text, Value, When, limits};
use zixt_types::Timestamp;

/// Longer than anything takes that works.
pub(crate) const LONG: Duration = Duration::from_secs(60);

/// Runs a program that has to be there and to succeed.
pub(crate) fn run(program: &str, arguments: &[&str]) -> Vec<u8> {
    let done = Command::new(program).args(arguments).output();
    let done = done.unwrap_or_else(|error| panic!("{program} (scripts/install-deps.sh --test): {error}"));
    assert!(done.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&done.stderr));
    done.stdout
}

/// Waits until something is so.
pub(crate) fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + LONG;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < end, "{what} did not come about");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A certificate authority with a server's and a client's certificate, in a folder of its own.
pub(crate) struct Authority(pub TempDir);

impl Authority {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
        let key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"];
        let ca = ["req", "-x509", "-subj", "/CN=Test authority", "-days", "30", "-keyout", &path("ca.key")];
        let constraints = ["-addext", "basicConstraints=critical,CA:TRUE", "-out", &path("ca.pem")];
        run("openssl", &[&ca[..], &key, &constraints].concat());
        for (name, extensions) in [
            ("server", "subjectAltName=DNS:siem.test,IP:127.0.0.1\nextendedKeyUsage=serverAuth\n"),
            ("client", "subjectAltName=DNS:zixt.test\nextendedKeyUsage=clientAuth\n"),
        ] {
            std::fs::write(folder.path().join("extensions"), extensions).unwrap();
            let (request, made) = (path("request"), path(&format!("{name}.pem")));
            let asked =
                ["req", "-subj", "/CN=Test", "-keyout", &path(&format!("{name}.key")), "-out", &request];
            run("openssl", &[&asked[..], &key].concat());
            let signed = ["x509", "-req", "-in", &request, "-days", "30", "-CAcreateserial", "-out", &made];
            let by = ["-CA", &path("ca.pem"), "-CAkey", &path("ca.key"), "-extfile", &path("extensions")];
            run("openssl", &[&signed[..], &by].concat());
        }
        Self(folder)
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// A sink that sends there, and shows no certificate.
    pub fn target(&self, address: SocketAddr) -> SyslogTarget {
        SyslogTarget {
            name: "siem".into(),
            address: address.to_string(),
            server_name: "siem.test".into(),
            ca: self.path("ca.pem"),
            certificate: None,
            key: None,
            form: SyslogForm::Rfc5424,
        }
    }

    pub fn config(&self, address: SocketAddr) -> AuditConfig {
        AuditConfig { syslog: vec![self.target(address)], ..AuditConfig::default() }
    }

    /// A receiver's side; `asks` for a client's certificate.
    pub fn server(&self, asks: bool) -> Arc<ServerConfig> {
        let provider = Arc::new(default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider));
        let builder = builder.with_safe_default_protocol_versions().unwrap();
        let builder = if asks {
            let mut roots = RootCertStore::empty();
            roots.add(CertificateDer::from_pem_file(self.path("ca.pem")).unwrap()).unwrap();
            let clients = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            builder.with_client_cert_verifier(clients.build().unwrap())
        } else {
            builder.with_no_client_auth()
        };
        let certificate = CertificateDer::from_pem_file(self.path("server.pem")).unwrap();
        let key = PrivateKeyDer::from_pem_file(self.path("server.key")).unwrap();
        Arc::new(builder.with_single_cert(vec![certificate], key).unwrap())
    }
}

struct SystemClock(Instant);

impl zixt_audit::Clock for SystemClock {
    fn now(&self) -> When {
        When { wall: crate::health::now(), ledger: None }
    }

    fn monotonic(&self) -> Duration {
        self.0.elapsed()
    }
}

/// A journal in a folder.
pub(crate) fn journal(folder: &Path) -> Journal {
    let clock = Arc::new(SystemClock(Instant::now()));
    let settings = Settings { segment_bytes: limits::SEGMENT_BYTES, random: [7; 32], clock };
    Journal::open(Arc::new(DiskFolder::open(folder).unwrap()), settings).unwrap().0
}

/// Records one event with this text in it.
pub(crate) fn append(journal: &Journal, text: &str) -> u64 {
    let when = When { wall: Timestamp(1_795_389_745_123), ledger: None };
    let details = Details::none().with("told", Value::Text(Text::escaped(text))).unwrap();
    let event = Event { details, ..Event::new(Action::SignIn, Actor::Nobody, Origin::Console, when) };
    journal.append(&event, LONG).unwrap().sequence.0
}

pub(crate) type Received = StreamOwned<ServerConnection, TcpStream>;

/// Takes the next connection.
pub(crate) fn accept(listener: &TcpListener, config: &Arc<ServerConfig>) -> io::Result<Received> {
    let (tcp, _) = listener.accept()?;
    tcp.set_read_timeout(Some(LONG))?;
    let mut stream = StreamOwned::new(ServerConnection::new(Arc::clone(config)).unwrap(), tcp);
    while stream.conn.is_handshaking() {
        stream.conn.complete_io(&mut stream.sock)?;
    }
    Ok(stream)
}

/// The next message: MSG-LEN SP SYSLOG-MSG (RFC 5425 section 4.3). `None` at a close_notify between two.
pub(crate) fn message(stream: &mut Received) -> io::Result<Option<String>> {
    let mut length = 0_usize;
    let mut digits = 0;
    loop {
        let mut byte = [0];
        if stream.read(&mut byte)? == 0 {
            assert_eq!(digits, 0, "the end is in the middle of a message");
            return Ok(None);
        }
        match byte[0] {
            b' ' if digits > 0 => break,
            digit @ b'0'..=b'9' => length = length * 10 + usize::from(digit - b'0'),
            other => panic!("{other:?} is no part of a length"),
        }
        digits += 1;
    }
    let mut bytes = vec![0; length];
    stream.read_exact(&mut bytes)?;
    Ok(Some(String::from_utf8(bytes).unwrap()))
}

/// The number of the record that a message is about.
pub(crate) fn sequence(message: &str) -> u64 {
    let (_, rest) = message.split_once(" seq=\"").unwrap();
    rest.split('"').next().unwrap().parse().unwrap()
}
