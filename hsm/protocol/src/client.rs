//! The client for async callers.

use crate::codec::{decode, encode};
use crate::frame::{FrameError, read_frame, write_frame};
use crate::{ClientError, KeyInfo, Pin, Request, Response, StateKind, Status, VoteOutcome};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;
use tokio::net::UnixStream;
use tokio::sync::Semaphore;
use zixt_crypto::AeadKey;
use zixt_types::{Body, Canonical, Hash, SuiteId, Vote};

/// Connections that one client opens at most: enough to keep two cores signing while one waits for a vote's fsync.
pub(crate) const CONNECTIONS_MAX: usize = 4;

/// Longest wait for an answer; a slow token needs about a second for an unlock.
pub(crate) const ANSWER_WAIT_MAX: Duration = Duration::from_secs(30);

/// A client of the custody daemon. Share it by reference or `Arc`: up to four requests run side by side, each on a
/// connection of its own; a connection that the daemon closed (it was restarted) is replaced.
#[derive(Debug)]
pub struct HsmClient {
    socket: PathBuf,
    idle: Mutex<Vec<UnixStream>>,
    permits: Semaphore,
}

/// Methods that only differ in `async`; one list keeps both clients the same.
macro_rules! calls {
    ($client:ident, $($async:ident)?, $($await:tt)*) => {
        impl $client {
            /// State, public keys, pinned genesis.
            ///
            /// # Errors
            /// See [`ClientError`].
            pub $($async)? fn status(&self) -> Result<Status, ClientError> {
                match self.call(&Request::Status) $($await)* ? {
                    Response::Status(status) => Ok(*status),
                    _ => Err(ClientError::Unexpected),
                }
            }

            /// Makes the appliance's keys. The token must be unlocked.
            ///
            /// # Errors
            /// See [`ClientError`].
            pub $($async)? fn provision(&self, suite: SuiteId, lab: bool) -> Result<Vec<KeyInfo>, ClientError> {
                match self.call(&Request::Provision { suite, lab }) $($await)* ? {
                    Response::Provisioned(keys) => Ok(keys),
                    _ => Err(ClientError::Unexpected),
                }
            }

            /// Pins the genesis (its exact bytes) for ever and returns its hash.
            ///
            /// # Errors
            /// See [`ClientError`].
            pub $($async)? fn bind_genesis(&self, genesis: &[u8]) -> Result<Hash, ClientError> {
                match self.call(&Request::BindGenesis { genesis: genesis.to_vec() }) $($await)* ? {
                    Response::Bound(hash) => Ok(hash),
                    _ => Err(ClientError::Unexpected),
                }
            }

            /// Unlocks with the token's PIN and returns the state that this led to.
            ///
            /// # Errors
            /// See [`ClientError`].
            pub $($async)? fn unlock(&self, pin: Pin) -> Result<StateKind, ClientError> {
                match self.call(&Request::Unlock { pin, protector: None }) $($await)* ? {
                    Response::Unlocked(state) => Ok(state),
                    _ => Err(ClientError::Unexpected),
                }
            }

            /// Forgets the keys until the next unlock.
            ///
            /// # Errors
            /// See [`ClientError`].
            pub $($async)? fn lock(&self) -> Result<(), ClientError> {
                match self.call(&Request::Lock) $($await)* ? {
                    Response::Locked => Ok(()),
                    _ => Err(ClientError::Unexpected),
                }
            }

            /// Signs the content covered by CertificateVerify of a TLS 1.3 server (RFC 8446 section 4.4.3).
            ///
            /// # Errors
            /// See [`ClientError`].
            pub $($async)? fn sign_tls(&self, content: &[u8]) -> Result<Vec<u8>, ClientError> {
                match self.call(&Request::SignTls { content: content.to_vec() }) $($await)* ? {
                    Response::TlsSignature(signature) => Ok(signature),
                    _ => Err(ClientError::Unexpected),
                }
            }

            /// Signs a vote, or says which other vote holds its slot.
            ///
            /// # Errors
            /// See [`ClientError`].
            pub $($async)? fn sign_vote(&self, vote: &Vote) -> Result<VoteOutcome, ClientError> {
                match self.call(&Request::SignVote { vote: vote.to_bytes() }) $($await)* ? {
                    Response::Vote(outcome) => Ok(outcome),
                    _ => Err(ClientError::Unexpected),
                }
            }

            /// Signs an invitation's body as enroller.
            ///
            /// # Errors
            /// See [`ClientError`].
            pub $($async)? fn sign_invite(&self, body: &Body) -> Result<Vec<u8>, ClientError> {
                match self.call(&Request::SignInvite { body: body.to_bytes() }) $($await)* ? {
                    Response::InviteSignature(signature) => Ok(signature),
                    _ => Err(ClientError::Unexpected),
                }
            }

            /// Signs the revocation of a device as enroller.
            ///
            /// # Errors
            /// See [`ClientError`].
            pub $($async)? fn sign_revocation(&self, body: &Body) -> Result<Vec<u8>, ClientError> {
                match self.call(&Request::SignRevocation { body: body.to_bytes() }) $($await)* ? {
                    Response::InviteSignature(signature) => Ok(signature),
                    _ => Err(ClientError::Unexpected),
                }
            }

            /// The key that seals sensitive columns of the server's store.
            ///
            /// # Errors
            /// See [`ClientError`].
            pub $($async)? fn unseal_row_key(&self) -> Result<AeadKey, ClientError> {
                match self.call(&Request::UnsealRowKey) $($await)* ? {
                    Response::RowKey(key) => Ok(key.0),
                    _ => Err(ClientError::Unexpected),
                }
            }
        }
    };
}
pub(crate) use calls;

calls!(HsmClient, async, .await);

impl HsmClient {
    /// A client of the daemon at `socket`. Connects when first asked.
    #[must_use]
    pub fn new(socket: impl Into<PathBuf>) -> Self {
        Self { socket: socket.into(), idle: Mutex::new(Vec::new()), permits: Semaphore::new(CONNECTIONS_MAX) }
    }

    /// The daemon's socket.
    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Sends any request and returns the answer; a refusal is [`ClientError::Custody`].
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn call(&self, request: &Request) -> Result<Response, ClientError> {
        let payload = encode(request);
        // The semaphore is never closed; without a permit the call would only be less bounded.
        let _permit = self.permits.acquire().await.ok();
        if let Some(stream) = self.take_idle() {
            match self.exchange(stream, &payload).await {
                Err(ClientError::Frame(FrameError::Closed | FrameError::Io(_))) if request.may_repeat() => {
                    // The daemon was restarted since: the other idle connections are as dead as this one.
                    self.idle().clear();
                }
                answer => return answer,
            }
        }
        let stream = UnixStream::connect(&self.socket)
            .await
            .map_err(|source| ClientError::Connect { path: self.socket.clone(), source })?;
        self.exchange(stream, &payload).await
    }

    /// A stream goes back only after a whole answer: one that was dropped half-way is never used again.
    async fn exchange(&self, mut stream: UnixStream, payload: &[u8]) -> Result<Response, ClientError> {
        let answer = tokio::time::timeout(ANSWER_WAIT_MAX, async {
            match write_frame(&mut stream, payload).await {
                Ok(()) => read_frame(&mut stream).await,
                // A daemon that does not take this peer says so and closes before it reads anything.
                Err(closed) if closed.is_hang_up() => read_frame(&mut stream).await.map_err(|_| closed),
                Err(error) => Err(error),
            }
        })
        .await
        .map_err(|_| FrameError::Io(std::io::ErrorKind::TimedOut.into()))??;
        let response = decode::<Response>(&answer)?;
        self.idle().push(stream);
        match response {
            Response::Error(error) => Err(error.into()),
            response => Ok(response),
        }
    }

    /// An idle connection; for a request that must not be repeated only one that is still open.
    fn take_idle(&self) -> Option<UnixStream> {
        let mut idle = self.idle();
        while let Some(stream) = idle.pop() {
            // An idle connection has nothing to read; an end or a byte means that it is dead or out of step.
            let open =
                matches!(stream.try_read(&mut [0]), Err(e) if e.kind() == std::io::ErrorKind::WouldBlock);
            if open {
                return Some(stream);
            }
        }
        None
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<UnixStream>> {
        self.idle.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}
