//! The task that looks, and what it shows to others.
//! Must never stop looking because somebody cannot be told.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use tokio::sync::mpsc;

use super::board::{Alert, AlertState, Board};
use super::certificates::{Ending, endings};
use super::deliver::{self, Alarm, Outcome};
use super::findings::{Ground, Primaries, findings};
use super::history::{History, Point};
use super::reading::Reading;
use super::score::Health;
use super::way::{Home, Receiver, Way};
use crate::base::clock;
use crate::cache::Caches;
use crate::config::Config;
use crate::meter::{Registry, SharedCounter};
use crate::pool::cluster::Clusters;

/// Intervals over which shares are taken.
const WINDOW: usize = 12;
/// How often Alertmanager is told of what still fires: it takes for over what it does not hear of for 5 min (`resolve_timeout`).
const AGAIN_US: u64 = 60_000_000;

/// What became of messages, by kind and name of the receiver.
pub type Outcomes = BTreeMap<(&'static str, String), Arc<Outcome>>;

/// What is found, for whoever asks.
#[derive(Debug)]
pub struct Watch {
    registry: Arc<Registry>,
    caches: Arc<Caches>,
    home: Home,
    alerts: ArcSwap<Vec<Alert>>,
    points: ArcSwap<Vec<Arc<Point>>>,
    outcomes: ArcSwap<Outcomes>,
    /// How often it has looked.
    pub looks: SharedCounter,
}

impl Watch {
    /// Nothing found yet.
    #[must_use]
    pub fn new(
        (registry, caches): (Arc<Registry>, Arc<Caches>),
        clusters: Arc<Clusters>,
        config: Arc<Config>,
        instance: String,
    ) -> Arc<Self> {
        Arc::new(Self {
            registry,
            caches,
            home: Home { instance, clusters, config: Arc::new(ArcSwap::new(config)) },
            alerts: ArcSwap::default(),
            points: ArcSwap::default(),
            outcomes: ArcSwap::default(),
            looks: SharedCounter::default(),
        })
    }

    /// Looks by this configuration from now on.
    pub fn reconfigure(&self, config: Arc<Config>) {
        self.home.config.store(config);
    }

    /// All alerts: firing ones first, then pending, then those that are over.
    #[must_use]
    pub fn alerts(&self) -> Arc<Vec<Alert>> {
        self.alerts.load_full()
    }

    /// How well it goes.
    #[must_use]
    pub fn health(&self) -> Health {
        Health::of(&self.alerts.load())
    }

    /// The last hour, the oldest step first.
    #[must_use]
    pub fn points(&self) -> Arc<Vec<Arc<Point>>> {
        self.points.load_full()
    }

    /// What became of messages, by who was to get them.
    #[must_use]
    pub fn outcomes(&self) -> Arc<Outcomes> {
        self.outcomes.load_full()
    }

    /// Looks again and again; never returns.
    pub async fn run(self: Arc<Self>) {
        let mut look = Look::default();
        loop {
            let config = self.home.config.load_full();
            look.connect(&self, &config);
            let now_unix_s = unix_s();
            let now_us = clock::now_us().max(1);
            let changed = look.once(&self, &config, now_us, now_unix_s);
            self.alerts.store(Arc::new(look.board.all()));
            if let Some(points) = look.history.note(&self.registry, now_us, now_unix_s) {
                self.points.store(Arc::new(points));
            }
            look.tell(&changed, now_us, &self.outcomes());
            self.looks.add(1);
            tokio::time::sleep(config.alerts.interval).await;
        }
    }
}

/// A receiver's task.
struct Line {
    way: Way,
    alarms: mpsc::Sender<Alarm>,
}

/// What is remembered from one look to the next.
#[derive(Default)]
struct Look {
    readings: VecDeque<Reading>,
    board: Board,
    primaries: Primaries,
    history: History,
    endings: Vec<Ending>,
    /// Behind how many reloads files of certificates were read: those are in use until the next, whatever is in the files by now.
    read_at: Option<u64>,
    /// When was told again what fires.
    told_us: u64,
    lines: BTreeMap<Receiver, Line>,
    /// The configuration that they are of.
    connected: Option<Arc<Config>>,
}

impl Look {
    /// Looks once; the alerts that have begun to fire or are over.
    fn once(&mut self, watch: &Watch, config: &Config, now_us: u64, now_unix_s: f64) -> Vec<Alert> {
        let reloads = Some(watch.registry.reloads_ok.get());
        if self.read_at != reloads {
            (self.read_at, self.endings) = (reloads, endings(config));
        }
        let reading = Reading::take(&watch.registry, now_us);
        let traffic = self.readings.front().map(|oldest| reading.since(oldest)).unwrap_or_default();
        if self.readings.len() >= WINDOW {
            self.readings.pop_front();
        }
        self.readings.push_back(reading);
        let ground = Ground {
            registry: &watch.registry,
            clusters: &watch.home.clusters,
            caches: &watch.caches,
            config,
            traffic: &traffic,
            endings: &self.endings,
            now_us,
            now_unix_s,
        };
        let found = findings(&ground, &mut self.primaries);
        let changed = self.board.note(found, now_us, now_unix_s);
        for alert in &changed {
            match alert.state {
                AlertState::Firing => tracing::warn!(alert = alert.kind.name(), "{}", alert.summary()),
                AlertState::Pending | AlertState::Resolved => {
                    tracing::info!(alert = alert.kind.name(), "it is over: {}", alert.summary());
                }
            }
        }
        changed
    }

    /// Has a task for each receiver of the configuration; one that has changed is another.
    fn connect(&mut self, watch: &Watch, config: &Arc<Config>) {
        if self.connected.as_ref().is_some_and(|known| Arc::ptr_eq(known, config)) {
            return;
        }
        self.connected = Some(Arc::clone(config));
        let wanted = Way::all(&config.alerts);
        self.lines.retain(|receiver, line| wanted.get(receiver) == Some(&line.way));
        let mut outcomes = Outcomes::clone(&watch.outcomes.load());
        outcomes.retain(|receiver, _| wanted.contains_key(receiver));
        for (receiver, way) in wanted {
            if self.lines.contains_key(&receiver) {
                continue;
            }
            let (alarms, coming) = mpsc::channel(deliver::QUEUE_MAX);
            let outcome = Arc::clone(outcomes.entry(receiver.clone()).or_default());
            // A connection to PostgreSQL stays on its thread.
            let run = deliver::run(receiver.1.clone(), way.clone(), watch.home.clone(), outcome, coming);
            tokio::task::spawn_local(run);
            self.lines.insert(receiver, Line { way, alarms });
            // Whoever is new hears what fires already.
            self.told_us = 0;
        }
        watch.outcomes.store(Arc::new(outcomes));
    }

    /// Sends what has changed, and to who forgets what still fires.
    fn tell(&mut self, changed: &[Alert], now_us: u64, outcomes: &Outcomes) {
        let again = now_us.saturating_sub(self.told_us) >= AGAIN_US || self.told_us == 0;
        if again {
            self.told_us = now_us;
        }
        for (receiver, line) in &self.lines {
            let mut alarm = changed.to_vec();
            if again && line.way.forgets() {
                let firing = self.board.all().into_iter().filter(|alert| alert.state == AlertState::Firing);
                alarm.extend(firing.filter(|alert| !changed.contains(alert)));
            }
            if !alarm.is_empty() && line.alarms.try_send(alarm.into()).is_err() {
                outcomes.get(receiver).iter().for_each(|outcome| outcome.dropped.add(1));
            }
        }
    }
}

fn unix_s() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs_f64()
}
