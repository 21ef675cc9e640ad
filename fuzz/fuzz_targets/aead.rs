//! Fuzz target `aead`; see docs/fuzzing.md.
#![no_main]
zixt_fuzz::target!("aead");
