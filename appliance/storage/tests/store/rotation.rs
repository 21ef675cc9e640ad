//! A ledger whose validator's key was replaced twice: it loads, `fsck` derives it again, and what does not lead to the
//! certified sets is refused by both.

use crate::Place;
use crate::attack::{after, put_names, write_state};
use crate::sample::World;
use zixt_crypto::digest;
use zixt_ledger::{Thread, ThreadDetail};
use zixt_types::{BodyKind, Certificate, Decision, Height};

async fn filled() -> (Place, World) {
    let mut world = World::new();
    world.messages(2, 200);
    world.rotate();
    world.messages(1, 200);
    let action = world.network.action(0, Decision::RotateRoot);
    let fact = world.network.decision(&world.network.approve(&action, 1), None);
    world.record(fact);
    world.rotate();
    world.messages(1, 200);
    let place = Place::new();
    let store = place.open().await;
    for (block, certificate) in &world.blocks {
        store.commit_batch(block, certificate).await.unwrap();
    }
    put_names(&store, &world).await;
    store.close().await.unwrap();
    (place, world)
}

#[tokio::test]
async fn a_rotated_ledger_loads_and_is_derived_again() {
    let (place, world) = filled().await;
    let (report, loaded) = after(&place, &world, "UPDATE headers SET first = first").await;
    assert!(report.is_clean(), "{:?}", report.findings);
    loaded.unwrap();
    let store = place.open().await;
    let network = &world.network;
    let genesis = (*network.state.genesis).clone();
    let state = store.load(genesis, network.keyring.clone(), &*network.backend).await.unwrap();
    assert_eq!(state.validators, network.state.validators);
    assert_eq!(state.system, network.state.system);
    assert_eq!(state.header_hash, network.state.header_hash);
    assert!(state.keyring.get(&state.validators[0].consensus).is_some());
    store.close().await.unwrap();
}

#[tokio::test]
async fn forged_decisions_are_refused_at_start_and_by_fsck() {
    let (place, world) = filled().await;
    let decision = BodyKind::Decision as i64;
    let forgeries = [
        // A bit of an approval: the entry's hash tells.
        format!("UPDATE entries SET signature = zeroblob(length(signature)) WHERE kind = {decision}"),
        format!("DELETE FROM entries WHERE kind = {decision} AND seq = 2"),
        format!(
            "DELETE FROM attachments WHERE id IN (SELECT position * 4 FROM entries WHERE kind = {decision})"
        ),
        format!(
            "UPDATE attachments SET bytes = zeroblob(1952) \
             WHERE id IN (SELECT position * 4 FROM entries WHERE kind = {decision})"
        ),
        format!("UPDATE entries SET seq = 9 WHERE kind = {decision} AND seq = 1"),
    ];
    for sql in forgeries {
        let (report, loaded) = after(&place, &world, &sql).await;
        assert!(!report.is_clean(), "{sql}");
        assert!(loaded.is_err(), "{sql}");
    }
    // The stored state of the thread says that the genesis' key still certifies.
    let id = digest::system_thread(world.network.state.genesis_hash);
    let mut thread = Thread::clone(world.network.state.thread(&id).unwrap());
    let ThreadDetail::System(system) = &mut thread.detail else { panic!("the system thread") };
    system.validators.clone_from(&world.network.state.genesis.validators);
    let (report, loaded) = after(&place, &world, &write_state(&id, &thread)).await;
    assert!(!report.is_clean() && loaded.is_err());
}

/// A thief of the retired key certifies the last height again.
#[tokio::test]
async fn a_certificate_by_the_retired_key_is_refused_at_start_and_by_fsck() {
    let mut world = World::new();
    let (key, _, submission) = world.network.activation(0);
    let stolen = std::mem::replace(&mut world.network.validators[0].1, key);
    world.record(submission);
    world.messages(1, 200);
    let present = std::mem::replace(&mut world.network.validators[0].1, stolen);
    let (last, good) = world.blocks.last().cloned().unwrap();
    let forged: Certificate = world.network.certify(&last);
    world.network.validators[0].1 = present;
    for (certificate, is_good) in [(good, true), (forged, false)] {
        let place = Place::new();
        let store = place.open().await;
        let count = world.blocks.len() - 1;
        for (block, certificate) in &world.blocks[..count] {
            store.commit_batch(block, certificate).await.unwrap();
        }
        store.commit_batch(&last, &certificate).await.unwrap();
        put_names(&store, &world).await;
        store.close().await.unwrap();
        let (report, loaded) = after(&place, &world, "UPDATE headers SET first = first").await;
        assert_eq!((report.is_clean(), loaded.is_ok()), (is_good, is_good), "{:?}", report.findings);
        let key = last.header().height;
        assert!(is_good || report.findings.iter().all(|finding| finding.key == key.to_string()));
        assert!(key > Height(1));
    }
}
