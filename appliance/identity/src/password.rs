//! Passwords (SP 800-63B-4 section 3.1.1): length and a blocklist, no composition rules, no expiry.

use minicbor::{Decode, Encode};
use std::fmt;
use thiserror::Error;
use unicode_normalization::UnicodeNormalization as _;
use zeroize::Zeroizing;
use zixt_crypto::RandomError;
use zixt_crypto::hash::constant_time_eq;
use zixt_crypto::password::{DeriveError, OUTPUT_BYTES, Params, SALT_BYTES, derive};
use zixt_types::limits;

use crate::blocklist::Blocklist;
use crate::policy::{Cost, Policy};
use crate::random::{Random, draw};
use crate::role::Roles;
use crate::secret::Secret;

/// A password in the one spelling that is hashed: spaces are U+0020 and characters are composed, as RFC 8265
/// section 4.2 (`OpaqueString`) has it. Characters beyond that are taken as they come; nothing is cut off.
#[derive(Clone)]
pub struct Password(Zeroizing<String>);

/// Why text is no password.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum PasswordError {
    /// Nothing was typed. RFC 4513 section 5.1.2 lets a directory take an empty password for an anonymous bind, so an
    /// empty one is not even a value of the type.
    #[error("the password is empty")]
    Empty,
    /// Longer than anybody types.
    #[error("the password is longer than {max} characters", max = limits::PASSWORD_CHARS_MAX)]
    TooLong,
    /// A control character, which no keyboard sends.
    #[error("the password has a control character")]
    ControlCharacter,
}

impl Password {
    /// Reads what somebody typed.
    ///
    /// # Errors
    /// [`PasswordError`]
    pub fn parse(text: &str) -> Result<Self, PasswordError> {
        if text.is_empty() {
            return Err(PasswordError::Empty);
        }
        if text.len() > limits::PASSWORD_BYTES_MAX {
            return Err(PasswordError::TooLong);
        }
        if text.chars().any(char::is_control) {
            return Err(PasswordError::ControlCharacter);
        }
        // NFC makes a string at most three times as long in UTF-8 (UAX #15 section 9), so nothing is left behind by
        // growing. What the iterator holds in between is a few characters, and is not erased.
        let mut composed = Zeroizing::new(String::with_capacity(3 * text.len()));
        let spaced = text.chars().map(|c| if is_space(c) { ' ' } else { c });
        composed.extend(spaced.nfc());
        if composed.chars().count() > limits::PASSWORD_CHARS_MAX {
            return Err(PasswordError::TooLong);
        }
        Ok(Self(composed))
    }

    /// Characters, as SP 800-63B-4 counts them: code points.
    #[must_use]
    pub fn chars(&self) -> usize {
        self.0.chars().count()
    }

    /// The bytes that are hashed, or sent to a directory. Do not log or keep them.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(redacted)")
    }
}

/// The spaces of Unicode beside U+0020 (category Zs).
const fn is_space(c: char) -> bool {
    matches!(c, '\u{A0}' | '\u{1680}' | '\u{2000}'..='\u{200A}' | '\u{202F}' | '\u{205F}' | '\u{3000}')
}

/// Why a new password was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum ChooseError {
    /// Too short for what it would open.
    #[error("the password has {got} characters; at least {min} are needed")]
    TooShort {
        /// Characters given.
        got: usize,
        /// Characters needed.
        min: usize,
    },
    /// Common, expected, or made of the account's own name.
    #[error("the password is one that is tried first: {0}")]
    Blocked(&'static str),
    /// No randomness for the salt.
    #[error(transparent)]
    Random(#[from] RandomError),
    /// The hash could not be made.
    #[error(transparent)]
    Derive(#[from] DeriveError),
}

/// A password as the server keeps it: an Argon2id hash (RFC 9106) with its cost and salt.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
#[cbor(array)]
pub struct PasswordRecord {
    #[n(0)]
    cost: Cost,
    #[cbor(n(1), with = "crate::secret::fixed")]
    salt: [u8; SALT_BYTES],
    #[n(2)]
    hash: Secret<OUTPUT_BYTES>,
    /// Whether it was long enough to stand alone when it was chosen.
    #[n(3)]
    alone: bool,
}

impl PasswordRecord {
    /// Takes a new password of somebody with these roles. `own_words` are the account's name, the person's name, the
    /// organisation's name: what a guesser tries first (SP 800-63B-4 section 3.1.1.2, context-specific words).
    ///
    /// # Errors
    /// [`ChooseError`]
    pub fn choose(
        policy: &Policy,
        roles: Roles,
        password: &Password,
        blocklist: &Blocklist,
        own_words: &[&str],
        random: &mut dyn Random,
    ) -> Result<Self, ChooseError> {
        let (got, min) = (password.chars(), usize::from(policy.password_chars_min(roles)));
        if got < min {
            return Err(ChooseError::TooShort { got, min });
        }
        if let Some(why) = blocklist.finds(password, own_words) {
            return Err(ChooseError::Blocked(why));
        }
        let alone = got >= usize::from(policy.password.chars_min_alone);
        Ok(Self::derive(policy.password.cost, draw(random)?, password, alone)?)
    }

    fn derive(
        cost: Cost,
        salt: [u8; SALT_BYTES],
        password: &Password,
        alone: bool,
    ) -> Result<Self, DeriveError> {
        let hash = derive(cost.0, &salt, password.as_bytes())?;
        Ok(Self { cost, salt, hash: Secret::from_bytes(&hash), alone })
    }

    /// Whether it may be the only factor.
    #[must_use]
    pub const fn stands_alone(&self) -> bool {
        self.alone
    }

    /// The same password at the policy's cost, if that has changed. It has just been verified.
    pub(crate) fn renewed(
        &self,
        policy: &Policy,
        password: &Password,
        random: &mut dyn Random,
    ) -> Option<Self> {
        if self.cost == policy.password.cost {
            return None;
        }
        // The old hash still serves if this one cannot be made now.
        Self::derive(policy.password.cost, draw(random).ok()?, password, self.alone).ok()
    }
}

/// Whether the password is the recorded one. Without a record a hash of the same cost is made and thrown away, so
/// that the time does not tell whether there is an account. (Between a change of the cost and the next sign-in of an
/// account the two costs differ, and so do the times.)
pub(crate) fn check(
    record: Option<&PasswordRecord>,
    cost: Params,
    password: &Password,
) -> Result<bool, DeriveError> {
    let (cost, salt) = record.map_or((cost, [0; SALT_BYTES]), |record| (record.cost.0, record.salt));
    let derived = derive(cost, &salt, password.as_bytes())?;
    let nothing = [0; OUTPUT_BYTES];
    let expected = record.map_or(&nothing, |record| record.hash.as_bytes());
    let equal = constant_time_eq(derived.as_slice(), expected);
    Ok(equal && record.is_some())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn one_password_has_one_spelling() {
        // e with an acute accent, composed and not; a no-break space.
        let one = Password::parse("caf\u{E9} au lait").unwrap();
        let other = Password::parse("cafe\u{301}\u{A0}au\u{3000}lait").unwrap();
        assert_eq!(one.as_bytes(), other.as_bytes());
        assert_eq!(one.chars(), 12);
        // Compatibility characters stay what they are: a ligature is not two letters.
        assert_ne!(Password::parse("\u{FB01}").unwrap().as_bytes(), b"fi");
    }

    #[test]
    fn what_is_no_password() {
        assert_eq!(Password::parse("").err(), Some(PasswordError::Empty));
        assert_eq!(Password::parse("a\0b").err(), Some(PasswordError::ControlCharacter));
        assert_eq!(Password::parse(&"x".repeat(257)).err(), Some(PasswordError::TooLong));
        assert_eq!(Password::parse(&"x".repeat(2000)).err(), Some(PasswordError::TooLong));
        assert!(Password::parse(&"\u{1F511}".repeat(256)).is_ok());
        assert_eq!(format!("{:?}", Password::parse("secret").unwrap()), "Password(redacted)");
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text: String) {
            if let Ok(password) = Password::parse(&text) {
                prop_assert!(password.chars() <= limits::PASSWORD_CHARS_MAX);
                let again = Password::parse(password.as_str()).unwrap();
                prop_assert_eq!(again.as_bytes(), password.as_bytes());
            }
        }
    }
}
