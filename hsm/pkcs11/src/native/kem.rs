//! A key that decapsulates inside the token.

use super::signer::{BACKEND, CachedHandle};
use super::{Algorithm, KeyId, NativeError, NativeKey, objects};
use crate::error::TokenError;
use crate::sessions::Sessions;
use cryptoki::error::Error;
use cryptoki::mechanism::Mechanism;
use cryptoki::object::{Attribute, AttributeType, KeyType, ObjectClass, ObjectHandle};
use cryptoki::session::Session;
use std::sync::Arc;
use zeroize::Zeroizing;
use zixt_crypto::suite::{ML_KEM_1024_CIPHERTEXT_BYTES, SHARED_SECRET_BYTES};
use zixt_crypto::{DecapsulateError, DecapsulationKey, SharedSecret};

/// A native ML-KEM-1024 key, found, examined and tried. It is of no use any more once its [`crate::Token`] is dropped.
///
/// The shared secret leaves the token for the key derivation, which tokens do not have. cryptoki copies it once into
/// memory that is freed and not erased.
#[derive(Debug)]
pub struct NativeDecapsulator {
    sessions: Arc<Sessions>,
    id: KeyId,
    encapsulation_key: Vec<u8>,
    handle: CachedHandle,
}

impl NativeDecapsulator {
    pub(super) fn new(sessions: Arc<Sessions>, key: &NativeKey) -> Self {
        let (id, encapsulation_key) = (key.id.clone(), key.public_key.clone());
        Self { sessions, id, encapsulation_key, handle: CachedHandle::default() }
    }

    /// Its CKA_ID.
    #[must_use]
    pub fn id(&self) -> &KeyId {
        &self.id
    }

    /// As [`DecapsulationKey::decapsulate`], with an error that says what is wrong with the token.
    ///
    /// # Errors
    /// As [`super::NativeSigner::try_sign`].
    pub fn try_decapsulate(
        &self,
        ciphertext: &[u8; ML_KEM_1024_CIPHERTEXT_BYTES],
    ) -> Result<SharedSecret, NativeError> {
        let secret = self.sessions.run(|session| {
            let algorithm = Algorithm::MlKem1024;
            let key =
                self.handle.get(|| objects::examined(session, &self.id, algorithm).map(|found| found.0))?;
            decapsulate(session, key, ciphertext).map_err(|error| self.handle.attempt(error))
        })?;
        let failed = |_| TokenError::Failed("a shared secret has another length".to_owned()).into();
        SharedSecret::from_slice(&secret).map_err(failed)
    }
}

impl DecapsulationKey for NativeDecapsulator {
    fn encapsulation_key(&self) -> &[u8] {
        &self.encapsulation_key
    }

    fn decapsulate(&self, ciphertext: &[u8]) -> Result<SharedSecret, DecapsulateError> {
        let ciphertext = sized(ciphertext)?;
        self.try_decapsulate(ciphertext).map_err(|error| {
            log::error!("the key {} did not decapsulate: {error}", self.id);
            DecapsulateError::Backend { backend: BACKEND }
        })
    }
}

pub(super) fn sized(ciphertext: &[u8]) -> Result<&[u8; ML_KEM_1024_CIPHERTEXT_BYTES], DecapsulateError> {
    ciphertext.try_into().map_err(|_| DecapsulateError::CiphertextLength {
        expected: ML_KEM_1024_CIPHERTEXT_BYTES,
        actual: ciphertext.len(),
    })
}

/// Decapsulates into an object of the session, reads it and destroys it.
pub(super) fn decapsulate(
    session: &Session,
    key: ObjectHandle,
    ciphertext: &[u8; ML_KEM_1024_CIPHERTEXT_BYTES],
) -> Result<Zeroizing<Vec<u8>>, Error> {
    let bytes = u64::try_from(SHARED_SECRET_BYTES).unwrap_or_default();
    let template = [
        Attribute::Class(ObjectClass::SECRET_KEY),
        Attribute::KeyType(KeyType::GENERIC_SECRET),
        Attribute::ValueLen(bytes.into()),
        Attribute::Token(false),
        Attribute::Private(true),
        Attribute::Sensitive(false),
        Attribute::Extractable(true),
    ];
    let secret = session.decapsulate_key(&Mechanism::MlKem, key, &template, ciphertext)?;
    let read = session.get_attributes(secret, &[AttributeType::Value]);
    session.destroy_object(secret)?;
    let value = read?.into_iter().find_map(|attribute| match attribute {
        Attribute::Value(value) => Some(Zeroizing::new(value)),
        _ => None,
    });
    value.ok_or(Error::NotSupported)
}
