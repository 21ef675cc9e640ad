//! Fuzz target `admin_json`; see docs/fuzzing.md.
#![no_main]
zixt_fuzz::target!("admin_json");
