//! Fuzz target `frontier`; see docs/fuzzing.md.
#![no_main]
zixt_fuzz::target!("frontier");
