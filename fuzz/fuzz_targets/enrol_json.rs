//! Fuzz target `enrol_json`; see docs/fuzzing.md.
#![no_main]
zixt_fuzz::target!("enrol_json");
