//! Metrics of the cache of answers that are no pool's: what it promises and holds by database, and what was said of answers.
//! Never shows any while nothing is kept.

use std::sync::atomic::Ordering::Relaxed;

use prometheus::proto::{Metric, MetricFamily, MetricType};

use super::family::{family, label, number};
use crate::cache::Caches;
use crate::meter::Registry;

/// Name and help of the families made here.
pub(super) const FAMILIES: [(&str, &str); 7] = [
    (
        "pgweir_cache_bound_seconds",
        "How old the answers of the database may be: max_staleness under the grade logical, else the longest ttl; none where only users, rules or comments have one.",
    ),
    ("pgweir_cache_database_entries", "Answers in the cache, by database."),
    ("pgweir_cache_database_bytes", "Bytes of the answers in the cache, with their keys, by database."),
    ("pgweir_cache_evictions_total", "Answers that had to go for others, by database."),
    ("pgweir_cache_listening", "1 while the signals of the database's applications are heard."),
    ("pgweir_cache_signals_total", "What was said not to count any more, by where it was said."),
    ("pgweir_cache_signals_garbled_total", "Signals that were not understood: everything of the database went."),
];

/// The families of [`FAMILIES`].
pub(super) fn collect(registry: &Registry, caches: &Caches) -> Vec<MetricFamily> {
    use MetricType::{COUNTER, GAUGE};
    let Some(store) = caches.store() else { return Vec::new() };
    let mut metrics: [Vec<Metric>; FAMILIES.len()] = Default::default();
    let [bounds, entries, bytes, evictions, listening, signals, garbled] = &mut metrics;
    for health in registry.databases().iter() {
        let bound_us = health.bound.us.load(Relaxed);
        if bound_us > 0 {
            let grade = if health.bound.logical.load(Relaxed) { "logical" } else { "ttl" };
            let labels = vec![label("database", &health.database), label("invalidation", grade)];
            bounds.push(number(GAUGE, labels, bound_us as f64 / 1e6));
        }
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
    let said = &registry.signals;
    for (source, count) in [("console", &said.console), ("http", &said.http), ("notify", &said.notify)] {
        signals.push(number(COUNTER, vec![label("source", source)], count.get() as f64));
    }
    garbled.push(number(COUNTER, Vec::new(), said.garbled.get() as f64));
    let kinds = FAMILIES.map(|(name, _)| if name.ends_with("_total") { COUNTER } else { GAUGE });
    let families = FAMILIES.iter().zip(kinds).zip(metrics);
    families.map(|(((name, help), kind), metrics)| family(name, help, kind, metrics)).collect()
}
