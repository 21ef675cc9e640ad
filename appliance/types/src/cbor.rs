//! Reading and writing deterministic CBOR (RFC 8949 section 4.2.1), with bounds.

use crate::{limits, suite::UnknownSuite};
use minicbor::{Decode, Encode};
use thiserror::Error;

/// Why bytes were refused as one of our formats. Nothing is kept of refused input.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ParseError {
    /// The input is longer than the format allows.
    #[error("{what} is {got} bytes long; at most {max} are allowed")]
    TooLong {
        /// The format that was expected.
        what: &'static str,
        /// Bytes given.
        got: usize,
        /// Bytes allowed.
        max: usize,
    },
    /// The bytes end early, are no CBOR, or hold another structure than the format's.
    #[error("{what} is malformed at byte {at}: {why}")]
    Malformed {
        /// The format that was expected.
        what: &'static str,
        /// Offset of the fault.
        at: usize,
        /// The fault.
        why: String,
    },
    /// Well-formed CBOR, but not the one encoding that signatures and hashes are made over.
    #[error("{what} is not deterministic CBOR (RFC 8949 section 4.2.1): {why}")]
    NotCanonical {
        /// The format that was expected.
        what: &'static str,
        /// The rule that was broken.
        why: &'static str,
    },
    /// Nested deeper than any of our formats.
    #[error("{what} is nested deeper than {max} levels")]
    TooDeep {
        /// The format that was expected.
        what: &'static str,
        /// Levels allowed.
        max: usize,
    },
    /// A version of the format that this program does not know.
    #[error("{what} has version {got}; this program reads version {known}")]
    UnknownVersion {
        /// The format that was expected.
        what: &'static str,
        /// The version in the input.
        got: u64,
        /// The version that this program reads.
        known: u64,
    },
    /// A suite that this program does not know.
    #[error("{what}: {suite}")]
    UnknownSuite {
        /// The format that was expected.
        what: &'static str,
        /// The unknown suite.
        suite: UnknownSuite,
    },
    /// The structure is right but a value breaks a rule of the format.
    #[error("{what} is invalid: {why}")]
    Invalid {
        /// The format that was expected.
        what: &'static str,
        /// The rule that was broken.
        why: &'static str,
    },
}

/// A format with exactly one encoding. A type's `parse` is its only constructor from foreign bytes: it checks
/// length, depth, version, suite, determinism and the type's own rules, and nothing checks them again.
pub trait Canonical: Encode<()> + for<'b> Decode<'b, ()> + Sized {
    /// The format's name in error messages.
    const WHAT: &'static str;
    /// Longest encoding, in bytes.
    const BYTES_MAX: usize;
    /// If the encoding is an array that starts with a version: the one that this program reads.
    const VERSION: Option<u64> = None;

    /// Rules that the structure alone does not express.
    ///
    /// # Errors
    /// The rule that is broken.
    fn check(&self) -> Result<(), &'static str> {
        Ok(())
    }

    /// The encoding.
    fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        match minicbor::encode(self, &mut bytes) {
            Ok(()) => bytes,
            // Writing to a Vec cannot fail and no `Encode` of ours returns an error of its own.
            Err(_) => unreachable!("encoding to memory"),
        }
    }

    /// Reads one object that fills `bytes` completely.
    ///
    /// # Errors
    /// See [`ParseError`].
    fn parse(bytes: &[u8]) -> Result<Self, ParseError> {
        let what = Self::WHAT;
        if bytes.len() > Self::BYTES_MAX {
            return Err(ParseError::TooLong { what, got: bytes.len(), max: Self::BYTES_MAX });
        }
        scan(what, bytes)?;
        if let Some(known) = Self::VERSION {
            let mut decoder = minicbor::Decoder::new(bytes);
            let got = decoder.array().and_then(|_| decoder.u64()).map_err(|e| malformed(what, &e))?;
            if got != known {
                return Err(ParseError::UnknownVersion { what, got, known });
            }
        }
        let value: Self = minicbor::decode(bytes).map_err(|error| {
            use std::error::Error as _;
            match error.source().and_then(|source| source.downcast_ref::<UnknownSuite>()) {
                Some(&suite) => ParseError::UnknownSuite { what, suite },
                None => malformed(what, &error),
            }
        })?;
        value.check().map_err(|why| ParseError::Invalid { what, why })?;
        // The scan refuses what is not deterministic CBOR; this refuses what our structure ignores (array items
        // beyond the last field).
        if value.to_bytes() != bytes {
            return Err(ParseError::NotCanonical { what, why: "it has items beyond the last field" });
        }
        Ok(value)
    }
}

fn malformed(what: &'static str, error: &minicbor::decode::Error) -> ParseError {
    ParseError::Malformed { what, at: error.position().unwrap_or(0), why: error.to_string() }
}

/// Walks over one CBOR item without recursion and without allocation, and refuses nesting beyond
/// [`limits::CBOR_DEPTH_MAX`], indefinite lengths, integers that are not in shortest form, lengths beyond the
/// input, and the types that no format of ours uses (maps, tags, floats).
///
/// # Errors
/// See [`ParseError`].
pub fn scan(what: &'static str, bytes: &[u8]) -> Result<(), ParseError> {
    let mut open = [0u64; limits::CBOR_DEPTH_MAX];
    let mut depth = 0;
    let mut at = 0;
    loop {
        let start = at;
        let fault = |why: &str| ParseError::Malformed { what, at: start, why: why.to_owned() };
        let initial = *bytes.get(at).ok_or_else(|| fault("the input ends early"))?;
        at += 1;
        let (major, info) = (initial >> 5, initial & 31);
        let argument = match info {
            0..=23 => u64::from(info),
            24..=27 => {
                let width = 1usize << (info - 24);
                let raw = bytes.get(at..at + width).ok_or_else(|| fault("the input ends early"))?;
                at += width;
                let value = raw.iter().fold(0u64, |value, byte| value << 8 | u64::from(*byte));
                let shortest = match info {
                    24 => value >= 24,
                    25 => value > 0xFF,
                    26 => value > 0xFFFF,
                    _ => value > 0xFFFF_FFFF,
                };
                if !shortest && major != 7 {
                    return Err(ParseError::NotCanonical { what, why: "an integer is not in shortest form" });
                }
                value
            }
            31 => return Err(ParseError::NotCanonical { what, why: "a length is indefinite" }),
            _ => return Err(fault("reserved additional information")),
        };
        match major {
            0 | 1 => {}
            2 | 3 => {
                let length = usize::try_from(argument).ok().filter(|length| *length <= bytes.len() - at);
                at += length.ok_or_else(|| fault("a string is longer than the input"))?;
            }
            4 => {
                // Each element takes at least one byte, so a larger count is a lie.
                if argument > (bytes.len() - at) as u64 {
                    return Err(fault("an array is longer than the input"));
                }
                if argument > 0 {
                    let slot = open
                        .get_mut(depth)
                        .ok_or(ParseError::TooDeep { what, max: limits::CBOR_DEPTH_MAX })?;
                    *slot = argument;
                    depth += 1;
                    continue;
                }
            }
            7 if matches!(info, 20..=22) => {}
            _ => return Err(fault("maps, tags, floats and other simple values are not used here")),
        }
        // One item ended: close every array that it completes.
        loop {
            let Some(level) = depth.checked_sub(1) else {
                return if at == bytes.len() {
                    Ok(())
                } else {
                    Err(ParseError::Malformed { what, at, why: "bytes follow the end".to_owned() })
                };
            };
            open[level] -= 1;
            if open[level] > 0 {
                break;
            }
            depth = level;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(Debug, Clone, PartialEq, Encode, Decode)]
    #[cbor(array)]
    struct Sample {
        #[n(0)]
        version: u64,
        #[n(1)]
        number: u64,
        #[cbor(n(2), with = "minicbor::bytes")]
        bytes: Vec<u8>,
        #[n(3)]
        maybe: Option<u64>,
        #[n(4)]
        list: Vec<u64>,
    }

    impl Canonical for Sample {
        const WHAT: &'static str = "sample";
        const BYTES_MAX: usize = 1 << 20;
        const VERSION: Option<u64> = Some(1);
    }

    #[test]
    fn a_million_levels_are_refused_without_recursion() {
        let deep = vec![0x81; 1_000_000];
        assert_eq!(
            Sample::parse(&deep),
            Err(ParseError::TooDeep { what: "sample", max: limits::CBOR_DEPTH_MAX })
        );
    }

    #[test]
    fn lengths_beyond_the_input_are_refused_before_anything_is_allocated() {
        for lie in
            [&[0x5B, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF][..], &[0x9A, 0xFF, 0xFF, 0xFF, 0xFF]]
        {
            assert!(matches!(Sample::parse(lie), Err(ParseError::Malformed { .. })), "{lie:?}");
        }
    }

    #[test]
    fn other_encodings_of_the_same_value_are_refused() {
        // 01 as two bytes; an indefinite array; an item beyond the last field; a map; a float; a tag.
        for other in [
            &[0x85, 0x18, 0x01, 0x02, 0x41, 0x03, 0xF6, 0x80][..],
            &[0x9F, 0x01, 0x02, 0x41, 0x03, 0xF6, 0x80, 0xFF],
            &[0x86, 0x01, 0x02, 0x41, 0x03, 0xF6, 0x80, 0x00],
            &[0xA0],
            &[0xF9, 0x00, 0x00],
            &[0xC1, 0x00],
            &[0x85, 0x01, 0x02, 0x41, 0x03, 0xF6, 0x80, 0x00],
        ] {
            assert!(Sample::parse(other).is_err(), "{other:?}");
        }
        assert!(Sample::parse(&[0x85, 0x01, 0x02, 0x41, 0x03, 0xF6, 0x80]).is_ok());
    }

    #[test]
    fn an_unknown_version_is_named() {
        assert_eq!(
            Sample::parse(&[0x85, 0x02, 0x02, 0x41, 0x03, 0xF6, 0x80]),
            Err(ParseError::UnknownVersion { what: "sample", got: 2, known: 1 })
        );
    }

    proptest! {
        #[test]
        fn round_trip(number: u64, bytes: Vec<u8>, maybe: Option<u64>, list: Vec<u64>) {
            let sample = Sample { version: 1, number, bytes, maybe, list };
            prop_assert_eq!(Sample::parse(&sample.to_bytes()), Ok(sample));
        }

        #[test]
        fn anything_else_is_an_error_not_a_panic(bytes: Vec<u8>) {
            if let Ok(sample) = Sample::parse(&bytes) {
                prop_assert_eq!(sample.to_bytes(), bytes);
            }
        }

        #[test]
        fn every_truncation_is_refused(number: u64, bytes: Vec<u8>) {
            let whole = Sample { version: 1, number, bytes, maybe: None, list: vec![1, 2] }.to_bytes();
            for cut in 0..whole.len() {
                prop_assert!(Sample::parse(&whole[..cut]).is_err());
            }
        }
    }
}
