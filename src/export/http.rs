//! The stats port over HTTP/1.1: `/metrics`, `/pins`, `/healthz`, `/readyz` here, the API and the dashboard beside it.
//! Never changes anything but what the cache holds, and that only by `export::invalidate`.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::middleware::from_fn_with_state;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Serialize;
use tokio::net::TcpListener;
use utoipa::ToSchema;

use super::api::{self, Site};
use super::dashboard;
use super::guard::{Guard, admit};
use super::invalidate::{invalidate, only_post};
use super::openmetrics::Format;
use super::pins::{Pins, list};
use super::port::{self, Limits};
use super::prometheus::Exporter;
use crate::base::clock;
use crate::meter::NotReady;

/// Serves the stats port on a bound listener, to whom the guard lets in, until `shutdown` resolves and the requests under way are answered.
///
/// A client that does not read its answer can keep this from returning: bound it by the caller's own time limit.
///
/// Failures of single connections end only those.
pub async fn serve(
    listener: TcpListener,
    guard: Arc<Guard>,
    exporter: Arc<Exporter>,
    site: Arc<Site>,
    shutdown: impl Future<Output = ()>,
) {
    let router = router(exporter)
        .merge(api::router(site))
        .merge(dashboard::router())
        .method_not_allowed_fallback(method_not_allowed)
        .layer(from_fn_with_state(Arc::clone(&guard), admit));
    port::serve(listener, guard, router, Limits::default(), shutdown).await;
}

/// The endpoints, to be served alone or beside others.
pub fn router(exporter: Arc<Exporter>) -> Router {
    Router::new()
        .route("/metrics", get(metrics))
        .route("/pins", get(pins))
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/api/cache/invalidate", post(invalidate).fallback(only_post))
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed)
        .with_state(exporter)
}

/// All metrics.
#[utoipa::path(
    get,
    path = "/metrics",
    operation_id = "prometheus",
    responses(
        (status = 200, description = "In the format that Accept prefers", content(
            (String = "text/plain; version=0.0.4"),
            (String = "application/openmetrics-text; version=1.0.0"),
            (Vec<u8> = "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited"),
        )),
        (status = 500, description = "They cannot be written", body = api::Problem),
    )
)]
pub(super) async fn metrics(State(exporter): State<Arc<Exporter>>, headers: HeaderMap) -> Response {
    let format = Format::accepted(&headers);
    let head = [(header::CONTENT_TYPE, format.content_type()), (header::VARY, "Accept")];
    match exporter.encode(format) {
        Ok(text) => (head, text).into_response(),
        Err(error) => failure(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
    }
}

/// Clients that keep a server to themselves, and why.
#[utoipa::path(get, path = "/pins", responses((status = 200, description = "All of them, the oldest first", body = Pins)))]
pub(super) async fn pins(State(exporter): State<Arc<Exporter>>) -> Response {
    list(exporter.registry(), clock::now_us())
}

/// How a probe is answered.
#[derive(Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Probed {
    /// `ok`; of /readyz `ready` or `not ready`.
    status: &'static str,
    /// Why not; empty if nothing is in the way.
    reasons: Vec<Reason>,
}

/// Why no new clients should be sent here.
#[derive(Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Reason {
    /// `not listening`, `draining` or `primary unreachable`.
    reason: &'static str,
    /// Of which database, if it is about one.
    database: Option<String>,
}

/// Whether the process is alive. Never asks for a token.
#[utoipa::path(get, path = "/healthz", responses((status = 200, description = "It is", body = Probed)))]
pub(super) async fn healthz() -> Response {
    Json(Probed { status: "ok", reasons: Vec::new() }).into_response()
}

/// Whether new clients should be sent here. Never asks for a token.
#[utoipa::path(
    get,
    path = "/readyz",
    responses(
        (status = 200, description = "They should", body = Probed),
        (status = 503, description = "They should not", body = Probed),
    )
)]
pub(super) async fn readyz(State(exporter): State<Arc<Exporter>>) -> Response {
    let reasons: Vec<Reason> = exporter.registry().not_ready().into_iter().map(reason).collect();
    let (code, status) =
        if reasons.is_empty() { (StatusCode::OK, "ready") } else { (StatusCode::SERVICE_UNAVAILABLE, "not ready") };
    (code, Json(Probed { status, reasons })).into_response()
}

fn reason(reason: NotReady) -> Reason {
    match reason {
        NotReady::NotListening => Reason { reason: "not listening", database: None },
        NotReady::Draining => Reason { reason: "draining", database: None },
        NotReady::PrimaryUnreachable(database) => {
            Reason { reason: "primary unreachable", database: Some(database.to_string()) }
        }
    }
}

async fn not_found(uri: Uri) -> Response {
    failure(StatusCode::NOT_FOUND, &format!("no such path: {}", uri.path()))
}

async fn method_not_allowed() -> Response {
    // axum adds the Allow header itself.
    failure(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD are allowed here")
}

pub(super) fn failure(status: StatusCode, message: &str) -> Response {
    json(status, format!(r#"{{"error":{}}}"#, quoted(message)))
}

pub(super) fn json(status: StatusCode, mut body: String) -> Response {
    body.push('\n');
    (status, [(header::CONTENT_TYPE, "application/json")], body).into_response()
}

/// A JSON string (RFC 8259, section 7).
pub(super) fn quoted(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            c if c < ' ' => quoted.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
#[path = "http_tests.rs"]
mod tests;
