//! What the servers of a group were seen to be, taken over: which pool takes writes, which may be read from.
//! Must never leave a client on a server that another has taken the place of.

use std::sync::Arc;

use super::client::State;
use super::{GroupId, PoolId, Relay};
use crate::meter::Role;
use crate::pool::cluster::Standing;
use crate::server::open::OpenError;
use crate::wire::error::{PgError, SqlState};

impl Relay {
    /// Takes over what has changed since the last time, if anything has.
    pub(super) fn follow_cluster(&mut self, group: GroupId) {
        let Some(this) = self.groups.get_mut(group) else { return };
        let changes = this.cluster.changes();
        if std::mem::replace(&mut this.seen, changes) != changes {
            self.take_roles(group);
        }
    }

    /// The same for all groups.
    pub(super) fn follow_clusters(&mut self) {
        for index in 0..self.groups.slots() {
            let Some(group) = self.groups.id_at(index) else { continue };
            self.follow_cluster(group);
            self.look_at_held(group);
        }
    }

    fn take_roles(&mut self, group: GroupId) {
        let this = &mut self.groups[group];
        let cluster = Arc::clone(&this.cluster);
        let (before, members) = (this.primary, this.members.clone());
        let primary = cluster.primary().and_then(|number| members.get(number).copied());
        this.primary = primary.unwrap_or(before);
        let replaced = this.primary != before;
        let numbers = [before, self.groups[group].primary].map(|pool| members.iter().position(|it| *it == pool));
        let pools: Vec<_> = self.groups[group].numbered().collect();
        for &(number, pool) in &pools {
            let Some(member) = cluster.members.get(number) else { continue };
            let [was_primary, is_primary] = numbers.map(|it| it == Some(number));
            let this = &mut self.pools[pool];
            this.role = if is_primary { Role::Primary } else { Role::Replica };
            this.counters.set_role(this.role);
            this.barred = is_primary && primary.is_none();
            // A replica that hangs holds up whoever reads from it.
            let hangs = !is_primary && member.standing() == Standing::Down;
            if hangs || this.barred || (replaced && was_primary) {
                self.close_rest(pool);
            }
            // Also where the one that has taken its place is none of these: a successor of the group has it.
            if hangs || (replaced && was_primary) || cluster.is_left_behind(number) {
                self.close_lent(pool, &format!("pgweir: the server {} is gone", member.endpoint));
            }
        }
        if replaced && let Some(listener) = self.groups[group].listener.as_mut() {
            listener.in_the_way = true;
            listener.wake.notify_one();
        }
        // Who waits may have somewhere else to go.
        let waiters: Vec<_> = pools.iter().flat_map(|&(_, pool)| self.waiters_of(pool)).collect();
        for (id, since_us) in waiters {
            self.choose_again(id, since_us);
        }
        pools.into_iter().for_each(|(_, pool)| self.grow(pool));
    }

    pub(super) fn close_rest(&mut self, pool: PoolId) {
        while let Some(server) = self.pools[pool].slice.pop_idle() {
            self.drop_server(server);
        }
    }

    /// Ends the connections that clients have to a server which is gone, also if it is there and does not know it.
    fn close_lent(&mut self, pool: PoolId, why: &str) {
        let of_pool = |id: &super::ServerId| self.servers.get(*id).is_some_and(|server| server.pool == pool);
        let servers: Vec<_> = self.servers.ids().filter(of_pool).collect();
        for server in servers {
            if let Some(this) = self.servers.get_mut(server) {
                this.conn.reset();
            }
            self.lose(server, why);
        }
    }

    pub(super) fn waiters_of(&mut self, pool: PoolId) -> Vec<(super::ClientId, u64)> {
        let mut waiters = Vec::new();
        while let Some(id) = self.pools[pool].slice.pop_waiter() {
            let Some(client) = self.clients.get_mut(id) else { continue };
            if let State::Waiting { since_us, .. } = client.state {
                client.state = State::Idle;
                waiters.push((id, since_us));
            }
        }
        waiters
    }

    /// A client that waited is sent where it should wait now, for no longer than before.
    pub(super) fn choose_again(&mut self, id: super::ClientId, waits_us: u64) {
        match self.clients.get(id) {
            Some(client) if client.arriving.is_some() => self.greet(id),
            Some(_) => self.pump_inbox(id),
            None => return,
        }
        if let Some(client) = self.clients.get_mut(id)
            && let State::Waiting { since_us, .. } = &mut client.state
        {
            *since_us = waits_us;
        }
    }

    /// A host will not talk to this group's login, and none has said that it takes writes: who waits for one that does
    /// hears why, and not after `failover_wait`.
    pub(super) fn nobody_tells(&mut self, group: GroupId, number: usize, error: &OpenError) {
        self.follow_cluster(group);
        let Some(this) = self.groups.get(group) else { return };
        let unheard = this.cluster.members.iter().any(|member| member.standing() == Standing::Unknown);
        if unheard || this.cluster.primary().is_some() || !error.is_permanent() {
            return;
        }
        let error = error.to_client(&self.pools[this.members[number]].dial);
        for (_, pool) in this.numbered().collect::<Vec<_>>() {
            if self.pools[pool].barred {
                self.turn_away(pool, false, &error, usize::MAX);
            }
        }
    }

    /// One of the tasks that ask a group's hosts has ended.
    pub fn unwatch(&mut self, group: GroupId) {
        if let Some(group) = self.groups.get_mut(group) {
            group.asks = group.asks.saturating_sub(1);
        }
    }

    /// What a client is told that has waited for a primary in vain.
    pub(super) fn no_primary(&self) -> PgError {
        let limit = self.config.pool.failover_wait;
        let message = format!("pgweir: no server takes writes since {} s", limit.as_secs_f32());
        PgError::error(SqlState::CANNOT_CONNECT_NOW, message).hint("The limit is failover_wait.")
    }
}
