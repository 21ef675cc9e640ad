//! The local journal: one writer, many who append, any number who read.

mod error;
mod own;
mod read;
mod recover;
mod repair;
mod ticket;
mod writer;

#[cfg(test)]
mod tests;

pub use error::{AnchorError, AppendError, Damage, Fault, OpenError, RemoveError};
pub use read::{Gap, GapReason, Read, Reader};
pub use repair::{SetAside, set_aside};
pub use ticket::Pending;

use crate::folder::{Folder, Handle, read_small};
use crate::segment::{FRAME_BYTES_MAX, Header};
use crate::{Action, Actor, AuditRoot, Details, Event, Head, Origin, Sequence, When, limits};
use own::Own;
use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use ticket::Ticket;
use zixt_types::{Canonical, Hash};

/// The file that holds the newest head that the ledger is known to hold.
const ANCHOR: &str = "anchored";

/// The clocks of the appliance. They are asked for the journal's own events and for its pauses.
pub trait Clock: Send + Sync {
    /// Wall clock and ledger time.
    fn now(&self) -> When;

    /// A clock that never jumps, from any start.
    fn monotonic(&self) -> Duration;
}

/// How a journal is kept.
#[derive(Clone)]
pub struct Settings {
    /// Bytes of a segment, and so of the reserve; a multiple of 4096. [`limits::SEGMENT_BYTES`] is a good value.
    pub segment_bytes: u64,
    /// 32 random bytes, which name the chain if the journal is new.
    pub random: [u8; 32],
    /// The clocks.
    pub clock: Arc<dyn Clock>,
}

/// The proof that an event is durable: its place in the chain and its hash.
pub type Receipt = Head;

/// What was found when the journal was opened.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Opened {
    /// There was none: a new chain began.
    pub new: bool,
    /// Where the journal ended.
    pub head: Head,
    /// Records in front of the first one that are gone without being known as anchored: first and last. An event
    /// says so.
    pub missing: Option<(Sequence, Sequence)>,
    /// Records at the end that may never have been acknowledged: first and last. They stay, and an event says so.
    pub unacknowledged: Option<(Sequence, Sequence)>,
    /// Bytes of a torn end that was never acknowledged. They were dropped, and an event says so.
    pub torn_bytes: u64,
    /// Marks that could not be read beside one that could. An event says so.
    pub marks_damaged: u32,
}

/// How the journal is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct JournalHealth {
    /// The last durable record.
    pub head: Head,
    /// The newest head that the ledger is known to hold.
    pub anchored: Option<Head>,
    /// The first record that is still here.
    pub first: Sequence,
    /// Events that wait for the writer.
    pub waiting: usize,
    /// There is a reserve for a full disk. If not, only what may use it is recorded.
    pub reserved: bool,
    /// Why the last try to set a reserve aside failed.
    pub reserve_error: Option<String>,
    /// Bytes left in the segment that is being written. Without a reserve that is all there is.
    pub room_bytes: u64,
    /// Events that were refused since the disk became full.
    pub refused: u64,
    /// Why nothing is recorded any more.
    pub failed: Option<String>,
}

/// The journal. Its methods may be called from any thread. Dropping it writes what waits and ends the writer.
pub struct Journal {
    shared: Arc<Shared>,
    writer: Option<JoinHandle<()>>,
}

/// What the writer, its callers and the readers share. Neither lock is held while the disk works.
pub(crate) struct Shared {
    pub folder: Arc<dyn Folder>,
    pub chain: Hash,
    pub clock: Arc<dyn Clock>,
    queue: Mutex<Queue>,
    /// Something waits for the writer.
    work: Condvar,
    /// The queue has room.
    room: Condvar,
    view: Mutex<View>,
    /// The head moved, or the journal ended.
    grown: Condvar,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Arc<Ticket>>,
    own: Own,
    closing: bool,
    /// Somebody was refused for want of room: the writer looks whether there is some again.
    retry: bool,
    failed: Option<String>,
}

/// What readers may see: only what is durable.
struct View {
    head: Head,
    anchored: Option<Head>,
    /// In the order of their records; the last one is being written.
    segments: Vec<Segment>,
    reserved: bool,
    reserve_error: Option<String>,
    room_bytes: u64,
    /// Actions that are under way and whose events were promised room.
    promised: u64,
    refused: u64,
    /// Counts wake-ups that are not about a new head, so that a waiting thread can be called.
    calls: u64,
}

#[derive(Clone)]
struct Segment {
    name: String,
    header: Header,
    file: Arc<dyn Handle>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // No code of ours panics while it holds one of these locks, and none leaves half a change behind.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Journal {
    /// Opens the journal in a folder, or begins one. What a crash left behind is put in order and recorded; what was
    /// acknowledged and is gone is an error.
    ///
    /// # Errors
    /// See [`OpenError`]. Nothing was changed if it is [`OpenError::Damaged`].
    pub fn open(folder: Arc<dyn Folder>, settings: Settings) -> Result<(Self, Opened), OpenError> {
        let (min, max, got) = (limits::SEGMENT_BYTES_MIN, limits::SEGMENT_BYTES_MAX, settings.segment_bytes);
        if !(min..=max).contains(&got) || got % 4096 != 0 {
            return Err(OpenError::SegmentBytes { got, min, max });
        }
        let state = recover::recover(&*folder, &settings)?;
        let opened = state.opened.clone();
        let shared = Arc::new(Shared {
            folder,
            chain: state.chain,
            clock: Arc::clone(&settings.clock),
            queue: Mutex::new(Queue::default()),
            work: Condvar::new(),
            room: Condvar::new(),
            view: Mutex::new(View {
                head: opened.head,
                anchored: state.anchored,
                segments: state.segments.clone(),
                reserved: state.reserve,
                reserve_error: None,
                room_bytes: if state.sealed {
                    0
                } else {
                    state.segment.header.size.saturating_sub(state.end)
                },
                promised: 0,
                refused: 0,
                calls: 0,
            }),
            grown: Condvar::new(),
        });
        let writer = writer::Writer::new(Arc::clone(&shared), &settings, state);
        let thread = std::thread::Builder::new().name("audit-journal".into()).spawn(move || writer.run());
        let thread = thread.map_err(|source| OpenError::Io { doing: "given a thread", source })?;
        Ok((Self { shared, writer: Some(thread) }, opened))
    }

    /// Records an event and returns when it is durable, but after `wait` at the latest.
    ///
    /// # Errors
    /// See [`AppendError`]; the caller refuses the action.
    pub fn append(&self, event: &Event, wait: Duration) -> Result<Receipt, AppendError> {
        self.begin(event, wait)?.wait()
    }

    /// Hands an event to the writer. What is asked later of the [`Pending`] counts from now: `wait` is the bound of
    /// both together. It waits itself only while too many others wait.
    ///
    /// # Errors
    /// [`AppendError::Busy`], [`AppendError::Failed`], [`AppendError::Closed`].
    pub fn begin(&self, event: &Event, wait: Duration) -> Result<Pending, AppendError> {
        let began = Instant::now();
        let ticket = Arc::new(Ticket::new(event));
        let mut queue = lock(&self.shared.queue);
        loop {
            if let Some(reason) = &queue.failed {
                return Err(AppendError::Failed(reason.clone()));
            }
            if queue.closing {
                return Err(AppendError::Closed);
            }
            if queue.waiting.len() < limits::QUEUE_EVENTS_MAX {
                break;
            }
            let left = wait.saturating_sub(began.elapsed());
            if left.is_zero() {
                return Err(AppendError::Busy(wait));
            }
            queue = self.shared.room.wait_timeout(queue, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        queue.waiting.push_back(Arc::clone(&ticket));
        drop(queue);
        self.shared.work.notify_one();
        Ok(Pending::new(Arc::clone(&self.shared), ticket, began, wait))
    }

    /// Asks for room before an action that will have to be recorded. While the journal lives on its reserve there is none
    /// for what may not use it ([`Event::may_use_reserve`]), and what is left is promised only once.
    ///
    /// # Errors
    /// [`AppendError::Reserved`], [`AppendError::Full`], [`AppendError::Failed`], [`AppendError::Closed`]: the action is
    /// not to be begun.
    pub fn room(&self, may_use_reserve: bool) -> Result<Room, AppendError> {
        {
            let queue = lock(&self.shared.queue);
            if let Some(reason) = &queue.failed {
                return Err(AppendError::Failed(reason.clone()));
            }
            if queue.closing {
                return Err(AppendError::Closed);
            }
        }
        let refused = {
            let mut view = lock(&self.shared.view);
            // With a reserve there is a whole segment more: room for several hundred of the largest events.
            let needed = view.promised.saturating_add(1).saturating_mul(FRAME_BYTES_MAX);
            if view.reserved || (may_use_reserve && view.room_bytes >= needed) {
                view.promised += 1;
                return Ok(Room { shared: Arc::clone(&self.shared) });
            }
            view.refused += 1;
            if may_use_reserve { AppendError::Full } else { AppendError::Reserved }
        };
        // Whoever is refused here hands in nothing that would make the writer look.
        lock(&self.shared.queue).retry = true;
        self.shared.work.notify_one();
        Err(refused)
    }

    /// Records something that nobody waits for: what a sink or the journal itself has to say. If it cannot be recorded
    /// now, it is when there is room again; of too many the oldest are dropped, and counted in the next one.
    pub fn note(&self, event: Event) {
        self.shared.note(event);
    }

    /// The last durable record.
    #[must_use]
    pub fn head(&self) -> Head {
        self.shared.head()
    }

    /// The chain's name.
    #[must_use]
    pub fn chain(&self) -> Hash {
        self.shared.chain
    }

    /// What followers keep of the journal.
    pub(crate) fn shared(&self) -> Arc<Shared> {
        Arc::clone(&self.shared)
    }

    /// How the journal is. It never waits for the disk.
    #[must_use]
    pub fn health(&self) -> JournalHealth {
        let (waiting, failed) = {
            let queue = lock(&self.shared.queue);
            (queue.waiting.len(), queue.failed.clone())
        };
        let view = lock(&self.shared.view);
        JournalHealth {
            head: view.head,
            anchored: view.anchored,
            first: view.segments.first().map_or(Sequence(1), |segment| segment.header.first),
            waiting,
            reserved: view.reserved,
            reserve_error: view.reserve_error.clone(),
            room_bytes: view.room_bytes,
            refused: view.refused,
            failed,
        }
    }

    /// Reads from a record on.
    #[must_use]
    pub fn reader(&self, from: Sequence) -> Reader {
        Reader::new(Arc::clone(&self.shared), from)
    }

    /// Reads every record that is still here and gives what is not as it should be: nothing for a journal that is whole.
    /// At a start only the last segment is read like this.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn check(&self) -> io::Result<Vec<Gap>> {
        let end = self.head().sequence;
        let mut reader = self.reader(self.shared.first());
        let mut gaps = Vec::new();
        while reader.position() <= end {
            match reader.read_next()? {
                Some(Read::Gap(gap)) => gaps.push(gap),
                Some(Read::Record(_)) => {}
                None => break,
            }
        }
        Ok(gaps)
    }

    /// The root that the ledger should get next: from behind the one before up to now. `None` if nothing is new.
    #[must_use]
    pub fn root_since(&self, before: Option<&AuditRoot>) -> Option<AuditRoot> {
        let head = self.head();
        let first = before.map_or(Sequence(1), |before| before.last.next());
        let (version, chain) = (AuditRoot::VERSION, self.chain());
        (first <= head.sequence).then_some(AuditRoot {
            version,
            chain,
            first,
            last: head.sequence,
            head: head.hash,
        })
    }

    /// Tells the journal that the ledger holds this head. At every start the newest one of the ledger belongs here: it
    /// shows whether the journal was set back.
    ///
    /// # Errors
    /// See [`AnchorError`].
    pub fn anchored(&self, head: Head) -> Result<(), AnchorError> {
        let (ours, known) = {
            let view = lock(&self.shared.view);
            (view.head, view.anchored)
        };
        if known == Some(head) || head == Head::start(self.chain()) {
            return Ok(());
        }
        if head.sequence > ours.sequence {
            return Err(AnchorError::SetBack { anchored: head, ours });
        }
        match self.reader(head.sequence).read_next()? {
            Some(Read::Record(record)) if record.head() == head => {}
            Some(Read::Record(_)) => return Err(AnchorError::OtherRecord(head)),
            Some(Read::Gap(_)) | None => return Err(AnchorError::NotHere(head)),
        }
        if known.is_some_and(|known| known.sequence >= head.sequence) {
            return Ok(());
        }
        self.shared.folder.replace(ANCHOR, &anchor_bytes(head))?;
        lock(&self.shared.view).anchored = Some(head);
        Ok(())
    }

    /// Removes segments that end before `keep_from` and whose head the ledger holds; records that first. Returns how
    /// many. Sinks that have not read them are told of a gap.
    ///
    /// # Errors
    /// See [`RemoveError`].
    pub fn remove_before(
        &self,
        keep_from: Sequence,
        actor: Actor,
        origin: Origin,
        wait: Duration,
    ) -> Result<usize, RemoveError> {
        let (gone, last) = {
            let view = lock(&self.shared.view);
            let anchored = view.anchored.map_or(Sequence(0), |head| head.sequence);
            // The end of a segment is the record that the next one follows. The last segment stays.
            let ends = view.segments.windows(2).map(|pair| pair[1].header.before());
            let gone: Vec<Head> =
                ends.take_while(|end| end.sequence < keep_from && end.sequence <= anchored).collect();
            let Some(last) = gone.last().copied() else { return Ok(0) };
            let names: Vec<String> =
                view.segments.iter().take(gone.len()).map(|segment| segment.name.clone()).collect();
            (names, last)
        };
        let first = self.shared.first();
        let mut event = Event::new(Action::JournalSegmentsRemoved, actor, origin, self.shared.clock.now());
        event.before = Some(last.hash);
        event.details = Details::numbers(&[
            ("first", first.0),
            ("last", last.sequence.0),
            ("segments", gone.len() as u64),
        ]);
        self.append(&event, wait)?;
        for name in &gone {
            // Out of sight first, so that no reader opens what is being removed.
            lock(&self.shared.view).segments.retain(|segment| segment.name != *name);
            let removed = self.shared.folder.remove(name);
            removed.map_err(|source| RemoveError::Io { name: name.clone(), source })?;
        }
        Ok(gone.len())
    }
}

/// The promise of room for one event, until it is dropped: keep it until the event is recorded.
#[must_use]
pub struct Room {
    shared: Arc<Shared>,
}

impl Drop for Room {
    fn drop(&mut self) {
        let mut view = lock(&self.shared.view);
        view.promised = view.promised.saturating_sub(1);
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        lock(&self.shared.queue).closing = true;
        self.shared.work.notify_all();
        self.shared.room.notify_all();
        if let Some(thread) = self.writer.take() {
            let _ = thread.join();
        }
    }
}

impl Shared {
    pub fn note(&self, event: Event) {
        lock(&self.queue).own.push(event);
        self.work.notify_one();
    }

    /// The journal's own event, now.
    pub fn own_event(&self, action: Action, details: Details) -> Event {
        Event { details, ..Event::new(action, Actor::Appliance, Origin::Inside, self.clock.now()) }
    }

    /// The last durable record.
    pub fn head(&self) -> Head {
        lock(&self.view).head
    }

    /// The first record that is still here.
    pub fn first(&self) -> Sequence {
        lock(&self.view).segments.first().map_or(Sequence(1), |segment| segment.header.first)
    }

    /// A record that nobody waited for: its action was refused.
    fn unclaimed(&self, receipt: Receipt) -> Event {
        let details = Details::numbers(&[("record", receipt.sequence.0)]);
        Event { before: Some(receipt.hash), ..self.own_event(Action::JournalUnclaimed, details) }
    }

    /// Waits until the head is beyond `seen`, [`Self::call`] is called, or the time is over.
    pub fn wait_beyond(&self, seen: Sequence, calls: u64, wait: Duration) {
        let view = lock(&self.view);
        let nothing_new = |view: &mut View| view.head.sequence <= seen && view.calls == calls;
        drop(self.grown.wait_timeout_while(view, wait, nothing_new));
    }

    pub fn calls(&self) -> u64 {
        lock(&self.view).calls
    }

    /// Wakes those who wait for a new head.
    pub fn call(&self) {
        lock(&self.view).calls += 1;
        self.grown.notify_all();
    }
}

fn anchor_bytes(head: Head) -> Vec<u8> {
    AnchorFile { version: AnchorFile::VERSION_NUMBER, head }.to_bytes()
}

fn read_anchor(folder: &dyn Folder) -> io::Result<Option<Head>> {
    let bytes = read_small(folder, ANCHOR, AnchorFile::BYTES_MAX)?;
    // A damaged anchor is as good as none: it only holds back removals, and the ledger tells it anew.
    Ok(bytes.and_then(|bytes| AnchorFile::parse(&bytes).ok()).map(|file| file.head))
}

#[derive(Debug, Clone, PartialEq, Eq, minicbor::Encode, minicbor::Decode)]
#[cbor(array)]
struct AnchorFile {
    #[n(0)]
    version: u64,
    #[n(1)]
    head: Head,
}

impl AnchorFile {
    const VERSION_NUMBER: u64 = 1;
}

impl Canonical for AnchorFile {
    const WHAT: &'static str = "anchor of the audit journal";
    const BYTES_MAX: usize = 128;
    const VERSION: Option<u64> = Some(Self::VERSION_NUMBER);
}
