//! The backend: everything whose implementation can be swapped, as object-safe traits.
//!
//! A backend is a value that `main` creates and hands down; nothing in the product picks one by a cargo feature
//! or a global. There are two, [`crate::Reference`] here and `AwsLc` in `zixt-crypto-fast`, and tests hold them
//! to the same bytes. Hashes, AEAD, HPKE and password hashing have one implementation and need no trait.

use crate::secret::{KemSeed, RandomError, SharedSecret, SigningSeed};
use crate::suite::ML_KEM_1024_CIPHERTEXT_BYTES;
use zixt_types::SuiteId;

/// An implementation of ML-DSA and ML-KEM-1024.
pub trait Backend: Send + Sync + 'static {
    /// Name for logs and the crypto inventory.
    fn name(&self) -> &'static str;

    /// Checks a signature with the empty context (FIPS 204, Algorithm 3).
    ///
    /// Domain separation is the caller's: sign and verify through [`crate::cose`], which puts a label of
    /// [`crate::labels`] in front.
    ///
    /// # Errors
    /// [`VerifyError`]; only `Ok(())` means that the signature is good.
    fn verify(
        &self,
        suite: SuiteId,
        public_key: &[u8],
        message: &[u8],
        signature: &[u8],
    ) -> Result<(), VerifyError>;

    /// A fresh seed for [`Backend::signing_key`].
    ///
    /// # Errors
    /// [`RandomError`] if the operating system's generator fails.
    fn generate_signing_seed(&self) -> Result<SigningSeed, RandomError> {
        SigningSeed::generate()
    }

    /// Expands a seed to a signing key (FIPS 204, Algorithm 6). Costs about as much as a signature: keep the
    /// result.
    ///
    /// # Errors
    /// [`KeyError`] if the backend refuses the key.
    fn signing_key(&self, suite: SuiteId, seed: &SigningSeed) -> Result<Box<dyn SigningKey>, KeyError>;

    /// A fresh seed for [`Backend::decapsulation_key`].
    ///
    /// # Errors
    /// [`RandomError`] if the operating system's generator fails.
    fn generate_kem_seed(&self) -> Result<KemSeed, RandomError> {
        KemSeed::generate()
    }

    /// Expands a seed to a decapsulation key (FIPS 203, Algorithm 16). Keep the result.
    ///
    /// # Errors
    /// [`KeyError`] if the backend refuses the key.
    fn decapsulation_key(&self, seed: &KemSeed) -> Result<Box<dyn DecapsulationKey>, KeyError>;

    /// Checks an encapsulation key: length and modulus (FIPS 203, Section 7.2).
    ///
    /// # Errors
    /// [`KeyError`] if the key must not be used.
    fn validate_encapsulation_key(&self, encapsulation_key: &[u8]) -> Result<(), KeyError>;

    /// Makes a shared secret and its ciphertext for the holder of a key (FIPS 203, Algorithm 20). Validates
    /// the key first.
    ///
    /// # Errors
    /// [`EncapsulateError`] if the key is invalid or no randomness can be had.
    fn encapsulate(&self, encapsulation_key: &[u8]) -> Result<(Ciphertext, SharedSecret), EncapsulateError>;
}

/// An ML-DSA private key, expanded and ready to sign.
pub trait SigningKey: Send + Sync {
    /// The suite, and so the parameter set.
    fn suite(&self) -> SuiteId;

    /// The encoded public key (FIPS 204, Algorithm 22).
    fn public_key(&self) -> &[u8];

    /// Signs with the empty context and fresh randomness ("hedged", FIPS 204, Algorithm 2).
    ///
    /// # Errors
    /// [`SignError`] if no randomness can be had or the backend fails.
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, SignError>;
}

/// An ML-KEM-1024 private key, expanded and ready to use.
pub trait DecapsulationKey: Send + Sync {
    /// The encoded encapsulation key (1568 bytes).
    fn encapsulation_key(&self) -> &[u8];

    /// Recovers the shared secret (FIPS 203, Algorithm 21).
    ///
    /// A ciphertext of the right length never fails: a forged one yields a secret that the forger does not know
    /// (implicit rejection), and what is sealed under it does not open.
    ///
    /// # Errors
    /// [`DecapsulateError`] if the ciphertext does not have exactly 1568 bytes.
    fn decapsulate(&self, ciphertext: &[u8]) -> Result<SharedSecret, DecapsulateError>;
}

/// An ML-KEM-1024 ciphertext.
#[derive(Clone, PartialEq, Eq)]
pub struct Ciphertext(Box<[u8; ML_KEM_1024_CIPHERTEXT_BYTES]>);

impl Ciphertext {
    /// Takes the bytes of a ciphertext.
    pub fn new(bytes: Box<[u8; ML_KEM_1024_CIPHERTEXT_BYTES]>) -> Self {
        Self(bytes)
    }

    /// The 1568 bytes that travel.
    pub fn as_bytes(&self) -> &[u8; ML_KEM_1024_CIPHERTEXT_BYTES] {
        &self.0
    }
}

impl std::fmt::Debug for Ciphertext {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Ciphertext({} bytes)", self.0.len())
    }
}

/// Why a signature was not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum VerifyError {
    /// The public key does not have the length of the suite.
    #[error("public key: expected {expected} bytes, got {actual}")]
    PublicKeyLength {
        /// The suite's length.
        expected: usize,
        /// The length received.
        actual: usize,
    },
    /// The signature does not have the length of the suite.
    #[error("signature: expected {expected} bytes, got {actual}")]
    SignatureLength {
        /// The suite's length.
        expected: usize,
        /// The length received.
        actual: usize,
    },
    /// The signature is not one of this key over this message.
    #[error("the signature does not verify")]
    Rejected,
}

/// Why a key was not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The key has the wrong length.
    #[error("key: expected {expected} bytes, got {actual}")]
    Length {
        /// The only length accepted.
        expected: usize,
        /// The length received.
        actual: usize,
    },
    /// The key has the right length but is not a key (an encapsulation key with an unreduced coefficient).
    #[error("the key is malformed")]
    Malformed,
    /// The backend failed.
    #[error("the {backend} backend refused the key")]
    Backend {
        /// [`Backend::name`].
        backend: &'static str,
    },
}

/// Why nothing was signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SignError {
    /// No randomness for a hedged signature.
    #[error(transparent)]
    Random(#[from] RandomError),
    /// The backend, token or custody service failed.
    #[error("the {backend} backend could not sign")]
    Backend {
        /// [`Backend::name`], or the name of what holds the key.
        backend: &'static str,
    },
}

/// Why nothing was encapsulated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EncapsulateError {
    /// The encapsulation key is invalid.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// No randomness.
    #[error(transparent)]
    Random(#[from] RandomError),
    /// The backend failed.
    #[error("the {backend} backend could not encapsulate")]
    Backend {
        /// [`Backend::name`].
        backend: &'static str,
    },
}

/// Why nothing was decapsulated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DecapsulateError {
    /// The ciphertext has the wrong length.
    #[error("ciphertext: expected {expected} bytes, got {actual}")]
    CiphertextLength {
        /// The only length accepted.
        expected: usize,
        /// The length received.
        actual: usize,
    },
    /// The backend failed.
    #[error("the {backend} backend could not decapsulate")]
    Backend {
        /// [`Backend::name`].
        backend: &'static str,
    },
}
