//! What may be set for all, for a database and for a user: modes, sizes and limits of a pool.
//! Must never be looked up on the data path: a pool has its terms resolved.

use std::time::Duration;

use super::cache::{CacheMode, Stale, Ttl};
use super::model::{Config, Pool};
use super::modes::{PoolMode, SessionState};
use super::stats::Measure;

/// What a database or a user sets for itself; `None`: what the wider level says.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Overrides {
    /// When a client gives its server back.
    pub pool_mode: Option<PoolMode>,
    /// What becomes of what a session leaves in its server.
    pub session_state: Option<SessionState>,
    /// Clients of a pool that may each keep a server; zero is no limit.
    pub max_pinned_servers: Option<u32>,
    /// Idle outside a transaction while keeping a server; zero is no limit.
    pub pin_idle_timeout: Option<Duration>,
    /// Connections to one server.
    pub pool_size: Option<u32>,
    /// Connections kept open.
    pub min_pool_size: Option<u32>,
    /// Connections beyond the pool size for clients that wait long.
    pub reserve_pool_size: Option<u32>,
    /// Each of these: zero is no limit.
    pub query_wait_timeout: Option<Duration>,
    /// Age at which a server connection is closed.
    pub server_lifetime: Option<Duration>,
    /// Idle outside a transaction.
    pub client_idle_timeout: Option<Duration>,
    /// Idle inside a transaction.
    pub idle_transaction_timeout: Option<Duration>,
    /// From the start of a transaction to its end.
    pub transaction_timeout: Option<Duration>,
    /// From the sending of a request to the end of its answer.
    pub query_timeout: Option<Duration>,
    /// A statement that takes as long is shown and logged; zero: none.
    pub slow_query: Option<Duration>,
    /// Whether statements are measured one by one.
    pub stats: Option<Measure>,
    /// Fast reads of several clients share servers.
    pub lanes: Option<bool>,
    /// How long answers are kept; of several times the shortest counts.
    pub cache_ttl: Option<Ttl>,
}

/// What holds for the pools of one database and user. `None` in a timeout: no limit.
#[derive(Clone, Debug, PartialEq)]
pub struct Terms {
    /// When a client gives its server back.
    pub pool_mode: PoolMode,
    /// What becomes of what a session leaves in its server.
    pub session_state: SessionState,
    /// Clients of the pool that may each keep a server; 0: no limit.
    pub max_pinned_servers: u32,
    /// Idle outside a transaction while keeping a server.
    pub pin_idle_timeout: Option<Duration>,
    /// Connections to one server.
    pub pool_size: u32,
    /// Connections kept open, at most `pool_size`.
    pub min_pool_size: u32,
    /// Connections beyond `pool_size` while a client has waited for `reserve_pool_timeout`.
    pub reserve_pool_size: u32,
    /// How long a client waits for a server.
    pub query_wait_timeout: Option<Duration>,
    /// Age at which a server connection is closed once free.
    pub server_lifetime: Option<Duration>,
    /// Idle outside a transaction.
    pub client_idle_timeout: Option<Duration>,
    /// Idle inside a transaction.
    pub idle_transaction_timeout: Option<Duration>,
    /// From the start of a transaction to its end.
    pub transaction_timeout: Option<Duration>,
    /// From the sending of a request to the end of its answer.
    pub query_timeout: Option<Duration>,
    /// A statement that takes as long, the wait for a server included, is shown and logged, microseconds; `u64::MAX`: none.
    pub slow_query_us: u64,
    /// Statements are measured one by one.
    pub measured: bool,
    /// Fast reads of several clients share servers.
    pub lanes: bool,
    /// Answers may be kept: what a session is, and what code may run, is known.
    pub caches: bool,
    /// How long at most, unless something narrower says less; `None`: they are not, unless it says so.
    pub cache_ttl: Option<Duration>,
    /// Answers are good until something of them has changed, and are given as long as what is known of that is no older; `None`: they are
    /// good for their time.
    pub cache_staleness: Option<Duration>,
    /// How much longer they do whose time is over.
    pub stale: Stale,
    /// Writes are fenced: answers are good until one of any pgweir has changed something of them.
    pub cache_fenced: bool,
}

impl Terms {
    /// Whether what differs can be changed under the clients that are there.
    #[must_use]
    pub fn is_like(&self, other: &Self) -> bool {
        (self.pool_mode, self.session_state) == (other.pool_mode, other.session_state)
    }

    /// Of `pool`, overridden by the database's, overridden by the user's: PgBouncer's precedence
    /// (`pool_pool_mode`, `pool_pool_size` in its src/server.c), here for every term.
    #[must_use]
    pub fn resolve(pool: &Pool, database: &Overrides, user: &Overrides) -> Self {
        macro_rules! number {
            ($key:ident, $default:expr) => {
                user.$key.or(database.$key).unwrap_or($default)
            };
        }
        macro_rules! limit {
            ($key:ident) => {
                match user.$key.or(database.$key) {
                    Some(limit) => (!limit.is_zero()).then_some(limit),
                    None => pool.$key,
                }
            };
        }
        let pool_size = number!(pool_size, pool.default_pool_size);
        // What a session is must be known, and what code may run.
        let is_seen_through = number!(pool_mode, pool.pool_mode) != PoolMode::Session
            && number!(session_state, pool.session_state) != SessionState::PgBouncer
            && pool.catalog_refresh.is_some();
        Self {
            pool_mode: number!(pool_mode, pool.pool_mode),
            session_state: number!(session_state, pool.session_state),
            max_pinned_servers: number!(max_pinned_servers, pool.max_pinned_servers),
            pin_idle_timeout: limit!(pin_idle_timeout),
            pool_size,
            min_pool_size: number!(min_pool_size, pool.min_pool_size).min(pool_size),
            reserve_pool_size: number!(reserve_pool_size, pool.reserve_pool_size),
            query_wait_timeout: limit!(query_wait_timeout),
            server_lifetime: limit!(server_lifetime),
            client_idle_timeout: limit!(client_idle_timeout),
            idle_transaction_timeout: limit!(idle_transaction_timeout),
            transaction_timeout: limit!(transaction_timeout),
            query_timeout: limit!(query_timeout),
            slow_query_us: limit!(slow_query).map_or(u64::MAX, |limit| limit.as_micros() as u64),
            measured: number!(stats, pool.stats) == Measure::On,
            lanes: number!(lanes, pool.lanes.on) && is_seen_through,
            caches: is_seen_through,
            cache_ttl: None,
            cache_staleness: None,
            stale: Stale::default(),
            cache_fenced: false,
        }
    }
}

impl Config {
    /// What holds for the pools of this database and user; names that are not configured have no
    /// overrides.
    #[must_use]
    pub fn terms(&self, database: &str, user: &str) -> Terms {
        let none = Overrides::default();
        let (logical, fenced, stale) = (self.logical(database), self.fenced(database), self.stale(database));
        let database = self.databases.get(database).map_or(&none, |database| &database.terms);
        let user = self.users.get(user).map_or(&none, |user| &user.terms);
        let mut terms = Terms::resolve(&self.pool, database, user);
        terms.caches &= self.cache.mode != CacheMode::Off;
        let said = [&self.cache.ttl, &database.cache_ttl, &user.cache_ttl].into_iter().flatten();
        terms.cache_ttl = said.map(|ttl| self.cache.time(ttl)).min();
        terms.cache_fenced = fenced;
        terms.cache_staleness = logical.map(|logical| logical.max_staleness);
        terms.stale = stale;
        terms
    }

    /// Most connections to the servers of a database, all users together; 0: no limit.
    #[must_use]
    pub fn max_db_connections(&self, database: &str) -> u32 {
        let own = self.databases.get(database).and_then(|database| database.max_db_connections);
        own.unwrap_or(self.pool.max_db_connections)
    }

    /// Most connections to servers for a user, all databases together; 0: no limit.
    #[must_use]
    pub fn max_user_connections(&self, user: &str) -> u32 {
        let own = self.users.get(user).and_then(|user| user.max_user_connections);
        own.unwrap_or(self.pool.max_user_connections)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_user_overrides_the_database_and_zero_is_no_limit() {
        let pool = Pool { query_timeout: Some(Duration::from_secs(9)), ..Pool::default() };
        let database = Overrides {
            pool_mode: Some(PoolMode::Session),
            pool_size: Some(5),
            min_pool_size: Some(9),
            query_timeout: Some(Duration::from_secs(3)),
            ..Overrides::default()
        };
        let user = Overrides { pool_size: Some(7), query_timeout: Some(Duration::ZERO), ..Overrides::default() };
        let terms = Terms::resolve(&pool, &database, &user);
        assert_eq!((terms.pool_mode, terms.pool_size, terms.min_pool_size), (PoolMode::Session, 7, 7));
        assert_eq!((terms.query_timeout, terms.query_wait_timeout), (None, pool.query_wait_timeout));
        let terms = Terms::resolve(&pool, &database, &Overrides::default());
        assert_eq!(terms.query_timeout, Some(Duration::from_secs(3)));
        let terms = Terms::resolve(&pool, &Overrides::default(), &Overrides::default());
        assert_eq!((terms.pool_mode, terms.query_timeout), (PoolMode::Transaction, pool.query_timeout));
    }
}
