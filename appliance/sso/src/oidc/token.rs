//! Signed tokens (JWS compact serialisation, RFC 7515; JWT, RFC 7519), read strictly.

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde_json::{Map, Value};
use thiserror::Error;

use super::algorithm::Algorithm;
use super::keys::{KID_BYTES_MAX, Key, KeySet, NoKey};
use crate::json::{self, JsonError};

/// Bytes of a token. Tokens with hundreds of groups have some 20 KiB.
pub const TOKEN_BYTES_MAX: usize = 64 * 1024;
/// Bytes of `sub` (OpenID Connect Core 1.0 section 2).
pub(crate) const SUBJECT_BYTES_MAX: usize = 255;
/// Audiences that are looked at; only one is ever accepted.
const AUDIENCES_MAX: usize = 16;

/// Headers that bring a key, or say where to fetch one (RFC 7515 section 4.1): keys come from the provider's pinned key
/// set and from nowhere else.
const KEY_HEADERS: [&str; 4] = ["jku", "jwk", "x5u", "x5c"];
/// Headers that change what is signed or how it is read: an unencoded payload (RFC 7797), compression and encryption
/// (RFC 7516), a token in the token (RFC 7519 section 5.2).
const FORM_HEADERS: [&str; 6] = ["b64", "zip", "enc", "epk", "cty", "p2s"];

/// Why a token is refused. The order is that of the checks.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum TokenError {
    /// Longer than [`TOKEN_BYTES_MAX`].
    #[error("the token is longer than {TOKEN_BYTES_MAX} bytes")]
    TooLong,
    /// No three parts of unpadded base64url over strict JSON objects.
    #[error("the token is not a signed token in compact form (RFC 7515)")]
    Malformed,
    /// `alg` is missing, `none`, has a shared secret, is unknown, or is not pinned.
    #[error("the token's algorithm may not sign")]
    Algorithm,
    /// `crit` names extensions; this crate knows none (RFC 7515 section 4.1.11).
    #[error("the token demands an extension")]
    Critical,
    /// It brings its own key or says where to fetch it.
    #[error("the token brings its own key")]
    KeyInHeader,
    /// Compression, encryption or a nested token.
    #[error("the token has a form that is not read here")]
    Form,
    /// `typ` is that of another kind of token (RFC 8725 section 3.11).
    #[error("it is another kind of token")]
    Type,
    /// The provider publishes no key with this id.
    #[error("the token names a key that the provider does not publish")]
    UnknownKey,
    /// The key is one for another algorithm.
    #[error("the token's key is not one for its algorithm")]
    KeyMismatch,
    /// The signature is not good.
    #[error("the signature is not good")]
    Signature,
    /// A claim is missing, or has another type than its specification says.
    #[error("the claim {0} is missing or malformed")]
    Claim(&'static str),
    /// `iss` is somebody else.
    #[error("the token is from another issuer")]
    Issuer,
    /// `aud` is not this client, alone.
    #[error("the token is for another audience")]
    Audience,
    /// `azp` is another client.
    #[error("the token was given to another client")]
    AuthorizedParty,
    /// `exp` has passed.
    #[error("the token has expired")]
    Expired,
    /// `nbf` or `iat` is in the future.
    #[error("the token is not valid yet")]
    NotYetValid,
    /// `iat` is before the sign-in began: it is another sign-in's.
    #[error("the token was issued before the sign-in began")]
    TooOld,
    /// `nonce` is another sign-in's.
    #[error("the token is for another sign-in")]
    Nonce,
    /// `at_hash` is that of another access token.
    #[error("the token belongs to another access token")]
    AccessTokenHash,
    /// The person has proven who they are too long ago, or it does not say when.
    #[error("the person has to prove to the provider anew who they are")]
    AuthenticationTooOld,
    /// `acr` or `amr` is not what is demanded.
    #[error("the person has not signed in as strongly as is demanded")]
    AuthenticationTooWeak,
    /// A logout token without the event, or with what it may not have.
    #[error("it is no logout token")]
    NoLogout,
    /// The second verifier does not agree with the first.
    #[error("two verifiers do not agree")]
    SecondOpinion,
}

impl From<NoKey> for TokenError {
    fn from(none: NoKey) -> Self {
        match none {
            NoKey::Unknown => Self::UnknownKey,
            NoKey::Mismatch => Self::KeyMismatch,
        }
    }
}

/// What kind of token is expected.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    Id,
    Logout,
}

impl Kind {
    /// Whether `typ` says nothing else. Without a type the claims tell the two apart: a logout token has `events` and
    /// no `nonce`.
    fn accepts(self, typ: Option<&str>) -> bool {
        let Some(typ) = typ else { return true };
        let is = |name: &str| typ.eq_ignore_ascii_case(name);
        match self {
            Self::Id => is("JWT"),
            Self::Logout => is("logout+jwt") || is("application/logout+jwt") || is("JWT"),
        }
    }
}

/// A token whose form is good and whose signature was not looked at.
pub(crate) struct Unverified<'a> {
    pub(crate) algorithm: Algorithm,
    pub(crate) kid: Option<String>,
    signed: &'a str,
    signature: Vec<u8>,
    payload: Vec<u8>,
}

impl<'a> Unverified<'a> {
    pub(crate) fn parse(token: &'a str, kind: Kind, pinned: &[Algorithm]) -> Result<Self, TokenError> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(TokenError::TooLong);
        }
        let (signed, signature) = token.rsplit_once('.').ok_or(TokenError::Malformed)?;
        let (header, payload) = signed.split_once('.').ok_or(TokenError::Malformed)?;
        let decode = |part| BASE64_URL_SAFE_NO_PAD.decode(part).map_err(|_| TokenError::Malformed);
        let header = json::object(&decode(header)?)?;
        let name = json::text(&header, "alg")?.ok_or(TokenError::Algorithm)?;
        let algorithm = Algorithm::named(name).filter(|found| pinned.contains(found));
        let algorithm = algorithm.ok_or(TokenError::Algorithm)?;
        if header.contains_key("crit") {
            return Err(TokenError::Critical);
        }
        if KEY_HEADERS.iter().any(|name| header.contains_key(*name)) {
            return Err(TokenError::KeyInHeader);
        }
        if FORM_HEADERS.iter().any(|name| header.contains_key(*name)) {
            return Err(TokenError::Form);
        }
        if !kind.accepts(json::text(&header, "typ")?) {
            return Err(TokenError::Type);
        }
        let kid = json::text(&header, "kid")?;
        if kid.is_some_and(|kid| kid.is_empty() || kid.len() > KID_BYTES_MAX) {
            return Err(TokenError::UnknownKey);
        }
        Ok(Self {
            algorithm,
            kid: kid.map(str::to_owned),
            signed,
            signature: decode(signature)?,
            payload: decode(payload)?,
        })
    }

    /// Verifies the signature with the provider's key and reads the claims.
    pub(crate) fn verify<'k>(&self, keys: &'k KeySet) -> Result<(Claims, &'k Key), TokenError> {
        let key = keys.find(self.kid.as_deref(), self.algorithm)?;
        if !key.verify(self.algorithm, self.signed.as_bytes(), &self.signature) {
            return Err(TokenError::Signature);
        }
        Ok((Claims(json::object(&self.payload)?), key))
    }
}

impl From<JsonError> for TokenError {
    fn from(_: JsonError) -> Self {
        Self::Malformed
    }
}

/// The claims of a token whose signature is good.
#[derive(Debug)]
pub(crate) struct Claims(pub(crate) Map<String, Value>);

/// What a token's times are compared with, in seconds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Window {
    pub(crate) now_s: u64,
    pub(crate) skew_s: u64,
    /// Nothing that was issued before this (without the skew) is taken.
    pub(crate) issued_from_s: u64,
}

impl Claims {
    pub(crate) fn text(&self, name: &'static str) -> Result<Option<&str>, TokenError> {
        json::text(&self.0, name).map_err(|_| TokenError::Claim(name))
    }

    pub(crate) fn seconds(&self, name: &'static str) -> Result<Option<u64>, TokenError> {
        json::seconds(&self.0, name).map_err(|_| TokenError::Claim(name))
    }

    pub(crate) fn texts(&self, name: &'static str, max: usize) -> Result<Vec<&str>, TokenError> {
        let value = self.0.get(name);
        value.map_or(Ok(Vec::new()), |value| json::texts(value, max).map_err(|_| TokenError::Claim(name)))
    }

    /// `sub`, if there is one: 1 to 255 printable ASCII characters (OpenID Connect Core 1.0 section 2 says ASCII).
    pub(crate) fn subject(&self) -> Result<Option<&str>, TokenError> {
        let subject = self.text("sub")?;
        let good = |sub: &str| {
            !sub.is_empty()
                && sub.len() <= SUBJECT_BYTES_MAX
                && sub.bytes().all(|b| (b' '..0x7f).contains(&b))
        };
        if subject.is_some_and(|sub| !good(sub)) { Err(TokenError::Claim("sub")) } else { Ok(subject) }
    }

    /// Who made it, and for whom: `iss`, `aud` and `azp` (OpenID Connect Core 1.0 section 3.1.3.7, steps 2 to 5).
    pub(crate) fn check_parties(&self, issuer: &str, client_id: &str) -> Result<(), TokenError> {
        if self.text("iss")?.ok_or(TokenError::Claim("iss"))? != issuer {
            return Err(TokenError::Issuer);
        }
        // Another audience beside this one could be somebody who shows the same token here.
        if self.texts("aud", AUDIENCES_MAX)? != [client_id] {
            return Err(TokenError::Audience);
        }
        match self.text("azp")? {
            Some(party) if party != client_id => Err(TokenError::AuthorizedParty),
            _ => Ok(()),
        }
    }

    /// `exp`, `iat` and `nbf` (RFC 7519 sections 4.1.4 to 4.1.6). Gives the second at which it ends for us.
    pub(crate) fn check_times(&self, window: Window) -> Result<u64, TokenError> {
        let Window { now_s, skew_s, issued_from_s } = window;
        let expires = self.seconds("exp")?.ok_or(TokenError::Claim("exp"))?;
        let issued = self.seconds("iat")?.ok_or(TokenError::Claim("iat"))?;
        let latest = now_s.saturating_add(skew_s);
        if expires.saturating_add(skew_s) <= now_s {
            return Err(TokenError::Expired);
        }
        if issued > latest || self.seconds("nbf")?.is_some_and(|from| from > latest) {
            return Err(TokenError::NotYetValid);
        }
        if issued.saturating_add(skew_s) < issued_from_s {
            return Err(TokenError::TooOld);
        }
        Ok(expires.saturating_add(skew_s))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(header: &str) -> String {
        let encode = |text: &[u8]| BASE64_URL_SAFE_NO_PAD.encode(text);
        format!("{}.{}.{}", encode(header.as_bytes()), encode(b"{}"), encode(b"signature"))
    }

    fn parse(header: &str) -> Option<TokenError> {
        Unverified::parse(&token(header), Kind::Id, &Algorithm::ALL).err()
    }

    #[test]
    fn headers_are_checked_before_any_key_is_looked_for() {
        assert_eq!(parse(r#"{"alg":"RS256"}"#), None);
        assert_eq!(parse(r#"{"alg":"RS256","typ":"jwt","kid":"a","x5t":"hint"}"#), None);
        for (header, error) in [
            (r#"{"alg":"none"}"#, TokenError::Algorithm),
            (r#"{"alg":"NoNe"}"#, TokenError::Algorithm),
            (r#"{"alg":"HS256"}"#, TokenError::Algorithm),
            (r#"{"alg":"RS512"}"#, TokenError::Algorithm),
            (r#"{}"#, TokenError::Algorithm),
            (r#"{"alg":["RS256"]}"#, TokenError::Malformed),
            (r#"{"alg":"RS256","alg":"none"}"#, TokenError::Malformed),
            (r#"{"alg":"RS256","crit":[]}"#, TokenError::Critical),
            (r#"{"alg":"RS256","jku":"https://evil.test"}"#, TokenError::KeyInHeader),
            (r#"{"alg":"RS256","b64":false}"#, TokenError::Form),
            (r#"{"alg":"RS256","typ":"at+jwt"}"#, TokenError::Type),
            (r#"{"alg":"RS256","typ":"logout+jwt"}"#, TokenError::Type),
            (r#"{"alg":"RS256","kid":""}"#, TokenError::UnknownKey),
            (r#"{"alg":"RS256","kid":7}"#, TokenError::Malformed),
        ] {
            assert_eq!(parse(header), Some(error), "{header}");
        }
    }

    #[test]
    fn only_the_pinned_algorithms_sign() {
        let token = token(r#"{"alg":"RS256"}"#);
        let parse = |pinned: &[Algorithm]| Unverified::parse(&token, Kind::Id, pinned).err();
        assert_eq!(parse(&[Algorithm::Es256, Algorithm::Ps256]), Some(TokenError::Algorithm));
        assert_eq!(parse(&[Algorithm::Rs256]), None);
    }

    #[test]
    fn the_form_is_exact() {
        let good = token(r#"{"alg":"RS256"}"#);
        let parse = |text: &str| Unverified::parse(text, Kind::Id, &Algorithm::ALL).err();
        for bad in [
            "",
            ".",
            "..",
            "a.b",
            &format!("{good}.x"),
            &format!("{good}="),
            &format!(" {good}"),
            &good.replace('.', " ."),
        ] {
            assert_eq!(parse(bad), Some(TokenError::Malformed), "{bad}");
        }
        assert_eq!(parse(&"a".repeat(TOKEN_BYTES_MAX + 1)), Some(TokenError::TooLong));
    }

    #[test]
    fn times_are_compared_with_the_skew() {
        let check = |exp: u64, iat: u64, nbf: u64| {
            let claims = format!(r#"{{"exp":{exp},"iat":{iat},"nbf":{nbf}}}"#);
            let window = Window { now_s: 1000, skew_s: 10, issued_from_s: 900 };
            Claims(json::object(claims.as_bytes()).unwrap()).check_times(window)
        };
        assert_eq!(check(1100, 1000, 1000), Ok(1110));
        assert_eq!(check(991, 890, 1010), Ok(1001), "all at their edges");
        assert_eq!(check(990, 950, 950), Err(TokenError::Expired));
        assert_eq!(check(1100, 1011, 950), Err(TokenError::NotYetValid));
        assert_eq!(check(1100, 950, 1011), Err(TokenError::NotYetValid));
        assert_eq!(check(1100, 889, 889), Err(TokenError::TooOld));
    }

    /// A token that the first key of the corpus signed, and the keys of its provider.
    fn signed() -> (String, KeySet) {
        use aws_lc_rs::rand::SystemRandom;
        use aws_lc_rs::signature::{KeyPair as _, RSA_PKCS1_SHA256, RsaKeyPair};
        use rustls::pki_types::PrivatePkcs8KeyDer;
        use rustls::pki_types::pem::PemObject as _;
        let pem = include_bytes!("../../tests/corpus/oidc/rsa-one.pem");
        let der = PrivatePkcs8KeyDer::from_pem_slice(pem).unwrap();
        let key = RsaKeyPair::from_pkcs8(der.secret_pkcs8_der()).unwrap();
        let encode = |bytes: &[u8]| BASE64_URL_SAFE_NO_PAD.encode(bytes);
        let header = encode(br#"{"alg":"RS256","kid":"one"}"#);
        let text = format!("{header}.{}", encode(br#"{"sub":"alice-1","iat":1}"#));
        let mut signature = vec![0; key.public_modulus_len()];
        key.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), text.as_bytes(), &mut signature).unwrap();
        let modulus = encode(key.public_key().modulus().big_endian_without_leading_zero());
        let keys = format!(r#"{{"keys":[{{"kty":"RSA","kid":"one","n":"{modulus}","e":"AQAB"}}]}}"#);
        (format!("{text}.{}", encode(&signature)), KeySet::parse(keys.as_bytes()).unwrap())
    }

    proptest::proptest! {
        #[test]
        fn no_change_of_a_signed_token_is_taken(
            changes in proptest::collection::vec((proptest::prelude::any::<usize>(), 0..5_u8, "[ -~]"), 1..4),
        ) {
            let (token, keys) = signed();
            let check = |token: &str| {
                Unverified::parse(token, Kind::Id, &Algorithm::ALL)?.verify(&keys).map(|(claims, _)| claims)
            };
            let good = check(&token).unwrap();
            proptest::prop_assert_eq!(good.subject(), Ok(Some("alice-1")));
            let mut changed = token.clone();
            for (at, kind, with) in &changes {
                let at = at % changed.len().max(1);
                match kind {
                    0 => changed.replace_range(at..=at, with),
                    1 => changed.insert_str(at, with),
                    2 => drop(changed.remove(at)),
                    3 => changed.truncate(at.max(1)),
                    _ => changed = format!("{}{}", &changed[at..], &changed[..at]),
                }
            }
            proptest::prop_assert!(changed == token || check(&changed).is_err(), "{}", changed);
        }
    }
}
