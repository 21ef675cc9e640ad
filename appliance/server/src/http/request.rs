//! Reading requests within bounds. Every fault is a typed problem.

use super::{Failure, Peer};
use crate::app::App;
use crate::room::{Full, Held, LARGE_BYTES};
use axum::body::Body;
use axum::extract::{FromRequestParts, Path, Query};
use http::request::Parts;
use http_body_util::BodyExt as _;
use serde::de::DeserializeOwned;
use std::sync::Arc;
use std::time::Duration;
use zixt_api::{ErrorCode, HexId, Problem, endpoints};
use zixt_types::{Hash, Member};

/// A request that holds one entry without envelope, or ids.
pub(super) const SMALL_BYTES_MAX: usize = 256 * 1024;
/// Key packages: as many as may wait, in base64.
pub(super) const KEY_PACKAGES_BYTES_MAX: usize = 5 * 1024 * 1024;
/// A request has to arrive within this: the largest one over 4 Mbit/s.
const ARRIVAL_WAIT_MAX: Duration = Duration::from_secs(60);
/// What is allocated for a large body, whatever its length: glibc keeps freed pieces of up to 32 MiB for the next time,
/// in every thread's arena, and gives back larger ones. Pages that nothing is written to take no memory.
const LARGE_CAPACITY: usize = 33 * 1024 * 1024;

/// Whose request is read.
#[derive(Clone, Copy)]
pub(super) enum Sender {
    Admin,
    /// Who enrols: never with a large one.
    Stranger,
    /// The device that holds this TLS key.
    Device(Hash),
}

/// The calling device.
pub(super) struct Device {
    pub member: Member,
    pub tls: Hash,
}

impl FromRequestParts<Arc<App>> for Device {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Failure> {
        let Some(Peer(tls)) = parts.extensions.get::<Peer>().copied() else {
            return Err(Problem::new(ErrorCode::UnknownCaller, "the connection has no key").into());
        };
        Ok(Self { member: app.caller(&tls)?, tls })
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
        Sender::Stranger | Sender::Device(_) => app.rooms.small.enter(),
    };
    let capacity = if large { LARGE_CAPACITY.max(expected) } else { expected };
    let bytes = tokio::time::timeout(ARRIVAL_WAIT_MAX, collect(body, capacity, max, &mut room))
        .await
        .map_err(|_| Problem::new(ErrorCode::RequestTimeout, "the body did not arrive in time"))??;
    let _turn = if bytes.len() > LARGE_BYTES { app.rooms.parsing.acquire().await.ok() } else { None };
    let request = serde_json::from_slice(&bytes).map_err(|error| malformed(&error.to_string()))?;
    Ok((request, room))
}

/// Reads a body into one piece of memory.
async fn collect(mut body: Body, capacity: usize, max: usize, room: &mut Held) -> Result<Vec<u8>, Problem> {
    let mut bytes = Vec::with_capacity(capacity);
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| Problem::new(ErrorCode::MalformedRequest, "the body ended early"))?;
        // Trailers mean nothing here.
        let Ok(data) = frame.into_data() else { continue };
        if data.len() > max - bytes.len() {
            return Err(too_large(max));
        }
        room.grow_to(bytes.len() + data.len())
            .map_err(|Full| Problem::new(ErrorCode::Busy, "too many requests at the same time"))?;
        bytes.extend_from_slice(&data);
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
