//! The two listeners: TLS for clients, a Unix socket for administrators.

use super::patience::{Pace, Patient};
use super::visitors::Visitors;
use super::{LocalUser, Peer, Remote, Web};
use crate::app::App;
use crate::audit::Audit;
use crate::room::{STRANGERS_MAX, Turns};
use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UnixListener};
use tokio::sync::Semaphore;
use tokio_rustls::{LazyConfigAcceptor, server::TlsStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceBuilder;
use zixt_crypto::{SuiteId, digest};
use zixt_crypto_fast::tls::{ClientKeyPolicy, peer_key};
use zixt_types::limits;

/// Connections of devices: each takes about 40 kB.
const CONNECTIONS_MAX: usize = 1024;
/// Connections of one device: a client has two, and old ones may not have been noticed to be dead.
const CONNECTIONS_EACH: usize = 16;
/// Handshakes that are not over. Most wait for a peer; one that says nothing takes a few kB.
const HANDSHAKES_MAX: usize = 256;
/// Handshakes that are answered at the same time: each needs a signature of custody, and holds a thread meanwhile.
const ANSWERED_MAX: usize = 8;
/// Files that a server may have open: connections, the store's and the log's files, and some to spare.
pub const OPEN_FILES_MAX: u64 = 4096;
/// A handshake has to be over by then.
const HANDSHAKE_WAIT_MAX: Duration = Duration::from_secs(10);
/// A request's head has to come within this; also ends connections that nobody uses.
const HEAD_WAIT_MAX: Duration = Duration::from_secs(90);
/// A client that was answered before its request was read may still be sending. If the connection were closed on it, the
/// answer would be lost with what is on its way; so for so long, and so many bytes, what comes is read and dropped.
const LINGER_WAIT_MAX: Duration = Duration::from_secs(5);
const LINGER_BYTES_MAX: u64 = 2 * limits::REQUEST_BYTES_MAX as u64;
/// A client that is slower than this is given up: 64 kB/s, so that the largest answer is gone after about two minutes, and
/// whoever stops reading after 20 to 40 seconds. Whatever fits into this much time anyway, most answers and every line of a
/// stream with a message, may come over a line of 8 kB/s.
const PACE: Pace = Pace { window: Duration::from_secs(20), bytes_min: 20 * 64_000 };
/// A request's head: paths are short and nobody needs cookies.
const HEAD_BYTES_MAX: usize = 16 * 1024;
/// Fields of a request's head.
const FIELDS_MAX: usize = 32;
/// Connections of browsers and other programs.
const WEB_CONNECTIONS_MAX: usize = 256;
/// Connections of administrators.
const ADMIN_CONNECTIONS_MAX: usize = 16;
/// After a failed accept (too many open files), others may close some.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Any key may connect: what its holder may ask for is decided for each request.
#[derive(Debug)]
pub struct AnyKey;

impl ClientKeyPolicy for AnyKey {
    fn accept(&self, _: &[u8]) -> bool {
        true
    }
}

/// Serves clients until shutdown.
pub async fn serve_clients(
    listener: TcpListener,
    tls: Arc<rustls::ServerConfig>,
    suite: SuiteId,
    app: Arc<App>,
    connections: TaskTracker,
    shutdown: CancellationToken,
) {
    let router = super::client_router(Arc::clone(&app));
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let devices = Arc::new(Turns::new(CONNECTIONS_EACH));
    let handshakes = Visitors::new(HANDSHAKES_MAX);
    let strangers = Visitors::new(STRANGERS_MAX);
    let answered = Arc::new(Semaphore::new(ANSWERED_MAX));
    loop {
        let (stream, from) = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    log::warn!("accept: {error}");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            },
            () = shutdown.cancelled() => return,
        };
        let place = handshakes.enter(from.ip());
        let (tls, router, app) = (Arc::clone(&tls), router.clone(), Arc::clone(&app));
        let (strangers, answered) = (Arc::clone(&strangers), Arc::clone(&answered));
        let (room, devices) = (Arc::clone(&room), Arc::clone(&devices));
        let shutdown = shutdown.clone();
        connections.spawn(async move {
            let shaken = tokio::select! {
                shaken = shake_hands(stream, tls, suite, &answered) => shaken,
                () = place.shown_out() => return log::debug!("handshake: given up for another"),
                () = shutdown.cancelled() => return,
            };
            let Some((stream, peer)) = shaken else { return };
            drop(place);
            let known = app.knows(&peer.0);
            let service = ServiceBuilder::new()
                .layer(axum::Extension(peer))
                .layer(axum::Extension(Remote(from)))
                .service(router);
            let serve = async {
                let _counted = Counted::new(&app.vitals.connections);
                serve(stream, service, &shutdown).await;
            };
            if known {
                let (Ok(_place), Ok(_turn)) = (room.try_acquire(), devices.of(peer.0).try_acquire_owned())
                else {
                    return log::info!("connection: refused, others of the same kind are too many");
                };
                serve.await;
            } else {
                let place = strangers.enter(from.ip());
                tokio::select! {
                    () = serve => {}
                    () = place.shown_out() => log::debug!("connection: given up for another stranger's"),
                }
            }
        });
    }
}

/// Serves browsers and other programs until shutdown. Nobody is known before they have signed in, so that whoever opens most
/// connections loses the oldest of them.
pub async fn serve_web(
    listener: TcpListener,
    tls: Arc<rustls::ServerConfig>,
    web: Web,
    app: Arc<App>,
    connections: TaskTracker,
    shutdown: CancellationToken,
) {
    let router = super::web_router(Arc::clone(&app));
    let (handshakes, visitors) = (Visitors::new(HANDSHAKES_MAX), Visitors::new(WEB_CONNECTIONS_MAX));
    let acceptor = tokio_rustls::TlsAcceptor::from(tls);
    loop {
        let (stream, from) = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    log::warn!("web: accept: {error}");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            },
            () = shutdown.cancelled() => return,
        };
        let place = handshakes.enter(from.ip());
        let (router, app, visitors) = (router.clone(), Arc::clone(&app), Arc::clone(&visitors));
        let (acceptor, web, shutdown) = (acceptor.clone(), web.clone(), shutdown.clone());
        connections.spawn(async move {
            let shaken = tokio::select! {
                shaken = tokio::time::timeout(HANDSHAKE_WAIT_MAX, acceptor.accept(stream)) => shaken,
                () = place.shown_out() => return log::debug!("web: handshake given up for another"),
                () = shutdown.cancelled() => return,
            };
            let Ok(Ok(stream)) = shaken else { return log::debug!("web: no handshake") };
            drop(place);
            let service = ServiceBuilder::new()
                .layer(axum::Extension(web))
                .layer(axum::Extension(Remote(from)))
                .service(router);
            let _counted = Counted::new(&app.vitals.connections);
            let place = visitors.enter(from.ip());
            tokio::select! {
                () = serve(stream, service, &shutdown) => {}
                () = place.shown_out() => log::debug!("web: connection given up for another's"),
            }
        });
    }
}

/// Is counted as long as it lives.
struct Counted<'a>(&'a AtomicU64);

impl<'a> Counted<'a> {
    fn new(count: &'a AtomicU64) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

async fn shake_hands(
    stream: TcpStream,
    tls: Arc<rustls::ServerConfig>,
    suite: SuiteId,
    answered: &Semaphore,
) -> Option<(TlsStream<TcpStream>, Peer)> {
    // One message at a time is what most clients send: waiting to fill a packet would cost 40 ms.
    stream.set_nodelay(true).ok()?;
    let shaken = tokio::time::timeout(HANDSHAKE_WAIT_MAX, async {
        let asked = LazyConfigAcceptor::new(rustls::server::Acceptor::default(), stream).await?;
        let answer = {
            // A turn is as long as the signature takes: the peer has asked, and is not waited for here.
            let _turn = answered.acquire().await.ok();
            asked.into_stream(tls)
        };
        answer.await
    });
    match shaken.await {
        Ok(Ok(stream)) => {
            let peer = peer_key(suite, stream.get_ref().1).map(|key| Peer(digest::key_hash(suite, key)));
            peer.inspect_err(|error| log::debug!("connection: {error}")).ok().map(|peer| (stream, peer))
        }
        Ok(Err(error)) => {
            log::debug!("handshake: {error}");
            None
        }
        Err(_) => {
            log::debug!("handshake: not finished in time");
            None
        }
    }
}

/// Binds the admin socket. One that an earlier process left behind is replaced, one that answers is not.
///
/// # Errors
/// What the system says.
pub fn bind_admin(path: &Path) -> io::Result<UnixListener> {
    match std::fs::symlink_metadata(path) {
        Ok(found) if found.file_type().is_socket() => {
            if std::os::unix::net::UnixStream::connect(path).is_ok() {
                return Err(io::Error::new(io::ErrorKind::AddrInUse, "another zixtd listens there"));
            }
            std::fs::remove_file(path)?;
        }
        Ok(_) => {
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, "something that is no socket is there"));
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660))?;
    Ok(listener)
}

/// Serves administrators until shutdown.
pub async fn serve_admin(
    listener: Arc<UnixListener>,
    router: Router,
    allowed: Arc<[u32]>,
    audit: Arc<Audit>,
    connections: TaskTracker,
    shutdown: CancellationToken,
) {
    let room = Arc::new(Semaphore::new(ADMIN_CONNECTIONS_MAX));
    loop {
        let Ok(permit) = Arc::clone(&room).acquire_owned().await else { return };
        let stream = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    log::warn!("admin socket: accept: {error}");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            },
            () = shutdown.cancelled() => return,
        };
        let uid = match stream.peer_cred().map(|credentials| credentials.uid()) {
            Ok(uid) if may_administer(uid, &allowed) => uid,
            Ok(uid) => {
                log::warn!("admin socket: user {uid} was refused");
                audit.refused_locally(uid);
                continue;
            }
            Err(error) => {
                log::warn!("admin socket: who asks cannot be told: {error}");
                continue;
            }
        };
        let (router, shutdown) = (router.clone(), shutdown.clone());
        connections.spawn(async move {
            let _permit = permit;
            let service = ServiceBuilder::new().layer(axum::Extension(LocalUser(uid))).service(router);
            serve(stream, service, &shutdown).await;
        });
    }
}

/// Our own user, root, and those of the configuration's list.
fn may_administer(uid: u32, allowed: &[u32]) -> bool {
    uid == 0 || uid == nix::unistd::geteuid().as_raw() || allowed.contains(&uid)
}

/// Serves one connection; on shutdown it ends after the request that is under way.
async fn serve<I, S>(stream: I, service: S, shutdown: &CancellationToken)
where
    I: AsyncRead + AsyncWrite + Unpin,
    S: tower::Service<
            http::Request<hyper::body::Incoming>,
            Response = axum::response::Response,
            Error = std::convert::Infallible,
        > + Clone,
    S::Future: Send,
{
    let mut stream = Patient::new(stream, PACE);
    {
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_WAIT_MAX)
            .max_buf_size(HEAD_BYTES_MAX.max(8192))
            .max_headers(FIELDS_MAX)
            .serve_connection(TokioIo::new(&mut stream), TowerToHyperService::new(service));
        let mut connection = pin!(connection);
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            () = shutdown.cancelled() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = ended {
            log::debug!("connection: {error}");
        }
    }
    tokio::select! {
        _ = tokio::time::timeout(LINGER_WAIT_MAX, linger(&mut stream)) => {}
        () = shutdown.cancelled() => {}
    }
}

/// Ends our side and reads until the other ends its own.
async fn linger(stream: &mut (impl AsyncRead + AsyncWrite + Unpin)) -> io::Result<()> {
    stream.shutdown().await?;
    tokio::io::copy(&mut stream.take(LINGER_BYTES_MAX), &mut tokio::io::sink()).await?;
    Ok(())
}

/// Binds the clients' listener.
///
/// # Errors
/// What the system says.
pub async fn bind_clients(address: SocketAddr) -> io::Result<TcpListener> {
    TcpListener::bind(address).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::routing::post;
    use zixt_api::{ErrorCode, Problem};

    /// A client that sends all of its request before it reads.
    async fn ask(address: SocketAddr, announced: usize, sent: usize) -> Vec<u8> {
        let mut client = TcpStream::connect(address).await.unwrap();
        let head = format!("POST / HTTP/1.1\r\nHost: zixt\r\nContent-Length: {announced}\r\n\r\n");
        client.write_all(head.as_bytes()).await.unwrap();
        // Until now nobody reads: what was sent so far stands in the way of the answer.
        tokio::time::sleep(Duration::from_millis(100)).await;
        client.write_all(&vec![b' '; sent]).await.unwrap();
        let mut answer = Vec::new();
        client.read_to_end(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn a_refusal_reaches_who_is_still_sending() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let refuse = || async { super::super::Failure(Problem::new(ErrorCode::Busy, "test")) };
        let router = Router::new().route("/", post(refuse));
        let shutdown = CancellationToken::new();
        let stop = shutdown.clone();
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (router, stop) = (router.clone(), stop.clone());
                tokio::spawn(async move { serve(stream, router, &stop).await });
            }
        });
        for bytes in [1 << 20, limits::REQUEST_BYTES_MAX] {
            let answer = ask(address, bytes, bytes).await;
            assert!(answer.starts_with(b"HTTP/1.1 503 "), "{}", String::from_utf8_lossy(&answer));
            assert!(answer.ends_with(b"}"));
        }

        // Whoever neither sends nor goes away is not waited for when the server stops.
        let mut idle = TcpStream::connect(address).await.unwrap();
        idle.write_all(b"POST / HTTP/1.1\r\nHost: zixt\r\nContent-Length: 9\r\n\r\n").await.unwrap();
        let mut answer = [0; 12];
        idle.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"HTTP/1.1 503");
        shutdown.cancel();
        let closed = tokio::time::timeout(LINGER_WAIT_MAX / 2, async {
            while idle.write_all(b" ").await.is_ok() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        });
        closed.await.unwrap();
    }
}
