//! The write-ahead log of the height that is being decided: enough to do the same again after a crash.
//!
//! [`frame`](self) tells how records lie in the file. This module keeps the promise: [`Wal::append`] writes,
//! [`Wal::flush_begin`] and [`Wal::flush_wait`] make durable, [`Wal::reset`] forgets a height that the host has
//! committed (it writes nothing: the next height's first record does). Only one process may have a log open.
//!
//! Not every record must be durable before the next vote is released. A record is **binding** if the state machine
//! cannot be brought to the same lock without it: values, proposals, timeouts, others' votes and certificates. Our
//! own votes are not binding: the custody daemon has them, durably, and gives them back.

mod crc32c;
mod file;
mod frame;
mod record;
#[cfg(test)]
mod tests;

pub use file::{DiskFile, Flush, WalFile};
pub(crate) use record::{Record, ValueHead};

use file::Flusher;
use frame::{BLOCK_BYTES, Head};
use std::io;
use std::sync::Arc;
use zixt_types::{Height, limits};

/// A record: a batch with its header, and less than 64 KiB around it (a certificate of 128 votes is smaller).
const RECORD_BYTES_MAX: usize = limits::BATCH_BYTES_MAX + limits::CERTIFICATE_BYTES_MAX + 64 * 1024;
/// Records of one height: rounds times votes, far beyond anything but an attack. The engine then stops.
const RECORDS_MAX: u32 = 1 << 20;

/// Why the log cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum WalError {
    /// The file could not be read, written or flushed.
    #[error("the write-ahead log could not be {doing}")]
    Io {
        /// What was being done.
        doing: &'static str,
        /// What the operating system said.
        source: io::Error,
    },
    /// The file is not empty and does not begin as a log of this version.
    #[error("the file is not a write-ahead log of version 1")]
    NotALog,
    /// Records that had been made durable are damaged or gone.
    #[error("height {height}: {promised} records were durable, but only {found} can be read")]
    Damaged {
        /// The height that the records belong to.
        height: Height,
        /// Records known to have been durable.
        promised: u32,
        /// Records that can be read, without a gap.
        found: u32,
    },
    /// A record is whole but says nothing that this version understands.
    #[error("height {height}: record {seq} cannot be understood: {reason}")]
    Unreadable {
        /// The height.
        height: Height,
        /// The record's place.
        seq: u32,
        /// What is wrong with it.
        reason: String,
    },
    /// The log is about a later height than the host wants to decide: the host's own store has been rolled back.
    #[error("the log is at height {log}, but height {host} is to be decided: the host's store is older")]
    Ahead {
        /// Height of the log.
        log: Height,
        /// Height that the host asked for.
        host: Height,
    },
    /// A record is larger than a batch and its certificate can be, or there are too many.
    #[error("a record of {bytes} bytes as number {seq} is beyond the log's bounds")]
    Bounds {
        /// Size of the record.
        bytes: usize,
        /// Its place.
        seq: u32,
    },
    /// An earlier error has made the log unusable; start again and replay.
    #[error("the write-ahead log failed before")]
    Failed,
}

/// What the log has done since it was opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct WalStats {
    /// Records written.
    pub records: u64,
    /// Bytes written.
    pub bytes: u64,
    /// Calls of fdatasync.
    pub syncs: u64,
}

/// The log.
pub struct Wal {
    file: Arc<dyn WalFile>,
    flusher: Flusher,
    salt: u64,
    generation: u64,
    height: Height,
    /// Records of this generation; where the next one goes; checksum of the last one.
    records: u32,
    end: usize,
    prev: u32,
    /// Records known to be durable, and what a running sync will make durable.
    durable: u32,
    flushing: Option<u32>,
    /// Binding records have been written since the last sync began.
    unflushed: bool,
    failed: bool,
    /// Read at open, not replayed yet. An error counts only if the host wants to decide that height.
    recovered: Option<Result<Vec<Record>, WalError>>,
    stats: WalStats,
}

impl Wal {
    /// Opens the log and reads what it holds. `salt` is used if the file is new; it must be random.
    ///
    /// # Errors
    /// [`WalError`]; a torn tail is not an error.
    pub fn open(file: Arc<dyn WalFile>, salt: u64, flush: Flush) -> Result<Self, WalError> {
        let bytes = file.read_all().map_err(|source| WalError::Io { doing: "read", source })?;
        let salt = match frame::read_superblock(&bytes) {
            Some(salt) => salt,
            None if bytes.iter().all(|byte| *byte == 0) => {
                let written = file.write_at(0, &frame::superblock(salt)).and_then(|()| file.sync());
                written.map_err(|source| WalError::Io { doing: "begun", source })?;
                salt
            }
            None => return Err(WalError::NotALog),
        };
        let scan = frame::scan(&bytes, salt);
        let flusher = Flusher::new(Arc::clone(&file), flush)
            .map_err(|source| WalError::Io { doing: "given a thread", source })?;
        let height = Height(scan.height);
        let records = u32::try_from(scan.frames.len()).unwrap_or(u32::MAX);
        let recovered = if records < scan.promised {
            Err(WalError::Damaged { height, promised: scan.promised, found: records })
        } else {
            let parse = |(seq, frame): (u32, &frame::Frame)| {
                Record::parse(bytes.get(frame.body.clone()).unwrap_or_default())
                    .map_err(|reason| WalError::Unreadable { height, seq, reason })
            };
            (0..).zip(&scan.frames).map(parse).collect()
        };
        let last = scan.frames.last();
        Ok(Self {
            file,
            flusher,
            salt,
            generation: scan.generation,
            height,
            records,
            end: last.map_or(BLOCK_BYTES, |frame| frame::aligned(frame.body.end, BLOCK_BYTES)),
            prev: last.map_or(0, |frame| frame.crc),
            // What we read may be in the page cache only.
            durable: 0,
            flushing: None,
            unflushed: records > 0,
            failed: false,
            recovered: Some(recovered),
            stats: WalStats::default(),
        })
    }

    /// Begins a height: gives back what the log holds of it, or forgets what it holds of an earlier one.
    ///
    /// # Errors
    /// [`WalError::Ahead`]; [`WalError::Damaged`] and [`WalError::Unreadable`] if it concerns this height.
    pub(crate) fn start(&mut self, height: Height) -> Result<Vec<Record>, WalError> {
        self.usable()?;
        if self.height > height {
            return Err(WalError::Ahead { log: self.height, host: height });
        }
        if self.height != height || self.generation == 0 {
            self.reset(height)?;
        }
        self.recovered.take().unwrap_or(Ok(Vec::new())).inspect_err(|_| self.failed = true)
    }

    /// The height that an earlier process left unfinished, as far as the log knows.
    #[must_use]
    pub fn unfinished(&self) -> Option<Height> {
        (self.records > 0).then_some(self.height)
    }

    /// What was read at open and is not replayed yet.
    pub(crate) fn unreplayed(&self) -> &[Record] {
        match &self.recovered {
            Some(Ok(records)) => records,
            Some(Err(_)) | None => &[],
        }
    }

    /// Forgets what it holds of the height that it is about. Damage is not forgotten: [`Wal::start`] tells it.
    pub(crate) fn forget(&mut self) -> Result<(), WalError> {
        match self.recovered {
            Some(Err(_)) => Ok(()),
            Some(Ok(_)) | None => self.reset(self.height),
        }
    }

    /// Forgets the height that the log is about. Writes nothing: until the next record is written the file still
    /// tells the old height, and [`Wal::start`] knows that it is over.
    fn reset(&mut self, height: Height) -> Result<(), WalError> {
        self.flush_join()?;
        self.generation += 1;
        self.height = height;
        self.records = 0;
        self.end = BLOCK_BYTES;
        self.prev = 0;
        self.durable = 0;
        self.unflushed = false;
        self.recovered = None;
        Ok(())
    }

    /// Writes a record. It is durable after the next [`Wal::flush_wait`].
    pub(crate) fn append(&mut self, record: &Record, binding: bool) -> Result<(), WalError> {
        self.usable()?;
        let (head, tail) = record.to_parts();
        let bytes = head.len() + tail.iter().map(|part| part.len()).sum::<usize>();
        if bytes > RECORD_BYTES_MAX || self.records >= RECORDS_MAX {
            return Err(WalError::Bounds { bytes, seq: self.records });
        }
        let mut frame = Vec::new();
        let mut body = vec![head.as_slice()];
        body.extend(tail);
        let about = Head {
            generation: self.generation,
            height: self.height.0,
            seq: self.records,
            durable: self.durable,
            prev: self.prev,
        };
        let crc = frame::encode(&mut frame, self.salt, about, &body);
        let written = self.file.write_at(self.end as u64, &frame);
        written.map_err(|source| self.fail("written", source))?;
        self.prev = crc;
        self.records += 1;
        self.end += frame.len();
        self.unflushed |= binding;
        self.stats.records += 1;
        self.stats.bytes += frame.len() as u64;
        Ok(())
    }

    /// Begins to make everything written so far durable, unless nothing binding has been written.
    pub(crate) fn flush_begin(&mut self) -> Result<(), WalError> {
        self.usable()?;
        if !self.unflushed {
            return Ok(());
        }
        self.flush_join()?;
        self.stats.syncs += 1;
        self.flusher.begin().map_err(|source| self.fail("flushed", source))?;
        self.flushing = Some(self.records);
        self.unflushed = false;
        // What is written from here on must not share a block with what is being promised.
        self.end = frame::aligned(self.end, BLOCK_BYTES);
        Ok(())
    }

    /// Returns when every binding record written so far is durable.
    pub(crate) fn flush_wait(&mut self) -> Result<(), WalError> {
        self.flush_join()?;
        if self.unflushed {
            self.flush_begin()?;
            self.flush_join()?;
        }
        Ok(())
    }

    fn flush_join(&mut self) -> Result<(), WalError> {
        self.usable()?;
        if let Some(records) = self.flushing.take() {
            self.flusher.wait().map_err(|source| self.fail("flushed", source))?;
            self.durable = records;
        }
        Ok(())
    }

    /// What the log has done since it was opened.
    #[must_use]
    pub const fn stats(&self) -> WalStats {
        self.stats
    }

    fn usable(&self) -> Result<(), WalError> {
        if self.failed { Err(WalError::Failed) } else { Ok(()) }
    }

    fn fail(&mut self, doing: &'static str, source: io::Error) -> WalError {
        self.failed = true;
        WalError::Io { doing, source }
    }
}
