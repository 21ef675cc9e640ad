//! Fuzz target `certificate`; see docs/fuzzing.md.
#![no_main]
zixt_fuzz::target!("certificate");
