//! HTTP: parses requests, renders answers. What an answer is, [`crate::app`] decides.

mod admin;
mod clients;
pub mod listener;
mod patience;
mod people;
mod request;
mod sso;
#[cfg(test)]
mod tests;
mod visitors;
mod web;

pub use admin::{router as admin_router, starting_router};
pub use clients::router as client_router;
pub use web::router as web_router;

use crate::app::App;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, Method, StatusCode, header};
use std::net::SocketAddr;
use std::sync::Arc;
use zixt_api::{ErrorCode, PROBLEM_CONTENT_TYPE, Problem};
use zixt_types::Hash;

/// Who is at the other end of a client's connection: the hash of the TLS key that it has proven to hold.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Peer(pub Hash);

/// From where a client connects.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Remote(pub SocketAddr);

/// That a request came to the web listener.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Web {
    /// What sessions there are bound to.
    pub listener: Hash,
    /// Where it is: `https://host:port`.
    pub origin: Arc<str>,
}

/// The user at the other end of the admin socket.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LocalUser(pub u32);

/// Lets a request that changes something come to its end, and into the journal, whatever becomes of its connection: hyper
/// drops what a peer who hangs up no longer waits for, in the middle of it.
async fn to_the_end(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    if *request.method() == Method::GET {
        return next.run(request).await;
    }
    match app.tasks.spawn(next.run(request)).await {
        Ok(response) => response,
        Err(error) => {
            log::error!("a request: {error}");
            Failure(Problem::new(ErrorCode::StoreFailed, "the request was not finished")).into_response()
        }
    }
}

/// A refusal as an answer.
#[derive(Debug)]
pub struct Failure(pub Problem);

impl From<Problem> for Failure {
    fn from(problem: Problem) -> Self {
        Self(problem)
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let Self(problem) = self;
        let body = serde_json::to_vec(&problem).unwrap_or_default();
        let mut response = Response::new(Body::from(body));
        *response.status_mut() =
            StatusCode::from_u16(problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(PROBLEM_CONTENT_TYPE));
        if let Some(seconds) = problem.retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}
