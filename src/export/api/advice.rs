//! `/api/database/optimizations`: what would make the databases do better, as far as a proxy can see.
//! Must never advise what it cannot give a number for.

use std::collections::HashMap;

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

use super::indexes::{ScannedTable, SuggestedIndex, UnusedIndex, lacked, scanned, unused};
use super::lines::Advice;
use super::params::NoParams;
use super::pools::{self, PoolNumbers};
use super::queries::ShapeNumbers;
use super::seen::{DeadlockPair, RepeatedStatement, ServerHolder, deadlocks, holders, repeated};
use super::{Facts, seconds};
use crate::base::clock;
use crate::config::{Config, Routing};
use crate::meter::{Phase, Registry, ShapeSum};
use crate::relay::ShapeVerdict;
use crate::relay::insight::Insight;
use crate::sql::footing::Footing;
use crate::sql::verdict::{Effects, Reason, Route, StatementKind, Verdict};

/// Most entries of each list, the heaviest first.
pub(super) const ROWS_MAX: usize = 100;
/// Fewest calls of a shape that is called slow: less may be chance.
const CALLS_MIN: u64 = 5;

/// A client that keeps a server to itself.
#[derive(Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct PinnedSession {
    /// The process id that the client was told.
    pub(super) pid: u32,
    pub(super) database: String,
    pub(super) user: String,
    pub(super) application_name: Option<String>,
    /// What keeps it, such as `temp table`.
    pub(super) reason: &'static str,
    pub(super) age_seconds: f64,
    /// By which it began, without values.
    pub(super) statement: String,
    /// What the application can do.
    pub(super) hint: &'static str,
}

/// A shape that reads, as far as can be seen, in a database that has replicas, and runs on the primary.
#[derive(Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct PrimaryOnly {
    pub(super) shape: String,
    pub(super) database: String,
    pub(super) user: String,
    pub(super) calls_total: u64,
    pub(super) seconds_total: f64,
    /// What the text says: `replica`, `catalog`, `primary`, `begin_read_only`, `transaction`.
    pub(super) route: &'static str,
    /// A code for why.
    pub(super) reason: &'static str,
    /// The same in words.
    pub(super) reason_text: &'static str,
    pub(super) query: String,
}

/// A shape that is slow.
#[derive(Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct SlowShape {
    pub(super) numbers: ShapeNumbers,
    /// What takes the time: `wait` for a server, or the `server`.
    pub(super) cause: &'static str,
    pub(super) hint: &'static str,
}

/// A pool for whose servers clients wait.
#[derive(Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct WaitingPool {
    pub(super) database: String,
    pub(super) user: String,
    pub(super) host: String,
    pub(super) pool: String,
    pub(super) size: Option<u32>,
    pub(super) waiting: u64,
    pub(super) oldest_wait_seconds: f64,
    /// Since the start, of each time that a client got a server.
    pub(super) mean_wait_seconds: f64,
    pub(super) query_wait_timeouts_total: u64,
    pub(super) hint: &'static str,
}

/// What could be better.
#[derive(Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Optimizations {
    /// The oldest first.
    pub(super) pinned_sessions: Vec<PinnedSession>,
    /// Those that take most of the primary's time first.
    pub(super) primary_only: Vec<PrimaryOnly>,
    /// What a slow shape's 99th percentile is at least.
    slow_seconds: f64,
    /// The slowest first.
    pub(super) slow_shapes: Vec<SlowShape>,
    /// Those with the longest wait first.
    pub(super) waiting_pools: Vec<WaitingPool>,
    /// Idle in a transaction for a second, in one for five, or silent between transactions for a minute and with a server: those
    /// idle first, then the longest.
    pub(super) server_holders: Vec<ServerHolder>,
    /// Those that waste the most time first. Empty with `n_plus_one` 0 in [stats].
    pub(super) repeated_statements: Vec<RepeatedStatement>,
    /// The latest first.
    pub(super) deadlocks: Vec<DeadlockPair>,
    /// Those first that would spare the most time. Empty, as the next two, with `plan_interval` 0 in [pool].
    pub(super) lacked_indexes: Vec<SuggestedIndex>,
    /// The largest first.
    pub(super) unused_indexes: Vec<UnusedIndex>,
    /// Those first of which most rows were read.
    pub(super) scanned_tables: Vec<ScannedTable>,
}

impl Optimizations {
    /// What these numbers, and what workers have seen besides, come to.
    fn of(registry: &Registry, config: &Config, insight: Insight) -> Self {
        let verdicts = ShapeVerdict::by_shape(insight.verdicts);
        let shapes = ShapeSum::all(registry);
        let slow_us = config.alerts.slow_query.as_micros() as u64;
        Self {
            pinned_sessions: pinned(registry),
            primary_only: primary_only(config, &shapes, &verdicts),
            slow_seconds: seconds(slow_us),
            slow_shapes: slow(&shapes, slow_us),
            waiting_pools: waiting(pools::list(registry, config)),
            server_holders: holders(insight.holders),
            repeated_statements: repeated(insight.repeated),
            deadlocks: deadlocks(insight.deadlocks),
            lacked_indexes: lacked(insight.plans),
            unused_indexes: unused(&insight.indexes, config.stats.unused_index_after),
            scanned_tables: scanned(&insight.indexes),
        }
    }
}

/// The same as lines, for the console.
#[must_use]
pub fn advise(registry: &Registry, config: &Config, insight: Insight) -> Vec<Advice> {
    Optimizations::of(registry, config, insight).lines()
}

fn pinned(registry: &Registry) -> Vec<PinnedSession> {
    let now_us = clock::now_us();
    let boards: Vec<_> = registry.pin_boards().iter().map(|board| board.rows()).collect();
    let mut rows: Vec<_> = boards.iter().flat_map(|rows| rows.iter()).collect();
    rows.sort_by_key(|row| row.since_us);
    let session = |row: &crate::meter::Pinned| PinnedSession {
        pid: row.pid,
        database: row.label.database.to_string(),
        user: row.label.user.to_string(),
        application_name: row.application_name.as_deref().map(str::to_owned),
        reason: row.why.name(),
        age_seconds: seconds(now_us.saturating_sub(row.since_us)),
        statement: row.statement.to_string(),
        hint: row.why.remedy(),
    };
    rows.into_iter().take(ROWS_MAX).map(session).collect()
}

/// Why a shape that reads stays on the primary, and might leave it if it were written otherwise. `None` for one that may leave it, and
/// for what belongs there: what writes or locks, by its text, by what it calls or as a replica has found; what is about the session; and what
/// nobody can read.
fn held(verdict: &ShapeVerdict) -> Option<(&'static str, &'static str)> {
    use Reason::{
        CatalogRelation, ForeignTable, FunctionUnknown, NodeSetting, Operator, SecurityDefiner, Sequence, UnicodeName,
        UnknownRelation, UnloggedTable, UnseenCode,
    };
    let Verdict { route, reason, effects, kind } = verdict.verdict;
    // What a function of a name that is not built in does is for the catalog to say.
    let reads = kind == StatementKind::Select && effects.without(Effects::UNKNOWN_FUNCTION).is_empty();
    let reason = match (route, verdict.footing) {
        (Route::Replica | Route::Catalog, Some(Footing::Primary(reason))) => reason,
        (Route::Primary, _) => reason,
        (Route::Replica | Route::Catalog | Route::BeginReadOnly | Route::FollowTransaction, _) => return None,
    };
    // Of built-in functions only those are not for a replica that write, lock, keep something or tell of the server itself; and code
    // that is seen to write or lock, or is volatile and cannot be seen, has a reason of its own, too.
    let might = matches!(
        reason,
        CatalogRelation
            | ForeignTable
            | FunctionUnknown
            | NodeSetting
            | Operator
            | SecurityDefiner
            | Sequence
            | UnicodeName
            | UnknownRelation
            | UnloggedTable
            | UnseenCode
    );
    (reads && might && !verdict.refused).then(|| (reason.code(), reason.text()))
}

fn primary_only(config: &Config, shapes: &[ShapeSum], verdicts: &HashMap<u64, ShapeVerdict>) -> Vec<PrimaryOnly> {
    let routed = |name: &str| config.databases.get(name).is_some_and(|database| database.routing == Routing::On);
    let one = |shape: &ShapeSum| {
        let first = shape.first().filter(|first| routed(&first.pool.database))?;
        let verdict = verdicts.get(&first.shape?)?;
        let (reason, reason_text) = held(verdict)?;
        Some(PrimaryOnly {
            shape: ShapeSum::name(first.shape),
            database: first.pool.database.to_string(),
            user: first.pool.user.to_string(),
            calls_total: shape.sum(|stats| stats.calls.get()),
            seconds_total: seconds(shape.merged(Phase::Server).sum_us),
            route: verdict.verdict.route.name(),
            reason,
            reason_text,
            query: first.text.to_string(),
        })
    };
    let mut all: Vec<_> = shapes.iter().filter_map(one).collect();
    all.sort_by(|a, b| b.seconds_total.total_cmp(&a.seconds_total));
    all.truncate(ROWS_MAX);
    all
}

fn slow(shapes: &[ShapeSum], slow_us: u64) -> Vec<SlowShape> {
    let mut all: Vec<(u64, &ShapeSum)> = shapes
        .iter()
        .filter(|shape| shape.first().is_some_and(|first| first.shape.is_some()))
        .filter(|shape| shape.sum(|stats| stats.calls.get()) >= CALLS_MIN)
        .map(|shape| (shape.merged(Phase::Total).quantile(0.99), shape))
        .filter(|(p99_us, _)| *p99_us >= slow_us)
        .collect();
    all.sort_by_key(|(p99_us, _)| std::cmp::Reverse(*p99_us));
    let one = |shape: &ShapeSum| {
        let waits = shape.merged(Phase::Wait).sum_us > shape.merged(Phase::Server).sum_us;
        let (cause, hint) = match waits {
            true => (
                "wait",
                "Most of its time it waits for a server: see waiting_pools, and what keeps servers (pinned_sessions).",
            ),
            false => (
                "server",
                "The server takes the time: look at its plan with EXPLAIN (ANALYZE, BUFFERS), and at its indexes.",
            ),
        };
        Some(SlowShape { numbers: ShapeNumbers::of(shape)?, cause, hint })
    };
    all.into_iter().take(ROWS_MAX).filter_map(|(_, shape)| one(shape)).collect()
}

fn waiting(pools: Vec<PoolNumbers>) -> Vec<WaitingPool> {
    let mut all: Vec<WaitingPool> = pools
        .into_iter()
        .filter(|pool| pool.clients.waiting > 0 || pool.query_wait_timeouts_total > 0)
        .map(|pool| WaitingPool {
            waiting: pool.clients.waiting,
            oldest_wait_seconds: pool.oldest_wait_seconds,
            mean_wait_seconds: match pool.assignments_total {
                0 => 0.0,
                times => pool.wait_seconds_total / times as f64,
            },
            query_wait_timeouts_total: pool.query_wait_timeouts_total,
            hint: match pool.use_share {
                Some(share) if share >= 1.0 => "All of its servers are in use: raise pool_size if the server can take more, or shorten the transactions that hold them.",
                _ => "Not all of its servers are in use: it waits for connections to open, or max_db_connections, max_user_connections or the server allow no more.",
            },
            database: pool.database,
            user: pool.user,
            host: pool.host,
            pool: pool.pool,
            size: pool.size,
        })
        .collect();
    all.sort_by(|a, b| b.oldest_wait_seconds.total_cmp(&a.oldest_wait_seconds));
    all.truncate(ROWS_MAX);
    all
}

/// What would make the databases do better: at most 100 entries of each kind.
#[utoipa::path(get, path = "/api/database/optimizations", responses((status = 200, description = "Advice", body = Optimizations)))]
pub(super) async fn optimizations(State(site): Facts, _: NoParams) -> Json<Optimizations> {
    let insight = (site.insight)().await;
    Json(Optimizations::of(&site.registry, &site.config.load(), insight))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::classify::classify;
    use crate::sql::shape::scan;

    #[test]
    fn what_is_held_reads() {
        let held = |sql: &str, footing, refused| {
            let verdict = classify(sql.as_bytes(), &scan(sql.as_bytes(), true));
            let verdict = ShapeVerdict { shape: 1, verdict, footing, refused, unfit: None };
            held(&verdict).map(|(code, _)| code)
        };
        for sql in [
            "INSERT INTO t VALUES (1)",
            "WITH w AS (DELETE FROM t RETURNING *) SELECT * FROM w",
            "CREATE TABLE t (n int)",
            "SELECT * FROM t FOR UPDATE",
            "SELECT * INTO u FROM t",
            "SELECT nextval('s')",
            "SELECT set_config('a.b', '1', false)",
            "SELECT pg_advisory_xact_lock(1)",
            "SELECT pg_backend_pid()",
            "SET a.b = 1",
            "SELECT * FROM pg_temp.t",
            "SELEC 1",
            "SELECT 1; SELECT 2",
            "EXECUTE p",
            "CALL p()",
            "SELECT n FROM t",
        ] {
            assert_eq!(held(sql, None, false), None, "{sql}");
        }
        assert_eq!(held("SELECT * FROM pg_stat_activity", None, false), Some("catalog_relation"));
        let on_primary = |reason| Some(Footing::Primary(reason));
        assert_eq!(held("SELECT n FROM t", on_primary(Reason::UnloggedTable), false), Some("unlogged_table"));
        assert_eq!(held("SELECT f()", on_primary(Reason::UnseenCode), false), Some("unseen_code"));
        // Its code writes, or a replica has said so.
        assert_eq!(held("SELECT f()", on_primary(Reason::VolatileFunction), false), None);
        assert_eq!(held("SELECT f()", on_primary(Reason::UnseenCode), true), None);
        assert_eq!(held("SELECT f()", Some(Footing::Optimistic), true), None);
    }
}
