//! Fuzz target `header`; see docs/fuzzing.md.
#![no_main]
zixt_fuzz::target!("header");
