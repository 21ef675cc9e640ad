//! What an administrator says about an OpenID provider, checked once.

use serde::Deserialize;
use thiserror::Error;
use url::Url;

use super::algorithm::Algorithm;
use crate::roles::{RoleRule, RoleRules, RoleRulesError};
use crate::web::WebOrigin;

/// The largest difference between the provider's clock and the appliance's that can be allowed, in seconds.
pub const SKEW_S_MAX: u32 = 300;
/// Scopes, accepted `acr` values and demanded `amr` values of one provider.
const LIST_MAX: usize = 32;
/// Bytes of a client id, a scope, a value.
const TEXT_BYTES_MAX: usize = 256;

/// The configuration as it is written; [`Config::new`] checks it. The client's secret is not in it.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConfigDocument {
    /// The issuer identifier, exactly as the provider spells it (OpenID Connect Discovery 1.0 section 3).
    pub issuer: String,
    /// The client id that the provider gave.
    pub client_id: String,
    /// Where the provider sends the browser back to.
    pub redirect_uri: String,
    /// Where the provider sends the browser after a log-out that began here.
    #[serde(default)]
    pub post_logout_redirect_uri: Option<String>,
    /// The authorities that issue the provider's certificate, as PEM.
    pub authorities_pem: String,
    /// The algorithms that may sign: of RS256, PS256, ES256, ES384. If there are none: all four.
    #[serde(default)]
    pub algorithms: Vec<String>,
    /// Scopes beside `openid`.
    #[serde(default)]
    pub scopes: Vec<String>,
    /// The claim that roles are read from: its name, or a JSON pointer (RFC 6901) such as `/realm_access/roles`.
    #[serde(default)]
    pub roles_claim: Option<String>,
    /// What its values ask for.
    #[serde(default)]
    pub roles: Vec<RoleRule>,
    /// If any: `acr` has to be one of these.
    #[serde(default)]
    pub acr: Vec<String>,
    /// `amr` has to name every one of these (RFC 8176).
    #[serde(default)]
    pub amr: Vec<String>,
    /// Difference between the clocks that is allowed, in seconds.
    #[serde(default = "default_skew_s")]
    pub skew_s: u32,
    /// If set: how long ago the person may have proven to the provider who they are, in seconds. Asked for as
    /// `max_age`, and checked.
    #[serde(default)]
    pub max_age_s: Option<u32>,
    /// Refuse a callback without `iss` (RFC 9207) even if the provider's metadata does not promise it.
    #[serde(default)]
    pub require_iss: bool,
}

const fn default_skew_s() -> u32 {
    60
}

/// Why a configuration is refused.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum ConfigError {
    /// Not https, or with a query, a fragment, a user.
    #[error("{0} is no https URL without user, query and fragment")]
    Url(&'static str),
    /// An algorithm that never may sign: `none`, one with a shared secret, or an unknown one.
    #[error("{0:?} cannot sign here; RS256, PS256, ES256 and ES384 can")]
    Algorithm(String),
    /// Too much or too little of something.
    #[error("{0} is empty, too long, or has characters that it may not have")]
    Text(&'static str),
    /// More clock skew than [`SKEW_S_MAX`].
    #[error("a clock skew of {0} s is more than {SKEW_S_MAX}")]
    Skew(u32),
    /// The rules for roles.
    #[error("rules for roles")]
    Roles(#[from] RoleRulesError),
    /// There are rules for roles, and no claim that they are about, or the other way round.
    #[error("rules for roles and the claim that they read belong together")]
    RolesClaim,
}

/// A configuration that was checked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Config {
    pub(crate) issuer: String,
    pub(crate) issuer_url: Url,
    pub(crate) origin: WebOrigin,
    pub(crate) client_id: String,
    pub(crate) redirect_uri: Url,
    pub(crate) post_logout_redirect_uri: Option<Url>,
    pub(crate) authorities_pem: String,
    pub(crate) algorithms: Vec<Algorithm>,
    pub(crate) scopes: Vec<String>,
    pub(crate) roles_claim: Option<String>,
    pub(crate) roles: RoleRules,
    pub(crate) acr: Vec<String>,
    pub(crate) amr: Vec<String>,
    pub(crate) skew_s: u32,
    pub(crate) max_age_s: Option<u32>,
    pub(crate) require_iss: bool,
}

impl Config {
    /// Checks a document.
    ///
    /// # Errors
    /// [`ConfigError`]
    pub fn new(document: &ConfigDocument) -> Result<Self, ConfigError> {
        let (issuer_url, origin) = https(&document.issuer, "the issuer")?;
        let (redirect_uri, _) = https(&document.redirect_uri, "the redirect URI")?;
        let post_logout = document.post_logout_redirect_uri.as_deref();
        let post_logout_redirect_uri =
            post_logout.map(|text| https(text, "the post-logout redirect URI").map(|(url, _)| url));
        let named: Result<Vec<_>, _> = document
            .algorithms
            .iter()
            .map(|name| Algorithm::named(name).ok_or_else(|| ConfigError::Algorithm(name.clone())))
            .collect();
        let mut algorithms = named?;
        if algorithms.is_empty() {
            algorithms = Algorithm::ALL.to_vec();
        }
        text(&document.client_id, "the client id")?;
        for (list, what) in [(&document.scopes, "scopes"), (&document.acr, "acr"), (&document.amr, "amr")] {
            if list.len() > LIST_MAX {
                return Err(ConfigError::Text(what));
            }
            list.iter().try_for_each(|item| text(item, what))?;
        }
        if document.scopes.iter().any(|scope| scope.contains(' ')) {
            return Err(ConfigError::Text("scopes"));
        }
        if document.acr.iter().any(|acr| acr.contains(' ')) {
            return Err(ConfigError::Text("acr"));
        }
        if document.skew_s > SKEW_S_MAX {
            return Err(ConfigError::Skew(document.skew_s));
        }
        if document.roles_claim.is_some() == document.roles.is_empty() {
            return Err(ConfigError::RolesClaim);
        }
        document.roles_claim.iter().try_for_each(|claim| text(claim, "the claim of roles"))?;
        Ok(Self {
            issuer: document.issuer.clone(),
            issuer_url,
            origin,
            client_id: document.client_id.clone(),
            redirect_uri,
            post_logout_redirect_uri: post_logout_redirect_uri.transpose()?,
            authorities_pem: document.authorities_pem.clone(),
            algorithms,
            scopes: document.scopes.clone(),
            roles_claim: document.roles_claim.clone(),
            roles: RoleRules::new(&document.roles)?,
            acr: document.acr.clone(),
            amr: document.amr.clone(),
            skew_s: document.skew_s,
            max_age_s: document.max_age_s,
            require_iss: document.require_iss,
        })
    }

    /// Whether the provider's groups stand for roles. Where none does, it says nothing about anybody's.
    #[must_use]
    pub fn maps_roles(&self) -> bool {
        self.roles_claim.is_some()
    }

    /// Where the provider sends the browser back to.
    #[must_use]
    pub fn redirect_uri(&self) -> &Url {
        &self.redirect_uri
    }

    /// The issuer identifier.
    #[must_use]
    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    pub(crate) fn skew_ms(&self) -> u64 {
        u64::from(self.skew_s) * 1000
    }
}

fn https(text: &str, what: &'static str) -> Result<(Url, WebOrigin), ConfigError> {
    let url = Url::parse(text).map_err(|_| ConfigError::Url(what))?;
    let origin = WebOrigin::of(&url).ok_or(ConfigError::Url(what))?;
    if url.query().is_some()
        || url.fragment().is_some()
        || text.len() > 2048
        || text.contains(char::is_whitespace)
    {
        return Err(ConfigError::Url(what));
    }
    Ok((url, origin))
}

fn text(text: &str, what: &'static str) -> Result<(), ConfigError> {
    let good =
        !text.is_empty() && text.len() <= TEXT_BYTES_MAX && text.bytes().all(|b| (b' '..0x7f).contains(&b));
    if good { Ok(()) } else { Err(ConfigError::Text(what)) }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn document() -> ConfigDocument {
        ConfigDocument {
            issuer: "https://idp.test".into(),
            client_id: "zixt".into(),
            redirect_uri: "https://zixt.test/sso/callback".into(),
            post_logout_redirect_uri: None,
            authorities_pem: String::new(),
            algorithms: Vec::new(),
            scopes: Vec::new(),
            roles_claim: None,
            roles: Vec::new(),
            acr: Vec::new(),
            amr: Vec::new(),
            skew_s: 60,
            max_age_s: None,
            require_iss: false,
        }
    }

    #[test]
    fn only_https_is_taken() {
        assert!(Config::new(&document()).is_ok());
        for bad in
            ["http://idp.test", "https://idp.test?x", "https://idp.test#x", "https://a@idp.test", "idp", ""]
        {
            let issuer = ConfigDocument { issuer: bad.into(), ..document() };
            assert_eq!(Config::new(&issuer), Err(ConfigError::Url("the issuer")), "{bad}");
            let redirect = ConfigDocument { redirect_uri: bad.into(), ..document() };
            assert_eq!(Config::new(&redirect), Err(ConfigError::Url("the redirect URI")), "{bad}");
        }
    }

    #[test]
    fn algorithms_without_a_public_key_cannot_be_configured() {
        for bad in ["none", "None", "HS256", "HS384", "HS512", "RS1", "rs256", "RSA-OAEP", ""] {
            let document = ConfigDocument { algorithms: vec![bad.into()], ..document() };
            assert_eq!(Config::new(&document), Err(ConfigError::Algorithm(bad.into())), "{bad}");
        }
        assert_eq!(Config::new(&document()).unwrap().algorithms, Algorithm::ALL);
    }

    #[test]
    fn limits_hold() {
        let skew = ConfigDocument { skew_s: SKEW_S_MAX + 1, ..document() };
        assert_eq!(Config::new(&skew), Err(ConfigError::Skew(SKEW_S_MAX + 1)));
        let roles = vec![RoleRule { value: "x".into(), role: "user".into() }];
        let without = ConfigDocument { roles: roles.clone(), ..document() };
        assert_eq!(Config::new(&without), Err(ConfigError::RolesClaim));
        let admin = vec![RoleRule { value: "x".into(), role: "administrator".into() }];
        let admin = ConfigDocument { roles: admin, roles_claim: Some("groups".into()), ..document() };
        assert!(matches!(Config::new(&admin), Err(ConfigError::Roles(_))));
        let scope = ConfigDocument { scopes: vec!["a b".into()], ..document() };
        assert_eq!(Config::new(&scope), Err(ConfigError::Text("scopes")));
    }
}
