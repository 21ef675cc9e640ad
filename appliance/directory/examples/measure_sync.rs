//! Measures synchronisation with OpenLDAP and prints JSON: seconds for everybody and for what changed, seconds and
//! changes, sign-in, and the most memory that this process had meanwhile.
//!
//! `cargo run --release -p zixt-directory --example measure_sync [people]`
#![allow(clippy::unwrap_used, clippy::panic, reason = "a measurement that cannot be made is none")]

#[path = "../tests/common/mod.rs"]
mod common;
#[path = "../tests/peers/mod.rs"]
mod peers;

use common::{directory, now, settings, step};
use peers::certificates::Authority;
use peers::slapd::{SUFFIX, Slapd, password, person};
use std::fs;
use std::io::Write as _;
use std::time::Instant;
use zixt_directory::Mode;
use zixt_types::Canonical as _;

/// Entries that change between two synchronisations; a third each is changed, deleted and added.
const CHANGES: usize = 300;
/// Sign-ins, of which the median counts.
const BINDS: usize = 51;

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let people = std::env::args().nth(1).map_or(50_000, |count| count.parse().unwrap());
    let authority = Authority::new();
    // OpenLDAP's own bound is 500 entries, and counts all pages; whoever reads everybody needs another one.
    let mut slapd = Slapd::new(&authority, ("sizelimit size.prtotal=unlimited\n", ""));
    let mut ldif = std::io::BufWriter::new(fs::File::create(slapd.ldif_file()).unwrap());
    for at in 0..people {
        ldif.write_all(person(&format!("user{at:06}")).as_bytes()).unwrap();
    }
    // Everybody is in one of two groups, the second of which is in the first.
    for (name, from, to, more) in [
        ("all", 0, people / 2, "member: cn=half,ou=groups,dc=zixt,dc=test\n"),
        ("half", people / 2, people, ""),
    ] {
        write!(ldif, "dn: cn={name},ou=groups,{SUFFIX}\nobjectClass: groupOfNames\ncn: {name}\n{more}")
            .unwrap();
        for at in from..to {
            writeln!(ldif, "member: uid=user{at:06},ou=people,{SUFFIX}").unwrap();
        }
        writeln!(ldif).unwrap();
    }
    ldif.into_inner().unwrap();
    slapd.load_file();
    slapd.go();
    let rule =
        format!("page_size = 1000\nroles = [{{ group = \"cn=all,ou=groups,{SUFFIX}\", role = \"user\" }}]");
    let directory = directory(&settings(&[slapd.ldaps_url()], &rule), authority.pem());

    // The peak so far is of making the test data (proc(5): 5 resets it).
    fs::write("/proc/self/clear_refs", "5").unwrap();
    let begun = Instant::now();
    let first = directory.sync(None, now()).await.unwrap();
    let full = begun.elapsed();
    assert_eq!((first.mode, first.snapshot.people().len()), (Mode::Full, people));
    assert!(first.snapshot.people().iter().all(|person| person.wanted() != Default::default()));

    let begun = Instant::now();
    let (same, plan) = step(&directory, &first.snapshot).await;
    let unchanged = begun.elapsed();
    assert_eq!((same.mode, plan.unwrap().changes().len()), (Mode::Incremental { entries: 0 }, 0));
    drop(same);

    let third = CHANGES / 3;
    let mut changes = String::new();
    for at in 0..third {
        let dn = |at: usize| format!("dn: uid=user{at:06},ou=people,{SUFFIX}\n");
        changes += &format!("{}changetype: modify\nreplace: mail\nmail: new@zixt.test\n\n", dn(at));
        changes += &format!("{}changetype: delete\n\n", dn(third + at));
        changes += &person(&format!("new{at:06}"));
    }
    slapd.change(&changes);
    let begun = Instant::now();
    let (second, plan) = step(&directory, &first.snapshot).await;
    let incremental = begun.elapsed();
    assert_eq!(second.mode, Mode::Incremental { entries: 2 * third });
    assert_eq!(plan.unwrap().changes().len(), CHANGES);
    let peak = peak_kib();
    let stored = second.snapshot.to_bytes().len();

    let mut binds = [Vec::new(), Vec::new(), Vec::new()];
    for at in 0..BINDS {
        let login = format!("user{:06}", people - 1 - at);
        let nobody = format!("none{at:06}");
        let tries = [(&login, password(&login)), (&login, "wrong".to_owned()), (&nobody, "wrong".to_owned())];
        for (times, (login, password)) in binds.iter_mut().zip(tries) {
            let begun = Instant::now();
            let answer = directory.bind(login, password.as_bytes(), now()).await;
            times.push(begun.elapsed());
            assert_eq!(answer.is_ok(), password != "wrong");
        }
    }
    let [bind, wrong, unknown] = binds.map(|mut times| {
        times.sort_unstable();
        (times[BINDS / 2].as_secs_f64() * 1e4).round() / 10.0
    });
    let seconds = |duration: std::time::Duration| (duration.as_secs_f64() * 1e3).round() / 1e3;
    let figures = serde_json::json!({
        "people.count": people,
        "people.sync_50k_s": seconds(full),
        "people.unchanged_s": seconds(unchanged),
        "people.incremental_s": seconds(incremental),
        "people.incremental_changes": CHANGES,
        "people.sync_rss_mib": (peak as f64 / 102.4).round() / 10.0,
        "people.snapshot_mib": (stored as f64 / 104_857.6).round() / 10.0,
        "people.bind_p50_ms": bind,
        "people.bind_wrong_p50_ms": wrong,
        "people.bind_unknown_p50_ms": unknown,
    });
    println!("{figures}");
}

/// The most that this process had in memory.
fn peak_kib() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}
