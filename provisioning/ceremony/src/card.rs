//! An officer's public card: who the officer is, to be compared in person once and then used for every ceremony.

use minicbor::{Decode, Encode};
use thiserror::Error;
use zixt_crypto::suite::ML_KEM_1024_ENCAPSULATION_KEY_BYTES;
use zixt_crypto::{Backend, SignError, SigningKey, VerifyError, cose, digest, labels, suite_params};
use zixt_types::{Canonical, Hash, Officer, ParseError, ShareHolder, SuiteId, is_readable, limits};

/// Name and public keys of an officer, signed with the approval key: proof that whoever made the card holds that key, and
/// that the ML-KEM key beside it is the same officer's. That the name is true, people see.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct OfficerCard {
    /// Format version: 1.
    #[n(0)]
    pub version: u64,
    /// The officer's name.
    #[n(1)]
    pub name: String,
    /// The suite of the approval key.
    #[n(2)]
    pub suite: SuiteId,
    /// The approval key (ML-DSA).
    #[cbor(n(3), with = "minicbor::bytes")]
    pub approval: Vec<u8>,
    /// The ML-KEM-1024 key that shares are sealed to.
    #[cbor(n(4), with = "minicbor::bytes")]
    pub kem: Vec<u8>,
    /// The approval key's signature over all this, with an empty signature.
    #[cbor(n(5), with = "minicbor::bytes")]
    pub signature: Vec<u8>,
}

/// Why a card is not to be believed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum CardError {
    /// The bytes are no card.
    #[error(transparent)]
    Parse(#[from] ParseError),
    /// The signature is not the card's key's.
    #[error("the card of \"{name}\" was altered: {source}")]
    Signature {
        /// The name on it.
        name: String,
        /// The fault.
        #[source]
        source: VerifyError,
    },
    /// Nothing could be signed.
    #[error(transparent)]
    Sign(#[from] SignError),
    /// The name cannot stand on a card.
    #[error("an officer's name has 1 to {max} bytes and no hidden characters", max = limits::NAME_BYTES_MAX)]
    Name,
}

impl OfficerCard {
    /// The format version that this program writes.
    pub const VERSION: u64 = 1;

    /// Makes and signs a card.
    ///
    /// # Errors
    /// [`CardError::Name`], [`CardError::Sign`].
    pub fn new(name: &str, key: &dyn SigningKey, kem: &[u8]) -> Result<Self, CardError> {
        if !is_readable(name, limits::NAME_BYTES_MAX) {
            return Err(CardError::Name);
        }
        let mut card = Self {
            version: Self::VERSION,
            name: name.to_owned(),
            suite: key.suite(),
            approval: key.public_key().to_vec(),
            kem: kem.to_vec(),
            signature: Vec::new(),
        };
        card.signature = cose::sign(key, labels::OFFICER_CARD, &card.signed())?;
        Ok(card)
    }

    /// Checks the signature.
    ///
    /// # Errors
    /// [`CardError::Signature`].
    pub fn verify(&self, backend: &dyn Backend) -> Result<(), CardError> {
        cose::verify(
            backend,
            self.suite,
            &self.approval,
            labels::OFFICER_CARD,
            &self.signed(),
            &self.signature,
        )
        .map_err(|source| CardError::Signature { name: self.name.clone(), source })
    }

    /// The officer's approval key as a genesis and a rule name it.
    #[must_use]
    pub fn officer(&self) -> Hash {
        digest::key_hash(self.suite, &self.approval)
    }

    /// The officer as a genesis lists it.
    #[must_use]
    pub fn to_officer(&self) -> Officer {
        Officer { name: self.name.clone(), key: self.officer() }
    }

    /// The officer as holder of a share.
    #[must_use]
    pub fn holder(&self) -> ShareHolder {
        ShareHolder { officer: self.officer(), kem: digest::kem_key_hash(&self.kem) }
    }

    fn signed(&self) -> Vec<u8> {
        Self { signature: Vec::new(), ..self.clone() }.to_bytes()
    }
}

impl Canonical for OfficerCard {
    const WHAT: &'static str = "officer's card";
    const BYTES_MAX: usize = limits::OFFICER_CARD_BYTES_MAX;
    const VERSION: Option<u64> = Some(Self::VERSION);

    fn check(&self) -> Result<(), &'static str> {
        if !is_readable(&self.name, limits::NAME_BYTES_MAX) {
            return Err("the name is empty, too long, or has characters that hide");
        }
        let params = suite_params(self.suite);
        if self.approval.len() != params.public_key_bytes || self.signature.len() != params.signature_bytes {
            return Err("key or signature does not have the length of its suite");
        }
        if self.kem.len() != ML_KEM_1024_ENCAPSULATION_KEY_BYTES {
            return Err("the ML-KEM key has the wrong length");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use zixt_crypto::hpke::OpeningKey;
    use zixt_crypto::{KemSeed, Reference, SigningSeed};

    fn card(suite: SuiteId) -> OfficerCard {
        let key = Reference.signing_key(suite, &SigningSeed::from_bytes(&[1; 32])).unwrap();
        let kem = OpeningKey::new(&KemSeed::from_bytes(&[2; 64])).encapsulation_key();
        OfficerCard::new("Ada Muster", &*key, &kem).unwrap()
    }

    #[test]
    fn a_card_proves_its_key_and_nothing_can_be_changed() {
        for suite in SuiteId::ALL {
            let card = card(suite);
            assert_eq!(OfficerCard::parse(&card.to_bytes()), Ok(card.clone()));
            assert_eq!(card.verify(&Reference), Ok(()));
            let mut other = card.clone();
            other.name = "Eve".to_owned();
            assert!(
                matches!(other.verify(&Reference), Err(CardError::Signature { name, .. }) if name == "Eve")
            );
            let mut other = card.clone();
            other.kem[7] ^= 1;
            assert!(other.verify(&Reference).is_err());
            assert_ne!(other.holder().kem, card.holder().kem);
            assert_eq!(other.holder().officer, card.officer());
        }
    }

    #[test]
    fn a_name_that_hides_something_makes_no_card() {
        let key = Reference.signing_key(SuiteId::Standard, &SigningSeed::from_bytes(&[1; 32])).unwrap();
        for name in ["", " ", "a\u{202e}b", "a\nb", &"x".repeat(limits::NAME_BYTES_MAX + 1)] {
            assert_eq!(OfficerCard::new(name, &*key, &[0; 1568]), Err(CardError::Name), "{name:?}");
        }
        let mut bad = card(SuiteId::Standard);
        bad.name = "a\u{1b}b".to_owned();
        assert!(OfficerCard::parse(&bad.to_bytes()).is_err());
    }
}
