// Runs the Wycheproof vectors through the `Backend` trait. Included by the tests of both crates that have a backend.

use std::collections::BTreeMap;

use serde_json::Value;
use zixt_crypto::{
    Backend, DecapsulateError, EncapsulateError, KemSeed, KeyError, LengthError, Reference, SigningSeed,
    SuiteId, hazmat, suite_params,
};

/// How many vectors of each documented result were checked, and how many were not and why.
#[derive(Debug, Default, PartialEq)]
pub struct Tally {
    pub valid: usize,
    pub invalid: usize,
    pub skipped: BTreeMap<&'static str, usize>,
}

impl Tally {
    pub fn expect(valid: usize, invalid: usize, skipped: &[(&'static str, usize)]) -> Self {
        Self { valid, invalid, skipped: skipped.iter().copied().collect() }
    }

    pub fn checked(&mut self, test: &Value) {
        if is_valid(test) { self.valid += 1 } else { self.invalid += 1 }
    }

    pub fn skip(&mut self, reason: &'static str) {
        *self.skipped.entry(reason).or_default() += 1;
    }
}

/// Calls `check` with each group and test of a file and returns what it tallied.
pub fn run(file: &str, mut check: impl FnMut(&Value, &Value, &mut Tally)) -> Tally {
    let path = format!("{}/../../tests/vectors/wycheproof/{file}.json", env!("CARGO_MANIFEST_DIR"));
    let root: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let (mut tally, mut seen) = (Tally::default(), 0);
    for group in root["testGroups"].as_array().unwrap() {
        for test in group["tests"].as_array().unwrap() {
            check(group, test, &mut tally);
            seen += 1;
        }
    }
    assert_eq!(seen, root["numberOfTests"], "{file}");
    assert_eq!(seen, tally.valid + tally.invalid + tally.skipped.values().sum::<usize>(), "{file}");
    tally
}

/// The documented result. "acceptable" does not occur in these files.
pub fn is_valid(test: &Value) -> bool {
    match test["result"].as_str().unwrap() {
        "valid" => true,
        "invalid" => false,
        other => panic!("test {}: result {other}", test["tcId"]),
    }
}

pub fn has_flag(test: &Value, flag: &str) -> bool {
    test["flags"].as_array().unwrap().iter().any(|f| f == flag)
}

/// A hex field; empty if it is missing.
pub fn bytes(value: &Value) -> Vec<u8> {
    let text = value.as_str().unwrap_or("");
    (0..text.len()).step_by(2).map(|i| u8::from_str_radix(&text[i..i + 2], 16).unwrap()).collect()
}

pub const fn number(suite: SuiteId) -> u8 {
    match suite {
        SuiteId::Standard => 65,
        SuiteId::Cnsa => 87,
    }
}

/// A non-empty context: the trait has none, on purpose.
pub const CONTEXT: &str = "context string";
/// A message given only as mu.
pub const EXTERNAL_MU: &str = "external mu";

/// Public keys, refusal of bad seeds, the vector's signature, and one of our own over the same message. Exact bytes
/// cannot be compared through the trait, which signs hedged.
pub fn ml_dsa_sign(backend: &dyn Backend, suite: SuiteId) -> Tally {
    run(&format!("mldsa_{}_sign_seed_test", number(suite)), |group, test, tally| {
        let id = &test["tcId"];
        let seed = bytes(&group["privateSeed"]);
        if has_flag(test, "IncorrectPrivateKeyLength") {
            let error = LengthError { expected: 32, actual: seed.len() };
            assert_eq!(SigningSeed::from_slice(&seed), Err(error), "{id}");
            return tally.checked(test);
        }
        let key = backend.signing_key(suite, &SigningSeed::from_slice(&seed).unwrap()).unwrap();
        assert!(key.public_key() == bytes(&group["publicKey"]), "{id}");
        if !bytes(&test["ctx"]).is_empty() {
            return tally.skip(CONTEXT);
        }
        if test.get("msg").is_none() {
            return tally.skip(EXTERNAL_MU);
        }
        assert!(is_valid(test), "{id}");
        let message = bytes(&test["msg"]);
        assert_eq!(backend.verify(suite, key.public_key(), &message, &bytes(&test["sig"])), Ok(()), "{id}");
        let ours = key.sign(&message).unwrap();
        for judge in [backend, &Reference] {
            assert_eq!(judge.verify(suite, key.public_key(), &message, &ours), Ok(()), "{id}");
        }
        tally.checked(test);
    })
}

pub fn ml_dsa_verify(backend: &dyn Backend, suite: SuiteId) -> Tally {
    run(&format!("mldsa_{}_verify_test", number(suite)), |group, test, tally| {
        let id = &test["tcId"];
        let result =
            backend.verify(suite, &bytes(&group["publicKey"]), &bytes(&test["msg"]), &bytes(&test["sig"]));
        if !bytes(&test["ctx"]).is_empty() {
            // Good under its context or not, without one it is no signature.
            assert!(result.is_err(), "{id}");
            return tally.skip(CONTEXT);
        }
        assert_eq!(result.is_ok(), is_valid(test), "{id} {}: {result:?}", test["comment"]);
        tally.checked(test);
    })
}

pub fn ml_kem_keygen(backend: &dyn Backend) -> Tally {
    run("mlkem_1024_keygen_seed_test", |_, test, tally| {
        let id = &test["tcId"];
        assert!(is_valid(test), "{id}");
        let seed = KemSeed::from_slice(&bytes(&test["seed"])).unwrap();
        let key = backend.decapsulation_key(&seed).unwrap();
        assert!(key.encapsulation_key() == bytes(&test["ek"]), "{id}");
        assert!(hazmat::ml_kem_1024_expand(&seed)[..] == bytes(&test["dk"]), "{id}");
        tally.checked(test);
    })
}

pub fn ml_kem_decapsulate(backend: &dyn Backend) -> Tally {
    run("mlkem_1024_test", |_, test, tally| {
        let id = &test["tcId"];
        let (seed, ciphertext) = (bytes(&test["seed"]), bytes(&test["c"]));
        match KemSeed::from_slice(&seed) {
            Err(error) => {
                assert!(!is_valid(test), "{id}");
                assert_eq!(error, LengthError { expected: 64, actual: seed.len() }, "{id}");
            }
            Ok(seed) => {
                let key = backend.decapsulation_key(&seed).unwrap();
                assert!(key.encapsulation_key() == bytes(&test["ek"]), "{id}");
                match key.decapsulate(&ciphertext) {
                    Ok(secret) => {
                        assert!(is_valid(test), "{id}");
                        assert!(secret.as_bytes()[..] == bytes(&test["K"]), "{id}");
                    }
                    Err(error) => {
                        assert!(!is_valid(test), "{id}");
                        let expected =
                            DecapsulateError::CiphertextLength { expected: 1568, actual: ciphertext.len() };
                        assert_eq!(error, expected, "{id}");
                    }
                }
            }
        }
        tally.checked(test);
    })
}

/// Acceptance and refusal of keys. Exact bytes cannot be compared through the trait, which draws its own m.
pub fn ml_kem_encapsulate(backend: &dyn Backend) -> Tally {
    run("mlkem_1024_encaps_test", |_, test, tally| {
        let id = &test["tcId"];
        let key = bytes(&test["ek"]);
        let checked = backend.validate_encapsulation_key(&key);
        assert_eq!(checked.is_ok(), is_valid(test), "{id}");
        match (checked, backend.encapsulate(&key)) {
            (Ok(()), Ok(_)) => {}
            (Err(refused), Err(EncapsulateError::Key(error))) => {
                let expected = match key.len() {
                    1568 => KeyError::Malformed,
                    actual => KeyError::Length { expected: 1568, actual },
                };
                assert_eq!((refused, error), (expected, expected), "{id}");
            }
            (_, encapsulated) => panic!("{id}: {:?}", encapsulated.map(|_| ())),
        }
        tally.checked(test);
    })
}

/// Every file that a backend can be tried on, with the counts that both backends reach.
pub fn both_suites(backend: &dyn Backend, which: fn(&dyn Backend, SuiteId) -> Tally, expected: [Tally; 2]) {
    for (suite, expected) in SuiteId::ALL.into_iter().zip(expected) {
        assert_eq!(
            which(backend, suite),
            expected,
            "{} {}",
            backend.name(),
            suite_params(suite).signature_algorithm
        );
    }
}

/// The tests themselves, once for each backend.
#[macro_export]
macro_rules! wycheproof_through_the_trait {
    ($backend:expr) => {
        use $crate::harness::{CONTEXT, EXTERNAL_MU, Tally, both_suites};

        #[test]
        fn ml_dsa_sign() {
            both_suites(
                &$backend,
                $crate::harness::ml_dsa_sign,
                [
                    Tally::expect(81, 3, &[(CONTEXT, 4), (EXTERNAL_MU, 17)]),
                    Tally::expect(72, 3, &[(CONTEXT, 4), (EXTERNAL_MU, 17)]),
                ],
            );
        }

        #[test]
        fn ml_dsa_verify() {
            both_suites(
                &$backend,
                $crate::harness::ml_dsa_verify,
                [Tally::expect(77, 126, &[(CONTEXT, 7)]), Tally::expect(69, 165, &[(CONTEXT, 7)])],
            );
        }

        #[test]
        fn ml_kem_keygen() {
            assert_eq!($crate::harness::ml_kem_keygen(&$backend), Tally::expect(100, 0, &[]));
        }

        #[test]
        fn ml_kem_decapsulate() {
            assert_eq!($crate::harness::ml_kem_decapsulate(&$backend), Tally::expect(153, 40, &[]));
        }

        #[test]
        fn ml_kem_encapsulate() {
            assert_eq!($crate::harness::ml_kem_encapsulate(&$backend), Tally::expect(133, 136, &[]));
        }
    };
}
