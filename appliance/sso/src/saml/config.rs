//! What an administrator says about a SAML identity provider, checked once.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use serde::Deserialize;
use thiserror::Error;
use url::Url;

use crate::oidc::SKEW_S_MAX;
use crate::roles::{RoleRule, RoleRules, RoleRulesError};
use crate::web::WebOrigin;

/// Pinned certificates of one provider: the one in use and the next.
pub const CERTIFICATES_MAX: usize = 4;
/// Bytes of an entity id, an attribute's name, an authentication context.
const TEXT_BYTES_MAX: usize = 1024;
/// Authentication contexts that are accepted.
const CONTEXTS_MAX: usize = 32;

/// The configuration as it is written; [`Config::new`] checks it. The provider's metadata are not read: whoever sets it
/// up copies these values out of them, and compares the certificate with the provider's people.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConfigDocument {
    /// This appliance's entity id at the provider.
    pub sp_entity_id: String,
    /// Where the provider's answers are posted (the assertion consumer service).
    pub acs_url: String,
    /// Where logout messages come. Without it there is no single logout.
    #[serde(default)]
    pub slo_url: Option<String>,
    /// The provider's entity id.
    pub idp_entity_id: String,
    /// Where a sign-in begins at the provider (HTTP-Redirect).
    pub idp_sso_url: String,
    /// Where logout messages go at the provider (HTTP-Redirect).
    #[serde(default)]
    pub idp_slo_url: Option<String>,
    /// The certificates with which the provider signs, as PEM. Only their keys count: neither who issued them nor when
    /// they end.
    pub idp_certificates_pem: String,
    /// The attribute with the id that never changes. Without it, it is the name (`NameID`), which has to be of the
    /// persistent format then.
    #[serde(default)]
    pub subject_attribute: Option<String>,
    /// The attribute that roles are read from.
    #[serde(default)]
    pub roles_attribute: Option<String>,
    /// What its values ask for.
    #[serde(default)]
    pub roles: Vec<RoleRule>,
    /// If any: the authentication context has to be one of these.
    #[serde(default)]
    pub authn_contexts: Vec<String>,
    /// Ask that the person proves to the provider anew who they are.
    #[serde(default)]
    pub force_authn: bool,
    /// If set: how long ago they may have done so, in seconds.
    #[serde(default)]
    pub max_age_s: Option<u32>,
    /// Difference between the clocks that is allowed, in seconds.
    #[serde(default = "default_skew_s")]
    pub skew_s: u32,
}

const fn default_skew_s() -> u32 {
    60
}

/// Why a configuration is refused.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum ConfigError {
    /// Not https, or with a fragment or a user.
    #[error("{0} is no https URL without user and fragment")]
    Url(&'static str),
    /// Empty, too long, or with characters that it may not have.
    #[error("{0} is empty, too long, or has characters that it may not have")]
    Text(&'static str),
    /// None, too many, or no PEM.
    #[error("the provider's certificates are not 1 to {CERTIFICATES_MAX} in PEM")]
    Certificates,
    /// More clock skew than is allowed anywhere.
    #[error("a clock skew of {0} s is more than {SKEW_S_MAX}")]
    Skew(u32),
    /// The rules for roles.
    #[error("rules for roles")]
    Roles(#[from] RoleRulesError),
    /// There are rules for roles, and no attribute that they are about, or the other way round.
    #[error("rules for roles and the attribute that they read belong together")]
    RolesAttribute,
    /// One side's place for logout messages without the other's.
    #[error("single logout needs a place on both sides")]
    Logout,
}

/// A configuration that was checked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Config {
    pub(crate) document: ConfigDocument,
    pub(crate) roles: RoleRules,
    /// Base64 of the DER.
    pub(crate) certificates: Vec<String>,
}

impl Config {
    /// Checks a document.
    ///
    /// # Errors
    /// [`ConfigError`]
    pub fn new(document: &ConfigDocument) -> Result<Self, ConfigError> {
        https(&document.acs_url, "the ACS URL")?;
        https(&document.idp_sso_url, "the provider's SSO URL")?;
        match (&document.slo_url, &document.idp_slo_url) {
            (None, None) => {}
            (Some(ours), Some(theirs)) => {
                https(ours, "the SLO URL")?;
                https(theirs, "the provider's SLO URL")?;
            }
            _ => return Err(ConfigError::Logout),
        }
        text(&document.sp_entity_id, "this side's entity id")?;
        text(&document.idp_entity_id, "the provider's entity id")?;
        for attribute in [&document.subject_attribute, &document.roles_attribute].into_iter().flatten() {
            text(attribute, "an attribute")?;
        }
        if document.authn_contexts.len() > CONTEXTS_MAX {
            return Err(ConfigError::Text("the authentication contexts"));
        }
        document.authn_contexts.iter().try_for_each(|context| text(context, "an authentication context"))?;
        if document.skew_s > SKEW_S_MAX {
            return Err(ConfigError::Skew(document.skew_s));
        }
        if document.roles_attribute.is_some() == document.roles.is_empty() {
            return Err(ConfigError::RolesAttribute);
        }
        let certificates = CertificateDer::pem_slice_iter(document.idp_certificates_pem.as_bytes())
            .map(|certificate| certificate.map(|der| BASE64_STANDARD.encode(der)))
            .collect::<Result<Vec<_>, _>>()
            .map_err(|_| ConfigError::Certificates)?;
        if certificates.is_empty() || certificates.len() > CERTIFICATES_MAX {
            return Err(ConfigError::Certificates);
        }
        Ok(Self { document: document.clone(), roles: RoleRules::new(&document.roles)?, certificates })
    }

    pub(crate) fn skew_ms(&self) -> u64 {
        u64::from(self.document.skew_s) * 1000
    }
}

fn https(text: &str, what: &'static str) -> Result<(), ConfigError> {
    let url = Url::parse(text).map_err(|_| ConfigError::Url(what))?;
    // Spelled as it will be compared: what parsing would change is refused.
    let good = WebOrigin::of(&url).is_some() && url.fragment().is_none() && url.as_str() == text;
    if good { Ok(()) } else { Err(ConfigError::Url(what)) }
}

fn text(text: &str, what: &'static str) -> Result<(), ConfigError> {
    let good =
        !text.is_empty() && text.len() <= TEXT_BYTES_MAX && text.bytes().all(|b| (b'!'..0x7f).contains(&b));
    if good { Ok(()) } else { Err(ConfigError::Text(what)) }
}
