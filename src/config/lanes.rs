//! Lanes: when fast reads of several clients share a server.
//! Must never say what is fast: that is learned.

use std::mem::take;
use std::time::Duration;

use super::check::Check;
use super::reader::Field;
use super::schema::{RawConfig, RawPool};

/// What `[pool]` says of lanes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lanes {
    /// There are any. A database or user may say otherwise. Default true.
    pub on: bool,
    /// Most servers of a pool that are lanes at one time, on each worker. Default 100; never 0.
    pub max: u32,
    /// A statement is fast if 99 of 100 take less than this on the server. Default 1 ms; never 0.
    pub fast: Duration,
    /// How long a read may be expected to wait for those before it in a lane. Default 0.5 ms; never 0.
    pub delay: Duration,
    /// Settings in which clients of a lane may differ, folded: their statements then run under those of another.
    /// Default `application_name`.
    pub settings: Vec<String>,
}

impl Default for Lanes {
    fn default() -> Self {
        Self {
            on: true,
            max: 100,
            fast: Duration::from_millis(1),
            delay: Duration::from_micros(500),
            settings: vec!["application_name".to_owned()],
        }
    }
}

/// Settings by which no answer hangs: what the server logs, and how it looks for rows.
const ANY: [&str; 14] = [
    "application_name",
    "deadlock_timeout",
    "effective_cache_size",
    "effective_io_concurrency",
    "hash_mem_multiplier",
    "idle_in_transaction_session_timeout",
    "idle_session_timeout",
    "max_parallel_workers_per_gather",
    "plan_cache_mode",
    "random_page_cost",
    "seq_page_cost",
    "synchronous_commit",
    "temp_buffers",
    "work_mem",
];
const ANY_PREFIX: [&str; 13] = [
    "auto_explain.",
    "cpu_",
    "enable_",
    "from_collapse",
    "geqo",
    "jit",
    "join_collapse",
    "log_",
    "pg_stat_statements.",
    "parallel_",
    "tcp_",
    "trace_",
    "track_",
];
/// Beginnings of settings of extensions that answers hang on.
const TELLING: [&str; 9] =
    ["anon.", "citus.", "pg_hint_plan.", "pg_trgm.", "plperl.", "plpgsql.", "pltcl.", "postgis.", "timescaledb."];

/// Whether clients of a lane may differ in a setting. One that an application made up, with a dot, they may: whoever reads such a one does
/// not ride.
fn may_differ(name: &str) -> bool {
    let begins = |all: &[&str]| all.iter().any(|front| name.starts_with(front));
    ANY.contains(&name) || begins(&ANY_PREFIX) || (name.contains('.') && !begins(&TELLING))
}

impl Check<'_> {
    /// Notes settings of `lane_settings` in which the clients of a lane must not differ.
    pub(super) fn lane_settings(&mut self, raw: &RawConfig) {
        let Field::Set(pool, _) = &raw.pool else { return };
        let Field::Set(names, _) = &pool.lane_settings else { return };
        for (name, span) in names.0.iter().filter(|(name, _)| !may_differ(&name.to_lowercase())) {
            let title = format!("`{name}` cannot be in `lane_settings`: answers may hang on it");
            let expected = "settings that no answer hangs on, as \"application_name\" or \"log_statement\"";
            self.reader.note(span.clone(), title, |problem| problem.expected(expected));
        }
    }
}

impl Lanes {
    pub(super) fn of(raw: &mut RawPool) -> Self {
        let default = Self::default();
        Self {
            on: take(&mut raw.lanes).set().unwrap_or(default.on),
            max: take(&mut raw.max_lanes).set().map_or(default.max, |n| n.0),
            fast: take(&mut raw.lane_fast).set().map_or(default.fast, |timeout| timeout.0),
            delay: take(&mut raw.lane_delay).set().map_or(default.delay, |timeout| timeout.0),
            settings: take(&mut raw.lane_settings)
                .set()
                .map_or(default.settings, |texts| texts.0.iter().map(|(name, _)| name.to_lowercase()).collect()),
        }
    }
}
