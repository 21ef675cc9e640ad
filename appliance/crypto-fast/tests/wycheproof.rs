//! Project Wycheproof's vectors on the aws-lc backend. See `tests/vectors/README.md`.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

#[path = "../../../tests/vectors/harness.rs"]
mod harness;

use aws_lc_rs::key_wrap::{AES_128, AES_256, AesKek, KeyWrapPadded as _};
use harness::{bytes, is_valid, run};

wycheproof_through_the_trait!(zixt_crypto_fast::AwsLc);

/// Below the trait: no part of the product wraps keys so, and the reference backend has no AES key wrap.
#[test]
fn aes_kwp() {
    let tally = run("aes_kwp_test", |group, test, tally| {
        let id = &test["tcId"];
        let cipher = match group["keySize"].as_u64() {
            Some(128) => &AES_128,
            Some(256) => &AES_256,
            _ => return tally.skip("key size"),
        };
        let key = || AesKek::new(cipher, &bytes(&test["key"])).unwrap();
        let (message, wrapped) = (bytes(&test["msg"]), bytes(&test["ct"]));
        let mut out = vec![0; wrapped.len().max(message.len()) + 16];
        match key().unwrap_with_padding(&wrapped, &mut out) {
            Ok(opened) => assert!(is_valid(test) && *opened == message[..], "{id}"),
            Err(_) => assert!(!is_valid(test), "{id} {}", test["comment"]),
        }
        if is_valid(test) {
            assert!(*key().wrap_with_padding(&message, &mut out).unwrap() == wrapped[..], "{id}");
        }
        tally.checked(test);
    });
    assert_eq!(tally, Tally::expect(50, 119, &[("key size", 85)]));
}
