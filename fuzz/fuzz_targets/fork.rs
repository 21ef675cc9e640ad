//! Fuzz target `fork`; see docs/fuzzing.md.
#![no_main]
zixt_fuzz::target!("fork");
