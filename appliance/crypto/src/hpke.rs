//! Sealing to a public key: HPKE (RFC 9180) in base mode, one message per encapsulation, with ML-KEM-1024
//! (0x0042, draft-ietf-hpke-pq), HKDF-SHA384 (0x0002) and AES-256-GCM (0x0002). The same in both suites.
//!
//! A sealed object is `enc (1568) ‖ ciphertext ‖ tag (16)`. Base mode says nothing about the sender: who must be
//! known signs what was sealed.

use hpke::aead::AesGcm256;
use hpke::kdf::HkdfSha384;
use hpke::kem::MlKem1024;
use hpke::{Deserializable, Kem, OpModeR, OpModeS, Serializable};
use zeroize::Zeroizing;

use crate::drawn::Drawn;
use crate::hazmat::TAG_BYTES;
use crate::secret::{KemSeed, RandomError};
use crate::suite::{ML_KEM_1024_CIPHERTEXT_BYTES, ML_KEM_1024_ENCAPSULATION_KEY_BYTES};
use crate::traits::KeyError;

/// Bytes that sealing adds.
pub const OVERHEAD_BYTES: usize = ML_KEM_1024_CIPHERTEXT_BYTES + TAG_BYTES;

/// What ML-KEM.Encaps takes (FIPS 203, Algorithm 20).
const ENCAPS_RANDOM_BYTES: usize = 32;

type PrivateKey = <MlKem1024 as Kem>::PrivateKey;
type PublicKey = <MlKem1024 as Kem>::PublicKey;
type EncappedKey = <MlKem1024 as Kem>::EncappedKey;

/// Why nothing was sealed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// The recipient's key is not one.
    #[error("recipient: {0}")]
    Recipient(#[source] KeyError),
    /// No randomness.
    #[error(transparent)]
    Random(#[from] RandomError),
    /// The plaintext is longer than AES-GCM allows.
    #[error("plaintext of {bytes} bytes is too long")]
    TooLong {
        /// Length of the plaintext.
        bytes: usize,
    },
}

/// Why nothing was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// Shorter than encapsulation and tag together.
    #[error("sealed object: expected at least {OVERHEAD_BYTES} bytes, got {actual}")]
    TooShort {
        /// The length received.
        actual: usize,
    },
    /// Another recipient, another label, other associated data, or altered bytes.
    #[error("sealed object does not authenticate")]
    Rejected,
}

/// Seals `plaintext` to the holder of `encapsulation_key` (1568 bytes). `label` is an HPKE info of
/// [`crate::labels`]; `aad` says where the object belongs and is not included.
///
/// # Errors
/// [`SealError`] if the key is invalid, no randomness can be had, or the plaintext is too long.
pub fn seal(
    encapsulation_key: &[u8],
    label: &[u8],
    aad: &[u8],
    plaintext: &[u8],
) -> Result<Vec<u8>, SealError> {
    if encapsulation_key.len() != ML_KEM_1024_ENCAPSULATION_KEY_BYTES {
        let expected = ML_KEM_1024_ENCAPSULATION_KEY_BYTES;
        return Err(SealError::Recipient(KeyError::Length { expected, actual: encapsulation_key.len() }));
    }
    let recipient =
        PublicKey::from_bytes(encapsulation_key).map_err(|_| SealError::Recipient(KeyError::Malformed))?;
    let mut randomness = Drawn::new(ENCAPS_RANDOM_BYTES)?;
    let (encapped, mut context) = hpke::setup_sender_with_rng::<AesGcm256, HkdfSha384, MlKem1024>(
        &OpModeS::Base,
        &recipient,
        label,
        &mut randomness,
    )
    .map_err(|_| SealError::Recipient(KeyError::Malformed))?;
    if randomness.overdrawn() {
        return Err(RandomError.into());
    }
    let mut out = Vec::with_capacity(plaintext.len() + OVERHEAD_BYTES);
    out.extend_from_slice(&encapped.to_bytes());
    out.extend_from_slice(plaintext);
    let tag = context
        .seal_inout_detached((&mut out[ML_KEM_1024_CIPHERTEXT_BYTES..]).into(), aad)
        .map_err(|_| SealError::TooLong { bytes: plaintext.len() })?;
    out.extend_from_slice(&tag.to_bytes());
    Ok(out)
}

/// Opens what [`seal`] made for the key pair of `seed`. For several objects, keep an [`OpeningKey`].
///
/// # Errors
/// [`OpenError`]; nothing of the plaintext is released then.
pub fn open(
    seed: &KemSeed,
    label: &[u8],
    aad: &[u8],
    sealed: &[u8],
) -> Result<Zeroizing<Vec<u8>>, OpenError> {
    OpeningKey::new(seed).open(label, aad, sealed)
}

/// The private key of a recipient, expanded once.
pub struct OpeningKey(Box<PrivateKey>);

impl OpeningKey {
    /// Expands a seed (FIPS 203, Algorithm 16).
    #[must_use]
    pub fn new(seed: &KemSeed) -> Self {
        match PrivateKey::from_bytes(seed.as_bytes()) {
            Ok(key) => Self(Box::new(key)),
            Err(_) => unreachable!("any 64 bytes are a seed"),
        }
    }

    /// The encapsulation key that others seal to.
    #[must_use]
    pub fn encapsulation_key(&self) -> Vec<u8> {
        MlKem1024::sk_to_pk(&self.0).to_bytes().to_vec()
    }

    /// Opens what [`seal`] made for this key.
    ///
    /// # Errors
    /// [`OpenError`]; nothing of the plaintext is released then.
    pub fn open(&self, label: &[u8], aad: &[u8], sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, OpenError> {
        if sealed.len() < OVERHEAD_BYTES {
            return Err(OpenError::TooShort { actual: sealed.len() });
        }
        let (encapped, ciphertext) = sealed.split_at(ML_KEM_1024_CIPHERTEXT_BYTES);
        let encapped = EncappedKey::from_bytes(encapped).map_err(|_| OpenError::Rejected)?;
        hpke::setup_receiver::<AesGcm256, HkdfSha384, MlKem1024>(&OpModeR::Base, &self.0, &encapped, label)
            .and_then(|mut context| context.open(ciphertext, aad))
            .map(Zeroizing::new)
            .map_err(|_| OpenError::Rejected)
    }
}

impl std::fmt::Debug for OpeningKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("OpeningKey(redacted)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hazmat;
    use crate::secret::AeadKey;
    use crate::traits::{Backend, DecapsulationKey};
    use crate::{Reference, labels};
    use proptest::prelude::*;

    /// Opens by the text of RFC 9180 (Sections 4, 5.1) with this crate's own HKDF and AES-GCM.
    fn open_by_the_book(key: &dyn DecapsulationKey, info: &[u8], aad: &[u8], sealed: &[u8]) -> Vec<u8> {
        let suite: &[u8] = b"HPKE\x00\x42\x00\x02\x00\x02";
        let extract = |salt: &[u8], label: &[u8], ikm: &[u8]| {
            hazmat::hmac_sha384(salt, &[b"HPKE-v1", suite, label, ikm])
        };
        let (enc, ciphertext) = sealed.split_at(1568);
        let shared = key.decapsulate(enc).unwrap();
        let context =
            [&[0][..], &*extract(b"", b"psk_id_hash", b""), &*extract(b"", b"info_hash", info)].concat();
        let secret = extract(shared.as_bytes(), b"secret", b"");
        let expand = |label: &[u8], out: &mut [u8]| {
            let len = u16::try_from(out.len()).unwrap().to_be_bytes();
            hazmat::hkdf_expand(&secret, &[&len, b"HPKE-v1", suite, label, &context], out).unwrap();
        };
        let (mut key, mut nonce) = ([0; 32], [0; 12]);
        expand(b"key", &mut key);
        expand(b"base_nonce", &mut nonce);
        hazmat::aead_open(&AeadKey::from_bytes(&key), &nonce, aad, ciphertext).unwrap().to_vec()
    }

    #[test]
    fn is_rfc_9180() {
        let seed = KemSeed::generate().unwrap();
        let key = Reference.decapsulation_key(&seed).unwrap();
        assert_eq!(OpeningKey::new(&seed).encapsulation_key(), key.encapsulation_key());
        let sealed = seal(key.encapsulation_key(), labels::HPKE_ROW_KEY, b"row 7", b"secret").unwrap();
        assert_eq!(open_by_the_book(&*key, labels::HPKE_ROW_KEY, b"row 7", &sealed), b"secret");
        assert_eq!(*open(&seed, labels::HPKE_ROW_KEY, b"row 7", &sealed).unwrap(), b"secret");
        assert_eq!(open(&seed, labels::HPKE_RATCHET_TREE_KEY, b"row 7", &sealed), Err(OpenError::Rejected));
    }

    #[test]
    fn bad_recipients_are_named() {
        assert_eq!(
            seal(&[0; 10], labels::HPKE_ROW_KEY, b"", b""),
            Err(SealError::Recipient(KeyError::Length { expected: 1568, actual: 10 }))
        );
        // All ones: coefficients of 4095, above q = 3329.
        assert_eq!(
            seal(&[0xff; 1568], labels::HPKE_ROW_KEY, b"", b""),
            Err(SealError::Recipient(KeyError::Malformed))
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        #[test]
        fn round_trip(seed: [u8; 32], aad: Vec<u8>, plaintext: Vec<u8>) {
            let key = OpeningKey::new(&KemSeed::from_slice(&[seed, seed].concat()).unwrap());
            let sealed = seal(&key.encapsulation_key(), labels::HPKE_ROW_KEY, &aad, &plaintext).unwrap();
            prop_assert_eq!(sealed.len(), plaintext.len() + OVERHEAD_BYTES);
            prop_assert_eq!(&*key.open(labels::HPKE_ROW_KEY, &aad, &sealed).unwrap(), &plaintext);
        }

        #[test]
        fn any_flipped_bit_is_refused(
            plaintext in prop::collection::vec(any::<u8>(), 0..40),
            aad in prop::collection::vec(any::<u8>(), 1..40),
            at: prop::sample::Index,
            bit in 0u8..8,
        ) {
            let key = OpeningKey::new(&KemSeed::from_bytes(&[7; 64]));
            let sealed = seal(&key.encapsulation_key(), labels::HPKE_ROW_KEY, &aad, &plaintext).unwrap();

            let mut bad = sealed.clone();
            bad[at.index(sealed.len())] ^= 1 << bit;
            prop_assert_eq!(key.open(labels::HPKE_ROW_KEY, &aad, &bad), Err(OpenError::Rejected));

            let mut bad = aad.clone();
            bad[at.index(aad.len())] ^= 1 << bit;
            prop_assert_eq!(key.open(labels::HPKE_ROW_KEY, &bad, &sealed), Err(OpenError::Rejected));

            prop_assert!(key.open(labels::HPKE_ROW_KEY, &aad, &sealed[..at.index(sealed.len())]).is_err());
        }
    }
}
