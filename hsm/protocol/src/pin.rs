//! A PIN on its way to the token.

use minicbor::{Decode, Decoder, Encode, Encoder, decode, encode};
use zeroize::Zeroizing;

/// Longest PIN that any token we know takes.
pub const PIN_BYTES_MAX: usize = 256;

/// A user PIN. Erased on drop, never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Pin(Zeroizing<String>);

/// Why a text is no PIN.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PinError {
    /// Nothing was entered.
    #[error("the PIN is empty")]
    Empty,
    /// Longer than any token takes.
    #[error("the PIN is longer than {PIN_BYTES_MAX} bytes")]
    TooLong,
    /// A line break or another control character: usually a file with more than the PIN in it.
    #[error("the PIN contains a control character; a PIN file holds one line")]
    Control,
}

impl Pin {
    /// Takes a PIN; one line break at the end (as editors and `echo` leave it) is removed.
    ///
    /// # Errors
    /// See [`PinError`].
    pub fn new(text: String) -> Result<Self, PinError> {
        let text = Zeroizing::new(text);
        let pin = text.strip_suffix('\n').unwrap_or(&text);
        let pin = pin.strip_suffix('\r').unwrap_or(pin);
        if pin.is_empty() {
            return Err(PinError::Empty);
        }
        if pin.len() > PIN_BYTES_MAX {
            return Err(PinError::TooLong);
        }
        if pin.chars().any(char::is_control) {
            return Err(PinError::Control);
        }
        Ok(Self(Zeroizing::new(pin.to_owned())))
    }

    /// The PIN itself. Do not log, format or store it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for Pin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Pin(redacted)")
    }
}

impl<C> Encode<C> for Pin {
    fn encode<W: encode::Write>(&self, e: &mut Encoder<W>, _: &mut C) -> Result<(), encode::Error<W::Error>> {
        e.str(&self.0)?.ok()
    }
}

impl<'b, C> Decode<'b, C> for Pin {
    fn decode(d: &mut Decoder<'b>, _: &mut C) -> Result<Self, decode::Error> {
        let at = d.position();
        // Only the error's own words go into the message, never the text.
        Self::new(d.str()?.to_owned()).map_err(|why| decode::Error::custom(why).at(at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_break_is_removed_and_the_rest_refused() {
        assert_eq!(Pin::new("1234\n".to_owned()).unwrap().expose(), "1234");
        assert_eq!(Pin::new("1234\r\n".to_owned()).unwrap().expose(), "1234");
        assert_eq!(Pin::new("\n".to_owned()), Err(PinError::Empty));
        assert_eq!(Pin::new("1\n2\n".to_owned()), Err(PinError::Control));
        assert_eq!(Pin::new("1".repeat(257)), Err(PinError::TooLong));
        assert_eq!(format!("{:?}", Pin::new("1234".to_owned()).unwrap()), "Pin(redacted)");
    }
}
