//! TLS of the product's own links (clients and peers): one protocol, and nothing to negotiate.
//!
//! TLS 1.3 (RFC 8446) with key exchange MLKEM1024 (0x0202), cipher suite TLS_AES_256_GCM_SHA384 and the ML-DSA
//! signature of the suite (0x0905 or 0x0906), raw public keys on both sides (RFC 7250), ALPN `zixt/1`. No session
//! tickets, no resumption, no early data, no server name: every connection proves both keys anew. A peer that
//! offers anything else gets an alert.
//!
//! There is no certificate and no name. The client knows the server by a [`PinnedKey`] that its invitation or
//! ticket carries; the server asks a [`ClientKeyPolicy`] and then knows the client by the key that [`peer_key`]
//! returns. A raw key carries no expiry: what the ledger says of a key is what counts.

use std::fmt;
use std::sync::Arc;

use rustls::client::AlwaysResolvesClientRawPublicKeys;
use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::aws_lc_rs::{cipher_suite, default_provider, kx_group};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, verify_tls13_signature_with_raw_key};
use rustls::pki_types::{
    CertificateDer, ServerName, SignatureVerificationAlgorithm, SubjectPublicKeyInfoDer, UnixTime,
};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{AlwaysResolvesServerRawPublicKeys, NoServerSessionStorage};
use rustls::sign::{CertifiedKey, Signer, SigningKey as RustlsSigningKey};
use rustls::{
    CertificateError, ClientConfig, CommonState, DigitallySignedStruct, DistinguishedName, Error,
    PeerIncompatible, ServerConfig, SignatureAlgorithm, SignatureScheme, version,
};
use webpki::aws_lc_rs::{ML_DSA_65, ML_DSA_87};
use zixt_crypto::{Hash, SignError, SigningKey, SuiteId, digest, suite_params};

/// The application protocol (RFC 7301): the first version of this product's.
pub const ALPN: &[u8] = b"zixt/1";

/// Whatever holds a TLS private key: a key in this process, or the custody daemon behind its socket.
///
/// `sign` is called in the middle of a handshake, on the thread that drives it, and may block for as long as the
/// holder takes (about 0.1 ms in process, a few milliseconds over a socket or in a token). An implementation must
/// bound that time itself and return an error rather than wait for a holder that does not answer.
pub trait TlsSigner: Send + Sync {
    /// The suite, and so the signature algorithm.
    fn suite(&self) -> SuiteId;

    /// The raw ML-DSA public key.
    fn public_key(&self) -> &[u8];

    /// Signs with the empty context, as [`SigningKey::sign`]. The message is the input of CertificateVerify
    /// (RFC 8446, Section 4.4.3), which carries TLS's own domain separation; a custody daemon can check that it
    /// starts with 64 spaces and that text, and so refuse to sign anything else with this key.
    ///
    /// # Errors
    /// [`SignError`]; the handshake fails.
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, SignError>;
}

impl TlsSigner for Box<dyn SigningKey> {
    fn suite(&self) -> SuiteId {
        (**self).suite()
    }

    fn public_key(&self) -> &[u8] {
        (**self).public_key()
    }

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, SignError> {
        (**self).sign(message)
    }
}

/// What a client knows of its server: the hash of its TLS public key, as genesis, the ledger, invitations and join
/// tickets name keys ([`digest::key_hash`]).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PinnedKey(pub Hash);

impl PinnedKey {
    /// The pin of a raw public key.
    #[must_use]
    pub fn of(suite: SuiteId, public_key: &[u8]) -> Self {
        Self(digest::key_hash(suite, public_key))
    }
}

/// Which client keys may connect.
///
/// Asked during the handshake, so answer from memory. A server that enrols new devices admits keys it does not
/// know; its application then decides by [`peer_key`] what such a connection may ask for.
pub trait ClientKeyPolicy: Send + Sync {
    /// Whether the holder of this raw public key, of the server's suite, may connect. The handshake goes on to
    /// prove that the client holds it.
    fn accept(&self, public_key: &[u8]) -> bool;
}

/// Why a configuration could not be made.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ConfigError {
    /// The signer's key belongs to another suite.
    #[error("the signer's key is of suite {signer}, the configuration of suite {config}")]
    Suite {
        /// The suite asked for.
        config: SuiteId,
        /// The signer's.
        signer: SuiteId,
    },
    /// The signer's public key has the wrong length.
    #[error("the signer's public key: expected {expected} bytes, got {actual}")]
    PublicKeyLength {
        /// The suite's length.
        expected: usize,
        /// The signer's.
        actual: usize,
    },
    /// The library refused the configuration.
    #[error("TLS configuration")]
    Tls(#[source] Error),
}

/// The configuration of a client that will talk to the server with key `pin` and to nobody else.
///
/// # Errors
/// [`ConfigError`] if the signer does not fit the suite.
pub fn client_config(
    suite: SuiteId,
    signer: Arc<dyn TlsSigner>,
    pin: PinnedKey,
) -> Result<Arc<ClientConfig>, ConfigError> {
    let key = certified_key(suite, signer)?;
    let mut config = ClientConfig::builder_with_provider(provider(suite))
        .with_protocol_versions(&[&version::TLS13])
        .map_err(ConfigError::Tls)?
        .dangerous() // The library's word for a verifier that is not its own; ours checks the pin.
        .with_custom_certificate_verifier(Arc::new(PinVerifier { suite, pin }))
        .with_client_cert_resolver(Arc::new(AlwaysResolvesClientRawPublicKeys::new(key)));
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.resumption = Resumption::disabled();
    config.enable_early_data = false;
    config.enable_sni = false;
    Ok(Arc::new(config))
}

/// The configuration of a server.
///
/// # Errors
/// [`ConfigError`] if the signer does not fit the suite.
pub fn server_config(
    suite: SuiteId,
    signer: Arc<dyn TlsSigner>,
    clients: Arc<dyn ClientKeyPolicy>,
) -> Result<Arc<ServerConfig>, ConfigError> {
    let key = certified_key(suite, signer)?;
    let mut config = ServerConfig::builder_with_provider(provider(suite))
        .with_protocol_versions(&[&version::TLS13])
        .map_err(ConfigError::Tls)?
        .with_client_cert_verifier(Arc::new(PolicyVerifier { suite, clients }))
        .with_cert_resolver(Arc::new(AlwaysResolvesServerRawPublicKeys::new(key)));
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.max_early_data_size = 0;
    Ok(Arc::new(config))
}

/// What to pass where the library wants a server name. It is not sent and not checked: the pin is.
#[must_use]
pub fn server_name() -> ServerName<'static> {
    ServerName::IpAddress(std::net::Ipv4Addr::UNSPECIFIED.into())
}

/// Why a connection has no peer to speak of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PeerError {
    /// The handshake has not finished, so nothing is proven.
    #[error("the TLS handshake has not finished")]
    Handshaking,
    /// The peer did not agree on [`ALPN`]. (The library refuses a wrong protocol, but lets a peer name none.)
    #[error("the peer does not speak zixt/1")]
    Protocol,
    /// The peer has no raw public key of the suite. Cannot happen on a connection of this module's configurations.
    #[error("the peer has no public key of the suite")]
    NoKey,
}

/// The raw public key that the other side has proven to hold. Call it after the handshake and before anything
/// else, on either side.
///
/// # Errors
/// [`PeerError`]; the connection must be closed then.
pub fn peer_key(suite: SuiteId, connection: &CommonState) -> Result<&[u8], PeerError> {
    if connection.is_handshaking() {
        return Err(PeerError::Handshaking);
    }
    if connection.alpn_protocol() != Some(ALPN) {
        return Err(PeerError::Protocol);
    }
    match connection.peer_certificates() {
        Some([only]) => raw_public_key(suite, only).ok_or(PeerError::NoKey),
        _ => Err(PeerError::NoKey),
    }
}

/// A raw ML-DSA key as SubjectPublicKeyInfo (RFC 5280, Section 4.1.2.7; RFC 9881), which is what TLS carries.
///
/// `public_key` must have the suite's length, or the result is not one that [`raw_public_key`] reads.
#[must_use]
pub fn spki(suite: SuiteId, public_key: &[u8]) -> Vec<u8> {
    [spki_prefix(suite), public_key].concat()
}

/// The raw key in a SubjectPublicKeyInfo of exactly this suite; `None` for anything else.
#[must_use]
pub fn raw_public_key(suite: SuiteId, spki: &[u8]) -> Option<&[u8]> {
    // DER has one encoding, and the key's length is fixed, so all before the key is fixed too.
    spki.strip_prefix(spki_prefix(suite)).filter(|key| key.len() == suite_params(suite).public_key_bytes)
}

const fn spki_prefix(suite: SuiteId) -> &'static [u8] {
    // SEQUENCE { SEQUENCE { OID 2.16.840.1.101.3.4.3.18 or .19 }, BIT STRING (no unused bits) }
    match suite {
        SuiteId::Standard => {
            b"\x30\x82\x07\xb2\x30\x0b\x06\x09\x60\x86\x48\x01\x65\x03\x04\x03\x12\x03\x82\x07\xa1\x00"
        }
        SuiteId::Cnsa => {
            b"\x30\x82\x0a\x32\x30\x0b\x06\x09\x60\x86\x48\x01\x65\x03\x04\x03\x13\x03\x82\x0a\x21\x00"
        }
    }
}

const fn scheme(suite: SuiteId) -> SignatureScheme {
    match suite {
        SuiteId::Standard => SignatureScheme::ML_DSA_65,
        SuiteId::Cnsa => SignatureScheme::ML_DSA_87,
    }
}

static ML_DSA_65_ONLY: &[&dyn SignatureVerificationAlgorithm] = &[ML_DSA_65];
static ML_DSA_87_ONLY: &[&dyn SignatureVerificationAlgorithm] = &[ML_DSA_87];

static ML_DSA_65_ALGORITHMS: WebPkiSupportedAlgorithms = WebPkiSupportedAlgorithms {
    all: ML_DSA_65_ONLY,
    mapping: &[(SignatureScheme::ML_DSA_65, ML_DSA_65_ONLY)],
};
static ML_DSA_87_ALGORITHMS: WebPkiSupportedAlgorithms = WebPkiSupportedAlgorithms {
    all: ML_DSA_87_ONLY,
    mapping: &[(SignatureScheme::ML_DSA_87, ML_DSA_87_ONLY)],
};

fn verification_algorithms(suite: SuiteId) -> &'static WebPkiSupportedAlgorithms {
    match suite {
        SuiteId::Standard => &ML_DSA_65_ALGORITHMS,
        SuiteId::Cnsa => &ML_DSA_87_ALGORITHMS,
    }
}

/// The library's provider with all but one choice of each kind taken away.
fn provider(suite: SuiteId) -> Arc<CryptoProvider> {
    Arc::new(CryptoProvider {
        cipher_suites: vec![cipher_suite::TLS13_AES_256_GCM_SHA384],
        kx_groups: vec![kx_group::MLKEM1024],
        signature_verification_algorithms: *verification_algorithms(suite),
        ..default_provider()
    })
}

fn certified_key(suite: SuiteId, signer: Arc<dyn TlsSigner>) -> Result<Arc<CertifiedKey>, ConfigError> {
    if signer.suite() != suite {
        return Err(ConfigError::Suite { config: suite, signer: signer.suite() });
    }
    let (expected, actual) = (suite_params(suite).public_key_bytes, signer.public_key().len());
    if actual != expected {
        return Err(ConfigError::PublicKeyLength { expected, actual });
    }
    let certificate = CertificateDer::from(spki(suite, signer.public_key()));
    Ok(Arc::new(CertifiedKey::new(vec![certificate], Arc::new(HeldKey { suite, signer }))))
}

/// A [`TlsSigner`] as the library sees it.
#[derive(Clone)]
struct HeldKey {
    suite: SuiteId,
    signer: Arc<dyn TlsSigner>,
}

impl fmt::Debug for HeldKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HeldKey({})", self.suite)
    }
}

impl RustlsSigningKey for HeldKey {
    fn choose_scheme(&self, offered: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        offered.contains(&scheme(self.suite)).then(|| Box::new(self.clone()) as _)
    }

    fn public_key(&self) -> Option<SubjectPublicKeyInfoDer<'_>> {
        Some(spki(self.suite, self.signer.public_key()).into())
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        // Only TLS 1.2 asks; its one-byte number space has no ML-DSA.
        SignatureAlgorithm::Unknown(0)
    }
}

impl Signer for HeldKey {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, Error> {
        self.signer.sign(message).map_err(|error| Error::General(error.to_string()))
    }

    fn scheme(&self) -> SignatureScheme {
        scheme(self.suite)
    }
}

/// The raw key of a peer that sent exactly one of the right form.
fn presented_key<'a>(
    suite: SuiteId,
    end_entity: &'a CertificateDer<'_>,
    intermediates: &[CertificateDer<'_>],
) -> Result<&'a [u8], Error> {
    match raw_public_key(suite, end_entity) {
        Some(key) if intermediates.is_empty() => Ok(key),
        _ => Err(CertificateError::BadEncoding.into()),
    }
}

fn verify_signature(
    suite: SuiteId,
    message: &[u8],
    key: &CertificateDer<'_>,
    signed: &DigitallySignedStruct,
) -> Result<HandshakeSignatureValid, Error> {
    let spki = SubjectPublicKeyInfoDer::from(key.as_ref());
    verify_tls13_signature_with_raw_key(message, &spki, signed, verification_algorithms(suite))
}

#[derive(Debug)]
struct PinVerifier {
    suite: SuiteId,
    pin: PinnedKey,
}

impl ServerCertVerifier for PinVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let key = presented_key(self.suite, end_entity, intermediates)?;
        if PinnedKey::of(self.suite, key) == self.pin {
            Ok(ServerCertVerified::assertion())
        } else {
            Err(CertificateError::ApplicationVerificationFailure.into())
        }
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(PeerIncompatible::ServerDoesNotSupportTls12Or13.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        key: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_signature(self.suite, message, key, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![scheme(self.suite)]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

struct PolicyVerifier {
    suite: SuiteId,
    clients: Arc<dyn ClientKeyPolicy>,
}

impl fmt::Debug for PolicyVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PolicyVerifier({})", self.suite)
    }
}

impl ClientCertVerifier for PolicyVerifier {
    fn client_auth_mandatory(&self) -> bool {
        true
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let key = presented_key(self.suite, end_entity, intermediates)?;
        if self.clients.accept(key) {
            Ok(ClientCertVerified::assertion())
        } else {
            Err(CertificateError::ApplicationVerificationFailure.into())
        }
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(PeerIncompatible::Tls12NotOfferedOrEnabled.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        key: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_signature(self.suite, message, key, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![scheme(self.suite)]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}
