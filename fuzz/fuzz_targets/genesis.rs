//! Fuzz target `genesis`; see docs/fuzzing.md.
#![no_main]
zixt_fuzz::target!("genesis");
