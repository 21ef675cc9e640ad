//! Fuzz target `batch`; see docs/fuzzing.md.
#![no_main]
zixt_fuzz::target!("batch");
