//! The HTTP API: what pgweir knows, as JSON, described by `/api/openapi.json`.
//! Must never change anything: every endpoint here only reads.
//!
//! Numbers are in base units (seconds, bytes, shares of 1) and said so by their names; counters (`_total`) begin at 0 with the
//! process, or with their pool. What is not known is null. Errors are `{"error": "..."}` with a status that fits.

mod advice;
mod alerts;
mod cache;
mod database;
mod indexes;
mod lines;
mod params;
mod plans;
mod pools;
mod queries;
mod seen;
mod services;
mod site;
mod slow;

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde::Serialize;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::{Modify, OpenApi, ToSchema};

pub use advice::advise;
pub use lines::Advice;
pub use plans::joined as joined_plans;
pub use site::{Insights, Site};

/// Why there is no answer.
#[derive(Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Problem {
    /// What is wrong, and what would be right.
    error: String,
}

/// Everything that is described.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "pgweir",
        description = "What a running pgweir knows. Numbers are in base units: seconds, bytes, shares of 1.",
        license(name = "MIT OR Apache-2.0", identifier = "MIT OR Apache-2.0")
    ),
    paths(
        openapi,
        database::metrics,
        database::slow_queries,
        slow::statements,
        plans::plans,
        alerts::alerts,
        alerts::history,
        advice::optimizations,
        queries::queries,
        queries::shape,
        pools::pools,
        services::status,
        cache::metrics,
        super::invalidate::invalidate,
        super::http::metrics,
        super::http::pins,
        super::http::healthz,
        super::http::readyz,
    ),
    components(schemas(Problem)),
    security((), ("token" = [])),
    modifiers(&Token)
)]
struct Document;

/// How a token is shown.
struct Token;

impl Modify for Token {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let scheme = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).description(Some(
            "A secret of [stats.tokens.NAME]: role read for GET and HEAD, role write for everything. None is needed where none is configured.",
        ));
        let components = document.components.get_or_insert_with(Default::default);
        components.add_security_scheme("token", SecurityScheme::Http(scheme.build()));
    }
}

/// This description.
#[utoipa::path(get, path = "/api/openapi.json", responses((status = 200, description = "The description of this API, OpenAPI 3.1", body = Object)))]
async fn openapi(_: params::NoParams) -> Response {
    match Document::openapi().to_json() {
        Ok(text) => ([(header::CONTENT_TYPE, "application/json")], text).into_response(),
        Err(error) => super::http::failure(axum::http::StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
    }
}

/// The endpoints.
pub(super) fn router(site: Arc<Site>) -> Router {
    Router::new()
        .route("/api/openapi.json", get(openapi))
        .route("/api/database/metrics", get(database::metrics))
        .route("/api/database/slow-queries", get(database::slow_queries))
        .route("/api/database/slow-statements", get(slow::statements))
        .route("/api/database/plans", get(plans::plans))
        .route("/api/database/alerts", get(alerts::alerts))
        .route("/api/history", get(alerts::history))
        .route("/api/database/optimizations", get(advice::optimizations))
        .route("/api/queries", get(queries::queries))
        .route("/api/queries/{shape}", get(queries::shape))
        .route("/api/pools", get(pools::pools))
        .route("/api/services/status", get(services::status))
        .route("/api/cache/metrics", get(cache::metrics))
        .with_state(site)
}

/// What a handler needs.
type Facts = State<Arc<Site>>;

/// A share, if there is anything to have a share of.
fn share(part: u64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| part as f64 / whole as f64)
}

fn seconds(us: u64) -> f64 {
    us as f64 / 1e6
}
