//! Records, their chain, and what of it the ledger anchors.

use crate::Event;
use core::fmt;
use minicbor::{Decode, Encode};
use thiserror::Error;
use zixt_crypto::hash::sha384;
use zixt_crypto::labels;
use zixt_types::{Canonical, Hash, ParseError};

/// The place of a record in its journal, from 1. It only grows; where damage was set aside, it jumps.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Encode, Decode)]
#[cbor(transparent)]
pub struct Sequence(#[n(0)] pub u64);

impl Sequence {
    /// The next one; saturates at the type's end, which no journal reaches.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }

    /// The one before; 0 has none and stays.
    #[must_use]
    pub const fn before(self) -> Self {
        Self(self.0.saturating_sub(1))
    }
}

impl fmt::Display for Sequence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The last record of a journal, or of a part of one. Sequence 0 stands for no record yet; its hash is the chain's name.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Encode, Decode)]
#[cbor(array)]
pub struct Head {
    /// Its place.
    #[n(0)]
    pub sequence: Sequence,
    /// Its hash.
    #[n(1)]
    pub hash: Hash,
}

impl Head {
    /// The head of a chain that has no record yet.
    #[must_use]
    pub const fn start(chain: Hash) -> Self {
        Self { sequence: Sequence(0), hash: chain }
    }
}

/// The name of a chain, from 32 random bytes: the hash that its first record follows.
#[must_use]
pub fn chain_name(random: &[u8; 32]) -> Hash {
    sha384(labels::AUDIT_CHAIN, &[random])
}

/// One record as it is chained. The event stays in its bytes: the chain holds for events of newer versions too.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Record {
    /// Its place.
    pub sequence: Sequence,
    /// Hash of the record before.
    pub prev: Hash,
    /// The event's bytes.
    pub event: Vec<u8>,
    /// Its own hash, as it was stored.
    pub hash: Hash,
}

impl Record {
    /// Puts an event behind `prev`.
    #[must_use]
    pub fn new(sequence: Sequence, prev: Hash, event: Vec<u8>) -> Self {
        let hash = record_hash(sequence, prev, &event);
        Self { sequence, prev, event, hash }
    }

    /// The hash that its content has: [`Self::hash`], unless it was changed.
    #[must_use]
    pub fn computed_hash(&self) -> Hash {
        record_hash(self.sequence, self.prev, &self.event)
    }

    /// The event.
    ///
    /// # Errors
    /// [`ParseError`], if a newer version wrote it.
    pub fn event(&self) -> Result<Event, ParseError> {
        Event::parse(&self.event)
    }

    /// The head of a journal that ends here.
    #[must_use]
    pub const fn head(&self) -> Head {
        Head { sequence: self.sequence, hash: self.hash }
    }
}

/// Hash of a record: place, hash of the record before, event.
#[must_use]
pub(crate) fn record_hash(sequence: Sequence, prev: Hash, event: &[u8]) -> Hash {
    sha384(labels::AUDIT, &[&sequence.0.to_be_bytes(), prev.as_ref(), event])
}

/// What one entry of the ledger says about a journal: these records lead to this head. Each root begins behind the one
/// before, so that the roots of a journal cover it without a gap.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Encode, Decode)]
#[cbor(array)]
pub struct AuditRoot {
    /// Format version: 1.
    #[n(0)]
    pub version: u64,
    /// The journal's chain.
    #[n(1)]
    pub chain: Hash,
    /// The first record that it covers.
    #[n(2)]
    pub first: Sequence,
    /// The last one.
    #[n(3)]
    pub last: Sequence,
    /// Hash of the last one.
    #[n(4)]
    pub head: Hash,
}

/// Why a root does not continue the one before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum RootError {
    /// It is about another journal.
    #[error("the root is of chain {got}, the one before of {expected}")]
    OtherChain {
        /// The chain so far.
        expected: Hash,
        /// The root's.
        got: Hash,
    },
    /// It leaves records out, or covers some again.
    #[error("the root begins at record {got}; {expected} would be next")]
    NotNext {
        /// The record that would be next.
        expected: Sequence,
        /// Where it begins.
        got: Sequence,
    },
}

/// Why records do not lead from one head to the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum LinkError {
    /// The content of a record does not have the hash that it says.
    #[error("record {0} was changed")]
    Changed(Sequence),
    /// A record is missing, or stands at another place.
    #[error("record {got} stands where {expected} should")]
    NotNext {
        /// The record that would be next.
        expected: Sequence,
        /// The one that stands there.
        got: Sequence,
    },
    /// A record does not follow the one before.
    #[error("record {0} does not follow the record before it")]
    NotLinked(Sequence),
    /// They lead to another head than the root's.
    #[error("the records end at {got}, the root at {expected}")]
    OtherEnd {
        /// The root's last record.
        expected: Sequence,
        /// The last one that was given.
        got: Sequence,
    },
    /// They lead to the place, but not to the hash.
    #[error("record {0} has another hash than the ledger anchored")]
    OtherHead(Sequence),
}

impl AuditRoot {
    /// The format version that this program writes.
    pub const VERSION: u64 = 1;

    /// What it anchors.
    #[must_use]
    pub const fn anchored(&self) -> Head {
        Head { sequence: self.last, hash: self.head }
    }

    /// Checks that it begins where `before` ends; `None` if it is the first of its journal.
    ///
    /// # Errors
    /// See [`RootError`].
    pub fn follows(&self, before: Option<&Self>) -> Result<(), RootError> {
        if let Some(before) = before.filter(|before| before.chain != self.chain) {
            return Err(RootError::OtherChain { expected: before.chain, got: self.chain });
        }
        let expected = before.map_or(Sequence(1), |before| before.last.next());
        if self.first == expected { Ok(()) } else { Err(RootError::NotNext { expected, got: self.first }) }
    }

    /// Checks that `records` lead from the head `before`, which was anchored before, to this root. Every record has
    /// to be there: a gap that the journal itself declares (damage) is one here too.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn check_records(&self, before: Head, records: &[Record]) -> Result<(), LinkError> {
        let mut head = before;
        for record in records {
            if record.computed_hash() != record.hash {
                return Err(LinkError::Changed(record.sequence));
            }
            if record.sequence != head.sequence.next() {
                return Err(LinkError::NotNext { expected: head.sequence.next(), got: record.sequence });
            }
            if record.prev != head.hash {
                return Err(LinkError::NotLinked(record.sequence));
            }
            head = record.head();
        }
        if head.sequence != self.last {
            return Err(LinkError::OtherEnd { expected: self.last, got: head.sequence });
        }
        if head.hash == self.head { Ok(()) } else { Err(LinkError::OtherHead(self.last)) }
    }
}

impl Canonical for AuditRoot {
    const WHAT: &'static str = "audit root";
    const BYTES_MAX: usize = 160;
    const VERSION: Option<u64> = Some(Self::VERSION);

    fn check(&self) -> Result<(), &'static str> {
        if self.version != Self::VERSION {
            return Err("its version is not 1");
        }
        if self.first.0 == 0 || self.last < self.first {
            return Err("it covers no record");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chain(count: u64) -> (Hash, Vec<Record>) {
        let chain = chain_name(&[7; 32]);
        let mut head = Head::start(chain);
        let records = (1..=count).map(|number| {
            let record = Record::new(Sequence(number), head.hash, vec![number as u8]);
            head = record.head();
            record
        });
        (chain, records.collect())
    }

    fn root(chain: Hash, records: &[Record]) -> AuditRoot {
        let (first, last) = (records.first().unwrap(), records.last().unwrap());
        AuditRoot { version: 1, chain, first: first.sequence, last: last.sequence, head: last.hash }
    }

    #[test]
    fn roots_cover_a_journal_without_a_gap() {
        let (chain, records) = chain(9);
        let (one, two) = (root(chain, &records[..4]), root(chain, &records[4..]));
        assert_eq!(one.follows(None), Ok(()));
        assert_eq!(two.follows(Some(&one)), Ok(()));
        assert_eq!(two.follows(None), Err(RootError::NotNext { expected: Sequence(1), got: Sequence(5) }));
        let other = AuditRoot { chain: Hash([3; 48]), ..two };
        assert!(matches!(other.follows(Some(&one)), Err(RootError::OtherChain { .. })));
        assert_eq!(AuditRoot::parse(&one.to_bytes()), Ok(one));
        let none = AuditRoot { first: Sequence(5), last: Sequence(4), ..one };
        assert!(AuditRoot::parse(&none.to_bytes()).is_err());
    }

    #[test]
    fn records_lead_from_one_anchored_head_to_the_next() {
        let (chain, records) = chain(9);
        let (one, two) = (root(chain, &records[..4]), root(chain, &records[4..]));
        assert_eq!(one.check_records(Head::start(chain), &records[..4]), Ok(()));
        assert_eq!(two.check_records(one.anchored(), &records[4..]), Ok(()));

        let check = |change: &dyn Fn(&mut Vec<Record>)| {
            let mut part = records[4..].to_vec();
            change(&mut part);
            two.check_records(one.anchored(), &part)
        };
        assert_eq!(check(&|part| part[1].event.push(0)), Err(LinkError::Changed(Sequence(6))));
        let missing = LinkError::NotNext { expected: Sequence(6), got: Sequence(7) };
        assert_eq!(check(&|part| drop(part.remove(1))), Err(missing));
        assert_eq!(check(&|part| part.swap(1, 2)), Err(missing));
        let short = LinkError::OtherEnd { expected: Sequence(9), got: Sequence(8) };
        assert_eq!(check(&|part| drop(part.pop())), Err(short));
        let forged = |part: &mut Vec<Record>| {
            part[4] = Record::new(Sequence(9), part[3].hash, vec![99]);
        };
        assert_eq!(check(&forged), Err(LinkError::OtherHead(Sequence(9))));
        let foreign = |part: &mut Vec<Record>| {
            part[4] = Record::new(Sequence(9), Hash([1; 48]), vec![9]);
        };
        assert_eq!(check(&foreign), Err(LinkError::NotLinked(Sequence(9))));
    }
}
