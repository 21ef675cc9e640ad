//! Fuzz target `body`; see docs/fuzzing.md.
#![no_main]
zixt_fuzz::target!("body");
