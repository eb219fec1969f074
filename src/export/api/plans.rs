//! `/api/database/plans`: how servers would run the statements of each shape, and changes of that which mattered.
//! Must never show a value of a statement's.

use std::collections::HashMap;

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};

use super::params::{Params, Refused, bad, known, rows, shape_named};
use super::{Facts, Problem, seconds};
use crate::base::clock;
use crate::meter::ShapeSum;
use crate::relay::insight::{KnownPlan, PlanChange, ShapePlans};

/// Which shapes.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct WantedPlans {
    /// How many shapes, and how many changes, 1 to 100; default 50.
    #[param(minimum = 1, maximum = 100)]
    limit: Option<usize>,
    /// Only of this database.
    database: Option<String>,
    /// Only of this shape, 16 hexadecimal digits.
    shape: Option<String>,
}

/// A plan of a shape.
#[derive(Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct SeenPlan {
    /// Equal where plans do the same, 16 hexadecimal digits.
    fingerprint: String,
    /// Its nodes in a line.
    outline: String,
    /// As EXPLAIN (FORMAT JSON) shows it, expressions without their values; null if that is longer than 8 KiB.
    #[schema(value_type = Object)]
    tree: Value,
    /// The planner's estimate.
    cost: f64,
    /// The server that said so last.
    host: String,
    /// An index that the plan seems to lack, as a statement; null if none is known.
    lacks_index: Option<String>,
    /// The planner's estimate with that, as HypoPG has it; null where that is not installed.
    cost_with_index: Option<f64>,
    first_seconds_ago: f64,
    last_seconds_ago: f64,
    /// How often it was what a server said.
    seen_total: u64,
    /// Statements that ran between two looks at which it was the plan.
    calls_total: u64,
    /// What servers needed for one of these; null of fewer than five.
    mean_seconds: Option<f64>,
}

/// The plans of a shape.
#[derive(Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct PlansOfShape {
    shape: String,
    database: String,
    user: String,
    query: String,
    /// The one that was seen last first.
    plans: Vec<SeenPlan>,
}

/// Statements of a shape take clearly longer, or less long, than with another plan.
#[derive(Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ChangedPlan {
    seconds_ago: f64,
    shape: String,
    database: String,
    user: String,
    query: String,
    before: String,
    before_mean_seconds: f64,
    after: String,
    after_mean_seconds: f64,
}

/// Plans, and their changes.
#[derive(Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Plans {
    /// Those first whose statements have needed the most time with the plan seen last.
    shapes: Vec<PlansOfShape>,
    /// The latest first.
    changes: Vec<ChangedPlan>,
}

fn seen(it: KnownPlan, now_us: u64) -> SeenPlan {
    SeenPlan {
        fingerprint: ShapeSum::name(Some(it.plan.fingerprint)),
        mean_seconds: it.mean_us().map(seconds),
        outline: it.plan.outline.to_string(),
        tree: serde_json::from_str(&it.plan.tree).unwrap_or_default(),
        cost: it.plan.cost,
        host: it.host.to_string(),
        cost_with_index: it.lacks.as_ref().and_then(|lacks| lacks.cost),
        lacks_index: it.lacks.map(|lacks| lacks.statement),
        first_seconds_ago: seconds(now_us.saturating_sub(it.first_us)),
        last_seconds_ago: seconds(now_us.saturating_sub(it.last_us)),
        seen_total: it.seen,
        calls_total: it.calls,
    }
}

/// What several workers have seen of a shape as one, the plan seen last the last.
pub fn joined(all: Vec<ShapePlans>) -> Vec<ShapePlans> {
    let mut known: HashMap<(String, String, u64), ShapePlans> = HashMap::new();
    for of in all {
        let key = (of.database.clone(), of.user.clone(), of.shape);
        let Some(mine) = known.get_mut(&key) else {
            known.insert(key, of);
            continue;
        };
        mine.since = (mine.since.0 + of.since.0, mine.since.1.saturating_add(of.since.1));
        for theirs in of.plans {
            match mine.plans.iter_mut().find(|it| it.plan.fingerprint == theirs.plan.fingerprint) {
                Some(it) => {
                    (it.calls, it.server_us) = (it.calls + theirs.calls, it.server_us + theirs.server_us);
                    (it.seen, it.first_us) = (it.seen + theirs.seen, it.first_us.min(theirs.first_us));
                    it.last_us = it.last_us.max(theirs.last_us);
                }
                None => mine.plans.push(theirs),
            }
        }
        mine.plans.sort_by_key(|it| it.last_us);
    }
    known.into_values().collect()
}

fn changed(it: PlanChange, now_us: u64) -> ChangedPlan {
    let ((before, before_us), (after, after_us)) = (it.before, it.after);
    ChangedPlan {
        seconds_ago: seconds(now_us.saturating_sub(it.at_us)),
        shape: ShapeSum::name(Some(it.shape)),
        database: it.database,
        user: it.user,
        query: it.text.to_string(),
        before: before.to_string(),
        before_mean_seconds: seconds(before_us),
        after: after.to_string(),
        after_mean_seconds: seconds(after_us),
    }
}

/// How servers would run the statements of each shape, and changes of that with which they became clearly slower, or faster. Empty with
/// `plan_interval` 0 in [pool].
#[utoipa::path(
    get,
    path = "/api/database/plans",
    operation_id = "plans",
    params(WantedPlans),
    responses(
        (status = 200, description = "Plans and changes", body = Plans),
        (status = 400, description = "A parameter that cannot be", body = Problem),
        (status = 404, description = "No such database", body = Problem)
    )
)]
pub(super) async fn plans(State(site): Facts, Params(wanted): Params<WantedPlans>) -> Result<Json<Plans>, Refused> {
    let limit = rows(wanted.limit)?;
    known(wanted.database.as_ref(), &site.registry)?;
    let unclear = || bad("shape: 16 hexadecimal digits are expected");
    let shape = wanted.shape.as_deref().map(|text| shape_named(text).ok_or_else(unclear)).transpose()?;
    let is_wanted = |database: &str, of: u64| {
        wanted.database.as_ref().is_none_or(|name| name == database) && shape.is_none_or(|shape| shape == of)
    };
    let insight = (site.insight)().await;
    let now_us = clock::now_us();
    let mut shapes = joined(insight.plans);
    shapes.retain(|it| is_wanted(&it.database, it.shape));
    shapes.sort_by_key(|it| std::cmp::Reverse(it.plans.last().map(|last| last.server_us)));
    shapes.truncate(limit);
    let mut changes = insight.plan_changes;
    changes.retain(|it| is_wanted(&it.database, it.shape));
    changes.sort_by_key(|it| std::cmp::Reverse(it.at_us));
    changes.truncate(limit);
    let of = |it: ShapePlans| PlansOfShape {
        shape: ShapeSum::name(Some(it.shape)),
        database: it.database,
        user: it.user,
        query: it.text.to_string(),
        plans: it.plans.into_iter().rev().map(|plan| seen(plan, now_us)).collect(),
    };
    let shapes = shapes.into_iter().map(of).collect();
    let changes = changes.into_iter().map(|it| changed(it, now_us)).collect();
    Ok(Json(Plans { shapes, changes }))
}
