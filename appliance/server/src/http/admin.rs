//! The endpoints for administrators, on the admin socket.

use super::Failure;
use super::clients::{health_answer, healthz};
use super::people::page;
use super::request::{
    By, OCTETS, SMALL_BYTES_MAX, Sender, json, malformed, method_not_allowed, query, unknown_endpoint,
};
use crate::app::{self, App};
use crate::audit::PAGE_MAX;
use crate::custody::CustodyWatch;
use crate::health::Vitals;
use axum::body::Body;
use axum::extract::State;
use axum::middleware;
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use http::{Uri, header};
use serde::Deserialize;
use std::sync::Arc;
use zixt_api::{
    AccountPage, AdminDecision, AdminInvitation, AdminStatus, AuditPage, ErrorCode, Problem, Receipt,
    endpoints,
};
use zixt_audit::lines::Form;
use zixt_types::limits;

/// A transcript and a key in base64, and room for the JSON around them.
const DECISION_BYTES_MAX: usize = limits::TRANSCRIPT_BYTES_MAX / 3 * 4 + 64 * 1024;

/// The router of the admin socket.
pub fn router(app: Arc<App>) -> Router {
    Router::new()
        .route(endpoints::HEALTHZ, get(healthz))
        .route(endpoints::ADMIN_INVITATIONS, post(invite))
        .route(endpoints::ADMIN_DECISIONS, post(decide))
        .route(endpoints::ADMIN_STATUS, get(status))
        .route(endpoints::ADMIN_PEOPLE, get(people))
        .route(endpoints::ADMIN_AUDIT, get(audit))
        .route(endpoints::ADMIN_AUDIT_EXPORT, get(audit_export))
        .fallback(unknown_endpoint)
        .method_not_allowed_fallback(method_not_allowed)
        .layer(middleware::from_fn_with_state(Arc::clone(&app), super::to_the_end))
        .with_state(app)
}

/// The router of the admin socket while the server waits for custody.
pub fn starting_router(vitals: Arc<Vitals>, custody: Arc<CustodyWatch>) -> Router {
    let health = move || {
        let mut health = app::health(&vitals, custody.state(), 0);
        health.ok = false;
        health.reason.get_or_insert_with(|| "starting".to_owned());
        std::future::ready(health_answer(&health))
    };
    let starting = || async { Failure(Problem::new(ErrorCode::Starting, "waiting for custody")) };
    Router::new().route(endpoints::HEALTHZ, get(health)).fallback(starting)
}

async fn invite(State(app): State<Arc<App>>, By(by): By, body: Body) -> Result<Json<Receipt>, Failure> {
    let (request, _room) = json::<AdminInvitation>(&app, body, SMALL_BYTES_MAX, Sender::Admin).await?;
    Ok(Json(app.create_account(by, request).await?))
}

async fn decide(State(app): State<Arc<App>>, By(by): By, body: Body) -> Result<Json<Receipt>, Failure> {
    let (request, _room) = json::<AdminDecision>(&app, body, DECISION_BYTES_MAX, Sender::Admin).await?;
    Ok(Json(app.decide(by, request).await?))
}

async fn people(State(app): State<Arc<App>>, By(by): By, uri: Uri) -> Result<Json<AccountPage>, Failure> {
    let (after, limit) = page(&uri)?;
    Ok(Json(app.people_locally(by, after, limit).await?))
}

#[derive(Deserialize)]
struct AuditQuery {
    #[serde(default)]
    from: u64,
    limit: Option<usize>,
    #[serde(default)]
    form: String,
}

async fn audit(State(app): State<Arc<App>>, By(by): By, uri: Uri) -> Result<Json<AuditPage>, Failure> {
    let AuditQuery { from, limit, form } = query(&uri)?;
    let form = match form.as_str() {
        "" | "json" => Form::Json,
        "cef" => Form::Cef,
        _ => return Err(malformed("the form of audit records is json or cef")),
    };
    Ok(Json(app.audit_page(by, from, limit.unwrap_or(PAGE_MAX), form).await?))
}

#[derive(Deserialize)]
struct ExportQuery {
    #[serde(default)]
    first: u64,
    last: Option<u64>,
}

async fn audit_export(State(app): State<Arc<App>>, By(by): By, uri: Uri) -> Result<Response, Failure> {
    let ExportQuery { first, last } = query(&uri)?;
    let file = app.audit_export(by, first, last.unwrap_or(u64::MAX)).await?;
    Ok(([(header::CONTENT_TYPE, OCTETS)], file).into_response())
}

async fn status(State(app): State<Arc<App>>) -> Json<AdminStatus> {
    Json(app.status())
}
