//! TLS with certificates: to servers that are not ours, such as a syslog receiver, and for browsers and programs that come
//! to the web listener. Everything else in this product speaks [`crate::tls`].
//!
//! As a client: TLS 1.3, or 1.2 with forward secrecy (RFC 9325); key exchange X25519MLKEM768 first, classical curves for those who know
//! no other. As a server: TLS 1.3 and nothing else. The server is verified by certificate authorities that the caller hands in and by nothing else (RFC 5280, RFC
//! 9525): the machine's own list of authorities is never looked at. No resumption, no early data.

use std::sync::Arc;

use rustls::client::Resumption;
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::{default_provider, kx_group};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::NoServerSessionStorage;
use rustls::{ClientConfig, Error, RootCertStore, ServerConfig, version};
use zixt_crypto::Hash;

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum PkixError {
    /// A PEM file (RFC 7468) cannot be read.
    #[error("{what}: not readable as PEM: {why}")]
    Pem {
        /// What it should be.
        what: &'static str,
        /// What is wrong with it.
        why: pem::Error,
    },
    /// There is no certificate in a file that should have one.
    #[error("{0}: there is no certificate in it")]
    NoCertificate(&'static str),
    /// An authority's certificate cannot be used.
    #[error("a certificate authority's certificate cannot be used")]
    Authority(#[source] Error),
    /// The own certificate and key do not fit each other, or are of a kind that is not known.
    #[error("the certificate and its key cannot be used, or do not fit each other")]
    Identity(#[source] Error),
    /// The library refused the configuration.
    #[error("TLS configuration")]
    Tls(#[source] Error),
}

/// What a client shows if the server asks, both in PEM.
#[derive(Clone, Copy)]
pub struct ClientIdentity<'a> {
    /// The certificate, followed by the authorities between it and the server's trust anchor.
    pub certificates: &'a [u8],
    /// The private key (PKCS#8, SEC1 or PKCS#1).
    pub key: &'a [u8],
}

/// The configuration of a client that takes a server's certificate only if it leads to one of `authorities` (PEM).
///
/// # Errors
/// See [`PkixError`].
pub fn client_config(
    authorities: &[u8],
    identity: Option<ClientIdentity<'_>>,
) -> Result<Arc<ClientConfig>, PkixError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates("certificate authorities", authorities)? {
        roots.add(certificate).map_err(PkixError::Authority)?;
    }
    let builder = ClientConfig::builder_with_provider(Arc::new(provider()))
        .with_protocol_versions(&[&version::TLS13, &version::TLS12])
        .map_err(PkixError::Tls)?
        .with_root_certificates(roots);
    let mut config = match identity {
        None => builder.with_no_client_auth(),
        Some(ClientIdentity { certificates: chain, key }) => {
            let chain = certificates("client certificate", chain)?;
            let key = PrivateKeyDer::from_pem_slice(key)
                .map_err(|why| PkixError::Pem { what: "client key", why })?;
            builder.with_client_auth_cert(chain, key).map_err(PkixError::Identity)?
        }
    };
    config.resumption = Resumption::disabled();
    config.enable_early_data = false;
    Ok(Arc::new(config))
}

/// What a server of this product shows to browsers and programs, and how both sides name it.
#[derive(Clone, Debug)]
pub struct WebServer {
    /// The configuration: TLS 1.3, HTTP/1.1, no client certificates, no tickets, no early data.
    pub config: Arc<ServerConfig>,
    /// SHA-384 of the certificate: what sessions of this listener are bound to.
    pub id: Hash,
    /// SHA-256 of the certificate, as browsers show it: pairs of hexadecimal digits with colons.
    pub fingerprint: String,
}

/// The configuration of a server with this certificate chain and key, both in PEM.
///
/// # Errors
/// See [`PkixError`].
pub fn server_config(chain: &[u8], key: &[u8]) -> Result<WebServer, PkixError> {
    let chain = certificates("the web listener's certificate", chain)?;
    let key = PrivateKeyDer::from_pem_slice(key)
        .map_err(|why| PkixError::Pem { what: "the web listener's key", why })?;
    let sha = |algorithm| aws_lc_rs::digest::digest(algorithm, &chain[0]);
    let mut id = [0; 48];
    id.copy_from_slice(sha(&aws_lc_rs::digest::SHA384).as_ref());
    let fingerprint = sha(&aws_lc_rs::digest::SHA256);
    let pairs: Vec<String> = fingerprint.as_ref().iter().map(|byte| format!("{byte:02X}")).collect();
    let mut config = ServerConfig::builder_with_provider(Arc::new(provider()))
        .with_protocol_versions(&[&version::TLS13])
        .map_err(PkixError::Tls)?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(PkixError::Identity)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(WebServer { config: Arc::new(config), id: Hash(id), fingerprint: pairs.join(":") })
}

/// The library's provider; the hybrid key exchange is offered first, and its share with the first message.
fn provider() -> CryptoProvider {
    CryptoProvider {
        kx_groups: vec![kx_group::X25519MLKEM768, kx_group::SECP384R1, kx_group::X25519, kx_group::SECP256R1],
        ..default_provider()
    }
}

fn certificates(what: &'static str, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, PkixError> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let found = found.map_err(|why| PkixError::Pem { what, why })?;
    if found.is_empty() { Err(PkixError::NoCertificate(what)) } else { Ok(found) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hybrid_key_exchange_comes_first() {
        assert_eq!(provider().kx_groups[0].name(), rustls::NamedGroup::X25519MLKEM768);
    }

    #[test]
    fn what_is_no_certificate_is_named() {
        assert!(matches!(client_config(b"", None), Err(PkixError::NoCertificate(_))));
        assert!(matches!(client_config(b"hello", None), Err(PkixError::NoCertificate(_))));
        let cut = b"-----BEGIN CERTIFICATE-----\nAAAA\n";
        assert!(matches!(client_config(cut, None), Err(PkixError::Pem { .. })));
        let wrong = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        assert!(matches!(client_config(wrong, None), Err(PkixError::Authority(_))));
    }
}
