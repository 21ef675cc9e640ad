//! Reaching the appliance: one [`Transport`] for each appliance, [`Api`] for each call. Answers are bounded here and
//! believed nowhere: [`crate::trust`] checks them.

mod calls;
mod sign_in;
mod tls;

pub use calls::Api;
pub use sign_in::{Factors, SignIn};
pub use tls::TlsConnector;

use futures_util::future::BoxFuture;
use std::sync::Arc;
use thiserror::Error;
use zixt_api::{Method, Secret};
use zixt_crypto_fast::tls::{PinnedKey, TlsSigner};
use zixt_types::SuiteId;

/// Why the appliance was not reached, or its answer not taken.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ConnectionError {
    /// Nobody answers at the address.
    #[error("the appliance at {address} cannot be reached: {reason}")]
    Unreachable {
        /// The address.
        address: String,
        /// Why.
        reason: String,
    },
    /// Somebody else answers.
    #[error("whoever answers there does not have the appliance's key; nothing was sent")]
    WrongKey,
    /// The TLS handshake failed for another reason.
    #[error("the TLS handshake failed: {0}")]
    Handshake(String),
    /// The connection broke.
    #[error("the connection to the appliance broke: {0}")]
    Interrupted(String),
    /// No answer in time.
    #[error("the appliance did not answer in time")]
    Timeout,
    /// An answer is larger than it may be.
    #[error("the appliance's answer is larger than {max} bytes")]
    TooLarge {
        /// What is allowed.
        max: usize,
    },
    /// An answer is not what the API says.
    #[error("the appliance's answer is not understood: {0}")]
    Protocol(String),
}

/// A request.
#[derive(Clone, Debug)]
pub struct Request {
    /// Its method.
    pub method: Method,
    /// Path and query.
    pub path: String,
    /// JSON, if it has a body.
    pub body: Option<Vec<u8>>,
    /// The longest answer that is taken, in bytes.
    pub answer_bytes_max: usize,
    /// The token of the session that it is asked in.
    pub token: Option<Secret>,
}

/// An answer.
#[derive(Clone, Debug)]
pub struct Response {
    /// The HTTP status.
    pub status: u16,
    /// The body.
    pub body: Vec<u8>,
}

/// An open push stream.
pub trait Lines: Send {
    /// The next line, without its end; `None` when the appliance ended the stream. May be dropped and called again
    /// without losing a line.
    fn next(&mut self) -> BoxFuture<'_, Result<Option<Vec<u8>>, ConnectionError>>;
}

/// What became of the wish to open a stream.
pub enum Opened {
    /// It is open.
    Stream(Box<dyn Lines>),
    /// The appliance refused.
    Refused(Response),
}

/// A way to one appliance, as one device.
pub trait Transport: Send + Sync {
    /// Sends a request and waits for the answer.
    fn request(&self, request: Request) -> BoxFuture<'_, Result<Response, ConnectionError>>;
    /// Opens the push stream after this position, in the session of this token.
    fn stream(&self, after: u64, token: Option<Secret>) -> BoxFuture<'_, Result<Opened, ConnectionError>>;
}

/// Where the appliance is, and by what key it is known.
#[derive(Clone, Debug)]
pub struct Target {
    /// `host:port`.
    pub address: String,
    /// The suite of all keys.
    pub suite: SuiteId,
    /// The appliance's key.
    pub pin: PinnedKey,
}

/// Makes transports. There is [`TlsConnector`], and what tests put in its place.
pub trait Connector: Send + Sync {
    /// A transport to `target` for the device that holds this TLS key. Does not connect yet.
    ///
    /// # Errors
    /// [`ConnectionError::Handshake`] if the key does not fit the suite.
    fn transport(
        &self,
        target: &Target,
        signer: Arc<dyn TlsSigner>,
    ) -> Result<Arc<dyn Transport>, ConnectionError>;
}
