//! The control thread: statistics over HTTP, signals, reload, the end.
//! Must never be waited for by a worker.

use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Builder;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::MissedTickBehavior;

use super::ask;
use super::boot::{BootError, Running, boot};
use super::discover::{self, Discovery, News};
use super::notify::{Notify, watchdog_period};
use super::reload::reload;
use super::warm_up::WarmUps;
use crate::config::{Config, ConfigFile, MAX_HOSTS, Roles};
use crate::console::{About, Console, How, Request};
use crate::export::{self, Exporter, Guard, Site};
use crate::gate::Order;
use crate::health::Watch;
use crate::server::probe::probe;
use crate::worker::{Mail, Mailbox};

/// How often primaries are asked whether they are there.
const PROBE_PERIOD: Duration = Duration::from_secs(5);
/// What the service manager shows.
const SERVING: &str = "serving clients";

/// What the program is told by signals.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

/// Starts the program and serves until a signal ends it.
///
/// # Errors
/// It cannot start, or the control thread itself cannot run.
pub fn run(config: Config, file: Option<ConfigFile>) -> Result<(), BootError> {
    // Sessions of the console stay on this thread.
    let runtime = Builder::new_current_thread().enable_all().build_local(Default::default())?;
    // Before anybody can see that it listens, and ask it to read its configuration again.
    let signals = {
        let _inside = runtime.enter();
        Signals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        }
    };
    let mut config = config;
    runtime.block_on(discover::fill(&mut config, None));
    let outcome = boot(config).and_then(|running| runtime.block_on(control(running, signals, file)));
    // A question for an address may be under way, which nobody waits for.
    runtime.shutdown_background();
    outcome
}

async fn control(mut running: Running, signals: Signals, mut file: Option<ConfigFile>) -> Result<(), BootError> {
    let Signals { mut terminate, mut interrupt, mut hangup } = signals;
    let health = watch_health(&running);
    let audit = running.audit.1.take().map(|writer| tokio::spawn(writer.run()));
    let traces = running.traces.1.take().map(|courier| tokio::spawn(courier.run()));
    let stats = serve_stats(&mut running, &health)?;
    let (console, mut requests) = open_console(&mut running, &health);
    let notify = Arc::new(Notify::from_env());
    let watchdog = watchdog_period().map(|period| watch(&running, Arc::clone(&notify), period));
    notify.ready(SERVING);
    let mut tick = tokio::time::interval(PROBE_PERIOD);
    let mut discovery = Discovery::new();
    discovery.watch(&running.config, &running.clusters);
    let mut warm_ups = WarmUps::default();
    warm_ups.begin(&running);
    let how = loop {
        let (mut answer, mut change) = (None, None);
        tokio::select! {
            _ = terminate.recv() => break None,
            _ = interrupt.recv() => break None,
            _ = hangup.recv() => {}
            Some(request) = requests.recv() => match request {
                Request::Reload(to) => answer = Some(to),
                Request::Set(setting, value, to) => (answer, change) = (Some(to), Some((setting, value))),
                Request::Warm(database, answer) => {
                    warm_ups.ask(database.as_deref(), answer);
                    continue;
                }
                Request::Shutdown(how) => break Some(how),
            },
            Some(news) = discovery.news() => {
                take_over(&mut running, news);
                reconfigured(&running, &console, &health, stats.as_ref());
                warm_ups.begin(&running);
                continue;
            }
            _ = tick.tick() => {
                probe_primaries(&running);
                continue;
            }
        }
        notify.reloading();
        let is_set = change.is_some();
        let outcome = reload(&mut running, stats.as_ref(), &mut file, change).await;
        discovery.watch(&running.config, &running.clusters);
        reconfigured(&running, &console, &health, stats.as_ref());
        // Nothing that SET changes is about them.
        if !is_set {
            warm_ups.begin(&running);
        }
        notify.ready(SERVING);
        answer.map(|answer| answer.send(outcome));
    };
    warm_ups.end();
    notify.stopping();
    if let Some(watchdog) = watchdog {
        // It has mailboxes of the threads, which end when the last one is dropped.
        watchdog.abort();
        let _ = watchdog.await;
    }
    let (desk, spans) = (Arc::clone(&running.audit.0), Arc::clone(&running.traces.0));
    shut_down(running, &console, how, &mut terminate, &mut interrupt).await;
    desk.end();
    spans.end();
    // What workers have handed in; a disk that hangs is not waited for, nor a collector.
    let handed_in = async {
        for task in audit.into_iter().chain(traces) {
            let _ = task.await;
        }
    };
    let _ = tokio::time::timeout(Duration::from_secs(5), handed_in).await;
    tracing::info!("bye");
    Ok(())
}

/// The stats port, as far as it follows the configuration.
pub(super) struct Stats {
    pub guard: Arc<Guard>,
    site: Arc<Site>,
}

/// Tells everybody on this thread which configuration is in force.
fn reconfigured(running: &Running, console: &Console, watch: &Watch, stats: Option<&Stats>) {
    console.reconfigure(Arc::clone(&running.config));
    watch.reconfigure(Arc::clone(&running.config));
    if let Some(stats) = stats {
        stats.site.reconfigure(Arc::clone(&running.config));
    }
}

/// Begins to look how well it goes.
fn watch_health(running: &Running) -> Arc<Watch> {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let port = running.listeners.first().and_then(|name| name.rsplit_once(':')).map_or("", |(_, port)| port);
    let instance = format!("{}:{port}", host.trim());
    let (found_in, clusters) =
        ((Arc::clone(&running.registry), Arc::clone(&running.caches)), Arc::clone(&running.clusters));
    let watch = Watch::new(found_in, clusters, Arc::clone(&running.config), instance);
    // It opens connections to servers, which stay on this thread.
    tokio::task::spawn_local(Arc::clone(&watch).run());
    watch
}

/// Serves the stats port, if there is to be one.
fn serve_stats(running: &mut Running, watch: &Arc<Watch>) -> Result<Option<Stats>, BootError> {
    let Some((listener, guard)) = running.stats.take() else { return Ok(None) };
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let scheme = if running.config.stats.tls_cert_file.is_some() { "https" } else { "http" };
    let url = format!("{scheme}://{}", listener.local_addr()?);
    tracing::info!("metrics on {url}/metrics");
    let (registry, clusters) = (Arc::clone(&running.registry), Arc::clone(&running.clusters));
    let exporter =
        Exporter::new(Arc::clone(&registry)).with_hosts(Arc::clone(&clusters)).with_alerts(Arc::clone(watch));
    let exporter = exporter.with_max_series(running.config.stats.max_series as usize);
    let exporter = Arc::new(exporter.with_cache(Arc::clone(&running.caches)));
    let insight = ask::insight(running.workers.iter().map(Mailbox::downgrade).collect());
    let place = (std::mem::take(&mut running.listeners), url, running.workers.len());
    let site = Arc::new(Site::new(registry, clusters, Arc::clone(&running.config), insight, Arc::clone(watch), place));
    let served = export::serve(listener, Arc::clone(&guard), exporter, Arc::clone(&site), std::future::pending());
    tokio::spawn(served);
    Ok(Some(Stats { guard, site }))
}

/// The console, and what it wants of this thread.
fn open_console(running: &mut Running, watch: &Arc<Watch>) -> (Rc<Console>, mpsc::UnboundedReceiver<Request>) {
    let (requests, wanted) = mpsc::unbounded_channel();
    let about = About {
        registry: Arc::clone(&running.registry),
        clusters: Arc::clone(&running.clusters),
        caches: Arc::clone(&running.caches),
        workers: running.workers.iter().map(Mailbox::downgrade).collect(),
        gate: running.gate.downgrade(),
        watch: Arc::clone(watch),
        requests,
    };
    let console = Console::new(about, Arc::clone(&running.config));
    if let Some(visitors) = running.visitors.take() {
        tokio::task::spawn_local(Rc::clone(&console).run(visitors));
    }
    (console, wanted)
}

/// Tells the service manager once per `period` that the gate and every worker have answered. One that
/// hangs ends that, and the service manager then ends the process.
fn watch(running: &Running, notify: Arc<Notify>, period: Duration) -> JoinHandle<()> {
    let (workers, gate) = (running.workers.clone(), running.gate.clone());
    tokio::spawn(async move {
        let mut beat = tokio::time::interval(period);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            beat.tick().await;
            let waits: Vec<_> = workers.iter().filter_map(|worker| ask(worker, Mail::Ping)).collect();
            let (done, gate_wait) = oneshot::channel();
            if gate.send(Order::Ping(done)).is_err() {
                return;
            }
            for wait in waits.into_iter().chain([gate_wait]) {
                let _ = wait.await;
            }
            notify.alive();
        }
    })
}

/// Asks every primary whether it is there, so that readiness is known before the first client and
/// without any. An answer that takes longer than the period is none. Where the servers of a database are asked anyway, for
/// its clients, that says more.
fn probe_primaries(running: &Running) {
    let watched: HashMap<_, _> = running.clusters.shown().into_iter().collect();
    for database in running.config.databases.values() {
        let Some(health) = running.registry.database(&database.name) else { continue };
        if let (Some(cluster), Roles::Found) = (watched.get(&database.name), database.roles) {
            health.set_primary_reachable(cluster.primary().is_some());
            continue;
        }
        // Which of those that were found out is the primary is not known; it will be if any of them is there.
        let hosts: Vec<_> =
            database.hosts().take(if database.discover.is_some() { MAX_HOSTS } else { 1 }).cloned().collect();
        tokio::spawn(async move {
            let mut failed = None;
            for host in &hosts {
                match probe(host, PROBE_PERIOD / hosts.len() as u32).await {
                    Ok(()) => return health.set_primary_reachable(true),
                    Err(error) => failed = Some((host, error)),
                }
            }
            if let (Some((host, error)), true) = (failed, health.primary_reachable()) {
                tracing::warn!(server = %host, "the primary does not answer: {error}");
            }
            health.set_primary_reachable(false);
        });
    }
}

/// The servers of a database are others than before.
fn take_over(running: &mut Running, news: News) {
    let Some(config) = news.into_config(&running.config) else { return };
    let config = Arc::new(config);
    let _ = running.gate.send(Order::Servers(Arc::clone(&config)));
    for worker in &running.workers {
        let _ = worker.send(Mail::Reload(Arc::clone(&config)));
    }
    running.config = config;
}

/// Nobody new; transactions go on to their end, but not beyond `shutdown_timeout`, or as long as the console has said. A
/// second signal ends it at once.
async fn shut_down(
    running: Running,
    console: &Console,
    how: Option<How>,
    terminate: &mut Signal,
    interrupt: &mut Signal,
) {
    let limit = match how {
        None => Some(running.config.shutdown_timeout),
        Some(How::AtOnce) => Some(Duration::ZERO),
        Some(How::WaitForServers | How::WaitForClients) => None,
    };
    match (how, limit) {
        (Some(How::WaitForClients), _) => tracing::info!("shutting down when all clients have left"),
        (_, Some(limit)) => {
            tracing::info!("shutting down: transactions may take up to {} s to finish", limit.as_secs_f32());
        }
        (_, None) => tracing::info!("shutting down when all transactions have finished"),
    }
    running.registry.set_draining(true);
    let _ = running.gate.send(Order::Close);
    let wait: fn(&Mailbox) -> Option<oneshot::Receiver<()>> =
        if how == Some(How::WaitForClients) { |worker| ask(worker, Mail::Await) } else { drain };
    let drained = async {
        let waits: Vec<_> = running.workers.iter().filter_map(wait).collect();
        for wait in waits {
            let _ = wait.await;
        }
    };
    let too_late = async {
        match limit {
            Some(limit) => tokio::time::sleep(limit).await,
            None => std::future::pending().await,
        }
    };
    let in_time = tokio::select! {
        () = drained => true,
        () = too_late => false,
        _ = terminate.recv() => false,
        _ = interrupt.recv() => false,
    };
    if !in_time {
        tracing::warn!("ending sessions that are still in a transaction");
        for worker in &running.workers {
            let _ = worker.send(Mail::CutOff);
        }
        let waits: Vec<_> = running.workers.iter().filter_map(drain).collect();
        for wait in waits {
            // Their last error needs a moment to leave.
            let _ = tokio::time::timeout(Duration::from_secs(1), wait).await;
        }
    }
    let _ = tokio::time::timeout(Duration::from_secs(1), console.end()).await;
    let Running { workers, gate, threads, .. } = running;
    drop((workers, gate));
    for thread in threads {
        let _ = thread.join();
    }
}

fn drain(worker: &Mailbox) -> Option<oneshot::Receiver<()>> {
    ask(worker, Mail::Drain)
}

/// Sends a worker something to be answered by dropping it; `None` if the worker is gone.
fn ask(worker: &Mailbox, what: impl FnOnce(oneshot::Sender<()>) -> Mail) -> Option<oneshot::Receiver<()>> {
    let (done, wait) = oneshot::channel();
    worker.send(what(done)).ok().map(|()| wait)
}
