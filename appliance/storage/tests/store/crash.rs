//! What is left after the process, the disk or the file system gave up.

use crate::Place;
use crate::sample::{Sealed, World};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection};
use std::fs;
use std::path::{Path, PathBuf};
use zixt_storage::{CommitError, OpenError, Position, Store, StoreError, fsck};
use zixt_types::Height;

fn wal(path: &Path) -> PathBuf {
    path.with_extension("sqlite-wal")
}

/// Opens what is left and returns its height, after it was proven to be a whole prefix of what was committed.
async fn height_left(path: &Path, world: &World) -> Height {
    let store = Store::open(path).await.unwrap();
    let network = &world.network;
    let genesis = || (*network.state.genesis).clone();
    let state = store.load(genesis(), network.keyring.clone(), &*network.backend).await.unwrap();
    let report = fsck(&store, genesis(), network.keyring.clone(), &*network.backend, None).await.unwrap();
    assert!(report.findings.is_empty(), "{:#?}", report.findings);
    assert_eq!(report.derived_to, state.height);
    if let Some(at) = state.height.0.checked_sub(1) {
        assert_eq!(state.header_hash, world.blocks[at as usize].0.header_hash);
    }
    // It goes on from there, the same step again included.
    for (block, certificate) in world.blocks.iter().skip(state.height.0.saturating_sub(1) as usize) {
        store.commit_batch(block, certificate).await.unwrap();
    }
    store.close().await.unwrap();
    state.height
}

#[tokio::test]
async fn a_torn_log_leaves_a_prefix() {
    let mut world = World::new();
    for count in [1, 3, 9, 1] {
        world.messages(count, 700);
    }
    let place = Place::new();
    let store = place.open().await;
    // After each commit: how long the log was. Everything up to there is acknowledged.
    let mut acknowledged = Vec::new();
    for (block, certificate) in &world.blocks {
        store.commit_batch(block, certificate).await.unwrap();
        acknowledged.push(fs::metadata(wal(&place.path)).unwrap().len());
    }
    let (file, log) = (fs::read(&place.path).unwrap(), fs::read(wal(&place.path)).unwrap());
    let mut cuts: Vec<usize> =
        acknowledged.iter().flat_map(|len| [*len as usize, *len as usize - 1]).collect();
    let mut random = 0x9E37_79B9u64;
    for _ in 0..25 {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        cuts.push((random >> 20) as usize % log.len());
    }
    for cut in cuts {
        let wanted = acknowledged.iter().filter(|len| **len as usize <= cut).count() as u64;
        // Cut off, and cut off with garbage behind: a sector that was never written.
        for garbage in [0usize, 5_000] {
            let torn = Place::new();
            let mut bytes = log[..cut].to_vec();
            bytes.extend(std::iter::repeat_n(0xA5, garbage.min(log.len() - cut)));
            // The schema's own transactions stand in the log too; without them the file is empty and made anew.
            fs::write(&torn.path, &file).unwrap();
            fs::write(wal(&torn.path), bytes).unwrap();
            assert_eq!(
                height_left(&torn.path, &world).await,
                Height(wanted),
                "cut at {cut} of {}",
                log.len()
            );
        }
    }
}

/// The files are copied while commits go on, the log first, as a careless backup or a crashed machine would have them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_is_lost_without_closing() {
    let mut world = World::new();
    for _ in 0..12 {
        world.messages(4, 2_000);
    }
    let place = Place::new();
    let store = place.open().await;
    for ((block, certificate), done) in world.blocks.iter().zip(1..) {
        store.commit_batch(block, certificate).await.unwrap();
        if done % 3 == 0 {
            let copy = Place::new();
            fs::copy(&place.path, &copy.path).unwrap();
            fs::copy(wal(&place.path), wal(&copy.path)).unwrap();
            assert_eq!(height_left(&copy.path, &world).await, Height(done));
        }
    }
}

#[tokio::test]
async fn a_full_disk_loses_nothing() {
    let mut world = World::new();
    let place = Place::new();
    let store = place.open().await;
    for (block, certificate) in &world.blocks {
        store.commit_batch(block, certificate).await.unwrap();
    }
    let kept = world.network.state.height;
    store.acknowledge(&world.bob.member, Position(2)).await.unwrap();
    let big: Vec<Sealed> = (0..3).map(|_| world.messages(8, 90_000).clone()).collect();
    let Store::Sqlite(sqlite) = &store;
    // SQLite raises a limit that is below what the file has: what is there is all that fits.
    sqlite.hazmat_writer_pragma("PRAGMA max_page_count = 1").await.unwrap();
    for _ in 0..2 {
        let full = store.commit_batch(&big[0].0, &big[0].1).await;
        assert!(matches!(full, Err(CommitError::Store(StoreError::Full))), "{full:?}");
    }
    assert_eq!(store.last_header().await.unwrap().unwrap().header.height, kept);
    assert_eq!(store.acknowledged(&world.bob.member).await.unwrap(), Position(2));
    // Somebody makes room.
    sqlite.hazmat_writer_pragma("PRAGMA max_page_count = 1000000").await.unwrap();
    for (block, certificate) in &big {
        store.commit_batch(block, certificate).await.unwrap();
    }
    store.close().await.unwrap();
    assert_eq!(height_left(&place.path, &world).await, world.network.state.height);
}

/// A commit whose caller gives up half-way is whole or not there, and the next one works.
#[tokio::test]
async fn an_abandoned_commit_is_whole_or_absent() {
    let mut world = World::new();
    for _ in 0..6 {
        world.messages(10, 3_000);
    }
    let place = Place::new();
    let store = place.open().await;
    for (at, (block, certificate)) in world.blocks.iter().enumerate() {
        let patience = std::time::Duration::from_micros(150 * at as u64);
        let _ = tokio::time::timeout(patience, store.commit_batch(block, certificate)).await;
        store.commit_batch(block, certificate).await.unwrap();
    }
    drop(store);
    assert_eq!(height_left(&place.path, &world).await, world.network.state.height);
}

#[tokio::test]
async fn foreign_and_newer_files_are_refused() {
    for (sql, newer) in [
        ("PRAGMA user_version = 99", true),
        ("PRAGMA application_id = 7", false),
        ("PRAGMA application_id = 0", false),
    ] {
        let place = Place::new();
        place.open().await.close().await.unwrap();
        let mut connection =
            sqlx::sqlite::SqliteConnectOptions::new().filename(&place.path).connect().await.unwrap();
        sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut connection).await.unwrap();
        connection.close().await.unwrap();
        match Store::open(&place.path).await {
            Err(OpenError::NewerSchema { got: 99, known: 2, .. }) => assert!(newer),
            Err(OpenError::NotOurs { .. }) => assert!(!newer),
            other => panic!("{sql}: {other:?}"),
        }
    }
    let place = Place::new();
    fs::write(&place.path, vec![0xA5; 20_000]).unwrap();
    let refused = Store::open(&place.path).await;
    assert!(matches!(refused, Err(OpenError::Store(StoreError::Corrupt { .. }))), "{refused:?}");
}
