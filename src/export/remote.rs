//! The families of the cache that processes share.
//! Never shows any where there is none.

use std::sync::atomic::Ordering::Relaxed;

use prometheus::proto::{MetricFamily, MetricType};

use super::family::{family, label, number, single};
use crate::meter::{Registry, RemoteMiss, RemoteWrite};

/// Name and help of every family made here.
pub(super) const FAMILIES: [(&str, &str); 6] = [
    ("pgweir_cache_redis_up", "Workers that are connected to Redis and ask it."),
    ("pgweir_cache_redis_hits_total", "Answers found in Redis."),
    ("pgweir_cache_redis_misses_total", "Answers not in the process and not had from Redis, by reason."),
    ("pgweir_cache_redis_writes_total", "Answers put into Redis, by what became of that."),
    ("pgweir_cache_redis_lookup_seconds_total", "Time that lookups in Redis took, of whatever outcome."),
    ("pgweir_cache_redis_breaker_opened_total", "How often a worker stopped asking Redis because it failed."),
];

/// The families of [`FAMILIES`].
pub(super) fn collect(registry: &Registry) -> Vec<MetricFamily> {
    use MetricType::{COUNTER, GAUGE};
    let remote = &registry.remote;
    if !remote.is_used() {
        return Vec::new();
    }
    let [up, hits, misses, writes, lookups, opened] = FAMILIES;
    let one = |(name, help), kind, value| single(name, help, kind, value);
    let missed = RemoteMiss::ALL
        .iter()
        .map(|&(why, word)| number(COUNTER, vec![label("reason", word)], remote.miss(why).get() as f64));
    let wrote = RemoteWrite::ALL
        .iter()
        .map(|&(outcome, word)| number(COUNTER, vec![label("outcome", word)], remote.write(outcome).get() as f64));
    vec![
        one(up, GAUGE, remote.up.load(Relaxed) as f64),
        one(hits, COUNTER, remote.hits.get() as f64),
        family(misses.0, misses.1, COUNTER, missed.collect()),
        family(writes.0, writes.1, COUNTER, wrote.collect()),
        one(lookups, COUNTER, remote.lookup_us.get() as f64 / 1e6),
        one(opened, COUNTER, remote.opened.get() as f64),
    ]
}
