//! Groups that a new configuration has replaced or taken away: how they end, and what is left of them.
//! Must never free a group that a client, a server or a task still means.

use std::collections::HashSet;
use std::rc::Rc;
use std::sync::Arc;

use super::{GroupId, Relay};
use crate::meter::{PoolCounters, PoolTarget};

impl Relay {
    /// Nobody new comes in; clients move to the group's successor as they become idle.
    pub(super) fn retire(&mut self, group: GroupId) {
        let this = &mut self.groups[group];
        this.retired = true;
        if let Some(users) = self.named.get_mut(this.database.as_str()) {
            users.remove(this.user.as_str());
            if users.is_empty() {
                self.named.remove(this.database.as_str());
            }
        }
        self.retired.push(group);
        for pool in self.pools_of(group) {
            self.pools[pool].slice.keep_none();
        }
        self.close_idle(group);
        for id in self.servers.ids().collect::<Vec<_>>() {
            if let Some(server) = self.servers.get_mut(id)
                && self.pools[server.pool].group == group
            {
                server.retire = true;
            }
        }
    }

    /// A retired group that has clients gets its successor at once: who waits goes on waiting there, as it may have servers
    /// that this one does not know; and should one of those take the place of the primary, then who is in the middle of a
    /// transaction has to hear of it.
    pub(super) fn succeed(&mut self, group: GroupId) {
        let this = &self.groups[group];
        if !this.ended && self.clients.values().any(|client| client.group == group) {
            let (database, user) = (this.database.clone(), this.user.clone());
            let secret = self.inherited_secret(group);
            // If there is none each client is told so when it comes to it.
            let _ = self.group_for(&database, &user, secret);
        }
        let waiters: Vec<_> = self.pools_of(group).into_iter().flat_map(|pool| self.waiters_of(pool)).collect();
        for (id, since_us) in waiters {
            self.choose_again(id, since_us);
        }
    }

    fn close_idle(&mut self, group: GroupId) {
        for pool in self.pools_of(group) {
            while let Some(server) = self.pools[pool].slice.pop_idle() {
                self.drop_server(server);
            }
        }
    }

    /// Frees the retired groups that nobody means any more. To be called before a turn has left
    /// anything to do: a [`super::Todo`] may mean a pool whose last server is gone.
    pub(super) fn free_retired(&mut self) {
        if self.retired.is_empty() || !self.todo.is_empty() {
            return;
        }
        // One that was still being opened may have come to rest since.
        self.retired.clone().into_iter().for_each(|group| self.close_idle(group));
        let of_clients = self.clients.values().map(|client| client.group.index());
        let of_servers = self.servers.values().map(|server| self.pools[server.pool].group.index());
        let served: HashSet<u32> = of_servers.collect();
        let meant: HashSet<u32> = of_clients.chain(served.iter().copied()).collect();
        let opening =
            |relay: &Self, group| relay.pools_of(group).iter().any(|&pool| relay.pools[pool].slice.opening() > 0);
        // As long as a transaction is under way there it is to be known whether its server is still what it was.
        for &group in &self.retired {
            if !served.contains(&group.index()) && !opening(self, group) {
                self.groups[group].ended_bell.notify_waiters();
            }
        }
        let is_free =
            |group: GroupId| !meant.contains(&group.index()) && self.groups[group].asks == 0 && !opening(self, group);
        let (free, kept) = self.retired.iter().partition(|&&group| is_free(group));
        self.retired = kept;
        let free: Vec<GroupId> = free;
        for group in free {
            self.free(group);
        }
    }

    fn free(&mut self, group: GroupId) {
        for pool in self.pools_of(group) {
            let Some(pool) = self.pools.remove(pool) else { continue };
            if !self.pools.values().any(|other| Arc::ptr_eq(&other.counters, &pool.counters)) {
                self.registry.remove_pool(&pool.counters);
            }
        }
        self.plans.forget_group(group);
        let gone = self.groups.remove(group);
        gone.inspect(|gone| self.forget_pins(&gone.pins));
        self.hosts.retain(|_, (pause, _)| Rc::strong_count(pause) > 1);
    }

    /// Where a new pool counts: where its predecessor does as long as that exists, so that no sum goes
    /// back when it ends.
    pub(super) fn counters_of(&self, target: PoolTarget) -> Arc<PoolCounters> {
        let before = self.retired.iter().flat_map(|&group| self.pools_of(group)).map(|pool| &self.pools[pool].counters);
        match before.into_iter().find(|counters| counters.target == target) {
            Some(counters) => Arc::clone(counters),
            None => self.registry.add_pool(PoolCounters::new(target)),
        }
    }
}
