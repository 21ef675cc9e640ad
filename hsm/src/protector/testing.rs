//! A protector in memory, for tests of what stands above it.

use super::{Enrolled, Erased, PinChange, Protector, Unwrapped};
use crate::root::ROOT_BYTES;
use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use zixt_crypto::{AeadKey, aead};
use zixt_hsm_pkcs11::PinTry;
use zixt_hsm_protocol::{CustodyError, Pin, TokenInfo};
use zixt_types::ProtectorKind;

/// The PIN of every test token.
pub(crate) const PIN: &str = "123456";

pub(crate) struct TestProtector {
    name: String,
    keks: Mutex<HashMap<Vec<u8>, AeadKey>>,
    open: AtomicBool,
    /// What it has as an anchor.
    pub(crate) counter: AtomicU64,
    /// The anchor cannot be advanced.
    pub(crate) stuck: AtomicBool,
    /// It was pulled out.
    pub(crate) gone: AtomicBool,
    /// It does not tell its counter.
    pub(crate) mute: AtomicBool,
    pub(crate) serial: Mutex<String>,
}

impl TestProtector {
    pub(crate) fn named(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            keks: Mutex::default(),
            open: AtomicBool::new(false),
            counter: AtomicU64::new(100),
            stuck: AtomicBool::new(false),
            gone: AtomicBool::new(false),
            mute: AtomicBool::new(false),
            serial: Mutex::new("1".to_owned()),
        }
    }

    pub(crate) fn open_one() -> Self {
        let protector = Self::named("test");
        protector.open.store(true, Ordering::Relaxed);
        protector
    }

    fn with<T>(&self, kek: &[u8], run: impl FnOnce(&AeadKey) -> T) -> Result<T, CustodyError> {
        if !self.is_open() {
            return Err(CustodyError::TokenLocked);
        }
        let keks = self.keks.lock().unwrap();
        let key = keks.get(kek).ok_or(CustodyError::KekMissing { kek: String::new() })?;
        Ok(run(key))
    }
}

impl Protector for TestProtector {
    fn name(&self) -> &str {
        &self.name
    }

    fn kind(&self) -> ProtectorKind {
        ProtectorKind::Pkcs11
    }

    fn describe(&self) -> Result<TokenInfo, CustodyError> {
        if self.gone.load(Ordering::Relaxed) {
            return Err(CustodyError::TokenAbsent { detail: self.name.clone() });
        }
        let (serial, model) = (self.serial.lock().unwrap().clone(), "memory".to_owned());
        Ok(TokenInfo { label: self.name.clone(), serial, model, software: true })
    }

    fn is_open(&self) -> bool {
        self.open.load(Ordering::Relaxed)
    }

    fn open(&self, _: Option<&[u8]>, pin: &Pin, _: PinTry) -> Result<(), CustodyError> {
        if pin.expose() != PIN {
            return Err(CustodyError::PinIncorrect);
        }
        self.open.store(true, Ordering::Relaxed);
        Ok(())
    }

    fn close(&self) {
        self.open.store(false, Ordering::Relaxed);
    }

    fn enrol(&self, _: Option<&[u8]>) -> Result<Enrolled, CustodyError> {
        let mut keks = self.keks.lock().unwrap();
        let enrolment = vec![u8::try_from(keks.len()).unwrap(); 4];
        keks.insert(enrolment.clone(), AeadKey::generate().unwrap());
        Ok(Enrolled { enrolment, anchor: Some(self.counter.load(Ordering::Relaxed)), authorisation: None })
    }

    fn wrap(&self, enrolment: &[u8], aad: &[u8], root: &[u8; ROOT_BYTES]) -> Result<Vec<u8>, CustodyError> {
        self.with(enrolment, |key| aead::seal(key, aad, root).unwrap())
    }

    fn unwrap(&self, enrolment: &[u8], aad: &[u8], wrapped: &[u8]) -> Result<Unwrapped, CustodyError> {
        self.with(enrolment, |key| aead::open(key, aad, wrapped))?.map_err(|_| CustodyError::UnsealFailed)
    }

    fn anchor(&self, _: &[u8]) -> Result<Option<u64>, CustodyError> {
        self.describe()?;
        if self.mute.load(Ordering::Relaxed) {
            return Err(CustodyError::TokenFailed { detail: "mute".to_owned() });
        }
        Ok(Some(self.counter.load(Ordering::Relaxed)))
    }

    fn advance(&self, _: &[u8], to: u64) -> Result<(), CustodyError> {
        if self.stuck.load(Ordering::Relaxed) {
            return Err(CustodyError::TokenFailed { detail: "stuck".to_owned() });
        }
        assert_eq!(self.counter.fetch_add(1, Ordering::Relaxed) + 1, to);
        Ok(())
    }

    fn erase(&self, enrolment: &[u8], _: Option<&[u8]>) -> Result<Erased, CustodyError> {
        self.keks.lock().unwrap().remove(enrolment);
        Ok(Erased::Destroyed)
    }

    fn change_pin(&self, _: &[u8], _: &Pin, _: &Pin) -> Result<PinChange, CustodyError> {
        Ok(PinChange::Done)
    }
}
