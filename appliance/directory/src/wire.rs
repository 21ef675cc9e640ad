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

const STARTTLS_OID: &[u8] = b"1.3.6.1.4.1.1466.20037";

/// The result of an operation (RFC 4511 section 4.1.9).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LdapResult {
    pub(crate) code: u32,
    /// The server's explanation, cut, without control characters. For the record alone.
    pub(crate) diagnostic: String,
}

/// A request to sign in with a password (RFC 4511 section 4.2). Its memory is wiped.
pub(crate) fn bind_request(message: u8, dn: &str, password: &[u8]) -> Zeroizing<Vec<u8>> {
    let length = element_length(1) + element_length(dn.len()) + element_length(password.len());
    // As long as it will be, so that no copy of the password stays behind in a smaller buffer.
    let mut out = Zeroizing::new(Vec::with_capacity(length + 32));
    out.push(SEQUENCE);
    push_length(&mut out, element_length(1) + element_length(length));
    push(&mut out, INTEGER, &[message]);
    out.push(BIND_REQUEST);
    push_length(&mut out, length);
    push(&mut out, INTEGER, &[3]);
    push(&mut out, OCTETS, dn.as_bytes());
    push(&mut out, SIMPLE, password);
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
    let mut body = Reader(response(message, expected, BIND_RESPONSE)?);
    let result = body.result()?;
    // serverSaslCreds: not asked for, and ignored.
    if !body.0.is_empty() {
        body.expect(0x87, "the end of a bind's answer")?;
        body.end("the end of a bind's answer")?;
    }
    Ok(result)
}

/// The answer to [`starttls_request`].
pub(crate) fn starttls_answer(message: &[u8], expected: u8) -> Result<LdapResult, WireError> {
    let mut body = Reader(response(message, expected, EXTENDED_RESPONSE)?);
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

fn response(message: &[u8], expected: u8, kind: u8) -> Result<&[u8], WireError> {
    let mut message = Reader(message);
    let mut inside = Reader(message.expect(SEQUENCE, "a message")?);
    message.end("a message")?;
    if inside.expect(INTEGER, "a message's number")? != [expected] {
        return Err(WireError::Malformed("an answer to another request"));
    }
    let body = inside.expect(kind, "the answer that was asked for")?;
    inside.controls()?;
    Ok(body)
}

/// Walks through a message that answers a search: an entry, a reference or the end. Every length, tag and text is
/// what the protocol has there, up to the last byte.
pub(crate) fn check_search_answer(message: &[u8]) -> Result<(), WireError> {
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
    match kind {
        SEARCH_ENTRY => {
            body.text("an entry's name")?;
            let mut attributes = Reader(body.expect(SEQUENCE, "an entry's attributes")?);
            while !attributes.0.is_empty() {
                let mut attribute = Reader(attributes.expect(SEQUENCE, "an attribute")?);
                attribute.text("an attribute's name")?;
                let mut values = Reader(attribute.expect(SET, "an attribute's values")?);
                while !values.0.is_empty() {
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
            while !body.0.is_empty() {
                body.text("a reference")?;
            }
        }
        _ => return Err(WireError::Malformed("an entry, a reference or the end of a search")),
    }
    body.end("the end of an operation")?;
    inside.controls()
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
            while !referral.0.is_empty() {
                referral.text("a referral")?;
            }
        }
        Ok(LdapResult { code, diagnostic })
    }

    fn controls(&mut self) -> Result<(), WireError> {
        if self.0.is_empty() {
            return Ok(());
        }
        let mut controls = Reader(self.expect(CONTROLS, "controls")?);
        while !controls.0.is_empty() {
            let mut control = Reader(controls.expect(SEQUENCE, "a control")?);
            control.text("a control's name")?;
            if control.0.first() == Some(&BOOLEAN)
                && control.expect(BOOLEAN, "a control's weight")?.len() != 1
            {
                return Err(WireError::Malformed("a control's weight"));
            }
            if !control.0.is_empty() {
                control.expect(OCTETS, "a control's value")?;
            }
            control.end("a control")?;
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
            b"\x30\x12\x02\x01\x01\x60\x0d\x02\x01\x03\x04\x04cn=a\x80\x02pw"
        );
        let long = bind_request(2, &"d".repeat(300), &[b'p'; 200]);
        assert_eq!(long[..4], [0x30, 0x82, 0x02, 0x05]);
        assert_eq!(long.len(), 4 + 0x205);
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
            assert_eq!(check_search_answer(&good), Ok(()));
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
