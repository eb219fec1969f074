//! The pools of a group: on each host one for everybody, and one for each workload to which a rule has sent somebody.
//! Must never be made for a workload of which nobody has come.

use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use super::backoff::Backoff;
use super::group::{Group, Pool};
use super::lane_count::LaneCount;
use super::{GroupId, PoolId, Relay};
use crate::auth::ServerSecret;
use crate::config::{Config, DEFAULT_POOL, Database, Endpoint, Password, Workload};
use crate::meter::{Place, PoolLabel, PoolTarget, Role, Target};
use crate::pool::slice::{Size, Slice};
use crate::server::open::Dial;

impl Group {
    /// Its pools of this set, one per host: 0 is that of everybody. None for one that was not made yet.
    pub(super) fn set(&self, set: usize) -> &[PoolId] {
        match set.checked_sub(1) {
            None => &self.members,
            Some(number) => self.workloads.get(number).map_or(&[][..], |pools| pools),
        }
    }

    /// All of its pools, each with the number of its host.
    pub(super) fn numbered(&self) -> impl Iterator<Item = (usize, PoolId)> {
        let sets = std::iter::once(&self.members).chain(&self.workloads);
        sets.flat_map(|pools| pools.iter().copied().enumerate())
    }

    /// Number of the host that takes writes, or took them last.
    pub(super) fn primary_number(&self) -> usize {
        self.members.iter().position(|&pool| pool == self.primary).unwrap_or_default()
    }
}

impl Relay {
    /// The pool of everybody on one host of a group that is being made.
    pub(super) fn add_pool(
        &mut self,
        config: &Config,
        group: GroupId,
        entry: &Database,
        user: &str,
        (number, endpoint): (usize, &Endpoint),
        tls: Option<&Arc<rustls::ClientConfig>>,
    ) -> PoolId {
        let (login, password): (&str, Option<&Password>) = match (&entry.user, config.users.get(user)) {
            (None, None) => (user, None),
            (Some(forced), None) => (forced, entry.password.as_ref()),
            (_, Some(known)) => entry.server_login(known),
        };
        let secret = ServerSecret::of(password.cloned());
        let dial = Dial::new(config, entry, endpoint, login, secret, tls.cloned());
        let target = PoolTarget {
            database: entry.name.as_str().into(),
            user: user.into(),
            host: endpoint.to_string().into(),
            pool: DEFAULT_POOL.into(),
        };
        let label = PoolLabel { database: entry.name.as_str().into(), user: user.into() };
        let stats = self.shapes.add_place(Place { pool: label.into(), target: Target::Replica(target.host.clone()) });
        let (size, rotate) = self.size_of(&entry.name, user, None);
        let stakes = self.stakes_of(&entry.name, user, endpoint, None);
        let (host, pace) = self.hosts.entry(endpoint.clone()).or_default().clone();
        let counters = self.counters_of(target);
        self.pools.insert(Pool {
            group,
            stats,
            number,
            role: Role::Replica,
            barred: false,
            paused: self.paused.is(&entry.name),
            dial: Rc::new(dial),
            slice: Slice::new(size, rotate),
            lanes: Vec::new(),
            front: Default::default(),
            lane_count: LaneCount::default(),
            owed: false,
            hopefuls: VecDeque::new(),
            stakes,
            counters,
            failure: None,
            pause: Backoff::default(),
            host,
            pace,
            health: self.registry.database(&entry.name),
            workload: None,
        })
    }

    /// Makes the pools of a set, unless they are there.
    pub(super) fn furnish(&mut self, group: GroupId, set: usize) {
        let Some(number) = set.checked_sub(1) else { return };
        if !self.groups[group].set(set).is_empty() {
            return;
        }
        // Of the configuration that the group was made of.
        let Some(workload) = self.groups[group].rules.as_ref().and_then(|rules| rules.workload(number)) else { return };
        let members = self.groups[group].members.clone();
        let pools = members.into_iter().map(|like| self.pool_like(group, like, &workload)).collect();
        let workloads = &mut self.groups[group].workloads;
        workloads.resize(workloads.len().max(set), Vec::new());
        if let Some(made) = workloads.get_mut(number) {
            *made = pools;
        }
    }

    fn pool_like(&mut self, group: GroupId, like: PoolId, workload: &Rc<Workload>) -> PoolId {
        let (database, user) = (self.groups[group].database.clone(), self.groups[group].user.clone());
        let like = &self.pools[like];
        let (dial, host, health) = (Rc::clone(&like.dial), Rc::clone(&like.host), like.health.clone());
        let (role, barred, paused) = (like.role, like.barred, like.paused);
        let (stats, number, pace) = (like.stats, like.number, Rc::clone(&like.pace));
        let target = PoolTarget {
            database: database.as_str().into(),
            user: user.as_str().into(),
            host: dial.endpoint.to_string().into(),
            pool: workload.name.as_str().into(),
        };
        let (size, rotate) = self.size_of(&database, &user, Some(workload));
        let stakes = self.stakes_of(&database, &user, &dial.endpoint, Some(workload));
        let counters = self.counters_of(target);
        counters.set_role(role);
        self.pools.insert(Pool {
            group,
            stats,
            number,
            role,
            barred,
            paused,
            dial,
            slice: Slice::new(size, rotate),
            lanes: Vec::new(),
            front: Default::default(),
            lane_count: LaneCount::default(),
            owed: false,
            hopefuls: VecDeque::new(),
            stakes,
            counters,
            failure: None,
            pause: Backoff::default(),
            host,
            pace,
            health,
            workload: Some(Rc::clone(workload)),
        })
    }

    /// How long a client waits for a server of this pool.
    pub(super) fn query_wait_timeout(&self, pool: PoolId) -> Option<Duration> {
        let this = &self.pools[pool];
        match this.workload.as_ref().and_then(|workload| workload.query_wait_timeout) {
            Some(limit) => (!limit.is_zero()).then_some(limit),
            None => self.groups[this.group].terms.query_wait_timeout,
        }
    }
}

impl Size {
    /// Of a worker's part of a workload pool.
    pub(super) fn of_workload(workload: &Workload, burst: usize) -> Self {
        Self { limit: workload.pool_size as usize, min: 0, reserve: 0, burst }
    }
}
