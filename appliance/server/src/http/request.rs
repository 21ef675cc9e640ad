//! Reading requests within bounds. Every fault is a typed problem.

use super::{Failure, Peer};
use crate::app::App;
use axum::body::Body;
use axum::extract::{FromRequestParts, Path, Query};
use http::request::Parts;
use http_body_util::BodyExt as _;
use serde::de::DeserializeOwned;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Semaphore, SemaphorePermit};
use zixt_api::{ErrorCode, HexId, Problem, endpoints};
use zixt_types::Member;

/// A request that holds one entry without envelope, or ids.
pub(super) const SMALL_BYTES_MAX: usize = 256 * 1024;
/// Key packages: as many as may wait, in base64.
pub(super) const KEY_PACKAGES_BYTES_MAX: usize = 5 * 1024 * 1024;
/// A request has to arrive within this: the largest one over 4 Mbit/s.
const ARRIVAL_WAIT_MAX: Duration = Duration::from_secs(60);
/// Requests of all connections that are in memory at a time, in KiB: three of the largest.
const ROOM_KIB: usize = 72 * 1024;
/// A body that is parsed is in memory twice, with escapes in it three times: above this, one at a time is.
const LARGE_BYTES: usize = 1024 * 1024;
/// What is allocated for a large body, whatever its length: glibc keeps freed pieces of up to 32 MiB for the next time,
/// in every thread's arena, and gives back larger ones. Pages that nothing is written to take no memory.
const LARGE_CAPACITY: usize = 33 * 1024 * 1024;

static ROOM: Semaphore = Semaphore::const_new(ROOM_KIB);
static LARGE: Semaphore = Semaphore::const_new(1);

/// The memory that a request takes. Kept until it is answered.
pub(super) type Room = SemaphorePermit<'static>;

/// The calling device.
pub(super) struct Device {
    pub member: Member,
    pub tls: zixt_types::Hash,
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

/// Reads a JSON body of at most `max` bytes.
pub(super) async fn json<T: DeserializeOwned>(body: Body, max: usize) -> Result<(T, Room), Failure> {
    use http_body::Body as _;
    let announced = body.size_hint().exact();
    let announced = announced.map(|bytes| usize::try_from(bytes).unwrap_or(usize::MAX));
    if announced.is_some_and(|bytes| bytes > max) {
        return Err(too_large(max).into());
    }
    let expected = announced.unwrap_or(max);
    let mut room = ROOM
        .try_acquire_many(kib(expected))
        .map_err(|_| Problem::new(ErrorCode::Busy, "too many large requests at the same time"))?;
    let capacity = if expected > LARGE_BYTES { LARGE_CAPACITY.max(expected) } else { expected };
    let bytes = tokio::time::timeout(ARRIVAL_WAIT_MAX, collect(body, capacity, max))
        .await
        .map_err(|_| Problem::new(ErrorCode::RequestTimeout, "the body did not arrive in time"))??;
    drop(room.split(room.num_permits().saturating_sub(kib(bytes.len()) as usize)));
    let _turn = if bytes.len() > LARGE_BYTES { LARGE.acquire().await.ok() } else { None };
    let request = serde_json::from_slice(&bytes).map_err(|error| malformed(&error.to_string()))?;
    Ok((request, room))
}

/// Reads a body into one piece of memory.
async fn collect(mut body: Body, capacity: usize, max: usize) -> Result<Vec<u8>, Problem> {
    let mut bytes = Vec::with_capacity(capacity);
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| Problem::new(ErrorCode::MalformedRequest, "the body ended early"))?;
        // Trailers mean nothing here.
        let Ok(data) = frame.into_data() else { continue };
        if data.len() > max - bytes.len() {
            return Err(too_large(max));
        }
        bytes.extend_from_slice(&data);
    }
    Ok(bytes)
}

fn too_large(max: usize) -> Problem {
    Problem::new(ErrorCode::RequestTooLarge, format!("at most {max} bytes are allowed"))
}

fn kib(bytes: usize) -> u32 {
    u32::try_from(bytes.div_ceil(1024)).unwrap_or(u32::MAX)
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
