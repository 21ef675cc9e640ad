//! What can go wrong with a journal, for the person who reads it.

use crate::{Head, Sequence};
use core::fmt;
use std::io;
use std::time::Duration;
use thiserror::Error;
use zixt_types::Hash;

/// Why an event was not recorded. The caller refuses the action.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum AppendError {
    /// The disk is full. What is left is reserved for those who can change that.
    #[error(
        "the disk is full; what is left of the audit journal is reserved for officers and administrators"
    )]
    Reserved,
    /// The disk is full, and the reserve is used up.
    #[error("the disk is full and the audit journal's reserve is used up")]
    Full,
    /// Too many events wait already.
    #[error("the audit journal had no room for another waiting event within {} ms", .0.as_millis())]
    Busy(Duration),
    /// It was not durable in time. If it is written all the same, the journal says that nobody waited for it.
    #[error("the event was not durable in the audit journal within {} ms", .0.as_millis())]
    Timeout(Duration),
    /// The disk failed. Nothing is recorded any more until the appliance is started again.
    #[error("the audit journal failed and records nothing until it is opened again: {0}")]
    Failed(String),
    /// The journal is being closed.
    #[error("the audit journal is closed")]
    Closed,
}

/// Why a journal was not opened.
#[derive(Debug, Error)]
pub enum OpenError {
    /// The settings cannot be used.
    #[error("a segment of {got} bytes; {min} to {max} are allowed, in steps of 4096")]
    SegmentBytes {
        /// What was asked for.
        got: u64,
        /// The smallest.
        min: u64,
        /// The largest.
        max: u64,
    },
    /// The operating system said no.
    #[error("the audit journal cannot be {doing}: {source}")]
    Io {
        /// What was being done.
        doing: &'static str,
        /// What the operating system said.
        source: io::Error,
    },
    /// Something that was acknowledged is not there any more. Nothing was changed; an officer may have it set aside.
    #[error("the audit journal is damaged: {0}")]
    Damaged(Box<Damage>),
}

/// Something that should be in the journal and is not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// The file, or the one that should follow.
    pub file: String,
    /// What is wrong with it.
    pub fault: Fault,
}

/// What is wrong with a file of the journal.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Fault {
    /// Its header.
    #[error("{0}")]
    Header(String),
    /// It belongs to another chain.
    #[error("it belongs to another journal: chain {got}, expected {expected}")]
    OtherChain {
        /// The chain of the others.
        expected: Hash,
        /// Its chain.
        got: Hash,
    },
    /// Neither of its marks can be read.
    #[error("both of its marks are damaged, so nobody knows what was acknowledged")]
    Marks,
    /// A record that was acknowledged.
    #[error("record {sequence}, which was acknowledged, cannot be read: {why}")]
    Record {
        /// The record.
        sequence: Sequence,
        /// Why.
        why: String,
    },
    /// A record that does not follow the one before.
    #[error("record {0} does not follow the record before it")]
    NotLinked(Sequence),
    /// Its records do not lead to what its mark says.
    #[error("its records do not lead to record {0}, which its mark says was acknowledged")]
    OtherEnd(Sequence),
    /// It should have been closed, because another one follows.
    #[error("another segment follows, but this one was never closed")]
    NotSealed,
    /// Records between two segments are missing, or in front of the first one although the ledger never got them.
    #[error("records {first} to {last} are missing in front of it")]
    Missing {
        /// The first one.
        first: Sequence,
        /// The last one.
        last: Sequence,
    },
    /// The journal ends before a record that the ledger is known to hold.
    #[error(
        "the journal ends with record {last}, but the ledger anchored record {anchored}: its end was cut off"
    )]
    CutOff {
        /// The last record.
        last: Sequence,
        /// The one that was anchored.
        anchored: Sequence,
    },
    /// It was set aside, but the journal was not continued behind it.
    #[error("it was set aside, but the journal was not continued behind it; set the damage aside once more")]
    NotContinued,
    /// It does not continue the segment before.
    #[error("it does not continue the segment before, which ends with record {0}")]
    NotNext(Sequence),
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.file, self.fault)
    }
}

/// Why a head that the ledger holds was not taken.
#[derive(Debug, Error)]
pub enum AnchorError {
    /// The journal ends before it: it was set back, or its end was cut off.
    #[error(
        "the ledger anchored record {} of the audit journal, which ends at {}: it was set back", .anchored.sequence, .ours.sequence
    )]
    SetBack {
        /// What the ledger holds.
        anchored: Head,
        /// Where the journal ends.
        ours: Head,
    },
    /// The record has another hash here.
    #[error("record {} of the audit journal is not the one that the ledger anchored", .0.sequence)]
    OtherRecord(Head),
    /// It is in a part that was removed or is damaged, and not known as anchored.
    #[error("record {} of the audit journal is not here any more, so that it cannot be compared", .0.sequence)]
    NotHere(Head),
    /// The operating system said no.
    #[error("the anchor of the audit journal cannot be kept: {0}")]
    Io(#[from] io::Error),
}

/// Why segments were not removed.
#[derive(Debug, Error)]
pub enum RemoveError {
    /// The removal could not be recorded.
    #[error("no segment was removed, because that could not be recorded: {0}")]
    Append(#[from] AppendError),
    /// The operating system said no. Those in front of it are removed.
    #[error("segment {name} cannot be removed: {source}")]
    Io {
        /// The segment.
        name: String,
        /// What the operating system said.
        source: io::Error,
    },
}
