//! The state file `custody.cbor`: wrapped keys, and what they are bound to.

use crate::backend::{Backend, KekName, StoredKey};
use crate::vote_guard::{GuardKey, MAC_KEY_BYTES, Quorum};
use minicbor::{Decode, Encode};
use zeroize::Zeroizing;
use zixt_crypto::{AeadKey, digest, hazmat, labels};
use zixt_hsm_protocol::{CustodyError, KeyInfo, KeyPurpose};
use zixt_types::{Canonical, Genesis, Hash, SuiteId, UnlockMode};

/// The state file. Its wrapped parts are bound one by one; the rest is bound by `seal`.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct CustodyRecord {
    /// Format version: 2.
    #[n(0)]
    pub version: u64,
    /// The key in the token that wraps everything here.
    #[n(1)]
    pub kek: KekName,
    /// Whether the keys were made for a lab.
    #[n(2)]
    pub lab: bool,
    /// The signing keys, in the order of [`KeyPurpose::ALL`].
    #[n(3)]
    pub keys: Vec<StoredKey>,
    /// The wrapped row data key.
    #[cbor(n(4), with = "minicbor::bytes")]
    pub row_key: Vec<u8>,
    /// The wrapped key of the vote guard's MAC. Not derived from the row data key, which leaves this process.
    #[cbor(n(5), with = "minicbor::bytes")]
    pub guard_key: Vec<u8>,
    /// The network, once known.
    #[n(6)]
    pub pinned: Option<Pinned>,
    /// A wrapped constant whose AAD is the hash of everything above: only the token can make it.
    #[cbor(n(7), with = "minicbor::bytes")]
    pub seal: Vec<u8>,
}

/// The network that the keys serve, for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Pinned {
    /// Hash of its genesis.
    #[n(0)]
    pub genesis: Hash,
    /// What the genesis says about unlocking.
    #[n(1)]
    pub unlock: UnlockMode,
    /// Whether the genesis gives this appliance more than two thirds of all stake. Stake that is given to others later
    /// does not change it: what it forbids then is a second header at a height, which needs a lock to be given up.
    #[n(2)]
    pub alone: bool,
}

impl Pinned {
    /// How much our own vote weighs.
    #[must_use]
    pub const fn quorum(&self) -> Quorum {
        if self.alone { Quorum::Alone } else { Quorum::Shared }
    }
}

impl Canonical for CustodyRecord {
    const WHAT: &'static str = "custody state";
    const BYTES_MAX: usize = 64 * 1024;
    const VERSION: Option<u64> = Some(2);

    fn check(&self) -> Result<(), &'static str> {
        if !self.keys.iter().map(|key| key.purpose).eq(KeyPurpose::ALL) {
            return Err("it does not hold one key of each purpose in order");
        }
        if self.keys.iter().any(|key| key.suite != self.suite()) {
            return Err("its keys are of different suites");
        }
        Ok(())
    }
}

impl CustodyRecord {
    /// Makes all keys of an appliance. The token must be unlocked.
    ///
    /// # Errors
    /// See [`Backend::generate`].
    pub fn generate(backend: &dyn Backend, suite: SuiteId, lab: bool) -> Result<Self, CustodyError> {
        let kek = backend.create_kek()?;
        let keys = KeyPurpose::ALL.iter().map(|purpose| backend.generate(&kek, *purpose, suite));
        let keys = keys.collect::<Result<Vec<_>, _>>()?;
        let row_key =
            AeadKey::generate().map_err(|error| CustodyError::Internal { detail: error.to_string() })?;
        let row_key = backend.seal(&kek, &row_key_aad(&kek), row_key.as_bytes())?;
        let mut guard_key = Zeroizing::new([0; MAC_KEY_BYTES]);
        zixt_crypto::fill_random(&mut *guard_key)
            .map_err(|error| CustodyError::Internal { detail: error.to_string() })?;
        let guard_key = backend.seal(&kek, &guard_key_aad(&kek), &*guard_key)?;
        Self { version: 2, kek, lab, keys, row_key, guard_key, pinned: None, seal: Vec::new() }
            .sealed(backend)
    }

    /// The same state with a genesis.
    ///
    /// # Errors
    /// See [`Backend::seal`].
    pub fn with_pinned(&self, backend: &dyn Backend, pinned: Pinned) -> Result<Self, CustodyError> {
        Self { pinned: Some(pinned), ..self.clone() }.sealed(backend)
    }

    fn sealed(mut self, backend: &dyn Backend) -> Result<Self, CustodyError> {
        self.seal = backend.seal(&self.kek, &self.seal_aad(), &SEALED)?;
        Ok(self)
    }

    /// Whether this token sealed exactly this state.
    ///
    /// # Errors
    /// `UnsealFailed` if not; otherwise as [`Backend::unseal`].
    pub fn check_seal(&self, backend: &dyn Backend) -> Result<(), CustodyError> {
        let opened = backend.unseal(&self.kek, &self.seal_aad(), &self.seal)?;
        if opened.as_slice() == SEALED { Ok(()) } else { Err(CustodyError::UnsealFailed) }
    }

    /// The row data key.
    ///
    /// # Errors
    /// See [`Backend::unseal`].
    pub fn open_row_key(&self, backend: &dyn Backend) -> Result<AeadKey, CustodyError> {
        let opened = backend.unseal(&self.kek, &row_key_aad(&self.kek), &self.row_key)?;
        AeadKey::from_slice(&opened).map_err(|_| CustodyError::UnsealFailed)
    }

    /// The vote guard's key.
    ///
    /// # Errors
    /// See [`Backend::unseal`].
    pub fn open_guard_key(&self, backend: &dyn Backend) -> Result<GuardKey, CustodyError> {
        let opened = backend.unseal(&self.kek, &guard_key_aad(&self.kek), &self.guard_key)?;
        let mac = opened.as_slice().try_into().map_err(|_| CustodyError::UnsealFailed)?;
        let consensus = self.key(KeyPurpose::Consensus)?;
        Ok(GuardKey::new(digest::key_hash(consensus.suite, &consensus.public_key), mac))
    }

    /// The suite of all keys.
    #[must_use]
    pub fn suite(&self) -> SuiteId {
        // `check` refuses a record without keys.
        self.keys.first().map_or(SuiteId::Standard, |key| key.suite)
    }

    /// The stored key of a purpose.
    ///
    /// # Errors
    /// `Internal` if there is none, which `check` excludes.
    pub fn key(&self, purpose: KeyPurpose) -> Result<&StoredKey, CustodyError> {
        let found = self.keys.iter().find(|key| key.purpose == purpose);
        found.ok_or_else(|| CustodyError::Internal { detail: format!("no {} key", purpose.name()) })
    }

    /// The keys as everybody may know them.
    #[must_use]
    pub fn public_keys(&self) -> Vec<KeyInfo> {
        let info = |key: &StoredKey| KeyInfo {
            purpose: key.purpose,
            hash: digest::key_hash(key.suite, &key.public_key),
            suite: key.suite,
            public_key: key.public_key.clone(),
            custody: key.mode,
        };
        self.keys.iter().map(info).collect()
    }

    /// Checks that a genesis tells the truth about these keys, and returns what to pin of it.
    ///
    /// # Errors
    /// `GenesisRefused` with the statement that is not true.
    pub fn check_genesis(&self, genesis: &Genesis) -> Result<Pinned, CustodyError> {
        let refused = |why: String| Err(CustodyError::GenesisRefused { why });
        let hash =
            |purpose| self.key(purpose).map(|key| (digest::key_hash(key.suite, &key.public_key), key.mode));
        let (identity, _) = hash(KeyPurpose::Identity)?;
        let (consensus, mode) = hash(KeyPurpose::Consensus)?;
        let (tls, _) = hash(KeyPurpose::Tls)?;
        let (enroller, _) = hash(KeyPurpose::Enroller)?;
        let appliance = digest::appliance_id(identity);
        let Some(validator) = genesis.validators.iter().find(|v| v.appliance == appliance) else {
            return refused(format!("no validator is this appliance ({appliance})"));
        };
        if validator.consensus != consensus {
            return refused("the validator's consensus key is another one".to_owned());
        }
        if validator.tls != tls {
            return refused("the validator's TLS key is another one".to_owned());
        }
        if validator.custody != mode {
            return refused(format!(
                "it says of the consensus key '{}'; the truth is '{}'",
                validator.custody.describe(),
                mode.describe()
            ));
        }
        if !genesis.enrollers.contains(&enroller) {
            return refused("this appliance's enroller key is not among the enrollers".to_owned());
        }
        if !genesis.suites.contains(&self.suite()) {
            return refused(format!("it does not allow the suite of the keys ({})", self.suite()));
        }
        if genesis.lab != self.lab {
            let made_for = if self.lab { "a lab" } else { "production" };
            return refused(format!("the keys were made for {made_for}, the genesis says otherwise"));
        }
        let alone = u128::from(validator.stake) * 3 > u128::from(genesis.stake_total()) * 2;
        Ok(Pinned { genesis: digest::genesis_hash(genesis), unlock: genesis.unlock, alone })
    }

    fn seal_aad(&self) -> Vec<u8> {
        let bound = Self { seal: Vec::new(), ..self.clone() }.to_bytes();
        [labels::SEED_WRAP, b"state", &hazmat::sha384(&[&bound])].concat()
    }
}

/// Any constant: what matters is the AAD.
const SEALED: [u8; 16] = [0; 16];

fn row_key_aad(kek: &KekName) -> Vec<u8> {
    [labels::SEED_WRAP, b"row-key/1/AES-256-GCM/", &kek.0].concat()
}

fn guard_key_aad(kek: &KekName) -> Vec<u8> {
    [labels::SEED_WRAP, b"guard-key/1/HMAC-SHA384/", &kek.0].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::{WrappedSeed, testing::TestProtector};
    use proptest::prelude::*;
    use zixt_crypto::Reference;

    fn backend() -> WrappedSeed {
        WrappedSeed::new(Box::new(TestProtector::open_one()), Box::new(Reference))
    }

    #[test]
    fn the_state_round_trips_and_every_edit_is_found() {
        let backend = backend();
        let record = CustodyRecord::generate(&backend, SuiteId::Standard, true).unwrap();
        assert_eq!(CustodyRecord::parse(&record.to_bytes()).as_ref(), Ok(&record));
        record.check_seal(&backend).unwrap();
        let pinned = Pinned { genesis: Hash([1; 48]), unlock: UnlockMode::Attended, alone: true };
        let bound = record.with_pinned(&backend, pinned).unwrap();
        bound.check_seal(&backend).unwrap();
        let edits: [CustodyRecord; 6] = [
            CustodyRecord { pinned: Some(Pinned { alone: false, ..pinned }), ..bound.clone() },
            CustodyRecord { guard_key: record.guard_key[..20].to_vec(), ..bound.clone() },
            CustodyRecord { lab: false, ..bound.clone() },
            CustodyRecord { pinned: None, ..bound.clone() },
            CustodyRecord { pinned: Some(Pinned { genesis: Hash([2; 48]), ..pinned }), ..bound.clone() },
            CustodyRecord { row_key: record.row_key[..20].to_vec(), ..bound },
        ];
        for edit in edits {
            assert_eq!(edit.check_seal(&backend), Err(CustodyError::UnsealFailed));
        }
    }

    #[test]
    fn the_row_key_comes_back_and_is_nowhere_in_clear() {
        let backend = backend();
        let record = CustodyRecord::generate(&backend, SuiteId::Standard, true).unwrap();
        let key = record.open_row_key(&backend).unwrap();
        let bytes = record.to_bytes();
        for part in key.as_bytes().windows(8) {
            assert!(!bytes.windows(8).any(|window| window == part));
        }
        let other = CustodyRecord::generate(&backend, SuiteId::Standard, true).unwrap();
        assert!(other.open_row_key(&backend).unwrap() != key);
    }

    proptest! {
        #[test]
        fn foreign_bytes_are_an_error_not_a_panic(bytes: Vec<u8>) {
            let _ = CustodyRecord::parse(&bytes);
        }
    }
}
