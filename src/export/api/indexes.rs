//! Indexes: those that plans seem to lack, those that nobody needs, and tables that lack some.
//! Must never call an index needless that holds something together, nor advise one that the planner was asked about and would not use.

use std::collections::BTreeMap;

use serde::Serialize;
use utoipa::ToSchema;

use super::advice::ROWS_MAX;
use super::plans::joined;
use super::seconds;
use crate::meter::ShapeSum;
use crate::relay::insight::{DatabaseIndexes, IndexUse, ShapePlans};

/// An index that a shape would be faster with.
#[derive(Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct SuggestedIndex {
    /// What makes it.
    pub(super) statement: String,
    pub(super) database: String,
    /// Of the shape that would gain the most.
    pub(super) user: String,
    pub(super) shape: String,
    pub(super) query: String,
    /// How many shapes would gain.
    pub(super) shapes: u64,
    /// Their statements that ran with the plan that lacks it.
    pub(super) calls_total: u64,
    /// What servers needed for these.
    pub(super) seconds_total: f64,
    /// The planner's estimate for that shape without it.
    pub(super) cost: f64,
    /// And with it, as HypoPG has it; null where that is not installed.
    pub(super) cost_with_index: Option<f64>,
    pub(super) hint: &'static str,
}

/// An index that nothing was looked up in.
#[derive(Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct UnusedIndex {
    pub(super) index: String,
    pub(super) table: String,
    pub(super) database: String,
    pub(super) host: String,
    pub(super) bytes: u64,
    /// For how long: since the statistics were reset, or the server was started.
    pub(super) seconds: u64,
    pub(super) hint: &'static str,
}

/// A table of some size that is read whole more often than by an index.
#[derive(Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ScannedTable {
    pub(super) table: String,
    pub(super) database: String,
    pub(super) host: String,
    pub(super) scans_total: u64,
    pub(super) rows_total: u64,
    pub(super) hint: &'static str,
}

/// By the plan that each shape had last.
pub(super) fn lacked(plans: Vec<ShapePlans>) -> Vec<SuggestedIndex> {
    let mut all: BTreeMap<(String, String), SuggestedIndex> = BTreeMap::new();
    let mut shapes = joined(plans);
    shapes.sort_by_key(|of| std::cmp::Reverse(of.plans.last().map(|last| last.server_us)));
    for of in shapes {
        let Some((last, lacks)) = of.plans.last().and_then(|last| Some((last, last.lacks.clone()?))) else { continue };
        let it = all.entry((of.database.clone(), lacks.statement.clone())).or_insert_with(|| SuggestedIndex {
            statement: lacks.statement,
            database: of.database,
            user: of.user,
            shape: ShapeSum::name(Some(of.shape)),
            query: of.text.to_string(),
            shapes: 0,
            calls_total: 0,
            seconds_total: 0.0,
            cost: last.plan.cost,
            cost_with_index: lacks.cost,
            hint: match lacks.cost {
                Some(_) => {
                    "The planner would use it. Make it with CREATE INDEX CONCURRENTLY, and see whether it was right."
                }
                None => "Install the extension HypoPG on the server, and pgweir has the planner try such indexes.",
            },
        });
        it.shapes += 1;
        it.calls_total += last.calls;
        it.seconds_total += seconds(last.server_us);
    }
    let mut all: Vec<_> = all.into_values().collect();
    all.sort_by(|a, b| b.seconds_total.total_cmp(&a.seconds_total));
    all.truncate(ROWS_MAX);
    all
}

/// What the newest answer of each server says of each of its databases, by this.
fn newest<T>(indexes: &[DatabaseIndexes], of: impl Fn(&DatabaseIndexes, &IndexUse) -> Option<T>) -> Vec<T> {
    let mut known: BTreeMap<(&str, &str), &DatabaseIndexes> = BTreeMap::new();
    for it in indexes {
        let newest = known.entry((&it.database, &it.host)).or_insert(it);
        if newest.asked_us < it.asked_us {
            *newest = it;
        }
    }
    known.into_values().flat_map(|it| it.uses.iter().filter_map(|use_| of(it, use_)).collect::<Vec<_>>()).collect()
}

pub(super) fn unused(indexes: &[DatabaseIndexes]) -> Vec<UnusedIndex> {
    let mut all = newest(indexes, |of, use_| match use_ {
        IndexUse::Unused { index, table, bytes, seconds } => Some(UnusedIndex {
            index: index.clone(),
            table: table.clone(),
            database: of.database.clone(),
            host: of.host.to_string(),
            bytes: *bytes,
            seconds: *seconds,
            hint: "Every write pays for it. See whether replicas, or what runs once a month, use it; then DROP INDEX CONCURRENTLY.",
        }),
        IndexUse::Scanned { .. } => None,
    });
    all.sort_by_key(|it| std::cmp::Reverse(it.bytes));
    all.truncate(ROWS_MAX);
    all
}

pub(super) fn scanned(indexes: &[DatabaseIndexes]) -> Vec<ScannedTable> {
    let mut all = newest(indexes, |of, use_| match use_ {
        IndexUse::Scanned { table, scans, rows } => Some(ScannedTable {
            table: table.clone(),
            database: of.database.clone(),
            host: of.host.to_string(),
            scans_total: *scans,
            rows_total: *rows,
            hint: "See which statements do that (lacked_indexes, or SHOW PLANS), and what they look for.",
        }),
        IndexUse::Unused { .. } => None,
    });
    all.sort_by_key(|it| std::cmp::Reverse(it.rows_total));
    all.truncate(ROWS_MAX);
    all
}
