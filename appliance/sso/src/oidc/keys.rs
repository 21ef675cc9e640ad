//! A provider's published keys (JSON Web Key Set, RFC 7517), read strictly.

use aws_lc_rs::signature::{RsaPublicKeyComponents, UnparsedPublicKey};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use openidconnect::JsonWebKeyId;
use openidconnect::core::{CoreJsonCurveType, CoreJsonWebKey};
use serde_json::{Map, Value};
use std::collections::HashSet;
use thiserror::Error;

use super::algorithm::{Algorithm, Verifier};
use crate::json;

/// Keys of one provider. During a rotation there are a handful.
pub const KEYS_MAX: usize = 64;
/// Bytes of a key's id.
pub(crate) const KID_BYTES_MAX: usize = 256;
/// Bytes of an RSA modulus: 2048 to 8192 bits.
const MODULUS_BYTES: std::ops::RangeInclusive<usize> = 256..=1024;
/// The public exponent 65537, the only one in use.
const EXPONENT: &[u8] = &[1, 0, 1];

/// Why a key set is refused as a whole. The keys that were known before stay.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum KeySetError {
    /// No strict JSON, or members of the wrong type.
    #[error("it is not a JSON Web Key Set (RFC 7517)")]
    Malformed,
    /// More than [`KEYS_MAX`].
    #[error("it has more than {KEYS_MAX} keys")]
    TooMany,
    /// Two keys with one id: nobody could tell which one is meant.
    #[error("two keys have the same id")]
    DuplicateId,
    /// A key that signs has no id, and is not the only one.
    #[error("a key has no id, and there are others")]
    NoId,
    /// Private or shared key material was published: whoever read it can sign.
    #[error("it publishes private or shared keys")]
    Private,
    /// No key of it could verify anything.
    #[error("it has no key that signs with an algorithm of ours")]
    NoUsable,
}

#[derive(Clone, Debug)]
enum Material {
    Rsa {
        modulus: Vec<u8>,
    },
    /// An uncompressed point (SEC 1 section 2.3.3).
    P256(Vec<u8>),
    P384(Vec<u8>),
}

/// A public key that signs.
#[derive(Clone, Debug)]
pub(crate) struct Key {
    id: Option<String>,
    algorithm: Option<Algorithm>,
    material: Material,
}

impl Key {
    /// Whether this algorithm is one for this key, and for nothing but its kind and curve.
    fn fits(&self, algorithm: Algorithm) -> bool {
        let kind = matches!(
            (&self.material, algorithm),
            (Material::Rsa { .. }, Algorithm::Rs256 | Algorithm::Ps256)
                | (Material::P256(_), Algorithm::Es256)
                | (Material::P384(_), Algorithm::Es384)
        );
        kind && self.algorithm.is_none_or(|only| only == algorithm)
    }

    /// Verifies with aws-lc.
    pub(crate) fn verify(&self, algorithm: Algorithm, message: &[u8], signature: &[u8]) -> bool {
        match (algorithm.verifier(), &self.material) {
            (Verifier::Rsa(parameters), Material::Rsa { modulus }) => {
                RsaPublicKeyComponents { n: modulus, e: &EXPONENT.to_vec() }
                    .verify(parameters, message, signature)
                    .is_ok()
            }
            (Verifier::Ecdsa(parameters), Material::P256(point) | Material::P384(point)) => {
                UnparsedPublicKey::new(parameters, point).verify(message, signature).is_ok()
            }
            _ => false,
        }
    }

    /// The same key for the library, under the id that a token names it by.
    pub(crate) fn of_library(&self, id: Option<&str>) -> CoreJsonWebKey {
        let id = || id.map(|id| JsonWebKeyId::new(id.to_owned()));
        let halves = |point: &[u8]| {
            let coordinates = &point[1..];
            let (x, y) = coordinates.split_at(coordinates.len() / 2);
            (x.to_vec(), y.to_vec())
        };
        let curve = |point: &[u8], curve| {
            let (x, y) = halves(point);
            CoreJsonWebKey::new_ec(x, y, curve, id())
        };
        match &self.material {
            Material::Rsa { modulus } => CoreJsonWebKey::new_rsa(modulus.clone(), EXPONENT.to_vec(), id()),
            Material::P256(point) => curve(point, CoreJsonCurveType::P256),
            Material::P384(point) => curve(point, CoreJsonCurveType::P384),
        }
    }
}

/// Why no key is taken for a token.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub(crate) enum NoKey {
    #[error("unknown id")]
    Unknown,
    #[error("another kind, curve or algorithm")]
    Mismatch,
}

/// Keys that were read.
#[derive(Clone, Debug, Default)]
pub(crate) struct KeySet(Vec<Key>);

impl KeySet {
    pub(crate) fn parse(text: &[u8]) -> Result<Self, KeySetError> {
        let set = json::object(text).map_err(|_| KeySetError::Malformed)?;
        let Some(Value::Array(entries)) = set.get("keys") else { return Err(KeySetError::Malformed) };
        if entries.len() > KEYS_MAX {
            return Err(KeySetError::TooMany);
        }
        let mut ids = HashSet::new();
        let mut keys = Vec::new();
        for entry in entries {
            let Value::Object(entry) = entry else { return Err(KeySetError::Malformed) };
            let key = parse_key(entry)?;
            let id = json::text(entry, "kid").map_err(|_| KeySetError::Malformed)?;
            // Also among keys for other uses: a reader may choose by the id alone.
            if id.is_some_and(|id| !ids.insert(id)) {
                return Err(KeySetError::DuplicateId);
            }
            keys.extend(key);
        }
        if keys.len() > 1 && keys.iter().any(|key| key.id.is_none()) {
            return Err(KeySetError::NoId);
        }
        if keys.is_empty() {
            return Err(KeySetError::NoUsable);
        }
        Ok(Self(keys))
    }

    /// The key of a token. A token without an id is taken only where there is one key at all.
    pub(crate) fn find(&self, id: Option<&str>, algorithm: Algorithm) -> Result<&Key, NoKey> {
        let key = match (id, self.0.as_slice()) {
            (None, [only]) => only,
            (None, _) => return Err(NoKey::Unknown),
            (Some(id), keys) => {
                keys.iter().find(|key| key.id.as_deref() == Some(id)).ok_or(NoKey::Unknown)?
            }
        };
        if key.fits(algorithm) { Ok(key) } else { Err(NoKey::Mismatch) }
    }
}

/// A key of the set; `None` for one that is not for us (another use, kind or algorithm).
fn parse_key(entry: &Map<String, Value>) -> Result<Option<Key>, KeySetError> {
    let text = |name| json::text(entry, name).map_err(|_| KeySetError::Malformed);
    let kind = text("kty")?.ok_or(KeySetError::Malformed)?;
    if kind == "oct"
        || ["d", "p", "q", "dp", "dq", "qi", "oth", "k"].iter().any(|name| entry.contains_key(*name))
    {
        return Err(KeySetError::Private);
    }
    let id = text("kid")?;
    if id.is_some_and(|id| id.is_empty() || id.len() > KID_BYTES_MAX) {
        return Err(KeySetError::Malformed);
    }
    if text("use")?.is_some_and(|of| of != "sig") {
        return Ok(None);
    }
    if let Some(operations) = entry.get("key_ops") {
        let operations = json::texts(operations, 16).map_err(|_| KeySetError::Malformed)?;
        if !operations.contains(&"verify") {
            return Ok(None);
        }
    }
    let algorithm = match text("alg")? {
        None => None,
        Some(name) => match Algorithm::named(name) {
            Some(algorithm) => Some(algorithm),
            None => return Ok(None),
        },
    };
    let bytes = |name| -> Result<Vec<u8>, KeySetError> {
        let text = text(name)?.ok_or(KeySetError::Malformed)?;
        BASE64_URL_SAFE_NO_PAD.decode(text).map_err(|_| KeySetError::Malformed)
    };
    let point = |length: usize| -> Result<Vec<u8>, KeySetError> {
        let (x, y) = (bytes("x")?, bytes("y")?);
        if x.len() != length || y.len() != length {
            return Err(KeySetError::Malformed);
        }
        Ok([&[4], x.as_slice(), &y].concat())
    };
    let material = match (kind, text("crv")?) {
        ("RSA", None) => {
            let (modulus, exponent) = (bytes("n")?, bytes("e")?);
            let minimal = modulus.first().is_some_and(|first| *first != 0);
            if !minimal || !MODULUS_BYTES.contains(&modulus.len()) || exponent != EXPONENT {
                return Ok(None);
            }
            Material::Rsa { modulus }
        }
        ("EC", Some("P-256")) => Material::P256(point(32)?),
        ("EC", Some("P-384")) => Material::P384(point(48)?),
        _ => return Ok(None),
    };
    Ok(Some(Key { id: id.map(str::to_owned), algorithm, material }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rsa(id: &str, more: &str) -> String {
        format!(
            r#"{{"kty":"RSA","kid":"{id}","n":"{}","e":"AQAB"{more}}}"#,
            BASE64_URL_SAFE_NO_PAD.encode([0xc1; 256])
        )
    }

    fn set(keys: &[String]) -> Result<KeySet, KeySetError> {
        KeySet::parse(format!(r#"{{"keys":[{}]}}"#, keys.join(",")).as_bytes())
    }

    #[test]
    fn keys_are_found_by_id_and_kind() {
        let keys = set(&[rsa("a", ""), rsa("b", r#","alg":"PS256""#)]).unwrap();
        assert!(keys.find(Some("a"), Algorithm::Rs256).is_ok());
        assert!(keys.find(Some("a"), Algorithm::Ps256).is_ok());
        assert!(matches!(keys.find(Some("a"), Algorithm::Es256), Err(NoKey::Mismatch)));
        assert!(matches!(keys.find(Some("b"), Algorithm::Rs256), Err(NoKey::Mismatch)));
        assert!(matches!(keys.find(Some("c"), Algorithm::Rs256), Err(NoKey::Unknown)));
        assert!(matches!(keys.find(None, Algorithm::Rs256), Err(NoKey::Unknown)));
        assert!(set(&[rsa("a", "")]).unwrap().find(None, Algorithm::Rs256).is_ok());
    }

    #[test]
    fn sets_that_could_be_read_in_two_ways_are_refused() {
        assert_eq!(set(&[rsa("a", ""), rsa("a", "")]).err(), Some(KeySetError::DuplicateId));
        assert_eq!(set(&[rsa("a", ""), rsa("a", r#","use":"enc""#)]).err(), Some(KeySetError::DuplicateId));
        let nameless = rsa("a", "").replace(r#""kid":"a","#, "");
        assert_eq!(set(&[nameless.clone(), rsa("b", "")]).err(), Some(KeySetError::NoId));
        assert!(set(&[nameless]).is_ok());
        assert_eq!(set(&[rsa("a", r#","kid":"b""#)]).err(), Some(KeySetError::Malformed));
    }

    #[test]
    fn published_secrets_end_the_set() {
        assert_eq!(set(&[rsa("a", r#","d":"AQAB""#)]).err(), Some(KeySetError::Private));
        let shared = r#"{"kty":"oct","kid":"x","k":"AQAB"}"#.to_owned();
        assert_eq!(set(&[rsa("a", ""), shared]).err(), Some(KeySetError::Private));
    }

    #[test]
    fn weak_and_foreign_keys_verify_nothing() {
        let short = BASE64_URL_SAFE_NO_PAD.encode([0xc1; 128]);
        let weak = format!(r#"{{"kty":"RSA","kid":"w","n":"{short}","e":"AQAB"}}"#);
        let exponent = rsa("a", "").replace("AQAB", "Aw");
        let okp = r#"{"kty":"OKP","crv":"Ed25519","kid":"o","x":"AA"}"#.to_owned();
        for bad in [
            weak,
            exponent,
            okp,
            rsa("a", r#","use":"enc""#),
            rsa("a", r#","alg":"RS1""#),
            rsa("a", r#","key_ops":["encrypt"]"#),
        ] {
            assert_eq!(set(std::slice::from_ref(&bad)).err(), Some(KeySetError::NoUsable), "{bad}");
            assert!(
                set(&[bad.clone(), rsa("z", "")]).unwrap().find(Some("z"), Algorithm::Rs256).is_ok(),
                "{bad}"
            );
        }
        let many: Vec<_> = (0..=KEYS_MAX).map(|n| rsa(&n.to_string(), "")).collect();
        assert_eq!(set(&many).err(), Some(KeySetError::TooMany));
    }
}
