//! The states of custody. Keys exist only inside `Operational`, so code in another state has nothing to leak.

mod backoff;
mod folder;
mod keys;
mod record;
mod tls_content;

pub use backoff::PinTries;
pub use folder::{DiskFolder, Folder};
pub use keys::Keys;
pub use record::{CustodyRecord, Pinned};
pub use tls_content::ServerCertificateVerify;

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
    Unprovisioned(Option<Sealed>),
    /// Keys are wrapped.
    Locked(Sealed),
    /// Signs.
    Operational(Box<Keys>),
    /// Keys or votes are not what they were: officers have to decide.
    Quarantined(String),
    /// Does not work.
    Failed(String),
}

/// Everything that is known without the token. The votes are not: the key that tells true ones from forged ones is
/// wrapped like the others.
pub struct Sealed {
    /// The state file.
    pub record: CustodyRecord,
}

impl Custody {
    /// What the folder holds after a start.
    ///
    /// # Errors
    /// The system's error.
    pub fn read(folder: &DiskFolder) -> io::Result<Self> {
        let Some(bytes) = folder.read(STATE_FILE, CustodyRecord::BYTES_MAX)? else {
            return Ok(match votes_without_keys(folder) {
                true => Self::Quarantined(format!(
                    "{STATE_FILE} is missing, but {VOTES_FILE} shows that its consensus key has voted"
                )),
                false => Self::Unprovisioned(None),
            });
        };
        let record = match CustodyRecord::parse(&bytes) {
            Ok(record) => record,
            Err(error) => {
                return Ok(Self::Failed(format!(
                    "{} is damaged: {error}",
                    folder.path(STATE_FILE).display()
                )));
            }
        };
        // Whether the votes are whole is found out when their key is there; that they are missing, now.
        if !folder.path(VOTES_FILE).try_exists()? {
            return Ok(Self::Quarantined(format!(
                "{VOTES_FILE} is missing: votes that were released may be forgotten"
            )));
        }
        let bound = record.pinned.is_some();
        let sealed = Sealed { record };
        Ok(if bound { Self::Locked(sealed) } else { Self::Unprovisioned(Some(sealed)) })
    }

    /// The state's name.
    #[must_use]
    pub const fn kind(&self) -> StateKind {
        match self {
            Self::Unprovisioned(_) => StateKind::Unprovisioned,
            Self::Locked(_) => StateKind::Locked,
            Self::Operational(_) => StateKind::Operational,
            Self::Quarantined(_) => StateKind::Quarantined,
            Self::Failed(_) => StateKind::Failed,
        }
    }

    /// What is known without the token, where there is something.
    #[must_use]
    pub const fn sealed(&self) -> Option<&Sealed> {
        match self {
            Self::Unprovisioned(Some(sealed)) | Self::Locked(sealed) => Some(sealed),
            Self::Operational(keys) => Some(keys.sealed()),
            Self::Unprovisioned(None) | Self::Quarantined(_) | Self::Failed(_) => None,
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
            Self::Quarantined(reason) => Err(CustodyError::Quarantined { reason: reason.clone() }),
            Self::Failed(reason) => Err(CustodyError::Failed { reason: reason.clone() }),
        }
    }
}

/// Stores new keys: first the guard, so that there are never keys without one.
///
/// # Errors
/// The system's error.
pub fn store_new(
    folder: &DiskFolder,
    record: CustodyRecord,
    guard_key: &GuardKey,
) -> Result<Sealed, CustodyError> {
    let storage = |error: io::Error| CustodyError::Storage { detail: error.to_string() };
    folder.replace(VOTES_FILE, &vote_guard::empty_file(guard_key)).map_err(storage)?;
    // The point of no return: from here on the appliance has these keys.
    folder.replace(STATE_FILE, &record.to_bytes()).map_err(storage)?;
    Ok(Sealed { record })
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

fn open_guard(
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
