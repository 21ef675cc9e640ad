//! Against SoftHSM, the token that Debian has.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test; helpers outside #[test] functions count as well"
)]

mod common;

use common::*;
use cryptoki::error::RvError;
use std::path::Path;
use zixt_crypto::SuiteId;
use zixt_hsm_pkcs11::{
    Algorithm, AnchorError, AnchorId, KekId, Module, NativeError, PinState, PinTry, Token, TokenError,
    TokenSelector, init_token_for_lab,
};

#[test]
fn wraps_and_unwraps_and_refuses_every_change() {
    if in_softhsm("wraps_and_unwraps_and_refuses_every_change") {
        scenarios::wraps_and_refuses_every_change();
    }
}

#[test]
fn logging_out_and_in_again_finds_the_key_by_its_id() {
    if in_softhsm("logging_out_and_in_again_finds_the_key_by_its_id") {
        scenarios::finds_the_key_again_after_a_logout();
    }
}

#[test]
fn a_login_is_the_processs_and_its_end_is_noticed() {
    if in_softhsm("a_login_is_the_processs_and_its_end_is_noticed") {
        scenarios::a_login_is_the_processs_and_its_end_is_noticed();
    }
}

#[test]
fn a_forged_tag_is_a_general_error_and_an_iv_of_no_bytes_is_fine_with_it() {
    if in_softhsm("a_forged_tag_is_a_general_error_and_an_iv_of_no_bytes_is_fine_with_it") {
        scenarios::speaks_of_forgeries(RvError::GeneralError, true);
    }
}

#[test]
fn lost_sessions_are_replaced() {
    if in_softhsm("lost_sessions_are_replaced") {
        scenarios::lost_sessions_are_replaced();
    }
}

#[test]
fn bears_300_sessions_and_300_threads() {
    if in_softhsm("bears_300_sessions_and_300_threads") {
        scenarios::bears_300_sessions_and_300_threads();
    }
}

#[test]
fn the_security_officer_can_wipe_it() {
    if in_softhsm("the_security_officer_can_wipe_it") {
        scenarios::the_security_officer_can_wipe_it();
    }
}

#[test]
fn the_pin_changes() {
    if in_softhsm("the_pin_changes") {
        scenarios::the_pin_changes();
    }
}

#[test]
fn keys_are_destroyed_or_the_token_says_that_it_keeps_them() {
    if in_softhsm("keys_are_destroyed_or_the_token_says_that_it_keeps_them") {
        scenarios::keys_are_destroyed_or_the_token_says_that_it_keeps_them();
    }
}

#[test]
fn the_kek_is_not_copied_wrapped_or_loosened() {
    if in_softhsm("the_kek_is_not_copied_wrapped_or_loosened") {
        scenarios::the_kek_is_not_copied_wrapped_or_loosened();
    }
}

#[test]
fn lists_what_is_ours_and_what_is_wrong_with_it() {
    if in_softhsm("lists_what_is_ours_and_what_is_wrong_with_it") {
        scenarios::lists_what_is_ours_and_what_is_wrong_with_it();
    }
}

#[test]
fn anchors_go_forward_only() {
    if in_softhsm("anchors_go_forward_only") {
        scenarios::anchors_go_forward_only();
    }
}

#[test]
fn a_witness_sees_the_kek_sensitive() {
    if in_softhsm("a_witness_sees_the_kek_sensitive") {
        scenarios::a_witness_sees_the_kek_sensitive();
    }
}

#[test]
fn wrong_pins_wrong_labels_and_wrong_modules_are_named() {
    if !in_softhsm("wrong_pins_wrong_labels_and_wrong_modules_are_named") {
        return;
    }
    let module = module_with_token();
    let open = |text: &str, pin_try| Token::open(&module, &selector("zixt"), &pin(text), pin_try);
    assert!(matches!(open("654321", PinTry::Attended), Err(TokenError::PinIncorrect)));
    assert_eq!(module.pin_state(&selector("zixt")).unwrap(), PinState::CountLow);
    assert!(matches!(open(PIN, PinTry::Unattended), Err(TokenError::PinCountLow)), "a person has to look");
    drop(open(PIN, PinTry::Attended).unwrap());
    assert_eq!(module.pin_state(&selector("zixt")).unwrap(), PinState::Ready);
    drop(open(PIN, PinTry::Unattended).unwrap());
    // It never locks, so that the waiting is ours to add (zixt-hsm does).
    for _ in 0..25 {
        assert!(matches!(open("654321", PinTry::Attended), Err(TokenError::PinIncorrect)));
    }
    assert_eq!(module.pin_state(&selector("zixt")).unwrap(), PinState::CountLow);
    drop(open(PIN, PinTry::Attended).unwrap());
    let absent = Token::open(&module, &selector("other"), &pin(PIN), PinTry::Attended);
    assert!(matches!(absent, Err(TokenError::TokenAbsent { .. })));
    let wrong_serial = TokenSelector { serial: Some("0".to_owned()), ..selector("zixt") };
    assert!(matches!(module.describe(&wrong_serial), Err(TokenError::TokenAbsent { .. })));
    let serial = module.describe(&selector("zixt")).unwrap().serial;
    assert!(module.describe(&TokenSelector { serial: Some(serial), ..selector("zixt") }).is_ok());
    let again = init_token_for_lab(&module, "zixt", &pin(SO_PIN), &pin(PIN));
    assert!(matches!(again, Err(TokenError::LabelTaken { .. })), "it never wipes a token");
    assert!(matches!(Module::load(Path::new("/nonexistent.so")), Err(TokenError::Module { .. })));
}

#[test]
fn slots_move_and_the_label_finds_the_token() {
    if !in_softhsm("slots_move_and_the_label_finds_the_token") {
        return;
    }
    let module = Module::load(&module_path()).unwrap();
    let raw = Raw::new();
    let before = raw.pkcs11.get_slots_with_token().unwrap();
    assert_eq!(before.len(), 1, "one uninitialised slot");
    init_token_for_lab(&module, "first", &pin(SO_PIN), &pin(PIN)).unwrap();
    let between = raw.pkcs11.get_slots_with_token().unwrap();
    assert_eq!(between.len(), 2, "another one appeared");
    init_token_for_lab(&module, "second", &pin(SO_PIN), &pin(PIN)).unwrap();
    let slot_of = |label: &str| {
        let slots = raw.pkcs11.get_slots_with_token().unwrap();
        slots.into_iter().find(|slot| raw.pkcs11.get_token_info(*slot).unwrap().label() == label).unwrap()
    };
    assert_ne!(slot_of("first"), slot_of("second"));
    for label in ["first", "second"] {
        let token = Token::open(&module, &selector(label), &pin(PIN), PinTry::Attended).unwrap();
        assert_eq!(token.description().label, label);
    }
    // Two tokens of one label: the serial number decides.
    let slot = raw.pkcs11.get_slots_with_token().unwrap().into_iter().last().unwrap();
    raw.pkcs11.init_token(slot, &pin(SO_PIN), "first").unwrap();
    assert!(matches!(module.describe(&selector("first")), Err(TokenError::TokenAmbiguous { count: 2, .. })));
    // A later process sees other numbers: SoftHSM derives them from the serial number.
    let listed = std::process::Command::new("pkcs11-tool")
        .arg("--module")
        .arg(module_path())
        .arg("--list-slots")
        .output()
        .unwrap();
    let listed = String::from_utf8(listed.stdout).unwrap();
    assert!(listed.contains("first") && listed.contains("second"), "{listed}");
}

#[test]
fn a_token_of_the_old_standard_has_no_native_keys() {
    if !in_softhsm("a_token_of_the_old_standard_has_no_native_keys") {
        return;
    }
    let module = module_with_token();
    let token = open(&module).unwrap();
    let algorithms = SuiteId::ALL.into_iter().map(Algorithm::MlDsa).chain([Algorithm::MlKem1024]);
    for algorithm in algorithms {
        let answer = token.supports(algorithm);
        let Err(NativeError::Unsupported { why, .. }) = answer else { panic!("{answer:?}") };
        assert!(why.contains("does not offer"), "{why}");
    }
}

#[test]
fn a_token_that_is_taken_away_is_absent_and_its_keys_are_not_missing() {
    if !in_softhsm("a_token_that_is_taken_away_is_absent_and_its_keys_are_not_missing") {
        return;
    }
    let module = module_with_token();
    let token = open(&module).unwrap();
    let (kek, anchor) = (token.create_kek(&KekId(b"kek".to_vec())).unwrap(), AnchorId([1; 16]));
    token.anchor_create(&anchor, 7).unwrap();
    let blob = token.wrap(&kek, b"aad", b"secret").unwrap();
    let away = storage().with_extension("away");
    std::fs::rename(storage(), &away).unwrap();
    let errors = [
        token.unwrap(&kek, b"aad", &blob).map(|_| ()),
        token.wrap(&kek, b"aad", b"secret").map(|_| ()),
        token.find_kek(&kek.id).map(|_| ()),
        token.create_kek(&KekId(b"other".to_vec())).map(|_| ()),
        token.health(),
        open(&module).map(|_| ()),
    ];
    for (n, error) in errors.into_iter().enumerate() {
        assert!(matches!(error, Err(TokenError::TokenAbsent { .. })), "{n}: {error:?}");
    }
    for answer in [token.anchor_read(&anchor), token.anchor_advance(&anchor, 8).map(|()| 8)] {
        assert!(matches!(answer, Err(AnchorError::Token(TokenError::TokenAbsent { .. }))), "{answer:?}");
    }
    drop(token);
    // SoftHSM looks for tokens once in a process: put back, this one is found by the next process only.
    std::fs::rename(&away, storage()).unwrap();
    let text = String::from_utf8(pkcs11_tool(&["--list-objects"]).stdout).unwrap();
    assert!(text.contains("zixt custody KEK") && text.contains("zixt anchor"), "{text}");
}
