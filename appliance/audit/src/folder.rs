//! The folder under the journal. Tests inject crashes, full disks and faults through the same traits.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What the journal asks of a folder. Every change is durable when the method returns.
pub trait Folder: Send + Sync {
    /// The names of all files, in any order.
    ///
    /// # Errors
    /// What the operating system says.
    fn list(&self) -> io::Result<Vec<String>>;

    /// Opens a file.
    ///
    /// # Errors
    /// What the operating system says.
    fn open(&self, name: &str) -> io::Result<Arc<dyn Handle>>;

    /// Makes a file of `bytes` zeros whose blocks are allocated. It appears whole or not at all; one of that name is
    /// replaced.
    ///
    /// # Errors
    /// What the operating system says; [`io::ErrorKind::StorageFull`] if there is no room.
    fn create(&self, name: &str, bytes: u64) -> io::Result<Arc<dyn Handle>>;

    /// Renames a file.
    ///
    /// # Errors
    /// What the operating system says.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Removes a file.
    ///
    /// # Errors
    /// What the operating system says.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// Replaces a small file, or makes it: it holds the old content or the new one, never a part.
    ///
    /// # Errors
    /// What the operating system says.
    fn replace(&self, name: &str, content: &[u8]) -> io::Result<()>;
}

/// What the journal asks of a file.
pub trait Handle: Send + Sync {
    /// Its length.
    ///
    /// # Errors
    /// What the operating system says.
    fn length(&self) -> io::Result<u64>;

    /// Reads some bytes at `offset`; 0 at the end of the file.
    ///
    /// # Errors
    /// What the operating system says.
    fn read_at(&self, offset: u64, bytes: &mut [u8]) -> io::Result<usize>;

    /// Writes some of `bytes` at `offset` and says how many. They need not be durable.
    ///
    /// # Errors
    /// What the operating system says.
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<usize>;

    /// Returns when everything that was written before is durable (fdatasync).
    ///
    /// # Errors
    /// What the operating system says. The journal acknowledges nothing any more after that: nobody knows what is on
    /// the disk then, and a second fdatasync may report success wrongly.
    fn sync(&self) -> io::Result<()>;
}

/// Writes all of `bytes`, however short the writes are.
pub(crate) fn write_all_at(file: &dyn Handle, mut offset: u64, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match file.write_at(offset, bytes) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => {
                bytes = bytes.get(written..).ok_or(io::ErrorKind::InvalidData)?;
                offset += written as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Reads until `bytes` is full or the file ends; says how many it read.
pub(crate) fn read_up_to(file: &dyn Handle, offset: u64, bytes: &mut [u8]) -> io::Result<usize> {
    let mut done = 0;
    while let Some(rest) = bytes.get_mut(done..).filter(|rest| !rest.is_empty()) {
        match file.read_at(offset + done as u64, rest) {
            Ok(0) => break,
            Ok(read) => done += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(done)
}

/// The content of a small file; `None` if there is none of that name.
pub(crate) fn read_small(folder: &dyn Folder, name: &str, bytes_max: usize) -> io::Result<Option<Vec<u8>>> {
    let file = match folder.open(name) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    // One byte more than allowed, so that a longer file is not taken for its beginning.
    let mut bytes = vec![0; bytes_max + 1];
    let read = read_up_to(&*file, 0, &mut bytes)?;
    bytes.truncate(read);
    Ok(Some(bytes))
}

/// What a file is called until it is whole. Such files are of a crash and are removed at the next start.
pub(crate) const UNFINISHED: &str = ".unfinished";

/// A folder of a file system. It is locked while it is open: two writers would break the chain.
#[derive(Debug)]
pub struct DiskFolder {
    path: PathBuf,
    _lock: File,
}

impl DiskFolder {
    /// Opens the folder, or makes it (mode 0700).
    ///
    /// # Errors
    /// What the operating system says; [`io::ErrorKind::WouldBlock`] if another process has it open.
    pub fn open(path: &Path) -> io::Result<Self> {
        match DirBuilder::new().mode(0o700).create(path) {
            Ok(()) => sync_folder(path.parent().filter(|folder| !folder.as_os_str().is_empty()))?,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
        let lock = options().create(true).truncate(false).open(path.join("lock"))?;
        lock.try_lock().map_err(io::Error::from)?;
        Ok(Self { path: path.to_owned(), _lock: lock })
    }

    fn finish(&self, unfinished: &Path, name: &str, file: &File) -> io::Result<()> {
        file.sync_all()?;
        std::fs::rename(unfinished, self.path.join(name))?;
        sync_folder(Some(&self.path))
    }

    fn begin(&self, name: &str) -> io::Result<(PathBuf, File)> {
        let unfinished = self.path.join(format!("{name}{UNFINISHED}"));
        let file = options().create(true).truncate(true).open(&unfinished)?;
        Ok((unfinished, file))
    }
}

fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true).mode(0o600);
    options
}

fn sync_folder(folder: Option<&Path>) -> io::Result<()> {
    File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
}

fn write_zeros(mut file: &File, bytes: u64) -> io::Result<()> {
    let zeros = [0; 64 * 1024];
    let mut left = bytes;
    while left > 0 {
        let part = usize::try_from(left).map_or(zeros.len(), |left| left.min(zeros.len()));
        file.write_all(&zeros[..part])?;
        left -= part as u64;
    }
    Ok(())
}

impl Folder for DiskFolder {
    fn list(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(&self.path)? {
            // A name that is no UTF-8 is none of ours.
            names.extend(entry?.file_name().into_string());
        }
        Ok(names)
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn Handle>> {
        Ok(Arc::new(DiskHandle(options().open(self.path.join(name))?)))
    }

    fn create(&self, name: &str, bytes: u64) -> io::Result<Arc<dyn Handle>> {
        let (unfinished, file) = self.begin(name)?;
        // Zeros and not fallocate: written blocks need no change of metadata later, which makes fdatasync cheaper.
        let made = write_zeros(&file, bytes).and_then(|()| self.finish(&unfinished, name, &file));
        if let Err(error) = made {
            // What was taken from a full disk is given back at once.
            let _ = std::fs::remove_file(&unfinished);
            return Err(error);
        }
        Ok(Arc::new(DiskHandle(file)))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        std::fs::rename(self.path.join(from), self.path.join(to))?;
        sync_folder(Some(&self.path))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        std::fs::remove_file(self.path.join(name))?;
        sync_folder(Some(&self.path))
    }

    fn replace(&self, name: &str, content: &[u8]) -> io::Result<()> {
        let (unfinished, mut file) = self.begin(name)?;
        let made = file.write_all(content).and_then(|()| self.finish(&unfinished, name, &file));
        if made.is_err() {
            let _ = std::fs::remove_file(&unfinished);
        }
        made
    }
}

#[derive(Debug)]
struct DiskHandle(File);

impl Handle for DiskHandle {
    fn length(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn read_at(&self, offset: u64, bytes: &mut [u8]) -> io::Result<usize> {
        FileExt::read_at(&self.0, bytes, offset)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<usize> {
        FileExt::write_at(&self.0, bytes, offset)
    }

    fn sync(&self) -> io::Result<()> {
        self.0.sync_data()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_of_the_disk_does_what_it_says() {
        let temporary = tempfile::tempdir().unwrap();
        let path = temporary.path().join("audit");
        let folder = DiskFolder::open(&path).unwrap();
        assert_eq!(DiskFolder::open(&path).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        let file = folder.create("a", 100_000).unwrap();
        write_all_at(&*file, 99_999, b"x").unwrap();
        file.sync().unwrap();
        folder.rename("a", "b").unwrap();
        let file = folder.open("b").unwrap();
        assert_eq!(file.length().unwrap(), 100_000);
        let mut bytes = [9; 4];
        assert_eq!(read_up_to(&*file, 99_998, &mut bytes).unwrap(), 2);
        assert_eq!(bytes, [0, b'x', 9, 9]);
        folder.replace("c", b"old").unwrap();
        folder.replace("c", b"new").unwrap();
        assert_eq!(read_small(&folder, "c", 3).unwrap().unwrap(), b"new");
        assert_eq!(read_small(&folder, "c", 2).unwrap().unwrap().len(), 3);
        folder.remove("b").unwrap();
        assert!(read_small(&folder, "b", 3).unwrap().is_none());
        let mut names = folder.list().unwrap();
        names.sort();
        assert_eq!(names, ["c", "lock"]);
        drop(folder);
        assert!(DiskFolder::open(&path).is_ok());
    }
}
