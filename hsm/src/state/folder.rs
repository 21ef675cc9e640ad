//! The state folder: files that are replaced as a whole, or not at all.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

/// The steps of replacing a file, as a trait so that a test can stop between any two.
pub trait Folder {
    /// A file's bytes, `None` if there is no such file.
    ///
    /// # Errors
    /// The system's error; more than `max` bytes is one.
    fn read(&self, name: &str, max: usize) -> io::Result<Option<Vec<u8>>>;
    /// Creates or truncates a file.
    ///
    /// # Errors
    /// The system's error.
    fn write(&self, name: &str, bytes: &[u8]) -> io::Result<()>;
    /// Makes a file's bytes durable.
    ///
    /// # Errors
    /// The system's error.
    fn sync(&self, name: &str) -> io::Result<()>;
    /// Gives a file another name, replacing what had it.
    ///
    /// # Errors
    /// The system's error.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// Makes names durable.
    ///
    /// # Errors
    /// The system's error.
    fn sync_names(&self) -> io::Result<()>;

    /// Replaces a file durably. After a crash at any point it holds either the old or the new bytes.
    ///
    /// # Errors
    /// The system's error; the old bytes may still be there, or already the new ones.
    fn replace(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let new = format!("{name}.new");
        self.write(&new, bytes)?;
        self.sync(&new)?;
        self.rename(&new, name)?;
        self.sync_names()
    }
}

/// A folder of the system.
#[derive(Debug, Clone)]
pub struct DiskFolder(pub PathBuf);

impl DiskFolder {
    /// Where a file is.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl AsRef<Path> for DiskFolder {
    fn as_ref(&self) -> &Path {
        &self.0
    }
}

impl Folder for DiskFolder {
    fn read(&self, name: &str, max: usize) -> io::Result<Option<Vec<u8>>> {
        let path = self.path(name);
        match fs::metadata(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
            Ok(file) if file.len() > max as u64 => {
                return Err(io::Error::new(
                    io::ErrorKind::FileTooLarge,
                    "the file is longer than its format",
                ));
            }
            Ok(_) => {}
        }
        fs::read(path).map(Some)
    }

    fn write(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        #[cfg(test)]
        testing::step()?;
        let mut file =
            OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(self.path(name))?;
        file.write_all(bytes)
    }

    fn sync(&self, name: &str) -> io::Result<()> {
        #[cfg(test)]
        testing::step()?;
        File::open(self.path(name))?.sync_all()
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        #[cfg(test)]
        testing::step()?;
        fs::rename(self.path(from), self.path(to))
    }

    fn sync_names(&self) -> io::Result<()> {
        #[cfg(test)]
        testing::step()?;
        File::open(&self.0)?.sync_all()
    }
}

#[cfg(test)]
pub(crate) mod testing {
    use super::*;
    use std::cell::RefCell;
    use std::collections::BTreeMap;

    thread_local! {
        /// Steps of this thread's folders on disk until the process is killed.
        static FAILS_IN: std::cell::Cell<Option<u32>> = const { std::cell::Cell::new(None) };
    }

    /// From a number of steps on, every step of this thread's folders on disk fails: as if the process had been killed.
    pub(crate) fn fail_in(steps: u32) {
        FAILS_IN.set(Some(steps));
    }

    /// Lets steps succeed again, and says whether one had failed.
    pub(crate) fn recover() -> bool {
        FAILS_IN.take() == Some(0)
    }

    pub(crate) fn step() -> io::Result<()> {
        match FAILS_IN.get() {
            Some(0) => Err(io::Error::other("the process was killed")),
            Some(steps) => {
                FAILS_IN.set(Some(steps - 1));
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// A folder in memory whose power fails before a given operation.
    #[derive(Default)]
    pub(crate) struct TestFolder {
        inner: RefCell<Inner>,
    }

    #[derive(Default, Clone)]
    struct Inner {
        /// Name to file number: as seen now, and as on the disk.
        names: BTreeMap<String, usize>,
        durable_names: BTreeMap<String, usize>,
        /// File number to bytes: as seen now, and as on the disk.
        files: Vec<Vec<u8>>,
        durable_files: Vec<Vec<u8>>,
        fails_in: Option<u32>,
    }

    impl TestFolder {
        pub(crate) fn fail_in(&self, operations: u32) {
            self.inner.borrow_mut().fails_in = Some(operations);
        }

        /// The power comes back. What was not synced is lost, or, where `lucky`, was written all the same.
        pub(crate) fn restart(&self, lucky: bool) {
            let inner = &mut *self.inner.borrow_mut();
            inner.fails_in = None;
            if lucky {
                inner.durable_names = inner.names.clone();
            }
            inner.names = inner.durable_names.clone();
            inner.files = inner.durable_files.clone();
        }

        fn step(&self) -> io::Result<()> {
            match &mut self.inner.borrow_mut().fails_in {
                Some(0) => Err(io::Error::other("the power failed")),
                Some(n) => {
                    *n -= 1;
                    Ok(())
                }
                None => Ok(()),
            }
        }
    }

    impl Folder for TestFolder {
        fn read(&self, name: &str, _: usize) -> io::Result<Option<Vec<u8>>> {
            let inner = self.inner.borrow();
            Ok(inner.names.get(name).map(|file| inner.files[*file].clone()))
        }

        fn write(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
            self.step()?;
            let inner = &mut *self.inner.borrow_mut();
            inner.files.push(bytes.to_vec());
            inner.durable_files.push(bytes[..bytes.len() / 2].to_vec());
            inner.names.insert(name.to_owned(), inner.files.len() - 1);
            Ok(())
        }

        fn sync(&self, name: &str) -> io::Result<()> {
            self.step()?;
            let inner = &mut *self.inner.borrow_mut();
            let file = inner.names[name];
            inner.durable_files[file] = inner.files[file].clone();
            Ok(())
        }

        fn rename(&self, from: &str, to: &str) -> io::Result<()> {
            self.step()?;
            let inner = &mut *self.inner.borrow_mut();
            let file = inner.names.remove(from).unwrap();
            inner.names.insert(to.to_owned(), file);
            Ok(())
        }

        fn sync_names(&self) -> io::Result<()> {
            self.step()?;
            let inner = &mut *self.inner.borrow_mut();
            inner.durable_names = inner.names.clone();
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::testing::TestFolder;
    use super::*;

    #[test]
    fn a_crash_between_any_two_steps_leaves_the_old_or_the_new_file() {
        for fails_in in 0..=4 {
            for lucky in [false, true] {
                let folder = TestFolder::default();
                folder.replace("state", b"the old state").unwrap();
                folder.fail_in(fails_in);
                let replaced = folder.replace("state", b"the new state");
                assert_eq!(replaced.is_ok(), fails_in == 4, "there are four steps");
                folder.restart(lucky);
                let found = folder.read("state", 99).unwrap().unwrap();
                if replaced.is_ok() {
                    assert_eq!(found, b"the new state");
                } else {
                    assert!(found == b"the old state" || found == b"the new state", "{fails_in} {lucky}");
                }
            }
        }
    }

    #[test]
    fn the_disk_does_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let folder = DiskFolder(dir.path().to_owned());
        assert_eq!(folder.read("state", 99).unwrap(), None);
        folder.replace("state", b"one").unwrap();
        folder.replace("state", b"two").unwrap();
        assert_eq!(folder.read("state", 99).unwrap().unwrap(), b"two");
        assert!(folder.read("state", 2).is_err());
    }
}
