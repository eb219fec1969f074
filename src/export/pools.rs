//! Metrics per pool (database, user, server, role), the workers' blocks of the same pool added up.
//! Never invents a number: each one is a field of `PoolCounters`.

use std::collections::BTreeMap;

use prometheus::proto::{LabelPair, MetricFamily, MetricType};

use super::family::{family, label, number};
use crate::meter::{Bypass, Miss, PoolCounters, PoolTarget, Registry, Role, Unfit, Unkept};

/// A number per pool and how it is shown.
struct Field {
    name: &'static str,
    help: &'static str,
    kind: MetricType,
    /// A label beside those of the pool; families with the same name stand next to each other.
    label: Option<(&'static str, &'static str)>,
    /// Multiplier to the base unit.
    scale: f64,
    get: fn(&PoolCounters) -> u64,
}

const fn count(name: &'static str, help: &'static str, get: fn(&PoolCounters) -> u64) -> Field {
    Field { name, help, kind: MetricType::COUNTER, label: None, scale: 1.0, get }
}

/// A time counted in µs, shown in seconds.
const fn time(name: &'static str, help: &'static str, get: fn(&PoolCounters) -> u64) -> Field {
    Field { scale: 1e-6, ..count(name, help, get) }
}

const fn clients(state: &'static str, get: fn(&PoolCounters) -> u64) -> Field {
    Field {
        kind: MetricType::GAUGE,
        label: Some(("state", state)),
        ..count("pgweir_pool_clients", "Clients by state.", get)
    }
}

const fn servers(state: &'static str, get: fn(&PoolCounters) -> u64) -> Field {
    Field {
        kind: MetricType::GAUGE,
        label: Some(("state", state)),
        ..count("pgweir_pool_servers", "Server connections by state.", get)
    }
}

const fn unfit(why: Unfit, get: fn(&PoolCounters) -> u64) -> Field {
    let help = "Batches that did not share a server, by reason; those of which it is not tried do not count.";
    Field { label: Some(("reason", why.name())), ..count("pgweir_pool_lane_unfit_total", help, get) }
}

const fn bypass(why: &'static str, get: fn(&PoolCounters) -> u64) -> Field {
    let help = "Batches for which the cache was not asked, by reason; none while it is off.";
    Field { label: Some(("reason", why)), ..count("pgweir_cache_bypasses_total", help, get) }
}

const fn miss(why: &'static str, get: fn(&PoolCounters) -> u64) -> Field {
    let help = "Batches whose answer the cache did not have, by reason.";
    Field { label: Some(("reason", why)), ..count("pgweir_cache_misses_total", help, get) }
}

const fn verified(outcome: &'static str, get: fn(&PoolCounters) -> u64) -> Field {
    let help = "Hits that were compared with the real answer instead of being given, and found right or explained.";
    Field { label: Some(("outcome", outcome)), ..count("pgweir_cache_verified_total", help, get) }
}

const fn stale(why: &'static str, get: fn(&PoolCounters) -> u64) -> Field {
    let help = "Hits whose time was over: another client was renewing the answer, or no server gave one.";
    Field { label: Some(("reason", why)), ..count("pgweir_cache_stale_total", help, get) }
}

const fn unkept(why: &'static str, get: fn(&PoolCounters) -> u64) -> Field {
    let help = "Answers that were not kept, by reason.";
    Field { label: Some(("reason", why)), ..count("pgweir_cache_unkept_total", help, get) }
}

/// Every number of a pool.
#[rustfmt::skip]
static FIELDS: [Field; 98] = [
    clients("active", |p| p.clients_active.get()),
    clients("waiting", |p| p.clients_waiting.get()),
    clients("idle", |p| p.clients_idle.get()),
    servers("active", |p| p.servers_active.get()),
    servers("idle", |p| p.servers_idle.get()),
    servers("connecting", |p| p.servers_connecting.get()),
    Field { kind: MetricType::GAUGE, ..time("pgweir_pool_oldest_wait_seconds", "Time the longest waiting client has waited for a server.", |p| p.maxwait_us.get()) },
    Field { kind: MetricType::GAUGE, ..count("pgweir_pool_server_statements", "Named statements prepared on server connections.", |p| p.server_statements.get()) },
    Field { kind: MetricType::GAUGE, ..count("pgweir_pool_server_statement_bytes", "Bytes of text of the statements prepared on server connections.", |p| p.server_statement_bytes.get()) },
    Field { kind: MetricType::GAUGE, ..count("pgweir_pool_client_statements", "Named statements that clients have prepared.", |p| p.client_statements.get()) },
    Field { kind: MetricType::GAUGE, ..count("pgweir_pool_client_statement_bytes", "Bytes of names and texts of the statements that clients have prepared.", |p| p.client_statement_bytes.get()) },
    Field { kind: MetricType::GAUGE, ..count("pgweir_pool_listening_clients", "Clients that share the connection that listens.", |p| p.clients_listening.get()) },
    Field { kind: MetricType::GAUGE, ..count("pgweir_pool_listened_channels", "Channels that the shared connection listens to.", |p| p.channels_listened.get()) },
    count("pgweir_pool_notifications_total", "Notifications given to clients by the shared connection.", |p| p.total_notifications.get()),
    count("pgweir_pool_notifications_queued_total", "Notifications that waited for a transaction's end or a slow client.", |p| p.total_notifications_queued.get()),
    count("pgweir_pool_notifications_dropped_total", "Notifications dropped because too many waited for a client.", |p| p.total_notifications_dropped.get()),
    count("pgweir_pool_transactions_total", "Transactions finished.", |p| p.total_xact_count.get()),
    count("pgweir_pool_unopened_transactions_total", "Clients' transactions that only read, each statement by itself: reads_in_transactions.", |p| p.total_unopened_xacts.get()),
    count("pgweir_pool_queries_total", "Statements finished.", |p| p.total_query_count.get()),
    count("pgweir_pool_received_bytes_total", "Message bytes received from clients.", |p| p.total_received.get()),
    count("pgweir_pool_sent_bytes_total", "Message bytes relayed from servers to clients.", |p| p.total_sent.get()),
    time("pgweir_pool_transaction_seconds_total", "Time spent in transactions.", |p| p.total_xact_time_us.get()),
    time("pgweir_pool_query_seconds_total", "Time servers worked on statements.", |p| p.total_query_time_us.get()),
    time("pgweir_pool_wait_seconds_total", "Time clients waited for a server.", |p| p.total_wait_time_us.get()),
    count("pgweir_pool_server_assignments_total", "Times a server was given to a client.", |p| p.total_server_assignment_count.get()),
    count("pgweir_pool_errors_total", "Errors reported by servers.", |p| p.total_errors.get()),
    count("pgweir_pool_client_parses_total", "Named statements prepared by clients.", |p| p.total_client_parse_count.get()),
    count("pgweir_pool_server_parses_total", "Named statements prepared on servers.", |p| p.total_server_parse_count.get()),
    count("pgweir_pool_prepare_refusals_total", "Prepared statements refused for a limit in bytes.", |p| p.total_prepare_refusals.get()),
    count("pgweir_pool_replica_refusals_total", "Batches that a replica did not run, and the primary did.", |p| p.total_replica_refusals.get()),
    count("pgweir_pool_batch_repeats_total", "Batches run again because what a server had prepared was outdated.", |p| p.total_batch_repeats.get()),
    count("pgweir_pool_session_questions_total", "Questions asked of servers about what a transaction has left in their session.", |p| p.total_session_questions.get()),
    count("pgweir_pool_catalog_reads_total", "Questions asked of servers about the code of their database.", |p| p.total_catalog_reads.get()),
    count("pgweir_pool_binds_total", "Binds of named statements.", |p| p.total_bind_count.get()),
    count("pgweir_pool_logins_total", "Clients that logged in.", |p| p.total_logins.get()),
    count("pgweir_pool_login_failures_total", "Clients of a known database and user that failed to log in.", |p| p.total_login_failures.get()),
    count("pgweir_pool_query_wait_timeouts_total", "Clients that got no server in time.", |p| p.total_query_wait_timeouts.get()),
    count("pgweir_pool_query_timeouts_total", "Statements or idle transactions ended by a time limit.", |p| p.total_query_timeouts.get()),
    count("pgweir_pool_slow_queries_total", "Statements that took as long as slow_query, shown or not.", |p| p.total_slow_queries.get()),
    count("pgweir_pool_blocked_statements_total", "Statements refused because an operator has blocked their shape.", |p| p.total_blocked.get()),
    count("pgweir_pool_deadlocks_total", "Statements that servers ended for a deadlock (40P01).", |p| p.total_deadlocks.get()),
    count("pgweir_pool_cancels_total", "Cancel requests passed to a server.", |p| p.total_cancels.get()),
    count("pgweir_pool_server_opens_total", "Server connections opened.", |p| p.total_server_opens.get()),
    count("pgweir_pool_server_open_failures_total", "Server connections that could not be opened.", |p| p.total_server_open_failures.get()),
    count("pgweir_pool_server_closes_total", "Server connections closed.", |p| p.total_server_closes.get()),
    Field { kind: MetricType::GAUGE, ..count("pgweir_pool_lanes", "Servers shared by fast reads of several clients.", |p| p.lanes.open.get()) },
    Field { kind: MetricType::GAUGE, ..count("pgweir_pool_lane_riders", "Reads that share a server.", |p| p.lanes.riders.get()) },
    count("pgweir_pool_lane_rides_total", "Reads answered by a shared server.", |p| p.lanes.rides.get()),
    time("pgweir_pool_lane_wait_seconds_total", "Time that reads stood behind others on a shared server.", |p| p.lanes.queued_us.get()),
    count("pgweir_pool_lane_writes_total", "Writes to shared servers, each of one read or of several.", |p| p.lanes.writes.get()),
    count("pgweir_pool_lane_repeats_total", "Reads run again alone because they failed on a shared server, or it was lost.", |p| p.lanes.repeats.get()),
    count("pgweir_pool_lane_stalls_total", "Reads that kept those behind them waiting for too long.", |p| p.lanes.stalls.get()),
    count("pgweir_pool_lane_resends_total", "Reads sent to another server from behind such.", |p| p.lanes.resends.get()),
    unfit(Unfit::Verdict, |p| p.lanes.unfit(Unfit::Verdict).get()),
    unfit(Unfit::Alone, |p| p.lanes.unfit(Unfit::Alone).get()),
    unfit(Unfit::Pipeline, |p| p.lanes.unfit(Unfit::Pipeline).get()),
    unfit(Unfit::Session, |p| p.lanes.unfit(Unfit::Session).get()),
    unfit(Unfit::Batch, |p| p.lanes.unfit(Unfit::Batch).get()),
    unfit(Unfit::Unknown, |p| p.lanes.unfit(Unfit::Unknown).get()),
    unfit(Unfit::Slow, |p| p.lanes.unfit(Unfit::Slow).get()),
    unfit(Unfit::Stalled, |p| p.lanes.unfit(Unfit::Stalled).get()),
    unfit(Unfit::NoServer, |p| p.lanes.unfit(Unfit::NoServer).get()),
    count("pgweir_cache_hits_total", "Batches answered from the cache.", |p| p.cache.hits.get()),
    count("pgweir_cache_followed_total", "Hits that waited for another client's read of the same, which ran once for all.", |p| p.cache.followed.get()),
    stale("updating", |p| p.cache.stale_updating.get()),
    stale("error", |p| p.cache.stale_error.get()),
    count("pgweir_cache_early_refreshes_total", "Answers that one client asked for anew near their end, while others were given them.", |p| p.cache.early.get()),
    count("pgweir_cache_hit_bytes_total", "Bytes of answers from the cache.", |p| p.cache.hit_bytes.get()),
    count("pgweir_cache_fills_total", "Answers kept.", |p| p.cache.fills.get()),
    count("pgweir_cache_shadow_matches_total", "In shadow mode: real answers that were what the cache would have given.", |p| p.cache.shadow_matches.get()),
    count("pgweir_cache_shadow_mismatches_total", "In shadow mode: real answers that were not.", |p| p.cache.shadow_mismatches.get()),
    verified("same", |p| p.cache.verified_same.get()),
    verified("changed", |p| p.cache.verified_changed.get()),
    count("pgweir_cache_mismatches_total", "Hits that were not the real answer though nothing had changed: their shape is kept no more.", |p| p.cache.mismatches.get()),
    miss("absent", |p| p.cache.miss(Miss::Absent).get()),
    miss("expired", |p| p.cache.miss(Miss::Expired).get()),
    miss("older", |p| p.cache.miss(Miss::Older).get()),
    miss("changed", |p| p.cache.miss(Miss::Changed).get()),
    miss("signalled", |p| p.cache.miss(Miss::Signalled).get()),
    bypass("verdict", |p| p.cache.bypass(Bypass::Verdict).get()),
    bypass("volatile", |p| p.cache.bypass(Bypass::Volatile).get()),
    bypass("moment", |p| p.cache.bypass(Bypass::Moment).get()),
    bypass("session", |p| p.cache.bypass(Bypass::Session).get()),
    bypass("batch", |p| p.cache.bypass(Bypass::Batch).get()),
    bypass("ttl", |p| p.cache.bypass(Bypass::Ttl).get()),
    bypass("stalled", |p| p.cache.bypass(Bypass::Stalled).get()),
    bypass("unpublished", |p| p.cache.bypass(Bypass::Unpublished).get()),
    bypass("untraced", |p| p.cache.bypass(Bypass::Untraced).get()),
    bypass("doubt", |p| p.cache.bypass(Bypass::Doubt).get()),
    bypass("disabled", |p| p.cache.bypass(Bypass::Disabled).get()),
    bypass("rare", |p| p.cache.bypass(Bypass::Rare).get()),
    unkept("long", |p| p.cache.unkept(Unkept::Long).get()),
    unkept("other", |p| p.cache.unkept(Unkept::Other).get()),
    unkept("untraced", |p| p.cache.unkept(Unkept::Untraced).get()),
    unkept("behind", |p| p.cache.unkept(Unkept::Behind).get()),
    unkept("once", |p| p.cache.unkept(Unkept::Once).get()),
    unkept("older", |p| p.cache.unkept(Unkept::Older).get()),
    // Last, as a family of its own made of the three gauges: what pgweir holds of a server's max_connections.
    Field { kind: MetricType::GAUGE, ..count("pgweir_pool_server_connections", "Server connections in any state.", |p| p.servers_active.get() + p.servers_idle.get() + p.servers_connecting.get()) },
];

/// Name and help of every family made here; names may repeat.
pub(super) fn families() -> impl Iterator<Item = (&'static str, &'static str)> {
    FIELDS.iter().map(|field| (field.name, field.help))
}

/// The numbers of a pool in the family of this name, by what its label says.
pub(super) fn by_reason(pool: &PoolCounters, family: &str) -> impl Iterator<Item = (&'static str, u64)> {
    let of_it = FIELDS.iter().filter(move |field| field.name == family);
    of_it.filter_map(|field| Some((field.label?.1, (field.get)(pool))))
}

fn labels(target: &PoolTarget, role: Role, more: Option<(&str, &str)>) -> Vec<LabelPair> {
    let mut labels = vec![
        label("database", &target.database),
        label("user", &target.user),
        label("host", &target.host),
        label("pool", &target.pool),
        label("role", role.as_str()),
    ];
    labels.extend(more.map(|(name, value)| label(name, value)));
    labels
}

/// All families of pools; empty ones if there is no pool.
pub(super) fn collect(registry: &Registry) -> Vec<MetricFamily> {
    let pools = registry.pools();
    let mut sums: BTreeMap<(&PoolTarget, Role), [u64; FIELDS.len()]> = BTreeMap::new();
    for pool in pools.iter() {
        let sum = sums.entry((&pool.target, pool.role())).or_insert([0; FIELDS.len()]);
        for (total, field) in sum.iter_mut().zip(&FIELDS) {
            let value = (field.get)(pool);
            // Waits do not add up: the oldest of all workers is the oldest.
            let is_maximum = field.name == "pgweir_pool_oldest_wait_seconds";
            *total = if is_maximum { value.max(*total) } else { *total + value };
        }
    }
    let mut families: Vec<MetricFamily> = Vec::new();
    for (at, field) in FIELDS.iter().enumerate() {
        let metrics = sums.iter().map(|((target, role), sum)| {
            let value = sum.get(at).copied().unwrap_or(0) as f64 * field.scale;
            number(field.kind, labels(target, *role, field.label), value)
        });
        match families.last_mut() {
            Some(last) if last.name() == field.name => last.mut_metric().extend(metrics),
            Some(_) | None => {
                families.push(family(field.name, field.help, field.kind, metrics.collect()));
            }
        }
    }
    families
}
