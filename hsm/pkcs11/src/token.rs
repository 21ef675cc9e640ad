//! An open token: logged in, with an anchor session and a pool.

use crate::error::TokenError;
use crate::kek::{self, Kek, KekId};
use crate::module::{Module, TokenDescription, TokenSelector};
use crate::native::Support;
use crate::objects::{self, Destruction, ObjectDescription};
use crate::pin::{PinState, PinTry};
use crate::sessions::{Attempt, Sessions};
use cryptoki::mechanism::Mechanism;
use cryptoki::mechanism::aead::GcmParams;
use cryptoki::session::{Session, UserType};
use cryptoki::types::AuthPin;
use std::sync::Arc;
use zeroize::Zeroizing;

/// Bytes of a GCM initialisation vector (SP 800-38D: 96 bits). Longer and shorter ones are never made.
const IV_BYTES: usize = 12;
/// Bytes of a GCM tag.
const TAG_BYTES: usize = 16;
const TAG_BITS: u64 = 8 * TAG_BYTES as u64;

/// A token that this process is logged in to. Dropping it logs out, and with that ends whatever signer came from it.
///
/// A blob is IV (12 bytes), ciphertext, tag (16 bytes); whoever unwraps must give the same AAD.
#[derive(Debug)]
pub struct Token {
    description: TokenDescription,
    pub(crate) sessions: Arc<Sessions>,
    pub(crate) support: Support,
}

impl Drop for Token {
    fn drop(&mut self) {
        self.sessions.close();
    }
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
        PinState::of(&info).allows(pin_try)?;
        let anchor = module.pkcs11.open_rw_session(slot).map_err(|e| TokenError::of(&e))?;
        anchor.login(UserType::User, Some(pin)).map_err(|e| TokenError::of(&e))?;
        let limit = info.max_rw_session_count();
        let sessions = Sessions::new(module.pkcs11.clone(), slot, selector.to_string(), limit, anchor);
        Ok(Self {
            description: TokenDescription::of(&info),
            sessions: Arc::new(sessions),
            support: Support::default(),
        })
    }

    /// The token as it described itself when it was opened.
    #[must_use]
    pub fn description(&self) -> &TokenDescription {
        &self.description
    }

    /// Whether the token is there and the process still logged in to it; what to ask when a signature failed.
    ///
    /// # Errors
    /// [`TokenError::TokenAbsent`] if it was taken out, also if it was put back since: it wants its PIN again then.
    pub fn health(&self) -> Result<(), TokenError> {
        self.sessions.health()
    }

    /// Our objects in the token, with what is wrong with each.
    ///
    /// # Errors
    /// See [`TokenError`].
    pub fn objects(&self) -> Result<Vec<ObjectDescription>, TokenError> {
        self.sessions.run_once(objects::list)
    }

    /// Makes a key-encryption key in the token.
    ///
    /// # Errors
    /// See [`TokenError`].
    pub fn create_kek(&self, id: &KekId) -> Result<Kek, TokenError> {
        self.sessions.run_once(|session| kek::create(session, id))
    }

    /// Finds a key-encryption key and examines it.
    ///
    /// # Errors
    /// [`TokenError::KekMissing`], [`TokenError::KekUnsafe`] or what the token says.
    pub fn find_kek(&self, id: &KekId) -> Result<Kek, TokenError> {
        self.sessions.run(|session| kek::find(session, id))
    }

    /// Destroys a key-encryption key, and with it everything that it alone ever wrapped, wherever a copy lies.
    ///
    /// # Errors
    /// [`TokenError::KekMissing`] or what the token says.
    pub fn destroy_kek(&self, id: &KekId) -> Result<Destruction, TokenError> {
        self.sessions.run_once(|session| kek::destroy(session, id))
    }

    /// Wraps a secret; `aad` says what it is and must be given again to open it.
    ///
    /// # Errors
    /// See [`TokenError`].
    pub fn wrap(&self, kek: &Kek, aad: &[u8], secret: &[u8]) -> Result<Vec<u8>, TokenError> {
        self.sessions.run(|session| {
            let iv = fresh_iv(session)?;
            let key = kek::handle(session, &kek.id)?;
            // The token may write into the IV it is given; the blob takes the one that was drawn.
            let mut given = iv;
            let parameters = GcmParams::new(&mut given, aad, TAG_BITS.into()).map_err(Attempt::of)?;
            let sealed = session.encrypt(&Mechanism::AesGcm(parameters), key, secret).map_err(Attempt::of)?;
            if given != iv || sealed.len() != secret.len() + TAG_BYTES {
                return Err(TokenError::Failed("it did not encrypt as it was told".to_owned()).into());
            }
            Ok([&iv[..], &sealed].concat())
        })
    }

    /// Opens what [`Token::wrap`] made with the same key and `aad`.
    ///
    /// # Errors
    /// [`TokenError::UnsealFailed`] if anything was changed.
    pub fn unwrap(&self, kek: &Kek, aad: &[u8], blob: &[u8]) -> Result<Zeroizing<Vec<u8>>, TokenError> {
        // Some tokens take an IV of no bytes, so that the length is checked here.
        let Some((iv, sealed)) =
            blob.split_first_chunk::<IV_BYTES>().filter(|(_, sealed)| sealed.len() >= TAG_BYTES)
        else {
            return Err(TokenError::UnsealFailed);
        };
        let opened = self.sessions.run(|session| {
            let key = kek::handle(session, &kek.id)?;
            let mut iv = *iv;
            let parameters = GcmParams::new(&mut iv, aad, TAG_BITS.into()).map_err(Attempt::of)?;
            // The crate returns a plain Vec; it is wrapped at once. It was allocated once, so no copy stays behind.
            session
                .decrypt(&Mechanism::AesGcm(parameters), key, sealed)
                .map(Zeroizing::new)
                .map_err(Attempt::of_decryption)
        })?;
        if opened.len() != sealed.len() - TAG_BYTES {
            return Err(TokenError::UnsealFailed);
        }
        Ok(opened)
    }
}

/// The token's own random numbers and the operating system's: good if either is.
fn fresh_iv(session: &Session) -> Result<[u8; IV_BYTES], TokenError> {
    let mut iv = [0; IV_BYTES];
    zixt_crypto::fill_random(&mut iv).map_err(|_| TokenError::Random)?;
    let mut from_token = [0; IV_BYTES];
    match session.generate_random_slice(&mut from_token) {
        Ok(()) => iv.iter_mut().zip(from_token).for_each(|(byte, more)| *byte ^= more),
        Err(error) => log::warn!("the token gives no random numbers ({error}); the system's are used alone"),
    }
    Ok(iv)
}
