//! The journal as a whole, on a disk that is killed, filled, broken and changed.

use super::*;
use crate::folder::DiskFolder;
use crate::testing::{Disk, Files, LONG, ManualClock, event, routine, settings};
use crate::{Record, Text, Value};
use proptest::prelude::*;
use std::collections::HashSet;

fn clock() -> Arc<ManualClock> {
    Arc::new(ManualClock::default())
}

fn open(disk: &Disk) -> (Journal, Opened) {
    Journal::open(Arc::new(disk.clone()), settings(&clock())).unwrap()
}

/// Everything that can be read.
fn all(journal: &Journal) -> Vec<Read> {
    let mut reader = journal.reader(Sequence(1));
    std::iter::from_fn(|| reader.read_next().unwrap()).collect()
}

fn records(journal: &Journal) -> Vec<Record> {
    let record = |read| match read {
        Read::Record(record) => record,
        Read::Gap(gap) => panic!("{gap:?}"),
    };
    all(journal).into_iter().map(record).collect()
}

/// The records, after checking that they are one chain from its start.
fn chain(journal: &Journal) -> Vec<Record> {
    // The journal's own events may still be on their way, so it may grow while it is read.
    let end = journal.head().sequence;
    let records = records(journal);
    let mut head = Head::start(journal.chain());
    for record in &records {
        assert_eq!((record.sequence, record.prev), (head.sequence.next(), head.hash));
        assert_eq!(record.computed_hash(), record.hash);
        head = record.head();
    }
    assert!(head.sequence >= end);
    records
}

fn number(record: &Record) -> Option<u64> {
    match record.event().unwrap().details.get("number") {
        Some(Value::Number(number)) => Some(*number),
        _ => None,
    }
}

fn actions(journal: &Journal) -> Vec<Action> {
    let action = |read| match read {
        Read::Record(record) => Some(Record::event(&record).unwrap().action),
        Read::Gap(_) => None,
    };
    all(journal).into_iter().filter_map(action).collect()
}

/// An event of about 4.5 kB: a dozen fill a segment of the tests.
fn large(number: u64) -> Event {
    let mut event = event(number);
    for place in 0..15 {
        let text = Text::new(&"x".repeat(limits::TEXT_BYTES_MAX)).unwrap();
        event.details = event.details.with(&format!("text_{place}"), Value::Text(text)).unwrap();
    }
    event
}

/// A journal of three segments that was closed in order, and its receipts.
fn three_segments() -> (Files, Vec<Receipt>) {
    let disk = Disk::default();
    let (journal, _) = open(&disk);
    let receipts = (0..30).map(|number| journal.append(&large(number), LONG).unwrap()).collect();
    drop(journal);
    let files = disk.files();
    assert_eq!(files.keys().filter(|name| name.ends_with(".segment")).count(), 3);
    (files, receipts)
}

fn segment_names(files: &Files) -> Vec<String> {
    files.keys().filter(|name| name.ends_with(".segment")).cloned().collect()
}

#[test]
fn what_was_acknowledged_survives_a_power_cut() {
    let disk = Disk::default();
    let (journal, opened) = open(&disk);
    assert!(opened.new);
    let receipts: Vec<_> = (0..20).map(|number| journal.append(&event(number), LONG).unwrap()).collect();
    let files = disk.after_power_cut(|| false);
    let (journal, opened) = open(&Disk::with(&files));
    // The mark of the last group was lost, its records were not.
    assert!(!opened.new && opened.head == receipts[19] && opened.torn_bytes == 0);
    let read: HashSet<_> = chain(&journal).iter().map(Record::head).collect();
    assert!(receipts.iter().all(|receipt| read.contains(receipt)));
}

#[test]
fn eight_threads_get_different_receipts_in_one_chain() {
    let disk = Disk::default();
    let (journal, _) = open(&disk);
    let mut receipts: Vec<(Receipt, u64)> = std::thread::scope(|scope| {
        let append = |thread: u64| {
            let journal = &journal;
            scope.spawn(move || {
                let numbers = (0..100).map(|count| thread * 100 + count);
                numbers.map(|n| (journal.append(&event(n), LONG).unwrap(), n)).collect::<Vec<_>>()
            })
        };
        let threads: Vec<_> = (0..8).map(append).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    receipts.sort_by_key(|(receipt, _)| receipt.sequence);
    let read: Vec<_> =
        chain(&journal).iter().filter_map(|record| Some((record.head(), number(record)?))).collect();
    assert_eq!(read, receipts);
    drop(journal);
    let (journal, opened) = open(&Disk::with(&disk.files()));
    assert_eq!((opened.unacknowledged, opened.torn_bytes, opened.marks_damaged), (None, 0, 0));
    assert_eq!(chain(&journal).iter().filter_map(number).count(), 800);
}

/// The process dies in every single change that it makes to the disk, or the power fails there.
#[test]
fn a_kill_at_any_moment_loses_nothing_acknowledged_and_invents_nothing() {
    for kill_at in 0.. {
        let disk = Disk::default();
        disk.kill_at(kill_at);
        let mut receipts = Vec::new();
        if let Ok((journal, _)) = Journal::open(Arc::new(disk.clone()), settings(&clock())) {
            receipts.extend(
                (0..26).map_while(|number| Some((journal.append(&large(number), LONG).ok()?, number))),
            );
        }
        let mut chance = kill_at;
        let mut random = || {
            chance = chance.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            chance >> 63 == 0
        };
        let left = [
            disk.files(),
            disk.after_power_cut(|| false),
            disk.after_power_cut(|| true),
            disk.after_power_cut(&mut random),
        ];
        for files in left {
            let (journal, _) = open(&Disk::with(&files));
            let read: Vec<_> =
                chain(&journal).iter().filter_map(|record| Some((record.head(), number(record)?))).collect();
            assert!(read.starts_with(&receipts), "killed at {kill_at}: {receipts:?} became {read:?}");
            assert!(read.len() <= receipts.len() + 1 && (0..).zip(&read).all(|(at, (_, n))| at == *n));
        }
        // The next process dies as well, while it puts things in order.
        let files = disk.files();
        for again in 0..6 {
            let disk = Disk::with(&files);
            disk.kill_at(again);
            drop(Journal::open(Arc::new(disk.clone()), settings(&clock())));
            let (journal, _) = open(&Disk::with(&disk.after_power_cut(&mut random)));
            let read: HashSet<_> = chain(&journal).iter().map(Record::head).collect();
            assert!(receipts.iter().all(|(receipt, _)| read.contains(receipt)), "{kill_at} and {again}");
        }
        if !disk.killed() {
            assert_eq!(receipts.len(), 26);
            return;
        }
    }
}

#[test]
fn short_writes_are_finished() {
    let disk = Disk::default();
    disk.shorten_writes(7);
    let (journal, _) = open(&disk);
    (0..5).for_each(|number| _ = journal.append(&event(number), LONG).unwrap());
    assert_eq!(chain(&journal).len(), 6);
}

#[test]
fn after_a_failed_fsync_nothing_is_acknowledged() {
    let disk = Disk::default();
    let (journal, _) = open(&disk);
    let receipt = journal.append(&event(0), LONG).unwrap();
    disk.fail_syncs(true);
    assert!(matches!(journal.append(&event(1), LONG), Err(AppendError::Failed(_))));
    // The disk says that all is well again. It is not believed.
    disk.fail_syncs(false);
    assert!(matches!(journal.append(&event(2), LONG), Err(AppendError::Failed(_))));
    assert!(journal.health().failed.unwrap().contains("input/output error"));
    assert_eq!(journal.head(), receipt);
    drop(journal);
    let (journal, opened) = open(&Disk::with(&disk.files()));
    journal.append(&event(3), LONG).unwrap();
    let records = chain(&journal);
    assert!(records.iter().any(|record| record.head() == receipt));
    // The refused event had reached the file. It stays, and it is told that nobody may have been promised it.
    assert_eq!(opened.unacknowledged, Some((receipt.sequence.next(), receipt.sequence.next())));
    assert!(actions(&journal).contains(&Action::JournalRecovered));
}

#[test]
fn a_full_disk_refuses_ordinary_events_first_and_then_all_without_waiting() {
    let disk = Disk::default();
    let clock = clock();
    let segment = usize::try_from(settings(&clock).segment_bytes).unwrap();
    disk.set_room(Some(2 * segment + 100));
    let (journal, _) = Journal::open(Arc::new(disk.clone()), settings(&clock)).unwrap();
    let mut written = 0;
    let refused = loop {
        match journal.append(&routine(written), LONG) {
            Ok(_) => written += 1,
            Err(error) => break error,
        }
    };
    assert_eq!(refused, AppendError::Reserved);
    assert!(!journal.health().reserved && journal.health().reserve_error.is_some());
    let mut urgent = 0;
    let refused = loop {
        match journal.append(&event(1000 + urgent), LONG) {
            Ok(_) => urgent += 1,
            Err(error) => break error,
        }
    };
    assert_eq!(refused, AppendError::Full);
    // A whole segment was kept for them.
    assert!(urgent > 100, "{urgent}");
    assert_eq!(journal.append(&routine(0), LONG), Err(AppendError::Reserved));
    let told = actions(&journal);
    assert_eq!(told.iter().filter(|action| **action == Action::JournalReserveUsed).count(), 1);

    // There is room again. That is noticed when it is time to look.
    disk.set_room(None);
    assert_eq!(journal.append(&event(0), LONG), Err(AppendError::Full));
    clock.advance(Duration::from_millis(limits::RESERVE_RETRY_MS));
    journal.append(&event(5000), LONG).unwrap();
    journal.append(&routine(5001), LONG).unwrap();
    let records = chain(&journal);
    let restored = records.iter().map(|record| record.event().unwrap());
    let restored =
        restored.filter(|event| event.action == Action::JournalReserveRestored).collect::<Vec<_>>();
    assert_eq!(restored.len(), 1);
    assert_eq!(restored[0].details.get("refused"), Some(&Value::Number(4)));
    assert_eq!(records.iter().filter_map(number).count() as u64, written + urgent + 2);
    assert!(journal.health().reserved);
}

#[test]
fn room_is_promised_once_and_found_again_without_anybody_who_appends() {
    let disk = Disk::default();
    let clock = clock();
    let segment = usize::try_from(settings(&clock).segment_bytes).unwrap();
    disk.set_room(Some(2 * segment + 100));
    let (journal, _) = Journal::open(Arc::new(disk.clone()), settings(&clock)).unwrap();
    drop(journal.room(false).unwrap());
    while journal.health().reserved {
        journal.append(&event(0), LONG).unwrap();
    }
    assert_eq!(journal.room(false).err(), Some(AppendError::Reserved));
    // As many promises as there is room for the largest events, and no more.
    let mut rooms = Vec::new();
    let refused = loop {
        match journal.room(true) {
            Ok(room) => rooms.push(room),
            Err(error) => break error,
        }
    };
    assert_eq!(refused, AppendError::Full);
    let room = journal.health().room_bytes;
    assert_eq!(rooms.len() as u64, room / FRAME_BYTES_MAX);
    assert!(!rooms.is_empty());
    for room in rooms {
        journal.append(&event(1), LONG).unwrap();
        drop(room);
    }
    assert!(journal.health().room_bytes < room);
    while journal.room(true).is_ok() {
        journal.append(&event(2), LONG).unwrap();
    }
    // Nobody hands anything in any more. It is looked for room when somebody asks for it.
    disk.set_room(None);
    clock.advance(Duration::from_millis(limits::RESERVE_RETRY_MS));
    let mut found = journal.room(true);
    for _ in 0..10_000 {
        if found.is_ok() {
            break;
        }
        std::thread::sleep(Duration::from_millis(1));
        found = journal.room(true);
    }
    assert!(found.is_ok() && journal.health().reserved);
}

#[test]
fn an_appliance_starts_on_a_full_disk() {
    let disk = Disk::default();
    drop(open(&disk));
    let mut files = disk.files();
    files.remove("reserve");
    let disk = Disk::with(&files);
    disk.set_room(Some(disk.used()));
    let (journal, _) = open(&disk);
    assert_eq!(journal.append(&routine(1), LONG), Err(AppendError::Reserved));
    journal.append(&event(2), LONG).unwrap();
    assert!(actions(&journal).contains(&Action::JournalReserveUsed));
}

#[test]
fn a_write_that_finds_no_room_is_not_acknowledged_and_written_over() {
    let disk = Disk::default();
    let (journal, _) = open(&disk);
    journal.append(&event(0), LONG).unwrap();
    disk.fail_writes(Some(io::ErrorKind::StorageFull));
    assert_eq!(journal.append(&event(1), LONG), Err(AppendError::Full));
    disk.fail_writes(None);
    journal.append(&event(2), LONG).unwrap();
    assert_eq!(chain(&journal).iter().filter_map(number).collect::<Vec<_>>(), [0, 2]);
    disk.fail_writes(Some(io::ErrorKind::Other));
    assert!(matches!(journal.append(&event(3), LONG), Err(AppendError::Failed(_))));
}

/// The disk answers nothing at all. Callers get their answer in time, and the journal tells the truth afterwards.
#[test]
fn a_disk_that_hangs_holds_nobody_longer_than_they_said() {
    let disk = Disk::default();
    let (journal, _) = open(&disk);
    journal.append(&event(0), LONG).unwrap();
    disk.hold_syncs(true);
    let taken = journal.begin(&event(1), LONG).unwrap();
    while !disk.holds_a_sync() {
        std::thread::yield_now();
    }
    // The writer has it and waits for the disk. The caller goes away.
    drop(taken);
    let short = Duration::from_millis(20);
    assert_eq!(journal.append(&event(2), short), Err(AppendError::Timeout(short)));
    let mut kept = Vec::new();
    while journal.health().waiting < limits::QUEUE_EVENTS_MAX {
        kept.push(journal.begin(&event(3), LONG).unwrap());
    }
    assert_eq!(journal.append(&event(4), short), Err(AppendError::Busy(short)));
    disk.hold_syncs(false);
    let count = kept.len() as u64;
    kept.into_iter().for_each(|pending| _ = pending.wait().unwrap());
    journal.append(&event(5), LONG).unwrap();
    drop(journal);
    let (journal, _) = open(&Disk::with(&disk.files()));
    let records = chain(&journal);
    // What nobody waited for any more and had not begun was not written; what had begun is, and is said to be void.
    let numbers: Vec<_> = records.iter().filter_map(number).collect();
    assert_eq!(numbers.iter().filter(|number| **number == 3).count() as u64, count);
    assert!(numbers.contains(&1) && !numbers.contains(&2) && !numbers.contains(&4));
    let void = records.iter().find(|record| number(record) == Some(1)).unwrap();
    let unclaimed = records.iter().map(|record| record.event().unwrap());
    let unclaimed: Vec<_> = unclaimed.filter(|event| event.action == Action::JournalUnclaimed).collect();
    assert_eq!(unclaimed.len(), 1);
    assert_eq!(unclaimed[0].details.get("record"), Some(&Value::Number(void.sequence.0)));
}

#[test]
fn a_receipt_that_nobody_fetched_is_void_as_well() {
    let disk = Disk::default();
    let (journal, _) = open(&disk);
    let pending = journal.begin(&event(1), LONG).unwrap();
    journal.append(&event(2), LONG).unwrap();
    drop(pending);
    journal.append(&event(3), LONG).unwrap();
    assert!(actions(&journal).contains(&Action::JournalUnclaimed));
}

#[test]
fn a_torn_end_is_dropped_and_told_once() {
    let disk = Disk::default();
    let (journal, _) = open(&disk);
    let receipt = journal.append(&event(1), LONG).unwrap();
    drop(journal);
    let mut files = disk.files();
    let name = segment_names(&files).remove(0);
    let bytes = files.get_mut(&name).unwrap();
    let end = bytes.iter().rposition(|byte| *byte != 0).unwrap().next_multiple_of(512);
    bytes[end..end + 5000].fill(0xA5);
    let disk = Disk::with(&files);
    let (journal, opened) = open(&disk);
    assert_eq!((opened.head, opened.torn_bytes), (receipt, 5000));
    journal.append(&event(2), LONG).unwrap();
    let told = chain(&journal).into_iter().map(|record| record.event().unwrap());
    let told: Vec<_> = told.filter(|event| event.action == Action::JournalRecovered).collect();
    assert_eq!(told.len(), 1);
    assert_eq!(told[0].details.get("torn_bytes"), Some(&Value::Number(5000)));
    assert!(told[0].before.is_some());
    drop(journal);
    assert_eq!(open(&Disk::with(&disk.files())).1.torn_bytes, 0);
}

fn fault(error: OpenError) -> Fault {
    match error {
        OpenError::Damaged(damage) => damage.fault,
        other => panic!("{other}"),
    }
}

#[test]
fn a_removed_segment_and_a_cut_end_are_named() {
    let (files, receipts) = three_segments();
    let names = segment_names(&files);
    let mut hole = files.clone();
    hole.remove(&names[1]);
    let error = Journal::open(Arc::new(Disk::with(&hole)), settings(&clock())).err().unwrap();
    let OpenError::Damaged(damage) = error else { panic!("{error}") };
    assert_eq!(damage.file, names[2]);
    assert!(matches!(damage.fault, Fault::Missing { .. }), "{damage}");

    // Without its last segment the journal looks whole. The ledger knows better, and from then on the folder does.
    let last = *receipts.last().unwrap();
    let disk = Disk::with(&files);
    open(&disk).0.anchored(last).unwrap();
    let mut cut = files.clone();
    cut.remove(&names[2]);
    let (journal, _) = open(&Disk::with(&cut));
    assert!(matches!(journal.anchored(last), Err(AnchorError::SetBack { .. })));
    let mut cut = disk.files();
    cut.remove(&names[2]);
    let error = Journal::open(Arc::new(Disk::with(&cut)), settings(&clock())).err().unwrap();
    assert!(matches!(fault(error), Fault::CutOff { .. }));
    let none: Files = disk.files().into_iter().filter(|(name, _)| !name.ends_with(".segment")).collect();
    let error = Journal::open(Arc::new(Disk::with(&none)), settings(&clock())).err().unwrap();
    assert!(matches!(fault(error), Fault::Missing { .. }));
}

#[test]
fn a_head_of_another_history_is_not_taken() {
    let disk = Disk::default();
    let (journal, _) = open(&disk);
    let receipt = journal.append(&event(1), LONG).unwrap();
    journal.anchored(receipt).unwrap();
    journal.anchored(receipt).unwrap();
    let other = Head { hash: Hash([1; 48]), ..receipt };
    assert!(matches!(journal.anchored(other), Err(AnchorError::OtherRecord(_))));
    assert_eq!(journal.health().anchored, Some(receipt));
}

#[test]
fn roots_lead_from_one_to_the_next() {
    let disk = Disk::default();
    let (journal, _) = open(&disk);
    journal.append(&event(1), LONG).unwrap();
    let first = journal.root_since(None).unwrap();
    assert_eq!(first.follows(None), Ok(()));
    assert_eq!(journal.root_since(Some(&first)), None);
    journal.append(&event(2), LONG).unwrap();
    let second = journal.root_since(Some(&first)).unwrap();
    assert_eq!(second.follows(Some(&first)), Ok(()));
    let records = chain(&journal);
    let (a, b) = records.split_at(usize::try_from(first.last.0).unwrap());
    assert_eq!(first.check_records(Head::start(journal.chain()), a), Ok(()));
    assert_eq!(second.check_records(first.anchored(), b), Ok(()));
}

#[test]
fn only_anchored_segments_are_removed() {
    let (files, receipts) = three_segments();
    let disk = Disk::with(&files);
    let (journal, _) = open(&disk);
    let remove =
        |keep_from| journal.remove_before(keep_from, Actor::Appliance, Origin::Inside, LONG).unwrap();
    let end = Sequence(u64::MAX);
    assert_eq!(remove(end), 0);
    journal.anchored(receipts[15]).unwrap();
    assert_eq!(remove(Sequence(2)), 0);
    assert_eq!(remove(end), 1);
    assert_eq!(remove(end), 0);
    let reads = all(&journal);
    let first = journal.health().first;
    assert!(first > Sequence(10));
    let gap = Gap { first: Sequence(1), last: first.before(), reason: GapReason::Removed };
    assert_eq!(reads[0], Read::Gap(gap));
    assert!(actions(&journal).contains(&Action::JournalSegmentsRemoved));
    drop(journal);
    assert_eq!(open(&Disk::with(&disk.files())).1.missing, None);
    // Somebody else removed a segment that the ledger never got.
    let mut files = disk.files();
    files.remove("anchored");
    assert!(open(&Disk::with(&files)).1.missing.is_some());
}

#[test]
fn damage_is_set_aside_only_when_somebody_says_so() {
    let (files, receipts) = three_segments();
    let names = segment_names(&files);
    for (place, name) in names.iter().enumerate() {
        let mut damaged = files.clone();
        // The header: found at once, wherever the segment stands.
        damaged.get_mut(name).unwrap()[20] ^= 1;
        continues_after(&damaged, &receipts, place == 2);
        let mut removed = files.clone();
        removed.remove(name);
        if place == 1 {
            continues_after(&removed, &receipts, false);
        }
    }
    let mut damaged = files.clone();
    damaged.get_mut(&names[2]).unwrap()[9000] ^= 1;
    continues_after(&damaged, &receipts, true);
    // Nothing to do for a journal that is whole.
    let disk = Disk::with(&files);
    let done = set_aside(&disk, &settings(&clock())).unwrap();
    assert!(done.kept_as.is_empty() && done.goes_on_at.is_none() && disk.files() == files);
}

#[test]
fn an_old_record_that_changed_is_found_by_whoever_reads() {
    let (files, receipts) = three_segments();
    let mut damaged = files.clone();
    damaged.get_mut(&segment_names(&files)[0]).unwrap()[9000] ^= 1;
    let (journal, _) = open(&Disk::with(&damaged));
    let gaps = journal.check().unwrap();
    assert_eq!(gaps.len(), 1);
    assert!(matches!(gaps[0].reason, GapReason::Damaged(_)) && gaps[0].last < receipts[29].sequence);
    assert!(open(&Disk::with(&files)).0.check().unwrap().is_empty());
}

/// Setting aside is cut off at every change: the journal is never opened half-way, and a second try finishes it.
#[test]
fn setting_aside_can_be_cut_off() {
    let (mut files, receipts) = three_segments();
    let name = segment_names(&files).pop().unwrap();
    files.get_mut(&name).unwrap()[9000] ^= 1;
    for kill_at in 0.. {
        let disk = Disk::with(&files);
        disk.kill_at(kill_at);
        let finished = set_aside(&disk, &settings(&clock())).is_ok();
        let half = Disk::with(&disk.files());
        let opened = Journal::open(Arc::new(half), settings(&clock()));
        assert!(finished == opened.is_ok(), "{kill_at}");
        let disk = Disk::with(&disk.files());
        set_aside(&disk, &settings(&clock())).unwrap();
        let (journal, _) = open(&disk);
        assert!(journal.append(&event(1), LONG).unwrap().sequence > receipts[29].sequence, "{kill_at}");
        if finished {
            return;
        }
        drop(journal);
        let whole = Disk::with(&disk.files());
        assert_eq!(set_aside(&whole, &settings(&clock())).unwrap().goes_on_at, None);
    }
}

fn continues_after(files: &Files, receipts: &[Receipt], jumps: bool) {
    let disk = Disk::with(files);
    let error = Journal::open(Arc::new(disk.clone()), settings(&clock())).err().unwrap();
    assert!(matches!(error, OpenError::Damaged(_)), "{error}");
    assert_eq!(disk.files(), *files, "nothing is touched");
    let done = set_aside(&disk, &settings(&clock())).unwrap();
    assert_eq!((done.goes_on_at.is_some(), done.faults.is_empty()), (jumps, false), "{done:?}");
    for name in &done.kept_as {
        assert!(disk.files().contains_key(name));
    }
    let (journal, _) = open(&disk);
    let receipt = journal.append(&event(77), LONG).unwrap();
    let highest = receipts.last().unwrap().sequence;
    assert!(receipt.sequence > highest, "a number is never used again");
    let reads = all(&journal);
    let gaps = reads.iter().filter(|read| matches!(read, Read::Gap(_))).count();
    assert_eq!(gaps, 1, "{:?}", reads.iter().filter(|read| matches!(read, Read::Gap(_))).collect::<Vec<_>>());
    assert_eq!(actions(&journal).contains(&Action::JournalContinued), jumps);
    drop(journal);
    let (journal, opened) = open(&Disk::with(&disk.files()));
    assert_eq!((opened.head.sequence >= receipt.sequence, opened.torn_bytes), (true, 0));
    drop(journal);
}

#[test]
fn a_journal_lives_on_a_real_disk() {
    let temporary = tempfile::tempdir().unwrap();
    let path = temporary.path().join("audit");
    let open = || Journal::open(Arc::new(DiskFolder::open(&path).unwrap()), settings(&clock())).unwrap();
    let (journal, opened) = open();
    assert!(opened.new);
    let receipts: Vec<_> = (0..200).map(|number| journal.append(&event(number), LONG).unwrap()).collect();
    drop(journal);
    let (journal, opened) = open();
    assert_eq!((opened.head, opened.unacknowledged), (receipts[199], None));
    assert_eq!(chain(&journal).iter().filter_map(number).count(), 200);
}

#[test]
fn settings_that_cannot_work_are_refused() {
    for segment_bytes in
        [0, limits::SEGMENT_BYTES_MIN - 4096, limits::SEGMENT_BYTES_MIN + 1, limits::SEGMENT_BYTES_MAX + 4096]
    {
        let settings = Settings { segment_bytes, ..settings(&clock()) };
        let refused = Journal::open(Arc::new(Disk::default()), settings).err().unwrap();
        assert!(matches!(refused, OpenError::SegmentBytes { .. }));
    }
}

/// Opens and reads everything: `false` if anything says that something is wrong.
fn seems_whole(files: &Files, receipts: &[Receipt]) -> bool {
    let disk = Disk::with(files);
    let (journal, opened) = match Journal::open(Arc::new(disk), settings(&clock())) {
        Ok(opened) => opened,
        Err(OpenError::Damaged(_)) => return false,
        Err(other) => panic!("{other}"),
    };
    let told = opened.torn_bytes > 0 || opened.marks_damaged > 0 || opened.unacknowledged.is_some();
    let reads = all(&journal);
    let read: HashSet<_> = reads
        .iter()
        .filter_map(|read| match read {
            Read::Record(record) => Some(record.head()),
            Read::Gap(_) => None,
        })
        .collect();
    let whole = !told && !reads.iter().any(|read| matches!(read, Read::Gap(_)));
    assert!(!whole || receipts.iter().all(|receipt| read.contains(receipt)), "something is gone in silence");
    whole
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn no_byte_of_a_segment_changes_unseen(file in 0..3_usize, at: prop::sample::Index, by in 1_u8..) {
        static BUILT: std::sync::OnceLock<(Files, Vec<Receipt>)> = std::sync::OnceLock::new();
        let (files, receipts) = BUILT.get_or_init(three_segments);
        let mut files = files.clone();
        let name = segment_names(&files)[file].clone();
        let bytes = files.get_mut(&name).unwrap();
        let at = at.index(bytes.len());
        // The unused end of a closed segment is no part of the journal.
        let used = bytes.iter().rposition(|byte| *byte != 0).unwrap();
        prop_assume!(file == 2 || at <= used);
        bytes[at] ^= by;
        let whole = seems_whole(&files, receipts);
        prop_assert!(!whole, "{name} at {at}");
    }

    #[test]
    fn garbage_never_panics(file in 0..3_usize, at: prop::sample::Index, garbage in prop::collection::vec(any::<u8>(), 1..600), cut: bool) {
        static BUILT: std::sync::OnceLock<(Files, Vec<Receipt>)> = std::sync::OnceLock::new();
        let (files, receipts) = BUILT.get_or_init(three_segments);
        let mut files = files.clone();
        let name = segment_names(&files)[file].clone();
        let bytes = files.get_mut(&name).unwrap();
        let at = at.index(bytes.len());
        let end = bytes.len().min(at + garbage.len());
        bytes[at..end].copy_from_slice(&garbage[..end - at]);
        if cut {
            bytes.truncate(end);
        }
        seems_whole(&files, receipts);
        let disk = Disk::with(&files);
        if set_aside(&disk, &settings(&clock())).is_ok() {
            let (journal, _) = open(&disk);
            journal.append(&event(1), LONG).unwrap();
        }
    }
}
