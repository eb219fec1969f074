//! Advice as lines, all kinds alike: what `SHOW ADVICE` has.
//! Must never say more than `/api/database/optimizations` does.

use super::advice::Optimizations;
use super::indexes::{ScannedTable, SuggestedIndex, UnusedIndex};
use super::seen::{DeadlockPair, RepeatedStatement, ServerHolder};

/// One thing that could be better.
#[derive(Clone, Debug)]
pub struct Advice {
    /// What kind of thing, such as `n_plus_one`.
    pub kind: &'static str,
    /// Name of the database.
    pub database: String,
    /// Name of the user.
    pub user: String,
    /// How often it was seen, where that is counted.
    pub count: Option<u64>,
    /// What it takes, µs: the time held, wasted, needed or waited.
    pub time_us: Option<u64>,
    /// The statement's shape, if it is about one.
    pub shape: Option<String>,
    /// What is the matter.
    pub what: String,
    /// What can be done.
    pub action: &'static str,
    /// The statement without values.
    pub query: Option<String>,
}

fn us(seconds: f64) -> u64 {
    (seconds * 1e6).round() as u64
}

/// What only a proxy sees.
fn seen(holders: Vec<ServerHolder>, deadlocks: Vec<DeadlockPair>, repeated: Vec<RepeatedStatement>) -> Vec<Advice> {
    let mut lines = Vec::new();
    lines.extend(holders.into_iter().map(|it| {
        let who = match (it.application_name.as_str(), &it.client) {
            ("", None) => String::new(),
            ("", Some(client)) => format!(" ({client})"),
            (name, None) => format!(" ({name})"),
            (name, Some(client)) => format!(" ({name}, {client})"),
        };
        let state = match it.reason {
            "idle_in_transaction" if it.failed => "idle in a failed transaction",
            "idle_in_transaction" => "idle in a transaction",
            "transaction" => "in a transaction",
            _ => "outside of a transaction",
        };
        let what = format!(
            "client {}{who} has held a server of {} for {:.1} s, {state}, silent for {:.1} s",
            it.pid, it.host, it.held_seconds, it.idle_seconds
        );
        let kind = if it.reason == "idle_in_transaction" { it.reason } else { "holds_server" };
        let (time_us, shape, query) = (Some(us(it.held_seconds)), Some(it.shape), Some(it.query));
        Advice { kind, database: it.database, user: it.user, count: None, time_us, shape, what, action: it.hint, query }
    }));
    lines.extend(deadlocks.into_iter().map(|it| Advice {
        kind: "deadlock",
        database: it.database,
        user: it.user,
        count: Some(it.times),
        time_us: None,
        shape: Some(it.shape),
        what: match (it.other_shape, it.other_query) {
            (Some(shape), Some(query)) => format!("ended on {}; it waited for {shape}: {query}", it.host),
            _ => format!("ended on {}; what it waited for is not known here", it.host),
        },
        action: it.hint,
        query: Some(it.query),
    }));
    lines.extend(repeated.into_iter().map(|it| Advice {
        kind: "n_plus_one",
        database: it.database,
        user: it.user,
        count: Some(it.calls),
        time_us: Some(us(it.wasted_seconds)),
        shape: Some(it.shape),
        what: format!("once for each row, {} times behind {}: {}", it.times, it.parent_shape, it.parent_query),
        action: it.hint,
        query: Some(it.query),
    }));
    lines
}

/// What plans and statistics say of indexes.
fn of_indexes(lacked: Vec<SuggestedIndex>, unused: Vec<UnusedIndex>, scanned: Vec<ScannedTable>) -> Vec<Advice> {
    let mut lines = Vec::new();
    lines.extend(lacked.into_iter().map(|it| Advice {
        kind: "lacked_index",
        database: it.database,
        user: it.user,
        count: Some(it.calls_total),
        time_us: Some(us(it.seconds_total)),
        shape: Some(it.shape),
        what: match it.cost_with_index {
            Some(with) => format!("{}: the planner expects {with:.0} in place of {:.0}", it.statement, it.cost),
            None => format!("{}: not checked, HypoPG is not installed", it.statement),
        },
        action: it.hint,
        query: Some(it.query),
    }));
    lines.extend(unused.into_iter().map(|it| Advice {
        kind: "unused_index",
        database: it.database,
        user: String::new(),
        count: None,
        time_us: None,
        shape: None,
        what: format!(
            "{} on {} has {} bytes and served nobody for {} s on {}{}",
            it.index,
            it.table,
            it.bytes,
            it.seconds,
            it.hosts.join(", "),
            if it.hosts_not_asked.is_empty() {
                String::new()
            } else {
                format!("; not asked: {}", it.hosts_not_asked.join(", "))
            }
        ),
        action: it.hint,
        query: None,
    }));
    lines.extend(scanned.into_iter().map(|it| Advice {
        kind: "scanned_table",
        database: it.database,
        user: String::new(),
        count: Some(it.scans_total),
        time_us: None,
        shape: None,
        what: format!(
            "{} was read whole {} times on {}, {} rows in all",
            it.table, it.scans_total, it.host, it.rows_total
        ),
        action: it.hint,
        query: None,
    }));
    lines
}

impl Optimizations {
    /// All of them: what hurts others now first.
    pub(super) fn lines(self) -> Vec<Advice> {
        let mut lines = seen(self.server_holders, self.deadlocks, self.repeated_statements);
        lines.extend(self.waiting_pools.into_iter().map(|it| Advice {
            kind: "waiting_pool",
            database: it.database,
            user: it.user,
            count: Some(it.waiting),
            time_us: Some(us(it.oldest_wait_seconds)),
            shape: None,
            what: format!(
                "clients wait for a server of {} (pool {}); {} have got none in time",
                it.host, it.pool, it.query_wait_timeouts_total
            ),
            action: it.hint,
            query: None,
        }));
        lines.extend(of_indexes(self.lacked_indexes, self.unused_indexes, self.scanned_tables));
        lines.extend(self.pinned_sessions.into_iter().map(|it| Advice {
            kind: "pinned",
            database: it.database,
            user: it.user,
            count: None,
            time_us: Some(us(it.age_seconds)),
            shape: None,
            what: format!("client {} keeps a server to itself: {}", it.pid, it.reason),
            action: it.hint,
            query: Some(it.statement),
        }));
        lines.extend(self.slow_shapes.into_iter().map(|it| Advice {
            kind: "slow_shape",
            database: it.numbers.database,
            user: it.numbers.user,
            count: Some(it.numbers.calls_total),
            time_us: Some(us(it.numbers.time.p99_seconds)),
            shape: Some(it.numbers.shape),
            what: format!("one in a hundred takes so long or longer, most of it: {}", it.cause),
            action: it.hint,
            query: Some(it.numbers.query),
        }));
        lines.extend(self.primary_only.into_iter().map(|it| Advice {
            kind: "primary_only",
            database: it.database,
            user: it.user,
            count: Some(it.calls_total),
            time_us: Some(us(it.seconds_total)),
            shape: Some(it.shape),
            what: format!("by its text it only reads, and stays on the primary: {} ({})", it.reason, it.reason_text),
            action: "If it can be written without that, a replica can take it: EXPLAIN ROUTE tells.",
            query: Some(it.query),
        }));
        lines
    }
}
