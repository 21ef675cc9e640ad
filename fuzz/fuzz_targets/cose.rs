//! Fuzz target `cose`; see docs/fuzzing.md.
#![no_main]
zixt_fuzz::target!("cose");
