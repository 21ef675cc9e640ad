//! Fuzz target `custody_response`; see docs/fuzzing.md.
#![no_main]
zixt_fuzz::target!("custody_response");
