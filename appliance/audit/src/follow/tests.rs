//! Sinks that work, fail, hang and come too late.

use super::*;
use crate::testing::{Disk, LONG, ManualClock, event, settings};
use crate::{Actor, Clock as _, Origin};
use std::sync::mpsc::{Receiver, channel};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Got {
    Event(u64),
    Gap(u64, u64),
}

#[derive(Default)]
struct Inbox {
    got: Vec<Got>,
    fails: bool,
    gone: bool,
    overlap: u64,
}

#[derive(Clone, Default)]
struct TestSink(Arc<Mutex<Inbox>>);

impl TestSink {
    fn take(&self) -> Vec<Got> {
        std::mem::take(&mut self.0.lock().unwrap().got)
    }

    fn fail(&self, fails: bool) {
        self.0.lock().unwrap().fails = fails;
    }
}

impl Sink for TestSink {
    fn deliver(&mut self, delivery: Delivery<'_>) -> io::Result<()> {
        let got = match delivery {
            Delivery::Event(record, _) | Delivery::Unreadable(record, _) => Got::Event(record.sequence.0),
            Delivery::Gap(gap) => Got::Gap(gap.first.0, gap.last.0),
        };
        self.0.lock().unwrap().got.push(got);
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.0.lock().unwrap().fails { Err(io::Error::other("connection\nrefused")) } else { Ok(()) }
    }

    fn check(&mut self) -> io::Result<()> {
        if self.0.lock().unwrap().gone { Err(io::ErrorKind::ConnectionAborted.into()) } else { Ok(()) }
    }

    fn overlap(&self) -> u64 {
        self.0.lock().unwrap().overlap
    }
}

fn open(disk: &Disk, clock: &Arc<ManualClock>) -> Journal {
    Journal::open(Arc::new(disk.clone()), settings(clock)).unwrap().0
}

fn follower(journal: &Journal, sink: &TestSink) -> Follower {
    Follower::new(journal, &Code::new("test").unwrap(), Box::new(sink.clone())).unwrap()
}

fn append(journal: &Journal, count: u64) {
    (0..count).for_each(|number| _ = journal.append(&event(number), LONG).unwrap());
}

fn events(range: std::ops::RangeInclusive<u64>) -> Vec<Got> {
    range.map(Got::Event).collect()
}

#[test]
fn a_sink_gets_everything_once_and_goes_on_after_a_restart() {
    let (disk, clock, sink) = (Disk::default(), Arc::default(), TestSink::default());
    let journal = open(&disk, &clock);
    append(&journal, 3);
    let mut first = follower(&journal, &sink);
    assert_eq!(first.step(), Step::Delivered(4));
    assert_eq!(first.step(), Step::Idle);
    assert_eq!(sink.take(), events(1..=4));
    drop((first, journal));
    let journal = open(&Disk::with(&disk.files()), &clock);
    append(&journal, 1);
    let mut second = follower(&journal, &sink);
    assert_eq!(second.step(), Step::Delivered(2));
    assert_eq!(sink.take(), events(5..=6));
    let health = second.health();
    assert_eq!((health.delivered, health.behind_events, health.failing), (Sequence(6), 0, None));
}

#[test]
fn a_sink_that_goes_while_nothing_happens_is_noticed_and_gets_the_last_ones_again() {
    let (disk, clock, sink) = (Disk::default(), Arc::default(), TestSink::default());
    sink.0.lock().unwrap().overlap = 2;
    let journal = open(&disk, &clock);
    append(&journal, 3);
    let mut follower = follower(&journal, &sink);
    assert_eq!(follower.step(), Step::Delivered(4));
    assert_eq!((follower.step(), follower.probe()), (Step::Idle, Step::Idle));
    sink.take();
    sink.0.lock().unwrap().gone = true;
    assert!(matches!(follower.probe(), Step::Failed(_)));
    let health = follower.health();
    assert!(health.failing.is_some() && health.behind_events == 0, "{health:?}");
    sink.0.lock().unwrap().gone = false;
    assert_eq!(follower.step(), Step::Delivered(2));
    assert_eq!(sink.take(), events(3..=4));
    assert_eq!(follower.health().failing, None);
}

#[test]
fn a_failing_sink_is_tried_less_and_less_often_and_its_health_says_so() {
    let (disk, clock, sink) = (Disk::default(), Arc::<ManualClock>::default(), TestSink::default());
    let journal = open(&disk, &clock);
    append(&journal, 3);
    let mut follower = follower(&journal, &sink);
    sink.fail(true);
    let since = clock.now().wall;
    for seconds in [1, 2, 4, 8, 16, 32, 60, 60] {
        assert_eq!(follower.step(), Step::Failed(Duration::from_secs(seconds)));
        clock.advance(Duration::from_secs(seconds));
    }
    for _ in 0..100 {
        assert_eq!(follower.step(), Step::Failed(Duration::from_secs(60)));
    }
    append(&journal, 2);
    let health = follower.health();
    assert_eq!((health.delivered, health.behind_events), (Sequence(0), 6));
    assert_eq!(health.behind, Duration::from_secs(183));
    let failing = health.failing.unwrap();
    assert_eq!((failing.since, failing.tries), (since, 108));
    assert_eq!(failing.error, "connection\\u{a}refused");
    sink.fail(false);
    sink.take();
    assert_eq!(follower.step(), Step::Delivered(6));
    assert_eq!(sink.take(), events(1..=6));
    let health = follower.health();
    assert_eq!((health.behind_events, health.behind, health.failing), (0, Duration::ZERO, None));
}

#[test]
fn what_may_not_have_arrived_comes_again() {
    let (disk, clock, sink) = (Disk::default(), Arc::default(), TestSink::default());
    let journal = open(&disk, &clock);
    append(&journal, 9);
    sink.0.lock().unwrap().overlap = 3;
    let mut follower = follower(&journal, &sink);
    follower.step();
    assert_eq!(sink.take(), events(1..=10));
    append(&journal, 1);
    sink.fail(true);
    assert!(matches!(follower.step(), Step::Failed(_)));
    assert_eq!(sink.take(), events(11..=11));
    sink.fail(false);
    follower.step();
    assert_eq!(sink.take(), events(8..=11));
}

#[test]
fn a_sink_that_comes_too_late_is_told_of_the_gap() {
    let (disk, clock, sink) = (Disk::default(), Arc::default(), TestSink::default());
    let journal = open(&disk, &clock);
    append(&journal, 3);
    let mut follower = follower(&journal, &sink);
    follower.step();
    sink.take();
    append(&journal, 300);
    journal.anchored(journal.head()).unwrap();
    let removed = journal.remove_before(Sequence(u64::MAX), Actor::Appliance, Origin::Console, LONG).unwrap();
    assert_eq!(removed, 2);
    let first = journal.health().first.0;
    drop(follower);
    let mut follower = self::follower(&journal, &sink);
    while follower.step() != Step::Idle {}
    let got = sink.take();
    assert_eq!(got[..2], [Got::Gap(5, first - 1), Got::Event(first)]);
    assert_eq!(follower.health().gaps, 1);
    // The journal knows that this sink is not complete.
    append(&journal, 1);
    let mut reader = journal.reader(Sequence(first));
    let mut told = Vec::new();
    while let Some(read) = reader.read_next().unwrap() {
        if let Read::Record(record) = read {
            told.extend(Some(record.event().unwrap()).filter(|event| event.action == Action::SinkGap));
        }
    }
    assert_eq!(told.len(), 1);
    assert_eq!(told[0].details.get("first"), Some(&Value::Number(5)));
}

#[test]
fn a_cursor_that_cannot_be_stored_is_told() {
    let (disk, clock, sink) = (Disk::default(), Arc::default(), TestSink::default());
    let journal = open(&disk, &clock);
    append(&journal, 1);
    let mut follower = follower(&journal, &sink);
    disk.set_room(Some(disk.used()));
    assert_eq!(follower.step(), Step::Delivered(2));
    assert!(follower.health().cursor_error.is_some());
    disk.set_room(None);
    append(&journal, 1);
    follower.step();
    assert_eq!(follower.health().cursor_error, None);
}

#[test]
fn a_damaged_or_foreign_cursor_repeats_instead_of_leaving_out() {
    let (disk, clock, sink) = (Disk::default(), Arc::default(), TestSink::default());
    let journal = open(&disk, &clock);
    append(&journal, 2);
    follower(&journal, &sink).step();
    for wrong in [b"nonsense".to_vec(), vec![0; 1000]] {
        sink.take();
        disk.replace("cursor-test", &wrong).unwrap();
        follower(&journal, &sink).step();
        assert_eq!(sink.take(), events(1..=3));
    }
}

use crate::folder::Folder as _;

/// A sink that never answers.
struct Hanging(Mutex<Receiver<()>>);

impl Sink for Hanging {
    fn deliver(&mut self, _: Delivery<'_>) -> io::Result<()> {
        let _ = self.0.lock().unwrap().recv();
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_hanging_sink_is_in_nobodys_way_and_is_seen() {
    let (disk, clock) = (Disk::default(), Arc::<ManualClock>::default());
    let journal = open(&disk, &clock);
    append(&journal, 1);
    let (release, held) = channel();
    let hanging = Box::new(Hanging(Mutex::new(held)));
    let hanging = Follower::new(&journal, &Code::new("hanging").unwrap(), hanging).unwrap().start().unwrap();
    let sink = TestSink::default();
    let good = follower(&journal, &sink).start().unwrap();
    append(&journal, 50);
    while good.health().behind_events > 0 {
        std::thread::yield_now();
    }
    assert_eq!(sink.take(), events(1..=52));
    clock.advance(Duration::from_secs(7));
    while hanging.health().behind.is_zero() {
        // Its thread has not begun yet.
        std::thread::yield_now();
        clock.advance(Duration::from_secs(7));
    }
    let health = hanging.health();
    assert_eq!((health.delivered, health.behind_events), (Sequence(0), 52));
    good.stop();
    drop(release);
    hanging.stop();
}

/// A sink with a fault of its own.
struct Panicking;

impl Sink for Panicking {
    fn deliver(&mut self, _: Delivery<'_>) -> io::Result<()> {
        panic!("a fault of this sink, on purpose");
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn the_end_of_a_sinks_thread_is_told() {
    let (disk, clock) = (Disk::default(), Arc::default());
    let journal = open(&disk, &clock);
    append(&journal, 1);
    let name = Code::new("broken").unwrap();
    let thread = Follower::new(&journal, &name, Box::new(Panicking)).unwrap().start().unwrap();
    while thread.health().failing.is_none() {
        std::thread::yield_now();
    }
    assert_eq!(thread.health().failing.unwrap().error, "its thread ended");
    append(&journal, 1);
}
