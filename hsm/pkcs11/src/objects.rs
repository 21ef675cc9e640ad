//! What stands in a token, as a person has to know it, and the removal of an object.

use crate::error::TokenError;
use crate::sessions::logged_in;
use cryptoki::error::{Error, RvError};
use cryptoki::object::{Attribute, AttributeType, KeyType, ObjectClass, ObjectHandle};
use cryptoki::session::Session;

/// What the labels of all our objects begin with.
pub(crate) const LABEL_PREFIX: &str = "zixt ";

/// One of our objects in a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectDescription {
    /// What it is.
    pub kind: ObjectKind,
    /// Its label.
    pub label: String,
    /// Its CKA_ID; of an anchor the encoded object identifier.
    pub id: Vec<u8>,
    /// Why it is not safe to use, if so.
    pub fault: Option<&'static str>,
}

/// Kinds of objects that this crate makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ObjectKind {
    /// A key-encryption key.
    Kek,
    /// A private key that works in the token.
    PrivateKey,
    /// The public half of one.
    PublicKey,
    /// A rollback anchor.
    Anchor,
    /// With our label, and none of these.
    Unknown,
}

/// What became of an object that was to be destroyed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use = "an object that the token keeps is not destroyed"]
pub enum Destruction {
    /// It is gone: the token was asked for it again.
    Destroyed,
    /// The token keeps it, because it was made with CKA_DESTROYABLE=false (or the token never deletes such objects).
    /// Only the initialisation of the token by its security officer removes it.
    NotDestroyable,
}

/// All our objects, told apart by label and class.
pub(crate) fn list(session: &Session) -> Result<Vec<ObjectDescription>, TokenError> {
    let failed = |error: Error| TokenError::of(&error);
    let handles = session.find_objects(&[Attribute::Token(true)]).map_err(failed)?;
    let mut objects = Vec::new();
    for handle in handles {
        let wanted = [
            AttributeType::Class,
            AttributeType::KeyType,
            AttributeType::Label,
            AttributeType::Id,
            AttributeType::ObjectId,
        ];
        let attributes = session.get_attributes(handle, &wanted).map_err(failed)?;
        let mut label = String::new();
        let mut id = Vec::new();
        for attribute in &attributes {
            match attribute {
                Attribute::Label(bytes) => label = String::from_utf8_lossy(bytes).into_owned(),
                Attribute::Id(bytes) | Attribute::ObjectId(bytes) if !bytes.is_empty() => {
                    id.clone_from(bytes)
                }
                _ => {}
            }
        }
        if !label.starts_with(LABEL_PREFIX) {
            continue;
        }
        let kind = kind(&attributes);
        let fault = match kind {
            ObjectKind::Kek => crate::kek::fault(session, handle)?,
            ObjectKind::PrivateKey => crate::native::fault(session, handle)?,
            ObjectKind::Anchor => crate::anchor::fault(session, handle)?,
            ObjectKind::PublicKey | ObjectKind::Unknown => None,
        };
        objects.push(ObjectDescription { kind, label, id, fault });
    }
    objects.sort_by(|a, b| (a.kind, &a.label, &a.id).cmp(&(b.kind, &b.label, &b.id)));
    Ok(objects)
}

fn kind(attributes: &[Attribute]) -> ObjectKind {
    let holds = |attribute: Attribute| attributes.contains(&attribute);
    if holds(Attribute::Class(ObjectClass::SECRET_KEY)) && holds(Attribute::KeyType(KeyType::AES)) {
        ObjectKind::Kek
    } else if holds(Attribute::Class(ObjectClass::PRIVATE_KEY)) {
        ObjectKind::PrivateKey
    } else if holds(Attribute::Class(ObjectClass::PUBLIC_KEY)) {
        ObjectKind::PublicKey
    } else if holds(Attribute::Class(ObjectClass::DATA)) {
        ObjectKind::Anchor
    } else {
        ObjectKind::Unknown
    }
}

/// Finds objects. None can mean that the login has ended: a token hides private objects then, and that is not the same
/// as a key that is lost.
pub(crate) fn find(session: &Session, template: &[Attribute]) -> Result<Vec<ObjectHandle>, Error> {
    let found = session.find_objects(template)?;
    if found.is_empty() && !logged_in(session)? {
        return Err(Error::Pkcs11(RvError::UserNotLoggedIn, cryptoki::context::Function::FindObjects));
    }
    Ok(found)
}

/// Removes one object.
pub(crate) fn destroy(session: &Session, handle: ObjectHandle) -> Result<Destruction, TokenError> {
    match session.destroy_object(handle) {
        Ok(()) => Ok(Destruction::Destroyed),
        // The standard's word for CKA_DESTROYABLE=false is the first.
        Err(Error::Pkcs11(
            RvError::ActionProhibited | RvError::AttributeReadOnly | RvError::FunctionRejected,
            _,
        )) => Ok(Destruction::NotDestroyable),
        Err(error) => Err(TokenError::of(&error)),
    }
}
