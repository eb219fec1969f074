//! What is found at a moment: how everything stands that has a mark.
//! Must never judge over time: the board does.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::board::Labels;
use super::certificates::Ending;
use super::kind::Kind;
use super::reading::Traffic;
use crate::cache::Caches;
use crate::config::{CacheMode, Config, DEFAULT_POOL, Threshold};
use crate::meter::{PoolLabel, Registry};
use crate::pool::cluster::{Cluster, Clusters, Standing};

/// Fewest statements, or batches that the cache was asked for, of which a share says anything.
const COUNT_MIN: u64 = 20;

/// How one thing stands.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Finding {
    pub(super) kind: Kind,
    pub(super) labels: Labels,
    pub(super) value: f64,
    /// The mark at which it fires.
    pub(super) threshold: f64,
    /// It is beyond that.
    pub(super) fires: bool,
    /// It is at or below the mark at which it is over.
    pub(super) clears: bool,
    /// For how long it must have been so.
    pub(super) after: Duration,
}

/// Who was the primary of each database, and when that changed last.
#[derive(Debug, Default)]
pub(super) struct Primaries(BTreeMap<String, (String, Option<(u64, String)>)>);

/// What findings are made of.
pub(super) struct Ground<'a> {
    pub(super) registry: &'a Registry,
    pub(super) clusters: &'a Clusters,
    pub(super) caches: &'a Caches,
    pub(super) config: &'a Config,
    /// What each database did lately.
    pub(super) traffic: &'a BTreeMap<Arc<str>, Traffic>,
    pub(super) endings: &'a [Ending],
    pub(super) now_us: u64,
    pub(super) now_unix_s: f64,
}

fn above(kind: Kind, labels: Labels, value: f64, mark: Threshold) -> Finding {
    let Threshold { above, clear, after } = mark;
    Finding { kind, labels, value, threshold: above, fires: value > above, clears: value <= clear, after }
}

/// Something that is so or is not.
fn flag(kind: Kind, labels: Labels, is: bool, after: Duration) -> Finding {
    Finding { kind, labels, value: f64::from(u8::from(is)), threshold: 1.0, fires: is, clears: !is, after }
}

/// How everything stands.
pub(super) fn findings(ground: &Ground<'_>, primaries: &mut Primaries) -> Vec<Finding> {
    let mut found = Vec::new();
    pools(ground, &mut found);
    pinned(ground, &mut found);
    rates(ground, &mut found);
    hosts(ground, &mut found);
    failovers(ground, primaries, &mut found);
    mismatches(ground, &mut found);
    if let Some(before) = ground.config.alerts.certificate_expiry {
        for ending in ground.endings {
            let left = ending.at_unix_s - ground.now_unix_s;
            found.push(Finding {
                kind: Kind::CertificateExpiry,
                labels: vec![("file", ending.file.clone())],
                value: left,
                threshold: before.as_secs_f64(),
                fires: left < before.as_secs_f64(),
                clears: left >= before.as_secs_f64(),
                after: Duration::ZERO,
            });
        }
    }
    found
}

fn pools(ground: &Ground<'_>, found: &mut Vec<Finding>) {
    let Some(mark) = ground.config.alerts.pool_use else { return };
    // A workload pool is shared by all users of its database.
    let mut used: BTreeMap<[String; 4], (u64, u32)> = BTreeMap::new();
    for pool in ground.registry.pools().iter() {
        let target = &pool.target;
        let Some(database) = ground.config.databases.get(&*target.database) else { continue };
        let (user, size) = match &*target.pool {
            DEFAULT_POOL => {
                (target.user.to_string(), Some(ground.config.terms(&target.database, &target.user).pool_size))
            }
            name => {
                let workload = database.steering.pools.iter().find(|workload| workload.name == name);
                (String::new(), workload.map(|workload| workload.pool_size))
            }
        };
        let Some(size) = size else { continue };
        let key = [target.database.to_string(), user, target.host.to_string(), target.pool.to_string()];
        let sum = used.entry(key).or_insert((0, size));
        sum.0 += pool.servers_active.get();
    }
    for ([database, user, host, pool], (active, size)) in used {
        let mut labels = vec![("database", database), ("host", host), ("pool", pool)];
        if !user.is_empty() {
            labels.insert(1, ("user", user));
        }
        found.push(above(Kind::PoolUse, labels, active as f64 / f64::from(size.max(1)), mark));
    }
}

fn pinned(ground: &Ground<'_>, found: &mut Vec<Finding>) {
    let Some(mark) = ground.config.alerts.pinned_servers else { return };
    let mut held: BTreeMap<[Arc<str>; 2], u64> = BTreeMap::new();
    for pins in ground.registry.pins().iter() {
        let PoolLabel { database, user } = &pins.label;
        *held.entry([Arc::clone(database), Arc::clone(user)]).or_default() += pins.held.get();
    }
    for ([database, user], held) in held {
        if !ground.config.databases.contains_key(&*database) {
            continue;
        }
        let size = ground.config.terms(&database, &user).pool_size;
        let labels = vec![("database", database.to_string()), ("user", user.to_string())];
        found.push(above(Kind::PinnedServers, labels, held as f64 / f64::from(size.max(1)), mark));
    }
}

/// A share of too few is none.
fn share(part: u64, whole: u64) -> f64 {
    if whole < COUNT_MIN { 0.0 } else { part as f64 / whole as f64 }
}

fn rates(ground: &Ground<'_>, found: &mut Vec<Finding>) {
    let alerts = &ground.config.alerts;
    let slow_us = alerts.slow_query.as_micros() as u64;
    for (database, traffic) in ground.traffic {
        let labels = || vec![("database", database.to_string())];
        let calls = traffic.time.count;
        let slow = traffic.time.at_least(slow_us);
        found.extend(alerts.slow_queries.map(|mark| above(Kind::SlowQueries, labels(), share(slow, calls), mark)));
        found.extend(alerts.errors.map(|mark| above(Kind::Errors, labels(), share(traffic.errors, calls), mark)));
        // In shadow mode the cache gives nothing, and misses what it likes.
        if ground.config.cache.mode == CacheMode::On {
            let asked = traffic.hits + traffic.misses;
            let missed = share(traffic.misses, asked);
            found.extend(alerts.cache_misses.map(|mark| above(Kind::CacheMisses, labels(), missed, mark)));
        }
    }
}

fn hosts(ground: &Ground<'_>, found: &mut Vec<Finding>) {
    let alerts = &ground.config.alerts;
    if let Some(after) = alerts.host_down {
        for health in ground.registry.databases().iter() {
            let labels = vec![("database", health.database.to_string())];
            found.push(flag(Kind::PrimaryDown, labels, !health.primary_reachable(), after));
        }
    }
    for (database, cluster) in ground.clusters.shown() {
        for member in &cluster.members {
            let labels = || vec![("database", database.clone()), ("host", member.endpoint.to_string())];
            let standing = member.standing();
            if let (Some(after), true) = (alerts.host_down, standing != Standing::Unknown) {
                found.push(flag(Kind::HostDown, labels(), standing == Standing::Down, after));
            }
            if let (Some(mark), Standing::Standby) = (alerts.replication_lag, standing) {
                let lag_s = member.lag_us(ground.now_us) as f64 / 1e6;
                found.push(above(Kind::ReplicationLag, labels(), lag_s, mark));
            }
        }
    }
}

/// A shape of which something wrong was kept stays so until a reload.
fn mismatches(ground: &Ground<'_>, found: &mut Vec<Finding>) {
    let (Some(after), Some(store)) = (ground.config.alerts.cache_mismatch, ground.caches.store()) else { return };
    for ((database, shape), _) in store.disabled().iter().filter(|(_, certain)| **certain) {
        let labels = vec![("database", database.to_string()), ("shape", format!("{shape:016x}"))];
        found.push(flag(Kind::CacheMismatch, labels, true, after));
    }
}

fn primary(cluster: &Cluster) -> Option<String> {
    Some(cluster.members.get(cluster.primary()?)?.endpoint.to_string())
}

/// Nothing is over about a failover: it is told of for a time.
fn failovers(ground: &Ground<'_>, primaries: &mut Primaries, found: &mut Vec<Finding>) {
    let shown = ground.clusters.shown();
    primaries.0.retain(|database, _| shown.iter().any(|(name, _)| name == database));
    for (database, cluster) in &shown {
        // While there is none, the last one is remembered.
        let Some(now) = primary(cluster) else { continue };
        let known = primaries.0.entry(database.clone()).or_insert_with(|| (now.clone(), None));
        if known.0 != now {
            let before = std::mem::replace(&mut known.0, now);
            known.1 = Some((ground.now_us, before));
        }
    }
    let Some(keep) = ground.config.alerts.failover else { return };
    for (database, (host, change)) in &primaries.0 {
        let Some((at_us, before)) = change else { continue };
        let fresh = Duration::from_micros(ground.now_us.saturating_sub(*at_us)) < keep;
        let labels = vec![("database", database.clone()), ("host", host.clone()), ("before", before.clone())];
        found.push(flag(Kind::Failover, labels, fresh, Duration::ZERO));
    }
}

#[cfg(test)]
#[path = "findings_tests.rs"]
mod tests;
