//! Tokens of API clients, asked about at their provider (OAuth 2.0 Token Introspection, RFC 7662).
//!
//! An answer that a token is active is remembered for at most 30 seconds: so long may a withdrawn token still open
//! something. That a token is *not* active is never remembered.

use secrecy::{ExposeSecret as _, SecretString};
use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use thiserror::Error;
use tokio::sync::Semaphore;
use zixt_crypto::{hash, labels};
use zixt_types::{Hash, Timestamp};

use super::provider::{Clock, Provider};
use super::refusal::Refusal;
use super::token::{Claims, SUBJECT_BYTES_MAX};
use crate::json;

/// How long an answer is remembered, in milliseconds.
pub const INTROSPECTION_MS_MAX: u64 = 30 * 1000;
/// Answers that are remembered. When there are more, the oldest goes.
pub const INTROSPECTION_ANSWERS_MAX: usize = 4096;
/// Questions to the provider at once; another one is refused as busy. Whoever sends made-up tokens gets no further.
pub const INTROSPECTION_QUESTIONS_MAX: usize = 16;
/// Bytes of an API client's token.
const API_TOKEN_BYTES_MAX: usize = 16 * 1024;
/// Audiences of an answer, and scopes, that are looked at.
const LIST_MAX: usize = 64;

/// Why an introspector cannot be made.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum NoIntrospection {
    /// The provider's metadata name no `introspection_endpoint`.
    #[error("the provider does not answer questions about tokens")]
    NoEndpoint,
    /// Without an audience every token of the provider's, for whatever service, would be good here.
    #[error("the audience of this appliance's API is empty")]
    NoAudience,
}

/// An API client whose token is active.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ApiClient {
    client_id: String,
    subject: Option<String>,
    scopes: Vec<String>,
    ends_at: Timestamp,
}

impl ApiClient {
    /// The client, as the provider calls it. It is what a service account is linked to.
    #[must_use]
    pub fn client_id(&self) -> &str {
        &self.client_id
    }

    /// For whom it acts, if the provider says so.
    #[must_use]
    pub fn subject(&self) -> Option<&str> {
        self.subject.as_deref()
    }

    /// What it may, in the provider's words.
    #[must_use]
    pub fn scopes(&self) -> &[String] {
        &self.scopes
    }

    /// When the token ends.
    #[must_use]
    pub fn ends_at(&self) -> Timestamp {
        self.ends_at
    }
}

/// Asks one provider.
pub struct Introspector {
    provider: Arc<Provider>,
    audience: String,
    answers: Mutex<HashMap<Hash, (Timestamp, ApiClient)>>,
    questions: Semaphore,
}

impl fmt::Debug for Introspector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Introspector").field("audience", &self.audience).finish_non_exhaustive()
    }
}

impl Introspector {
    /// For tokens of this provider that are meant for `audience`: the name under which the provider knows this
    /// appliance's API.
    ///
    /// # Errors
    /// [`NoIntrospection`]
    pub fn new(provider: Arc<Provider>, audience: &str) -> Result<Self, NoIntrospection> {
        if provider.metadata.introspection.is_none() {
            return Err(NoIntrospection::NoEndpoint);
        }
        if audience.is_empty() {
            return Err(NoIntrospection::NoAudience);
        }
        Ok(Self {
            provider,
            audience: audience.to_owned(),
            answers: Mutex::default(),
            questions: Semaphore::new(INTROSPECTION_QUESTIONS_MAX),
        })
    }

    /// Whether a token is active, and whose it is.
    ///
    /// # Errors
    /// [`Refusal::Inactive`] for every token that is not, or that is for somebody else; others if the provider cannot
    /// be asked. The caller is let in for none of them.
    pub async fn check(&self, token: &SecretString, clock: Clock<'_>) -> Result<ApiClient, Refusal> {
        let text = token.expose_secret();
        // The characters of a bearer token (RFC 6750 section 2.1).
        let plausible = |b: u8| b.is_ascii_alphanumeric() || b"-._~+/=".contains(&b);
        if text.is_empty() || text.len() > API_TOKEN_BYTES_MAX || !text.bytes().all(plausible) {
            return Err(Refusal::Inactive);
        }
        let name = hash::sha384(labels::SSO_API_TOKEN, &[text.as_bytes()]);
        let now = clock();
        if let Some(client) = self.remembered(&name, now) {
            return Ok(client);
        }
        let _turn = self.questions.try_acquire().map_err(|_| Refusal::Busy)?;
        let to = self.provider.metadata.introspection.as_ref().ok_or(Refusal::Inactive)?;
        let parameters = [("token", text), ("token_type_hint", "access_token")];
        let answer =
            self.provider.web.fetch(self.provider.as_client(to, &parameters), &["application/json"]).await?;
        let answer = json::object(&answer).map_err(|_| Refusal::Answer("JSON"))?;
        let now = clock();
        let client = self.read(&Claims(answer), now)?;
        let until = Timestamp(client.ends_at.0.min(now.0.saturating_add(INTROSPECTION_MS_MAX)));
        self.remember(name, until, &client, now);
        Ok(client)
    }

    fn read(&self, answer: &Claims, now: Timestamp) -> Result<ApiClient, Refusal> {
        if answer.0.get("active") != Some(&serde_json::Value::Bool(true)) {
            return Err(Refusal::Inactive);
        }
        let of_ours = answer.text("iss")?.is_none_or(|issuer| issuer == self.provider.config.issuer);
        let for_us = answer.texts("aud", LIST_MAX)?.contains(&self.audience.as_str());
        let bearer = answer.text("token_type")?.is_none_or(|kind| kind.eq_ignore_ascii_case("Bearer"));
        let ends_s = answer.seconds("exp")?.ok_or(Refusal::Inactive)?;
        let ends_at = Timestamp(ends_s.saturating_mul(1000));
        let from = answer.seconds("nbf")?.map_or(0, |seconds| seconds.saturating_mul(1000));
        let begun = from <= now.0.saturating_add(self.provider.config.skew_ms());
        // No skew at the end: the provider has just been asked, and a token that ends now is of no use.
        if !(of_ours && for_us && bearer && begun && now < ends_at) {
            return Err(Refusal::Inactive);
        }
        let client_id =
            answer.text("client_id")?.filter(|id| !id.is_empty() && id.len() <= SUBJECT_BYTES_MAX);
        let client_id = client_id.ok_or(Refusal::Answer("client_id"))?.to_owned();
        let scopes = answer.text("scope")?.unwrap_or_default().split(' ').filter(|scope| !scope.is_empty());
        let scopes: Vec<_> = scopes.take(LIST_MAX + 1).map(str::to_owned).collect();
        if scopes.len() > LIST_MAX {
            return Err(Refusal::Answer("scope"));
        }
        Ok(ApiClient { client_id, subject: answer.subject()?.map(str::to_owned), scopes, ends_at })
    }

    fn remembered(&self, name: &Hash, now: Timestamp) -> Option<ApiClient> {
        let answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        let (until, client) = answers.get(name)?;
        // If the clock was set back, an answer would live for longer: then it is asked again.
        let fresh = now < *until && until.0 - now.0 <= INTROSPECTION_MS_MAX;
        fresh.then(|| client.clone())
    }

    fn remember(&self, name: Hash, until: Timestamp, client: &ApiClient, now: Timestamp) {
        let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        if answers.len() >= INTROSPECTION_ANSWERS_MAX {
            answers.retain(|_, (until, _)| now < *until);
        }
        if answers.len() >= INTROSPECTION_ANSWERS_MAX {
            let oldest = answers.iter().min_by_key(|(_, (until, _))| *until).map(|(name, _)| *name);
            oldest.and_then(|name| answers.remove(&name));
        }
        answers.insert(name, (until, client.clone()));
    }
}
