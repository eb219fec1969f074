//! `/api/database/alerts` and `/api/history`: what is alarming, and the last hour.
//! Must never look itself: it shows what was found.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

use super::params::NoParams;
use super::{Facts, seconds, share};
use crate::health::{self, AlertState, HEAT_BOUNDS_US, Health, Point, STEP};

/// An alert.
#[derive(Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct AlertNow {
    /// Such as `pool_use`.
    alert: &'static str,
    /// `warning` or `critical`.
    severity: &'static str,
    /// `pending`: beyond its mark, not for long enough yet; `firing`; `resolved`: over since less than 15 minutes.
    state: &'static str,
    /// Since when it is so.
    since_unix_seconds: f64,
    /// Where: database, user, host and so on.
    labels: BTreeMap<&'static str, String>,
    value: f64,
    /// Beyond which it fires.
    threshold: f64,
    /// What these two are: `share` of 1, `seconds`, or `flag`: 1, it is so.
    unit: &'static str,
    /// One line for people.
    summary: String,
    /// What to do.
    action: &'static str,
}

/// All alerts.
#[derive(Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Alerts {
    firing: usize,
    /// Those that fire first, then pending, then resolved ones.
    alerts: Vec<AlertNow>,
}

/// Points taken off the score.
#[derive(Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct DeductionNow {
    /// The alert that they are taken for.
    alert: &'static str,
    points: u32,
    /// How many of the kind fire.
    count: usize,
    /// What is the matter with the first of them.
    what: String,
    /// What to do.
    action: &'static str,
}

/// How well it goes: 100, less the points of what fires; several alerts of a kind take twice what one takes.
#[derive(Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct HealthNow {
    /// 0 to 100.
    score: u32,
    /// The most first.
    deductions: Vec<DeductionNow>,
}

impl From<Health> for HealthNow {
    fn from(health: Health) -> Self {
        let one = |it: health::Deduction| DeductionNow {
            alert: it.kind.name(),
            points: it.points,
            count: it.count,
            what: it.what,
            action: it.kind.action(),
        };
        Self { score: health.score, deductions: health.deductions.into_iter().map(one).collect() }
    }
}

/// What is alarming.
#[utoipa::path(get, path = "/api/database/alerts", responses((status = 200, description = "All alerts", body = Alerts)))]
pub(super) async fn alerts(State(site): Facts, _: NoParams) -> Json<Alerts> {
    let all = site.watch.alerts();
    let one = |it: &health::Alert| AlertNow {
        alert: it.kind.name(),
        severity: it.kind.severity().as_str(),
        state: it.state.as_str(),
        since_unix_seconds: it.since_unix_s,
        labels: it.labels.iter().cloned().collect(),
        value: it.value,
        threshold: it.threshold,
        unit: it.kind.unit().as_str(),
        summary: it.summary(),
        action: it.kind.action(),
    };
    let firing = all.iter().filter(|it| it.state == AlertState::Firing).count();
    Json(Alerts { firing, alerts: all.iter().map(one).collect() })
}

/// What all databases together did in one step.
#[derive(Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Step {
    /// Its end.
    at_unix_seconds: f64,
    /// Statements per second.
    queries_per_second: f64,
    /// Of these, failed.
    errors_per_second: f64,
    /// Null where there was no statement.
    p50_seconds: Option<f64>,
    p95_seconds: Option<f64>,
    p99_seconds: Option<f64>,
    /// Null where the cache was not asked.
    cache_hit_ratio: Option<f64>,
    /// Clients that had a server at its end.
    active: u64,
    /// Clients that waited for one at its end.
    waiting: u64,
    /// How many statements took up to each of `heat_bounds_seconds`, and how many longer.
    heat: Vec<u32>,
}

/// The last hour.
#[derive(Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct History {
    /// Between two steps.
    step_seconds: f64,
    /// Upper ends of the rows of `heat`; the last row of these has none.
    heat_bounds_seconds: Vec<f64>,
    /// The oldest first, at most 360.
    steps: Vec<Step>,
}

fn step(point: &Point) -> Step {
    let rate = |count: u64| if point.length_s > 0.0 { count as f64 / point.length_s } else { 0.0 };
    let [p50_seconds, p95_seconds, p99_seconds] = point.quantiles_us.map(|us| (point.calls > 0).then(|| seconds(us)));
    Step {
        at_unix_seconds: point.at_unix_s,
        queries_per_second: rate(point.calls),
        errors_per_second: rate(point.errors),
        p50_seconds,
        p95_seconds,
        p99_seconds,
        cache_hit_ratio: share(point.hits, point.hits + point.misses),
        active: point.active,
        waiting: point.waiting,
        heat: point.heat.to_vec(),
    }
}

/// The last hour, in steps of ten seconds.
#[utoipa::path(get, path = "/api/history", responses((status = 200, description = "The last hour", body = History)))]
pub(super) async fn history(State(site): Facts, _: NoParams) -> Json<History> {
    Json(History {
        step_seconds: STEP.as_secs_f64(),
        heat_bounds_seconds: HEAT_BOUNDS_US.map(seconds).to_vec(),
        steps: site.watch.points().iter().map(|point| step(point)).collect(),
    })
}
