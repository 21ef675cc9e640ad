//! Keeps accounts as the directory has its people: reads, compares, has it applied, and only then goes on from there.

use std::collections::{HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use thiserror::Error;
use tokio::sync::{Notify, watch};
use zixt_identity::Link;
use zixt_types::{Hash, Timestamp};

use crate::directory::{Directory, REFUSED_INTERVALS_MAX};
use crate::faults::Faults;
use crate::plan::{Basis, HeldPlan, Linked, Plan, Taken, compare};
use crate::snapshot::Snapshot;
use crate::sync::{Mode, Read};

/// The longest pause after other failures. A try costs little, and until there is one who left keeps their sessions.
const FAILED_INTERVALS_MAX: u32 = 2;
/// Intervals without a success after which what is known of people is old: two that failed, and time to read.
const STALE_INTERVALS: u64 = 4;
/// For how long what was taken counts against what may be taken.
const BUDGET_MS: u64 = 24 * 60 * 60 * 1_000;

/// Why accounts were not changed. The same plan comes again.
#[derive(Debug, Error)]
#[error("{0}")]
pub struct ApplyError(pub String);

/// What has the accounts.
#[async_trait]
pub trait Accounts: Send + Sync {
    /// The links to this directory of all accounts that are active, and of those that it has suspended. Asked in each round,
    /// before the directory and after it: who is linked meanwhile is looked at in the next.
    ///
    /// # Errors
    /// [`ApplyError`]
    async fn linked(&self) -> Result<Linked, ApplyError>;

    /// Does what the plan says, on the authority of its directory, ends the sessions of whoever is suspended, and stores
    /// `snapshot`, all durably, before it returns. May be called again with a plan that was done in part.
    ///
    /// # Errors
    /// [`ApplyError`]
    async fn apply(&self, plan: &Plan, snapshot: &Snapshot) -> Result<(), ApplyError>;

    /// Hears of a plan that is held back: once, until another one is. An alert; nothing of the plan is done.
    ///
    /// # Errors
    /// [`ApplyError`]: then it is told again in the next round.
    async fn held(&self, held: &HeldPlan) -> Result<(), ApplyError>;
}

/// The wall clock.
pub trait Clock: Send + Sync {
    /// Now.
    fn now(&self) -> Timestamp;
}

/// How it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Health {
    /// When accounts were last as the directory has its people.
    pub last_success: Option<Timestamp>,
    /// How many people there were.
    pub people: usize,
    /// How they were read.
    pub mode: Option<Mode>,
    /// From which server.
    pub server: Option<String>,
    /// How long it took.
    pub took: Duration,
    /// What is wrong in the directory.
    pub faults: Faults,
    /// A plan that waits for an officer. While there is one, nothing that the directory says changes an account.
    pub held: Option<Arc<HeldPlan>>,
    /// Why the last try came to nothing.
    pub last_error: Option<String>,
    /// Tries since the last that came to something.
    pub failures: u32,
    /// How often the directory is read.
    pub interval: Duration,
}

impl Health {
    /// Whether so much time has passed since accounts were as the directory has its people that somebody who left may still
    /// be let in: four intervals, or ever since the start; also while a plan is held back.
    #[must_use]
    pub fn is_stale(&self, now: Timestamp) -> bool {
        let interval = u64::try_from(self.interval.as_millis()).unwrap_or(u64::MAX);
        self.last_success
            .is_none_or(|last| now.0.saturating_sub(last.0) > interval.saturating_mul(STALE_INTERVALS))
    }
}

/// Why a release is not possible.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum ReleaseError {
    /// Nothing is held back.
    #[error("no plan of this directory is held back")]
    Nothing,
    /// Another plan is held back by now.
    #[error("the plan that is held back by now is {0}")]
    Other(Hash),
}

struct State {
    health: Health,
    released: Option<Arc<HeldPlan>>,
}

struct Shared {
    state: Mutex<State>,
    wake: Notify,
    rounds: watch::Sender<u64>,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        // Only plain assignments happen under it.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How the rest of the server speaks to a [`Watch`].
#[derive(Clone)]
pub struct WatchHandle(Arc<Shared>);

impl WatchHandle {
    /// How it is. Never waits.
    #[must_use]
    pub fn health(&self) -> Health {
        self.0.state().health.clone()
    }

    /// Releases the plan that is held back, once a security officer's word for exactly this digest is there and recorded.
    /// The directory is read again, and the plan is done if it takes nothing more by then, but for what may be taken without
    /// a word: [`HeldPlan::release_within`].
    ///
    /// # Errors
    /// [`ReleaseError`]
    pub fn release(&self, digest: Hash) -> Result<(), ReleaseError> {
        let mut state = self.0.state();
        match state.health.held.clone() {
            None => return Err(ReleaseError::Nothing),
            Some(held) if held.digest() != digest => return Err(ReleaseError::Other(held.digest())),
            held => state.released = held,
        }
        drop(state);
        self.0.wake.notify_one();
        Ok(())
    }

    /// Reads the directory now, and not only when the interval is over.
    pub fn hurry(&self) {
        self.0.wake.notify_one();
    }

    /// Waits until a whole round has begun and ended after this call.
    pub async fn settled(&self) {
        let mut rounds = self.0.rounds.subscribe();
        let goal = rounds.borrow_and_update().saturating_add(2);
        self.hurry();
        while *rounds.borrow_and_update() < goal {
            self.hurry();
            if rounds.changed().await.is_err() {
                return;
            }
        }
    }
}

/// Keeps the accounts of one directory. Dropping the future of [`Self::run`] ends it at a point where nothing is lost.
pub struct Watch {
    directory: Arc<Directory>,
    accounts: Arc<dyn Accounts>,
    clock: Arc<dyn Clock>,
    snapshot: Option<Snapshot>,
    /// Found when the directory was last read; there is nothing new where it has committed nothing since.
    observed: Faults,
    /// What was taken without an officer's word, the oldest first. Lost at a restart, of which there are few; an attacker who
    /// restarts the appliance at will needs no directory.
    taken: VecDeque<(Timestamp, Taken)>,
    /// From which server everybody was read last.
    server: Option<String>,
    shared: Arc<Shared>,
}

impl Watch {
    /// `snapshot` is the last one that [`Accounts::apply`] stored; `None` if there is none.
    #[must_use]
    pub fn new(
        directory: Arc<Directory>,
        accounts: Arc<dyn Accounts>,
        clock: Arc<dyn Clock>,
        snapshot: Option<Snapshot>,
    ) -> Self {
        let health = Health { interval: directory.config().interval, ..Health::default() };
        let state = Mutex::new(State { health, released: None });
        let shared = Arc::new(Shared { state, wake: Notify::new(), rounds: watch::Sender::new(0) });
        let (observed, taken) = (Faults::default(), VecDeque::new());
        Self { directory, accounts, clock, snapshot, observed, taken, server: None, shared }
    }

    /// What the rest of the server speaks to.
    #[must_use]
    pub fn handle(&self) -> WatchHandle {
        WatchHandle(self.shared.clone())
    }

    /// Goes on until it is dropped.
    pub async fn run(mut self) {
        loop {
            let interval = self.directory.config().interval;
            let begun = Instant::now();
            let pause = match self.read_and_apply().await {
                // From the begin of one round to the begin of the next.
                Ok(()) => interval.saturating_sub(begun.elapsed()),
                Err(trouble) => pause(interval, self.failed(&trouble.error), trouble.refused),
            };
            self.shared.rounds.send_modify(|rounds| *rounds = rounds.saturating_add(1));
            // Woken or not, it is time.
            let _ = tokio::time::timeout(pause, self.shared.wake.notified()).await;
        }
    }

    /// Gives how many tries have failed.
    fn failed(&self, error: &str) -> u32 {
        log::error!(target: "zixt::directory", "{}: {error}", self.directory.config().name());
        let mut state = self.shared.state();
        state.health.failures = state.health.failures.saturating_add(1);
        state.health.last_error = Some(error.to_owned());
        state.health.failures
    }

    async fn read_and_apply(&mut self) -> Result<(), Trouble> {
        let directory = self.directory.clone();
        let before = self.accounts.linked().await.map_err(Trouble::of_accounts)?;
        let read = directory
            .sync(self.snapshot.as_ref(), self.clock.now())
            .await
            .map_err(|error| Trouble { refused: error.refused_the_reader(), error: error.to_string() })?;
        let linked = in_both(&before, self.accounts.linked().await.map_err(Trouble::of_accounts)?);
        let now = self.clock.now();
        let recent = recent(&mut self.taken, now);
        let basis = Basis { before: self.snapshot.as_ref(), linked: &linked, recent };
        let safety = directory.config().safety();
        let Read { snapshot, faults, mode, server, took } = read;
        if mode != Mode::Unchanged {
            self.observed = faults;
        }
        let compared = compare(directory.issuer(), basis, &snapshot, self.observed.clone(), safety);
        // A release is for the plan that was held back when it was given, and for one round.
        let released = self.shared.state().released.take();
        let decided = compared.or_else(|held| match &released {
            Some(released) => held.release_within(released),
            None => Err(held),
        });
        // Another server may be a replica that is behind, and has people enabled who are not any more. What it takes is believed
        // at once; who comes in again waits for a second round.
        let another = self.server.replace(server.clone()).is_some_and(|before| before != server);
        let plan = match decided {
            Ok(plan) if another => plan.without_resumes(),
            Ok(plan) => plan,
            Err(held) => {
                let before = self.shared.state().health.held.as_ref().map(|before| before.digest());
                if before != Some(held.digest()) {
                    log::error!(target: "zixt::directory", "{}: {held}", directory.config().name());
                    self.accounts.held(&held).await.map_err(Trouble::of_accounts)?;
                }
                let mut state = self.shared.state();
                let health = &mut state.health;
                // The directory answers: that is no failure, and asking less often would help nobody.
                (health.failures, health.last_error) = (0, None);
                (health.server, health.mode, health.took) = (Some(server), Some(mode), took);
                health.held = Some(Arc::from(held));
                return Ok(());
            }
        };
        let same = self.snapshot.as_ref().is_some_and(|old| old.says_the_same(&snapshot));
        if !(same && plan.changes().is_empty()) {
            // The point of no return: what is applied is stored, and the next plan begins here.
            if let Err(error) = self.accounts.apply(&plan, &snapshot).await {
                // An officer's word is used up by what was done, not by a try.
                if plan.released().is_some() {
                    self.shared.state().released = released;
                }
                return Err(Trouble::of_accounts(error));
            }
            spend(&mut self.taken, now, plan.taken());
        }
        self.snapshot = Some(snapshot);
        let mut state = self.shared.state();
        state.health = Health {
            last_success: Some(self.clock.now()),
            people: plan.people(),
            mode: Some(mode),
            server: Some(server),
            took,
            faults: plan.faults().clone(),
            held: None,
            last_error: None,
            failures: 0,
            interval: directory.config().interval,
        };
        Ok(())
    }
}

/// Why a round came to nothing.
struct Trouble {
    error: String,
    /// The directory does not take the password of the account that reads.
    refused: bool,
}

impl Trouble {
    fn of_accounts(error: ApplyError) -> Self {
        Self { error: error.to_string(), refused: false }
    }
}

/// Those that were linked before the directory was read, and are.
fn in_both(before: &Linked, after: Linked) -> Linked {
    let known: HashSet<&Link> = before.active.iter().collect();
    let active = after.active.into_iter().filter(|link| known.contains(link)).collect();
    Linked { active, suspended: after.suspended }
}

/// What was taken in the last day. What was taken in the future counts: a clock was set back.
fn recent(taken: &mut VecDeque<(Timestamp, Taken)>, now: Timestamp) -> Taken {
    taken.retain(|(at, _)| now.0.saturating_sub(at.0) < BUDGET_MS);
    taken.iter().fold(Taken::default(), |sum, (_, more)| sum.and(*more))
}

/// Remembers it, one entry a minute at most.
fn spend(taken: &mut VecDeque<(Timestamp, Taken)>, now: Timestamp, more: Taken) {
    if more == Taken::default() {
        return;
    }
    match taken.back_mut() {
        Some((at, sum)) if at.0 / 60_000 == now.0 / 60_000 => *sum = sum.and(more),
        _ => taken.push_back((now, more)),
    }
}

/// How long to wait after so many failures: twice as long each time.
fn pause(interval: Duration, failures: u32, refused: bool) -> Duration {
    let max = if refused { REFUSED_INTERVALS_MAX } else { FAILED_INTERVALS_MAX };
    interval.saturating_mul(1u32.checked_shl(failures.saturating_sub(1)).unwrap_or(max).clamp(1, max))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_is_one_budget() {
        let one = Taken { people: 1, accounts: 2, roles: 3 };
        let mut taken = VecDeque::new();
        spend(&mut taken, Timestamp(0), Taken::default());
        assert!(taken.is_empty());
        for at in [0, 59_999, 60_000] {
            spend(&mut taken, Timestamp(at), one);
        }
        assert_eq!(taken.len(), 2, "the first two in one minute");
        assert_eq!(recent(&mut taken, Timestamp(60_000)), Taken { people: 3, accounts: 6, roles: 9 });
        assert_eq!(recent(&mut taken, Timestamp(10)).people, 3, "a clock that was set back");
        assert_eq!(recent(&mut taken, Timestamp(BUDGET_MS)), one);
        assert_eq!(recent(&mut taken, Timestamp(BUDGET_MS + 60_000)), Taken::default());
        assert!(taken.is_empty());
    }

    #[test]
    fn who_is_linked_meanwhile_waits() {
        let issuer = zixt_identity::Issuer::directory(zixt_identity::IssuerId([1; 16]));
        let link = |id: u8| issuer.link(&[id]);
        let of = |active: &[u8], suspended: &[u8]| Linked {
            active: active.iter().map(|id| link(*id)).collect(),
            suspended: suspended.iter().map(|id| link(*id)).collect(),
        };
        assert_eq!(in_both(&of(&[1, 2], &[]), of(&[2, 3], &[4])), of(&[2], &[4]));
    }

    #[test]
    fn what_is_known_grows_old() {
        let mut health = Health { interval: Duration::from_secs(60), ..Health::default() };
        assert!(health.is_stale(Timestamp(0)), "nothing was ever read");
        health.last_success = Some(Timestamp(1_000));
        assert!(!health.is_stale(Timestamp(241_000)) && health.is_stale(Timestamp(241_001)));
        assert!(!health.is_stale(Timestamp(0)), "a clock that was set back");
    }

    #[test]
    fn pauses_grow_to_an_end() {
        let intervals = |refused| {
            [1, 2, 3, 4, 5, 6, 31, 32, 33, u32::MAX]
                .map(|failures| pause(Duration::from_secs(60), failures, refused).as_secs() / 60)
        };
        assert_eq!(intervals(false), [1, 2, 2, 2, 2, 2, 2, 2, 2, 2]);
        assert_eq!(intervals(true), [1, 2, 4, 8, 16, 16, 16, 16, 16, 16]);
    }
}
