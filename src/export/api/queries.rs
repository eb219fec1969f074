//! `/api/queries` and `/api/queries/{shape}`: statements by shape, with how long they take.
//! Must never show a value of a statement's, only its normalised text.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::params::{NoParams, Params, Refused, bad, missing, shape_named};
use super::{Facts, Problem, seconds};
use crate::meter::{Counter, ERROR_CLASSES, HistogramSnapshot, Phase, Registry, ShapeSum, Target};
use crate::relay::ShapeVerdict;

/// Most shapes in one answer; there are `max_shapes` per worker.
const LIMIT_MAX: u32 = 10_000;

/// What shapes are ordered by, the most first.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, PartialEq, Eq, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum By {
    /// All of their time together.
    #[default]
    Total,
    /// The time that one in a hundred exceeds.
    P99,
    /// How many there were.
    Calls,
    /// How many failed.
    Errors,
}

/// Which shapes, and in which order.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Wanted {
    /// What they are ordered by; default `total`.
    #[serde(default)]
    #[param(inline)]
    by: By,
    /// How many, 1 to 10000; default 50.
    #[param(minimum = 1, maximum = 10000)]
    limit: Option<u32>,
    /// Only of this database.
    database: Option<String>,
}

/// Time in seconds that half of all, 95 %, 99 %, or all take at most: off by at most 6 %, but for the longest.
#[derive(Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Latency {
    sum_seconds: f64,
    p50_seconds: f64,
    p95_seconds: f64,
    pub(super) p99_seconds: f64,
    max_seconds: f64,
}

impl Latency {
    pub(super) fn of(all: &HistogramSnapshot) -> Self {
        let [p50_seconds, p95_seconds, p99_seconds] = [0.5, 0.95, 0.99].map(|q| seconds(all.quantile(q)));
        Self {
            sum_seconds: seconds(all.sum_us),
            p50_seconds,
            p95_seconds,
            p99_seconds,
            max_seconds: seconds(all.max_us),
        }
    }
}

/// The statements of one shape, of one database and user.
#[derive(Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ShapeNumbers {
    /// 16 hexadecimal digits; `other` for all that are too rare to be counted by themselves.
    pub(super) shape: String,
    pub(super) database: String,
    pub(super) user: String,
    pub(super) calls_total: u64,
    pub(super) errors_total: u64,
    /// The same by class of SQLSTATE; those that fit none of the known as `other`.
    errors_by_class: BTreeMap<&'static str, u64>,
    /// Returned or affected.
    pub(super) rows_total: u64,
    /// Of the answers.
    bytes_total: u64,
    /// Wait for a server, and the server's time.
    pub(super) time: Latency,
    /// Of that, the wait for a server.
    pub(super) wait: Latency,
    /// Of that, from sending the statement to the first byte of its answer.
    first_byte: Latency,
    /// Of that, from sending the statement to the end of its answer.
    pub(super) server: Latency,
    /// How long clients kept answers from being written.
    write: Latency,
    /// Most seconds it may have had before it was counted by itself.
    pub(super) missed_seconds_max: f64,
    /// The statement without its values; empty for `other`.
    pub(super) query: String,
}

fn by_class(shape: &ShapeSum) -> BTreeMap<&'static str, u64> {
    let classes = ERROR_CLASSES.iter().enumerate();
    let counts =
        classes.map(|(at, &class)| (class, shape.sum(|stats| stats.errors_of.get(at).map_or(0, Counter::get))));
    counts.filter(|(_, count)| *count > 0).collect()
}

impl ShapeNumbers {
    pub(super) fn of(shape: &ShapeSum) -> Option<Self> {
        let first = shape.first()?;
        Some(Self {
            shape: ShapeSum::name(first.shape),
            database: first.pool.database.to_string(),
            user: first.pool.user.to_string(),
            calls_total: shape.sum(|stats| stats.calls.get()),
            errors_total: shape.sum(|stats| stats.errors.get()),
            errors_by_class: by_class(shape),
            rows_total: shape.sum(|stats| stats.rows.get()),
            bytes_total: shape.sum(|stats| stats.bytes.get()),
            time: Latency::of(&shape.merged(Phase::Total)),
            wait: Latency::of(&shape.merged(Phase::Wait)),
            first_byte: Latency::of(&shape.merged(Phase::FirstByte)),
            server: Latency::of(&shape.merged(Phase::Server)),
            write: Latency::of(&shape.merged(Phase::Write)),
            missed_seconds_max: seconds(shape.sum(|stats| stats.missed_us_max)),
            query: first.text.to_string(),
        })
    }
}

/// Shapes, the most first.
#[derive(Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Shapes {
    by: By,
    limit: u32,
    database: Option<String>,
    /// How many there are, shown or not.
    shapes: u64,
    queries: Vec<ShapeNumbers>,
}

/// The shapes that are wanted; `with_other`: also all the rest together.
pub(super) fn find(registry: &Registry, wanted: Wanted, with_other: bool) -> Result<Shapes, Refused> {
    let limit = wanted.limit.unwrap_or(50);
    if limit == 0 || limit > LIMIT_MAX {
        return Err(bad(&format!("limit: a number from 1 to {LIMIT_MAX} is expected")));
    }
    if let Some(name) = &wanted.database
        && registry.database(name).is_none()
    {
        return Err(missing(format!("no such database: {name}")));
    }
    let weight = |shape: &ShapeSum| match wanted.by {
        By::Total => shape.sum(|stats| stats.total_us.get()),
        By::P99 => shape.merged(Phase::Total).quantile(0.99),
        By::Calls => shape.sum(|stats| stats.calls.get()),
        By::Errors => shape.sum(|stats| stats.errors.get()),
    };
    let fits = |shape: &ShapeSum| {
        shape.first().is_some_and(|first| {
            let is_it = wanted.database.as_deref().is_none_or(|name| name == &*first.pool.database);
            is_it && (with_other || first.shape.is_some())
        })
    };
    let mut all: Vec<_> =
        ShapeSum::all(registry).into_iter().filter(fits).map(|shape| (weight(&shape), shape)).collect();
    all.sort_by_key(|(weight, _)| std::cmp::Reverse(*weight));
    let shapes = all.len() as u64;
    let queries = all.iter().take(limit as usize).filter_map(|(_, shape)| ShapeNumbers::of(shape)).collect();
    Ok(Shapes { by: wanted.by, limit, database: wanted.database, shapes, queries })
}

/// Statements by shape, database and user, `other` included.
#[utoipa::path(
    get,
    path = "/api/queries",
    params(Wanted),
    responses(
        (status = 200, description = "Shapes, the most first", body = Shapes),
        (status = 400, description = "A parameter that cannot be", body = Problem),
        (status = 404, description = "No such database", body = Problem)
    )
)]
pub(super) async fn queries(State(site): Facts, Params(wanted): Params<Wanted>) -> Result<Json<Shapes>, Refused> {
    find(&site.registry, wanted, true).map(Json)
}

/// How many took how long.
#[derive(Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Bucket {
    /// At least.
    from_seconds: f64,
    /// At most; null for the last, which has no end.
    to_seconds: Option<f64>,
    count: u64,
}

fn buckets(all: &HistogramSnapshot) -> Vec<Bucket> {
    let bucket = |(low, high, count): (u64, u64, u64)| Bucket {
        from_seconds: seconds(low),
        to_seconds: (high < u64::MAX).then(|| seconds(high)),
        count,
    };
    all.occupied().map(bucket).collect()
}

/// A shape where one database's user has it, with how its time is spread; empty buckets are left out.
#[derive(Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Spread {
    numbers: ShapeNumbers,
    time_buckets: Vec<Bucket>,
    wait_buckets: Vec<Bucket>,
    first_byte_buckets: Vec<Bucket>,
    server_buckets: Vec<Bucket>,
    write_buckets: Vec<Bucket>,
    /// By who has answered.
    targets: Vec<OfTarget>,
}

/// What one that answers has answered.
#[derive(Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct OfTarget {
    /// `primary`, a replica's name, `l1` for the process's own cache, `l2` for the shared one.
    target: String,
    calls_total: u64,
    errors_total: u64,
    rows_total: u64,
    bytes_total: u64,
    time: Latency,
    first_byte: Latency,
    server: Latency,
    time_buckets: Vec<Bucket>,
}

impl OfTarget {
    fn of((target, all): (Target, ShapeSum)) -> Self {
        let time = all.merged(Phase::Total);
        Self {
            target: target.name().to_owned(),
            calls_total: all.sum(|stats| stats.calls.get()),
            errors_total: all.sum(|stats| stats.errors.get()),
            rows_total: all.sum(|stats| stats.rows.get()),
            bytes_total: all.sum(|stats| stats.bytes.get()),
            time: Latency::of(&time),
            first_byte: Latency::of(&all.merged(Phase::FirstByte)),
            server: Latency::of(&all.merged(Phase::Server)),
            time_buckets: buckets(&time),
        }
    }
}

/// Where statements of a shape may run.
#[derive(Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Verdict {
    /// What the text says: `replica`, `catalog` (a replica, if the catalog says so), `primary`, `begin_read_only`, `transaction`.
    route: &'static str,
    /// A code for why.
    reason: &'static str,
    /// The same in words.
    reason_text: &'static str,
    /// A replica has refused one: they stay on the primary.
    refused: bool,
}

/// A shape.
#[derive(Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Shape {
    shape: String,
    /// The statement without its values.
    query: String,
    /// Null for `other`, and for one that no worker remembers.
    verdict: Option<Verdict>,
    pools: Vec<Spread>,
}

/// One shape, wherever it was run, with the distribution of its time.
#[utoipa::path(
    get,
    path = "/api/queries/{shape}",
    params(("shape" = String, Path, description = "16 hexadecimal digits, or `other`", example = "0123456789abcdef")),
    responses(
        (status = 200, description = "The shape", body = Shape),
        (status = 400, description = "No shape could be called so", body = Problem),
        (status = 404, description = "No statement of this shape is known", body = Problem)
    )
)]
pub(super) async fn shape(
    State(site): Facts,
    _: NoParams,
    name: Result<Path<String>, PathRejection>,
) -> Result<Json<Shape>, Refused> {
    let name = name.map_or_else(|_| String::new(), |Path(name)| name);
    let wanted = match name.as_str() {
        "other" => None,
        hex => match shape_named(hex) {
            Some(shape) => Some(shape),
            None => return Err(bad("shape: 16 hexadecimal digits or `other` are expected")),
        },
    };
    let all = ShapeSum::all(&site.registry);
    let of_it: Vec<_> = all.iter().filter(|shape| shape.first().is_some_and(|first| first.shape == wanted)).collect();
    let Some(first) = of_it.first().and_then(|shape| shape.first()) else {
        return Err(missing(format!("no statement of shape {name} is known; /api/queries lists them")));
    };
    let verdict = match wanted {
        Some(wanted) => ShapeVerdict::by_shape((site.insight)().await.verdicts).remove(&wanted),
        None => None,
    };
    let verdict = verdict.map(|it| Verdict {
        route: it.verdict.route.name(),
        reason: it.verdict.reason.code(),
        reason_text: it.verdict.reason.text(),
        refused: it.refused,
    });
    let spread = |shape: &&ShapeSum| {
        Some(Spread {
            numbers: ShapeNumbers::of(shape)?,
            time_buckets: buckets(&shape.merged(Phase::Total)),
            wait_buckets: buckets(&shape.merged(Phase::Wait)),
            first_byte_buckets: buckets(&shape.merged(Phase::FirstByte)),
            server_buckets: buckets(&shape.merged(Phase::Server)),
            write_buckets: buckets(&shape.merged(Phase::Write)),
            targets: shape.by_target().into_iter().map(OfTarget::of).collect(),
        })
    };
    let query = first.text.to_string();
    Ok(Json(Shape { shape: name, query, verdict, pools: of_it.iter().filter_map(spread).collect() }))
}
