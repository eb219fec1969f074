//! Metrics of the cache of answers that are no pool's: what it promises and holds by database, and what was said of answers.
//! Never shows any while nothing is kept.

use std::sync::atomic::Ordering::Relaxed;

use prometheus::proto::{Metric, MetricFamily, MetricType};

use super::family::{family, label, number};
use crate::cache::Caches;
use crate::meter::Registry;

/// Name and help of the families made here.
pub(super) const FAMILIES: [(&str, &str); 11] = [
    (
        "pgweir_cache_bound_seconds",
        "How old the answers of the database may be: max_staleness under the grade logical; 0 under fenced, as far as writes go through any pgweir; else the longest ttl, and what stale_while_revalidate or stale_if_error adds; none where only users, rules or comments have one.",
    ),
    ("pgweir_cache_database_entries", "Answers in the cache, by database."),
    ("pgweir_cache_database_bytes", "Bytes of the answers in the cache, with their keys, by database."),
    ("pgweir_cache_evictions_total", "Answers that had to go for others, by database."),
    ("pgweir_cache_listening", "1 while the signals of the database's applications are heard."),
    ("pgweir_cache_signals_total", "What was said not to count any more, by where it was said."),
    ("pgweir_cache_warm_up_runs_total", "Times that all was asked that [[cache.warm_up]] has of the database."),
    (
        "pgweir_cache_warm_up_queries_total",
        "Statements of those, by outcome: kept, their answers were in the cache then; failed, they were not.",
    ),
    ("pgweir_cache_signals_garbled_total", "Signals that were not understood: everything of the database went."),
    ("pgweir_cache_fence_up", "1 while the writes of everybody are known, and answers that hang on them are given."),
    (
        "pgweir_cache_fenced_writes_total",
        "Writes by what became of them: announced in Redis, let go without as everybody had stepped aside, refused.",
    ),
];

/// The families of [`FAMILIES`].
pub(super) fn collect(registry: &Registry, caches: &Caches) -> Vec<MetricFamily> {
    use MetricType::{COUNTER, GAUGE};
    let Some(store) = caches.store() else { return Vec::new() };
    let mut metrics: [Vec<Metric>; FAMILIES.len()] = Default::default();
    let [bounds, entries, bytes, evictions, listening, signals, runs, warmed, garbled, fences, writes] = &mut metrics;
    for health in registry.databases().iter() {
        let bound_us = health.bound.us.load(Relaxed);
        let fenced = health.bound.fenced.load(Relaxed);
        if bound_us > 0 || fenced {
            let grade = match health.bound.logical.load(Relaxed) {
                true => "logical",
                false if fenced => "fenced",
                false => "ttl",
            };
            let labels = vec![label("database", &health.database), label("invalidation", grade)];
            bounds.push(number(GAUGE, labels, bound_us as f64 / 1e6));
        }
    }
    for health in registry.databases().iter().filter(|health| health.warm.runs.get() > 0) {
        let with = |outcome: Option<&str>| {
            let database = label("database", &health.database);
            [Some(database), outcome.map(|outcome| label("outcome", outcome))].into_iter().flatten().collect()
        };
        runs.push(number(COUNTER, with(None), health.warm.runs.get() as f64));
        warmed.push(number(COUNTER, with(Some("kept")), health.warm.kept.get() as f64));
        warmed.push(number(COUNTER, with(Some("failed")), health.warm.failed.get() as f64));
    }
    for (database, account) in store.accounts() {
        let with = || vec![label("database", &database)];
        entries.push(number(GAUGE, with(), account.entries as f64));
        bytes.push(number(GAUGE, with(), account.bytes as f64));
        evictions.push(number(COUNTER, with(), account.evicted as f64));
    }
    for (database, hearing) in store.hearings() {
        let is_open = f64::from(u8::from(hearing.since_us() > 0));
        listening.push(number(GAUGE, vec![label("database", &database)], is_open));
    }
    for (database, fence) in store.fences() {
        let with = |more| [label("database", &database)].into_iter().chain(more).collect();
        fences.push(number(GAUGE, with(None), f64::from(u8::from(fence.serves().is_some()))));
        for (outcome, count) in
            [("announced", &fence.raised), ("unfenced", &fence.unfenced), ("refused", &fence.refused)]
        {
            writes.push(number(COUNTER, with(Some(label("outcome", outcome))), count.load(Relaxed) as f64));
        }
    }
    let said = &registry.signals;
    for (source, count) in [("console", &said.console), ("http", &said.http), ("notify", &said.notify)] {
        signals.push(number(COUNTER, vec![label("source", source)], count.get() as f64));
    }
    garbled.push(number(COUNTER, Vec::new(), said.garbled.get() as f64));
    let kinds = FAMILIES.map(|(name, _)| if name.ends_with("_total") { COUNTER } else { GAUGE });
    let families = FAMILIES.iter().zip(kinds).zip(metrics);
    families.map(|(((name, help), kind), metrics)| family(name, help, kind, metrics)).collect()
}
