//! Fuzz target `stream_json`; see docs/fuzzing.md.
#![no_main]
zixt_fuzz::target!("stream_json");
