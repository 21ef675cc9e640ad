//! What the TLS configurations accept, and that everything else is refused.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::{cipher_suite, default_provider, kx_group};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    AlertDescription, CertificateError, CipherSuite, ClientConfig, ClientConnection, CommonState,
    DigitallySignedStruct, Error, HandshakeKind, NamedGroup, PeerIncompatible, PeerMisbehaved,
    ProtocolVersion, ServerConfig, ServerConnection, SignatureScheme,
};
use zixt_crypto::{Backend, Reference, SignError, SigningKey, SigningSeed, SuiteId};
use zixt_crypto_fast::AwsLc;
use zixt_crypto_fast::tls::{
    self, ALPN, ClientKeyPolicy, ConfigError, PeerError, PinnedKey, TlsSigner, client_config, server_config,
};

fn signing_key(suite: SuiteId, seed: u8) -> Box<dyn SigningKey> {
    AwsLc.signing_key(suite, &SigningSeed::from_bytes(&[seed; 32])).unwrap()
}

fn signer(suite: SuiteId, seed: u8) -> Arc<dyn TlsSigner> {
    Arc::new(signing_key(suite, seed))
}

fn pin(suite: SuiteId, seed: u8) -> PinnedKey {
    PinnedKey::of(suite, signing_key(suite, seed).public_key())
}

struct Anyone;
impl ClientKeyPolicy for Anyone {
    fn accept(&self, _: &[u8]) -> bool {
        true
    }
}

struct Only(Vec<u8>);
impl ClientKeyPolicy for Only {
    fn accept(&self, public_key: &[u8]) -> bool {
        public_key == self.0
    }
}

const CLIENT: u8 = 1;
const SERVER: u8 = 2;

fn client(suite: SuiteId) -> ClientConfig {
    Arc::unwrap_or_clone(client_config(suite, signer(suite, CLIENT), pin(suite, SERVER)).unwrap())
}

fn server(suite: SuiteId) -> ServerConfig {
    Arc::unwrap_or_clone(server_config(suite, signer(suite, SERVER), Arc::new(Anyone)).unwrap())
}

/// Which side found fault, and with what.
#[derive(Debug, PartialEq)]
enum Refused {
    ByClient(Error),
    ByServer(Error),
}

/// Runs a handshake in memory until both sides are done.
fn handshake(
    client: impl Into<Arc<ClientConfig>>,
    server: impl Into<Arc<ServerConfig>>,
) -> Result<(ClientConnection, ServerConnection), Refused> {
    let mut client = ClientConnection::new(client.into(), tls::server_name()).unwrap();
    let mut server = ServerConnection::new(server.into()).unwrap();
    for _ in 0..10 {
        let mut wire = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut wire).unwrap();
        }
        let mut wire = &wire[..];
        while !wire.is_empty() {
            server.read_tls(&mut wire).unwrap();
            server.process_new_packets().map_err(Refused::ByServer)?;
        }
        let mut wire = Vec::new();
        while server.wants_write() {
            server.write_tls(&mut wire).unwrap();
        }
        let mut wire = &wire[..];
        while !wire.is_empty() {
            client.read_tls(&mut wire).unwrap();
            client.process_new_packets().map_err(Refused::ByClient)?;
        }
    }
    assert!(!client.is_handshaking() && !server.is_handshaking());
    Ok((client, server))
}

fn refusal(client: impl Into<Arc<ClientConfig>>, server: impl Into<Arc<ServerConfig>>) -> Refused {
    handshake(client, server).map(|_| ()).unwrap_err()
}

#[test]
fn both_suites_connect_with_the_one_choice_of_everything() {
    for suite in SuiteId::ALL {
        let (client, server) = handshake(client(suite), server(suite)).unwrap();
        let sides: [&CommonState; 2] = [&client, &server];
        for side in sides {
            assert_eq!(side.protocol_version(), Some(ProtocolVersion::TLSv1_3));
            assert_eq!(side.negotiated_key_exchange_group().unwrap().name(), NamedGroup::MLKEM1024);
            assert_eq!(
                side.negotiated_cipher_suite().unwrap().suite(),
                CipherSuite::TLS13_AES_256_GCM_SHA384
            );
            assert_eq!(side.alpn_protocol(), Some(ALPN));
        }
        assert_eq!(tls::peer_key(suite, &server).unwrap(), signing_key(suite, CLIENT).public_key());
        assert_eq!(tls::peer_key(suite, &client).unwrap(), signing_key(suite, SERVER).public_key());
        assert_eq!(server.server_name(), None);
    }
}

#[test]
fn nothing_is_resumed() {
    let (config, server_config) = (Arc::new(client(SuiteId::Standard)), Arc::new(server(SuiteId::Standard)));
    for _ in 0..3 {
        let (client, server) = handshake(config.clone(), server_config.clone()).unwrap();
        assert_eq!(client.handshake_kind(), Some(HandshakeKind::Full));
        assert_eq!(client.tls13_tickets_received(), 0);
        assert_eq!(server.handshake_kind(), Some(HandshakeKind::Full));
    }
}

/// A client like ours but for its provider.
fn foreign_client(provider: CryptoProvider) -> ClientConfig {
    ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Gullible(vec![SignatureScheme::ML_DSA_65])))
        .with_client_cert_resolver(client(SuiteId::Standard).client_auth_cert_resolver)
}

fn our_provider() -> CryptoProvider {
    (**client(SuiteId::Standard).crypto_provider()).clone()
}

#[test]
fn a_foreign_client_that_makes_our_choices_is_accepted() {
    // So that the refusals below are for the reason they name.
    let mut config = foreign_client(our_provider());
    config.alpn_protocols = vec![ALPN.to_vec()];
    handshake(config, server(SuiteId::Standard)).unwrap();
}

#[test]
fn classical_and_hybrid_key_exchange_is_refused() {
    for groups in [
        vec![kx_group::X25519],
        vec![kx_group::SECP384R1],
        vec![kx_group::X25519MLKEM768],
        vec![kx_group::MLKEM768],
        vec![kx_group::X25519, kx_group::X25519MLKEM768, kx_group::SECP256R1],
    ] {
        assert_eq!(
            refusal(
                foreign_client(CryptoProvider { kx_groups: groups, ..our_provider() }),
                server(SuiteId::Standard)
            ),
            Refused::ByServer(Error::PeerIncompatible(PeerIncompatible::NoKxGroupsInCommon))
        );
    }
}

#[test]
fn classical_server_is_refused() {
    let mut provider = default_provider();
    provider.kx_groups = vec![kx_group::X25519, kx_group::X25519MLKEM768];
    let ours = server(SuiteId::Standard);
    let config = ServerConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_cert_resolver(ours.cert_resolver.clone());
    assert_eq!(
        refusal(client(SuiteId::Standard), config),
        Refused::ByServer(Error::PeerIncompatible(PeerIncompatible::NoKxGroupsInCommon))
    );
}

#[test]
fn other_cipher_suites_are_refused() {
    let cipher_suites =
        vec![cipher_suite::TLS13_AES_128_GCM_SHA256, cipher_suite::TLS13_CHACHA20_POLY1305_SHA256];
    let config = foreign_client(CryptoProvider { cipher_suites, ..our_provider() });
    assert_eq!(
        refusal(config, server(SuiteId::Standard)),
        Refused::ByServer(Error::PeerIncompatible(PeerIncompatible::NoCipherSuitesInCommon))
    );
}

#[test]
fn tls_1_2_is_refused() {
    let config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS12])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Gullible(vec![SignatureScheme::ECDSA_NISTP384_SHA384])))
        .with_no_client_auth();
    assert_eq!(
        refusal(config, server(SuiteId::Standard)),
        Refused::ByServer(Error::PeerIncompatible(PeerIncompatible::Tls12NotOfferedOrEnabled))
    );
}

#[test]
fn a_tls_1_2_server_is_refused() {
    let config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS12])
        .unwrap()
        .with_no_client_auth()
        .with_cert_resolver(server(SuiteId::Standard).cert_resolver.clone());
    // Our hello lists TLS 1.3 alone, so such a server finds nothing to speak.
    assert!(matches!(
        refusal(client(SuiteId::Standard), config),
        Refused::ByServer(Error::PeerIncompatible(_))
    ));
}

#[test]
fn wrong_pin_is_refused_before_the_client_says_who_it_is() {
    let config =
        client_config(SuiteId::Standard, signer(SuiteId::Standard, CLIENT), pin(SuiteId::Standard, 9));
    assert_eq!(
        refusal(config.unwrap(), server(SuiteId::Standard)),
        Refused::ByClient(Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure))
    );
}

#[test]
fn suites_do_not_mix() {
    let (standard, cnsa) = (SuiteId::Standard, SuiteId::Cnsa);
    for (a, b) in [(standard, cnsa), (cnsa, standard)] {
        assert!(matches!(
            refusal(client(a), server(b)),
            Refused::ByServer(Error::PeerIncompatible(PeerIncompatible::NoSignatureSchemesInCommon))
        ));
    }
    assert!(matches!(
        client_config(cnsa, signer(standard, CLIENT), pin(cnsa, SERVER)),
        Err(ConfigError::Suite { config: SuiteId::Cnsa, signer: SuiteId::Standard })
    ));
    assert!(matches!(
        server_config(standard, signer(cnsa, SERVER), Arc::new(Anyone)),
        Err(ConfigError::Suite { .. })
    ));
}

/// Claims the standard suite's key but signs with another key of any suite.
struct Impostor {
    claimed: Box<dyn SigningKey>,
    real: Box<dyn SigningKey>,
}

impl TlsSigner for Impostor {
    fn suite(&self) -> SuiteId {
        self.claimed.suite()
    }
    fn public_key(&self) -> &[u8] {
        self.claimed.public_key()
    }
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, SignError> {
        self.real.sign(message)
    }
}

#[test]
fn knowing_a_public_key_is_not_holding_it() {
    let suite = SuiteId::Standard;
    for real in [signing_key(suite, 66), signing_key(SuiteId::Cnsa, SERVER)] {
        let impostor = Arc::new(Impostor { claimed: signing_key(suite, SERVER), real });
        let config = server_config(suite, impostor, Arc::new(Anyone)).unwrap();
        assert_eq!(
            refusal(client(suite), config),
            Refused::ByClient(Error::InvalidCertificate(CertificateError::BadSignature))
        );
    }
    for real in [signing_key(suite, 66), signing_key(SuiteId::Cnsa, CLIENT)] {
        let impostor = Arc::new(Impostor { claimed: signing_key(suite, CLIENT), real });
        let config = client_config(suite, impostor, pin(suite, SERVER)).unwrap();
        assert_eq!(
            refusal(config, server(suite)),
            Refused::ByServer(Error::InvalidCertificate(CertificateError::BadSignature))
        );
    }
}

/// A peer that signs with the other suite's scheme although only ours was offered.
#[derive(Debug)]
struct Unoffered(Arc<rustls::sign::CertifiedKey>);

impl rustls::server::ResolvesServerCert for Unoffered {
    fn resolve(&self, _: rustls::server::ClientHello<'_>) -> Option<Arc<rustls::sign::CertifiedKey>> {
        Some(self.0.clone())
    }
    fn only_raw_public_keys(&self) -> bool {
        true
    }
}

#[derive(Debug)]
struct Cnsa87;

impl rustls::sign::SigningKey for Cnsa87 {
    fn choose_scheme(&self, _: &[SignatureScheme]) -> Option<Box<dyn rustls::sign::Signer>> {
        Some(Box::new(Self))
    }
    fn algorithm(&self) -> rustls::SignatureAlgorithm {
        rustls::SignatureAlgorithm::Unknown(0)
    }
}

impl rustls::sign::Signer for Cnsa87 {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, Error> {
        Ok(signing_key(SuiteId::Cnsa, SERVER).sign(message).unwrap())
    }
    fn scheme(&self) -> SignatureScheme {
        SignatureScheme::ML_DSA_87
    }
}

#[test]
fn a_signature_of_the_other_suite_is_refused() {
    // With its own key of the other suite: the key is not even read.
    let key = |suite| {
        let spki = tls::spki(suite, signing_key(suite, SERVER).public_key());
        Arc::new(rustls::sign::CertifiedKey::new(vec![CertificateDer::from(spki)], Arc::new(Cnsa87)))
    };
    let mut config = server(SuiteId::Standard);
    config.cert_resolver = Arc::new(Unoffered(key(SuiteId::Cnsa)));
    assert_eq!(
        refusal(client(SuiteId::Standard), config),
        Refused::ByClient(Error::InvalidCertificate(CertificateError::BadEncoding))
    );
    // With the pinned key but the other scheme: nothing of that scheme is accepted.
    let mut config = server(SuiteId::Standard);
    config.cert_resolver = Arc::new(Unoffered(key(SuiteId::Standard)));
    assert_eq!(
        refusal(client(SuiteId::Standard), config),
        Refused::ByClient(Error::PeerMisbehaved(PeerMisbehaved::SignedHandshakeWithUnadvertisedSigScheme))
    );
}

#[test]
fn a_client_without_a_key_is_refused() {
    let ours = client(SuiteId::Standard);
    let config = ClientConfig::builder_with_provider(ours.crypto_provider().clone())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Gullible(vec![SignatureScheme::ML_DSA_65])))
        .with_no_client_auth();
    let refused = refusal(config, server(SuiteId::Standard));
    assert!(
        matches!(refused, Refused::ByServer(Error::NoCertificatesPresented | Error::PeerIncompatible(_))),
        "{refused:?}"
    );
}

#[test]
fn the_policy_decides_who_may_connect() {
    let suite = SuiteId::Standard;
    let known = Only(signing_key(suite, CLIENT).public_key().to_vec());
    let config = server_config(suite, signer(suite, SERVER), Arc::new(known)).unwrap();
    handshake(client(suite), config.clone()).unwrap();
    let stranger = client_config(suite, signer(suite, 77), pin(suite, SERVER)).unwrap();
    assert_eq!(
        refusal(stranger, config),
        Refused::ByServer(Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure))
    );
}

#[test]
fn another_application_protocol_is_refused() {
    let mut config = client(SuiteId::Standard);
    config.alpn_protocols = vec![b"h2".to_vec()];
    assert_eq!(refusal(config, server(SuiteId::Standard)), Refused::ByServer(Error::NoApplicationProtocol));
    // One that names no protocol passes the library; then it has no peer key.
    let mut config = client(SuiteId::Standard);
    config.alpn_protocols.clear();
    let (client, server) = handshake(config, server(SuiteId::Standard)).unwrap();
    assert_eq!(tls::peer_key(SuiteId::Standard, &server), Err(PeerError::Protocol));
    assert_eq!(tls::peer_key(SuiteId::Standard, &client), Err(PeerError::Protocol));
}

#[test]
fn no_peer_key_before_the_handshake_is_done() {
    let connection = ServerConnection::new(Arc::new(server(SuiteId::Standard))).unwrap();
    assert_eq!(tls::peer_key(SuiteId::Standard, &connection), Err(PeerError::Handshaking));
}

/// Stands for the custody daemon: counts, checks what it signs, and fails when told to.
struct Custody {
    key: Box<dyn SigningKey>,
    calls: AtomicUsize,
    locked: bool,
}

impl TlsSigner for Custody {
    fn suite(&self) -> SuiteId {
        self.key.suite()
    }
    fn public_key(&self) -> &[u8] {
        self.key.public_key()
    }
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, SignError> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        if self.locked {
            return Err(SignError::Backend { backend: "custody" });
        }
        // RFC 8446, Section 4.4.3: 64 spaces, a context string, a zero byte, a SHA-384 transcript hash.
        let text = message.strip_prefix(&[b' '; 64]).unwrap();
        let hash = text.strip_prefix(b"TLS 1.3, server CertificateVerify\0").unwrap();
        assert_eq!(hash.len(), 48);
        self.key.sign(message)
    }
}

#[test]
fn the_servers_key_can_live_elsewhere() {
    let suite = SuiteId::Cnsa;
    // By the reference backend, so that the two meet in a handshake as well.
    let key = || Reference.signing_key(suite, &SigningSeed::from_bytes(&[SERVER; 32])).unwrap();
    let custody = Arc::new(Custody { key: key(), calls: AtomicUsize::new(0), locked: false });
    let config = server_config(suite, custody.clone(), Arc::new(Anyone)).unwrap();
    handshake(client(suite), config).unwrap();
    assert_eq!(custody.calls.load(Ordering::Relaxed), 1);

    let locked = Arc::new(Custody { key: key(), calls: AtomicUsize::new(0), locked: true });
    let config = server_config(suite, locked, Arc::new(Anyone)).unwrap();
    assert_eq!(
        refusal(client(suite), config),
        Refused::ByServer(Error::General("the custody backend could not sign".into()))
    );
}

#[test]
fn spki_has_one_form() {
    for suite in SuiteId::ALL {
        let key = signing_key(suite, 3);
        let theirs = rustls::sign::public_key_to_spki(
            &match suite {
                SuiteId::Standard => rustls::pki_types::alg_id::ML_DSA_65,
                SuiteId::Cnsa => rustls::pki_types::alg_id::ML_DSA_87,
            },
            key.public_key(),
        );
        let spki = tls::spki(suite, key.public_key());
        assert_eq!(spki, theirs.as_ref());
        assert_eq!(tls::raw_public_key(suite, &spki), Some(key.public_key()));
        let other = if suite == SuiteId::Cnsa { SuiteId::Standard } else { SuiteId::Cnsa };
        assert_eq!(tls::raw_public_key(other, &spki), None);
        assert_eq!(tls::raw_public_key(suite, &spki[..spki.len() - 1]), None);
        assert_eq!(tls::raw_public_key(suite, &[&spki[..], &[0]].concat()), None);
        for i in 0..22 {
            let mut bad = spki.clone();
            bad[i] ^= 1;
            assert_eq!(tls::raw_public_key(suite, &bad), None);
        }
    }
}

#[tokio::test]
async fn works_over_tokio() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let suite = SuiteId::Standard;
    let (near, far) = tokio::io::duplex(1 << 16);
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(server(suite)));
    let server = tokio::spawn(async move {
        let mut stream = acceptor.accept(far).await.unwrap();
        let key = tls::peer_key(suite, stream.get_ref().1).unwrap().to_vec();
        let mut line = [0; 5];
        stream.read_exact(&mut line).await.unwrap();
        stream.write_all(&line).await.unwrap();
        stream.shutdown().await.unwrap();
        key
    });
    let connector = tokio_rustls::TlsConnector::from(Arc::new(client(suite)));
    let mut stream = connector.connect(tls::server_name(), near).await.unwrap();
    stream.write_all(b"hello").await.unwrap();
    let mut line = [0; 5];
    stream.read_exact(&mut line).await.unwrap();
    assert_eq!(&line, b"hello");
    assert_eq!(server.await.unwrap(), signing_key(suite, CLIENT).public_key());
}

/// A foreign client that trusts anyone, so that only the server's strictness is tested.
#[derive(Debug)]
struct Gullible(Vec<SignatureScheme>);

impl ServerCertVerifier for Gullible {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }
    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }
    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }
    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.clone()
    }
    fn requires_raw_public_keys(&self) -> bool {
        self.0.contains(&SignatureScheme::ML_DSA_65)
    }
}

/// The alert that a refused client sees says what happened.
#[test]
fn refusal_is_told_by_alert() {
    let mut client = ClientConnection::new(
        client_config(SuiteId::Cnsa, signer(SuiteId::Cnsa, CLIENT), pin(SuiteId::Cnsa, SERVER)).unwrap(),
        tls::server_name(),
    )
    .unwrap();
    let mut server = ServerConnection::new(Arc::new(server(SuiteId::Standard))).unwrap();
    let mut wire = Vec::new();
    client.write_tls(&mut wire).unwrap();
    server.read_tls(&mut &wire[..]).unwrap();
    server.process_new_packets().unwrap_err();
    let mut wire = Vec::new();
    server.write_tls(&mut wire).unwrap();
    client.read_tls(&mut &wire[..]).unwrap();
    assert_eq!(
        client.process_new_packets().unwrap_err(),
        Error::AlertReceived(AlertDescription::HandshakeFailure)
    );
}
