//! What the appliance knows about its own ability to work.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use zixt_types::Timestamp;

/// Free space below which the store counts as full: a largest batch and SQLite's log of it would not fit any more.
const FREE_BYTES_MIN: u64 = 160 * 1024 * 1024;

/// Facts that `/healthz` and the admin's status are made of.
#[derive(Debug)]
pub struct Vitals {
    folder: PathBuf,
    commits_work: AtomicBool,
    last_commit_at_ms: AtomicU64,
    stopped: Mutex<Option<String>>,
    /// Entries that wait for their height.
    pub queued: AtomicU64,
    /// Open connections of clients.
    pub connections: AtomicU64,
}

impl Vitals {
    /// The vitals of a server whose store lies in `folder`.
    #[must_use]
    pub fn new(folder: PathBuf) -> Self {
        Self {
            folder,
            commits_work: AtomicBool::new(true),
            last_commit_at_ms: AtomicU64::new(0),
            stopped: Mutex::new(None),
            queued: AtomicU64::new(0),
            connections: AtomicU64::new(0),
        }
    }

    /// A height was committed.
    pub fn committed(&self, now: Timestamp) {
        self.commits_work.store(true, Ordering::Relaxed);
        self.last_commit_at_ms.store(now.0, Ordering::Relaxed);
    }

    /// A height could not be committed.
    pub fn commit_failed(&self) {
        self.commits_work.store(false, Ordering::Relaxed);
    }

    /// When the last height was committed.
    #[must_use]
    pub fn last_commit_at(&self) -> Option<Timestamp> {
        match self.last_commit_at_ms.load(Ordering::Relaxed) {
            0 => None,
            at => Some(Timestamp(at)),
        }
    }

    /// Whether the store takes writes: the last commit worked, and there is room for the next.
    #[must_use]
    pub fn store_writable(&self) -> bool {
        let free = nix::sys::statvfs::statvfs(&self.folder)
            .map(|disk| disk.blocks_available().saturating_mul(disk.fragment_size()));
        self.commits_work.load(Ordering::Relaxed) && free.is_ok_and(|free| free >= FREE_BYTES_MIN)
    }

    /// The ledger stops for good; `reason` is for people.
    pub fn stop(&self, reason: String) {
        *self.stopped.lock().unwrap_or_else(PoisonError::into_inner) = Some(reason);
    }

    /// Why the ledger stopped, if it did.
    #[must_use]
    pub fn stopped(&self) -> Option<String> {
        self.stopped.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// How far the appliance's wall clock is set from the system's, in milliseconds. One for the process, like the clock itself.
static OFFSET_MS: AtomicI64 = AtomicI64::new(0);

/// How far it is set.
#[must_use]
pub fn offset() -> i64 {
    OFFSET_MS.load(Ordering::Relaxed)
}

/// Sets it.
pub fn set_offset(ms: i64) {
    OFFSET_MS.store(ms, Ordering::Relaxed);
}

/// The appliance's wall clock: the system's, as far from it as an officer has set.
#[must_use]
pub fn now() -> Timestamp {
    Timestamp(system_now().0.saturating_add_signed(offset()))
}

/// The system's clock.
#[must_use]
pub fn system_now() -> Timestamp {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    Timestamp(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
