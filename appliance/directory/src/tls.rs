//! TLS towards a directory: the certificates of one authority that the administrator names, and nothing of the system's.

use std::sync::Arc;

use rustls::client::Resumption;
use rustls::crypto::aws_lc_rs::{default_provider, kx_group};
use rustls::crypto::{CryptoProvider, SupportedKxGroup};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{CipherSuite, ClientConfig, RootCertStore, version};
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Which key exchange a directory has to offer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum KeyExchange {
    /// X25519MLKEM768 where the directory knows it, else X25519 or a NIST curve: today's directories know no other.
    #[default]
    HybridPreferred,
    /// X25519MLKEM768 (0x11ec), and no connection without it.
    HybridRequired,
}

/// Why the authority's certificates are of no use.
#[derive(Debug, Clone, Error)]
pub enum AuthorityError {
    /// The text is no PEM, or a certificate in it is damaged.
    #[error("the authority's certificates cannot be read: {0}")]
    Unreadable(String),
    /// The text has no certificate.
    #[error("there is no certificate among the authority's")]
    Empty,
    /// The library refused the configuration.
    #[error("TLS configuration: {0}")]
    Tls(String),
}

/// TLS 1.3, or 1.2 with forward secrecy and AEAD for older directories; `authority` are the only roots. Names and times
/// of certificates are checked by the library's own verifier.
pub(crate) fn client_config(
    authority: &[u8],
    exchange: KeyExchange,
) -> Result<Arc<ClientConfig>, AuthorityError> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(authority) {
        let certificate = certificate.map_err(|error| AuthorityError::Unreadable(error.to_string()))?;
        roots.add(certificate).map_err(|error| AuthorityError::Unreadable(error.to_string()))?;
    }
    if roots.is_empty() {
        return Err(AuthorityError::Empty);
    }
    // A hybrid group exists in TLS 1.3 alone.
    let versions: &[_] = match exchange {
        KeyExchange::HybridRequired => &[&version::TLS13],
        KeyExchange::HybridPreferred => &[&version::TLS13, &version::TLS12],
    };
    let mut config = ClientConfig::builder_with_provider(Arc::new(provider(exchange)))
        .with_protocol_versions(versions)
        .map_err(|error| AuthorityError::Tls(error.to_string()))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.resumption = Resumption::disabled();
    config.enable_early_data = false;
    Ok(Arc::new(config))
}

fn provider(exchange: KeyExchange) -> CryptoProvider {
    let mut provider = default_provider();
    let classical: [&dyn SupportedKxGroup; 3] = [kx_group::X25519, kx_group::SECP384R1, kx_group::SECP256R1];
    provider.kx_groups = vec![kx_group::X25519MLKEM768];
    if exchange == KeyExchange::HybridPreferred {
        provider.kx_groups.extend(classical);
    }
    // AES-128 would be the weakest link of a hybrid exchange.
    provider.cipher_suites.retain(|suite| {
        exchange == KeyExchange::HybridPreferred || suite.suite() != CipherSuite::TLS13_AES_128_GCM_SHA256
    });
    provider
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hybrid_group_comes_first() {
        let names =
            |exchange| provider(exchange).kx_groups.iter().map(|group| group.name()).collect::<Vec<_>>();
        let preferred = names(KeyExchange::HybridPreferred);
        assert_eq!(preferred[0], rustls::NamedGroup::X25519MLKEM768);
        assert!(preferred.len() > 1);
        assert_eq!(names(KeyExchange::HybridRequired), [rustls::NamedGroup::X25519MLKEM768]);
    }

    #[test]
    fn an_authority_has_a_certificate() {
        let config = |text: &str| client_config(text.as_bytes(), KeyExchange::default());
        assert!(matches!(config(""), Err(AuthorityError::Empty)));
        assert!(matches!(config("no PEM at all"), Err(AuthorityError::Empty)));
        let damaged = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n";
        assert!(matches!(config(damaged), Err(AuthorityError::Unreadable(_))));
    }
}
