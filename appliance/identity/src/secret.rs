//! Secrets of this crate: erased on drop, never printed, compared in constant time.

use minicbor::{Decode, Decoder, Encode, Encoder, decode, encode};
use zeroize::{Zeroize as _, Zeroizing};
use zixt_crypto::RandomError;
use zixt_crypto::hash::constant_time_eq;
use zixt_types::ParseError;

use crate::random::Random;

/// A secret of a fixed length. On the heap, so that moving it leaves no copies on the stack.
#[derive(Clone)]
pub(crate) struct Secret<const N: usize>(Box<Zeroizing<[u8; N]>>);

impl<const N: usize> Secret<N> {
    pub(crate) fn draw(random: &mut dyn Random) -> Result<Self, RandomError> {
        let mut secret = Self(Box::new(Zeroizing::new([0; N])));
        random.fill(&mut secret.0[..])?;
        Ok(secret)
    }

    pub(crate) fn from_bytes(bytes: &[u8; N]) -> Self {
        let mut secret = Self(Box::new(Zeroizing::new([0; N])));
        secret.0.copy_from_slice(bytes);
        secret
    }

    pub(crate) fn as_bytes(&self) -> &[u8; N] {
        &self.0
    }
}

impl<const N: usize> PartialEq for Secret<N> {
    fn eq(&self, other: &Self) -> bool {
        constant_time_eq(&self.0[..], &other.0[..])
    }
}

impl<const N: usize> Eq for Secret<N> {}

impl<const N: usize> std::fmt::Debug for Secret<N> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(redacted)")
    }
}

impl<C, const N: usize> Encode<C> for Secret<N> {
    fn encode<W: encode::Write>(&self, e: &mut Encoder<W>, _: &mut C) -> Result<(), encode::Error<W::Error>> {
        e.bytes(&self.0[..])?.ok()
    }
}

impl<'b, C, const N: usize> Decode<'b, C> for Secret<N> {
    fn decode(d: &mut Decoder<'b>, _: &mut C) -> Result<Self, decode::Error> {
        let at = d.position();
        let bytes: &[u8; N] = d
            .bytes()?
            .try_into()
            .map_err(|_| decode::Error::message("a secret has the wrong length").at(at))?;
        Ok(Self::from_bytes(bytes))
    }
}

/// A saved form that holds secrets: the same rules as `zixt_types::Canonical`, but no copy of it stays in memory, and
/// nothing outside of this crate can write one out unsealed.
pub(crate) trait SecretForm: Encode<()> + for<'b> Decode<'b, ()> + Sized {
    const WHAT: &'static str;
    const BYTES_MAX: usize;
    const VERSION: u64 = 1;

    /// Rules that the structure alone does not express.
    fn check(&self) -> Result<(), &'static str>;

    /// The encoding. The buffer has its full size from the start, so that growing leaves nothing behind.
    fn to_secret_bytes(&self) -> Zeroizing<Vec<u8>> {
        let mut bytes = Zeroizing::new(Vec::with_capacity(Self::BYTES_MAX));
        match minicbor::encode(self, &mut *bytes) {
            Ok(()) => bytes,
            // Writing to a Vec cannot fail and no `Encode` of ours returns an error of its own.
            Err(_) => unreachable!("encoding to memory"),
        }
    }

    /// Reads what [`Self::to_secret_bytes`] wrote.
    fn parse_secret(bytes: &[u8]) -> Result<Self, ParseError> {
        let what = Self::WHAT;
        if bytes.len() > Self::BYTES_MAX {
            return Err(ParseError::TooLong { what, got: bytes.len(), max: Self::BYTES_MAX });
        }
        zixt_types::cbor::scan(what, bytes)?;
        let malformed = |error: minicbor::decode::Error| ParseError::Malformed {
            what,
            at: error.position().unwrap_or(0),
            why: error.to_string(),
        };
        let mut decoder = Decoder::new(bytes);
        let got = decoder.array().and_then(|_| decoder.u64()).map_err(malformed)?;
        if got != Self::VERSION {
            return Err(ParseError::UnknownVersion { what, got, known: Self::VERSION });
        }
        let value: Self = minicbor::decode(bytes).map_err(malformed)?;
        value.check().map_err(|why| ParseError::Invalid { what, why })?;
        if value.to_secret_bytes().as_slice() != bytes {
            return Err(ParseError::NotCanonical { what, why: "it has items beyond the last field" });
        }
        Ok(value)
    }
}

/// A byte string of a public fixed length, for `#[cbor(with = …)]`.
pub(crate) mod fixed {
    use super::{Decoder, Encoder};
    use minicbor::{decode as reading, encode as writing};

    pub(crate) fn encode<C, W: writing::Write, const N: usize>(
        bytes: &[u8; N],
        e: &mut Encoder<W>,
        _: &mut C,
    ) -> Result<(), writing::Error<W::Error>> {
        e.bytes(bytes)?.ok()
    }

    pub(crate) fn decode<'b, C, const N: usize>(
        d: &mut Decoder<'b>,
        _: &mut C,
    ) -> Result<[u8; N], reading::Error> {
        let at = d.position();
        d.bytes()?
            .try_into()
            .map_err(|_| reading::Error::message("a byte string has the wrong length").at(at))
    }
}

const CROCKFORD: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
const RFC_4648: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";

/// Base 32 of RFC 4648 section 6, without padding: how authenticator apps take a seed.
pub(crate) fn base32(bytes: &[u8]) -> Zeroizing<String> {
    spell(bytes, RFC_4648, 0)
}

/// Base 32 for people (Crockford's alphabet: no I, L, O, U), in groups of four.
pub(crate) fn for_people(bytes: &[u8]) -> Zeroizing<String> {
    spell(bytes, CROCKFORD, 4)
}

fn spell(bytes: &[u8], alphabet: &[u8; 32], group: usize) -> Zeroizing<String> {
    let mut text = Zeroizing::new(String::with_capacity(bytes.len() * 2 + 2));
    let (mut word, mut bits, mut letters) = (0u32, 0u32, 0usize);
    let mut push = |digit: u32| {
        if group > 0 && letters > 0 && letters.is_multiple_of(group) {
            text.push('-');
        }
        letters += 1;
        text.push(char::from(alphabet[(digit & 31) as usize]));
    };
    for byte in bytes {
        word = (word << 8) | u32::from(*byte);
        bits += 8;
        while bits >= 5 {
            bits -= 5;
            push(word >> bits);
        }
        word &= (1 << bits) - 1;
    }
    if bits > 0 {
        push(word << (5 - bits));
    }
    text
}

/// Reads what [`for_people`] wrote, as people type it: any case, spaces and hyphens anywhere, O for 0, I and L for 1.
/// `None` unless it is exactly `N` bytes.
pub(crate) fn from_people<const N: usize>(text: &str) -> Option<Secret<N>> {
    let mut bytes = Zeroizing::new([0u8; N]);
    let (mut word, mut bits, mut at) = (0u32, 0u32, 0usize);
    // Longer text cannot be right, and need not be read to its end.
    if text.len() > 4 * N + 16 {
        return None;
    }
    for letter in text.bytes().filter(|letter| !matches!(letter, b' ' | b'-')) {
        let letter = match letter.to_ascii_uppercase() {
            b'O' => b'0',
            b'I' | b'L' => b'1',
            letter => letter,
        };
        let digit = CROCKFORD.iter().position(|known| *known == letter)?;
        word = (word << 5) | u32::try_from(digit).ok()?;
        bits += 5;
        if bits >= 8 {
            bits -= 8;
            *bytes.get_mut(at)? = u8::try_from(word >> bits & 0xFF).ok()?;
            at += 1;
        }
        word &= (1 << bits) - 1;
    }
    let whole = at == N && bits < 5 && word == 0;
    word.zeroize();
    whole.then(|| Secret::from_bytes(&bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// RFC 4648, section 10.
    #[test]
    fn base32_is_that_of_the_rfc() {
        for (bytes, text) in [(&b""[..], ""), (b"f", "MY"), (b"foo", "MZXW6"), (b"foobar", "MZXW6YTBOI")] {
            assert_eq!(*base32(bytes), text);
        }
    }

    #[test]
    fn people_may_type_it_as_they_like() {
        let secret = Secret::from_bytes(&[0x01; 10]);
        let text = for_people(secret.as_bytes());
        assert_eq!(text.split('-').map(str::len).collect::<Vec<_>>(), [4; 4]);
        let sloppy = text.to_lowercase().replace('0', "o").replace('1', "l").replace('-', " ");
        assert_eq!(from_people::<10>(&sloppy), Some(secret));
        for wrong in ["", "0400", "UUUU-UUUU-UUUU-UUUU", &format!("{}0", *text)] {
            assert!(from_people::<10>(wrong).is_none(), "{wrong}");
        }
    }

    #[test]
    fn nothing_is_printed() {
        assert_eq!(format!("{:?}", Secret::from_bytes(&[7; 32])), "Secret(redacted)");
    }

    proptest! {
        #[test]
        fn text_for_people_round_trips(bytes: [u8; 10], longer: [u8; 20]) {
            prop_assert_eq!(from_people::<10>(&for_people(&bytes)), Some(Secret::from_bytes(&bytes)));
            prop_assert_eq!(from_people::<20>(&for_people(&longer)), Some(Secret::from_bytes(&longer)));
        }

        #[test]
        fn any_text_is_refused_or_read_never_a_panic(text: String) {
            let _ = from_people::<10>(&text);
            let _ = from_people::<20>(&text);
        }
    }
}
