//! Fuzz target `submission`; see docs/fuzzing.md.
#![no_main]
zixt_fuzz::target!("submission");
