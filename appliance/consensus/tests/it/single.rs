//! One validator.

use crate::harness::*;
use std::sync::Arc;
use std::time::Instant;
use zixt_consensus::*;
use zixt_crypto::Reference;
use zixt_types::{Height, Round, Vote, VoteStep};

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
    let config = Config {
        me: node.me,
        genesis: GENESIS,
        timeouts: Timeouts::default(),
        verify_own_votes: true,
    };
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

#[test]
fn damage_to_what_was_durable_is_an_error() {
    let (mut node, set) = alone();
    let mut engine = node.boot(&set, Flush::Inline).unwrap();
    node.fuse.light(100);
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
