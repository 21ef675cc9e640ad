//! Fuzz target `stored_state`; see docs/fuzzing.md.
#![no_main]
zixt_fuzz::target!("stored_state");
