//! Passwords that are tried first (SP 800-63B-4 section 3.1.1.2): the whole password is compared, not parts of it.

use unicode_normalization::UnicodeNormalization as _;
use zeroize::Zeroizing;
use zixt_crypto::{hash, labels};
use zixt_types::limits;

use crate::password::Password;

/// A few hundred that every list of breached passwords begins with. An organisation adds its own list.
const BUILT_IN: &str = include_str!("blocklist.txt");
/// Words of the service itself.
const SERVICE: &[&str] = &["zixt"];

/// A set of passwords that nobody may choose, each kept as the first 8 bytes of its hash: a false match is as likely as
/// one in 10^13 for a list of a million.
#[derive(Clone, Debug)]
pub struct Blocklist(Vec<u64>);

impl Blocklist {
    /// The built-in list and, line by line, an organisation's own. Lines beyond
    /// [`limits::BLOCKLIST_ENTRIES_MAX`] are left out; such lists are sorted by how common their passwords are.
    #[must_use]
    pub fn new(own: &str) -> Self {
        let lines = BUILT_IN.lines().chain(own.lines()).map(str::trim).filter(|line| !line.is_empty());
        let mut found: Vec<u64> =
            lines.take(limits::BLOCKLIST_ENTRIES_MAX).map(|line| tag(&plain(line))).collect();
        found.sort_unstable();
        found.dedup();
        Self(found)
    }

    /// How many passwords it holds.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Never: the built-in list is always there.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Why this password must not be chosen, if so.
    #[must_use]
    pub fn finds(&self, password: &Password, own_words: &[&str]) -> Option<&'static str> {
        let text = plain(password.as_str());
        if self.0.binary_search(&tag(&text)).is_ok() {
            return Some("it is on the list of common passwords");
        }
        if is_repeated(&text) {
            return Some("it repeats a few characters");
        }
        if is_run(&text) {
            return Some("it counts up or down");
        }
        if own_words.iter().chain(SERVICE).any(|word| is_derived(&text, &plain(word))) {
            return Some("it is made of a name that goes with the account");
        }
        None
    }
}

/// Without case, as guessers try it.
fn plain(text: &str) -> Zeroizing<String> {
    let mut plain = Zeroizing::new(String::with_capacity(3 * text.len()));
    for c in text.nfc() {
        plain.extend(c.to_lowercase());
    }
    plain
}

fn tag(text: &str) -> u64 {
    let digest = hash::sha384(labels::BLOCKLIST, &[text.as_bytes()]);
    digest.as_bytes().iter().take(8).fold(0, |tag, byte| tag << 8 | u64::from(*byte))
}

/// One piece of up to four characters, over and over.
fn is_repeated(text: &str) -> bool {
    let chars = Zeroizing::new(text.chars().collect::<Vec<_>>());
    (1..=4).any(|n| chars.len() > n && chars.iter().skip(n).zip(chars.iter()).all(|(c, before)| c == before))
}

/// Each character follows the one before, up or down.
fn is_run(text: &str) -> bool {
    let steps = |by: i64| {
        let codes = text.chars().map(|c| i64::from(u32::from(c)));
        text.chars().count() > 2 && codes.clone().zip(codes.skip(1)).all(|(a, b)| b - a == by)
    };
    steps(1) || steps(-1)
}

/// The word, once or more, with nothing else than digits and punctuation.
fn is_derived(text: &str, word: &str) -> bool {
    if word.chars().count() < 3 {
        return false;
    }
    text.contains(word) && text.split(word).all(|rest| !rest.chars().any(char::is_alphabetic))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_tried_first_is_found() {
        let list = Blocklist::new("Our Very Own Password\n\n");
        for (text, own) in [
            ("PasswordPassword", vec![]),
            ("123456789012345", vec![]),
            ("our very own password", vec![]),
            ("aaaaaaaaaaaaaaa", vec![]),
            ("abcabcabcabcabcab", vec![]),
            ("abcdefghijklmno", vec![]),
            ("zyxwvutsrqponml", vec![]),
            ("Zixt-2026-2027-2028", vec![]),
            ("alice.alice!2026", vec!["Alice"]),
        ] {
            let found = list.finds(&Password::parse(text).unwrap(), &own);
            assert!(found.is_some(), "{text}");
        }
    }

    #[test]
    fn nothing_is_composed_by_rule() {
        let list = Blocklist::new("");
        for text in ["tall trees lean west", "ааббввггддеежжззий", "alice likes old maps", "zzzzzzzzzzzzzzza"]
        {
            assert_eq!(list.finds(&Password::parse(text).unwrap(), &["alice", "al"]), None, "{text}");
        }
    }

    #[test]
    fn the_built_in_list_is_sorted_and_has_only_what_could_be_chosen() {
        let lines: Vec<_> = BUILT_IN.lines().collect();
        assert!(lines.windows(2).all(|pair| pair[0] < pair[1]));
        assert!(lines.iter().all(|line| line.chars().count() >= 8 && *line == line.to_lowercase()));
        assert_eq!(Blocklist::new("").len(), lines.len());
    }
}
