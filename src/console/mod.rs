//! Floor 8: the virtual database `pgweir`: what operators ask, and what they have done.
//! Must never be waited for by a worker, nor show or do anything for who is not listed.
//!
//! The gate lets in who may ([`crate::gate::Visitor`]); the sessions live on the control thread. Numbers are read where the
//! stats port reads them, from what workers count; what only a worker's relay knows (its clients, its servers) it is asked for
//! by a message, in pages, so that nobody's transaction waits for a long list.

mod act;
mod ask;
mod block;
mod command;
mod extended;
mod invalidate;
mod lex;
pub mod route;
mod sample;
mod select;
mod session;
mod show;
mod table;
mod time;
mod view;
mod wire;

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use subtle::ConstantTimeEq;
use tokio::sync::{mpsc, oneshot};

use crate::cache::Caches;
use crate::config::Config;
use crate::gate::{Call, Order};
use crate::health::Watch;
use crate::meter::Registry;
use crate::pool::cluster::Clusters;
use crate::relay::blocked::Block;
use crate::wire::pid::{ClientPid, WORKERS_MAX};
use crate::worker::{Mailbox, WeakMailbox};

pub use command::How;

use sample::Samples;
use session::Seen;

/// What the console cannot do itself.
pub enum Request {
    /// Read the configuration again; the answer says what was wrong with it.
    Reload(oneshot::Sender<Result<(), String>>),
    /// Change a setting, named by its tables and its name, until the configuration is read again; the answer says what is wrong with the
    /// value.
    Set(Vec<&'static str>, String, oneshot::Sender<Result<(), String>>),
    /// Ask what is to be in the cache, for this database or for all; the answer says what is not there.
    Warm(Option<String>, oneshot::Sender<Result<(), String>>),
    /// End the program.
    Shutdown(How),
}

/// What the console is about. None of it keeps running what it belongs to.
pub struct About {
    /// Numbers.
    pub registry: Arc<Registry>,
    /// The hosts of databases.
    pub clusters: Arc<Clusters>,
    /// Answers that are kept.
    pub caches: Arc<Caches>,
    /// How well it goes.
    pub watch: Arc<Watch>,
    /// The workers.
    pub workers: Vec<WeakMailbox>,
    /// The gate.
    pub gate: mpsc::WeakUnboundedSender<Order>,
    /// Whoever can do a [`Request`].
    pub requests: mpsc::UnboundedSender<Request>,
}

/// How often is looked whether the sessions have ended.
const END: Duration = Duration::from_millis(5);

/// Databases whose clients get no server for the time being.
#[derive(Debug, Default)]
struct Paused {
    all: bool,
    databases: BTreeSet<String>,
}

/// Shapes that are blocked, by database; without one, in all.
type Blocked = BTreeMap<(u64, Option<String>), Arc<Block>>;

/// The console.
pub struct Console {
    about: About,
    config: RefCell<Arc<Config>>,
    sessions: RefCell<BTreeMap<u32, Rc<Seen>>>,
    /// The slot of the session that came last.
    last: Cell<u32>,
    samples: RefCell<Samples>,
    paused: RefCell<Paused>,
    disabled: RefCell<BTreeSet<String>>,
    /// What BLOCK SHAPE has named.
    blocked: RefCell<Blocked>,
    /// Commands that were executed.
    commands: Cell<u64>,
}

impl Console {
    /// With nobody in it.
    #[must_use]
    pub fn new(about: About, config: Arc<Config>) -> Rc<Self> {
        Rc::new(Self {
            about,
            config: RefCell::new(config),
            sessions: RefCell::default(),
            last: Cell::new(0),
            samples: RefCell::default(),
            paused: RefCell::default(),
            disabled: RefCell::default(),
            blocked: RefCell::default(),
            commands: Cell::new(0),
        })
    }

    /// Shows this configuration from now on.
    pub fn reconfigure(&self, config: Arc<Config>) {
        *self.config.borrow_mut() = config;
    }

    /// Serves whoever the gate lets in, until the gate is gone. To be run where tasks can be spawned that stay on their thread.
    pub async fn run(self: Rc<Self>, mut calls: mpsc::UnboundedReceiver<Call>) {
        let sampler = tokio::task::spawn_local(sample::run(Rc::clone(&self)));
        while let Some(call) = calls.recv().await {
            match call {
                Call::Visit(visitor) => drop(tokio::task::spawn_local(session::run(Rc::clone(&self), *visitor))),
                Call::Cancel { number, key, done } => {
                    let session = self.sessions.borrow().get(&number).cloned();
                    match session.filter(|session| session.key.ct_eq(&key).into()) {
                        Some(session) => session.cancelled.notify_waiters(),
                        None => drop(done.send(())),
                    }
                }
            }
        }
        sampler.abort();
    }

    /// Tells every session that the program ends, and waits until they have heard it.
    pub async fn end(&self) {
        self.sessions.borrow().values().for_each(|session| session.ended.notify_one());
        while !self.sessions.borrow().is_empty() {
            tokio::time::sleep(END).await;
        }
    }

    fn config(&self) -> Arc<Config> {
        Arc::clone(&self.config.borrow())
    }

    fn workers(&self) -> Vec<Mailbox> {
        self.about.workers.iter().filter_map(WeakMailbox::upgrade).collect()
    }

    /// A number for one more session: of a worker that only an instance with as many as there can be has.
    fn number(&self) -> u32 {
        let instance = self.config().listen.instance_id;
        loop {
            self.last.set((self.last.get() + 1) % 1000);
            let pid = ClientPid { instance, worker: WORKERS_MAX - 1, slot: self.last.get(), passed_on: false }.encode();
            if !self.sessions.borrow().contains_key(&pid) {
                return pid;
            }
        }
    }
}
