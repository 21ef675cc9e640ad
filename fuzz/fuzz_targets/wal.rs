//! Fuzz target `wal`; see docs/fuzzing.md.
#![no_main]
zixt_fuzz::target!("wal");
