//! A PKCS#11 token as protector. The one place that maps the token's errors to the protocol's.

use super::{Auths, Enrolled, Erased, PinChange, Protector, Unwrapped};
use crate::root::ROOT_BYTES;
use minicbor::{Decode, Encode};
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock};
use zixt_hsm_pkcs11::{
    AnchorError, AnchorId, AuthPin, ChangePinError, Destruction, Kek, KekId, Module, ObjectDescription,
    ObjectKind, PinTry, Token, TokenError, TokenSelector,
};
use zixt_hsm_protocol::{CustodyError, Pin, TokenInfo};
use zixt_types::{Canonical, ProtectorKind};

/// Bytes of a new key-encryption key's CKA_ID: random, so that keys of two tries never share one.
const KEK_NAME_BYTES: usize = 16;

/// What the protector remembers.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
struct Enrolment {
    /// Format version: 1.
    #[n(0)]
    version: u64,
    /// The wrapping key's CKA_ID.
    #[cbor(n(1), with = "minicbor::bytes")]
    kek: Vec<u8>,
    /// The anchor's id.
    #[cbor(n(2), with = "minicbor::bytes")]
    anchor: [u8; 16],
}

impl Canonical for Enrolment {
    const WHAT: &'static str = "enrolment of a token";
    const BYTES_MAX: usize = 128;
    const VERSION: Option<u64> = Some(1);
}

fn parse(enrolment: &[u8]) -> Result<Enrolment, CustodyError> {
    // The state file's MAC is checked with the root only, so this is foreign until then.
    Enrolment::parse(enrolment).map_err(|error| CustodyError::TokenFailed { detail: error.to_string() })
}

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

    /// Runs with the open token.
    pub(crate) fn with_token<T, E>(
        &self,
        run: impl FnOnce(&Token) -> Result<T, E>,
        map: impl FnOnce(E) -> CustodyError,
    ) -> Result<T, CustodyError> {
        let open = self.open.read().unwrap_or_else(PoisonError::into_inner);
        let open = open.as_ref().ok_or(CustodyError::TokenLocked)?;
        run(&open.token).map_err(map)
    }

    fn with_kek<T>(
        &self,
        enrolment: &[u8],
        run: impl FnOnce(&Token, &Kek) -> Result<T, TokenError>,
    ) -> Result<T, CustodyError> {
        let name = parse(enrolment)?.kek;
        let open = self.open.read().unwrap_or_else(PoisonError::into_inner);
        let open = open.as_ref().ok_or(CustodyError::TokenLocked)?;
        let cached = lock(&open.kek).clone().filter(|kek| kek.id.0 == name);
        let kek = match cached {
            Some(kek) => kek,
            None => {
                let found = open.token.find_kek(&KekId(name)).map_err(custody_error)?;
                lock(&open.kek).insert(found).clone()
            }
        };
        run(&open.token, &kek).map_err(custody_error)
    }
}

impl Protector for Pkcs11Protector {
    fn name(&self) -> &str {
        &self.selector.label
    }

    fn kind(&self) -> ProtectorKind {
        ProtectorKind::Pkcs11
    }

    fn describe(&self) -> Result<TokenInfo, CustodyError> {
        let token = self.module()?.describe(&self.selector).map_err(custody_error)?;
        Ok(TokenInfo {
            label: token.label,
            serial: token.serial,
            model: token.model,
            software: token.software,
        })
    }

    fn is_open(&self) -> bool {
        self.open.read().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    fn open(&self, _: Option<&[u8]>, pin: &Pin, pin_try: PinTry) -> Result<(), CustodyError> {
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

    fn enrol(&self, previous: Option<&[u8]>) -> Result<Enrolled, CustodyError> {
        let mut new = Enrolment { version: 1, kek: vec![0; KEK_NAME_BYTES], anchor: [0; 16] };
        zixt_crypto::fill_random(&mut new.kek).map_err(|error| internal(&error))?;
        let anchor = match previous {
            Some(previous) => {
                new.anchor = parse(previous)?.anchor;
                self.with_token(|token| token.anchor_read(&AnchorId(new.anchor)), anchor_error)?
            }
            None => {
                zixt_crypto::fill_random(&mut new.anchor).map_err(|error| internal(&error))?;
                self.with_token(|token| token.anchor_create(&AnchorId(new.anchor), 1), anchor_error)?;
                1
            }
        };
        let kek = self.with_token(|token| token.create_kek(&KekId(new.kek.clone())), custody_error)?;
        if let Some(open) = &*self.open.read().unwrap_or_else(PoisonError::into_inner) {
            *lock(&open.kek) = Some(kek);
        }
        // A private object: without a login a token does not even say that it is there.
        let (authorisation, counter_auth) = (None, None);
        Ok(Enrolled { enrolment: new.to_bytes(), anchor: Some(anchor), authorisation, counter_auth })
    }

    fn wrap(&self, enrolment: &[u8], aad: &[u8], root: &[u8; ROOT_BYTES]) -> Result<Vec<u8>, CustodyError> {
        self.with_kek(enrolment, |token, kek| token.wrap(kek, aad, root))
    }

    fn unwrap(&self, enrolment: &[u8], aad: &[u8], wrapped: &[u8]) -> Result<Unwrapped, CustodyError> {
        self.with_kek(enrolment, |token, kek| token.unwrap(kek, aad, wrapped))
    }

    fn anchor(&self, enrolment: &[u8], _: Option<&[u8]>) -> Result<Option<u64>, CustodyError> {
        let id = AnchorId(parse(enrolment)?.anchor);
        self.with_token(|token| token.anchor_read(&id), anchor_error).map(Some)
    }

    fn advance(&self, enrolment: &[u8], _: Option<&[u8]>, to: u64) -> Result<(), CustodyError> {
        let id = AnchorId(parse(enrolment)?.anchor);
        self.with_token(|token| token.anchor_advance(&id, to), anchor_error)
    }

    fn erase(&self, enrolment: &[u8], _: Auths<'_>) -> Result<Erased, CustodyError> {
        let name = parse(enrolment)?.kek;
        match self.with_token(|token| token.destroy_kek(&KekId(name)), custody_error) {
            Ok(Destruction::Destroyed) | Err(CustodyError::KekMissing { .. }) => Ok(Erased::Destroyed),
            Ok(Destruction::NotDestroyable) => {
                Ok(Erased::Kept("the token does not delete such keys".to_owned()))
            }
            Err(error) => Err(error),
        }
    }

    fn strays(&self, known: &[&[u8]]) -> Result<Vec<String>, CustodyError> {
        let known: Vec<_> = known.iter().filter_map(|known| Some(parse(known).ok()?.kek)).collect();
        let objects = self.with_token(Token::objects, custody_error)?;
        let stray =
            |object: &ObjectDescription| object.kind == ObjectKind::Kek && !known.contains(&object.id);
        Ok(objects
            .into_iter()
            .filter(stray)
            .map(|object| format!("wrapping key {}", KekId(object.id)))
            .collect())
    }

    fn change_pin(&self, _: &[u8], old: &Pin, new: &Pin) -> Result<PinChange, CustodyError> {
        let secret = |pin: &Pin| AuthPin::new(pin.expose().into());
        let changed = self.module()?.change_pin(&self.selector, &secret(old), &secret(new));
        changed.map(|()| PinChange::Done).map_err(|error| match error {
            ChangePinError::Token(error) => custody_error(error),
            refused => CustodyError::TokenFailed { detail: refused.to_string() },
        })
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn internal(error: &impl std::fmt::Display) -> CustodyError {
    CustodyError::Internal { detail: error.to_string() }
}

fn anchor_error(error: AnchorError) -> CustodyError {
    match error {
        AnchorError::Token(error) => custody_error(error),
        missing => CustodyError::AnchorMissing { detail: missing.to_string() },
    }
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
