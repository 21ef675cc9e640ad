//! Reaching the appliance.

use thiserror::Error;

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
