//! One OpenID provider: discovery, the two halves of a sign-in, and its keys.

use base64::Engine as _;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE};
use http::{Method, Request, StatusCode};
use openidconnect::core::{CoreAuthenticationFlow, CoreClient, CoreIdToken, CoreIdTokenVerifier};
use openidconnect::{
    AuthUrl, ClientId, CsrfToken, IssuerUrl, JsonWebKeySet, Nonce, PkceCodeChallenge, PkceCodeVerifier,
    RedirectUrl, Scope,
};
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::{Map, Value};
use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr as _;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::sync::Mutex;
use url::{Url, form_urlencoded};
use zeroize::Zeroizing;
use zixt_crypto::{RandomError, hash};
use zixt_identity::{LoginId, Random, Role};
use zixt_types::Timestamp;

use super::callback::{Callback, Outcome, error_code};
use super::config::Config;
use super::keys::{Key, KeySet};
use super::metadata::{ClientAuthentication, DiscoverError, Metadata, location};
use super::pending::Pending;
use super::refusal::Refusal;
use super::token::{Claims, Kind, TokenError, Unverified, Window};
use crate::assertion::Assertion;
use crate::replay::Seen;
use crate::roles::ROLE_VALUES_MAX;
use crate::waiting::{Browser, Waits as _};
use crate::web::{WebClient, WebError, is_type};
use crate::{json, oidc::algorithm::Algorithm};

/// How long keys are used without asking for them again, in milliseconds: a key that its provider withdrew signs for no
/// longer than this.
pub const KEYS_AGE_MS_MAX: u64 = 60 * 60 * 1000;
/// How often keys are asked for because of a token that names an unknown one, in milliseconds: whoever sends such
/// tokens must not make this appliance flood its provider.
pub const KEYS_AGAIN_MS_MIN: u64 = 30 * 1000;
/// How often keys that are old are asked for while the provider does not answer well, in milliseconds. In between,
/// whoever needs them is refused at once.
pub const KEYS_RETRY_MS_MIN: u64 = 5 * 1000;
/// Bytes of randomness in `state`, `nonce` and the PKCE verifier (RFC 7636 section 7.1 wants 32).
const RANDOM_BYTES: usize = 32;
/// Bytes of an access token.
const ACCESS_TOKEN_BYTES_MAX: usize = 64 * 1024;
/// Bytes of a provider's session id that are kept.
pub(crate) const SID_BYTES_MAX: usize = 256;
/// Entries of `amr` that are looked at.
const AMR_MAX: usize = 64;

const JSON: &str = "application/json";
const FORM: &str = "application/x-www-form-urlencoded";

/// The wall clock, as an argument. It is asked again after the provider was.
pub type Clock<'a> = &'a (dyn Fn() -> Timestamp + Send + Sync);

/// One provider.
#[derive(Debug)]
pub struct Provider {
    pub(crate) config: Config,
    pub(crate) secret: SecretString,
    pub(crate) web: WebClient,
    pub(crate) metadata: Metadata,
    keys: Mutex<CachedKeys>,
    pub(crate) logouts: std::sync::Mutex<Seen>,
}

#[derive(Debug)]
struct CachedKeys {
    keys: Arc<KeySet>,
    fetched_at: Timestamp,
    asked_at: Timestamp,
}

/// The first half of a sign-in.
pub struct Begun {
    /// Where the browser goes.
    pub url: Url,
    /// What waits for it to come back. To be kept by the server ([`crate::Waiting`]), never by the browser.
    pub pending: Pending,
}

impl fmt::Debug for Begun {
    /// Without the URL, which has the state and the nonce.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Begun").field("pending", &self.pending).finish_non_exhaustive()
    }
}

impl Provider {
    /// Finds the provider: its metadata and its keys, from its own origin, under the pinned authorities.
    ///
    /// # Errors
    /// [`DiscoverError`]
    pub async fn discover(
        config: Config,
        secret: SecretString,
        clock: Clock<'_>,
    ) -> Result<Self, DiscoverError> {
        let web = WebClient::new(config.origin.clone(), &config.authorities_pem)?;
        let text = web.fetch(get(&location(&config)), &[JSON]).await?;
        let metadata = Metadata::parse(&text, &config)?;
        let text = web.fetch(get(metadata.keys.as_str()), KEY_SET_TYPES).await?;
        let keys = Arc::new(KeySet::parse(&text)?);
        let now = clock();
        let keys = Mutex::new(CachedKeys { keys, fetched_at: now, asked_at: Timestamp(0) });
        Ok(Self { config, secret, web, metadata, keys, logouts: std::sync::Mutex::default() })
    }

    /// Its configuration.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Begins a sign-in: the code flow with PKCE, `state` and `nonce` (OpenID Connect Core 1.0 section 3.1.2,
    /// RFC 7636, RFC 9700).
    ///
    /// # Errors
    /// [`RandomError`]
    pub fn begin(
        &self,
        login: LoginId,
        browser: Browser,
        now: Timestamp,
        random: &mut dyn Random,
    ) -> Result<Begun, RandomError> {
        let state = SecretString::from(draw(random)?.as_str());
        let nonce = SecretString::from(draw(random)?.as_str());
        let verifier = draw(random)?;
        let challenge =
            PkceCodeChallenge::from_code_verifier_sha256(&PkceCodeVerifier::new(verifier.to_string()));
        let client = CoreClient::new(
            ClientId::new(self.config.client_id.clone()),
            IssuerUrl::from_url(self.config.issuer_url.clone()),
            JsonWebKeySet::default(),
        )
        .set_auth_uri(AuthUrl::from_url(self.metadata.authorization.clone()))
        .set_redirect_uri(RedirectUrl::from_url(self.config.redirect_uri.clone()));
        let csrf = CsrfToken::new(state.expose_secret().to_owned());
        let once = Nonce::new(nonce.expose_secret().to_owned());
        let mut request = client
            .authorize_url(CoreAuthenticationFlow::AuthorizationCode, move || csrf, move || once)
            .set_pkce_challenge(challenge)
            .add_scopes(self.config.scopes.iter().cloned().map(Scope::new));
        if let Some(age) = self.config.max_age_s {
            request = request.set_max_age(Duration::from_secs(u64::from(age)));
        }
        if !self.config.acr.is_empty() {
            request = request.add_extra_param("acr_values", self.config.acr.join(" "));
        }
        let (url, ..) = request.url();
        Ok(Begun { url, pending: Pending { login, browser, state, nonce, verifier, begun_at: now } })
    }

    /// Ends a sign-in: checks the callback, redeems the code and verifies the ID token. The pending sign-in is used up
    /// whatever comes of it.
    ///
    /// # Errors
    /// [`Refusal`]; the server then gives [`zixt_identity::Issuer::refuse`] to the sign-in.
    pub async fn finish(
        &self,
        pending: Pending,
        login: LoginId,
        browser: &Browser,
        callback: &Callback,
        clock: Clock<'_>,
    ) -> Result<Assertion, Refusal> {
        if pending.ended(clock()) {
            return Err(Refusal::Ended);
        }
        if pending.login != login {
            return Err(Refusal::OtherLogin);
        }
        if !pending.browser.is(browser) {
            return Err(Refusal::OtherBrowser);
        }
        let state = callback.state().ok_or(Refusal::State)?;
        if !hash::constant_time_eq(state.as_bytes(), pending.state.expose_secret().as_bytes()) {
            return Err(Refusal::State);
        }
        // RFC 9207 section 2.4, before anything is sent to anybody.
        match callback.iss() {
            Some(issuer) if issuer != self.config.issuer => return Err(Refusal::IssuerMismatch),
            None if self.metadata.promises_iss || self.config.require_iss => {
                return Err(Refusal::IssuerMissing);
            }
            _ => {}
        }
        let code = match callback.outcome() {
            Outcome::Code(code) => code,
            Outcome::Error(code) => return Err(Refusal::Denied(code.clone())),
        };
        let tokens = self.redeem(code, &pending.verifier).await?;
        self.accept(&pending, &tokens, clock).await
    }

    async fn accept(
        &self,
        pending: &Pending,
        tokens: &Tokens,
        clock: Clock<'_>,
    ) -> Result<Assertion, Refusal> {
        let id_token = tokens.id.expose_secret();
        let unverified = Unverified::parse(id_token, Kind::Id, &self.config.algorithms)?;
        let keys = self.keys_for(&unverified, clock()).await?;
        let (claims, key) = unverified.verify(&keys)?;
        let now_s = clock().0 / 1000;
        claims.check_parties(&self.config.issuer, &self.config.client_id)?;
        let window =
            Window { now_s, skew_s: u64::from(self.config.skew_s), issued_from_s: pending.begun_at.0 / 1000 };
        claims.check_times(window)?;
        let nonce = claims.text("nonce")?.ok_or(TokenError::Claim("nonce"))?;
        if !hash::constant_time_eq(nonce.as_bytes(), pending.nonce.expose_secret().as_bytes()) {
            return Err(TokenError::Nonce.into());
        }
        if claims.0.contains_key("events") {
            // What a logout token has (OpenID Connect Back-Channel Logout 1.0 section 2.4).
            return Err(TokenError::Type.into());
        }
        check_access_token(&claims, unverified.algorithm, &tokens.access)?;
        let authenticated = self.check_authentication(&claims, now_s)?;
        let subject = claims.subject()?.ok_or(TokenError::Claim("sub"))?;
        self.second_opinion(id_token, unverified.kid.as_deref(), key, pending, now_s, subject)?;
        Ok(Assertion {
            login: pending.login,
            unchanging_id: subject.as_bytes().to_vec(),
            session: session_id(&claims)?.map(str::to_owned),
            roles: self.roles(&claims)?,
            authenticated_at: authenticated.map(|seconds| Timestamp(seconds.saturating_mul(1000))),
            hint: Some(tokens.id.clone()),
        })
    }

    /// `auth_time`, `acr` and `amr`, as far as they are demanded.
    fn check_authentication(&self, claims: &Claims, now_s: u64) -> Result<Option<u64>, TokenError> {
        let at = claims.seconds("auth_time")?;
        let skew = u64::from(self.config.skew_s);
        if at.is_some_and(|at| at > now_s.saturating_add(skew)) {
            return Err(TokenError::NotYetValid);
        }
        if let Some(age) = self.config.max_age_s {
            let until = at.map(|at| at.saturating_add(u64::from(age)).saturating_add(skew));
            if until.is_none_or(|until| until < now_s) {
                return Err(TokenError::AuthenticationTooOld);
            }
        }
        let acr = claims.text("acr")?;
        if !self.config.acr.is_empty()
            && !acr.is_some_and(|acr| self.config.acr.iter().any(|wanted| wanted == acr))
        {
            return Err(TokenError::AuthenticationTooWeak);
        }
        let amr = claims.texts("amr", AMR_MAX)?;
        if !self.config.amr.iter().all(|wanted| amr.contains(&wanted.as_str())) {
            return Err(TokenError::AuthenticationTooWeak);
        }
        Ok(at)
    }

    /// The same token once more, by the `openidconnect` library with other cryptography. Neither of the two alone
    /// signs anybody in: a fault in one of them is caught by the other.
    fn second_opinion(
        &self,
        token: &str,
        kid: Option<&str>,
        key: &Key,
        pending: &Pending,
        now_s: u64,
        subject: &str,
    ) -> Result<(), TokenError> {
        let no = |_| TokenError::SecondOpinion;
        let issuer = IssuerUrl::new(self.config.issuer.clone()).map_err(|_| TokenError::SecondOpinion)?;
        let keys = JsonWebKeySet::new(vec![key.of_library(kid)]);
        let earlier = now_s.saturating_sub(u64::from(self.config.skew_s));
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(earlier);
        let verifier = CoreIdTokenVerifier::new_public_client(
            ClientId::new(self.config.client_id.clone()),
            issuer,
            keys,
        )
        .set_allowed_algs(self.config.algorithms.iter().map(|algorithm| algorithm.of_library()))
        .set_time_fn(move || time.into());
        let parsed = CoreIdToken::from_str(token).map_err(|_| TokenError::SecondOpinion)?;
        let claims =
            parsed.claims(&verifier, &Nonce::new(pending.nonce.expose_secret().to_owned())).map_err(no)?;
        if claims.subject().as_str() == subject { Ok(()) } else { Err(TokenError::SecondOpinion) }
    }

    fn roles(&self, claims: &Claims) -> Result<BTreeSet<Role>, TokenError> {
        let Some(name) = &self.config.roles_claim else { return Ok(BTreeSet::new()) };
        let value = if name.starts_with('/') { pointer(&claims.0, name) } else { claims.0.get(name) };
        let Some(value) = value else { return Ok(BTreeSet::new()) };
        let values = json::texts(value, ROLE_VALUES_MAX).map_err(|_| TokenError::Claim("roles"))?;
        Ok(self.config.roles.wanted(values.into_iter()))
    }

    /// The code for the tokens (OpenID Connect Core 1.0 section 3.1.3).
    async fn redeem(&self, code: &SecretString, verifier: &str) -> Result<Tokens, Refusal> {
        let parameters = [
            ("grant_type", "authorization_code"),
            ("code", code.expose_secret()),
            ("redirect_uri", self.config.redirect_uri.as_str()),
            ("code_verifier", verifier),
        ];
        let response = self.web.call(self.as_client(&self.metadata.token, &parameters)).await?;
        if !is_type(response.headers().get(CONTENT_TYPE), JSON) {
            return Err(WebError::MediaType(JSON).into());
        }
        match response.status() {
            StatusCode::OK => {}
            StatusCode::BAD_REQUEST | StatusCode::UNAUTHORIZED => {
                let answer = json::object(response.body()).map_err(|_| Refusal::Answer("error"))?;
                let error = json::text(&answer, "error").ok().flatten().unwrap_or_default();
                return Err(Refusal::CodeRefused(error_code(error)));
            }
            other => return Err(WebError::Status(other.as_u16()).into()),
        }
        let answer = json::object(response.body()).map_err(|_| Refusal::Answer("JSON"))?;
        let text = |name: &'static str| {
            json::text(&answer, name)
                .ok()
                .flatten()
                .filter(|text| !text.is_empty())
                .ok_or(Refusal::Answer(name))
        };
        if !text("token_type")?.eq_ignore_ascii_case("Bearer") {
            return Err(Refusal::Answer("token_type"));
        }
        let access = text("access_token")?;
        if access.len() > ACCESS_TOKEN_BYTES_MAX {
            return Err(Refusal::Answer("access_token"));
        }
        Ok(Tokens { id: text("id_token")?.into(), access: access.into() })
    }

    /// A request with the client's own credentials (RFC 6749 section 2.3.1).
    pub(crate) fn as_client(&self, to: &Url, parameters: &[(&str, &str)]) -> Request<Vec<u8>> {
        let mut form = form_urlencoded::Serializer::new(String::new());
        form.extend_pairs(parameters);
        let mut request = Request::builder().method(Method::POST).uri(to.as_str()).header(ACCEPT, JSON);
        match self.metadata.client_authentication {
            ClientAuthentication::Basic => {
                let encode =
                    |text: &str| form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
                let pair = Zeroizing::new(format!(
                    "{}:{}",
                    encode(&self.config.client_id),
                    encode(self.secret.expose_secret())
                ));
                let value = Zeroizing::new(format!("Basic {}", BASE64_STANDARD.encode(pair.as_bytes())));
                request = request.header(AUTHORIZATION, value.as_str());
            }
            ClientAuthentication::Post => {
                form.append_pair("client_id", &self.config.client_id);
                form.append_pair("client_secret", self.secret.expose_secret());
            }
        }
        built(request.header(CONTENT_TYPE, FORM).body(form.finish().into_bytes()))
    }

    /// The keys, fetched again if they are old, or if they lack the one that the token names.
    pub(crate) async fn keys_for(
        &self,
        token: &Unverified<'_>,
        now: Timestamp,
    ) -> Result<Arc<KeySet>, Refusal> {
        let mut cached = self.keys.lock().await;
        let age = |since: Timestamp| now.0.checked_sub(since.0);
        // If the clock was set back, the age is unknown: then they are old.
        let old = age(cached.fetched_at).is_none_or(|age| age > KEYS_AGE_MS_MAX);
        let lacks = cached.keys.find(token.kid.as_deref(), token.algorithm).is_err();
        let asked_before = |least: u64| age(cached.asked_at).is_none_or(|age| age >= least);
        if old && !asked_before(KEYS_RETRY_MS_MIN) {
            return Err(Refusal::Busy);
        }
        if old || (lacks && asked_before(KEYS_AGAIN_MS_MIN)) {
            cached.asked_at = now;
            let text = self.web.fetch(get(self.metadata.keys.as_str()), KEY_SET_TYPES).await?;
            cached.keys = Arc::new(KeySet::parse(&text)?);
            cached.fetched_at = now;
        }
        Ok(Arc::clone(&cached.keys))
    }
}

struct Tokens {
    id: SecretString,
    access: SecretString,
}

const KEY_SET_TYPES: &[&str] = &[JSON, "application/jwk-set+json"];

/// `sid`, if there is one that can be kept.
pub(crate) fn session_id(claims: &Claims) -> Result<Option<&str>, TokenError> {
    let sid = claims.text("sid")?;
    let good = |sid: &str| {
        !sid.is_empty() && sid.len() <= SID_BYTES_MAX && sid.bytes().all(|b| (b' '..0x7f).contains(&b))
    };
    if sid.is_some_and(|sid| !good(sid)) { Err(TokenError::Claim("sid")) } else { Ok(sid) }
}

/// `at_hash`, which the code flow may leave out (OpenID Connect Core 1.0 section 3.1.3.8).
fn check_access_token(
    claims: &Claims,
    algorithm: Algorithm,
    access: &SecretString,
) -> Result<(), TokenError> {
    let Some(named) = claims.text("at_hash")? else { return Ok(()) };
    let digest = aws_lc_rs::digest::digest(algorithm.digest(), access.expose_secret().as_bytes());
    let half = &digest.as_ref()[..digest.as_ref().len() / 2];
    let expected = BASE64_URL_SAFE_NO_PAD.encode(half);
    if hash::constant_time_eq(named.as_bytes(), expected.as_bytes()) {
        Ok(())
    } else {
        Err(TokenError::AccessTokenHash)
    }
}

/// A JSON pointer (RFC 6901) into the claims.
fn pointer<'a>(claims: &'a Map<String, Value>, path: &str) -> Option<&'a Value> {
    let (first, rest) = path.strip_prefix('/')?.split_once('/').unwrap_or((path.strip_prefix('/')?, ""));
    let value = claims.get(&first.replace("~1", "/").replace("~0", "~"))?;
    if rest.is_empty() { Some(value) } else { value.pointer(&format!("/{rest}")) }
}

fn draw(random: &mut dyn Random) -> Result<Zeroizing<String>, RandomError> {
    let mut bytes = Zeroizing::new([0; RANDOM_BYTES]);
    random.fill(bytes.as_mut_slice())?;
    Ok(Zeroizing::new(BASE64_URL_SAFE_NO_PAD.encode(bytes.as_slice())))
}

fn get(url: &str) -> Request<Vec<u8>> {
    built(Request::builder().uri(url).header(ACCEPT, JSON).body(Vec::new()))
}

/// A request of parts that were checked; if a URL is none for HTTP it goes to no origin, and is refused there.
fn built(request: Result<Request<Vec<u8>>, http::Error>) -> Request<Vec<u8>> {
    request.unwrap_or_default()
}
