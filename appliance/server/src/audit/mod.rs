//! The audit journal as the server keeps it: what is recorded, and how long an action waits for it (decision 0015).

mod refusals;
mod set_aside;
mod sinks;
#[cfg(test)]
pub(crate) mod testing;
mod tls_stream;

pub use set_aside::{SetAsideError, set_aside};
pub use sinks::{Prepared, SinkError, Sinks};

use crate::health::now;
use crate::view::View;
use refusals::{Refusals, Refused};
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use thiserror::Error;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use zixt_api::{
    AuditHealth, AuditPage, AuditSink, CustodyState, ErrorCode, EventInfo, EventPage, Hex, Problem,
};
use zixt_audit::folder::{DiskFolder, Folder};
use zixt_audit::lines::Form;
use zixt_audit::{
    Action, Actor, AppendError, Code, Delivery, Event, Export, Journal, JournalHealth, Key, LedgerTime,
    OpenError, Origin, Outcome, Read, Room, Sequence, Settings, Target, Text, Value, Weight, When,
};
use zixt_crypto::{RandomError, fill_random};

/// The folder of the journal, below the state folder.
pub const FOLDER: &str = "audit";
/// No action waits longer for its event to be durable.
const WAIT_MAX: Duration = Duration::from_secs(2);
/// Records that one answer shows at most.
pub const PAGE_MAX: usize = 256;

/// Records that are looked at for one answer about what happened.
const FOLLOWED_MAX: usize = 4096;
/// What programs can follow.
const FOLLOWED: &[Action] = &[
    Action::SessionsRevoked,
    Action::LockedOut,
    Action::AccountInvited,
    Action::AccountCreated,
    Action::AccountSuspended,
    Action::AccountResumed,
    Action::AccountRemoved,
    Action::AccountRecovered,
    Action::DeviceAdded,
    Action::DeviceRevoked,
    Action::RoleGranted,
    Action::RoleRevoked,
    Action::DirectorySynced,
    Action::DirectoryHeld,
    Action::DirectoryOverridden,
    Action::TokenIssued,
    Action::TokenRevoked,
];

/// Why there is no journal.
#[derive(Debug, Error)]
pub enum AuditError {
    /// The folder cannot be used.
    #[error("the audit journal's folder cannot be used")]
    Folder(#[source] io::Error),
    /// The journal in it cannot be opened.
    #[error("the audit journal cannot be opened, and nothing is done that is not recorded")]
    Open(#[source] OpenError),
    /// No randomness.
    #[error(transparent)]
    Random(#[from] RandomError),
    /// A sink cannot be set up.
    #[error(transparent)]
    Sink(#[from] SinkError),
    /// The first event cannot be recorded.
    #[error("the audit journal takes no events")]
    Append(#[from] AppendError),
}

struct Clock {
    view: Arc<View>,
    started: Instant,
}

impl zixt_audit::Clock for Clock {
    fn now(&self) -> When {
        let inner = self.view.read();
        let ledger = LedgerTime { height: inner.state.height, time: inner.state.time };
        When { wall: now(), ledger: (ledger.height.0 > 0).then_some(ledger) }
    }

    fn monotonic(&self) -> Duration {
        self.started.elapsed()
    }
}

/// The audit journal of this appliance.
pub struct Audit {
    journal: Journal,
    clock: Arc<Clock>,
    sinks: Mutex<Sinks>,
    refusals: Refusals,
}

impl Audit {
    /// Opens the journal below the state folder, or begins one. What is found there is in the log and in the journal.
    ///
    /// # Errors
    /// See [`AuditError`].
    pub fn open(state: &Path, view: Arc<View>, segment_bytes: u64) -> Result<Self, AuditError> {
        let folder = DiskFolder::open(&state.join(FOLDER)).map_err(AuditError::Folder)?;
        Self::over(Arc::new(folder), view, segment_bytes)
    }

    /// The same over any folder.
    ///
    /// # Errors
    /// See [`AuditError`].
    pub fn over(folder: Arc<dyn Folder>, view: Arc<View>, segment_bytes: u64) -> Result<Self, AuditError> {
        let mut random = [0; 32];
        fill_random(&mut random)?;
        let clock = Arc::new(Clock { view, started: Instant::now() });
        let settings = Settings { segment_bytes, random, clock: Arc::clone(&clock) as _ };
        let (journal, opened) = Journal::open(folder, settings).map_err(AuditError::Open)?;
        if let Some((first, last)) = opened.missing {
            log::error!("audit journal: records {first} to {last} are gone");
        }
        if opened.torn_bytes > 0 {
            log::warn!("audit journal: {} bytes of a torn end were dropped", opened.torn_bytes);
        }
        log::info!("audit journal {} at record {}", journal.chain(), opened.head.sequence);
        Ok(Self { journal, clock, sinks: Mutex::default(), refusals: Refusals::default() })
    }

    /// An event that happens now.
    pub(crate) fn event(&self, action: Action, actor: Actor, origin: Origin) -> Event {
        Event::new(action, actor, origin, zixt_audit::Clock::now(&*self.clock))
    }

    /// Records how something ended, and returns when that is durable. Where it is not in time, it is not acknowledged; it is
    /// still written, as soon as it can be, and says that it is late.
    ///
    /// # Errors
    /// [`ErrorCode::AuditUnavailable`]: what it says is not to be acknowledged.
    pub(crate) async fn record(self: &Arc<Self>, event: Event) -> Result<(), Problem> {
        let audit = Arc::clone(self);
        // The bound holds from here: a thread for it may be long in coming.
        let until = Instant::now() + WAIT_MAX;
        let recorded = tokio::task::spawn_blocking(move || {
            let left = until.saturating_duration_since(Instant::now());
            audit.journal.append(&event, left).map(drop).inspect_err(|_| {
                let mut late = event;
                with(&mut late, "late", Value::Flag(true));
                audit.journal.note(late);
            })
        });
        let unavailable = |why: String| Problem::new(ErrorCode::AuditUnavailable, why);
        match tokio::time::timeout(WAIT_MAX, recorded).await {
            Ok(Ok(Ok(()))) => Ok(()),
            Ok(Ok(Err(error))) => {
                log::error!("audit journal: {error}");
                Err(unavailable(error.to_string()))
            }
            Ok(Err(error)) => Err(unavailable(error.to_string())),
            Err(_) => Err(unavailable("the audit journal did not take the event in time".to_owned())),
        }
    }

    /// Records something that nobody waits for.
    pub(crate) fn note(&self, event: Event) {
        self.journal.note(event);
    }

    /// Asks for room before something is done that has to be recorded: on a full disk first what is routine has none, and
    /// then nothing. Keep the room until the event is recorded.
    ///
    /// # Errors
    /// [`ErrorCode::AuditUnavailable`]: do nothing.
    pub(crate) fn room(&self, action: Action) -> Result<Room, Problem> {
        self.journal
            .room(action.weight() == Weight::Security)
            .map_err(|error| Problem::new(ErrorCode::AuditUnavailable, error.to_string()))
    }

    /// The same for what concerns security, without keeping the room.
    ///
    /// # Errors
    /// [`ErrorCode::AuditUnavailable`].
    pub(crate) fn check(&self) -> Result<(), Problem> {
        self.room(Action::SignIn).map(drop)
    }

    /// Notes that a user of this machine was refused at the admin socket.
    pub(crate) fn refused_locally(self: &Arc<Self>, uid: u32) {
        self.refused(Refused::Local(uid), Actor::LocalUser(uid), Origin::Socket(uid), "not-an-administrator");
    }

    /// The same for whoever a request comes from.
    pub(crate) fn refused_from(self: &Arc<Self>, from: Origin, problem: &Problem) {
        if let Origin::Network(address) = from {
            let who = Refused::Remote(address.ip());
            self.refused(who, Actor::Nobody, from, problem.code.code());
        }
    }

    /// Notes that a caller whom nobody knows, or knows no more, was refused.
    pub(crate) fn refused_remotely(self: &Arc<Self>, from: SocketAddr, problem: &Problem) {
        let who = Refused::Remote(from.ip().to_canonical());
        self.refused(who, Actor::Nobody, Origin::Network(from.into()), problem.code.code());
    }

    fn refused(self: &Arc<Self>, who: Refused, actor: Actor, origin: Origin, code: &'static str) {
        // Whoever can knock must not use the reserve up.
        if !self.journal.health().reserved {
            return;
        }
        let Some(who) = self.refusals.count(who) else { return };
        // Of those that are counted as one nobody in particular was there.
        let (actor, origin) =
            if who == Refused::Others { (Actor::Nobody, Origin::Inside) } else { (actor, origin) };
        self.note_refusal(actor.clone(), origin, code, 1);
        let audit = Arc::clone(self);
        tokio::spawn(async move {
            tokio::time::sleep(refusals::WINDOW).await;
            let more = audit.refusals.close(who);
            if more > 0 && audit.journal.health().reserved {
                audit.note_refusal(actor, origin, code, more);
            }
        });
    }

    fn note_refusal(&self, actor: Actor, origin: Origin, code: &'static str, times: u64) {
        let mut event = self.event(Action::AccessRefused, actor, origin);
        if let Ok(code) = Code::new(code) {
            event.outcome = Outcome::Refused(code);
        }
        with(&mut event, "times", Value::Number(times));
        self.journal.note(event);
    }

    /// Starts what was prepared. Each sink goes on where it stopped.
    ///
    /// # Errors
    /// [`AuditError::Sink`].
    pub fn start_sinks(&self, prepared: Prepared) -> Result<(), AuditError> {
        let sinks = prepared.start(&self.journal)?;
        for sink in sinks.status() {
            log::info!("audit sink {}: {} records behind", sink.name, sink.events_behind);
        }
        *self.lock_sinks() = sinks;
        Ok(())
    }

    /// Ends the sinks: see [`Sinks::stop`].
    pub fn stop_sinks(&self, wait: Duration) {
        let sinks = std::mem::take(&mut *self.lock_sinks());
        sinks.stop(wait);
    }

    /// How the sinks are.
    pub(crate) fn sinks(&self) -> Vec<AuditSink> {
        self.lock_sinks().status()
    }

    fn lock_sinks(&self) -> std::sync::MutexGuard<'_, Sinks> {
        // Held for assignments and reads only.
        self.sinks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How the journal is, for the administrator.
    pub(crate) fn status(&self) -> AuditHealth {
        let health = self.journal.health();
        AuditHealth {
            head: health.head.sequence.0,
            first: health.first.0,
            waiting: health.waiting as u64,
            reserved: health.reserved,
            reserve_error: health.reserve_error,
            room_bytes: health.room_bytes,
            refused: health.refused,
            failed: health.failed,
        }
    }

    /// The start of the appliance, before anybody is served.
    ///
    /// # Errors
    /// [`AuditError::Append`]: nothing is to be started.
    pub fn started(&self) -> Result<(), AuditError> {
        self.append_now(Action::ApplianceStarted)
    }

    /// The end of the appliance, after everybody was served.
    ///
    /// # Errors
    /// [`AuditError::Append`].
    pub fn stopped(&self) -> Result<(), AuditError> {
        self.append_now(Action::ApplianceStopped)
    }

    fn append_now(&self, action: Action) -> Result<(), AuditError> {
        let mut event = self.event(action, Actor::Appliance, Origin::Inside);
        with_text(&mut event, "version", env!("CARGO_PKG_VERSION"));
        self.journal.append(&event, WAIT_MAX)?;
        Ok(())
    }

    /// Notes whenever custody gets its keys or loses them, until shutdown. Who did it is in custody's own log.
    pub(crate) async fn watch(
        self: Arc<Self>,
        mut states: watch::Receiver<CustodyState>,
        shutdown: CancellationToken,
    ) {
        let mut last = None;
        loop {
            let state = *states.borrow_and_update();
            let before = last.replace(state);
            if before != Some(state) {
                let action = match (before.map(CustodyState::has_keys), state.has_keys()) {
                    // From one trouble to another, such as from locked to quarantined.
                    (Some(had), has) if had == has => Action::Alert,
                    (_, true) => Action::CustodyUnlock,
                    (_, false) => Action::CustodyLock,
                };
                let mut event = self.event(action, Actor::Appliance, Origin::Inside);
                with_text(&mut event, "state", crate::problem::describe(state));
                self.journal.note(event);
            }
            tokio::select! {
                changed = states.changed() => if changed.is_err() { return },
                () = shutdown.cancelled() => return,
            }
        }
    }

    /// How the journal is.
    #[must_use]
    pub fn health(&self) -> JournalHealth {
        self.journal.health()
    }

    /// Records from one on, at most [`PAGE_MAX`].
    ///
    /// # Errors
    /// The journal cannot be read.
    pub(crate) fn page(&self, from: Sequence, limit: usize, form: Form) -> io::Result<AuditPage> {
        let (mut reader, chain) = (self.journal.reader(from), self.journal.chain());
        let mut lines = Vec::new();
        while lines.len() < limit.min(PAGE_MAX) {
            let Some(read) = reader.read_next()? else { break };
            let mut line = match &read {
                Read::Gap(gap) => form.line(chain, Delivery::Gap(gap)),
                Read::Record(record) => match record.event() {
                    Ok(event) => form.line(chain, Delivery::Event(record, &event)),
                    Err(error) => form.line(chain, Delivery::Unreadable(record, &error)),
                },
            };
            line.truncate(line.trim_end_matches('\n').len());
            lines.push(line);
        }
        let next = reader.position();
        Ok(AuditPage { lines, next: next.0, more: next <= self.journal.head().sequence })
    }

    /// What happened to accounts, devices and directories after a record, for programs that follow it: what, when, and to
    /// whom, and neither who did it nor from where.
    ///
    /// # Errors
    /// The journal cannot be read.
    pub(crate) fn happened(&self, after: u64, limit: usize) -> io::Result<EventPage> {
        let mut reader = self.journal.reader(Sequence(after.saturating_add(1)));
        let (mut events, mut looked_at) = (Vec::new(), 0);
        while events.len() < limit && looked_at < FOLLOWED_MAX {
            let Some(read) = reader.read_next()? else { break };
            looked_at += 1;
            let Read::Record(record) = read else { continue };
            let Ok(event) = record.event() else { continue };
            if FOLLOWED.contains(&event.action) {
                let (account, device) = match event.target {
                    Some(Target::Account(account)) => (Some(Hex(account)), None),
                    Some(Target::Device(account, device)) => (Some(Hex(account)), Some(Hex(device))),
                    _ => (None, None),
                };
                let outcome = match &event.outcome {
                    Outcome::Ok => "ok".to_owned(),
                    Outcome::Refused(code) | Outcome::Failed(code) => code.as_str().to_owned(),
                };
                let (sequence, at) = (record.sequence.0, event.when.wall.0);
                let action = event.action.name().to_owned();
                events.push(EventInfo { sequence, at, action, outcome, account, device });
            }
        }
        let next = reader.position().0.saturating_sub(1);
        Ok(EventPage { events, next, more: next < self.journal.head().sequence.0 })
    }

    /// Every event so far, for tests.
    #[cfg(test)]
    pub(crate) fn events(&self) -> Vec<Event> {
        let mut reader = self.journal.reader(Sequence(1));
        let mut events = Vec::new();
        while let Some(read) = reader.read_next().unwrap() {
            if let Read::Record(record) = read {
                events.push(record.event().unwrap());
            }
        }
        events
    }

    /// A range as a file. The ledger anchors no heads yet, so it has no roots.
    ///
    /// # Errors
    /// See [`zixt_audit::ExportError`].
    pub(crate) fn export(&self, first: Sequence, last: Sequence) -> Result<Vec<u8>, zixt_audit::ExportError> {
        Ok(Export::make(&self.journal, first, last, &[])?.to_file())
    }
}

/// How an action ended, by the refusal that it got.
pub(crate) fn outcome<T>(done: &Result<T, Problem>) -> Outcome {
    done.as_ref().err().map_or(Outcome::Ok, outcome_of)
}

/// What a refusal is in the journal.
pub(crate) fn outcome_of(problem: &Problem) -> Outcome {
    match Code::new(problem.code.code()) {
        Ok(code) if problem.status >= 500 => Outcome::Failed(code),
        Ok(code) => Outcome::Refused(code),
        // The table of codes has none that is no code.
        Err(_) => unreachable!("every code of the error map is one"),
    }
}

/// Adds a detail. Its key is one of ours, given once.
pub(crate) fn with_text(event: &mut Event, key: &'static str, text: &str) {
    with(event, key, Value::Text(Text::escaped(text)));
}

/// A word of ours.
pub(crate) fn code(word: &'static str) -> Code {
    match Code::new(word) {
        Ok(code) => code,
        Err(error) => unreachable!("{word}: {error}"),
    }
}

/// Adds a detail. Its key is one of ours, given once.
pub(crate) fn with(event: &mut Event, key: &'static str, value: Value) {
    if let Ok(key) = Key::new(key) {
        // A detail too many or twice would be a fault of ours; the event counts more than it.
        let _ = event.details.insert(key, value);
    }
}
