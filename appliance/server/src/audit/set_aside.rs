//! Damage in the journal, set aside by a person while the server does not run.

use super::FOLDER;
use crate::daemon::{DaemonError, Lock};
use crate::health::now;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use thiserror::Error;
use zixt_audit::folder::DiskFolder;
use zixt_audit::{OpenError, SetAside, Settings, When, limits};
use zixt_crypto::{RandomError, fill_random};

/// Why nothing was set aside.
#[derive(Debug, Error)]
pub enum SetAsideError {
    /// The server runs, or the state folder is none.
    #[error(transparent)]
    InUse(#[from] DaemonError),
    /// There is no journal.
    #[error("there is no audit journal at {}", .0.display())]
    Absent(PathBuf),
    /// The folder cannot be used.
    #[error("the audit journal's folder cannot be used")]
    Folder(#[source] io::Error),
    /// The journal's files cannot be read or changed.
    #[error("the damage cannot be set aside")]
    Journal(#[source] OpenError),
    /// No randomness.
    #[error(transparent)]
    Random(#[from] RandomError),
}

/// Only the wall clock: nobody has loaded the ledger.
struct WallClock(Instant);

impl zixt_audit::Clock for WallClock {
    fn now(&self) -> When {
        When { wall: now(), ledger: None }
    }

    fn monotonic(&self) -> Duration {
        self.0.elapsed()
    }
}

/// Sets what is damaged in the journal of a state folder aside: it stays under another name, and the journal goes on behind
/// it with a jump in its numbers. The next start records that. Does nothing to a journal that is whole.
///
/// # Errors
/// See [`SetAsideError`].
pub fn set_aside(state: &Path) -> Result<SetAside, SetAsideError> {
    let _lock = Lock::take(&state.join("server"))?;
    let path = state.join(FOLDER);
    if !path.is_dir() {
        return Err(SetAsideError::Absent(path));
    }
    let folder = DiskFolder::open(&path).map_err(SetAsideError::Folder)?;
    let mut random = [0; 32];
    fill_random(&mut random)?;
    let clock = Arc::new(WallClock(Instant::now()));
    let settings = Settings { segment_bytes: limits::SEGMENT_BYTES, random, clock };
    zixt_audit::set_aside(&folder, &settings).map_err(SetAsideError::Journal)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::testing::until;
    use std::os::unix::fs::FileExt as _;
    use zixt_audit::{Action, Actor, Event, Journal, Origin, Read, Sequence};

    fn settings() -> Settings {
        let clock = Arc::new(WallClock(Instant::now()));
        Settings { segment_bytes: limits::SEGMENT_BYTES_MIN, random: [1; 32], clock }
    }

    /// A process that another test starts holds our locks until it has become its program: those are waited for.
    fn set_aside_at_last(state: &Path) -> SetAside {
        until("the locks", || match set_aside(state) {
            Err(SetAsideError::InUse(_) | SetAsideError::Folder(_)) => None,
            done => Some(done.unwrap()),
        })
    }

    #[test]
    fn damage_is_set_aside_once_and_the_journal_goes_on() {
        let state = tempfile::tempdir().unwrap();
        std::fs::create_dir(state.path().join("server")).unwrap();
        assert!(matches!(set_aside(state.path()), Err(SetAsideError::Absent(_))));
        let path = state.path().join(FOLDER);
        let open = || {
            let folder = until("the journal's lock", || DiskFolder::open(&path).ok());
            Journal::open(Arc::new(folder), settings())
        };
        let (journal, _) = open().unwrap();
        for _ in 0..8 {
            let when = When { wall: now(), ledger: None };
            let event = Event::new(Action::SignIn, Actor::Nobody, Origin::Console, when);
            journal.append(&event, Duration::from_secs(60)).unwrap();
        }
        let before = journal.head().sequence;
        drop(journal);
        assert_eq!(set_aside_at_last(state.path()).goes_on_at, None, "a whole journal stays as it is");

        let segment = std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path());
        let segment = segment.filter(|path| path.file_name().unwrap() != "reserve").min().unwrap();
        let file = std::fs::File::options().read(true).write(true).open(&segment).unwrap();
        let length = file.metadata().unwrap().len();
        file.write_all_at(&vec![0xa5; usize::try_from(length / 8).unwrap()], 8192 + 600).unwrap();
        assert!(matches!(open(), Err(OpenError::Damaged(_))));

        // As long as the server works with the folder nothing is moved under it.
        let held = until("the server's lock", || Lock::take(&state.path().join("server")).ok());
        assert!(matches!(set_aside(state.path()), Err(SetAsideError::InUse(_))));
        drop(held);
        let done = set_aside_at_last(state.path());
        assert_eq!(done.kept_as.len(), 1, "{done:?}");
        assert!(path.join(&done.kept_as[0]).exists() && done.goes_on_at.unwrap() > before);
        let (journal, _) = open().unwrap();
        let when = When { wall: now(), ledger: None };
        let event = Event::new(Action::SignIn, Actor::Nobody, Origin::Console, when);
        let next = journal.append(&event, Duration::from_secs(60)).unwrap();
        assert!(next.sequence >= done.goes_on_at.unwrap());
        let mut reader = journal.reader(Sequence(1));
        let reads = std::iter::from_fn(|| reader.read_next().unwrap()).collect::<Vec<_>>();
        assert!(reads.iter().any(|read| matches!(read, Read::Gap(_))), "{reads:?}");
    }
}
