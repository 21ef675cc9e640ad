//! LDAP messages (RFC 4511 section 5.1) as far as this crate reads and writes them itself: the sign-in of an
//! account, StartTLS, and the check of everything that a server sends before `ldap3` sees it.
//!
//! `ldap3` takes a server at its word: it parses without a bound on nesting and unwraps what a server may leave out.
//! So nothing reaches it that [`check_search_answer`] has not walked through to the last byte.

use thiserror::Error;
use tokio::io::{AsyncRead, AsyncReadExt};
use zeroize::Zeroizing;

use crate::limits;

/// What is wrong with a message of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum WireError {
    /// It claims more bytes than are taken.
    #[error("a message of {got} bytes; at most {max} are taken")]
    TooLong {
        /// Bytes that it claims.
        got: u64,
        /// Bytes allowed.
        max: usize,
    },
    /// It is no message of the protocol, or of another kind than was asked for.
    #[error("not what RFC 4511 has here: {0}")]
    Malformed(&'static str),
    /// It has more elements than are taken, each of which costs more in memory than on the wire.
    #[error("a message of more than {max} elements")]
    TooManyElements {
        /// Elements allowed.
        max: usize,
    },
    /// More came in one synchronisation than any directory has.
    #[error("more than {max} bytes in one exchange")]
    Budget {
        /// Bytes allowed.
        max: u64,
    },
}

const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const INTEGER: u8 = 0x02;
const OCTETS: u8 = 0x04;
const BOOLEAN: u8 = 0x01;
const ENUMERATED: u8 = 0x0a;
const BIND_REQUEST: u8 = 0x60;
const BIND_RESPONSE: u8 = 0x61;
const SEARCH_ENTRY: u8 = 0x64;
const SEARCH_DONE: u8 = 0x65;
const SEARCH_REFERENCE: u8 = 0x73;
const EXTENDED_REQUEST: u8 = 0x77;
const EXTENDED_RESPONSE: u8 = 0x78;
const SIMPLE: u8 = 0x80;
const REFERRAL: u8 = 0xa3;
const CONTROLS: u8 = 0xa0;

/// Request and response of a password policy (draft-behera-ldap-password-policy-10 section 6).
const PASSWORD_POLICY_OID: &str = "1.3.6.1.4.1.42.2.27.8.5.1";
/// Netscape's control: the password has expired, and has to be changed (draft-vchu-ldap-pwd-policy-00).
const PASSWORD_EXPIRED_OID: &str = "2.16.840.1.113730.3.4.4";

const STARTTLS_OID: &[u8] = b"1.3.6.1.4.1.1466.20037";

/// The result of an operation (RFC 4511 section 4.1.9).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LdapResult {
    pub(crate) code: u32,
    /// The server's explanation, cut, without control characters. For the record alone.
    pub(crate) diagnostic: String,
    /// What a server said of a password beside the code.
    pub(crate) password: PasswordState,
}

/// What a server says of a password that it takes. OpenLDAP, 389 Directory Server and FreeIPA answer with success where the
/// password has expired or was reset, and then allow nothing but a change of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum PasswordState {
    /// Nothing that keeps anybody out.
    #[default]
    Good,
    /// It has expired; sign-ins that are left until it is changed included.
    Expired,
    /// It was reset by somebody else, and has to be changed.
    MustChange,
}

/// A request to sign in with a password (RFC 4511 section 4.2). It asks what the server's policy says of the password, in a
/// control that is not critical: who does not know it says nothing. Its memory is wiped.
pub(crate) fn bind_request(message: u8, dn: &str, password: &[u8]) -> Zeroizing<Vec<u8>> {
    let length = element_length(1) + element_length(dn.len()) + element_length(password.len());
    // As long as it will be, so that no copy of the password stays behind in a smaller buffer.
    let mut out = Zeroizing::new(Vec::with_capacity(length + 96));
    let mut name = Vec::new();
    push(&mut name, OCTETS, PASSWORD_POLICY_OID.as_bytes());
    let mut control = Vec::new();
    push(&mut control, SEQUENCE, &name);
    out.push(SEQUENCE);
    push_length(&mut out, element_length(1) + element_length(length) + element_length(control.len()));
    push(&mut out, INTEGER, &[message]);
    out.push(BIND_REQUEST);
    push_length(&mut out, length);
    push(&mut out, INTEGER, &[3]);
    push(&mut out, OCTETS, dn.as_bytes());
    push(&mut out, SIMPLE, password);
    push(&mut out, CONTROLS, &control);
    out
}

/// A request for TLS on this connection (RFC 4511 section 4.14).
pub(crate) fn starttls_request(message: u8) -> Vec<u8> {
    let mut name = Vec::new();
    push(&mut name, 0x80, STARTTLS_OID);
    let mut body = Vec::new();
    push(&mut body, INTEGER, &[message]);
    push(&mut body, EXTENDED_REQUEST, &name);
    let mut out = Vec::new();
    push(&mut out, SEQUENCE, &body);
    out
}

/// The farewell (RFC 4511 section 4.3).
pub(crate) const fn unbind_request(message: u8) -> [u8; 7] {
    [SEQUENCE, 5, INTEGER, 1, message, 0x42, 0]
}

/// The control value of a page (RFC 2696): `SEQUENCE { size INTEGER, cookie OCTET STRING }`. Gives the cookie.
pub(crate) fn page_cookie(value: &[u8]) -> Result<Vec<u8>, WireError> {
    let mut value = Reader(value);
    let mut inside = Reader(value.expect(SEQUENCE, "a page's control")?);
    inside.expect(INTEGER, "a page's size")?;
    let cookie = inside.expect(OCTETS, "a page's cookie")?;
    inside.end("a page's control")?;
    value.end("a page's control")?;
    if cookie.len() > limits::COOKIE_BYTES_MAX {
        return Err(WireError::TooLong { got: cookie.len() as u64, max: limits::COOKIE_BYTES_MAX });
    }
    Ok(cookie.to_vec())
}

/// Reads one whole message, of at most `max` bytes; `None` where the connection ends between messages. It is not
/// buffered beyond the message: after StartTLS the next byte belongs to TLS.
pub(crate) async fn read_message(
    from: &mut (impl AsyncRead + Unpin),
    max: usize,
) -> std::io::Result<Option<Result<Vec<u8>, WireError>>> {
    let mut head = [0; 6];
    if from.read(&mut head[..1]).await? == 0 {
        return Ok(None);
    }
    if head[0] != SEQUENCE {
        return Ok(Some(Err(WireError::Malformed("a message begins with a sequence"))));
    }
    from.read_exact(&mut head[1..2]).await?;
    let (length, head_bytes) = match head[1] {
        short @ 0..=0x7f => (u64::from(short), 2),
        // RFC 4511 section 5.1: the definite form alone. Four bytes count to 4 GiB, which is beyond any bound of ours.
        long @ 0x81..=0x84 => {
            let bytes = usize::from(long & 0x7f);
            from.read_exact(&mut head[2..2 + bytes]).await?;
            let length = head[2..2 + bytes].iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte));
            (length, 2 + bytes)
        }
        _ => return Ok(Some(Err(WireError::Malformed("a length of the definite form, of at most 4 bytes")))),
    };
    if length > max as u64 {
        return Ok(Some(Err(WireError::TooLong { got: length, max })));
    }
    // Grows with what arrives, not with what was announced.
    let mut message = head[..head_bytes].to_vec();
    let got = from.take(length).read_to_end(&mut message).await?;
    if (got as u64) < length {
        return Err(std::io::ErrorKind::UnexpectedEof.into());
    }
    Ok(Some(Ok(message)))
}

/// The answer to [`bind_request`].
pub(crate) fn bind_answer(message: &[u8], expected: u8) -> Result<LdapResult, WireError> {
    let mut password = PasswordState::Good;
    let body = response(message, expected, BIND_RESPONSE, &mut |name, value| {
        let said = match name {
            PASSWORD_EXPIRED_OID => PasswordState::Expired,
            PASSWORD_POLICY_OID => password_policy(value)?,
            _ => return Ok(()),
        };
        if said != PasswordState::Good {
            password = said;
        }
        Ok(())
    })?;
    let mut body = Reader(body);
    let result = LdapResult { password, ..body.result()? };
    // serverSaslCreds: not asked for, and ignored.
    if !body.0.is_empty() {
        body.expect(0x87, "the end of a bind's answer")?;
        body.end("the end of a bind's answer")?;
    }
    Ok(result)
}

/// The answer to [`starttls_request`].
pub(crate) fn starttls_answer(message: &[u8], expected: u8) -> Result<LdapResult, WireError> {
    let mut body = Reader(response(message, expected, EXTENDED_RESPONSE, &mut |_, _| Ok(()))?);
    let result = body.result()?;
    if body.0.first() == Some(&0x8a) {
        body.expect(0x8a, "the name of an extended answer")?;
    }
    if !body.0.is_empty() {
        body.expect(0x8b, "the end of an extended answer")?;
        body.end("the end of an extended answer")?;
    }
    Ok(result)
}

/// `SEQUENCE { warning [0] CHOICE { [0] seconds left, [1] sign-ins left } OPTIONAL, error [1] ENUMERATED OPTIONAL }`. What else
/// it says (a lockout, a password that is too short) comes with a code of its own or matters to a change alone.
fn password_policy(value: &[u8]) -> Result<PasswordState, WireError> {
    const WHAT: &str = "what a password policy says";
    if value.is_empty() {
        return Ok(PasswordState::Good);
    }
    let mut value = Reader(value);
    let mut inside = Reader(value.expect(SEQUENCE, WHAT)?);
    value.end(WHAT)?;
    let mut state = PasswordState::Good;
    if inside.0.first() == Some(&0xa0) {
        let mut warning = Reader(inside.expect(0xa0, WHAT)?);
        // Signed in with a password that is over already.
        if warning.any(WHAT)?.0 == 0x81 {
            state = PasswordState::Expired;
        }
        warning.end(WHAT)?;
    }
    if !inside.0.is_empty() {
        match inside.expect(0x81, WHAT)? {
            [0] => state = PasswordState::Expired,
            [2] => state = PasswordState::MustChange,
            _ => {}
        }
        inside.end(WHAT)?;
    }
    Ok(state)
}

/// A control's name and its value; empty where it has none.
type Control<'c> = dyn FnMut(&str, &[u8]) -> Result<(), WireError> + 'c;

fn response<'a>(
    message: &'a [u8],
    expected: u8,
    kind: u8,
    control: &mut Control<'_>,
) -> Result<&'a [u8], WireError> {
    let mut message = Reader(message);
    let mut inside = Reader(message.expect(SEQUENCE, "a message")?);
    message.end("a message")?;
    if inside.expect(INTEGER, "a message's number")? != [expected] {
        return Err(WireError::Malformed("an answer to another request"));
    }
    let body = inside.expect(kind, "the answer that was asked for")?;
    inside.controls(control)?;
    Ok(body)
}

/// Walks through a message that answers a search: an entry, a reference or the end. Every length, tag and text is
/// what the protocol has there, up to the last byte. Gives how many elements an entry has, at most
/// [`limits::ELEMENTS_MAX`].
pub(crate) fn check_search_answer(message: &[u8]) -> Result<usize, WireError> {
    let mut message = Reader(message);
    let mut inside = Reader(message.expect(SEQUENCE, "a message")?);
    message.end("a message")?;
    let number = inside.expect(INTEGER, "a message's number")?;
    // 0 would be a notice that nobody asked for; a negative one does not exist.
    if number.is_empty() || number.len() > 4 || number[0] >= 0x80 || number.iter().all(|byte| *byte == 0) {
        return Err(WireError::Malformed("the number of a request"));
    }
    let (kind, body) = inside.any("an operation")?;
    let mut body = Reader(body);
    let mut elements = 0;
    let mut count = |more: usize| {
        elements += more;
        let max = limits::ELEMENTS_MAX;
        if elements > max { Err(WireError::TooManyElements { max }) } else { Ok(()) }
    };
    match kind {
        SEARCH_ENTRY => {
            body.text("an entry's name")?;
            let mut attributes = Reader(body.expect(SEQUENCE, "an entry's attributes")?);
            while !attributes.0.is_empty() {
                // The attribute, its name and the set of its values.
                count(3)?;
                let mut attribute = Reader(attributes.expect(SEQUENCE, "an attribute")?);
                attribute.text("an attribute's name")?;
                let mut values = Reader(attribute.expect(SET, "an attribute's values")?);
                while !values.0.is_empty() {
                    count(1)?;
                    values.expect(OCTETS, "a value")?;
                }
                attribute.end("an attribute")?;
            }
        }
        SEARCH_DONE => {
            body.result()?;
        }
        SEARCH_REFERENCE => {
            if body.0.is_empty() {
                return Err(WireError::Malformed("a reference that refers"));
            }
            body.references()?;
        }
        _ => return Err(WireError::Malformed("an entry, a reference or the end of a search")),
    }
    body.end("the end of an operation")?;
    inside.controls(&mut |_, _| Ok(()))?;
    Ok(elements)
}

/// Reads elements one after the other. Nothing is nested deeper than the code that reads it.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn any(&mut self, what: &'static str) -> Result<(u8, &'a [u8]), WireError> {
        let malformed = WireError::Malformed(what);
        let [tag, first, rest @ ..] = self.0 else { return Err(malformed) };
        // A number of 31 or more would follow in further bytes; LDAP has none.
        if tag & 0x1f == 0x1f {
            return Err(malformed);
        }
        let (length, rest) = match *first {
            short @ 0..=0x7f => (usize::from(short), rest),
            long @ 0x81..=0x84 => {
                let (length, rest) = rest.split_at_checked(usize::from(long & 0x7f)).ok_or(malformed)?;
                (length.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte)), rest)
            }
            _ => return Err(malformed),
        };
        let (body, rest) = rest.split_at_checked(length).ok_or(malformed)?;
        self.0 = rest;
        Ok((*tag, body))
    }

    fn expect(&mut self, tag: u8, what: &'static str) -> Result<&'a [u8], WireError> {
        match self.any(what)? {
            (found, body) if found == tag => Ok(body),
            _ => Err(WireError::Malformed(what)),
        }
    }

    fn text(&mut self, what: &'static str) -> Result<&'a str, WireError> {
        std::str::from_utf8(self.expect(OCTETS, what)?).map_err(|_| WireError::Malformed(what))
    }

    fn result(&mut self) -> Result<LdapResult, WireError> {
        let code = self.expect(ENUMERATED, "a result's code")?;
        if code.is_empty() || code.len() > 3 || code[0] >= 0x80 {
            return Err(WireError::Malformed("a result's code"));
        }
        let code = code.iter().fold(0, |sum, byte| sum << 8 | u32::from(*byte));
        self.text("a result's matched name")?;
        let diagnostic = printable(self.text("a result's explanation")?, limits::DIAGNOSTIC_BYTES_MAX);
        if self.0.first() == Some(&REFERRAL) {
            let mut referral = Reader(self.expect(REFERRAL, "a referral")?);
            if referral.0.is_empty() {
                return Err(WireError::Malformed("a referral that refers"));
            }
            referral.references()?;
        }
        Ok(LdapResult { code, diagnostic, password: PasswordState::Good })
    }

    fn references(&mut self) -> Result<(), WireError> {
        let mut count = 0;
        while !self.0.is_empty() {
            count += 1;
            if count > limits::REFERENCES_MAX {
                return Err(WireError::TooManyElements { max: limits::REFERENCES_MAX });
            }
            self.text("a reference")?;
        }
        Ok(())
    }

    fn controls(&mut self, each: &mut Control<'_>) -> Result<(), WireError> {
        if self.0.is_empty() {
            return Ok(());
        }
        let mut controls = Reader(self.expect(CONTROLS, "controls")?);
        let mut count = 0;
        while !controls.0.is_empty() {
            count += 1;
            if count > limits::CONTROLS_MAX {
                return Err(WireError::TooManyElements { max: limits::CONTROLS_MAX });
            }
            let mut control = Reader(controls.expect(SEQUENCE, "a control")?);
            let name = control.text("a control's name")?;
            if control.0.first() == Some(&BOOLEAN)
                && control.expect(BOOLEAN, "a control's weight")?.len() != 1
            {
                return Err(WireError::Malformed("a control's weight"));
            }
            let value =
                if control.0.is_empty() { &[][..] } else { control.expect(OCTETS, "a control's value")? };
            control.end("a control")?;
            each(name, value)?;
        }
        self.end("the end of a message")
    }

    fn end(&self, what: &'static str) -> Result<(), WireError> {
        if self.0.is_empty() { Ok(()) } else { Err(WireError::Malformed(what)) }
    }
}

/// A text of a server for the record: cut at a character, control characters as `?`.
pub(crate) fn printable(text: &str, bytes_max: usize) -> String {
    let mut out = String::new();
    for c in text.chars() {
        let c = if c.is_control() { '?' } else { c };
        if out.len() + c.len_utf8() > bytes_max {
            break;
        }
        out.push(c);
    }
    out
}

fn push(out: &mut Vec<u8>, tag: u8, body: &[u8]) {
    out.push(tag);
    push_length(out, body.len());
    out.extend_from_slice(body);
}

fn push_length(out: &mut Vec<u8>, length: usize) {
    let bytes = length.to_be_bytes();
    let skip = bytes.iter().take_while(|byte| **byte == 0).count();
    if length >= 0x80 {
        // At most 8 of them.
        out.push(0x80 | (bytes.len() - skip) as u8);
    }
    out.extend_from_slice(&bytes[skip.min(bytes.len() - 1)..]);
}

fn element_length(body: usize) -> usize {
    let mut head = Vec::with_capacity(9);
    push_length(&mut head, body);
    1 + head.len() + body
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn element(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
        let mut out = Vec::new();
        push(&mut out, tag, &parts.concat());
        out
    }

    fn message(number: u8, parts: &[&[u8]]) -> Vec<u8> {
        let number = element(INTEGER, &[&[number]]);
        element(SEQUENCE, &[&number, &parts.concat()])
    }

    fn result(tag: u8, code: u8, text: &[u8]) -> Vec<u8> {
        let parts = [element(ENUMERATED, &[&[code]]), element(OCTETS, &[]), element(OCTETS, &[text])];
        element(tag, &[&parts.concat()])
    }

    fn entry() -> Vec<u8> {
        let attribute = |name: &[u8], values: &[&[u8]]| {
            let values: Vec<u8> = values.iter().flat_map(|value| element(OCTETS, &[value])).collect();
            element(SEQUENCE, &[&element(OCTETS, &[name]), &element(SET, &[&values])])
        };
        let attributes =
            [attribute(b"uid", &[b"ann"]), attribute(b"jpegPhoto", &[&[0xff; 300], b""])].concat();
        element(SEARCH_ENTRY, &[&element(OCTETS, &[b"uid=ann"]), &element(SEQUENCE, &[&attributes])])
    }

    #[test]
    fn requests_have_the_bytes_of_the_protocol() {
        assert_eq!(
            *bind_request(1, "cn=a", b"pw"),
            b"\x30\x31\x02\x01\x01\x60\x0d\x02\x01\x03\x04\x04cn=a\x80\x02pw\
              \xa0\x1d\x30\x1b\x04\x191.3.6.1.4.1.42.2.27.8.5.1"
        );
        let long = bind_request(2, &"d".repeat(300), &[b'p'; 200]);
        assert_eq!(long[..4], [0x30, 0x82, 0x02, 0x05 + 31]);
        assert_eq!(long.len(), 4 + 0x205 + 31);
        assert_eq!(starttls_request(1), b"\x30\x1d\x02\x01\x01\x77\x18\x80\x161.3.6.1.4.1.1466.20037");
        let unbind = unbind_request(3);
        let mut unbind = Reader(&unbind).expect(SEQUENCE, "").map(Reader).unwrap();
        assert_eq!(unbind.expect(INTEGER, ""), Ok(&[3][..]));
        assert_eq!(unbind.expect(0x42, ""), Ok(&[][..]));
    }

    #[test]
    fn answers_are_read() {
        let bad = message(1, &[&result(BIND_RESPONSE, 49, b"80090308: data 533,\n v1db1")]);
        let answer = bind_answer(&bad, 1).unwrap();
        assert_eq!((answer.code, answer.diagnostic.as_str()), (49, "80090308: data 533,? v1db1"));
        assert!(bind_answer(&bad, 2).is_err(), "another request's");
        assert!(starttls_answer(&bad, 1).is_err(), "another operation's");
        assert_eq!(starttls_answer(&message(1, &[&result(EXTENDED_RESPONSE, 0, b"")]), 1).unwrap().code, 0);
        assert!(bind_answer(&[&bad[..], b"x"].concat(), 1).is_err());
    }

    #[test]
    fn answers_to_a_search_are_walked_through() {
        let entry = entry();
        let cookie = element(SEQUENCE, &[&element(INTEGER, &[&[0]]), &element(OCTETS, &[b"next"])]);
        let name = element(OCTETS, &[b"1.2.840.113556.1.4.319"]);
        let control = element(SEQUENCE, &[&name, &element(OCTETS, &[&cookie])]);
        let done = message(2, &[&result(SEARCH_DONE, 0, b""), &element(CONTROLS, &[&control])]);
        let referred = message(2, &[&element(SEARCH_REFERENCE, &[&element(OCTETS, &[b"ldap://x"])])]);
        for good in [message(2, &[&entry]), done.clone(), referred] {
            assert!(check_search_answer(&good).is_ok());
            for length in 0..good.len() {
                assert!(check_search_answer(&good[..length]).is_err(), "cut to {length}");
            }
            assert!(check_search_answer(&[&good[..], &[0]].concat()).is_err());
        }
        assert_eq!(page_cookie(&cookie), Ok(b"next".to_vec()));
        assert!(page_cookie(&cookie[..7]).is_err());

        for bad in [
            message(0, &[&result(EXTENDED_RESPONSE, 52, b"")]),
            message(0, &[&entry]),
            message(2, &[&result(BIND_RESPONSE, 0, b"")]),
            message(2, &[&element(SEARCH_REFERENCE, &[])]),
            message(2, &[&entry, &entry]),
            message(2, &[&result(SEARCH_DONE, 0, b"\xff")]),
            element(SEQUENCE, &[&element(INTEGER, &[&[1, 0, 0, 0, 0]]), &entry]),
            b"\x30\x80\x02\x01\x02\x00\x00".to_vec(),
        ] {
            assert!(check_search_answer(&bad).is_err(), "{bad:02x?}");
        }
        // Nested as deep as one likes: refused at the first level that does not belong there.
        let nested = (0..10_000).fold(Vec::new(), |inner, _| element(SEQUENCE, &[&inner]));
        assert!(check_search_answer(&message(2, &[&nested])).is_err());
    }

    #[test]
    fn what_is_said_of_a_password_is_heard() {
        use PasswordState::{Expired, Good, MustChange};
        let with = |name: &str, value: Option<&[u8]>| {
            let value = value.map(|value| element(OCTETS, &[value])).unwrap_or_default();
            let control = element(SEQUENCE, &[&element(OCTETS, &[name.as_bytes()]), &value]);
            let answer = message(1, &[&result(BIND_RESPONSE, 0, b""), &element(CONTROLS, &[&control])]);
            bind_answer(&answer, 1).map(|result| result.password)
        };
        let policy = |inside: &[u8]| with(PASSWORD_POLICY_OID, Some(&element(SEQUENCE, &[inside])));
        assert_eq!(with(PASSWORD_EXPIRED_OID, Some(b"0")), Ok(Expired));
        assert_eq!(with(PASSWORD_EXPIRED_OID, None), Ok(Expired));
        assert_eq!(with("2.16.840.1.113730.3.4.5", Some(b"86400")), Ok(Good), "it will expire");
        assert_eq!(with(PASSWORD_POLICY_OID, None), Ok(Good));
        assert_eq!(policy(&[]), Ok(Good));
        assert_eq!(policy(&[0xa0, 3, 0x80, 1, 9]), Ok(Good), "seconds left");
        assert_eq!(policy(&[0xa0, 3, 0x81, 1, 2]), Ok(Expired), "sign-ins left");
        assert_eq!(policy(&[0x81, 1, 0]), Ok(Expired));
        assert_eq!(policy(&[0x81, 1, 2]), Ok(MustChange));
        assert_eq!(policy(&[0x81, 1, 1]), Ok(Good), "locked comes with a code");
        assert_eq!(policy(&[0xa0, 3, 0x80, 1, 9, 0x81, 1, 2]), Ok(MustChange));
        for bad in [&[0xa0, 0][..], &[0x82, 1, 0], &[0x81, 1, 0, 0], &[0xa0, 3, 0x81, 1]] {
            assert!(policy(bad).is_err(), "{bad:02x?}");
        }
    }

    #[test]
    fn elements_are_counted_and_not_bytes_alone() {
        let with = |count: usize| {
            let values = [OCTETS, 0].repeat(count);
            let attribute = element(SEQUENCE, &[&element(OCTETS, &[b"cn"]), &element(SET, &[&values])]);
            let entry = [element(OCTETS, &[b"uid=ann"]), element(SEQUENCE, &[&attribute])].concat();
            check_search_answer(&message(2, &[&element(SEARCH_ENTRY, &[&entry])]))
        };
        let max = limits::ELEMENTS_MAX;
        assert_eq!(with(max - 3), Ok(max));
        assert_eq!(with(max - 2), Err(WireError::TooManyElements { max }));
        let reference = element(OCTETS, &[b"ldap://x"]);
        let referred = |count: usize| message(2, &[&element(SEARCH_REFERENCE, &[&reference.repeat(count)])]);
        assert!(check_search_answer(&referred(limits::REFERENCES_MAX)).is_ok());
        assert!(check_search_answer(&referred(limits::REFERENCES_MAX + 1)).is_err());
        let control = element(SEQUENCE, &[&element(OCTETS, &[b"1.2"])]);
        let controlled = |count: usize| {
            message(2, &[&result(SEARCH_DONE, 0, b""), &element(CONTROLS, &[&control.repeat(count)])])
        };
        assert!(check_search_answer(&controlled(limits::CONTROLS_MAX)).is_ok());
        assert!(check_search_answer(&controlled(limits::CONTROLS_MAX + 1)).is_err());
    }

    proptest! {
        /// What passes the check is what the library can take apart; what does not pass is refused without a panic.
        #[test]
        fn nothing_breaks_the_check(bytes in proptest::collection::vec(any::<u8>(), 0..200), at in 0usize..400, with: u8) {
            let _ = check_search_answer(&bytes);
            let _ = bind_answer(&bytes, 1);
            let _ = page_cookie(&bytes);
            let referral = element(REFERRAL, &[&element(OCTETS, &[b"ldap://x"])]);
            let mut done = result(SEARCH_DONE, 10, b"elsewhere");
            done.extend(&referral);
            done[1] += u8::try_from(referral.len()).unwrap();
            for mut changed in [message(2, &[&entry()]), message(2, &[&done])] {
                let at = at % changed.len();
                changed[at] = with;
                if check_search_answer(&changed).is_err() {
                    continue;
                }
                let (_, tag) = ldap3::asn1::parse_tag(&changed).unwrap();
                let protocol = tag.expect_constructed().unwrap().swap_remove(1);
                match protocol.id {
                    4 => drop(ldap3::SearchEntry::construct(ldap3::ResultEntry::new(protocol))),
                    5 => drop(ldap3::LdapResult::from(ldap3::asn1::Tag::StructureTag(protocol))),
                    id => prop_assert_eq!(id, 19),
                }
            }
        }
    }

    #[tokio::test]
    async fn messages_are_read_to_their_end_and_no_further() {
        let whole = message(1, &[&result(BIND_RESPONSE, 0, b"")]);
        let mut stream = &[&whole[..], b"tls"].concat()[..];
        assert_eq!(read_message(&mut stream, 1000).await.unwrap(), Some(Ok(whole.clone())));
        assert_eq!(stream, b"tls");
        assert_eq!(read_message(&mut &b""[..], 1000).await.unwrap(), None);
        assert!(read_message(&mut &whole[..5], 1000).await.is_err(), "cut");
        let huge = b"\x30\x84\xff\xff\xff\xff";
        let refused = read_message(&mut &huge[..], 1000).await.unwrap();
        assert_eq!(refused, Some(Err(WireError::TooLong { got: 0xffff_ffff, max: 1000 })));
        for bad in [&b"\x31\x00"[..], b"\x30\x80\x00\x00", b"\x30\x85\x00\x00\x00\x00\x01x"] {
            assert!(matches!(
                read_message(&mut &bad[..], 1000).await.unwrap(),
                Some(Err(WireError::Malformed(_)))
            ));
        }
    }
}
