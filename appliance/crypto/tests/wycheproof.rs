//! Project Wycheproof's vectors on the reference backend and on the primitives. See `tests/vectors/README.md`.
//!
//! The first five tests go through the trait. The rest go below it, for what the trait leaves out on purpose:
//! contexts, external mu, deterministic signing and encapsulation with a given m.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

#[path = "../../../tests/vectors/harness.rs"]
mod harness;

use harness::{bytes, has_flag, is_valid, number, run};
use ml_dsa::{B32, MlDsa65, MlDsa87, MlDsaParams, Signature, SigningKey, VerifyingKey};
use ml_kem::EncapsulationKey1024;
use ml_kem::kem::TryKeyInit;
use zixt_crypto::hazmat::{self, ExpandError, GcmError};
use zixt_crypto::{AeadKey, SuiteId};

wycheproof_through_the_trait!(zixt_crypto::Reference);

/// FIPS 204, Section 5.4: what Sign_internal signs is 0 ‖ |ctx| ‖ ctx ‖ M.
fn sign_with<P: MlDsaParams>(suite: SuiteId) -> Tally {
    run(&format!("mldsa_{}_sign_seed_test", number(suite)), |group, test, tally| {
        let id = &test["tcId"];
        let Ok(seed) = B32::try_from(&bytes(&group["privateSeed"])[..]) else {
            assert!(has_flag(test, "IncorrectPrivateKeyLength"), "{id}");
            return tally.checked(test);
        };
        let key = SigningKey::<P>::from_seed(&seed);
        let key = key.expanded_key();
        let (message, context) = (bytes(&test["msg"]), bytes(&test["ctx"]));
        let signature = match (test.get("msg"), test.get("rnd")) {
            (None, _) => {
                let mu: [u8; 64] = bytes(&test["mu"]).try_into().unwrap();
                Ok(key.sign_mu_deterministic(&mu.into()))
            }
            (Some(_), Some(rnd)) => {
                let prefix = [0, u8::try_from(context.len()).unwrap()];
                let rnd = B32::try_from(&bytes(rnd)[..]).unwrap();
                Ok(key.sign_internal(&[&prefix, &context, &message], &rnd))
            }
            (Some(_), None) => key.sign_deterministic(&message, &context),
        };
        match signature {
            Ok(signature) => {
                assert!(is_valid(test), "{id}");
                assert!(signature.encode()[..] == bytes(&test["sig"]), "{id}");
            }
            Err(_) => assert!(has_flag(test, "InvalidContext") && !is_valid(test), "{id}"),
        }
        tally.checked(test);
    })
}

#[test]
fn ml_dsa_sign_below_the_trait() {
    assert_eq!(sign_with::<MlDsa65>(SuiteId::Standard), Tally::expect(101, 4, &[]));
    assert_eq!(sign_with::<MlDsa87>(SuiteId::Cnsa), Tally::expect(92, 4, &[]));
}

fn verify_with<P: MlDsaParams>(suite: SuiteId) -> Tally {
    run(&format!("mldsa_{}_verify_test", number(suite)), |group, test, tally| {
        let key = bytes(&group["publicKey"]);
        let accepted = match (key[..].try_into(), Signature::<P>::try_from(&bytes(&test["sig"])[..])) {
            (Ok(key), Ok(signature)) => VerifyingKey::<P>::decode(key).verify_with_context(
                &bytes(&test["msg"]),
                &bytes(&test["ctx"]),
                &signature,
            ),
            _ => false,
        };
        assert_eq!(accepted, is_valid(test), "{} {}", test["tcId"], test["comment"]);
        tally.checked(test);
    })
}

#[test]
fn ml_dsa_verify_below_the_trait() {
    assert_eq!(verify_with::<MlDsa65>(SuiteId::Standard), Tally::expect(79, 131, &[]));
    assert_eq!(verify_with::<MlDsa87>(SuiteId::Cnsa), Tally::expect(71, 170, &[]));
}

#[test]
fn ml_kem_encapsulate_below_the_trait() {
    let tally = run("mlkem_1024_encaps_test", |_, test, tally| {
        let id = &test["tcId"];
        match EncapsulationKey1024::new_from_slice(&bytes(&test["ek"])) {
            Ok(key) => {
                assert!(is_valid(test), "{id}");
                let m = ml_kem::B32::try_from(&bytes(&test["m"])[..]).unwrap();
                let (ciphertext, secret) = key.encapsulate_deterministic(&m);
                assert!(ciphertext[..] == bytes(&test["c"]), "{id}");
                assert!(secret[..] == bytes(&test["K"]), "{id}");
            }
            Err(_) => assert!(!is_valid(test), "{id}"),
        }
        tally.checked(test);
    });
    assert_eq!(tally, Tally::expect(133, 136, &[]));
}

#[test]
fn aes_gcm() {
    let tally = run("aes_gcm_test", |group, test, tally| {
        let id = &test["tcId"];
        let Ok(key) = AeadKey::from_slice(&bytes(&test["key"])) else {
            return tally.skip("key size");
        };
        let Ok(nonce) = bytes(&test["iv"]).try_into() else {
            return tally.skip("nonce size");
        };
        assert_eq!(group["tagSize"], 128, "{id}");
        let (aad, message) = (bytes(&test["aad"]), bytes(&test["msg"]));
        let expected = [bytes(&test["ct"]), bytes(&test["tag"])].concat();
        let mut sealed = Vec::new();
        hazmat::aead_seal_into(&key, &nonce, &aad, &message, &mut sealed).unwrap();
        assert_eq!(sealed == expected, is_valid(test), "{id}");
        match hazmat::aead_open(&key, &nonce, &aad, &expected) {
            Ok(opened) => assert!(is_valid(test) && *opened == message, "{id}"),
            Err(GcmError) => assert!(!is_valid(test), "{id}"),
        }
        tally.checked(test);
    });
    assert_eq!(tally, Tally::expect(39, 27, &[("key size", 211), ("nonce size", 39)]));
}

#[test]
fn hkdf_sha384() {
    let tally = run("hkdf_sha384_test", |_, test, tally| {
        let id = &test["tcId"];
        let prk = hazmat::hkdf_extract(&bytes(&test["salt"]), &bytes(&test["ikm"]));
        let size = usize::try_from(test["size"].as_u64().unwrap()).unwrap();
        let mut okm = vec![0; size];
        match hazmat::hkdf_expand(&prk, &[&bytes(&test["info"])], &mut okm) {
            Ok(()) => assert!(is_valid(test) && okm == bytes(&test["okm"]), "{id}"),
            Err(error) => {
                assert!(has_flag(test, "SizeTooLarge"), "{id}");
                assert_eq!(error, ExpandError(size), "{id}");
            }
        }
        tally.checked(test);
    });
    assert_eq!(tally, Tally::expect(80, 3, &[]));
}

/// The ciphertexts that the self-tests embed are the ones they say they are.
#[test]
fn self_test_constants_are_from_the_files() {
    let mut found = 0;
    run("mlkem_1024_test", |_, test, tally| {
        let embedded: &[u8] = match test["tcId"].as_u64() {
            Some(2) => include_bytes!("../src/kat/ml_kem_1024_accept.bin"),
            Some(142) => include_bytes!("../src/kat/ml_kem_1024_reject.bin"),
            _ => return tally.checked(test),
        };
        assert!(bytes(&test["c"]) == embedded);
        found += 1;
        tally.checked(test);
    });
    assert_eq!(found, 2);
}
