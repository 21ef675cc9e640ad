//! One validator.

use crate::harness::*;
use std::io;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use zixt_consensus::*;
use zixt_crypto::Reference;
use zixt_types::{Hash, Height, Round, Vote, VoteStep};

fn alone() -> (Node, ValidatorSet) {
    let node = Node::new(1, Key::Dummy(vec![1; 8]));
    let set = ValidatorSet::new(vec![node.validator(5)]).unwrap();
    (node, set)
}

#[test]
fn decides_a_thousand_heights_with_one_flush_and_two_votes_each() {
    let (mut node, set) = alone();
    let mut engine = node.boot(&set, Flush::Beside).unwrap();
    let before = engine.wal_stats();
    let begun = Instant::now();
    for _ in 0..1000 {
        let start = node.start(&set);
        engine.start_height(start, &mut node).unwrap();
    }
    println!("{:?} per height", begun.elapsed() / 1000);
    assert_eq!(node.stored.len(), 1000);
    let syncs = engine.wal_stats().syncs - before.syncs;
    assert_eq!((syncs, node.custody.signatures), (1000, 2000));
    assert!(node.outbox.is_empty() && node.timers.is_empty(), "nobody to talk to, nothing to wait for");
    assert!(node.custody.conflicts.is_empty());
    for decision in &node.stored {
        check_certificate(&Dummy, &[&node], &set, decision);
    }
}

#[test]
fn decides_with_ml_dsa_on_a_real_file() {
    let folder = tempfile::tempdir().unwrap();
    let mut node = Node::new(1, Key::ml_dsa(1));
    let set = ValidatorSet::new(vec![node.validator(1)]).unwrap();
    let open = || DiskFile::open(&folder.path().join("wal"), 1 << 20).unwrap();
    let config =
        Config { me: node.me, genesis: GENESIS, timeouts: Timeouts::default(), verify_own_votes: true };
    for _ in 0..3 {
        let wal = Wal::open(Arc::new(open()), 1, Flush::Beside).unwrap();
        let mut engine = Engine::new(config, Arc::new(Reference), wal, node.start(&set));
        assert!(!engine.has_unfinished_height());
        for _ in 0..3 {
            engine.start_height(node.start(&set), &mut node).unwrap();
        }
    }
    assert_eq!(node.stored.len(), 9);
    for decision in &node.stored {
        check_certificate(&Reference, &[&node], &set, decision);
    }
}

#[test]
fn waits_for_a_value_and_takes_it_later() {
    let (mut node, set) = alone();
    node.idle = true;
    let mut engine = node.boot(&set, Flush::Inline).unwrap();
    engine.start_height(node.start(&set), &mut node).unwrap();
    let timer = Timer { height: Height(1), round: Round(0), kind: TimerKind::Propose };
    assert_eq!(node.timers.keys().copied().collect::<Vec<_>>(), [timer]);
    node.timers.clear();
    // Nothing came: the round is lost, and the next one asks again.
    engine.timeout(timer, &mut node).unwrap();
    assert_eq!(engine.round(), Some(Round(1)));
    engine.timeout(timer, &mut node).unwrap();
    assert_eq!(engine.round(), Some(Round(1)), "an old timer changes nothing");
    node.idle = false;
    let proposed = node.build(Height(1), Round(1)).unwrap().unwrap();
    assert!(!engine.propose(Round(0), proposed.clone(), &mut node).unwrap());
    assert!(engine.propose(Round(1), proposed, &mut node).unwrap());
    assert_eq!((node.stored.len(), node.stored[0].round), (1, Round(1)));
    assert!(node.timers.is_empty());
}

/// The log has lost the value, and custody has signed a prevote for it. The earlier prevote stands; the round is lost
/// and the next one decides another value.
#[test]
fn an_earlier_prevote_for_a_lost_value_costs_a_round() {
    let (mut node, set) = alone();
    let lost = node.build(Height(1), Round(0)).unwrap().unwrap();
    let earlier = Vote {
        version: 1,
        suite: SUITE,
        genesis: GENESIS,
        height: Height(1),
        round: Round(0),
        step: VoteStep::Prevote,
        header: Some(lost.header),
    };
    let signature = node.custody.key.sign(&earlier);
    node.custody.signed.insert(earlier.slot(), (earlier.clone(), signature));
    let mut engine = node.boot(&set, Flush::Beside).unwrap();
    engine.start_height(node.start(&set), &mut node).unwrap();
    assert_eq!((node.stored.len(), node.stored[0].round), (1, Round(1)));
    assert_ne!(node.stored[0].header, lost.header);
    assert_eq!(node.custody.conflicts, [earlier.slot()]);
    engine.start_height(node.start(&set), &mut node).unwrap();
    assert_eq!((node.stored.len(), node.stored[1].round), (2, Round(0)));
}

/// The log has lost what custody knows to be precommitted. Another value must never be decided.
#[test]
fn a_lost_precommit_stops_the_engine() {
    let (mut node, set) = alone();
    let mut engine = node.boot(&set, Flush::Beside).unwrap();
    engine.start_height(node.start(&set), &mut node).unwrap();
    let decided = node.stored.pop().unwrap();
    drop(engine);
    node.disk.wipe();
    let signatures = node.custody.signatures;
    let mut engine = node.boot(&set, Flush::Beside).unwrap();
    let error = engine.start_height(node.start(&set), &mut node).unwrap_err();
    assert!(
        matches!(error, EngineError::LockLost { height: Height(1), header, .. } if header == decided.header),
        "{error}"
    );
    assert_eq!(node.custody.signatures, signatures);
    let again = engine.start_height(node.start(&set), &mut node).unwrap_err();
    assert!(matches!(again, EngineError::Stopped));
}

/// The same with a custody daemon that cannot tell at start: the conflict in the slot itself is noticed.
#[test]
fn a_lost_precommit_stops_the_engine_at_the_latest_in_its_slot() {
    let (mut node, set) = alone();
    let mut engine = node.boot(&set, Flush::Beside).unwrap();
    engine.start_height(node.start(&set), &mut node).unwrap();
    let decided = node.stored.pop().unwrap();
    drop(engine);
    node.disk.wipe();
    node.custody.mute = true;
    let mut engine = node.boot(&set, Flush::Beside).unwrap();
    let error = engine.start_height(node.start(&set), &mut node).unwrap_err();
    assert!(
        matches!(error, EngineError::LockLost { height: Height(1), header, .. } if header == decided.header),
        "{error}"
    );
    assert!(node.stored.is_empty());
}

#[test]
fn damage_to_what_was_durable_is_an_error() {
    let (mut node, set) = alone();
    let mut engine = node.boot(&set, Flush::Inline).unwrap();
    engine.start_height(node.start(&set), &mut node).unwrap();
    node.stored.clear();
    drop(engine);
    node.disk.crash(Loss::Nothing, &mut Chance(0));
    node.disk.damage(4096 + 60);
    let mut engine = node.boot(&set, Flush::Inline).unwrap();
    let error = engine.start_height(node.start(&set), &mut node).unwrap_err();
    assert!(matches!(error, EngineError::Wal(WalError::Damaged { height: Height(1), .. })), "{error}");
}

#[test]
fn a_store_that_was_rolled_back_is_noticed() {
    let (mut node, set) = alone();
    let mut engine = node.boot(&set, Flush::Inline).unwrap();
    for _ in 0..3 {
        engine.start_height(node.start(&set), &mut node).unwrap();
    }
    node.stored.truncate(1);
    let mut engine = node.boot(&set, Flush::Inline).unwrap();
    let error = engine.start_height(node.start(&set), &mut node).unwrap_err();
    assert!(
        matches!(error, EngineError::Wal(WalError::Ahead { log: Height(3), host: Height(2) })),
        "{error}"
    );
}

#[test]
fn heights_are_started_in_order() {
    let (mut node, set) = alone();
    let mut engine = node.boot(&set, Flush::Inline).unwrap();
    engine.start_height(node.start(&set), &mut node).unwrap();
    let again = HeightStart { height: Height(1), suite: SUITE, validators: set.clone() };
    let error = engine.start_height(again, &mut node).unwrap_err();
    assert!(matches!(error, EngineError::WrongHeight { asked: Height(1), next: Height(2) }), "{error}");
    engine.start_height(node.start(&set), &mut node).unwrap();
    assert_eq!(node.stored.len(), 2);
}

/// A file whose sync ends only when the prevote has been asked for: with a flush before it, nothing would move.
struct Meeting(Disk, Mutex<Receiver<()>>, Sender<()>);

impl WalFile for Meeting {
    fn read_all(&self) -> io::Result<Vec<u8>> {
        self.0.read_all()
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.0.write_at(offset, bytes)
    }

    fn sync(&self) -> io::Result<()> {
        let waited = self.1.lock().unwrap().recv_timeout(Duration::from_secs(20));
        waited.map_err(|_| io::Error::other("nobody came"))?;
        std::thread::sleep(Duration::from_millis(20));
        self.0.sync()?;
        self.2.send(()).map_err(io::Error::other)
    }
}

/// Passes everything on to a node, and meets the file.
struct Guest(Node, Sender<()>, Receiver<()>);

impl Host for Guest {
    fn build(&mut self, height: Height, round: Round) -> Result<Option<Proposed>, HostError> {
        self.0.build(height, round)
    }

    fn validate(&mut self, _: Height, _: &Hash, _: &Content, _: Source) -> Result<bool, HostError> {
        unreachable!("our own proposal")
    }

    fn sign_vote(&mut self, vote: &Vote) -> Result<SignOutcome, HostError> {
        match vote.step {
            VoteStep::Prevote => self.1.send(())?,
            VoteStep::Precommit => self.2.try_recv().expect("a precommit before the log was durable"),
        }
        self.0.sign_vote(vote)
    }

    fn signed_precommit(&mut self, height: Height) -> Result<Option<(Round, Hash)>, HostError> {
        self.0.signed_precommit(height)
    }

    fn publish(&mut self, _: Message) {}

    fn schedule(&mut self, _: Timer, _: Duration) {}

    fn cancel(&mut self, _: Timer) {}

    fn decided(&mut self, decision: Decision) -> Result<(), HostError> {
        self.0.decided(decision)
    }

    fn equivocation(&mut self, _: Equivocation) {}
}

#[test]
fn the_flush_runs_beside_the_prevote_and_ends_before_the_precommit() {
    let (node, set) = alone();
    let (asked, prevotes) = channel();
    let (done, flushes) = channel();
    asked.send(()).unwrap(); // The first block of a new file.
    let file = Meeting(node.disk.clone(), Mutex::new(prevotes), done);
    let wal = Wal::open(Arc::new(file), 1, Flush::Beside).unwrap();
    flushes.recv().unwrap();
    let config =
        Config { me: node.me, genesis: GENESIS, timeouts: Timeouts::default(), verify_own_votes: true };
    let mut engine = Engine::new(config, Arc::new(Dummy), wal, node.start(&set));
    let mut guest = Guest(node, asked, flushes);
    for _ in 0..3 {
        engine.start_height(guest.0.start(&set), &mut guest).unwrap();
    }
    assert_eq!(guest.0.stored.len(), 3);
}

/// A custody daemon that is locked, then signs rubbish, then works.
#[test]
fn the_engine_stops_without_a_good_signature_and_goes_on_later() {
    let (mut node, set) = alone();
    node.custody.locked = true;
    let mut engine = node.boot(&set, Flush::Inline).unwrap();
    let error = engine.start_height(node.start(&set), &mut node).unwrap_err();
    assert!(matches!(error, EngineError::Refused(_)), "{error}");
    node.custody.locked = false;
    let key = std::mem::replace(&mut node.custody.key, Key::Dummy(vec![9; 8]));
    let mut engine = node.boot(&set, Flush::Inline).unwrap();
    assert!(engine.has_unfinished_height());
    let error = engine.start_height(node.start(&set), &mut node).unwrap_err();
    assert!(matches!(error, EngineError::OwnSignature { .. }), "{error}");
    node.custody.key = key;
    node.custody.signed.clear();
    let mut engine = node.boot(&set, Flush::Inline).unwrap();
    engine.start_height(node.start(&set), &mut node).unwrap();
    assert_eq!((node.stored.len(), node.built), (1, 1), "the logged value is proposed again");
}

#[test]
fn content_of_the_log_is_judged_again() {
    let (mut node, set) = alone();
    node.custody.locked = true;
    let mut engine = node.boot(&set, Flush::Inline).unwrap();
    engine.start_height(node.start(&set), &mut node).unwrap_err();
    node.custody.locked = false;
    node.rejects = true;
    let mut engine = node.boot(&set, Flush::Inline).unwrap();
    let error = engine.start_height(node.start(&set), &mut node).unwrap_err();
    assert!(matches!(error, EngineError::LogRefused { height: Height(1), .. }), "{error}");
    assert!(node.custody.signed.is_empty());
}

/// The server runs it on a thread of its own.
#[test]
fn the_engine_can_be_sent_to_a_thread() {
    fn sendable<T: Send>() {}
    sendable::<Engine>();
}
