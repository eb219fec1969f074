//! A database as one user sees it, and the pools of servers behind it.
//! Must never be looked up on the data path: connections know their number.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use super::floor::Positions;
use super::{ClientId, GroupId, PoolId, Relay, ServerId, Todo};
use crate::auth::scram::SaltedCache;
use crate::config::{Config, Database, Endpoint, Password, Routing, SslMode};
use crate::flow::params::Settings;
use crate::meter::{DatabaseHealth, PoolCounters, PoolLabel, PoolTarget, Role};
use crate::net::tls::{self, VerifyMode};
use crate::pool::slice::Slice;
use crate::server::open::{Dial, Parameters};
use crate::wire::error::{PgError, SqlState};

/// Settings of a session's start, shared by all sessions that have the same.
#[derive(Debug, Default)]
pub struct ParamSet {
    /// Name and value, sorted.
    pub settings: Settings,
    /// Those of them that can change what a statement's text means.
    pub meaning: Rc<Settings>,
    /// What a server reported when it first took them, over what it reports anyway. Present means
    /// that some server of the pool has accepted the settings, so they can be sent ahead of a
    /// request without waiting.
    pub reported: RefCell<Option<Parameters>>,
}

/// Settings of a session's start that no statement's meaning hangs on: they may differ between
/// clients that share a prepared statement.
const MEANINGLESS: [&[u8]; 6] = [
    b"application_name",
    b"client_min_messages",
    b"idle_in_transaction_session_timeout",
    b"idle_session_timeout",
    b"lock_timeout",
    b"statement_timeout",
];

impl ParamSet {
    fn new(settings: Settings, reported: Option<Parameters>) -> Self {
        let meant = settings.iter().filter(|(name, _)| !MEANINGLESS.contains(&&name[..])).cloned().collect();
        Self { settings, meaning: Rc::new(meant), reported: RefCell::new(reported) }
    }
}

/// A database as one user sees it.
pub struct Group {
    /// Name of the database as clients give it.
    pub(super) database: String,
    /// Name of the user.
    pub(super) user: String,
    /// Pool of the server that takes writes.
    pub(super) primary: PoolId,
    /// Pools of the servers that take reads; empty when routing is off.
    pub(super) replicas: Vec<PoolId>,
    /// Where the search for the least busy replica starts.
    pub(super) turn: usize,
    /// What servers report at their start.
    pub(super) base: Option<Parameters>,
    /// The settings of a server just opened: none.
    pub(super) no_params: Rc<ParamSet>,
    /// All settings in use.
    pub(super) sets: HashMap<Settings, Rc<ParamSet>>,
    /// How far the servers have come.
    pub(super) positions: Positions,
    /// Number in the statistics.
    pub(super) stats: u32,
    /// Taken out of the configuration or replaced: serves those who are here, nobody new.
    pub(super) retired: bool,
}

/// The servers of one host for one group.
pub struct Pool {
    /// Whose.
    pub(super) group: GroupId,
    /// Role of the host.
    pub(super) role: Role,
    /// How a connection is opened.
    pub dial: Rc<Dial>,
    /// Who waits and what rests.
    pub(super) slice: Slice<ClientId, ServerId>,
    /// Numbers.
    pub(super) counters: Arc<PoolCounters>,
    /// After a failure nothing is opened before this, microseconds.
    pub(super) retry_us: u64,
    /// Failures in a row.
    pub(super) failures: u32,
    /// Readiness of the database, told by the primary's pool.
    pub(super) health: Option<Arc<DatabaseHealth>>,
}

/// Most sets of settings remembered per group beyond those in use.
const MAX_SETS: usize = 1024;

impl Group {
    /// The shared form of `settings`.
    pub(super) fn intern(&mut self, settings: Settings) -> Rc<ParamSet> {
        if settings.is_empty() {
            return Rc::clone(&self.no_params);
        }
        if let Some(set) = self.sets.get(&settings) {
            return Rc::clone(set);
        }
        if self.sets.len() >= MAX_SETS {
            self.sets.retain(|_, set| Rc::strong_count(set) > 1);
        }
        let set = Rc::new(ParamSet::new(settings.clone(), None));
        self.sets.insert(settings, Rc::clone(&set));
        set
    }
}

impl Relay {
    /// The group of `database` and `user`, made at the first login.
    pub(super) fn group_for(&mut self, database: &str, user: &str) -> Result<GroupId, PgError> {
        let known = self.groups.iter().position(|g| !g.retired && g.database == database && g.user == user);
        if let Some(group) = known {
            return Ok(group);
        }
        let config = Arc::clone(&self.config);
        let Some(entry) = config.databases.get(database) else {
            let message = format!("database \"{database}\" does not exist");
            return Err(PgError::fatal(SqlState::INVALID_CATALOG_NAME, message));
        };
        let tls = tls_for(entry)?;
        let group = self.groups.len();
        let primary = self.add_pool(&config, group, entry, user, &entry.primary, Role::Primary, tls.as_ref());
        let readers: &[Endpoint] = if entry.routing == Routing::On { &entry.replicas } else { &[] };
        let replicas: Vec<PoolId> = readers
            .iter()
            .map(|endpoint| self.add_pool(&config, group, entry, user, endpoint, Role::Replica, tls.as_ref()))
            .collect();
        let positions = Positions::new(replicas.len());
        if !replicas.is_empty() {
            self.todo.push(Todo::Watch(group));
        }
        let label = PoolLabel { database: database.into(), user: user.into() };
        self.groups.push(Group {
            database: database.to_owned(),
            user: user.to_owned(),
            primary,
            replicas,
            turn: 0,
            base: None,
            no_params: Rc::new(ParamSet::new(Settings::new(), Some(Parameters::new()))),
            sets: HashMap::new(),
            positions,
            stats: self.shapes.add_pool(label),
            retired: false,
        });
        Ok(group)
    }

    #[allow(clippy::too_many_arguments, reason = "one call, all of it from one configuration entry")]
    fn add_pool(
        &mut self,
        config: &Config,
        group: GroupId,
        entry: &Database,
        user: &str,
        endpoint: &Endpoint,
        role: Role,
        tls: Option<&Arc<rustls::ClientConfig>>,
    ) -> PoolId {
        let (login, password): (&str, Option<&Password>) = match config.users.get(user) {
            Some(known) => entry.server_login(known),
            None => (user, None),
        };
        let dial = Dial {
            endpoint: endpoint.clone(),
            dbname: entry.dbname.clone(),
            user: login.to_owned(),
            password: password.cloned(),
            sslmode: entry.server_tls_sslmode,
            tls: tls.cloned(),
            tcp: config.listen.tcp,
            timeout: config.pool.server_connect_timeout,
            salted: RefCell::new(SaltedCache::new()),
        };
        let target = PoolTarget {
            database: entry.name.as_str().into(),
            user: user.into(),
            host: endpoint.to_string().into(),
            role,
        };
        let limit = limit_of(config, entry, user);
        self.pools.push(Pool {
            group,
            role,
            dial: Rc::new(dial),
            slice: Slice::new(limit),
            counters: self.registry.add_pool(PoolCounters::new(target)),
            retry_us: 0,
            failures: 0,
            health: if role == Role::Primary { self.registry.database(&entry.name) } else { None },
        });
        self.pools.len() - 1
    }

    /// Takes over a new configuration: groups whose database has changed serve their clients'
    /// transactions to the end and are then replaced; pool sizes change in place.
    pub fn reconfigure(&mut self, config: Arc<Config>) {
        let old = std::mem::replace(&mut self.config, config);
        let config = Arc::clone(&self.config);
        for index in 0..self.groups.len() {
            let group = &self.groups[index];
            if group.retired {
                continue;
            }
            let same = |before: &Database, after: &Database| {
                Database { pool_size: None, ..before.clone() } == Database { pool_size: None, ..after.clone() }
            };
            let (database, user) = (&group.database, &group.user);
            let unchanged = match (old.databases.get(database), config.databases.get(database)) {
                (Some(before), Some(after)) => {
                    same(before, after)
                        && old.users.get(user).map(|u| &u.password) == config.users.get(user).map(|u| &u.password)
                }
                _ => false,
            };
            if unchanged {
                self.resize(index);
            } else {
                self.retire(index);
            }
        }
    }

    fn resize(&mut self, group: GroupId) {
        let Some(this) = self.groups.get(group) else { return };
        let Some(entry) = self.config.databases.get(&this.database) else { return };
        let limit = limit_of(&self.config, entry, &this.user);
        let pools: Vec<PoolId> = std::iter::once(this.primary).chain(this.replicas.iter().copied()).collect();
        for pool in pools {
            self.pools[pool].slice.set_limit(limit);
            while let Some(server) = self.pools[pool].slice.excess() {
                self.discard_idle(server);
            }
            self.grow(pool);
        }
    }

    /// Nobody new comes in; clients move to the group's successor as they become idle.
    fn retire(&mut self, group: GroupId) {
        self.groups[group].retired = true;
        let pools: Vec<PoolId> =
            std::iter::once(self.groups[group].primary).chain(self.groups[group].replicas.iter().copied()).collect();
        for pool in pools {
            while let Some(&server) = self.pools[pool].slice.idle().first() {
                self.pools[pool].slice.remove_idle(&server);
                self.discard_idle(server);
            }
        }
        for id in self.servers.ids().collect::<Vec<_>>() {
            if let Some(server) = self.servers.get_mut(id)
                && self.pools[server.pool].group == group
            {
                server.retire = true;
            }
        }
    }
}

fn limit_of(config: &Config, entry: &Database, user: &str) -> usize {
    let size = match config.users.get(user) {
        Some(user) => config.pool_size(entry, user),
        None => entry.pool_size.unwrap_or(config.pool.default_pool_size),
    };
    size as usize
}

fn tls_for(entry: &Database) -> Result<Option<Arc<rustls::ClientConfig>>, PgError> {
    let verify = match entry.server_tls_sslmode {
        SslMode::Disable => return Ok(None),
        SslMode::Allow | SslMode::Prefer | SslMode::Require => VerifyMode::None,
        SslMode::VerifyCa => VerifyMode::Ca,
        SslMode::VerifyFull => VerifyMode::Full,
    };
    let identity = entry.server_tls_cert_file.as_deref().zip(entry.server_tls_key_file.as_deref());
    tls::client_config(verify, entry.server_tls_ca_file.as_deref(), identity).map(Some).map_err(|error| {
        PgError::fatal(SqlState::CONNECTION_FAILURE, format!("pgweir: TLS towards the server is not usable: {error}"))
    })
}
