//! The few structures of the TPM's wire that are built or read without a TPM (TPM 2.0 Library, Part 2).

use crate::profile::Profile;
use std::fmt;

/// TPM_ALG_ECC.
const ALG_ECC: u16 = 0x0023;
/// TPM_ALG_ECDSA.
const ALG_ECDSA: u16 = 0x0018;
/// TPM_ALG_NULL.
const ALG_NULL: u16 = 0x0010;
/// TPMA_OBJECT: userWithAuth and sign. A key whose private part is in no TPM has no other attribute.
const ATTRIBUTES_VERIFY_ONLY: u32 = 1 << 6 | 1 << 18;
/// TPMA_OBJECT of an attestation key: fixedTPM, fixedParent, sensitiveDataOrigin, restricted, sign.
const ATTRIBUTES_ATTESTATION: u32 = 1 << 1 | 1 << 4 | 1 << 5 | 1 << 16 | 1 << 18;

/// Bytes that are not the structure that was expected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{what} is malformed")]
pub struct WireError {
    /// The structure, or the part of it.
    pub what: &'static str,
}

/// A point of the profile's curve: x and y, big-endian, each of [`Profile::bytes`].
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Point {
    pub(crate) x: Vec<u8>,
    pub(crate) y: Vec<u8>,
}

impl fmt::Debug for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Point(")?;
        self.x.iter().take(4).try_for_each(|byte| write!(f, "{byte:02x}"))?;
        f.write_str("..)")
    }
}

/// TPMT_PUBLIC of a key that only verifies ECDSA signatures.
pub(crate) fn verify_only_public(profile: Profile, point: &Point) -> Vec<u8> {
    let mut out = Vec::new();
    for word in [ALG_ECC, profile.hash_id()] {
        out.extend(word.to_be_bytes());
    }
    out.extend(ATTRIBUTES_VERIFY_ONLY.to_be_bytes());
    // No policy, no symmetric cipher, ECDSA with the profile's hash, the curve, no key derivation.
    for word in [0, ALG_NULL, ALG_ECDSA, profile.hash_id(), profile.curve_id(), ALG_NULL] {
        out.extend(word.to_be_bytes());
    }
    for coordinate in [&point.x, &point.y] {
        out.extend(u16::try_from(coordinate.len()).unwrap_or(u16::MAX).to_be_bytes());
        out.extend(coordinate);
    }
    out
}

/// The Name of an object: its hash algorithm and the hash of its public area (Part 1, Section 16).
pub(crate) fn name_of(profile: Profile, public: &[u8]) -> Vec<u8> {
    [&profile.hash_id().to_be_bytes()[..], &profile.hash(&[public])].concat()
}

/// The point of an attestation key from its TPMT_PUBLIC: a restricted ECDSA key of the profile's curve that was made in
/// its TPM and cannot leave it. Anything else could sign what no TPM attests.
pub(crate) fn attestation_point(profile: Profile, public: &[u8]) -> Result<Point, WireError> {
    const WHAT: WireError = WireError { what: "the public area of the attestation key" };
    let mut reader = Reader::new(WHAT.what, public);
    let is_ours = reader.u16()? == ALG_ECC
        && reader.u16()? == profile.hash_id()
        && reader.u32()? & (ATTRIBUTES_ATTESTATION | 1 << 17) == ATTRIBUTES_ATTESTATION;
    let policy = reader.sized()?;
    let parameters = [ALG_NULL, ALG_ECDSA, profile.hash_id(), profile.curve_id(), ALG_NULL];
    for wanted in parameters {
        if reader.u16()? != wanted {
            return Err(WHAT);
        }
    }
    let point = Point { x: padded(profile, reader.sized()?)?, y: padded(profile, reader.sized()?)? };
    reader.end()?;
    if is_ours && policy.is_empty() { Ok(point) } else { Err(WHAT) }
}

/// A number of the curve's size. A TPM may leave out leading zeros.
pub(crate) fn padded(profile: Profile, number: &[u8]) -> Result<Vec<u8>, WireError> {
    let missing = profile.bytes().checked_sub(number.len()).ok_or(WireError { what: "a coordinate" })?;
    Ok([&vec![0; missing][..], number].concat())
}

/// Reads big-endian numbers and sized buffers. Copies nothing, so that a length that lies costs nothing.
pub(crate) struct Reader<'b> {
    what: &'static str,
    rest: &'b [u8],
}

impl<'b> Reader<'b> {
    pub(crate) fn new(what: &'static str, bytes: &'b [u8]) -> Self {
        Self { what, rest: bytes }
    }

    pub(crate) fn take(&mut self, count: usize) -> Result<&'b [u8], WireError> {
        let (taken, rest) = self.rest.split_at_checked(count).ok_or(WireError { what: self.what })?;
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], WireError> {
        let (taken, rest) = self.rest.split_first_chunk().ok_or(WireError { what: self.what })?;
        self.rest = rest;
        Ok(*taken)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, WireError> {
        self.array().map(u8::from_be_bytes)
    }

    pub(crate) fn u16(&mut self) -> Result<u16, WireError> {
        self.array().map(u16::from_be_bytes)
    }

    pub(crate) fn u32(&mut self) -> Result<u32, WireError> {
        self.array().map(u32::from_be_bytes)
    }

    pub(crate) fn u64(&mut self) -> Result<u64, WireError> {
        self.array().map(u64::from_be_bytes)
    }

    /// A TPM2B: u16 length and that many bytes.
    pub(crate) fn sized(&mut self) -> Result<&'b [u8], WireError> {
        let length = self.u16()?;
        self.take(length.into())
    }

    pub(crate) fn end(&self) -> Result<(), WireError> {
        if self.rest.is_empty() { Ok(()) } else { Err(WireError { what: self.what }) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The public area of an attestation key.
    fn attestation(attributes: u32) -> Vec<u8> {
        let mut public = verify_only_public(Profile::P256, &Point { x: vec![1; 32], y: vec![2; 31] });
        public[4..8].copy_from_slice(&attributes.to_be_bytes());
        public
    }

    #[test]
    fn only_keys_that_cannot_leave_their_tpm_attest() {
        let good = attestation(ATTRIBUTES_ATTESTATION);
        let point = attestation_point(Profile::P256, &good).unwrap();
        assert_eq!((point.x, point.y), (vec![1; 32], [&[0][..], &[2; 31]].concat()));
        assert!(attestation_point(Profile::P384, &good).is_err());
        // Without any of the attributes, or able to decrypt.
        for bit in [1, 4, 5, 16, 17, 18] {
            let public = attestation(ATTRIBUTES_ATTESTATION ^ (1 << bit));
            assert!(attestation_point(Profile::P256, &public).is_err(), "bit {bit}");
        }
        for cut in 0..good.len() {
            assert!(attestation_point(Profile::P256, &good[..cut]).is_err());
        }
        assert!(attestation_point(Profile::P256, &[&good[..], &[0]].concat()).is_err());
    }

    proptest! {
        #[test]
        fn foreign_bytes_are_an_error_and_no_panic(bytes: Vec<u8>, at: prop::sample::Index, byte: u8) {
            let _ = attestation_point(Profile::P384, &bytes);
            let mut nearly = attestation(ATTRIBUTES_ATTESTATION);
            let at = at.index(nearly.len());
            nearly[at] = byte;
            let _ = attestation_point(Profile::P256, &nearly);
        }
    }
}
