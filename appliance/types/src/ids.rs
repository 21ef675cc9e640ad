//! Typed identifiers. No bare array, integer or string crosses a function boundary in their place.

use core::fmt;
use minicbor::{Decode, Decoder, Encode, Encoder, decode, encode};

macro_rules! byte_id {
    ($(#[$doc:meta])* $name:ident, $len:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub [u8; $len]);

        impl $name {
            /// Length in bytes.
            pub const LEN: usize = $len;

            /// The bytes.
            #[must_use]
            pub const fn as_bytes(&self) -> &[u8; $len] {
                &self.0
            }

            /// Lower-case hexadecimal, as people and URLs write it.
            #[must_use]
            pub fn to_hex(&self) -> String {
                hex(&self.0)
            }

            /// Reads what [`Self::to_hex`] wrote; `None` for any other length or character.
            #[must_use]
            pub fn from_hex(text: &str) -> Option<Self> {
                unhex(text).map(Self)
            }
        }

        impl TryFrom<&[u8]> for $name {
            type Error = core::array::TryFromSliceError;
            fn try_from(bytes: &[u8]) -> Result<Self, Self::Error> {
                bytes.try_into().map(Self)
            }
        }

        impl AsRef<[u8]> for $name {
            fn as_ref(&self) -> &[u8] {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.to_hex())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({}…)"), hex(&self.0[..4]))
            }
        }

        impl<C> Encode<C> for $name {
            fn encode<W: encode::Write>(
                &self,
                e: &mut Encoder<W>,
                _: &mut C,
            ) -> Result<(), encode::Error<W::Error>> {
                e.bytes(&self.0)?.ok()
            }
        }

        impl<'b, C> Decode<'b, C> for $name {
            fn decode(d: &mut Decoder<'b>, _: &mut C) -> Result<Self, decode::Error> {
                let at = d.position();
                d.bytes()?.try_into().map(Self).map_err(|_| {
                    decode::Error::message(concat!(stringify!($name), " has the wrong length")).at(at)
                })
            }
        }
    };
}

macro_rules! number {
    ($(#[$doc:meta])* $name:ident, $inner:ty) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Encode, Decode)]
        #[cbor(transparent)]
        pub struct $name(#[n(0)] pub $inner);

        impl $name {
            /// The number after this one; saturates at the type's end, which no ledger reaches.
            #[must_use]
            pub const fn next(self) -> Self {
                Self(self.0.saturating_add(1))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

byte_id!(
    /// A SHA-384 digest (FIPS 180-4). Both suites hash with SHA-384 everywhere.
    Hash,
    48
);
byte_id!(
    /// An account: random, drawn by the enroller who invites it. The name is only an alias of it.
    AccountId,
    16
);
byte_id!(
    /// A device of an account: the first 16 bytes of the labelled hash of its identity key, so that it names its key.
    DeviceId,
    16
);
byte_id!(
    /// One message or other submission, drawn at random by its author; a retry keeps it.
    MessageId,
    16
);
byte_id!(
    /// An appliance (a validator, a peer): the labelled hash of its identity key.
    ApplianceId,
    48
);
byte_id!(
    /// A chain of entries. The first byte tells its [`ThreadKind`]; the rest is random (conversations) or derived
    /// (accounts, the system thread), so that nobody can take another kind's id.
    ThreadId,
    32
);
byte_id!(
    /// Blinds a leaf of a shard tree, so that proofs for others reveal nothing. Drawn by the sequencer.
    Salt,
    32
);
byte_id!(
    /// One sign-in among those that are under way. Random, and not secret.
    LoginId,
    16
);
byte_id!(
    /// A session in lists: the first bytes of its token's hash. Opens nothing.
    SessionId,
    16
);
byte_id!(
    /// A request to recover an account. Random.
    RecoveryId,
    16
);
byte_id!(
    /// A protector of custody's root key: drawn at random or derived from the device, by who adds it.
    ProtectorId,
    16
);

number!(
    /// A height of the ledger. Genesis is height 0; the first header has height 1.
    Height,
    u64
);
number!(
    /// A consensus round within a height.
    Round,
    u32
);
number!(
    /// The place of an entry in its thread's chain, from 0, without gaps.
    Seq,
    u64
);
number!(
    /// An MLS epoch (RFC 9420 section 2).
    Epoch,
    u64
);
number!(
    /// A shard; its number is below the genesis' shard count.
    ShardId,
    u16
);
number!(
    /// Milliseconds since 1970-01-01T00:00:00Z, without leap seconds. Whose clock it is, is said where it is used.
    Timestamp,
    u64
);

impl Timestamp {
    /// The time as people and programs read it (RFC 3339, UTC, milliseconds).
    #[must_use]
    pub fn utc(self) -> String {
        let (days, ms) = (self.0 / 86_400_000, self.0 % 86_400_000);
        // Civil date from days (Howard Hinnant, "chrono-compatible low-level date algorithms"): years begin in March, so
        // that the leap day is the last one; eras of 400 years have 146,097 days.
        let days = days + 719_468;
        let (era, day) = (days / 146_097, days % 146_097);
        let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
        let day = day - (365 * year + year / 4 - year / 100);
        let month = (5 * day + 2) / 153;
        let day = day - (153 * month + 2) / 5 + 1;
        let month = if month < 10 { month + 3 } else { month - 9 };
        let year = era * 400 + year + u64::from(month <= 2);
        let (hours, minutes, seconds) = (ms / 3_600_000, ms / 60_000 % 60, ms / 1_000 % 60);
        format!("{year:04}-{month:02}-{day:02}T{hours:02}:{minutes:02}:{seconds:02}.{:03}Z", ms % 1_000)
    }
}

impl Hash {
    /// The hash before the first: what a chain's first entry and the first header point at.
    pub const ZERO: Self = Self([0; 48]);
}

/// What a thread's chain is about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum ThreadKind {
    /// The appliances' own thread: validators, stake, officers, policy.
    System = 0,
    /// An account: its invitation, devices and revocations.
    Account = 1,
    /// A conversation of two or more members: messages and commits.
    Conversation = 2,
}

impl ThreadId {
    /// Makes an id of `kind` from 31 bytes that are random or derived.
    #[must_use]
    pub fn new(kind: ThreadKind, rest: &[u8; 31]) -> Self {
        let mut id = [0; 32];
        id[0] = kind as u8;
        id[1..].copy_from_slice(rest);
        Self(id)
    }

    /// The kind that the first byte tells; `None` for a byte that no version of Zixt uses.
    #[must_use]
    pub const fn kind(&self) -> Option<ThreadKind> {
        match self.0[0] {
            0 => Some(ThreadKind::System),
            1 => Some(ThreadKind::Account),
            2 => Some(ThreadKind::Conversation),
            _ => None,
        }
    }

    /// The shard that orders this thread: fixed by the id alone, because the count is fixed at genesis.
    /// `shard_count` of 0 is read as 1.
    #[must_use]
    pub fn shard(&self, shard_count: u16) -> ShardId {
        // The id is random or a hash, so its own bytes spread threads evenly; bytes 1..9 skip the kind.
        let mut word = [0; 8];
        word.copy_from_slice(&self.0[1..9]);
        let shard = u64::from_be_bytes(word) % u64::from(shard_count.max(1));
        ShardId(u16::try_from(shard).unwrap_or(0))
    }
}

fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        text.push(char::from(DIGITS[usize::from(byte >> 4)]));
        text.push(char::from(DIGITS[usize::from(byte & 15)]));
    }
    text
}

fn unhex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digits = text.as_bytes();
    if digits.len() != 2 * N {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        let high = char::from(pair[0]).to_digit(16)?;
        let low = char::from(pair[1]).to_digit(16)?;
        *byte = u8::try_from(high * 16 + low).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hex_round_trips_and_refuses_the_rest() {
        let id = DeviceId([0xAB; 16]);
        assert_eq!(DeviceId::from_hex(&id.to_hex()), Some(id));
        assert_eq!(DeviceId::from_hex("ab"), None);
        assert_eq!(DeviceId::from_hex(&"zz".repeat(16)), None);
    }

    #[test]
    fn a_thread_id_tells_its_kind_and_stays_in_range() {
        let id = ThreadId::new(ThreadKind::Account, &[0xFF; 31]);
        assert_eq!(id.kind(), Some(ThreadKind::Account));
        assert_eq!(ThreadId([9; 32]).kind(), None);
        for count in [0, 1, 3, 16, u16::MAX] {
            assert!(id.shard(count).0 < count.max(1));
        }
    }

    #[test]
    fn times_are_readable() {
        for (ms, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (1_772_323_199_999, "2026-02-28T23:59:59.999Z"),
            (4_107_542_400_000, "2100-03-01T00:00:00.000Z"),
        ] {
            assert_eq!(Timestamp(ms).utc(), text);
        }
        assert!(Timestamp(u64::MAX).utc().ends_with('Z'));
    }
}
