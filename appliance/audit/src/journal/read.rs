//! Reading a journal while it grows. A reader holds no more than one record.

use super::{Segment, Shared, lock};
use crate::segment::{FRAMES_AT, FrameError, Marks, read_frame};
use crate::{Head, Record, Sequence};
use core::fmt;
use std::io;
use std::sync::Arc;

/// What a reader finds next.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Read {
    /// A record. Its hash and its link to the record before in the same segment were checked.
    Record(Record),
    /// Records that are not there.
    Gap(Gap),
}

/// Records that are not there.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Gap {
    /// The first one.
    pub first: Sequence,
    /// The last one.
    pub last: Sequence,
    /// Why.
    pub reason: GapReason,
}

/// Why records are not there.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum GapReason {
    /// Their segments were removed by a rule of retention.
    Removed,
    /// They were set aside by an officer, because they were damaged.
    SetAside,
    /// They cannot be read. For people.
    Damaged(String),
}

impl fmt::Display for GapReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Removed => f.write_str("they were removed after the ledger had anchored them"),
            Self::SetAside => f.write_str("they were damaged and set aside"),
            Self::Damaged(why) => write!(f, "they are damaged: {why}"),
        }
    }
}

/// Reads records in order.
pub struct Reader {
    shared: Arc<Shared>,
    next: Sequence,
    at: Option<Position>,
}

struct Position {
    segment: Segment,
    offset: u64,
    /// The record before the offset.
    head: Head,
}

impl Position {
    fn start(segment: Segment) -> Self {
        Self { offset: FRAMES_AT, head: segment.header.before(), segment }
    }
}

impl Reader {
    pub(super) fn new(shared: Arc<Shared>, from: Sequence) -> Self {
        Self { shared, next: from.max(Sequence(1)), at: None }
    }

    /// The record that it reads next.
    #[must_use]
    pub fn position(&self) -> Sequence {
        self.next
    }

    /// Goes back or forward.
    pub fn seek(&mut self, next: Sequence) {
        *self = Self::new(Arc::clone(&self.shared), next);
    }

    /// The next record or gap; `None` if there is nothing more yet.
    ///
    /// # Errors
    /// What the operating system says. Damage is a gap.
    pub fn read_next(&mut self) -> io::Result<Option<Read>> {
        loop {
            let (head, segments) = {
                let view = lock(&self.shared.view);
                if self.next > view.head.sequence {
                    return Ok(None);
                }
                (view.head, self.near(&view.segments))
            };
            let (mut at, following) = match (self.at.take(), segments) {
                (Some(at), (_, following)) => (at, following),
                (None, (Some(segment), following)) => (Position::start(segment), following),
                (None, (None, following)) => {
                    let end = following.map_or(head.sequence, |segment| segment.header.first.before());
                    return Ok(Some(self.gap(end, GapReason::Removed)));
                }
            };
            if let Some(following) = following.as_ref().filter(|next| next.header.before() == at.head) {
                let first = following.header.first;
                self.at = Some(Position::start(following.clone()));
                if self.next < first {
                    let at = self.at.take();
                    let gap = self.gap(first.before(), GapReason::SetAside);
                    self.at = at;
                    return Ok(Some(gap));
                }
                continue;
            }
            match self.frame(&mut at) {
                Ok(record) if record.sequence < self.next => self.at = Some(at),
                Ok(record) => {
                    self.next = record.sequence.next();
                    self.at = Some(at);
                    return Ok(Some(Read::Record(record)));
                }
                Err(FrameError::Io(error)) => {
                    self.at = Some(at);
                    return Err(error);
                }
                Err(FrameError::Broken(why)) => {
                    let end = following.map_or(head.sequence, |segment| segment.header.first.before());
                    let reason = self.reason(&at, why)?;
                    return Ok(Some(self.gap(end, reason)));
                }
            }
        }
    }

    /// The segment that may hold the next record, and the one behind the segment that is being read.
    fn near(&self, segments: &[Segment]) -> (Option<Segment>, Option<Segment>) {
        let holds = segments.iter().rev().find(|segment| segment.header.first <= self.next);
        let current = self.at.as_ref().map(|at| &at.segment).or(holds);
        let behind = current.map_or(Sequence(0), |segment| segment.header.first);
        (holds.cloned(), segments.iter().find(|segment| segment.header.first > behind).cloned())
    }

    fn frame(&self, at: &mut Position) -> Result<Record, FrameError> {
        let header = &at.segment.header;
        let frame = read_frame(&*at.segment.file, self.shared.chain, at.offset, header.size)?;
        let expected = if at.offset == FRAMES_AT { header.first } else { at.head.sequence.next() };
        if frame.record.sequence != expected || frame.record.prev != at.head.hash {
            return Err(FrameError::Broken(format!("record {expected} does not follow the one before it")));
        }
        at.offset = frame.next;
        at.head = frame.record.head();
        Ok(frame.record)
    }

    /// Why nothing can be read at a place before the head.
    fn reason(&self, at: &Position, why: String) -> io::Result<GapReason> {
        let here = |segment: &Segment| segment.name == at.segment.name;
        if !lock(&self.shared.view).segments.iter().any(here) {
            return Ok(GapReason::Removed);
        }
        let mark = Marks::read(&*at.segment.file, &at.segment.header)?.newest;
        let whole = mark.is_some_and(|mark| mark.sealed && mark.end == at.offset);
        Ok(if whole { GapReason::SetAside } else { GapReason::Damaged(why) })
    }

    fn gap(&mut self, last: Sequence, reason: GapReason) -> Read {
        let first = self.next;
        self.next = last.next();
        self.at = None;
        Read::Gap(Gap { first, last, reason })
    }
}
