//! The double-sign guard: no two votes of one height, round and step, whatever happens to process or machine.
//!
//! A vote is signed, written with its signature into the guard's file, and made durable (fdatasync); only then is the
//! signature released. Slots rise: below the highest one nothing new is signed, and what was signed before is answered
//! from memory with the same bytes.
//!
//! The file is preallocated: a header, then two regions of [`PLACES`] places that are written in turn. Each record
//! stands in both regions and carries a MAC whose key the token seals. One fdatasync makes both copies durable.
//!
//! What `open` makes of a place:
//! - One good copy is enough; of two the higher number counts (the lower one is what stood there 64 votes before). The
//!   record may have been released or not. It counts as signed either way, which is always safe, and the other copy is
//!   written again from it.
//! - No good copy in the place next in turn: the power failed while it was written, before the one fdatasync that
//!   precedes a release, so it was never released and is ignored. (The newest record looks the same if *both* its
//!   copies decay, in two places of the disk, before a next one was written. Nothing on one disk tells these apart
//!   without a second fdatasync for each vote; a sole bad spot is always found.)
//! - No good copy anywhere else: released votes may be forgotten. Nothing is signed any more.
//!
//! The newest record may stand in the page cache alone, because the process before this one was killed between write
//! and fdatasync. So `open` writes it again and makes it durable before anybody can ask for its signature.
//!
//! Where one appliance's precommit decides a height ([`Quorum::Alone`]), two precommits for two headers of one height are
//! two certificates, also in two rounds. There the guard signs precommits for one header of a height only. Among several
//! validators a later round may rightly decide another header; the engine's locks keep that safe.
//!
//! The MAC stops forged records. It does not stop somebody who puts back a whole older file: that takes a counter which
//! the disk's owner cannot set back.

mod file;
mod record;

pub use file::{DiskFile, GuardFile};
pub use record::{COPIES, GuardKey, HEADER_BYTES, MAC_KEY_BYTES, PLACE_BYTES, PLACES, Record};

use record::{Place, place_offset};
use std::collections::VecDeque;
use std::io;
use zixt_hsm_protocol::{SignedPrecommit, VoteOutcome, VoteRefusal, VoteSlot};
use zixt_types::{Canonical, Vote, VoteStep};

/// Length of the guard's file.
pub const FILE_BYTES: u64 = HEADER_BYTES as u64 + (COPIES * PLACES * PLACE_BYTES) as u64;

/// Why a guard could not be opened. Votes may have been signed that it does not know.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The file cannot be read.
    #[error("the vote guard cannot be read")]
    Io(#[from] io::Error),
    /// The file is not a guard's.
    #[error("the vote guard's header is damaged, or not of this token's making")]
    Header,
    /// The file is the guard of another custody, or of one before officers decided.
    #[error(
        "the vote guard belongs to another custody, or to the time before the consensus key was recovered"
    )]
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

/// How much our own vote weighs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Quorum {
    /// We have more than two thirds of all stake: our precommit is a certificate.
    Alone,
    /// It takes others.
    Shared,
}

/// The guard of one custody. It goes on when the consensus key is rotated: whatever the key, a slot has one vote.
#[derive(Debug)]
pub struct VoteGuard<F> {
    file: F,
    key: GuardKey,
    quorum: Quorum,
    /// The newest records, oldest first; slots rise strictly.
    signed: VecDeque<Record>,
    next_number: u64,
    stopped: bool,
}

/// What `create` writes: a header and empty places, so that no later write changes the file's length.
#[must_use]
pub fn empty_file(key: &GuardKey) -> Vec<u8> {
    let mut bytes = key.header().to_vec();
    bytes.resize(HEADER_BYTES + COPIES * PLACES * PLACE_BYTES, 0);
    bytes
}

impl<F: GuardFile> VoteGuard<F> {
    /// Reads the guard of a custody, mends copies, and makes the newest record durable.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn open(mut file: F, key: GuardKey, quorum: Quorum) -> Result<Self, OpenError> {
        let mut header = [0; HEADER_BYTES];
        file.read_at(&mut header, 0)?;
        if header != key.header() {
            return Err(if key.is_foreign(&header) { OpenError::OtherKey } else { OpenError::Header });
        }
        let places = (0..PLACES).map(|place| Copies::read(&file, &key, place));
        let places = places.collect::<io::Result<Vec<_>>>()?;
        let signed = in_order(places.iter().map(|copies| copies.counts.clone()).collect())?;
        settle(&mut file, &key, &places, signed.back())?;
        let next_number = signed.back().map_or(0, |last| last.number + 1);
        Ok(Self { file, key, quorum, signed, next_number, stopped: false })
    }

    /// The highest slot that was signed.
    #[must_use]
    pub fn highest(&self) -> Option<VoteSlot> {
        self.signed.back().map(|record| slot(&record.vote))
    }

    /// Votes that were signed so far.
    #[must_use]
    pub const fn votes(&self) -> u64 {
        self.next_number
    }

    /// The newest precommit for a header that was signed.
    #[must_use]
    pub fn precommit(&self) -> Option<SignedPrecommit> {
        self.signed.back().and_then(|record| record.precommit)
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
        let precommit = precommit(vote);
        if let (Quorum::Alone, Some(signed), Some(wanted)) = (self.quorum, self.precommit(), precommit)
            && signed.height == wanted.height
            && signed.header != wanted.header
        {
            return Ok(VoteOutcome::Refused(VoteRefusal::OtherHeader { signed }));
        }
        let signature = sign(vote).map_err(VoteError::Sign)?;
        let record = Record {
            number: self.next_number,
            precommit: precommit.or(self.precommit()),
            vote: vote.clone(),
            signature: signature.clone(),
        };
        let bytes = record.to_bytes(&self.key).ok_or(VoteError::TooLong)?;
        // Nobody can say what a failed write or sync left on the disk, so there is no second one in this process.
        let written = (0..COPIES)
            .try_for_each(|copy| self.file.write_at(&bytes, place_offset(copy, record.place())))
            .and_then(|()| self.file.sync());
        if let Err(error) = written {
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

/// The copies of one place.
struct Copies {
    /// What the place holds, taken together.
    counts: Place,
    /// The copies that do not hold it.
    bad: Vec<usize>,
}

impl Copies {
    fn read(file: &impl GuardFile, key: &GuardKey, place: usize) -> io::Result<Self> {
        let mut bytes = vec![0; PLACE_BYTES];
        let mut unreadable = None;
        let mut copies = Vec::with_capacity(COPIES);
        for copy in 0..COPIES {
            copies.push(match file.read_at(&mut bytes, place_offset(copy, place)) {
                Ok(()) => record::read(&bytes, key),
                // A file of another length is no guard, whatever its first copies say.
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Err(error),
                // A bad spot of the disk is what the other copy is for.
                Err(error) => {
                    unreadable = Some(error);
                    Place::Torn
                }
            });
        }
        let counts = copies.iter().max_by_key(|copy| match copy {
            Place::Full(record) => (2, record.number),
            Place::Torn => (1, 0),
            Place::Empty => (0, 0),
        });
        let counts = counts.cloned().unwrap_or(Place::Torn);
        match (&counts, unreadable) {
            (Place::Full(_), _) | (_, None) => {}
            (_, Some(error)) => return Err(error),
        }
        let bad = (0..COPIES).filter(|copy| copies[*copy] != counts).collect();
        Ok(Self { counts, bad })
    }
}

/// Writes bad copies again from good ones and makes the newest record durable, in an order that leaves one durable good
/// copy of every released record at any moment.
fn settle(
    file: &mut impl GuardFile,
    key: &GuardKey,
    places: &[Copies],
    newest: Option<&Record>,
) -> Result<(), OpenError> {
    let Some(newest) = newest else { return Ok(()) };
    let again = |file: &mut dyn GuardFile, record: &Record, copy: usize| match record.to_bytes(key) {
        Some(bytes) => file.write_at(&bytes, place_offset(copy, record.place())),
        // It was read from a place of this length.
        None => Err(io::ErrorKind::InvalidData.into()),
    };
    for copies in places {
        if let (Place::Full(record), false) = (&copies.counts, copies.bad.is_empty()) {
            log::warn!("mending the guard's record of {} from its other copy", slot(&record.vote));
            for copy in &copies.bad {
                again(file, record, *copy)?;
            }
        }
    }
    file.sync()?;
    for copy in 0..COPIES {
        again(file, newest, copy)?;
        file.sync()?;
    }
    Ok(())
}

fn slot(vote: &Vote) -> VoteSlot {
    VoteSlot { height: vote.height, round: vote.round, step: vote.step }
}

fn precommit(vote: &Vote) -> Option<SignedPrecommit> {
    let header = vote.header.filter(|_| vote.step == VoteStep::Precommit)?;
    Some(SignedPrecommit { height: vote.height, round: vote.round, header })
}

/// The records from oldest to newest, if nothing but the place next in turn is unreadable.
fn in_order(places: Vec<Place>) -> Result<VecDeque<Record>, OpenError> {
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
            (Place::Full(record), Some(expected)) if record.number == expected => signed.push_back(*record),
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
