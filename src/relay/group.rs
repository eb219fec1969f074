//! A database as one user sees it, and the pools of servers behind it.
//! Must never be looked up on the data path: connections know their number.

use std::collections::{HashMap, VecDeque};
use std::rc::Rc;
use std::sync::Arc;

use super::backoff::Backoff;
use super::balance::{Balancer, Pace};
use super::floor::Held;
use super::lane_count::LaneCount;
use super::listen::Listener;
pub use super::params::ParamSet;
use super::patience::Patience;
use super::rules::{Fitting, Rules};
use super::unopened::{Defers, defers};
use super::wrote::Wrote;
use super::{ClientId, GroupId, PoolId, Relay, ServerId, Todo};
use crate::auth::ServerSecret;
use crate::cache::key::Key;
use crate::cache::{Feed, Fence, Hearing, Tenant};
use crate::config::{
    Config, Consistency, Database, Overrides, OwnInvalidation, PoolMode, Reads, Routing, Terms, Workload,
};
use crate::flow::params::Settings;
use crate::meter::{DatabaseHealth, PinCounters, Place, PoolCounters, PoolLabel, Role, Target};
use crate::pool::budget::Stake;
use crate::pool::cluster::Cluster;
use crate::pool::slice::Slice;
use crate::server::open::{Dial, Parameters, tls_of};
use crate::wire::error::{PgError, SqlState};
use tokio::sync::Notify;

/// A database as one user sees it.
pub struct Group {
    /// Name of the database as clients give it.
    pub(super) database: String,
    /// Name of the user.
    pub(super) user: String,
    /// Mode, sizes and limits.
    pub(super) terms: Terms,
    /// Pool of the server that takes writes, or took them last.
    pub(super) primary: PoolId,
    /// Pools of its hosts, in the order of the cluster.
    pub(super) members: Vec<PoolId>,
    /// Pools of the workloads that were sent here, each as `members`; empty for those that were not.
    pub(super) workloads: Vec<Vec<PoolId>>,
    /// Rules that may be for its clients.
    pub(super) rules: Option<Rc<Rules>>,
    /// What is known of the hosts, and how much of it was taken over.
    pub(super) cluster: Arc<Cluster>,
    pub(super) seen: u64,
    /// Reads go to replicas.
    pub(super) splits: bool,
    /// Which transactions of its clients may begin on no server.
    pub(super) defers: Defers,
    /// What reads must show of what was there before.
    pub(super) consistency: Consistency,
    /// There are tables whose reads must show everything.
    pub(super) has_globals: bool,
    /// Clients that wait for one to catch up.
    pub(super) held: Vec<Held>,
    /// Whether that is worth while.
    pub(super) patience: Patience,
    /// Chooses among replicas.
    pub(super) balancer: Balancer,
    /// What the keys of its answers begin with.
    pub(super) key: Box<[u8]>,
    /// What those of processes that share answers have in common besides.
    pub(super) shared_with: Box<[u8]>,
    /// On whose account they are, once one was kept.
    pub(super) tenant: Option<Arc<Tenant>>,
    /// What is known of changes, once answers hang on that.
    pub(super) feed: Option<Arc<Feed>>,
    /// The fence around its database, once anything was asked of that.
    pub(super) fence: Option<Arc<Fence>>,
    /// Since when its database's notifications are heard, once answers hang on that.
    pub(super) hearing: Option<Arc<Hearing>>,
    /// What replicas must have whose answers are kept: the newest that anybody has said of answers.
    pub(super) signalled: Option<Wrote>,
    /// What servers report at their start.
    pub(super) base: Option<Parameters>,
    /// The settings of a server just opened: none.
    pub(super) no_params: Rc<ParamSet>,
    /// All settings in use.
    pub(super) sets: HashMap<Settings, Rc<ParamSet>>,
    /// Number of the catalog of its database's code.
    pub(super) catalog: usize,
    /// What listens for its clients, once one does.
    pub(super) listener: Option<Box<Listener>>,
    /// Settings in which clients that share a server may differ.
    pub(super) lane_settings: Rc<[String]>,
    /// Number of the primary's place in the statistics.
    pub(super) stats: u32,
    /// The same for what the process's own cache answers, and what the shared one does.
    pub(super) stats_kept: [u32; 2],
    /// A client has read what it drew from a sequence.
    pub(super) reads_sequences: bool,
    /// Numbers of clients that keep a server.
    pub(super) pins: Arc<PinCounters>,
    /// Taken out of the configuration or replaced: serves those who are here, nobody new.
    pub(super) retired: bool,
    /// Rung when the tasks that ask its servers are to end.
    pub(super) ended_bell: Rc<Notify>,
    /// Tasks that are asking its servers for something and will come back to it.
    pub(super) asks: usize,
    /// Its user is known no more: its sessions end between transactions.
    pub(super) ended: bool,
}

/// The servers of one host for one group.
pub struct Pool {
    /// Whose.
    pub(super) group: GroupId,
    /// Number of its place in the statistics while its host is a replica.
    pub(super) stats: u32,
    /// Number of the host in its cluster.
    pub(super) number: usize,
    /// Role of the host.
    pub(super) role: Role,
    /// It is not certain that the host takes writes: those wait until it is, or another does.
    pub(super) barred: bool,
    /// An operator has paused its database: nobody gets a server.
    pub(super) paused: bool,
    /// How a connection is opened.
    pub dial: Rc<Dial>,
    /// Who waits and what rests.
    pub(super) slice: Slice<ClientId, ServerId>,
    /// Those of its servers that are lanes, and take more.
    pub(super) lanes: Vec<ServerId>,
    /// How many there may be.
    pub(super) lane_count: LaneCount,
    /// Who was seen at the front of its queue by who looks after the lanes, and since when, microseconds.
    pub(super) front: (ClientId, u64),
    /// Its last lane has made room for who stands at the front.
    pub(super) owed: bool,
    /// Who stands in its queue only because there was no lane, or because its shape had stalled one: until then, microseconds, else 0.
    /// Oldest first; some may have left it.
    pub(super) hopefuls: VecDeque<(ClientId, u64)>,
    /// Its part of limits that it shares with other pools, and with its slices on other workers.
    pub(super) stakes: Vec<Stake>,
    /// Numbers.
    pub(super) counters: Arc<PoolCounters>,
    /// Why the last attempt to open a server failed, if it did.
    pub(super) failure: Option<Box<str>>,
    /// Pause after this user was refused.
    pub(super) pause: Backoff,
    /// Pause after its host could not be reached, shared by all pools of the host.
    pub(super) host: Rc<Backoff>,
    /// How long its host takes, shared likewise.
    pub(super) pace: Rc<Pace>,
    /// Readiness of the database, told by the primary's pool.
    pub(super) health: Option<Arc<DatabaseHealth>>,
    /// What it is for, if only clients come here whom a rule sends.
    pub(super) workload: Option<Rc<Workload>>,
}

impl Pool {
    /// Number of its place in the statistics.
    pub(super) fn stats(&self, group: &Group) -> u32 {
        match self.role {
            Role::Primary => group.stats,
            Role::Replica => self.stats,
        }
    }

    /// A server was opened: whatever was in the way is gone.
    pub(super) fn works(&mut self) {
        self.failure = None;
        self.pause.over();
        self.host.over();
    }

    /// Its clients get no server, whether there is one or not.
    pub(super) fn is_held(&self) -> bool {
        self.barred || self.paused
    }

    /// Nothing is to be tried yet.
    pub(super) fn pauses(&self, now_us: u64) -> bool {
        self.is_held() || self.is_backing_off(now_us)
    }

    /// After a failure none is tried yet.
    pub(super) fn is_backing_off(&self, now_us: u64) -> bool {
        self.pause.until_us().max(self.host.until_us()) > now_us
    }
}

impl Relay {
    /// The group of `database` and `user`, made at the first login. `secret` is what the login has brought to open
    /// servers with; `None` leaves what is known.
    pub(super) fn group_for(
        &mut self,
        database: &str,
        user: &str,
        secret: Option<ServerSecret>,
    ) -> Result<GroupId, PgError> {
        let known = self.named.get(database).and_then(|users| users.get(user));
        if let Some(&group) = known {
            self.refresh_secret(group, secret);
            return Ok(group);
        }
        let config = Arc::clone(&self.config);
        let Some(entry) = config.databases.get(database) else {
            let message = format!("database \"{database}\" does not exist");
            return Err(PgError::fatal(SqlState::INVALID_CATALOG_NAME, message));
        };
        let tls = tls_for(entry)?;
        let terms = config.terms(database, user);
        let group = self.groups.next();
        let cluster = self.place.clusters.of(entry);
        cluster.tell(&self.bell);
        let members: Vec<PoolId> =
            (0..).zip(entry.hosts()).map(|at| self.add_pool(&config, group, entry, user, at, tls.as_ref())).collect();
        let primary = members[0];
        // Only a transaction can be sent elsewhere than the one before.
        let splits = entry.routing == Routing::On && terms.pool_mode != PoolMode::Session && members.len() > 1;
        let defers = defers(entry, &terms, splits);
        let shared_with = super::remote::shared_with(&cluster, splits);
        let balancer = self.balancer_of(entry, group);
        let label = PoolLabel { database: database.into(), user: user.into() };
        let asks = if cluster.is_watched() || (terms.caches && self.cache.is_some()) { members.len() } else { 0 };
        if asks > 0 {
            self.todo.push(Todo::Watch(group));
        }
        let pins = self.pins_of(label.clone());
        let label = Arc::new(label);
        let place = |target| Place { pool: Arc::clone(&label), target };
        let pool = &self.pools[primary];
        let catalog = self.catalogs.number(entry.landmark(), &pool.dial.dbname, pool.health.as_ref());
        self.catalogs.set_globals(catalog, &entry.reads.global_tables);
        let rates = &self.place.rates;
        let rules = Rules::new(entry, user, |rule, rate| rates.bucket(database, &rule.name, rate)).map(Rc::new);
        let mut none = ParamSet::new(Settings::new(), Some(Parameters::new()));
        none.fitting = rules.as_ref().map_or_else(Fitting::default, |rules| rules.fitting(&none.settings));
        let group = self.groups.insert(Group {
            database: database.to_owned(),
            user: user.to_owned(),
            terms,
            primary,
            members,
            workloads: Vec::new(),
            rules,
            cluster,
            seen: 0,
            splits,
            defers,
            consistency: entry.reads.consistency,
            has_globals: !entry.reads.global_tables.is_empty(),
            held: Vec::new(),
            patience: Patience::default(),
            balancer,
            key: key_of(entry, user, &pool.dial),
            shared_with,
            tenant: None,
            feed: None,
            fence: None,
            hearing: None,
            signalled: None,
            base: None,
            no_params: Rc::new(none),
            sets: HashMap::new(),
            catalog,
            listener: None,
            lane_settings: config.pool.lanes.settings.clone().into(),
            stats: self.shapes.add_place(place(Target::Primary)),
            stats_kept: [Target::L1, Target::L2].map(|target| self.shapes.add_place(place(target))),
            reads_sequences: false,
            pins,
            retired: false,
            ended_bell: Rc::default(),
            asks,
            ended: false,
        });
        self.named.entry(database.into()).or_default().insert(user.into(), group);
        self.refresh_secret(group, secret);
        self.follow_cluster(group);
        Ok(group)
    }

    /// Lets the newest login's secret open the servers of a group, unless its database has a role of its own.
    fn refresh_secret(&self, group: GroupId, secret: Option<ServerSecret>) {
        let (Some(this), Some(secret)) = (self.groups.get(group), secret) else { return };
        if self.config.databases.get(&this.database).is_none_or(|entry| entry.user.is_some()) {
            return;
        }
        for &pool in &this.members {
            self.pools[pool].dial.secret.borrow_mut().refresh(secret.clone());
        }
        if this.cluster.primary().is_none() {
            this.cluster.hurry();
        }
    }

    /// What the successor of a retired group opens its servers with: nothing of it where the configuration itself
    /// has a secret for the user and it is another one now.
    pub(super) fn inherited_secret(&self, retired: GroupId) -> Option<ServerSecret> {
        let group = self.groups.get(retired)?;
        let entry = self.config.databases.get(&group.database)?;
        let dial = &self.pools.get(group.primary)?.dial;
        if entry.user.is_some() || dial.user != group.user {
            return None;
        }
        let secret = dial.secret.borrow().clone();
        let configured = self.config.users.get(&group.user).and_then(|user| user.password.as_ref());
        configured.is_none_or(|password| secret.stored.as_ref() == Some(password)).then_some(secret)
    }

    /// Takes over a new configuration: groups whose database has changed serve their clients'
    /// transactions to the end and are then replaced; pool sizes change in place.
    pub fn reconfigure(&mut self, config: Arc<Config>) {
        let old = std::mem::replace(&mut self.config, config);
        let config = Arc::clone(&self.config);
        self.cache = self.place.caches.of(&config.cache);
        // Every shape has another chance; what was seen of it before says nothing any more.
        self.doubts.clear();
        if let Some(store) = self.cache.as_ref().filter(|_| !old.invalidates_as(&config)) {
            // What was kept by another grade hangs on nothing that this one looks after.
            store.renew();
        }
        self.reach_remote(&config.cache);
        self.audit = super::audit::Auditor::of(config.audit.as_ref());
        self.tracer = super::spans::Tracer::of(config.traces.as_ref());
        self.repeats.reconfigure(config.stats.n_plus_one);
        self.plans.reconfigure(config.pool.plan_interval);
        for group in self.groups.ids().collect::<Vec<_>>() {
            self.groups[group].tenant = None;
            self.forget_feed(group);
            self.forget_fence(group);
            self.forget_hearing(group, &old.cache);
        }
        let mut read = HashMap::new();
        let before = self.retired.len();
        for index in self.groups.ids().collect::<Vec<_>>() {
            let group = &self.groups[index];
            if group.retired {
                continue;
            }
            // What can be changed in place is no difference.
            let lean = |database: &Database| Database {
                terms: Overrides {
                    pool_mode: database.terms.pool_mode,
                    session_state: database.terms.session_state,
                    ..Overrides::default()
                },
                invalidation: OwnInvalidation::default(),
                max_db_connections: None,
                reads: Reads::default(),
                ..database.clone()
            };
            let same = |before: &Database, after: &Database| lean(before) == lean(after);
            let (database, user) = (&group.database, &group.user);
            let (was, is) = (old.users.get(user), config.users.get(user));
            // Also who was looked up, when nobody is looked up any more.
            let gone = is.is_none() && (was.is_some() || config.auth.query.is_none());
            let taken =
                was.is_some_and(|user| user.password.is_some()) && is.is_none_or(|user| user.password.is_none());
            let unchanged = !gone
                && match (old.databases.get(database), config.databases.get(database)) {
                    (Some(before), Some(after)) => {
                        same(before, after)
                            && group.terms.is_like(&config.terms(database, user))
                            && was.map(|user| &user.password) == is.map(|user| &user.password)
                    }
                    _ => false,
                };
            if unchanged {
                self.renew_tls(index, &mut read);
                self.resize(index);
                self.rebalance(index);
            } else {
                let own_role = old.databases.get(database).is_some_and(|entry| entry.user.is_some());
                if taken && !own_role {
                    self.forget_secret(index);
                }
                // Whose database is gone too is told that, at its next request.
                let ended = gone && config.databases.contains_key(database);
                self.groups[index].ended = ended;
                self.retire(index);
            }
        }
        for group in self.retired.get(before..).unwrap_or_default().to_vec() {
            self.succeed(group);
        }
    }

    /// No server is opened any more with a secret that the configuration has taken away.
    fn forget_secret(&self, group: GroupId) {
        for pool in self.pools_of(group) {
            *self.pools[pool].dial.secret.borrow_mut() = ServerSecret::default();
        }
    }

    /// New connections of a group use what its TLS files say now, under the same names; each database's are read once.
    /// While they cannot be used, what they said before stays in force.
    fn renew_tls(&self, group: GroupId, read: &mut HashMap<String, Option<Arc<rustls::ClientConfig>>>) {
        let Some(this) = self.groups.get(group) else { return };
        let Some(entry) = self.config.databases.get(&this.database) else { return };
        let tls = read.entry(entry.name.clone()).or_insert_with(|| {
            let tls = tls_of(entry).inspect_err(|error| {
                tracing::error!(database = entry.name, "TLS towards the servers stays as it was: {error}");
            });
            tls.unwrap_or_default()
        });
        let Some(tls) = tls else { return };
        for &pool in &this.members {
            *self.pools[pool].dial.tls.borrow_mut() = Some(Arc::clone(tls));
        }
    }

    /// The pools of a group.
    pub(super) fn pools_of(&self, group: GroupId) -> Vec<PoolId> {
        self.groups[group].numbered().map(|(_, pool)| pool).collect()
    }
}

/// Whose answers are whose: the names that clients use, and who they are on which servers.
fn key_of(entry: &Database, user: &str, dial: &Dial) -> Box<[u8]> {
    let mut buffer = Vec::new();
    let mut key = Key::new(&mut buffer);
    let landmark = entry.landmark().to_string();
    for name in [&entry.name, user, &dial.dbname, &dial.user, &landmark] {
        key.field(name.as_bytes());
    }
    buffer.into()
}

fn tls_for(entry: &Database) -> Result<Option<Arc<rustls::ClientConfig>>, PgError> {
    tls_of(entry).map_err(|error| {
        PgError::fatal(SqlState::CONNECTION_FAILURE, format!("pgweir: TLS towards the server is not usable: {error}"))
    })
}
