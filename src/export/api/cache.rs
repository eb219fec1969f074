//! `/api/cache/metrics`: what the cache gave, what it did not and why, and what it hangs on.
//! Must never name a reason otherwise than the metrics do.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering::Relaxed;

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

use super::super::pools;
use super::params::NoParams;
use super::{Facts, seconds, share};
use crate::base::clock;
use crate::config::CacheMode;
use crate::meter::{DatabaseHealth, PoolCounters, Registry, RemoteMiss, RemoteWrite};

/// The stream of changes that answers hang on.
#[derive(Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Stream {
    /// Changes are followed.
    flows: bool,
    /// How old the newest change may be that is not known of; null before anything was.
    staleness_seconds: Option<f64>,
    row_changes_total: u64,
    truncates_total: u64,
    schema_changes_total: u64,
    /// Streams begun, with each of which all that hangs on changes became void.
    begins_total: u64,
}

impl Stream {
    /// That of a database, if somebody follows it.
    pub(super) fn of(health: &DatabaseHealth) -> Option<Self> {
        let stream = &health.stream;
        stream.wanted.load(Relaxed).then(|| Self {
            flows: stream.flows.load(Relaxed),
            staleness_seconds: stream.age_us(clock::now_us()).map(seconds),
            row_changes_total: stream.rows.get(),
            truncates_total: stream.truncates.get(),
            schema_changes_total: stream.schema.get(),
            begins_total: stream.begins.get(),
        })
    }
}

/// What the cache did, since the start.
#[derive(Default, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct CacheNumbers {
    /// Batches answered.
    hits_total: u64,
    /// Of these, those that waited for another client's read of the same.
    followed_total: u64,
    /// Of these, those whose time was over, by reason.
    stale_total: BTreeMap<&'static str, u64>,
    /// Answers asked for anew near their end.
    early_refreshes_total: u64,
    /// Of the batches it was asked for, those it answered; null where it was not asked.
    hit_ratio: Option<f64>,
    hit_bytes_total: u64,
    /// Answers kept.
    fills_total: u64,
    /// In shadow mode: real answers that were what the cache would have given.
    shadow_matches_total: u64,
    /// In shadow mode: real answers that were not.
    shadow_mismatches_total: u64,
    /// It did not have the answer, by reason.
    misses_total: BTreeMap<&'static str, u64>,
    /// It was not asked, by reason.
    bypasses_total: BTreeMap<&'static str, u64>,
    /// Answers that were not kept, by reason.
    unkept_total: BTreeMap<&'static str, u64>,
}

impl CacheNumbers {
    fn add(&mut self, pool: &PoolCounters) {
        let cache = &pool.cache;
        self.hits_total += cache.hits.get();
        self.followed_total += cache.followed.get();
        self.hit_bytes_total += cache.hit_bytes.get();
        self.fills_total += cache.fills.get();
        self.early_refreshes_total += cache.early.get();
        self.shadow_matches_total += cache.shadow_matches.get();
        self.shadow_mismatches_total += cache.shadow_mismatches.get();
        for (reasons, family) in [
            (&mut self.misses_total, "pgweir_cache_misses_total"),
            (&mut self.bypasses_total, "pgweir_cache_bypasses_total"),
            (&mut self.unkept_total, "pgweir_cache_unkept_total"),
            (&mut self.stale_total, "pgweir_cache_stale_total"),
        ] {
            for (reason, count) in pools::by_reason(pool, family) {
                *reasons.entry(reason).or_default() += count;
            }
        }
        let misses: u64 = self.misses_total.values().sum();
        self.hit_ratio = share(self.hits_total, self.hits_total + misses);
    }
}

/// Of one database.
#[derive(Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct DatabaseCache {
    database: String,
    numbers: CacheNumbers,
    /// Of its changes, if answers hang on them.
    stream: Option<Stream>,
}

/// The cache that processes share.
#[derive(Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct RedisNumbers {
    /// Workers that are connected to it and ask it.
    connected_workers: u64,
    hits_total: u64,
    lookup_seconds_total: f64,
    /// How often a worker stopped asking because it failed.
    breaker_opened_total: u64,
    /// Not had from there, by reason.
    misses_total: BTreeMap<&'static str, u64>,
    /// Put there, by what became of it.
    writes_total: BTreeMap<&'static str, u64>,
}

/// The cache.
#[derive(Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct CacheMetrics {
    /// `off`, `shadow`, `on`.
    mode: &'static str,
    entries: u64,
    bytes: u64,
    max_bytes: u64,
    all: CacheNumbers,
    databases: Vec<DatabaseCache>,
    /// Null where there is none.
    redis: Option<RedisNumbers>,
}

fn redis(registry: &Registry) -> Option<RedisNumbers> {
    let remote = &registry.remote;
    remote.is_used().then(|| RedisNumbers {
        connected_workers: remote.up.load(Relaxed),
        hits_total: remote.hits.get(),
        lookup_seconds_total: seconds(remote.lookup_us.get()),
        breaker_opened_total: remote.opened.get(),
        misses_total: RemoteMiss::ALL.iter().map(|&(why, word)| (word, remote.miss(why).get())).collect(),
        writes_total: RemoteWrite::ALL.iter().map(|&(outcome, word)| (word, remote.write(outcome).get())).collect(),
    })
}

/// What the cache gave, and why it did not.
#[utoipa::path(get, path = "/api/cache/metrics",
    operation_id = "cache_metrics", responses((status = 200, description = "The cache", body = CacheMetrics)))]
pub(super) async fn metrics(State(site): Facts, _: NoParams) -> Json<CacheMetrics> {
    let registry = &site.registry;
    let config = site.config.load();
    let mut all = CacheNumbers::default();
    let mut of: BTreeMap<String, DatabaseCache> = BTreeMap::new();
    for health in registry.databases().iter() {
        let database = health.database.to_string();
        let one =
            DatabaseCache { database: database.clone(), numbers: CacheNumbers::default(), stream: Stream::of(health) };
        of.insert(database, one);
    }
    for pool in registry.pools().iter() {
        all.add(pool);
        if let Some(one) = of.get_mut(&*pool.target.database) {
            one.numbers.add(pool);
        }
    }
    Json(CacheMetrics {
        mode: CacheMode::as_str(config.cache.mode),
        entries: registry.cache.entries.get(),
        bytes: registry.cache.bytes.get(),
        max_bytes: config.cache.max_bytes,
        all,
        databases: of.into_values().collect(),
        redis: redis(registry),
    })
}
