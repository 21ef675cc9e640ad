//! Fuzz target `ceremony_file`; see docs/fuzzing.md.
#![no_main]
zixt_fuzz::target!("ceremony_file");
