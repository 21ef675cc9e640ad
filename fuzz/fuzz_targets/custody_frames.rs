//! Fuzz target `custody_frames`; see docs/fuzzing.md.
#![no_main]
zixt_fuzz::target!("custody_frames");
