//! Fuzz target `welcome`; see docs/fuzzing.md.
#![no_main]
zixt_fuzz::target!("welcome");
