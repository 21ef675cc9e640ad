//! Replays the corpora of the fuzz targets: every committed file, every file damaged in many ways from a fixed seed, and
//! inputs that are too large to commit. docs/fuzzing.md tells how to add a finding.
#![allow(
    clippy::panic,
    clippy::expect_used,
    reason = "helpers of tests; a corpus that cannot be read is a failed test"
)]

#[path = "corpus/mutate.rs"]
mod mutate;
#[path = "corpus/parsers.rs"]
mod parsers;
#[path = "corpus/seeds.rs"]
mod seeds;

use mutate::{Xorshift, mutate};
use parsers::{Property, TARGETS};
use std::collections::BTreeSet;
use std::fs;
use std::panic::catch_unwind;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// What the process may have used at most when every input is through. The largest input is 1 MB.
const PEAK_MIB_MAX: u64 = 512;
/// What one input may take. Far more than any needs, far less than somebody needs to wait for.
const INPUT_TIME_MAX: Duration = Duration::from_secs(10);

fn corpus() -> PathBuf {
    // At run time, so that one build serves every clone that shares a build folder.
    let manifest =
        std::env::var_os("CARGO_MANIFEST_DIR").expect("cargo names the folder of the crate it tests");
    PathBuf::from(manifest).join("corpus")
}

fn mutations() -> u64 {
    if std::env::var_os("ZIXT_TEST_FULL").is_some_and(|value| value == "1") { 5_000 } else { 200 }
}

/// The committed files of a target, by name.
fn files(target: &str) -> Vec<(String, Vec<u8>)> {
    let folder = corpus().join(target);
    let listing = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut files: Vec<_> = listing
        .map(|entry| {
            let path = entry.expect("an entry").path();
            let name = path.file_name().expect("a name").to_string_lossy().into_owned();
            (name, fs::read(&path).expect("a file"))
        })
        .collect();
    files.sort();
    files
}

/// Runs one input; a panic becomes a sentence that names it.
fn run(property: Property, what: &dyn Fn() -> String, input: &[u8]) -> Result<(), String> {
    let started = Instant::now();
    let outcome = catch_unwind(|| property(input));
    let told = || {
        let shown: String = input.iter().take(2_000).map(|byte| format!("{byte:02x}")).collect();
        format!("{} ({} bytes, hex {shown})", what(), input.len())
    };
    match outcome {
        Ok(()) if started.elapsed() > INPUT_TIME_MAX => {
            Err(format!("{}: took {:?}", told(), started.elapsed()))
        }
        Ok(()) => Ok(()),
        Err(panic) => {
            let why = panic.downcast_ref::<String>().map(String::as_str);
            let why = why.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("a panic");
            Err(format!("{}: {why}", told()))
        }
    }
}

fn replay(target: &str, property: Property) -> Result<(), String> {
    let files = files(target);
    for (name, bytes) in &files {
        run(property, &|| format!("{target}/{name}"), bytes)?;
    }
    for (name, input) in seeds::too_large_to_commit() {
        run(property, &|| format!("{target}: {name}"), &input)?;
    }
    for (name, bytes) in &files {
        for n in 0..mutations() {
            let mut random = Xorshift::from_name(target, name, n);
            let other = &files[random.below(files.len())].1;
            let input = mutate(bytes, other, &mut random);
            run(property, &|| format!("{target}/{name}, mutation {n}"), &input)?;
        }
    }
    Ok(())
}

#[test]
fn every_corpus_is_replayed_and_survives_damage() {
    let (next, failures) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let work = || {
        while let Some((target, property)) = TARGETS.get(next.fetch_add(1, Ordering::Relaxed)) {
            let started = Instant::now();
            if let Err(failure) = replay(target, *property) {
                failures.lock().expect("no panic while it is held").push(failure);
            }
            println!("{target}: {:?}", started.elapsed());
        }
    };
    // The stack of these threads is what a server's worker threads have: 2 MiB. An input that overflows it ends the
    // test program.
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(work);
        }
    });
    let failures = failures.into_inner().expect("no panic while it is held");
    assert!(failures.is_empty(), "{} target(s) failed:\n{}", failures.len(), failures.join("\n"));

    let status = fs::read_to_string("/proc/self/status").expect("Linux tells");
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("its peak");
    let kib: u64 = peak.trim().trim_end_matches(" kB").parse().expect("a number");
    assert!(kib / 1024 <= PEAK_MIB_MAX, "the inputs made the parsers use {} MiB", kib / 1024);
}

#[test]
fn every_target_has_a_corpus_and_every_corpus_a_target() {
    let targets: BTreeSet<String> = TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(targets.len(), TARGETS.len(), "two targets have one name");
    for target in &targets {
        assert!(!files(target).is_empty(), "the corpus of {target} is empty");
    }
    let folders: BTreeSet<String> = fs::read_dir(corpus())
        .expect("the corpora")
        .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
        .filter(|name| name != "fixtures")
        .collect();
    assert_eq!(folders, targets, "folders (left) and targets (right)");

    let fuzz = corpus().join("../../fuzz");
    let manifest = fs::read_to_string(fuzz.join("Cargo.toml")).expect("the manifest of the fuzz targets");
    for target in &targets {
        assert!(manifest.contains(&format!("name = \"{target}\"")), "fuzz/Cargo.toml does not name {target}");
        assert!(fuzz.join(format!("fuzz_targets/{target}.rs")).is_file(), "there is no fuzz target {target}");
    }
}

/// The corpus says what it claims to: what is named `valid-…` is accepted.
#[test]
fn valid_seeds_are_accepted_and_the_corpus_can_be_made_again() {
    let made = seeds::all();
    if std::env::var_os("ZIXT_CORPUS_WRITE").is_some() {
        for seed in &made {
            let folder = corpus().join(seed.target);
            fs::create_dir_all(&folder).expect("a folder");
            fs::write(folder.join(&seed.name), &seed.bytes).expect("a file");
        }
    }
    for seed in &made {
        let known = files(seed.target).into_iter().find(|(name, _)| *name == seed.name);
        assert!(known.is_some(), "{}/{} is not committed; see docs/fuzzing.md", seed.target, seed.name);
    }
    for (target, _) in TARGETS {
        for (name, bytes) in files(target) {
            if name.starts_with("valid-") {
                assert!(seeds::accepts(target, &bytes), "{target}/{name} is not accepted");
            }
        }
    }
}

#[test]
fn a_property_that_fails_is_told_with_its_input() {
    let failure = run(|input| assert!(input.is_empty(), "a fault"), &|| "here".to_owned(), &[0xAB, 1]);
    assert_eq!(failure, Err("here (2 bytes, hex ab01): a fault".to_owned()));
}
