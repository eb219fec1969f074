//! `/api/database/metrics` and `/api/database/slow-queries`: how each database does.
//! Must never leave out a database because nobody uses it.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

use super::params::{NoParams, Params, Refused};
use super::pools::{Clients, Servers};
use super::queries::{Latency, Shapes, Wanted, find};
use super::{Facts, Problem, seconds, share};
use crate::meter::{HistogramSnapshot, Miss, Phase, PoolCounters, ShapeSum};

/// What a database has done since the start.
#[derive(Default, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct DatabaseNumbers {
    database: String,
    /// The primary was there when it was asked last.
    primary_reachable: bool,
    clients: Clients,
    servers: Servers,
    transactions_total: u64,
    queries_total: u64,
    /// Reported by servers.
    errors_total: u64,
    /// From clients.
    received_bytes_total: u64,
    /// To clients.
    sent_bytes_total: u64,
    transaction_seconds_total: f64,
    query_seconds_total: f64,
    wait_seconds_total: f64,
    /// Statements that replicas ran; null before there were any.
    replica_share: Option<f64>,
    /// Of the batches that the cache was asked for, those it answered; null where it was not asked.
    cache_hit_ratio: Option<f64>,
    /// Of all statements since the start; null before there was one.
    time: Option<Latency>,
}

/// All databases.
#[derive(Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct DatabaseMetrics {
    databases: Vec<DatabaseNumbers>,
}

/// What is added up over pools and does not show by itself.
#[derive(Default)]
struct Shares {
    on_replicas: u64,
    hits: u64,
    misses: u64,
}

/// Batches that the cache answered, and those for which it had nothing.
pub(super) fn asked(pool: &PoolCounters) -> (u64, u64) {
    let missed = Miss::ALL.iter().map(|why| pool.cache.miss(*why).get()).sum();
    (pool.cache.hits.get(), missed)
}

fn add(numbers: &mut DatabaseNumbers, shares: &mut Shares, pool: &PoolCounters) {
    numbers.clients.add(pool);
    numbers.servers.add(pool);
    let queries = pool.total_query_count.get();
    numbers.transactions_total += pool.total_xact_count.get();
    numbers.queries_total += queries;
    numbers.errors_total += pool.total_errors.get();
    numbers.received_bytes_total += pool.total_received.get();
    numbers.sent_bytes_total += pool.total_sent.get();
    numbers.transaction_seconds_total += seconds(pool.total_xact_time_us.get());
    numbers.query_seconds_total += seconds(pool.total_query_time_us.get());
    numbers.wait_seconds_total += seconds(pool.total_wait_time_us.get());
    if pool.role() == crate::meter::Role::Replica {
        shares.on_replicas += queries;
    }
    let (hits, misses) = asked(pool);
    shares.hits += hits;
    shares.misses += misses;
}

/// What each database has done since the start.
#[utoipa::path(get, path = "/api/database/metrics",
    operation_id = "database_metrics", responses((status = 200, description = "All databases of the configuration", body = DatabaseMetrics)))]
pub(super) async fn metrics(State(site): Facts, _: NoParams) -> Json<DatabaseMetrics> {
    let mut all: BTreeMap<String, (DatabaseNumbers, Shares)> = BTreeMap::new();
    for health in site.registry.databases().iter() {
        let database = health.database.to_string();
        let numbers =
            DatabaseNumbers { database, primary_reachable: health.primary_reachable(), ..DatabaseNumbers::default() };
        all.insert(numbers.database.clone(), (numbers, Shares::default()));
    }
    for pool in site.registry.pools().iter() {
        if let Some((numbers, shares)) = all.get_mut(&*pool.target.database) {
            add(numbers, shares, pool);
        }
    }
    let mut times: BTreeMap<String, HistogramSnapshot> = BTreeMap::new();
    for shape in ShapeSum::all(&site.registry) {
        if let Some(first) = shape.first() {
            times.entry(first.pool.database.to_string()).or_default().merge(&shape.merged(Phase::Total));
        }
    }
    let databases = all.into_values().map(|(mut numbers, shares)| {
        numbers.time = times.get(&numbers.database).map(Latency::of);
        numbers.replica_share = share(shares.on_replicas, numbers.queries_total);
        numbers.cache_hit_ratio = share(shares.hits, shares.hits + shares.misses);
        numbers
    });
    Json(DatabaseMetrics { databases: databases.collect() })
}

/// The shapes that take most; without `other`.
#[utoipa::path(
    get,
    path = "/api/database/slow-queries",
    params(Wanted),
    responses(
        (status = 200, description = "Shapes, the most first", body = Shapes),
        (status = 400, description = "A parameter that cannot be", body = Problem),
        (status = 404, description = "No such database", body = Problem)
    )
)]
pub(super) async fn slow_queries(State(site): Facts, Params(wanted): Params<Wanted>) -> Result<Json<Shapes>, Refused> {
    find(&site.registry, wanted, false).map(Json)
}
