//! What a store does when nobody interferes.

use crate::sample::World;
use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;
use zixt_ledger::TreeId;
use zixt_ledger::tree::{inclusion_plan, leaf_hash, verify_inclusion};
use zixt_storage::{CommitError, Committed, Position, PutKeyPackagesError, PutNameError, Store};
use zixt_types::{AccountId, Attachment, DeviceId, Height, Member, Seq, limits};

async fn fill(store: &Store, world: &World) {
    for (block, certificate) in &world.blocks {
        store.commit_batch(block, certificate).await.unwrap();
    }
}

pub(crate) async fn an_empty_store_is_a_new_ledger(store: &Store) {
    let world = World::new();
    let state = load(store, &world).await;
    assert_eq!(state.height, Height(0));
    assert_eq!(store.last_header().await.unwrap(), None);
    let mailbox = store.mailbox(&world.bob.member, Position(0), 10).await.unwrap();
    assert!(mailbox.positions.is_empty());
    assert_eq!(store.last_position().await.unwrap(), Position(0));
}

async fn load(store: &Store, world: &World) -> zixt_ledger::LedgerState {
    let network = &world.network;
    let genesis = (*network.state.genesis).clone();
    store.load(genesis, network.keyring.clone(), &*network.backend).await.unwrap()
}

pub(crate) async fn a_height_comes_back_as_it_went_in(store: &Store) {
    let mut world = World::new();
    for count in [1, 5, 70] {
        world.messages(count, 3_000);
    }
    fill(store, &world).await;
    let mut position = Position(0);
    for (block, certificate) in &world.blocks {
        let stored = store.header(block.header().height).await.unwrap().unwrap();
        assert_eq!(
            (&stored.header, stored.hash, &stored.certificate),
            (block.header(), block.header_hash, certificate)
        );
        assert_eq!(stored.first.0, position.0 + 1);
        for entry in &block.entries {
            position.0 += 1;
            let (thread, seq) = (entry.body.thread, entry.item.position.seq);
            let stored = store.entry(&thread, seq).await.unwrap().unwrap();
            assert_eq!(stored.position, position);
            assert_eq!(stored.height, block.header().height);
            assert_eq!((stored.shard, stored.leaf, stored.hash), (entry.shard, entry.leaf, entry.hash));
            assert_eq!(
                (&stored.body, &stored.body_bytes, &stored.signature, &stored.possession),
                (&entry.body, &entry.item.body, &entry.item.signature, &entry.item.possession)
            );
            assert_eq!((stored.place, stored.salt), (entry.item.position, entry.item.salt));
            let again = store.receipt_source(&thread, &entry.body.message_id).await.unwrap();
            assert_eq!(again.as_ref(), Some(&stored));
            for (index, Attachment(bytes)) in entry.item.attachments.iter().enumerate() {
                let attachment = store.attachment(&stored, index).await.unwrap();
                assert_eq!(attachment.as_ref(), Some(bytes));
                let length = store.attachment_bytes(&stored, index).await.unwrap();
                assert_eq!(length, Some(bytes.len() as u64));
            }
            let beyond = entry.item.attachments.len();
            assert_eq!(store.attachment_bytes(&stored, beyond).await.unwrap(), None);
            assert_eq!(store.attachment(&stored, beyond).await.unwrap(), None);
        }
    }
    let listed = store.entries(&world.thread, Seq(3), 256).await.unwrap();
    assert_eq!(listed.len(), 75);
    assert!(listed.iter().zip(3..).all(|(found, seq)| found.place.seq == Seq(seq)));
    let positions: Vec<Position> = listed.iter().map(|entry| entry.position).collect();
    let cached = store.deliveries(&positions).await.unwrap();
    store.forget_cached();
    assert_eq!(store.deliveries(&positions).await.unwrap(), cached);
    assert!(cached.iter().zip(&listed).all(|(found, entry)| *found.entry == *entry));
    assert!(cached.iter().all(|found| found.envelope.as_ref().unwrap().len() == 3_000));
    assert_eq!(store.last_position().await.unwrap(), position);
    assert_eq!(store.entries(&world.thread, Seq(78), 256).await.unwrap(), []);
    let headers = store.headers(Height(2), 3).await.unwrap();
    assert_eq!(headers.iter().map(|header| header.header.height.0).collect::<Vec<_>>(), [2, 3, 4]);
    let last = store.last_header().await.unwrap().unwrap();
    assert_eq!(last.header.height, world.network.state.height);
}

pub(crate) async fn a_state_comes_back_as_it_was(store: &Store) {
    let mut world = World::new();
    world.messages(20, 100);
    for (block, certificate) in &world.blocks {
        store.commit_batch(block, certificate).await.unwrap();
    }
    let (state, wanted) = (load(store, &world).await, &world.network.state);
    assert_eq!(
        (state.height, state.header_hash, state.time),
        (wanted.height, wanted.header_hash, wanted.time)
    );
    assert_eq!((&state.history, &state.shards), (&wanted.history, &wanted.shards));
    assert_eq!(state.heads.root(), wanted.heads.root());
    assert_eq!(state.keyring, wanted.keyring);
    assert_eq!(state.threads().count(), wanted.threads().count());
    for (id, thread) in wanted.threads() {
        assert_eq!(state.thread(id), Some(thread));
    }
    // It goes on from there.
    world.network.state = state;
    let (block, certificate) = world.messages(2, 10);
    store.commit_batch(block, certificate).await.unwrap();
    let state = load(store, &world).await;
    assert_eq!(state.header_hash, world.network.state.header_hash);
}

pub(crate) async fn a_height_is_stored_once(store: &Store) {
    let mut world = World::new();
    world.messages(3, 10);
    let (last, earlier) = world.blocks.split_last().unwrap();
    for (block, certificate) in earlier {
        assert!(matches!(store.commit_batch(block, certificate).await, Ok(Committed::Stored { .. })));
    }
    let first = store.commit_batch(&last.0, &last.1).await.unwrap().first();
    for (block, certificate) in &world.blocks {
        let again = store.commit_batch(block, certificate).await.unwrap();
        assert!(matches!(again, Committed::AlreadyStored { .. }), "{again:?}");
    }
    assert_eq!(store.commit_batch(&last.0, &last.1).await.unwrap(), Committed::AlreadyStored { first });

    let mut other = World::new();
    other.messages(4, 10);
    let (block, certificate) = other.blocks.last().unwrap();
    let refused = store.commit_batch(block, certificate).await;
    assert!(
        matches!(refused, Err(CommitError::OtherHeader { height, .. }) if height == block.header().height)
    );
    let (block, certificate) = other.messages(1, 10).clone();
    let refused = store.commit_batch(&block, &certificate).await;
    assert!(matches!(refused, Err(CommitError::Previous { .. })), "{refused:?}");
    let refused = store.commit_batch(&block, &last.1).await;
    assert!(matches!(refused, Err(CommitError::Certificate(_))), "{refused:?}");
    world.messages(1, 10);
    let (block, certificate) = world.messages(1, 10);
    let refused = store.commit_batch(block, certificate).await;
    assert!(matches!(refused, Err(CommitError::Gap { .. })), "{refused:?}");
}

/// What is staged is not there until it is committed, and undone if it is dropped.
pub(crate) async fn a_staged_height_is_nothing_until_it_is_committed(store: &Store) {
    let mut world = World::new();
    world.messages(3, 10);
    let (last, earlier) = world.blocks.split_last().unwrap();
    for (block, certificate) in earlier {
        store.commit_batch(block, certificate).await.unwrap();
    }
    let (block, certificate) = last;
    let member = world.bob.member;
    let head = store.last_header().await.unwrap();
    let before = store.mailbox(&member, Position(0), 100).await.unwrap();
    store.acknowledge(&member, Position(1)).await.unwrap();
    for give_up_at_once in [false, true] {
        if give_up_at_once {
            let mut staging = Box::pin(store.stage_batch(Arc::clone(block)));
            let context = &mut std::task::Context::from_waker(std::task::Waker::noop());
            assert!(staging.as_mut().poll(context).is_pending());
        } else {
            let staged = store.stage_batch(Arc::clone(block)).await.unwrap();
            assert_eq!(store.last_header().await.unwrap(), head);
            store.forget_cached();
            assert_eq!(store.mailbox(&member, Position(0), 100).await.unwrap(), before);
            drop(staged);
        }
        // Whoever writes next undoes it.
        store.put_key_packages(&member.device, &[], Some(b"last")).await.unwrap();
        assert_eq!(store.last_header().await.unwrap(), head);
        assert_eq!(load(store, &world).await.height.next(), block.header().height);
    }
    let staged = store.stage_batch(Arc::clone(block)).await.unwrap();
    let refused = store.commit_staged(staged, &earlier[0].1).await;
    assert!(matches!(refused, Err(CommitError::Certificate(_))), "{refused:?}");
    let staged = store.stage_batch(Arc::clone(block)).await.unwrap();
    assert!(matches!(store.commit_staged(staged, certificate).await, Ok(Committed::Stored { .. })));
    let staged = store.stage_batch(Arc::clone(block)).await.unwrap();
    assert!(matches!(store.commit_staged(staged, certificate).await, Ok(Committed::AlreadyStored { .. })));
    assert_eq!(load(store, &world).await.height, block.header().height);
    assert_eq!(store.acknowledged(&member).await.unwrap(), Position(1));
}

/// Who was removed is told up to that, and who was removed again after another time, up to the second.
pub(crate) async fn a_removed_member_has_a_last_entry(store: &Store) {
    let mut world = World::new();
    world.messages(3, 10);
    let (thread, bob) = (world.thread, world.bob.member);
    let mut removals = Vec::new();
    for _ in 0..2 {
        let removal = world.network.commit(thread, &world.alice, vec![], vec![bob]);
        world.record(removal);
        removals.push(world.blocks.iter().map(|(block, _)| block.entries.len() as u64).sum::<u64>());
        world.messages(2, 10);
        let addition = world.network.commit(thread, &world.alice, vec![bob], vec![]);
        world.record(addition);
    }
    let mut seen = Vec::new();
    for (block, certificate) in &world.blocks {
        store.commit_batch(block, certificate).await.unwrap();
        seen.push(store.last_told(&thread, &bob).await.unwrap().map(|last| last.0));
    }
    seen.dedup();
    assert_eq!(seen, [None, Some(removals[0]), Some(removals[1])]);
    assert_eq!(store.last_told(&thread, &world.alice.member).await.unwrap(), None);
    let other = world.network.thread_id();
    assert_eq!(store.last_told(&other, &bob).await.unwrap(), None);
}

/// Under load a transaction is always open; the log has to be written from its beginning again all the same.
pub(crate) async fn the_log_does_not_grow_without_an_end(store: &Store, log: &Path) {
    let mut world = World::new();
    for _ in 0..120 {
        world.messages(8, 90_000);
    }
    let mut longest = 0;
    let mut blocks = world.blocks.iter();
    let (block, certificate) = blocks.next().unwrap();
    let mut staged = (store.stage_batch(Arc::clone(block)).await.unwrap(), certificate);
    for (block, certificate) in blocks {
        let next = {
            let (store, block) = (store.clone(), Arc::clone(block));
            tokio::spawn(async move { store.stage_batch(block).await.unwrap() })
        };
        // It waits for the writer before the last height is durable.
        tokio::task::yield_now().await;
        store.commit_staged(staged.0, staged.1).await.unwrap();
        longest = longest.max(std::fs::metadata(log).unwrap().len());
        staged = (next.await.unwrap(), certificate);
    }
    assert!(longest > 0 && longest < 40 << 20, "the log reached {longest} bytes");
}

/// Compared with the ledger's own list of recipients, for every device that there is.
pub(crate) async fn a_mailbox_holds_what_the_ledger_says(store: &Store) {
    let mut world = World::new();
    for count in [1, 40, 7] {
        world.messages(count, 50);
    }
    fill(store, &world).await;
    let recorded: Vec<_> = world.blocks.iter().flat_map(|(block, _)| &block.entries).collect();
    let everybody: HashSet<Member> = recorded.iter().flat_map(|entry| entry.recipients.clone()).collect();
    assert_eq!(everybody.len(), 3);
    for (member, cold) in everybody.into_iter().flat_map(|member| [(member, false), (member, true)]) {
        if cold {
            store.forget_cached();
        }
        let wanted: Vec<u64> = recorded
            .iter()
            .zip(1..)
            .filter(|(entry, _)| entry.recipients.contains(&member))
            .map(|(_, position)| position)
            .collect();
        let mut got = Vec::new();
        let mut after = Position(0);
        loop {
            let page = store.mailbox(&member, after, 7).await.unwrap();
            if page.positions.is_empty() {
                assert_eq!(page.upto.0, recorded.len() as u64);
                break;
            }
            after = page.upto;
            let deliveries = store.deliveries(&page.positions).await.unwrap();
            got.extend(deliveries.iter().map(|delivery| delivery.entry.position.0));
            let envelopes = deliveries.iter().filter_map(|delivery| delivery.envelope.as_ref());
            assert_eq!(page.envelope_bytes, envelopes.map(|envelope| envelope.len() as u64).sum::<u64>());
            for delivery in &deliveries {
                let envelope = recorded[delivery.entry.position.0 as usize - 1]
                    .item
                    .attachments
                    .first()
                    .filter(|_| delivery.entry.envelope_digest().is_some());
                assert_eq!(delivery.envelope.as_deref(), envelope.map(|a| &a.0));
            }
        }
        assert_eq!(got, wanted);
    }
}

pub(crate) async fn proofs_find_their_nodes(store: &Store) {
    let mut world = World::new();
    world.messages(45, 10);
    fill(store, &world).await;
    for entry in world.blocks.iter().flat_map(|(block, _)| &block.entries) {
        let tree = &world.network.state.shards[usize::from(entry.shard.0)];
        let plan = inclusion_plan(entry.leaf, tree.size()).unwrap();
        let id = TreeId::Shard(entry.shard);
        let wanted: Vec<_> = plan.nodes().map(|node| (id, node)).collect();
        let nodes = store.nodes(&wanted).await.unwrap();
        let proof = plan.build(|node| nodes.get(&(id, node)).copied()).unwrap();
        let leaf = leaf_hash(&entry.item.salt, &entry.hash);
        verify_inclusion(leaf, entry.leaf, tree.size(), &proof, tree.root()).unwrap();
    }
}

pub(crate) async fn acknowledgements_only_grow(store: &Store) {
    let mut world = World::new();
    let member = world.alice.member;
    store.acknowledge(&member, Position(5)).await.unwrap();
    store.acknowledge(&member, Position(3)).await.unwrap();
    assert_eq!(store.acknowledged(&member).await.unwrap(), Position(5));
    fill(store, &world).await;
    assert_eq!(store.acknowledged(&member).await.unwrap(), Position(5));
    store.acknowledge(&member, Position(4)).await.unwrap();
    let (block, certificate) = world.messages(1, 10);
    store.commit_batch(block, certificate).await.unwrap();
    assert_eq!(store.acknowledged(&member).await.unwrap(), Position(5));
    assert_eq!(store.acknowledged(&world.bob.member).await.unwrap(), Position(0));
}

fn packages(from: u32, count: u32) -> Vec<Vec<u8>> {
    (from..from + count).map(|n| n.to_be_bytes().repeat(100)).collect()
}

pub(crate) async fn a_key_package_is_handed_out_once(store: &Store) {
    let (device, other) = (DeviceId([1; 16]), DeviceId([2; 16]));
    let claim = || async { store.claim_key_packages(&[device]).await.unwrap().remove(0) };
    assert_eq!(claim().await, None);
    let counts = store.put_key_packages(&device, &packages(0, 2), Some(b"last")).await.unwrap();
    assert_eq!((counts.one_time, counts.last_resort), (2, true));
    let two = store.claim_key_packages(&[device, other, device]).await.unwrap();
    assert_eq!(two[1], None);
    for (claimed, wanted) in [(&two[0], &packages(0, 2)[0]), (&two[2], &packages(0, 2)[1])] {
        let claimed = claimed.as_ref().unwrap();
        assert_eq!((&claimed.bytes, claimed.last_resort), (wanted, false));
    }
    for _ in 0..3 {
        let claimed = claim().await.unwrap();
        assert_eq!((claimed.bytes.as_slice(), claimed.last_resort), (&b"last"[..], true));
    }
    // The upload is repeated because its answer was lost: what was handed out stays handed out.
    store.put_key_packages(&device, &packages(0, 2), Some(b"newer")).await.unwrap();
    assert_eq!(claim().await.unwrap().bytes, b"newer");
    let counts = store.key_package_counts(&device).await.unwrap();
    assert_eq!((counts.one_time, counts.last_resort), (0, true));

    let max = limits::KEY_PACKAGES_MAX as u32;
    store.put_key_packages(&device, &packages(10, max), None).await.unwrap();
    let refused = store.put_key_packages(&device, &packages(1_000, 1), Some(b"newest")).await;
    assert!(matches!(refused, Err(PutKeyPackagesError::TooMany { .. })), "{refused:?}");
    let long = vec![0; limits::KEY_PACKAGE_BYTES_MAX + 1];
    let refused = store.put_key_packages(&other, &[long], None).await;
    assert!(matches!(refused, Err(PutKeyPackagesError::TooLong { .. })), "{refused:?}");
}

pub(crate) async fn concurrent_claims_never_share(store: &Store) {
    let devices = [DeviceId([1; 16]), DeviceId([2; 16])];
    for (device, from) in devices.iter().zip([0, 500]) {
        store.put_key_packages(device, &packages(from, 40), Some(b"last")).await.unwrap();
    }
    let tasks: Vec<_> = (0..50)
        .map(|_| {
            let store = store.clone();
            tokio::spawn(async move { store.claim_key_packages(&devices).await.unwrap() })
        })
        .collect();
    let (mut one_time, mut last_resort) = (Vec::new(), 0);
    for task in tasks {
        for claimed in task.await.unwrap().into_iter().flatten() {
            if claimed.last_resort { last_resort += 1 } else { one_time.push(claimed.bytes) }
        }
    }
    let distinct: HashSet<_> = one_time.iter().collect();
    assert_eq!((one_time.len(), distinct.len(), last_resort), (80, 80, 20));
}

pub(crate) async fn names_and_settings(store: &Store) {
    let (alice, bob) = (AccountId([1; 16]), AccountId([2; 16]));
    store.put_name(alice, b"sealed alice", b"tag of alice").await.unwrap();
    let taken = store.put_name(bob, b"sealed alice", b"tag of alice").await;
    assert!(matches!(taken, Err(PutNameError::Taken(account)) if account == alice));
    store.put_name(alice, b"sealed alice 2", b"tag of alice").await.unwrap();
    assert_eq!(store.name(alice).await.unwrap().unwrap().sealed, b"sealed alice 2");
    assert_eq!(store.name_by_tag(b"tag of alice").await.unwrap().unwrap().account, alice);
    store.put_name(alice, b"renamed", b"other tag").await.unwrap();
    assert_eq!(store.name_by_tag(b"tag of alice").await.unwrap(), None);
    assert_eq!(store.name(bob).await.unwrap(), None);

    assert_eq!(store.meta_get("key").await.unwrap(), None);
    for value in [&b"one"[..], b"two"] {
        store.meta_put("key", value).await.unwrap();
        assert_eq!(store.meta_get("key").await.unwrap().as_deref(), Some(value));
    }
}
