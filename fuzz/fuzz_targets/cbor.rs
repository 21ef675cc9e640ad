//! Fuzz target `cbor`; see docs/fuzzing.md.
#![no_main]
zixt_fuzz::target!("cbor");
