//! How long a height takes to become durable, beside an fdatasync of the same disk in the same moment.
//!
//! `cargo run --release -p zixt-storage --example commit`

#[path = "../tests/store/sample.rs"]
mod sample;

use std::fs::File;
use std::io::Write;
use std::time::{Duration, Instant};
use zixt_storage::Store;

/// Bytes of an envelope: a short text in MLS with post-quantum signatures.
const ENVELOPE_BYTES: usize = 5_000;

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let folder = std::env::args().nth(1).map_or_else(std::env::temp_dir, Into::into);
    let folder = tempfile::tempdir_in(folder).expect("a folder");
    println!("batch  heights/s  entries/s  p50 ms  p99 ms  fdatasync p50 ms  p50 above it ms");
    for batch in [1usize, 32, 256] {
        let mut world = sample::World::new();
        let store = Store::open(&folder.path().join(format!("{batch}.sqlite"))).await.expect("a store");
        for (block, certificate) in &world.blocks {
            store.commit_batch(block, certificate).await.expect("a commit");
        }
        let heights = if batch == 256 { 40 } else { 300 };
        let blocks: Vec<_> = (0..heights).map(|_| world.messages(batch, ENVELOPE_BYTES).clone()).collect();
        let mut probe = File::create(folder.path().join("probe")).expect("a file");
        let (mut commits, mut syncs) = (Vec::new(), Vec::new());
        for (block, certificate) in &blocks {
            let start = Instant::now();
            store.commit_batch(block, certificate).await.expect("a commit");
            commits.push(start.elapsed());
            let bytes = vec![1; 8192];
            let start = Instant::now();
            probe.write_all(&bytes).and_then(|()| probe.sync_data()).expect("an fdatasync");
            syncs.push(start.elapsed());
        }
        let total: Duration = commits.iter().sum();
        let per_second = f64::from(heights) / total.as_secs_f64();
        let (p50, p99, sync) = (at(&mut commits, 50), at(&mut commits, 99), at(&mut syncs, 50));
        println!(
            "{batch:5}  {per_second:9.0}  {:9.0}  {p50:6.2}  {p99:6.2}  {sync:16.2}  {:15.2}",
            per_second * batch as f64,
            p50 - sync
        );
        store.close().await.expect("closing");
    }
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    println!("{}", status.lines().find(|line| line.starts_with("VmRSS")).unwrap_or_default());
}

fn at(times: &mut [Duration], percent: usize) -> f64 {
    times.sort_unstable();
    times[(times.len() - 1) * percent / 100].as_secs_f64() * 1_000.0
}
