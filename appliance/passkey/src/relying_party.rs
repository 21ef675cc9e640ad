//! Who asks authenticators: the host name that credentials are bound to, and the origins of our pages.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use std::fmt;
use std::time::Duration;
use thiserror::Error;
use url::{Host, Url};
use webauthn_rs_core::WebauthnCore;
use zeroize::Zeroizing;
use zixt_crypto::{hash, labels};
use zixt_identity::{Challenge, WebAuthnCredential};
use zixt_types::{AccountId, Canonical as _, Timestamp};

use crate::decoy;
use crate::options::{CredentialDescriptor, CredentialType, RequestOptions, Requirement};

/// Origins of one relying party: the nodes of a cluster.
pub const ORIGINS_MAX: usize = 16;
/// How long a browser is asked to wait for its user, in milliseconds (section 15.1 recommends 5 to 10 minutes where the
/// user is verified; a sign-in of ours ends before).
pub const TIMEOUT_MS: u32 = 5 * 60 * 1000;
/// A name for people, in bytes: authenticators keep at most 64 (section 5.4.1).
const NAME_BYTES_MAX: usize = 64;
/// A host name (RFC 1035 section 2.3.4).
const HOST_BYTES_MAX: usize = 253;

/// What an administrator sets.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// The host name that credentials are bound to. Changing it makes every passkey useless.
    pub rp_id: String,
    /// What authenticators show.
    pub name: String,
    /// Where our pages are: `https://`, the host, and the port if it is not 443. The host is `rp_id` or ends in a dot and
    /// `rp_id`.
    pub origins: Vec<String>,
}

/// Why settings are not taken.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum SettingsError {
    /// The host name.
    #[error("the relying party's id is a host name in lower case, with a dot and no address: {0:?} is none")]
    RpId(String),
    /// The name for people.
    #[error("the relying party's name has 1 to {NAME_BYTES_MAX} bytes without control characters")]
    Name,
    /// None, or too many.
    #[error("there are 1 to {ORIGINS_MAX} origins, each once")]
    Origins,
    /// One of the origins.
    #[error("{0:?} is no origin `https://host[:port]` at the relying party's id or below")]
    Origin(String),
}

/// The secret that decoys and names of accounts are derived from: 32 bytes of custody's. If it changes, registered
/// passkeys go on working.
pub struct PasskeySecret(Zeroizing<[u8; 32]>);

impl PasskeySecret {
    /// The secret as custody derives it.
    #[must_use]
    pub fn from_bytes(bytes: &[u8; 32]) -> Self {
        Self(Zeroizing::new(*bytes))
    }
}

impl fmt::Debug for PasskeySecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PasskeySecret(..)")
    }
}

/// The appliance towards authenticators. As [`zixt_identity::WebAuthnVerifier`] it verifies assertions for the sign-in
/// machine.
pub struct RelyingParty {
    settings: Settings,
    id_hash: [u8; 32],
    secret: PasskeySecret,
    pub(crate) library: WebauthnCore,
}

impl fmt::Debug for RelyingParty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RelyingParty").field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl RelyingParty {
    /// With settings that are sound.
    ///
    /// # Errors
    /// [`SettingsError`]
    pub fn new(settings: Settings, secret: PasskeySecret) -> Result<Self, SettingsError> {
        let Settings { rp_id, name, origins } = &settings;
        if !is_host_name(rp_id) {
            return Err(SettingsError::RpId(rp_id.clone()));
        }
        if name.is_empty() || name.len() > NAME_BYTES_MAX || name.chars().any(char::is_control) {
            return Err(SettingsError::Name);
        }
        let once = |(at, origin): (usize, &String)| !origins[..at].contains(origin);
        if origins.is_empty() || origins.len() > ORIGINS_MAX || !origins.iter().enumerate().all(once) {
            return Err(SettingsError::Origins);
        }
        let parse =
            |origin: &String| origin_at(rp_id, origin).ok_or_else(|| SettingsError::Origin(origin.clone()));
        let urls = origins.iter().map(parse).collect::<Result<Vec<_>, _>>()?;
        let timeout = Duration::from_millis(u64::from(TIMEOUT_MS));
        // Exact origins: no sub-domains, no other ports.
        let library =
            WebauthnCore::new_unsafe_experts_only(name, rp_id, urls, timeout, Some(false), Some(false));
        let id_hash = Sha256::digest(rp_id.as_bytes()).into();
        Ok(Self { settings, id_hash, secret, library })
    }

    /// As they were set.
    #[must_use]
    pub const fn settings(&self) -> &Settings {
        &self.settings
    }

    /// What a page asks of an authenticator for a sign-in. `who` is what the caller named, in the spelling by which the
    /// server looks accounts up; `credentials` are those of the account, and none for a name that no account has. Without
    /// credentials the answer has ids that nobody has, and these are the same each time.
    #[must_use]
    pub fn options(
        &self,
        challenge: &Challenge,
        who: &str,
        credentials: &[WebAuthnCredential],
        wall: Timestamp,
    ) -> RequestOptions {
        let left = challenge.expires_at.0.saturating_sub(wall.0);
        let ids: Vec<_> = if credentials.is_empty() {
            decoy::ids(&self.secret.0, who)
        } else {
            credentials.iter().map(|credential| credential.id().to_vec()).collect()
        };
        RequestOptions {
            challenge: BASE64URL.encode(expected(challenge)),
            timeout: u32::try_from(left).unwrap_or(TIMEOUT_MS).min(TIMEOUT_MS),
            rp_id: self.settings.rp_id.clone(),
            allow_credentials: ids.iter().map(|id| descriptor(id)).collect(),
            user_verification: Requirement::Required,
        }
    }

    /// The name of an account for authenticators (`user.id`): says nothing about the account to who finds the
    /// authenticator (section 14.6.1).
    pub(crate) fn user(&self, account: AccountId) -> [u8; 32] {
        let name = hash::hmac_sha384(&*self.secret.0, labels::WEBAUTHN_USER, &[account.as_bytes()]);
        let mut first = [0; 32];
        first.copy_from_slice(&name.0[..32]);
        first
    }

    pub(crate) const fn id_hash(&self) -> &[u8; 32] {
        &self.id_hash
    }

    /// To the letter: a browser writes an origin in one way only (RFC 6454 section 6.2).
    pub(crate) fn is_ours(&self, origin: &str) -> bool {
        self.settings.origins.iter().any(|ours| ours == origin)
    }
}

/// What an authenticator has to sign for a sign-in: the hash of the whole challenge, and with it of the sign-in, its
/// nonce and its channel.
pub(crate) fn expected(challenge: &Challenge) -> [u8; 48] {
    hash::sha384(labels::WEBAUTHN_CHALLENGE, &[&challenge.to_bytes()]).0
}

pub(crate) fn descriptor(id: &[u8]) -> CredentialDescriptor {
    CredentialDescriptor { kind: CredentialType::PublicKey, id: BASE64URL.encode(id) }
}

/// A name with a dot, as a browser writes it. An address is no relying party (section 5.1.3), and a name without a dot may
/// be a whole top-level domain.
fn is_host_name(name: &str) -> bool {
    let label = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && label.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    name.len() <= HOST_BYTES_MAX
        && name.contains('.')
        && name.split('.').all(label)
        && matches!(Host::parse(name), Ok(Host::Domain(domain)) if domain == name)
}

fn origin_at(rp_id: &str, origin: &str) -> Option<Url> {
    let url = Url::parse(origin).ok().filter(|url| url.scheme() == "https")?;
    let host = url.host_str()?;
    let at_or_below = host == rp_id || host.strip_suffix(rp_id).is_some_and(|rest| rest.ends_with('.'));
    let exact = url.origin().ascii_serialization() == origin;
    (at_or_below && exact && is_host_name(host)).then_some(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(rp_id: &str, origins: &[&str]) -> Result<RelyingParty, SettingsError> {
        let origins = origins.iter().map(|origin| (*origin).to_owned()).collect();
        let settings = Settings { rp_id: rp_id.into(), name: "Zixt".into(), origins };
        RelyingParty::new(settings, PasskeySecret::from_bytes(&[1; 32]))
    }

    #[test]
    fn settings_that_a_browser_can_mean_are_taken() {
        for (rp_id, origins) in [
            ("zixt.test", &["https://zixt.test"][..]),
            ("zixt.test", &["https://zixt.test:8443"]),
            ("zixt.test", &["https://zixt.test", "https://node-1.zixt.test:8443"]),
        ] {
            let party = with(rp_id, origins).unwrap();
            assert!(origins.iter().all(|origin| party.is_ours(origin)), "{rp_id}");
        }
    }

    #[test]
    fn other_settings_are_refused() {
        for rp_id in
            ["", "zixt", "Zixt.test", "127.0.0.1", "[::1]", "zixt.test.", ".test", "a b.test", "-a.test"]
        {
            assert_eq!(with(rp_id, &["https://zixt.test"]).unwrap_err(), SettingsError::RpId(rp_id.into()));
        }
        for origin in [
            "http://zixt.test",
            "https://zixt.test/",
            "https://zixt.test:443",
            "https://zixt.test/path",
            "https://zixt.test?x",
            "https://user@zixt.test",
            "https://ZIXT.test",
            "https://other.test",
            "https://evilzixt.test",
            "https://zixt.test.evil.test",
            "zixt.test",
            "",
        ] {
            let refused = with("zixt.test", &[origin]).unwrap_err();
            assert_eq!(refused, SettingsError::Origin(origin.into()), "{origin}");
        }
        assert_eq!(with("zixt.test", &[]).unwrap_err(), SettingsError::Origins);
        let twice = ["https://zixt.test"; 2];
        assert_eq!(with("zixt.test", &twice).unwrap_err(), SettingsError::Origins);
        for name in ["", "a\nb", &"n".repeat(65)] {
            let origins = vec!["https://zixt.test".into()];
            let settings = Settings { rp_id: "zixt.test".into(), name: name.into(), origins };
            let refused = RelyingParty::new(settings, PasskeySecret::from_bytes(&[1; 32])).unwrap_err();
            assert_eq!(refused, SettingsError::Name);
        }
    }

    #[test]
    fn nothing_shows_the_secret() {
        let shown = format!("{:?}", with("zixt.test", &["https://zixt.test"]).unwrap());
        assert!(shown.contains("zixt.test") && !shown.contains("[1, 1"), "{shown}");
        assert_eq!(format!("{:?}", PasskeySecret::from_bytes(&[1; 32])), "PasskeySecret(..)");
    }

    #[test]
    fn names_of_accounts_are_their_own() {
        let party = with("zixt.test", &["https://zixt.test"]).unwrap();
        let (one, other) = (AccountId([1; 16]), AccountId([2; 16]));
        assert_eq!(party.user(one), party.user(one));
        assert_ne!(party.user(one), party.user(other));
    }
}
