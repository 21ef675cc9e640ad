//! AES-256-GCM (SP 800-38D) with a random nonce in front: `nonce (12) ‖ ciphertext ‖ tag (16)`.
//!
//! A random 96-bit nonce bounds a key to 2³² messages (SP 800-38D, Section 8.3). Keys here seal rows, blobs and
//! stores and stay far below; what seals more must derive a key per object.

use zeroize::Zeroizing;

use crate::hazmat::{self, GcmError, NONCE_BYTES, TAG_BYTES};
use crate::secret::{AeadKey, RandomError, fill_random};

/// Bytes that sealing adds.
pub const OVERHEAD_BYTES: usize = NONCE_BYTES + TAG_BYTES;

/// Why nothing was sealed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// No randomness for the nonce.
    #[error(transparent)]
    Random(#[from] RandomError),
    /// The plaintext is longer than the mode allows (64 GiB).
    #[error("plaintext of {bytes} bytes is too long for AES-GCM")]
    TooLong {
        /// Length of the plaintext.
        bytes: usize,
    },
}

/// Why nothing was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// Shorter than nonce and tag together.
    #[error("sealed data: expected at least {OVERHEAD_BYTES} bytes, got {actual}")]
    TooShort {
        /// The length received.
        actual: usize,
    },
    /// Another key, other associated data, or altered bytes; which of them cannot be known.
    #[error("sealed data does not authenticate")]
    Rejected,
}

/// Seals `plaintext` under `key`. `aad` is bound but not included: start it with a label of [`crate::labels`] and
/// add what says where this ciphertext belongs, so that it cannot be moved to another row.
///
/// # Errors
/// [`SealError`] if no randomness can be had or the plaintext is too long.
pub fn seal(key: &AeadKey, aad: &[u8], plaintext: &[u8]) -> Result<Vec<u8>, SealError> {
    let mut nonce = [0; NONCE_BYTES];
    fill_random(&mut nonce)?;
    let mut out = Vec::with_capacity(plaintext.len() + OVERHEAD_BYTES);
    out.extend_from_slice(&nonce);
    hazmat::aead_seal_into(key, &nonce, aad, plaintext, &mut out)
        .map_err(|GcmError| SealError::TooLong { bytes: plaintext.len() })?;
    Ok(out)
}

/// Opens what [`seal`] made with the same key and `aad`.
///
/// # Errors
/// [`OpenError`]; nothing of the plaintext is released then.
pub fn open(key: &AeadKey, aad: &[u8], sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, OpenError> {
    if sealed.len() < OVERHEAD_BYTES {
        return Err(OpenError::TooShort { actual: sealed.len() });
    }
    let (nonce, ciphertext) =
        sealed.split_first_chunk::<NONCE_BYTES>().ok_or(OpenError::TooShort { actual: sealed.len() })?;
    hazmat::aead_open(key, nonce, aad, ciphertext).map_err(|GcmError| OpenError::Rejected)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn nonces_are_fresh_and_short_input_is_named() {
        let key = AeadKey::generate().unwrap();
        let a = seal(&key, b"aad", b"same").unwrap();
        let b = seal(&key, b"aad", b"same").unwrap();
        assert_ne!(a[..NONCE_BYTES], b[..NONCE_BYTES]);
        for len in 0..OVERHEAD_BYTES {
            assert_eq!(open(&key, b"aad", &a[..len]), Err(OpenError::TooShort { actual: len }));
        }
    }

    proptest! {
        #[test]
        fn round_trip(key: [u8; 32], aad: Vec<u8>, plaintext: Vec<u8>) {
            let key = AeadKey::from_bytes(&key);
            let sealed = seal(&key, &aad, &plaintext).unwrap();
            prop_assert_eq!(sealed.len(), plaintext.len() + OVERHEAD_BYTES);
            prop_assert_eq!(&*open(&key, &aad, &sealed).unwrap(), &plaintext);
        }

        #[test]
        fn any_flipped_bit_is_refused(
            key: [u8; 32],
            aad in prop::collection::vec(any::<u8>(), 1..40),
            plaintext in prop::collection::vec(any::<u8>(), 0..80),
            at: prop::sample::Index,
            bit in 0u8..8,
        ) {
            let key = AeadKey::from_bytes(&key);
            let sealed = seal(&key, &aad, &plaintext).unwrap();

            let mut bad = sealed.clone();
            bad[at.index(sealed.len())] ^= 1 << bit;
            prop_assert_eq!(open(&key, &aad, &bad), Err(OpenError::Rejected));

            let mut bad = aad.clone();
            bad[at.index(aad.len())] ^= 1 << bit;
            prop_assert_eq!(open(&key, &bad, &sealed), Err(OpenError::Rejected));

            let mut bad = *key.as_bytes();
            bad[at.index(32)] ^= 1 << bit;
            prop_assert_eq!(open(&AeadKey::from_bytes(&bad), &aad, &sealed), Err(OpenError::Rejected));

            let cut = at.index(sealed.len());
            prop_assert!(open(&key, &aad, &sealed[..cut]).is_err());
        }
    }
}
