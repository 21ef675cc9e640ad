//! The guard's file in bytes.

use zeroize::Zeroizing;
use zixt_crypto::hazmat;
use zixt_hsm_protocol::SignedPrecommit;
use zixt_types::{Canonical, Hash, Height, Round, Vote, limits};

/// Places in the file: the votes of 32 rounds of one height, or of the last 32 heights of one round.
pub const PLACES: usize = 64;
/// Bytes of a place: number, newest precommit, lengths, vote, the longest signature (4627), MAC. A multiple of every sector size.
pub const PLACE_BYTES: usize = 8192;
/// Copies of each place, each in a region of its own, so that one bad spot of the disk does not hit two.
pub const COPIES: usize = 2;
/// Bytes before the first place: a sector of its own.
pub const HEADER_BYTES: usize = 4096;
/// Bytes of the key that authenticates records.
pub const MAC_KEY_BYTES: usize = 32;

const MAGIC: &[u8; 8] = b"ZIXTVOT2";
const MAC_BYTES: usize = 48;
const PRECOMMIT_BYTES: usize = 1 + 8 + 4 + Hash::LEN;
const FIXED_BYTES: usize = 8 + PRECOMMIT_BYTES + 4 + 4;

/// Whose votes these are, and the key that authenticates them. The token seals it and it exists only while custody is
/// unlocked, so that nobody who merely writes the disk can make a record.
pub struct GuardKey {
    /// The guard's name.
    name: Hash,
    mac: Zeroizing<[u8; MAC_KEY_BYTES]>,
}

impl std::fmt::Debug for GuardKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GuardKey").field("name", &self.name).finish_non_exhaustive()
    }
}

impl GuardKey {
    /// The key of the guard with a name.
    #[must_use]
    pub fn new(name: Hash, mac: &[u8; MAC_KEY_BYTES]) -> Self {
        Self { name, mac: Zeroizing::new(*mac) }
    }

    /// The guard's first sector.
    pub(super) fn header(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        let end = MAGIC.len() + Hash::LEN;
        bytes[..MAGIC.len()].copy_from_slice(MAGIC);
        bytes[MAGIC.len()..end].copy_from_slice(self.name.as_bytes());
        let mac = self.authenticate(b"header", &bytes[..end]);
        bytes[end..end + MAC_BYTES].copy_from_slice(&mac);
        bytes
    }

    /// Whether a first sector says that it has another name. It may lie: only an equal one is trusted.
    pub(super) fn is_foreign(&self, bytes: &[u8; HEADER_BYTES]) -> bool {
        let named = bytes.get(MAGIC.len()..MAGIC.len() + Hash::LEN);
        bytes.starts_with(MAGIC) && named != Some(self.name.as_bytes().as_slice())
    }

    fn authenticate(&self, what: &[u8], bytes: &[u8]) -> [u8; MAC_BYTES] {
        *hazmat::hmac_sha384(&*self.mac, &[what, self.name.as_bytes(), bytes])
    }
}

/// One signed vote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Counts the signed votes from 0; decides the place.
    pub number: u64,
    /// The newest precommit for a header, this vote included. Every record repeats it, so that rounds without a decision
    /// never push it out of the file.
    pub precommit: Option<SignedPrecommit>,
    /// The vote.
    pub vote: Vote,
    /// The signature that was released.
    pub signature: Vec<u8>,
}

/// What stands in a place, or in one copy of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    /// Never written.
    Empty,
    /// A whole record.
    Full(Box<Record>),
    /// Anything else.
    Torn,
}

/// The place of the record with a number.
pub(super) const fn place(number: u64) -> usize {
    (number % PLACES as u64) as usize
}

/// Where a copy of a place starts in the file.
pub(super) const fn place_offset(copy: usize, place: usize) -> u64 {
    (HEADER_BYTES + (copy * PLACES + place) * PLACE_BYTES) as u64
}

impl Record {
    pub(super) const fn place(&self) -> usize {
        place(self.number)
    }

    /// The place in bytes, always whole, so that nothing of an older record stays; `None` if it does not fit.
    pub(super) fn to_bytes(&self, key: &GuardKey) -> Option<Vec<u8>> {
        let vote = self.vote.to_bytes();
        let mut bytes = Vec::with_capacity(PLACE_BYTES);
        bytes.extend_from_slice(&self.number.to_be_bytes());
        bytes.extend_from_slice(&precommit_bytes(self.precommit));
        bytes.extend_from_slice(&u32::try_from(vote.len()).ok()?.to_be_bytes());
        bytes.extend_from_slice(&u32::try_from(self.signature.len()).ok()?.to_be_bytes());
        bytes.extend_from_slice(&vote);
        bytes.extend_from_slice(&self.signature);
        if bytes.len() > PLACE_BYTES - MAC_BYTES {
            return None;
        }
        bytes.resize(PLACE_BYTES - MAC_BYTES, 0);
        let mac = key.authenticate(b"record", &bytes);
        bytes.extend_from_slice(&mac);
        Some(bytes)
    }

    fn parse(bytes: &[u8], key: &GuardKey) -> Option<Self> {
        let (body, mac) = bytes.split_last_chunk::<MAC_BYTES>()?;
        // Whoever could time this comparison sits in this process.
        if key.authenticate(b"record", body) != *mac {
            return None;
        }
        let (number, rest) = body.split_first_chunk()?;
        let (precommit, rest) = rest.split_first_chunk()?;
        let (vote_len, rest) = rest.split_first_chunk()?;
        let (signature_len, rest) = rest.split_first_chunk()?;
        let vote_len = usize::try_from(u32::from_be_bytes(*vote_len)).ok()?;
        let signature_len = usize::try_from(u32::from_be_bytes(*signature_len)).ok()?;
        let vote = Vote::parse(rest.get(..vote_len)?).ok()?;
        let signature = rest.get(vote_len..vote_len.checked_add(signature_len)?)?.to_vec();
        let precommit = parse_precommit(precommit)?;
        Some(Self { number: u64::from_be_bytes(*number), precommit, vote, signature })
    }
}

fn precommit_bytes(precommit: Option<SignedPrecommit>) -> [u8; PRECOMMIT_BYTES] {
    let mut bytes = [0; PRECOMMIT_BYTES];
    if let Some(SignedPrecommit { height, round, header }) = precommit {
        bytes[0] = 1;
        bytes[1..9].copy_from_slice(&height.0.to_be_bytes());
        bytes[9..13].copy_from_slice(&round.0.to_be_bytes());
        bytes[13..].copy_from_slice(header.as_bytes());
    }
    bytes
}

/// `None` for bytes that [`precommit_bytes`] does not write.
fn parse_precommit(bytes: &[u8; PRECOMMIT_BYTES]) -> Option<Option<SignedPrecommit>> {
    let (_, rest) = bytes.split_first()?;
    let (height, rest) = rest.split_first_chunk()?;
    let (round, header) = rest.split_first_chunk()?;
    let read = SignedPrecommit {
        height: Height(u64::from_be_bytes(*height)),
        round: Round(u32::from_be_bytes(*round)),
        header: Hash::try_from(header).ok()?,
    };
    [None, Some(read)].into_iter().find(|read| precommit_bytes(*read) == *bytes)
}

pub(super) fn read(bytes: &[u8], key: &GuardKey) -> Place {
    if bytes.iter().all(|byte| *byte == 0) {
        return Place::Empty;
    }
    Record::parse(bytes, key).map_or(Place::Torn, |record| Place::Full(Box::new(record)))
}

const _: () = assert!(FIXED_BYTES + limits::VOTE_BYTES_MAX + 4627 + MAC_BYTES <= PLACE_BYTES);
