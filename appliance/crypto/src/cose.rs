//! Signed objects: COSE_Sign1 (RFC 9052, Section 4.2) with ML-DSA (RFC 9964), untagged.
//!
//! The ledger stores payload and signature apart and puts them together only when it exports, so there are two
//! halves here. [`sign`] and [`verify`] work on the parts and are the hot path: one allocation, one copy of the
//! payload into the `Sig_structure`. [`to_cose_sign1`] and [`from_cose_sign1`] make and read the object that other
//! COSE implementations understand.
//!
//! The label of the purpose is the `external_aad`, so that a signature made for one purpose is none for another.

use coset::{CborSerializable, CoseSign1Builder, HeaderBuilder, iana};
use zixt_types::SuiteId;

use crate::suite::suite_params;
use crate::traits::{Backend, SignError, SigningKey, VerifyError};

/// Signs `payload` for the purpose of `label`.
///
/// # Errors
/// [`SignError`], as [`SigningKey::sign`].
pub fn sign(key: &dyn SigningKey, label: &[u8], payload: &[u8]) -> Result<Vec<u8>, SignError> {
    key.sign(&sig_structure(key.suite(), label, payload))
}

/// Checks what [`sign`] made.
///
/// # Errors
/// [`VerifyError`], as [`Backend::verify`].
pub fn verify(
    backend: &dyn Backend,
    suite: SuiteId,
    public_key: &[u8],
    label: &[u8],
    payload: &[u8],
    signature: &[u8],
) -> Result<(), VerifyError> {
    backend.verify(suite, public_key, &sig_structure(suite, label, payload), signature)
}

/// The bytes that are signed (RFC 9052, Section 4.4):
/// `["Signature1", protected, external_aad, payload]` in deterministic CBOR.
///
/// Written out by hand because it is on the path of every message; a test compares it with crate `coset`.
#[must_use]
pub fn sig_structure(suite: SuiteId, label: &[u8], payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(FIXED_BYTES + label.len() + payload.len());
    out.extend_from_slice(b"\x84\x6aSignature1");
    bstr(&mut out, &protected(suite));
    bstr(&mut out, label);
    bstr(&mut out, payload);
    out
}

/// Array head, context string, protected header and two heads of byte strings of at most 9 bytes each.
const FIXED_BYTES: usize = 12 + 5 + 9 + 9;

/// The protected header {1: alg} as CBOR: alg is -49 or -50, so its encoding is 0x38 and −1−alg.
const fn protected(suite: SuiteId) -> [u8; 4] {
    [0xa1, 0x01, 0x38, (-1 - suite_params(suite).cose_alg) as u8]
}

/// Appends a byte string with the shortest head (RFC 8949, Section 4.2.1).
fn bstr(out: &mut Vec<u8>, bytes: &[u8]) {
    const MAJOR: u8 = 2 << 5;
    let len = (bytes.len() as u64).to_be_bytes();
    match bytes.len() {
        0..=23 => out.push(MAJOR | len[7]),
        24..=0xff => out.extend_from_slice(&[MAJOR | 24, len[7]]),
        0x100..=0xffff => {
            out.push(MAJOR | 25);
            out.extend_from_slice(&len[6..]);
        }
        0x1_0000..=0xffff_ffff => {
            out.push(MAJOR | 26);
            out.extend_from_slice(&len[4..]);
        }
        _ => {
            out.push(MAJOR | 27);
            out.extend_from_slice(&len);
        }
    }
    out.extend_from_slice(bytes);
}

/// A COSE_Sign1 object taken apart. Reading one checks its form, not its signature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sign1 {
    /// The suite, from the algorithm of the protected header.
    pub suite: SuiteId,
    /// The payload.
    pub payload: Vec<u8>,
    /// The signature, of the suite's length.
    pub signature: Vec<u8>,
}

/// Why bytes are not a COSE_Sign1 object of this product.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CoseError {
    /// Not CBOR, not COSE_Sign1, or a detached payload.
    #[error("not a COSE_Sign1 object with a payload")]
    Malformed,
    /// The algorithm is neither ML-DSA-65 nor ML-DSA-87.
    #[error("the COSE algorithm is neither ML-DSA-65 (-49) nor ML-DSA-87 (-50)")]
    Algorithm,
    /// The signature does not have the length of the algorithm.
    #[error("signature: expected {expected} bytes, got {actual}")]
    SignatureLength {
        /// The algorithm's length.
        expected: usize,
        /// The length received.
        actual: usize,
    },
    /// More headers than the algorithm, or an encoding that is not the deterministic one.
    #[error("the COSE_Sign1 object is not in its one accepted encoding")]
    NotCanonical,
}

/// Puts payload and signature together.
///
/// # Errors
/// [`CoseError::SignatureLength`] unless the signature has the suite's length.
pub fn to_cose_sign1(suite: SuiteId, payload: &[u8], signature: &[u8]) -> Result<Vec<u8>, CoseError> {
    check_signature_length(suite, signature)?;
    let alg = match suite {
        SuiteId::Standard => iana::Algorithm::ML_DSA_65,
        SuiteId::Cnsa => iana::Algorithm::ML_DSA_87,
    };
    CoseSign1Builder::new()
        .protected(HeaderBuilder::new().algorithm(alg).build())
        .payload(payload.to_vec())
        .signature(signature.to_vec())
        .build()
        .to_vec()
        .map_err(|_| CoseError::Malformed)
}

/// Takes a COSE_Sign1 object apart. Accepts exactly what [`to_cose_sign1`] writes, and so one encoding for each
/// object.
///
/// # Errors
/// [`CoseError`] for anything else.
pub fn from_cose_sign1(bytes: &[u8]) -> Result<Sign1, CoseError> {
    let object = coset::CoseSign1::from_slice(bytes).map_err(|_| CoseError::Malformed)?;
    let suite = match object.protected.header.alg {
        Some(coset::Algorithm::Assigned(iana::Algorithm::ML_DSA_65)) => SuiteId::Standard,
        Some(coset::Algorithm::Assigned(iana::Algorithm::ML_DSA_87)) => SuiteId::Cnsa,
        _ => return Err(CoseError::Algorithm),
    };
    let payload = object.payload.ok_or(CoseError::Malformed)?;
    check_signature_length(suite, &object.signature)?;
    if to_cose_sign1(suite, &payload, &object.signature)? != bytes {
        return Err(CoseError::NotCanonical);
    }
    Ok(Sign1 { suite, payload, signature: object.signature })
}

fn check_signature_length(suite: SuiteId, signature: &[u8]) -> Result<(), CoseError> {
    let expected = suite_params(suite).signature_bytes;
    if signature.len() == expected {
        Ok(())
    } else {
        Err(CoseError::SignatureLength { expected, actual: signature.len() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::SigningSeed;
    use crate::{Reference, labels};
    use proptest::prelude::*;

    fn key(suite: SuiteId) -> Box<dyn SigningKey> {
        Reference.signing_key(suite, &SigningSeed::from_bytes(&[3; 32])).unwrap()
    }

    #[test]
    fn labels_and_suites_separate() {
        for suite in SuiteId::ALL {
            let key = key(suite);
            let signature = sign(&*key, labels::BODY, b"payload").unwrap();
            let check = |suite, label, payload: &[u8]| {
                verify(&Reference, suite, key.public_key(), label, payload, &signature)
            };
            assert_eq!(check(suite, labels::BODY, b"payload"), Ok(()));
            assert_eq!(check(suite, labels::VOTE, b"payload"), Err(VerifyError::Rejected));
            assert_eq!(check(suite, labels::BODY, b"Payload"), Err(VerifyError::Rejected));
            let other = if suite == SuiteId::Cnsa { SuiteId::Standard } else { SuiteId::Cnsa };
            assert!(matches!(
                check(other, labels::BODY, b"payload"),
                Err(VerifyError::PublicKeyLength { .. })
            ));
        }
    }

    /// What another COSE implementation would check.
    #[test]
    fn interoperates_with_coset() {
        for suite in SuiteId::ALL {
            let key = key(suite);
            let signature = sign(&*key, labels::BODY, b"payload").unwrap();
            let bytes = to_cose_sign1(suite, b"payload", &signature).unwrap();
            coset::CoseSign1::from_slice(&bytes)
                .unwrap()
                .verify_signature(labels::BODY, |signature, message| {
                    Reference.verify(suite, key.public_key(), message, signature)
                })
                .unwrap();
        }
    }

    #[test]
    fn every_length_of_head_matches_coset() {
        let lengths = [0, 1, 23, 24, 255, 256, 65_535, 65_536, 70_000];
        for suite in SuiteId::ALL {
            for payload in lengths.map(|len| vec![0x5a; len]) {
                for label in lengths.map(|len| vec![0xa5; len]) {
                    let alg = if suite == SuiteId::Cnsa {
                        iana::Algorithm::ML_DSA_87
                    } else {
                        iana::Algorithm::ML_DSA_65
                    };
                    let theirs = CoseSign1Builder::new()
                        .protected(HeaderBuilder::new().algorithm(alg).build())
                        .payload(payload.clone())
                        .build()
                        .tbs_data(&label);
                    assert!(
                        sig_structure(suite, &label, &payload) == theirs,
                        "{} {}",
                        label.len(),
                        payload.len()
                    );
                }
            }
        }
    }

    #[test]
    fn only_one_encoding_is_read() {
        let signature = vec![1; 3309];
        let good = to_cose_sign1(SuiteId::Standard, b"pay", &signature).unwrap();
        assert_eq!(good[..11], *b"\x84\x44\xa1\x01\x38\x30\xa0\x43pay");
        assert_eq!(from_cose_sign1(&good).unwrap().payload, b"pay");

        let tail = &good[11..];
        let with = |head: &[u8]| [head, tail].concat();
        let cases: [(&str, Vec<u8>, CoseError); 11] = [
            ("empty", vec![], CoseError::Malformed),
            ("trailing byte", [&good[..], &[0]].concat(), CoseError::Malformed),
            ("tagged", [&[0xd2][..], &good].concat(), CoseError::Malformed),
            ("detached payload", with(b"\x84\x44\xa1\x01\x38\x30\xa0\xf6"), CoseError::Malformed),
            ("ES256", with(b"\x84\x43\xa1\x01\x26\xa0\x43pay"), CoseError::Algorithm),
            ("ML-DSA-44", with(b"\x84\x44\xa1\x01\x38\x2f\xa0\x43pay"), CoseError::Algorithm),
            ("alg unprotected", with(b"\x84\x40\xa1\x01\x38\x30\x43pay"), CoseError::Algorithm),
            ("key id too", with(b"\x84\x44\xa1\x01\x38\x30\xa1\x04\x41\x01\x43pay"), CoseError::NotCanonical),
            ("long length", with(b"\x84\x44\xa1\x01\x38\x30\xa0\x58\x03pay"), CoseError::NotCanonical),
            ("long alg", with(b"\x84\x45\xa1\x01\x39\x00\x30\xa0\x43pay"), CoseError::NotCanonical),
            (
                "87 with a signature of 65",
                with(b"\x84\x44\xa1\x01\x38\x31\xa0\x43pay"),
                CoseError::SignatureLength { expected: 4627, actual: 3309 },
            ),
        ];
        for (name, bytes, expected) in cases {
            assert_eq!(from_cose_sign1(&bytes), Err(expected), "{name}");
        }
        assert_eq!(
            to_cose_sign1(SuiteId::Cnsa, b"", &signature),
            Err(CoseError::SignatureLength { expected: 4627, actual: 3309 })
        );
    }

    proptest! {
        #[test]
        fn round_trip(cnsa: bool, payload: Vec<u8>, fill: u8) {
            let suite = if cnsa { SuiteId::Cnsa } else { SuiteId::Standard };
            let signature = vec![fill; suite_params(suite).signature_bytes];
            let bytes = to_cose_sign1(suite, &payload, &signature).unwrap();
            prop_assert_eq!(from_cose_sign1(&bytes), Ok(Sign1 { suite, payload, signature }));
        }

        #[test]
        fn any_flipped_bit_changes_the_object_or_is_refused(
            payload in prop::collection::vec(any::<u8>(), 0..60),
            at: prop::sample::Index,
            bit in 0u8..8,
        ) {
            let bytes = to_cose_sign1(SuiteId::Standard, &payload, &vec![7; 3309]).unwrap();
            let mut bad = bytes.clone();
            bad[at.index(bytes.len())] ^= 1 << bit;
            if let Ok(object) = from_cose_sign1(&bad) {
                prop_assert_ne!(&object, &from_cose_sign1(&bytes).unwrap());
                prop_assert_eq!(to_cose_sign1(object.suite, &object.payload, &object.signature).unwrap(), bad);
            }
        }

        #[test]
        fn any_flipped_bit_of_a_signed_object_does_not_verify(
            payload in prop::collection::vec(any::<u8>(), 0..60),
            at: prop::sample::Index,
            bit in 0u8..8,
        ) {
            let key = key(SuiteId::Standard);
            let signature = sign(&*key, labels::BODY, &payload).unwrap();
            let mut bad = to_cose_sign1(SuiteId::Standard, &payload, &signature).unwrap();
            let at = at.index(bad.len());
            bad[at] ^= 1 << bit;
            if let Ok(o) = from_cose_sign1(&bad) {
                prop_assert!(
                    verify(&Reference, o.suite, key.public_key(), labels::BODY, &o.payload, &o.signature).is_err()
                );
            }
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
            let _ = from_cose_sign1(&bytes);
        }
    }
}
