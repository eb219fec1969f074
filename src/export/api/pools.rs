//! `/api/pools`: clients and servers of each pool.
//! Must never add up the waits of workers: the longest of all is the longest.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

use super::params::NoParams;
use super::{Facts, seconds, share};
use crate::config::{Config, DEFAULT_POOL};
use crate::meter::{PoolCounters, PoolTarget, Registry, Role};

/// Clients at this moment.
#[derive(Clone, Copy, Default, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Clients {
    /// They have a server.
    pub(super) active: u64,
    /// They wait for one.
    pub(super) waiting: u64,
    /// They want none.
    pub(super) idle: u64,
}

impl Clients {
    pub(super) fn add(&mut self, pool: &PoolCounters) {
        self.active += pool.clients_active.get();
        self.waiting += pool.clients_waiting.get();
        self.idle += pool.clients_idle.get();
    }
}

/// Connections to servers at this moment.
#[derive(Clone, Copy, Default, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Servers {
    /// A client has them.
    pub(super) active: u64,
    /// They can be had.
    pub(super) idle: u64,
    /// They are being opened.
    pub(super) connecting: u64,
}

impl Servers {
    pub(super) fn add(&mut self, pool: &PoolCounters) {
        self.active += pool.servers_active.get();
        self.idle += pool.servers_idle.get();
        self.connecting += pool.servers_connecting.get();
    }
}

/// A pool: the connections of a database and user to one server.
#[derive(Default, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct PoolNumbers {
    pub(super) database: String,
    pub(super) user: String,
    pub(super) host: String,
    /// `default`, or the name of a workload pool, which all users of the database share.
    pub(super) pool: String,
    /// `primary` or `replica`.
    pub(super) role: &'static str,
    /// Most connections; null if the database is not in the configuration any more.
    pub(super) size: Option<u32>,
    /// Connections that a client has, as a share of `size`.
    pub(super) use_share: Option<f64>,
    pub(super) clients: Clients,
    pub(super) servers: Servers,
    /// For how long the client has waited that waits longest.
    pub(super) oldest_wait_seconds: f64,
    pub(super) wait_seconds_total: f64,
    pub(super) assignments_total: u64,
    pub(super) transactions_total: u64,
    pub(super) queries_total: u64,
    pub(super) errors_total: u64,
    pub(super) received_bytes_total: u64,
    pub(super) sent_bytes_total: u64,
    pub(super) query_wait_timeouts_total: u64,
    pub(super) server_opens_total: u64,
    pub(super) server_open_failures_total: u64,
}

/// All pools.
#[derive(Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Pools {
    pools: Vec<PoolNumbers>,
}

/// Most connections of a pool.
pub(super) fn size(config: &Config, target: &PoolTarget) -> Option<u32> {
    let database = config.databases.get(&*target.database)?;
    if &*target.pool == DEFAULT_POOL {
        return Some(config.terms(&target.database, &target.user).pool_size);
    }
    database.steering.pools.iter().find(|workload| workload.name == *target.pool).map(|workload| workload.pool_size)
}

impl PoolNumbers {
    fn add(&mut self, pool: &PoolCounters) {
        self.clients.add(pool);
        self.servers.add(pool);
        self.oldest_wait_seconds = self.oldest_wait_seconds.max(seconds(pool.maxwait_us.get()));
        self.wait_seconds_total += seconds(pool.total_wait_time_us.get());
        self.assignments_total += pool.total_server_assignment_count.get();
        self.transactions_total += pool.total_xact_count.get();
        self.queries_total += pool.total_query_count.get();
        self.errors_total += pool.total_errors.get();
        self.received_bytes_total += pool.total_received.get();
        self.sent_bytes_total += pool.total_sent.get();
        self.query_wait_timeouts_total += pool.total_query_wait_timeouts.get();
        self.server_opens_total += pool.total_server_opens.get();
        self.server_open_failures_total += pool.total_server_open_failures.get();
    }
}

/// Every pool, workers added up.
pub(super) fn list(registry: &Registry, config: &Config) -> Vec<PoolNumbers> {
    let pools = registry.pools();
    let mut sums: BTreeMap<(&PoolTarget, Role), PoolNumbers> = BTreeMap::new();
    for pool in pools.iter() {
        sums.entry((&pool.target, pool.role())).or_default().add(pool);
    }
    let named = sums.into_iter().map(|((target, role), mut numbers)| {
        numbers.database = target.database.to_string();
        numbers.user = target.user.to_string();
        numbers.host = target.host.to_string();
        numbers.pool = target.pool.to_string();
        numbers.role = role.as_str();
        numbers.size = size(config, target);
        numbers.use_share = numbers.size.and_then(|size| share(numbers.servers.active, size.into()));
        numbers
    });
    named.collect()
}

/// Every pool that has been used.
#[utoipa::path(get, path = "/api/pools", responses((status = 200, description = "All pools", body = Pools)))]
pub(super) async fn pools(State(site): Facts, _: NoParams) -> Json<Pools> {
    Json(Pools { pools: list(&site.registry, &site.config.load()) })
}
