//! The certificate of the web listener: an administrator's, or one that the appliance makes for itself.
//!
//! Browsers and other programs know neither ML-DSA certificates nor raw public keys, so this listener has an ECDSA P-384
//! certificate and offers X25519MLKEM768 first. It is the one place where the appliance speaks with a classical signature;
//! its key lies in a file, not in custody.

use crate::config::WebConfig;
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, PKCS_ECDSA_P384_SHA384};
use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use thiserror::Error;
use zeroize::Zeroizing;
use zixt_crypto_fast::pkix::{self, PkixError, WebServer};

/// Certificates and a key are far smaller.
const FILE_BYTES_MAX: u64 = 256 * 1024;

/// Why there is no web listener. Nothing is started without one that the configuration asks for.
#[derive(Debug, Error)]
pub enum WebError {
    /// A file cannot be read or written.
    #[error("web: cannot read or write {}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// Certificate or key are of no use.
    #[error("web: {}", path.display())]
    Tls {
        /// The certificate.
        path: PathBuf,
        /// What is wrong.
        source: PkixError,
    },
    /// No certificate can be made.
    #[error("web: no certificate can be made: {0}")]
    Make(String),
}

/// Reads the certificate and its key, and makes both if the configuration names none and there are none yet.
///
/// # Errors
/// See [`WebError`].
pub fn open(config: &WebConfig, server: &Path) -> Result<WebServer, WebError> {
    let (certificate, key) = match (&config.certificate, &config.key) {
        (Some(certificate), Some(key)) => (certificate.clone(), key.clone()),
        _ => own(&host(config), &server.join("web"))?,
    };
    let (chain, key) = (read(&certificate)?, read(&key)?);
    pkix::server_config(&chain, &key).map_err(|source| WebError::Tls { path: certificate, source })
}

/// The name in its URLs.
#[must_use]
pub fn host(config: &WebConfig) -> String {
    config.host.clone().unwrap_or_else(|| config.listen.ip().to_string())
}

/// Where it is, once it listens.
#[must_use]
pub fn origin(config: &WebConfig, address: SocketAddr) -> String {
    let host = host(config);
    let host = if host.contains(':') { format!("[{host}]") } else { host };
    match address.port() {
        443 => format!("https://{host}"),
        port => format!("https://{host}:{port}"),
    }
}

/// The files of our own certificate for this name.
fn own(host: &str, folder: &Path) -> Result<(PathBuf, PathBuf), WebError> {
    let path = |kind: &str| folder.join(format!("{}.{kind}", host.replace(':', "-")));
    let (certificate, key) = (path("pem"), path("key"));
    if certificate.exists() && key.exists() {
        return Ok((certificate, key));
    }
    let failed = |error: rcgen::Error| WebError::Make(error.to_string());
    let pair = KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384).map_err(failed)?;
    let mut params = CertificateParams::new(vec![host.to_owned()]).map_err(failed)?;
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, "Zixt appliance");
    let made = params.self_signed(&pair).map_err(failed)?;
    let make = || {
        fs::create_dir_all(folder)?;
        // The key first: a certificate without one would be taken for a pair.
        write(&key, Zeroizing::new(pair.serialize_pem()).as_bytes(), 0o600)?;
        write(&certificate, made.pem().as_bytes(), 0o644)?;
        fs::File::open(folder)?.sync_all()
    };
    make().map_err(|source| WebError::File { path: certificate.clone(), source })?;
    Ok((certificate, key))
}

fn write(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>, WebError> {
    crate::directories::bounded(path, FILE_BYTES_MAX)
        .map_err(|source| WebError::File { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_made_once_for_each_name_and_its_key_is_its_owners() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        let config = |host: Option<&str>| WebConfig {
            listen: "127.0.0.1:0".parse().unwrap(),
            host: host.map(str::to_owned),
            certificate: None,
            key: None,
        };
        let first = open(&config(None), folder.path()).unwrap();
        let again = open(&config(None), folder.path()).unwrap();
        assert_eq!(first.fingerprint, again.fingerprint);
        assert_eq!(first.fingerprint.len(), 32 * 3 - 1);
        let named = open(&config(Some("zixt.test")), folder.path()).unwrap();
        assert_ne!((named.id, &named.fingerprint), (first.id, &first.fingerprint));
        let mode = |name: &str| {
            let meta = fs::metadata(folder.path().join("web").join(name)).unwrap();
            meta.permissions().mode() & 0o777
        };
        assert_eq!(mode("zixt.test.key"), 0o600);
        assert_eq!(origin(&config(None), "127.0.0.1:8443".parse().unwrap()), "https://127.0.0.1:8443");
        assert_eq!(origin(&config(Some("zixt.test")), "127.0.0.1:443".parse().unwrap()), "https://zixt.test");

        // A key of another certificate is named.
        let path = |name: &str| Some(folder.path().join("web").join(name));
        let mixed =
            WebConfig { certificate: path("zixt.test.pem"), key: path("127.0.0.1.key"), ..config(None) };
        assert!(matches!(open(&mixed, folder.path()), Err(WebError::Tls { .. })));
        let absent = WebConfig { certificate: path("no.pem"), key: path("no.key"), ..config(None) };
        assert!(matches!(open(&absent, folder.path()), Err(WebError::File { .. })));
    }
}
