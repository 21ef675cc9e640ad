//! An officer's private keys in one file, sealed under a passphrase.

use minicbor::{Decode, Encode};
use thiserror::Error;
use zeroize::Zeroizing;
use zixt_ceremony::file::Filed;
use zixt_ceremony::{CardError, OfficerCard, file};
use zixt_crypto::aead::{self, OpenError, SealError};
use zixt_crypto::hpke::OpeningKey;
use zixt_crypto::password::{self, DeriveError, Params, SALT_BYTES};
use zixt_crypto::selftest::{GenerateError, generate_decapsulation_key, generate_signing_key};
use zixt_crypto::{
    AeadKey, Backend as _, KemSeed, KeyError, RandomError, Reference, SigningKey, SigningSeed, fill_random,
    hash, labels,
};
use zixt_types::{Canonical, ParseError, SuiteId, limits};

/// The seeds of both keys, one after the other.
const SEEDS_BYTES: usize = SigningSeed::BYTES + KemSeed::BYTES;

/// Why a key file could not be made or opened.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum KeyFileError {
    /// Another file.
    #[error("this is {}, not an officer's key file", found.map_or("no file of this program", |what| what))]
    NotAKeyFile {
        /// What it is, if it is known.
        found: Option<&'static str>,
    },
    /// It begins right and goes on wrong.
    #[error(transparent)]
    Parse(#[from] ParseError),
    /// The passphrase is wrong or a byte was changed; which of the two cannot be known.
    #[error("the passphrase is wrong, or the key file was altered")]
    Rejected,
    /// The card in the file belongs to other keys.
    #[error("the card in the key file is not that of its keys")]
    OtherKeys,
    /// The card itself.
    #[error(transparent)]
    Card(#[from] CardError),
    /// No randomness.
    #[error(transparent)]
    Random(#[from] RandomError),
    /// Not enough memory for the passphrase's derivation.
    #[error(transparent)]
    Derive(#[from] DeriveError),
    /// Nothing could be sealed.
    #[error(transparent)]
    Seal(#[from] SealError),
    /// The keys cannot be used.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// No keys were made.
    #[error(transparent)]
    Generate(#[from] GenerateError),
}

/// The file: the public card in clear, the seeds sealed. Everything in clear is bound to the seeds as associated data.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct KeyFile {
    /// Format version: 1.
    #[n(0)]
    pub version: u64,
    /// The officer's card.
    #[n(1)]
    pub card: OfficerCard,
    /// Argon2id: memory in KiB.
    #[n(2)]
    pub memory_kib: u32,
    /// Argon2id: passes.
    #[n(3)]
    pub passes: u32,
    /// Argon2id: lanes.
    #[n(4)]
    pub lanes: u32,
    /// Argon2id: salt.
    #[cbor(n(5), with = "minicbor::bytes")]
    pub salt: [u8; SALT_BYTES],
    /// AES-256-GCM: the seed of the approval key (32), then that of the ML-KEM key (64).
    #[cbor(n(6), with = "minicbor::bytes")]
    pub sealed: Vec<u8>,
}

impl Canonical for KeyFile {
    const WHAT: &'static str = "officer's key file";
    const BYTES_MAX: usize = limits::OFFICER_KEY_BYTES_MAX;
    const VERSION: Option<u64> = Some(1);

    fn check(&self) -> Result<(), &'static str> {
        self.card.check()?;
        if self.card.version != OfficerCard::VERSION {
            return Err("its card has an unknown version");
        }
        if Params::new(self.memory_kib, self.passes, self.lanes).is_err() {
            return Err("the passphrase's cost is out of range");
        }
        if self.sealed.len() != SEEDS_BYTES + aead::OVERHEAD_BYTES {
            return Err("what is sealed has the wrong length");
        }
        Ok(())
    }
}

impl Filed for KeyFile {
    const MAGIC: &'static [u8; file::MAGIC_BYTES] = b"ZIXTOFK1";
    const EXTENSION: &'static str = "zixt-key";
}

impl KeyFile {
    /// Reads a file without opening it: the card is there for everybody.
    ///
    /// # Errors
    /// [`KeyFileError::NotAKeyFile`], [`KeyFileError::Parse`], [`KeyFileError::Card`].
    pub fn read(file: &[u8]) -> Result<Self, KeyFileError> {
        let Some(bytes) = file.strip_prefix(Self::MAGIC) else {
            return Err(KeyFileError::NotAKeyFile { found: file::kind(file) });
        };
        let key_file = Self::parse(bytes)?;
        key_file.card.verify(&Reference)?;
        Ok(key_file)
    }

    /// Opens the seeds.
    ///
    /// # Errors
    /// [`KeyFileError::Rejected`], [`KeyFileError::OtherKeys`], [`KeyFileError::Derive`].
    pub fn open(&self, passphrase: &str) -> Result<OfficerKey, KeyFileError> {
        let key = self.sealing_key(passphrase)?;
        let seeds = aead::open(&key, &self.context(), &self.sealed).map_err(|error| match error {
            OpenError::TooShort { .. } | OpenError::Rejected => KeyFileError::Rejected,
        })?;
        let (signing, kem) = seeds.split_at(SigningSeed::BYTES);
        let signing = SigningSeed::from_slice(signing).map_err(|_| KeyFileError::Rejected)?;
        let kem = KemSeed::from_slice(kem).map_err(|_| KeyFileError::Rejected)?;
        let opened = OfficerKey::from_seeds(signing, kem, self.card.clone())?;
        let card = &self.card;
        if opened.signing.public_key() != card.approval || opened.opening.encapsulation_key() != card.kem {
            return Err(KeyFileError::OtherKeys);
        }
        Ok(opened)
    }

    fn sealing_key(&self, passphrase: &str) -> Result<AeadKey, KeyFileError> {
        // `check` has seen the numbers; if they are out of range after all, no passphrase opens the file.
        let cost =
            Params::new(self.memory_kib, self.passes, self.lanes).map_err(|_| KeyFileError::Rejected)?;
        Ok(sealing_key(cost, &self.salt, passphrase, labels::OFFICER_KEY)?)
    }

    fn context(&self) -> Vec<u8> {
        let mut aad = labels::OFFICER_KEY.to_vec();
        aad.extend_from_slice(&Self { sealed: Vec::new(), ..self.clone() }.to_bytes());
        aad
    }
}

/// The key that a file is sealed under, from its passphrase.
pub(super) fn sealing_key(
    cost: Params,
    salt: &[u8; SALT_BYTES],
    passphrase: &str,
    label: &[u8],
) -> Result<AeadKey, DeriveError> {
    let derived = password::derive(cost, salt, passphrase.as_bytes())?;
    Ok(hash::derive_key(salt, derived.as_slice(), label, &[]))
}

/// An officer's keys, opened.
pub struct OfficerKey {
    card: OfficerCard,
    signing_seed: SigningSeed,
    kem_seed: KemSeed,
    signing: Box<dyn SigningKey>,
    opening: OpeningKey,
}

impl OfficerKey {
    /// Fresh keys and their card.
    ///
    /// # Errors
    /// [`KeyFileError`]: the name cannot stand on a card, or there is no randomness.
    pub fn generate(name: &str, suite: SuiteId) -> Result<Self, KeyFileError> {
        let (signing_seed, signing) = generate_signing_key(&Reference, suite)?;
        let (kem_seed, _) = generate_decapsulation_key(&Reference)?;
        let opening = OpeningKey::new(&kem_seed);
        let card = OfficerCard::new(name, &*signing, &opening.encapsulation_key())?;
        Ok(Self { card, signing_seed, kem_seed, signing, opening })
    }

    fn from_seeds(
        signing_seed: SigningSeed,
        kem_seed: KemSeed,
        card: OfficerCard,
    ) -> Result<Self, KeyFileError> {
        let signing = Reference.signing_key(card.suite, &signing_seed)?;
        let opening = OpeningKey::new(&kem_seed);
        Ok(Self { card, signing_seed, kem_seed, signing, opening })
    }

    /// The public card.
    #[must_use]
    pub const fn card(&self) -> &OfficerCard {
        &self.card
    }

    /// The approval key.
    #[must_use]
    pub fn signing(&self) -> &dyn SigningKey {
        &*self.signing
    }

    /// The ML-KEM key.
    #[must_use]
    pub const fn opening(&self) -> &OpeningKey {
        &self.opening
    }

    /// The bytes of a key file, sealed under a passphrase.
    ///
    /// # Errors
    /// [`KeyFileError`]: no randomness, or no memory for the derivation.
    pub fn seal(&self, passphrase: &str, cost: Params) -> Result<Vec<u8>, KeyFileError> {
        let mut key_file = KeyFile {
            version: 1,
            card: self.card.clone(),
            memory_kib: cost.memory_kib(),
            passes: cost.passes(),
            lanes: cost.lanes(),
            salt: [0; SALT_BYTES],
            sealed: Vec::new(),
        };
        fill_random(&mut key_file.salt)?;
        let mut seeds = Zeroizing::new([0; SEEDS_BYTES]);
        seeds[..SigningSeed::BYTES].copy_from_slice(self.signing_seed.as_bytes());
        seeds[SigningSeed::BYTES..].copy_from_slice(self.kem_seed.as_bytes());
        let key = key_file.sealing_key(passphrase)?;
        key_file.sealed = aead::seal(&key, &key_file.context(), seeds.as_slice())?;
        Ok(file::to_file(&key_file))
    }
}

impl std::fmt::Debug for OfficerKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "OfficerKey({:?}, redacted)", self.card.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSPHRASE: &str = "correct horse battery";

    #[test]
    fn keys_survive_and_the_passphrase_counts() {
        for suite in SuiteId::ALL {
            let key = OfficerKey::generate("Ada", suite).unwrap();
            let file = key.seal(PASSPHRASE, Params::MIN).unwrap();
            let read = KeyFile::read(&file).unwrap();
            assert_eq!(&read.card, key.card());
            let opened = read.open(PASSPHRASE).unwrap();
            assert_eq!(opened.signing().public_key(), key.signing().public_key());
            assert_eq!(opened.opening().encapsulation_key(), key.opening().encapsulation_key());
            assert_eq!(read.open("correct horse batterz").map(|_| ()), Err(KeyFileError::Rejected));
            for secret in [key.signing_seed.as_bytes().as_slice(), key.kem_seed.as_bytes()] {
                assert!(!file.windows(16).any(|window| window == &secret[..16]), "no seed in clear");
            }
            assert_eq!(format!("{opened:?}"), "OfficerKey(\"Ada\", redacted)");
        }
    }

    #[test]
    fn no_byte_of_the_file_can_be_changed() {
        let key = OfficerKey::generate("Ada", SuiteId::Standard).unwrap();
        let file = key.seal(PASSPHRASE, Params::MIN).unwrap();
        let about_sealed = file.len() - 160..file.len();
        for at in (0..file.len()).step_by(97).chain(about_sealed) {
            let mut other = file.clone();
            other[at] ^= 1;
            let opened = KeyFile::read(&other).and_then(|file| file.open(PASSPHRASE));
            assert!(opened.is_err(), "byte {at}");
        }
        assert_eq!(
            KeyFile::read(&file::to_file(key.card())).map(|_| ()),
            Err(KeyFileError::NotAKeyFile { found: Some("officer's card") })
        );
    }

    #[test]
    fn a_card_of_other_keys_is_refused() {
        let (a, b) =
            (OfficerKey::generate("Ada", SuiteId::Standard), OfficerKey::generate("Ada", SuiteId::Standard));
        let (a, mut b) = (a.unwrap(), b.unwrap());
        // A file that was sealed rightly, with somebody else's card in it.
        b.card = a.card().clone();
        let file = b.seal(PASSPHRASE, Params::MIN).unwrap();
        assert_eq!(KeyFile::read(&file).unwrap().open(PASSPHRASE).map(|_| ()), Err(KeyFileError::OtherKeys));
    }
}
