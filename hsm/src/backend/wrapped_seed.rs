//! Custody mode 2: the token (or, later, a TPM) wraps the 32-byte seed; the expanded key is used in locked memory.

use super::{Backend, KekName, StoredKey};
use zeroize::Zeroizing;
use zixt_crypto::{SigningKey, SigningSeed, digest, labels, selftest};
use zixt_hsm_pkcs11::PinTry;
use zixt_hsm_protocol::{CustodyError, KeyPurpose, Pin, TokenInfo};
use zixt_types::{CustodyMode, SuiteId};

/// What wraps seeds. The methods' errors are those of [`Backend`]'s methods of the same purpose.
pub trait Protector: Send + Sync {
    /// The token, if it can be seen.
    ///
    /// # Errors
    /// Why it cannot be seen.
    fn describe(&self) -> Result<TokenInfo, CustodyError>;
    /// The custody mode of what it wraps.
    fn mode(&self) -> CustodyMode;
    /// Whether it is unlocked.
    fn is_open(&self) -> bool;
    /// Unlocks it.
    ///
    /// # Errors
    /// See [`Backend::open`].
    fn open(&self, pin: &Pin, pin_try: PinTry) -> Result<(), CustodyError>;
    /// Locks it.
    fn close(&self);
    /// Makes a key-encryption key.
    ///
    /// # Errors
    /// See [`Backend::create_kek`].
    fn create_kek(&self) -> Result<KekName, CustodyError>;
    /// Wraps a secret under `aad`.
    ///
    /// # Errors
    /// See [`Backend::seal`].
    fn wrap(&self, kek: &KekName, aad: &[u8], secret: &[u8]) -> Result<Vec<u8>, CustodyError>;
    /// Opens what `wrap` made.
    ///
    /// # Errors
    /// See [`Backend::unseal`].
    fn unwrap(&self, kek: &KekName, aad: &[u8], blob: &[u8]) -> Result<Zeroizing<Vec<u8>>, CustodyError>;
}

/// The backend of wrapped seeds.
pub struct WrappedSeed {
    protector: Box<dyn Protector>,
    crypto: Box<dyn zixt_crypto::Backend>,
}

impl WrappedSeed {
    /// Wraps by `protector`, signs by `crypto`.
    #[must_use]
    pub fn new(protector: Box<dyn Protector>, crypto: Box<dyn zixt_crypto::Backend>) -> Self {
        Self { protector, crypto }
    }

    /// Wraps a seed that has become a working key. Apart from [`Backend::generate`] so that a test can give the seed.
    fn store(
        &self,
        kek: &KekName,
        purpose: KeyPurpose,
        seed: &SigningSeed,
        key: &dyn SigningKey,
    ) -> Result<StoredKey, CustodyError> {
        let mut stored = StoredKey {
            purpose,
            version: 1,
            suite: key.suite(),
            mode: self.mode(),
            public_key: key.public_key().to_vec(),
            blob: Vec::new(),
        };
        stored.blob = self.protector.wrap(kek, &seed_aad(kek, &stored), seed.as_bytes())?;
        // A blob that does not open is found now and not at the next power-on.
        self.load(kek, &stored)?;
        Ok(stored)
    }
}

impl Backend for WrappedSeed {
    fn describe(&self) -> Result<TokenInfo, CustodyError> {
        self.protector.describe()
    }

    fn mode(&self) -> CustodyMode {
        self.protector.mode()
    }

    fn is_open(&self) -> bool {
        self.protector.is_open()
    }

    fn open(&self, pin: &Pin, pin_try: PinTry) -> Result<(), CustodyError> {
        self.protector.open(pin, pin_try)
    }

    fn close(&self) {
        self.protector.close();
    }

    fn create_kek(&self) -> Result<KekName, CustodyError> {
        self.protector.create_kek()
    }

    fn generate(
        &self,
        kek: &KekName,
        purpose: KeyPurpose,
        suite: SuiteId,
    ) -> Result<StoredKey, CustodyError> {
        let (seed, key) = selftest::generate_signing_key(&*self.crypto, suite)
            .map_err(|error| CustodyError::Internal { detail: format!("the new key is refused: {error}") })?;
        self.store(kek, purpose, &seed, &*key)
    }

    fn load(&self, kek: &KekName, key: &StoredKey) -> Result<Box<dyn SigningKey>, CustodyError> {
        let opened = self.protector.unwrap(kek, &seed_aad(kek, key), &key.blob)?;
        let seed = SigningSeed::from_slice(&opened).map_err(|_| CustodyError::UnsealFailed)?;
        let loaded = self
            .crypto
            .signing_key(key.suite, &seed)
            .map_err(|error| CustodyError::Internal { detail: error.to_string() })?;
        if loaded.public_key() == key.public_key { Ok(loaded) } else { Err(CustodyError::UnsealFailed) }
    }

    fn seal(&self, kek: &KekName, aad: &[u8], data: &[u8]) -> Result<Vec<u8>, CustodyError> {
        self.protector.wrap(kek, aad, data)
    }

    fn unseal(&self, kek: &KekName, aad: &[u8], sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, CustodyError> {
        self.protector.unwrap(kek, aad, sealed)
    }
}

/// Version of the format of AAD and blob.
const WRAP_FORMAT: u64 = 1;

/// What a wrapped seed is bound to: format, key id, version, algorithm, purpose, key-encryption key.
fn seed_aad(kek: &KekName, key: &StoredKey) -> Vec<u8> {
    let id = digest::key_hash(key.suite, &key.public_key);
    let mut aad = labels::SEED_WRAP.to_vec();
    let written = minicbor::encode(
        (
            (WRAP_FORMAT, id, key.version),
            (zixt_crypto::suite_params(key.suite).signature_algorithm, key.purpose.name()),
            kek,
        ),
        &mut aad,
    );
    match written {
        Ok(()) => aad,
        // Writing to a Vec cannot fail.
        Err(_) => unreachable!("encoding to memory"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::testing::TestProtector;
    use zixt_crypto::Reference;

    fn backend() -> WrappedSeed {
        WrappedSeed::new(Box::new(TestProtector::open_one()), Box::new(Reference))
    }

    #[test]
    fn the_seed_is_in_no_stored_byte_and_comes_back() {
        let backend = backend();
        let kek = backend.create_kek().unwrap();
        let seed = SigningSeed::from_bytes(&std::array::from_fn(|n| u8::try_from(n * 7 + 1).unwrap()));
        let key = zixt_crypto::Backend::signing_key(&Reference, SuiteId::Standard, &seed).unwrap();
        let first = backend.store(&kek, KeyPurpose::Consensus, &seed, &*key).unwrap();
        let second = backend.store(&kek, KeyPurpose::Consensus, &seed, &*key).unwrap();
        assert_ne!(first.blob, second.blob, "a fresh IV for each wrap");
        let mut bytes = Vec::new();
        minicbor::encode((&first, &second), &mut bytes).unwrap();
        // Any 8 bytes of the seed in a row would be a leak.
        for part in seed.as_bytes().windows(8) {
            assert!(!bytes.windows(8).any(|window| window == part));
        }
        assert_eq!(backend.load(&kek, &first).unwrap().public_key(), key.public_key());
    }

    #[test]
    fn a_blob_opens_only_as_what_it_was_wrapped_for() {
        let backend = backend();
        let kek = backend.create_kek().unwrap();
        let key = backend.generate(&kek, KeyPurpose::Tls, SuiteId::Standard).unwrap();
        let other = backend.generate(&kek, KeyPurpose::Tls, SuiteId::Standard).unwrap();
        let changes: [(&str, StoredKey); 5] = [
            ("purpose", StoredKey { purpose: KeyPurpose::Consensus, ..key.clone() }),
            ("version", StoredKey { version: 2, ..key.clone() }),
            ("suite", StoredKey { suite: SuiteId::Cnsa, ..key.clone() }),
            ("public key", StoredKey { public_key: other.public_key.clone(), ..key.clone() }),
            ("blob", StoredKey { blob: other.blob, ..key.clone() }),
        ];
        for (what, changed) in changes {
            assert_eq!(backend.load(&kek, &changed).err(), Some(CustodyError::UnsealFailed), "{what}");
        }
        let other_kek = backend.create_kek().unwrap();
        assert_eq!(backend.load(&other_kek, &key).err(), Some(CustodyError::UnsealFailed));
        backend.close();
        assert_eq!(backend.load(&kek, &key).err(), Some(CustodyError::TokenLocked));
    }
}
