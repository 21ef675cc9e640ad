//! Log-outs: those that the provider tells of (OpenID Connect Back-Channel Logout 1.0), and those that begin here
//! (OpenID Connect RP-Initiated Logout 1.0).

use secrecy::{ExposeSecret as _, SecretString};
use url::Url;
use zixt_crypto::{hash, labels};
use zixt_types::Timestamp;

use super::provider::{Clock, Provider, session_id};
use super::refusal::Refusal;
use super::token::{Kind, TokenError, Unverified, Window};

/// How old a logout token may be, in seconds. Providers send them at once and try again for a minute or two.
pub const LOGOUT_AGE_S_MAX: u64 = 120;
/// Bytes of `jti`.
const JTI_BYTES_MAX: usize = 256;
/// The event (OpenID Connect Back-Channel Logout 1.0 section 2.4).
const EVENT: &str = "http://schemas.openid.net/event/backchannel-logout";

/// Which sessions end. At least one of the two is there; if both are, the session has to be that person's.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Logout {
    unchanging_id: Option<Vec<u8>>,
    session: Option<String>,
}

impl Logout {
    /// Every session of this person's ([`crate::Assertion::unchanging_id`]), if there is no [`Self::session`].
    #[must_use]
    pub fn unchanging_id(&self) -> Option<&[u8]> {
        self.unchanging_id.as_deref()
    }

    /// The sessions that were opened with this name ([`crate::Assertion::session`]).
    #[must_use]
    pub fn session(&self) -> Option<&str> {
        self.session.as_deref()
    }
}

impl Provider {
    /// Verifies a logout token, once. The server ends the sessions and then answers 200 with `Cache-Control: no-store`;
    /// for a refusal it answers 400.
    ///
    /// # Errors
    /// [`Refusal`]; nothing ends.
    pub async fn back_channel_logout(&self, token: &str, clock: Clock<'_>) -> Result<Logout, Refusal> {
        let unverified = Unverified::parse(token, Kind::Logout, &self.config.algorithms)?;
        let keys = self.keys_for(&unverified, clock()).await?;
        let (claims, _) = unverified.verify(&keys)?;
        let now = clock();
        claims.check_parties(&self.config.issuer, &self.config.client_id)?;
        let now_s = now.0 / 1000;
        let skew_s = u64::from(self.config.skew_s);
        let issued_from_s = now_s.saturating_sub(LOGOUT_AGE_S_MAX);
        let ends_s = claims.check_times(Window { now_s, skew_s, issued_from_s })?;
        let event = claims.0.get("events").and_then(|events| events.get(EVENT));
        if !event.is_some_and(serde_json::Value::is_object) || claims.0.contains_key("nonce") {
            return Err(TokenError::NoLogout.into());
        }
        let subject = claims.subject()?;
        let session = session_id(&claims)?;
        if subject.is_none() && session.is_none() {
            return Err(TokenError::NoLogout.into());
        }
        let jti = claims.text("jti")?.filter(|jti| !jti.is_empty() && jti.len() <= JTI_BYTES_MAX);
        let jti = jti.ok_or(TokenError::Claim("jti"))?;
        // Kept for as long as the token could be shown again: by its own end, or by its age.
        let old_s = now_s.saturating_add(LOGOUT_AGE_S_MAX).saturating_add(2 * skew_s);
        let until = Timestamp(ends_s.min(old_s).saturating_mul(1000));
        let id = hash::sha384(labels::SSO_REPLAY, &[b"jti", jti.as_bytes()]);
        let mut seen = self.logouts.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        seen.take(id, until, now)?;
        Ok(Logout {
            unchanging_id: subject.map(|subject| subject.as_bytes().to_vec()),
            session: session.map(str::to_owned),
        })
    }

    /// Where the browser goes after its session here has ended, so that the provider's ends too; `None` if the provider
    /// has no such place. `hint` is [`crate::Assertion::hint`]; `state` comes back as a parameter.
    #[must_use]
    pub fn logout_url(&self, hint: Option<&SecretString>, state: Option<&str>) -> Option<Url> {
        let mut url = self.metadata.end_session.clone()?;
        let mut query = url.query_pairs_mut();
        query.append_pair("client_id", &self.config.client_id);
        if let Some(hint) = hint {
            query.append_pair("id_token_hint", hint.expose_secret());
        }
        if let Some(back) = &self.config.post_logout_redirect_uri {
            query.append_pair("post_logout_redirect_uri", back.as_str());
            if let Some(state) = state {
                query.append_pair("state", state);
            }
        }
        drop(query);
        Some(url)
    }
}
