//! The fuzz targets. What they do stands in `tests/tests/corpus/parsers.rs`, which the replay test compiles too.
#![allow(missing_docs, reason = "documented where they are written, for a test that publishes nothing")]

#[path = "../../tests/tests/corpus/parsers.rs"]
pub mod parsers;

pub use libfuzzer_sys;

/// The property of a target.
///
/// # Panics
/// There is no such target.
#[must_use]
pub fn property(name: &str) -> parsers::Property {
    match parsers::TARGETS.iter().find(|(target, _)| *target == name) {
        Some((_, property)) => *property,
        None => panic!("there is no target {name}"),
    }
}

/// The whole of a fuzz target: feeds its inputs to the property of this name.
#[macro_export]
macro_rules! target {
    ($name:literal) => {
        ::libfuzzer_sys::fuzz_target!(|data: &[u8]| $crate::property($name)(data));
    };
}
