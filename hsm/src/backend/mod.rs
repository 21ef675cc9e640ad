//! Where a signing key lives and signs: the seam behind which a wrapped seed or a key inside a token stands. Chosen for
//! each key when it is made.

mod native;
mod wrapped_seed;

pub use native::{KeyStore, NativeToken};
pub use wrapped_seed::WrappedSeed;

use crate::protector::Erased;
use crate::root::Root;
use minicbor::{Decode, Encode};
use zeroize::Zeroizing;
use zixt_crypto::{SigningKey, digest};
use zixt_hsm_protocol::{CustodyError, KeyInfo, KeyPurpose, KeyStatus};
use zixt_types::{CustodyMode, Hash, SuiteId};

/// Makes, loads and destroys signing keys.
///
/// What [`Self::generate`] returns is kept in the state file and given back to the others; only the backend reads its
/// blob. A backend whose keys sign inside the token stores no seed there but the key's id, and returns a signer that
/// calls the token.
pub trait KeyBackend: Send + Sync {
    /// Makes a key pair and tries it. `recovery` is the public half of the officers' recovery key, if there is one: what
    /// a token cannot give back is sealed to it.
    ///
    /// # Errors
    /// `TokenLocked`, `TokenFailed`, `Internal`.
    fn generate(&self, root: &Root, new: NewKey, recovery: Option<&[u8]>) -> Result<StoredKey, CustodyError>;

    /// Gets a key ready to sign.
    ///
    /// # Errors
    /// `TokenLocked`, `KekMissing`, `UnsealFailed`, `TokenFailed`.
    fn load(&self, root: &Root, key: &StoredKey) -> Result<Box<dyn SigningKey>, CustodyError>;

    /// Seals what the blob holds under another root.
    ///
    /// # Errors
    /// `UnsealFailed`, `Internal`.
    fn rewrap(&self, old: &Root, new: &Root, key: &StoredKey) -> Result<Vec<u8>, CustodyError>;

    /// What a machine that recovers makes of a key: one that was escrowed becomes a sealed seed.
    ///
    /// # Errors
    /// `UnsealFailed`, `Internal`.
    fn recover(
        &self,
        root: &Root,
        key: &StoredKey,
        mode: CustodyMode,
        open: &OpenEscrow<'_>,
    ) -> Result<StoredKey, CustodyError>;

    /// Destroys what lives outside of the state file, as far as it can. What is gone already is destroyed.
    ///
    /// # Errors
    /// `TokenLocked`, `TokenAbsent`, `TokenFailed`: to be tried again.
    fn destroy(&self, key: &StoredKey) -> Result<Erased, CustodyError>;

    /// What else of ours is where keys live, in words: keys that are none of these.
    ///
    /// # Errors
    /// `TokenLocked`, `TokenFailed`.
    fn strays(&self, _: &[&StoredKey]) -> Result<Vec<String>, CustodyError> {
        Ok(Vec::new())
    }
}

/// Opens what was sealed to the officers' recovery key, given label, associated data and bytes.
pub type OpenEscrow<'a> = dyn Fn(&[u8], &[u8], &[u8]) -> Option<Zeroizing<Vec<u8>>> + 'a;

/// What a new key is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NewKey {
    /// Its purpose.
    pub purpose: KeyPurpose,
    /// Counts the keys of this purpose from 1.
    pub version: u32,
    /// Its suite.
    pub suite: SuiteId,
    /// Where it will live, as the protectors at the time of its making say it.
    pub mode: CustodyMode,
    /// Whether it is used at once.
    pub status: KeyStatus,
}

/// A key as the state file holds it.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct StoredKey {
    /// What it is for.
    #[n(0)]
    pub purpose: KeyPurpose,
    /// Counts the keys of this purpose from 1.
    #[n(1)]
    pub version: u32,
    /// Its suite.
    #[n(2)]
    pub suite: SuiteId,
    /// Where it lives.
    #[n(3)]
    pub mode: CustodyMode,
    /// The public key.
    #[cbor(n(4), with = "minicbor::bytes")]
    pub public_key: Vec<u8>,
    /// The backend's own: a sealed seed, or the name of a key in the token.
    #[cbor(n(5), with = "minicbor::bytes")]
    pub blob: Vec<u8>,
    /// Whether it signs.
    #[n(6)]
    pub status: KeyStatus,
}

impl StoredKey {
    /// The hash by which everything names it.
    #[must_use]
    pub fn hash(&self) -> Hash {
        digest::key_hash(self.suite, &self.public_key)
    }

    /// The key as everybody may know it.
    #[must_use]
    pub fn info(&self) -> KeyInfo {
        KeyInfo {
            purpose: self.purpose,
            hash: self.hash(),
            suite: self.suite,
            public_key: self.public_key.clone(),
            custody: self.mode,
            version: self.version,
            status: self.status,
        }
    }
}
