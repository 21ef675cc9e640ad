use super::*;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use zixt_types::{Height, Round, SuiteId, VoteStep};

const KEY: Hash = Hash([7; 48]);

/// A disk that forgets what was not synced, tears the write that a crash interrupts, and fails when told to.
#[derive(Clone)]
struct Disk(Arc<Mutex<Inner>>);

struct Inner {
    durable: Vec<u8>,
    cached: Vec<u8>,
    pending: Vec<(usize, Vec<u8>)>,
    /// Operations until the crash; `None` is never.
    crash_in: Option<u32>,
}

impl Disk {
    fn new() -> Self {
        let bytes = empty_file(KEY);
        Self(Arc::new(Mutex::new(Inner {
            durable: bytes.clone(),
            cached: bytes,
            pending: vec![],
            crash_in: None,
        })))
    }

    /// The machine restarts: of each unsynced write an arbitrary part has reached the disk.
    fn restart(&self, seed: u64) {
        let mut inner = self.0.lock().unwrap();
        let pending = std::mem::take(&mut inner.pending);
        for (n, (at, bytes)) in pending.into_iter().enumerate() {
            let mut state = seed.wrapping_add(n as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
            // Sectors reach the disk in any order, and each as a whole or cut at any byte.
            for (sector, chunk) in bytes.chunks(512).enumerate() {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                let keep = match state >> 62 {
                    0 => 0,
                    1 => (state >> 40) as usize % (chunk.len() + 1),
                    _ => chunk.len(),
                };
                let from = at + sector * 512;
                inner.durable[from..from + keep].copy_from_slice(&chunk[..keep]);
            }
        }
        inner.cached = inner.durable.clone();
        inner.crash_in = None;
    }

    fn step(inner: &mut Inner) -> io::Result<()> {
        match inner.crash_in {
            Some(0) => Err(io::Error::other("crashed")),
            Some(n) => {
                inner.crash_in = Some(n - 1);
                Ok(())
            }
            None => Ok(()),
        }
    }
}

impl GuardFile for Disk {
    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        let at = usize::try_from(offset).unwrap();
        bytes.copy_from_slice(&self.0.lock().unwrap().cached[at..at + bytes.len()]);
        Ok(())
    }

    fn write_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut inner = self.0.lock().unwrap();
        let at = usize::try_from(offset).unwrap();
        // A crash during the write leaves a part of it, so it is pending either way.
        inner.pending.push((at, bytes.to_vec()));
        Self::step(&mut inner)?;
        inner.cached[at..at + bytes.len()].copy_from_slice(bytes);
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        let mut inner = self.0.lock().unwrap();
        Self::step(&mut inner)?;
        inner.pending.clear();
        inner.durable = inner.cached.clone();
        Ok(())
    }
}

fn vote(height: u64, round: u32, precommit: bool, value: u8) -> Vote {
    Vote {
        version: 1,
        suite: SuiteId::Standard,
        genesis: Hash([1; 48]),
        height: Height(height),
        round: Round(round),
        step: if precommit { VoteStep::Precommit } else { VoteStep::Prevote },
        header: (value > 0).then_some(Hash([value; 48])),
    }
}

/// Stands for a hedged signature: never the same twice.
fn sign(counter: &mut u64) -> impl FnOnce(&Vote) -> Result<Vec<u8>, zixt_crypto::SignError> {
    *counter += 1;
    let fresh = *counter;
    move |vote| Ok([&fresh.to_be_bytes()[..], &[0; 3301], &vote.to_bytes()[..]].concat())
}

fn signed(guard: &mut VoteGuard<Disk>, vote: &Vote, counter: &mut u64) -> VoteOutcome {
    guard.vote(vote, sign(counter)).unwrap()
}

#[test]
fn the_same_vote_gets_the_same_signature_and_another_gets_the_first_vote() {
    let disk = Disk::new();
    let mut n = 0;
    let mut guard = VoteGuard::open(disk.clone(), KEY).unwrap();
    let first = signed(&mut guard, &vote(1, 0, false, 1), &mut n);
    let VoteOutcome::Signed { signature } = &first else { panic!("{first:?}") };
    assert_eq!(signed(&mut guard, &vote(1, 0, false, 1), &mut n), first);
    let conflict =
        VoteOutcome::AlreadySigned { vote: vote(1, 0, false, 1).to_bytes(), signature: signature.clone() };
    assert_eq!(signed(&mut guard, &vote(1, 0, false, 2), &mut n), conflict);
    assert_eq!(signed(&mut guard, &vote(1, 0, false, 0), &mut n), conflict, "nil is a value as well");
    disk.restart(1);
    let mut guard = VoteGuard::open(disk, KEY).unwrap();
    assert_eq!(signed(&mut guard, &vote(1, 0, false, 1), &mut n), first, "also after a restart");
    assert_eq!(signed(&mut guard, &vote(1, 0, false, 2), &mut n), conflict);
}

#[test]
fn below_the_highest_slot_only_remembered_votes_are_answered() {
    let mut guard = VoteGuard::open(Disk::new(), KEY).unwrap();
    let mut n = 0;
    signed(&mut guard, &vote(5, 3, true, 1), &mut n);
    let highest = VoteSlot { height: Height(5), round: Round(3), step: VoteStep::Precommit };
    assert_eq!(guard.highest(), Some(highest));
    for (height, round, precommit) in [(5, 3, false), (5, 2, true), (4, 9, true)] {
        let outcome = signed(&mut guard, &vote(height, round, precommit, 1), &mut n);
        assert_eq!(outcome, VoteOutcome::Refused(VoteRefusal::BelowHighest { highest }));
    }
    for round in 4..200 {
        let outcome = signed(&mut guard, &vote(5, round, false, 1), &mut n);
        assert!(matches!(outcome, VoteOutcome::Signed { .. }));
    }
    let remembered = 200 - u32::try_from(PLACES).unwrap();
    assert!(matches!(signed(&mut guard, &vote(5, remembered, false, 1), &mut n), VoteOutcome::Signed { .. }));
    assert!(matches!(
        signed(&mut guard, &vote(5, remembered - 1, false, 1), &mut n),
        VoteOutcome::Refused(_)
    ));
}

#[test]
fn a_failed_write_or_sync_stops_the_guard_until_a_restart() {
    for crash_in in [0, 1] {
        let disk = Disk::new();
        let mut guard = VoteGuard::open(disk.clone(), KEY).unwrap();
        disk.0.lock().unwrap().crash_in = Some(crash_in);
        let mut n = 0;
        assert!(matches!(guard.vote(&vote(1, 0, false, 1), sign(&mut n)), Err(VoteError::Storage(_))));
        disk.0.lock().unwrap().crash_in = None;
        assert!(matches!(guard.vote(&vote(2, 0, false, 1), sign(&mut n)), Err(VoteError::Stopped)));
    }
}

#[test]
fn damage_of_a_released_vote_is_found() {
    for votes in [3u64, 64, 100] {
        let disk = Disk::new();
        let mut guard = VoteGuard::open(disk.clone(), KEY).unwrap();
        let mut n = 0;
        for height in 1..=votes {
            signed(&mut guard, &vote(height, 0, false, 1), &mut n);
        }
        let next = record::place(votes);
        for place in 0..PLACES {
            let damaged = Disk::new();
            let mut bytes = disk.0.lock().unwrap().durable.clone();
            let written = place < usize::try_from(votes).unwrap();
            bytes[HEADER_BYTES + place * PLACE_BYTES + 20] ^= 1;
            damaged.0.lock().unwrap().cached = bytes;
            let opened = VoteGuard::open(damaged, KEY);
            // The place next in turn may be torn. The newest one looks like it: see below.
            let newest = place == record::place(votes - 1);
            match (place == next, newest, written) {
                (true, ..) => assert!(opened.is_ok(), "{votes} {place}"),
                (_, true, _) if votes < PLACES as u64 => {
                    assert_eq!(opened.unwrap().highest().map(|slot| slot.height), Some(Height(votes - 1)));
                }
                (_, true, _) => assert!(opened.is_ok(), "{votes} {place}"),
                _ => assert!(matches!(opened, Err(OpenError::Damaged { .. })), "{votes} {place}"),
            }
        }
    }
}

#[test]
fn foreign_and_damaged_headers_are_refused() {
    assert!(matches!(VoteGuard::open(Disk::new(), Hash([8; 48])), Err(OpenError::OtherKey)));
    let disk = Disk::new();
    disk.0.lock().unwrap().cached[9] ^= 1;
    assert!(matches!(VoteGuard::open(disk, KEY), Err(OpenError::Header)));
}

#[derive(Debug, Clone)]
struct Step {
    height: u64,
    round: u32,
    precommit: bool,
    value: u8,
    crash_in: Option<u32>,
    seed: u64,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = (1u64..6, 0u32..3, any::<bool>(), 0u8..3, prop::option::weighted(0.3, 0u32..2), any::<u64>())
        .prop_map(|(height, round, precommit, value, crash_in, seed)| Step {
            height,
            round,
            precommit,
            value,
            crash_in,
            seed,
        });
    prop::collection::vec(step, 1..60)
}

fn cases() -> u32 {
    if std::env::var_os("ZIXT_TEST_FULL").is_some() { 10_000 } else { 300 }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), ..ProptestConfig::default() })]

    /// Whatever is asked, and wherever the power fails: one slot, one value, one signature.
    #[test]
    fn no_schedule_of_votes_and_crashes_yields_two_values_of_one_slot(steps in steps(), rise: bool) {
        let disk = Disk::new();
        let mut guard = VoteGuard::open(disk.clone(), KEY).unwrap();
        let mut released: BTreeMap<VoteSlot, (Vote, Vec<u8>)> = BTreeMap::new();
        let mut n = 0;
        for (at, step) in steps.iter().enumerate() {
            // Half of the schedules mostly rise, so that places are used more than once.
            let height = if rise { at as u64 * 2 + step.height } else { step.height };
            let wanted = vote(height, step.round, step.precommit, step.value);
            disk.0.lock().unwrap().crash_in = step.crash_in;
            let outcome = guard.vote(&wanted, sign(&mut n));
            let out = match outcome {
                Ok(VoteOutcome::Signed { signature }) => Some((wanted, signature)),
                Ok(VoteOutcome::AlreadySigned { vote, signature }) => {
                    prop_assert_ne!(&vote, &wanted.to_bytes());
                    Some((Vote::parse(&vote).unwrap(), signature))
                }
                Ok(VoteOutcome::Refused(_)) | Err(_) => None,
            };
            if let Some((vote, signature)) = out {
                let before = released.entry(slot(&vote)).or_insert((vote.clone(), signature.clone()));
                prop_assert_eq!(&*before, &(vote, signature));
            }
            if step.crash_in.is_some() {
                disk.restart(step.seed);
                guard = VoteGuard::open(disk.clone(), KEY).unwrap();
            }
        }
    }

    #[test]
    fn any_bytes_in_the_places_are_an_error_or_ignored_but_no_panic(bytes in prop::collection::vec(any::<u8>(), 1..400), at in 0usize..64) {
        let disk = Disk::new();
        let from = HEADER_BYTES + at * PLACE_BYTES;
        disk.0.lock().unwrap().cached[from..from + bytes.len()].copy_from_slice(&bytes);
        let _ = VoteGuard::open(disk, KEY);
    }
}
