//! One validator that crashes between any two operations of the log, the custody daemon and the store.

use crate::harness::*;
use zixt_consensus::*;
use zixt_types::{Height, VoteStep};

const HEIGHTS: usize = 3;

/// Lives until it has decided all heights or crashes.
fn live(node: &mut Node, set: &ValidatorSet, flush: Flush) -> Result<(), String> {
    let mut engine = node.boot(set, flush).map_err(|error| error.to_string())?;
    while node.stored.len() < HEIGHTS {
        let start = node.start(set);
        engine.start_height(start, node).map_err(|error| error.to_string())?;
        assert!(node.timers.is_empty(), "it waits for nobody");
    }
    Ok(())
}

fn crash_and_recover(crashes: &[u64], flush: Flush, loss: Loss, chance: &mut Chance) -> bool {
    let mut node = Node::new(1, Key::Dummy(vec![1; 8]));
    node.batch_bytes = 6000;
    let set = ValidatorSet::new(vec![node.validator(1)]).unwrap();
    let mut crashed = false;
    for operations in crashes {
        node.fuse.light(*operations);
        crashed |= live(&mut node, &set, flush).is_err();
        node.disk.crash(loss, chance);
        node.timers.clear();
    }
    node.fuse.repair();
    live(&mut node, &set, flush).unwrap();
    assert_eq!(node.stored.len(), HEIGHTS);
    for (decision, height) in node.stored.iter().zip(1..) {
        assert_eq!(decision.height, Height(height));
        check_certificate(&Dummy, &[&node], &set, decision);
    }
    // A precommit for a header is never asked for twice with different headers; a prevote may be, if the log lost the
    // value before it was durable.
    assert!(node.custody.conflicts.iter().all(|(_, _, step)| *step == VoteStep::Prevote));
    if loss == Loss::Nothing {
        assert!(node.custody.conflicts.is_empty(), "the log was whole: {:?}", node.custody.conflicts);
    }
    crashed
}

#[test]
fn a_crash_at_any_operation_loses_nothing() {
    for flush in [Flush::Inline, Flush::Beside] {
        for loss in [Loss::Nothing, Loss::All, Loss::Some] {
            let mut operations = 0;
            loop {
                let seed = 1000 + operations;
                println!("{flush:?}, {loss:?}, crash at operation {operations}, seed {seed}");
                if !crash_and_recover(&[operations], flush, loss, &mut Chance(seed)) {
                    break;
                }
                operations += 1;
            }
            assert!(operations > 20, "only {operations} operations");
        }
    }
}

#[test]
fn repeated_crashes_lose_nothing() {
    for seed in 0..1500 {
        let mut chance = Chance(seed);
        let crashes: Vec<_> = (0..1 + chance.below(5)).map(|_| chance.below(40)).collect();
        let flush = if chance.below(2) == 0 { Flush::Inline } else { Flush::Beside };
        println!("seed {seed}, crashes {crashes:?}, {flush:?}");
        crash_and_recover(&crashes, flush, Loss::Some, &mut chance);
    }
}
