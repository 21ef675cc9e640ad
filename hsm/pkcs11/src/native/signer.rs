//! A key that signs inside the token.

use super::{Algorithm, KeyId, NativeError, NativeKey, objects};
use crate::error::{TokenError, session_lost};
use crate::sessions::{Attempt, Sessions};
use cryptoki::error::Error;
use cryptoki::mechanism::Mechanism;
use cryptoki::mechanism::dsa::{HedgeType, SignAdditionalContext};
use cryptoki::object::ObjectHandle;
use cryptoki::session::Session;
use std::sync::{Arc, PoisonError, RwLock};
use zixt_crypto::{SignError, SigningKey, SuiteId, suite_params};

/// What errors call it ([`SignError::Backend`]).
pub const BACKEND: &str = "PKCS#11 token";

/// A native signing key, found, examined and tried. Each thread that signs at the same time takes a session of its own
/// from the token's pool. It is of no use any more once its [`crate::Token`] is dropped.
#[derive(Debug)]
pub struct NativeSigner {
    sessions: Arc<Sessions>,
    id: KeyId,
    suite: SuiteId,
    public_key: Vec<u8>,
    hedge: HedgeType,
    handle: CachedHandle,
}

impl NativeSigner {
    pub(super) fn new(sessions: Arc<Sessions>, key: &NativeKey, suite: SuiteId, hedge: HedgeType) -> Self {
        let (id, public_key) = (key.id.clone(), key.public_key.clone());
        Self { sessions, id, suite, public_key, hedge, handle: CachedHandle::default() }
    }

    /// Its CKA_ID.
    #[must_use]
    pub fn id(&self) -> &KeyId {
        &self.id
    }

    /// As [`SigningKey::sign`], with an error that says what is wrong with the token.
    ///
    /// # Errors
    /// [`NativeError::Token`] with [`TokenError::TokenAbsent`] if the token is gone or the login has ended,
    /// [`NativeError::KeyMissing`] if it came back without the key.
    pub fn try_sign(&self, message: &[u8]) -> Result<Vec<u8>, NativeError> {
        let signature = self.sessions.run(|session| {
            let algorithm = Algorithm::MlDsa(self.suite);
            let key =
                self.handle.get(|| objects::examined(session, &self.id, algorithm).map(|found| found.0))?;
            sign(session, key, self.hedge, message).map_err(|error| self.handle.attempt(error))
        })?;
        let expected = suite_params(self.suite).signature_bytes;
        if signature.len() == expected {
            Ok(signature)
        } else {
            let text = format!("a signature has {} bytes and not {expected}", signature.len());
            Err(TokenError::Failed(text).into())
        }
    }
}

impl SigningKey for NativeSigner {
    fn suite(&self) -> SuiteId {
        self.suite
    }

    fn public_key(&self) -> &[u8] {
        &self.public_key
    }

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, SignError> {
        self.try_sign(message).map_err(|error| {
            log::error!("the key {} did not sign: {error}", self.id);
            SignError::Backend { backend: BACKEND }
        })
    }
}

/// One signature with the empty context.
pub(super) fn sign(
    session: &Session,
    key: ObjectHandle,
    hedge: HedgeType,
    message: &[u8],
) -> Result<Vec<u8>, Error> {
    session.sign(&Mechanism::MlDsa(SignAdditionalContext::new(hedge, None)), key, message)
}

/// A handle is good for all sessions of a login, and is found anew when the token does not know it any more.
#[derive(Debug, Default)]
pub(super) struct CachedHandle(RwLock<Option<ObjectHandle>>);

impl CachedHandle {
    pub(super) fn get<E>(&self, find: impl FnOnce() -> Result<ObjectHandle, E>) -> Result<ObjectHandle, E> {
        let cached = *self.0.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(handle) = cached {
            return Ok(handle);
        }
        let found = find()?;
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Some(found);
        Ok(found)
    }

    /// The outcome of an error, with the handle forgotten if that may be at fault.
    pub(super) fn attempt(&self, error: Error) -> Attempt<NativeError> {
        if session_lost(&error) {
            *self.0.write().unwrap_or_else(PoisonError::into_inner) = None;
        }
        Attempt::of(error)
    }
}
