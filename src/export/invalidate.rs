//! `POST /api/cache/invalidate`: which answers in the cache do not count any more.
//! Must never say that they do not before that is so on every worker.
//!
//! The body is a JSON object as applications notify it ([`Signal::of_json`]). Who may say so `export::guard` decides.

use std::sync::Arc;
use std::time::Duration;

use axum::body::to_bytes;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use http_body_util::LengthLimitError;
use serde::Deserialize;
use tokio::time::timeout;
use utoipa::ToSchema;

use super::api::Problem;
use super::http::{failure, json};
use super::prometheus::Exporter;
use crate::cache::Signal;
use crate::cache::signal::Unclear;

/// Longest body, bytes.
const BODY_BYTES: usize = 16 << 10;
/// How long it may take to come.
const BODY_TIME: Duration = Duration::from_secs(30);

/// Which answers: exactly one of table, tag, shape, pattern and all.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[allow(
    dead_code,
    reason = "what it says is read by Signal::of_json, as what applications notify, where other fields mean nothing"
)]
pub(super) struct Invalidation {
    /// Of this database only.
    database: Option<String>,
    /// Answers that may have read a table of this name, with its schema or without.
    table: Option<String>,
    /// The table's schema.
    schema: Option<String>,
    /// Answers to statements with this tag.
    tag: Option<String>,
    /// Answers to statements of this shape.
    shape: Option<String>,
    /// Answers whose whole statement, with its values behind it in parentheses, or one of whose tags this is for: `*` stands for anything, `\*` for a `*`.
    pattern: Option<String>,
    /// All answers.
    all: Option<bool>,
    /// What applications notify along with a table; changes nothing, for a table's answers go as a whole.
    tenant_id: Option<serde_json::Value>,
    /// Like `tenant_id`.
    record_id: Option<serde_json::Value>,
    /// Like `tenant_id`.
    action: Option<String>,
}

/// For any other method.
pub(super) async fn only_post() -> Response {
    let mut response = failure(StatusCode::METHOD_NOT_ALLOWED, "only POST is allowed here");
    response.headers_mut().insert(header::ALLOW, header::HeaderValue::from_static("POST"));
    response
}

/// Says that answers do not count any more.
#[utoipa::path(post, path = "/api/cache/invalidate", request_body = Invalidation,
    responses((status = 200, description = "They do not, on any worker", body = Object), (status = "4XX", description = "Nothing was changed", body = Problem)))]
pub(super) async fn invalidate(State(exporter): State<Arc<Exporter>>, request: Request) -> Response {
    match said(request).await {
        Ok(signal) => take(&exporter, &signal),
        Err(response) => response,
    }
}

async fn said(request: Request) -> Result<Signal, Response> {
    if !is_json(request.headers()) {
        let message = "a body of type application/json is expected";
        return Err(failure(StatusCode::UNSUPPORTED_MEDIA_TYPE, message));
    }
    let Ok(body) = timeout(BODY_TIME, to_bytes(request.into_body(), BODY_BYTES)).await else {
        return Err(failure(StatusCode::REQUEST_TIMEOUT, "the body has not come"));
    };
    let body = body.map_err(|error| {
        let is_long = std::error::Error::source(&error).is_some_and(|source| source.is::<LengthLimitError>());
        if is_long {
            failure(StatusCode::PAYLOAD_TOO_LARGE, &format!("the body is longer than {BODY_BYTES} bytes"))
        } else {
            failure(StatusCode::BAD_REQUEST, "the body cannot be read")
        }
    })?;
    // A filter that is misspelt, or said twice, would leave more, or others, than were meant.
    if let Err(error) = serde_json::from_slice::<Invalidation>(&body)
        && error.is_data()
    {
        return Err(failure(StatusCode::UNPROCESSABLE_ENTITY, &error.to_string()));
    }
    Signal::of_json(&body).map_err(|unclear| {
        let status = match unclear {
            Unclear::Syntax(_) => StatusCode::BAD_REQUEST,
            Unclear::Meaning(_) | Unclear::Pattern(_) => StatusCode::UNPROCESSABLE_ENTITY,
        };
        failure(status, &unclear.to_string())
    })
}

fn take(exporter: &Exporter, signal: &Signal) -> Response {
    let databases = exporter.registry().databases();
    let names = || databases.iter().map(|health| &*health.database);
    if let Some(wanted) = &signal.database
        && !names().any(|name| *name == **wanted)
    {
        return failure(StatusCode::NOT_FOUND, &format!("no such database: {wanted}"));
    }
    exporter.caches().signals().give(signal, names());
    exporter.registry().signals.http.add(1);
    tracing::info!("invalidated over HTTP: {signal:?}");
    json(StatusCode::OK, r#"{"status":"invalidated"}"#.to_owned()).into_response()
}

/// Whatever parameters stand behind the type.
fn is_json(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let essence = kind.split(';').next().unwrap_or_default();
    essence.trim().eq_ignore_ascii_case("application/json")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use axum::body::Body;

    use super::*;
    use crate::cache::signal;
    use crate::meter::Registry;

    async fn answer(exporter: &Arc<Exporter>, kind: &str, body: &str) -> (u16, String) {
        let request = Request::post("/").header(header::CONTENT_TYPE, kind);
        let request = request.body(Body::from(body.to_owned())).unwrap();
        let response = invalidate(State(Arc::clone(exporter)), request).await;
        let status = response.status().as_u16();
        let body = to_bytes(response.into_body(), 1 << 20).await.unwrap();
        let text = String::from_utf8(body.to_vec()).unwrap();
        let parsed: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(parsed.get("error").is_some(), status != 200, "{text}");
        (status, text)
    }

    #[tokio::test]
    async fn bad_requests_are_told_what_is_wrong_and_change_nothing() {
        let registry = Arc::new(Registry::new());
        registry.set_databases(["shop".into()]);
        let exporter = Arc::new(Exporter::new(registry));
        let (kind, all) = ("application/json", r#"{"all":true}"#);
        let long = format!(r#"{{"tag":"{}"}}"#, "x".repeat(BODY_BYTES));
        for (kind, body, status) in [
            ("text/plain", all, 415),
            ("application/jsonp", all, 415),
            (kind, "{", 400),
            (kind, "{}", 422),
            (kind, r#"{"table":7}"#, 422),
            (kind, r#"{"pattern":"a\\b"}"#, 422),
            (kind, r#"{"pattern":"*","all":true}"#, 422),
            (kind, r#"{"tabel":"menu","all":true}"#, 422),
            (kind, r#"{"tag":"a","tag":"b"}"#, 422),
            (kind, r#"{"all":true,"database":"none"}"#, 404),
            (kind, &long, 413),
        ] {
            assert_eq!(answer(&exporter, kind, body).await.0, status, "{kind} {body}");
        }
        let marks = exporter.caches().signals().marks();
        assert_eq!((marks.newest_us(), exporter.registry().signals.http.get()), (0, 0));
        assert_eq!(only_post().await.status(), StatusCode::METHOD_NOT_ALLOWED);
    }

    #[tokio::test]
    async fn a_signal_counts_when_it_is_answered() {
        let registry = Arc::new(Registry::new());
        registry.set_databases(["shop".into(), "other".into()]);
        let exporter = Arc::new(Exporter::new(registry));
        let [shop, other] =
            ["shop", "other"].map(|name| signal::deps(name, 1, Some([(&b"app"[..], &b"menu"[..])].into_iter())));
        let body = r#"{"database":"shop","table":"menu"}"#;
        let before_us = crate::base::clock::now_us();
        assert_eq!(answer(&exporter, "application/json; charset=utf-8", body).await.0, 200);
        let marks = exporter.caches().signals().marks();
        assert!(!marks.stand(&shop, before_us) && marks.stand(&other, before_us));
        assert_eq!(answer(&exporter, "Application/JSON", r#"{"table":"menu"}"#).await.0, 200);
        assert!(!marks.stand(&other, before_us) && exporter.registry().signals.http.get() == 2);
    }
}
