//! Custody mode 1: ML-DSA and ML-KEM keys that live and work inside a PKCS#11 3.2 token.
//!
//! A key is either made inside or imported from a seed that was escrowed before; both are private, sensitive, not
//! extractable and not modifiable, and good for one use. The token cannot vouch for an imported key having been secret
//! all its life, so that the two are told apart ([`Origin`]) and a caller says which it expects.
//!
//! No key is taken before the reference implementation has verified one of its signatures (or shared a secret with it).

mod kem;
mod objects;
mod signer;
mod support;

pub use kem::NativeDecapsulator;
pub(crate) use objects::fault;
pub use signer::{BACKEND, NativeSigner};
pub(crate) use support::Support;

use crate::error::TokenError;
use crate::objects::Destruction;
use crate::sessions::{Attempt, SessionError};
use crate::token::Token;
use zixt_crypto::{KemSeed, Reference, SigningSeed, SuiteId, selftest, suite_params};

/// The CKA_ID of a native key. Random, so that the keys of two tries never share one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyId(pub Vec<u8>);

impl std::fmt::Display for KeyId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// What a key is for, with its parameter set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Algorithm {
    /// Signatures of a suite.
    MlDsa(SuiteId),
    /// Key encapsulation, the same in all suites.
    MlKem1024,
}

impl Algorithm {
    /// Its name in FIPS 203 or 204.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::MlDsa(suite) => suite_params(suite).signature_algorithm,
            Self::MlKem1024 => "ML-KEM-1024",
        }
    }

    pub(crate) fn public_key_bytes(self) -> usize {
        match self {
            Self::MlDsa(suite) => suite_params(suite).public_key_bytes,
            Self::MlKem1024 => zixt_crypto::suite::ML_KEM_1024_ENCAPSULATION_KEY_BYTES,
        }
    }
}

impl std::fmt::Display for Algorithm {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// Where a native key comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// Made by the token, and the token vouches that it never left and never could.
    MadeInside,
    /// Imported from a seed. It cannot leave the token, but whoever had the seed has the key.
    Imported,
}

/// A native key as the caller keeps it. Handles do not outlive a login, so there is none in here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NativeKey {
    /// Its CKA_ID.
    pub id: KeyId,
    /// What it is for.
    pub algorithm: Algorithm,
    /// Where it comes from.
    pub origin: Origin,
    /// Its public key.
    pub public_key: Vec<u8>,
}

/// Why there is no native key, or it did not do its work.
#[derive(Debug, thiserror::Error)]
pub enum NativeError {
    /// The token cannot do it, or does it wrongly.
    #[error("the token is of no use for {algorithm}: {why}")]
    Unsupported {
        /// What it was to do.
        algorithm: Algorithm,
        /// What is missing, or what it did.
        why: String,
    },
    /// The token does not hold the key.
    #[error("the token does not hold the key {key}")]
    KeyMissing {
        /// Its CKA_ID in hexadecimal.
        key: KeyId,
    },
    /// The key could leave the token, be changed, or be used for something else, or there are several with this id.
    #[error("the key {key} is not safe to use: {why}")]
    KeyUnsafe {
        /// Its CKA_ID in hexadecimal.
        key: KeyId,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A key with this id exists already.
    #[error("the token holds a key {key} already")]
    KeyExists {
        /// Its CKA_ID in hexadecimal.
        key: KeyId,
    },
    /// What the private key does is not what its public key says. It must not be used.
    #[error("the private key {key} does not belong to its public key")]
    Mismatch {
        /// Its CKA_ID in hexadecimal.
        key: KeyId,
    },
    /// The token, or the way to it. [`TokenError::TokenAbsent`] if it is gone.
    #[error(transparent)]
    Token(#[from] TokenError),
}

impl SessionError for NativeError {
    fn is_doubtful(&self) -> bool {
        match self {
            Self::KeyMissing { .. } => true,
            Self::Token(error) => error.is_doubtful(),
            Self::Unsupported { .. }
            | Self::KeyUnsafe { .. }
            | Self::KeyExists { .. }
            | Self::Mismatch { .. } => false,
        }
    }
}

impl Token {
    /// Whether the token can hold and use such keys: by its list of mechanisms, and by trying with a known key. The
    /// answer is kept for as long as the token is open.
    ///
    /// # Errors
    /// [`NativeError::Unsupported`] with the reason, or what went wrong before there was an answer.
    pub fn supports(&self, algorithm: Algorithm) -> Result<(), NativeError> {
        self.support.of(&self.sessions, algorithm).map(|_| ())
    }

    /// Makes a signing key in the token and tries it.
    ///
    /// # Errors
    /// See [`NativeError`]; no key stays behind then, unless the token fails in the middle.
    pub fn generate_signing_key(&self, id: &KeyId, suite: SuiteId) -> Result<NativeKey, NativeError> {
        self.make(id, Algorithm::MlDsa(suite), None)
    }

    /// Makes a decapsulation key in the token and tries it.
    ///
    /// # Errors
    /// As [`Token::generate_signing_key`].
    pub fn generate_kem_key(&self, id: &KeyId) -> Result<NativeKey, NativeError> {
        self.make(id, Algorithm::MlKem1024, None)
    }

    /// Imports a signing key from its seed, not to be taken out again, and tries it. The seed must have been escrowed
    /// before, or the key is as lost with the token as one that was made inside.
    ///
    /// # Errors
    /// As [`Token::generate_signing_key`].
    pub fn import_signing_key(
        &self,
        id: &KeyId,
        suite: SuiteId,
        seed: &SigningSeed,
    ) -> Result<NativeKey, NativeError> {
        let algorithm = Algorithm::MlDsa(suite);
        let key = zixt_crypto::Backend::signing_key(&Reference, suite, seed)
            .map_err(|error| NativeError::Unsupported { algorithm, why: error.to_string() })?;
        self.make(id, algorithm, Some((seed.as_bytes(), key.public_key())))
    }

    /// Imports a decapsulation key from its seed, as [`Token::import_signing_key`].
    ///
    /// # Errors
    /// As [`Token::generate_signing_key`].
    pub fn import_kem_key(&self, id: &KeyId, seed: &KemSeed) -> Result<NativeKey, NativeError> {
        let algorithm = Algorithm::MlKem1024;
        let key = zixt_crypto::Backend::decapsulation_key(&Reference, seed)
            .map_err(|error| NativeError::Unsupported { algorithm, why: error.to_string() })?;
        self.make(id, algorithm, Some((seed.as_bytes(), key.encapsulation_key())))
    }

    /// Finds a key, examines it and reads its public key. Whether the two belong together shows when a signer or
    /// decapsulator is made of it.
    ///
    /// # Errors
    /// [`NativeError::KeyMissing`], [`NativeError::KeyUnsafe`] or what the token says.
    pub fn find_native(&self, id: &KeyId, algorithm: Algorithm) -> Result<NativeKey, NativeError> {
        self.sessions.run(|session| objects::find(session, id, algorithm))
    }

    /// Gets a signing key ready: finds it, refuses one that is unsafe or not of the origin that `key` names, and has it
    /// sign once, to be verified with the public key in `key`.
    ///
    /// # Errors
    /// See [`NativeError`].
    pub fn signer(&self, key: &NativeKey) -> Result<NativeSigner, NativeError> {
        let Algorithm::MlDsa(suite) = key.algorithm else {
            return Err(NativeError::KeyUnsafe { key: key.id.clone(), why: "it is no signing key" });
        };
        let hedge = self.support.of(&self.sessions, key.algorithm)?;
        self.examine(key)?;
        let signer = NativeSigner::new(self.sessions.clone(), key, suite, hedge);
        // First for the token's own words, then for the proof.
        signer.try_sign(b"")?;
        selftest::pairwise_check(&signer).map_err(|_| NativeError::Mismatch { key: key.id.clone() })?;
        Ok(signer)
    }

    /// Gets a decapsulation key ready, as [`Token::signer`] does.
    ///
    /// # Errors
    /// See [`NativeError`].
    pub fn decapsulator(&self, key: &NativeKey) -> Result<NativeDecapsulator, NativeError> {
        if key.algorithm != Algorithm::MlKem1024 {
            return Err(NativeError::KeyUnsafe { key: key.id.clone(), why: "it is no decapsulation key" });
        }
        self.support.of(&self.sessions, key.algorithm)?;
        self.examine(key)?;
        let decapsulator = NativeDecapsulator::new(self.sessions.clone(), key);
        decapsulator.try_decapsulate(&[0; zixt_crypto::suite::ML_KEM_1024_CIPHERTEXT_BYTES])?;
        selftest::pairwise_check_kem(&decapsulator)
            .map_err(|_| NativeError::Mismatch { key: key.id.clone() })?;
        Ok(decapsulator)
    }

    /// Destroys a key and its public half; also what an interrupted try left of one.
    ///
    /// # Errors
    /// [`NativeError::KeyMissing`] or what the token says.
    pub fn destroy_native(&self, id: &KeyId) -> Result<Destruction, NativeError> {
        self.sessions.run_once(|session| objects::destroy(session, id))
    }

    fn examine(&self, key: &NativeKey) -> Result<(), NativeError> {
        self.sessions.run(|session| {
            let (_, origin) = objects::examined(session, &key.id, key.algorithm)?;
            if origin == key.origin {
                Ok(())
            } else {
                let why = match key.origin {
                    Origin::MadeInside => "it was not made in the token",
                    Origin::Imported => "it was not imported",
                };
                Err(Attempt::Final(NativeError::KeyUnsafe { key: key.id.clone(), why }))
            }
        })
    }

    /// Makes or imports (from seed and public key), tries, and removes again what does not work.
    fn make(
        &self,
        id: &KeyId,
        algorithm: Algorithm,
        import: Option<(&[u8], &[u8])>,
    ) -> Result<NativeKey, NativeError> {
        self.supports(algorithm)?;
        self.sessions.run_once(|session| objects::refuse_existing(session, id))?;
        let made = self
            .sessions
            .run_once(|session| match import {
                None => objects::generate(session, id, algorithm),
                Some((seed, public_key)) => objects::import(session, id, algorithm, seed, public_key),
            })
            .and_then(|()| self.find_native(id, algorithm))
            .and_then(|key| {
                match algorithm {
                    Algorithm::MlDsa(_) => self.signer(&key).map(|_| ())?,
                    Algorithm::MlKem1024 => self.decapsulator(&key).map(|_| ())?,
                }
                let expected = if import.is_some() { Origin::Imported } else { Origin::MadeInside };
                match import {
                    _ if key.origin != expected => Err(NativeError::KeyUnsafe {
                        key: id.clone(),
                        why: "the token is wrong about where it comes from",
                    }),
                    Some((_, public_key)) if key.public_key != public_key => {
                        Err(NativeError::Mismatch { key: id.clone() })
                    }
                    _ => Ok(key),
                }
            });
        if made.is_err() {
            match self.destroy_native(id) {
                Ok(Destruction::Destroyed) | Err(NativeError::KeyMissing { .. }) => {}
                Ok(Destruction::NotDestroyable) => log::warn!("the token keeps the useless key {id}"),
                Err(error) => log::warn!("the useless key {id} may still be in the token: {error}"),
            }
        }
        made
    }
}
