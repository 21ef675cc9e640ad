//! What a provider says about itself (OpenID Connect Discovery 1.0 section 3), as far as it is used.

use serde_json::{Map, Value};
use thiserror::Error;
use url::Url;

use super::config::Config;
use crate::json;
use crate::web::{WebConfigError, WebError, WebOrigin};

/// Values of one list of the metadata.
const VALUES_MAX: usize = 256;

/// Why a provider cannot be used. Nobody signs in with it until it is found.
#[derive(Debug, Error)]
pub enum DiscoverError {
    /// The TLS configuration.
    #[error(transparent)]
    Config(#[from] WebConfigError),
    /// It does not answer.
    #[error("the identity provider does not answer well")]
    Web(#[from] WebError),
    /// The metadata are no strict JSON, or a member is missing or has another type.
    #[error("the provider's metadata have no good {0}")]
    Metadata(&'static str),
    /// `issuer` is not, byte for byte, the configured one.
    #[error("the provider calls itself by another name")]
    Issuer,
    /// An endpoint is not https at the issuer's own origin.
    #[error("the {0} is not at the issuer's origin")]
    Elsewhere(&'static str),
    /// Something that this crate insists on.
    #[error("the provider cannot do {0}")]
    Lacks(&'static str),
    /// The key set.
    #[error("the provider's key set")]
    Keys(#[from] super::keys::KeySetError),
}

/// How the client's secret is shown (OpenID Connect Core 1.0 section 9).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum ClientAuthentication {
    Basic,
    Post,
}

/// The parts that are used. Every URL is at the issuer's origin.
#[derive(Clone, Debug)]
pub(crate) struct Metadata {
    pub(crate) authorization: Url,
    pub(crate) token: Url,
    pub(crate) keys: Url,
    pub(crate) end_session: Option<Url>,
    pub(crate) introspection: Option<Url>,
    pub(crate) client_authentication: ClientAuthentication,
    pub(crate) promises_iss: bool,
}

/// Where the metadata are (OpenID Connect Discovery 1.0 section 4).
pub(crate) fn location(config: &Config) -> String {
    format!("{}/.well-known/openid-configuration", config.issuer.trim_end_matches('/'))
}

impl Metadata {
    pub(crate) fn parse(text: &[u8], config: &Config) -> Result<Self, DiscoverError> {
        let document = json::object(text).map_err(|_| DiscoverError::Metadata("JSON"))?;
        if member(&document, "issuer")? != Some(config.issuer.as_str()) {
            return Err(DiscoverError::Issuer);
        }
        let url = |name: &'static str| -> Result<Option<Url>, DiscoverError> {
            let Some(text) = member(&document, name)? else { return Ok(None) };
            let url = Url::parse(text).map_err(|_| DiscoverError::Metadata(name))?;
            let at_home = WebOrigin::of(&url).as_ref() == Some(&config.origin) && url.fragment().is_none();
            if at_home { Ok(Some(url)) } else { Err(DiscoverError::Elsewhere(name)) }
        };
        let needed = |name: &'static str| url(name)?.ok_or(DiscoverError::Metadata(name));
        let says = |name: &'static str, value: &str, default: bool| -> Result<bool, DiscoverError> {
            let Some(values) = document.get(name) else { return Ok(default) };
            let values = json::texts(values, VALUES_MAX).map_err(|_| DiscoverError::Metadata(name))?;
            Ok(values.contains(&value))
        };
        if !says("response_types_supported", "code", false)? {
            return Err(DiscoverError::Lacks("the code flow"));
        }
        // A provider that does not list the methods may still know PKCE (RFC 8414 section 2 would have it listed; many
        // do not). It is sent in any case.
        if !says("code_challenge_methods_supported", "S256", true)? {
            return Err(DiscoverError::Lacks("PKCE with S256 (RFC 7636)"));
        }
        let signs = config.algorithms.iter().try_fold(false, |found, algorithm| {
            Ok::<_, DiscoverError>(
                found || says("id_token_signing_alg_values_supported", algorithm.name(), true)?,
            )
        })?;
        if !signs {
            return Err(DiscoverError::Lacks("any of the pinned signature algorithms"));
        }
        let methods = "token_endpoint_auth_methods_supported";
        let client_authentication = if says(methods, "client_secret_basic", true)? {
            ClientAuthentication::Basic
        } else if says(methods, "client_secret_post", false)? {
            ClientAuthentication::Post
        } else {
            return Err(DiscoverError::Lacks("a client secret (client_secret_basic or client_secret_post)"));
        };
        let promises_iss = match document.get("authorization_response_iss_parameter_supported") {
            None => false,
            Some(Value::Bool(promised)) => *promised,
            Some(_) => {
                return Err(DiscoverError::Metadata("authorization_response_iss_parameter_supported"));
            }
        };
        Ok(Self {
            authorization: needed("authorization_endpoint")?,
            token: needed("token_endpoint")?,
            keys: needed("jwks_uri")?,
            end_session: url("end_session_endpoint")?,
            introspection: url("introspection_endpoint")?,
            client_authentication,
            promises_iss,
        })
    }
}

fn member<'a>(
    document: &'a Map<String, Value>,
    name: &'static str,
) -> Result<Option<&'a str>, DiscoverError> {
    json::text(document, name).map_err(|_| DiscoverError::Metadata(name))
}

#[cfg(test)]
mod tests {
    use super::super::config::tests::document;
    use super::*;

    fn parse(change: impl Fn(&mut Map<String, Value>)) -> Result<Metadata, DiscoverError> {
        let mut metadata = json::object(
            br#"{"issuer":"https://idp.test","authorization_endpoint":"https://idp.test/auth",
                "token_endpoint":"https://idp.test/token","jwks_uri":"https://idp.test/jwks",
                "response_types_supported":["code"],"id_token_signing_alg_values_supported":["RS256"]}"#,
        )
        .unwrap();
        change(&mut metadata);
        Metadata::parse(&serde_json::to_vec(&metadata).unwrap(), &Config::new(&document()).unwrap())
    }

    fn with(name: &str, value: Value) -> Result<Metadata, DiscoverError> {
        parse(|metadata| {
            metadata.insert(name.to_owned(), value.clone());
        })
    }

    #[test]
    fn every_endpoint_is_at_the_issuers_origin() {
        assert!(parse(|_| ()).is_ok());
        let endpoints = [
            "authorization_endpoint",
            "token_endpoint",
            "jwks_uri",
            "end_session_endpoint",
            "introspection_endpoint",
        ];
        for name in endpoints {
            for bad in [
                "https://evil.test/x",
                "http://idp.test/x",
                "https://idp.test:8443/x",
                "https://idp.test@evil.test/",
            ] {
                assert!(
                    matches!(with(name, bad.into()), Err(DiscoverError::Elsewhere(found)) if found == name),
                    "{bad}"
                );
            }
        }
    }

    #[test]
    fn the_issuer_is_spelled_exactly() {
        for bad in ["https://idp.test/", "https://IDP.test", "https://evil.test"] {
            assert!(matches!(with("issuer", bad.into()), Err(DiscoverError::Issuer)), "{bad}");
        }
        assert!(matches!(parse(|m| drop(m.remove("issuer"))), Err(DiscoverError::Issuer)));
    }

    #[test]
    fn what_is_insisted_on_is_there() {
        let list = |text: &str| Value::from(vec![text]);
        assert!(matches!(with("response_types_supported", list("token")), Err(DiscoverError::Lacks(_))));
        assert!(matches!(
            with("code_challenge_methods_supported", list("plain")),
            Err(DiscoverError::Lacks(_))
        ));
        assert!(matches!(
            with("id_token_signing_alg_values_supported", list("HS256")),
            Err(DiscoverError::Lacks(_))
        ));
        let methods = "token_endpoint_auth_methods_supported";
        assert!(matches!(with(methods, list("none")), Err(DiscoverError::Lacks(_))));
        assert_eq!(
            with(methods, list("client_secret_post")).unwrap().client_authentication,
            ClientAuthentication::Post
        );
        assert!(matches!(parse(|m| drop(m.remove("jwks_uri"))), Err(DiscoverError::Metadata("jwks_uri"))));
    }
}
