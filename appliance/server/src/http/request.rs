//! Reading requests within bounds. Every fault is a typed problem.

use super::{Failure, LocalUser, Peer, Remote, Web};
use crate::access::{Door, sign_in_needed};
use crate::app::{App, Signed};
use crate::room::{ENROL_BYTES_MAX, Full, Held, LARGE_BYTES};
use axum::body::Body;
use axum::extract::{FromRequestParts, Path, Query};
use http::request::Parts;
use http::{HeaderMap, header};
use http_body_util::BodyExt as _;
use serde::de::DeserializeOwned;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, timeout_at};
use zeroize::Zeroize as _;
use zixt_api::{ErrorCode, HexId, Problem, endpoints};
use zixt_audit::Origin;
use zixt_identity::Network;
use zixt_types::{Hash, Member, SessionId};

/// A request that holds one entry without envelope, or ids.
pub(super) const SMALL_BYTES_MAX: usize = 256 * 1024;
/// Key packages: as many as may wait, in base64.
pub(super) const KEY_PACKAGES_BYTES_MAX: usize = 5 * 1024 * 1024;
/// A body has to come in even parts, each within this time. Whoever stops in the middle holds what they sent for no
/// longer, and whoever sends slowly holds little of it.
const PART_WAIT_MAX: Duration = Duration::from_secs(5);
/// So many: the largest request takes a minute at most, over 4 Mbit/s.
const PARTS: usize = 12;
/// What is allocated for a large body, whatever its length, once so much of it came that it is one: glibc keeps freed
/// pieces of up to 32 MiB for the next time, in every thread's arena, and gives back larger ones. Pages that nothing is
/// written to take no memory.
const LARGE_CAPACITY: usize = 33 * 1024 * 1024;

/// Whose request is read.
#[derive(Clone, Copy)]
pub(super) enum Sender {
    Admin,
    /// Who enrols, with this key.
    Stranger(Hash),
    /// Whoever comes to the web listener, from this network.
    Web(Hash),
    /// The device that holds this TLS key.
    Device(Hash),
}

/// Whoever calls, device or not.
pub(super) struct Anybody(pub Sender);

impl FromRequestParts<Arc<App>> for Anybody {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Infallible> {
        // Every connection has a key, or comes from a network.
        let of_network = |Remote(from): &Remote| {
            let mut place = Hash::ZERO;
            place.0[..8].copy_from_slice(Network::of(from.ip()).as_bytes());
            place
        };
        let Some(Peer(tls)) = parts.extensions.get::<Peer>().copied() else {
            let place = parts.extensions.get::<Remote>().map_or(Hash::ZERO, of_network);
            return Ok(Self(Sender::Web(place)));
        };
        // A device enrols again when it did not get the answer.
        Ok(Self(if app.knows(&tls) { Sender::Device(tls) } else { Sender::Stranger(tls) }))
    }
}

/// From where a request comes, for the audit journal.
pub(super) struct By(pub Origin);

impl FromRequestParts<Arc<App>> for By {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &Arc<App>) -> Result<Self, Infallible> {
        let local = parts.extensions.get::<LocalUser>().map(|LocalUser(uid)| Origin::Socket(*uid));
        let remote =
            parts.extensions.get::<Remote>().map(|Remote(address)| Origin::Network((*address).into()));
        Ok(Self(local.or(remote).unwrap_or(Origin::Inside)))
    }
}

/// How the caller stands before the door, signed in or not.
pub(super) struct AtDoor(pub Door);

impl FromRequestParts<Arc<App>> for AtDoor {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Failure> {
        let network = parts.extensions.get::<Remote>().map(|Remote(from)| Network::of(from.ip()));
        if let Some(web) = parts.extensions.get::<Web>() {
            return Ok(Self(Door::of_web(
                web.listener,
                network,
                super::web::browser(&parts.headers).as_ref(),
            )));
        }
        let Some(Peer(tls)) = parts.extensions.get::<Peer>().copied() else {
            return Err(Problem::new(ErrorCode::UnknownCaller, "the connection has no key").into());
        };
        Ok(Self(Door::of_client(tls, network, app.knows(&tls))))
    }
}

/// The head of a request that a page of our own web listener makes, by a browser's word.
pub(super) struct OwnPage(pub Option<HeaderMap>);

impl FromRequestParts<Arc<App>> for OwnPage {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &Arc<App>) -> Result<Self, Infallible> {
        let web = parts.extensions.get::<Web>();
        let ours = web.is_some_and(|web| super::web::is_from_here(&parts.headers, web));
        Ok(Self(ours.then(|| parts.headers.clone())))
    }
}

/// Somebody who has signed in on this connection's key.
pub(super) struct SignedIn {
    pub who: Signed,
    pub sender: Sender,
}

impl FromRequestParts<Arc<App>> for SignedIn {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Failure> {
        let AtDoor(door) = AtDoor::from_request_parts(parts, app).await?;
        let By(by) = match By::from_request_parts(parts, app).await {
            Ok(by) => by,
            Err(never) => match never {},
        };
        let tls = parts.extensions.get::<Peer>().map(|Peer(tls)| *tls);
        let refused = |problem: &Problem| app.audit.refused_from(by, problem);
        tls.map_or(Ok(()), |tls| app.check_not_revoked(&tls)).inspect_err(refused)?;
        let token = match parts.extensions.get::<Web>() {
            Some(web) => super::web::token(parts, web)?,
            None => bearer(&parts.headers)?,
        };
        let caller = app.access.check(token, &door).inspect_err(refused)?;
        let member = door.device.and_then(|tls| app.caller(&tls).ok());
        let device = member.filter(|member| member.account == caller.account()).map(|member| member.device);
        let Anybody(sender) = match Anybody::from_request_parts(parts, app).await {
            Ok(anybody) => anybody,
            Err(never) => match never {},
        };
        Ok(Self { who: Signed { caller, device, by }, sender })
    }
}

/// The token that a request shows (RFC 6750 section 2.1).
pub(super) fn bearer(headers: &HeaderMap) -> Result<&str, Problem> {
    let shown = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let token = shown
        .and_then(|text| text.split_once(' '))
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
    token.map(|(_, token)| token.trim()).ok_or_else(sign_in_needed)
}

/// The calling device, whose user has signed in on it.
pub(super) struct Device {
    pub member: Member,
    pub tls: Hash,
    pub session: SessionId,
}

impl FromRequestParts<Arc<App>> for Device {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Failure> {
        let Some(Peer(tls)) = parts.extensions.get::<Peer>().copied() else {
            return Err(Problem::new(ErrorCode::UnknownCaller, "the connection has no key").into());
        };
        let refused = |problem: &Problem| {
            if let Some(Remote(from)) = parts.extensions.get::<Remote>() {
                app.audit.refused_remotely(*from, problem);
            }
        };
        let member = app.caller(&tls).inspect_err(refused)?;
        let token = bearer(&parts.headers)?;
        let caller = app.access.check(token, &Door::of_client(tls, None, true)).inspect_err(refused)?;
        app.check_device(&caller, &member).inspect_err(refused)?;
        Ok(Self { member, tls, session: caller.session() })
    }
}

/// Reads a JSON body of at most `max` bytes. Its room is to be kept until it is answered.
pub(super) async fn json<T: DeserializeOwned>(
    app: &App,
    body: Body,
    max: usize,
    sender: Sender,
) -> Result<(T, Held), Failure> {
    use http_body::Body as _;
    let announced = body.size_hint().exact();
    let announced = announced.map(|bytes| usize::try_from(bytes).unwrap_or(usize::MAX));
    if announced.is_some_and(|bytes| bytes > max) {
        return Err(too_large(max).into());
    }
    let expected = announced.unwrap_or(max);
    let large = expected > LARGE_BYTES;
    let mut room = match sender {
        Sender::Admin => app.rooms.admin.enter(),
        Sender::Device(key) if large => app.rooms.large.enter_in_turn(key).map_err(|Full| {
            Problem::new(ErrorCode::Busy, "the device has another large request under way")
        })?,
        Sender::Device(key) => app.rooms.small.enter_with_share(key),
        Sender::Web(place) => app.rooms.web.enter_with_share(place),
        Sender::Stranger(key) => app
            .rooms
            .strangers
            .enter_in_turn(key)
            .map_err(|Full| Problem::new(ErrorCode::Busy, "the key has another enrolment under way"))?,
    };
    let mut bytes = collect(body, expected, max, &mut room).await?;
    let _turn = if bytes.len() > LARGE_BYTES { app.rooms.parsing.acquire().await.ok() } else { None };
    let request = serde_json::from_slice(&bytes);
    if bytes.len() <= ENROL_BYTES_MAX {
        // Passwords and codes come in small requests.
        bytes.zeroize();
    }
    Ok((request.map_err(|error| malformed(&error.to_string()))?, room))
}

/// Reads a body into one piece of memory.
async fn collect(mut body: Body, expected: usize, max: usize, room: &mut Held) -> Result<Vec<u8>, Problem> {
    let late = |_| Problem::new(ErrorCode::RequestTimeout, "the body did not arrive in time");
    let mut bytes = Vec::new();
    let part = expected.div_ceil(PARTS).max(1);
    let (mut wanted, mut until) = (part, Instant::now() + PART_WAIT_MAX);
    while let Some(frame) = timeout_at(until, body.frame()).await.map_err(late)? {
        let frame = frame.map_err(|_| Problem::new(ErrorCode::MalformedRequest, "the body ended early"))?;
        // Trailers mean nothing here.
        let Ok(data) = frame.into_data() else { continue };
        if data.len() > max - bytes.len() {
            return Err(too_large(max));
        }
        room.grow_to(bytes.len() + data.len()).map_err(|Full| {
            Problem::new(ErrorCode::Busy, "too many requests at the same time, of this device or of all")
        })?;
        let needed = bytes.len() + data.len();
        if needed > LARGE_BYTES && needed > bytes.capacity() {
            bytes.reserve_exact(LARGE_CAPACITY.max(expected) - bytes.len());
        }
        bytes.extend_from_slice(&data);
        if bytes.len() >= wanted {
            (wanted, until) = (bytes.len() + part, Instant::now() + PART_WAIT_MAX);
        }
    }
    Ok(bytes)
}

fn too_large(max: usize) -> Problem {
    Problem::new(ErrorCode::RequestTooLarge, format!("at most {max} bytes are allowed"))
}

/// The parameters of a query.
pub(super) fn query<T: DeserializeOwned>(uri: &http::Uri) -> Result<T, Failure> {
    Query::try_from_uri(uri).map(|Query(query)| query).map_err(|error| malformed(&error.body_text()))
}

/// The parts of a path, as text.
pub(super) struct PathParts<T>(pub T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for PathParts<T> {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Failure> {
        let Path(path) = Path::<T>::from_request_parts(parts, state)
            .await
            .map_err(|error| malformed(&error.body_text()))?;
        Ok(Self(path))
    }
}

/// An id in a path.
pub(super) fn id<T: HexId>(text: &str) -> Result<T, Failure> {
    T::from_text(text)
        .ok_or_else(|| malformed(&format!("expected a {} as {} hexadecimal digits", T::NAME, 2 * T::BYTES)))
}

pub(super) fn malformed(why: &str) -> Failure {
    Problem::new(ErrorCode::MalformedRequest, why).into()
}

/// The answer to a path that no endpoint has.
pub(super) async fn unknown_endpoint() -> Failure {
    Problem::new(ErrorCode::UnknownEndpoint, "see openapi.json for the endpoints of this version").into()
}

/// The answer to a method that the endpoint does not take.
pub(super) async fn method_not_allowed() -> Failure {
    Problem::new(ErrorCode::MethodNotAllowed, "the endpoint takes another method").into()
}

pub(super) const JSON: &str = "application/json";
pub(super) const NDJSON: &str = endpoints::NDJSON;
pub(super) const OCTETS: &str = endpoints::OCTETS;

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use tokio_stream::StreamExt as _;

    /// A body of so many pieces of as many bytes, one after each pause, and then nothing more, or its end.
    fn body(pieces: usize, bytes: usize, pause: Duration, ends: bool) -> Body {
        let pieces =
            tokio_stream::iter(vec![Bytes::from(vec![b' '; bytes]); pieces]).then(move |piece| async move {
                tokio::time::sleep(pause).await;
                Ok::<_, Infallible>(piece)
            });
        if ends {
            Body::from_stream(pieces)
        } else {
            Body::from_stream(pieces.chain(tokio_stream::pending()))
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_comes_steadily_or_is_given_up() {
        const MIB: usize = 1024 * 1024;
        let rooms = crate::room::Rooms::default();
        for (pieces, bytes, pause, ends, taken, seconds) in [
            // At once, then nothing: the device has what it sent for one part's time.
            (15, MIB / 16, 0, false, false, 5),
            // Steadily, as slowly as may be.
            (12, MIB / 12 + 1, 4_900, true, true, 59),
            // Slower than that.
            (64, MIB / 64, 1_000, true, false, 5),
            // A byte now and then.
            (1_000, 1, 1_000, true, false, 5),
        ] {
            let mut room = rooms.small.enter();
            let before = Instant::now();
            let body = body(pieces, bytes, Duration::from_millis(pause), ends);
            let got = collect(body, MIB, 2 * MIB, &mut room).await;
            assert_eq!(got.is_ok(), taken, "{pieces} of {bytes}");
            if let Err(problem) = got {
                assert_eq!(problem.code, ErrorCode::RequestTimeout);
            }
            let waited = before.elapsed();
            assert!(waited <= Duration::from_secs(seconds), "{pieces} of {bytes}: {waited:?}");
        }
    }

    #[tokio::test]
    async fn memory_is_taken_as_bytes_come() {
        let rooms = crate::room::Rooms::default();
        let max = 24 * 1024 * 1024;
        for (sent, capacity) in [(1000, 2000), (LARGE_BYTES, 2 * LARGE_BYTES), (LARGE_BYTES + 1, usize::MAX)]
        {
            let mut room = rooms.large.enter();
            let body = body(1, sent, Duration::ZERO, true);
            let got = collect(body, max, max, &mut room).await.unwrap();
            assert!(got.len() == sent && got.capacity() <= capacity, "{sent}: {}", got.capacity());
            assert!(sent <= LARGE_BYTES || got.capacity() >= LARGE_CAPACITY);
        }
    }
}
