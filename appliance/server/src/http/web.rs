//! The web listener: the API for browsers and other programs, without what takes a device of the ledger.
//!
//! A program shows its token as on the other listener. A browser has it in a cookie that scripts do not see; then a request
//! that changes something has to come from a page of this origin (RFC 6454). A request for another host is refused, so that
//! no name of somebody else's leads here.

use super::request::{bearer, method_not_allowed, unknown_endpoint};
use super::{Failure, Remote, Web, to_the_end};
use crate::access::sign_in_needed;
use crate::app::App;
use axum::Router;
use axum::extract::{Request, State};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine as _};
use governor::clock::DefaultClock;
use governor::state::keyed::HashMapStateStore;
use governor::{Quota, RateLimiter};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use std::num::NonZeroU32;
use std::sync::Arc;
use zeroize::Zeroizing;
use zixt_api::{ErrorCode, Problem, endpoints};
use zixt_crypto::{hash, labels};
use zixt_identity::Network;

/// The session's token. `__Host-`: from this host alone, over TLS, for every path (RFC 6265bis section 4.1.3.2).
pub(super) const SESSION_COOKIE: &str = "__Host-zixt-session";
/// What a browser brings back from an identity provider, beside its answer.
pub(super) const SSO_COOKIE: &str = "__Host-zixt-sso";
/// By which accounts know a browser that they have signed in with.
pub(super) const BROWSER_COOKIE: &str = "__Host-zixt-browser";

/// What every answer says to a browser (OWASP Secure Headers).
const HEADERS: [(&str, &str); 6] = [
    (
        "content-security-policy",
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
         form-action 'self'; base-uri 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'",
    ),
    ("strict-transport-security", "max-age=31536000"),
    ("x-content-type-options", "nosniff"),
    ("referrer-policy", "no-referrer"),
    ("cross-origin-opener-policy", "same-origin"),
    ("cross-origin-resource-policy", "same-origin"),
];

/// The router of the web listener. Each request carries [`Web`] and its [`super::Remote`] as extensions.
pub fn router(app: Arc<App>) -> Router {
    let quota = Quota::per_second(EACH_SECOND).allow_burst(BURST);
    let limiter = Arc::new(Limiter::new(quota, HashMapStateStore::default(), DefaultClock::default()));
    Router::new()
        .route(endpoints::HEALTHZ, get(super::clients::healthz))
        .route(endpoints::NETWORK, get(super::clients::network))
        .route("/", get(|| asset("text/html; charset=utf-8", include_str!("page.html"))))
        .route("/page.js", get(|| asset("text/javascript; charset=utf-8", include_str!("page.js"))))
        .route("/page.css", get(|| asset("text/css; charset=utf-8", include_str!("page.css"))))
        .merge(super::people::router())
        .merge(super::sso::router())
        .fallback(unknown_endpoint)
        .method_not_allowed_fallback(method_not_allowed)
        .layer(middleware::from_fn_with_state(Arc::clone(&app), to_the_end))
        .layer(middleware::from_fn(tag))
        .layer(middleware::from_fn_with_state(limiter, limit))
        .layer(middleware::from_fn(guard))
        .with_state(app)
}

/// Bytes of an answer that gets an entity tag.
const TAGGED_BYTES_MAX: usize = 1024 * 1024;

/// Names what an answer says (RFC 9110 section 8.8.3), and says no more than that to whoever has it already.
async fn tag(request: Request, next: Next) -> Response {
    let (is_get, known) =
        (*request.method() == Method::GET, request.headers().get(header::IF_NONE_MATCH).cloned());
    let response = next.run(request).await;
    let json = response.headers().get(header::CONTENT_TYPE).is_some_and(|kind| kind == super::request::JSON);
    if !is_get || !json || response.status() != StatusCode::OK {
        return response;
    }
    let (mut head, body) = response.into_parts();
    let Ok(bytes) = axum::body::to_bytes(body, TAGGED_BYTES_MAX).await else {
        return Failure(Problem::new(ErrorCode::StoreFailed, "the answer is too large")).into_response();
    };
    let tag = hash::sha384(labels::ENTITY_TAG, &[&bytes]).to_hex();
    let tag = format!("\"{}\"", &tag[..32]);
    let Ok(value) = HeaderValue::from_str(&tag) else { return Response::from_parts(head, bytes.into()) };
    head.headers.insert(header::ETAG, value);
    let known = known.as_ref().and_then(|known| known.to_str().ok());
    if known.is_some_and(|known| known.split(',').any(|one| one.trim().trim_start_matches("W/") == tag)) {
        head.status = StatusCode::NOT_MODIFIED;
        head.headers.remove(header::CONTENT_LENGTH);
        head.headers.remove(header::CONTENT_TYPE);
        return Response::from_parts(head, axum::body::Body::empty());
    }
    Response::from_parts(head, bytes.into())
}

/// Requests that one network has at once, and each second.
const BURST: NonZeroU32 = NonZeroU32::new(400).unwrap();
const EACH_SECOND: NonZeroU32 = NonZeroU32::new(200).unwrap();
/// Networks that are counted before those that rest are forgotten.
const COUNTED_MAX: usize = 10_000;

type Limiter = RateLimiter<Network, HashMapStateStore<Network>, DefaultClock>;

/// Keeps one network from taking all turns (GCRA).
async fn limit(State(limiter): State<Arc<Limiter>>, request: Request, next: Next) -> Response {
    let network = request.extensions().get::<Remote>().map(|Remote(from)| Network::of(from.ip()));
    if let Some(network) = network {
        if limiter.len() > COUNTED_MAX {
            limiter.retain_recent();
        }
        if limiter.check_key(&network).is_err() {
            let mut problem =
                Problem::new(ErrorCode::TooManyRequests, "the network has used up its requests");
            problem.retry_after = Some(1);
            return Failure(problem).into_response();
        }
    }
    next.run(request).await
}

/// A part of the page, as it was built in.
async fn asset(kind: &'static str, text: &'static str) -> Response {
    ([(header::CONTENT_TYPE, kind)], text).into_response()
}

/// Refuses requests for other hosts, and says to browsers what they may do with the answer.
async fn guard(request: Request, next: Next) -> Response {
    let asked = request.headers().get(header::HOST).and_then(|host| host.to_str().ok());
    let ours = request.extensions().get::<Web>().and_then(|web| web.origin.strip_prefix("https://"));
    let mut response = if asked.is_some() && asked.map(str::to_ascii_lowercase).as_deref() == ours {
        next.run(request).await
    } else {
        let told = format!("this is {}", ours.unwrap_or("another host"));
        Failure(Problem::new(ErrorCode::MalformedRequest, told)).into_response()
    };
    let headers = response.headers_mut();
    for (name, value) in HEADERS {
        headers.entry(HeaderName::from_static(name)).or_insert(HeaderValue::from_static(value));
    }
    // What is said to somebody who is signed in is nobody else's.
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}

/// A cookie's value.
pub(super) fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let all = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    let pairs = all.flat_map(|text| text.split(';')).filter_map(|pair| pair.trim().split_once('='));
    // Two of one name: somebody put one there.
    let mut found = pairs.filter(|(found, _)| *found == name).map(|(_, value)| value);
    found.next().filter(|_| found.next().is_none())
}

/// The secret by which accounts know this browser.
pub(super) fn browser(headers: &HeaderMap) -> Option<[u8; 32]> {
    let bytes = Zeroizing::new(BASE64_URL_SAFE_NO_PAD.decode(cookie(headers, BROWSER_COOKIE)?).ok()?);
    bytes.as_slice().try_into().ok()
}

/// The token that a request shows.
pub(super) fn token<'a>(parts: &'a Parts, web: &Web) -> Result<&'a str, Problem> {
    if parts.headers.contains_key(header::AUTHORIZATION) {
        return bearer(&parts.headers);
    }
    let token = cookie(&parts.headers, SESSION_COOKIE).ok_or_else(sign_in_needed)?;
    if parts.method != Method::GET && !is_from_here(&parts.headers, web) {
        return Err(Problem::new(
            ErrorCode::Forbidden,
            "a change has to be asked for by a page of this origin",
        ));
    }
    Ok(token)
}

/// Whether a browser says that a page of ours asks.
pub(super) fn is_from_here(headers: &HeaderMap, web: &Web) -> bool {
    match headers.get(header::ORIGIN) {
        Some(origin) => origin.as_bytes() == web.origin.as_bytes(),
        // Browsers that leave it out say it in another way (Fetch Metadata, W3C).
        None => headers.get("sec-fetch-site").is_some_and(|site| site == "same-origin"),
    }
}

/// A cookie that scripts do not see. `None` ends it.
pub(super) fn set_cookie(
    name: &str,
    value: Option<&str>,
    same_site: &str,
    seconds: u32,
) -> Option<HeaderValue> {
    let age = if value.is_some() { seconds } else { 0 };
    let text = Zeroizing::new(format!(
        "{name}={}; Max-Age={age}; Path=/; Secure; HttpOnly; SameSite={same_site}",
        value.unwrap_or_default()
    ));
    let mut header = HeaderValue::from_str(&text).ok()?;
    header.set_sensitive(true);
    Some(header)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(all: &[(HeaderName, &'static str)]) -> HeaderMap {
        all.iter().map(|(name, value)| (name.clone(), HeaderValue::from_static(value))).collect()
    }

    #[test]
    fn a_cookie_counts_once() {
        let one = headers(&[(header::COOKIE, "a=1; __Host-zixt-session=T; b=2")]);
        assert_eq!(cookie(&one, SESSION_COOKIE), Some("T"));
        assert_eq!(cookie(&one, BROWSER_COOKIE), None);
        let two = headers(&[(header::COOKIE, "__Host-zixt-session=T; __Host-zixt-session=U")]);
        assert_eq!(cookie(&two, SESSION_COOKIE), None);
        let told = set_cookie(SESSION_COOKIE, Some("T"), "Strict", 60).unwrap();
        assert_eq!(
            told.to_str().unwrap(),
            "__Host-zixt-session=T; Max-Age=60; Path=/; Secure; HttpOnly; SameSite=Strict"
        );
        assert!(told.is_sensitive());
    }

    #[test]
    fn a_browser_changes_something_from_our_own_pages_alone() {
        let web = Web { listener: zixt_types::Hash([1; 48]), origin: "https://zixt.test:8443".into() };
        let ask = |method: Method, more: &[(HeaderName, &'static str)]| {
            let mut request = http::Request::builder().method(method).body(()).unwrap();
            *request.headers_mut() = headers(&[(header::COOKIE, "__Host-zixt-session=T")]);
            request.headers_mut().extend(headers(more));
            let (parts, ()) = request.into_parts();
            token(&parts, &web).map(str::to_owned).map_err(|problem| problem.code)
        };
        let fetch_site = HeaderName::from_static("sec-fetch-site");
        assert_eq!(ask(Method::GET, &[]), Ok("T".to_owned()));
        for (more, taken) in [
            (vec![(header::ORIGIN, "https://zixt.test:8443")], true),
            (vec![(header::ORIGIN, "https://zixt.test")], false),
            (vec![(header::ORIGIN, "null")], false),
            (vec![(header::ORIGIN, "https://evil.test"), (fetch_site.clone(), "same-origin")], false),
            (vec![(fetch_site.clone(), "same-origin")], true),
            (vec![(fetch_site.clone(), "same-site")], false),
            (vec![], false),
        ] {
            let expected = if taken { Ok("T".to_owned()) } else { Err(ErrorCode::Forbidden) };
            assert_eq!(ask(Method::POST, &more), expected, "{more:?}");
        }
        // A program's own token needs no page.
        assert_eq!(ask(Method::POST, &[(header::AUTHORIZATION, "Bearer P")]), Ok("P".to_owned()));
    }
}
