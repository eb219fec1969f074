//! Users that are looked up on the servers: connections of the gate's own, and answers believed for a while.
//! Must never use a connection of a client's pool, nor tell a client what a server said.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
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
    state: RefCell<State>,
}

#[derive(Default)]
struct State {
    /// By database and user.
    answers: HashMap<(String, String), Answer>,
    /// Connections at rest, by database.
    resting: HashMap<String, Vec<UserAsker>>,
    dials: HashMap<String, Rc<Dial>>,
    /// Databases whose server failed, and when.
    failed: HashMap<String, Instant>,
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
        Self { turns: Semaphore::new(CONNECTIONS), state: RefCell::default() }
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
        let Ok(_turn) = self.turns.acquire().await else { return Err(Unanswered) };
        // Whoever had the turn before may have asked for the same user.
        if let Some(known) = self.remembered(query, &database.name, user) {
            return Ok(known);
        }
        let failed = self.state.borrow().failed.get(&database.name).copied();
        if failed.is_some_and(|failed| failed.elapsed() < PAUSE) {
            return Err(Unanswered);
        }
        match self.ask_server(config, query, database, user).await {
            Ok(secret) => {
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
        let rested = self.state.borrow_mut().resting.get_mut(&database.name).and_then(Vec::pop);
        if let Some(mut asker) = rested
            && let Ok(secret) = asker.ask(&query.sql, user).await
        {
            self.rest(&database.name, asker);
            return Ok(secret);
        }
        // It may have died at rest: a new one tells.
        let dial = self.dial(config, query, database)?;
        let mut asker = UserAsker::connect(&dial).await?;
        let secret = asker.ask(&query.sql, user).await?;
        self.rest(&database.name, asker);
        Ok(secret)
    }

    fn dial(&self, config: &Config, query: &AuthQuery, database: &Database) -> Result<Rc<Dial>, OpenError> {
        let mut state = self.state.borrow_mut();
        if let Some(dial) = state.dials.get(&database.name) {
            return Ok(Rc::clone(dial));
        }
        let secret = ServerSecret::of(query.password.clone());
        let tls = crate::server::open::tls_of(database).map_err(|error| OpenError::Tls(error.to_string()))?;
        let dial = Dial::new(config, database, &database.primary, &query.user, secret, tls);
        let dial = Rc::new(Dial { startup: settings(), ..dial });
        state.dials.insert(database.name.clone(), Rc::clone(&dial));
        Ok(dial)
    }

    fn rest(&self, database: &str, asker: UserAsker) {
        self.state.borrow_mut().resting.entry(database.to_owned()).or_default().push(asker);
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

/// Database of the configuration on whose servers a user is looked up: as configured, else the one it asks for. One
/// that does not exist must not be told from one that does: any other is asked then, to no avail.
pub(super) fn place<'a>(config: &'a Arc<Config>, query: &AuthQuery, asked: &str) -> Option<(&'a Database, bool)> {
    let name = query.database.as_deref().unwrap_or(asked);
    match config.databases.get(name) {
        Some(database) => Some((database, true)),
        None => config.databases.values().next().map(|database| (database, false)),
    }
}
