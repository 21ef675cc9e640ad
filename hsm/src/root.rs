//! The root key and the class keys under it.
//!
//! Every protector wraps the same root, which has a version; class keys are derived from it by label, so that what is
//! sealed as one class never opens as another. A new version makes everything that an old root sealed worthless once it
//! was sealed anew: what is left on a disk opens only with a wrapping key that the protectors no longer hold.

use minicbor::{Decode, Encode};
use zeroize::Zeroizing;
use zixt_crypto::{AeadKey, aead, hash, labels};
use zixt_hsm_protocol::CustodyError;

/// Bytes of a root key.
pub const ROOT_BYTES: usize = 32;
/// Bytes of a key-check value: enough to tell a wrong root, too few to be of use to anybody.
pub const CHECK_BYTES: usize = 8;

/// What a class key seals or authenticates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// Seeds of signing keys.
    Seeds,
    /// Data keys: of rows, of the vote guard, authorisations of a TPM.
    Data,
    /// The state file's MAC.
    State,
    /// Keys of backups.
    Backup,
    /// Key-check value.
    Check,
}

impl Class {
    const fn label(self) -> &'static [u8] {
        match self {
            Self::Seeds => labels::CUSTODY_CLASS_SEEDS,
            Self::Data => labels::CUSTODY_CLASS_DATA,
            Self::State => labels::CUSTODY_CLASS_STATE,
            Self::Backup => labels::CUSTODY_CLASS_BACKUP,
            Self::Check => labels::CUSTODY_CLASS_CHECK,
        }
    }
}

/// Names a root key: custody, version. Part of everything that is sealed under it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct RootName {
    /// Whose root it is.
    #[n(0)]
    pub custody: CustodyId,
    /// Counts from 1.
    #[n(1)]
    pub version: u32,
}

/// Names one custody for ever: drawn when its keys are made, kept through rotations and recovery.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(transparent)]
pub struct CustodyId(#[cbor(n(0), with = "minicbor::bytes")] pub [u8; 16]);

/// The root key. Exists only while custody is unlocked; erased on drop, never printed.
pub struct Root {
    name: RootName,
    bytes: Box<Zeroizing<[u8; ROOT_BYTES]>>,
}

impl std::fmt::Debug for Root {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Root").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Root {
    /// A new root of a custody.
    ///
    /// # Errors
    /// `Internal` without random numbers.
    pub fn generate(name: RootName) -> Result<Self, CustodyError> {
        let mut bytes = Box::new(Zeroizing::new([0; ROOT_BYTES]));
        zixt_crypto::fill_random(&mut bytes[..]).map_err(internal)?;
        Ok(Self { name, bytes })
    }

    /// The root that a protector unwrapped.
    ///
    /// # Errors
    /// `UnsealFailed` if it has another length.
    pub fn from_slice(name: RootName, unwrapped: &[u8]) -> Result<Self, CustodyError> {
        if unwrapped.len() != ROOT_BYTES {
            return Err(CustodyError::UnsealFailed);
        }
        let mut bytes = Box::new(Zeroizing::new([0; ROOT_BYTES]));
        bytes.copy_from_slice(unwrapped);
        Ok(Self { name, bytes })
    }

    /// Its name.
    #[must_use]
    pub const fn name(&self) -> RootName {
        self.name
    }

    /// The key itself, for a protector to wrap. Do not log, format or store it.
    #[must_use]
    pub fn expose(&self) -> &[u8; ROOT_BYTES] {
        &self.bytes
    }

    /// A value by which a root is recognised before anything is opened with it.
    #[must_use]
    pub fn check_value(&self) -> [u8; CHECK_BYTES] {
        let key = self.class_key(Class::Check);
        let mut value = [0; CHECK_BYTES];
        value.copy_from_slice(&key.as_bytes()[..CHECK_BYTES]);
        value
    }

    /// Seals data of a class. `aad` says what it is.
    ///
    /// # Errors
    /// `Internal` without random numbers.
    pub fn seal(&self, class: Class, aad: &[u8], data: &[u8]) -> Result<Vec<u8>, CustodyError> {
        aead::seal(&self.class_key(class), &self.aad(class, aad), data).map_err(internal)
    }

    /// Opens what [`Self::seal`] made of the same class and `aad`.
    ///
    /// # Errors
    /// `UnsealFailed`.
    pub fn unseal(
        &self,
        class: Class,
        aad: &[u8],
        sealed: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, CustodyError> {
        aead::open(&self.class_key(class), &self.aad(class, aad), sealed)
            .map_err(|_| CustodyError::UnsealFailed)
    }

    /// Authenticates the state file.
    #[must_use]
    pub fn mac(&self, bytes: &[u8]) -> zixt_types::Hash {
        hash::hmac_sha384(self.class_key(Class::State).as_bytes(), Class::State.label(), &[bytes])
    }

    fn class_key(&self, class: Class) -> AeadKey {
        let version = self.name.version.to_be_bytes();
        hash::derive_key(&self.name.custody.0, &self.bytes[..], class.label(), &[&version])
    }

    fn aad(&self, class: Class, aad: &[u8]) -> Vec<u8> {
        [class.label(), &self.name.custody.0, &self.name.version.to_be_bytes(), aad].concat()
    }
}

fn internal(error: impl std::fmt::Display) -> CustodyError {
    CustodyError::Internal { detail: error.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn root(version: u32) -> Root {
        let name = RootName { custody: CustodyId([7; 16]), version };
        Root::from_slice(name, &[9; ROOT_BYTES]).unwrap()
    }

    const CLASSES: [Class; 5] = [Class::Seeds, Class::Data, Class::State, Class::Backup, Class::Check];

    #[test]
    fn classes_versions_and_custodies_have_keys_of_their_own() {
        let sealed = root(1).seal(Class::Seeds, b"seed", b"secret").unwrap();
        assert_eq!(*root(1).unseal(Class::Seeds, b"seed", &sealed).unwrap(), b"secret");
        for class in CLASSES.into_iter().filter(|class| *class != Class::Seeds) {
            assert_eq!(root(1).unseal(class, b"seed", &sealed), Err(CustodyError::UnsealFailed));
        }
        assert_eq!(root(2).unseal(Class::Seeds, b"seed", &sealed), Err(CustodyError::UnsealFailed));
        assert_eq!(root(1).unseal(Class::Seeds, b"Seed", &sealed), Err(CustodyError::UnsealFailed));
        let name = RootName { custody: CustodyId([8; 16]), version: 1 };
        let other = Root::from_slice(name, &[9; ROOT_BYTES]).unwrap();
        assert_eq!(other.unseal(Class::Seeds, b"seed", &sealed), Err(CustodyError::UnsealFailed));
        assert_ne!(root(1).check_value(), root(2).check_value());
        assert_ne!(root(1).mac(b"state"), root(2).mac(b"state"));
    }

    #[test]
    fn debug_is_redacted_and_other_lengths_are_refused() {
        let text = format!("{:?}", root(1));
        assert!(text.contains("version: 1") && !text.contains('9'), "{text}");
        let name = root(1).name();
        assert!(Root::from_slice(name, &[9; 31]).is_err() && Root::from_slice(name, &[9; 33]).is_err());
    }

    proptest! {
        #[test]
        fn any_flipped_bit_is_refused(data: Vec<u8>, at: prop::sample::Index, bit in 0u8..8) {
            let mut sealed = root(1).seal(Class::Data, b"aad", &data).unwrap();
            let at = at.index(sealed.len());
            sealed[at] ^= 1 << bit;
            prop_assert_eq!(root(1).unseal(Class::Data, b"aad", &sealed), Err(CustodyError::UnsealFailed));
        }
    }
}
