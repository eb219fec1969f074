//! How many servers a pool may have, beside and together with others.
//! Must never forget a connection that is open when limits change.

use super::client::{Client, State};
use super::{GroupId, PoolId, Relay};
use crate::config::{Endpoint, ServerOrder, Workload};
use crate::pool::budget::{Scope, Stake};
use crate::pool::slice::Size;

impl Relay {
    /// Gives the pools of a group the limits of the configuration as it is now.
    pub(super) fn resize(&mut self, group: GroupId) {
        let (database, user) = (self.groups[group].database.clone(), self.groups[group].user.clone());
        self.groups[group].terms = self.config.terms(&database, &user);
        self.groups[group].frees(&self.config.pool.lanes.settings);
        for pool in self.pools_of(group) {
            let workload = self.pools[pool].workload.clone();
            let (size, rotate) = self.size_of(&database, &user, workload.as_deref());
            let stakes = self.stakes_of(&database, &user, &self.pools[pool].dial.endpoint, workload.as_deref());
            let this = &mut self.pools[pool];
            let exist = this.slice.open() + this.slice.opening();
            this.stakes.clear();
            stakes.iter().for_each(|stake| stake.force(exist as u32));
            let apart = self.apart(group, pool);
            stakes.iter().filter(|stake| stake.spans_pools()).for_each(|stake| stake.force(apart as u32));
            let this = &mut self.pools[pool];
            this.stakes = stakes;
            this.slice.resize(size, rotate);
            while let Some(server) = self.pools[pool].slice.excess() {
                self.drop_server(server);
            }
            self.grow(pool);
        }
    }

    /// How many connections outside of a pool count under its limits: those of replication, there or being opened,
    /// and its listener.
    fn apart(&self, group: GroupId, pool: PoolId) -> usize {
        let group_is = &self.groups[group];
        if pool != group_is.primary {
            return 0;
        }
        let listener = group_is.listener.as_ref().is_some_and(|listener| listener.placed);
        let open = self.servers.values().filter(|server| server.own && server.pool == pool).count();
        let waits =
            |client: &&Client| client.own && client.group == group && matches!(client.state, State::Waiting { .. });
        usize::from(listener) + open + self.clients.values().filter(waits).count()
    }

    /// How many servers this worker's slice of a pool may have, and whether they take turns.
    pub(super) fn size_of(&self, database: &str, user: &str, workload: Option<&Workload>) -> (Size, bool) {
        let (pool, terms) = (&self.config.pool, self.config.terms(database, user));
        let (burst, rotate) = (pool.server_connect_burst as usize, pool.server_order == ServerOrder::Rotate);
        if let Some(workload) = workload {
            return (Size::of_workload(workload, burst), rotate);
        }
        let size = Size {
            limit: terms.pool_size as usize,
            min: self.place.part_of(terms.min_pool_size, database, user, terms.pool_size) as usize,
            reserve: terms.reserve_pool_size as usize,
            burst,
        };
        (size, rotate)
    }

    /// Stakes in the limits that reach beyond one slice.
    pub(super) fn stakes_of(
        &self,
        database: &str,
        user: &str,
        endpoint: &Endpoint,
        workload: Option<&Workload>,
    ) -> Vec<Stake> {
        let config = &self.config;
        let terms = config.terms(database, user);
        // Also a pool of one slice: before a reload it may have had more.
        let sliced = if self.place.workers > 1 { terms.pool_size } else { 0 };
        let own = match workload {
            // All users share it.
            Some(workload) => {
                let scope = Scope::Workload(database.into(), workload.name.clone(), endpoint.to_string());
                (scope, workload.pool_size, 0)
            }
            None => (Scope::Pool(database.into(), user.into(), endpoint.to_string()), sliced, terms.reserve_pool_size),
        };
        let limits = [
            own,
            (Scope::Database(database.into()), config.max_db_connections(database), 0),
            (Scope::User(user.into()), config.max_user_connections(user), 0),
        ];
        let limited = limits.into_iter().filter(|(_, limit, _)| *limit > 0);
        limited.map(|(scope, limit, more)| self.place.budgets.stake(scope, limit, more, &self.bell)).collect()
    }
}
