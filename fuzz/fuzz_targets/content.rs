//! Fuzz target `content`; see docs/fuzzing.md.
#![no_main]
zixt_fuzz::target!("content");
