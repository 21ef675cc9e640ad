//! Fuzz target `submit_json`; see docs/fuzzing.md.
#![no_main]
zixt_fuzz::target!("submit_json");
