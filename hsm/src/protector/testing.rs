//! A protector in memory, for tests of what stands above it.

use super::{Auths, Enrolled, Erased, PinChange, Protector, Unwrapped};
use crate::root::ROOT_BYTES;
use crate::state::faults;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use zeroize::Zeroizing;
use zixt_crypto::{AeadKey, aead};
use zixt_hsm_pkcs11::PinTry;
use zixt_hsm_protocol::{CustodyError, Pin, TokenInfo};
use zixt_types::ProtectorKind;

/// The PIN of every test token.
pub(crate) const PIN: &str = "123456";

/// A hand on a device. Several of them are several programs that use one device; each has its own login.
pub(crate) struct TestProtector {
    name: String,
    software: bool,
    /// Its anchor is asked without a PIN, as a TPM's.
    counts_closed: bool,
    device: Arc<Device>,
    open: AtomicBool,
    /// The anchor cannot be advanced.
    pub(crate) stuck: AtomicBool,
    /// It was pulled out.
    pub(crate) gone: AtomicBool,
    /// How long it takes for its counter.
    pub(crate) slow_ms: AtomicU64,
    /// It does not tell its counter.
    pub(crate) mute: AtomicBool,
    pub(crate) serial: Mutex<String>,
}

/// What cannot be copied and set back.
struct Device {
    /// Wrapping keys by enrolment, and the PIN that each was made under: as a TPM, which seals to one.
    keks: Mutex<HashMap<Vec<u8>, (AeadKey, String)>>,
    /// Enrolments so far.
    made: AtomicU64,
    pin: Mutex<String>,
    /// What it has as an anchor.
    counter: AtomicU64,
}

impl TestProtector {
    pub(crate) fn named(name: &str) -> Self {
        let device = Device {
            keks: Mutex::default(),
            made: AtomicU64::new(0),
            pin: Mutex::new(PIN.to_owned()),
            counter: AtomicU64::new(100),
        };
        Self {
            name: name.to_owned(),
            software: true,
            counts_closed: false,
            device: Arc::new(device),
            open: AtomicBool::new(false),
            stuck: AtomicBool::new(false),
            gone: AtomicBool::new(false),
            mute: AtomicBool::new(false),
            slow_ms: AtomicU64::new(0),
            serial: Mutex::new("1".to_owned()),
        }
    }

    /// One that says that it is hardware.
    pub(crate) fn hardware(name: &str) -> Self {
        Self { software: false, ..Self::named(name) }
    }

    /// One whose counter is asked without its PIN, as a TPM's.
    pub(crate) fn counting(name: &str) -> Self {
        Self { counts_closed: true, ..Self::named(name) }
    }

    /// The same device, as another program has it.
    pub(crate) fn of_another_program(&self) -> Self {
        Self { device: Arc::clone(&self.device), ..self.like() }
    }

    /// Another device that holds the same: what a test begins with again and again.
    pub(crate) fn alike(&self) -> Self {
        let keks = self.device.keks.lock().unwrap();
        let keks = keks
            .iter()
            .map(|(id, (key, pin))| (id.clone(), (AeadKey::from_bytes(key.as_bytes()), pin.clone())));
        let device = Device {
            keks: Mutex::new(keks.collect()),
            made: AtomicU64::new(self.device.made.load(Ordering::Relaxed)),
            pin: Mutex::new(self.device.pin.lock().unwrap().clone()),
            counter: AtomicU64::new(self.counter()),
        };
        Self { device: Arc::new(device), ..self.like() }
    }

    /// One of the same kind and name.
    fn like(&self) -> Self {
        Self { software: self.software, counts_closed: self.counts_closed, ..Self::named(&self.name) }
    }

    pub(crate) fn open_one() -> Self {
        let protector = Self::named("test");
        protector.open.store(true, Ordering::Relaxed);
        protector
    }

    /// The PIN of an enrolment.
    pub(crate) fn pin_of(&self, enrolment: &[u8]) -> Option<String> {
        self.device.keks.lock().unwrap().get(enrolment).map(|(_, pin)| pin.clone())
    }

    /// The enrolments whose keys it holds.
    pub(crate) fn enrolments(&self) -> Vec<Vec<u8>> {
        let mut held: Vec<_> = self.device.keks.lock().unwrap().keys().cloned().collect();
        held.sort();
        held
    }

    pub(crate) fn counter(&self) -> u64 {
        self.device.counter.load(Ordering::Relaxed)
    }

    fn with<T>(&self, kek: &[u8], run: impl FnOnce(&AeadKey) -> T) -> Result<T, CustodyError> {
        if !self.is_open() {
            return Err(CustodyError::TokenLocked);
        }
        let keks = self.device.keks.lock().unwrap();
        let (key, _) = keks.get(kek).ok_or(CustodyError::KekMissing { kek: String::new() })?;
        Ok(run(key))
    }

    fn may_count(&self, counter_auth: Option<&[u8]>) -> Result<(), CustodyError> {
        std::thread::sleep(Duration::from_millis(self.slow_ms.load(Ordering::Relaxed)));
        let may = self.is_open() || (self.counts_closed && counter_auth == Some(COUNTER_AUTH));
        if may { Ok(()) } else { Err(CustodyError::TokenLocked) }
    }
}

/// What counts without the PIN.
const COUNTER_AUTH: &[u8] = b"counter";

/// What changes a device is a step at which the process may be killed, as a write is.
fn step() -> Result<(), CustodyError> {
    faults::step().map_err(|error| CustodyError::TokenFailed { detail: error.to_string() })
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
        Ok(TokenInfo { label: self.name.clone(), serial, model, software: self.software })
    }

    fn is_open(&self) -> bool {
        self.open.load(Ordering::Relaxed)
    }

    fn open(&self, enrolment: Option<&[u8]>, pin: &Pin, _: PinTry) -> Result<(), CustodyError> {
        let right = enrolment.and_then(|enrolment| self.pin_of(enrolment));
        if pin.expose() != right.as_deref().unwrap_or(PIN) {
            return Err(CustodyError::PinIncorrect);
        }
        self.open.store(true, Ordering::Relaxed);
        Ok(())
    }

    fn close(&self) {
        self.open.store(false, Ordering::Relaxed);
    }

    fn enrol(&self, _: Option<&[u8]>) -> Result<Enrolled, CustodyError> {
        step()?;
        let enrolment = self.device.made.fetch_add(1, Ordering::Relaxed).to_be_bytes().to_vec();
        let made = (AeadKey::generate().unwrap(), self.device.pin.lock().unwrap().clone());
        self.device.keks.lock().unwrap().insert(enrolment.clone(), made);
        let counter_auth = self.counts_closed.then(|| Zeroizing::new(COUNTER_AUTH.to_vec()));
        Ok(Enrolled { enrolment, anchor: Some(self.counter()), authorisation: None, counter_auth })
    }

    fn wrap(&self, enrolment: &[u8], aad: &[u8], root: &[u8; ROOT_BYTES]) -> Result<Vec<u8>, CustodyError> {
        self.with(enrolment, |key| aead::seal(key, aad, root).unwrap())
    }

    fn unwrap(&self, enrolment: &[u8], aad: &[u8], wrapped: &[u8]) -> Result<Unwrapped, CustodyError> {
        self.with(enrolment, |key| aead::open(key, aad, wrapped))?.map_err(|_| CustodyError::UnsealFailed)
    }

    fn anchor(&self, _: &[u8], counter_auth: Option<&[u8]>) -> Result<Option<u64>, CustodyError> {
        self.describe()?;
        self.may_count(counter_auth)?;
        if self.mute.load(Ordering::Relaxed) {
            return Err(CustodyError::TokenFailed { detail: "mute".to_owned() });
        }
        Ok(Some(self.counter()))
    }

    fn advance(&self, _: &[u8], counter_auth: Option<&[u8]>, to: u64) -> Result<(), CustodyError> {
        self.describe()?;
        self.may_count(counter_auth)?;
        if self.stuck.load(Ordering::Relaxed) {
            return Err(CustodyError::TokenFailed { detail: "stuck".to_owned() });
        }
        step()?;
        assert_eq!(self.device.counter.fetch_add(1, Ordering::Relaxed) + 1, to);
        Ok(())
    }

    fn erase(&self, enrolment: &[u8], auths: Auths<'_>) -> Result<Erased, CustodyError> {
        self.describe()?;
        self.may_count(auths.counter)?;
        step()?;
        self.device.keks.lock().unwrap().remove(enrolment);
        Ok(Erased::Destroyed)
    }

    fn strays(&self, known: &[&[u8]]) -> Result<Vec<String>, CustodyError> {
        Ok(self
            .enrolments()
            .iter()
            .filter(|kek| !known.contains(&&kek[..]))
            .map(|kek| format!("{kek:?}"))
            .collect())
    }

    fn change_pin(&self, enrolment: &[u8], old: &Pin, new: &Pin) -> Result<PinChange, CustodyError> {
        self.open(Some(enrolment), old, PinTry::Attended)?;
        *self.device.pin.lock().unwrap() = new.expose().to_owned();
        self.enrol(Some(enrolment)).map(|enrolled| PinChange::Enrolment(enrolled.enrolment))
    }
}
