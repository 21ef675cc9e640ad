//! HTTPS to an identity provider: one origin, pinned authorities, bounded answers, no redirects.
//!
//! TLS 1.3 only, with the hybrid group X25519MLKEM768 first. An identity provider that cannot do it gets X25519 or
//! secp384r1: its server is not ours, and what crosses the link is signed and short-lived.

use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_ENCODING, CONTENT_TYPE, HOST};
use http::{HeaderValue, Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::TokioIo;
use rustls::client::Resumption;
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::{cipher_suite, default_provider, kx_group};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore, version};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use thiserror::Error;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use url::{Host, Url};

/// From the look-up of the name to the last byte of the answer. A person waits for it.
pub const WEB_TIME_MAX: Duration = Duration::from_secs(10);
/// Bytes of an answer's body. Key sets and metadata have a few KiB.
pub const WEB_BODY_BYTES_MAX: usize = 256 * 1024;
/// Bytes of an answer's header section.
const HEADER_BYTES_MAX: usize = 32 * 1024;
/// Fields of an answer's header section.
const HEADERS_MAX: usize = 64;
/// Addresses of one name that are tried.
const ADDRESSES_MAX: usize = 4;

/// Scheme, host and port (RFC 6454); the scheme is always https.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct WebOrigin {
    host: Host<String>,
    port: u16,
}

impl WebOrigin {
    /// The origin of a URL; `None` unless it is https with a host and names no user.
    #[must_use]
    pub fn of(url: &Url) -> Option<Self> {
        let plain = url.scheme() == "https" && url.username().is_empty() && url.password().is_none();
        let host = url.host().filter(|_| plain)?.to_owned();
        Some(Self { host, port: url.port_or_known_default()? })
    }
}

impl fmt::Display for WebOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "https://{}:{}", self.host, self.port)
    }
}

/// Why a client could not be made.
#[derive(Debug, Error)]
pub enum WebConfigError {
    /// The pinned authorities.
    #[error("the authorities are no PEM certificates (RFC 7468)")]
    Pem(#[source] rustls::pki_types::pem::Error),
    /// There is none: without one nothing could be trusted.
    #[error("no authority is pinned")]
    NoAuthority,
    /// A certificate or the TLS configuration.
    #[error("TLS configuration")]
    Tls(#[from] rustls::Error),
}

/// Why there is no answer. Never the identity of anybody: a sign-in that meets one of these is refused.
#[derive(Debug, Error)]
pub enum WebError {
    /// It would have gone elsewhere.
    #[error("the request is not for {0}")]
    OtherOrigin(WebOrigin),
    /// Nobody answers at its address, or its name is not known.
    #[error("the identity provider cannot be reached")]
    Unreachable(#[source] std::io::Error),
    /// The handshake failed: another authority, an old protocol, an ended certificate.
    #[error("TLS with the identity provider")]
    Tls(#[source] std::io::Error),
    /// It took longer than [`WEB_TIME_MAX`].
    #[error("the identity provider did not answer within {} s", WEB_TIME_MAX.as_secs())]
    Slow,
    /// HTTP itself, or the connection broke.
    #[error("HTTP with the identity provider")]
    Http(#[source] hyper::Error),
    /// The body is longer than [`WEB_BODY_BYTES_MAX`].
    #[error("the answer is longer than {WEB_BODY_BYTES_MAX} bytes")]
    TooLong,
    /// The body is compressed, though nothing of that kind was asked for.
    #[error("the answer has a content coding, and none was asked for")]
    Coding,
    /// Another status than was expected; redirects are among these, because none is followed.
    #[error("the answer has the status {0}")]
    Status(u16),
    /// Another media type than was expected.
    #[error("the answer is not of the type {0}")]
    MediaType(&'static str),
}

/// Talks to one origin.
pub struct WebClient {
    origin: WebOrigin,
    connector: TlsConnector,
}

impl fmt::Debug for WebClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WebClient({})", self.origin)
    }
}

impl WebClient {
    /// For one origin, whose certificate one of these authorities (PEM) has to have issued. The authorities of the
    /// system are not asked.
    ///
    /// # Errors
    /// [`WebConfigError`]
    pub fn new(origin: WebOrigin, authorities_pem: &str) -> Result<Self, WebConfigError> {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(authorities_pem.as_bytes()) {
            roots.add(certificate.map_err(WebConfigError::Pem)?)?;
        }
        if roots.is_empty() {
            return Err(WebConfigError::NoAuthority);
        }
        let mut config = ClientConfig::builder_with_provider(Arc::new(provider()))
            .with_protocol_versions(&[&version::TLS13])?
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        config.resumption = Resumption::disabled();
        Ok(Self { origin, connector: TlsConnector::from(Arc::new(config)) })
    }

    /// Where it talks to.
    #[must_use]
    pub fn origin(&self) -> &WebOrigin {
        &self.origin
    }

    /// Sends one request on a connection of its own and reads the whole answer.
    ///
    /// # Errors
    /// [`WebError`]. Every status is an answer here.
    pub async fn call(&self, request: Request<Vec<u8>>) -> Result<Response<Bytes>, WebError> {
        tokio::time::timeout(WEB_TIME_MAX, self.exchange(request)).await.map_err(|_| WebError::Slow)?
    }

    /// [`Self::call`], for an answer with status 200 and this media type.
    pub(crate) async fn fetch(
        &self,
        request: Request<Vec<u8>>,
        types: &[&'static str],
    ) -> Result<Bytes, WebError> {
        let response = self.call(request).await?;
        if response.status() != http::StatusCode::OK {
            return Err(WebError::Status(response.status().as_u16()));
        }
        if !types.iter().any(|wanted| is_type(response.headers().get(CONTENT_TYPE), wanted)) {
            return Err(WebError::MediaType(types.first().copied().unwrap_or_default()));
        }
        Ok(response.into_body())
    }

    async fn exchange(&self, request: Request<Vec<u8>>) -> Result<Response<Bytes>, WebError> {
        let other = || WebError::OtherOrigin(self.origin.clone());
        let url = Url::parse(&request.uri().to_string()).map_err(|_| other())?;
        if WebOrigin::of(&url).as_ref() != Some(&self.origin) {
            return Err(other());
        }
        let stream = self.connect().await?;
        let (mut sender, connection) = hyper::client::conn::http1::Builder::new()
            .max_buf_size(HEADER_BYTES_MAX)
            .max_headers(HEADERS_MAX)
            .handshake::<_, Full<Bytes>>(TokioIo::new(stream))
            .await
            .map_err(WebError::Http)?;
        // Ends with the answer, or when `sender` is dropped at the time-out.
        let connection = tokio::spawn(connection);
        let answer = async {
            let response = sender.send_request(self.on_wire(request, &url)?).await.map_err(WebError::Http)?;
            read(response).await
        }
        .await;
        connection.abort();
        answer
    }

    /// The request in origin form (RFC 9112 section 3.2.1).
    fn on_wire(&self, request: Request<Vec<u8>>, url: &Url) -> Result<Request<Full<Bytes>>, WebError> {
        let other = || WebError::OtherOrigin(self.origin.clone());
        let (mut head, body) = request.into_parts();
        let target = url.query().map_or_else(|| url.path().to_owned(), |q| format!("{}?{q}", url.path()));
        head.uri = target.parse().map_err(|_| other())?;
        let host = match url.port() {
            Some(port) => format!("{}:{port}", self.origin.host),
            None => self.origin.host.to_string(),
        };
        head.headers.insert(HOST, HeaderValue::from_str(&host).map_err(|_| other())?);
        Ok(Request::from_parts(head, Full::new(Bytes::from(body))))
    }

    async fn connect(&self) -> Result<tokio_rustls::client::TlsStream<TcpStream>, WebError> {
        let (tcp, name) = match &self.origin.host {
            Host::Domain(name) => {
                let found = tokio::net::lookup_host((name.as_str(), self.origin.port)).await;
                let addresses: Vec<_> = found.map_err(WebError::Unreachable)?.take(ADDRESSES_MAX).collect();
                let server = ServerName::try_from(name.clone()).map_err(|_| unreachable_name())?;
                (TcpStream::connect(addresses.as_slice()).await, server)
            }
            Host::Ipv4(address) => {
                (TcpStream::connect((*address, self.origin.port)).await, ServerName::from(*address))
            }
            Host::Ipv6(address) => {
                (TcpStream::connect((*address, self.origin.port)).await, ServerName::from(*address))
            }
        };
        let tcp = tcp.map_err(WebError::Unreachable)?;
        self.connector.connect(name, tcp).await.map_err(WebError::Tls)
    }
}

fn unreachable_name() -> WebError {
    WebError::Unreachable(std::io::Error::new(std::io::ErrorKind::InvalidInput, "no host name of TLS"))
}

async fn read(response: Response<hyper::body::Incoming>) -> Result<Response<Bytes>, WebError> {
    let (head, mut body) = response.into_parts();
    if head.headers.get(CONTENT_ENCODING).is_some_and(|coding| coding != "identity") {
        return Err(WebError::Coding);
    }
    let mut whole = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(WebError::Http)?.into_data() else { continue };
        if whole.len() + data.len() > WEB_BODY_BYTES_MAX {
            return Err(WebError::TooLong);
        }
        whole.extend_from_slice(&data);
    }
    Ok(Response::from_parts(head, whole.freeze()))
}

/// Whether a Content-Type (RFC 9110 section 8.3) is this type; parameters do not matter.
pub(crate) fn is_type(header: Option<&HeaderValue>, wanted: &str) -> bool {
    let essence = header.and_then(|value| value.to_str().ok()).and_then(|text| text.split(';').next());
    essence.is_some_and(|essence| essence.trim().eq_ignore_ascii_case(wanted))
}

/// What is offered to an identity provider.
fn provider() -> CryptoProvider {
    CryptoProvider {
        cipher_suites: vec![
            cipher_suite::TLS13_AES_256_GCM_SHA384,
            cipher_suite::TLS13_AES_128_GCM_SHA256,
            cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
        ],
        kx_groups: vec![kx_group::X25519MLKEM768, kx_group::X25519, kx_group::SECP384R1, kx_group::SECP256R1],
        ..default_provider()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(text: &str) -> Option<WebOrigin> {
        WebOrigin::of(&Url::parse(text).unwrap())
    }

    #[test]
    fn an_origin_is_https_with_a_host() {
        assert_eq!(origin("https://idp.test/a"), origin("https://IDP.test:443/b?c"));
        assert_ne!(origin("https://idp.test"), origin("https://idp.test:8443"));
        assert_ne!(origin("https://idp.test"), origin("https://idp.test.evil.test"));
        for bad in
            ["http://idp.test", "ftp://idp.test", "https://user@idp.test", "https://:p@idp.test", "data:x"]
        {
            assert_eq!(origin(bad), None, "{bad}");
        }
    }

    #[test]
    fn without_an_authority_there_is_no_client() {
        let origin = origin("https://idp.test").unwrap();
        assert!(matches!(WebClient::new(origin.clone(), ""), Err(WebConfigError::NoAuthority)));
        let garbage = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        assert!(matches!(WebClient::new(origin, garbage), Err(WebConfigError::Tls(_))));
    }

    #[test]
    fn the_hybrid_group_is_offered_first() {
        assert_eq!(provider().kx_groups[0].name(), rustls::NamedGroup::X25519MLKEM768);
    }

    #[test]
    fn media_types_are_compared_without_parameters() {
        let of = |text: &'static str| is_type(Some(&HeaderValue::from_static(text)), "application/json");
        assert!(of("application/json") && of("Application/JSON; charset=utf-8"));
        assert!(!of("text/html") && !of("application/jsonp") && !is_type(None, "application/json"));
    }
}
