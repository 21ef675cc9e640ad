//! Fuzz target `vote`; see docs/fuzzing.md.
#![no_main]
zixt_fuzz::target!("vote");
