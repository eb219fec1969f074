//! Single-writer counters and gauges, and the block of them that each pool keeps per worker.
//! Never uses an atomic read-modify-write on the data path; [`SharedCounter`] is for rare events.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use super::cache::CacheCounters;
use super::lanes::LaneCounters;

/// A number that only grows, with one writer and any number of readers.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Zero.
    pub const fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    /// Adds `n`; wraps at 2^64. Only the owning thread may call this.
    pub fn add(&self, n: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(n), Relaxed);
    }

    /// The present value.
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }

    /// For maxima inside this floor; a counter that is not a maximum is never set.
    pub(super) fn set(&self, value: u64) {
        self.0.store(value, Relaxed);
    }
}

/// A number that goes up and down, with one writer and any number of readers.
#[derive(Debug, Default)]
pub struct Gauge(AtomicU64);

impl Gauge {
    /// Zero.
    pub const fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    /// Replaces the value.
    pub fn set(&self, value: u64) {
        self.0.store(value, Relaxed);
    }

    /// `n` more.
    pub fn add(&self, n: u64) {
        self.set(self.get().saturating_add(n));
    }

    /// One more.
    pub fn inc(&self) {
        self.set(self.get().saturating_add(1));
    }

    /// One less; stays at zero, as a miscount must not show as 2^64 clients.
    pub fn dec(&self) {
        self.set(self.get().saturating_sub(1));
    }

    /// The present value.
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// A counter that any thread may add to, by an atomic read-modify-write: for rare events only.
#[derive(Debug, Default)]
pub struct SharedCounter(AtomicU64);

impl SharedCounter {
    /// Adds `n`.
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Relaxed);
    }

    /// The present value.
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// Lines of the audit log.
#[derive(Debug, Default)]
pub struct AuditNumbers {
    /// Written.
    pub entries: SharedCounter,
    /// Not, as they came too fast or could not be.
    pub lost: SharedCounter,
}

/// Spans of statements.
#[derive(Debug, Default)]
pub struct TraceNumbers {
    /// Taken by the collector.
    pub exported: SharedCounter,
    /// Not: they came faster than they could be sent, or could not be, or were refused.
    pub dropped: SharedCounter,
    /// Attempts to send that failed.
    pub failures: SharedCounter,
}

/// A gauge with a cache line of its own, for a worker that shows a number to the others.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct WorkerGauge(pub Gauge);

/// What the servers of a pool are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Takes writes.
    Primary,
    /// Takes reads only.
    Replica,
}

impl Role {
    /// The value of the `role` label.
    pub fn as_str(self) -> &'static str {
        match self {
            Role::Primary => "primary",
            Role::Replica => "replica",
        }
    }
}

/// Which pool a block of counters belongs to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PoolTarget {
    /// Name of the database as clients give it.
    pub database: Arc<str>,
    /// Name of the user.
    pub user: Arc<str>,
    /// Server address as configured (`host:port` or the path of a socket).
    pub host: Arc<str>,
    /// Name of the workload pool, or `default`.
    pub pool: Arc<str>,
}

/// Numbers of one pool (database, user, server) on one worker; readers add up the workers.
///
/// Numbers with a name of PgBouncer's `SHOW STATS` have its meaning: `total_received` counts message bytes from
/// clients, `total_sent` those from servers to clients, times are µs. What belongs to a database and user but to no
/// server (idle clients, logins) is kept in the block of the primary. 128-aligned: two workers' blocks never share a
/// cache line, nor a pair of lines that the prefetcher fetches together.
#[derive(Debug)]
#[repr(align(128))]
pub struct PoolCounters {
    /// Which pool.
    pub target: PoolTarget,
    /// Its server takes writes.
    is_primary: AtomicBool,
    /// Clients that hold a server of this pool.
    pub clients_active: Gauge,
    /// Clients queued for a server of this pool.
    pub clients_waiting: Gauge,
    /// Clients with no request under way.
    pub clients_idle: Gauge,
    /// Age of the oldest waiter in µs, 0 without one; set by the worker's sweep (PgBouncer: `maxwait`, `maxwait_us`).
    pub maxwait_us: Gauge,
    /// Clients whose notifications come over the connection that listens for all of them.
    pub clients_listening: Gauge,
    /// Channels that this connection listens to.
    pub channels_listened: Gauge,
    /// Servers held by a client.
    pub servers_active: Gauge,
    /// Servers ready to be taken.
    pub servers_idle: Gauge,
    /// Servers being connected or logged in.
    pub servers_connecting: Gauge,
    /// Statements prepared on servers of this pool; this and the next three are set by the worker's sweep.
    pub server_statements: Gauge,
    /// Bytes of their texts.
    pub server_statement_bytes: Gauge,
    /// Statements that clients have prepared by name.
    pub client_statements: Gauge,
    /// Bytes of their names and texts, as `max_client_prepared_bytes` counts them.
    pub client_statement_bytes: Gauge,
    /// Transactions finished, on servers: a read in a transaction that no server has is one of its own.
    pub total_xact_count: Counter,
    /// Clients' transactions that ended before any server had them.
    pub total_unopened_xacts: Counter,
    /// Statements finished.
    pub total_query_count: Counter,
    /// Message bytes received from clients.
    pub total_received: Counter,
    /// Message bytes relayed from servers to clients.
    pub total_sent: Counter,
    /// Time in transactions, µs.
    pub total_xact_time_us: Counter,
    /// Time in which a server worked on statements, µs.
    pub total_query_time_us: Counter,
    /// Time clients waited for a server, µs.
    pub total_wait_time_us: Counter,
    /// Times a server was given to a client.
    pub total_server_assignment_count: Counter,
    /// ErrorResponses of servers.
    pub total_errors: Counter,
    /// Named statements prepared by clients.
    pub total_client_parse_count: Counter,
    /// Named statements prepared on servers, also for re-preparing.
    pub total_server_parse_count: Counter,
    /// Statements refused for a limit in bytes.
    pub total_prepare_refusals: Counter,
    /// Batches run again because what a server had prepared was outdated.
    pub total_batch_repeats: Counter,
    /// Batches that a replica did not run, and the primary did.
    pub total_replica_refusals: Counter,
    /// Questions asked of servers about what a transaction has left in their session.
    pub total_session_questions: Counter,
    /// Questions asked of servers about the code of their database.
    pub total_catalog_reads: Counter,
    /// Binds of a named statement.
    pub total_bind_count: Counter,
    /// Notifications given to clients, each client counted, by the connection that listens for all of them.
    pub total_notifications: Counter,
    /// Those of them that had to wait for the end of their client's transaction, or for a slow client.
    pub total_notifications_queued: Counter,
    /// Notifications that a client did not get because too many waited for it.
    pub total_notifications_dropped: Counter,
    /// Clients that logged in.
    pub total_logins: Counter,
    /// Clients of a known database and user that failed to log in.
    pub total_login_failures: Counter,
    /// Clients that got no server within `query_wait_timeout`.
    pub total_query_wait_timeouts: Counter,
    /// Statements or idle transactions ended by a time limit of pgweir's.
    pub total_query_timeouts: Counter,
    /// Statements that took as long as `slow_query`.
    pub total_slow_queries: Counter,
    /// Statements refused because an operator has blocked their shape.
    pub total_blocked: Counter,
    /// Statements that servers ended for a deadlock (40P01).
    pub total_deadlocks: Counter,
    /// Cancel requests passed to a server.
    pub total_cancels: Counter,
    /// Server connections opened.
    pub total_server_opens: Counter,
    /// Server connections that could not be opened.
    pub total_server_open_failures: Counter,
    /// Server connections closed, for any reason.
    pub total_server_closes: Counter,
    /// Of servers that clients share.
    pub lanes: LaneCounters,
    /// Of answers that are kept.
    pub cache: CacheCounters,
}

impl PoolCounters {
    /// Role of the server.
    pub fn role(&self) -> Role {
        if self.is_primary.load(Relaxed) { Role::Primary } else { Role::Replica }
    }

    /// The server was seen to have this role.
    pub fn set_role(&self, role: Role) {
        self.is_primary.store(role == Role::Primary, Relaxed);
    }

    /// All zero.
    pub fn new(target: PoolTarget) -> Self {
        Self {
            target,
            is_primary: AtomicBool::new(false),
            clients_active: Gauge::default(),
            clients_waiting: Gauge::default(),
            clients_idle: Gauge::default(),
            maxwait_us: Gauge::default(),
            clients_listening: Gauge::default(),
            channels_listened: Gauge::default(),
            servers_active: Gauge::default(),
            servers_idle: Gauge::default(),
            servers_connecting: Gauge::default(),
            server_statements: Gauge::default(),
            server_statement_bytes: Gauge::default(),
            client_statements: Gauge::default(),
            client_statement_bytes: Gauge::default(),
            total_xact_count: Counter::new(),
            total_unopened_xacts: Counter::new(),
            total_query_count: Counter::new(),
            total_received: Counter::new(),
            total_sent: Counter::new(),
            total_xact_time_us: Counter::new(),
            total_query_time_us: Counter::new(),
            total_wait_time_us: Counter::new(),
            total_server_assignment_count: Counter::new(),
            total_errors: Counter::new(),
            total_client_parse_count: Counter::new(),
            total_server_parse_count: Counter::new(),
            total_prepare_refusals: Counter::new(),
            total_batch_repeats: Counter::new(),
            total_replica_refusals: Counter::new(),
            total_session_questions: Counter::new(),
            total_catalog_reads: Counter::new(),
            total_bind_count: Counter::new(),
            total_notifications: Counter::new(),
            total_notifications_queued: Counter::new(),
            total_notifications_dropped: Counter::new(),
            total_logins: Counter::new(),
            total_login_failures: Counter::new(),
            total_query_wait_timeouts: Counter::new(),
            total_query_timeouts: Counter::new(),
            total_slow_queries: Counter::new(),
            total_blocked: Counter::new(),
            total_deadlocks: Counter::new(),
            total_cancels: Counter::new(),
            total_server_opens: Counter::new(),
            total_server_open_failures: Counter::new(),
            total_server_closes: Counter::new(),
            lanes: LaneCounters::default(),
            cache: CacheCounters::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_never_share_a_cache_line() {
        assert_eq!(align_of::<PoolCounters>(), 128);
        assert_eq!(size_of::<PoolCounters>() % 128, 0);
    }

    #[test]
    fn a_gauge_never_goes_below_zero() {
        let gauge = Gauge::default();
        gauge.inc();
        gauge.dec();
        gauge.dec();
        assert_eq!(gauge.get(), 0);
    }
}
