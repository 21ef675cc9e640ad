//! The file under the log, and the thread that flushes it while a vote is being signed.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

/// What the log asks of a file. Tests inject crashes and faults through it.
pub trait WalFile: Send + Sync {
    /// The whole content. Called once, at start.
    ///
    /// # Errors
    /// What the operating system says.
    fn read_all(&self) -> io::Result<Vec<u8>>;

    /// Writes `bytes` at `offset`, growing the file if need be. Need not be durable.
    ///
    /// # Errors
    /// What the operating system says; the log then refuses all further work.
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()>;

    /// Returns when everything written before is durable (fdatasync).
    ///
    /// # Errors
    /// What the operating system says. The log then refuses all further work: after a failed fsync nobody knows
    /// what is on the disk, and a second fsync may report success wrongly.
    fn sync(&self) -> io::Result<()>;
}

/// A [`WalFile`] in a file system.
#[derive(Debug)]
pub struct DiskFile(File);

impl DiskFile {
    /// Opens the log at `path`, or makes it with `preallocate_bytes` of zeros: overwriting blocks that exist lets
    /// fdatasync skip the file's metadata, which makes it about three times cheaper.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn open(path: &Path, preallocate_bytes: u64) -> io::Result<Self> {
        match OpenOptions::new().read(true).write(true).open(path) {
            Ok(file) => return Ok(Self(file)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        // Made under another name and renamed, so that a half-made log is never opened.
        let unfinished = path.with_extension("unfinished");
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&unfinished)?;
        let zeros = [0; 64 * 1024];
        let mut left = preallocate_bytes;
        while left > 0 {
            let part = usize::try_from(left).map_or(zeros.len(), |left| left.min(zeros.len()));
            file.write_all(&zeros[..part])?;
            left -= part as u64;
        }
        file.sync_all()?;
        std::fs::rename(&unfinished, path)?;
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        File::open(folder.unwrap_or(Path::new(".")))?.sync_all()?;
        Ok(Self(file))
    }
}

impl WalFile for DiskFile {
    fn read_all(&self) -> io::Result<Vec<u8>> {
        let length = usize::try_from(self.0.metadata()?.len()).map_err(io::Error::other)?;
        let mut bytes = vec![0; length];
        self.0.read_exact_at(&mut bytes, 0)?;
        Ok(bytes)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all_at(bytes, offset)
    }

    fn sync(&self) -> io::Result<()> {
        self.0.sync_data()
    }
}

/// Where a flush runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Flush {
    /// On a helper thread, beside the custody daemon's own fsync for the prevote.
    Beside,
    /// In the caller, at the moment when the vote that needs it is to be signed. For simulations, which must not depend
    /// on threads.
    Inline,
}

/// Runs one sync at a time.
pub(super) struct Flusher {
    file: Arc<dyn WalFile>,
    /// None in inline mode.
    thread: Option<Helper>,
}

struct Helper {
    // `Option` only so that `drop` can hang up before it joins.
    request: Option<SyncSender<()>>,
    reply: Receiver<io::Result<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Flusher {
    pub fn new(file: Arc<dyn WalFile>, flush: Flush) -> io::Result<Self> {
        let thread = match flush {
            Flush::Inline => None,
            Flush::Beside => Some(Helper::start(Arc::clone(&file))?),
        };
        Ok(Self { file, thread })
    }

    /// Begins a sync of everything written so far.
    pub fn begin(&mut self) -> io::Result<()> {
        match &self.thread {
            None => Ok(()),
            Some(helper) => {
                helper.request.as_ref().and_then(|request| request.send(()).ok()).ok_or_else(gone)
            }
        }
    }

    /// Waits for the sync that was begun.
    pub fn wait(&mut self) -> io::Result<()> {
        match &self.thread {
            None => self.file.sync(),
            Some(helper) => helper.reply.recv().map_err(|_| gone())?,
        }
    }
}

impl Helper {
    fn start(file: Arc<dyn WalFile>) -> io::Result<Self> {
        let (request, requests) = sync_channel::<()>(1);
        let (replies, reply) = sync_channel(1);
        let thread = std::thread::Builder::new().name("wal-flush".into()).spawn(move || {
            while requests.recv().is_ok() {
                if replies.send(file.sync()).is_err() {
                    break;
                }
            }
        })?;
        Ok(Self { request: Some(request), reply, thread: Some(thread) })
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        self.request = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn gone() -> io::Error {
    io::Error::other("the flush thread is gone")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_file_is_preallocated_and_reopened() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("wal");
        let file = DiskFile::open(&path, 100_000).unwrap();
        assert_eq!(file.read_all().unwrap().len(), 100_000);
        file.write_at(99_999, b"ab").unwrap();
        file.sync().unwrap();
        drop(file);
        let bytes = DiskFile::open(&path, 5).unwrap().read_all().unwrap();
        assert_eq!((bytes.len(), &bytes[99_999..]), (100_001, &b"ab"[..]));
    }
}
