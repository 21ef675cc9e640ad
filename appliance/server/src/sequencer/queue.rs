//! Where entries wait for their height, with bounds on their number and their bytes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use zixt_api::CustodyState;
use zixt_ledger::{RecordedEntry, Refusal, Submission};
use zixt_storage::StoredEntry;
use zixt_types::{Attachment, BatchItem, EntryPosition, Hash, Height, MessageId, Salt, ShardId, ThreadId};

/// Entries that may wait: four full batches, some seconds of work.
const ENTRIES_MAX: usize = 2048;
/// Bytes that may wait, in KiB: a full batch beside the one that is under way.
const KIB_MAX: usize = 64 * 1024;

/// An entry in the ledger, as far as its receipt needs it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Recorded {
    /// Its message id.
    pub message_id: MessageId,
    /// Its thread.
    pub thread: ThreadId,
    /// Its place.
    pub position: EntryPosition,
    /// What blinds its leaf.
    pub salt: Salt,
    /// Its hash.
    pub hash: Hash,
    /// Its height.
    pub height: Height,
    /// Its shard.
    pub shard: ShardId,
    /// Its leaf.
    pub leaf: u64,
}

impl Recorded {
    /// An entry of the block of this height.
    pub(super) fn at(height: Height, entry: &RecordedEntry) -> Self {
        Self {
            height,
            message_id: entry.body.message_id,
            thread: entry.body.thread,
            position: entry.item.position,
            salt: entry.item.salt,
            hash: entry.hash,
            shard: entry.shard,
            leaf: entry.leaf,
        }
    }
}

impl From<&StoredEntry> for Recorded {
    fn from(entry: &StoredEntry) -> Self {
        Self {
            message_id: entry.body.message_id,
            thread: entry.body.thread,
            position: entry.place,
            salt: entry.salt,
            hash: entry.hash,
            height: entry.height,
            shard: entry.shard,
            leaf: entry.leaf,
        }
    }
}

/// Why an entry was not recorded.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Unrecorded {
    /// The ledger does not take it.
    Refused(Refusal),
    /// An entry before it in the same request was refused.
    NotTried,
    /// What it was judged by came to nothing: it may be tried again.
    Undone,
    /// Too much waits.
    Busy,
    /// The keys are not usable.
    Custody(CustodyState),
    /// The store failed.
    StoreFailed,
    /// The ledger has stopped.
    Stopped,
    /// The process is about to end.
    ShuttingDown,
}

/// What ties the entries of one request together.
#[derive(Clone, Debug, Default)]
pub struct Group(Arc<AtomicBool>);

impl Group {
    pub(super) fn is_broken(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    pub(super) fn set_broken(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    pub(super) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

/// An entry that waits.
#[derive(Debug)]
pub struct Pending {
    pub(super) submission: Submission,
    pub(super) ticket: Ticket,
}

/// Who waits for an entry, and the room that it takes until it is answered.
#[derive(Debug)]
pub struct Ticket {
    pub(super) group: Group,
    /// Whether it is the last of its request.
    pub(super) last: bool,
    reply: oneshot::Sender<Result<Recorded, Unrecorded>>,
    _room: OwnedSemaphorePermit,
}

impl Ticket {
    pub(super) fn answer(self, answer: Result<Recorded, Unrecorded>) {
        // Whoever asked may have gone; the entry is recorded all the same.
        let _ = self.reply.send(answer);
    }
}

/// The way in.
#[derive(Clone, Debug)]
pub struct Queue {
    sender: mpsc::Sender<Pending>,
    room: Arc<Semaphore>,
}

/// The answer to come for one entry.
pub type Answer = oneshot::Receiver<Result<Recorded, Unrecorded>>;

impl Queue {
    /// A queue and its other end, for the sequencer.
    #[must_use]
    pub fn new() -> (Self, mpsc::Receiver<Pending>) {
        let (sender, receiver) = mpsc::channel(ENTRIES_MAX);
        (Self { sender, room: Arc::new(Semaphore::new(KIB_MAX)) }, receiver)
    }

    /// Puts entries whose signatures were checked into the queue, in order, all or none.
    ///
    /// # Errors
    /// [`Unrecorded::Busy`] if they do not fit, [`Unrecorded::Stopped`] if nobody works on it any more.
    pub fn put(&self, submissions: Vec<Submission>) -> Result<Vec<Answer>, Unrecorded> {
        let places = self.sender.try_reserve_many(submissions.len()).map_err(|error| match error {
            mpsc::error::TrySendError::Full(()) => Unrecorded::Busy,
            mpsc::error::TrySendError::Closed(()) => Unrecorded::Stopped,
        })?;
        let mut permits = Vec::with_capacity(submissions.len());
        for submission in &submissions {
            let room = Arc::clone(&self.room).try_acquire_many_owned(kib(submission));
            permits.push(room.map_err(|_| Unrecorded::Busy)?);
        }
        let group = Group::default();
        let total = submissions.len();
        let mut answers = Vec::with_capacity(total);
        for ((place, submission), room) in places.zip(submissions).zip(permits) {
            let (reply, answer) = oneshot::channel();
            let last = answers.len() + 1 == total;
            let ticket = Ticket { group: group.clone(), last, reply, _room: room };
            place.send(Pending { submission, ticket });
            answers.push(answer);
        }
        Ok(answers)
    }
}

/// The submission that became an entry of a block which came to nothing.
pub(super) fn resubmit(entry: RecordedEntry) -> Submission {
    let RecordedEntry { body, item, .. } = entry;
    let BatchItem { body: body_bytes, signature, possession, attachments, .. } = item;
    Submission { body, body_bytes, signature, possession, attachments }
}

fn kib(submission: &Submission) -> u32 {
    let attached: usize = submission.attachments.iter().map(|Attachment(bytes)| bytes.len()).sum();
    u32::try_from((submission.body_bytes.len() + attached).div_ceil(1024) + 8).unwrap_or(u32::MAX)
}
