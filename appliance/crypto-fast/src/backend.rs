//! [`Backend`] over aws-lc-rs.

use aws_lc_rs::kem::{self, ML_KEM_1024};
use aws_lc_rs::signature::{
    KeyPair, ML_DSA_65, ML_DSA_65_SIGNING, ML_DSA_87, ML_DSA_87_SIGNING, PqdsaKeyPair, PqdsaSigningAlgorithm,
    PqdsaVerificationAlgorithm, UnparsedPublicKey,
};
use zixt_crypto::suite::{
    ML_KEM_1024_CIPHERTEXT_BYTES, ML_KEM_1024_ENCAPSULATION_KEY_BYTES, ML_KEM_1024_EXPANDED_KEY_BYTES,
};
use zixt_crypto::{
    Backend, Ciphertext, DecapsulateError, DecapsulationKey, EncapsulateError, KemSeed, KeyError, Reference,
    SharedSecret, SignError, SigningKey, SigningSeed, SuiteId, VerifyError, hazmat, suite_params,
};

/// ML-DSA and ML-KEM-1024 of aws-lc.
///
/// aws-lc takes no ML-KEM seed through its safe interface, so `ml-kem` expands the seed once and aws-lc imports the
/// 3168-byte key; every operation after that is aws-lc's.
#[derive(Debug, Clone, Copy, Default)]
pub struct AwsLc;

const NAME: &str = "aws-lc";

const fn verification(suite: SuiteId) -> &'static PqdsaVerificationAlgorithm {
    match suite {
        SuiteId::Standard => &ML_DSA_65,
        SuiteId::Cnsa => &ML_DSA_87,
    }
}

const fn signing(suite: SuiteId) -> &'static PqdsaSigningAlgorithm {
    match suite {
        SuiteId::Standard => &ML_DSA_65_SIGNING,
        SuiteId::Cnsa => &ML_DSA_87_SIGNING,
    }
}

impl Backend for AwsLc {
    fn name(&self) -> &'static str {
        NAME
    }

    fn verify(
        &self,
        suite: SuiteId,
        public_key: &[u8],
        message: &[u8],
        signature: &[u8],
    ) -> Result<(), VerifyError> {
        let params = suite_params(suite);
        // aws-lc would also take a key wrapped as SubjectPublicKeyInfo: two encodings of one key, which the
        // reference refuses. The length tells them apart.
        if public_key.len() != params.public_key_bytes {
            let expected = params.public_key_bytes;
            return Err(VerifyError::PublicKeyLength { expected, actual: public_key.len() });
        }
        if signature.len() != params.signature_bytes {
            let expected = params.signature_bytes;
            return Err(VerifyError::SignatureLength { expected, actual: signature.len() });
        }
        UnparsedPublicKey::new(verification(suite), public_key)
            .verify(message, signature)
            .map_err(|_| VerifyError::Rejected)
    }

    fn signing_key(&self, suite: SuiteId, seed: &SigningSeed) -> Result<Box<dyn SigningKey>, KeyError> {
        let key = PqdsaKeyPair::from_seed(signing(suite), seed.as_bytes())
            .map_err(|_| KeyError::Backend { backend: NAME })?;
        Ok(Box::new(AwsLcSigningKey { suite, key }))
    }

    fn decapsulation_key(&self, seed: &KemSeed) -> Result<Box<dyn DecapsulationKey>, KeyError> {
        let expanded = hazmat::ml_kem_1024_expand(seed);
        let key = kem::DecapsulationKey::new(&ML_KEM_1024, expanded.as_slice())
            .map_err(|_| KeyError::Backend { backend: NAME })?;
        Ok(Box::new(AwsLcDecapsulationKey { encapsulation_key: expanded[EK_IN_EXPANDED].into(), key }))
    }

    /// By the reference implementation: aws-lc checks the modulus only when it encapsulates, and this is called
    /// where a key is first seen, not where it is used.
    fn validate_encapsulation_key(&self, encapsulation_key: &[u8]) -> Result<(), KeyError> {
        Reference.validate_encapsulation_key(encapsulation_key)
    }

    fn encapsulate(&self, encapsulation_key: &[u8]) -> Result<(Ciphertext, SharedSecret), EncapsulateError> {
        const FAILED: EncapsulateError = EncapsulateError::Backend { backend: NAME };
        if encapsulation_key.len() != ML_KEM_1024_ENCAPSULATION_KEY_BYTES {
            let expected = ML_KEM_1024_ENCAPSULATION_KEY_BYTES;
            return Err(KeyError::Length { expected, actual: encapsulation_key.len() }.into());
        }
        let encapsulated = kem::EncapsulationKey::new(&ML_KEM_1024, encapsulation_key)
            .ok()
            .and_then(|key| key.encapsulate().ok());
        let Some((ciphertext, secret)) = encapsulated else {
            // aws-lc does not say why. An invalid key is the peer's fault, anything else is ours.
            self.validate_encapsulation_key(encapsulation_key)?;
            return Err(FAILED);
        };
        let ciphertext: Box<[u8; ML_KEM_1024_CIPHERTEXT_BYTES]> =
            Box::<[u8]>::from(ciphertext.as_ref()).try_into().map_err(|_| FAILED)?;
        let secret = SharedSecret::from_slice(secret.as_ref()).map_err(|_| FAILED)?;
        Ok((Ciphertext::new(ciphertext), secret))
    }
}

struct AwsLcSigningKey {
    suite: SuiteId,
    key: PqdsaKeyPair,
}

impl SigningKey for AwsLcSigningKey {
    fn suite(&self) -> SuiteId {
        self.suite
    }

    fn public_key(&self) -> &[u8] {
        self.key.public_key().as_ref()
    }

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, SignError> {
        let mut signature = vec![0; suite_params(self.suite).signature_bytes];
        match self.key.sign(message, &mut signature) {
            Ok(written) if written == signature.len() => Ok(signature),
            _ => Err(SignError::Backend { backend: NAME }),
        }
    }
}

/// Where the encapsulation key stands in an expanded key (FIPS 203, Algorithm 16): dk_PKE ‖ ek ‖ H(ek) ‖ z.
const EK_IN_EXPANDED: std::ops::Range<usize> =
    ML_KEM_1024_EXPANDED_KEY_BYTES - 64 - ML_KEM_1024_ENCAPSULATION_KEY_BYTES
        ..ML_KEM_1024_EXPANDED_KEY_BYTES - 64;

struct AwsLcDecapsulationKey {
    encapsulation_key: Box<[u8]>,
    key: kem::DecapsulationKey,
}

impl DecapsulationKey for AwsLcDecapsulationKey {
    fn encapsulation_key(&self) -> &[u8] {
        &self.encapsulation_key
    }

    fn decapsulate(&self, ciphertext: &[u8]) -> Result<SharedSecret, DecapsulateError> {
        if ciphertext.len() != ML_KEM_1024_CIPHERTEXT_BYTES {
            let expected = ML_KEM_1024_CIPHERTEXT_BYTES;
            return Err(DecapsulateError::CiphertextLength { expected, actual: ciphertext.len() });
        }
        let secret = self
            .key
            .decapsulate(ciphertext.into())
            .map_err(|_| DecapsulateError::Backend { backend: NAME })?;
        SharedSecret::from_slice(secret.as_ref()).map_err(|_| DecapsulateError::Backend { backend: NAME })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use zixt_crypto::{cose, labels, selftest};

    const BACKENDS: [&dyn Backend; 2] = [&Reference, &AwsLc];

    #[test]
    fn self_tests_pass() {
        assert_eq!(selftest::run(&AwsLc), Ok(()));
        for suite in SuiteId::ALL {
            selftest::generate_signing_key(&AwsLc, suite).unwrap();
        }
        selftest::generate_decapsulation_key(&AwsLc).unwrap();
    }

    #[test]
    fn signatures_cross_both_ways() {
        for suite in SuiteId::ALL {
            for _ in 0..4 {
                let seed = SigningSeed::generate().unwrap();
                let keys = BACKENDS.map(|backend| backend.signing_key(suite, &seed).unwrap());
                assert!(keys[0].public_key() == keys[1].public_key());
                for key in &keys {
                    let signature = cose::sign(&**key, labels::BODY, b"payload").unwrap();
                    for backend in BACKENDS {
                        let check = |label, payload: &[u8]| {
                            cose::verify(backend, suite, key.public_key(), label, payload, &signature)
                        };
                        assert_eq!(check(labels::BODY, b"payload"), Ok(()));
                        assert_eq!(check(labels::VOTE, b"payload"), Err(VerifyError::Rejected));
                        assert_eq!(check(labels::BODY, b"Payload"), Err(VerifyError::Rejected));
                    }
                }
            }
        }
    }

    #[test]
    fn encapsulations_cross_both_ways() {
        for _ in 0..8 {
            let seed = KemSeed::generate().unwrap();
            let keys = BACKENDS.map(|backend| backend.decapsulation_key(&seed).unwrap());
            assert!(keys[0].encapsulation_key() == keys[1].encapsulation_key());
            for backend in BACKENDS {
                let (ciphertext, sent) = backend.encapsulate(keys[0].encapsulation_key()).unwrap();
                let mut forged = *ciphertext.as_bytes();
                forged[700] ^= 4;
                let rejected = keys.each_ref().map(|key| key.decapsulate(&forged).unwrap());
                assert!(rejected[0] == rejected[1] && rejected[0] != sent);
                for key in &keys {
                    assert!(key.decapsulate(ciphertext.as_bytes()).unwrap() == sent);
                }
            }
        }
    }

    #[test]
    fn signatures_are_hedged() {
        for backend in BACKENDS {
            for suite in SuiteId::ALL {
                let key = backend.signing_key(suite, &SigningSeed::from_bytes(&[5; 32])).unwrap();
                assert_ne!(key.sign(b"same").unwrap(), key.sign(b"same").unwrap(), "{}", backend.name());
            }
        }
    }

    /// Both backends refuse the same inputs with the same error.
    #[test]
    fn errors_agree() {
        for suite in SuiteId::ALL {
            let params = suite_params(suite);
            let key = Reference.signing_key(suite, &SigningSeed::from_bytes(&[5; 32])).unwrap();
            let signature = key.sign(b"m").unwrap();
            let spki = crate::tls::spki(suite, key.public_key());
            for backend in BACKENDS {
                let verify = |pk: &[u8], signature: &[u8]| backend.verify(suite, pk, b"m", signature);
                let expected = params.public_key_bytes;
                for pk in [&spki[..], &[], &key.public_key()[1..]] {
                    assert_eq!(
                        verify(pk, &signature),
                        Err(VerifyError::PublicKeyLength { expected, actual: pk.len() })
                    );
                }
                let expected = params.signature_bytes;
                for bad in [&[][..], &signature[1..], &[&signature[..], &[0]].concat()] {
                    assert_eq!(
                        verify(key.public_key(), bad),
                        Err(VerifyError::SignatureLength { expected, actual: bad.len() })
                    );
                }
                assert_eq!(verify(key.public_key(), &vec![0xff; expected]), Err(VerifyError::Rejected));
            }
        }
        for backend in BACKENDS {
            for len in [0, 1567, 1569] {
                let error = KeyError::Length { expected: 1568, actual: len };
                assert_eq!(backend.validate_encapsulation_key(&vec![0; len]), Err(error));
                assert_eq!(backend.encapsulate(&vec![0; len]).unwrap_err(), error.into());
                let key = backend.decapsulation_key(&KemSeed::from_bytes(&[1; 64])).unwrap();
                assert_eq!(
                    key.decapsulate(&vec![0; len]).unwrap_err(),
                    DecapsulateError::CiphertextLength { expected: 1568, actual: len }
                );
            }
            assert_eq!(backend.encapsulate(&[0xff; 1568]).unwrap_err(), KeyError::Malformed.into());
        }
    }
}
