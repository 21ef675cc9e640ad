//! The states of custody. Keys exist only inside `Operational`, so code in another state has nothing to leak.

mod backoff;
mod folder;
mod keys;
mod record;
mod tls_content;

pub use backoff::PinTries;
#[cfg(test)]
pub(crate) use folder::testing as faults;
pub use folder::{DiskFolder, Folder};
pub use keys::Keys;
pub(crate) use record::root_aad;
pub use record::{CustodyRecord, EnrolledProtector, Pinned, Unpacking, mode, protector_id};
pub use tls_content::ServerCertificateVerify;

use crate::root::Root;
use crate::vote_guard::{self, DiskFile, GuardKey, OpenError, Quorum, VoteGuard};
use std::fs::{File, OpenOptions};
use std::io;
use zixt_hsm_protocol::{CustodyError, StateKind};
use zixt_types::Canonical;

/// The file of wrapped keys.
pub const STATE_FILE: &str = "custody.cbor";
/// The file of the double-sign guard.
pub const VOTES_FILE: &str = "votes";
/// The file that only one daemon can lock.
const LOCK_FILE: &str = "lock";

/// The state of custody.
pub enum Custody {
    /// No keys, or keys whose network is not known yet.
    Unprovisioned(Held),
    /// Keys are wrapped.
    Locked(Box<CustodyRecord>),
    /// Signs.
    Operational(Box<Keys>),
    /// Keys or votes are not what they were: officers have to decide. What is held can be opened for that, but signs
    /// nothing.
    Quarantined(String, Held),
    /// Does not work.
    Failed(String),
}

/// What there is of the keys where they are not in use.
pub enum Held {
    /// Nothing.
    Nothing,
    /// The state file.
    Sealed(Box<CustodyRecord>),
    /// The state file and the root that it is sealed by.
    Open(Box<Open>),
}

/// A state that was authenticated, and its root.
pub struct Open {
    /// The state file.
    pub record: CustodyRecord,
    /// The root.
    pub root: Root,
}

impl Held {
    /// The state file, if there is one.
    #[must_use]
    pub fn record(&self) -> Option<&CustodyRecord> {
        match self {
            Self::Nothing => None,
            Self::Sealed(record) => Some(record),
            Self::Open(open) => Some(&open.record),
        }
    }

    /// The same without the root.
    #[must_use]
    pub fn seal(self) -> Self {
        match self {
            Self::Open(open) => Self::Sealed(Box::new(open.record)),
            held => held,
        }
    }
}

impl Custody {
    /// What the folder holds after a start.
    ///
    /// # Errors
    /// The system's error.
    pub fn read(folder: &DiskFolder) -> io::Result<Self> {
        let Some(bytes) = folder.read(STATE_FILE, CustodyRecord::BYTES_MAX)? else {
            return Ok(match votes_without_keys(folder) {
                true => Self::Quarantined(
                    format!(
                        "{STATE_FILE} is missing, but {VOTES_FILE} shows that its consensus key has voted"
                    ),
                    Held::Nothing,
                ),
                false => Self::Unprovisioned(Held::Nothing),
            });
        };
        let record = match CustodyRecord::parse(&bytes) {
            Ok(record) => Box::new(record),
            Err(error) => {
                return Ok(Self::Failed(format!(
                    "{} is damaged: {error}",
                    folder.path(STATE_FILE).display()
                )));
            }
        };
        if let Some(reason) = &record.quarantine {
            return Ok(Self::Quarantined(reason.clone(), Held::Sealed(record)));
        }
        // Whether the votes are whole is found out when their key is there; that they are missing, now.
        if !folder.path(VOTES_FILE).try_exists()? {
            return Ok(Self::Quarantined(
                format!("{VOTES_FILE} is missing: votes that were released may be forgotten"),
                Held::Sealed(record),
            ));
        }
        Ok(if record.is_complete() {
            Self::Locked(record)
        } else {
            Self::Unprovisioned(Held::Sealed(record))
        })
    }

    /// The state's name.
    #[must_use]
    pub const fn kind(&self) -> StateKind {
        match self {
            Self::Unprovisioned(_) => StateKind::Unprovisioned,
            Self::Locked(_) => StateKind::Locked,
            Self::Operational(_) => StateKind::Operational,
            Self::Quarantined(..) => StateKind::Quarantined,
            Self::Failed(_) => StateKind::Failed,
        }
    }

    /// What is known without the root, where there is something. Authenticated only where the root is open.
    #[must_use]
    pub fn record(&self) -> Option<&CustodyRecord> {
        match self {
            Self::Unprovisioned(held) | Self::Quarantined(_, held) => held.record(),
            Self::Locked(record) => Some(record),
            Self::Operational(keys) => Some(&keys.open().record),
            Self::Failed(_) => None,
        }
    }

    /// The keys, or why there are none.
    ///
    /// # Errors
    /// `Unprovisioned`, `Locked`, `Quarantined`, `Failed`.
    pub fn keys(&self) -> Result<&Keys, CustodyError> {
        match self {
            Self::Operational(keys) => Ok(keys),
            Self::Unprovisioned(_) => Err(CustodyError::Unprovisioned),
            Self::Locked(_) => Err(CustodyError::Locked),
            Self::Quarantined(reason, _) => Err(CustodyError::Quarantined { reason: reason.clone() }),
            Self::Failed(reason) => Err(CustodyError::Failed { reason: reason.clone() }),
        }
    }

    /// The open state, wherever it is open.
    ///
    /// # Errors
    /// `Unprovisioned`, `Locked`, `Quarantined` (it has to be unlocked first), `Failed`.
    pub fn open(&self) -> Result<&Open, CustodyError> {
        match self {
            Self::Operational(keys) => Ok(keys.open()),
            Self::Unprovisioned(Held::Open(open)) | Self::Quarantined(_, Held::Open(open)) => Ok(open),
            Self::Unprovisioned(Held::Sealed(_)) => Err(CustodyError::Locked),
            other => other.keys().map(Keys::open),
        }
    }

    /// As [`Self::open`], to change it.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_mut(&mut self) -> Result<&mut Open, CustodyError> {
        self.open()?;
        match self {
            Self::Operational(keys) => Ok(keys.open_mut()),
            Self::Unprovisioned(Held::Open(open)) | Self::Quarantined(_, Held::Open(open)) => Ok(open),
            _ => Err(CustodyError::Locked),
        }
    }
}

/// Writes an empty guard, which has to be there before the keys, so that there are never keys without one.
///
/// # Errors
/// `Storage`.
pub fn store_guard(folder: &DiskFolder, guard_key: &GuardKey) -> Result<(), CustodyError> {
    folder.replace(VOTES_FILE, &vote_guard::empty_file(guard_key)).map_err(|error| storage(&error))
}

/// The error of a file that could not be written.
pub(crate) fn storage(error: &io::Error) -> CustodyError {
    CustodyError::Storage { detail: error.to_string() }
}

/// Holds the folder against a second daemon, for as long as the value lives.
#[derive(Debug)]
pub struct FolderLock {
    _file: nix::fcntl::Flock<File>,
}

impl FolderLock {
    /// Locks the folder; `None` if another process holds it.
    ///
    /// # Errors
    /// The system's error.
    pub fn take(folder: &DiskFolder) -> io::Result<Option<Self>> {
        let file =
            OpenOptions::new().create(true).truncate(false).write(true).open(folder.path(LOCK_FILE))?;
        match nix::fcntl::Flock::lock(file, nix::fcntl::FlockArg::LockExclusiveNonblock) {
            Ok(file) => Ok(Some(Self { _file: file })),
            Err((_, nix::errno::Errno::EWOULDBLOCK)) => Ok(None),
            Err((_, error)) => Err(error.into()),
        }
    }
}

pub(crate) fn open_guard(
    folder: &DiskFolder,
    key: GuardKey,
    quorum: Quorum,
) -> Result<VoteGuard<DiskFile>, CustodyError> {
    let file = OpenOptions::new().read(true).write(true).open(folder.path(VOTES_FILE));
    let opened = file.map_err(OpenError::Io).and_then(|file| VoteGuard::open(DiskFile(file), key, quorum));
    opened.map_err(|error| match error {
        // The system says that it cannot read or write the file: nobody knows yet whether votes are missing.
        OpenError::Io(source) if source.kind() != io::ErrorKind::NotFound => CustodyError::Failed {
            reason: format!("{} cannot be used: {source}", folder.path(VOTES_FILE).display()),
        },
        OpenError::Io(source) => CustodyError::Quarantined { reason: format!("{VOTES_FILE}: {source}") },
        error => CustodyError::Quarantined { reason: error.to_string() },
    })
}

/// Provisioning writes an empty guard before the keys; one that holds anything has outlived its keys.
fn votes_without_keys(folder: &DiskFolder) -> bool {
    match folder.read(VOTES_FILE, usize::try_from(vote_guard::FILE_BYTES).unwrap_or(usize::MAX)) {
        Ok(None) => false,
        Ok(Some(bytes)) => bytes.iter().skip(vote_guard::HEADER_BYTES).any(|byte| *byte != 0),
        Err(_) => true,
    }
}
