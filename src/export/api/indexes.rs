//! Indexes: those that plans seem to lack, those that nobody needs, and tables that lack some.
//! Must never call an index needless that holds something together, nor advise one that the planner was asked about and would not use.

use std::collections::{BTreeMap, BTreeSet};

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

/// An index that nothing was looked up in, on none of the servers that were asked.
#[derive(Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct UnusedIndex {
    pub(super) index: String,
    pub(super) table: String,
    pub(super) database: String,
    /// The servers that were asked.
    pub(super) hosts: Vec<String>,
    /// Those that were not yet: one is when the plan of a statement that it has run is asked for.
    pub(super) hosts_not_asked: Vec<String>,
    pub(super) bytes: u64,
    /// For how long: since the statistics were reset, or the server was started, whichever was the last.
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

/// The newest answer of each server on each of its databases.
fn newest(indexes: &[DatabaseIndexes]) -> Vec<&DatabaseIndexes> {
    let mut known: BTreeMap<(&str, &str), &DatabaseIndexes> = BTreeMap::new();
    for it in indexes {
        let newest = known.entry((&it.database, &it.host)).or_insert(it);
        if newest.asked_us < it.asked_us {
            *newest = it;
        }
    }
    known.into_values().collect()
}

pub(super) fn unused(indexes: &[DatabaseIndexes]) -> Vec<UnusedIndex> {
    let known = newest(indexes);
    let mut all: BTreeMap<(&str, &str), UnusedIndex> = BTreeMap::new();
    for (of, use_) in known.iter().flat_map(|of| of.uses.iter().map(move |use_| (of, use_))) {
        let IndexUse::Unused { index, table, bytes, seconds } = use_ else { continue };
        let it = all.entry((&of.database, index)).or_insert_with(|| UnusedIndex {
            index: index.clone(),
            table: table.clone(),
            database: of.database.clone(),
            hosts: Vec::new(),
            hosts_not_asked: Vec::new(),
            bytes: *bytes,
            seconds: *seconds,
            hint: "Every write pays for it. See whether other servers, or what runs once a month, use it; then DROP INDEX CONCURRENTLY.",
        });
        it.hosts.push(of.host.to_string());
        it.seconds = it.seconds.min(*seconds);
    }
    let mut all: Vec<_> = all.into_values().collect();
    // What one server has no use for another may need.
    all.retain_mut(|it| {
        let asked: Vec<_> = known.iter().filter(|of| of.database == it.database).collect();
        let every: BTreeSet<&str> = asked.iter().flat_map(|of| of.all.iter().map(|host| &**host)).collect();
        it.hosts_not_asked =
            every.into_iter().filter(|host| asked.iter().all(|of| *of.host != **host)).map(str::to_owned).collect();
        asked.iter().all(|of| it.hosts.iter().any(|host| **host == *of.host) || of.may_leave_out(it.bytes))
    });
    all.sort_by_key(|it| std::cmp::Reverse(it.bytes));
    all.truncate(ROWS_MAX);
    all
}

pub(super) fn scanned(indexes: &[DatabaseIndexes]) -> Vec<ScannedTable> {
    let mut all = Vec::new();
    for (of, use_) in newest(indexes).into_iter().flat_map(|of| of.uses.iter().map(move |use_| (of, use_))) {
        let IndexUse::Scanned { table, scans, rows } = use_ else { continue };
        all.push(ScannedTable {
            table: table.clone(),
            database: of.database.clone(),
            host: of.host.to_string(),
            scans_total: *scans,
            rows_total: *rows,
            hint: "See which statements do that (lacked_indexes, or SHOW PLANS), and what they look for.",
        });
    }
    all.sort_by_key(|it| std::cmp::Reverse(it.rows_total));
    all.truncate(ROWS_MAX);
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn says(host: &str, asked_us: u64, unused: &[(&str, u64)]) -> DatabaseIndexes {
        let one = |&(index, seconds): &(&str, u64)| {
            let (index, table) = (index.to_owned(), "public.t".to_owned());
            IndexUse::Unused { index, table, bytes: 8192, seconds }
        };
        DatabaseIndexes {
            database: "app".into(),
            host: host.into(),
            all: vec!["a".into(), "b".into(), "c".into()],
            asked_us,
            uses: unused.iter().map(one).collect(),
        }
    }

    #[test]
    fn an_index_that_one_server_uses_is_needed() {
        let shown = |indexes: &[DatabaseIndexes]| {
            let all = unused(indexes).into_iter();
            all.map(|it| (it.index, it.hosts.join(" "), it.hosts_not_asked.join(" "), it.seconds)).collect::<Vec<_>>()
        };
        let one =
            |index: &str, hosts: &str, others: &str, seconds| (index.into(), hosts.into(), others.into(), seconds);
        let a = says("a", 1, &[("i", 60), ("j", 60)]);
        assert_eq!(shown(std::slice::from_ref(&a)), [one("i", "a", "b c", 60), one("j", "a", "b c", 60)]);
        assert_eq!(shown(&[a.clone(), says("b", 1, &[("i", 50)])]), [one("i", "a b", "c", 50)]);
        // The newest answer counts, of whichever worker.
        assert_eq!(
            shown(&[a.clone(), says("b", 2, &[("j", 70)]), says("b", 1, &[("i", 50)])]),
            [one("j", "a b", "c", 60)]
        );
        assert_eq!(shown(&[a, says("b", 1, &[])]), []);
    }
}
