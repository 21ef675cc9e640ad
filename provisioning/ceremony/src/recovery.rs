//! The recovery key and its shares. Root keys are sealed to its public half, so that the root can be rotated without
//! officers; its private half exists only while it is made and while officers recover.

use crate::paper;
use crate::shamir::{self, SECRET_BYTES, SharingError, Value};
use minicbor::{Decode, Encode};
use std::collections::BTreeMap;
use thiserror::Error;
use zeroize::Zeroizing;
use zixt_crypto::hash::constant_time_eq;
use zixt_crypto::hpke::{self, OpenError, OpeningKey, SealError};
use zixt_crypto::selftest::{GenerateError, generate_decapsulation_key};
use zixt_crypto::suite::ML_KEM_1024_ENCAPSULATION_KEY_BYTES;
use zixt_crypto::{KemSeed, RandomError, Reference, digest, hash, labels};
use zixt_types::{ApplianceId, Canonical, Hash, ShareHolder, limits};

/// Why a share or the recovery key could not be made, opened or put together.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum RecoveryError {
    /// No randomness.
    #[error(transparent)]
    Random(#[from] RandomError),
    /// The holders make no recovery key.
    #[error("these holders make no recovery key: {0}")]
    Holders(&'static str),
    /// The ML-KEM key of a holder is not there.
    #[error("the ML-KEM key {kem} of officer {officer} is missing; ask for the officer's card")]
    KeyMissing {
        /// The officer.
        officer: Hash,
        /// Hash of the key.
        kem: Hash,
    },
    /// Nothing could be sealed.
    #[error("a share cannot be sealed: {0}")]
    Seal(#[from] SealError),
    /// The sharing layer refused.
    #[error(transparent)]
    Sharing(#[from] SharingError),
    /// The share is sealed to another key than the one given.
    #[error("share {index} is sealed to the ML-KEM key {sealed_to}, and the key given is {got}")]
    OtherHolder {
        /// Which share.
        index: u8,
        /// Hash of the key that opens it.
        sealed_to: Hash,
        /// Hash of the key that was tried.
        got: Hash,
    },
    /// What was sealed does not open: it was altered, or moved here from elsewhere.
    #[error("share {index} of officer {officer} does not open: {source}")]
    Open {
        /// Which share.
        index: u8,
        /// The officer.
        officer: Hash,
        /// The fault.
        #[source]
        source: OpenError,
    },
    /// A share that is not the one that was given out.
    #[error("share {index} of officer {officer} is wrong: it is not the share that was given out")]
    WrongShare {
        /// Which share.
        index: u8,
        /// The officer.
        officer: Hash,
    },
    /// A share of another recovery key, or one that the record does not know.
    #[error("the share belongs to recovery key {got}, and this is {expected}")]
    OtherRecovery {
        /// The recovery key of the record.
        expected: Hash,
        /// The share's.
        got: Hash,
    },
    /// An index that the record does not have.
    #[error("there is no share {index}; the recovery key has {count}")]
    NoSuchShare {
        /// The index.
        index: u8,
        /// Shares there are.
        count: usize,
    },
    /// Another share of the same recovery key.
    #[error("this paper is share {got}, and the file is share {expected}")]
    OtherShare {
        /// The file's.
        expected: u8,
        /// The paper's.
        got: u8,
    },
    /// The same share twice.
    #[error("share {index} of officer {officer} is there twice; it counts once")]
    Repeated {
        /// Which share.
        index: u8,
        /// The officer.
        officer: Hash,
    },
    /// Not enough shares.
    #[error("{got} of the {threshold} shares required are there")]
    TooFew {
        /// Shares given.
        got: usize,
        /// Shares required.
        threshold: u8,
    },
    /// Every share is right and the key is not: the record itself contradicts itself.
    #[error("the shares give another key than the record's; the record was put together from two")]
    OtherKey,
    /// What stands on paper cannot be read.
    #[error(transparent)]
    Paper(#[from] paper::PaperError),
}

/// The private half of the recovery key.
pub struct RecoveryKey {
    seed: KemSeed,
    key: OpeningKey,
    encapsulation_key: Vec<u8>,
}

impl RecoveryKey {
    /// A fresh one.
    ///
    /// # Errors
    /// [`GenerateError`]: no randomness, or halves that do not fit.
    pub fn generate() -> Result<Self, GenerateError> {
        let (seed, _) = generate_decapsulation_key(&Reference)?;
        Ok(Self::from_seed(seed))
    }

    fn from_seed(seed: KemSeed) -> Self {
        let key = OpeningKey::new(&seed);
        let encapsulation_key = key.encapsulation_key();
        Self { seed, key, encapsulation_key }
    }

    /// The public half, which root keys are sealed to (`zixt_crypto::hpke`, label `HPKE_RECOVERY_ROOT`).
    #[must_use]
    pub fn encapsulation_key(&self) -> &[u8] {
        &self.encapsulation_key
    }

    /// Its hash, by which shares and backups name it.
    #[must_use]
    pub fn id(&self) -> Hash {
        digest::kem_key_hash(&self.encapsulation_key)
    }

    /// Opens what was sealed to the public half.
    ///
    /// # Errors
    /// [`OpenError`], as [`OpeningKey::open`].
    pub fn open(&self, label: &[u8], aad: &[u8], sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, OpenError> {
        self.key.open(label, aad, sealed)
    }

    /// Splits the key among `holders` (ascending by officer, as in the action), each share sealed to its holder's ML-KEM
    /// key. `kems` are those keys in any order; they are found by their hashes, so that nobody gets a share who is not in
    /// the action.
    ///
    /// # Errors
    /// [`RecoveryError`]: holders or threshold make no sense, a key is missing or malformed, no randomness.
    pub fn share(
        &self,
        genesis: Hash,
        appliance: ApplianceId,
        threshold: u8,
        holders: &[ShareHolder],
        kems: &[Vec<u8>],
    ) -> Result<RecoveryRecord, RecoveryError> {
        let count = u8::try_from(holders.len()).map_err(|_| RecoveryError::Holders("there are too many"))?;
        let by_hash: BTreeMap<Hash, &[u8]> =
            kems.iter().map(|kem| (digest::kem_key_hash(kem), kem.as_slice())).collect();
        let recovery = self.id();
        let values = shamir::split(self.seed.as_bytes(), threshold, count)?;
        let mut shares = Vec::with_capacity(holders.len());
        for ((holder, value), index) in holders.iter().zip(&values).zip(1u8..=u8::MAX) {
            let kem = by_hash
                .get(&holder.kem)
                .ok_or(RecoveryError::KeyMissing { officer: holder.officer, kem: holder.kem })?;
            let mut share = SealedShare {
                version: SealedShare::VERSION,
                genesis,
                appliance,
                recovery,
                threshold,
                index,
                officer: holder.officer,
                kem: holder.kem,
                commitment: commitment(recovery, index, value),
                sealed: Vec::new(),
            };
            share.sealed = hpke::seal(kem, labels::HPKE_RECOVERY_SHARE, &share.context(), value.as_slice())?;
            shares.push(share);
        }
        let record = RecoveryRecord {
            version: RecoveryRecord::VERSION,
            encapsulation_key: self.encapsulation_key.clone(),
            shares,
        };
        record.check().map_err(RecoveryError::Holders)?;
        Ok(record)
    }
}

impl std::fmt::Debug for RecoveryKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "RecoveryKey({:?}, redacted)", self.id())
    }
}

/// A share is 64 random bytes, so its hash tells nobody what it is, and everybody whether it is the right one.
fn commitment(recovery: Hash, index: u8, value: &[u8; SECRET_BYTES]) -> Hash {
    hash::sha384(labels::SHARE_COMMITMENT, &[recovery.as_ref(), &[index], value])
}

/// An officer's share, sealed to the officer's ML-KEM key. All but `sealed` is bound to it as associated data.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct SealedShare {
    /// Format version: 1.
    #[n(0)]
    pub version: u64,
    /// The network.
    #[n(1)]
    pub genesis: Hash,
    /// The appliance whose custody it recovers.
    #[n(2)]
    pub appliance: ApplianceId,
    /// The recovery key: the hash of its public half.
    #[n(3)]
    pub recovery: Hash,
    /// How many shares give the key back.
    #[n(4)]
    pub threshold: u8,
    /// Which share it is, from 1.
    #[n(5)]
    pub index: u8,
    /// Who holds it: hash of the approval key.
    #[n(6)]
    pub officer: Hash,
    /// Hash of the ML-KEM key that it is sealed to.
    #[n(7)]
    pub kem: Hash,
    /// Labelled hash of the share, so that a wrong one can be named.
    #[n(8)]
    pub commitment: Hash,
    /// The share: HPKE, 1648 bytes.
    #[cbor(n(9), with = "minicbor::bytes")]
    pub sealed: Vec<u8>,
}

impl SealedShare {
    /// The format version that this program writes.
    pub const VERSION: u64 = 1;

    /// Everything but what is sealed, in the same encoding.
    fn context(&self) -> Vec<u8> {
        Self { sealed: Vec::new(), ..self.clone() }.to_bytes()
    }

    /// Opens the share with the officer's ML-KEM key and compares it with its commitment.
    ///
    /// # Errors
    /// [`RecoveryError::OtherHolder`], [`RecoveryError::Open`], [`RecoveryError::WrongShare`].
    pub fn open(&self, key: &OpeningKey) -> Result<Share, RecoveryError> {
        let got = digest::kem_key_hash(&key.encapsulation_key());
        if got != self.kem {
            return Err(RecoveryError::OtherHolder { index: self.index, sealed_to: self.kem, got });
        }
        let opened = key
            .open(labels::HPKE_RECOVERY_SHARE, &self.context(), &self.sealed)
            .map_err(|source| RecoveryError::Open { index: self.index, officer: self.officer, source })?;
        self.admit(&opened)
    }

    /// Reads this share from paper, words or the text of a QR code, and compares it with its commitment.
    ///
    /// # Errors
    /// [`RecoveryError::Paper`], [`RecoveryError::OtherShare`], [`RecoveryError::WrongShare`].
    pub fn share_from_paper(&self, text: &str) -> Result<Share, RecoveryError> {
        let paper = paper::read(text)?;
        paper.belongs_to(self.recovery)?;
        if paper.index != self.index {
            return Err(RecoveryError::OtherShare { expected: self.index, got: paper.index });
        }
        self.admit(paper.value.as_slice())
    }

    /// Takes a value for this share if it is the one that was given out.
    pub(crate) fn admit(&self, bytes: &[u8]) -> Result<Share, RecoveryError> {
        let wrong = RecoveryError::WrongShare { index: self.index, officer: self.officer };
        let mut value: Value = Box::new(Zeroizing::new([0; SECRET_BYTES]));
        if bytes.len() != SECRET_BYTES {
            return Err(wrong);
        }
        value.copy_from_slice(bytes);
        let is = commitment(self.recovery, self.index, &value);
        if !constant_time_eq(is.as_ref(), self.commitment.as_ref()) {
            return Err(wrong);
        }
        Ok(Share { recovery: self.recovery, index: self.index, threshold: self.threshold, value })
    }
}

impl Canonical for SealedShare {
    const WHAT: &'static str = "sealed share";
    const BYTES_MAX: usize = limits::SEALED_SHARE_BYTES_MAX;
    const VERSION: Option<u64> = Some(Self::VERSION);

    fn check(&self) -> Result<(), &'static str> {
        if self.index == 0 || self.threshold < 2 {
            return Err("its index is 0, or one share would be enough");
        }
        if self.sealed.len() != SECRET_BYTES + hpke::OVERHEAD_BYTES {
            return Err("what is sealed has the wrong length");
        }
        Ok(())
    }
}

/// An opened share: what its officer keeps on paper and releases for a recovery. Made only from a value that fits its
/// commitment.
pub struct Share {
    pub(crate) recovery: Hash,
    pub(crate) index: u8,
    pub(crate) threshold: u8,
    pub(crate) value: Value,
}

impl Share {
    /// Which share it is, from 1.
    #[must_use]
    pub const fn index(&self) -> u8 {
        self.index
    }

    /// The recovery key that it is a share of.
    #[must_use]
    pub const fn recovery(&self) -> Hash {
        self.recovery
    }

    /// How many shares give the key back.
    #[must_use]
    pub const fn threshold(&self) -> u8 {
        self.threshold
    }

    /// The share in words, for paper; see [`crate::paper`].
    #[must_use]
    pub fn to_words(&self) -> Zeroizing<String> {
        paper::to_words(self.recovery, self.index, &self.value)
    }

    /// The share as text for a QR code.
    #[must_use]
    pub fn to_code(&self) -> Zeroizing<String> {
        paper::to_code(self.recovery, self.index, &self.value)
    }
}

impl std::fmt::Debug for Share {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Share({} of {:?}, redacted)", self.index, self.recovery)
    }
}

/// What custody keeps of a recovery key, and every backup carries: the public half and the sealed shares.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct RecoveryRecord {
    /// Format version: 1.
    #[n(0)]
    pub version: u64,
    /// The public half of the recovery key.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub encapsulation_key: Vec<u8>,
    /// The shares: number `i` (from 0) has index `i + 1`, ascending by officer.
    #[n(2)]
    pub shares: Vec<SealedShare>,
}

impl RecoveryRecord {
    /// The format version that this program writes.
    pub const VERSION: u64 = 1;

    /// The recovery key's name.
    #[must_use]
    pub fn id(&self) -> Hash {
        digest::kem_key_hash(&self.encapsulation_key)
    }

    /// How many shares give the key back.
    #[must_use]
    pub fn threshold(&self) -> u8 {
        // `check` refuses a record without shares.
        self.shares.first().map_or(u8::MAX, |share| share.threshold)
    }

    /// The share that an officer holds.
    #[must_use]
    pub fn share_of(&self, officer: &Hash) -> Option<&SealedShare> {
        self.shares.iter().find(|share| share.officer == *officer)
    }

    /// The share of this index, if it is of this recovery key.
    pub(crate) fn share_at(&self, recovery: Hash, index: u8) -> Result<&SealedShare, RecoveryError> {
        let expected = self.id();
        if recovery != expected {
            return Err(RecoveryError::OtherRecovery { expected, got: recovery });
        }
        usize::from(index)
            .checked_sub(1)
            .and_then(|at| self.shares.get(at))
            .ok_or(RecoveryError::NoSuchShare { index, count: self.shares.len() })
    }

    /// Reads a share from paper, words or the text of a QR code, and compares it with its commitment.
    ///
    /// # Errors
    /// [`RecoveryError::Paper`], [`RecoveryError::WrongShare`], [`RecoveryError::NoSuchShare`].
    pub fn share_from_paper(&self, text: &str) -> Result<Share, RecoveryError> {
        let paper = paper::read(text)?;
        paper.belongs_to(self.id())?;
        self.share_at(self.id(), paper.index)?.admit(paper.value.as_slice())
    }

    /// Puts the key together. Every share was checked when it was opened; here they are counted, and the key is compared
    /// with the record's.
    ///
    /// # Errors
    /// [`RecoveryError::OtherRecovery`], [`RecoveryError::WrongShare`], [`RecoveryError::Repeated`],
    /// [`RecoveryError::TooFew`], [`RecoveryError::OtherKey`].
    pub fn combine(&self, shares: &[Share]) -> Result<RecoveryKey, RecoveryError> {
        let mut seen: BTreeMap<u8, &[u8; SECRET_BYTES]> = BTreeMap::new();
        for share in shares {
            let known = self.share_at(share.recovery, share.index)?;
            known.admit(share.value.as_slice())?;
            if seen.insert(share.index, &share.value).is_some() {
                return Err(RecoveryError::Repeated { index: share.index, officer: known.officer });
            }
        }
        let threshold = self.threshold();
        if seen.len() < usize::from(threshold) {
            return Err(RecoveryError::TooFew { got: seen.len(), threshold });
        }
        let taken: Vec<_> = seen.into_iter().take(usize::from(threshold)).collect();
        let seed = shamir::combine(&taken)?;
        let key = RecoveryKey::from_seed(KemSeed::from_bytes(&seed));
        if key.encapsulation_key == self.encapsulation_key { Ok(key) } else { Err(RecoveryError::OtherKey) }
    }
}

impl Canonical for RecoveryRecord {
    const WHAT: &'static str = "recovery record";
    const BYTES_MAX: usize = limits::RECOVERY_RECORD_BYTES_MAX;
    const VERSION: Option<u64> = Some(Self::VERSION);

    fn check(&self) -> Result<(), &'static str> {
        if self.encapsulation_key.len() != ML_KEM_1024_ENCAPSULATION_KEY_BYTES {
            return Err("the recovery key has the wrong length");
        }
        let Some(first) = self.shares.first() else { return Err("it has no shares") };
        if self.shares.len() > limits::GENESIS_KEYS_MAX {
            return Err("it has more shares than a network has officers");
        }
        if first.recovery != self.id() {
            return Err("its shares are of another recovery key");
        }
        let common = |share: &SealedShare| {
            (share.version, share.genesis, share.appliance, share.recovery, share.threshold)
        };
        for (share, index) in self.shares.iter().zip(1u8..=u8::MAX) {
            share.check()?;
            if common(share) != common(first) || share.version != SealedShare::VERSION || share.index != index
            {
                return Err("its shares do not belong together");
            }
        }
        if !self.shares.windows(2).all(|pair| pair[0].officer < pair[1].officer) {
            return Err("its shares are not sorted or repeat an officer");
        }
        let mut kems: Vec<Hash> = self.shares.iter().map(|share| share.kem).collect();
        kems.sort_unstable();
        if kems.windows(2).any(|pair| pair[0] == pair[1]) {
            return Err("two officers have the same ML-KEM key");
        }
        if usize::from(first.threshold) > self.shares.len() {
            return Err("it requires more shares than there are");
        }
        Ok(())
    }
}
