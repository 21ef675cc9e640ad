//! Custody mode 2: the 32-byte seed is sealed under the root, which the protectors wrap; the expanded key is used in
//! locked memory.

use super::{KeyBackend, NewKey, OpenEscrow, StoredKey};
use crate::protector::Erased;
use crate::root::{Class, Root};
use zixt_crypto::{SigningKey, SigningSeed, labels, selftest};
use zixt_hsm_protocol::CustodyError;
use zixt_types::CustodyMode;

/// The backend of wrapped seeds.
pub struct WrappedSeed {
    crypto: Box<dyn zixt_crypto::Backend>,
}

impl WrappedSeed {
    /// Signs by `crypto`.
    #[must_use]
    pub fn new(crypto: Box<dyn zixt_crypto::Backend>) -> Self {
        Self { crypto }
    }

    /// Seals a seed that has become a working key. Apart from [`KeyBackend::generate`] so that a test can give the seed.
    fn store(
        &self,
        root: &Root,
        new: NewKey,
        seed: &SigningSeed,
        key: &dyn SigningKey,
    ) -> Result<StoredKey, CustodyError> {
        let mut stored = StoredKey {
            purpose: new.purpose,
            version: new.version,
            suite: new.suite,
            mode: new.mode,
            public_key: key.public_key().to_vec(),
            blob: Vec::new(),
            status: new.status,
        };
        stored.blob = root.seal(Class::Seeds, &seed_aad(&stored), seed.as_bytes())?;
        // A blob that does not open is found now and not at the next power-on.
        self.load(root, &stored)?;
        Ok(stored)
    }
}

impl WrappedSeed {
    /// A key that lived elsewhere, as a sealed seed.
    ///
    /// # Errors
    /// `UnsealFailed` if the seed is another key's.
    pub(super) fn restore(
        &self,
        root: &Root,
        key: &StoredKey,
        mode: CustodyMode,
        seed: &SigningSeed,
    ) -> Result<StoredKey, CustodyError> {
        let mut stored = StoredKey { mode, ..key.clone() };
        stored.blob = root.seal(Class::Seeds, &seed_aad(&stored), seed.as_bytes())?;
        self.load(root, &stored)?;
        Ok(stored)
    }
}

impl KeyBackend for WrappedSeed {
    fn generate(&self, root: &Root, new: NewKey, _: Option<&[u8]>) -> Result<StoredKey, CustodyError> {
        let (seed, key) = selftest::generate_signing_key(&*self.crypto, new.suite)
            .map_err(|error| CustodyError::Internal { detail: format!("the new key is refused: {error}") })?;
        self.store(root, new, &seed, &*key)
    }

    fn load(&self, root: &Root, key: &StoredKey) -> Result<Box<dyn SigningKey>, CustodyError> {
        let opened = root.unseal(Class::Seeds, &seed_aad(key), &key.blob)?;
        let seed = SigningSeed::from_slice(&opened).map_err(|_| CustodyError::UnsealFailed)?;
        let loaded = self
            .crypto
            .signing_key(key.suite, &seed)
            .map_err(|error| CustodyError::Internal { detail: error.to_string() })?;
        if loaded.public_key() == key.public_key { Ok(loaded) } else { Err(CustodyError::UnsealFailed) }
    }

    fn rewrap(&self, old: &Root, new: &Root, key: &StoredKey) -> Result<Vec<u8>, CustodyError> {
        let aad = seed_aad(key);
        new.seal(Class::Seeds, &aad, &old.unseal(Class::Seeds, &aad, &key.blob)?)
    }

    fn recover(
        &self,
        _: &Root,
        key: &StoredKey,
        _: CustodyMode,
        _: &OpenEscrow<'_>,
    ) -> Result<StoredKey, CustodyError> {
        Ok(key.clone())
    }

    /// The seed dies with the root that sealed it: whoever destroys a key rotates the root.
    fn destroy(&self, _: &StoredKey) -> Result<Erased, CustodyError> {
        Ok(Erased::Destroyed)
    }
}

/// Version of the format of AAD and blob.
const WRAP_FORMAT: u64 = 2;

/// What a sealed seed is bound to: format, key id, version, algorithm, purpose. The root's name is bound by the root.
fn seed_aad(key: &StoredKey) -> Vec<u8> {
    let mut aad = labels::SEED_WRAP.to_vec();
    let algorithm = zixt_crypto::suite_params(key.suite).signature_algorithm;
    let written =
        minicbor::encode((WRAP_FORMAT, key.hash(), key.version, algorithm, key.purpose.name()), &mut aad);
    match written {
        Ok(()) => aad,
        // Writing to a Vec cannot fail.
        Err(_) => unreachable!("encoding to memory"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::root::{CustodyId, RootName};
    use zixt_crypto::{Backend as _, Reference};
    use zixt_hsm_protocol::{KeyPurpose, KeyStatus};
    use zixt_types::SuiteId;

    fn root(version: u32) -> Root {
        Root::generate(RootName { custody: CustodyId([1; 16]), version }).unwrap()
    }

    fn new(purpose: KeyPurpose) -> NewKey {
        NewKey {
            purpose,
            version: 1,
            suite: SuiteId::Standard,
            mode: CustodyMode::WrappedByToken,
            status: KeyStatus::Active,
        }
    }

    #[test]
    fn the_seed_is_in_no_stored_byte_and_comes_back() {
        let (backend, root) = (WrappedSeed::new(Box::new(Reference)), root(1));
        let seed = SigningSeed::from_bytes(&[0xA5; 32]);
        let key = Reference.signing_key(SuiteId::Standard, &seed).unwrap();
        let stored = backend.store(&root, new(KeyPurpose::Tls), &seed, &*key).unwrap();
        let bytes = minicbor::to_vec(&stored).unwrap();
        assert!(!bytes.windows(8).any(|window| window == [0xA5; 8]));
        let loaded = backend.load(&root, &stored).unwrap();
        let signature = loaded.sign(b"message").unwrap();
        Reference.verify(SuiteId::Standard, &stored.public_key, b"message", &signature).unwrap();
    }

    #[test]
    fn a_blob_opens_for_its_own_key_and_root_only() {
        let (backend, root) = (WrappedSeed::new(Box::new(Reference)), root(1));
        let stored = backend.generate(&root, new(KeyPurpose::Tls), None).unwrap();
        let other = backend.generate(&root, new(KeyPurpose::Tls), None).unwrap();
        let edits: [StoredKey; 4] = [
            StoredKey { purpose: KeyPurpose::Consensus, ..stored.clone() },
            StoredKey { version: 2, ..stored.clone() },
            StoredKey { blob: other.blob.clone(), ..stored.clone() },
            StoredKey { public_key: other.public_key, ..stored.clone() },
        ];
        for edit in edits {
            assert!(matches!(backend.load(&root, &edit), Err(CustodyError::UnsealFailed)));
        }
        let next = super::tests::root(2);
        assert!(matches!(backend.load(&next, &stored), Err(CustodyError::UnsealFailed)));
        let blob = backend.rewrap(&root, &next, &stored).unwrap();
        let moved = StoredKey { blob, ..stored };
        assert!(backend.load(&next, &moved).is_ok() && backend.load(&root, &moved).is_err());
    }
}
