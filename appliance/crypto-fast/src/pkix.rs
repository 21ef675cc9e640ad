//! TLS to servers that are not ours and have a certificate of their operator's: a syslog receiver. Everything else in this
//! product speaks [`crate::tls`].
//!
//! TLS 1.3, or 1.2 with forward secrecy (RFC 9325); key exchange X25519MLKEM768 first, classical curves for those who know
//! no other. The server is verified by certificate authorities that the caller hands in and by nothing else (RFC 5280, RFC
//! 9525): the machine's own list of authorities is never looked at. No resumption, no early data.

use std::sync::Arc;

use rustls::client::Resumption;
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::{default_provider, kx_group};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, Error, RootCertStore, version};

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
    #[error("the client certificate and its key cannot be used")]
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
