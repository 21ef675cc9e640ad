use super::*;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use zixt_types::{Hash, Height, Round, SuiteId, VoteStep};

fn guard_key() -> GuardKey {
    GuardKey::new(Hash([7; 48]), &[9; MAC_KEY_BYTES])
}

fn open(disk: &Disk) -> Result<VoteGuard<Disk>, OpenError> {
    open_in(disk, Quorum::Shared)
}

fn open_in(disk: &Disk, quorum: Quorum) -> Result<VoteGuard<Disk>, OpenError> {
    VoteGuard::open(disk.clone(), guard_key(), quorum)
}

/// A disk that forgets what was not synced, tears the write that a crash interrupts, and fails when told to.
#[derive(Clone)]
struct Disk(Arc<Mutex<Inner>>);

struct Inner {
    durable: Vec<u8>,
    cached: Vec<u8>,
    pending: Vec<(usize, Vec<u8>)>,
    /// Operations until the crash; `None` is never.
    crash_in: Option<u32>,
    /// Where reads fail.
    unreadable: Vec<usize>,
}

impl Disk {
    fn new() -> Self {
        let bytes = empty_file(&guard_key());
        Self(Arc::new(Mutex::new(Inner {
            durable: bytes.clone(),
            cached: bytes,
            pending: vec![],
            crash_in: None,
            unreadable: vec![],
        })))
    }

    /// The power fails, and nothing that was not synced has reached the disk.
    fn lose_power(&self) {
        let mut inner = self.0.lock().unwrap();
        inner.pending.clear();
        inner.cached = inner.durable.clone();
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
        let inner = self.0.lock().unwrap();
        if inner.unreadable.contains(&at) {
            return Err(io::Error::other("bad sector"));
        }
        bytes.copy_from_slice(&inner.cached[at..at + bytes.len()]);
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
    let mut guard = open(&disk).unwrap();
    let first = signed(&mut guard, &vote(1, 0, false, 1), &mut n);
    let VoteOutcome::Signed { signature } = &first else { panic!("{first:?}") };
    assert_eq!(signed(&mut guard, &vote(1, 0, false, 1), &mut n), first);
    let conflict =
        VoteOutcome::AlreadySigned { vote: vote(1, 0, false, 1).to_bytes(), signature: signature.clone() };
    assert_eq!(signed(&mut guard, &vote(1, 0, false, 2), &mut n), conflict);
    assert_eq!(signed(&mut guard, &vote(1, 0, false, 0), &mut n), conflict, "nil is a value as well");
    disk.restart(1);
    let mut guard = open(&disk).unwrap();
    assert_eq!(signed(&mut guard, &vote(1, 0, false, 1), &mut n), first, "also after a restart");
    assert_eq!(signed(&mut guard, &vote(1, 0, false, 2), &mut n), conflict);
}

#[test]
fn below_the_highest_slot_only_remembered_votes_are_answered() {
    let mut guard = open(&Disk::new()).unwrap();
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
    for crash_in in [0, 1, 2] {
        let disk = Disk::new();
        let mut guard = open(&disk).unwrap();
        disk.0.lock().unwrap().crash_in = Some(crash_in);
        let mut n = 0;
        assert!(matches!(guard.vote(&vote(1, 0, false, 1), sign(&mut n)), Err(VoteError::Storage(_))));
        disk.0.lock().unwrap().crash_in = None;
        assert!(matches!(guard.vote(&vote(2, 0, false, 1), sign(&mut n)), Err(VoteError::Stopped)));
    }
}

fn flip(disk: &Disk, copy: usize, place: usize) {
    disk.0.lock().unwrap().cached[usize::try_from(place_offset(copy, place)).unwrap() + 100] ^= 1;
}

/// A disk with the votes of heights 1 to `votes`.
fn voted(votes: u64) -> Disk {
    let disk = Disk::new();
    let mut guard = open(&disk).unwrap();
    let mut n = 0;
    for height in 1..=votes {
        signed(&mut guard, &vote(height, 0, true, 1), &mut n);
    }
    disk
}

/// A second disk with the same bytes.
fn copy_of(disk: &Disk) -> Disk {
    let copy = Disk::new();
    copy.0.lock().unwrap().cached = disk.0.lock().unwrap().durable.clone();
    copy.0.lock().unwrap().durable = disk.0.lock().unwrap().durable.clone();
    copy
}

#[test]
fn one_bad_copy_of_any_record_is_mended_and_two_are_found() {
    for votes in [3u64, 64, 100] {
        let disk = voted(votes);
        let good = disk.0.lock().unwrap().durable.clone();
        for place in 0..PLACES.min(usize::try_from(votes).unwrap()) {
            for copy in 0..COPIES {
                let damaged = copy_of(&disk);
                flip(&damaged, copy, place);
                assert_eq!(open(&damaged).unwrap().highest().unwrap().height, Height(votes), "{place}");
                assert!(damaged.0.lock().unwrap().durable == good, "mended: {votes} {place} {copy}");
            }
            let damaged = copy_of(&disk);
            flip(&damaged, 0, place);
            flip(&damaged, 1, place);
            let opened = open(&damaged);
            let newest = place == record::place(votes - 1);
            // Both copies of the newest record look like one that was never released; so does the oldest, whose place
            // is next in turn.
            match (newest, place == record::place(votes)) {
                (true, _) if votes <= PLACES as u64 => {
                    assert_eq!(opened.unwrap().highest().map(|slot| slot.height), Some(Height(votes - 1)));
                }
                (true, _) | (_, true) => assert!(opened.is_ok(), "{votes} {place}"),
                _ => assert!(matches!(opened, Err(OpenError::Damaged { .. })), "{votes} {place}"),
            }
        }
    }
}

#[test]
fn one_flipped_byte_in_the_newest_record_forgets_nothing() {
    for copy in 0..COPIES {
        let disk = voted(2);
        flip(&disk, copy, 1);
        let second = signed(&mut open(&disk).unwrap(), &vote(2, 0, true, 2), &mut 9);
        assert!(matches!(second, VoteOutcome::AlreadySigned { .. }), "{second:?}");
    }
}

#[test]
fn an_unreadable_copy_is_no_loss_and_two_are_no_torn_write() {
    let disk = voted(2);
    let at = |copy| usize::try_from(place_offset(copy, 1)).unwrap();
    disk.0.lock().unwrap().unreadable = vec![at(0)];
    assert_eq!(open(&disk).unwrap().highest().unwrap().height, Height(2));
    disk.0.lock().unwrap().unreadable = vec![at(0), at(1)];
    assert!(matches!(open(&disk), Err(OpenError::Io(_))), "nobody knows what stands there");
}

/// Killed between write and fdatasync: the page cache shows the next process a record that no disk holds.
#[test]
fn what_an_earlier_process_wrote_is_durable_before_it_is_released() {
    let disk = Disk::new();
    let mut n = 0;
    let mut guard = open(&disk).unwrap();
    signed(&mut guard, &vote(1, 0, false, 1), &mut n);
    disk.0.lock().unwrap().crash_in = Some(2);
    assert!(guard.vote(&vote(1, 0, true, 1), sign(&mut n)).is_err());
    disk.0.lock().unwrap().crash_in = None;
    let mut guard = open(&disk).unwrap();
    let released = signed(&mut guard, &vote(1, 0, true, 1), &mut n);
    assert!(matches!(released, VoteOutcome::Signed { .. }));
    disk.lose_power();
    let second = signed(&mut open(&disk).unwrap(), &vote(1, 0, true, 2), &mut n);
    assert!(matches!(second, VoteOutcome::AlreadySigned { .. }), "{second:?}");
}

#[test]
fn a_guard_that_cannot_be_made_durable_does_not_open() {
    let disk = voted(3);
    for crash_in in 0..5 {
        disk.0.lock().unwrap().crash_in = Some(crash_in);
        assert!(matches!(open(&disk), Err(OpenError::Io(_))), "step {crash_in}");
        disk.restart(u64::from(crash_in));
        assert_eq!(open(&disk).unwrap().highest().unwrap().height, Height(3), "step {crash_in}");
    }
    disk.0.lock().unwrap().crash_in = Some(5);
    assert!(open(&disk).is_ok(), "there are five steps");
}

#[test]
fn who_decides_alone_precommits_one_header_for_a_height() {
    let first = SignedPrecommit { height: Height(1), round: Round(0), header: Hash([1; 48]) };
    let disk = Disk::new();
    let mut n = 0;
    let mut guard = open_in(&disk, Quorum::Alone).unwrap();
    assert_eq!(guard.precommit(), None);
    signed(&mut guard, &vote(1, 0, true, 1), &mut n);
    // More rounds than the file remembers, none of which decides.
    for round in 1..100 {
        assert!(matches!(signed(&mut guard, &vote(1, round, true, 0), &mut n), VoteOutcome::Signed { .. }));
    }
    for _ in 0..2 {
        let refused = signed(&mut guard, &vote(1, 100, true, 2), &mut n);
        assert_eq!(refused, VoteOutcome::Refused(VoteRefusal::OtherHeader { signed: first }));
        guard = open_in(&disk, Quorum::Alone).unwrap();
        assert_eq!(guard.precommit(), Some(first), "also after a restart");
    }
    let allowed = [vote(1, 100, false, 2), vote(1, 100, true, 1), vote(2, 0, true, 2), vote(2, 1, false, 3)];
    for vote in allowed {
        assert!(matches!(signed(&mut guard, &vote, &mut n), VoteOutcome::Signed { .. }), "{vote:?}");
    }
    let newest = SignedPrecommit { height: Height(2), round: Round(0), header: Hash([2; 48]) };
    assert_eq!(guard.precommit(), Some(newest));
    let mut guard = open_in(&disk, Quorum::Shared).unwrap();
    let unlocked = signed(&mut guard, &vote(2, 2, true, 3), &mut n);
    assert!(matches!(unlocked, VoteOutcome::Signed { .. }), "others may have decided so: {unlocked:?}");
}

#[test]
fn a_forged_record_does_not_count() {
    let forger = GuardKey::new(Hash([7; 48]), &[8; MAC_KEY_BYTES]);
    let record = Record { number: 2, precommit: None, vote: vote(9, 0, true, 2), signature: vec![1; 3309] };
    let bytes = record.to_bytes(&forger).unwrap();
    let disk = voted(2);
    for copy in 0..COPIES {
        let at = usize::try_from(place_offset(copy, 2)).unwrap();
        disk.0.lock().unwrap().cached[at..at + bytes.len()].copy_from_slice(&bytes);
    }
    assert_eq!(open(&disk).unwrap().highest().unwrap().height, Height(2));
    let forged = Disk::new();
    forged.0.lock().unwrap().cached = empty_file(&forger);
    assert!(matches!(open(&forged), Err(OpenError::Header)));
}

#[test]
fn foreign_and_damaged_headers_are_refused() {
    let other = GuardKey::new(Hash([8; 48]), &[9; MAC_KEY_BYTES]);
    assert!(matches!(VoteGuard::open(Disk::new(), other, Quorum::Shared), Err(OpenError::OtherKey)));
    for at in [0, HEADER_BYTES - 1, 60] {
        let disk = Disk::new();
        disk.0.lock().unwrap().cached[at] ^= 1;
        assert!(matches!(open(&disk), Err(OpenError::Header)), "{at}");
    }
}

#[derive(Debug, Clone)]
struct Step {
    height: u64,
    round: u32,
    precommit: bool,
    value: u8,
    crash_in: Option<u32>,
    /// Only the process dies, not the machine.
    kill: bool,
    /// Operations of the next start until the power fails.
    crash_opening_in: Option<u32>,
    seed: u64,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let crash = (
        prop::option::weighted(0.3, 0u32..3),
        any::<bool>(),
        prop::option::weighted(0.2, 0u32..6),
        any::<u64>(),
    );
    let step = (1u64..6, 0u32..3, any::<bool>(), 0u8..3, crash).prop_map(
        |(height, round, precommit, value, (crash_in, kill, crash_opening_in, seed))| Step {
            height,
            round,
            precommit,
            value,
            crash_in,
            kill,
            crash_opening_in,
            seed,
        },
    );
    prop::collection::vec(step, 1..60)
}

fn cases() -> u32 {
    if std::env::var_os("ZIXT_TEST_FULL").is_some() { 10_000 } else { 300 }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), ..ProptestConfig::default() })]

    /// Whatever is asked, and wherever the power fails: one slot, one value, one signature.
    #[test]
    fn no_schedule_of_votes_and_crashes_yields_two_values_of_one_slot(
        steps in steps(),
        rise: bool,
        alone: bool,
    ) {
        let disk = Disk::new();
        let quorum = if alone { Quorum::Alone } else { Quorum::Shared };
        let open = |disk: &Disk| open_in(disk, quorum);
        let mut guard = open(&disk).unwrap();
        let mut certified: BTreeMap<Height, Hash> = BTreeMap::new();
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
                if let (true, Some(precommit)) = (alone, precommit(&vote)) {
                    let before = *certified.entry(precommit.height).or_insert(precommit.header);
                    prop_assert_eq!(before, precommit.header, "two certificates of a height");
                }
                let before = released.entry(slot(&vote)).or_insert((vote.clone(), signature.clone()));
                prop_assert_eq!(&*before, &(vote, signature));
            }
            if step.crash_in.is_some() {
                disk.0.lock().unwrap().crash_in = None;
                if !step.kill {
                    disk.restart(step.seed);
                }
                disk.0.lock().unwrap().crash_in = step.crash_opening_in;
                let opened = open(&disk);
                disk.0.lock().unwrap().crash_in = None;
                guard = match opened {
                    Ok(guard) => guard,
                    Err(error) => {
                        prop_assert!(matches!(error, OpenError::Io(_)), "{error}");
                        disk.restart(!step.seed);
                        open(&disk).unwrap()
                    }
                };
            }
        }
    }

    #[test]
    fn any_bytes_in_the_places_are_an_error_or_ignored_but_no_panic(bytes in prop::collection::vec(any::<u8>(), 1..400), at in 0usize..128) {
        let disk = Disk::new();
        let from = HEADER_BYTES + at * PLACE_BYTES;
        disk.0.lock().unwrap().cached[from..from + bytes.len()].copy_from_slice(&bytes);
        let _ = open(&disk);
    }
}
