//! What went wrong below the operations of this crate: in MLS, or in saving the state.

use mls_rs::error::MlsError;
use zixt_crypto::aead::SealError;

use crate::identity::IdentityError;
use crate::rules::RuleError;

/// Why MLS refused something.
#[derive(Debug, thiserror::Error)]
pub enum MlsFault {
    /// A member is not the one that the ledger knows.
    #[error(transparent)]
    Identity(IdentityError),
    /// A commit does what no commit may do here.
    #[error(transparent)]
    Rule(RuleError),
    /// Signature, encryption, tree or encoding do not hold.
    #[error("MLS refused it")]
    Protocol(#[source] Box<MlsError>),
}

impl From<MlsError> for MlsFault {
    fn from(error: MlsError) -> Self {
        let identity = match &error {
            MlsError::IdentityProviderError(inner) => inner.inner_dyn_error().downcast_ref().copied(),
            _ => None,
        };
        let rule = match &error {
            MlsError::MlsRulesError(inner) => inner.inner_dyn_error().downcast_ref().copied(),
            _ => None,
        };
        match (identity, rule) {
            (Some(identity), _) => Self::Identity(identity),
            (_, Some(rule)) => Self::Rule(rule),
            _ => Self::Protocol(Box::new(error)),
        }
    }
}

/// Why a conversation could not go on or could not be saved. Its state is as before.
#[derive(Debug, thiserror::Error)]
pub enum StateFault {
    /// This device was removed: the state is gone.
    #[error("this device is no longer a member of the conversation")]
    NotAMember,
    /// Nothing was encrypted.
    #[error("the state could not be sealed")]
    Seal(#[from] SealError),
    /// MLS could not write its state.
    #[error(transparent)]
    Mls(#[from] MlsFault),
}

impl From<MlsError> for StateFault {
    fn from(error: MlsError) -> Self {
        Self::Mls(error.into())
    }
}
