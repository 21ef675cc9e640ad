//! The few file operations of the guard, as a trait so that tests can tear, lose and refuse writes.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

/// A preallocated file.
pub trait GuardFile: Send {
    /// Fills `bytes` from `offset`.
    ///
    /// # Errors
    /// The system's error; an end of file too early is one.
    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()>;

    /// Writes all `bytes` at `offset`. Durable only after [`GuardFile::sync`].
    ///
    /// # Errors
    /// The system's error.
    fn write_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()>;

    /// Makes all writes durable.
    ///
    /// # Errors
    /// The system's error; what is on the disk is unknown then.
    fn sync(&mut self) -> io::Result<()>;
}

/// A file of the system.
#[derive(Debug)]
pub struct DiskFile(pub File);

impl GuardFile for DiskFile {
    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        self.0.read_exact_at(bytes, offset)
    }

    fn write_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.0.write_all_at(bytes, offset)
    }

    fn sync(&mut self) -> io::Result<()> {
        // The length never changes, so the data is all there is to sync.
        self.0.sync_data()
    }
}
