//! Text that may stand in an event. What a screen hides, a log line ends with or a terminal obeys cannot get in.

use crate::limits;
use core::fmt;
use minicbor::{Decode, Decoder, Encode, Encoder, decode, encode};
use thiserror::Error;
use zixt_types::is_readable;

/// Why a text was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum TextError {
    /// Longer than a text may be.
    #[error("a text of {got} bytes; at most {max} are allowed", max = limits::TEXT_BYTES_MAX)]
    TooLong {
        /// Its length.
        got: usize,
    },
    /// A control character, a direction mark, or another one that a screen hides or moves.
    #[error("the text holds U+{:04X}, which a screen hides or a log line ends with", u32::from(*.0))]
    Hidden(char),
}

/// Why a key or a code was not taken.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum NameError {
    /// Another form than keys have.
    #[error("{0:?} is no key: 1 to {max} of a-z, 0-9 and _, a letter first", max = limits::KEY_BYTES_MAX)]
    Key(String),
    /// Another form than codes have.
    #[error("{0:?} is no code: 1 to {max} of a-z, 0-9 and -", max = limits::CODE_BYTES_MAX)]
    Code(String),
    /// A key whose name says that its value is a secret.
    #[error("the key {0:?} names a secret; secrets do not belong into the journal")]
    Secret(String),
}

/// A bounded text without characters that deceive.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Text(String);

impl Text {
    /// Takes a text as it is.
    ///
    /// # Errors
    /// See [`TextError`].
    pub fn new(text: &str) -> Result<Self, TextError> {
        if text.len() > limits::TEXT_BYTES_MAX {
            return Err(TextError::TooLong { got: text.len() });
        }
        match text.chars().find(|c| is_hidden(*c)) {
            Some(hidden) => Err(TextError::Hidden(hidden)),
            None => Ok(Self(text.to_owned())),
        }
    }

    /// Takes any text of a stranger: hidden characters become `\u{…}`, a backslash two, and what is too long is cut
    /// and ends with an ellipsis. Nothing that was not there can be read out of it.
    #[must_use]
    pub fn escaped(text: &str) -> Self {
        let mut out = Self::default();
        for c in text.chars() {
            if !out.push_escaped(c) {
                break;
            }
        }
        out
    }

    /// As [`Self::escaped`], of bytes that should be UTF-8: those that are not become `\x{…}`.
    #[must_use]
    pub fn escaped_bytes(bytes: &[u8]) -> Self {
        let mut out = Self::default();
        for chunk in bytes.utf8_chunks() {
            for c in chunk.valid().chars() {
                if !out.push_escaped(c) {
                    return out;
                }
            }
            for byte in chunk.invalid() {
                if !out.push_piece(&format!("\\x{{{byte:02x}}}")) {
                    return out;
                }
            }
        }
        out
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn push_escaped(&mut self, c: char) -> bool {
        match c {
            '\\' => self.push_piece("\\\\"),
            c if is_hidden(c) => self.push_piece(&escape(c)),
            c => self.push_piece(c.encode_utf8(&mut [0; 4])),
        }
    }

    /// Adds a piece whole, or an ellipsis instead. There is always room for that: it takes three bytes.
    fn push_piece(&mut self, piece: &str) -> bool {
        const ELLIPSIS: char = '…';
        if self.0.len() + piece.len() + ELLIPSIS.len_utf8() > limits::TEXT_BYTES_MAX {
            self.0.push(ELLIPSIS);
            return false;
        }
        self.0.push_str(piece);
        true
    }
}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<C> Encode<C> for Text {
    fn encode<W: encode::Write>(&self, e: &mut Encoder<W>, _: &mut C) -> Result<(), encode::Error<W::Error>> {
        e.str(&self.0)?.ok()
    }
}

impl<'b, C> Decode<'b, C> for Text {
    fn decode(d: &mut Decoder<'b>, _: &mut C) -> Result<Self, decode::Error> {
        let at = d.position();
        Self::new(d.str()?).map_err(|error| decode::Error::message(error.to_string()).at(at))
    }
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        pub struct $name(String);

        impl $name {
            /// The name.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl<C> Encode<C> for $name {
            fn encode<W: encode::Write>(
                &self,
                e: &mut Encoder<W>,
                _: &mut C,
            ) -> Result<(), encode::Error<W::Error>> {
                e.str(&self.0)?.ok()
            }
        }

        impl<'b, C> Decode<'b, C> for $name {
            fn decode(d: &mut Decoder<'b>, _: &mut C) -> Result<Self, decode::Error> {
                let at = d.position();
                Self::new(d.str()?).map_err(|error| decode::Error::message(error.to_string()).at(at))
            }
        }
    };
}

name!(
    /// The name of a detail. Its form fits RFC 5424's SD-NAME, JSON and CEF without any escaping.
    Key
);
name!(
    /// A stable error code, as the error map and custody have them.
    Code
);

/// Words that a key may not have. It is a net for slips, not a proof: who writes an event decides what is in it.
const SECRET_WORDS: &[&str] = &[
    "password",
    "passphrase",
    "passwd",
    "secret",
    "seed",
    "pin",
    "psk",
    "otp",
    "credential",
    "cookie",
    "bearer",
];

impl Key {
    /// Takes a key.
    ///
    /// # Errors
    /// [`NameError::Key`], [`NameError::Secret`].
    pub fn new(key: &str) -> Result<Self, NameError> {
        let good = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
        let first = key.bytes().next().is_some_and(|byte| byte.is_ascii_lowercase());
        if !first || key.len() > limits::KEY_BYTES_MAX || !key.bytes().all(good) {
            return Err(NameError::Key(shown(key)));
        }
        if key.split('_').any(|word| SECRET_WORDS.contains(&word)) {
            return Err(NameError::Secret(key.to_owned()));
        }
        Ok(Self(key.to_owned()))
    }
}

impl Code {
    /// Takes a code.
    ///
    /// # Errors
    /// [`NameError::Code`].
    pub fn new(code: &str) -> Result<Self, NameError> {
        let good = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        if code.is_empty() || code.len() > limits::CODE_BYTES_MAX || !code.bytes().all(good) {
            return Err(NameError::Code(shown(code)));
        }
        Ok(Self(code.to_owned()))
    }
}

/// The start of what was refused, for the error: it may be megabytes.
fn shown(name: &str) -> String {
    name.chars().take(limits::CODE_BYTES_MAX).collect()
}

/// Controls, direction marks and other characters that deceive ([`is_readable`]), and every space but the usual one.
pub(crate) fn is_hidden(c: char) -> bool {
    c != ' ' && !is_readable(c.encode_utf8(&mut [0; 4]), 4)
}

/// The form in which a hidden character is shown.
fn escape(c: char) -> String {
    format!("\\u{{{:x}}}", u32::from(c))
}

/// `text` with its hidden characters shown. The last defence of the formatters, whatever they are given.
pub(crate) fn visible(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if is_hidden(c) { out.push_str(&escape(c)) } else { out.push(c) }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn hidden_characters_cannot_get_in() {
        for text in [
            "a\nb",
            "a\rb",
            "\0",
            "\u{1b}[31m",
            "\u{202e}evil",
            "\u{feff}x",
            "a\u{2028}b",
            "\u{85}",
            "\u{a0}",
        ] {
            assert!(matches!(Text::new(text), Err(TextError::Hidden(_))), "{text:?}");
        }
        assert_eq!(Text::new("Jürgen O'Neill ☃ \\ \"]").unwrap().as_str(), "Jürgen O'Neill ☃ \\ \"]");
        assert_eq!(Text::new(&"x".repeat(257)), Err(TextError::TooLong { got: 257 }));
        assert!(Text::new(&"x".repeat(256)).is_ok());
    }

    #[test]
    fn strangers_text_is_shown_and_cut() {
        assert_eq!(Text::escaped("a\nb\\n").as_str(), "a\\u{a}b\\\\n");
        assert_eq!(Text::escaped_bytes(b"ok\xff\xc3\xa4").as_str(), "ok\\x{ff}ä");
        let long = Text::escaped(&"ä".repeat(1000));
        assert!(long.as_str().len() <= limits::TEXT_BYTES_MAX && long.as_str().ends_with('…'));
    }

    #[test]
    fn keys_and_codes_have_one_form() {
        for key in ["", "A", "1a", "a-b", "a b", "ä", "a\n", &"a".repeat(31)] {
            assert!(matches!(Key::new(key), Err(NameError::Key(_))), "{key:?}");
        }
        for key in ["password", "new_password", "pin", "totp_seed", "psk"] {
            assert!(matches!(Key::new(key), Err(NameError::Secret(_))), "{key:?}");
        }
        assert!(Key::new("mapping_2").is_ok() && Key::new("pinned").is_ok());
        for code in ["", "A", "a_b", "a\n", &"a".repeat(65)] {
            assert!(Code::new(code).is_err(), "{code:?}");
        }
        assert!(Code::new("wrong-password").is_ok());
    }

    proptest! {
        #[test]
        fn whatever_is_escaped_is_a_text(bytes: Vec<u8>, text: String) {
            for escaped in [Text::escaped_bytes(&bytes), Text::escaped(&text)] {
                prop_assert_eq!(Text::new(escaped.as_str()), Ok(escaped));
            }
            prop_assert!(!visible(&text).chars().any(is_hidden));
        }

        #[test]
        fn two_texts_are_never_shown_alike(a in ".{0,12}", b in ".{0,12}") {
            prop_assert_eq!(a == b, Text::escaped(&a) == Text::escaped(&b));
        }
    }
}
