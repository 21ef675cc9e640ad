//! Fuzz target `consensus_message`; see docs/fuzzing.md.
#![no_main]
zixt_fuzz::target!("consensus_message");
