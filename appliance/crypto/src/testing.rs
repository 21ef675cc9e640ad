//! A backend that is wrong on purpose, for tests of whatever has to find it.

use crate::reference::Reference;
use crate::secret::{KemSeed, SharedSecret, SigningSeed};
use crate::traits::{
    Backend, Ciphertext, DecapsulateError, DecapsulationKey, EncapsulateError, KeyError, SigningKey,
    VerifyError,
};
use zixt_types::SuiteId;

/// Refuses every signature, and makes ML-KEM keys whose halves do not fit. Everything else is the reference's.
#[derive(Debug, Clone, Copy)]
pub struct Broken;

impl Backend for Broken {
    fn name(&self) -> &'static str {
        "broken"
    }

    fn verify(&self, _: SuiteId, _: &[u8], _: &[u8], _: &[u8]) -> Result<(), VerifyError> {
        Err(VerifyError::Rejected)
    }

    fn signing_key(&self, suite: SuiteId, seed: &SigningSeed) -> Result<Box<dyn SigningKey>, KeyError> {
        Reference.signing_key(suite, seed)
    }

    fn decapsulation_key(&self, seed: &KemSeed) -> Result<Box<dyn DecapsulationKey>, KeyError> {
        let other = Reference.decapsulation_key(&KemSeed::from_bytes(&[1; KemSeed::BYTES]))?;
        Ok(Box::new(Halves { public: Reference.decapsulation_key(seed)?, private: other }))
    }

    fn validate_encapsulation_key(&self, encapsulation_key: &[u8]) -> Result<(), KeyError> {
        Reference.validate_encapsulation_key(encapsulation_key)
    }

    fn encapsulate(&self, encapsulation_key: &[u8]) -> Result<(Ciphertext, SharedSecret), EncapsulateError> {
        Reference.encapsulate(encapsulation_key)
    }
}

/// Halves of two keys.
struct Halves {
    public: Box<dyn DecapsulationKey>,
    private: Box<dyn DecapsulationKey>,
}

impl DecapsulationKey for Halves {
    fn encapsulation_key(&self) -> &[u8] {
        self.public.encapsulation_key()
    }

    fn decapsulate(&self, ciphertext: &[u8]) -> Result<SharedSecret, DecapsulateError> {
        self.private.decapsulate(ciphertext)
    }
}
