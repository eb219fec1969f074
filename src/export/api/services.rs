//! `/api/services/status`: the process, where it listens, and how its databases, hosts and other servers are.
//! Must never ask any of them: what is shown is what was heard last.

use std::sync::atomic::Ordering::Relaxed;

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

use super::super::{hosts, process};
use super::alerts::HealthNow;
use super::cache::Stream;
use super::params::NoParams;
use super::{Facts, Site, seconds};
use crate::base::clock;
use crate::meter::NotReady;
use crate::pool::cluster::{Cluster, Standing};

/// Why no new clients should be sent here.
#[derive(Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Reason {
    /// `not listening`, `draining`, `primary unreachable`.
    reason: &'static str,
    /// The database that it is about, if it is about one.
    database: Option<String>,
}

/// Something that is listened on.
#[derive(Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Listener {
    /// `clients` or `stats`.
    of: &'static str,
    /// Address and port, or the path of a socket; of `stats` a URL.
    address: String,
}

/// What the process is and has used; null where the system does not say.
#[derive(Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Process {
    version: &'static str,
    pid: u32,
    started_unix_seconds: f64,
    uptime_seconds: f64,
    /// When the configuration in force was loaded.
    config_loaded_unix_seconds: f64,
    reloads_total: u64,
    failed_reloads_total: u64,
    /// Threads that relay.
    workers: usize,
    cpu_seconds_total: Option<f64>,
    resident_bytes: Option<f64>,
    open_fds: Option<f64>,
    max_fds: Option<f64>,
    /// Each of which ended one connection.
    panics_total: u64,
}

/// Client connections.
#[derive(Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Connections {
    /// Now, also before their login.
    current: u32,
    /// `max_client_conn`.
    max: u32,
    accepted_total: u64,
    /// For a limit, before their login.
    refused_total: u64,
    login_failures_total: u64,
}

/// A host of a database.
#[derive(Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct HostStatus {
    host: String,
    /// `primary`, `standby`, `down`, `unknown`, or `stale`: it says that it takes writes, and is not believed.
    role: &'static str,
    /// It answered when it was asked last.
    up: bool,
    timeline: Option<u32>,
    /// Since the primary was first seen where this has not replayed to yet; null but for standbys.
    lag_seconds: Option<f64>,
    /// Of the write-ahead log, not replayed yet; null but for standbys.
    lag_bytes: Option<u64>,
    /// Of a statement there, an average over 10 s; null before there was one.
    latency_seconds: Option<f64>,
    /// `closed`, `half_open`, `open`.
    breaker: &'static str,
}

/// A database.
#[derive(Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct DatabaseStatus {
    database: String,
    /// Its statements are measured one by one, by the configuration (`stats`). Else rates, latencies, shapes, and the alerts of them say
    /// nothing of it.
    measured: bool,
    /// It was there when it was asked last.
    primary_reachable: bool,
    /// Which host takes writes; null if that is not known.
    primary: Option<String>,
    /// Hosts that are asked what they are; empty where there is only one.
    hosts: Vec<HostStatus>,
    /// Of its changes, if answers in the cache hang on them.
    stream: Option<Stream>,
}

/// The cache that processes share.
#[derive(Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct RedisStatus {
    /// Workers that are connected to it and ask it.
    connected_workers: u64,
}

/// How things stand.
#[derive(Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Status {
    /// Clients can be served: what `/readyz` says.
    ready: bool,
    not_ready: Vec<Reason>,
    process: Process,
    listeners: Vec<Listener>,
    connections: Connections,
    databases: Vec<DatabaseStatus>,
    health: HealthNow,
    /// Null where there is none.
    redis: Option<RedisStatus>,
}

fn reason(why: NotReady) -> Reason {
    match why {
        NotReady::NotListening => Reason { reason: "not listening", database: None },
        NotReady::Draining => Reason { reason: "draining", database: None },
        NotReady::PrimaryUnreachable(database) => {
            Reason { reason: "primary unreachable", database: Some(database.to_string()) }
        }
    }
}

fn host(cluster: &Cluster, number: usize) -> Option<HostStatus> {
    let member = cluster.members.get(number)?;
    let standing = member.standing();
    let up = matches!(standing, Standing::Standby | Standing::Primary);
    let is_standby = standing == Standing::Standby;
    Some(HostStatus {
        host: member.endpoint.to_string(),
        role: hosts::role(cluster, number, standing),
        up,
        timeline: Some(member.timeline()).filter(|timeline| up && *timeline > 0),
        lag_seconds: is_standby.then(|| seconds(member.lag_us(clock::now_us()))),
        lag_bytes: is_standby.then(|| cluster.lag_bytes(number)),
        latency_seconds: Some(member.latency_us()).filter(|us| *us > 0).map(seconds),
        breaker: member.breaker.state().as_str(),
    })
}

fn databases(site: &Site) -> Vec<DatabaseStatus> {
    let clusters = site.clusters.shown();
    let config = site.config.load();
    let status = |health: &std::sync::Arc<crate::meter::DatabaseHealth>| {
        let database = health.database.to_string();
        let cluster = clusters.iter().find(|(name, _)| *name == database).map(|(_, cluster)| cluster);
        let primary = match cluster {
            Some(cluster) => cluster.primary().and_then(|at| cluster.members.get(at)).map(|it| it.endpoint.to_string()),
            None => config.databases.get(&database).map(|it| it.primary.to_string()),
        };
        let hosts = cluster.map_or_else(Vec::new, |cluster| {
            (0..cluster.members.len()).filter_map(|number| host(cluster, number)).collect()
        });
        let stream = Stream::of(health);
        // Of a user without settings of his own.
        let measured = config.terms(&database, "").measured;
        DatabaseStatus { database, measured, primary_reachable: health.primary_reachable(), primary, hosts, stream }
    };
    site.registry.databases().iter().map(status).collect()
}

fn process(site: &Site) -> Process {
    let registry = &site.registry;
    let used = process::collect();
    let number = |name: &str| {
        let metric = used.iter().find(|family| family.name() == name)?.get_metric().first()?;
        Some(metric.get_gauge().get_value() + metric.get_counter().get_value())
    };
    let started_unix_seconds = registry.started_unix_s();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0.0, |now| now.as_secs_f64());
    Process {
        version: env!("CARGO_PKG_VERSION"),
        pid: std::process::id(),
        started_unix_seconds,
        uptime_seconds: (now - started_unix_seconds).max(0.0),
        config_loaded_unix_seconds: registry.config_loaded_unix_s(),
        reloads_total: registry.reloads_ok.get(),
        failed_reloads_total: registry.reloads_failed.get(),
        workers: site.workers,
        cpu_seconds_total: number("process_cpu_seconds_total"),
        resident_bytes: number("process_resident_memory_bytes"),
        open_fds: number("process_open_fds"),
        max_fds: number("process_max_fds"),
        panics_total: registry.panics.get(),
    }
}

/// How the process, its databases and what they need stand.
#[utoipa::path(get, path = "/api/services/status", responses((status = 200, description = "How things stand", body = Status)))]
pub(super) async fn status(State(site): Facts, _: NoParams) -> Json<Status> {
    let registry = &site.registry;
    let not_ready: Vec<Reason> = registry.not_ready().into_iter().map(reason).collect();
    let clients = site.listeners.iter().map(|address| Listener { of: "clients", address: address.clone() });
    let listeners = clients.chain([Listener { of: "stats", address: site.stats.clone() }]).collect();
    let remote = &registry.remote;
    Json(Status {
        ready: not_ready.is_empty(),
        not_ready,
        process: process(&site),
        listeners,
        connections: Connections {
            current: registry.seats.load(Relaxed),
            max: site.config.load().listen.max_client_conn,
            accepted_total: registry.accepts.get(),
            refused_total: registry.refused.get(),
            login_failures_total: registry.login_failures.get(),
        },
        databases: databases(&site),
        health: site.watch.health().into(),
        redis: remote.is_used().then(|| RedisStatus { connected_workers: remote.up.load(Relaxed) }),
    })
}
