//! Fuzz target `conversation`; see docs/fuzzing.md.
#![no_main]
zixt_fuzz::target!("conversation");
