//! What can go wrong with a token, and how a token's return values map to it.

use cryptoki::error::{Error, RvError};

/// Why the token did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// The PKCS#11 module (a shared library) cannot be loaded or initialised.
    #[error("the PKCS#11 module {module} cannot be used: {why}")]
    Module {
        /// Its path.
        module: String,
        /// The loader's or the module's words.
        why: String,
    },
    /// No token with this label and serial number, or it was pulled out.
    #[error("no token {wanted} is present")]
    TokenAbsent {
        /// Label and serial number.
        wanted: String,
    },
    /// Several tokens match.
    #[error("{count} tokens match {wanted}: name the serial number")]
    TokenAmbiguous {
        /// Label and serial number.
        wanted: String,
        /// How many match.
        count: usize,
    },
    /// The token refused the PIN.
    #[error("the token refused the PIN")]
    PinIncorrect,
    /// The token takes no PIN any more.
    #[error("the token has locked its user PIN")]
    PinLocked,
    /// One try is left. It is never used up by this program.
    #[error("the token has one try of its user PIN left")]
    PinFinalTry,
    /// A wrong PIN was entered since the last right one; only a person may try again.
    #[error("the token has seen a wrong PIN; it is not tried again unattended")]
    PinCountLow,
    /// The token has no user PIN yet.
    #[error("the token has no user PIN yet")]
    PinUnset,
    /// The process is logged in to this token already.
    #[error("this process is already logged in to the token")]
    AlreadyLoggedIn,
    /// The token does not hold the key.
    #[error("the token does not hold the wrapping key {kek}")]
    KekMissing {
        /// Its CKA_ID in hexadecimal.
        kek: String,
    },
    /// The token holds several keys with this id, or one that could leave the token.
    #[error("the wrapping key {kek} is not safe to use: {why}")]
    KekUnsafe {
        /// Its CKA_ID in hexadecimal.
        kek: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The wrapped secret was changed, belongs to something else, or was wrapped by another key.
    #[error("the wrapped secret does not open")]
    UnsealFailed,
    /// No random numbers.
    #[error("no random numbers for an initialisation vector")]
    Random,
    /// A token with this label exists already.
    #[error("a token with the label {label} exists already")]
    LabelTaken {
        /// The label.
        label: String,
    },
    /// No uninitialised software token to make a lab token of.
    #[error("the module offers no uninitialised software token")]
    NoLabSlot,
    /// Anything else.
    #[error("the token failed: {0}")]
    Failed(String),
}

impl TokenError {
    /// The error of a call, where no other reading fits better.
    pub(crate) fn of(error: &Error) -> Self {
        match error {
            Error::Pkcs11(rv, function) => match rv {
                RvError::TokenNotPresent
                | RvError::TokenNotRecognized
                | RvError::DeviceRemoved
                | RvError::SlotIdInvalid => {
                    Self::TokenAbsent { wanted: "(the one that was open)".to_owned() }
                }
                RvError::PinIncorrect | RvError::PinInvalid | RvError::PinLenRange => Self::PinIncorrect,
                RvError::PinLocked => Self::PinLocked,
                RvError::UserPinNotInitialized => Self::PinUnset,
                RvError::UserAlreadyLoggedIn | RvError::UserAnotherAlreadyLoggedIn => Self::AlreadyLoggedIn,
                RvError::UserNotLoggedIn => Self::not_logged_in(),
                rv => Self::Failed(format!("{function}: {rv:?}")),
            },
            error => Self::Failed(error.to_string()),
        }
    }

    /// The login ended: the token was taken out and put back, or closed by [`crate::Token`]'s end.
    pub(crate) fn not_logged_in() -> Self {
        Self::TokenAbsent { wanted: "that this process is still logged in to".to_owned() }
    }

    /// The error of a decryption. SoftHSM reports a wrong tag as a general error, others as invalid data.
    pub(crate) fn of_decryption(error: &Error) -> Self {
        match error {
            Error::Pkcs11(
                RvError::GeneralError
                | RvError::EncryptedDataInvalid
                | RvError::EncryptedDataLenRange
                | RvError::FunctionFailed
                | RvError::DataInvalid,
                _,
            ) => Self::UnsealFailed,
            error => Self::of(error),
        }
    }
}

/// Whether a session is of no use any more while the token may still be.
pub(crate) fn session_lost(error: &Error) -> bool {
    matches!(
        error,
        Error::Pkcs11(
            RvError::SessionHandleInvalid
                | RvError::SessionClosed
                | RvError::ObjectHandleInvalid
                | RvError::KeyHandleInvalid,
            _
        )
    )
}

/// Whether a token refused an attribute, so that a template without it may be taken.
pub(crate) fn template_refused(error: &Error) -> bool {
    matches!(
        error,
        Error::Pkcs11(
            RvError::AttributeTypeInvalid
                | RvError::AttributeValueInvalid
                | RvError::TemplateInconsistent
                | RvError::AttributeReadOnly,
            _
        )
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use cryptoki::context::Function;

    fn pkcs11(rv: RvError) -> Error {
        Error::Pkcs11(rv, Function::Decrypt)
    }

    #[test]
    fn tokens_differ_in_words_but_not_in_meaning() {
        for rv in [RvError::GeneralError, RvError::EncryptedDataInvalid] {
            assert!(matches!(TokenError::of_decryption(&pkcs11(rv)), TokenError::UnsealFailed));
        }
        for rv in [RvError::DeviceRemoved, RvError::TokenNotPresent] {
            assert!(matches!(TokenError::of_decryption(&pkcs11(rv)), TokenError::TokenAbsent { .. }));
        }
        assert!(matches!(TokenError::of(&pkcs11(RvError::PinIncorrect)), TokenError::PinIncorrect));
        assert!(matches!(TokenError::of(&pkcs11(RvError::PinLocked)), TokenError::PinLocked));
        assert!(matches!(TokenError::of(&pkcs11(RvError::GeneralError)), TokenError::Failed(_)));
        let logged_out = TokenError::of(&pkcs11(RvError::UserNotLoggedIn)).to_string();
        assert_eq!(logged_out, "no token that this process is still logged in to is present");
    }
}
