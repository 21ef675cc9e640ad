//! The double-sign guard: no two votes of one height, round and step, whatever happens to process or machine.
//!
//! A vote is signed, written with its signature into the guard's file, and made durable (fdatasync); only then is the
//! signature released. Slots rise: below the highest one nothing new is signed, and what was signed before is answered
//! from memory with the same bytes.
//!
//! The file is preallocated: a header, then [`PLACES`] places that are written in turn. A place that was being written
//! when the power failed is the next one in turn and was never released, so it is ignored. Damage anywhere else means
//! that released votes may be forgotten: then nothing is signed any more.

mod file;
mod record;

pub use file::{DiskFile, GuardFile};
pub use record::{GuardHeader, HEADER_BYTES, PLACE_BYTES, PLACES, Record};

use record::place_offset;
use std::collections::VecDeque;
use std::io;
use zixt_hsm_protocol::{VoteOutcome, VoteRefusal, VoteSlot};
use zixt_types::{Canonical, Hash, Vote};

/// Length of the guard's file.
pub const FILE_BYTES: u64 = HEADER_BYTES as u64 + (PLACES * PLACE_BYTES) as u64;

/// Why a guard could not be opened. Votes may have been signed that it does not know.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The file cannot be read.
    #[error("the vote guard cannot be read")]
    Io(#[from] io::Error),
    /// The file is not a guard's.
    #[error("the vote guard's header is damaged")]
    Header,
    /// The file is the guard of another consensus key.
    #[error("the vote guard belongs to another consensus key")]
    OtherKey,
    /// Votes that were released cannot be read any more.
    #[error("the vote guard is damaged at place {place}: released votes may be forgotten")]
    Damaged {
        /// The first damaged place.
        place: usize,
    },
}

/// Why a vote was not signed though its slot was free.
#[derive(Debug, thiserror::Error)]
pub enum VoteError {
    /// The guard could not be written. It signs nothing more until the daemon was restarted.
    #[error("the vote guard could not be written")]
    Storage(#[source] io::Error),
    /// An earlier write failed.
    #[error("the vote guard could not be written before; restart zixt-hsmd")]
    Stopped,
    /// The key did not sign.
    #[error("the consensus key did not sign")]
    Sign(#[source] zixt_crypto::SignError),
    /// The vote or its signature does not fit into a place.
    #[error("the vote is too long for the guard")]
    TooLong,
}

/// The guard of one consensus key.
#[derive(Debug)]
pub struct VoteGuard<F> {
    file: F,
    /// The newest records, oldest first; slots rise strictly.
    signed: VecDeque<Record>,
    next_number: u64,
    stopped: bool,
}

/// What `create` writes: a header and empty places, so that no later write changes the file's length.
#[must_use]
pub fn empty_file(key: Hash) -> Vec<u8> {
    let mut bytes = GuardHeader { key }.to_bytes().to_vec();
    bytes.resize(HEADER_BYTES + PLACES * PLACE_BYTES, 0);
    bytes
}

impl<F: GuardFile> VoteGuard<F> {
    /// Reads the guard of a key.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn open(file: F, key: Hash) -> Result<Self, OpenError> {
        let mut header = [0; HEADER_BYTES];
        file.read_at(&mut header, 0)?;
        let header = GuardHeader::parse(&header).ok_or(OpenError::Header)?;
        if header.key != key {
            return Err(OpenError::OtherKey);
        }
        let mut places = Vec::with_capacity(PLACES);
        let mut bytes = vec![0; PLACE_BYTES];
        for place in 0..PLACES {
            file.read_at(&mut bytes, place_offset(place))?;
            places.push(record::read(&bytes));
        }
        let signed = in_order(places)?;
        let next_number = signed.back().map_or(0, |last| last.number + 1);
        Ok(Self { file, signed, next_number, stopped: false })
    }

    /// The highest slot that was signed.
    #[must_use]
    pub fn highest(&self) -> Option<VoteSlot> {
        self.signed.back().map(|record| slot(&record.vote))
    }

    /// Signs a vote if its slot allows it. `sign` is called at most once, and its result is released only when the
    /// vote is durable.
    ///
    /// # Errors
    /// See [`VoteError`]; nothing was released.
    pub fn vote(
        &mut self,
        vote: &Vote,
        sign: impl FnOnce(&Vote) -> Result<Vec<u8>, zixt_crypto::SignError>,
    ) -> Result<VoteOutcome, VoteError> {
        if self.stopped {
            return Err(VoteError::Stopped);
        }
        let wanted = slot(vote);
        if let Some(highest) = self.highest().filter(|highest| wanted <= *highest) {
            return Ok(match self.signed.iter().rev().find(|record| slot(&record.vote) == wanted) {
                Some(record) if record.vote == *vote => {
                    VoteOutcome::Signed { signature: record.signature.clone() }
                }
                Some(record) => VoteOutcome::AlreadySigned {
                    vote: record.vote.to_bytes(),
                    signature: record.signature.clone(),
                },
                None => VoteOutcome::Refused(VoteRefusal::BelowHighest { highest }),
            });
        }
        let signature = sign(vote).map_err(VoteError::Sign)?;
        let record = Record { number: self.next_number, vote: vote.clone(), signature: signature.clone() };
        let bytes = record.to_bytes().ok_or(VoteError::TooLong)?;
        // Nobody can say what a failed write or sync left on the disk, so there is no second one.
        if let Err(error) =
            self.file.write_at(&bytes, place_offset(record.place())).and_then(|()| self.file.sync())
        {
            self.stopped = true;
            return Err(VoteError::Storage(error));
        }
        // The point of no return: from here on the vote is signed for ever.
        self.next_number += 1;
        if self.signed.len() == PLACES {
            self.signed.pop_front();
        }
        self.signed.push_back(record);
        Ok(VoteOutcome::Signed { signature })
    }
}

fn slot(vote: &Vote) -> VoteSlot {
    VoteSlot { height: vote.height, round: vote.round, step: vote.step }
}

/// The records from oldest to newest, if nothing but the place next in turn is unreadable.
fn in_order(places: Vec<record::Place>) -> Result<VecDeque<Record>, OpenError> {
    use record::Place;
    let newest = places.iter().filter_map(|place| match place {
        Place::Full(record) => Some(record.number),
        _ => None,
    });
    let Some(newest) = newest.max() else {
        // Nothing was released yet; the first place may be torn.
        let damaged = places.iter().skip(1).position(|place| !matches!(place, Place::Empty));
        return damaged.map_or(Ok(VecDeque::new()), |at| Err(OpenError::Damaged { place: at + 1 }));
    };
    let next_in_turn = record::place(newest + 1);
    let mut signed = VecDeque::with_capacity(PLACES);
    for (at, place) in places.into_iter().enumerate() {
        // The number that this place must hold if `newest` was the last to be written.
        let behind = (record::place(newest) + PLACES - at) % PLACES;
        let expected = newest.checked_sub(behind as u64);
        match (place, expected) {
            (Place::Full(record), Some(expected)) if record.number == expected => signed.push_back(record),
            (Place::Empty, None) => {}
            // Torn, or (under a filesystem that writes late) still the one before: never released.
            (Place::Torn, _) if at == next_in_turn => {}
            _ => return Err(OpenError::Damaged { place: at }),
        }
    }
    signed.make_contiguous().sort_unstable_by_key(|record| record.number);
    let rises = signed.iter().zip(signed.iter().skip(1)).all(|(a, b)| slot(&a.vote) < slot(&b.vote));
    if rises { Ok(signed) } else { Err(OpenError::Damaged { place: next_in_turn }) }
}

#[cfg(test)]
mod tests;
