//! A share on paper: 54 words of the BIP 39 list, which was made so that four letters tell a word, or the text of a QR
//! code. Both carry the same 74 bytes: index (1), the first bytes of the recovery key's name (4), the share (64), and a
//! checksum (5), so that a slip of the pen and a sheet of another year are told apart before anything is tried.

use crate::shamir::{SECRET_BYTES, Value};
use std::sync::LazyLock;
use thiserror::Error;
use zeroize::Zeroizing;
use zixt_crypto::{hash, labels};
use zixt_types::Hash;

/// Words of a share.
pub const WORDS: usize = 54;
/// What the text of a QR code begins with.
pub const CODE_PREFIX: &str = "ZIXT-SHARE-1:";
/// Bits of a word: the list has 2048.
const WORD_BITS: usize = 11;
const NAME_BYTES: usize = 4;
const CHECKSUM_BYTES: usize = 5;
const PAPER_BYTES: usize = 1 + NAME_BYTES + SECRET_BYTES + CHECKSUM_BYTES;
/// 54 words hold two bits more than there are; they are 0.
const _: () = assert!(WORDS * WORD_BITS == PAPER_BYTES * 8 + 2);

static LIST: LazyLock<Vec<&'static str>> =
    LazyLock::new(|| include_str!("../words/english.txt").lines().collect());

/// Why paper could not be read.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PaperError {
    /// A word that is not on the list. The word itself is not repeated: it may be part of a secret.
    #[error("word {number} is not on the list; compare it with the paper")]
    Word {
        /// Which word, from 1.
        number: usize,
    },
    /// Too few or too many words.
    #[error("a share has {WORDS} words, and {got} were given")]
    Count {
        /// Words given.
        got: usize,
    },
    /// The text of a QR code is damaged.
    #[error("the code is damaged; scan it again")]
    Code,
    /// Every word is on the list, and one of them is not the one that was written.
    #[error("the checksum does not fit: a word is wrong, or two changed places")]
    Checksum,
    /// A sheet of another recovery key.
    #[error(
        "this paper is of another recovery key, one that begins with {got}; this one begins with {expected}"
    )]
    OtherRecovery {
        /// The beginning of this recovery key's name.
        expected: String,
        /// What stands on paper.
        got: String,
    },
}

/// What stands on paper.
pub(crate) struct Paper {
    pub(crate) index: u8,
    name: [u8; NAME_BYTES],
    pub(crate) value: Value,
}

impl Paper {
    /// Whether it is a share of this recovery key.
    pub(crate) fn belongs_to(&self, recovery: Hash) -> Result<(), PaperError> {
        let expected = name(recovery);
        if self.name == expected {
            return Ok(());
        }
        let hex = |bytes: [u8; NAME_BYTES]| crate::grouped(&bytes);
        Err(PaperError::OtherRecovery { expected: hex(expected), got: hex(self.name) })
    }
}

fn name(recovery: Hash) -> [u8; NAME_BYTES] {
    let [a, b, c, d, ..] = recovery.0;
    [a, b, c, d]
}

fn checksum(content: &[u8]) -> [u8; CHECKSUM_BYTES] {
    let mut sum = [0; CHECKSUM_BYTES];
    sum.copy_from_slice(&hash::sha384(labels::SHARE_CHECKSUM, &[content]).0[..CHECKSUM_BYTES]);
    sum
}

fn to_bytes(recovery: Hash, index: u8, value: &[u8; SECRET_BYTES]) -> Zeroizing<[u8; PAPER_BYTES]> {
    let mut bytes = Zeroizing::new([0; PAPER_BYTES]);
    bytes[0] = index;
    bytes[1..1 + NAME_BYTES].copy_from_slice(&name(recovery));
    bytes[1 + NAME_BYTES..PAPER_BYTES - CHECKSUM_BYTES].copy_from_slice(value);
    let sum = checksum(&bytes[..PAPER_BYTES - CHECKSUM_BYTES]);
    bytes[PAPER_BYTES - CHECKSUM_BYTES..].copy_from_slice(&sum);
    bytes
}

fn from_bytes(bytes: &[u8; PAPER_BYTES]) -> Result<Paper, PaperError> {
    let (content, sum) = bytes.split_at(PAPER_BYTES - CHECKSUM_BYTES);
    if checksum(content) != sum {
        return Err(PaperError::Checksum);
    }
    let mut paper =
        Paper { index: bytes[0], name: [0; NAME_BYTES], value: Box::new(Zeroizing::new([0; SECRET_BYTES])) };
    paper.name.copy_from_slice(&content[1..1 + NAME_BYTES]);
    paper.value.copy_from_slice(&content[1 + NAME_BYTES..]);
    Ok(paper)
}

pub(crate) fn to_words(recovery: Hash, index: u8, value: &[u8; SECRET_BYTES]) -> Zeroizing<String> {
    let bytes = to_bytes(recovery, index, value);
    // The longest words have eight letters.
    let mut text = Zeroizing::new(String::with_capacity(WORDS * 9));
    for number in 0..WORDS {
        let mut word = 0;
        for bit in number * WORD_BITS..(number + 1) * WORD_BITS {
            let set = bytes.get(bit / 8).is_some_and(|byte| byte >> (7 - bit % 8) & 1 == 1);
            word = word << 1 | usize::from(set);
        }
        if number > 0 {
            text.push(' ');
        }
        text.push_str(LIST.get(word).copied().unwrap_or_default());
    }
    text
}

pub(crate) fn to_code(recovery: Hash, index: u8, value: &[u8; SECRET_BYTES]) -> Zeroizing<String> {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    let bytes = to_bytes(recovery, index, value);
    let mut text = Zeroizing::new(String::with_capacity(CODE_PREFIX.len() + 2 * PAPER_BYTES));
    text.push_str(CODE_PREFIX);
    for byte in bytes.iter() {
        text.push(char::from(DIGITS[usize::from(byte >> 4)]));
        text.push(char::from(DIGITS[usize::from(byte & 15)]));
    }
    text
}

/// Reads words, in any case, with numbers and line breaks between them as they stand on the sheet, each at least by its
/// first four letters; or the text of a QR code.
pub(crate) fn read(text: &str) -> Result<Paper, PaperError> {
    let text = text.trim();
    if let Some(code) = text.strip_prefix(CODE_PREFIX) {
        return read_code(code.trim());
    }
    let mut bytes = Zeroizing::new([0; PAPER_BYTES]);
    let mut count = 0;
    let words = text
        .split(|c: char| !c.is_alphabetic())
        .filter(|word| !word.is_empty())
        .map(|word| Zeroizing::new(word.to_lowercase()));
    for word in words {
        count += 1;
        if count > WORDS {
            continue;
        }
        let value = lookup(&word).ok_or(PaperError::Word { number: count })?;
        for bit in 0..WORD_BITS {
            if value >> (WORD_BITS - 1 - bit) & 1 == 1 {
                let at = (count - 1) * WORD_BITS + bit;
                // The two bits beyond the end are 0 in what was written.
                *bytes.get_mut(at / 8).ok_or(PaperError::Checksum)? |= 1 << (7 - at % 8);
            }
        }
    }
    if count != WORDS {
        return Err(PaperError::Count { got: count });
    }
    from_bytes(&bytes)
}

fn read_code(code: &str) -> Result<Paper, PaperError> {
    let digits = code.as_bytes();
    let mut bytes = Zeroizing::new([0; PAPER_BYTES]);
    if digits.len() != 2 * PAPER_BYTES {
        return Err(PaperError::Code);
    }
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        let digit = |at: usize| char::from(pair[at]).to_digit(16).ok_or(PaperError::Code);
        *byte = u8::try_from(digit(0)? * 16 + digit(1)?).map_err(|_| PaperError::Code)?;
    }
    from_bytes(&bytes).map_err(|_| PaperError::Code)
}

/// The place of a word in the list: the whole word, or its first four letters or more.
fn lookup(word: &str) -> Option<usize> {
    if let Ok(at) = LIST.binary_search(&word) {
        return Some(at);
    }
    let at = LIST.partition_point(|known| *known < word);
    LIST.get(at).filter(|known| word.len() >= 4 && known.starts_with(word)).map(|_| at)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const RECOVERY: Hash = Hash([0xC0; 48]);

    fn told(read: Result<Paper, PaperError>) -> PaperError {
        read.map(|_| ()).unwrap_err()
    }

    #[test]
    fn the_list_is_the_one_of_bip_39() {
        assert_eq!(LIST.len(), 2048);
        assert_eq!((LIST[0], LIST[2047]), ("abandon", "zoo"));
        assert!(LIST.is_sorted());
        let mut beginnings: Vec<&str> = LIST.iter().map(|word| word.get(..4).unwrap_or(word)).collect();
        beginnings.dedup();
        assert_eq!(beginnings.len(), 2048, "four letters tell a word");
        assert!(LIST.iter().all(|word| word.len() <= 8 && word.bytes().all(|b| b.is_ascii_lowercase())));
    }

    #[test]
    fn a_slip_is_named() {
        let text = to_words(RECOVERY, 3, &[0x5A; SECRET_BYTES]);
        let words: Vec<&str> = text.split(' ').collect();
        assert_eq!(words.len(), WORDS);
        let with = |at: usize, word: &str| {
            let mut words = words.clone();
            words[at] = word;
            words.join(" ")
        };
        assert_eq!(told(read(&with(10, "zixt"))), PaperError::Word { number: 11 });
        assert_eq!(
            told(read(&with(20, if words[20] == "zoo" { "zone" } else { "zoo" }))),
            PaperError::Checksum
        );
        assert_eq!(told(read(&words[1..].join(" "))), PaperError::Count { got: 53 });
        assert_eq!(told(read(&[&words[..], &["zoo"]].concat().join(" "))), PaperError::Count { got: 55 });
        assert_eq!(told(read("")), PaperError::Count { got: 0 });
        assert_eq!(told(read(&with(53, "zoo"))), PaperError::Checksum);
    }

    #[test]
    fn paper_of_another_key_is_told() {
        let paper = read(&to_words(RECOVERY, 1, &[1; SECRET_BYTES])).unwrap();
        assert_eq!(paper.belongs_to(RECOVERY), Ok(()));
        let refused = paper.belongs_to(Hash([0xC1; 48])).unwrap_err();
        assert!(refused.to_string().contains("c0c0 c0c0"), "{refused}");
    }

    proptest! {
        #[test]
        fn words_and_code_round_trip(value in prop::array::uniform32(any::<u8>()), index: u8) {
            let value: [u8; SECRET_BYTES] = [value, value.map(|b| b ^ 0x77)].concat().try_into().unwrap();
            let words = to_words(RECOVERY, index, &value);
            let sheet: String = words
                .split(' ')
                .enumerate()
                .map(|(n, word)| format!("{:2}. {}\t", n + 1, word.to_uppercase()))
                .collect();
            let short: Vec<&str> = words.split(' ').map(|word| word.get(..4).unwrap_or(word)).collect();
            for text in [&*words, &sheet, &short.join("\n"), &*to_code(RECOVERY, index, &value)] {
                let paper = read(text).unwrap();
                prop_assert_eq!(paper.index, index);
                prop_assert_eq!(**paper.value, value);
            }
        }

        #[test]
        fn a_changed_code_is_refused(at: prop::sample::Index, digit in 0u32..16) {
            let code = to_code(RECOVERY, 1, &[9; SECRET_BYTES]);
            let at = CODE_PREFIX.len() + at.index(code.len() - CODE_PREFIX.len());
            let digit = char::from_digit(digit, 16).unwrap().to_ascii_uppercase().to_string();
            prop_assume!(code[at..=at] != digit);
            let mut other = code.to_string();
            other.replace_range(at..=at, &digit);
            prop_assert_eq!(told(read(&other)), PaperError::Code);
        }

        #[test]
        fn arbitrary_text_never_panics(text: String) {
            let _ = read(&text);
            let _ = read(&format!("{CODE_PREFIX}{text}"));
        }
    }
}
