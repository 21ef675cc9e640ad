//! A look at the text of a message before any XML parser sees it.
//!
//! What parsers disagree about does not get to them: document types, processing instructions, comments, CDATA sections,
//! entities of one's own, other encodings. What is left is plain enough for this scanner to count elements exactly, so
//! that there is one response, one assertion, one name and no more signatures than two; where there is one of each,
//! no wrapping can put another in its place.

use std::collections::{HashMap, HashSet};

use super::instant;
use super::wire::{Cause, XML_BYTES_MAX};

/// Elements of a message.
const ELEMENTS_MAX: usize = 4_000;
/// Nesting of a message; the deepest that is sent is some twelve.
const DEPTH_MAX: usize = 32;
/// Attributes of one element.
const ATTRIBUTES_MAX: usize = 32;

/// Attributes that are instants (SAML Core 2.0).
const INSTANTS: [&str; 5] =
    ["IssueInstant", "NotBefore", "NotOnOrAfter", "AuthnInstant", "SessionNotOnOrAfter"];

/// What a message is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    Response,
    LogoutRequest,
    LogoutResponse,
}

impl Kind {
    fn root(self) -> &'static str {
        match self {
            Self::Response => "Response",
            Self::LogoutRequest => "LogoutRequest",
            Self::LogoutResponse => "LogoutResponse",
        }
    }
}

/// Elements that a message never has here, by their local names: encryption, which is not read; and what a signature
/// can hide other content in or fetch keys by (XML Signature 1.1 sections 4.4 and 4.5).
const NEVER: [&str; 12] = [
    "EncryptedAssertion",
    "EncryptedID",
    "EncryptedAttribute",
    "EncryptedData",
    "Object",
    "Manifest",
    "RetrievalMethod",
    "KeyInfoReference",
    "ArtifactResponse",
    "Artifact",
    "Advice",
    "BaseID",
];

/// Reads the text of a message of this kind, or says why no parser is to see it.
pub(crate) fn check(bytes: &[u8], kind: Kind) -> Result<&str, Cause> {
    if bytes.len() > XML_BYTES_MAX {
        return Err(Cause::TooLong);
    }
    let text = std::str::from_utf8(bytes).map_err(|_| Cause::Text)?;
    // XML 1.0 section 2.2; a byte order mark would make some readers guess another encoding.
    let strange = |c: char| {
        (c < ' ' && !matches!(c, '\t' | '\n' | '\r')) || matches!(c, '\u{feff}' | '\u{fffe}' | '\u{ffff}')
    };
    if text.contains(strange) {
        return Err(Cause::Text);
    }
    let body = after_declaration(text)?;
    references(body)?;
    let mut scan = Scan::default();
    scan.run(body)?;
    scan.judge(kind)?;
    Ok(text)
}

/// The text after `<?xml … ?>`, which may stand at the very beginning and may name no encoding but UTF-8.
fn after_declaration(text: &str) -> Result<&str, Cause> {
    let Some(rest) = text.strip_prefix("<?xml ") else { return Ok(text) };
    let (declaration, body) = rest.split_once("?>").ok_or(Cause::Markup)?;
    for word in declaration.split_ascii_whitespace() {
        let (name, value) = word.split_once('=').ok_or(Cause::Markup)?;
        let value = value.trim_matches(['"', '\'']);
        let good = match name {
            "version" => value == "1.0",
            "encoding" => value.eq_ignore_ascii_case("utf-8"),
            "standalone" => matches!(value, "yes" | "no"),
            _ => false,
        };
        if !good {
            return Err(Cause::Text);
        }
    }
    Ok(body)
}

/// The five entities of XML 1.0 section 4.6, and characters by number, which signatures of some providers have.
fn references(text: &str) -> Result<(), Cause> {
    for part in text.split('&').skip(1) {
        let (name, _) = part.split_once(';').ok_or(Cause::Markup)?;
        let by_number = |digits: &str, good: fn(char) -> bool| {
            !digits.is_empty() && digits.len() <= 6 && digits.chars().all(good)
        };
        let good = match name.strip_prefix('#') {
            None => matches!(name, "amp" | "lt" | "gt" | "quot" | "apos"),
            Some(number) => match number.strip_prefix('x') {
                Some(digits) => by_number(digits, |c| c.is_ascii_hexdigit()),
                None => by_number(number, |c| c.is_ascii_digit()),
            },
        };
        if !good {
            return Err(Cause::Markup);
        }
    }
    Ok(())
}

#[derive(Default)]
struct Scan<'a> {
    counts: HashMap<&'a str, usize>,
    root: Option<&'a str>,
    ids: HashSet<&'a str>,
    open: Vec<&'a str>,
    /// The element that was closed last, if nothing was opened since.
    closed: Option<&'a str>,
    elements: usize,
}

impl<'a> Scan<'a> {
    fn run(&mut self, text: &'a str) -> Result<(), Cause> {
        let mut rest = text;
        while let Some(at) = rest.find('<') {
            let outside = &rest[..at];
            if self.open.is_empty() && !outside.trim_ascii().is_empty() {
                return Err(Cause::Xml);
            }
            rest = &rest[at + 1..];
            rest = match rest.as_bytes().first() {
                // Document types, comments, CDATA sections, processing instructions.
                Some(b'!' | b'?') => return Err(Cause::Markup),
                Some(b'/') => self.close(&rest[1..])?,
                _ => self.element(rest)?,
            };
        }
        let closed = self.open.is_empty() && self.root.is_some() && rest.trim_ascii().is_empty();
        if closed { Ok(()) } else { Err(Cause::Xml) }
    }

    fn close(&mut self, text: &'a str) -> Result<&'a str, Cause> {
        let (name, rest) = text.split_once('>').ok_or(Cause::Xml)?;
        let name = name.trim_ascii_end();
        self.closed = Some(local(name)?);
        if self.open.pop() == Some(name) { Ok(rest) } else { Err(Cause::Xml) }
    }

    fn element(&mut self, text: &'a str) -> Result<&'a str, Cause> {
        let (name, mut rest) = name_of(text)?;
        let local = local(name)?;
        if self.open.is_empty() && self.root.replace(local).is_some() {
            return Err(Cause::Xml);
        }
        // SAML Core 2.0 sections 2.3.3 and 3.2: it follows the issuer, in the assertion or in the message itself.
        let parent = self.open.last().map(|open| self::local(open)).transpose()?;
        let in_place = self.closed == Some("Issuer") && (parent == Some("Assertion") || self.open.len() == 1);
        if local == "Signature" && !in_place {
            return Err(Cause::Structure);
        }
        self.closed = None;
        *self.counts.entry(local).or_default() += 1;
        self.elements += 1;
        if self.elements > ELEMENTS_MAX {
            return Err(Cause::TooLong);
        }
        let mut seen = HashSet::new();
        loop {
            let trimmed = rest.trim_ascii_start();
            if let Some(after) = trimmed.strip_prefix("/>") {
                self.closed = Some(local);
                return Ok(after);
            }
            if let Some(after) = trimmed.strip_prefix('>') {
                self.open.push(name);
                return if self.open.len() > DEPTH_MAX { Err(Cause::TooLong) } else { Ok(after) };
            }
            if trimmed.len() == rest.len() {
                return Err(Cause::Xml);
            }
            rest = self.attribute(trimmed, &mut seen)?;
        }
    }

    fn attribute(&mut self, text: &'a str, seen: &mut HashSet<&'a str>) -> Result<&'a str, Cause> {
        let (name, rest) = name_of(text)?;
        if !seen.insert(name) || seen.len() > ATTRIBUTES_MAX {
            return Err(Cause::Xml);
        }
        let rest = rest.trim_ascii_start().strip_prefix('=').ok_or(Cause::Xml)?.trim_ascii_start();
        let quote = rest.chars().next().filter(|c| matches!(c, '"' | '\'')).ok_or(Cause::Xml)?;
        let (value, rest) = rest[1..].split_once(quote).ok_or(Cause::Xml)?;
        if value.contains('<') {
            return Err(Cause::Xml);
        }
        // The library computes with instants before it has looked at a signature, and overflows on some that are none.
        if INSTANTS.contains(&local(name)?) && instant::parse(value).is_none() {
            return Err(Cause::Profile);
        }
        // Also spelled otherwise: what resolves a reference may look for any of them.
        if local(name)?.eq_ignore_ascii_case("id") && !self.ids.insert(value) {
            return Err(Cause::Structure);
        }
        Ok(rest)
    }

    fn judge(&self, kind: Kind) -> Result<(), Cause> {
        let count = |name: &str| self.counts.get(name).copied().unwrap_or_default();
        if self.root != Some(kind.root()) || NEVER.iter().any(|name| count(name) > 0) {
            return Err(Cause::Structure);
        }
        let (responses, assertions, logouts) = match kind {
            Kind::Response => (1, 1, 0),
            Kind::LogoutRequest | Kind::LogoutResponse => (0, 0, 1),
        };
        let as_it_should_be = count("Response") == responses
            && count("Assertion") == assertions
            && count("LogoutRequest") + count("LogoutResponse") == logouts
            && count("Signature") <= 2
            && count("Signature") == count("SignedInfo")
            && count("Signature") == count("Reference")
            && count("Transform") <= 2 * count("Signature")
            && count("NameID") == usize::from(kind != Kind::LogoutResponse)
            && count("Subject") == assertions
            && count("AuthnStatement") == assertions;
        if as_it_should_be { Ok(()) } else { Err(Cause::Structure) }
    }
}

/// The name at the beginning of a text, and what follows it. Only ASCII: the names of SAML and its signatures are.
fn name_of(text: &str) -> Result<(&str, &str), Cause> {
    let end = text
        .find(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, ':' | '_' | '-' | '.')))
        .ok_or(Cause::Xml)?;
    let (name, rest) = text.split_at(end);
    let good = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    if good { Ok((name, rest)) } else { Err(Cause::Xml) }
}

fn local(name: &str) -> Result<&str, Cause> {
    match name.split_once(':') {
        None => Ok(name),
        Some((prefix, local)) if !prefix.is_empty() && !local.is_empty() && !local.contains(':') => Ok(local),
        Some(_) => Err(Cause::Xml),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const GOOD: &str = "<?xml version='1.0' encoding='UTF-8'?>\n<p:Response xmlns:p=\"p\" ID=\"r\"><a:Assertion \
                        ID='a'><a:Subject><a:NameID>x &amp; y&#13;</a:NameID></a:Subject><b/><a:AuthnStatement/></a:Assertion></p:Response>\n";

    fn cause(text: &str) -> Option<Cause> {
        check(text.as_bytes(), Kind::Response).err()
    }

    #[test]
    fn plain_messages_pass() {
        assert_eq!(cause(GOOD), None);
        assert_eq!(
            check(b"<LogoutRequest><NameID>x</NameID></LogoutRequest>", Kind::LogoutRequest).err(),
            None
        );
    }

    #[test]
    fn what_parsers_disagree_about_does_not_pass() {
        let put = |what: &str| GOOD.replace("<b/>", what);
        for what in [
            "<!--x-->",
            "<![CDATA[x]]>",
            "<?x y?>",
            "<!DOCTYPE x>",
            "&x;",
            "&#x;",
            "&#1234567;",
            "& ",
            "&amp",
        ] {
            assert_eq!(cause(&put(what)), Some(Cause::Markup), "{what}");
        }
        for what in [
            "<b",
            "<b>",
            "</b>",
            "<b c></b>",
            "<b c=d/>",
            "<b c='<'/>",
            "<b c=''c=''/>",
            "<b c='1' c='2'/>",
            "<1/>",
            "<a:b:c/>",
            "<:b/>",
            "< b/>",
            "<é/>",
        ] {
            assert_eq!(cause(&put(what)), Some(Cause::Xml), "{what}");
        }
        for text in [
            GOOD.replace("UTF-8", "UTF-16"),
            GOOD.replace("1.0", "1.1"),
            format!("\u{feff}{GOOD}"),
            GOOD.replace("x ", "\0"),
        ] {
            assert_eq!(cause(&text), Some(Cause::Text), "{text}");
        }
        assert_eq!(check(b"<Response>\xff</Response>", Kind::Response).err(), Some(Cause::Text));
        assert_eq!(cause(&format!("{GOOD}<Response/>")), Some(Cause::Xml), "two roots");
        assert_eq!(cause(&format!("x{}", &GOOD[39..])), Some(Cause::Xml), "text before the root");
        assert_eq!(cause(""), Some(Cause::Xml));
    }

    #[test]
    fn there_is_one_of_each() {
        let put = |what: &str| GOOD.replace("<b/>", what);
        for what in [
            "<Assertion/>",
            "<evil:Assertion/>",
            "<Response/>",
            "<NameID/>",
            "<Subject/>",
            "<AuthnStatement/>",
            "<EncryptedAssertion/>",
            "<ds:Object/>",
            "<x ID='a'/>",
            "<x xml:id='r'/>",
            "<Issuer/><x/><Signature><SignedInfo/><Reference/></Signature>",
            "<Issuer/><Signature/>",
            "<c><Issuer/><Signature><SignedInfo/><Reference/></Signature></c>",
            "<LogoutRequest/>",
        ] {
            assert_eq!(cause(&put(what)), Some(Cause::Structure), "{what}");
        }
        assert_eq!(check(GOOD.as_bytes(), Kind::LogoutRequest).err(), Some(Cause::Structure));
    }

    #[test]
    fn instants_are_instants() {
        let put = |value: &str| GOOD.replace("<b/>", &format!("<b NotOnOrAfter='{value}'/>"));
        assert_eq!(cause(&put("2026-11-28T01:00:00.123Z")), None);
        for value in
            ["", "2026J11-28T01:00:00Z", "2026-11-28T01:00:00", "99999999999999999999-01-01T00:00:00Z"]
        {
            assert_eq!(cause(&put(value)), Some(Cause::Profile), "{value}");
        }
    }

    #[test]
    fn sizes_are_bounded() {
        let put = |what: String| GOOD.replace("<b/>", &what);
        assert_eq!(cause(&put("x".repeat(XML_BYTES_MAX))), Some(Cause::TooLong));
        assert_eq!(cause(&put("<b/>".repeat(ELEMENTS_MAX))), Some(Cause::TooLong));
        assert_eq!(cause(&put("<b>".repeat(DEPTH_MAX))), Some(Cause::TooLong));
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "[<>&;!?/:='\"a-cA-C#x \\-\u{e9}]{0,64}") {
            let _ = check(text.as_bytes(), Kind::Response);
        }

        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..128)) {
            let _ = check(&bytes, Kind::Response);
        }
    }
}
