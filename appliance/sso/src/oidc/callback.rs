//! What the browser brings back from the provider.

use secrecy::{ExposeSecret as _, SecretString};
use std::fmt;
use thiserror::Error;
use url::form_urlencoded;

/// Bytes of a callback's query.
pub const CALLBACK_BYTES_MAX: usize = 8 * 1024;
/// Parameters of a callback.
const PARAMETERS_MAX: usize = 32;
/// Bytes of an error code that is kept (RFC 6749 section 4.1.2.1).
const ERROR_BYTES_MAX: usize = 64;

/// Why a callback is not read.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum CallbackError {
    /// Longer than [`CALLBACK_BYTES_MAX`], or more parameters than anybody sends.
    #[error("the callback is too long")]
    TooLong,
    /// A parameter twice (RFC 6749 section 3.1), or one that is empty.
    #[error("the parameter {0} is empty or there twice")]
    Parameter(&'static str),
    /// A token came through the browser. Only a code may: what the browser brings can be swapped.
    #[error("the callback brings a token")]
    Token,
    /// Neither a code nor an error, or both.
    #[error("the callback has not one of code and error")]
    NeitherOrBoth,
}

/// A callback whose form is good (RFC 6749 section 4.1.2, RFC 9207).
pub struct Callback {
    state: Option<SecretString>,
    iss: Option<String>,
    outcome: Outcome,
}

pub(crate) enum Outcome {
    Code(SecretString),
    /// The code of an error; printable, because it is cut down to what RFC 6749 allows.
    Error(String),
}

impl Callback {
    /// Reads the query of the callback, without its question mark.
    ///
    /// # Errors
    /// [`CallbackError`]
    pub fn parse(query: &str) -> Result<Self, CallbackError> {
        if query.len() > CALLBACK_BYTES_MAX {
            return Err(CallbackError::TooLong);
        }
        let (mut code, mut state, mut iss, mut error) = (None, None, None, None);
        for (at, (name, value)) in form_urlencoded::parse(query.as_bytes()).enumerate() {
            if at >= PARAMETERS_MAX {
                return Err(CallbackError::TooLong);
            }
            let (slot, name) = match name.as_ref() {
                "code" => (&mut code, "code"),
                "state" => (&mut state, "state"),
                "iss" => (&mut iss, "iss"),
                "error" => (&mut error, "error"),
                "id_token" | "access_token" | "response" => return Err(CallbackError::Token),
                // What a provider adds, such as `session_state`, is not used.
                _ => continue,
            };
            if value.is_empty() || slot.replace(value.into_owned()).is_some() {
                return Err(CallbackError::Parameter(name));
            }
        }
        let outcome = match (code, error) {
            (Some(code), None) => Outcome::Code(code.into()),
            (None, Some(error)) => Outcome::Error(error_code(&error)),
            _ => return Err(CallbackError::NeitherOrBoth),
        };
        Ok(Self { state: state.map(SecretString::from), iss, outcome })
    }

    /// The name of the sign-in, for [`crate::Waiting::take`].
    #[must_use]
    pub fn state(&self) -> Option<&str> {
        self.state.as_ref().map(|state| state.expose_secret())
    }

    pub(crate) fn iss(&self) -> Option<&str> {
        self.iss.as_deref()
    }

    pub(crate) fn outcome(&self) -> &Outcome {
        &self.outcome
    }
}

impl fmt::Debug for Callback {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Callback(..)")
    }
}

/// An error code as it may be logged; anything else becomes `invalid`.
pub(crate) fn error_code(text: &str) -> String {
    let good = text.len() <= ERROR_BYTES_MAX && text.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
    if good { text.to_owned() } else { "invalid".to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn callbacks_are_read_strictly() {
        let good = Callback::parse("code=a%2Bb&state=s&iss=https%3A%2F%2Fidp.test&session_state=x").unwrap();
        assert_eq!((good.state(), good.iss()), (Some("s"), Some("https://idp.test")));
        assert!(matches!(good.outcome(), Outcome::Code(code) if code.expose_secret() == "a+b"));
        for (query, error) in [
            ("code=a&code=b&state=s", CallbackError::Parameter("code")),
            ("code=a&state=s&state=s", CallbackError::Parameter("state")),
            ("code=a&state=s&iss=x&iss=y", CallbackError::Parameter("iss")),
            ("code=&state=s", CallbackError::Parameter("code")),
            ("state=s", CallbackError::NeitherOrBoth),
            ("code=a&error=access_denied&state=s", CallbackError::NeitherOrBoth),
            ("code=a&state=s&id_token=x", CallbackError::Token),
            ("response=x&state=s", CallbackError::Token),
        ] {
            assert_eq!(Callback::parse(query).err(), Some(error), "{query}");
        }
        let long = format!("code={}", "a".repeat(CALLBACK_BYTES_MAX));
        assert_eq!(Callback::parse(&long).err(), Some(CallbackError::TooLong));
        assert_eq!(Callback::parse(&"a=b&".repeat(PARAMETERS_MAX + 1)).err(), Some(CallbackError::TooLong));
    }

    #[test]
    fn error_codes_can_be_logged() {
        assert_eq!(error_code("access_denied"), "access_denied");
        assert_eq!(error_code("a\nb"), "invalid");
        assert_eq!(error_code(&"a".repeat(65)), "invalid");
    }
}
