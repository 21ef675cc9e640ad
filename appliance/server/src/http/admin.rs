//! The endpoints for administrators, on the admin socket.

use super::Failure;
use super::clients::{health_answer, healthz};
use super::request::{SMALL_BYTES_MAX, Sender, json, method_not_allowed, unknown_endpoint};
use crate::app::{self, App};
use crate::custody::CustodyWatch;
use crate::health::Vitals;
use axum::body::Body;
use axum::extract::State;
use axum::routing::{get, post};
use axum::{Json, Router};
use std::sync::Arc;
use zixt_api::{AdminDecision, AdminInvitation, AdminStatus, ErrorCode, Problem, Receipt, endpoints};
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
        .fallback(unknown_endpoint)
        .method_not_allowed_fallback(method_not_allowed)
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

async fn invite(State(app): State<Arc<App>>, body: Body) -> Result<Json<Receipt>, Failure> {
    let (request, _room) = json::<AdminInvitation>(&app, body, SMALL_BYTES_MAX, Sender::Admin).await?;
    Ok(Json(app.create_account(request).await?))
}

async fn decide(State(app): State<Arc<App>>, body: Body) -> Result<Json<Receipt>, Failure> {
    let (request, _room) = json::<AdminDecision>(&app, body, DECISION_BYTES_MAX, Sender::Admin).await?;
    Ok(Json(app.decide(request).await?))
}

async fn status(State(app): State<Arc<App>>) -> Json<AdminStatus> {
    Json(app.status())
}
