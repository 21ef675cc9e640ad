//! Fuzz target `keyring`; see docs/fuzzing.md.
#![no_main]
zixt_fuzz::target!("keyring");
