//! The key-encryption key inside the token.

use crate::error::{TokenError, template_refused};
use crate::objects::{self, Destruction};
use crate::sessions::Attempt;
use cryptoki::error::Error;
use cryptoki::mechanism::Mechanism;
use cryptoki::object::{Attribute, AttributeType, KeyType, ObjectClass, ObjectHandle};
use cryptoki::session::Session;

const KEK_BYTES: u64 = 32;

/// The CKA_ID of a key-encryption key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KekId(pub Vec<u8>);

impl std::fmt::Display for KekId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// A key-encryption key that was found and examined. Handles do not outlive a login, so there is none in here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kek {
    /// Its CKA_ID.
    pub id: KekId,
}

/// Makes the key. Attributes that not every token takes are tried first and left out if refused. It can be destroyed: that
/// is what makes everything it ever wrapped unreadable, wherever a copy lies. Whoever is logged in could make the token
/// useless in other ways as well.
pub(crate) fn create(session: &Session, id: &KekId) -> Result<Kek, TokenError> {
    if !handles(session, id).map_err(|e| TokenError::of(&e))?.is_empty() {
        return Err(TokenError::KekUnsafe { kek: id.to_string(), why: "a key with this id exists already" });
    }
    let base = [
        Attribute::Token(true),
        Attribute::Private(true),
        Attribute::Sensitive(true),
        Attribute::Extractable(false),
        Attribute::Modifiable(false),
        Attribute::ValueLen(KEK_BYTES.into()),
        Attribute::Encrypt(true),
        Attribute::Decrypt(true),
        Attribute::Wrap(false),
        Attribute::Unwrap(false),
        Attribute::Sign(false),
        Attribute::Verify(false),
        Attribute::Derive(false),
        Attribute::Id(id.0.clone()),
        Attribute::Label(b"zixt custody KEK".to_vec()),
    ];
    let extras =
        [&[Attribute::Destroyable(true), Attribute::Copyable(false)][..], &[Attribute::Copyable(false)], &[]];
    for extra in extras {
        let template = [&base[..], extra].concat();
        match session.generate_key(&Mechanism::AesKeyGen, &template) {
            Ok(_) => return find(session, id).map_err(Attempt::last),
            Err(error) if template_refused(&error) && !extra.is_empty() => {}
            Err(error) => return Err(TokenError::of(&error)),
        }
    }
    Err(TokenError::Failed("the token takes no template of an AES-256 key".to_owned()))
}

/// Finds the key and refuses one that could leave the token or be changed.
pub(crate) fn find(session: &Session, id: &KekId) -> Result<Kek, Attempt<TokenError>> {
    match fault(session, handle(session, id)?)? {
        Some(why) => Err(TokenError::KekUnsafe { kek: id.to_string(), why }.into()),
        None => Ok(Kek { id: id.clone() }),
    }
}

/// What is wrong with a key, if anything.
pub(crate) fn fault(session: &Session, handle: ObjectHandle) -> Result<Option<&'static str>, TokenError> {
    let wanted = [
        AttributeType::Sensitive,
        AttributeType::AlwaysSensitive,
        AttributeType::Extractable,
        AttributeType::NeverExtractable,
        AttributeType::Local,
        AttributeType::Modifiable,
        AttributeType::ValueLen,
    ];
    let attributes = session.get_attributes(handle, &wanted).map_err(|e| TokenError::of(&e))?;
    let holds = |attribute: Attribute| attributes.contains(&attribute);
    Ok(if !holds(Attribute::Sensitive(true)) || !holds(Attribute::AlwaysSensitive(true)) {
        Some("it is not (or was not always) sensitive")
    } else if !holds(Attribute::Extractable(false)) || !holds(Attribute::NeverExtractable(true)) {
        Some("it is (or once was) extractable")
    } else if !holds(Attribute::Local(true)) {
        Some("it was not made in the token")
    } else if !holds(Attribute::Modifiable(false)) {
        Some("its attributes can be changed")
    } else if !holds(Attribute::ValueLen(KEK_BYTES.into())) {
        Some("it has not 256 bits")
    } else {
        None
    })
}

/// The handle of this login.
pub(crate) fn handle(session: &Session, id: &KekId) -> Result<ObjectHandle, Attempt<TokenError>> {
    let mut found = handles(session, id).map_err(Attempt::of)?;
    match (found.pop(), found.is_empty()) {
        (None, _) => Err(TokenError::KekMissing { kek: id.to_string() }.into()),
        (Some(handle), true) => Ok(handle),
        (Some(_), false) => {
            Err(TokenError::KekUnsafe { kek: id.to_string(), why: "several keys have this id" }.into())
        }
    }
}

/// Removes every key with this id. [`Destruction::Destroyed`] means that the token was asked again and has none.
pub(crate) fn destroy(session: &Session, id: &KekId) -> Result<Destruction, TokenError> {
    let find = || handles(session, id).map_err(|e| TokenError::of(&e));
    let found = find()?;
    if found.is_empty() {
        return Err(TokenError::KekMissing { kek: id.to_string() });
    }
    for handle in found {
        if objects::destroy(session, handle)? == Destruction::NotDestroyable {
            return Ok(Destruction::NotDestroyable);
        }
    }
    if find()?.is_empty() {
        Ok(Destruction::Destroyed)
    } else {
        Err(TokenError::Failed("it says that a key is destroyed, and still has it".to_owned()))
    }
}

fn handles(session: &Session, id: &KekId) -> Result<Vec<ObjectHandle>, Error> {
    let template = [
        Attribute::Class(ObjectClass::SECRET_KEY),
        Attribute::KeyType(KeyType::AES),
        Attribute::Id(id.0.clone()),
    ];
    objects::find(session, &template)
}
