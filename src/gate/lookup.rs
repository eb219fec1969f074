//! Users that are looked up on the servers: connections of the gate's own, and answers believed for a while.
//! Must never use a connection of a client's pool, nor tell a client what a server said.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::{Rc, Weak};
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;

use crate::auth::ServerSecret;
use crate::base::secret::Secret;
use crate::config::{AuthQuery, Config, Database};
use crate::server::open::{Dial, OpenError};
use crate::server::user::{UserAsker, settings};

/// Most connections that ask at one time.
const CONNECTIONS: usize = 4;
/// Most answers remembered; a full memory is emptied.
const CAPACITY: usize = 16_384;
/// How long it is believed that there is no such user: a role just made should get in soon.
const ABSENT: Duration = Duration::from_secs(2);
/// How long a server that could not be asked is left alone.
const PAUSE: Duration = Duration::from_millis(500);
/// A secret that did not open is read again if its answer is older than this.
const YOUNG: Duration = Duration::from_secs(1);

/// By one configuration; a reload makes a new one.
pub(super) struct Lookup {
    turns: Semaphore,
    state: Rc<RefCell<State>>,
    /// How long the newest answer of a server took.
    took: Cell<Duration>,
}

#[derive(Default)]
struct State {
    /// By database and user.
    answers: HashMap<(String, String), Answer>,
    /// Connections at rest, by database.
    resting: HashMap<String, Vec<Resting>>,
    /// A task looks after them.
    swept: bool,
    /// To all servers of each database, the one to be tried first in front.
    dials: HashMap<String, Vec<Rc<Dial>>>,
    /// Databases whose server failed, and when.
    failed: HashMap<String, Instant>,
}

/// A connection at rest.
struct Resting {
    asker: UserAsker,
    opened: Instant,
    rested: Instant,
}

/// How old it may become, and how long it may rest: as connections of pools.
#[derive(Clone, Copy)]
struct Limits {
    lifetime: Option<Duration>,
    idle: Option<Duration>,
}

impl Limits {
    fn of(config: &Config) -> Self {
        Self { lifetime: config.pool.server_lifetime, idle: config.pool.server_idle_timeout }
    }

    fn allow(self, resting: &Resting) -> bool {
        let within = |since: Instant, limit: Option<Duration>| limit.is_none_or(|limit| since.elapsed() < limit);
        within(resting.opened, self.lifetime) && within(resting.rested, self.idle)
    }

    /// How often to look, so that none stays much longer.
    fn period(self) -> Option<Duration> {
        let shortest = self.lifetime.into_iter().chain(self.idle).min()?;
        Some((shortest / 4).clamp(Duration::from_millis(100), Duration::from_secs(10)))
    }
}

struct Answer {
    secret: Option<Secret>,
    since: Instant,
}

/// The server could not be asked; the log says why.
#[derive(Debug)]
pub(super) struct Unanswered;

impl Lookup {
    pub fn new() -> Self {
        Self { turns: Semaphore::new(CONNECTIONS), state: Rc::default(), took: Cell::default() }
    }

    /// For a user of a database that does not exist: takes as long as asking does, and asks nobody.
    pub async fn pretend(&self, query: &AuthQuery, database: &str, user: &str) {
        if self.remembered(query, database, user).is_some() {
            return;
        }
        let Ok(_turn) = self.turns.acquire().await else { return };
        tokio::time::sleep(self.took.get()).await;
        self.remember(database, user, None);
    }

    /// The secret of a user on the servers of a database.
    pub async fn ask(
        &self,
        config: &Config,
        query: &AuthQuery,
        database: &Database,
        user: &str,
    ) -> Result<Option<Secret>, Unanswered> {
        if let Some(known) = self.remembered(query, &database.name, user) {
            return Ok(known);
        }
        let began = Instant::now();
        let Ok(_turn) = self.turns.acquire().await else { return Err(Unanswered) };
        // Whoever had the turn before may have asked for the same user.
        if let Some(known) = self.remembered(query, &database.name, user) {
            return Ok(known);
        }
        let failed = self.state.borrow().failed.get(&database.name).copied();
        // Whoever waited while the server failed does not try it again.
        if failed.is_some_and(|failed| failed >= began || failed.elapsed() < PAUSE) {
            return Err(Unanswered);
        }
        let asked = Instant::now();
        match self.ask_server(config, query, database, user).await {
            Ok(secret) => {
                self.took.set(asked.elapsed());
                self.state.borrow_mut().failed.remove(&database.name);
                self.remember(&database.name, user, secret.clone());
                Ok(secret)
            }
            Err(error) => {
                tracing::warn!(database = database.name, "cannot look up users: {error}");
                self.state.borrow_mut().failed.insert(database.name.clone(), Instant::now());
                Err(Unanswered)
            }
        }
    }

    /// Forgets an answer that did not let its user in, unless it is young: the password may have been changed.
    pub fn doubt(&self, database: &str, user: &str) {
        let key = (database.to_owned(), user.to_owned());
        let mut state = self.state.borrow_mut();
        if state.answers.get(&key).is_some_and(|answer| answer.since.elapsed() > YOUNG) {
            state.answers.remove(&key);
        }
    }

    async fn ask_server(
        &self,
        config: &Config,
        query: &AuthQuery,
        database: &Database,
        user: &str,
    ) -> Result<Option<Secret>, OpenError> {
        let limits = Limits::of(config);
        let rested = self.state.borrow_mut().resting.get_mut(&database.name).and_then(Vec::pop);
        if let Some(Resting { mut asker, opened, .. }) = rested.filter(|resting| limits.allow(resting))
            && let Ok(secret) = asker.ask(&query.sql, user).await
        {
            self.rest(&database.name, asker, opened, limits);
            return Ok(secret);
        }
        // It may have died at rest: a new one tells.
        let opened = Instant::now();
        let mut asker = self.connect(config, query, database).await?;
        let secret = asker.ask(&query.sql, user).await?;
        self.rest(&database.name, asker, opened, limits);
        Ok(secret)
    }

    /// To the first server of the database that takes a connection: they all know its users. One that does not is tried
    /// last from then on.
    async fn connect(&self, config: &Config, query: &AuthQuery, database: &Database) -> Result<UserAsker, OpenError> {
        for _ in &database.replicas {
            let dial = self.dial(config, query, database)?;
            match UserAsker::connect(&dial).await {
                Err(error) if !error.is_permanent() => {
                    if let Some(dials) = self.state.borrow_mut().dials.get_mut(&database.name)
                        && dials.first().is_some_and(|first| Rc::ptr_eq(first, &dial))
                    {
                        dials.rotate_left(1);
                    }
                }
                outcome => return outcome,
            }
        }
        UserAsker::connect(&*self.dial(config, query, database)?).await
    }

    fn dial(&self, config: &Config, query: &AuthQuery, database: &Database) -> Result<Rc<Dial>, OpenError> {
        let mut state = self.state.borrow_mut();
        if let Some(dial) = state.dials.get(&database.name).and_then(|dials| dials.first()) {
            return Ok(Rc::clone(dial));
        }
        let secret = ServerSecret::of(query.password.clone());
        let tls = crate::server::open::tls_of(database).map_err(|error| OpenError::Tls(error.to_string()))?;
        let dial = |host| {
            let dial = Dial::new(config, database, host, &query.user, secret.clone(), tls.clone());
            Rc::new(Dial { startup: settings(), ..dial })
        };
        let first = dial(&database.primary);
        let others = database.replicas.iter().map(dial);
        state.dials.insert(database.name.clone(), std::iter::once(Rc::clone(&first)).chain(others).collect());
        Ok(first)
    }

    fn rest(&self, database: &str, asker: UserAsker, opened: Instant, limits: Limits) {
        let mut state = self.state.borrow_mut();
        let resting = Resting { asker, opened, rested: Instant::now() };
        state.resting.entry(database.to_owned()).or_default().push(resting);
        if let (Some(period), false) = (limits.period(), state.swept) {
            state.swept = true;
            tokio::task::spawn_local(sweep(Rc::downgrade(&self.state), limits, period));
        }
    }

    fn remembered(&self, query: &AuthQuery, database: &str, user: &str) -> Option<Option<Secret>> {
        let state = self.state.borrow();
        let answer = state.answers.get(&(database.to_owned(), user.to_owned()))?;
        let believed = if answer.secret.is_some() { query.cache } else { query.cache.min(ABSENT) };
        (answer.since.elapsed() < believed).then(|| answer.secret.clone())
    }

    fn remember(&self, database: &str, user: &str, secret: Option<Secret>) {
        let answers = &mut self.state.borrow_mut().answers;
        if answers.len() >= CAPACITY {
            answers.clear();
        }
        answers.insert((database.to_owned(), user.to_owned()), Answer { secret, since: Instant::now() });
    }
}

/// Closes connections that have rested too long or are too old, until none rests.
async fn sweep(state: Weak<RefCell<State>>, limits: Limits, period: Duration) {
    loop {
        tokio::time::sleep(period).await;
        let Some(state) = state.upgrade() else { return };
        let mut state = state.borrow_mut();
        state.resting.retain(|_, resting| {
            resting.retain(|one| limits.allow(one));
            !resting.is_empty()
        });
        if state.resting.is_empty() {
            state.swept = false;
            return;
        }
    }
}

/// Database of the configuration on whose servers a user is looked up: as configured, else the one it asks for. For
/// one that does not exist nobody is asked: servers of another would be opened for it. What it costs is feigned
/// ([`Lookup::pretend`]), so that a wrong name takes about as long as a right one; only where the servers themselves
/// cannot be asked does a client hear so for the right name alone.
pub(super) fn place<'a>(config: &'a Config, query: &AuthQuery, asked: &str) -> Option<&'a Database> {
    config.databases.get(query.database.as_deref().unwrap_or(asked))
}
