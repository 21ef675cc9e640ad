//! Where private keys live: the seam behind which a token, a TPM or a key inside an HSM stands. Chosen at run time.

mod pkcs11;
#[cfg(test)]
pub(crate) mod testing;
mod wrapped_seed;

pub use pkcs11::Pkcs11Protector;
pub use wrapped_seed::{Protector, WrappedSeed};

use minicbor::{Decode, Encode};
use zeroize::Zeroizing;
use zixt_crypto::SigningKey;
use zixt_hsm_pkcs11::PinTry;
use zixt_hsm_protocol::{CustodyError, KeyPurpose, Pin, TokenInfo};
use zixt_types::{CustodyMode, SuiteId};

/// Custody of all keys of one appliance.
///
/// What `generate` and `seal` return is kept in the state file and given back to `load` and `unseal`; only the backend
/// reads it. A backend whose keys sign inside the token stores no seed there but the key's id, and returns a signer that
/// calls the token.
pub trait Backend: Send + Sync {
    /// The token, if it can be seen. Needs no login.
    ///
    /// # Errors
    /// Why it cannot be seen.
    fn describe(&self) -> Result<TokenInfo, CustodyError>;

    /// Where keys live that this backend makes. Always the truth.
    fn mode(&self) -> CustodyMode;

    /// Whether the token is unlocked.
    fn is_open(&self) -> bool;

    /// Unlocks the token.
    ///
    /// # Errors
    /// `TokenAbsent`, `PinIncorrect`, `PinLocked`, `PinFinalTry`, `TokenFailed`.
    fn open(&self, pin: &Pin, pin_try: PinTry) -> Result<(), CustodyError>;

    /// Locks the token.
    fn close(&self);

    /// Makes what all keys of a new appliance are wrapped by, and returns its name in the token.
    ///
    /// # Errors
    /// `TokenLocked`, `TokenFailed`.
    fn create_kek(&self) -> Result<KekName, CustodyError>;

    /// Makes a key pair and tries it.
    ///
    /// # Errors
    /// `TokenLocked`, `TokenFailed`, `Internal`.
    fn generate(&self, kek: &KekName, purpose: KeyPurpose, suite: SuiteId)
    -> Result<StoredKey, CustodyError>;

    /// Gets a key ready to sign.
    ///
    /// # Errors
    /// `TokenLocked`, `KekMissing`, `UnsealFailed`, `TokenFailed`.
    fn load(&self, kek: &KekName, key: &StoredKey) -> Result<Box<dyn SigningKey>, CustodyError>;

    /// Seals data under `aad`.
    ///
    /// # Errors
    /// `TokenLocked`, `KekMissing`, `TokenFailed`.
    fn seal(&self, kek: &KekName, aad: &[u8], data: &[u8]) -> Result<Vec<u8>, CustodyError>;

    /// Opens what [`Backend::seal`] made under the same `aad`.
    ///
    /// # Errors
    /// `TokenLocked`, `KekMissing`, `UnsealFailed`, `TokenFailed`.
    fn unseal(&self, kek: &KekName, aad: &[u8], sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, CustodyError>;
}

/// The name of a key-encryption key in its token (a CKA_ID).
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(transparent)]
pub struct KekName(#[cbor(n(0), with = "minicbor::bytes")] pub Vec<u8>);

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
    /// The backend's own: a wrapped seed, or the name of a key in the token.
    #[cbor(n(5), with = "minicbor::bytes")]
    pub blob: Vec<u8>,
}
