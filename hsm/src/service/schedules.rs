//! Random schedules of everything that could make one slot vote twice: votes, kills, folders that are put back, a second
//! machine on a copy, a clock that is set back, unlocks by either of two devices. The devices are hardware: nothing sets them
//! back. Both tell their counters without a PIN, so that they move together, whichever is used.
//!
//! Decision 0010 admits two windows. The model knows both exactly, and nothing else excuses a second value of a slot:
//! * *Copy*: once another machine moved the anchor, this one votes on until it looks at the anchor again, which it does
//!   before the first vote that comes ten seconds after its last look.
//! * *Session*: what is put back is not noticed if the anchor did not move since it was taken. Votes that were released in
//!   between are forgotten then.

use super::tests::{Shared, genesis, pin, vote};
use super::*;
use crate::backend::WrappedSeed;
use crate::protector::testing::TestProtector;
use crate::state::{CustodyRecord, VOTES_FILE};
use proptest::prelude::*;
use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::LazyLock;
use std::time::Duration;
use zixt_crypto_fast::AwsLc;
use zixt_types::{Canonical as _, Genesis, SuiteId, Vote};

thread_local! {
    static SET_BACK_BY: Cell<Duration> = const { Cell::new(Duration::ZERO) };
}

/// How far this thread's clock was set back.
pub(super) fn set_back_by() -> Duration {
    SET_BACK_BY.get()
}

#[derive(Debug, Clone)]
enum Step {
    Vote {
        of: usize,
        height: u64,
        round: u32,
        precommit: bool,
        value: u8,
    },
    /// Killed, and started again.
    Kill {
        of: usize,
        by: usize,
    },
    /// Locked, and unlocked again.
    Lock {
        of: usize,
        by: usize,
    },
    /// Somebody keeps a copy of the folder.
    Keep {
        of: usize,
    },
    /// The machine is killed, gets what was kept last, whosever it was, and is started.
    PutBack {
        of: usize,
        by: usize,
    },
    /// The time passes after which a machine looks at the anchor.
    Wait {
        of: usize,
    },
    SetClockBack {
        by_s: u64,
    },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let of = || 0usize..2;
    let step = prop_oneof![
        8 => (of(), 1u64..4, 0u32..2, any::<bool>(), 1u8..3).prop_map(
            |(of, height, round, precommit, value)| Step::Vote { of, height, round, precommit, value }
        ),
        1 => (of(), of()).prop_map(|(of, by)| Step::Kill { of, by }),
        1 => (of(), of()).prop_map(|(of, by)| Step::Lock { of, by }),
        2 => of().prop_map(|of| Step::Keep { of }),
        2 => (of(), of()).prop_map(|(of, by)| Step::PutBack { of, by }),
        1 => of().prop_map(|of| Step::Wait { of }),
        1 => (0u64..1_000_000).prop_map(|by_s| Step::SetClockBack { by_s }),
    ];
    prop::collection::vec(step, 1..40)
}

/// A folder's files.
type Files = Vec<(&'static str, Vec<u8>)>;

/// The two devices.
const NAMES: [&str; 2] = ["first", "second"];

/// A provisioned machine, its devices, and its network: made once, because keys take their time.
static MADE: LazyLock<(Files, [TestProtector; 2], Genesis)> = LazyLock::new(|| {
    let machine = Machine::new(NAMES.map(TestProtector::counting));
    let service = machine.service();
    service.unlock(&pin(), None, PinTry::Attended).unwrap();
    let genesis = genesis(&service.provision(SuiteId::Standard, true).unwrap(), true);
    service.add_protector(NAMES[1], &pin(), None).unwrap();
    service.bind_genesis(&genesis.to_bytes()).unwrap();
    service.shut_down();
    let [first, second] = &machine.devices;
    (machine.files(), [first.alike(), second.alike()], genesis)
});

struct Machine {
    folder: tempfile::TempDir,
    devices: [Arc<TestProtector>; 2],
    running: Option<Service>,
    /// Another machine moved the anchor since this one last did.
    overtaken: bool,
    /// It had no time to notice.
    excused: bool,
}

impl Machine {
    fn new(devices: [TestProtector; 2]) -> Self {
        // What a power failure leaves is another test's; here nothing is gained by waiting for a disk.
        let folder = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
        Self { folder, devices: devices.map(Arc::new), running: None, overtaken: false, excused: false }
    }

    fn folder(&self) -> DiskFolder {
        DiskFolder(self.folder.path().to_owned())
    }

    fn files(&self) -> Files {
        [STATE_FILE, VOTES_FILE].map(|name| (name, std::fs::read(self.folder().path(name)).unwrap())).to_vec()
    }

    fn put(&self, files: &Files) {
        files.iter().for_each(|(name, bytes)| std::fs::write(self.folder().path(name), bytes).unwrap());
    }

    /// Where both anchors stand, less what they began with.
    fn counter(&self) -> u64 {
        let [first, second] = self.devices.each_ref().map(|device| device.counter());
        let [began, began_second] = MADE.1.each_ref().map(TestProtector::counter);
        assert_eq!(first - began, second - began_second, "one anchor moved alone");
        first
    }

    fn unlock(&self, service: &Service, by: usize) -> StateKind {
        service.unlock(&pin(), Some(NAMES[by]), PinTry::Attended).unwrap()
    }

    fn service(&self) -> Service {
        self.devices.iter().for_each(|device| device.close());
        let shared = |device: &Arc<TestProtector>| Arc::new(Shared(Arc::clone(device))) as Arc<dyn Protector>;
        let devices = Devices {
            protectors: self.devices.iter().map(shared).collect(),
            keys: Box::new(WrappedSeed::new(Box::new(AwsLc))),
            crypto: Box::new(AwsLc),
        };
        Service::new(self.folder(), devices, UnlockMode::Attended, Custody::read(&self.folder()).unwrap())
    }

    fn record(&self) -> CustodyRecord {
        CustodyRecord::parse(&std::fs::read(self.folder().path(STATE_FILE)).unwrap()).unwrap()
    }
}

/// Votes by height, round, and whether it is a precommit.
type Released = BTreeMap<(u64, u32, bool), Vote>;

struct World {
    machines: [Machine; 2],
    genesis: Genesis,
    /// What was released and nobody may contradict.
    released: Released,
    /// What was kept last, where the anchor stood, and what had been released.
    kept: Option<(Files, u64, Released)>,
}

impl World {
    fn new() -> Self {
        let (files, devices, genesis) = &*MADE;
        let devices = devices.each_ref().map(TestProtector::alike);
        let others = devices.each_ref().map(TestProtector::of_another_program);
        let machines = [Machine::new(others), Machine::new(devices)];
        machines[0].put(files);
        let mut world = Self { machines, genesis: genesis.clone(), released: BTreeMap::new(), kept: None };
        world.start(0, 0);
        world
    }

    /// Starts a machine and unlocks it. A state that the anchor has left behind is quarantined.
    fn start(&mut self, of: usize, by: usize) {
        let before = self.machines[of].counter();
        let machine = &mut self.machines[of];
        machine.running = None;
        let record = machine.record();
        let newest = record.protectors[0].anchored.is_some_and(|at| at == before || at == before + 1);
        let service = machine.service();
        let state = machine.unlock(&service, by);
        let wanted = if newest && record.quarantine.is_none() {
            StateKind::Operational
        } else {
            StateKind::Quarantined
        };
        assert_eq!(state, wanted);
        machine.running = Some(service);
        (machine.overtaken, machine.excused) = (false, false);
        self.moved(of, before);
    }

    /// The others were overtaken, if a machine has moved the anchor.
    fn moved(&mut self, of: usize, before: u64) {
        let other = &mut self.machines[1 - of];
        if other.counter() != before && other.running.is_some() {
            (other.overtaken, other.excused) = (true, true);
        }
    }

    fn take(&mut self, step: &Step) {
        match *step {
            Step::Vote { of, height, round, precommit, value } => {
                self.vote(of, height, round, precommit, value);
            }
            Step::Kill { of, by } if self.machines[of].running.is_some() => self.start(of, by),
            Step::Lock { of, by } if self.machines[of].running.is_some() => {
                let before = self.machines[of].counter();
                let machine = &mut self.machines[of];
                if let Some(service) = &machine.running {
                    service.lock().unwrap();
                    let overtaken = machine.overtaken;
                    let state = machine.unlock(service, by);
                    assert!(!overtaken || state == StateKind::Quarantined, "an unlock looks at the anchor");
                }
                (machine.overtaken, machine.excused) = (false, false);
                self.moved(of, before);
            }
            Step::Keep { of } if self.machines[of].running.is_some() => {
                let machine = &self.machines[of];
                self.kept = Some((machine.files(), machine.counter(), self.released.clone()));
            }
            Step::PutBack { of, by } => {
                let Some((files, at, released)) = self.kept.clone() else { return };
                self.machines[of].running = None;
                self.machines[of].put(&files);
                if self.machines[of].counter() == at {
                    // The window of a session.
                    self.released = released;
                }
                self.start(of, by);
            }
            Step::Wait { of } => {
                if let Some(service) = &self.machines[of].running {
                    service.look_back(2 * watch::ANCHORS_SEEN_MAX);
                    self.machines[of].excused = false;
                }
            }
            Step::SetClockBack { by_s } => SET_BACK_BY.set(Duration::from_secs(by_s)),
            Step::Kill { .. } | Step::Lock { .. } | Step::Keep { .. } => {}
        }
    }

    fn vote(&mut self, of: usize, height: u64, round: u32, precommit: bool, value: u8) {
        let machine = &self.machines[of];
        let Some(service) = &machine.running else { return };
        let before = machine.counter();
        let step = if precommit { zixt_types::VoteStep::Precommit } else { zixt_types::VoteStep::Prevote };
        let wanted = Vote::parse(&vote(&self.genesis, height, value)).unwrap();
        let wanted = Vote { round: zixt_types::Round(round), step, ..wanted };
        let request = Request::SignVote { vote: wanted.to_bytes() };
        let answer = service.answer(&request);
        service.prepare(&request, &answer);
        let out = match answer {
            Response::Vote(VoteOutcome::Signed { .. }) => Some(wanted),
            Response::Vote(VoteOutcome::AlreadySigned { vote, .. }) => Some(Vote::parse(&vote).unwrap()),
            _ => None,
        };
        let (overtaken, excused) = (machine.overtaken, machine.excused);
        self.moved(of, before);
        let Some(out) = out else { return };
        assert!(!overtaken || excused, "it votes on although it had to look at the anchor");
        if !overtaken {
            let slot = (out.height.0, out.round.0, out.step == zixt_types::VoteStep::Precommit);
            let before = self.released.entry(slot).or_insert_with(|| out.clone());
            assert_eq!(*before, out, "two values of {slot:?}");
        }
    }
}

/// 10,000 with all shares of a full run.
fn cases() -> u32 {
    if std::env::var_os("ZIXT_TEST_FULL").is_some() { 10_000 / SHARES } else { 600 / SHARES }
}

/// As many tests run side by side as a small machine has cores, each with seeds of its own.
const SHARES: u32 = 2;

fn runs(steps: &[Step]) {
    SET_BACK_BY.set(Duration::ZERO);
    let mut world = World::new();
    steps.iter().for_each(|step| world.take(step));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), ..ProptestConfig::default() })]

    #[test]
    fn no_schedule_yields_two_values_of_one_slot(steps in steps()) {
        runs(&steps);
    }

    /// The other half, so that a full run takes half as long.
    #[test]
    fn nor_does_any_other_schedule(steps in steps()) {
        runs(&steps);
    }
}

/// The model is worth nothing if its windows swallow everything: without them it finds both.
#[test]
fn the_windows_are_where_the_model_has_them() {
    SET_BACK_BY.set(Duration::ZERO);
    let votes = |of, value| Step::Vote { of, height: 1, round: 0, precommit: true, value };
    let run = |steps: &[Step]| {
        let mut world = World::new();
        steps.iter().for_each(|step| world.take(step));
        world
    };
    // Both of a copy vote, until the first one looks.
    let mut world = run(&[Step::Keep { of: 0 }, Step::PutBack { of: 1, by: 1 }, votes(1, 1), votes(0, 2)]);
    assert_eq!(world.released.len(), 1);
    let state = |world: &World, of: usize| world.machines[of].running.as_ref().unwrap().status().state;
    assert_eq!((state(&world, 0), state(&world, 1)), (StateKind::Operational, StateKind::Operational));
    world.take(&Step::Wait { of: 0 });
    world.take(&Step::Vote { of: 0, height: 2, round: 0, precommit: true, value: 2 });
    assert_eq!((state(&world, 0), world.released.len()), (StateKind::Quarantined, 1));
    // What was kept in the same session comes back unnoticed; from the session before it does not.
    let world = run(&[Step::Keep { of: 0 }, votes(0, 1), Step::PutBack { of: 0, by: 1 }, votes(0, 2)]);
    assert_eq!((state(&world, 0), world.released.len()), (StateKind::Operational, 1));
    let world = run(&[
        Step::Keep { of: 0 },
        Step::Lock { of: 0, by: 0 },
        votes(0, 1),
        Step::PutBack { of: 0, by: 1 },
        votes(0, 2),
    ]);
    assert_eq!((state(&world, 0), world.released.len()), (StateKind::Quarantined, 1));
}
