//! What the workers and the exporter share: who has numbers, and the state of the process.
//! Never makes a registering worker wait for a reader: lists are replaced, not locked.

use std::sync::Arc;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64};
use std::time::{SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;

use super::cache::{CacheBound, CacheGauges, SignalNumbers, StreamNumbers, WarmNumbers};
use super::counters::{AuditNumbers, PoolCounters, SharedCounter, TraceNumbers, WorkerGauge};
use super::pins::{PinBoard, PinCounters, PinLog};
use super::remote::RemoteCounters;
use super::sample::PoolLabel;
use super::shapes::ShapeView;

/// Whether the primary of a database could be reached when last tried.
#[derive(Debug)]
pub struct DatabaseHealth {
    /// Name of the database as clients give it.
    pub database: Arc<str>,
    reachable: AtomicBool,
    reads_sequences: AtomicBool,
    code_changes: AtomicU64,
    schema_changes: AtomicU64,
    /// Of its changes, where answers hang on them.
    pub stream: StreamNumbers,
    /// How old its answers may be.
    pub bound: CacheBound,
    /// What was asked ahead for its cache.
    pub warm: WarmNumbers,
}

impl DatabaseHealth {
    /// Notes that a transaction has, or may have, changed functions, triggers and the like; any thread may call this.
    pub fn change_code(&self) {
        self.code_changes.fetch_add(1, Relaxed);
    }

    /// How many have.
    pub fn code_changes(&self) -> u64 {
        self.code_changes.load(Relaxed)
    }

    /// Notes that what statements name may be something else now; any thread may call this.
    pub fn change_schema(&self) {
        self.schema_changes.fetch_add(1, Release);
    }

    /// How often that was.
    pub fn schema_changes(&self) -> u64 {
        self.schema_changes.load(Acquire)
    }

    /// Notes that a client has read what it drew from a sequence, by currval or lastval; any thread may call this.
    pub fn set_reads_sequences(&self) {
        self.reads_sequences.store(true, Relaxed);
    }

    /// Whether any client ever has.
    pub fn reads_sequences(&self) -> bool {
        self.reads_sequences.load(Relaxed)
    }

    /// Notes the outcome of an attempt; any thread may call this.
    pub fn set_primary_reachable(&self, reachable: bool) {
        self.reachable.store(reachable, Relaxed);
    }

    /// The outcome of the last attempt; false before the first.
    pub fn primary_reachable(&self) -> bool {
        self.reachable.load(Relaxed)
    }
}

/// Why the process should get no new clients.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotReady {
    /// The listener is not open yet.
    NotListening,
    /// Shutting down.
    Draining,
    /// The primary of this database could not be reached when last tried.
    PrimaryUnreachable(Arc<str>),
}

/// Shared by `Arc` between the workers, the control thread and the exporter.
#[derive(Debug)]
pub struct Registry {
    shapes: ArcSwap<Vec<Arc<ShapeView>>>,
    pools: ArcSwap<Vec<Arc<PoolCounters>>>,
    databases: ArcSwap<Vec<Arc<DatabaseHealth>>>,
    prepared: ArcSwap<Vec<Arc<WorkerGauge>>>,
    pins: ArcSwap<Vec<Arc<PinCounters>>>,
    pinned: ArcSwap<Vec<Arc<PinBoard>>>,
    listening: AtomicBool,
    draining: AtomicBool,
    started: SystemTime,
    reload_success_unix_s: AtomicU64,
    /// Configurations loaded, the first one included if the caller says so.
    pub reloads_ok: SharedCounter,
    /// Configurations refused.
    pub reloads_failed: SharedCounter,
    /// Connections accepted.
    pub accepts: SharedCounter,
    /// Connections that have a place under `max_client_conn`, also before their login.
    pub seats: Arc<AtomicU32>,
    /// Connections refused before a login, for a limit.
    pub refused: SharedCounter,
    /// Failed logins of any kind, also of unknown users and databases, which have no pool to be counted in.
    pub login_failures: SharedCounter,
    /// Changes of plans with which a shape became slower, or faster.
    pub plan_changes: SharedCounter,
    /// Panics caught, each of which ended one connection.
    pub panics: SharedCounter,
    /// Which pins were written to the log.
    pub pin_log: PinLog,
    /// What the cache holds.
    pub cache: CacheGauges,
    /// What was said of it.
    pub signals: SignalNumbers,
    /// What the audit log has come to.
    pub audit: Arc<AuditNumbers>,
    /// What has become of spans.
    pub traces: Arc<TraceNumbers>,
    /// Of the cache that processes share.
    pub remote: Arc<RemoteCounters>,
}

impl Default for Registry {
    fn default() -> Self {
        Self::new()
    }
}

impl Registry {
    /// An empty registry, not listening, started now.
    pub fn new() -> Self {
        Self {
            shapes: ArcSwap::default(),
            pools: ArcSwap::default(),
            databases: ArcSwap::default(),
            prepared: ArcSwap::default(),
            pins: ArcSwap::default(),
            pinned: ArcSwap::default(),
            listening: AtomicBool::new(false),
            draining: AtomicBool::new(false),
            started: SystemTime::now(),
            reload_success_unix_s: AtomicU64::new(0),
            reloads_ok: SharedCounter::default(),
            reloads_failed: SharedCounter::default(),
            accepts: SharedCounter::default(),
            seats: Arc::default(),
            refused: SharedCounter::default(),
            login_failures: SharedCounter::default(),
            plan_changes: SharedCounter::default(),
            panics: SharedCounter::default(),
            pin_log: PinLog::default(),
            cache: CacheGauges::default(),
            signals: SignalNumbers::default(),
            audit: Arc::default(),
            traces: Arc::default(),
            remote: Arc::default(),
        }
    }

    /// Adds a worker's shapes.
    pub fn add_shapes(&self, view: Arc<ShapeView>) {
        push(&self.shapes, view);
    }

    /// Adds a worker's counters of one pool and returns them, to be written by that worker only.
    pub fn add_pool(&self, counters: PoolCounters) -> Arc<PoolCounters> {
        let counters = Arc::new(counters);
        push(&self.pools, Arc::clone(&counters));
        counters
    }

    /// Adds a worker's gauge of the bytes of prepared statements, to be set by that worker only.
    pub fn add_prepared(&self) -> Arc<WorkerGauge> {
        let gauge = Arc::new(WorkerGauge::default());
        push(&self.prepared, Arc::clone(&gauge));
        gauge
    }

    /// Bytes of prepared statements that the workers keep, all together.
    pub fn prepared_bytes(&self) -> u64 {
        self.prepared.load().iter().map(|worker| worker.0.get()).sum()
    }

    /// Adds a worker's numbers of the pinned clients of a database and user, to be written by that worker only.
    pub fn add_pins(&self, label: PoolLabel) -> Arc<PinCounters> {
        let counters = Arc::new(PinCounters::new(label));
        push(&self.pins, Arc::clone(&counters));
        counters
    }

    /// Forgets numbers that [`Registry::add_pins`] gave out.
    pub fn remove_pins(&self, counters: &Arc<PinCounters>) {
        self.pins.rcu(|all| all.iter().filter(|one| !Arc::ptr_eq(one, counters)).cloned().collect::<Vec<_>>());
    }

    /// All workers' numbers of pinned clients; the same label occurs once per worker that has it.
    pub fn pins(&self) -> Arc<Vec<Arc<PinCounters>>> {
        self.pins.load_full()
    }

    /// Clients of a database and user that keep a server, or may come to, on all workers.
    pub fn held_by(&self, label: &PoolLabel) -> u64 {
        self.pins.load().iter().filter(|one| one.label == *label).map(|one| one.held.get()).sum()
    }

    /// Adds a worker's list of pinned clients, to be written by that worker only.
    pub fn add_pin_board(&self) -> Arc<PinBoard> {
        let board = Arc::new(PinBoard::default());
        push(&self.pinned, Arc::clone(&board));
        board
    }

    /// All workers' lists of pinned clients.
    pub fn pin_boards(&self) -> Arc<Vec<Arc<PinBoard>>> {
        self.pinned.load_full()
    }

    /// Forgets the counters of a pool that was closed.
    pub fn remove_pool(&self, counters: &Arc<PoolCounters>) {
        self.pools.rcu(|pools| {
            let kept = pools.iter().filter(|pool| !Arc::ptr_eq(pool, counters));
            kept.cloned().collect::<Vec<_>>()
        });
    }

    /// Replaces the databases that readiness depends on; those already known keep their state. Called by one thread
    /// at a time (start and reload).
    pub fn set_databases(&self, names: impl IntoIterator<Item = Arc<str>>) {
        let known = self.databases.load();
        let find = |name: &Arc<str>| known.iter().find(|health| health.database == *name);
        let list = names.into_iter().map(|database| match find(&database) {
            Some(health) => Arc::clone(health),
            None => {
                let (reachable, reads_sequences) = Default::default();
                let (code_changes, schema_changes, stream, bound, warm) = Default::default();
                Arc::new(DatabaseHealth {
                    database,
                    reachable,
                    reads_sequences,
                    code_changes,
                    schema_changes,
                    stream,
                    bound,
                    warm,
                })
            }
        });
        self.databases.store(Arc::new(list.collect()));
    }

    /// The health cell of a database, to be kept by whoever connects to its primary.
    pub fn database(&self, name: &str) -> Option<Arc<DatabaseHealth>> {
        let databases = self.databases.load();
        databases.iter().find(|health| &*health.database == name).cloned()
    }

    /// All health cells.
    pub fn databases(&self) -> Arc<Vec<Arc<DatabaseHealth>>> {
        self.databases.load_full()
    }

    /// All workers' shapes.
    pub fn shapes(&self) -> Arc<Vec<Arc<ShapeView>>> {
        self.shapes.load_full()
    }

    /// What is shown of shapes counts anew from now on; what is exported goes on.
    pub fn reset_shapes(&self) {
        self.shapes.load().iter().for_each(|view| view.reset());
    }

    /// All workers' pools; the same target occurs once per worker that has it.
    pub fn pools(&self) -> Arc<Vec<Arc<PoolCounters>>> {
        self.pools.load_full()
    }

    /// Says whether the listeners are open.
    pub fn set_listening(&self, listening: bool) {
        self.listening.store(listening, Relaxed);
    }

    /// Says that the process is shutting down.
    pub fn set_draining(&self, draining: bool) {
        self.draining.store(draining, Relaxed);
    }

    /// Whether the process is shutting down.
    pub fn draining(&self) -> bool {
        self.draining.load(Relaxed)
    }

    /// Counts a reload of the configuration by its outcome, and notes the time of a good one.
    pub fn note_reload(&self, ok: bool) {
        if !ok {
            self.reloads_failed.add(1);
            return;
        }
        self.reloads_ok.add(1);
        self.reload_success_unix_s.store(unix_s(SystemTime::now()) as u64, Relaxed);
    }

    /// Time of the last good reload in seconds since 1970; the start if there was none.
    pub fn config_loaded_unix_s(&self) -> f64 {
        match self.reload_success_unix_s.load(Relaxed) {
            0 => self.started_unix_s(),
            at => at as f64,
        }
    }

    /// Start of the process in seconds since 1970.
    pub fn started_unix_s(&self) -> f64 {
        unix_s(self.started)
    }

    /// Every reason for which the process should get no new clients; empty if it is ready.
    pub fn not_ready(&self) -> Vec<NotReady> {
        let mut reasons = Vec::new();
        if !self.listening.load(Relaxed) {
            reasons.push(NotReady::NotListening);
        }
        if self.draining() {
            reasons.push(NotReady::Draining);
        }
        for health in self.databases.load().iter().filter(|h| !h.primary_reachable()) {
            reasons.push(NotReady::PrimaryUnreachable(Arc::clone(&health.database)));
        }
        reasons
    }
}

/// Appends to a shared list without a lock; several threads may do so at once.
fn push<T>(list: &ArcSwap<Vec<Arc<T>>>, item: Arc<T>) {
    list.rcu(|old| {
        let mut new = Vec::with_capacity(old.len() + 1);
        new.extend(old.iter().cloned());
        new.push(Arc::clone(&item));
        new
    });
}

fn unix_s(time: SystemTime) -> f64 {
    time.duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::meter::{PoolTarget, ShapeTable};

    fn target(user: &str) -> PoolTarget {
        PoolTarget { database: "db".into(), user: user.into(), host: "h:1".into(), pool: "default".into() }
    }

    #[test]
    fn workers_that_register_at_once_all_get_in() {
        let registry = Registry::new();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..50 {
                        registry.add_shapes(ShapeTable::new(1).view());
                        registry.add_pool(PoolCounters::new(target("u")));
                    }
                });
            }
        });
        assert_eq!((registry.shapes().len(), registry.pools().len()), (200, 200));
        let one = Arc::clone(&registry.pools()[7]);
        registry.remove_pool(&one);
        assert_eq!(registry.pools().len(), 199);
        assert!(!registry.pools().iter().any(|pool| Arc::ptr_eq(pool, &one)));
    }

    #[test]
    fn ready_only_when_listening_not_draining_and_every_primary_was_reached() {
        let registry = Registry::new();
        registry.set_databases(["a".into(), "b".into()]);
        let unreachable = |name: &str| NotReady::PrimaryUnreachable(name.into());
        assert_eq!(registry.not_ready(), [NotReady::NotListening, unreachable("a"), unreachable("b")]);
        registry.set_listening(true);
        registry.database("a").unwrap().set_primary_reachable(true);
        assert_eq!(registry.not_ready(), [unreachable("b")]);
        registry.set_databases(["a".into()]);
        assert_eq!(registry.not_ready(), [], "a known database keeps its state");
        registry.set_draining(true);
        assert_eq!(registry.not_ready(), [NotReady::Draining]);
    }
}
