//! Floor 7: accepts, negotiates and authenticates, and hands clients to workers.
//! Must never see a query: whoever has logged in is a worker's affair.

mod accept;
mod aside;
mod authenticate;
mod bans;
mod caller;
mod cancel;
mod entry;
mod homes;
mod knock;
mod login;
mod lookup;
mod mocking;
mod peer;
mod places;
mod proxied;
mod rate;
mod shortage;
mod visit;

use std::cell::RefCell;
use std::collections::HashSet;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;

use tokio::sync::{mpsc, oneshot};

use crate::auth::{Key, VerifierCache};
use crate::config::{Config, TlsMode};
use crate::meter::Registry;
use crate::net::listen::Listener;
use crate::net::tls;
use crate::worker::{Hand, WeakMailbox};

use accept::Door;
pub use aside::Aside;
use bans::Bans;
use lookup::Lookup;
use places::Places;
use rate::Rates;
pub use visit::{Call, Rights, Visitor};

/// What the control thread tells the gate.
pub enum Order {
    /// From now on by this configuration, whose certificate is already read.
    Reload(Arc<Config>, Option<Arc<tls::Listener>>),
    /// The same configuration with other servers.
    Servers(Arc<Config>),
    /// Shows that the gate runs: it drops this.
    Ping(oneshot::Sender<()>),
    /// Let nobody new into this database, or let them in again.
    Disable(String, bool),
    /// Accept nobody any more.
    Close,
}

/// Where whoever comes in goes on to.
pub struct Onward {
    /// The workers. Not kept alive by logins that are under way: a worker ends when it has no mailbox any more.
    pub workers: Vec<WeakMailbox>,
    /// To the one worker there is, when the gate runs on its thread.
    pub hand: Option<Hand>,
    /// To the console.
    pub console: mpsc::UnboundedSender<Call>,
}

/// What the logins of a gate share.
pub struct Gate {
    config: RefCell<Arc<Config>>,
    tls: RefCell<Option<Arc<tls::Listener>>>,
    verifiers: RefCell<VerifierCache>,
    bans: RefCell<Bans>,
    lookup: RefCell<Rc<Lookup>>,
    /// See [`Onward`].
    workers: Vec<WeakMailbox>,
    hand: Option<Hand>,
    console: mpsc::UnboundedSender<Call>,
    /// Sessions of the console.
    visitors: Arc<AtomicU32>,
    /// Databases that nobody new is let into.
    disabled: RefCell<HashSet<String>>,
    aside: Aside,
    homes: homes::Homes,
    seats: Arc<AtomicU32>,
    /// Connections beyond `max_client_conn`, let in far enough to cancel or to be told.
    standing: Arc<AtomicU32>,
    /// Cancel requests under way to other instances.
    passing_on: Arc<AtomicU32>,
    /// Clients by database and by user.
    of_databases: Places,
    of_users: Places,
    /// New connections by address, new sessions by user, wrong cancel keys by address.
    connections: Rates,
    sessions: Rates,
    wrong_keys: Rates,
    instances: cancel::Instances,
    /// What cancel keys of this process say; a reload does not change it.
    instance: u8,
    registry: Arc<Registry>,
}

/// TLS for clients as configured; `None` when there is none.
///
/// # Errors
/// The certificate or key is not usable; says which and why.
pub fn client_tls(config: &Config) -> Result<Option<Arc<tls::Listener>>, tls::TlsError> {
    let files: Option<(&PathBuf, &PathBuf)> =
        config.listen.client_tls_cert_file.as_ref().zip(config.listen.client_tls_key_file.as_ref());
    match (config.listen.client_tls_sslmode, files) {
        (TlsMode::Disable, _) | (_, None) => Ok(None),
        (_, Some((cert, key))) => tls::listener(cert, key, config.listen.client_tls_ca_file.as_deref()).map(Some),
    }
}

impl Gate {
    /// A gate that leads `onward`; with a `hand` on the thread of the only worker, else on its own. `secret` makes what
    /// unknown users are shown unguessable.
    pub fn new(
        config: Arc<Config>,
        tls: Option<Arc<tls::Listener>>,
        secret: Key,
        onward: Onward,
        aside: Aside,
        registry: Arc<Registry>,
    ) -> Rc<Self> {
        let instance = config.listen.instance_id;
        let Onward { workers, hand, console } = onward;
        let gate = Self {
            config: RefCell::new(config),
            tls: RefCell::new(tls),
            verifiers: RefCell::new(VerifierCache::new(secret)),
            bans: RefCell::default(),
            lookup: RefCell::new(Rc::new(Lookup::new())),
            workers,
            hand,
            console,
            visitors: Arc::default(),
            disabled: RefCell::default(),
            aside,
            homes: homes::Homes::default(),
            seats: Arc::clone(&registry.seats),
            standing: Arc::new(AtomicU32::new(0)),
            passing_on: Arc::new(AtomicU32::new(0)),
            of_databases: Places::default(),
            of_users: Places::default(),
            connections: Rates::default(),
            sessions: Rates::default(),
            wrong_keys: Rates::default(),
            instances: cancel::Instances::default(),
            instance,
            registry,
        };
        Rc::new(gate)
    }

    fn config(&self) -> Arc<Config> {
        Arc::clone(&self.config.borrow())
    }

    /// From now on by `config`. Computes what plaintext passwords are checked with before, so that a first
    /// login takes no longer than that of an unknown user.
    async fn reconfigure(&self, config: Arc<Config>, tls: Option<Arc<tls::Listener>>) {
        let mut cache = self.verifiers.borrow().renewed();
        let users = Arc::clone(&config);
        let derived = self.aside.compute(move || {
            mocking::rekey(&mut cache, &users);
            for user in users.users.values() {
                let secrets: Vec<&str> = user.passwords().map(|password| password.secret().expose()).collect();
                cache.prepare(&user.name, &secrets);
            }
            cache
        });
        match derived.await {
            Ok(cache) => *self.verifiers.borrow_mut() = cache,
            Err(error) => tracing::error!("passwords are prepared as clients come: {error}"),
        }
        *self.tls.borrow_mut() = tls;
        self.serve(config);
    }

    fn serve(&self, config: Arc<Config>) {
        *self.config.borrow_mut() = config;
        *self.lookup.borrow_mut() = Rc::new(Lookup::new());
    }

    /// Accepts on `listeners` until told to close.
    pub async fn run(self: Rc<Self>, listeners: Vec<Listener>, mut orders: mpsc::UnboundedReceiver<Order>) {
        let (config, tls) = (self.config(), self.tls.borrow().clone());
        self.reconfigure(config, tls).await;
        let mut accepting = Vec::new();
        for listener in listeners {
            match Door::new(listener, &self.config().listen.tcp) {
                Ok(door) => accepting.push(tokio::task::spawn_local(accept::accept(Rc::clone(&self), door))),
                Err(error) => tracing::error!("a listening socket is of no use: {error}"),
            }
        }
        while let Some(order) = orders.recv().await {
            match order {
                Order::Reload(config, tls) => self.reconfigure(config, tls).await,
                Order::Servers(config) => self.serve(config),
                Order::Disable(database, true) => drop(self.disabled.borrow_mut().insert(database)),
                Order::Disable(database, false) => drop(self.disabled.borrow_mut().remove(&database)),
                Order::Ping(done) => drop(done),
                Order::Close => accepting.drain(..).for_each(|task| task.abort()),
            }
        }
    }
}
