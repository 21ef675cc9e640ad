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
