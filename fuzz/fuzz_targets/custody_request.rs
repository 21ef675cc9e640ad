//! Fuzz target `custody_request`; see docs/fuzzing.md.
#![no_main]
zixt_fuzz::target!("custody_request");
