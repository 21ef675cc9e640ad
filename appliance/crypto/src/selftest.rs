//! Self-tests: known answers at start-up, and a pairwise check of every key pair that is made.
//!
//! A program calls [`run`] once with the backend it is about to use and stops if it fails. The known answers are
//! constants from published vectors, named at each; nothing here is computed by the code under test.
//!
//! Signing is randomised, so a backend's signatures cannot be compared with a constant. Instead the reference
//! implementation first reproduces Wycheproof's deterministic signature (which tests it, in this very binary),
//! then judges a signature of the backend; and the backend judges Wycheproof's.

use std::cell::OnceCell;
use std::fmt;
use zixt_types::SuiteId;

use crate::reference::{self, Reference};
use crate::secret::{AeadKey, KemSeed, RandomError, SigningSeed};
use crate::suite::{KEM_SEED_BYTES, ML_KEM_1024_CIPHERTEXT_BYTES, SHARED_SECRET_BYTES, suite_params};
use crate::traits::{Backend, DecapsulationKey, KeyError, SigningKey, VerifyError};
use crate::{aead, cose, hash, hazmat, hpke, labels, password};

/// One self-test.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Test {
    /// SHA-384 of "abc" (FIPS 180-4 example).
    Sha384,
    /// HMAC-SHA384 (RFC 4231, test case 1).
    Hmac,
    /// HKDF-SHA384 (Wycheproof `hkdf_sha384_test`, test 11).
    Hkdf,
    /// AES-256-GCM seals, opens and refuses (Wycheproof `aes_gcm_test`, test 101).
    AesGcm,
    /// Argon2id (RFC 9106, Section 5.3).
    Argon2id,
    /// ML-DSA public key of a seed (Wycheproof `mldsa_*_sign_seed_test`, test 1).
    MlDsaKeyGen(SuiteId),
    /// The reference implementation signs deterministically what Wycheproof has (same test).
    MlDsaReferenceSign(SuiteId),
    /// The backend accepts Wycheproof's signature.
    MlDsaVerifyAccept(SuiteId),
    /// The backend refuses it over another message, and with one bit flipped.
    MlDsaVerifyReject(SuiteId),
    /// The reference implementation accepts the backend's own signature.
    MlDsaSign(SuiteId),
    /// ML-KEM-1024 encapsulation key of a seed (Wycheproof `mlkem_1024_test`, test 2).
    MlKemKeyGen,
    /// The shared secret of a ciphertext (same test).
    MlKemDecapsulate,
    /// The secret that implicit rejection yields for a random ciphertext (same file, test 142).
    MlKemImplicitRejection,
    /// What the backend encapsulates, the reference implementation decapsulates to the same secret.
    MlKemEncapsulate,
    /// An unreduced encapsulation key is refused (FIPS 203, Section 7.2).
    MlKemKeyCheck,
    /// HPKE seals, opens and refuses.
    Hpke,
}

impl Test {
    /// Every test, in the order in which they run: what later ones rely on comes first.
    pub const ALL: [Self; 21] = [
        Self::Sha384,
        Self::Hmac,
        Self::Hkdf,
        Self::AesGcm,
        Self::Argon2id,
        Self::MlDsaKeyGen(SuiteId::Standard),
        Self::MlDsaReferenceSign(SuiteId::Standard),
        Self::MlDsaVerifyAccept(SuiteId::Standard),
        Self::MlDsaVerifyReject(SuiteId::Standard),
        Self::MlDsaSign(SuiteId::Standard),
        Self::MlDsaKeyGen(SuiteId::Cnsa),
        Self::MlDsaReferenceSign(SuiteId::Cnsa),
        Self::MlDsaVerifyAccept(SuiteId::Cnsa),
        Self::MlDsaVerifyReject(SuiteId::Cnsa),
        Self::MlDsaSign(SuiteId::Cnsa),
        Self::MlKemKeyGen,
        Self::MlKemDecapsulate,
        Self::MlKemImplicitRejection,
        Self::MlKemEncapsulate,
        Self::MlKemKeyCheck,
        Self::Hpke,
    ];

    fn holds(self, backend: &dyn Backend, remade: &Remade) -> bool {
        match self {
            Self::Sha384 => hazmat::sha384(&[b"abc"]) == SHA384_ABC,
            Self::Hmac => *hazmat::hmac_sha384(&[0x0b; 20], &[b"Hi There"]) == HMAC_RFC_4231_1,
            Self::Hkdf => hkdf_holds(),
            Self::AesGcm => aes_gcm_holds(),
            Self::Argon2id => password::known_answer_holds(),
            Self::MlDsaKeyGen(suite) => {
                backend.signing_key(suite, &SigningSeed::from_bytes(&ML_DSA_SEED)).is_ok_and(|key| {
                    hazmat::sha384(&[key.public_key()]) == ml_dsa_answers(suite).public_key_hash
                })
            }
            Self::MlDsaReferenceSign(suite) => {
                hazmat::sha384(&[&remade.of(suite).signature]) == ml_dsa_answers(suite).signature_hash
            }
            Self::MlDsaVerifyAccept(suite) => {
                let MlDsaRemade { public_key, signature } = remade.of(suite);
                backend.verify(suite, public_key, ML_DSA_MESSAGE, signature).is_ok()
            }
            Self::MlDsaVerifyReject(suite) => {
                let MlDsaRemade { public_key, signature } = remade.of(suite);
                let other = backend.verify(suite, public_key, b"Hello World", signature);
                let mut flipped = signature.clone();
                flipped[17] ^= 1;
                let flipped = backend.verify(suite, public_key, ML_DSA_MESSAGE, &flipped);
                other == Err(VerifyError::Rejected) && flipped == Err(VerifyError::Rejected)
            }
            Self::MlDsaSign(suite) => backend
                .signing_key(suite, &SigningSeed::from_bytes(&ML_DSA_SEED))
                .is_ok_and(|key| pairwise_check(&*key).is_ok()),
            Self::MlKemKeyGen => {
                backend.decapsulation_key(&KemSeed::from_bytes(&ML_KEM_ACCEPT.seed)).is_ok_and(|key| {
                    hazmat::sha384(&[key.encapsulation_key()]) == ML_KEM_ACCEPT.encapsulation_key_hash
                })
            }
            Self::MlKemDecapsulate => decapsulates(backend, &ML_KEM_ACCEPT),
            Self::MlKemImplicitRejection => decapsulates(backend, &ML_KEM_REJECT),
            Self::MlKemEncapsulate => Reference
                .decapsulation_key(&KemSeed::from_bytes(&ML_KEM_ACCEPT.seed))
                .is_ok_and(|key| encapsulation_agrees(backend, &*key)),
            // 0xff everywhere: coefficients of 4095, above q = 3329.
            Self::MlKemKeyCheck => {
                backend.validate_encapsulation_key(&[0xff; 1568]) == Err(KeyError::Malformed)
                    && backend.encapsulate(&[0xff; 1568]).is_err()
            }
            Self::Hpke => hpke_holds(),
        }
    }
}

impl fmt::Display for Test {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let dsa = |suite: &SuiteId| suite_params(*suite).signature_algorithm;
        match self {
            Self::Sha384 => f.write_str("SHA-384"),
            Self::Hmac => f.write_str("HMAC-SHA384"),
            Self::Hkdf => f.write_str("HKDF-SHA384"),
            Self::AesGcm => f.write_str("AES-256-GCM"),
            Self::Argon2id => f.write_str("Argon2id"),
            Self::MlDsaKeyGen(suite) => write!(f, "{} key generation", dsa(suite)),
            Self::MlDsaReferenceSign(suite) => write!(f, "{} reference signature", dsa(suite)),
            Self::MlDsaVerifyAccept(suite) => write!(f, "{} accepts a good signature", dsa(suite)),
            Self::MlDsaVerifyReject(suite) => write!(f, "{} refuses bad signatures", dsa(suite)),
            Self::MlDsaSign(suite) => write!(f, "{} signature", dsa(suite)),
            Self::MlKemKeyGen => f.write_str("ML-KEM-1024 key generation"),
            Self::MlKemDecapsulate => f.write_str("ML-KEM-1024 decapsulation"),
            Self::MlKemImplicitRejection => f.write_str("ML-KEM-1024 implicit rejection"),
            Self::MlKemEncapsulate => f.write_str("ML-KEM-1024 encapsulation"),
            Self::MlKemKeyCheck => f.write_str("ML-KEM-1024 key check"),
            Self::Hpke => f.write_str("HPKE"),
        }
    }
}

/// A self-test failed: this program must not use its cryptography.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("self-test of backend {backend} failed: {test}")]
pub struct SelfTestError {
    /// [`Backend::name`].
    pub backend: &'static str,
    /// The first test that failed.
    pub test: Test,
}

/// Runs every test of [`Test::ALL`] on `backend`, in some tens of milliseconds.
///
/// # Errors
/// [`SelfTestError`] with the first test that fails.
pub fn run(backend: &dyn Backend) -> Result<(), SelfTestError> {
    run_some(backend, &Test::ALL)
}

/// Runs some tests, for a backend of which not everything is used: a token, whose keys alone are its own.
///
/// # Errors
/// [`SelfTestError`] with the first test that fails.
pub fn run_some(backend: &dyn Backend, tests: &[Test]) -> Result<(), SelfTestError> {
    let remade = Remade::default();
    match tests.iter().find(|test| !test.holds(backend, &remade)) {
        None => Ok(()),
        Some(test) => Err(SelfTestError { backend: backend.name(), test: *test }),
    }
}

/// A new key pair whose halves do not fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the private and the public half of a new key do not fit")]
pub struct PairwiseError;

/// Signs with a new key and checks with its public half, by the reference implementation whatever made the key.
///
/// # Errors
/// [`PairwiseError`]; the key must be thrown away then.
pub fn pairwise_check(key: &dyn SigningKey) -> Result<(), PairwiseError> {
    let signature = cose::sign(key, labels::SELF_TEST, b"pairwise").map_err(|_| PairwiseError)?;
    cose::verify(&Reference, key.suite(), key.public_key(), labels::SELF_TEST, b"pairwise", &signature)
        .map_err(|_| PairwiseError)
}

/// Encapsulates to a new key, by the reference implementation, and decapsulates with it.
///
/// # Errors
/// [`PairwiseError`]; the key must be thrown away then.
pub fn pairwise_check_kem(key: &dyn DecapsulationKey) -> Result<(), PairwiseError> {
    if encapsulation_agrees(&Reference, key) { Ok(()) } else { Err(PairwiseError) }
}

/// Why no key was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum GenerateError {
    /// No randomness.
    #[error(transparent)]
    Random(#[from] RandomError),
    /// The backend refused the seed.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The pairwise check failed.
    #[error(transparent)]
    Pairwise(#[from] PairwiseError),
}

/// Makes a signing key and checks it. The seed is what is stored.
///
/// # Errors
/// [`GenerateError`]; no key is released then.
pub fn generate_signing_key(
    backend: &dyn Backend,
    suite: SuiteId,
) -> Result<(SigningSeed, Box<dyn SigningKey>), GenerateError> {
    let seed = backend.generate_signing_seed()?;
    let key = backend.signing_key(suite, &seed)?;
    pairwise_check(&*key)?;
    Ok((seed, key))
}

/// Makes a decapsulation key and checks it. The seed is what is stored.
///
/// # Errors
/// [`GenerateError`]; no key is released then.
pub fn generate_decapsulation_key(
    backend: &dyn Backend,
) -> Result<(KemSeed, Box<dyn DecapsulationKey>), GenerateError> {
    let seed = backend.generate_kem_seed()?;
    let key = backend.decapsulation_key(&seed)?;
    pairwise_check_kem(&*key)?;
    Ok((seed, key))
}

/// Wycheproof's key and signature, made again by the reference implementation; the signature's hash is the known answer of
/// [`Test::MlDsaReferenceSign`].
struct MlDsaRemade {
    public_key: Vec<u8>,
    signature: Vec<u8>,
}

/// What several tests of one run need: made once, because a signature costs more than all that is not one.
#[derive(Default)]
struct Remade {
    standard: OnceCell<MlDsaRemade>,
    cnsa: OnceCell<MlDsaRemade>,
}

impl Remade {
    fn of(&self, suite: SuiteId) -> &MlDsaRemade {
        let cell = match suite {
            SuiteId::Standard => &self.standard,
            SuiteId::Cnsa => &self.cnsa,
        };
        cell.get_or_init(|| {
            let seed = SigningSeed::from_bytes(&ML_DSA_SEED);
            MlDsaRemade {
                public_key: reference::public_key(suite, &seed).to_vec(),
                signature: reference::sign_deterministic(suite, &seed, ML_DSA_MESSAGE),
            }
        })
    }
}

fn encapsulation_agrees(backend: &dyn Backend, key: &dyn DecapsulationKey) -> bool {
    backend.encapsulate(key.encapsulation_key()).is_ok_and(|(ciphertext, sent)| {
        key.decapsulate(ciphertext.as_bytes()).is_ok_and(|received| received == sent)
    })
}

fn decapsulates(backend: &dyn Backend, answer: &MlKemAnswer) -> bool {
    backend
        .decapsulation_key(&KemSeed::from_bytes(&answer.seed))
        .ok()
        .and_then(|key| key.decapsulate(answer.ciphertext).ok())
        .is_some_and(|secret| hash::constant_time_eq(secret.as_bytes(), &answer.shared_secret))
}

fn hkdf_holds() -> bool {
    let prk = hazmat::hkdf_extract(
        &hex::<16>(b"2614d80275b08a1cf90bae0eb607d4d5"),
        &hex::<16>(b"0cbd136d66d15a4ffefde1303b430821"),
    );
    let mut okm = [0; 42];
    hazmat::hkdf_expand(&prk, &[&hex::<20>(b"ee991de21aeb6baa6a5f683dbb755e6f80db1c1d")], &mut okm).is_ok()
        && okm == hex(b"e618b91d9f3d10c007958d025841a3347947eb41b23ec35a3d7927aad74f293c50405a56911d8158e74f")
}

fn aes_gcm_holds() -> bool {
    let key = AeadKey::from_bytes(&hex(b"cdccfe3f46d782ef47df4e72f0c02d9c7f774def970d23486f11a57f54247f17"));
    let nonce = hex(b"376187894605a8d45e30de51");
    let aad = hex::<8>(b"956846a209e087ed");
    let plaintext = hex::<20>(b"e28e0e9f9d22463ac0e42639b530f42102fded75");
    let sealed = hex::<36>(b"feca44952447015b5df1f456df8ca4bb4eee2ce2082e91924deeb77880e1b1c84f9b8d30");
    let mut made = Vec::new();
    let seals = hazmat::aead_seal_into(&key, &nonce, &aad, &plaintext, &mut made).is_ok() && made == sealed;
    let opens = hazmat::aead_open(&key, &nonce, &aad, &sealed).is_ok_and(|opened| *opened == plaintext);
    let mut flipped = sealed;
    flipped[0] ^= 1;
    let refuses = hazmat::aead_open(&key, &nonce, &aad, &flipped).is_err()
        && hazmat::aead_open(&key, &nonce, b"", &sealed).is_err();
    let random = aead::seal(&key, &aad, &plaintext)
        .is_ok_and(|sealed| aead::open(&key, &aad, &sealed).is_ok_and(|opened| *opened == plaintext));
    seals && opens && refuses && random
}

fn hpke_holds() -> bool {
    let key = hpke::OpeningKey::new(&KemSeed::from_bytes(&ML_KEM_ACCEPT.seed));
    hpke::seal(&key.encapsulation_key(), labels::SELF_TEST, b"aad", b"plaintext").is_ok_and(|sealed| {
        key.open(labels::SELF_TEST, b"aad", &sealed).is_ok_and(|opened| *opened == b"plaintext")
            && key.open(labels::SELF_TEST, b"bad", &sealed).is_err()
    })
}

const SHA384_ABC: [u8; 48] =
    hex(b"cb00753f45a35e8bb5a03d699ac65007272c32ab0eded1631a8b605a43ff5bed8086072ba1e7cc2358baeca134c825a7");

const HMAC_RFC_4231_1: [u8; 48] =
    hex(b"afd03944d84895626b0825f4ab46907f15f9dadbe4101ec682aa034c7cebc59cfaea9ea9076ede7f4af152e8b2fa9cb6");

const ML_DSA_SEED: [u8; 32] = [0x2a; 32];
const ML_DSA_MESSAGE: &[u8] = b"Hello world";

/// SHA-384 of the public key and of the signature in Wycheproof.
struct MlDsaAnswers {
    public_key_hash: [u8; 48],
    signature_hash: [u8; 48],
}

const fn ml_dsa_answers(suite: SuiteId) -> MlDsaAnswers {
    match suite {
        SuiteId::Standard => MlDsaAnswers {
            public_key_hash: hex(
                b"cbf455a6546a93584a7a70864685fb68f948a7359be4dbbbe71e10469bcc37a3ee1c2217a6432b87ace4797ea807602b",
            ),
            signature_hash: hex(
                b"b6f9b5732adf02fddd7ebd2a1dd721402e3ed37bc2faf70a8038e092eb45bcf4950db7c79e8060f9a75e081df21953be",
            ),
        },
        SuiteId::Cnsa => MlDsaAnswers {
            public_key_hash: hex(
                b"ff93f17593787356db20b0d0db162a09d951ed19129b21e0b06c00b16f8843273c1f09625f4d4a51e021c5ba751144f7",
            ),
            signature_hash: hex(
                b"16fc550dd7ac75dc45eab84edbc03a285a4b9a9f208fe285b5b1e2f4b3170ec01ccd1d19daab2b623f809ee0fda75a7f",
            ),
        },
    }
}

/// One decapsulation in Wycheproof.
struct MlKemAnswer {
    seed: [u8; KEM_SEED_BYTES],
    encapsulation_key_hash: [u8; 48],
    ciphertext: &'static [u8; ML_KEM_1024_CIPHERTEXT_BYTES],
    shared_secret: [u8; SHARED_SECRET_BYTES],
}

const ML_KEM_ACCEPT: MlKemAnswer = MlKemAnswer {
    seed: hex(
        b"7c9935a0b07694aa0c6d10e4db6b1add2fd81a25ccb148032dcd739936737f2d8626ed79d451140800e03b59b956f8210e556067407d13dc90fa9e8b872bfb8f",
    ),
    encapsulation_key_hash: hex(
        b"32e9f0f103866aa5cfa8f9dc8c1009344658bfea01b73fdd7eab88eb02d2bf06870187fef07a2ce21cd9d4b3d856262e",
    ),
    ciphertext: include_bytes!("kat/ml_kem_1024_accept.bin"),
    shared_secret: hex(b"489dd1e9c2be4af3482bdb35bb26ce760e6e414da6ecbe489985748a825f1cd6"),
};

const ML_KEM_REJECT: MlKemAnswer = MlKemAnswer {
    seed: hex(
        b"3f6f67ff01382a44c8d5dc52295311a1934f1a10f0ca6085e53af2eb524334881674047e7e7a1649482e1d9b0de92455cd14d0049bdcb7cea4b867ace5c8922b",
    ),
    encapsulation_key_hash: hex(
        b"b1e81a605892e61e039a1c04380e54107d757c2920fb2a8895b4dca76985ae280f87513bf4269ba82d77c39da5c898fa",
    ),
    ciphertext: include_bytes!("kat/ml_kem_1024_reject.bin"),
    shared_secret: hex(b"66e9331f3ed7e258aea053740f4b38f7bb53eb1221eafc8c59f5216491aeff93"),
};

/// Reads a constant. Only ever called on the literals above; a wrong one is a wrong answer and fails its test.
const fn hex<const N: usize>(text: &[u8]) -> [u8; N] {
    const fn nibble(digit: u8) -> u8 {
        if digit.is_ascii_digit() { digit - b'0' } else { digit - b'a' + 10 }
    }
    assert!(text.len() == 2 * N);
    let mut out = [0; N];
    let mut i = 0;
    while i < N {
        out[i] = nibble(text[2 * i]) << 4 | nibble(text[2 * i + 1]);
        i += 1;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::SharedSecret;
    use crate::traits::{Ciphertext, DecapsulateError, EncapsulateError, SignError};

    #[test]
    fn reference_passes() {
        assert_eq!(run(&Reference), Ok(()));
    }

    #[test]
    fn made_keys_pass() {
        for suite in SuiteId::ALL {
            let (seed, key) = generate_signing_key(&Reference, suite).unwrap();
            assert_eq!(key.public_key(), &*reference::public_key(suite, &seed));
        }
        let (seed, key) = generate_decapsulation_key(&Reference).unwrap();
        let again = Reference.decapsulation_key(&seed).unwrap();
        assert_eq!(key.encapsulation_key(), again.encapsulation_key());
    }

    /// What a broken backend does wrong.
    #[derive(Clone, Copy, PartialEq)]
    enum Fault {
        AcceptsEverything,
        RefusesEverything,
        OtherSeed,
        GarbledSignature,
        OtherKemSeed,
        ExplicitRejection,
        OtherSecret,
        NoModulusCheck,
    }

    struct Faulty(Fault);
    struct FaultySigner(Box<dyn SigningKey>);
    struct FaultyKem(Box<dyn DecapsulationKey>);

    impl SigningKey for FaultySigner {
        fn suite(&self) -> SuiteId {
            self.0.suite()
        }
        fn public_key(&self) -> &[u8] {
            self.0.public_key()
        }
        fn sign(&self, message: &[u8]) -> Result<Vec<u8>, SignError> {
            let mut signature = self.0.sign(message)?;
            signature[99] ^= 1;
            Ok(signature)
        }
    }

    impl DecapsulationKey for FaultyKem {
        fn encapsulation_key(&self) -> &[u8] {
            self.0.encapsulation_key()
        }
        fn decapsulate(&self, ciphertext: &[u8]) -> Result<SharedSecret, DecapsulateError> {
            if ciphertext == ML_KEM_REJECT.ciphertext {
                return Err(DecapsulateError::Backend { backend: "faulty" });
            }
            self.0.decapsulate(ciphertext)
        }
    }

    impl Backend for Faulty {
        fn name(&self) -> &'static str {
            "faulty"
        }
        fn verify(
            &self,
            suite: SuiteId,
            pk: &[u8],
            message: &[u8],
            signature: &[u8],
        ) -> Result<(), VerifyError> {
            match self.0 {
                Fault::AcceptsEverything => Ok(()),
                Fault::RefusesEverything => Err(VerifyError::Rejected),
                _ => Reference.verify(suite, pk, message, signature),
            }
        }
        fn signing_key(&self, suite: SuiteId, seed: &SigningSeed) -> Result<Box<dyn SigningKey>, KeyError> {
            match self.0 {
                Fault::OtherSeed => Reference.signing_key(suite, &SigningSeed::from_bytes(&[1; 32])),
                Fault::GarbledSignature => Ok(Box::new(FaultySigner(Reference.signing_key(suite, seed)?))),
                _ => Reference.signing_key(suite, seed),
            }
        }
        fn decapsulation_key(&self, seed: &KemSeed) -> Result<Box<dyn DecapsulationKey>, KeyError> {
            match self.0 {
                Fault::OtherKemSeed => Reference.decapsulation_key(&KemSeed::from_bytes(&[1; 64])),
                Fault::ExplicitRejection => Ok(Box::new(FaultyKem(Reference.decapsulation_key(seed)?))),
                _ => Reference.decapsulation_key(seed),
            }
        }
        fn validate_encapsulation_key(&self, key: &[u8]) -> Result<(), KeyError> {
            if self.0 == Fault::NoModulusCheck { Ok(()) } else { Reference.validate_encapsulation_key(key) }
        }
        fn encapsulate(&self, key: &[u8]) -> Result<(Ciphertext, SharedSecret), EncapsulateError> {
            let (ciphertext, secret) = Reference.encapsulate(key)?;
            Ok((
                ciphertext,
                if self.0 == Fault::OtherSecret { SharedSecret::from_bytes(&[0; 32]) } else { secret },
            ))
        }
    }

    #[test]
    fn every_fault_is_found_and_named() {
        let standard = SuiteId::Standard;
        for (fault, test) in [
            (Fault::AcceptsEverything, Test::MlDsaVerifyReject(standard)),
            (Fault::RefusesEverything, Test::MlDsaVerifyAccept(standard)),
            (Fault::OtherSeed, Test::MlDsaKeyGen(standard)),
            (Fault::GarbledSignature, Test::MlDsaSign(standard)),
            (Fault::OtherKemSeed, Test::MlKemKeyGen),
            (Fault::ExplicitRejection, Test::MlKemImplicitRejection),
            (Fault::OtherSecret, Test::MlKemEncapsulate),
            (Fault::NoModulusCheck, Test::MlKemKeyCheck),
        ] {
            let error = run(&Faulty(fault)).unwrap_err();
            assert_eq!(error, SelfTestError { backend: "faulty", test });
            assert!(error.to_string().starts_with("self-test of backend faulty failed: ML-"), "{error}");
        }
        assert_eq!(
            generate_signing_key(&Faulty(Fault::GarbledSignature), standard).map(|_| ()),
            Err(GenerateError::Pairwise(PairwiseError))
        );
    }
}
