//! Fuzz target `map_proof`; see docs/fuzzing.md.
#![no_main]
zixt_fuzz::target!("map_proof");
