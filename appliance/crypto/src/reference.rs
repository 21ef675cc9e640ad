//! The reference backend: crates `ml-kem` and `ml-dsa`. Pure Rust, and all that the offline verifier links.

use crate::secret::{KemSeed, SharedSecret, SigningSeed, fill_random};
use crate::suite::{ML_KEM_1024_CIPHERTEXT_BYTES, ML_KEM_1024_ENCAPSULATION_KEY_BYTES, suite_params};
use crate::traits::{
    Backend, Ciphertext, DecapsulateError, DecapsulationKey, EncapsulateError, KeyError, SignError,
    SigningKey, VerifyError,
};
use getrandom::SysRng;
use ml_dsa::{EncodedVerifyingKey, MlDsa65, MlDsa87, MlDsaParams, signature::Keypair};
use ml_kem::kem::{Decapsulate, KeyExport};
use ml_kem::{DecapsulationKey1024, EncapsulationKey1024};
use zeroize::{Zeroize, Zeroizing};
use zixt_types::SuiteId;

/// The pure Rust implementation.
#[derive(Debug, Clone, Copy, Default)]
pub struct Reference;

const NAME: &str = "reference";

impl Backend for Reference {
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
        match suite {
            SuiteId::Standard => verify::<MlDsa65>(suite, public_key, message, signature),
            SuiteId::Cnsa => verify::<MlDsa87>(suite, public_key, message, signature),
        }
    }

    fn signing_key(&self, suite: SuiteId, seed: &SigningSeed) -> Result<Box<dyn SigningKey>, KeyError> {
        Ok(match suite {
            SuiteId::Standard => Box::new(ReferenceSigningKey::<MlDsa65>::new(suite, seed)),
            SuiteId::Cnsa => Box::new(ReferenceSigningKey::<MlDsa87>::new(suite, seed)),
        })
    }

    fn decapsulation_key(&self, seed: &KemSeed) -> Result<Box<dyn DecapsulationKey>, KeyError> {
        Ok(Box::new(ReferenceDecapsulationKey::new(seed)))
    }

    fn validate_encapsulation_key(&self, encapsulation_key: &[u8]) -> Result<(), KeyError> {
        parse_encapsulation_key(encapsulation_key).map(|_| ())
    }

    fn encapsulate(&self, encapsulation_key: &[u8]) -> Result<(Ciphertext, SharedSecret), EncapsulateError> {
        let key = parse_encapsulation_key(encapsulation_key)?;
        let mut m = ml_kem::B32::default();
        fill_random(&mut m)?;
        // The random m is drawn here, not by the crate, so that a failing generator is an error and not a panic.
        let (ciphertext, mut shared) = key.encapsulate_deterministic(&m);
        m.zeroize();
        let secret = SharedSecret::from_bytes(&shared.0);
        shared.zeroize();
        Ok((Ciphertext::new(Box::new(ciphertext.0)), secret))
    }
}

fn verify<P: MlDsaParams>(
    suite: SuiteId,
    public_key: &[u8],
    message: &[u8],
    signature: &[u8],
) -> Result<(), VerifyError> {
    let params = suite_params(suite);
    let key: &EncodedVerifyingKey<P> = public_key.try_into().map_err(|_| VerifyError::PublicKeyLength {
        expected: params.public_key_bytes,
        actual: public_key.len(),
    })?;
    if signature.len() != params.signature_bytes {
        return Err(VerifyError::SignatureLength {
            expected: params.signature_bytes,
            actual: signature.len(),
        });
    }
    // Decoding refuses malformed hints and out-of-range z (FIPS 204, Algorithm 27), before any key expansion.
    let signature = ml_dsa::Signature::<P>::try_from(signature).map_err(|_| VerifyError::Rejected)?;
    let key = ml_dsa::VerifyingKey::<P>::decode(key);
    if key.verify_with_context(message, &[], &signature) { Ok(()) } else { Err(VerifyError::Rejected) }
}

/// The expanded key is boxed: it has tens of kilobytes. It erases itself on drop.
struct ReferenceSigningKey<P: MlDsaParams> {
    suite: SuiteId,
    public_key: Box<[u8]>,
    key: Box<ml_dsa::SigningKey<P>>,
}

impl<P: MlDsaParams> ReferenceSigningKey<P> {
    fn new(suite: SuiteId, seed: &SigningSeed) -> Self {
        let xi = Zeroizing::new(ml_dsa::B32::from(*seed.as_bytes()));
        let key = Box::new(ml_dsa::SigningKey::<P>::from_seed(&xi));
        let public_key = key.verifying_key().encode().as_slice().into();
        Self { suite, public_key, key }
    }
}

impl<P: MlDsaParams + Send + Sync> SigningKey for ReferenceSigningKey<P> {
    fn suite(&self) -> SuiteId {
        self.suite
    }

    fn public_key(&self) -> &[u8] {
        &self.public_key
    }

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, SignError> {
        // The error covers a failing generator and the end of the rejection loop, which nobody will ever see.
        let signature = self
            .key
            .expanded_key()
            .sign_randomized(message, &[], &mut SysRng)
            .map_err(|_| SignError::Backend { backend: NAME })?;
        Ok(signature.encode().to_vec())
    }
}

/// The public key of a seed, for the self-tests.
pub(crate) fn public_key(suite: SuiteId, seed: &SigningSeed) -> Box<[u8]> {
    match suite {
        SuiteId::Standard => ReferenceSigningKey::<MlDsa65>::new(suite, seed).public_key,
        SuiteId::Cnsa => ReferenceSigningKey::<MlDsa87>::new(suite, seed).public_key,
    }
}

/// The deterministic variant (FIPS 204, Algorithm 2 with rnd = 0), for known answers only: everything else signs
/// hedged.
pub(crate) fn sign_deterministic(suite: SuiteId, seed: &SigningSeed, message: &[u8]) -> Vec<u8> {
    fn sign<P: MlDsaParams>(suite: SuiteId, seed: &SigningSeed, message: &[u8]) -> Vec<u8> {
        let key = ReferenceSigningKey::<P>::new(suite, seed).key;
        key.expanded_key().sign_deterministic(message, &[]).map(|s| s.encode().to_vec()).unwrap_or_default()
    }
    match suite {
        SuiteId::Standard => sign::<MlDsa65>(suite, seed, message),
        SuiteId::Cnsa => sign::<MlDsa87>(suite, seed, message),
    }
}

/// The crate's key erases itself on drop.
struct ReferenceDecapsulationKey {
    encapsulation_key: Box<[u8]>,
    key: Box<DecapsulationKey1024>,
}

impl ReferenceDecapsulationKey {
    fn new(seed: &KemSeed) -> Self {
        let mut bytes = ml_kem::Seed::from(*seed.as_bytes());
        let key = Box::new(DecapsulationKey1024::from_seed(bytes));
        bytes.zeroize();
        let encapsulation_key = key.encapsulation_key().to_bytes().as_slice().into();
        Self { encapsulation_key, key }
    }
}

impl DecapsulationKey for ReferenceDecapsulationKey {
    fn encapsulation_key(&self) -> &[u8] {
        &self.encapsulation_key
    }

    fn decapsulate(&self, ciphertext: &[u8]) -> Result<SharedSecret, DecapsulateError> {
        let ciphertext = ciphertext.try_into().map_err(|_| DecapsulateError::CiphertextLength {
            expected: ML_KEM_1024_CIPHERTEXT_BYTES,
            actual: ciphertext.len(),
        })?;
        let mut shared = self.key.decapsulate(ciphertext);
        let secret = SharedSecret::from_bytes(&shared.0);
        shared.zeroize();
        Ok(secret)
    }
}

/// Length and modulus check (FIPS 203, Section 7.2).
fn parse_encapsulation_key(bytes: &[u8]) -> Result<EncapsulationKey1024, KeyError> {
    let bytes = bytes.try_into().map_err(|_| KeyError::Length {
        expected: ML_KEM_1024_ENCAPSULATION_KEY_BYTES,
        actual: bytes.len(),
    })?;
    EncapsulationKey1024::new(bytes).map_err(|_| KeyError::Malformed)
}
