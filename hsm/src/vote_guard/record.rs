//! The guard's file in bytes.

use zixt_crypto::hazmat;
use zixt_types::{Canonical, Hash, Vote, limits};

/// Places in the file: the votes of 32 rounds of one height, or of the last 32 heights of one round.
pub const PLACES: usize = 64;
/// Bytes of a place: number, lengths, vote, the longest signature (4627), checksum. A multiple of every sector size.
pub const PLACE_BYTES: usize = 8192;
/// Bytes before the first place: a sector of its own.
pub const HEADER_BYTES: usize = 4096;

const MAGIC: &[u8; 8] = b"ZIXTVOT1";
const CHECKSUM_BYTES: usize = 32;
const FIXED_BYTES: usize = 8 + 4 + 4;

/// The first sector: whose votes these are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GuardHeader {
    /// Hash of the consensus key.
    pub key: Hash,
}

impl GuardHeader {
    /// The header in bytes.
    #[must_use]
    pub fn to_bytes(self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        let end = MAGIC.len() + Hash::LEN;
        bytes[..MAGIC.len()].copy_from_slice(MAGIC);
        bytes[MAGIC.len()..end].copy_from_slice(self.key.as_bytes());
        let sum = checksum(&bytes[..end]);
        bytes[end..end + CHECKSUM_BYTES].copy_from_slice(&sum);
        bytes
    }

    /// Reads a header; `None` for any other bytes.
    #[must_use]
    pub fn parse(bytes: &[u8; HEADER_BYTES]) -> Option<Self> {
        let key = Hash::try_from(bytes.get(MAGIC.len()..MAGIC.len() + Hash::LEN)?).ok()?;
        let header = Self { key };
        (header.to_bytes() == *bytes).then_some(header)
    }
}

/// One signed vote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Counts the signed votes from 0; decides the place.
    pub number: u64,
    /// The vote.
    pub vote: Vote,
    /// The signature that was released.
    pub signature: Vec<u8>,
}

/// What stands in a place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    /// Never written.
    Empty,
    /// A whole record.
    Full(Record),
    /// Anything else.
    Torn,
}

/// The place of the record with a number.
pub(super) const fn place(number: u64) -> usize {
    (number % PLACES as u64) as usize
}

/// Where a place starts in the file.
pub(super) const fn place_offset(place: usize) -> u64 {
    (HEADER_BYTES + place * PLACE_BYTES) as u64
}

impl Record {
    pub(super) const fn place(&self) -> usize {
        place(self.number)
    }

    /// The place in bytes, always whole, so that nothing of an older record stays; `None` if it does not fit.
    #[must_use]
    pub fn to_bytes(&self) -> Option<Vec<u8>> {
        let vote = self.vote.to_bytes();
        let mut bytes = Vec::with_capacity(PLACE_BYTES);
        bytes.extend_from_slice(&self.number.to_be_bytes());
        bytes.extend_from_slice(&u32::try_from(vote.len()).ok()?.to_be_bytes());
        bytes.extend_from_slice(&u32::try_from(self.signature.len()).ok()?.to_be_bytes());
        bytes.extend_from_slice(&vote);
        bytes.extend_from_slice(&self.signature);
        if bytes.len() > PLACE_BYTES - CHECKSUM_BYTES {
            return None;
        }
        bytes.resize(PLACE_BYTES - CHECKSUM_BYTES, 0);
        let sum = checksum(&bytes);
        bytes.extend_from_slice(&sum);
        Some(bytes)
    }

    fn parse(bytes: &[u8]) -> Option<Self> {
        let (body, sum) = bytes.split_last_chunk::<CHECKSUM_BYTES>()?;
        if checksum(body) != *sum {
            return None;
        }
        let (number, rest) = body.split_first_chunk()?;
        let (vote_len, rest) = rest.split_first_chunk()?;
        let (signature_len, rest) = rest.split_first_chunk()?;
        let vote_len = usize::try_from(u32::from_be_bytes(*vote_len)).ok()?;
        let signature_len = usize::try_from(u32::from_be_bytes(*signature_len)).ok()?;
        let vote = Vote::parse(rest.get(..vote_len)?).ok()?;
        let signature = rest.get(vote_len..vote_len.checked_add(signature_len)?)?.to_vec();
        Some(Self { number: u64::from_be_bytes(*number), vote, signature })
    }
}

pub(super) fn read(bytes: &[u8]) -> Place {
    if bytes.iter().all(|byte| *byte == 0) {
        return Place::Empty;
    }
    Record::parse(bytes).map_or(Place::Torn, Place::Full)
}

/// Against torn writes and decay, not against an attacker: whoever can write this file can also replace it.
fn checksum(bytes: &[u8]) -> [u8; CHECKSUM_BYTES] {
    let mut sum = [0; CHECKSUM_BYTES];
    sum.copy_from_slice(&hazmat::sha384(&[bytes])[..CHECKSUM_BYTES]);
    sum
}

const _: () = assert!(FIXED_BYTES + limits::VOTE_BYTES_MAX + 4627 + CHECKSUM_BYTES <= PLACE_BYTES);
