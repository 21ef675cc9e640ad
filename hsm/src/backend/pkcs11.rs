//! A PKCS#11 token as protector. The one place that maps the token's errors to the protocol's.

use super::{KekName, Protector};
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock};
use zeroize::Zeroizing;
use zixt_hsm_pkcs11::{AuthPin, Kek, KekId, Module, PinTry, Token, TokenError, TokenSelector};
use zixt_hsm_protocol::{CustodyError, Pin, TokenInfo};
use zixt_types::CustodyMode;

/// Bytes of a new key-encryption key's CKA_ID: random, so that keys of two tries never share one.
const KEK_NAME_BYTES: usize = 16;

/// Wraps by an AES-256 key that never leaves a PKCS#11 token. The module is loaded when first needed, so that a daemon
/// with a wrong path can still say so.
pub struct Pkcs11Protector {
    path: PathBuf,
    selector: TokenSelector,
    module: Mutex<Option<Module>>,
    open: RwLock<Option<Open>>,
}

/// A token that is logged in, and the key examined last.
struct Open {
    token: Token,
    kek: Mutex<Option<Kek>>,
}

impl Pkcs11Protector {
    /// The token that `selector` means, behind the module at `path`.
    #[must_use]
    pub fn new(path: PathBuf, selector: TokenSelector) -> Self {
        Self { path, selector, module: Mutex::new(None), open: RwLock::new(None) }
    }

    fn module(&self) -> Result<Module, CustodyError> {
        let mut module = lock(&self.module);
        if let Some(module) = &*module {
            return Ok(module.clone());
        }
        let loaded = Module::load(&self.path).map_err(custody_error)?;
        Ok(module.insert(loaded).clone())
    }

    fn with_kek<T>(
        &self,
        name: &KekName,
        run: impl FnOnce(&Token, &Kek) -> Result<T, TokenError>,
    ) -> Result<T, CustodyError> {
        let open = self.open.read().unwrap_or_else(PoisonError::into_inner);
        let open = open.as_ref().ok_or(CustodyError::TokenLocked)?;
        let cached = lock(&open.kek).clone().filter(|kek| kek.id.0 == name.0);
        let kek = match cached {
            Some(kek) => kek,
            None => {
                let found = open.token.find_kek(&KekId(name.0.clone())).map_err(custody_error)?;
                lock(&open.kek).insert(found).clone()
            }
        };
        run(&open.token, &kek).map_err(custody_error)
    }
}

impl Protector for Pkcs11Protector {
    fn describe(&self) -> Result<TokenInfo, CustodyError> {
        let token = self.module()?.describe(&self.selector).map_err(custody_error)?;
        Ok(TokenInfo {
            label: token.label,
            serial: token.serial,
            model: token.model,
            software: token.software,
        })
    }

    fn mode(&self) -> CustodyMode {
        CustodyMode::WrappedByToken
    }

    fn is_open(&self) -> bool {
        self.open.read().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    fn open(&self, pin: &Pin, pin_try: PinTry) -> Result<(), CustodyError> {
        let mut open = self.open.write().unwrap_or_else(PoisonError::into_inner);
        if open.is_some() {
            return Ok(());
        }
        let pin = AuthPin::new(pin.expose().into());
        let token = Token::open(&self.module()?, &self.selector, &pin, pin_try).map_err(custody_error)?;
        *open = Some(Open { token, kek: Mutex::new(None) });
        Ok(())
    }

    fn close(&self) {
        *self.open.write().unwrap_or_else(PoisonError::into_inner) = None;
    }

    fn create_kek(&self) -> Result<KekName, CustodyError> {
        let open = self.open.read().unwrap_or_else(PoisonError::into_inner);
        let open = open.as_ref().ok_or(CustodyError::TokenLocked)?;
        let mut name = vec![0; KEK_NAME_BYTES];
        zixt_crypto::fill_random(&mut name)
            .map_err(|error| CustodyError::Internal { detail: error.to_string() })?;
        let kek = open.token.create_kek(&KekId(name)).map_err(custody_error)?;
        Ok(KekName(lock(&open.kek).insert(kek).id.0.clone()))
    }

    fn wrap(&self, kek: &KekName, aad: &[u8], secret: &[u8]) -> Result<Vec<u8>, CustodyError> {
        self.with_kek(kek, |token, kek| token.wrap(kek, aad, secret))
    }

    fn unwrap(&self, kek: &KekName, aad: &[u8], blob: &[u8]) -> Result<Zeroizing<Vec<u8>>, CustodyError> {
        self.with_kek(kek, |token, kek| token.unwrap(kek, aad, blob))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The protocol's error of a token's error.
pub(crate) fn custody_error(error: TokenError) -> CustodyError {
    match error {
        TokenError::TokenAbsent { .. } | TokenError::TokenAmbiguous { .. } => {
            CustodyError::TokenAbsent { detail: error.to_string() }
        }
        TokenError::PinIncorrect => CustodyError::PinIncorrect,
        TokenError::PinLocked | TokenError::PinUnset => CustodyError::PinLocked,
        TokenError::PinFinalTry | TokenError::PinCountLow => CustodyError::PinFinalTry,
        TokenError::KekMissing { kek } => CustodyError::KekMissing { kek },
        TokenError::UnsealFailed => CustodyError::UnsealFailed,
        TokenError::Module { .. }
        | TokenError::AlreadyLoggedIn
        | TokenError::KekUnsafe { .. }
        | TokenError::Random
        | TokenError::LabelTaken { .. }
        | TokenError::NoLabSlot
        | TokenError::Failed(_) => CustodyError::TokenFailed { detail: error.to_string() },
    }
}
