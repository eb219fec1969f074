//! The stats port over HTTP/1.1: `/metrics`, `/pins`, `/healthz`, `/readyz` here, the API and the dashboard beside it.
//! Never changes anything but what the cache holds, and that only by `export::invalidate`.

use std::io;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::middleware::from_fn_with_state;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use tokio::net::TcpListener;

use super::api::{self, Site};
use super::dashboard;
use super::guard::{Guard, admit};
use super::invalidate::{invalidate, only_post};
use super::openmetrics::Format;
use super::port::{Peer, TlsPort};
use super::prometheus::Exporter;
use crate::base::clock;
use crate::meter::NotReady;

/// Serves the stats port on a bound listener, to whom the guard lets in, until `shutdown` resolves and the requests under way are answered.
///
/// A client that does not read its answer can keep this from returning: bound it by the caller's own time limit.
///
/// # Errors
/// Those of the listener; failures of single connections end only those.
pub async fn serve(
    listener: TcpListener,
    guard: Arc<Guard>,
    exporter: Arc<Exporter>,
    site: Arc<Site>,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    let router = router(exporter)
        .merge(api::router(site))
        .merge(dashboard::router())
        .layer(from_fn_with_state(Arc::clone(&guard), admit))
        .into_make_service_with_connect_info::<Peer>();
    match guard.tls() {
        None => axum::serve(listener, router).with_graceful_shutdown(shutdown).await,
        Some(_) => axum::serve(TlsPort::new(listener, guard), router).with_graceful_shutdown(shutdown).await,
    }
}

/// The endpoints, to be served alone or beside others.
pub fn router(exporter: Arc<Exporter>) -> Router {
    Router::new()
        .route("/metrics", get(metrics))
        .route("/pins", get(pins))
        .route("/healthz", get(|| async { json(StatusCode::OK, r#"{"status":"ok"}"#.to_owned()) }))
        .route("/readyz", get(readyz))
        .route("/api/cache/invalidate", post(invalidate).fallback(only_post))
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed)
        .with_state(exporter)
}

async fn metrics(State(exporter): State<Arc<Exporter>>, headers: HeaderMap) -> Response {
    let format = Format::accepted(&headers);
    let head = [(header::CONTENT_TYPE, format.content_type()), (header::VARY, "Accept")];
    match exporter.encode(format) {
        Ok(text) => (head, text).into_response(),
        Err(error) => failure(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
    }
}

async fn pins(State(exporter): State<Arc<Exporter>>) -> Response {
    json(StatusCode::OK, super::pins::list(exporter.registry(), clock::now_us()))
}

async fn readyz(State(exporter): State<Arc<Exporter>>) -> Response {
    let reasons = exporter.registry().not_ready();
    if reasons.is_empty() {
        return json(StatusCode::OK, r#"{"status":"ready"}"#.to_owned());
    }
    let reasons: Vec<String> = reasons.iter().map(reason).collect();
    let body = format!(r#"{{"status":"not ready","reasons":[{}]}}"#, reasons.join(","));
    json(StatusCode::SERVICE_UNAVAILABLE, body)
}

fn reason(reason: &NotReady) -> String {
    match reason {
        NotReady::NotListening => r#"{"reason":"not listening"}"#.to_owned(),
        NotReady::Draining => r#"{"reason":"draining"}"#.to_owned(),
        NotReady::PrimaryUnreachable(database) => {
            format!(r#"{{"reason":"primary unreachable","database":{}}}"#, quoted(database))
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
