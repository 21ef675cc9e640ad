//! A protector in memory, for tests of what stands above it.

use super::{KekName, Protector};
use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use zeroize::Zeroizing;
use zixt_crypto::{AeadKey, aead};
use zixt_hsm_pkcs11::PinTry;
use zixt_hsm_protocol::{CustodyError, Pin, TokenInfo};
use zixt_types::CustodyMode;

/// The PIN of every test token.
pub(crate) const PIN: &str = "123456";

#[derive(Default)]
pub(crate) struct TestProtector {
    keks: Mutex<HashMap<Vec<u8>, AeadKey>>,
    open: AtomicBool,
}

impl TestProtector {
    pub(crate) fn open_one() -> Self {
        let protector = Self::default();
        protector.open.store(true, Ordering::Relaxed);
        protector
    }

    fn with<T>(&self, kek: &KekName, run: impl FnOnce(&AeadKey) -> T) -> Result<T, CustodyError> {
        if !self.is_open() {
            return Err(CustodyError::TokenLocked);
        }
        let keks = self.keks.lock().unwrap();
        let key = keks.get(&kek.0).ok_or(CustodyError::KekMissing { kek: String::new() })?;
        Ok(run(key))
    }
}

impl Protector for TestProtector {
    fn describe(&self) -> Result<TokenInfo, CustodyError> {
        let (label, serial, model) = ("test".to_owned(), "1".to_owned(), "memory".to_owned());
        Ok(TokenInfo { label, serial, model, software: true })
    }

    fn mode(&self) -> CustodyMode {
        CustodyMode::WrappedByToken
    }

    fn is_open(&self) -> bool {
        self.open.load(Ordering::Relaxed)
    }

    fn open(&self, pin: &Pin, _: PinTry) -> Result<(), CustodyError> {
        if pin.expose() != PIN {
            return Err(CustodyError::PinIncorrect);
        }
        self.open.store(true, Ordering::Relaxed);
        Ok(())
    }

    fn close(&self) {
        self.open.store(false, Ordering::Relaxed);
    }

    fn create_kek(&self) -> Result<KekName, CustodyError> {
        let mut keks = self.keks.lock().unwrap();
        let name = vec![u8::try_from(keks.len()).unwrap(); 4];
        keks.insert(name.clone(), AeadKey::generate().unwrap());
        Ok(KekName(name))
    }

    fn wrap(&self, kek: &KekName, aad: &[u8], secret: &[u8]) -> Result<Vec<u8>, CustodyError> {
        self.with(kek, |key| aead::seal(key, aad, secret).unwrap())
    }

    fn unwrap(&self, kek: &KekName, aad: &[u8], blob: &[u8]) -> Result<Zeroizing<Vec<u8>>, CustodyError> {
        self.with(kek, |key| aead::open(key, aad, blob))?.map_err(|_| CustodyError::UnsealFailed)
    }
}
