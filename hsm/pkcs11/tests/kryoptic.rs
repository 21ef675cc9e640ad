//! Against Kryoptic, a software token of PKCS#11 3.2 that signs and decapsulates inside: what an HSM would do for custody
//! mode 1. scripts/build-kryoptic.sh builds it.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test; helpers outside #[test] functions count as well"
)]

mod common;

use common::*;
use cryptoki::error::RvError;
use cryptoki::mechanism::Mechanism;
use cryptoki::object::{Attribute, AttributeType, MlDsaParameterSetType, ObjectClass};
use cryptoki::session::UserType;
use zixt_crypto::{
    Backend as _, DecapsulationKey as _, KemSeed, Reference, SigningKey, SigningSeed, SuiteId,
};
use zixt_hsm_pkcs11::{
    Algorithm, AnchorError, AnchorId, Destruction, KeyId, NativeError, NativeKey, NativeSigner, ObjectKind,
    Origin, PinState, PinTry, Token, TokenError,
};

#[test]
fn wraps_and_unwraps_and_refuses_every_change() {
    if in_kryoptic(
        "wraps_and_unwraps_and_refuses_every_change",
        "ZIXT-SKIP: wraps_and_unwraps_and_refuses_every_change: Kryoptic is not built",
    ) {
        scenarios::wraps_and_refuses_every_change();
    }
}

#[test]
fn logging_out_and_in_again_finds_the_key_by_its_id() {
    if in_kryoptic(
        "logging_out_and_in_again_finds_the_key_by_its_id",
        "ZIXT-SKIP: logging_out_and_in_again_finds_the_key_by_its_id: Kryoptic is not built",
    ) {
        scenarios::finds_the_key_again_after_a_logout();
    }
}

#[test]
fn a_login_is_the_processs_and_its_end_is_noticed() {
    if in_kryoptic(
        "a_login_is_the_processs_and_its_end_is_noticed",
        "ZIXT-SKIP: a_login_is_the_processs_and_its_end_is_noticed: Kryoptic is not built",
    ) {
        scenarios::a_login_is_the_processs_and_its_end_is_noticed();
    }
}

#[test]
fn a_forged_tag_is_named_and_an_iv_of_no_bytes_is_refused() {
    if in_kryoptic(
        "a_forged_tag_is_named_and_an_iv_of_no_bytes_is_refused",
        "ZIXT-SKIP: a_forged_tag_is_named_and_an_iv_of_no_bytes_is_refused: Kryoptic is not built",
    ) {
        scenarios::speaks_of_forgeries(RvError::EncryptedDataInvalid, false);
    }
}

#[test]
fn lost_sessions_are_replaced() {
    if in_kryoptic(
        "lost_sessions_are_replaced",
        "ZIXT-SKIP: lost_sessions_are_replaced: Kryoptic is not built",
    ) {
        scenarios::lost_sessions_are_replaced();
    }
}

#[test]
fn bears_300_sessions_and_300_threads() {
    if in_kryoptic(
        "bears_300_sessions_and_300_threads",
        "ZIXT-SKIP: bears_300_sessions_and_300_threads: Kryoptic is not built",
    ) {
        scenarios::bears_300_sessions_and_300_threads();
    }
}

#[test]
fn the_security_officer_can_wipe_it() {
    if in_kryoptic(
        "the_security_officer_can_wipe_it",
        "ZIXT-SKIP: the_security_officer_can_wipe_it: Kryoptic is not built",
    ) {
        scenarios::the_security_officer_can_wipe_it();
    }
}

#[test]
fn the_pin_changes() {
    if in_kryoptic("the_pin_changes", "ZIXT-SKIP: the_pin_changes: Kryoptic is not built") {
        scenarios::the_pin_changes();
    }
}

#[test]
fn keys_are_destroyed_or_the_token_says_that_it_keeps_them() {
    if in_kryoptic(
        "keys_are_destroyed_or_the_token_says_that_it_keeps_them",
        "ZIXT-SKIP: keys_are_destroyed_or_the_token_says_that_it_keeps_them: Kryoptic is not built",
    ) {
        scenarios::keys_are_destroyed_or_the_token_says_that_it_keeps_them();
    }
}

#[test]
fn the_kek_is_not_copied_wrapped_or_loosened() {
    if in_kryoptic(
        "the_kek_is_not_copied_wrapped_or_loosened",
        "ZIXT-SKIP: the_kek_is_not_copied_wrapped_or_loosened: Kryoptic is not built",
    ) {
        scenarios::the_kek_is_not_copied_wrapped_or_loosened();
    }
}

#[test]
fn lists_what_is_ours_and_what_is_wrong_with_it() {
    if in_kryoptic(
        "lists_what_is_ours_and_what_is_wrong_with_it",
        "ZIXT-SKIP: lists_what_is_ours_and_what_is_wrong_with_it: Kryoptic is not built",
    ) {
        scenarios::lists_what_is_ours_and_what_is_wrong_with_it();
    }
}

#[test]
fn anchors_go_forward_only() {
    if in_kryoptic("anchors_go_forward_only", "ZIXT-SKIP: anchors_go_forward_only: Kryoptic is not built") {
        scenarios::anchors_go_forward_only();
    }
}

#[test]
fn a_witness_sees_the_kek_sensitive() {
    if in_kryoptic(
        "a_witness_sees_the_kek_sensitive",
        "ZIXT-SKIP: a_witness_sees_the_kek_sensitive: Kryoptic is not built",
    ) {
        scenarios::a_witness_sees_the_kek_sensitive();
    }
}

fn id(name: &str) -> KeyId {
    KeyId(name.as_bytes().to_vec())
}

/// Three tries are left when Kryoptic first speaks of it, of ten.
#[test]
fn the_last_try_is_left_to_a_person() {
    if !in_kryoptic(
        "the_last_try_is_left_to_a_person",
        "ZIXT-SKIP: the_last_try_is_left_to_a_person: Kryoptic is not built",
    ) {
        return;
    }
    let module = module_with_token();
    let state = || module.pin_state(&selector(LABEL)).unwrap();
    let wrong = |pin_try| Token::open(&module, &selector(LABEL), &pin("00000000"), pin_try);
    for _ in 0..7 {
        assert_eq!(state(), PinState::Ready);
        assert!(matches!(wrong(PinTry::Attended), Err(TokenError::PinIncorrect)));
    }
    assert_eq!(state(), PinState::CountLow);
    assert!(matches!(wrong(PinTry::Unattended), Err(TokenError::PinCountLow)));
    // The right one sets the count back; a change of the PIN counts as a login does.
    drop(open(&module).unwrap());
    assert_eq!(state(), PinState::Ready);
    for _ in 0..9 {
        let changed = module.change_pin(&selector(LABEL), &pin("00000000"), &pin("another-1"));
        assert!(changed.unwrap_err().to_string().contains("refused the PIN"));
    }
    assert_eq!(state(), PinState::FinalTry);
    for _ in 0..5 {
        for pin_try in [PinTry::Attended, PinTry::Unattended] {
            assert!(matches!(wrong(pin_try), Err(TokenError::PinFinalTry)));
        }
        // Not even the right one.
        assert!(matches!(open(&module), Err(TokenError::PinFinalTry)));
        let changed = module.change_pin(&selector(LABEL), &pin(PIN), &pin("another-1"));
        assert!(changed.unwrap_err().to_string().contains("one try"));
    }
    assert_eq!(state(), PinState::FinalTry, "none of that cost the try");

    // Somebody else burns it.
    let raw = Raw::new();
    let session = raw.session();
    assert!(session.login(UserType::User, Some(&pin("00000000"))).is_err());
    drop(session);
    assert_eq!(state(), PinState::Locked);
    assert!(matches!(open(&module), Err(TokenError::PinLocked)));
    let session = raw.session();
    session.login(UserType::So, Some(&pin(SO_PIN))).unwrap();
    session.init_pin(&pin(PIN)).unwrap();
    session.logout().unwrap();
    // The security officer unlocks it, and a new process sees that. This one is told so by its next login only; we make
    // none, because a token that says that it is locked is believed.
    pkcs11_tool(&["--list-objects"]);
    assert_eq!(state(), PinState::Locked);
    assert!(matches!(open(&module), Err(TokenError::PinLocked)));
    session.login(UserType::User, Some(&pin(PIN))).unwrap();
    drop(session);
    assert_eq!(state(), PinState::Ready);
    drop(open(&module).unwrap());
}

#[test]
fn keys_are_made_inside_found_again_used_and_destroyed() {
    if !in_kryoptic(
        "keys_are_made_inside_found_again_used_and_destroyed",
        "ZIXT-SKIP: keys_are_made_inside_found_again_used_and_destroyed: Kryoptic is not built",
    ) {
        return;
    }
    let module = module_with_token();
    let token = open(&module).unwrap();
    let mut keys = Vec::new();
    for suite in SuiteId::ALL {
        token.supports(Algorithm::MlDsa(suite)).unwrap();
        let key = token.generate_signing_key(&id(suite.name()), suite).unwrap();
        assert_eq!(key.origin, Origin::MadeInside);
        let again = token.generate_signing_key(&id(suite.name()), suite);
        assert!(matches!(again, Err(NativeError::KeyExists { .. })), "{again:?}");
        keys.push(key);
    }
    token.supports(Algorithm::MlKem1024).unwrap();
    let kem = token.generate_kem_key(&id("kem")).unwrap();
    assert_eq!(kem.origin, Origin::MadeInside);

    // After a logout everything is found again by its id.
    drop(token);
    let token = open(&module).unwrap();
    for key in &keys {
        assert_eq!(token.find_native(&key.id, key.algorithm).unwrap(), *key);
        let signer = token.signer(key).unwrap();
        let first = signer.sign(b"message").unwrap();
        assert_ne!(first, signer.sign(b"message").unwrap(), "hedged");
        for message in [&b""[..], b"message", &[7; 100_000]] {
            let signature = signer.sign(message).unwrap();
            Reference.verify(signer.suite(), &key.public_key, message, &signature).unwrap();
        }
    }
    let decapsulator = token.decapsulator(&kem).unwrap();
    let (ciphertext, sent) = Reference.encapsulate(&kem.public_key).unwrap();
    assert!(decapsulator.decapsulate(ciphertext.as_bytes()).unwrap() == sent);
    assert!(decapsulator.decapsulate(&ciphertext.as_bytes()[1..]).is_err());
    let mut forged = *ciphertext.as_bytes();
    forged[0] ^= 1;
    assert!(decapsulator.decapsulate(&forged).unwrap() != sent, "implicit rejection");
    let session_objects =
        Raw::new().session().find_objects(&[Attribute::Class(ObjectClass::SECRET_KEY)]).unwrap();
    assert_eq!(session_objects, [], "no shared secret stays in the token");

    let kinds: Vec<_> = token.objects().unwrap().iter().map(|object| (object.kind, object.fault)).collect();
    let expected = [[(ObjectKind::PrivateKey, None); 3], [(ObjectKind::PublicKey, None); 3]].concat();
    assert_eq!(kinds, expected);

    // A signer of what another key is, or of another origin, is refused.
    let [standard, cnsa] = &keys[..] else { panic!("two suites") };
    let swapped = NativeKey { public_key: other_public_key(&token), ..standard.clone() };
    assert!(matches!(token.signer(&swapped), Err(NativeError::Mismatch { .. })));
    let imported = NativeKey { origin: Origin::Imported, ..standard.clone() };
    assert!(matches!(token.signer(&imported), Err(NativeError::KeyUnsafe { .. })));
    let wrong_suite = NativeKey { algorithm: Algorithm::MlDsa(SuiteId::Cnsa), ..standard.clone() };
    assert!(matches!(token.signer(&wrong_suite), Err(NativeError::KeyUnsafe { .. })));
    assert!(matches!(token.signer(&kem), Err(NativeError::KeyUnsafe { .. })));
    assert!(matches!(token.decapsulator(standard), Err(NativeError::KeyUnsafe { .. })));

    let signer = token.signer(cnsa).unwrap();
    assert_eq!(token.destroy_native(&cnsa.id).unwrap(), Destruction::Destroyed);
    assert!(matches!(signer.try_sign(b"message"), Err(NativeError::KeyMissing { .. })));
    assert!(signer.sign(b"message").is_err());
    assert!(matches!(token.destroy_native(&cnsa.id), Err(NativeError::KeyMissing { .. })));
    assert!(matches!(token.signer(cnsa), Err(NativeError::KeyMissing { .. })));

    // A token that is closed takes its signers with it.
    let signer = token.signer(standard).unwrap();
    drop(token);
    let closed = signer.try_sign(b"message");
    assert!(matches!(closed, Err(NativeError::Token(TokenError::TokenAbsent { .. }))), "{closed:?}");
    // Also when somebody logs in again.
    let token = open(&module).unwrap();
    assert!(signer.sign(b"message").is_err());
    drop(token);
}

fn other_public_key(token: &Token) -> Vec<u8> {
    token.generate_signing_key(&id("other"), SuiteId::Standard).unwrap().public_key
}

#[test]
fn seeds_are_imported_for_good() {
    if !in_kryoptic(
        "seeds_are_imported_for_good",
        "ZIXT-SKIP: seeds_are_imported_for_good: Kryoptic is not built",
    ) {
        return;
    }
    let module = module_with_token();
    let token = open(&module).unwrap();
    let session = Raw::new().session();
    for suite in SuiteId::ALL {
        let seed = SigningSeed::generate().unwrap();
        let key = token.import_signing_key(&id(suite.name()), suite, &seed).unwrap();
        assert_eq!(key.origin, Origin::Imported);
        assert_eq!(key.public_key, Reference.signing_key(suite, &seed).unwrap().public_key());
        assert_eq!(token.find_native(&key.id, key.algorithm).unwrap(), key);
        let signature = token.signer(&key).unwrap().sign(b"message").unwrap();
        Reference.verify(suite, &key.public_key, b"message", &signature).unwrap();
        let inside = NativeKey { origin: Origin::MadeInside, ..key };
        assert!(
            matches!(token.signer(&inside), Err(NativeError::KeyUnsafe { .. })),
            "the token does not vouch"
        );
    }
    let seed = KemSeed::generate().unwrap();
    let key = token.import_kem_key(&id("kem"), &seed).unwrap();
    let software = Reference.decapsulation_key(&seed).unwrap();
    assert_eq!(key.public_key, software.encapsulation_key());
    let (ciphertext, sent) = Reference.encapsulate(&key.public_key).unwrap();
    let decapsulator = token.decapsulator(&key).unwrap();
    assert!(decapsulator.decapsulate(ciphertext.as_bytes()).unwrap() == sent);

    // Neither seed nor key can be read, by whoever is logged in.
    let private = session.find_objects(&[Attribute::Class(ObjectClass::PRIVATE_KEY)]).unwrap();
    assert_eq!(private.len(), 3);
    for handle in private {
        let secrets = [AttributeType::Seed, AttributeType::Value];
        assert_eq!(session.get_attributes(handle, &secrets).unwrap(), []);
        for change in
            [Attribute::Extractable(true), Attribute::Sensitive(false), Attribute::Label(b"x".to_vec())]
        {
            assert!(session.update_attributes(handle, std::slice::from_ref(&change)).is_err(), "{change:?}");
            assert!(session.copy_object(handle, &[change]).is_err());
        }
    }
    // What an interrupted import leaves is found as such and removed.
    let orphan =
        session.find_objects(&[Attribute::Class(ObjectClass::PRIVATE_KEY), Attribute::Id(key.id.0.clone())]);
    session.destroy_object(orphan.unwrap()[0]).unwrap();
    assert!(matches!(token.find_native(&key.id, key.algorithm), Err(NativeError::KeyMissing { .. })));
    assert!(matches!(token.import_kem_key(&key.id, &seed), Err(NativeError::KeyExists { .. })));
    assert_eq!(token.destroy_native(&key.id).unwrap(), Destruction::Destroyed);
    token.import_kem_key(&key.id, &seed).unwrap();
}

#[test]
fn unsafe_keys_are_refused() {
    if !in_kryoptic("unsafe_keys_are_refused", "ZIXT-SKIP: unsafe_keys_are_refused: Kryoptic is not built") {
        return;
    }
    let module = module_with_token();
    let token = open(&module).unwrap();
    let session = Raw::new().session();
    let public = [
        Attribute::Token(true),
        Attribute::Verify(true),
        Attribute::ParameterSet(MlDsaParameterSetType::ML_DSA_65.into()),
    ];
    let safe = [
        Attribute::Token(true),
        Attribute::Private(true),
        Attribute::Sensitive(true),
        Attribute::Extractable(false),
        Attribute::Modifiable(false),
        Attribute::Sign(true),
    ];
    let make = |name: &str, change: Attribute| {
        let named = [Attribute::Id(name.as_bytes().to_vec()), Attribute::Label(b"zixt test".to_vec())];
        let mut private = safe.to_vec();
        private.retain(|attribute| attribute.attribute_type() != change.attribute_type());
        private.push(change);
        let (public, private) = ([&public[..], &named].concat(), [&private[..], &named].concat());
        session.generate_key_pair(&Mechanism::MlDsaKeyPairGen, &public, &private).unwrap();
        token.find_native(&id(name), Algorithm::MlDsa(SuiteId::Standard))
    };
    make("safe", Attribute::Sign(true)).unwrap();
    for (name, change) in [
        ("extractable", Attribute::Extractable(true)),
        ("readable", Attribute::Sensitive(false)),
        ("modifiable", Attribute::Modifiable(true)),
        ("public", Attribute::Private(false)),
        ("useless", Attribute::Sign(false)),
        ("two uses", Attribute::Decrypt(true)),
    ] {
        let found = make(name, change);
        assert!(matches!(found, Err(NativeError::KeyUnsafe { .. })), "{name}: {found:?}");
    }
    assert!(make("safe", Attribute::Sign(true)).is_err(), "two keys of one id");
    let faults = token.objects().unwrap().into_iter().filter(|object| object.fault.is_some()).count();
    assert_eq!(faults, 6);
}

#[test]
fn threads_sign_at_once_and_what_is_lost_is_replaced() {
    if !in_kryoptic(
        "threads_sign_at_once_and_what_is_lost_is_replaced",
        "ZIXT-SKIP: threads_sign_at_once_and_what_is_lost_is_replaced: Kryoptic is not built",
    ) {
        return;
    }
    let module = module_with_token();
    let token = open(&module).unwrap();
    let seed = SigningSeed::generate().unwrap();
    let key = token.import_signing_key(&id("key"), SuiteId::Standard, &seed).unwrap();
    let signer: NativeSigner = token.signer(&key).unwrap();
    let shared: &(dyn SigningKey + Sync) = &signer;
    std::thread::scope(|scope| {
        for n in 0..40u8 {
            scope.spawn(move || {
                for _ in 0..5 {
                    let signature = shared.sign(&[n]).unwrap();
                    Reference.verify(SuiteId::Standard, shared.public_key(), &[n], &signature).unwrap();
                }
            });
        }
    });
    let raw = Raw::new();
    let session = raw.session();
    // A new handle for the same key, as after a token was taken out and put back.
    assert_eq!(token.destroy_native(&key.id).unwrap(), Destruction::Destroyed);
    assert!(matches!(signer.try_sign(b"message"), Err(NativeError::KeyMissing { .. })));
    token.import_signing_key(&key.id, SuiteId::Standard, &seed).unwrap();
    let signature = signer.try_sign(b"message").unwrap();
    Reference.verify(SuiteId::Standard, &key.public_key, b"message", &signature).unwrap();
    // Another part of the process logs out, and in again.
    session.logout().unwrap();
    let error = signer.try_sign(b"message").unwrap_err();
    assert!(matches!(error, NativeError::Token(TokenError::TokenAbsent { .. })), "{error}");
    session.login(UserType::User, Some(&pin(PIN))).unwrap();
    signer.try_sign(b"message").unwrap();
}

#[test]
fn a_witness_sees_native_keys_sensitive() {
    if !in_kryoptic(
        "a_witness_sees_native_keys_sensitive",
        "ZIXT-SKIP: a_witness_sees_native_keys_sensitive: Kryoptic is not built",
    ) {
        return;
    }
    let module = module_with_token();
    let token = open(&module).unwrap();
    token.generate_signing_key(&id("made"), SuiteId::Standard).unwrap();
    token.generate_kem_key(&id("kem")).unwrap();
    token.import_signing_key(&id("imported"), SuiteId::Cnsa, &SigningSeed::generate().unwrap()).unwrap();
    drop(token);
    let text = String::from_utf8(pkcs11_tool(&["--list-objects", "--type", "privkey"]).stdout).unwrap();
    let objects: Vec<&str> = text.split("Private Key Object").skip(1).collect();
    assert_eq!(objects.len(), 3, "{text}");
    for object in objects {
        let made = !object.contains("ML-DSA-87");
        assert_eq!(object.contains("sensitive, always sensitive, never extractable, local"), made, "{text}");
        assert!(object.contains("sensitive") && !object.contains("Access:     none"), "{text}");
    }
}

/// Kryoptic holds its database open, so that it works on from what it has; what it cannot write is an error.
#[test]
fn a_token_without_its_storage_fails_in_words() {
    if !in_kryoptic(
        "a_token_without_its_storage_fails_in_words",
        "ZIXT-SKIP: a_token_without_its_storage_fails_in_words: Kryoptic is not built",
    ) {
        return;
    }
    let module = module_with_token();
    let token = open(&module).unwrap();
    let key = token.generate_signing_key(&id("key"), SuiteId::Standard).unwrap();
    let (signer, anchor) = (token.signer(&key).unwrap(), AnchorId([1; 16]));
    token.anchor_create(&anchor, 7).unwrap();
    let away = storage().with_extension("away");
    std::fs::rename(storage(), &away).unwrap();
    let made = token.generate_signing_key(&id("other"), SuiteId::Standard);
    assert!(matches!(made, Err(NativeError::Token(TokenError::Failed(_)))), "{made:?}");
    let advanced = token.anchor_advance(&anchor, 8);
    assert!(matches!(advanced, Err(AnchorError::Token(TokenError::Failed(_)))), "{advanced:?}");
    std::fs::rename(&away, storage()).unwrap();
    assert_eq!(token.anchor_read(&anchor).unwrap(), 7);
    let signature = signer.try_sign(b"message").unwrap();
    Reference.verify(SuiteId::Standard, &key.public_key, b"message", &signature).unwrap();

    // The database is emptied under it.
    for file in std::fs::read_dir(storage()).unwrap() {
        std::fs::write(file.unwrap().path(), b"").unwrap();
    }
    let failures =
        [signer.try_sign(b"message").map(|_| ()), token.find_native(&key.id, key.algorithm).map(|_| ())];
    for failure in failures {
        assert!(matches!(failure, Err(NativeError::Token(TokenError::Failed(_)))), "{failure:?}");
    }
    let read = token.anchor_read(&anchor);
    assert!(matches!(read, Err(AnchorError::Token(TokenError::Failed(_)))), "{read:?}");
}
