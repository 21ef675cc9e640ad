//! HTTP/1.1 over TLS 1.3 with raw public keys. The appliance's key is checked before the first byte of a request.

use super::{ConnectionError, Connector, Lines, Opened, Request, Response, Target, Transport};
use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use http::HeaderValue;
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use rustls::{CertificateError, ClientConfig};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::sync::{Mutex, mpsc};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use zeroize::Zeroizing;
use zixt_api::{Method, Secret, endpoints};
use zixt_crypto_fast::tls::{self, PinnedKey, TlsSigner};

/// TCP and the handshake: a healthy appliance needs milliseconds.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// A whole request: a submission waits for its height, a commit of a large group uploads megabytes.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);
/// Longest problem that an appliance describes.
const PROBLEM_BYTES_MAX: usize = 64 * 1024;
/// Lines of the stream that wait for the engine.
const LINES_AHEAD: usize = 16;

/// Connects to real appliances.
#[derive(Clone, Copy, Debug, Default)]
pub struct TlsConnector;

impl Connector for TlsConnector {
    fn transport(
        &self,
        target: &Target,
        signer: Arc<dyn TlsSigner>,
    ) -> Result<Arc<dyn Transport>, ConnectionError> {
        let config = tls::client_config(target.suite, signer, target.pin)
            .map_err(|error| ConnectionError::Handshake(error.to_string()))?;
        Ok(Arc::new(TlsTransport { target: target.clone(), config, idle: Mutex::new(None) }))
    }
}

struct TlsTransport {
    target: Target,
    config: Arc<ClientConfig>,
    /// The connection for requests, between them. A stream has a connection of its own.
    idle: Mutex<Option<Connection>>,
}

struct Connection {
    sender: SendRequest<Full<Bytes>>,
    driver: JoinHandle<()>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl TlsTransport {
    async fn connect(&self) -> Result<Connection, ConnectionError> {
        timeout(CONNECT_TIMEOUT, self.handshake()).await.map_err(|_| ConnectionError::Timeout)?
    }

    async fn handshake(&self) -> Result<Connection, ConnectionError> {
        let unreachable = |error: std::io::Error| ConnectionError::Unreachable {
            address: self.target.address.clone(),
            reason: error.to_string(),
        };
        let tcp = TcpStream::connect(&self.target.address).await.map_err(unreachable)?;
        tcp.set_nodelay(true).map_err(unreachable)?;
        let connector = tokio_rustls::TlsConnector::from(Arc::clone(&self.config));
        let stream = connector.connect(tls::server_name(), tcp).await.map_err(|error| tls_fault(&error))?;
        let key = tls::peer_key(self.target.suite, stream.get_ref().1)
            .map_err(|error| ConnectionError::Handshake(error.to_string()))?;
        // The handshake has checked it; a line like this costs nothing and survives a change of configuration.
        if PinnedKey::of(self.target.suite, key) != self.target.pin {
            return Err(ConnectionError::WrongKey);
        }
        let (sender, connection) = handshake(TokioIo::new(stream)).await.map_err(|error| broken(&error))?;
        let driver = tokio::spawn(connection.map(|result| {
            if let Err(error) = result {
                log::debug!("connection ended: {error}");
            }
        }));
        Ok(Connection { sender, driver })
    }

    async fn answer(&self, request: Request) -> Result<Response, ConnectionError> {
        let mut idle = self.idle.lock().await;
        // A connection that lay idle may be closed at the other side: one more try on a fresh one. Every request of
        // the API may be repeated.
        if let Some(connection) = idle.take().filter(|connection| !connection.sender.is_closed())
            && let Ok((response, connection)) = exchange(connection, &request).await
        {
            *idle = connection;
            return Ok(response);
        }
        let (response, connection) = exchange(self.connect().await?, &request).await?;
        *idle = connection;
        Ok(response)
    }
}

impl Transport for TlsTransport {
    fn request(&self, request: Request) -> BoxFuture<'_, Result<Response, ConnectionError>> {
        async move {
            timeout(REQUEST_TIMEOUT, self.answer(request)).await.map_err(|_| ConnectionError::Timeout)?
        }
        .boxed()
    }

    fn stream(&self, after: u64, token: Option<Secret>) -> BoxFuture<'_, Result<Opened, ConnectionError>> {
        async move {
            let mut connection = self.connect().await?;
            let request = http_request(&Request {
                method: Method::Get,
                path: format!("{}?after={after}", endpoints::STREAM),
                body: None,
                answer_bytes_max: 0,
                token,
            })?;
            let response = timeout(CONNECT_TIMEOUT, connection.sender.send_request(request))
                .await
                .map_err(|_| ConnectionError::Timeout)?
                .map_err(|error| broken(&error))?;
            let status = response.status().as_u16();
            if status != 200 {
                let body = collect(response.into_body(), PROBLEM_BYTES_MAX).await?;
                return Ok(Opened::Refused(Response { status, body }));
            }
            let (sender, receiver) = mpsc::channel(LINES_AHEAD);
            let reader = tokio::spawn(read_lines(connection, response.into_body(), sender));
            Ok(Opened::Stream(Box::new(TlsLines { receiver, reader })))
        }
        .boxed()
    }
}

struct TlsLines {
    receiver: mpsc::Receiver<Result<Vec<u8>, ConnectionError>>,
    reader: JoinHandle<()>,
}

impl Drop for TlsLines {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

impl Lines for TlsLines {
    fn next(&mut self) -> BoxFuture<'_, Result<Option<Vec<u8>>, ConnectionError>> {
        self.receiver.recv().map(Option::transpose).boxed()
    }
}

async fn read_lines(
    connection: Connection,
    mut body: Incoming,
    lines: mpsc::Sender<Result<Vec<u8>, ConnectionError>>,
) {
    // Keeps the driver alive as long as the stream is read.
    let _connection = connection;
    let max = zixt_api::LINE_BYTES_MAX;
    let mut rest = Vec::new();
    while let Some(frame) = body.frame().await {
        let data = match frame {
            Ok(frame) => frame.into_data().unwrap_or_default(),
            Err(error) => {
                let _gone = lines.send(Err(broken(&error))).await;
                return;
            }
        };
        for part in data.split_inclusive(|byte| *byte == b'\n') {
            if rest.len() + part.len() > max {
                let _gone = lines.send(Err(ConnectionError::TooLarge { max })).await;
                return;
            }
            rest.extend_from_slice(part);
            if rest.last() == Some(&b'\n') {
                rest.pop();
                let line = std::mem::take(&mut rest);
                if !line.is_empty() && lines.send(Ok(line)).await.is_err() {
                    return;
                }
            }
        }
    }
}

/// One request on one connection, and the connection if it can be used again.
async fn exchange(
    mut connection: Connection,
    request: &Request,
) -> Result<(Response, Option<Connection>), ConnectionError> {
    connection.sender.ready().await.map_err(|error| broken(&error))?;
    let response =
        connection.sender.send_request(http_request(request)?).await.map_err(|error| broken(&error))?;
    let status = response.status().as_u16();
    let max = if status == 200 { request.answer_bytes_max } else { PROBLEM_BYTES_MAX };
    let body = collect(response.into_body(), max).await?;
    Ok((Response { status, body }, Some(connection)))
}

fn http_request(request: &Request) -> Result<http::Request<Full<Bytes>>, ConnectionError> {
    let method = match request.method {
        Method::Get => http::Method::GET,
        Method::Post => http::Method::POST,
        Method::Put => http::Method::PUT,
        Method::Delete => http::Method::DELETE,
    };
    let mut built = http::Request::builder()
        .method(method)
        .uri(&request.path)
        .header(http::header::HOST, "zixt")
        .header(http::header::CONTENT_TYPE, "application/json");
    if let Some(token) = &request.token {
        let shown = Zeroizing::new(format!("Bearer {}", token.expose()));
        let mut shown = HeaderValue::from_str(&shown)
            .map_err(|_| ConnectionError::Protocol("the session's token has strange letters".to_owned()))?;
        shown.set_sensitive(true);
        built = built.header(http::header::AUTHORIZATION, shown);
    }
    built
        .body(Full::from(request.body.clone().unwrap_or_default()))
        .map_err(|error| ConnectionError::Protocol(error.to_string()))
}

async fn collect(body: Incoming, max: usize) -> Result<Vec<u8>, ConnectionError> {
    match Limited::new(body, max).collect().await {
        Ok(collected) => Ok(collected.to_bytes().into()),
        Err(error) if error.is::<LengthLimitError>() => Err(ConnectionError::TooLarge { max }),
        Err(error) => Err(ConnectionError::Interrupted(error.to_string())),
    }
}

fn tls_fault(error: &std::io::Error) -> ConnectionError {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match inner {
        Some(rustls::Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure)) => {
            ConnectionError::WrongKey
        }
        Some(inner) => ConnectionError::Handshake(inner.to_string()),
        None => ConnectionError::Interrupted(error.to_string()),
    }
}

fn broken(error: &hyper::Error) -> ConnectionError {
    ConnectionError::Interrupted(error.to_string())
}
