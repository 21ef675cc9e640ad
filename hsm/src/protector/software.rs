//! A key in a plain file, in a lab. It protects nothing from whoever reads the disk, and everything says so.

use super::{Auths, Enrolled, Erased, PinChange, Protector, Unwrapped};
use crate::root::ROOT_BYTES;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use zixt_crypto::{AeadKey, aead, hash, labels};
use zixt_hsm_pkcs11::PinTry;
use zixt_hsm_protocol::{CustodyError, Pin, TokenInfo};
use zixt_types::ProtectorKind;

/// A file with a key. The PIN is mixed into the key; nothing slows down whoever guesses it.
pub struct SoftwareProtector {
    path: PathBuf,
    key: Mutex<Option<AeadKey>>,
}

impl SoftwareProtector {
    /// The protector whose key is, or will be, in a file.
    #[must_use]
    pub fn new(path: PathBuf) -> Self {
        Self { path, key: Mutex::default() }
    }

    fn key(&self) -> MutexGuard<'_, Option<AeadKey>> {
        self.key.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read(&self) -> Result<AeadKey, CustodyError> {
        let bytes = std::fs::read(&self.path).map(zeroize::Zeroizing::new).map_err(|error| {
            CustodyError::TokenAbsent { detail: format!("{}: {error}", self.path.display()) }
        })?;
        AeadKey::from_slice(&bytes).map_err(|error| failed(&error))
    }
}

impl Protector for SoftwareProtector {
    fn name(&self) -> &str {
        "software"
    }

    fn kind(&self) -> ProtectorKind {
        ProtectorKind::Software
    }

    fn describe(&self) -> Result<TokenInfo, CustodyError> {
        Ok(TokenInfo {
            label: "software".to_owned(),
            serial: String::new(),
            model: "a key in a file".to_owned(),
            software: true,
        })
    }

    fn is_open(&self) -> bool {
        self.key().is_some()
    }

    fn open(&self, enrolment: Option<&[u8]>, pin: &Pin, _: PinTry) -> Result<(), CustodyError> {
        if enrolment.is_none() && !self.path.exists() {
            let key = AeadKey::generate().map_err(|error| failed(&error))?;
            let write = || {
                let mut file =
                    OpenOptions::new().write(true).create_new(true).mode(0o600).open(&self.path)?;
                file.write_all(key.as_bytes())?;
                file.sync_all()
            };
            write().map_err(|error| CustodyError::Storage { detail: error.to_string() })?;
        }
        let key = self.read()?;
        let mixed =
            hash::derive_key(b"", key.as_bytes(), labels::CUSTODY_SOFTWARE, &[pin.expose().as_bytes()]);
        *self.key() = Some(mixed);
        Ok(())
    }

    fn close(&self) {
        *self.key() = None;
    }

    fn enrol(&self, _: Option<&[u8]>) -> Result<Enrolled, CustodyError> {
        match &*self.key() {
            Some(_) => {
                Ok(Enrolled { enrolment: Vec::new(), anchor: None, authorisation: None, counter_auth: None })
            }
            None => Err(CustodyError::TokenLocked),
        }
    }

    fn wrap(&self, _: &[u8], aad: &[u8], root: &[u8; ROOT_BYTES]) -> Result<Vec<u8>, CustodyError> {
        let key = self.key();
        let key = key.as_ref().ok_or(CustodyError::TokenLocked)?;
        aead::seal(key, aad, root).map_err(|error| failed(&error))
    }

    fn unwrap(&self, _: &[u8], aad: &[u8], wrapped: &[u8]) -> Result<Unwrapped, CustodyError> {
        let key = self.key();
        let key = key.as_ref().ok_or(CustodyError::TokenLocked)?;
        // Nothing else tells a wrong PIN, and in a lab it is the usual cause.
        aead::open(key, aad, wrapped).map_err(|_| CustodyError::PinIncorrect)
    }

    fn anchor(&self, _: &[u8], _: Option<&[u8]>) -> Result<Option<u64>, CustodyError> {
        Ok(None)
    }

    fn advance(&self, _: &[u8], _: Option<&[u8]>, _: u64) -> Result<(), CustodyError> {
        Ok(())
    }

    fn erase(&self, _: &[u8], _: Auths<'_>) -> Result<Erased, CustodyError> {
        match std::fs::remove_file(&self.path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(failed(&error)),
            _ => {}
        }
        Ok(Erased::Kept("a file was removed; its blocks may still be on the disk".to_owned()))
    }

    fn change_pin(&self, _: &[u8], old: &Pin, new: &Pin) -> Result<PinChange, CustodyError> {
        self.open(Some(&[]), old, PinTry::Attended)?;
        self.open(Some(&[]), new, PinTry::Attended)?;
        Ok(PinChange::Enrolment(Vec::new()))
    }
}

fn failed(error: &impl std::fmt::Display) -> CustodyError {
    CustodyError::TokenFailed { detail: error.to_string() }
}
