//! Primitives without domain separation.
//!
//! For protocols that bring their own: MLS (RFC 9420), HPKE (RFC 9180), the tree of RFC 9162. Everything else
//! uses [`crate::hash`] and [`crate::aead`]; a reviewer can find the exceptions by the name of this module.

use aes_gcm::aead::{AeadInOut, KeyInit};
use aes_gcm::{Aes256Gcm, Nonce, Tag};
use hmac::Mac;
use sha2::{Digest, Sha384};
use zeroize::Zeroizing;

use crate::secret::{AeadKey, KemSeed};
use crate::suite::{HASH_BYTES, ML_KEM_1024_EXPANDED_KEY_BYTES};

/// Bytes of an AES-GCM nonce.
pub const NONCE_BYTES: usize = 12;
/// Bytes of an AES-GCM tag. Shorter tags are not supported.
pub const TAG_BYTES: usize = 16;

/// A ciphertext that did not authenticate, or a plaintext beyond the 64 GiB of SP 800-38D.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("AES-256-GCM refused its input")]
pub struct GcmError;

/// More output asked of HKDF than 255 blocks (12,240 bytes).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("HKDF-SHA384 cannot expand to {0} bytes, at most 12240")]
pub struct ExpandError(pub usize);

/// SHA-384 (FIPS 180-4) over the concatenation of `parts`.
#[must_use]
pub fn sha384(parts: &[&[u8]]) -> [u8; HASH_BYTES] {
    let mut hash = Sha384::new();
    for part in parts {
        hash.update(part);
    }
    hash.finalize().0
}

/// HMAC-SHA384 (RFC 2104) over the concatenation of `parts`. The key may have any length.
#[must_use]
pub fn hmac_sha384(key: &[u8], parts: &[&[u8]]) -> Zeroizing<[u8; HASH_BYTES]> {
    let mut mac = crate::hash::new_hmac(key);
    for part in parts {
        mac.update(part);
    }
    Zeroizing::new(mac.finalize().into_bytes().0)
}

/// HKDF-Extract with SHA-384 (RFC 5869, Section 2.2). An empty salt stands for zeros, as the RFC says.
#[must_use]
pub fn hkdf_extract(salt: &[u8], ikm: &[u8]) -> Zeroizing<[u8; HASH_BYTES]> {
    // Extract is HMAC(salt, IKM) by definition, and HMAC pads an empty key to the zeros that the RFC asks for.
    hmac_sha384(salt, &[ikm])
}

/// HKDF-Expand with SHA-384 (RFC 5869, Section 2.3). `info` is the concatenation of its parts.
///
/// # Errors
/// [`ExpandError`] if `out` is longer than 255 blocks.
pub fn hkdf_expand(prk: &[u8; HASH_BYTES], info: &[&[u8]], out: &mut [u8]) -> Result<(), ExpandError> {
    let len = out.len();
    hkdf::Hkdf::<Sha384>::from_prk(prk)
        .map_err(|_| ExpandError(len))?
        .expand_multi_info(info, out)
        .map_err(|_| ExpandError(len))
}

/// AES-256-GCM (SP 800-38D) with the caller's nonce, which must never repeat under a key. Appends ciphertext and
/// tag to `out`.
///
/// # Errors
/// [`GcmError`] if the plaintext is too long for the mode; `out` is then as before.
pub fn aead_seal_into(
    key: &AeadKey,
    nonce: &[u8; NONCE_BYTES],
    aad: &[u8],
    plaintext: &[u8],
    out: &mut Vec<u8>,
) -> Result<(), GcmError> {
    let start = out.len();
    out.reserve(plaintext.len() + TAG_BYTES);
    out.extend_from_slice(plaintext);
    let sealed = Aes256Gcm::new(key.as_bytes().into()).encrypt_inout_detached(
        &Nonce::from(*nonce),
        aad,
        (&mut out[start..]).into(),
    );
    match sealed {
        Ok(tag) => {
            out.extend_from_slice(&tag);
            Ok(())
        }
        Err(_) => {
            use zeroize::Zeroize;
            out[start..].zeroize();
            out.truncate(start);
            Err(GcmError)
        }
    }
}

/// Opens what [`aead_seal_into`] appended (ciphertext and tag).
///
/// # Errors
/// [`GcmError`] unless key, nonce, `aad` and every bit are as they were.
pub fn aead_open(
    key: &AeadKey,
    nonce: &[u8; NONCE_BYTES],
    aad: &[u8],
    sealed: &[u8],
) -> Result<Zeroizing<Vec<u8>>, GcmError> {
    let (ciphertext, tag) = sealed.split_last_chunk::<TAG_BYTES>().ok_or(GcmError)?;
    let mut plaintext = Zeroizing::new(ciphertext.to_vec());
    Aes256Gcm::new(key.as_bytes().into())
        .decrypt_inout_detached(&Nonce::from(*nonce), aad, plaintext.as_mut_slice().into(), &Tag::from(*tag))
        .map_err(|_| GcmError)?;
    Ok(plaintext)
}

/// Expands a seed to the 3168-byte decapsulation key of FIPS 203 (Algorithm 16), for libraries that cannot import
/// a seed. Never store the result: the seed says the same in 64 bytes and needs no validation.
#[must_use]
pub fn ml_kem_1024_expand(seed: &KemSeed) -> Box<Zeroizing<[u8; ML_KEM_1024_EXPANDED_KEY_BYTES]>> {
    #[allow(deprecated)] // The crate discourages the format for storage, and so do we.
    use ml_kem::ExpandedKeyEncoding;
    use zeroize::Zeroize;
    let mut bytes = ml_kem::Seed::from(*seed.as_bytes());
    let key = ml_kem::DecapsulationKey1024::from_seed(bytes);
    bytes.zeroize();
    #[allow(deprecated)]
    let mut expanded = key.to_expanded_bytes();
    let out = Box::new(Zeroizing::new(expanded.0));
    expanded.zeroize();
    out
}
