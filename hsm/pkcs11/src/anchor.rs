//! A counter in the token that state outside of it can be held against: a rollback anchor.
//!
//! PKCS#11 has no monotonic counter, so that the anchor is a private data object that only ever is replaced by a higher
//! one. What that is worth, exactly:
//! * A state folder that is set back (a restored snapshot, an old disk) is noticed, as long as the token was not set
//!   back with it. A hardware token keeps its objects inside and cannot be; a software token's storage is a folder like
//!   any other, and whoever restores that too rolls the anchor back unnoticed.
//! * Whoever has the user PIN can destroy the object and make one with any number. The anchor protects against a
//!   restored disk, not against the process that is logged in. A TPM's counter protects against both.
//! * The security officer who initialises the token removes it. A missing anchor is an error and never counts as zero.

use crate::error::{TokenError, template_refused};
use crate::objects::{self, Destruction};
use crate::sessions::{Attempt, SessionError};
use crate::token::Token;
use cryptoki::object::{Attribute, AttributeType, ObjectClass, ObjectHandle};
use cryptoki::session::Session;

/// CKA_APPLICATION of every anchor.
const APPLICATION: &[u8] = b"zixt";
const LABEL: &[u8] = b"zixt anchor";
/// Version of the value's format.
const FORMAT: u8 = 1;
/// Bytes of the value: format, then the number, big endian.
const VALUE_BYTES: usize = 9;

/// Which custody state an anchor belongs to: 16 bytes of the caller's, random and never used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AnchorId(pub [u8; 16]);

impl std::fmt::Display for AnchorId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Why an anchor does not hold.
#[derive(Debug, thiserror::Error)]
pub enum AnchorError {
    /// The token has no such anchor: it is another token, it was initialised anew, or somebody removed it.
    #[error("the token does not hold the anchor {id}")]
    Missing {
        /// Which.
        id: AnchorId,
    },
    /// There is one already.
    #[error("the token holds an anchor {id} already, at {current}")]
    Exists {
        /// Which.
        id: AnchorId,
        /// Its number.
        current: u64,
    },
    /// Its object is not one that this program writes.
    #[error("the anchor {id} is damaged: {why}")]
    Damaged {
        /// Which.
        id: AnchorId,
        /// What is wrong.
        why: &'static str,
    },
    /// An anchor is never set back.
    #[error("the anchor stands at {current} and is not set back to {to}")]
    Backwards {
        /// Where it stands.
        current: u64,
        /// Where it should have gone.
        to: u64,
    },
    /// Anything else.
    #[error(transparent)]
    Token(#[from] TokenError),
}

impl SessionError for AnchorError {
    fn is_doubtful(&self) -> bool {
        match self {
            Self::Missing { .. } => true,
            Self::Token(error) => error.is_doubtful(),
            Self::Exists { .. } | Self::Damaged { .. } | Self::Backwards { .. } => false,
        }
    }
}

impl Token {
    /// Makes an anchor.
    ///
    /// # Errors
    /// [`AnchorError::Exists`] or what the token says.
    pub fn anchor_create(&self, id: &AnchorId, value: u64) -> Result<(), AnchorError> {
        self.sessions.run_once(|session| {
            if let Some(current) = highest(&read(session, id).map_err(Attempt::last)?) {
                return Err(AnchorError::Exists { id: *id, current });
            }
            write(session, id, value)
        })
    }

    /// The anchor's number: the highest, if a crash left more than one object.
    ///
    /// # Errors
    /// [`AnchorError::Missing`], [`AnchorError::Damaged`] or what the token says.
    pub fn anchor_read(&self, id: &AnchorId) -> Result<u64, AnchorError> {
        self.sessions.run(|session| {
            highest(&read(session, id)?).ok_or(Attempt::Final(AnchorError::Missing { id: *id }))
        })
    }

    /// Sets the anchor forward; to where it stands is no change and no error.
    ///
    /// The new object is written and read back before the old ones are removed: after a crash in between the higher one
    /// counts, and the next call tidies up.
    ///
    /// # Errors
    /// [`AnchorError::Backwards`], [`AnchorError::Missing`], [`AnchorError::Damaged`] or what the token says.
    pub fn anchor_advance(&self, id: &AnchorId, to: u64) -> Result<(), AnchorError> {
        self.sessions.run_once(|session| {
            let found = read(session, id).map_err(Attempt::last)?;
            let current = highest(&found).ok_or(AnchorError::Missing { id: *id })?;
            if to < current {
                return Err(AnchorError::Backwards { current, to });
            }
            if to > current {
                write(session, id, to)?;
            }
            for (handle, value) in found {
                if value < to && objects::destroy(session, handle)? == Destruction::NotDestroyable {
                    log::warn!("the token keeps an old anchor at {value}; the one at {to} counts");
                }
            }
            Ok(())
        })
    }
}

fn highest(found: &[(ObjectHandle, u64)]) -> Option<u64> {
    found.iter().map(|(_, value)| *value).max()
}

/// All objects of an anchor. Only private ones count: nobody makes those without the user's PIN.
fn read(session: &Session, id: &AnchorId) -> Result<Vec<(ObjectHandle, u64)>, Attempt<AnchorError>> {
    let handles = objects::find(session, &template(id)).map_err(Attempt::of)?;
    let mut found = Vec::new();
    for handle in handles {
        let attributes = session.get_attributes(handle, &[AttributeType::Value]).map_err(Attempt::of)?;
        let value = parse(&attributes).map_err(|why| AnchorError::Damaged { id: *id, why })?;
        found.push((handle, value));
    }
    Ok(found)
}

fn write(session: &Session, id: &AnchorId, value: u64) -> Result<(), AnchorError> {
    let mut attributes = template(id);
    attributes.push(Attribute::Label(LABEL.to_vec()));
    attributes.push(Attribute::Value(encode(value)));
    // Not every token knows the attribute for data objects.
    let fixed = [&attributes[..], &[Attribute::Modifiable(false)]].concat();
    let written = match session.create_object(&fixed) {
        Err(error) if template_refused(&error) => session.create_object(&attributes),
        written => written,
    };
    written.map_err(|error| TokenError::of(&error))?;
    match highest(&read(session, id).map_err(Attempt::last)?) {
        Some(highest) if highest == value => Ok(()),
        _ => Err(AnchorError::Damaged { id: *id, why: "what was written does not come back" }),
    }
}

/// What identifies an anchor.
fn template(id: &AnchorId) -> Vec<Attribute> {
    vec![
        Attribute::Class(ObjectClass::DATA),
        Attribute::Token(true),
        Attribute::Private(true),
        Attribute::Application(APPLICATION.to_vec()),
        Attribute::ObjectId(object_identifier(id)),
    ]
}

/// What is wrong with an object that has an anchor's label.
pub(crate) fn fault(session: &Session, handle: ObjectHandle) -> Result<Option<&'static str>, TokenError> {
    let wanted = [AttributeType::Private, AttributeType::Application, AttributeType::Value];
    let attributes = session.get_attributes(handle, &wanted).map_err(|e| TokenError::of(&e))?;
    Ok(if !attributes.contains(&Attribute::Private(true)) {
        Some("it is readable without the PIN")
    } else if !attributes.contains(&Attribute::Application(APPLICATION.to_vec())) {
        Some("it belongs to another program")
    } else {
        parse(&attributes).err()
    })
}

fn encode(value: u64) -> Vec<u8> {
    [&[FORMAT][..], &value.to_be_bytes()].concat()
}

fn parse(attributes: &[Attribute]) -> Result<u64, &'static str> {
    let value = attributes.iter().find_map(|attribute| match attribute {
        Attribute::Value(bytes) => Some(bytes.as_slice()),
        _ => None,
    });
    let value: [u8; VALUE_BYTES] =
        value.ok_or("it has no value")?.try_into().map_err(|_| "its value has another length")?;
    match value {
        [FORMAT, number @ ..] => Ok(u64::from_be_bytes(number)),
        _ => Err("its value has another format"),
    }
}

/// The DER encoding that CKA_OBJECT_ID asks for, of 2.25.N: the arc that is free for 128-bit numbers (X.667).
fn object_identifier(id: &AnchorId) -> Vec<u8> {
    let mut number = u128::from_be_bytes(id.0);
    // Base 128, the last group first; all but the last carry the high bit.
    let mut groups = vec![low_group(number)];
    number >>= 7;
    while number > 0 {
        groups.push(low_group(number) | 0x80);
        number >>= 7;
    }
    // 2.25 share a byte: 2 * 40 + 25.
    groups.push(105);
    groups.reverse();
    // At most 20 bytes, so that the length is one byte.
    let length = u8::try_from(groups.len()).unwrap_or(u8::MAX);
    [&[0x06, length][..], &groups].concat()
}

fn low_group(number: u128) -> u8 {
    number.to_be_bytes()[15] & 0x7f
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn object_identifiers_are_those_of_x_667() {
        let id = |number: u128| object_identifier(&AnchorId(number.to_be_bytes()));
        assert_eq!(id(0), [6, 2, 105, 0]);
        assert_eq!(id(127), [6, 2, 105, 127]);
        assert_eq!(id(128), [6, 3, 105, 0x81, 0]);
        // The example of X.667: f81d4fae-7dec-11d0-a765-00a0c91e6bf6 is 2.25.329800735698586629295641978511506172918.
        let example = id(0xf81d_4fae_7dec_11d0_a765_00a0_c91e_6bf6);
        let groups = &example[3..];
        assert_eq!(example.len(), usize::from(example[1]) + 2);
        let number = groups.iter().fold(0u128, |number, group| number << 7 | u128::from(group & 0x7f));
        assert_eq!(number, 329_800_735_698_586_629_295_641_978_511_506_172_918);
        assert!(
            groups.iter().rev().skip(1).all(|group| group & 0x80 != 0) && groups[groups.len() - 1] < 0x80
        );
        assert_eq!(id(u128::MAX).len(), 22);
    }

    #[test]
    fn values_have_one_form() {
        assert_eq!(parse(&[Attribute::Value(encode(7))]), Ok(7));
        assert_eq!(parse(&[Attribute::Value(encode(u64::MAX))]), Ok(u64::MAX));
        assert!(parse(&[Attribute::Value(vec![FORMAT; 8])]).is_err());
        assert!(parse(&[Attribute::Value(vec![2; 9])]).is_err());
        assert!(parse(&[]).is_err());
    }
}
