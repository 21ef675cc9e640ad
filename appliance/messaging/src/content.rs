//! What people say: the canonical content of a message, and the commitment to it that the ledger keeps.

use minicbor::{Decode, Encode};
use zeroize::Zeroizing;
use zixt_crypto::{RandomError, digest, fill_random};
use zixt_types::cbor::scan;
use zixt_types::{Canonical, Hash, Height, MessageId, ParseError, limits};

/// The kind of a content. 1 is reserved for messages with attachments.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Encode, Decode)]
#[cbor(index_only)]
pub enum ContentKind {
    /// Text.
    #[n(0)]
    Text,
    /// The conversation's title, as its text: one line of at most [`TITLE_BYTES_MAX`].
    #[n(2)]
    Title,
}

/// Longest title of a conversation, in bytes: a line of a list.
pub const TITLE_BYTES_MAX: usize = 128;

/// A header that the author had verified: members compare them to find a split view.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Encode, Decode)]
#[cbor(array)]
pub struct SeenHeader {
    /// Its height.
    #[n(0)]
    pub height: Height,
    /// Its hash.
    #[n(1)]
    pub hash: Hash,
}

/// A reference to an attachment. Reserved: this version writes and accepts none.
#[derive(Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct AttachmentRef {
    /// Digest of the encrypted attachment.
    #[n(0)]
    pub digest: Hash,
    /// The key that opens it.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub key: [u8; 32],
    /// Its length in bytes.
    #[n(2)]
    pub bytes: u64,
}

impl std::fmt::Debug for AttachmentRef {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AttachmentRef")
            .field("digest", &self.digest)
            .field("bytes", &self.bytes)
            .finish_non_exhaustive()
    }
}

/// The content of a message, as it is committed to, encrypted and, if its owner wants so, disclosed in evidence.
#[derive(Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Content {
    /// Format version: 1.
    #[n(0)]
    pub version: u64,
    /// Its kind.
    #[n(1)]
    pub kind: ContentKind,
    /// The message's id; equal to the one in the signed body.
    #[n(2)]
    pub message_id: MessageId,
    /// The last header that the author had verified.
    #[n(3)]
    pub seen_header: Option<SeenHeader>,
    /// The text.
    #[n(4)]
    pub text: String,
    /// Reserved: empty.
    #[n(5)]
    pub attachments: Vec<AttachmentRef>,
}

impl Content {
    /// The format version that this program writes.
    pub const VERSION: u64 = 1;

    /// A text.
    ///
    /// # Errors
    /// [`TextTooLong`] beyond [`limits::TEXT_BYTES_MAX`].
    pub fn text(
        message_id: MessageId,
        text: impl Into<String>,
        seen_header: Option<SeenHeader>,
    ) -> Result<Self, TextTooLong> {
        Self::of(ContentKind::Text, limits::TEXT_BYTES_MAX, message_id, text.into(), seen_header)
    }

    /// A conversation's title.
    ///
    /// # Errors
    /// [`TextTooLong`] beyond [`TITLE_BYTES_MAX`].
    pub fn title(
        message_id: MessageId,
        title: impl Into<String>,
        seen_header: Option<SeenHeader>,
    ) -> Result<Self, TextTooLong> {
        Self::of(ContentKind::Title, TITLE_BYTES_MAX, message_id, title.into(), seen_header)
    }

    fn of(
        kind: ContentKind,
        max: usize,
        message_id: MessageId,
        text: String,
        seen_header: Option<SeenHeader>,
    ) -> Result<Self, TextTooLong> {
        if text.len() > max {
            return Err(TextTooLong { got: text.len(), max });
        }
        Ok(Self { version: Self::VERSION, kind, message_id, seen_header, text, attachments: Vec::new() })
    }
}

/// The text does not show in logs.
impl std::fmt::Debug for Content {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Content")
            .field("kind", &self.kind)
            .field("message_id", &self.message_id)
            .field("text_bytes", &self.text.len())
            .finish_non_exhaustive()
    }
}

/// A text or title that is too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the text has {got} bytes; at most {max} are allowed")]
pub struct TextTooLong {
    /// Its length in bytes.
    pub got: usize,
    /// How many are allowed.
    pub max: usize,
}

impl Canonical for Content {
    const WHAT: &'static str = "message content";
    /// The text and fields of fixed size.
    const BYTES_MAX: usize = limits::TEXT_BYTES_MAX + 256;
    const VERSION: Option<u64> = Some(Self::VERSION);

    fn check(&self) -> Result<(), &'static str> {
        if self.text.len() > limits::TEXT_BYTES_MAX {
            return Err("the text is too long");
        }
        if self.kind == ContentKind::Title && self.text.len() > TITLE_BYTES_MAX {
            return Err("the title is too long");
        }
        if !self.attachments.is_empty() {
            return Err("attachments are reserved");
        }
        if self.seen_header.is_some_and(|seen| seen.height == Height(0)) {
            return Err("no header has height 0");
        }
        Ok(())
    }
}

/// The key k of a content commitment. Travels inside the MLS plaintext; evidence with content discloses it; deleting
/// the content deletes it.
#[derive(Clone, PartialEq, Eq)]
pub struct ContentKey(Box<Zeroizing<[u8; ContentKey::BYTES]>>);

impl ContentKey {
    /// Its length in bytes.
    pub const BYTES: usize = 32;

    /// A fresh key.
    ///
    /// # Errors
    /// [`RandomError`] if the operating system's generator fails.
    pub fn generate() -> Result<Self, RandomError> {
        let mut key = Box::new(Zeroizing::new([0; Self::BYTES]));
        fill_random(key.as_mut_slice())?;
        Ok(Self(key))
    }

    /// A key as a store or evidence keeps it.
    #[must_use]
    pub fn from_bytes(bytes: &[u8; Self::BYTES]) -> Self {
        Self(Box::new(Zeroizing::new(*bytes)))
    }

    /// The key itself.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; Self::BYTES] {
        &self.0
    }
}

impl std::fmt::Debug for ContentKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ContentKey(redacted)")
    }
}

/// The commitment that a message entry records: HMAC-SHA384 under k over the canonical content and the attachment
/// digests, of which this version has none.
#[must_use]
pub fn content_commitment(key: &ContentKey, content: &[u8]) -> Hash {
    digest::content_commitment(key.as_bytes(), content)
}

/// The plaintext of an application message.
#[derive(Encode, Decode)]
#[cbor(array)]
pub(crate) struct Plaintext<'a> {
    #[cbor(b(0), with = "minicbor::bytes")]
    pub(crate) content: &'a [u8],
    #[cbor(b(1), with = "minicbor::bytes")]
    pub(crate) key: &'a [u8],
}

impl<'a> Plaintext<'a> {
    const WHAT: &'static str = "message plaintext";

    /// Reads one, without copies: it holds k.
    pub(crate) fn parse(bytes: &'a [u8]) -> Result<(&'a [u8], ContentKey), ParseError> {
        let invalid = |why| ParseError::Invalid { what: Self::WHAT, why };
        let max = Content::BYTES_MAX + 64;
        if bytes.len() > max {
            return Err(ParseError::TooLong { what: Self::WHAT, got: bytes.len(), max });
        }
        scan(Self::WHAT, bytes)?;
        if bytes.first() != Some(&0x82) {
            return Err(invalid("it is not an array of two"));
        }
        let plaintext: Self =
            minicbor::decode(bytes).map_err(|_| invalid("it does not hold two byte strings"))?;
        let key =
            plaintext.key.try_into().map_err(|_| invalid("the key of the commitment has another length"))?;
        Ok((plaintext.content, ContentKey::from_bytes(key)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SEEN: SeenHeader = SeenHeader { height: Height(u64::MAX), hash: Hash([0xEE; 48]) };

    #[test]
    fn the_longest_text_fits() {
        let longest =
            Content::text(MessageId([1; 16]), "ü".repeat(limits::TEXT_BYTES_MAX / 2), Some(SEEN)).unwrap();
        assert_eq!(Content::parse(&longest.to_bytes()), Ok(longest));
        let longer = "x".repeat(limits::TEXT_BYTES_MAX + 1);
        assert_eq!(
            Content::text(MessageId([1; 16]), longer, None),
            Err(TextTooLong { got: limits::TEXT_BYTES_MAX + 1, max: limits::TEXT_BYTES_MAX })
        );
    }

    #[test]
    fn reserved_things_are_refused() {
        let mut content = Content::text(MessageId([1; 16]), "x", None).unwrap();
        let mut bytes = content.to_bytes();
        assert_eq!(bytes[2], 0, "the kind follows the version");
        bytes[2] = 1;
        assert!(Content::parse(&bytes).is_err());
        content.attachments.push(AttachmentRef { digest: Hash([1; 48]), key: [2; 32], bytes: 3 });
        assert!(matches!(Content::parse(&content.to_bytes()), Err(ParseError::Invalid { .. })));
        assert!(!format!("{:?}", content.attachments).contains('2'), "the key does not show");
    }

    /// No block has it. A receiver that asked for such a header would be told that it cannot be proven.
    #[test]
    fn a_header_of_height_0_is_refused() {
        let seen = SeenHeader { height: Height(0), ..SEEN };
        let content = Content::text(MessageId([1; 16]), "x", Some(seen)).unwrap();
        assert!(matches!(Content::parse(&content.to_bytes()), Err(ParseError::Invalid { .. })));
    }

    #[test]
    fn a_title_is_a_short_text_of_its_own_kind() {
        let title = Content::title(MessageId([1; 16]), "plans", None).unwrap();
        assert_eq!(Content::parse(&title.to_bytes()), Ok(title));
        let long = "x".repeat(TITLE_BYTES_MAX + 1);
        assert!(Content::title(MessageId([1; 16]), long.clone(), None).is_err());
        let forced =
            Content { kind: ContentKind::Title, ..Content::text(MessageId([1; 16]), long, None).unwrap() };
        assert!(Content::parse(&forced.to_bytes()).is_err());
    }

    #[test]
    fn text_that_is_no_utf_8_is_refused() {
        let mut bytes = Content::text(MessageId([1; 16]), "x", None).unwrap().to_bytes();
        let at = bytes.iter().position(|byte| *byte == b'x').unwrap();
        bytes[at] = 0xFF;
        assert!(Content::parse(&bytes).is_err());
    }

    #[test]
    fn a_commitment_depends_on_key_and_content() {
        let (a, b) = (ContentKey::from_bytes(&[1; 32]), ContentKey::from_bytes(&[2; 32]));
        assert_ne!(content_commitment(&a, b"x"), content_commitment(&b, b"x"));
        assert_ne!(content_commitment(&a, b"x"), content_commitment(&a, b"y"));
    }

    #[test]
    fn debug_shows_neither_text_nor_key() {
        let content = Content::text(MessageId([1; 16]), "secret", None).unwrap();
        assert!(!format!("{content:?}").contains("secret"));
        assert_eq!(format!("{:?}", ContentKey::from_bytes(&[1; 32])), "ContentKey(redacted)");
    }

    #[test]
    fn a_plaintext_is_exactly_two_strings() {
        let plaintext = |content: &[u8], key: &[u8]| {
            let mut bytes = Vec::new();
            minicbor::encode(Plaintext { content, key }, &mut bytes).unwrap();
            bytes
        };
        let good = plaintext(b"content", &[7; 32]);
        let (content, key) = Plaintext::parse(&good).unwrap();
        assert_eq!((content, key), (&b"content"[..], ContentKey::from_bytes(&[7; 32])));
        let mut three = good.clone();
        three[0] = 0x83;
        three.push(0);
        let mut trailing = good.clone();
        trailing.push(0);
        for bad in [three, trailing, plaintext(b"content", &[7; 31]), good[..good.len() - 1].to_vec(), vec![]]
        {
            assert!(Plaintext::parse(&bad).is_err());
        }
    }

    proptest! {
        #[test]
        fn content_round_trips(id: [u8; 16], text: String, seen: Option<(u64, [u8; 16])>) {
            let seen = seen.map(|(height, byte)| SeenHeader { height: Height(height), hash: Hash([byte[0]; 48]) });
            let content = Content::text(MessageId(id), text, seen).unwrap();
            prop_assert_eq!(Content::parse(&content.to_bytes()), Ok(content));
        }

        #[test]
        fn anything_else_is_an_error_not_a_panic(bytes: Vec<u8>) {
            let _ = Plaintext::parse(&bytes);
            if let Ok(content) = Content::parse(&bytes) {
                prop_assert_eq!(content.to_bytes(), bytes);
            }
        }
    }
}
