//! Sinks read the journal behind the actions, never in their way. What a sink has not read yet lies in the journal and
//! nowhere else, so a slow one costs no memory and a dead one nothing at all, except that its health says so.

use crate::folder::read_small;
use crate::journal::{Gap, Read, Reader, Shared};
use crate::text::visible;
use crate::{Action, Code, Details, Event, Journal, Key, Record, Sequence, Text, Value, limits};
use minicbor::{Decode, Encode};
use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher as _, Hasher as _};
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;
use zixt_types::{Canonical, Hash, ParseError, Timestamp};

/// What a sink gets.
#[derive(Clone, Copy, Debug)]
pub enum Delivery<'a> {
    /// An event.
    Event(&'a Record, &'a Event),
    /// A record whose event this version cannot read.
    Unreadable(&'a Record, &'a ParseError),
    /// Records that the sink will never get.
    Gap(&'a Gap),
}

/// Takes events to another place. It may be slow, fail and block; it must not assume that it gets an event only once.
pub trait Sink: Send {
    /// Takes one more. It may keep it in a buffer until [`Self::flush`].
    ///
    /// # Errors
    /// Whatever went wrong. Everything since the last flush comes again.
    fn deliver(&mut self, delivery: Delivery<'_>) -> io::Result<()>;

    /// Hands on what is in the buffer. After that the cursor moves.
    ///
    /// # Errors
    /// As [`Self::deliver`].
    fn flush(&mut self) -> io::Result<()>;

    /// Asked now and then while there is nothing to hand on: whether the other end is still there.
    ///
    /// # Errors
    /// It is not. What it may not have got comes again ([`Self::overlap`]).
    fn check(&mut self) -> io::Result<()> {
        Ok(())
    }

    /// How many events from before a failure or a restart come again, because the other end may not have got them
    /// although they were handed on.
    fn overlap(&self) -> u64 {
        0
    }
}

/// What a step of a follower did.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step {
    /// There was nothing to do.
    Idle,
    /// So many records and gaps were handed on.
    Delivered(usize),
    /// The sink failed. Try again after this pause.
    Failed(Duration),
}

/// How a sink is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FollowerHealth {
    /// Its name.
    pub name: String,
    /// The last record that was handed on.
    pub delivered: Sequence,
    /// Records that were not handed on yet.
    pub behind_events: u64,
    /// For how long there has been one of those.
    pub behind: Duration,
    /// What is wrong, since when.
    pub failing: Option<Failing>,
    /// Gaps that it was told of since this process started.
    pub gaps: u64,
    /// Why the cursor could not be stored: after a restart events will come again.
    pub cursor_error: Option<String>,
}

/// A sink that does not take anything.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Failing {
    /// The last error.
    pub error: String,
    /// When it began to fail, by the wall clock.
    pub since: Timestamp,
    /// Tries since then.
    pub tries: u64,
}

#[derive(Default)]
struct State {
    delivered: Sequence,
    behind_since: Option<Duration>,
    failing: Option<Failing>,
    gaps: u64,
    cursor_error: Option<String>,
}

/// Reads the journal for one sink.
pub struct Follower {
    name: String,
    shared: Arc<Shared>,
    reader: Reader,
    sink: Box<dyn Sink>,
    state: Arc<Mutex<State>>,
}

impl Follower {
    /// Goes on where the sink of that name stopped; a new one gets everything that is still here.
    ///
    /// # Errors
    /// If the cursor cannot be read. One that is damaged or of another journal is as good as none.
    pub fn new(journal: &Journal, name: &Code, sink: Box<dyn Sink>) -> io::Result<Self> {
        let shared = journal.shared();
        let stored = read_small(&*shared.folder, &cursor_name(name.as_str()), Cursor::BYTES_MAX)?;
        let cursor = stored.and_then(|bytes| Cursor::parse(&bytes).ok());
        let cursor = cursor.filter(|cursor| cursor.chain == shared.chain);
        // A cursor beyond the end is of a journal that was set back: what it was about is not here.
        let delivered = match cursor {
            Some(cursor) => cursor.delivered.min(shared.head().sequence),
            None => shared.first().before(),
        };
        let state = Arc::new(Mutex::new(State { delivered, ..State::default() }));
        let reader = journal.reader(delivered.next());
        let mut follower = Self { name: name.as_str().to_owned(), shared, reader, sink, state };
        follower.go_back(delivered);
        Ok(follower)
    }

    /// Hands on what there is, up to [`limits::FOLLOW_EVENTS_MAX`] records. It takes as long as the sink does.
    pub fn step(&mut self) -> Step {
        let head = self.shared.head().sequence;
        if self.reader.position() > head {
            lock(&self.state).behind_since = None;
            return Step::Idle;
        }
        let now = self.shared.clock.monotonic();
        lock(&self.state).behind_since.get_or_insert(now);
        let mut count = 0;
        let mut gaps = Vec::new();
        let mut hand_on = || -> io::Result<()> {
            while count < limits::FOLLOW_EVENTS_MAX {
                match self.reader.read_next()? {
                    None => break,
                    Some(Read::Record(record)) => match record.event() {
                        Ok(event) => self.sink.deliver(Delivery::Event(&record, &event))?,
                        Err(error) => self.sink.deliver(Delivery::Unreadable(&record, &error))?,
                    },
                    Some(Read::Gap(gap)) => {
                        self.sink.deliver(Delivery::Gap(&gap))?;
                        gaps.push(gap);
                    }
                }
                count += 1;
            }
            self.sink.flush()
        };
        if let Err(error) = hand_on() {
            return self.failed(&error);
        }
        self.delivered(&gaps);
        Step::Delivered(count)
    }

    /// Looks at a sink that has nothing to do.
    fn probe(&mut self) -> Step {
        match self.sink.check() {
            Ok(()) => {
                lock(&self.state).failing = None;
                Step::Idle
            }
            Err(error) => self.failed(&error),
        }
    }

    fn delivered(&mut self, gaps: &[Gap]) {
        let delivered = self.reader.position().before();
        let cursor = Cursor { version: Cursor::VERSION_NUMBER, chain: self.shared.chain, delivered };
        let stored = self.shared.folder.replace(&cursor_name(&self.name), &cursor.to_bytes());
        let head = self.shared.head().sequence;
        let now = self.shared.clock.monotonic();
        {
            let mut state = lock(&self.state);
            state.delivered = delivered;
            state.failing = None;
            state.gaps += gaps.len() as u64;
            state.cursor_error = stored.err().map(|error| visible(&error.to_string()));
            // Since it was last at the end, and not since its last step.
            state.behind_since = if delivered < head { state.behind_since.or(Some(now)) } else { None };
        }
        for gap in gaps {
            let mut details = Details::numbers(&[("first", gap.first.0), ("last", gap.last.0)]);
            for (key, text) in [("reason", gap.reason.to_string()), ("sink", self.name.clone())] {
                if let Ok(key) = Key::new(key) {
                    let _ = details.insert(key, Value::Text(Text::escaped(&text)));
                }
            }
            self.shared.note(self.shared.own_event(Action::SinkGap, details));
        }
    }

    fn failed(&mut self, error: &io::Error) -> Step {
        let (delivered, tries) = {
            let mut state = lock(&self.state);
            let since = self.shared.clock.now().wall;
            let failing = state.failing.get_or_insert(Failing { error: String::new(), since, tries: 0 });
            failing.error = visible(&error.to_string());
            failing.tries += 1;
            let tries = failing.tries;
            (state.delivered, tries)
        };
        self.go_back(delivered);
        let doubled =
            u32::try_from(tries - 1).ok().and_then(|doublings| limits::BACKOFF_MS_MIN.checked_shl(doublings));
        // Beyond 16 doublings the bound is reached long since, and a shift would lose bits.
        let pause = doubled.filter(|_| tries <= 16).unwrap_or(limits::BACKOFF_MS_MAX);
        Step::Failed(Duration::from_millis(pause.min(limits::BACKOFF_MS_MAX)))
    }

    /// Begins behind what was handed on, less the overlap as far as it is still here.
    fn go_back(&mut self, delivered: Sequence) {
        let next = delivered.next();
        let wanted = Sequence(next.0.saturating_sub(self.sink.overlap()));
        self.reader.seek(wanted.max(self.shared.first()).min(next));
    }

    /// How the sink is.
    #[must_use]
    pub fn health(&self) -> FollowerHealth {
        health(&self.name, &self.shared, &self.state)
    }

    /// Runs in a thread of its own.
    ///
    /// # Errors
    /// If there is no thread to be had.
    pub fn start(mut self) -> io::Result<FollowerThread> {
        let stop = Arc::new(AtomicBool::new(false));
        let handle = (self.name.clone(), Arc::clone(&self.shared), Arc::clone(&self.state));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::Builder::new().name(format!("audit-{}", self.name)).spawn(move || {
            let mut was_idle = false;
            loop {
                // Before the flag: a call after this point ends the wait below at once.
                let calls = self.shared.calls();
                if stopped.load(Ordering::Acquire) {
                    break;
                }
                let mut step = self.step();
                if step == Step::Idle && was_idle {
                    step = self.probe();
                }
                was_idle = step == Step::Idle;
                match step {
                    Step::Delivered(_) => {}
                    Step::Idle => self.shared.wait_beyond(self.reader.position().before(), calls, IDLE),
                    Step::Failed(pause) => {
                        self.shared.wait_beyond(Sequence(u64::MAX), calls, with_jitter(pause));
                    }
                }
            }
        })?;
        let (name, shared, state) = handle;
        Ok(FollowerThread { name, shared, state, stop, thread: Some(thread) })
    }
}

/// How long a follower without work sleeps when nobody calls it. Then it looks whether its sink is still there.
const IDLE: Duration = Duration::from_secs(15);

/// Up to a quarter shorter, so that sinks that failed together do not come back together.
fn with_jitter(pause: Duration) -> Duration {
    // The standard library's only source of randomness; nothing secret hangs on it.
    let random = RandomState::new().build_hasher().finish();
    let eighths = u32::try_from(random % 9).unwrap_or(0);
    pause - pause / 32 * eighths
}

/// A follower in its thread. Dropping it tells the thread to end and does not wait: a sink may block.
pub struct FollowerThread {
    name: String,
    shared: Arc<Shared>,
    state: Arc<Mutex<State>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl FollowerThread {
    /// How the sink is. It never waits for the sink.
    #[must_use]
    pub fn health(&self) -> FollowerHealth {
        let mut health = health(&self.name, &self.shared, &self.state);
        if self.thread.as_ref().is_none_or(JoinHandle::is_finished) {
            let since = self.shared.clock.now().wall;
            let error = "its thread ended".to_owned();
            health.failing.get_or_insert(Failing { error, since, tries: 0 });
        }
        health
    }

    /// Ends the thread and waits for it: as long as the sink takes.
    pub fn stop(mut self) {
        self.end();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }

    fn end(&self) {
        self.stop.store(true, Ordering::Release);
        self.shared.call();
    }
}

impl Drop for FollowerThread {
    fn drop(&mut self) {
        self.end();
    }
}

fn health(name: &str, shared: &Shared, state: &Mutex<State>) -> FollowerHealth {
    let (head, now) = (shared.head().sequence, shared.clock.monotonic());
    let state = lock(state);
    FollowerHealth {
        name: name.to_owned(),
        delivered: state.delivered,
        behind_events: head.0.saturating_sub(state.delivered.0),
        behind: state.behind_since.map_or(Duration::ZERO, |since| now.saturating_sub(since)),
        failing: state.failing.clone(),
        gaps: state.gaps,
        cursor_error: state.cursor_error.clone(),
    }
}

fn lock(state: &Mutex<State>) -> std::sync::MutexGuard<'_, State> {
    // Only plain assignments happen under it, so that a sink that panics leaves nothing half-done.
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

fn cursor_name(sink: &str) -> String {
    format!("cursor-{sink}")
}

/// Up to where a sink was served.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
struct Cursor {
    #[n(0)]
    version: u64,
    #[n(1)]
    chain: Hash,
    #[n(2)]
    delivered: Sequence,
}

impl Cursor {
    const VERSION_NUMBER: u64 = 1;
}

impl Canonical for Cursor {
    const WHAT: &'static str = "cursor of an audit sink";
    const BYTES_MAX: usize = 128;
    const VERSION: Option<u64> = Some(Self::VERSION_NUMBER);
}

#[cfg(test)]
mod tests;
