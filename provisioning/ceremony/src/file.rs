//! What travels between officers and machines, as files: eight bytes that say what it is, then deterministic CBOR. A file
//! of one kind is never taken for another.

use crate::{OfficerCard, RecoveryRecord, RecoveryRequest, SealedShare, ShareRelease};
use thiserror::Error;
use zixt_types::{Action, Approval, Canonical, ParseError, Transcript};

/// Bytes of what stands in front.
pub const MAGIC_BYTES: usize = 8;

/// A format that has files.
pub trait Filed: Canonical {
    /// What the file begins with; the last byte tells the format's version.
    const MAGIC: &'static [u8; MAGIC_BYTES];
    /// The end of the file's name, without the dot.
    const EXTENSION: &'static str;
}

macro_rules! filed {
    ($($type:ty, $magic:literal, $extension:literal;)*) => {
        $(impl Filed for $type {
            const MAGIC: &'static [u8; MAGIC_BYTES] = $magic;
            const EXTENSION: &'static str = $extension;
        })*

        /// Every kind of file: what it begins with, and what it is.
        pub const KINDS: &[(&[u8; MAGIC_BYTES], &str)] = &[$(($magic, <$type as Canonical>::WHAT)),*];
    };
}

filed! {
    Action, b"ZIXTACT1", "zixt-action";
    Approval, b"ZIXTAPR1", "zixt-approval";
    Transcript, b"ZIXTTRN1", "zixt-transcript";
    OfficerCard, b"ZIXTCRD1", "zixt-officer";
    SealedShare, b"ZIXTSHR1", "zixt-share";
    RecoveryRecord, b"ZIXTRCV1", "zixt-recovery";
    RecoveryRequest, b"ZIXTRRQ1", "zixt-request";
    ShareRelease, b"ZIXTREL1", "zixt-release";
}

/// Why a file is not what was expected.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum FileError {
    /// Something else, or nothing that this program knows.
    #[error("this is {}, not the {expected} that was expected", found.map_or("no file of this program", |what| what))]
    Other {
        /// What was expected.
        expected: &'static str,
        /// What it is, if it is known.
        found: Option<&'static str>,
    },
    /// It begins right and goes on wrong.
    #[error(transparent)]
    Parse(#[from] ParseError),
}

/// What a file says it is.
#[must_use]
pub fn kind(file: &[u8]) -> Option<&'static str> {
    KINDS.iter().find(|(magic, _)| file.starts_with(*magic)).map(|(_, what)| *what)
}

/// The bytes of a file.
#[must_use]
pub fn to_file<T: Filed>(value: &T) -> Vec<u8> {
    [T::MAGIC.as_slice(), &value.to_bytes()].concat()
}

/// Reads a file.
///
/// # Errors
/// See [`FileError`].
pub fn from_file<T: Filed>(file: &[u8]) -> Result<T, FileError> {
    match file.strip_prefix(T::MAGIC) {
        Some(bytes) => Ok(T::parse(bytes)?),
        None => Err(FileError::Other { expected: T::WHAT, found: kind(file) }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use zixt_types::{ApplianceId, Decision, Hash, Timestamp};

    #[test]
    fn a_file_is_only_what_it_says() {
        let action = Action {
            version: 1,
            genesis: Hash([1; 48]),
            appliance: ApplianceId([2; 48]),
            sequence: 0,
            expires_at: Timestamp(9),
            decision: Decision::RotateRoot,
        };
        let file = to_file(&action);
        assert_eq!(from_file::<Action>(&file), Ok(action));
        let refused = from_file::<Transcript>(&file).unwrap_err();
        assert_eq!(refused.to_string(), "this is action, not the transcript that was expected");
        assert!(matches!(from_file::<Action>(b"PK\x03\x04"), Err(FileError::Other { found: None, .. })));
        assert!(matches!(from_file::<Action>(&file[..20]), Err(FileError::Parse(_))));
        let mut magics: Vec<_> = KINDS.iter().map(|(magic, _)| magic).collect();
        magics.sort();
        magics.dedup();
        assert_eq!(magics.len(), KINDS.len());
    }
}
