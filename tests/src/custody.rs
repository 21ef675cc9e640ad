//! Custody's figures for `make bench`: signatures through the socket, unlocks, memory.

use crate::{Appliance, swtpm};
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};
use zixt_hsm_protocol::{BlockingHsmClient, Pin, StateKind};

/// Clients that sign at a time, and requests that each of them has under way when they come at a rate: a server does not
/// hold the next handshake back because a signature took long. (One in a hundred takes five times as long as most: ML-DSA
/// begins again until a signature gives nothing away.)
const CLIENTS: u32 = 2;
const SIDE_BY_SIDE: u32 = 2;
/// Signatures per second that custody has to reach; how long one takes is measured at half of that.
const REQUIRED_PER_S: f64 = 5_000.0;
/// Unlocks, of which the median counts.
const UNLOCKS: usize = 9;

/// Everything about custody, by the names in the report. `span` is how long signatures are counted.
#[must_use]
pub fn measure(programs: Option<&Path>, span: Duration) -> Vec<(&'static str, Value)> {
    let mut appliance = Appliance::lab_of(programs.map(Path::to_owned), &[]);
    // Only custody is measured, and the token is unlocked.
    appliance.stop_zixtd();
    let socket = appliance.hsmd_socket();
    signatures(&socket, span / 4, None);
    let (count, _) = signatures(&socket, span, None);
    let rate = count as f64 / span.as_secs_f64();
    let paced = |rate: f64| {
        let (_, mut latencies) = signatures(&socket, span, Some(rate));
        latencies.sort_unstable();
        move |percent: usize| latencies.get(latencies.len() * percent / 100).copied().unwrap_or_default()
    };
    let (at, at_half) = (paced(REQUIRED_PER_S / 2.0), paced(rate / 2.0));
    let memory = appliance.pids().1.map(own_rss_kib).unwrap_or_default();
    let softhsm = unlock(&appliance);
    drop(appliance);
    let tpm = swtpm::program("swtpm").arg("--version").output().is_ok_and(|output| output.status.success());
    let tpm = tpm.then(|| {
        let mut appliance = Appliance::bare(programs.map(Path::to_owned), false, true);
        appliance.provision(&[]);
        appliance.stop_zixtd();
        unlock(&appliance)
    });
    let ms = |duration: Duration| (duration.as_secs_f64() * 1e5).round() / 1e2;
    vec![
        ("custody.sign_per_s", json!(rate.round())),
        ("custody.sign_p50_ms", json!(ms(at(50)))),
        ("custody.sign_p99_ms", json!(ms(at(99)))),
        ("custody.sign_p99_at_half_of_measured_ms", json!(ms(at_half(99)))),
        ("custody.native_over_token", native_over_token(programs)),
        ("custody.unlock_softhsm_ms", json!(ms(softhsm))),
        ("custody.unlock_tpm_ms", json!(tpm.map(ms))),
        ("custody.rss_mib", json!((memory as f64 / 102.4).round() / 10.0)),
    ]
}

/// Signs handshakes from all clients; at a rate, if one is given, and then says how long each took from the moment at
/// which it was due.
fn signatures(socket: &Path, span: Duration, rate: Option<f64>) -> (u64, Vec<Duration>) {
    let content = [&[0x20; 64][..], b"TLS 1.3, server CertificateVerify", &[0], &[0x5A; 48]].concat();
    let count = AtomicU64::new(0);
    let begun = Instant::now();
    let clients: Vec<_> = (0..CLIENTS).map(|_| BlockingHsmClient::new(socket)).collect();
    let lanes = if rate.is_some() { CLIENTS * SIDE_BY_SIDE } else { CLIENTS };
    let latencies = std::thread::scope(|scope| {
        let lanes: Vec<_> = (0..lanes)
            .zip(clients.iter().cycle())
            .map(|(lane, custody)| {
                let (content, count) = (&content, &count);
                scope.spawn(move || {
                    let mut latencies = Vec::new();
                    let step = rate.map(|rate| Duration::from_secs_f64(f64::from(lanes) / rate));
                    let mut due = begun + step.unwrap_or_default() * lane / lanes;
                    while begun.elapsed() < span {
                        if let Some(step) = step {
                            sleep(due.saturating_duration_since(Instant::now()));
                            custody.sign_tls(content).expect("a signature");
                            latencies.push(due.elapsed());
                            due += step;
                        } else {
                            custody.sign_tls(content).expect("a signature");
                        }
                        count.fetch_add(1, Ordering::Relaxed);
                    }
                    latencies
                })
            })
            .collect();
        lanes.into_iter().flat_map(|lane| lane.join().expect("a client")).collect()
    });
    (count.into_inner(), latencies)
}

/// From the PIN to the operational state.
fn unlock(appliance: &Appliance) -> Duration {
    let custody = BlockingHsmClient::new(appliance.hsmd_socket());
    let pin = fs::read_to_string(appliance.state().join("lab/pin")).expect("the lab's PIN");
    let mut times: Vec<Duration> = (0..UNLOCKS)
        .map(|_| {
            custody.lock().expect("locked");
            let start = Instant::now();
            let state = custody.unlock(Pin::new(pin.clone()).expect("a PIN")).expect("unlocked");
            assert_eq!(state, StateKind::Operational);
            start.elapsed()
        })
        .collect();
    times.sort_unstable();
    times[UNLOCKS / 2]
}

/// Resident memory without the pages of the token's library and of what only that library needs.
fn own_rss_kib(pid: u32) -> u64 {
    const OF_THE_TOKEN: [&str; 4] = ["softhsm", "libcrypto", "libstdc++", "libsqlite"];
    let smaps = fs::read_to_string(format!("/proc/{pid}/smaps")).expect("its memory");
    let (mut total, mut counts) = (0, true);
    for line in smaps.lines() {
        let first = line.split(' ').next().unwrap_or_default();
        if !first.ends_with(':') {
            counts = !OF_THE_TOKEN.iter().any(|name| line.contains(name));
        } else if let Some(rss) = line.strip_prefix("Rss:").filter(|_| counts) {
            let kib: u64 = rss.split_whitespace().next().and_then(|kib| kib.parse().ok()).unwrap_or_default();
            total += kib;
        }
    }
    total
}

/// How fast a native key signs, as a share of what the token does by itself: the example of the PKCS#11 backend lets both
/// take turns. Null where Kryoptic or the example is not built.
fn native_over_token(programs: Option<&Path>) -> Value {
    let programs = programs
        .map(Path::to_owned)
        .or_else(|| std::env::current_exe().ok().and_then(|path| path.parent().map(PathBuf::from)));
    let Some(example) = programs.map(|folder| folder.join("examples/native_rate")) else {
        return Value::Null;
    };
    let Ok(output) = std::process::Command::new(example).output() else { return Value::Null };
    let line = String::from_utf8_lossy(&output.stdout);
    let measured: Value = serde_json::from_str(line.trim()).unwrap_or_default();
    measured["native_over_token"].clone()
}
