//! A part of the journal as a file, and the proof that it is what the ledger anchored.

use crate::{AuditRoot, Head, Journal, Read, Record, RootError, Sequence, limits};
use core::fmt;
use minicbor::{Decode, Encode};
use std::collections::BTreeMap;
use std::io;
use thiserror::Error;
use zixt_types::{Canonical, Hash, ParseError};

/// Records that follow one another, and the roots that the ledger holds about them. The roots are what the exporter says;
/// whoever verifies takes them from the ledger.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
#[cbor(array)]
pub struct Export {
    /// Format version: 1.
    #[n(0)]
    version: u64,
    /// The journal's chain.
    #[n(1)]
    pub chain: Hash,
    /// The record before the first one; sequence 0 if there is none.
    #[n(2)]
    pub before: Head,
    /// The records.
    #[n(3)]
    records: Vec<Exported>,
    /// The roots.
    #[n(4)]
    pub roots: Vec<AuditRoot>,
}

#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
#[cbor(array)]
struct Exported {
    #[n(0)]
    sequence: Sequence,
    #[n(1)]
    prev: Hash,
    #[cbor(n(2), with = "minicbor::bytes")]
    event: Vec<u8>,
    #[n(3)]
    hash: Hash,
}

/// Why there is no export, or a file is none.
#[derive(Debug, Error)]
pub enum ExportError {
    /// The journal cannot be read.
    #[error("the audit journal cannot be read: {0}")]
    Io(#[from] io::Error),
    /// The range holds no record.
    #[error("there is no record from {first} to {last}")]
    Nothing {
        /// The first one that was asked for.
        first: Sequence,
        /// The last one.
        last: Sequence,
    },
    /// The range is too large for one file.
    #[error("the records up to {fits} fill a file; ask for the rest in another one")]
    TooLarge {
        /// The last record that fits.
        fits: Sequence,
    },
    /// The file begins with something else.
    #[error("the file does not begin like an export of the audit journal (ZIXTAUD1)")]
    NotOurs,
    /// The file begins right and goes on wrong.
    #[error(transparent)]
    Parse(#[from] ParseError),
}

/// What is wrong with an export.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finding {
    /// The content of a record does not have the hash that it says.
    Changed(Sequence),
    /// A record does not follow the one before it: one of the two was replaced.
    NotLinked(Sequence),
    /// Records are not in the file.
    Missing {
        /// The first one.
        first: Sequence,
        /// The last one.
        last: Sequence,
    },
    /// A record stands behind a later one, or twice.
    Reordered(Sequence),
    /// The file ends before what the ledger anchored.
    Truncated {
        /// The last record in the file.
        last: Sequence,
        /// The last one that the ledger anchored.
        anchored: Sequence,
    },
    /// The record is there, but it is another one than the ledger anchored: the history up to it was rewritten.
    OtherHead(Sequence),
    /// The file is about another journal than the roots.
    OtherChain {
        /// The roots' chain.
        expected: Hash,
        /// The file's.
        got: Hash,
    },
    /// The ledger's roots do not follow one another.
    Roots(RootError),
    /// The file names a root that the ledger does not hold.
    UnknownRoot(Sequence),
    /// No root of the ledger is about these records: nothing is proven.
    NotAnchored,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Changed(record) => write!(f, "record {record} was changed"),
            Self::NotLinked(record) => {
                write!(f, "record {record} does not follow the record before it: one of the two was replaced")
            }
            Self::Missing { first, last } if first == last => write!(f, "record {first} is missing"),
            Self::Missing { first, last } => write!(f, "records {first} to {last} are missing"),
            Self::Reordered(record) => write!(f, "record {record} stands at the wrong place"),
            Self::Truncated { last, anchored } => {
                write!(
                    f,
                    "the file ends with record {last}, but the ledger anchored records up to {anchored}"
                )
            }
            Self::OtherHead(record) => {
                write!(
                    f,
                    "record {record} is not the one that the ledger anchored: the history was rewritten"
                )
            }
            Self::OtherChain { expected, got } => {
                write!(f, "the file is about journal {got}, the ledger's roots about {expected}")
            }
            Self::Roots(error) => write!(f, "the ledger's roots do not follow one another: {error}"),
            Self::UnknownRoot(last) => {
                write!(f, "the file names a root up to record {last} that the ledger does not hold")
            }
            Self::NotAnchored => {
                f.write_str("the ledger anchored none of these records, so nothing is proven")
            }
        }
    }
}

/// What came out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// The journal's chain.
    pub chain: Hash,
    /// How many records the file holds.
    pub records: usize,
    /// Its first record, if it has one.
    pub first: Option<Sequence>,
    /// Its last one.
    pub last: Option<Sequence>,
    /// Up to here the ledger's roots confirm what is in the file.
    pub anchored: Option<Sequence>,
    /// Records behind the last root: chained, but not proven yet.
    pub not_anchored: usize,
    /// Records whose event this version cannot read. They are proven all the same.
    pub unreadable: Vec<Sequence>,
    /// Everything that is wrong, in the order of the records.
    pub findings: Vec<Finding>,
}

impl Report {
    /// Nothing is wrong.
    #[must_use]
    pub fn is_ok(&self) -> bool {
        self.findings.is_empty()
    }
}

impl Export {
    /// The format version that this program writes.
    pub const FORMAT_VERSION: u64 = 1;
    /// What a file begins with; the last byte tells the format's version.
    pub const MAGIC: &'static [u8; 8] = b"ZIXTAUD1";
    /// The end of the file's name, without the dot.
    pub const EXTENSION: &'static str = "zixt-audit";

    /// Takes a range out of a journal, widened to whole roots where `roots` (all those of the ledger) are about it.
    ///
    /// # Errors
    /// See [`ExportError`].
    pub fn make(
        journal: &Journal,
        first: Sequence,
        last: Sequence,
        roots: &[AuditRoot],
    ) -> Result<Self, ExportError> {
        let about = roots.iter().filter(|root| root.first <= last && root.last >= first);
        let roots: Vec<AuditRoot> = about.take(limits::EXPORT_ROOTS_MAX).copied().collect();
        let first = roots.first().map_or(first, |root| root.first.min(first));
        let last = roots.last().map_or(last, |root| root.last.max(last));
        let mut export = Self {
            version: Self::FORMAT_VERSION,
            chain: journal.chain(),
            before: Head::start(journal.chain()),
            records: Vec::new(),
            roots,
        };
        let mut bytes = export.to_bytes().len();
        let mut reader = journal.reader(first);
        while reader.position() <= last {
            match reader.read_next()? {
                None => break,
                // What is missing stays missing: whoever verifies is told.
                Some(Read::Gap(_)) => {}
                Some(Read::Record(record)) if record.sequence > last => break,
                Some(Read::Record(record)) => {
                    // Two hashes, numbers and lengths take less than 128 bytes.
                    bytes += record.event.len() + 128;
                    if bytes > limits::EXPORT_BYTES_MAX {
                        return Err(ExportError::TooLarge { fits: record.sequence.before() });
                    }
                    if export.records.is_empty() {
                        export.before = Head { sequence: record.sequence.before(), hash: record.prev };
                    }
                    let Record { sequence, prev, event, hash } = record;
                    export.records.push(Exported { sequence, prev, event, hash });
                }
            }
        }
        if export.records.is_empty() { Err(ExportError::Nothing { first, last }) } else { Ok(export) }
    }

    /// The records.
    pub fn records(&self) -> impl Iterator<Item = Record> + '_ {
        self.records.iter().map(Exported::record)
    }

    /// The bytes of a file.
    #[must_use]
    pub fn to_file(&self) -> Vec<u8> {
        [Self::MAGIC.as_slice(), &self.to_bytes()].concat()
    }

    /// Reads a file. That says nothing yet about whether it is true.
    ///
    /// # Errors
    /// [`ExportError::NotOurs`], [`ExportError::Parse`].
    pub fn from_file(file: &[u8]) -> Result<Self, ExportError> {
        let bytes = file.strip_prefix(Self::MAGIC).ok_or(ExportError::NotOurs)?;
        Ok(Self::parse(bytes)?)
    }
}

impl Exported {
    fn record(&self) -> Record {
        Record { sequence: self.sequence, prev: self.prev, event: self.event.clone(), hash: self.hash }
    }
}

impl Canonical for Export {
    const WHAT: &'static str = "export of the audit journal";
    const BYTES_MAX: usize = limits::EXPORT_BYTES_MAX;
    const VERSION: Option<u64> = Some(Self::FORMAT_VERSION);

    fn check(&self) -> Result<(), &'static str> {
        if self.roots.len() > limits::EXPORT_ROOTS_MAX {
            return Err("it has more roots than one file may have");
        }
        if self.records.is_empty() {
            return Err("it holds no record");
        }
        if self.records.iter().any(|record| record.event.len() > limits::EVENT_BYTES_MAX) {
            return Err("a record is longer than an event may be");
        }
        Ok(())
    }
}

/// Checks an export against roots that were taken from certified entries of the ledger. The file has to hold everything
/// that these roots are about, except for one that ends right before it; so give all roots to learn whether the file is
/// complete, and those of a range to check that range.
#[must_use]
pub fn verify(export: &Export, roots: &[AuditRoot]) -> Report {
    let mut report = Report {
        chain: export.chain,
        records: export.records.len(),
        first: export.records.first().map(|record| record.sequence),
        last: export.records.iter().map(|record| record.sequence).max(),
        anchored: None,
        not_anchored: 0,
        unreadable: Vec::new(),
        findings: Vec::new(),
    };
    if let Some(other) = roots.iter().find(|root| root.chain != export.chain) {
        report.findings.push(Finding::OtherChain { expected: other.chain, got: export.chain });
        return report;
    }
    let hashes = links(export, &mut report);
    anchors(export, roots, &hashes, &mut report);
    report
}

/// Whether the records follow one another. Gives their hashes.
fn links(export: &Export, report: &mut Report) -> BTreeMap<Sequence, Hash> {
    let all: BTreeMap<Sequence, Hash> =
        export.records.iter().map(|record| (record.sequence, record.hash)).collect();
    if export.before.sequence == Sequence(0) && export.before.hash != export.chain {
        report.findings.push(Finding::NotLinked(Sequence(1)));
    }
    let mut head = export.before;
    for record in export.records() {
        let sequence = record.sequence;
        if record.computed_hash() != record.hash {
            report.findings.push(Finding::Changed(sequence));
        } else if record.event().is_err() {
            report.unreadable.push(sequence);
        }
        if sequence <= head.sequence {
            report.findings.push(Finding::Reordered(sequence));
            continue;
        }
        if sequence == head.sequence.next() {
            if record.prev != head.hash {
                report.findings.push(Finding::NotLinked(sequence));
            }
        } else {
            missing(&all, head.sequence.next(), sequence.before(), &mut report.findings);
        }
        head = record.head();
    }
    all
}

/// Those of a range that are nowhere in the file; the others are at a wrong place, and told there.
fn missing(all: &BTreeMap<Sequence, Hash>, first: Sequence, last: Sequence, findings: &mut Vec<Finding>) {
    let mut from = first;
    for present in all.range(first..=last).map(|(sequence, _)| *sequence) {
        if from < present {
            findings.push(Finding::Missing { first: from, last: present.before() });
        }
        from = present.next();
    }
    if from <= last {
        findings.push(Finding::Missing { first: from, last });
    }
}

/// Whether they are those that the ledger anchored.
fn anchors(export: &Export, roots: &[AuditRoot], hashes: &BTreeMap<Sequence, Hash>, report: &mut Report) {
    let Some(last) = report.last else { return };
    let before = export.before;
    for pair in roots.windows(2) {
        if let Err(error) = pair[1].follows(Some(&pair[0])) {
            report.findings.push(Finding::Roots(error));
        }
    }
    for root in roots {
        if root.last == before.sequence {
            // It does not confirm a record of the file, but that nothing stood between.
            if root.head != before.hash {
                report.findings.push(Finding::OtherHead(root.last));
            }
            continue;
        }
        if root.first <= before.sequence {
            let last = root.last.min(before.sequence);
            report.findings.push(Finding::Missing { first: root.first, last });
        }
        match hashes.get(&root.last) {
            Some(hash) if *hash == root.head => report.anchored = report.anchored.max(Some(root.last)),
            Some(_) => report.findings.push(Finding::OtherHead(root.last)),
            None => {}
        }
    }
    if let Some(anchored) = roots.iter().map(|root| root.last).max().filter(|anchored| *anchored > last) {
        report.findings.push(Finding::Truncated { last, anchored });
    }
    for claimed in export.roots.iter().filter(|root| !roots.contains(root)) {
        report.findings.push(Finding::UnknownRoot(claimed.last));
    }
    if report.anchored.is_none() {
        report.findings.push(Finding::NotAnchored);
    }
    let anchored = report.anchored.unwrap_or_default();
    report.not_anchored = hashes.range(anchored.next()..).count();
}

#[cfg(test)]
mod tests;
