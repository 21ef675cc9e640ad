//! An open token: logged in, with an anchor session and a pool.

use crate::error::{TokenError, session_lost};
use crate::kek::{self, Kek, KekId};
use crate::module::{Module, TokenDescription, TokenSelector};
use cryptoki::context::Pkcs11;
use cryptoki::error::Error;
use cryptoki::mechanism::Mechanism;
use cryptoki::mechanism::aead::GcmParams;
use cryptoki::session::{Session, UserType};
use cryptoki::slot::Slot;
use cryptoki::types::AuthPin;
use std::sync::{Mutex, MutexGuard, PoisonError};
use zeroize::Zeroizing;

/// Bytes of a GCM initialisation vector (SP 800-38D: 96 bits). Longer and shorter ones are never made.
const IV_BYTES: usize = 12;
/// Bytes of a GCM tag.
const TAG_BYTES: usize = 16;
/// Sessions kept open for reuse.
const POOL_MAX: usize = 4;

/// Who enters the PIN. A program that tries alone must not use up the tries of a person.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PinTry {
    /// A person: allowed while more than one try is left.
    Attended,
    /// A start-up script: allowed only while the token has seen no wrong PIN.
    Unattended,
}

/// A token that this process is logged in to. Dropping it logs out.
///
/// A blob is IV (12 bytes), ciphertext, tag (16 bytes); whoever unwraps must give the same AAD.
#[derive(Debug)]
pub struct Token {
    pkcs11: Pkcs11,
    slot: Slot,
    description: TokenDescription,
    pool: Mutex<Vec<Session>>,
    /// Never used after the login: with the last session of a process its login ends. Dropped last.
    _anchor: Mutex<Session>,
}

impl Token {
    /// Finds a token and logs in as its user.
    ///
    /// # Errors
    /// See [`TokenError`]. A try is spent on [`TokenError::PinIncorrect`] only.
    pub fn open(
        module: &Module,
        selector: &TokenSelector,
        pin: &AuthPin,
        pin_try: PinTry,
    ) -> Result<Self, TokenError> {
        let (slot, info) = module.find(selector)?;
        if info.user_pin_locked() {
            return Err(TokenError::PinLocked);
        }
        if info.user_pin_final_try() {
            return Err(TokenError::PinFinalTry);
        }
        if info.user_pin_count_low() && pin_try == PinTry::Unattended {
            return Err(TokenError::PinCountLow);
        }
        if !info.user_pin_initialized() {
            return Err(TokenError::PinUnset);
        }
        let anchor = module.pkcs11.open_rw_session(slot).map_err(|e| TokenError::of(&e))?;
        anchor.login(UserType::User, Some(pin)).map_err(|e| TokenError::of(&e))?;
        Ok(Self {
            pkcs11: module.pkcs11.clone(),
            slot,
            description: TokenDescription::of(&info),
            pool: Mutex::new(Vec::new()),
            _anchor: Mutex::new(anchor),
        })
    }

    /// The token as it describes itself.
    #[must_use]
    pub fn description(&self) -> &TokenDescription {
        &self.description
    }

    /// Makes a key-encryption key in the token.
    ///
    /// # Errors
    /// See [`TokenError`].
    pub fn create_kek(&self, id: &KekId) -> Result<Kek, TokenError> {
        kek::create(&self.session()?, id)
    }

    /// Finds a key-encryption key and examines it.
    ///
    /// # Errors
    /// [`TokenError::KekMissing`], [`TokenError::KekUnsafe`] or what the token says.
    pub fn find_kek(&self, id: &KekId) -> Result<Kek, TokenError> {
        kek::find(&self.session()?, id)
    }

    /// Wraps a secret; `aad` says what it is and must be given again to open it.
    ///
    /// # Errors
    /// See [`TokenError`].
    pub fn wrap(&self, kek: &Kek, aad: &[u8], secret: &[u8]) -> Result<Vec<u8>, TokenError> {
        self.with_session(|session| {
            let iv = self.fresh_iv(session)?;
            let key = kek::handle(session, &kek.id)?;
            // The token may write into the IV it is given; the blob takes the one that was drawn.
            let mut given = iv;
            let parameters =
                GcmParams::new(&mut given, aad, TAG_BITS.into()).map_err(|e| TokenError::of(&e))?;
            let sealed = session
                .encrypt(&Mechanism::AesGcm(parameters), key, secret)
                .map_err(|e| TokenError::of(&e))?;
            if given != iv || sealed.len() != secret.len() + TAG_BYTES {
                return Err(TokenError::Failed("it did not encrypt as it was told".to_owned()));
            }
            Ok([&iv[..], &sealed].concat())
        })
    }

    /// Opens what [`Token::wrap`] made with the same key and `aad`.
    ///
    /// # Errors
    /// [`TokenError::UnsealFailed`] if anything was changed.
    pub fn unwrap(&self, kek: &Kek, aad: &[u8], blob: &[u8]) -> Result<Zeroizing<Vec<u8>>, TokenError> {
        let Some((iv, sealed)) =
            blob.split_first_chunk::<IV_BYTES>().filter(|(_, sealed)| sealed.len() >= TAG_BYTES)
        else {
            return Err(TokenError::UnsealFailed);
        };
        let attempt = |session: &Session| -> Result<Zeroizing<Vec<u8>>, Attempt> {
            let key = kek::handle(session, &kek.id).map_err(Attempt::Final)?;
            let mut iv = *iv;
            let parameters = GcmParams::new(&mut iv, aad, TAG_BITS.into()).map_err(Attempt::of)?;
            // The crate returns a plain Vec; it is wrapped at once. It was allocated once, so no copy stays behind.
            session
                .decrypt(&Mechanism::AesGcm(parameters), key, sealed)
                .map(Zeroizing::new)
                .map_err(Attempt::of)
        };
        let session = self.session()?;
        let outcome = match attempt(&session) {
            Err(Attempt::SessionLost) => {
                drop(session);
                self.pool().clear();
                let session = self.session()?;
                attempt(&session).inspect(|_| self.give_back(session))
            }
            outcome => outcome.inspect(|_| self.give_back(session)),
        };
        let opened = outcome.map_err(|attempt| match attempt {
            Attempt::Final(error) => error,
            Attempt::SessionLost => TokenError::Failed("its sessions end at once".to_owned()),
        });
        if matches!(opened, Err(TokenError::UnsealFailed)) && self.pkcs11.get_token_info(self.slot).is_err() {
            // A token that says 'general error' because it is gone.
            return Err(TokenError::TokenAbsent {
                wanted: format!("with the label {:?}", self.description.label),
            });
        }
        let opened = opened?;
        if opened.len() != sealed.len() - TAG_BYTES {
            return Err(TokenError::UnsealFailed);
        }
        Ok(opened)
    }

    /// The token's own random numbers and the operating system's: good if either is.
    fn fresh_iv(&self, session: &Session) -> Result<[u8; IV_BYTES], TokenError> {
        let mut iv = [0; IV_BYTES];
        zixt_crypto::fill_random(&mut iv).map_err(|_| TokenError::Random)?;
        let mut from_token = [0; IV_BYTES];
        match session.generate_random_slice(&mut from_token) {
            Ok(()) => iv.iter_mut().zip(from_token).for_each(|(byte, more)| *byte ^= more),
            Err(error) => {
                log::warn!("the token gives no random numbers ({error}); the system's are used alone")
            }
        }
        Ok(iv)
    }

    fn with_session<T>(&self, run: impl FnOnce(&Session) -> Result<T, TokenError>) -> Result<T, TokenError> {
        let session = self.session()?;
        let outcome = run(&session);
        if outcome.is_ok() {
            self.give_back(session);
        }
        outcome
    }

    /// A session of the pool or a new one. A new one is logged in, because the process is.
    fn session(&self) -> Result<Session, TokenError> {
        if let Some(session) = self.pool().pop() {
            return Ok(session);
        }
        self.pkcs11.open_rw_session(self.slot).map_err(|e| TokenError::of(&e))
    }

    /// Only after success: a session with a failed operation may still have it open.
    fn give_back(&self, session: Session) {
        let mut pool = self.pool();
        if pool.len() < POOL_MAX {
            pool.push(session);
        }
    }

    fn pool(&self) -> MutexGuard<'_, Vec<Session>> {
        self.pool.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

const TAG_BITS: u64 = 8 * TAG_BYTES as u64;

/// One try to decrypt.
enum Attempt {
    SessionLost,
    Final(TokenError),
}

impl Attempt {
    fn of(error: Error) -> Self {
        if session_lost(&error) { Self::SessionLost } else { Self::Final(TokenError::of_decryption(&error)) }
    }
}
