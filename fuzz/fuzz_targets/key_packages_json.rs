//! Fuzz target `key_packages_json`; see docs/fuzzing.md.
#![no_main]
zixt_fuzz::target!("key_packages_json");
