//! Indexes: those that plans seem to lack, those that nobody needs, and tables that lack some.
//! Must never call an index needless that holds something together, nor advise one that the planner was asked about and would not use.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

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
    /// Their statements that ran with the plan that lacks it, as far as is known: those since it was last looked at as well.
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
    /// For how long at least: since the statistics were reset, or since this process first heard of it, whichever was later.
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

/// Statements with the plan that was seen last, and what servers needed for them, microseconds.
fn with_last(of: &ShapePlans) -> (u64, u64) {
    let (calls, server_us) = of.plans.last().map_or((0, 0), |last| (last.calls, last.server_us));
    (calls + of.since.0, server_us.saturating_add(of.since.1))
}

/// By the plan that each shape had last.
pub(super) fn lacked(plans: Vec<ShapePlans>) -> Vec<SuggestedIndex> {
    let mut all: BTreeMap<(String, String), SuggestedIndex> = BTreeMap::new();
    let mut shapes = joined(plans);
    shapes.sort_by_key(|of| std::cmp::Reverse(with_last(of).1));
    for of in shapes {
        let (calls, server_us) = with_last(&of);
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
        it.calls_total += calls;
        it.seconds_total += seconds(server_us);
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

/// When each index was first heard of, on whichever server by whichever worker: on all servers of a database it is the same one.
fn heard(indexes: &[DatabaseIndexes]) -> BTreeMap<(&str, u32), u64> {
    let mut heard: BTreeMap<(&str, u32), u64> = BTreeMap::new();
    for (of, use_) in indexes.iter().flat_map(|of| of.uses.iter().map(move |use_| (of, use_))) {
        let IndexUse::Unused { oid, known_us, .. } = use_ else { continue };
        let first_us = heard.entry((&of.database, *oid)).or_insert(*known_us);
        *first_us = (*first_us).min(*known_us);
    }
    heard
}

/// Those that nobody has needed for as long as `after`.
pub(super) fn unused(indexes: &[DatabaseIndexes], after: Duration) -> Vec<UnusedIndex> {
    let (known, heard) = (newest(indexes), heard(indexes));
    let mut all: BTreeMap<(&str, &str), UnusedIndex> = BTreeMap::new();
    for (of, use_) in known.iter().flat_map(|of| of.uses.iter().map(move |use_| (of, use_))) {
        let IndexUse::Unused { index, table, oid, bytes, seconds, known_us } = use_ else { continue };
        let heard_us = heard.get(&(&*of.database, *oid)).unwrap_or(known_us);
        let seconds = (*seconds).min(of.asked_us.saturating_sub(*heard_us) / 1_000_000);
        let it = all.entry((&of.database, index)).or_insert_with(|| UnusedIndex {
            index: index.clone(),
            table: table.clone(),
            database: of.database.clone(),
            hosts: Vec::new(),
            hosts_not_asked: Vec::new(),
            bytes: *bytes,
            seconds,
            hint: "Every write pays for it. See whether other servers, or what runs once a month, use it; then DROP INDEX CONCURRENTLY.",
        });
        it.hosts.push(of.host.to_string());
        it.seconds = it.seconds.min(seconds);
    }
    let mut all: Vec<_> = all.into_values().collect();
    all.retain(|it| it.seconds >= after.as_secs());
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
    use crate::relay::insight::{KnownPlan, LackedIndex};
    use crate::sql::plan::Plan;

    const HOUR_US: u64 = 3_600_000_000;

    /// What a server says that was asked then, hours; of each index how old its statistics are, seconds.
    fn says(host: &str, asked: u64, unused: &[(&str, u64)]) -> DatabaseIndexes {
        let one = |&(index, seconds): &(&str, u64)| {
            let (index, table, oid) = (index.to_owned(), "public.t".to_owned(), u32::from(index.as_bytes()[0]));
            IndexUse::Unused { index, table, oid, bytes: 8192, seconds, known_us: 0 }
        };
        DatabaseIndexes {
            database: "app".into(),
            host: host.into(),
            all: vec!["a".into(), "b".into(), "c".into()],
            asked_us: asked * HOUR_US,
            uses: unused.iter().map(one).collect(),
        }
    }

    #[test]
    fn an_index_that_one_server_uses_is_needed() {
        let shown = |indexes: &[DatabaseIndexes]| {
            let all = unused(indexes, Duration::ZERO).into_iter();
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
    #[test]
    fn a_new_index_is_not_called_unused() {
        let heard_at = |hours: u64, asked: u64, seconds: u64| {
            let mut it = says("a", asked, &[("i", seconds)]);
            let Some(IndexUse::Unused { known_us, .. }) = it.uses.first_mut() else { panic!("no index") };
            *known_us = hours * HOUR_US;
            it
        };
        let found = |indexes: &[DatabaseIndexes]| {
            unused(indexes, Duration::from_secs(86_400)).first().map(|it| it.seconds / 3600)
        };
        let old = 86_400 * 365;
        // However old the statistics are: it may have been made just before it was heard of.
        assert_eq!((found(&[heard_at(5, 5, old)]), found(&[heard_at(5, 28, old)])), (None, None));
        assert_eq!(found(&[heard_at(5, 30, old)]), Some(25));
        // However long it is known: of what was before nobody knows any more.
        assert_eq!((found(&[heard_at(0, 80, 3600 * 23)]), found(&[heard_at(0, 80, 3600 * 24)])), (None, Some(24)));
        // Another worker has known it for longer.
        assert_eq!(found(&[heard_at(0, 6, old), heard_at(29, 30, old)]), Some(30));
    }

    #[test]
    fn what_ran_since_the_last_look_counts_for_what_an_index_is_worth() {
        let shape = |shape: u64, table: &str, (calls, server_us): (u64, u64), since| {
            let lacks = Some(LackedIndex { statement: format!("CREATE INDEX ON {table} (a)"), cost: None });
            let plan = Plan { fingerprint: shape, outline: "Seq Scan".into(), tree: "null".into(), cost: 1.0 };
            let (host, first_us, last_us, seen) = ("a".into(), 1, 1, 1);
            let plans = vec![KnownPlan { plan, host, lacks, first_us, last_us, seen, calls, server_us }];
            ShapePlans { database: "app".into(), user: "u".into(), shape, text: "".into(), plans, since }
        };
        let all = lacked(vec![
            shape(1, "looked_at", (100, 2_000_000), (0, 0)),
            shape(2, "new", (1, 500_000), (30, 15_000_000)),
            // The same of another worker.
            shape(2, "new", (0, 0), (1, 500_000)),
        ]);
        let found: Vec<_> = all.iter().map(|it| (it.statement.as_str(), it.calls_total, it.seconds_total)).collect();
        let index = ["CREATE INDEX ON new (a)", "CREATE INDEX ON looked_at (a)"];
        assert_eq!(found, [(index[0], 32, 16.0), (index[1], 100, 2.0)]);
    }
}
