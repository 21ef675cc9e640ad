//! `make bench`: figures of the main path, with the release programs, on this machine, in one run. Writes
//! `target/bench/report.json`; with `--full` (`make bench FULL=1`, `make test-full`) also `bench/last-full.json`, with
//! commit and date; with `--custody` or `--people` it prints those figures only.
//!
//! F is fdatasync after 8 KiB on a growing file in the same file system, sampled between the messages, because disks of
//! shared machines change from minute to minute: what counts is the ratio.
#![expect(clippy::expect_used, reason = "a failed measurement is a failed run")]

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use zixt_client::{Client, ClientEvent, Invitation, PassphraseCost};
use zixt_crypto::Reference;
use zixt_ledger::evidence::Evidence;
use zixt_tests::Appliance;
use zixt_types::Seq;

/// Messages before anything is measured.
const WARM_UP: usize = 30;

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let full = std::env::args().any(|argument| argument == "--full");
    let messages = if full { 1_000 } else { 200 };
    let programs = std::env::current_exe().ok().and_then(|path| path.parent().map(Path::to_owned));
    let span = Duration::from_secs(if full { 20 } else { 5 });
    if std::env::args().any(|argument| argument == "--people") {
        print_only(zixt_tests::people::measure(programs.as_deref(), span).await);
        return;
    }
    // In a process whose other threads have nothing to do.
    let custody =
        zixt_tests::custody::measure(programs.as_deref(), Duration::from_secs(if full { 20 } else { 4 }));
    if std::env::args().any(|argument| argument == "--custody") {
        print_only(custody);
        return;
    }
    let people =
        zixt_tests::people::measure(programs.as_deref(), Duration::from_secs(if full { 20 } else { 5 }))
            .await;
    let mut appliance = Appliance::lab_of(programs, &[]);

    let alice = enrol(&appliance, "alice").await;
    let bob = enrol(&appliance, "bob").await;
    let thread = alice.start_conversation(&["bob"], None).await.expect("a conversation");
    bob.sync_once().await.expect("bob joins");
    let (events, mut inbox) = mpsc::channel(64);
    let listening = tokio::spawn({
        let bob = bob.clone();
        async move { bob.run(events).await }
    });

    let mut disk = Disk::new(appliance.folder());
    let (mut latencies, mut syncs) = (Vec::new(), Vec::new());
    let (mut queueing, mut receipts) = (Vec::new(), Vec::new());
    for number in 0..WARM_UP + messages {
        let text = format!("message {number}");
        let start = Instant::now();
        alice.send(thread, &text).await.expect("queued");
        let queued = start.elapsed();
        let recorded = async {
            let recorded = alice.flush().await;
            (recorded, start.elapsed())
        };
        let decrypted = async {
            loop {
                match inbox.recv().await.expect("bob listens") {
                    ClientEvent::Message(message) if message.text == text => break start.elapsed(),
                    _ => {}
                }
            }
        };
        let ((sent, receipt), decrypted) = tokio::join!(recorded, decrypted);
        assert_eq!(sent.expect("recorded"), 1);
        if number >= WARM_UP {
            latencies.push(decrypted);
            queueing.push(queued);
            receipts.push(receipt);
            syncs.push(disk.sync());
        }
    }
    let file = appliance.folder().join("one.zixt-evidence");
    alice.export_evidence(thread, Some(Seq(5)), false, &file).await.expect("evidence");
    let evidence = fs::read(&file).expect("the file");
    let genesis = alice.profile().genesis_hash;
    let mut checks: Vec<Duration> = (0..50)
        .map(|_| {
            let start = Instant::now();
            let report = Evidence::parse(&evidence).expect("evidence").verify(genesis, &Reference);
            let elapsed = start.elapsed();
            assert!(report.expect("this network").is_ok());
            elapsed
        })
        .collect();
    listening.abort();
    drop((alice, bob));

    tokio::time::sleep(Duration::from_secs(2)).await;
    let (zixtd, hsmd) = appliance.pids();
    let pss = |pid: Option<u32>| pss_kib(pid.expect("it runs")) as f64 / 1024.0;
    let (zixtd_mib, hsmd_mib) = (pss(zixtd), pss(hsmd));

    appliance.stop_zixtd();
    appliance.stop_hsmd();
    let start = Instant::now();
    appliance.start_hsmd();
    appliance.start_zixtd();
    let cold_start = start.elapsed();

    // What grows with what is stored shows here.
    let tenths: Vec<Duration> = latencies
        .chunks(messages / 10)
        .map(|tenth| {
            let mut tenth = tenth.to_vec();
            tenth.sort_unstable();
            quantile(&tenth, 50)
        })
        .collect();
    for samples in [&mut latencies, &mut queueing, &mut receipts] {
        samples.sort_unstable();
    }
    syncs.sort_unstable();
    checks.sort_unstable();
    let ms = |duration: Duration| (duration.as_secs_f64() * 1e6).round() / 1e3;
    let (p50, fdatasync) = (quantile(&latencies, 50), quantile(&syncs, 50));
    let mut report = serde_json::json!({
        "main.p50_ms": ms(p50),
        "main.p50_by_tenth_ms": tenths.into_iter().map(ms).collect::<Vec<_>>(),
        "main.queued_p50_ms": ms(quantile(&queueing, 50)),
        "main.receipt_p50_ms": ms(quantile(&receipts, 50)),
        "main.p99_ms": ms(quantile(&latencies, 99)),
        "main.fdatasync_p50_ms": ms(fdatasync),
        "main.fdatasync_p99_ms": ms(quantile(&syncs, 99)),
        "main.p50_bound_ms": ms(fdatasync * 6 + Duration::from_millis(4)),
        "main.messages": messages,
        "main.evidence_bytes": evidence.len(),
        "main.evidence_verify_us": (quantile(&checks, 50).as_secs_f64() * 1e7).round() / 10.0,
        "main.pss_mib": ((zixtd_mib + hsmd_mib) * 10.0).round() / 10.0,
        "main.pss_zixtd_mib": (zixtd_mib * 10.0).round() / 10.0,
        "main.pss_hsmd_mib": (hsmd_mib * 10.0).round() / 10.0,
        "main.cold_start_ms": ms(cold_start),
        "machine.loadavg": fs::read_to_string("/proc/loadavg").unwrap_or_default().trim(),
        "run.full": full,
        "run.commit": output_of("git", &["rev-parse", "HEAD"]),
        "run.date": output_of("date", &["-u", "+%Y-%m-%dT%H:%M:%SZ"]),
    });
    for (name, value) in custody.into_iter().chain(people) {
        report[name] = value;
    }
    let text = format!("{}\n", serde_json::to_string_pretty(&report).expect("JSON"));
    print!("{text}");
    write(Path::new("target/bench/report.json"), &text);
    if full {
        write(Path::new("bench/last-full.json"), &text);
    }
}

fn print_only(figures: Vec<(&'static str, serde_json::Value)>) {
    let figures: serde_json::Map<_, _> =
        figures.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    println!("{}", serde_json::to_string_pretty(&figures).expect("JSON"));
}

async fn enrol(appliance: &Appliance, name: &str) -> Client {
    let invitation = Invitation::from_text(&appliance.invite(name)).expect("an invitation");
    let folder: PathBuf = appliance.folder().join("people").join(name);
    Client::enrol(&invitation, &folder, b"a passphrase of the bench", PassphraseCost::MIN)
        .await
        .expect("enrolled")
}

/// A file that grows, to measure what a commit has to wait for.
struct Disk(File);

impl Disk {
    fn new(folder: &Path) -> Self {
        Self(File::create(folder.join("fdatasync")).expect("a file"))
    }

    fn sync(&mut self) -> Duration {
        self.0.write_all(&[0x5A; 8192]).expect("a write");
        let start = Instant::now();
        self.0.sync_data().expect("fdatasync");
        start.elapsed()
    }
}

fn quantile(sorted: &[Duration], percent: usize) -> Duration {
    sorted
        .get((sorted.len() * percent / 100).min(sorted.len().saturating_sub(1)))
        .copied()
        .unwrap_or_default()
}

fn pss_kib(pid: u32) -> u64 {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).expect("its memory");
    rollup
        .lines()
        .find_map(|line| line.strip_prefix("Pss:")?.split_whitespace().next()?.parse().ok())
        .expect("its PSS")
}

fn output_of(program: &str, arguments: &[&str]) -> String {
    Command::new(program)
        .args(arguments)
        .output()
        .map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned())
        .unwrap_or_default()
}

fn write(path: &Path, text: &str) {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).expect("a folder");
    }
    fs::write(path, text).expect("a write");
}
