//! Fuzz target `evidence`; see docs/fuzzing.md.
#![no_main]
zixt_fuzz::target!("evidence");
