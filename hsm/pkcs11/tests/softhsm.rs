//! Against SoftHSM. The module reads its configuration from the environment, so each test starts itself again as a
//! child with an environment of its own.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test; helpers outside #[test] functions count as well"
)]

use std::path::Path;
use std::process::Command;
use zixt_hsm_pkcs11::{AuthPin, KekId, Module, PinTry, Token, TokenError, TokenSelector, init_token_for_lab};

const MODULE: &str = "/usr/lib/softhsm/libsofthsm2.so";

/// `true` in the child; the parent waits for the child and returns `false`.
fn in_child(test: &str) -> bool {
    if std::env::var_os("ZIXT_TEST_CHILD").is_some() {
        return true;
    }
    let folder = tempfile::tempdir().unwrap();
    let conf = folder.path().join("softhsm2.conf");
    let tokens = folder.path().join("tokens");
    std::fs::create_dir(&tokens).unwrap();
    let text = format!(
        "directories.tokendir = {}\nobjectstore.backend = file\nlog.level = ERROR\n",
        tokens.display()
    );
    std::fs::write(&conf, text).unwrap();
    let status = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env("SOFTHSM2_CONF", &conf)
        .env("ZIXT_TEST_CHILD", "1")
        .status()
        .unwrap();
    assert!(status.success(), "the child failed");
    false
}

fn pin(text: &str) -> AuthPin {
    AuthPin::new(text.to_owned().into())
}

fn selector(label: &str) -> TokenSelector {
    TokenSelector { label: label.to_owned(), serial: None }
}

fn module_with_token() -> Module {
    let module = Module::load(Path::new(MODULE)).unwrap();
    let token = init_token_for_lab(&module, "zixt", &pin("so-123456"), &pin("123456")).unwrap();
    assert!(token.software, "{token:?}");
    module
}

#[test]
fn wraps_and_unwraps_and_refuses_every_change() {
    if !in_child("wraps_and_unwraps_and_refuses_every_change") {
        return;
    }
    let module = module_with_token();
    let token = Token::open(&module, &selector("zixt"), &pin("123456"), PinTry::Attended).unwrap();
    let kek = token.create_kek(&KekId(b"kek-1".to_vec())).unwrap();
    assert_eq!(token.find_kek(&KekId(b"kek-1".to_vec())).unwrap(), kek);
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

#[test]
fn logging_out_and_in_again_finds_the_key_by_its_id() {
    if !in_child("logging_out_and_in_again_finds_the_key_by_its_id") {
        return;
    }
    let module = module_with_token();
    let open = || Token::open(&module, &selector("zixt"), &pin("123456"), PinTry::Unattended);
    let token = open().unwrap();
    let kek = token.create_kek(&KekId(b"kek-1".to_vec())).unwrap();
    let blob = token.wrap(&kek, b"aad", b"secret").unwrap();
    assert!(matches!(open(), Err(TokenError::AlreadyLoggedIn)), "one login per process");
    assert_eq!(
        token.unwrap(&kek, b"aad", &blob).unwrap().as_slice(),
        b"secret",
        "the second try did no harm"
    );
    drop(token);
    let token = open().unwrap();
    assert_eq!(token.unwrap(&kek, b"aad", &blob).unwrap().as_slice(), b"secret");
}

#[test]
fn wrong_pins_wrong_labels_and_wrong_modules_are_named() {
    if !in_child("wrong_pins_wrong_labels_and_wrong_modules_are_named") {
        return;
    }
    let module = module_with_token();
    let open = |text: &str, pin_try| Token::open(&module, &selector("zixt"), &pin(text), pin_try);
    assert!(matches!(open("654321", PinTry::Attended), Err(TokenError::PinIncorrect)));
    assert!(
        matches!(open("123456", PinTry::Unattended), Err(TokenError::PinCountLow)),
        "a person has to look"
    );
    drop(open("123456", PinTry::Attended).unwrap());
    drop(open("123456", PinTry::Unattended).unwrap());
    let absent = Token::open(&module, &selector("other"), &pin("123456"), PinTry::Attended);
    assert!(matches!(absent, Err(TokenError::TokenAbsent { .. })));
    let wrong_serial = TokenSelector { serial: Some("0".to_owned()), ..selector("zixt") };
    assert!(matches!(module.describe(&wrong_serial), Err(TokenError::TokenAbsent { .. })));
    let serial = module.describe(&selector("zixt")).unwrap().serial;
    assert!(module.describe(&TokenSelector { serial: Some(serial), ..selector("zixt") }).is_ok());
    let again = init_token_for_lab(&module, "zixt", &pin("so-123456"), &pin("123456"));
    assert!(matches!(again, Err(TokenError::LabelTaken { .. })), "it never wipes a token");
    assert!(matches!(Module::load(Path::new("/nonexistent.so")), Err(TokenError::Module { .. })));
}
