//! The user's PIN: what the token says about its tries, and its change.

use crate::error::TokenError;
use crate::module::{Module, TokenSelector};
use cryptoki::error::{Error, RvError};
use cryptoki::session::Session;
use cryptoki::slot::TokenInfo;
use cryptoki::types::AuthPin;
use secrecy::ExposeSecret as _;

/// Who enters the PIN. A program that tries alone must not use up the tries of a person.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PinTry {
    /// A person: allowed while more than one try is left.
    Attended,
    /// A start-up script: allowed only while the token has seen no wrong PIN.
    Unattended,
}

/// What a token says about its user PIN, without a login and without spending a try.
///
/// A token may keep this to itself (SoftHSM never locks; Kryoptic speaks up at three tries left), so that `Ready` is
/// no promise: whoever tries has to count for itself as well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PinState {
    /// No PIN yet: the security officer has to set one.
    Unset,
    /// Nothing speaks against a try.
    Ready,
    /// A wrong PIN was entered since the last right one, or few tries are left.
    CountLow,
    /// One more wrong PIN locks the token.
    FinalTry,
    /// Locked: only the security officer's PIN helps.
    Locked,
}

impl PinState {
    pub(crate) fn of(info: &TokenInfo) -> Self {
        if info.user_pin_locked() {
            Self::Locked
        } else if info.user_pin_final_try() {
            Self::FinalTry
        } else if !info.user_pin_initialized() {
            Self::Unset
        } else if info.user_pin_count_low() {
            Self::CountLow
        } else {
            Self::Ready
        }
    }

    /// Whether a try may be spent. The last one never is.
    ///
    /// # Errors
    /// [`TokenError::PinLocked`], [`TokenError::PinFinalTry`], [`TokenError::PinUnset`], and for a program alone
    /// [`TokenError::PinCountLow`].
    pub fn allows(self, pin_try: PinTry) -> Result<(), TokenError> {
        match (self, pin_try) {
            (Self::Locked, _) => Err(TokenError::PinLocked),
            (Self::FinalTry, _) => Err(TokenError::PinFinalTry),
            (Self::Unset, _) => Err(TokenError::PinUnset),
            (Self::CountLow, PinTry::Unattended) => Err(TokenError::PinCountLow),
            (Self::CountLow, PinTry::Attended) | (Self::Ready, _) => Ok(()),
        }
    }
}

/// Why the PIN is still the old one.
#[derive(Debug, thiserror::Error)]
pub enum ChangePinError {
    /// The token takes no PIN of this length. Found before a try was spent.
    #[error("the new PIN has {actual} bytes; the token takes {min} to {max}")]
    NewPinLength {
        /// Bytes at least.
        min: usize,
        /// Bytes at most.
        max: usize,
        /// Bytes of the new PIN.
        actual: usize,
    },
    /// The new PIN is the old one. Found before a try was spent.
    #[error("the new PIN is the old one")]
    NewPinIsOld,
    /// The token finds the new PIN too weak or takes no such characters.
    #[error("the token refused the new PIN")]
    NewPinRefused,
    /// Anything else; a wrong old PIN is [`TokenError::PinIncorrect`] and has cost a try (an empty one has not).
    #[error(transparent)]
    Token(#[from] TokenError),
}

impl Module {
    /// What the token says about its PIN.
    ///
    /// # Errors
    /// [`TokenError::TokenAbsent`], [`TokenError::TokenAmbiguous`] or what the module says.
    pub fn pin_state(&self, selector: &TokenSelector) -> Result<PinState, TokenError> {
        self.find(selector).map(|(_, info)| PinState::of(&info))
    }

    /// Changes the user's PIN (C_SetPIN). Works whether or not this process is logged in, and leaves that as it is.
    ///
    /// A wrong old PIN costs a try as a login would, so that a person has to be there and the last try is refused.
    ///
    /// # Errors
    /// See [`ChangePinError`].
    pub fn change_pin(
        &self,
        selector: &TokenSelector,
        old: &AuthPin,
        new: &AuthPin,
    ) -> Result<(), ChangePinError> {
        let (slot, info) = self.find(selector)?;
        check_new_pin(&info, old, new)?;
        PinState::of(&info).allows(PinTry::Attended)?;
        let session = self.pkcs11.open_rw_session(slot).map_err(|e| TokenError::of(&e))?;
        set_pin(&session, old, new)
    }
}

fn check_new_pin(info: &TokenInfo, old: &AuthPin, new: &AuthPin) -> Result<(), ChangePinError> {
    // Some tokens change the PIN of who is logged in without a look at an old PIN of no bytes.
    if old.expose_secret().is_empty() {
        return Err(TokenError::PinIncorrect.into());
    }
    let (min, max, actual) = (info.min_pin_length(), info.max_pin_length(), new.expose_secret().len());
    // A token that does not say has a maximum of 0.
    if actual == 0 || actual < min || (max > 0 && actual > max) {
        return Err(ChangePinError::NewPinLength { min, max, actual });
    }
    if zixt_crypto::hash::constant_time_eq(old.expose_secret().as_bytes(), new.expose_secret().as_bytes()) {
        return Err(ChangePinError::NewPinIsOld);
    }
    Ok(())
}

fn set_pin(session: &Session, old: &AuthPin, new: &AuthPin) -> Result<(), ChangePinError> {
    session.set_pin(old, new).map_err(|error| match error {
        // These are about the new one: the old one was incorrect or not.
        Error::Pkcs11(RvError::PinInvalid | RvError::PinLenRange | RvError::PinTooWeak, _) => {
            ChangePinError::NewPinRefused
        }
        error => TokenError::of(&error).into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_try_is_never_spent_and_a_program_spends_none_after_a_mistake() {
        use PinState::{CountLow, FinalTry, Locked, Ready, Unset};
        for (state, attended, unattended) in [
            (Ready, true, true),
            (CountLow, true, false),
            (FinalTry, false, false),
            (Locked, false, false),
            (Unset, false, false),
        ] {
            assert_eq!(state.allows(PinTry::Attended).is_ok(), attended, "{state:?}");
            assert_eq!(state.allows(PinTry::Unattended).is_ok(), unattended, "{state:?}");
        }
    }
}
