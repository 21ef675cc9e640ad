//! The one thread that writes. Whatever waits when it comes back from the disk goes to the disk together.

use super::error::AppendError;
use super::recover::{State, make_segment};
use super::ticket::Ticket;
use super::{Segment, Settings, Shared, lock};
use crate::folder::write_all_at;
use crate::segment::{FRAMES_AT, Header, Mark, RESERVE, encode, frame_bytes};
use crate::{Action, Details, Event, Head, Record, Sequence, limits};
use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, PoisonError};
use std::time::Duration;
use zixt_types::Canonical;

pub(super) struct Writer {
    shared: Arc<Shared>,
    segment_bytes: u64,
    segment: Segment,
    /// Where the next frame goes.
    end: u64,
    head: Head,
    /// The next record.
    next: Sequence,
    /// The count of the newest mark.
    marks: u64,
    sealed: bool,
    reserve: bool,
    /// When a reserve is tried for again, by the monotonic clock.
    retry_at: Duration,
}

/// An event on its way, and who wants to know.
struct Job {
    event: Vec<u8>,
    may_use_reserve: bool,
    from: Origin,
}

enum Origin {
    Caller(Arc<Ticket>),
    Own(Box<Event>),
}

/// The disk failed: nothing is acknowledged any more.
struct Failed(String);

impl Writer {
    pub fn new(shared: Arc<Shared>, settings: &Settings, state: State) -> Self {
        let mut events = vec![shared.own_event(Action::JournalOpened, Details::none())];
        if let Some((first, last)) = state.left_out {
            let details = Details::numbers(&[("missing_first", first.0), ("missing_last", last.0)]);
            events.push(shared.own_event(Action::JournalContinued, details));
        }
        if let Some((details, torn)) = state.recovered {
            let event = shared.own_event(Action::JournalRecovered, details);
            events.push(Event { before: torn, ..event });
        }
        if !state.reserve {
            events.push(shared.own_event(Action::JournalReserveUsed, Details::none()));
        }
        lock(&shared.queue).own.put_back(events);
        lock(&shared.view).reserve_error = state.reserve_error;
        let head = state.opened.head;
        let segment = state.segment;
        let next = if state.end == FRAMES_AT { segment.header.first } else { head.sequence.next() };
        let retry_at = shared.clock.monotonic() + Duration::from_millis(limits::RESERVE_RETRY_MS);
        Self {
            shared,
            segment_bytes: settings.segment_bytes,
            segment,
            end: state.end,
            head,
            next,
            marks: state.marks,
            sealed: state.sealed,
            reserve: state.reserve,
            retry_at,
        }
    }

    pub fn run(mut self) {
        // Own events that found no room do not wake the writer again; they go with the next group.
        let mut stuck = false;
        loop {
            let (mut jobs, closing) = self.next_jobs(stuck);
            if jobs.is_empty() && closing {
                break;
            }
            let result = self.process(&mut jobs);
            let answer = match &result {
                Ok(()) => AppendError::Full,
                Err(Failed(reason)) => {
                    self.fail(reason);
                    AppendError::Failed(reason.clone())
                }
            };
            stuck = self.refuse(jobs, &answer);
            if result.is_err() {
                return;
            }
        }
        // So that the mark tells the next process exactly what was acknowledged. If it fails the mark is older.
        let _ = self.segment.file.sync();
    }

    fn next_jobs(&self, stuck: bool) -> (VecDeque<Job>, bool) {
        let mut queue = lock(&self.shared.queue);
        while queue.waiting.is_empty() && (stuck || queue.own.is_empty()) && !queue.closing && !queue.retry {
            queue = self.shared.work.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
        let closing = queue.closing;
        queue.retry = false;
        if stuck && closing && queue.waiting.is_empty() {
            return (VecDeque::new(), true);
        }
        let mut jobs: VecDeque<Job> = queue.own.take().into_iter().map(Job::own).collect();
        let count = queue.waiting.len().min(limits::GROUP_EVENTS_MAX);
        jobs.extend(queue.waiting.drain(..count).map(Job::caller));
        drop(queue);
        self.shared.room.notify_all();
        (jobs, closing)
    }

    /// Writes what it can. What is left in `jobs` found no room.
    fn process(&mut self, jobs: &mut VecDeque<Job>) -> Result<(), Failed> {
        if !self.reserve && self.shared.clock.monotonic() >= self.retry_at && self.make_reserve() {
            self.restored(jobs);
        }
        while !jobs.is_empty() {
            let group = self.gather(jobs);
            if !group.is_empty() {
                self.write(group)?;
            } else if !jobs.is_empty() && !self.rotate(jobs)? {
                break;
            }
        }
        Ok(())
    }

    /// Takes as many as fit into the segment.
    fn gather(&mut self, jobs: &mut VecDeque<Job>) -> Vec<(Job, Record)> {
        let mut group: Vec<(Job, Record)> = Vec::new();
        let (mut at, mut head, mut next) = (self.end, self.head, self.next);
        while let Some(job) = jobs.front() {
            if !self.reserve && !job.may_use_reserve {
                if let Some(job) = jobs.pop_front() {
                    self.refuse(VecDeque::from([job]), &AppendError::Reserved);
                }
                continue;
            }
            let bytes = job.event.len();
            if self.sealed || at + frame_bytes(at, bytes, true) > self.segment.header.size {
                break;
            }
            let Some(mut job) = jobs.pop_front() else { break };
            if !job.take() {
                continue;
            }
            let record = Record::new(next, head.hash, std::mem::take(&mut job.event));
            head = record.head();
            next = next.next();
            at += frame_bytes(at, bytes, false);
            group.push((job, record));
        }
        group
    }

    /// The life of a group: written, made durable, marked, shown to readers, acknowledged.
    fn write(&mut self, group: Vec<(Job, Record)>) -> Result<(), Failed> {
        let mut bytes = Vec::new();
        for (place, (_, record)) in (1..).zip(&group) {
            let at = self.end + bytes.len() as u64;
            let size = frame_bytes(at, record.event.len(), place == group.len());
            encode(&mut bytes, self.shared.chain, record, size);
        }
        let file = Arc::clone(&self.segment.file);
        match write_all_at(&*file, self.end, &bytes) {
            Ok(()) => {}
            Err(error) if is_full(&error) => {
                // A file system that copies on write may say so. Nothing was promised; the place is written again.
                self.give_back(group, &AppendError::Full);
                return Ok(());
            }
            Err(error) => return Err(self.failed(group, "written", &error)),
        }
        if let Err(error) = file.sync() {
            return Err(self.failed(group, "made durable", &error));
        }
        // From here on it is durable. Only the mark may still be lost, and then the next process says so.
        let end = self.end + bytes.len() as u64;
        let Some(head) = group.last().map(|(_, record)| record.head()) else { return Ok(()) };
        self.marks += 1;
        let mark = Mark { count: self.marks, head, end, sealed: false };
        if let Err(error) = mark.write(&*file, &self.segment.header) {
            return Err(self.failed(group, "marked", &error));
        }
        (self.end, self.head, self.next) = (end, head, head.sequence.next());
        {
            let mut view = lock(&self.shared.view);
            view.head = head;
            view.room_bytes = self.segment.header.size.saturating_sub(self.end);
        }
        self.shared.grown.notify_all();
        for (job, record) in group {
            if let Origin::Caller(ticket) = job.from
                && !ticket.finish(Ok(record.head()))
            {
                self.shared.note(self.shared.unclaimed(record.head()));
            }
        }
        Ok(())
    }

    /// Goes on in the reserve, and sets a new one aside. `false` if there is none.
    fn rotate(&mut self, jobs: &mut VecDeque<Job>) -> Result<bool, Failed> {
        if !self.reserve {
            let due = self.shared.clock.monotonic() >= self.retry_at;
            if !due || !self.make_reserve() {
                return Ok(false);
            }
            self.restored(jobs);
        }
        let failed =
            |doing: &str, error: &io::Error| Failed(format!("a segment could not be {doing}: {error}"));
        if !self.sealed {
            self.marks += 1;
            let mark = Mark { count: self.marks, head: self.head, end: self.end, sealed: true };
            let file = &self.segment.file;
            let sealed = mark.write(&**file, &self.segment.header).and_then(|()| file.sync());
            sealed.map_err(|error| failed("closed", &error))?;
            self.sealed = true;
            lock(&self.shared.view).room_bytes = 0;
        }
        let header = Header {
            size: self.segment_bytes,
            first: self.next,
            after: self.head.sequence,
            made_at: self.shared.clock.now().wall,
            chain: self.shared.chain,
            prev: self.head.hash,
        };
        let segment = match make_segment(&*self.shared.folder, header) {
            Ok(segment) => segment,
            Err(error) if is_full(&error) => return Ok(false),
            Err(error) => return Err(failed("begun", &error)),
        };
        lock(&self.shared.view).segments.push(segment.clone());
        self.segment = segment;
        (self.end, self.marks, self.sealed, self.reserve) = (FRAMES_AT, 0, false, false);
        {
            // Together, so that nobody is promised a reserve that has just become the segment.
            let mut view = lock(&self.shared.view);
            view.room_bytes = self.segment.header.size.saturating_sub(FRAMES_AT);
            view.reserved = false;
        }
        if !self.make_reserve() {
            jobs.push_front(Job::own(self.shared.own_event(Action::JournalReserveUsed, Details::none())));
        }
        Ok(true)
    }

    /// Tries to set a reserve aside.
    fn make_reserve(&mut self) -> bool {
        let made = self.shared.folder.create(RESERVE, self.segment_bytes);
        self.reserve = made.is_ok();
        self.retry_at = self.shared.clock.monotonic() + Duration::from_millis(limits::RESERVE_RETRY_MS);
        let mut view = lock(&self.shared.view);
        view.reserved = self.reserve;
        view.reserve_error = made.err().map(|error| error.to_string());
        self.reserve
    }

    fn restored(&self, jobs: &mut VecDeque<Job>) {
        let refused = std::mem::take(&mut lock(&self.shared.view).refused);
        let details = Details::numbers(&[("refused", refused)]);
        jobs.push_front(Job::own(self.shared.own_event(Action::JournalReserveRestored, details)));
    }

    /// Answers callers with an error; own events are kept. Says whether there were any of those.
    fn refuse(&self, jobs: VecDeque<Job>, error: &AppendError) -> bool {
        let mut own = Vec::new();
        let mut refused = 0;
        for job in jobs {
            match job.from {
                Origin::Caller(ticket) => {
                    ticket.finish(Err(error.clone()));
                    refused += 1;
                }
                Origin::Own(event) => own.push(*event),
            }
        }
        lock(&self.shared.view).refused += refused;
        let kept = !own.is_empty();
        lock(&self.shared.queue).own.put_back(own);
        kept
    }

    fn give_back(&self, group: Vec<(Job, Record)>, error: &AppendError) {
        self.refuse(group.into_iter().map(|(job, _)| job).collect(), error);
    }

    fn failed(&self, group: Vec<(Job, Record)>, doing: &str, error: &io::Error) -> Failed {
        let failed = Failed(format!("a record could not be {doing}: {error}"));
        // First, so that whoever gets the refusal finds the journal failed, and begins nothing.
        lock(&self.shared.queue).failed = Some(failed.0.clone());
        self.give_back(group, &AppendError::Failed(failed.0.clone()));
        failed
    }

    /// Refuses everybody who waits or comes later.
    fn fail(&self, reason: &str) {
        let waiting = {
            let mut queue = lock(&self.shared.queue);
            queue.failed = Some(reason.to_owned());
            std::mem::take(&mut queue.waiting)
        };
        self.shared.room.notify_all();
        self.refuse(waiting.into_iter().map(Job::caller).collect(), &AppendError::Failed(reason.to_owned()));
        self.shared.call();
    }
}

impl Job {
    fn caller(ticket: Arc<Ticket>) -> Self {
        let (event, may_use_reserve) = (ticket.event.clone(), ticket.may_use_reserve);
        Self { event, may_use_reserve, from: Origin::Caller(ticket) }
    }

    fn own(event: Event) -> Self {
        Self { event: event.to_bytes(), may_use_reserve: true, from: Origin::Own(Box::new(event)) }
    }

    /// `false` if nobody wants it any more.
    fn take(&self) -> bool {
        match &self.from {
            Origin::Caller(ticket) => ticket.take(),
            Origin::Own(_) => true,
        }
    }
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}
