//! Distinguished names (RFC 4514) in one spelling, so that a member of a group is found among the entries.

use crate::limits;

/// A distinguished name in one spelling: lower case, without spaces beside separators, escapes undone and done again
/// in one way. Two names that a directory tells apart by case alone become one; whoever compares people by them has
/// to treat two entries with one name as a fault.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) struct Dn(Box<str>);

impl Dn {
    /// `None` if it is empty, too long, or none.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        if text.is_empty() || text.len() > limits::DN_BYTES_MAX {
            return None;
        }
        let mut out = String::with_capacity(text.len());
        let mut rest = text;
        loop {
            let (kind, after) = rest.split_once('=')?;
            let kind = kind.trim_matches(' ');
            let is_kind = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'.';
            if kind.is_empty() || !kind.bytes().all(is_kind) {
                return None;
            }
            out.push_str(&kind.to_ascii_lowercase());
            out.push('=');
            let (value, separator, after) = value(after)?;
            push_value(&value, &mut out);
            let Some(separator) = separator else { break };
            out.push(separator);
            rest = after;
        }
        Some(Self(out.into()))
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it is this one or lies below it.
    pub(crate) fn is_within(&self, base: &Self) -> bool {
        self.0.strip_suffix(base.as_str()).is_some_and(|rest| rest.is_empty() || rest.ends_with(','))
    }
}

/// The value at the start of `text` with its escapes undone, the separator after it, and what follows.
fn value(text: &str) -> Option<(Vec<u8>, Option<char>, &str)> {
    let text = text.trim_start_matches(' ');
    let bytes = text.as_bytes();
    let mut value = Vec::new();
    // Spaces at the end do not count, except one that is escaped.
    let mut kept = 0;
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        match byte {
            b',' | b';' | b'+' => {
                value.truncate(kept);
                let separator = if byte == b'+' { '+' } else { ',' };
                return Some((value, Some(separator), text.get(at + 1..)?));
            }
            b'\\' => {
                let next = *bytes.get(at + 1)?;
                let pair = bytes.get(at + 1..at + 3).and_then(hex);
                at += if pair.is_some() { 3 } else { 2 };
                value.push(pair.unwrap_or(next));
                kept = value.len();
            }
            _ => {
                value.push(byte);
                at += 1;
                if byte != b' ' {
                    kept = value.len();
                }
            }
        }
    }
    value.truncate(kept);
    Some((value, None, ""))
}

fn hex(pair: &[u8]) -> Option<u8> {
    let text = std::str::from_utf8(pair).ok()?;
    u8::from_str_radix(text, 16).ok().filter(|_| text.len() == 2 && !text.starts_with('+'))
}

fn push_value(value: &[u8], out: &mut String) {
    use std::fmt::Write as _;
    let hex = |bytes: &[u8], out: &mut String| {
        for byte in bytes {
            // Writing to a String cannot fail.
            let _ = write!(out, "\\{byte:02x}");
        }
    };
    let Ok(text) = std::str::from_utf8(value) else { return hex(value, out) };
    let mut chars = text.chars().flat_map(char::to_lowercase).peekable();
    let mut before = None;
    while let Some(c) = chars.next() {
        let at_an_end = before.is_none() || chars.peek().is_none();
        // Several spaces inside are compared like one (RFC 4518 section 2.6.1).
        if c == ' ' && before == Some(' ') && !at_an_end {
            continue;
        }
        before = Some(c);
        if c == ' ' && at_an_end
            || matches!(c, ',' | ';' | '+' | '=' | '\\' | '"' | '<' | '>' | '#')
            || c.is_control()
        {
            hex(c.encode_utf8(&mut [0; 4]).as_bytes(), out);
        } else {
            out.push(c);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn spelled(text: &str) -> Option<String> {
        Dn::parse(text).map(|dn| dn.as_str().to_owned())
    }

    #[test]
    fn one_name_has_one_spelling() {
        for (one, other) in [
            ("CN=Ann Smith, OU=People,DC=x", "cn=ann  smith,ou=people , dc=X"),
            ("cn=Smith\\, Ann,dc=x", "CN=Smith\\2C Ann,DC=x"),
            ("cn=a+sn=b,dc=x", "CN=A + SN=B;DC=X"),
            ("cn=\u{c4}rger,dc=x", "cn=\u{e4}RGER,dc=x"),
            ("cn=\\C3\\84rger,dc=x", "cn=\u{e4}rger,dc=x"),
            ("2.5.4.3=a,dc=x", "2.5.4.3=A,dc=x"),
        ] {
            assert_eq!(spelled(one), spelled(other), "{one}");
            assert!(spelled(one).is_some());
        }
        assert_ne!(spelled("cn=a\\,ou=b,dc=x"), spelled("cn=a,ou=b,dc=x"), "a comma that is part of a value");
        assert_ne!(spelled("cn=a\\ ,dc=x"), spelled("cn=a,dc=x"), "an escaped space at the end");
        for none in ["", "x", "=a", "cn=a,", "cn=a,dc", "c n=a", "cn=a\\"] {
            assert_eq!(spelled(none), None, "{none}");
        }
        assert_eq!(spelled(&format!("cn={}", "a".repeat(limits::DN_BYTES_MAX))), None);
    }

    #[test]
    fn below_a_base() {
        let dn = |text| Dn::parse(text).unwrap();
        let base = dn("ou=People,dc=x");
        assert!(dn("cn=a,OU=people,dc=x").is_within(&base));
        assert!(base.is_within(&base));
        assert!(!dn("cn=a,xou=people,dc=x").is_within(&base));
        assert!(!dn("cn=a\\,ou=people,dc=x").is_within(&base), "the comma belongs to the value");
    }

    proptest! {
        #[test]
        fn spelling_is_stable(text in "\\PC{0,40}") {
            if let Some(once) = Dn::parse(&format!("cn={text}")) {
                let twice = Dn::parse(once.as_str());
                prop_assert_eq!(twice, Some(once));
            }
        }
    }
}
