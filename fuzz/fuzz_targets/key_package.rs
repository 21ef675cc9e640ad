//! Fuzz target `key_package`; see docs/fuzzing.md.
#![no_main]
zixt_fuzz::target!("key_package");
