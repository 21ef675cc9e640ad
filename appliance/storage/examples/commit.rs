//! How long a height takes to become durable, beside an fdatasync of the same disk in the same moment.
//!
//! `cargo run --release -p zixt-storage --example commit -- FOLDER` (a folder on the disk to measure)
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a measurement: a failure ends it")]

#[path = "../tests/store/sample.rs"]
#[allow(dead_code, reason = "the tests need more of it")]
mod sample;

use std::fs::{self, File};
use std::io::Write;
use std::time::{Duration, Instant};
use zixt_storage::Store;

/// Bytes of an envelope: a short text in MLS with post-quantum signatures.
const ENVELOPE_BYTES: usize = 5_000;

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let folder = std::env::args().nth(1).map_or_else(std::env::temp_dir, Into::into);
    let folder = tempfile::tempdir_in(folder).unwrap();
    println!(
        "batch  heights/s  entries/s  p50 ms  p99 ms  log kB  fdatasync p50 ms (8 kB, log kB)  p50 above ms"
    );
    for batch in [1usize, 32, 256] {
        let mut world = sample::World::new();
        let path = folder.path().join(format!("{batch}.sqlite"));
        let store = Store::open(&path).await.unwrap();
        for (block, certificate) in &world.blocks {
            store.commit_batch(block, certificate).await.unwrap();
        }
        let heights = if batch == 256 { 40 } else { 300 };
        let blocks: Vec<_> = (0..heights).map(|_| world.messages(batch, ENVELOPE_BYTES).clone()).collect();
        let mut probe = File::create(folder.path().join("probe")).unwrap();
        let mut sync = |bytes: usize| {
            let bytes = vec![1; bytes];
            let start = Instant::now();
            probe.write_all(&bytes).and_then(|()| probe.sync_data()).unwrap();
            start.elapsed()
        };
        let log = || fs::metadata(path.with_extension("sqlite-wal")).map_or(0, |log| log.len());
        let (mut commits, mut small, mut equal, mut grown) = (Vec::new(), Vec::new(), Vec::new(), 0);
        for (block, certificate) in &blocks {
            let before = log();
            let start = Instant::now();
            store.commit_batch(block, certificate).await.unwrap();
            commits.push(start.elapsed());
            grown = grown.max(log().saturating_sub(before) as usize);
            small.push(sync(8192));
            equal.push(sync(grown));
        }
        let total: Duration = commits.iter().sum();
        let per_second = f64::from(heights) / total.as_secs_f64();
        let (p50, p99) = (at(&mut commits, 50), at(&mut commits, 99));
        let (small, equal) = (at(&mut small, 50), at(&mut equal, 50));
        let entries = per_second * batch as f64;
        println!(
            "{batch:5}  {per_second:9.0}  {entries:9.0}  {p50:6.2}  {p99:6.2}  {:6}  {small:19.2} {equal:11.2}  {:12.2}",
            grown / 1000,
            p50 - equal
        );
        store.close().await.unwrap();
    }
}

fn at(times: &mut [Duration], percent: usize) -> f64 {
    times.sort_unstable();
    times[(times.len() - 1) * percent / 100].as_secs_f64() * 1_000.0
}
