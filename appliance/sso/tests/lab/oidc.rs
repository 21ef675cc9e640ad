//! An OpenID provider whose every answer is scripted, so that it can be as hostile as a case needs.

use super::{Authority, random};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{self, EcdsaKeyPair, KeyPair as _, RsaKeyPair};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD as B64;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rustls::NamedGroup;
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::pki_types::pem::PemObject as _;
use secrecy::SecretString;
use serde_json::{Map, Value, json};
use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use tokio::net::TcpListener;
use url::{Url, form_urlencoded};
use zixt_identity::LoginId;
use zixt_sso::oidc::{Begun, Callback, Config, ConfigDocument, DiscoverError, Provider, Refusal};
use zixt_sso::{Assertion, Browser, RoleRule, Waiting};
use zixt_types::Timestamp;

/// The wall clock of these tests: what tokens say is compared with it and with nothing else.
pub const NOW_MS: u64 = 1_800_000_000_000;
pub const NOW_S: u64 = NOW_MS / 1000;
pub const CLIENT: &str = "zixt-appliance";
pub const SECRET: &str = "a secret of the client, long enough";
pub const BROWSER: [u8; 32] = [7; 32];
pub const LOGIN: LoginId = LoginId([3; 16]);

/// A key that signs tokens.
pub enum Signer {
    Rsa(Box<RsaKeyPair>),
    Ec(Box<EcdsaKeyPair>, &'static str),
}

impl Signer {
    fn der(pem: &str) -> PrivatePkcs8KeyDer<'static> {
        PrivatePkcs8KeyDer::from_pem_slice(pem.as_bytes()).unwrap()
    }

    pub fn rsa(pem: &str) -> Self {
        Self::Rsa(Box::new(RsaKeyPair::from_pkcs8(Self::der(pem).secret_pkcs8_der()).unwrap()))
    }

    pub fn one() -> Self {
        Self::rsa(include_str!("../corpus/oidc/rsa-one.pem"))
    }

    /// The attacker's, unless a case says otherwise.
    pub fn two() -> Self {
        Self::rsa(include_str!("../corpus/oidc/rsa-two.pem"))
    }

    pub fn p256() -> Self {
        let der = Self::der(include_str!("../corpus/oidc/p256.pem"));
        let key =
            EcdsaKeyPair::from_pkcs8(&signature::ECDSA_P256_SHA256_FIXED_SIGNING, der.secret_pkcs8_der());
        Self::Ec(Box::new(key.unwrap()), "P-256")
    }

    pub fn p384() -> Self {
        let der = Self::der(include_str!("../corpus/oidc/p384.pem"));
        let key =
            EcdsaKeyPair::from_pkcs8(&signature::ECDSA_P384_SHA384_FIXED_SIGNING, der.secret_pkcs8_der());
        Self::Ec(Box::new(key.unwrap()), "P-384")
    }

    pub fn sign(&self, algorithm: &str, message: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        match self {
            Self::Rsa(key) => {
                let encoding: &'static dyn signature::RsaEncoding = match algorithm {
                    "PS256" => &signature::RSA_PSS_SHA256,
                    "RS512" => &signature::RSA_PKCS1_SHA512,
                    _ => &signature::RSA_PKCS1_SHA256,
                };
                let mut out = vec![0; key.public_modulus_len()];
                key.sign(encoding, &random, message, &mut out).unwrap();
                out
            }
            Self::Ec(key, _) => key.sign(&random, message).unwrap().as_ref().to_vec(),
        }
    }

    /// The public half as a JSON Web Key.
    pub fn jwk(&self, kid: &str) -> Value {
        match self {
            Self::Rsa(key) => json!({
                "kty": "RSA", "kid": kid, "use": "sig", "e": "AQAB",
                "n": B64.encode(key.public_key().modulus().big_endian_without_leading_zero()),
            }),
            Self::Ec(key, curve) => {
                let point = &key.public_key().as_ref()[1..];
                let (x, y) = point.split_at(point.len() / 2);
                json!({"kty": "EC", "kid": kid, "crv": curve, "x": B64.encode(x), "y": B64.encode(y)})
            }
        }
    }

    /// A signed token.
    pub fn token(&self, header: &Map<String, Value>, claims: &Map<String, Value>) -> String {
        let part = |map: &Map<String, Value>| B64.encode(serde_json::to_vec(map).unwrap());
        self.token_of(
            header.get("alg").and_then(Value::as_str).unwrap_or_default(),
            &part(header),
            &part(claims),
        )
    }

    /// A token over parts that are encoded already.
    pub fn token_of(&self, algorithm: &str, header: &str, claims: &str) -> String {
        let signed = format!("{header}.{claims}");
        let signature = self.sign(algorithm, signed.as_bytes());
        format!("{signed}.{}", B64.encode(signature))
    }
}

pub fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(object) => object,
        other => panic!("{other} is no object"),
    }
}

/// One answer of the provider.
#[derive(Clone)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(&'static str, String)>,
    pub body: Bytes,
}

impl Answer {
    pub fn json(value: &Value) -> Self {
        Self::of(200, "application/json", value.to_string())
    }

    pub fn of(status: u16, media_type: &str, body: impl Into<Bytes>) -> Self {
        Self { status, headers: vec![("content-type", media_type.to_owned())], body: body.into() }
    }
}

/// What it answers at each path, and what it was asked.
#[derive(Default)]
pub struct Script {
    pub answers: HashMap<String, Answer>,
    /// The last body that came to a path, and how many came.
    pub asked: HashMap<String, (usize, HashMap<String, String>)>,
    pub authorization: Option<String>,
    /// What the last connection agreed on.
    pub group: Option<NamedGroup>,
}

/// The provider, on a port of its own, over TLS.
pub struct Lab {
    pub issuer: String,
    pub authority: Authority,
    pub script: Arc<Mutex<Script>>,
    serving: tokio::task::JoinHandle<()>,
}

impl Drop for Lab {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl Lab {
    pub async fn start() -> Self {
        let authority = Authority::new("Zixt test authority");
        let acceptor = tokio_rustls::TlsAcceptor::from(authority.server_config());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let issuer = format!("https://127.0.0.1:{}", listener.local_addr().unwrap().port());
        let script = Arc::new(Mutex::new(Script::default()));
        let scripted = Arc::clone(&script);
        let serving = tokio::spawn(async move {
            loop {
                let Ok((tcp, _)) = listener.accept().await else { continue };
                let (acceptor, script) = (acceptor.clone(), Arc::clone(&scripted));
                tokio::spawn(async move {
                    let Ok(stream) = acceptor.accept(tcp).await else { return };
                    let group = stream.get_ref().1.negotiated_key_exchange_group().map(|group| group.name());
                    script.lock().unwrap().group = group;
                    let service = service_fn(move |request| answer(Arc::clone(&script), request));
                    // A client that hangs up is no failure of the server.
                    let served = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service);
                    drop(served.await);
                });
            }
        });
        let lab = Self { issuer, authority, script, serving };
        lab.reset();
        lab
    }

    /// The answers of a good provider.
    pub fn reset(&self) {
        let mut script = self.script.lock().unwrap();
        *script = Script::default();
        drop(script);
        self.set("/.well-known/openid-configuration", Answer::json(&Value::Object(self.metadata())));
        self.set("/jwks", Answer::json(&keys()));
    }

    pub fn metadata(&self) -> Map<String, Value> {
        let at = |path: &str| format!("{}/{path}", self.issuer);
        object(json!({
            "issuer": self.issuer, "authorization_endpoint": at("auth"), "token_endpoint": at("token"),
            "jwks_uri": at("jwks"), "introspection_endpoint": at("introspect"), "end_session_endpoint": at("end"),
            "response_types_supported": ["code"], "code_challenge_methods_supported": ["S256"],
            "id_token_signing_alg_values_supported": ["RS256", "PS256", "ES256", "ES384"],
            "authorization_response_iss_parameter_supported": true,
        }))
    }

    pub fn set(&self, path: &str, answer: Answer) {
        self.script.lock().unwrap().answers.insert(path.to_owned(), answer);
    }

    /// How often a path was asked for.
    pub fn asked(&self, path: &str) -> usize {
        self.script.lock().unwrap().asked.get(path).map_or(0, |(count, _)| *count)
    }

    /// The last form that came to a path.
    pub fn form(&self, path: &str) -> HashMap<String, String> {
        self.script.lock().unwrap().asked.get(path).map(|(_, form)| form.clone()).unwrap_or_default()
    }

    pub fn document(&self) -> ConfigDocument {
        ConfigDocument {
            issuer: self.issuer.clone(),
            client_id: CLIENT.to_owned(),
            redirect_uri: "https://zixt.test/sso/callback".to_owned(),
            post_logout_redirect_uri: Some("https://zixt.test/bye".to_owned()),
            authorities_pem: self.authority.pem.clone(),
            algorithms: Vec::new(),
            scopes: vec!["profile".to_owned()],
            roles_claim: Some("groups".to_owned()),
            roles: vec![
                RoleRule { value: "zixt-users".to_owned(), role: "user".to_owned() },
                RoleRule { value: "zixt-ops".to_owned(), role: "operator".to_owned() },
            ],
            acr: Vec::new(),
            amr: Vec::new(),
            skew_s: 60,
            max_age_s: None,
            require_iss: false,
        }
    }

    pub async fn provider(&self, document: &ConfigDocument) -> Result<Provider, DiscoverError> {
        Provider::discover(Config::new(document).unwrap(), SecretString::from(SECRET), &now).await
    }
}

/// The keys that the good provider publishes.
pub fn keys() -> Value {
    json!({"keys": [Signer::one().jwk("one"), Signer::p256().jwk("p256"), Signer::p384().jwk("p384")]})
}

pub fn now() -> Timestamp {
    Timestamp(NOW_MS)
}

async fn answer(
    script: Arc<Mutex<Script>>,
    request: http::Request<hyper::body::Incoming>,
) -> Result<http::Response<Full<Bytes>>, Infallible> {
    let path = request.uri().path().to_owned();
    let authorization =
        request.headers().get("authorization").and_then(|v| v.to_str().ok()).map(str::to_owned);
    let body = request.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let form = form_urlencoded::parse(&body).into_owned().collect();
    let mut script = script.lock().unwrap();
    let asked = script.asked.entry(path.clone()).or_default();
    *asked = (asked.0 + 1, form);
    script.authorization = authorization;
    let answer =
        script.answers.get(&path).cloned().unwrap_or_else(|| Answer::of(404, "text/plain", "nothing"));
    let mut response = http::Response::builder().status(answer.status);
    for (name, value) in &answer.headers {
        response = response.header(*name, value);
    }
    Ok(response.body(Full::new(answer.body)).unwrap())
}

/// A sign-in that is about to end, with everything that a case may change.
pub struct Attempt {
    pub issuer: String,
    pub header: Map<String, Value>,
    pub claims: Map<String, Value>,
    pub signer: Signer,
    /// Takes the place of the token, if it is set.
    pub token: Option<String>,
    /// The token endpoint's answer, into which the token goes as `id_token` unless it has one.
    pub answer: Map<String, Value>,
    /// Takes the place of that answer.
    pub raw_answer: Option<Answer>,
    pub callback: Vec<(String, String)>,
    pub browser: [u8; 32],
    pub login: LoginId,
    /// The clock when the browser comes back.
    pub clock_ms: u64,
    /// How often the callback comes.
    pub times: usize,
}

impl Attempt {
    /// The token as it will be sent.
    pub fn make_token(&self) -> String {
        self.token.clone().unwrap_or_else(|| self.signer.token(&self.header, &self.claims))
    }

    pub fn claim(&mut self, name: &str, value: impl Into<Value>) {
        self.claims.insert(name.to_owned(), value.into());
    }

    pub fn head(&mut self, name: &str, value: impl Into<Value>) {
        self.header.insert(name.to_owned(), value.into());
    }

    pub fn parameter(&mut self, name: &str, value: &str) {
        self.callback.retain(|(known, _)| known != name);
        self.callback.push((name.to_owned(), value.to_owned()));
    }
}

/// How an attempt ended.
#[derive(Debug)]
pub enum Ended {
    Signed(Assertion),
    Refused(Refusal),
    /// The callback could not be read.
    Callback(zixt_sso::oidc::CallbackError),
    /// No sign-in waits for the callback.
    NoPending,
    /// The provider could not be found at all.
    NotFound(DiscoverError),
}

impl Ended {
    /// The word for it.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Signed(_) => "signed-in",
            Self::Refused(refusal) => refusal.code(),
            Self::Callback(_) => "sso-callback",
            Self::NoPending => "no-pending",
            Self::NotFound(DiscoverError::Keys(_)) => "discover-keys",
            Self::NotFound(DiscoverError::Elsewhere(_)) => "discover-elsewhere",
            Self::NotFound(DiscoverError::Issuer) => "discover-issuer",
            Self::NotFound(_) => "discover",
        }
    }
}

/// A whole sign-in against the lab: begins, changes what the case changes, and ends.
pub async fn sign_in(lab: &Lab, document: &ConfigDocument, change: impl Fn(&mut Attempt)) -> Ended {
    match lab.provider(document).await {
        Ok(provider) => sign_in_with(lab, &provider, change).await,
        Err(error) => Ended::NotFound(error),
    }
}

pub async fn sign_in_with(lab: &Lab, provider: &Provider, change: impl Fn(&mut Attempt)) -> Ended {
    let begun = provider.begin(LOGIN, Browser::of(&BROWSER), now(), &mut random).unwrap();
    end(lab, provider, begun, LOGIN, change).await
}

/// Ends a sign-in that a server has begun; `None` if it was refused.
pub async fn answer_of(
    lab: &Lab,
    provider: &Provider,
    begun: Begun,
    login: LoginId,
    change: impl Fn(&mut Attempt),
) -> Option<Assertion> {
    match end(lab, provider, begun, login, change).await {
        Ended::Signed(assertion) => Some(assertion),
        _ => None,
    }
}

async fn end(
    lab: &Lab,
    provider: &Provider,
    begun: Begun,
    login: LoginId,
    change: impl Fn(&mut Attempt),
) -> Ended {
    let mut waiting = Waiting::default();
    let mut attempt = attempt(lab, &begun.url);
    attempt.login = login;
    waiting.keep(begun.pending, now()).unwrap();
    change(&mut attempt);
    let token = attempt.make_token();
    let answer = attempt.raw_answer.clone().unwrap_or_else(|| {
        let mut answer = attempt.answer.clone();
        answer.entry("id_token").or_insert(token.into());
        Answer::json(&Value::Object(answer))
    });
    lab.set("/token", answer);
    let query = form_urlencoded::Serializer::new(String::new()).extend_pairs(&attempt.callback).finish();
    let callback = match Callback::parse(&query) {
        Ok(callback) => callback,
        Err(error) => return Ended::Callback(error),
    };
    let clock = move || Timestamp(attempt.clock_ms);
    let mut ended = Ended::NoPending;
    for _ in 0..attempt.times {
        let Some(pending) = waiting.take(callback.state()) else { return Ended::NoPending };
        let browser = Browser::of(&attempt.browser);
        ended = match provider.finish(pending, attempt.login, &browser, &callback, &clock).await {
            Ok(assertion) => Ended::Signed(assertion),
            Err(refusal) => Ended::Refused(refusal),
        };
    }
    ended
}

/// The good end of a sign-in.
fn attempt(lab: &Lab, url: &Url) -> Attempt {
    let query: HashMap<String, String> = url.query_pairs().into_owned().collect();
    let access = "access-token-1";
    let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, access.as_bytes());
    Attempt {
        issuer: lab.issuer.clone(),
        header: object(json!({"alg": "RS256", "kid": "one"})),
        claims: object(json!({
            "iss": lab.issuer, "sub": "alice-1", "aud": CLIENT, "nonce": query["nonce"],
            "iat": NOW_S + 2, "exp": NOW_S + 300, "auth_time": NOW_S - 5, "sid": "session-1",
            "at_hash": B64.encode(&hash.as_ref()[..16]), "groups": ["zixt-users", "others"],
        })),
        signer: Signer::one(),
        token: None,
        answer: object(json!({"access_token": access, "token_type": "Bearer", "expires_in": 300})),
        raw_answer: None,
        callback: vec![
            ("code".to_owned(), "code-1".to_owned()),
            ("state".to_owned(), query["state"].clone()),
            ("iss".to_owned(), lab.issuer.clone()),
        ],
        browser: BROWSER,
        login: LOGIN,
        clock_ms: NOW_MS + 3000,
        times: 1,
    }
}
