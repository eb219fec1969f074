//! `/api/database/slow-statements`: the statements that were slow last, one by one, as SHOW SLOW has them.
//! Must never show a value of a statement's that the configuration does not ask for.

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::params::{Params, Refused, known, rows};
use super::{Facts, Problem, seconds};
use crate::base::clock;
use crate::meter::ShapeSum;
use crate::relay::insight::SlowQuery;

/// Which statements.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct WantedStatements {
    /// How many, 1 to 100; default 50.
    #[param(minimum = 1, maximum = 100)]
    limit: Option<usize>,
    /// Only of this database.
    database: Option<String>,
}

/// A key and what it says in the comments of a statement.
#[derive(Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Tag {
    key: String,
    value: String,
}

/// A statement that took as long as `slow_query`.
#[derive(Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct SlowStatement {
    seconds_ago: f64,
    shape: String,
    database: String,
    user: String,
    host: String,
    /// What the server was: `primary` or `replica`.
    role: &'static str,
    total_seconds: f64,
    wait_seconds: f64,
    /// From sending it to the first byte of its answer.
    first_byte_seconds: f64,
    server_seconds: f64,
    rows: u64,
    /// It has failed so; else null.
    sqlstate: Option<String>,
    /// How far the server was behind; 0 for a primary.
    lag_seconds: f64,
    /// It shared its server with others' reads.
    lane: bool,
    /// Address and port; null over a unix socket, and of one that is gone.
    client: Option<String>,
    /// Empty if it says none.
    application_name: String,
    /// Why the cache did not answer it: `off`, `unasked`, `compared`, `renewed`, `bypass:REASON`, `miss:REASON`.
    cache: String,
    /// Those of sqlcommenter, and as `pgweir` what is asked of this program.
    tags: Vec<Tag>,
    /// Without values.
    query: String,
    /// With `slow_query_parameter_bytes` its values, or of a simple Query its text as it was sent; else null.
    parameters: Option<String>,
}

impl SlowStatement {
    fn of(it: SlowQuery, now_us: u64) -> Self {
        Self {
            seconds_ago: seconds(now_us.saturating_sub(it.done_us)),
            shape: ShapeSum::name(Some(it.shape)),
            host: it.host.to_string(),
            role: it.role.as_str(),
            total_seconds: seconds(it.sample.wait_us + it.sample.server_us),
            wait_seconds: seconds(it.sample.wait_us),
            first_byte_seconds: seconds(it.sample.first_us),
            server_seconds: seconds(it.sample.server_us),
            rows: it.sample.rows,
            sqlstate: it.code.map(|code| code.as_str().to_owned()),
            lag_seconds: seconds(it.lag_us),
            lane: it.rode,
            client: it.client.map(|client| client.to_string()),
            application_name: it.application_name.into(),
            cache: it.why.name(),
            query: it.text.to_string(),
            parameters: it.parameters.as_deref().map(str::to_owned),
            tags: it.tags.into_iter().map(|(key, value)| Tag { key, value }).collect(),
            database: it.database,
            user: it.user,
        }
    }
}

/// The statements that were slow last.
#[derive(Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct SlowStatements {
    /// The latest first.
    statements: Vec<SlowStatement>,
}

/// The statements that were slow last: of the last 100 of each worker the latest.
#[utoipa::path(
    get,
    path = "/api/database/slow-statements",
    operation_id = "slow_statements",
    params(WantedStatements),
    responses(
        (status = 200, description = "Statements, the latest first", body = SlowStatements),
        (status = 400, description = "A parameter that cannot be", body = Problem),
        (status = 404, description = "No such database", body = Problem)
    )
)]
pub(super) async fn statements(
    State(site): Facts,
    Params(wanted): Params<WantedStatements>,
) -> Result<Json<SlowStatements>, Refused> {
    let limit = rows(wanted.limit)?;
    known(wanted.database.as_ref(), &site.registry)?;
    let mut all = (site.insight)().await.slow;
    all.retain(|it| wanted.database.as_ref().is_none_or(|database| it.database == *database));
    all.sort_by_key(|it| std::cmp::Reverse(it.done_us));
    all.truncate(limit);
    let now_us = clock::now_us();
    let statements = all.into_iter().map(|it| SlowStatement::of(it, now_us)).collect();
    Ok(Json(SlowStatements { statements }))
}
