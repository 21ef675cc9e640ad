//! A native key pair as objects of the token: templates, search, examination, removal.

use super::{Algorithm, KeyId, NativeError, NativeKey, Origin};
use crate::error::{TokenError, template_refused};
use crate::objects::{self, Destruction};
use crate::sessions::Attempt;
use cryptoki::error::Error;
use cryptoki::mechanism::{Mechanism, MechanismType};
use cryptoki::object::{
    Attribute, AttributeType, KeyType, MlDsaParameterSetType, MlKemParameterSetType, ObjectClass,
    ObjectHandle, ParameterSetType,
};
use cryptoki::session::Session;
use zeroize::Zeroize as _;
use zixt_crypto::SuiteId;

/// A private key's template with a seed in it, which the attribute itself does not erase.
struct SeedTemplate(Vec<Attribute>);

impl Drop for SeedTemplate {
    fn drop(&mut self) {
        for attribute in &mut self.0 {
            if let Attribute::Seed(seed) = attribute {
                seed.zeroize();
            }
        }
    }
}

/// Makes a pair in the token.
pub(super) fn generate(session: &Session, id: &KeyId, algorithm: Algorithm) -> Result<(), NativeError> {
    let public = public_template(algorithm, Some(id));
    for extra in extras(algorithm) {
        let private = [&private_template(algorithm, Some(id))[..], &extra].concat();
        match session.generate_key_pair(&generation(algorithm), &public, &private) {
            Ok(_) => return Ok(()),
            Err(error) if template_refused(&error) && !extra.is_empty() => {}
            Err(error) => return Err(TokenError::of(&error).into()),
        }
    }
    Err(TokenError::Failed(format!("it takes no template of an {algorithm} key")).into())
}

/// Makes a pair that is gone with its session, for a test: the private half and the public key.
pub(super) fn generate_for_session(
    session: &Session,
    algorithm: Algorithm,
) -> Result<(ObjectHandle, Vec<u8>), Error> {
    let (public, private) = (public_template(algorithm, None), private_template(algorithm, None));
    let (public, private) = session.generate_key_pair(&generation(algorithm), &public, &private)?;
    let value = session.get_attributes(public, &[AttributeType::Value])?.into_iter().find_map(|attribute| {
        match attribute {
            Attribute::Value(value) => Some(value),
            _ => None,
        }
    });
    Ok((private, value.ok_or(Error::NotSupported)?))
}

/// Puts a pair into the token, from a seed.
pub(super) fn import(
    session: &Session,
    id: &KeyId,
    algorithm: Algorithm,
    seed: &[u8],
    public_key: &[u8],
) -> Result<(), NativeError> {
    import_private(session, algorithm, Some(id), seed).map_err(|error| TokenError::of(&error))?;
    let mut public = public_template(algorithm, Some(id));
    public.push(Attribute::Class(ObjectClass::PUBLIC_KEY));
    public.push(Attribute::KeyType(key_type(algorithm)));
    public.push(Attribute::Value(public_key.to_vec()));
    session.create_object(&public).map_err(|error| TokenError::of(&error))?;
    Ok(())
}

/// Puts a private key into the token, or for a test into the session (without an id).
pub(super) fn import_private(
    session: &Session,
    algorithm: Algorithm,
    id: Option<&KeyId>,
    seed: &[u8],
) -> Result<ObjectHandle, Error> {
    let mut last = None;
    for extra in extras(algorithm) {
        let mut template = SeedTemplate(private_template(algorithm, id));
        template.0.push(Attribute::Class(ObjectClass::PRIVATE_KEY));
        template.0.push(Attribute::KeyType(key_type(algorithm)));
        template.0.push(Attribute::ParameterSet(parameter_set(algorithm)));
        template.0.extend(extra);
        template.0.push(Attribute::Seed(seed.to_vec()));
        match session.create_object(&template.0) {
            Ok(handle) => return Ok(handle),
            Err(error) if template_refused(&error) => last = Some(error),
            Err(error) => return Err(error),
        }
    }
    Err(last.unwrap_or(Error::NotSupported))
}

/// Finds a key, examines it and reads its public key.
pub(super) fn find(
    session: &Session,
    id: &KeyId,
    algorithm: Algorithm,
) -> Result<NativeKey, Attempt<NativeError>> {
    let (_, origin) = examined(session, id, algorithm)?;
    let unsafe_because = |why| Attempt::Final(NativeError::KeyUnsafe { key: id.clone(), why });
    let found =
        objects::find(session, &search(ObjectClass::PUBLIC_KEY, algorithm, id)).map_err(Attempt::of)?;
    let [handle] = found[..] else {
        return Err(unsafe_because("it has no public key, or several"));
    };
    let wanted = [AttributeType::ParameterSet, AttributeType::Value];
    let attributes = session.get_attributes(handle, &wanted).map_err(Attempt::of)?;
    let public_key = attributes.iter().find_map(|attribute| match attribute {
        Attribute::Value(value) if value.len() == algorithm.public_key_bytes() => Some(value.clone()),
        _ => None,
    });
    let fits = attributes.contains(&Attribute::ParameterSet(parameter_set(algorithm)));
    match public_key {
        Some(public_key) if fits => Ok(NativeKey { id: id.clone(), algorithm, origin, public_key }),
        _ => Err(unsafe_because("its public key is of another kind")),
    }
}

/// The private key's handle of this login, once it has shown that it is safe, and where the key comes from.
pub(super) fn examined(
    session: &Session,
    id: &KeyId,
    algorithm: Algorithm,
) -> Result<(ObjectHandle, Origin), Attempt<NativeError>> {
    let handle = handle(session, id, algorithm)?;
    let attributes = session.get_attributes(handle, &EXAMINED).map_err(Attempt::of)?;
    match judge(&attributes, algorithm) {
        Ok(origin) => Ok((handle, origin)),
        Err(why) => Err(NativeError::KeyUnsafe { key: id.clone(), why }.into()),
    }
}

/// The private key's handle of this login.
pub(super) fn handle(
    session: &Session,
    id: &KeyId,
    algorithm: Algorithm,
) -> Result<ObjectHandle, Attempt<NativeError>> {
    let found =
        objects::find(session, &search(ObjectClass::PRIVATE_KEY, algorithm, id)).map_err(Attempt::of)?;
    match found[..] {
        [] => Err(NativeError::KeyMissing { key: id.clone() }.into()),
        [handle] => Ok(handle),
        _ => Err(NativeError::KeyUnsafe { key: id.clone(), why: "several keys have this id" }.into()),
    }
}

/// Refuses an id that is in use, by either half of any pair.
pub(super) fn refuse_existing(session: &Session, id: &KeyId) -> Result<(), NativeError> {
    if pairs(session, id)?.is_empty() { Ok(()) } else { Err(NativeError::KeyExists { key: id.clone() }) }
}

/// Destroys both halves, the private one first.
pub(super) fn destroy(session: &Session, id: &KeyId) -> Result<Destruction, NativeError> {
    let found = pairs(session, id)?;
    if found.is_empty() {
        return Err(NativeError::KeyMissing { key: id.clone() });
    }
    for handle in found {
        if objects::destroy(session, handle)? == Destruction::NotDestroyable {
            return Ok(Destruction::NotDestroyable);
        }
    }
    if pairs(session, id)?.is_empty() {
        Ok(Destruction::Destroyed)
    } else {
        Err(TokenError::Failed("it says that a key is destroyed, and still has it".to_owned()).into())
    }
}

/// Everything with this id that can be half of a native pair, private keys first.
fn pairs(session: &Session, id: &KeyId) -> Result<Vec<ObjectHandle>, TokenError> {
    let mut found = Vec::new();
    for class in [ObjectClass::PRIVATE_KEY, ObjectClass::PUBLIC_KEY] {
        let template = [Attribute::Class(class), Attribute::Id(id.0.clone())];
        found.extend(objects::find(session, &template).map_err(|error| TokenError::of(&error))?);
    }
    Ok(found)
}

/// What is wrong with a private key that has our label, if anything.
pub(crate) fn fault(session: &Session, handle: ObjectHandle) -> Result<Option<&'static str>, TokenError> {
    let attributes = session.get_attributes(handle, &EXAMINED).map_err(|error| TokenError::of(&error))?;
    let all = SuiteId::ALL.into_iter().map(Algorithm::MlDsa).chain([Algorithm::MlKem1024]);
    let algorithm = all.into_iter().find(|algorithm| {
        attributes.contains(&Attribute::KeyType(key_type(*algorithm)))
            && attributes.contains(&Attribute::ParameterSet(parameter_set(*algorithm)))
    });
    Ok(match algorithm {
        None => Some("it is of a kind that is never made"),
        Some(algorithm) => judge(&attributes, algorithm).err(),
    })
}

/// What is read of a private key to judge it.
const EXAMINED: [AttributeType; 16] = [
    AttributeType::KeyType,
    AttributeType::ParameterSet,
    AttributeType::Token,
    AttributeType::Private,
    AttributeType::Sensitive,
    AttributeType::AlwaysSensitive,
    AttributeType::Extractable,
    AttributeType::NeverExtractable,
    AttributeType::Local,
    AttributeType::Modifiable,
    AttributeType::Sign,
    AttributeType::SignRecover,
    AttributeType::Decrypt,
    AttributeType::Unwrap,
    AttributeType::Derive,
    AttributeType::Decapsulate,
];

/// Where a safe key comes from, or what is wrong with it. An attribute that the token does not tell counts as the
/// unsafe value, except for uses that its standard does not know for such keys.
fn judge(attributes: &[Attribute], algorithm: Algorithm) -> Result<Origin, &'static str> {
    let holds = |attribute: Attribute| attributes.contains(&attribute);
    let signs = matches!(algorithm, Algorithm::MlDsa(_));
    if !holds(Attribute::KeyType(key_type(algorithm)))
        || !holds(Attribute::ParameterSet(parameter_set(algorithm)))
    {
        return Err("it is of another kind");
    }
    if !holds(Attribute::Token(true)) || !holds(Attribute::Private(true)) {
        return Err("it can be used without the PIN");
    }
    if !holds(Attribute::Sensitive(true)) {
        return Err("it is not sensitive");
    }
    if !holds(Attribute::Extractable(false)) {
        return Err("it is extractable");
    }
    if !holds(Attribute::Modifiable(false)) {
        return Err("its attributes can be changed");
    }
    let has_its_use = if signs { holds(Attribute::Sign(true)) } else { holds(Attribute::Decapsulate(true)) };
    if !has_its_use {
        return Err("it may not be used for what it is for");
    }
    let other = if signs { holds(Attribute::Decapsulate(true)) } else { holds(Attribute::Sign(true)) };
    let more = [
        Attribute::SignRecover(true),
        Attribute::Decrypt(true),
        Attribute::Unwrap(true),
        Attribute::Derive(true),
    ];
    if other || more.into_iter().any(holds) {
        return Err("it may be used for more than one thing");
    }
    if !attributes.contains(&Attribute::Local(true)) {
        return Ok(Origin::Imported);
    }
    if attributes.contains(&Attribute::AlwaysSensitive(true))
        && attributes.contains(&Attribute::NeverExtractable(true))
    {
        Ok(Origin::MadeInside)
    } else {
        Err("it was made inside, but was not always sensitive or once extractable")
    }
}

/// Without an id for a test: a session object, gone with its session.
fn private_template(algorithm: Algorithm, id: Option<&KeyId>) -> Vec<Attribute> {
    let signs = matches!(algorithm, Algorithm::MlDsa(_));
    let mut template = vec![
        Attribute::Token(id.is_some()),
        Attribute::Private(true),
        Attribute::Sensitive(true),
        Attribute::Extractable(false),
        Attribute::Modifiable(false),
        Attribute::Sign(signs),
        Attribute::Decapsulate(!signs),
        Attribute::SignRecover(false),
        Attribute::Decrypt(false),
        Attribute::Unwrap(false),
        Attribute::Derive(false),
    ];
    template.extend(names(algorithm, id));
    template
}

/// Public keys are not private objects: who has the file has them anyway.
fn public_template(algorithm: Algorithm, id: Option<&KeyId>) -> Vec<Attribute> {
    let signs = matches!(algorithm, Algorithm::MlDsa(_));
    let mut template = vec![
        Attribute::Token(id.is_some()),
        Attribute::Private(false),
        Attribute::Modifiable(false),
        Attribute::ParameterSet(parameter_set(algorithm)),
        Attribute::Verify(signs),
        Attribute::Encapsulate(!signs),
    ];
    template.extend(names(algorithm, id));
    template
}

fn names(algorithm: Algorithm, id: Option<&KeyId>) -> Vec<Attribute> {
    let label = format!("{}{algorithm} key", objects::LABEL_PREFIX);
    match id {
        Some(id) => vec![Attribute::Id(id.0.clone()), Attribute::Label(label.into_bytes())],
        None => vec![Attribute::Label(label.into_bytes())],
    }
}

/// Attributes that make a key safer and that not every token takes, the most first.
fn extras(algorithm: Algorithm) -> [Vec<Attribute>; 3] {
    let only = Attribute::AllowedMechanisms(vec![mechanism_type(algorithm)]);
    [vec![Attribute::Copyable(false), only], vec![Attribute::Copyable(false)], Vec::new()]
}

fn search(class: ObjectClass, algorithm: Algorithm, id: &KeyId) -> [Attribute; 3] {
    [Attribute::Class(class), Attribute::KeyType(key_type(algorithm)), Attribute::Id(id.0.clone())]
}

pub(super) fn generation(algorithm: Algorithm) -> Mechanism<'static> {
    match algorithm {
        Algorithm::MlDsa(_) => Mechanism::MlDsaKeyPairGen,
        Algorithm::MlKem1024 => Mechanism::MlKemKeyPairGen,
    }
}

pub(super) fn mechanism_type(algorithm: Algorithm) -> MechanismType {
    match algorithm {
        Algorithm::MlDsa(_) => MechanismType::ML_DSA,
        Algorithm::MlKem1024 => MechanismType::ML_KEM,
    }
}

fn key_type(algorithm: Algorithm) -> KeyType {
    match algorithm {
        Algorithm::MlDsa(_) => KeyType::ML_DSA,
        Algorithm::MlKem1024 => KeyType::ML_KEM,
    }
}

fn parameter_set(algorithm: Algorithm) -> ParameterSetType {
    match algorithm {
        Algorithm::MlDsa(SuiteId::Standard) => MlDsaParameterSetType::ML_DSA_65.into(),
        Algorithm::MlDsa(SuiteId::Cnsa) => MlDsaParameterSetType::ML_DSA_87.into(),
        Algorithm::MlKem1024 => MlKemParameterSetType::ML_KEM_1024.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn safe(algorithm: Algorithm) -> Vec<Attribute> {
        let mut attributes = private_template(algorithm, Some(&KeyId(vec![1])));
        attributes.extend([
            Attribute::KeyType(key_type(algorithm)),
            Attribute::ParameterSet(parameter_set(algorithm)),
            Attribute::AlwaysSensitive(true),
            Attribute::NeverExtractable(true),
            Attribute::Local(true),
        ]);
        attributes
    }

    fn with(mut attributes: Vec<Attribute>, change: Attribute) -> Vec<Attribute> {
        attributes.retain(|attribute| attribute.attribute_type() != change.attribute_type());
        attributes.push(change);
        attributes
    }

    #[test]
    fn one_unsafe_attribute_is_enough_to_refuse_a_key() {
        let dsa = Algorithm::MlDsa(SuiteId::Standard);
        for algorithm in [dsa, Algorithm::MlDsa(SuiteId::Cnsa), Algorithm::MlKem1024] {
            assert_eq!(judge(&safe(algorithm), algorithm), Ok(Origin::MadeInside));
            let imported = with(safe(algorithm), Attribute::Local(false));
            assert_eq!(judge(&imported, algorithm), Ok(Origin::Imported));
            let changes = [
                Attribute::Token(false),
                Attribute::Private(false),
                Attribute::Sensitive(false),
                Attribute::AlwaysSensitive(false),
                Attribute::Extractable(true),
                Attribute::NeverExtractable(false),
                Attribute::Modifiable(true),
                Attribute::SignRecover(true),
                Attribute::Decrypt(true),
                Attribute::Unwrap(true),
                Attribute::Derive(true),
                Attribute::Sign(algorithm == Algorithm::MlKem1024),
                Attribute::Decapsulate(algorithm != Algorithm::MlKem1024),
                Attribute::KeyType(KeyType::EC),
            ];
            for change in changes {
                let changed = with(safe(algorithm), change.clone());
                assert!(judge(&changed, algorithm).is_err(), "{algorithm}: {change:?}");
            }
        }
        assert!(judge(&safe(dsa), Algorithm::MlDsa(SuiteId::Cnsa)).is_err(), "another parameter set");
    }

    #[test]
    fn what_the_token_does_not_tell_is_not_safe() {
        let algorithm = Algorithm::MlDsa(SuiteId::Standard);
        for hidden in [
            AttributeType::KeyType,
            AttributeType::ParameterSet,
            AttributeType::Token,
            AttributeType::Private,
            AttributeType::Sensitive,
            AttributeType::Extractable,
            AttributeType::AlwaysSensitive,
            AttributeType::NeverExtractable,
            AttributeType::Modifiable,
            AttributeType::Sign,
        ] {
            let mut attributes = safe(algorithm);
            attributes.retain(|attribute| attribute.attribute_type() != hidden);
            assert!(judge(&attributes, algorithm).is_err(), "{hidden:?}");
        }
        let mut attributes = safe(algorithm);
        attributes.retain(|attribute| attribute.attribute_type() != AttributeType::Local);
        assert_eq!(judge(&attributes, algorithm), Ok(Origin::Imported), "no vouching, no trust");
    }
}
