//! What is done now and then: votes are counted, and the anchors are compared with the state.
//!
//! Who votes waits for nothing but the open devices, and for those only where the last look is long ago. A closed device that
//! does not answer in time is left alone for a while, whoever would ask it.

use super::anchors::{Verdict, moved};
use super::{Service, VOTES_UNCOUNTED_MAX, in_between};
use crate::state::{Custody, Held};
use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use zixt_hsm_protocol::CustodyError;

/// Votes are counted so often while it votes: often enough that few can be taken back unnoticed, and seldom enough that a
/// TPM's counter, which wears out, lasts for years.
pub(super) const COUNT_VOTES_EVERY: Duration = Duration::from_secs(300);

/// How often the anchors are compared with the state while it votes: beside the votes, and so early that a device may take
/// five seconds before a vote waits for it.
pub(super) const WATCH_ANCHORS_EVERY: Duration = Duration::from_secs(5);

/// How often it is looked whether something is to be done beside the votes.
const TEND_EVERY: Duration = Duration::from_secs(1);

/// After what time the open devices are asked before the next vote. Who votes rarely must not release one on the strength of
/// what was true an hour ago.
pub(super) const ANCHORS_SEEN_MAX: Duration = Duration::from_secs(10);

/// Looks in a row in which an open device told nothing, each as long after the one before as looks are due, before custody
/// locks itself: the device may be in another machine, with a copy of this state.
pub(super) const UNREAD_MAX: u32 = 3;

/// How long votes go on by what was told last. Longer than three looks take.
const TOLD_MAX: Duration = Duration::from_secs(30);

/// How long a closed device that did not answer is left alone.
pub(super) const LEFT_ALONE: Duration = Duration::from_secs(60);

/// How long a closed device may be silent while it votes: a TPM that is busy, or starts anew, is no reason to stop.
pub(super) const SILENT_MAX: Duration = Duration::from_secs(120);

/// What the looks found.
#[derive(Default)]
pub(super) struct Watch {
    watched: Mutex<Option<Watched>>,
    /// One look at a time: the others wait for what it finds.
    looking: Mutex<()>,
    /// One question to closed devices at a time.
    asking: Mutex<()>,
    silent: Mutex<HashMap<String, Silence>>,
    /// When the votes were last counted.
    counted: Mutex<Option<Instant>>,
    /// Whether there was a vote since the anchors were last compared.
    voted: AtomicBool,
    /// Whether custody is quarantined only because a device is silent.
    unvouched: AtomicBool,
}

/// What open devices told.
#[derive(Clone)]
pub(super) struct Watched {
    /// When the last look ended.
    pub(super) looked: Instant,
    /// When all of them last told their counters.
    pub(super) told: Instant,
    /// Looks since that count.
    unread: u32,
    counted: Option<Instant>,
    /// Why the last look failed.
    error: Option<CustodyError>,
}

/// A closed device that does not answer.
struct Silence {
    since: Instant,
    asked: Instant,
    error: CustodyError,
}

impl Watched {
    fn now() -> Self {
        Self { looked: Instant::now(), told: Instant::now(), unread: 0, counted: None, error: None }
    }
}

impl Service {
    /// Does what is to be done now and then, on a thread of its own: devices take their time, and nobody's vote waits for
    /// them. Runs until the process ends.
    pub fn tend_forever(&self) {
        loop {
            std::thread::sleep(TEND_EVERY);
            // Without this thread nobody would notice a copy that is used elsewhere.
            if catch_unwind(AssertUnwindSafe(|| self.tend())).is_err() {
                log::error!("a look at the anchors failed; it is tried again");
            }
        }
    }

    /// The same once, where it is due.
    pub(crate) fn tend(&self) {
        let uncounted = self.read().keys().map_or(0, |keys| keys.votes() - keys.open().record.votes);
        let due = self.counted().is_some_and(|counted| counted.elapsed() >= COUNT_VOTES_EVERY);
        if uncounted >= VOTES_UNCOUNTED_MAX || (uncounted > 0 && due) {
            self.count_votes();
        }
        if self.watch.voted.load(Ordering::Relaxed) && self.watched().looked.elapsed() >= WATCH_ANCHORS_EVERY
        {
            self.watch.voted.store(false, Ordering::Relaxed);
            self.look_at_open();
            self.look_at_closed();
        }
        if self.is_unvouched() {
            self.look_for_vouchers();
        }
    }

    pub(super) fn note_vote(&self) {
        self.watch.voted.store(true, Ordering::Relaxed);
    }

    /// Begins anew: custody was unlocked.
    pub(super) fn watch_anew(&self) {
        *self.watch.watched.lock().unwrap_or_else(PoisonError::into_inner) = Some(Watched::now());
        self.note_counted();
    }

    /// Whether custody is quarantined only because nothing vouches for its state yet.
    pub(super) fn is_unvouched(&self) -> bool {
        self.watch.unvouched.load(Ordering::Relaxed)
    }

    pub(super) fn set_unvouched(&self, unvouched: bool) {
        self.watch.unvouched.store(unvouched, Ordering::Relaxed);
    }

    pub(super) fn note_counted(&self) {
        *self.watch.counted.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    fn counted(&self) -> Option<Instant> {
        *self.watch.counted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What open devices told last.
    pub(super) fn watched(&self) -> Watched {
        let mut watched = self.watch.watched.lock().unwrap_or_else(PoisonError::into_inner);
        watched.get_or_insert_with(Watched::now).clone()
    }

    fn silent(&self) -> MutexGuard<'_, HashMap<String, Silence>> {
        self.watch.silent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Why a closed device is not asked now: it did not answer a moment ago.
    pub(super) fn silence(&self, name: &str) -> Option<CustodyError> {
        let silent = self.silent();
        silent
            .get(name)
            .filter(|silence| silence.asked.elapsed() < LEFT_ALONE)
            .map(|silence| silence.error.clone())
    }

    /// What a closed device said last, if it was no answer.
    pub(super) fn last_silence(&self, name: &str) -> Option<CustodyError> {
        self.silent().get(name).map(|silence| silence.error.clone())
    }

    /// Lets closed devices be asked at once: somebody is there and waits for them.
    pub(super) fn ask_anew(&self) {
        self.silent().clear();
    }

    /// Asks a closed device, unless it did not answer a moment ago.
    pub(super) fn ask_closed<T>(
        &self,
        name: &str,
        ask: impl FnOnce() -> Result<T, CustodyError>,
    ) -> Result<T, CustodyError> {
        let _one = self.watch.asking.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(error) = self.silence(name) {
            return Err(error);
        }
        let answer = ask();
        let mut silent = self.silent();
        match &answer {
            Ok(_) | Err(CustodyError::AnchorMissing { .. }) => drop(silent.remove(name)),
            Err(error) => {
                let now = Instant::now();
                let since = silent.get(name).map_or(now, |silence| silence.since);
                silent.insert(name.to_owned(), Silence { since, asked: now, error: error.clone() });
            }
        }
        answer
    }

    /// Asks the closed devices before a change: one that hangs is then left alone while the change holds others up.
    pub(super) fn before_change(&self) {
        let anchors = self.read().open().and_then(|open| self.reached(open)).unwrap_or_default();
        for anchor in anchors.iter().filter(|anchor| !anchor.is_open()) {
            // What it says is judged in the change.
            drop(anchor.judge());
        }
    }

    /// Compares the open devices' anchors with the state before a vote, if that is long ago: if somebody else moved one,
    /// another daemon works with a copy of this state, and two of them would sign twice.
    ///
    /// # Errors
    /// Why nothing was told for so long that no vote may be released.
    pub(super) fn watch_anchors(&self) -> Result<(), CustodyError> {
        if self.watched().looked.elapsed() >= ANCHORS_SEEN_MAX {
            self.look_at_open();
        }
        let watched = self.watched();
        match watched.error {
            Some(error) if watched.told.elapsed() >= TOLD_MAX => Err(error),
            _ => Ok(()),
        }
    }

    /// Compares the open devices' anchors with the state.
    pub(super) fn look_at_open(&self) {
        let asked = Instant::now();
        let _one = self.watch.looking.lock().unwrap_or_else(PoisonError::into_inner);
        if self.watched().looked > asked {
            return;
        }
        let found = self.ask(true);
        let mut watched = self.watched();
        match found {
            Ok(Some(_)) => self.stop_if_moved(true),
            Ok(None) => (watched.told, watched.unread, watched.error) = (Instant::now(), 0, None),
            Err(error) => {
                let due = watched.counted.is_none_or(|counted| counted.elapsed() >= WATCH_ANCHORS_EVERY);
                if due || watched.unread == 0 {
                    (watched.unread, watched.counted) = (watched.unread + 1, Some(Instant::now()));
                }
                watched.error = Some(error);
                if watched.unread >= UNREAD_MAX {
                    self.lock_if_unread();
                    watched.unread = 0;
                }
            }
        }
        // The end of a look that took long: the votes after it are no reason for the next one.
        watched.looked = Instant::now();
        *self.watch.watched.lock().unwrap_or_else(PoisonError::into_inner) = Some(watched);
    }

    /// Compares the closed devices' anchors with the state. One that is silent for long may be in another machine: nothing is
    /// signed then until it answers, or officers decide.
    pub(super) fn look_at_closed(&self) {
        match self.ask(false) {
            Ok(Some(_)) => self.stop_if_moved(false),
            Ok(None) => {}
            Err(error) if self.is_silent_for_long() => self.wait_for_vouchers(&error),
            Err(_) => {}
        }
    }

    fn is_silent_for_long(&self) -> bool {
        self.silent().values().any(|silence| silence.asked.duration_since(silence.since) >= SILENT_MAX)
    }

    /// Asks anchors of a state that is in use, without a lock: a device may take its time, and others sign meanwhile.
    fn ask(&self, open: bool) -> Result<Option<String>, CustodyError> {
        let anchors = self.read().keys().and_then(|keys| self.reached(keys.open()));
        let Ok(mut anchors) = anchors else { return Ok(None) };
        anchors.retain(|anchor| anchor.is_open() == open);
        moved(&anchors)
    }

    fn stop_if_moved(&self, open: bool) {
        // It may have been changed meanwhile, or just now.
        let _change = self.changing();
        let mut custody = self.write();
        let again = custody.keys().and_then(|keys| self.reached(keys.open()));
        let Ok(mut anchors) = again else { return };
        anchors.retain(|anchor| anchor.is_open() == open);
        if let Ok(Some(why)) = moved(&anchors) {
            self.stop_signing(&mut custody, why);
        }
    }

    fn lock_if_unread(&self) {
        let _change = self.changing();
        // It may have been locked, and unlocked, meanwhile.
        let Err(error) = self.ask(true) else { return };
        log::error!("locked: a device does not tell its counter, and may be in another machine: {error}");
        self.seal();
        self.close();
        *self.failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
    }

    /// Takes the keys out of use until a silent device answers.
    fn wait_for_vouchers(&self, error: &CustodyError) {
        let _change = self.changing();
        // It may have been locked, and unlocked, meanwhile.
        if !self.is_silent_for_long() {
            return;
        }
        self.count_votes_now();
        let mut custody = self.write();
        *custody = match std::mem::replace(&mut *custody, in_between()) {
            Custody::Operational(keys) => {
                let reason = format!(
                    "a protector does not tell its counter and may be in another machine ({error}). Custody goes on by \
                     itself once it answers. If it is lost, officers activate a new consensus key and remove it"
                );
                log::error!("quarantined: {reason}");
                self.set_unvouched(true);
                Custody::Quarantined(reason, Held::Open(Box::new(keys.unload())))
            }
            other => other,
        };
    }

    /// Looks whether those that were silent answer, and goes on with a state that all of them vouch for.
    fn look_for_vouchers(&self) {
        let anchors = match &*self.read() {
            Custody::Quarantined(_, Held::Open(open)) => self.anchors(open),
            _ => return,
        };
        if !matches!(anchors.and_then(|anchors| anchors.verdict(false)), Ok(Verdict::Newest)) {
            return;
        }
        let _change = self.changing();
        if !self.is_unvouched() {
            return;
        }
        let open = {
            let mut custody = self.write();
            match std::mem::replace(&mut *custody, in_between()) {
                Custody::Quarantined(_, Held::Open(open)) => {
                    *custody = Custody::Locked(Box::new(open.record.clone()));
                    open
                }
                other => {
                    *custody = other;
                    return;
                }
            }
        };
        log::info!("the devices that were silent answer");
        if let Err(error) = self.go_on(*open) {
            log::error!("cannot go on: {error}");
            self.close();
            *self.failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
        }
    }

    /// As if the last look had just been due beside the votes, and not before the next one.
    #[cfg(test)]
    pub(super) fn watch_recently(&self) {
        let mut watched = Watched::now();
        watched.looked = watched.looked.checked_sub(WATCH_ANCHORS_EVERY).unwrap_or(watched.looked);
        *self.watch.watched.lock().unwrap() = Some(watched);
    }

    /// As if the looks so far had been so long ago.
    #[cfg(test)]
    pub(super) fn look_back(&self, by: Duration) {
        let ago = |at: Instant| at.checked_sub(by).unwrap_or(at);
        let mut watched = self.watched();
        (watched.looked, watched.told) = (ago(watched.looked), ago(watched.told));
        watched.counted = watched.counted.map(ago);
        *self.watch.watched.lock().unwrap() = Some(watched);
        let counted = self.counted().map(ago);
        *self.watch.counted.lock().unwrap() = counted;
        for silence in self.silent().values_mut() {
            (silence.since, silence.asked) = (ago(silence.since), ago(silence.asked));
        }
    }
}
