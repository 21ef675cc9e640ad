//! What every token has to show, whatever it is.

use super::*;
use cryptoki::context::{CInitializeArgs, CInitializeFlags};
use cryptoki::error::{Error, RvError};
use cryptoki::mechanism::Mechanism;
use cryptoki::mechanism::aead::GcmParams;
use cryptoki::object::{Attribute, AttributeType, ObjectClass};
use cryptoki::session::SessionState;
use zixt_hsm_pkcs11::{AnchorError, AnchorId, ChangePinError, Destruction, KekId, ObjectKind, PinState};

fn kek_id() -> KekId {
    KekId(b"kek-1".to_vec())
}

/// The error value of the standard, where a call failed.
fn rv<T>(result: Result<T, Error>) -> Option<RvError> {
    match result {
        Err(Error::Pkcs11(rv, _)) => Some(rv),
        _ => None,
    }
}

pub fn wraps_and_refuses_every_change() {
    let module = module_with_token();
    let token = open(&module).unwrap();
    let kek = token.create_kek(&kek_id()).unwrap();
    assert_eq!(token.find_kek(&kek_id()).unwrap(), kek);
    let secret = [7u8; 32];
    let blob = token.wrap(&kek, b"aad", &secret).unwrap();
    assert_eq!(blob.len(), 12 + 32 + 16);
    assert_ne!(blob, token.wrap(&kek, b"aad", &secret).unwrap(), "a fresh IV each time");
    assert_eq!(token.unwrap(&kek, b"aad", &blob).unwrap().as_slice(), secret);
    assert!(matches!(token.unwrap(&kek, b"other", &blob), Err(TokenError::UnsealFailed)));
    for at in 0..blob.len() {
        let mut forged = blob.clone();
        forged[at] ^= 1;
        assert!(matches!(token.unwrap(&kek, b"aad", &forged), Err(TokenError::UnsealFailed)), "byte {at}");
    }
    for cut in 0..blob.len() {
        assert!(matches!(token.unwrap(&kek, b"aad", &blob[..cut]), Err(TokenError::UnsealFailed)), "{cut}");
    }
    let other = token.create_kek(&KekId(b"kek-2".to_vec())).unwrap();
    assert!(matches!(token.unwrap(&other, b"aad", &blob), Err(TokenError::UnsealFailed)));
    assert!(matches!(token.create_kek(&kek.id), Err(TokenError::KekUnsafe { .. })));
    assert!(matches!(token.find_kek(&KekId(b"none".to_vec())), Err(TokenError::KekMissing { .. })));
    std::thread::scope(|scope| {
        for n in 0..4u8 {
            let (token, kek) = (&token, &kek);
            scope.spawn(move || {
                for _ in 0..50 {
                    let blob = token.wrap(kek, b"t", &[n; 32]).unwrap();
                    assert_eq!(token.unwrap(kek, b"t", &blob).unwrap().as_slice(), [n; 32]);
                }
            });
        }
    });
}

pub fn finds_the_key_again_after_a_logout() {
    let module = module_with_token();
    let token = open(&module).unwrap();
    let kek = token.create_kek(&kek_id()).unwrap();
    let blob = token.wrap(&kek, b"aad", b"secret").unwrap();
    assert!(matches!(open(&module), Err(TokenError::AlreadyLoggedIn)), "one login per process");
    assert_eq!(
        token.unwrap(&kek, b"aad", &blob).unwrap().as_slice(),
        b"secret",
        "the second try did no harm"
    );
    drop(token);
    let token = open(&module).unwrap();
    assert_eq!(token.unwrap(&kek, b"aad", &blob).unwrap().as_slice(), b"secret");
}

/// Login state belongs to the process, and another part of it can end it.
pub fn a_login_is_the_processs_and_its_end_is_noticed() {
    let module = module_with_token();
    let raw = Raw::new();
    let again = raw.pkcs11.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK));
    assert_eq!(rv(again), Some(RvError::CryptokiAlreadyInitialized));
    Module::load(&module_path()).expect("loading a second time is no error");

    let state = |session: &Session| session.get_session_info().unwrap().session_state();
    let first = raw.logged_in();
    assert_eq!(
        state(&raw.session()),
        SessionState::RwUser,
        "a new session is logged in because its process is"
    );
    drop(first);
    assert_eq!(state(&raw.session()), SessionState::RwPublic, "the last session took the login with it");

    let token = open(&module).unwrap();
    let kek = token.create_kek(&kek_id()).unwrap();
    let blob = token.wrap(&kek, b"aad", b"secret").unwrap();
    // Each failed call gives up its session; the anchor keeps the login.
    for _ in 0..5 {
        assert!(matches!(token.unwrap(&kek, b"other", &blob), Err(TokenError::UnsealFailed)));
    }
    token.health().unwrap();

    // Handles do not survive a logout, even with a login after it.
    let session = raw.session();
    let handle = session.find_objects(&[Attribute::Id(kek_id().0)]).unwrap()[0];
    session.logout().unwrap();
    session.login(UserType::User, Some(&pin(PIN))).unwrap();
    let wanted = [AttributeType::Sensitive];
    let expected = match Kind::current() {
        Kind::SoftHsm => Some(RvError::ObjectHandleInvalid),
        // Kryoptic's do. Nothing may rest on either.
        Kind::Kryoptic => None,
    };
    assert_eq!(rv(session.get_attributes(handle, &wanted)), expected);
    assert_eq!(token.unwrap(&kek, b"aad", &blob).unwrap().as_slice(), b"secret", "found again by its id");

    // A logout hides private objects. That must not read as a key that is lost.
    session.logout().unwrap();
    for error in [
        token.unwrap(&kek, b"aad", &blob).map(|_| ()).unwrap_err(),
        token.find_kek(&kek_id()).map(|_| ()).unwrap_err(),
        token.health().unwrap_err(),
    ] {
        assert!(matches!(error, TokenError::TokenAbsent { .. }), "{error}");
    }
    drop(token);
    let token = open(&module).unwrap();
    assert_eq!(token.unwrap(&kek, b"aad", &blob).unwrap().as_slice(), b"secret");
}

/// A token that was reset knows none of our sessions.
pub fn lost_sessions_are_replaced() {
    let module = module_with_token();
    let token = open(&module).unwrap();
    let kek = token.create_kek(&kek_id()).unwrap();
    let blob = token.wrap(&kek, b"aad", b"secret").unwrap();
    let raw = Raw::new();
    raw.pkcs11.clone().finalize().unwrap();
    raw.pkcs11.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK)).unwrap();
    let error = token.unwrap(&kek, b"aad", &blob).unwrap_err();
    assert!(matches!(error, TokenError::TokenAbsent { .. }), "it wants its PIN again: {error}");
    let login = raw.logged_in();
    let opened = token.unwrap(&kek, b"aad", &blob);
    match Kind::current() {
        Kind::Kryoptic => assert_eq!(opened.unwrap().as_slice(), b"secret"),
        // Its slots have new numbers now; the label still finds the token.
        Kind::SoftHsm => assert!(matches!(opened, Err(TokenError::TokenAbsent { .. })), "{opened:?}"),
    }
    drop((token, login));
    let token = open(&module).unwrap();
    assert_eq!(token.unwrap(&kek, b"aad", &blob).unwrap().as_slice(), b"secret");
}

/// What the token says to a forged tag, and what it does with an IV of no bytes.
pub fn speaks_of_forgeries(forged_tag: RvError, takes_no_iv: bool) {
    let module = module_with_token();
    let token = open(&module).unwrap();
    let kek = token.create_kek(&kek_id()).unwrap();
    let blob = token.wrap(&kek, b"aad", b"secret").unwrap();
    let session = Raw::new().session();
    let key = session.find_objects(&[Attribute::Id(kek_id().0)]).unwrap()[0];
    let gcm = |iv: &mut [u8], data: &[u8], seals: bool| {
        let mechanism = Mechanism::AesGcm(GcmParams::new(iv, b"aad", 128.into()).unwrap());
        if seals { session.encrypt(&mechanism, key, data) } else { session.decrypt(&mechanism, key, data) }
    };
    let (iv, sealed) = blob.split_at(12);
    assert_eq!(gcm(&mut iv.to_vec(), sealed, false).unwrap(), b"secret");
    let mut forged = sealed.to_vec();
    forged[0] ^= 1;
    assert_eq!(rv(gcm(&mut iv.to_vec(), &forged, false)), Some(forged_tag));
    assert!(matches!(token.unwrap(&kek, b"aad", &[iv, &forged].concat()), Err(TokenError::UnsealFailed)));

    let without = gcm(&mut [], b"secret", true);
    assert_eq!(without.is_ok(), takes_no_iv, "{without:?}");
    for blob in [without.unwrap_or_default(), sealed.to_vec(), Vec::new()] {
        assert!(matches!(token.unwrap(&kek, b"aad", &blob), Err(TokenError::UnsealFailed)));
    }
}

/// 300 sessions at once are nothing to a token, and 300 threads take no more than the pool has.
pub fn bears_300_sessions_and_300_threads() {
    let module = module_with_token();
    let raw = Raw::new();
    let sessions: Vec<Session> = (0..300).map(|_| raw.session()).collect();
    assert_eq!(sessions.len(), 300);
    drop(sessions);
    let token = open(&module).unwrap();
    let kek = token.create_kek(&kek_id()).unwrap();
    std::thread::scope(|scope| {
        for n in 0..300u16 {
            let (token, kek) = (&token, &kek);
            scope.spawn(move || {
                let blob = token.wrap(kek, &n.to_be_bytes(), &[7; 32]).unwrap();
                assert_eq!(token.unwrap(kek, &n.to_be_bytes(), &blob).unwrap().as_slice(), [7; 32]);
            });
        }
    });
    let text = format!("{token:?}");
    let idle: usize = text.split("idle: ").nth(1).unwrap().split(',').next().unwrap().parse().unwrap();
    assert!((1..=32).contains(&idle), "{text}");
}

/// The security officer can take over a token, or wipe it; neither goes unnoticed.
pub fn the_security_officer_can_wipe_it() {
    let module = module_with_token();
    let token = open(&module).unwrap();
    let kek = token.create_kek(&kek_id()).unwrap();
    let blob = token.wrap(&kek, b"aad", b"secret").unwrap();
    token.anchor_create(&AnchorId([1; 16]), 5).unwrap();
    let raw = Raw::new();
    assert_eq!(
        rv(raw.pkcs11.init_token(raw.slot(), &pin(SO_PIN), LABEL)),
        Some(RvError::SessionExists),
        "not while somebody works with it"
    );
    drop(token);

    // A new user PIN by the officer: what the token holds survives, and opens with it.
    let so = raw.session();
    so.login(UserType::So, Some(&pin(SO_PIN))).unwrap();
    so.init_pin(&pin("77777777")).unwrap();
    so.logout().unwrap();
    drop(so);
    assert!(matches!(open(&module), Err(TokenError::PinIncorrect)));
    let token = Token::open(&module, &selector(LABEL), &pin("77777777"), PinTry::Attended).unwrap();
    assert_eq!(token.unwrap(&kek, b"aad", &blob).unwrap().as_slice(), b"secret");
    drop(token);

    let serial = module.describe(&selector(LABEL)).unwrap().serial;
    assert_eq!(rv(raw.pkcs11.init_token(raw.slot(), &pin("wrong-123"), LABEL)), Some(RvError::PinIncorrect));
    raw.pkcs11.init_token(raw.slot(), &pin(SO_PIN), LABEL).unwrap();
    let same_serial = module.describe(&selector(LABEL)).unwrap().serial == serial;
    assert_eq!(same_serial, Kind::current() == Kind::SoftHsm, "the serial number need not tell");
    assert_eq!(module.pin_state(&selector(LABEL)).unwrap(), PinState::Unset);
    assert!(matches!(open(&module), Err(TokenError::PinUnset)));
    let so = raw.session();
    so.login(UserType::So, Some(&pin(SO_PIN))).unwrap();
    so.init_pin(&pin(PIN)).unwrap();
    drop(so);
    let token = open(&module).unwrap();
    assert!(matches!(token.unwrap(&kek, b"aad", &blob), Err(TokenError::KekMissing { .. })));
    assert!(
        matches!(token.anchor_read(&AnchorId([1; 16])), Err(AnchorError::Missing { .. })),
        "and not zero"
    );
    assert_eq!(token.objects().unwrap(), []);
}

pub fn the_pin_changes() {
    let module = module_with_token();
    let change = |old: &str, new: &str| module.change_pin(&selector(LABEL), &pin(old), &pin(new));
    assert_eq!(module.pin_state(&selector(LABEL)).unwrap(), PinState::Ready);
    // What can be known before costs no try.
    assert!(matches!(change(PIN, PIN), Err(ChangePinError::NewPinIsOld)));
    assert!(matches!(change(PIN, ""), Err(ChangePinError::NewPinLength { actual: 0, .. })));
    if Kind::current() == Kind::SoftHsm {
        let long = "1".repeat(10_000);
        assert!(matches!(change(PIN, &long), Err(ChangePinError::NewPinLength { actual: 10_000, .. })));
    }
    change(PIN, "another-1").unwrap();
    assert!(matches!(open(&module), Err(TokenError::PinIncorrect)));
    let token = Token::open(&module, &selector(LABEL), &pin("another-1"), PinTry::Attended).unwrap();
    let kek = token.create_kek(&kek_id()).unwrap();
    // While the process is logged in as well, and the login stays.
    change("another-1", PIN).unwrap();
    let blob = token.wrap(&kek, b"aad", b"secret").unwrap();
    token.health().unwrap();
    // Kryoptic would take that as an old PIN that need not be checked.
    let empty = change("", "another-1");
    assert!(matches!(empty, Err(ChangePinError::Token(TokenError::PinIncorrect))), "{empty:?}");
    drop(token);
    let token = open(&module).unwrap();
    assert_eq!(token.unwrap(&kek, b"aad", &blob).unwrap().as_slice(), b"secret");
    drop(token);
    let wrong = change("wrong-1", "another-1");
    assert!(matches!(wrong, Err(ChangePinError::Token(TokenError::PinIncorrect))), "{wrong:?}");
    drop(open(&module).unwrap());
}

pub fn keys_are_destroyed_or_the_token_says_that_it_keeps_them() {
    let module = module_with_token();
    let token = open(&module).unwrap();
    token.create_kek(&kek_id()).unwrap();
    let session = Raw::new().session();
    let handle = session.find_objects(&[Attribute::Id(kek_id().0)]).unwrap()[0];
    let destroyable = session.get_attributes(handle, &[AttributeType::Destroyable]).unwrap();
    let expected = if destroyable == [Attribute::Destroyable(false)] {
        Destruction::NotDestroyable
    } else {
        Destruction::Destroyed
    };
    assert_eq!(token.destroy_kek(&kek_id()).unwrap(), expected, "{destroyable:?}");
    assert_eq!(token.find_kek(&kek_id()).is_ok(), expected == Destruction::NotDestroyable);

    let loose = KekId(b"loose".to_vec());
    make_loose_kek(&session, &loose);
    assert!(matches!(token.find_kek(&loose), Err(TokenError::KekUnsafe { .. })));
    assert_eq!(token.destroy_kek(&loose).unwrap(), Destruction::Destroyed);
    assert!(matches!(token.destroy_kek(&loose), Err(TokenError::KekMissing { .. })));
}

fn make_loose_kek(session: &Session, id: &KekId) {
    let template = [
        Attribute::Token(true),
        Attribute::Private(true),
        Attribute::Sensitive(true),
        Attribute::Extractable(true),
        Attribute::ValueLen(32.into()),
        Attribute::Encrypt(true),
        Attribute::Decrypt(true),
        Attribute::Destroyable(true),
        Attribute::Id(id.0.clone()),
        Attribute::Label(b"zixt custody KEK".to_vec()),
    ];
    session.generate_key(&Mechanism::AesKeyGen, &template).unwrap();
}

/// What whoever is logged in could try to get the key out: none of it is for our code to prevent.
pub fn the_kek_is_not_copied_wrapped_or_loosened() {
    let module = module_with_token();
    let token = open(&module).unwrap();
    let kek = token.create_kek(&kek_id()).unwrap();
    let blob = token.wrap(&kek, b"aad", b"secret").unwrap();
    let session = Raw::new().session();
    let handle = session.find_objects(&[Attribute::Id(kek_id().0)]).unwrap()[0];
    let copied = session.copy_object(handle, &[Attribute::Sensitive(false), Attribute::Extractable(true)]);
    let loosened = session.update_attributes(handle, &[Attribute::Extractable(true)]);
    let wrapping = [
        Attribute::Token(false),
        Attribute::ValueLen(32.into()),
        Attribute::Wrap(true),
        Attribute::Unwrap(true),
    ];
    let wrapping = session.generate_key(&Mechanism::AesKeyGen, &wrapping).unwrap();
    let wrapped = session.wrap_key(&Mechanism::AesKeyWrap, wrapping, handle);
    let read = session.get_attributes(handle, &[AttributeType::Value]).unwrap();
    assert!(read.is_empty(), "{read:?}");
    assert_eq!(rv(copied), Some(RvError::ActionProhibited));
    assert_eq!(rv(loosened), Some(RvError::ActionProhibited));
    assert_eq!(rv(wrapped), Some(RvError::KeyUnextractable));
    assert_eq!(token.unwrap(&kek, b"aad", &blob).unwrap().as_slice(), b"secret");
    assert_eq!(token.objects().unwrap().len(), 1, "no copy was made");
}

pub fn lists_what_is_ours_and_what_is_wrong_with_it() {
    let module = module_with_token();
    let token = open(&module).unwrap();
    token.create_kek(&kek_id()).unwrap();
    let session = Raw::new().session();
    make_loose_kek(&session, &KekId(b"loose".to_vec()));
    token.anchor_create(&AnchorId([9; 16]), 1).unwrap();
    let foreign = [
        Attribute::Class(ObjectClass::DATA),
        Attribute::Token(true),
        Attribute::Label(b"another program's".to_vec()),
    ];
    session.create_object(&foreign).unwrap();
    let objects = token.objects().unwrap();
    let seen: Vec<_> = objects.iter().map(|object| (object.kind, object.fault)).collect();
    assert_eq!(
        seen,
        [
            (ObjectKind::Kek, None),
            (ObjectKind::Kek, Some("it is (or once was) extractable")),
            (ObjectKind::Anchor, None),
        ],
        "{objects:?}"
    );
    assert_eq!(objects[0].id, kek_id().0);
}

pub fn anchors_go_forward_only() {
    let module = module_with_token();
    let token = open(&module).unwrap();
    let (id, other) = (AnchorId([0xfe; 16]), AnchorId([0; 16]));
    assert!(matches!(token.anchor_read(&id), Err(AnchorError::Missing { .. })));
    assert!(matches!(token.anchor_advance(&id, 1), Err(AnchorError::Missing { .. })));
    token.anchor_create(&id, 3).unwrap();
    assert!(matches!(token.anchor_create(&id, 9), Err(AnchorError::Exists { current: 3, .. })));
    token.anchor_create(&other, u64::MAX).unwrap();
    assert_eq!(token.anchor_read(&id).unwrap(), 3);
    for to in [4, 4, 5, 1000, u64::MAX] {
        token.anchor_advance(&id, to).unwrap();
        assert_eq!(token.anchor_read(&id).unwrap(), to);
    }
    let back = token.anchor_advance(&id, 7);
    assert!(matches!(back, Err(AnchorError::Backwards { current: u64::MAX, to: 7 })), "{back:?}");
    assert_eq!(token.objects().unwrap().len(), 2, "the old ones are gone");

    // A crash between the two writes: both are there. The higher one counts, and the next step tidies up.
    let (crashed, session) = (AnchorId([7; 16]), Raw::new().session());
    token.anchor_create(&crashed, 5).unwrap();
    let template = |value: &[u8]| {
        let mut number = [1u8; 9];
        number[1..].copy_from_slice(value);
        let mut attributes = copy_of_anchor(&session, 5);
        attributes.push(Attribute::Value(number.to_vec()));
        attributes
    };
    session.create_object(&template(&6u64.to_be_bytes())).unwrap();
    assert_eq!(token.anchor_read(&crashed).unwrap(), 6);
    assert_eq!(token.objects().unwrap().len(), 4);
    token.anchor_advance(&crashed, 6).unwrap();
    assert_eq!(token.objects().unwrap().len(), 3);
    assert_eq!(token.anchor_read(&crashed).unwrap(), 6);

    // It is there after a logout, and not for who has no PIN.
    drop(token);
    let public = session.find_objects(&[Attribute::Class(ObjectClass::DATA)]).unwrap();
    assert_eq!(public, []);
    drop(session);
    let token = open(&module).unwrap();
    assert_eq!(token.anchor_read(&crashed).unwrap(), 6);

    // What is not ours is damage, and not a number.
    let session = Raw::new().session();
    let mut attributes = copy_of_anchor(&session, 6);
    attributes.push(Attribute::Value(b"seven".to_vec()));
    session.create_object(&attributes).unwrap();
    assert!(matches!(token.anchor_read(&crashed), Err(AnchorError::Damaged { .. })));
    assert!(matches!(token.anchor_advance(&crashed, 8), Err(AnchorError::Damaged { .. })));
    assert!(token.objects().unwrap().iter().any(|object| object.fault.is_some()));
}

/// The template of the anchor that stands at a number, without its value.
fn copy_of_anchor(session: &Session, value: u64) -> Vec<Attribute> {
    let encoded = [&[1][..], &value.to_be_bytes()].concat();
    let wanted = [Attribute::Class(ObjectClass::DATA), Attribute::Value(encoded)];
    let handle = session.find_objects(&wanted).unwrap()[0];
    let mut attributes = session
        .get_attributes(handle, &[AttributeType::Application, AttributeType::ObjectId, AttributeType::Label])
        .unwrap();
    attributes.extend([
        Attribute::Class(ObjectClass::DATA),
        Attribute::Token(true),
        Attribute::Private(true),
    ]);
    attributes
}

/// OpenSC finds the key sensitive and never extractable, and the anchor private.
pub fn a_witness_sees_the_kek_sensitive() {
    let module = module_with_token();
    let token = open(&module).unwrap();
    token.create_kek(&kek_id()).unwrap();
    token.anchor_create(&AnchorId([1; 16]), 5).unwrap();
    drop(token);
    let text = String::from_utf8(pkcs11_tool(&["--list-objects"]).stdout).unwrap();
    let key = text.split("Secret Key Object; AES").nth(1).unwrap();
    let key = key.split("Object").next().unwrap();
    assert!(key.contains("zixt custody KEK"), "{text}");
    assert!(key.contains("sensitive, always sensitive, never extractable, local"), "{text}");
    let anchor = text.split("Data object").nth(1).unwrap();
    assert!(anchor.contains("zixt anchor") && anchor.contains("private"), "{text}");
}
