//! The endpoints for identity providers, on the web listener. Browsers come and go by redirects: what the outcome was, a
//! page reads from the address behind the `#`, which no server is sent; the token is in a cookie that no script sees.

use super::request::{AtDoor, By, PathParts, SignedIn, json};
use super::web::{BROWSER_COOKIE, SESSION_COOKIE, SSO_COOKIE, cookie, set_cookie};
use super::{Failure, Web};
use crate::access::{Flow, parse_issuer};
use crate::app::{App, SsoEnd};
use crate::room::ENROL_BYTES_MAX;
use axum::body::Body;
use axum::extract::{Extension, State};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine as _};
use http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use std::sync::Arc;
use std::time::Duration;
use zeroize::Zeroizing;
use zixt_api::{ErrorCode, NewSsoLink, Problem, SignInStep, SsoRedirect, endpoints};
use zixt_crypto::fill_random;
use zixt_types::LoginId;

type Here = State<Arc<App>>;

/// Bytes of a log-out that a provider sends.
const LOGOUT_BYTES_MAX: usize = 64 * 1024;
/// And the time that it has for them.
const LOGOUT_WAIT_MAX: Duration = Duration::from_secs(5);
/// A browser may be away at the provider for so long, in seconds.
const AWAY_S: u32 = 600;
/// A session's cookie is good no longer than sessions are, in seconds; the server decides.
const SESSION_S: u32 = 24 * 3600;
/// A browser is known again for so long, in seconds.
const KNOWN_S: u32 = 400 * 86_400;

pub(super) fn router() -> Router<Arc<App>> {
    Router::new()
        .route(endpoints::SSO_BEGIN, get(begin))
        .route(endpoints::SSO_CALLBACK, get(callback))
        .route(endpoints::SSO_LOGOUT, post(logout))
        .route(endpoints::SSO_END, get(end))
        .route(endpoints::MY_SSO_LINKS, post(link))
}

async fn begin(
    State(app): Here,
    PathParts(issuer): PathParts<String>,
    AtDoor(door): AtDoor,
) -> Result<Response, Failure> {
    let begun = app.access.begin_sso(&door, parse_issuer(&issuer)?)?;
    let mut response = see_other(&begun.url)?;
    add(&mut response, SSO_COOKIE, Some(&to_text(&begun.flow)), "Lax", AWAY_S);
    Ok(response)
}

async fn link(
    State(app): Here,
    AtDoor(door): AtDoor,
    SignedIn { who, sender }: SignedIn,
    body: Body,
) -> Result<Response, Failure> {
    let (new, _room) = json::<NewSsoLink>(&app, body, ENROL_BYTES_MAX, sender).await?;
    let begun = app.access.begin_sso_link(&door, who.caller, parse_issuer(&new.issuer)?)?;
    let mut response = Json(SsoRedirect { url: begun.url }).into_response();
    add(&mut response, SSO_COOKIE, Some(&to_text(&begun.flow)), "Lax", AWAY_S);
    Ok(response)
}

async fn callback(
    State(app): Here,
    PathParts(issuer): PathParts<String>,
    AtDoor(door): AtDoor,
    By(by): By,
    headers: HeaderMap,
    uri: Uri,
) -> Result<Response, Failure> {
    let flow = cookie(&headers, SSO_COOKIE).and_then(from_text);
    let issuer = parse_issuer(&issuer)?;
    // Done to its end, whatever becomes of the connection: what a provider says is good once.
    let query = uri.query().unwrap_or_default().to_owned();
    let work = {
        let app = Arc::clone(&app);
        async move { app.finish_sso(&door, by, issuer, flow, &query).await }
    };
    let ended = app.tasks.spawn(work).await;
    let ended = ended.map_err(|_| Problem::new(ErrorCode::StoreFailed, "the request was not finished"))?;
    let (place, token) = match ended {
        Ok(SsoEnd::SignedIn(SignInStep::Done { token, .. })) => ("/#signed-in".to_owned(), Some(token)),
        Ok(SsoEnd::SignedIn(SignInStep::Need { factors, .. })) => {
            let names: Vec<_> = factors.iter().map(|factor| factor.name()).collect();
            (format!("/#need={}", names.join(",")), None)
        }
        Ok(SsoEnd::Linked(renewed)) => ("/#linked".to_owned(), Some(renewed.token)),
        Err(problem) => (format!("/#failed={}", problem.code.code()), None),
    };
    let mut response = see_other(&place)?;
    add(&mut response, SSO_COOKIE, None, "Lax", 0);
    if let Some(token) = token {
        sign_in(&mut response, &headers, token.expose());
    }
    Ok(response)
}

/// Gives a browser its session, and by what accounts know it again.
pub(super) fn sign_in(response: &mut Response, headers: &HeaderMap, token: &str) {
    add(response, SESSION_COOKIE, Some(token), "Strict", SESSION_S);
    let mut secret = Zeroizing::new([0; 32]);
    if super::web::browser(headers).is_none() && fill_random(secret.as_mut_slice()).is_ok() {
        let text = Zeroizing::new(BASE64_URL_SAFE_NO_PAD.encode(secret.as_slice()));
        // It opens nothing; and it has to come along from the provider, or accounts would not know the browser.
        add(response, BROWSER_COOKIE, Some(&text), "Lax", KNOWN_S);
    }
}

/// Takes a browser's session away.
pub(super) fn sign_out(response: &mut Response) {
    add(response, SESSION_COOKIE, None, "Strict", 0);
}

/// What a provider sends when somebody's session there has ended (OpenID Connect Back-Channel Logout 1.0 section 2.5).
async fn logout(
    State(app): Here,
    PathParts(issuer): PathParts<String>,
    By(by): By,
    body: Body,
) -> Result<Response, Failure> {
    let issuer = parse_issuer(&issuer)?;
    let malformed = || Problem::new(ErrorCode::MalformedRequest, "a form with one logout_token is expected");
    let bytes = tokio::time::timeout(LOGOUT_WAIT_MAX, axum::body::to_bytes(body, LOGOUT_BYTES_MAX)).await;
    let bytes = bytes.map_err(|_| malformed())?.map_err(|_| malformed())?;
    let token = form_value(&bytes, "logout_token").ok_or_else(malformed)?;
    app.end_by_idp(by, issuer, &token).await?;
    Ok((StatusCode::OK, [(header::CACHE_CONTROL, "no-store")]).into_response())
}

async fn end(
    State(app): Here,
    PathParts(issuer): PathParts<String>,
    Extension(_): Extension<Web>,
) -> Result<Response, Failure> {
    see_other(&app.access.idp_logout_url(parse_issuer(&issuer)?)?)
}

/// The one value of a name in a form (`application/x-www-form-urlencoded`).
fn form_value(bytes: &[u8], wanted: &str) -> Option<String> {
    let mut found = url::form_urlencoded::parse(bytes).filter(|(name, _)| name == wanted);
    let value = found.next()?.1.into_owned();
    found.next().is_none().then_some(value).filter(|value| !value.is_empty())
}

fn see_other(place: &str) -> Result<Response, Failure> {
    let place = HeaderValue::from_str(place)
        .map_err(|_| Problem::new(ErrorCode::StoreFailed, "the address of the next page cannot be sent"))?;
    let mut response = StatusCode::SEE_OTHER.into_response();
    response.headers_mut().insert(header::LOCATION, place);
    Ok(response)
}

fn add(response: &mut Response, name: &str, value: Option<&str>, same_site: &str, seconds: u32) {
    if let Some(header) = set_cookie(name, value, same_site, seconds) {
        response.headers_mut().append(header::SET_COOKIE, header);
    }
}

fn to_text(flow: &Flow) -> Zeroizing<String> {
    let bytes = Zeroizing::new([flow.id.0.as_slice(), &flow.secret].concat());
    Zeroizing::new(BASE64_URL_SAFE_NO_PAD.encode(bytes.as_slice()))
}

fn from_text(text: &str) -> Option<Flow> {
    let bytes = Zeroizing::new(BASE64_URL_SAFE_NO_PAD.decode(text).ok()?);
    let (id, secret) = bytes.split_first_chunk::<16>()?;
    Some(Flow { id: LoginId(*id), secret: secret.try_into().ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_form_has_a_value_once() {
        assert_eq!(form_value(b"a=1&logout_token=x.y.z", "logout_token").as_deref(), Some("x.y.z"));
        for form in [&b""[..], b"logout_token=", b"logout_token=a&logout_token=b", b"logouttoken=a", b"\xff"]
        {
            assert_eq!(form_value(form, "logout_token"), None);
        }
    }

    #[test]
    fn what_a_browser_brings_back_is_what_it_was_given() {
        let flow = Flow { id: LoginId([7; 16]), secret: [9; 32] };
        let back = from_text(&to_text(&flow)).unwrap();
        assert_eq!((back.id, back.secret), (flow.id, flow.secret));
        for text in ["", "AAAA", "!", &"A".repeat(63), &"A".repeat(65)] {
            assert!(from_text(text).is_none());
        }
    }
}
