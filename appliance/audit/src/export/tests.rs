//! Exports that are whole, and every way in which one can lie.

use super::*;
use crate::testing::{Disk, LONG, ManualClock, event, settings};
use crate::{Actor, Origin, chain_name, set_aside};
use proptest::prelude::*;
use std::sync::Arc;

fn open(disk: &Disk) -> Journal {
    Journal::open(Arc::new(disk.clone()), settings(&Arc::<ManualClock>::default())).unwrap().0
}

/// Twelve records under two roots, and two more.
fn journal() -> (Journal, Vec<AuditRoot>) {
    let journal = open(&Disk::default());
    let mut roots: Vec<AuditRoot> = Vec::new();
    for upto in [5, 12] {
        while journal.head().sequence < Sequence(upto) {
            journal.append(&event(journal.head().sequence.0), LONG).unwrap();
        }
        roots.push(journal.root_since(roots.last()).unwrap());
    }
    journal.append(&event(13), LONG).unwrap();
    journal.append(&event(14), LONG).unwrap();
    (journal, roots)
}

fn export() -> (Export, Vec<AuditRoot>) {
    let (journal, roots) = journal();
    (Export::make(&journal, Sequence(1), Sequence(14), &roots).unwrap(), roots)
}

fn findings(change: impl FnOnce(&mut Export)) -> Vec<Finding> {
    let (mut export, roots) = export();
    change(&mut export);
    verify(&export, &roots).findings
}

/// Gives the records from a place on new links and hashes, as somebody does who rewrites history.
fn rechain(export: &mut Export, from: usize) {
    let mut prev = if from == 0 { export.before.hash } else { export.records[from - 1].hash };
    for record in &mut export.records[from..] {
        let new = Record::new(record.sequence, prev, record.event.clone());
        (record.prev, record.hash, prev) = (new.prev, new.hash, new.hash);
    }
}

const fn missing(first: u64, last: u64) -> Finding {
    Finding::Missing { first: Sequence(first), last: Sequence(last) }
}

#[test]
fn a_true_export_is_proven() {
    let (export, roots) = export();
    let file = export.to_file();
    assert!(file.starts_with(b"ZIXTAUD1"));
    let read = Export::from_file(&file).unwrap();
    assert_eq!(read, export);
    let report = verify(&read, &roots);
    assert!(report.is_ok(), "{:?}", report.findings);
    assert_eq!((report.records, report.anchored, report.not_anchored), (14, Some(Sequence(12)), 2));
    assert_eq!((report.first, report.last), (Some(Sequence(1)), Some(Sequence(14))));
    assert!(matches!(Export::from_file(b"ZIXTEVD1"), Err(ExportError::NotOurs)));
}

#[test]
fn a_range_is_widened_to_whole_roots_and_proven_alone() {
    let (journal, roots) = journal();
    let export = Export::make(&journal, Sequence(8), Sequence(9), &roots).unwrap();
    assert_eq!((export.before.sequence, export.records.len()), (Sequence(5), 7));
    assert!(verify(&export, &roots[1..]).is_ok());
    // The root that ends where it begins proves that nothing stood between.
    let report = verify(&export, &roots);
    assert!(report.is_ok(), "{:?}", report.findings);
    let none = Export::make(&journal, Sequence(99), Sequence(100), &roots);
    assert!(matches!(none, Err(ExportError::Nothing { .. })));
}

#[test]
fn every_lie_is_named() {
    assert_eq!(findings(|export| export.records[3].event[0] ^= 1), [Finding::Changed(Sequence(4))]);
    assert_eq!(findings(|export| drop(export.records.remove(3))), [missing(4, 4)]);
    assert_eq!(findings(|export| drop(export.records.drain(3..6))), [missing(4, 6)]);
    assert_eq!(findings(|export| export.records.swap(3, 4)), [Finding::Reordered(Sequence(4))]);
    let twice = findings(|export| export.records.insert(4, export.records[3].clone()));
    assert_eq!(twice, [Finding::Reordered(Sequence(4))]);
    let (last, anchored) = (Sequence(10), Sequence(12));
    assert_eq!(findings(|export| export.records.truncate(10)), [Finding::Truncated { last, anchored }]);
    assert_eq!(findings(|export| drop(export.records.drain(..2))), [missing(1, 2)]);
}

#[test]
fn a_rewritten_history_does_not_reach_the_anchored_heads() {
    let forged = |export: &mut Export| export.records[7].event = export.records[8].event.clone();
    let one = findings(|export| {
        forged(export);
        let record = export.records[7].record();
        export.records[7].hash = record.computed_hash();
    });
    assert_eq!(one, [Finding::NotLinked(Sequence(9))]);
    let all = findings(|export| {
        forged(export);
        rechain(export, 7);
    });
    assert_eq!(all, [Finding::OtherHead(Sequence(12))]);
    let begun = findings(|export| {
        export.before.hash = Hash([9; 48]);
        rechain(export, 0);
    });
    let expected = [
        Finding::NotLinked(Sequence(1)),
        Finding::OtherHead(Sequence(5)),
        Finding::OtherHead(Sequence(12)),
        Finding::NotAnchored,
    ];
    assert_eq!(begun, expected);
    // What stands behind the last root can be rewritten; the report says that it is not proven.
    assert_eq!(findings(|export| rechain(export, 12)), []);
}

#[test]
fn roots_are_taken_from_the_ledger_and_judged_too() {
    let (export, roots) = export();
    let report = verify(&export, &[]);
    assert!(report.findings.contains(&Finding::NotAnchored));
    let report = verify(&export, &roots[1..]);
    assert_eq!(report.findings, [Finding::UnknownRoot(Sequence(5))]);
    let twice = [roots[0], roots[0], roots[1]];
    assert!(matches!(verify(&export, &twice).findings[..], [Finding::Roots(RootError::NotNext { .. })]));
    let got = export.chain;
    let other = AuditRoot { chain: chain_name(&[8; 32]), ..roots[0] };
    assert_eq!(verify(&export, &[other]).findings, [Finding::OtherChain { expected: other.chain, got }]);
    let later = AuditRoot { first: Sequence(13), last: Sequence(20), ..roots[1] };
    let report = verify(&export, &[roots[0], roots[1], later]);
    assert_eq!(report.findings, [Finding::Truncated { last: Sequence(14), anchored: Sequence(20) }]);
}

#[test]
fn a_gap_that_the_journal_declares_stays_one() {
    let disk = Disk::default();
    let journal = open(&disk);
    for number in 0..200 {
        journal.append(&event(number), LONG).unwrap();
    }
    drop(journal);
    let mut files = disk.files();
    let last = files.keys().rfind(|name| name.ends_with(".segment")).unwrap().clone();
    files.get_mut(&last).unwrap()[9000] ^= 1;
    let disk = Disk::with(&files);
    let goes_on_at = set_aside(&disk, &settings(&Arc::default())).unwrap().goes_on_at.unwrap();
    let journal = open(&disk);
    journal.append(&event(1), LONG).unwrap();
    let root = journal.root_since(None).unwrap();
    let export = Export::make(&journal, root.first, root.last, &[root]).unwrap();
    let report = verify(&export, &[root]);
    assert!(matches!(report.findings[..], [Finding::Missing { last, .. }] if last == goes_on_at.before()));
    assert_eq!(report.anchored, Some(root.last));
}

#[test]
fn removed_segments_are_missing_only_for_roots_about_them() {
    let disk = Disk::default();
    let journal = open(&disk);
    let mut roots: Vec<AuditRoot> = Vec::new();
    for _ in 0..6 {
        (0..50).for_each(|number| _ = journal.append(&event(number), LONG).unwrap());
        roots.push(journal.root_since(roots.last()).unwrap());
    }
    journal.anchored(roots[4].anchored()).unwrap();
    assert!(journal.remove_before(Sequence(u64::MAX), Actor::Appliance, Origin::Inside, LONG).unwrap() > 0);
    let first = journal.health().first;
    let kept: Vec<AuditRoot> = roots.iter().filter(|root| root.first >= first).copied().collect();
    assert!(!kept.is_empty() && kept.len() < roots.len());
    let export = Export::make(&journal, kept[0].first, roots[5].last, &kept).unwrap();
    assert!(verify(&export, &kept).is_ok());
    assert!(matches!(verify(&export, &roots).findings[0], Finding::Missing { .. }));
}

proptest! {
    #[test]
    fn any_flipped_byte_is_found(at: prop::sample::Index, by in 1_u8..) {
        static BUILT: std::sync::OnceLock<(Export, Vec<AuditRoot>)> = std::sync::OnceLock::new();
        let (export, roots) = BUILT.get_or_init(|| {
            let (journal, roots) = journal();
            (Export::make(&journal, Sequence(1), Sequence(12), &roots).unwrap(), roots)
        });
        let mut file = export.to_file();
        let at = at.index(file.len());
        file[at] ^= by;
        if let Ok(export) = Export::from_file(&file) {
            prop_assert!(!verify(&export, roots).is_ok(), "byte {at}");
        }
    }

    #[test]
    fn files_of_any_kind_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let file = [Export::MAGIC.as_slice(), &bytes].concat();
        if let Ok(export) = Export::from_file(&file) {
            let _ = verify(&export, &[]);
        }
    }

    #[test]
    fn any_removal_or_exchange_is_found(a in 0..12_usize, b in 0..12_usize) {
        let (mut export, roots) = export();
        if a == b {
            export.records.remove(a);
            prop_assert_eq!(verify(&export, &roots).findings.len(), 1);
        } else {
            export.records.swap(a, b);
            prop_assert!(verify(&export, &roots).findings.iter().any(|finding| matches!(finding, Finding::Reordered(_))));
        }
    }
}
