//! Labelled SHA-384 (FIPS 180-4), HMAC (RFC 2104) and HKDF (RFC 5869).
//!
//! The input of every function is `label ‖ len(p₀) ‖ p₀ ‖ len(p₁) ‖ p₁ ‖ …` with lengths as 64-bit big-endian
//! numbers. Labels are prefix-free (see [`crate::labels`]), so two different calls never hash the same bytes.

use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha384};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;
use zixt_types::Hash;

use crate::hazmat::{self, ExpandError};
use crate::secret::AeadKey;
use crate::suite::HASH_BYTES;

/// SHA-384 of a label and framed parts.
#[must_use]
pub fn sha384(label: &[u8], parts: &[&[u8]]) -> Hash {
    let mut hasher = Hasher::new(label);
    for part in parts {
        hasher.part(part);
    }
    hasher.finish()
}

/// [`sha384`] for callers that meet the parts one by one.
#[derive(Clone)]
pub struct Hasher(Sha384);

impl Hasher {
    /// Starts with a label of [`crate::labels`].
    #[must_use]
    pub fn new(label: &[u8]) -> Self {
        Self(Sha384::new_with_prefix(label))
    }

    /// Adds one part.
    pub fn part(&mut self, part: &[u8]) -> &mut Self {
        self.0.update((part.len() as u64).to_be_bytes());
        self.0.update(part);
        self
    }

    /// The hash of everything so far.
    #[must_use]
    pub fn finish(self) -> Hash {
        Hash(self.0.finalize().0)
    }
}

impl std::fmt::Debug for Hasher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Hasher(..)")
    }
}

/// HMAC-SHA384 of a label and framed parts. Compare results with [`constant_time_eq`].
#[must_use]
pub fn hmac_sha384(key: &[u8], label: &[u8], parts: &[&[u8]]) -> Hash {
    let mut mac = new_hmac(key);
    mac.update(label);
    for part in parts {
        mac.update(&(part.len() as u64).to_be_bytes());
        mac.update(part);
    }
    Hash(mac.finalize().into_bytes().0)
}

/// HKDF-SHA384: extracts from `ikm` and `salt`, then expands with a label and framed parts as info.
///
/// # Errors
/// [`ExpandError`] if `out` is longer than 12,240 bytes.
pub fn hkdf(
    salt: &[u8],
    ikm: &[u8],
    label: &[u8],
    context: &[&[u8]],
    out: &mut [u8],
) -> Result<(), ExpandError> {
    let prk = hazmat::hkdf_extract(salt, ikm);
    hkdf_expand(&prk, label, context, out)
}

/// HKDF-Expand with a label and framed parts as info, for callers that keep the extracted key.
///
/// # Errors
/// [`ExpandError`] if `out` is longer than 12,240 bytes.
pub fn hkdf_expand(
    prk: &[u8; HASH_BYTES],
    label: &[u8],
    context: &[&[u8]],
    out: &mut [u8],
) -> Result<(), ExpandError> {
    let mut info = Vec::with_capacity(label.len() + context.iter().map(|part| 8 + part.len()).sum::<usize>());
    info.extend_from_slice(label);
    for part in context {
        info.extend_from_slice(&(part.len() as u64).to_be_bytes());
        info.extend_from_slice(part);
    }
    hazmat::hkdf_expand(prk, &[&info], out)
}

/// An AES-256-GCM key from other key material, by [`hkdf`].
#[must_use]
pub fn derive_key(salt: &[u8], ikm: &[u8], label: &[u8], context: &[&[u8]]) -> AeadKey {
    let mut bytes = Zeroizing::new([0; AeadKey::BYTES]);
    match hkdf(salt, ikm, label, context, bytes.as_mut_slice()) {
        Ok(()) => AeadKey::from_bytes(&bytes),
        Err(ExpandError(_)) => unreachable!("32 bytes are below HKDF's limit of 12240"),
    }
}

/// Compares secrets in time that depends on the lengths only.
#[must_use]
pub fn constant_time_eq(a: &[u8], b: &[u8]) -> bool {
    a.ct_eq(b).into()
}

pub(crate) fn new_hmac(key: &[u8]) -> Hmac<Sha384> {
    match Hmac::<Sha384>::new_from_slice(key) {
        Ok(mac) => mac,
        Err(_) => unreachable!("HMAC takes keys of any length (RFC 2104, Section 3)"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::labels;

    #[test]
    fn framing_tells_parts_apart() {
        let hashes = [
            sha384(labels::ENTRY, &[]),
            sha384(labels::ENTRY, &[b""]),
            sha384(labels::ENTRY, &[b"ab"]),
            sha384(labels::ENTRY, &[b"a", b"b"]),
            sha384(labels::ENTRY, &[b"", b"ab"]),
            sha384(labels::ENTRY, &[b"ab", b""]),
            sha384(labels::LEAF, &[b"ab"]),
        ];
        for (i, a) in hashes.iter().enumerate() {
            for b in &hashes[i + 1..] {
                assert_ne!(a, b);
            }
        }
    }

    #[test]
    fn framing_is_what_the_module_says() {
        let expected = hazmat::sha384(&[b"zixt/v1/entry\0", &[0, 0, 0, 0, 0, 0, 0, 2], b"ab", &[0; 8]]);
        assert_eq!(sha384(labels::ENTRY, &[b"ab", b""]), Hash(expected));
        let mut hasher = Hasher::new(labels::ENTRY);
        hasher.part(b"ab").part(b"");
        assert_eq!(hasher.finish(), Hash(expected));

        let mac = hazmat::hmac_sha384(b"key", &[b"zixt/v1/entry\0", &[0, 0, 0, 0, 0, 0, 0, 2], b"ab"]);
        assert_eq!(hmac_sha384(b"key", labels::ENTRY, &[b"ab"]), Hash(*mac));
    }

    /// FIPS 180-4 example ("abc") and RFC 4231, test cases 1 and 6 (a key longer than a block).
    #[test]
    fn published_vectors() {
        let hex = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
        assert_eq!(
            hex(&hazmat::sha384(&[b"a", b"bc"])),
            "cb00753f45a35e8bb5a03d699ac65007272c32ab0eded1631a8b605a43ff5bed\
             8086072ba1e7cc2358baeca134c825a7"
        );
        assert_eq!(
            hex(&*hazmat::hmac_sha384(&[0x0b; 20], &[b"Hi There"])),
            "afd03944d84895626b0825f4ab46907f15f9dadbe4101ec682aa034c7cebc59c\
             faea9ea9076ede7f4af152e8b2fa9cb6"
        );
        assert_eq!(
            hex(&*hazmat::hmac_sha384(
                &[0xaa; 131],
                &[b"Test Using Larger Than Block-Size Key - Hash Key First"]
            )),
            "4ece084485813e9088d2c63a041bc5b44f9ef1012a2b588f3cd11f05033ac4c6\
             0c2ef6ab4030fe8296248df163f44952"
        );
    }

    #[test]
    fn derived_keys_depend_on_every_argument() {
        let keys = [
            derive_key(b"salt", b"ikm", labels::CLIENT_STORE_KEK, &[b"ctx"]),
            derive_key(b"Salt", b"ikm", labels::CLIENT_STORE_KEK, &[b"ctx"]),
            derive_key(b"salt", b"Ikm", labels::CLIENT_STORE_KEK, &[b"ctx"]),
            derive_key(b"salt", b"ikm", labels::CLIENT_STORE_DEK, &[b"ctx"]),
            derive_key(b"salt", b"ikm", labels::CLIENT_STORE_KEK, &[b"Ctx"]),
        ];
        for (i, a) in keys.iter().enumerate() {
            for b in &keys[i + 1..] {
                assert!(a != b);
            }
        }
    }

    #[test]
    fn expansion_has_a_limit() {
        let mut out = vec![0; 255 * 48 + 1];
        assert_eq!(hkdf(b"", b"ikm", labels::ENTRY, &[], &mut out), Err(ExpandError(12_241)));
        assert_eq!(hkdf(b"", b"ikm", labels::ENTRY, &[], &mut out[1..]), Ok(()));
    }
}
