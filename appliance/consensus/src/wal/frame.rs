//! How records lie in the file. The file is recycled: a new height overwrites the old one from the first block on,
//! because writing over blocks that exist costs no metadata in fdatasync. So the rest of an older height may follow
//! the newest frame at any time, and a frame must tell where it belongs.
//!
//! ```text
//! block 0     "ZIXT-WAL" | version u32 | crc32c u32 | salt u64            written once, when the file is made
//! block 1..   frame frame frame .. (pad to 4 KiB after a sync) frame ..
//! frame       magic u32 | crc32c u32 | prev u32 | length u32 | generation u64 | height u64 | seq u32 | durable u32 | body
//! ```
//! All little-endian; a frame starts at a multiple of 8. `crc32c` covers salt, the rest of the head, and the body;
//! `prev` is the checksum of the frame before, so that a frame of an earlier process that lies in the right place is
//! not taken for the next one. The salt is random, so that nobody can smuggle a frame in through a batch's bytes.
//! `durable` is the number of frames of this generation that were known to be on the disk when this one was written:
//! it tells a torn tail (never promised, cut off) from damage (promised, an error).
//! After a sync the next frame starts a new block: a torn write must not reach what was promised.

use super::crc32c::crc32c;
use core::ops::Range;

/// Where frames begin; also the unit of padding: no disk tears a write inside one sector, and no sector is larger.
pub(super) const BLOCK_BYTES: usize = 4096;
pub(super) const HEAD_BYTES: usize = 40;
const MAGIC: u32 = u32::from_le_bytes(*b"ZWL1");
const FILE_MAGIC: &[u8; 8] = b"ZIXT-WAL";
const FILE_VERSION: u32 = 1;

/// What stands in front of a body.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Head {
    pub generation: u64,
    pub height: u64,
    pub seq: u32,
    pub durable: u32,
    pub prev: u32,
}

/// A frame that checks out.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Frame {
    pub head: Head,
    pub crc: u32,
    pub body: Range<usize>,
}

/// What a file holds.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Scan {
    /// The newest generation that left any trace; 0 in a new file.
    pub generation: u64,
    /// Its height.
    pub height: u64,
    /// Its frames, from the first, without a gap.
    pub frames: Vec<Frame>,
    /// Number of frames of that generation that had been promised but are not among `frames`' count.
    pub promised: u32,
}

/// The first block of a new file.
pub(super) fn superblock(salt: u64) -> Vec<u8> {
    let mut block = Vec::with_capacity(BLOCK_BYTES);
    block.extend_from_slice(FILE_MAGIC);
    block.extend_from_slice(&FILE_VERSION.to_le_bytes());
    block.extend_from_slice(&superblock_crc(salt).to_le_bytes());
    block.extend_from_slice(&salt.to_le_bytes());
    block.resize(BLOCK_BYTES, 0);
    block
}

/// The salt of a file, `None` if its first block is not ours.
pub(super) fn read_superblock(file: &[u8]) -> Option<u64> {
    let salt = u64_at(file, 16)?;
    let ours = file.get(..8)? == FILE_MAGIC
        && u32_at(file, 8)? == FILE_VERSION
        && u32_at(file, 12)? == superblock_crc(salt);
    ours.then_some(salt)
}

fn superblock_crc(salt: u64) -> u32 {
    let crc = crc32c(0, FILE_MAGIC);
    crc32c(crc32c(crc, &FILE_VERSION.to_le_bytes()), &salt.to_le_bytes())
}

/// Writes a frame to the end of `out` and returns its checksum. The caller bounds the body below 4 GiB.
pub(super) fn encode(out: &mut Vec<u8>, salt: u64, head: Head, body: &[&[u8]]) -> u32 {
    let start = out.len();
    let length: usize = body.iter().map(|part| part.len()).sum();
    out.reserve(HEAD_BYTES + length + 8);
    out.extend_from_slice(&MAGIC.to_le_bytes());
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&head.prev.to_le_bytes());
    out.extend_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_le_bytes());
    out.extend_from_slice(&head.generation.to_le_bytes());
    out.extend_from_slice(&head.height.to_le_bytes());
    out.extend_from_slice(&head.seq.to_le_bytes());
    out.extend_from_slice(&head.durable.to_le_bytes());
    for part in body {
        out.extend_from_slice(part);
    }
    let crc = crc32c(crc32c(0, &salt.to_le_bytes()), &out[start + 8..]);
    out[start + 4..start + 8].copy_from_slice(&crc.to_le_bytes());
    out.resize(start + aligned(out.len() - start, 8), 0);
    crc
}

/// The frame at `at`, if one stands there whole.
pub(super) fn decode(file: &[u8], salt: u64, at: usize) -> Option<Frame> {
    if u32_at(file, at)? != MAGIC {
        return None;
    }
    let crc = u32_at(file, at + 4)?;
    let body_at = at + HEAD_BYTES;
    let body = body_at..body_at.checked_add(usize::try_from(u32_at(file, at + 12)?).ok()?)?;
    let covered = file.get(at + 8..body.end)?;
    if crc32c(crc32c(0, &salt.to_le_bytes()), covered) != crc {
        return None;
    }
    let head = Head {
        prev: u32_at(file, at + 8)?,
        generation: u64_at(file, at + 16)?,
        height: u64_at(file, at + 24)?,
        seq: u32_at(file, at + 32)?,
        durable: u32_at(file, at + 36)?,
    };
    Some(Frame { head, crc, body })
}

/// Reads a whole file behind its first block. Never fails: what is promised and missing is told in the result.
pub(super) fn scan(file: &[u8], salt: u64) -> Scan {
    let mut scan = Scan::default();
    let mut at = BLOCK_BYTES;
    let mut prev = 0;
    while let Some(frame) = next_frame(file, salt, at, &scan, prev) {
        if scan.frames.is_empty() {
            scan.generation = frame.head.generation;
            scan.height = frame.head.height;
        }
        at = aligned(frame.body.end, 8);
        prev = frame.crc;
        scan.promised = scan.promised.max(frame.head.durable);
        scan.frames.push(frame);
    }
    // Behind the chain: an older height, a torn tail, or what follows a damaged frame.
    while at + HEAD_BYTES <= file.len() {
        let Some(frame) = decode(file, salt, at) else {
            at += 8;
            continue;
        };
        at = aligned(frame.body.end, 8);
        let Head { generation, height, durable, .. } = frame.head;
        if generation > scan.generation {
            // A newer height had begun, and its first frame is gone: it overwrote the start of this chain.
            scan = Scan { generation, height, frames: Vec::new(), promised: durable };
        } else if generation == scan.generation {
            scan.promised = scan.promised.max(durable);
        }
    }
    scan
}

/// The frame that continues the chain at `at`, or at the next block if a sync came between.
fn next_frame(file: &[u8], salt: u64, at: usize, chain: &Scan, prev: u32) -> Option<Frame> {
    let fits = |frame: &Frame| {
        frame.head.prev == prev
            && usize::try_from(frame.head.seq) == Ok(chain.frames.len())
            && (chain.frames.is_empty()
                || (frame.head.generation == chain.generation && frame.head.height == chain.height))
    };
    decode(file, salt, at).filter(fits).or_else(|| decode(file, salt, aligned(at, BLOCK_BYTES)).filter(fits))
}

/// `at` rounded up to a multiple of `unit`.
pub(super) const fn aligned(at: usize, unit: usize) -> usize {
    at.div_ceil(unit) * unit
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at.checked_add(4)?)?.try_into().ok().map(u32::from_le_bytes)
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..at.checked_add(8)?)?.try_into().ok().map(u64::from_le_bytes)
}
