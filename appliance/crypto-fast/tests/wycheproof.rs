//! Project Wycheproof's vectors on the aws-lc backend. See `tests/vectors/README.md`.

#[path = "../../../tests/vectors/harness.rs"]
mod harness;

wycheproof_through_the_trait!(zixt_crypto_fast::AwsLc);
