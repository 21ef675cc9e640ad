//! Reading requests within bounds. Every fault is a typed problem.

use super::{Failure, Peer};
use crate::app::App;
use axum::body::Body;
use axum::extract::{FromRequestParts, Path, Query};
use http::request::Parts;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use serde::de::DeserializeOwned;
use std::sync::{Arc, LazyLock};
use std::time::Duration;
use tokio::sync::Semaphore;
use zixt_api::{ErrorCode, HexId, Problem, endpoints};
use zixt_types::Member;

/// A request that holds one entry without envelope, or ids.
pub(super) const SMALL_BYTES_MAX: usize = 256 * 1024;
/// Key packages: as many as may wait, in base64.
pub(super) const KEY_PACKAGES_BYTES_MAX: usize = 5 * 1024 * 1024;
/// A request has to arrive within this: the largest one over 4 Mbit/s.
const ARRIVAL_WAIT_MAX: Duration = Duration::from_secs(60);
/// Requests of all connections that are in memory at a time, in KiB: four of the largest.
const ROOM_KIB: usize = 96 * 1024;

static ROOM: LazyLock<Semaphore> = LazyLock::new(|| Semaphore::new(ROOM_KIB));

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
pub(super) async fn json<T: DeserializeOwned>(body: Body, max: usize) -> Result<T, Failure> {
    use http_body::Body as _;
    let announced = body.size_hint().exact().unwrap_or(max as u64);
    let too_large = || Problem::new(ErrorCode::RequestTooLarge, format!("at most {max} bytes are allowed"));
    if announced > max as u64 {
        return Err(too_large().into());
    }
    let kib = u32::try_from(announced.div_ceil(1024)).unwrap_or(u32::MAX);
    let _room = ROOM
        .try_acquire_many(kib)
        .map_err(|_| Problem::new(ErrorCode::Busy, "too many large requests at the same time"))?;
    let arrived = tokio::time::timeout(ARRIVAL_WAIT_MAX, Limited::new(body, max).collect()).await;
    let bytes = match arrived {
        Ok(Ok(collected)) => collected.to_bytes(),
        Ok(Err(error)) if error.is::<LengthLimitError>() => return Err(too_large().into()),
        Ok(Err(_)) => return Err(Problem::new(ErrorCode::MalformedRequest, "the body ended early").into()),
        Err(_) => {
            return Err(Problem::new(ErrorCode::RequestTimeout, "the body did not arrive in time").into());
        }
    };
    serde_json::from_slice(&bytes).map_err(|error| malformed(&error.to_string()))
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
