//! Fuzz target `hpke`; see docs/fuzzing.md.
#![no_main]
zixt_fuzz::target!("hpke");
