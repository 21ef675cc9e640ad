//! The endpoints for clients.

use super::Failure;
use super::request::{
    Anybody, By, Device, JSON, KEY_PACKAGES_BYTES_MAX, NDJSON, OCTETS, PathParts, SMALL_BYTES_MAX, Sender,
    id, json, malformed, method_not_allowed, query, unknown_endpoint,
};
use crate::app::{App, Kept};
use crate::room::{ENROL_BYTES_MAX, Held};
use axum::body::Body;
use axum::extract::State;
use axum::middleware;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use bytes::Bytes;
use http::{StatusCode, Uri, header};
use serde::{Deserialize, Serialize};
use std::convert::Infallible;
use std::sync::Arc;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::ReceiverStream;
use zixt_api::{
    AccountName, CertifiedHeader, ClaimRequest, Consistency, EnrolRequest, EntryPage, EntryProof,
    KeyPackageCounts, KeyPackageUpload, Network, Receipt, StreamLine, SubmitRequest, SubmitResponse,
    SystemView, ThreadView, endpoints,
};
use zixt_types::{Height, Seq, ShardId, limits};

type Answer<T> = Result<Json<T>, Failure>;

/// The router of the clients' listener. Each request carries its connection's [`super::Peer`] as an extension.
pub fn router(app: Arc<App>) -> Router {
    Router::new()
        .route(endpoints::HEALTHZ, get(healthz))
        .route(endpoints::NETWORK, get(network))
        .route(endpoints::HEADER, get(header_at))
        .route(endpoints::CONSISTENCY, get(consistency))
        .route(endpoints::SYSTEM, get(system))
        .route(endpoints::ENROL, post(enrol))
        .route(endpoints::ACCOUNTS, get(account_by_name))
        .route(endpoints::ACCOUNT, get(account))
        .route(endpoints::KEY_PACKAGES, get(key_package_counts).post(upload_key_packages))
        .route(endpoints::KEY_PACKAGES_CLAIM, post(claim_key_packages))
        .route(endpoints::SUBMISSIONS, post(submit))
        .route(endpoints::THREAD, get(thread))
        .route(endpoints::ENTRIES, get(entries))
        .route(endpoints::ATTACHMENT, get(attachment))
        .route(endpoints::PROOF, get(proof))
        .route(endpoints::STREAM, get(stream))
        .merge(super::people::router())
        .fallback(unknown_endpoint)
        .method_not_allowed_fallback(method_not_allowed)
        .layer(middleware::from_fn_with_state(Arc::clone(&app), super::to_the_end))
        .with_state(app)
}

pub(super) async fn healthz(State(app): State<Arc<App>>) -> Response {
    health_answer(&app.health())
}

pub(super) fn health_answer(health: &zixt_api::Health) -> Response {
    let status = if health.ok { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let body = serde_json::to_vec(health).unwrap_or_default();
    (status, [(header::CONTENT_TYPE, JSON)], body).into_response()
}

pub(super) async fn network(State(app): State<Arc<App>>) -> Json<Network> {
    Json(app.network())
}

async fn header_at(
    State(app): State<Arc<App>>,
    PathParts(height): PathParts<u64>,
) -> Answer<CertifiedHeader> {
    Ok(Json(app.header(Height(height)).await?))
}

#[derive(Deserialize)]
struct ConsistencyQuery {
    from_height: u64,
    #[serde(default)]
    shards: String,
}

async fn consistency(State(app): State<Arc<App>>, uri: Uri) -> Answer<Consistency> {
    let ConsistencyQuery { from_height, shards } = query(&uri)?;
    let mut pairs = Vec::new();
    for pair in shards.split(',').filter(|pair| !pair.is_empty()) {
        let parsed = pair
            .split_once(':')
            .and_then(|(shard, size)| Some((ShardId(shard.parse().ok()?), size.parse::<u64>().ok()?)));
        pairs.push(parsed.ok_or_else(|| malformed("shards are pairs `shard:size`, separated by commas"))?);
    }
    Ok(Json(app.consistency(Height(from_height), &pairs).await?))
}

#[derive(Deserialize)]
struct SystemQuery {
    #[serde(default)]
    from: u64,
}

async fn system(State(app): State<Arc<App>>, uri: Uri) -> Answer<SystemView> {
    let SystemQuery { from } = query(&uri)?;
    Ok(Json(app.system(Seq(from)).await?))
}

async fn enrol(
    State(app): State<Arc<App>>,
    Anybody(sender): Anybody,
    By(by): By,
    body: Body,
) -> Answer<Receipt> {
    let (request, _room) = json::<EnrolRequest>(&app, body, ENROL_BYTES_MAX, sender).await?;
    Ok(Json(app.enrol(by, request).await?))
}

#[derive(Deserialize)]
struct NameQuery {
    name: String,
}

async fn account_by_name(State(app): State<Arc<App>>, _: Device, uri: Uri) -> Answer<AccountName> {
    let NameQuery { name } = query(&uri)?;
    Ok(Json(app.account_by_name(&name).await?))
}

async fn account(
    State(app): State<Arc<App>>,
    device: Device,
    PathParts(account): PathParts<String>,
) -> Result<Response, Failure> {
    Ok(large(app.account(device.tls, id(&account)?).await?))
}

async fn key_package_counts(State(app): State<Arc<App>>, device: Device) -> Answer<KeyPackageCounts> {
    Ok(Json(app.key_package_counts(device.member).await?))
}

async fn upload_key_packages(
    State(app): State<Arc<App>>,
    device: Device,
    body: Body,
) -> Answer<KeyPackageCounts> {
    let (upload, _room) =
        json::<KeyPackageUpload>(&app, body, KEY_PACKAGES_BYTES_MAX, Sender::Device(device.tls)).await?;
    Ok(Json(app.upload_key_packages(device.member, upload).await?))
}

async fn claim_key_packages(
    State(app): State<Arc<App>>,
    device: Device,
    body: Body,
) -> Result<Response, Failure> {
    let (request, _room) =
        json::<ClaimRequest>(&app, body, SMALL_BYTES_MAX, Sender::Device(device.tls)).await?;
    Ok(large(app.claim_key_packages(device.member, device.tls, request).await?))
}

async fn submit(
    State(app): State<Arc<App>>,
    device: Device,
    By(by): By,
    body: Body,
) -> Answer<SubmitResponse> {
    let (request, _room) =
        json::<SubmitRequest>(&app, body, limits::REQUEST_BYTES_MAX, Sender::Device(device.tls)).await?;
    Ok(Json(app.submit(device.member, by, request).await?))
}

async fn thread(
    State(app): State<Arc<App>>,
    device: Device,
    PathParts(thread): PathParts<String>,
) -> Answer<ThreadView> {
    Ok(Json(app.thread(device.member, id(&thread)?)?))
}

#[derive(Deserialize)]
struct PageQuery {
    #[serde(default)]
    from: u64,
    limit: Option<usize>,
}

async fn entries(
    State(app): State<Arc<App>>,
    device: Device,
    PathParts(thread): PathParts<String>,
    uri: Uri,
) -> Answer<EntryPage> {
    let PageQuery { from, limit } = query(&uri)?;
    let limit = limit.unwrap_or(limits::ENTRIES_PAGE_MAX);
    Ok(Json(app.entries(device.member, id(&thread)?, Seq(from), limit).await?))
}

async fn attachment(
    State(app): State<Arc<App>>,
    device: Device,
    PathParts((thread, seq, index)): PathParts<(String, u64, usize)>,
) -> Result<Response, Failure> {
    let kept = app.attachment(device.member, device.tls, id(&thread)?, Seq(seq), index).await?;
    Ok(([(header::CONTENT_TYPE, OCTETS)], body_with_room(kept.value, kept.room)).into_response())
}

async fn proof(
    State(app): State<Arc<App>>,
    device: Device,
    PathParts((thread, seq)): PathParts<(String, u64)>,
) -> Answer<EntryProof> {
    Ok(Json(app.entry_proof(device.member, id(&thread)?, Seq(seq)).await?))
}

#[derive(Deserialize)]
struct StreamQuery {
    after: Option<u64>,
}

async fn stream(State(app): State<Arc<App>>, device: Device, uri: Uri) -> Result<Response, Failure> {
    let StreamQuery { after } = query(&uri)?;
    let events = app.stream(device.member, device.tls, device.session, after).await?;
    let lines = ReceiverStream::new(events).map(|line| Ok::<_, Infallible>(render(line)));
    Ok(([(header::CONTENT_TYPE, NDJSON)], Body::from_stream(lines)).into_response())
}

fn render(line: Kept<StreamLine>) -> Bytes {
    let mut text = serde_json::to_vec(&line.value).unwrap_or_default();
    text.push(b'\n');
    with_room(text, line.room)
}

/// An answer that may be large.
fn large<T: Serialize>(Kept { value, room }: Kept<T>) -> Response {
    let bytes = serde_json::to_vec(&value).unwrap_or_default();
    ([(header::CONTENT_TYPE, JSON)], body_with_room(bytes, room)).into_response()
}

fn body_with_room(bytes: Vec<u8>, room: Option<Held>) -> Body {
    Body::from(with_room(bytes, room))
}

/// Bytes that give back their room when they are sent.
fn with_room(bytes: Vec<u8>, room: Option<Held>) -> Bytes {
    struct Owner(Vec<u8>, #[expect(dead_code, reason = "held until it is dropped")] Held);
    impl AsRef<[u8]> for Owner {
        fn as_ref(&self) -> &[u8] {
            &self.0
        }
    }
    match room {
        Some(room) => Bytes::from_owner(Owner(bytes, room)),
        None => bytes.into(),
    }
}
