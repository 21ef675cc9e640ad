//! kill -9 of the server, the custody daemon or a client at random moments under load: nothing acknowledged is lost,
//! nothing is shown twice, the store stays sound. 20 kills, or 200 in the full run.
#![allow(clippy::expect_used, clippy::panic, reason = "helpers of tests")]

use std::collections::BTreeMap;
use std::process::{Child, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};
use zixt_crypto::digest;
use zixt_hsm_protocol::{BlockingHsmClient, VoteOutcome};
use zixt_tests::{Appliance, PATIENCE, Person, full, kill_now};
use zixt_types::{Canonical as _, Genesis, Hash, Round, Vote, VoteStep};

/// Small, seeded, and printed on failure: a run can be repeated as far as the scheduler allows.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound.max(1)
    }
}

#[derive(Debug, Clone, Copy)]
enum Victim {
    Server,
    Custody,
    Client,
}

#[test]
fn nothing_acknowledged_is_lost_and_nothing_is_shown_twice() {
    let kills = if full() { 200 } else { 20 };
    let seed = std::env::var("ZIXT_SEED")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or_else(|| 0x5EED ^ u64::from(std::process::id()));
    println!("seed {seed} (ZIXT_SEED={seed} repeats it)");
    let mut dice = Dice(seed | 1);
    let mut appliance = Appliance::lab();
    // Two conversations, so that entries of several threads share heights.
    let stores: Vec<_> =
        ["alice", "bob", "carol"].iter().map(|name| appliance.person(name).store.clone()).collect();
    let person = |appliance: &'_ Appliance, index: usize| -> (std::path::PathBuf, String) {
        let _ = appliance;
        (stores[index].clone(), ["alice", "bob", "carol"][index].to_owned())
    };
    for (from, to) in [(0, "bob"), (2, "bob")] {
        with(&appliance, &person(&appliance, from), |p| {
            p.must(&["send", to, "hello"]);
        });
    }
    with(&appliance, &person(&appliance, 1), |bob| {
        bob.must(&["sync"]);
    });

    // How long a send takes when nothing is killed: the kills are spread over that.
    let start = Instant::now();
    with(&appliance, &person(&appliance, 0), |alice| {
        alice.must(&["send", "bob", "how long does it take?"]);
    });
    let usual = u64::try_from(start.elapsed().as_millis()).unwrap_or(1_000).max(50);

    let mut acknowledged: Vec<(usize, String)> = Vec::new();
    let mut attempted: Vec<(usize, String)> = Vec::new();
    for round in 0..kills {
        let victim = [Victim::Server, Victim::Custody, Victim::Client][round % 3];
        // alice and carol write to bob at the same time.
        let mut sends: Vec<(usize, String, Option<Child>)> = [0usize, 2]
            .into_iter()
            .map(|index| {
                let text = format!("round {round} by {index}");
                let child = with(&appliance, &person(&appliance, index), |p| {
                    p.command()
                        .args(["send", "bob", &text])
                        .stdout(Stdio::null())
                        .stderr(Stdio::piped())
                        .spawn()
                        .expect("zixt starts")
                });
                attempted.push((index, text.clone()));
                (index, text, Some(child))
            })
            .collect();
        sleep(Duration::from_millis(dice.below(usual + usual / 5)));
        match victim {
            Victim::Server => {
                appliance.kill_zixtd();
                appliance.start_zixtd();
            }
            Victim::Custody => {
                appliance.kill_hsmd();
                appliance.start_hsmd();
                // The server notices by itself that custody is back.
                appliance.until("the server is healthy again", || {
                    appliance.admin(&["status", "--json"]).status.success()
                });
            }
            Victim::Client => kill_now(&mut sends[usize::from(dice.below(2) == 1)].2),
        }
        for (index, text, child) in &mut sends {
            let Some(child) = child else { continue };
            let start = Instant::now();
            let status = loop {
                if let Some(status) = child.try_wait().expect("its status") {
                    break status;
                }
                assert!(
                    start.elapsed() < PATIENCE,
                    "seed {seed}: round {round}: `zixt send` hangs after {victim:?}"
                );
                sleep(Duration::from_millis(10));
            };
            if status.success() {
                acknowledged.push((*index, text.clone()));
            }
        }
    }
    assert!(!acknowledged.is_empty(), "seed {seed}: no message got through at all");

    // Whatever was queued goes out now; then everybody reads.
    for index in [0, 2, 1] {
        with(&appliance, &person(&appliance, index), |p| {
            p.must(&["sync"]);
        });
    }
    for (index, name) in [(0usize, "alice"), (2, "carol")] {
        let own = with(&appliance, &person(&appliance, index), |p| texts(p, "bob"));
        let bobs = with(&appliance, &person(&appliance, 1), |p| texts(p, name));
        for (author, text) in &acknowledged {
            if *author == index {
                assert_eq!(own.get(text), Some(&1), "seed {seed}: {name}'s own {text:?}");
                assert_eq!(bobs.get(text), Some(&1), "seed {seed}: bob must have {name}'s {text:?} once");
            }
        }
        for (text, count) in own.iter().chain(&bobs) {
            assert_eq!(*count, 1, "seed {seed}: {text:?} is shown {count} times");
        }
        let strangers: Vec<_> = bobs
            .keys()
            .filter(|text| text.starts_with("round") && !attempted.contains(&(index, (*text).clone())))
            .collect();
        assert!(strangers.is_empty(), "seed {seed}: nobody wrote {strangers:?}");
    }
    let status = appliance.admin(&["status", "--json"]);
    let status: serde_json::Value = serde_json::from_slice(&status.stdout).expect("JSON");
    appliance.stop_zixtd();
    appliance.fsck();
    custody_decided_once(&appliance, &status["status"]["latest"], seed);
    println!("{kills} kills, {} of {} sends acknowledged at once", acknowledged.len(), attempted.len());
}

/// What custody signed last is what the ledger certifies, and after all kills it signs nothing else for that height. (That
/// no slot ever had two values while custody itself was killed, hsm/tests/daemon/kill.rs shows, which sees every vote.)
fn custody_decided_once(appliance: &Appliance, latest: &serde_json::Value, seed: u64) {
    let custody = BlockingHsmClient::new(appliance.hsmd_socket());
    let genesis = std::fs::read(appliance.state().join("server/genesis.cbor")).expect("the genesis");
    let genesis = Genesis::parse(&genesis).expect("a genesis");
    let last = custody.status().expect("custody answers").last_precommit.expect("it has voted");
    assert_eq!(
        (Some(last.height.0), Some(last.header.to_hex().as_str())),
        (latest["height"].as_u64(), latest["hash"].as_str()),
        "seed {seed}: custody decided {last}, and the ledger has {latest}"
    );
    let vote = |round: u32, header: Hash| Vote {
        version: 1,
        suite: genesis.suite(),
        genesis: digest::genesis_hash(&genesis),
        height: last.height,
        round: Round(round),
        step: VoteStep::Precommit,
        header: Some(header),
    };
    // The control: what it has signed, it gives out again.
    let again = custody.sign_vote(&vote(last.round.0, last.header)).expect("an answer");
    assert!(matches!(again, VoteOutcome::Signed { .. }), "seed {seed}: {again:?}");
    for round in 0..=last.round.0 + 2 {
        match custody.sign_vote(&vote(round, Hash([7; Hash::LEN]))).expect("an answer") {
            VoteOutcome::Signed { .. } => panic!("seed {seed}: a second header of {last} in round {round}"),
            VoteOutcome::AlreadySigned { vote, .. } if round == last.round.0 => {
                let signed = Vote::parse(&vote).expect("a vote");
                assert_eq!(signed.header, Some(last.header), "seed {seed}");
            }
            VoteOutcome::AlreadySigned { .. } | VoteOutcome::Refused(_) => {}
        }
    }
}

fn with<T>(
    appliance: &Appliance,
    (store, name): &(std::path::PathBuf, String),
    act: impl FnOnce(&Person<'_>) -> T,
) -> T {
    act(&Person { appliance, name: name.clone(), store: store.clone() })
}

/// How often each text stands in a conversation, as `zixt read --json` shows it.
fn texts(person: &Person<'_>, with: &str) -> BTreeMap<String, usize> {
    let history = person.json(&["read", with, "--limit", "10000"]);
    let mut texts = BTreeMap::new();
    for message in history["messages"].as_array().expect("messages") {
        if let Some(text) = message["text"].as_str().filter(|text| !text.is_empty()) {
            *texts.entry(text.to_owned()).or_default() += 1;
        }
    }
    texts
}
