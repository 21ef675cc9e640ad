//! Fuzz target `join`; see docs/fuzzing.md.
#![no_main]
zixt_fuzz::target!("join");
