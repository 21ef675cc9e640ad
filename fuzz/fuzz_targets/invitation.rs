//! Fuzz target `invitation`; see docs/fuzzing.md.
#![no_main]
zixt_fuzz::target!("invitation");
