//! Fuzz target `answers_json`; see docs/fuzzing.md.
#![no_main]
zixt_fuzz::target!("answers_json");
