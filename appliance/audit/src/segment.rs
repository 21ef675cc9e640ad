//! How records lie in a segment. A segment is preallocated: writing into it needs no new block, so a full disk cannot
//! stop it, and fdatasync has no metadata to write.
//!
//! ```text
//! 0       "ZIXTAUJ1" | size | first | after | made at, u64 each | chain 48 | prev 48 | check 48       written once
//! 4096    mark      magic u32 | state u32 | count u64 | sequence u64 | end u64 | head 48 | check 48
//! 4608    mark      the other one: they take turns
//! 5120..  frame frame frame ..
//! frame   magic u32 | size u32 | length u32 | 0 u32 | sequence u64 | prev 48 | hash 48 | check 8 | event | zeros
//! ```
//! All numbers little-endian. `size` of a frame is a multiple of 8 and reaches to the next frame; the last one of a
//! group reaches to the end of its sector, so that a torn write does not touch what was acknowledged. `check` covers
//! everything in front of it (labelled SHA-384, with the chain's name: a frame of another journal is none of this
//! one); the hash covers the event, and what follows the event is zero. So no byte of a segment can change unseen.
//!
//! A mark says up to where records were acknowledged. It is written after each fdatasync and becomes durable with the
//! next one, so after a crash it is right or one group behind. What the mark covers has to be there: if not, it is
//! damage. What lies behind it may be torn.

use crate::folder::{Handle, read_up_to, write_all_at};
use crate::record::record_hash;
use crate::{Head, Record, Sequence, limits};
use std::io;
use zixt_crypto::hash::sha384;
use zixt_crypto::labels;
use zixt_types::{Hash, Timestamp};

/// No disk tears a write inside one sector.
const SECTOR_BYTES: u64 = 512;
/// Each in a sector of its own, so that a mark is never torn and one that is lost leaves the other.
pub(crate) const MARKS_AT: [u64; 2] = [4096, 4608];
/// Where frames begin.
pub(crate) const FRAMES_AT: u64 = 5120;
pub(crate) const FRAME_HEAD_BYTES: usize = 128;
/// The largest frame: the largest event, alone in its group.
pub(crate) const FRAME_BYTES_MAX: u64 = (FRAME_HEAD_BYTES + limits::EVENT_BYTES_MAX) as u64 + SECTOR_BYTES;
const MAGIC: &[u8; 8] = b"ZIXTAUJ1";
const FRAME_MAGIC: u32 = u32::from_le_bytes(*b"ZAJ1");
const MARK_MAGIC: u32 = u32::from_le_bytes(*b"ZAM1");
const HEADER_BYTES: usize = 184;
const MARK_BYTES: usize = 128;
const OPEN: u32 = 1;
const SEALED: u32 = 2;
/// The file that is kept in reserve: the next segment, made in advance.
pub(crate) const RESERVE: &str = "reserve";
const SEGMENT_END: &str = ".segment";
/// Behind the name of a segment that was set aside.
pub(crate) const DAMAGED_END: &str = ".damaged";

/// The name of the segment that begins with `first`.
pub(crate) fn name(first: Sequence) -> String {
    format!("{:020}{SEGMENT_END}", first.0)
}

/// The first record of the segment of that name; `None` for another file.
pub(crate) fn first_of(name: &str) -> Option<Sequence> {
    let digits = name.strip_suffix(SEGMENT_END)?;
    let first = Sequence(digits.parse().ok()?);
    (self::name(first) == name).then_some(first)
}

/// What a segment is about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Header {
    /// Its length in bytes.
    pub size: u64,
    /// The first record that it can hold.
    pub first: Sequence,
    /// The record that `prev` is of: `first - 1`, or less where damage was set aside.
    pub after: Sequence,
    /// When it was made, by the wall clock.
    pub made_at: Timestamp,
    /// The chain's name.
    pub chain: Hash,
    /// Hash of the record that its first one follows.
    pub prev: Hash,
}

impl Header {
    /// The head that the first record follows.
    pub const fn before(&self) -> Head {
        Head { sequence: self.after, hash: self.prev }
    }

    pub fn to_bytes(self) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        for number in [self.size, self.first.0, self.after.0, self.made_at.0] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        bytes.extend_from_slice(self.chain.as_ref());
        bytes.extend_from_slice(self.prev.as_ref());
        let check = sha384(labels::AUDIT_SEGMENT, &[&bytes]);
        bytes.extend_from_slice(check.as_ref());
        bytes
    }

    /// Reads and judges the start of a segment. The error is for people.
    pub fn read(file: &dyn Handle) -> io::Result<Result<Self, String>> {
        let mut bytes = vec![0; usize::try_from(MARKS_AT[0]).unwrap_or(4096)];
        let read = read_up_to(file, 0, &mut bytes)?;
        bytes.truncate(read);
        let header = match Self::parse(&bytes) {
            Some(header) => header,
            None => return Ok(Err("its header is damaged".to_owned())),
        };
        let length = file.length()?;
        if length != header.size {
            return Ok(Err(format!("it has {length} bytes where its header says {}", header.size)));
        }
        Ok(Ok(header))
    }

    fn parse(bytes: &[u8]) -> Option<Self> {
        let header = Self {
            size: u64_at(bytes, 8)?,
            first: Sequence(u64_at(bytes, 16)?),
            after: Sequence(u64_at(bytes, 24)?),
            made_at: Timestamp(u64_at(bytes, 32)?),
            chain: hash_at(bytes, 40)?,
            prev: hash_at(bytes, 88)?,
        };
        let rest_is_zero = bytes.get(HEADER_BYTES..)?.iter().all(|byte| *byte == 0);
        (rest_is_zero && header.after < header.first && bytes.get(..HEADER_BYTES)? == header.to_bytes())
            .then_some(header)
    }
}

/// Up to where a segment's records were acknowledged.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Mark {
    /// Counts the marks of this segment, from 1.
    pub count: u64,
    /// The last record that is durable.
    pub head: Head,
    /// Where the next frame begins.
    pub end: u64,
    /// No record follows in this segment.
    pub sealed: bool,
}

/// What the two marks of a segment say.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Marks {
    /// The newer one; `None` if none was written yet.
    pub newest: Option<Mark>,
    /// How many of them are unreadable.
    pub damaged: u32,
}

impl Mark {
    /// Writes it. It is durable with the next sync.
    pub fn write(&self, file: &dyn Handle, header: &Header) -> io::Result<()> {
        let mut sector = self.to_bytes(header);
        sector.resize(SECTOR_BYTES as usize, 0);
        write_all_at(file, MARKS_AT[usize::from(self.count % 2 == 1)], &sector)
    }

    fn to_bytes(self, header: &Header) -> Vec<u8> {
        let mut bytes = MARK_MAGIC.to_le_bytes().to_vec();
        bytes.extend_from_slice(&(if self.sealed { SEALED } else { OPEN }).to_le_bytes());
        for number in [self.count, self.head.sequence.0, self.end] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        bytes.extend_from_slice(self.head.hash.as_ref());
        let check =
            sha384(labels::AUDIT_MARK, &[header.chain.as_ref(), &header.first.0.to_be_bytes(), &bytes]);
        bytes.extend_from_slice(check.as_ref());
        bytes
    }

    fn parse(bytes: &[u8], header: &Header) -> Option<Self> {
        let mark = Self {
            sealed: u32_at(bytes, 4)? == SEALED,
            count: u64_at(bytes, 8)?,
            head: Head { sequence: Sequence(u64_at(bytes, 16)?), hash: hash_at(bytes, 32)? },
            end: u64_at(bytes, 24)?,
        };
        let rest_is_zero = bytes.get(MARK_BYTES..)?.iter().all(|byte| *byte == 0);
        (rest_is_zero && bytes.get(..MARK_BYTES)? == mark.to_bytes(header)).then_some(mark)
    }
}

impl Marks {
    pub fn read(file: &dyn Handle, header: &Header) -> io::Result<Self> {
        let mut marks = Self { newest: None, damaged: 0 };
        for at in MARKS_AT {
            let mut bytes = vec![0; SECTOR_BYTES as usize];
            let read = read_up_to(file, at, &mut bytes)?;
            bytes.truncate(read);
            if bytes.iter().all(|byte| *byte == 0) {
                continue;
            }
            match Mark::parse(&bytes, header) {
                Some(mark) if marks.newest.is_none_or(|newest| newest.count < mark.count) => {
                    marks.newest = Some(mark);
                }
                Some(_) => {}
                None => marks.damaged += 1,
            }
        }
        Ok(marks)
    }
}

/// A record with its place in the segment.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Frame {
    pub record: Record,
    /// Where the next frame begins.
    pub next: u64,
}

/// Bytes that a frame takes at `at`; `last` if it is the last one of its group.
pub(crate) const fn frame_bytes(at: u64, event_bytes: usize, last: bool) -> u64 {
    let bytes = (FRAME_HEAD_BYTES + event_bytes) as u64;
    let unit = if last { SECTOR_BYTES } else { 8 };
    (at + bytes).div_ceil(unit) * unit - at
}

/// Adds a frame of `size` bytes to the end of `out`.
pub(crate) fn encode(out: &mut Vec<u8>, chain: Hash, record: &Record, size: u64) {
    let start = out.len();
    out.extend_from_slice(&FRAME_MAGIC.to_le_bytes());
    // Both are far below 4 GiB: events and segments are bounded.
    out.extend_from_slice(&u32::try_from(size).unwrap_or(u32::MAX).to_le_bytes());
    out.extend_from_slice(&u32::try_from(record.event.len()).unwrap_or(u32::MAX).to_le_bytes());
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&record.sequence.0.to_le_bytes());
    out.extend_from_slice(record.prev.as_ref());
    out.extend_from_slice(record.hash.as_ref());
    let check = frame_check(chain, &out[start..]);
    out.extend_from_slice(&check);
    out.extend_from_slice(&record.event);
    out.resize(start + usize::try_from(size).unwrap_or(0), 0);
}

/// Why no frame could be read.
#[derive(Debug)]
pub(crate) enum FrameError {
    /// The file cannot be read.
    Io(io::Error),
    /// No whole frame stands there. For people.
    Broken(String),
}

impl From<io::Error> for FrameError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// Reads the frame at `at` of a segment of `size` bytes.
pub(crate) fn read_frame(file: &dyn Handle, chain: Hash, at: u64, size: u64) -> Result<Frame, FrameError> {
    let broken = |why: &str| FrameError::Broken(format!("at byte {at}: {why}"));
    let mut head = [0; FRAME_HEAD_BYTES];
    if read_up_to(file, at, &mut head)? < head.len() {
        return Err(broken("the segment ends"));
    }
    let checked = &head[..FRAME_HEAD_BYTES - 8];
    if u32_at(&head, 0) != Some(FRAME_MAGIC) || frame_check(chain, checked) != head[FRAME_HEAD_BYTES - 8..] {
        return Err(broken("no head of a record stands there"));
    }
    let parsed = (|| {
        let frame = u64::from(u32_at(&head, 4)?);
        let length = usize::try_from(u32_at(&head, 8)?).ok()?;
        Some((frame, length, Sequence(u64_at(&head, 16)?), hash_at(&head, 24)?, hash_at(&head, 72)?))
    })();
    let (frame, length, sequence, prev, hash) = parsed.ok_or_else(|| broken("a head is short"))?;
    let fits = length <= limits::EVENT_BYTES_MAX
        && frame <= FRAME_BYTES_MAX
        && frame >= (FRAME_HEAD_BYTES + length) as u64
        && at + frame <= size;
    if !fits {
        return Err(broken("a record is longer than its place"));
    }
    let mut event = vec![0; usize::try_from(frame).unwrap_or(0) - FRAME_HEAD_BYTES];
    if read_up_to(file, at + FRAME_HEAD_BYTES as u64, &mut event)? < event.len() {
        return Err(broken("a record is cut off"));
    }
    if event[length..].iter().any(|byte| *byte != 0) {
        return Err(broken("what follows the record is not empty"));
    }
    event.truncate(length);
    if record_hash(sequence, prev, &event) != hash {
        return Err(broken(&format!("the content of record {sequence} does not have its hash")));
    }
    Ok(Frame { record: Record { sequence, prev, event, hash }, next: at + frame })
}

fn frame_check(chain: Hash, head: &[u8]) -> [u8; 8] {
    let hash = sha384(labels::AUDIT_FRAME, &[chain.as_ref(), head]);
    let mut check = [0; 8];
    check.copy_from_slice(&hash.0[..8]);
    check
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4)?.try_into().ok().map(u32::from_le_bytes)
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..at + 8)?.try_into().ok().map(u64::from_le_bytes)
}

fn hash_at(bytes: &[u8], at: usize) -> Option<Hash> {
    Hash::try_from(bytes.get(at..at + Hash::LEN)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_sort_as_numbers_do() {
        assert_eq!(name(Sequence(7)), "00000000000000000007.segment");
        assert_eq!(first_of(&name(Sequence(u64::MAX))), Some(Sequence(u64::MAX)));
        for other in
            ["7.segment", "reserve", "00000000000000000007.segment.damaged", "+0000000000000000007.segment"]
        {
            assert_eq!(first_of(other), None, "{other}");
        }
    }

    #[test]
    fn the_last_frame_of_a_group_ends_its_sector() {
        for (at, event, last, bytes) in [
            (8192, 0, false, 128),
            (8192, 1, false, 136),
            (8192, 1, true, 512),
            (8320, 1, true, 384),
            (8192, 385, true, 1024),
        ] {
            assert_eq!(frame_bytes(at, event, last), bytes);
        }
        assert!(frame_bytes(8200, limits::EVENT_BYTES_MAX, true) <= FRAME_BYTES_MAX);
    }
}
