//! What real traffic tells of a replica's host, and who is chosen by that.
//! Must never leave out a host that its own asker says is well because of what one client did there.

use std::sync::Arc;

use super::balance::{Balancer, Load, Reader, bit, set};
use super::lease::Target;
use super::rules::Way;
use super::unopened::defers;
use super::{ClientId, GroupId, PoolId, Relay, ServerId};
use crate::config::{Database, Fallback};
use crate::meter::Role;
use crate::pool::breaker::Limits;
use crate::pool::cluster::Sight;
use crate::pool::sight::Seen;

/// How long after its last statement a host's pace is still shown as new, microseconds.
const NEW_US: u64 = 1_000_000;

/// What became of a search for a replica.
pub(super) struct Search {
    /// This one.
    pub(super) found: Option<PoolId>,
    /// None serves anybody now, and reads are to fail then.
    pub(super) fails: bool,
    /// There was nothing to choose.
    pub(super) is_bound: bool,
}

impl Relay {
    /// Who chooses for a group of this database.
    pub(super) fn balancer_of(&self, database: &Database, group: GroupId) -> Balancer {
        let seed = u64::from(self.place.worker) << 32 | u64::from(group.index());
        Balancer::new(database, self.config.pool.zone.as_deref(), seed)
    }

    /// The configuration has changed how the group's reads are spread, or what they must show.
    pub(super) fn rebalance(&mut self, group: GroupId) {
        let config = Arc::clone(&self.config);
        let Some(database) = config.databases.get(&self.groups[group].database) else { return };
        let balancer = self.balancer_of(database, group);
        let this = &mut self.groups[group];
        this.defers = defers(database, &this.terms, this.splits);
        this.balancer = balancer;
        this.consistency = database.reads.consistency;
        this.has_globals = !database.reads.global_tables.is_empty();
        self.catalogs.set_globals(this.catalog, &database.reads.global_tables);
    }

    /// A server for reads of a client of this group that has seen so much, where its rule sends it.
    pub(super) fn search(&mut self, group: GroupId, way: Way, target: Target, sight: &Sight) -> Search {
        let (now_us, slow_start_us) = (self.now_us, self.config.pool.slow_start.as_micros() as u64);
        let (pools, servers, group) = (&self.pools, &self.servers, &mut self.groups[group]);
        let cluster = &group.cluster;
        let others = way.set.checked_sub(1).and_then(|set| group.workloads.get(set));
        let members = if way.set == 0 { &group.members } else { others.unwrap_or(&group.members) };
        let n = if group.splits { members.len() } else { 0 };
        let is_open = |&number: &usize| !pools[members[number]].pauses(now_us);
        let is_replica = |number: &usize| pools[members[*number]].role == Role::Replica;
        let able = group.balancer.able(set((0..n).filter(is_open).filter(is_replica)), cluster, now_us);
        let fit = set((0..n).filter(|&number| able & bit(number) != 0 && cluster.serves(number, sight)));
        let primary = set((0..n).filter(is_open).filter(|number| !is_replica(number)));
        let load = |number: usize| {
            let pool = &pools[members[number]];
            let lanes = pool.lanes.iter().filter_map(|&lane| servers.get(lane)?.lane.as_deref());
            // The server itself counts for one.
            let riders: usize = lanes.map(|lane| (lane.riders.len() + lane.queue.len()).saturating_sub(1)).sum();
            let rests = pool.slice.idle().len() > 0 || pool.slice.room() > 0;
            Load { clients: pool.slice.load() + riders, rests, pace: &pool.pace }
        };
        let led = set((0..n).filter(|&number| way.leads_to(number)));
        let with_primary = way.with_primary && target != Target::OnlyReplica;
        let mut wanted = led & (fit | if with_primary { primary } else { 0 });
        if wanted == 0 && way.fallback == Fallback::Replicas {
            wanted = fit;
        }
        // What the primary answers is not counted.
        let last = sight.last.map(Seen::member).filter(|_| wanted & primary == 0);
        let chosen =
            group.balancer.choose(wanted, Reader { last, reads: sight.reads }, cluster, now_us, slow_start_us, load);
        let is_bound = wanted.is_power_of_two();
        if let Some(last) = last.filter(|_| is_bound)
            && group.balancer.would_switch(last, led & able, now_us, load)
        {
            cluster.would_switch(sight);
        }
        let found = chosen.and_then(|number| members.get(number).copied());
        let fails = n > 0 && able == 0 && !way.with_primary && group.balancer.fails_without(cluster);
        Search { found, fails, is_bound }
    }

    /// A client's statement on a server of this pool has been answered: it began at `began_us` and took `us`, where such
    /// take `usual_us`.
    #[inline]
    pub(super) fn host_works(&self, pool: PoolId, began_us: u64, us: u64, usual_us: u64) {
        let pool = &self.pools[pool];
        if pool.role != Role::Replica {
            return;
        }
        pool.pace.took(us, usual_us, self.now_us);
        if let Some(member) = self.groups[pool.group].cluster.members.get(pool.number)
            && member.breaker.works(began_us)
        {
            member.is_back(self.now_us);
            tracing::info!(server = %member.endpoint, "the server takes reads again");
        }
    }

    /// Something did not work on the host of this pool that works elsewhere.
    pub(super) fn host_fails(&self, pool: PoolId) {
        let this = &self.pools[pool];
        let limits = Limits::new(self.config.pool.breaker_failures, self.config.pool.breaker_pause);
        if this.role == Role::Replica
            && let Some(member) = self.groups[this.group].cluster.members.get(this.number)
            && member.breaker.fails(self.now_us, limits)
        {
            tracing::warn!(server = %member.endpoint, "the server takes no reads for a while: what it was sent failed");
        }
    }

    /// The same of a connection that was lost while a client used it.
    pub(super) fn host_loses(&self, server: ServerId) {
        if let Some(this) = self.servers.get(server).filter(|this| this.owner().is_some()) {
            self.host_fails(this.pool);
        }
    }

    /// Shows how long statements take, by host.
    pub(super) fn show_paces(&self) {
        for pool in self.pools.values().filter(|pool| pool.role == Role::Replica) {
            if let Some(mean_us) = pool.pace.mean_us(self.now_us, NEW_US)
                && let Some(member) = self.groups[pool.group].cluster.members.get(pool.number)
            {
                member.takes(mean_us);
            }
        }
    }

    /// What the client must have seen for a replica to serve it.
    pub(super) fn sight_of(&mut self, id: ClientId) -> Sight {
        let Some(client) = self.clients.get_mut(id) else { return Sight::default() };
        client.sight.floor = self.groups[client.group].cluster.settle(client.sight.floor);
        client.sight.at_least(client.params.min_lsn)
    }
}
