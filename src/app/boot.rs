//! Brings everything up: sockets first, then workers, then the gate.
//! Must never leave half of it running: an error is returned before the first client is served.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::thread::JoinHandle;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::runtime::Builder;
use tokio::sync::mpsc;

use super::doors::{self, NotListening};
use crate::audit::{self, Desk, Writer};
use crate::cache::Caches;
use crate::config::Config;
use crate::export::{self, Guard};
use crate::gate::{self, Aside, Call, Gate, Onward, Order};
use crate::meter::Registry;
use crate::pool::cluster::Clusters;
use crate::pool::place::Place;
use crate::trace::{self, Courier};
use crate::wire::pid::WORKERS_MAX;
use crate::worker::{self, Beside, Hand, Mailbox, WeakMailbox};

/// Everything that runs.
pub struct Running {
    /// In force.
    pub config: Arc<Config>,
    /// Numbers.
    pub registry: Arc<Registry>,
    /// The hosts of databases.
    pub clusters: Arc<Clusters>,
    /// Answers that are kept.
    pub caches: Arc<Caches>,
    /// Where the audit log is handed in, and the task that is to write it.
    pub audit: (Arc<Desk>, Option<Writer>),
    /// Where traces are handed in, and the task that is to send them.
    pub traces: (Arc<trace::Desk>, Option<Courier>),
    /// To every worker.
    pub workers: Vec<Mailbox>,
    /// To the gate.
    pub gate: mpsc::UnboundedSender<Order>,
    /// Those who come to the console.
    pub visitors: Option<mpsc::UnboundedReceiver<Call>>,
    /// The HTTP socket, if any, and who may use it.
    pub stats: Option<(std::net::TcpListener, Arc<Guard>)>,
    /// What clients reach.
    pub listeners: Vec<String>,
    /// Ends when its mailbox is dropped.
    pub threads: Vec<JoinHandle<()>>,
}

/// Why the program cannot run.
#[derive(Debug, thiserror::Error)]
pub enum BootError {
    /// An address is taken, or not ours.
    #[error("{0}")]
    Listen(#[from] NotListening),
    /// The certificate for clients is of no use.
    #[error("{0}")]
    Tls(#[from] crate::net::tls::TlsError),
    /// The system refused a thread or randomness.
    #[error("{0}")]
    System(String),
}

impl From<std::io::Error> for BootError {
    fn from(error: std::io::Error) -> Self {
        Self::System(error.to_string())
    }
}

/// Starts the program.
///
/// # Errors
/// [`BootError`]; nothing is listening then.
pub fn boot(config: Config) -> Result<Running, BootError> {
    // redis and others may use rustls too: they all get the same provider.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    raise_descriptor_limit(&config);
    let config = Arc::new(config);
    let tls = gate::client_tls(&config)?;
    let stats_tls = export::server_tls(&config.stats)?;
    let doors = doors::open(&config)?;
    let stats = match doors.stats {
        Some(listener) => {
            let guard = Guard::new(&config.stats, stats_tls, listener.local_addr()?);
            Some((listener, Arc::new(guard)))
        }
        None => None,
    };
    let listeners = doors.clients.iter().map(doors::name).collect();
    let registry = Arc::new(Registry::new());
    name_databases(&registry, &config);
    let count = worker_count(&config);
    let (desk, writer) = audit::open(config.audit.as_ref(), &registry.audit).map_err(BootError::System)?;
    let (spans, courier) = trace::open(config.traces.as_ref(), &registry.traces);
    let shared = Place { workers: count, audit: Arc::new(desk), traces: Arc::new(spans), ..Place::alone() };
    let (workers, mails): (Vec<Mailbox>, Vec<_>) = (0..count).map(|_| mpsc::unbounded_channel()).unzip();
    let mut secret = [0; 32];
    aws_lc_rs::rand::fill(&mut secret).map_err(|_| BootError::System("the system gave no random bytes".into()))?;
    let aside = Aside::start(count.into())?;
    let (gate, orders) = mpsc::unbounded_channel();
    let weak: Vec<WeakMailbox> = workers.iter().map(Mailbox::downgrade).collect();
    let all: Arc<[WeakMailbox]> = weak.clone().into();
    let (of_gate, counts) = (Arc::clone(&config), Arc::clone(&registry));
    let (console, visitors) = mpsc::unbounded_channel();
    let open = move |hand: Option<Hand>| {
        let onward = Onward { workers: weak, hand, console };
        Gate::new(of_gate, tls, secret, onward, aside, counts).run(doors.clients, orders)
    };
    // A login on the thread where its client will live costs two switches of threads less. With several
    // workers there is no such thread, and none of them is to have more work than the others.
    let (mut beside, own): (Option<Beside>, _) =
        if count == 1 { (Some(Box::new(|hand| Box::pin(open(Some(hand))))), None) } else { (None, Some(open)) };
    let mut threads = Vec::new();
    for (worker, mail) in (0..count).zip(mails) {
        let place = Place { worker, ..shared.clone() };
        let (config, registry, all) = (Arc::clone(&config), Arc::clone(&registry), Arc::clone(&all));
        threads.push(worker::start(place, mail, config, registry, beside.take(), all)?);
    }
    if let Some(open) = own {
        threads.push(std::thread::Builder::new().name("gate".into()).spawn(move || {
            match Builder::new_current_thread().enable_all().build_local(Default::default()) {
                Ok(runtime) => runtime.block_on(open(None)),
                Err(error) => tracing::error!("the gate cannot start: {error}"),
            }
        })?);
    }
    registry.set_listening(true);
    let (clusters, caches, visitors) = (shared.clusters, shared.caches, Some(visitors));
    let (audit, traces) = ((shared.audit, Some(writer)), (shared.traces, Some(courier)));
    Ok(Running {
        config,
        registry,
        clusters,
        caches,
        audit,
        traces,
        workers,
        gate,
        visitors,
        stats,
        listeners,
        threads,
    })
}

/// Tells the statistics which databases there are, and how old their answers may be.
pub(super) fn name_databases(registry: &Registry, config: &Config) {
    registry.set_databases(config.databases.keys().map(|name| Arc::from(name.as_str())));
    for health in registry.databases().iter() {
        let bound = config.cache_bound(&health.database);
        health.bound.logical.store(config.logical(&health.database).is_some(), Relaxed);
        health.bound.fenced.store(config.fenced(&health.database), Relaxed);
        health.bound.us.store(bound.map_or(0, |bound| bound.as_micros() as u64), Relaxed);
    }
}

/// Half the cores unless configured: PostgreSQL and the clients often share the machine, and a
/// worker that is never idle is cheaper than two that keep waking up.
fn worker_count(config: &Config) -> u8 {
    let wanted = match config.workers {
        0 => std::thread::available_parallelism().map_or(1, |cores| cores.get() / 2),
        wanted => wanted,
    };
    wanted.clamp(1, WORKERS_MAX.into()) as u8
}

/// As many descriptors as the system allows; says so if that is fewer than clients may come.
fn raise_descriptor_limit(config: &Config) {
    let limit = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum }) {
        tracing::warn!("cannot raise the limit of open files: {error}");
    }
    let needed = u64::from(config.listen.max_client_conn) + 512;
    if limit.maximum.is_some_and(|maximum| maximum < needed) {
        tracing::warn!(
            "max_client_conn = {} may need {needed} open files, but the system allows {}",
            config.listen.max_client_conn,
            limit.maximum.unwrap_or(0)
        );
    }
}
