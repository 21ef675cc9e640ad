//! Fuzz target `claim_json`; see docs/fuzzing.md.
#![no_main]
zixt_fuzz::target!("claim_json");
