//! An HTTPS site of the lab: an authority, certificates for several hosts, and what a server does with passkeys.

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Longer than what any page of the tests sends.
const REQUEST_BYTES_MAX: usize = 64 * 1024;

/// What a site answers: content type and body for method, path and body.
pub type Answer = dyn Fn(&str, &str, &[u8]) -> (&'static str, Vec<u8>) + Send + Sync;

/// A site that answers until the test ends.
pub struct Site {
    pub port: u16,
    /// The authority's certificate, in PEM.
    pub authority: String,
    /// The group of each handshake, as the site saw it.
    pub groups: Arc<Mutex<Vec<rustls::NamedGroup>>>,
}

impl Site {
    /// For these hosts.
    pub fn start(hosts: &[&str], answer: Arc<Answer>) -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        params.distinguished_name.push(DnType::CommonName, "Zixt lab");
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let key = KeyPair::generate().unwrap();
        let names: Vec<String> = hosts.iter().map(|host| (*host).to_owned()).collect();
        let certificate = CertificateParams::new(names).unwrap().signed_by(&key, &authority).unwrap();
        let mut provider = aws_lc_rs::default_provider();
        // The group of the appliance's links, and no other: a browser of today has it.
        provider.kx_groups = vec![aws_lc_rs::kx_group::X25519MLKEM768];
        let config = ServerConfig::builder_with_provider(Arc::new(provider))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                vec![certificate.der().clone()],
                PrivatePkcs8KeyDer::from(key.serialize_der()).into(),
            )
            .unwrap();
        let config = Arc::new(config);
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let groups = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&groups);
        // The threads end with the test's process.
        std::thread::spawn(move || {
            for connection in listener.incoming().map_while(Result::ok) {
                let (config, answer, seen) = (Arc::clone(&config), Arc::clone(&answer), Arc::clone(&seen));
                // A browser also opens connections that it does not use, and leaves.
                std::thread::spawn(move || serve(connection, config, &*answer, &seen).is_ok());
            }
        });
        Self { port, authority: authority.pem(), groups }
    }
}

/// One request (RFC 9112), and the end.
fn serve(
    connection: TcpStream,
    config: Arc<ServerConfig>,
    answer: &Answer,
    seen: &Mutex<Vec<rustls::NamedGroup>>,
) -> std::io::Result<()> {
    connection.set_read_timeout(Some(Duration::from_secs(60)))?;
    let tls = ServerConnection::new(config).map_err(std::io::Error::other)?;
    let mut stream = StreamOwned::new(tls, connection);
    let mut request = Vec::new();
    let (head, length) = loop {
        let mut some = [0; 4096];
        let count = stream.read(&mut some)?;
        request.extend(&some[..count]);
        if count == 0 || request.len() > REQUEST_BYTES_MAX {
            return Err(std::io::ErrorKind::InvalidData.into());
        }
        let end = request.windows(4).position(|window| window == b"\r\n\r\n");
        if let Some(end) = end {
            let head = String::from_utf8_lossy(&request[..end]).to_ascii_lowercase();
            let length =
                head.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse().ok());
            let length: usize = length.unwrap_or(0);
            if request.len() >= end + 4 + length {
                break (end, length);
            }
        }
    };
    if let Some(group) = stream.conn.negotiated_key_exchange_group() {
        seen.lock().unwrap_or_else(PoisonError::into_inner).push(group.name());
    }
    let line = String::from_utf8_lossy(&request[..head]).into_owned();
    let mut words = line.split_whitespace();
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let (kind, body) = answer(method, path, &request[head + 4..head + 4 + length]);
    write!(
        stream,
        "HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\ncontent-length: {}\r\nconnection: close\r\n\
         content-security-policy: default-src 'none'; script-src 'self'; connect-src 'self'; frame-src *\r\n\r\n",
        body.len()
    )?;
    stream.write_all(&body)?;
    stream.conn.send_close_notify();
    stream.flush()
}
