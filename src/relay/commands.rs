//! What operators have done by the console: clients and servers ended, databases paused.
//! Must never cut a transaction short unless it is told to kill.

use std::collections::HashSet;

use super::server::Use;
use super::{Client, ClientId, GroupId, PoolId, Relay, ServerId};
use crate::wire::error::{PgError, SqlState};
use crate::wire::pid::ClientPid;

/// Databases whose clients get no server for the time being.
#[derive(Debug, Default)]
pub(super) struct Paused {
    all: bool,
    databases: HashSet<String>,
}

impl Paused {
    /// Whether this database is paused.
    pub fn is(&self, database: &str) -> bool {
        self.all || self.databases.contains(database)
    }
}

impl Relay {
    /// Ends the client with this number; false if there is none.
    pub fn kill_client(&mut self, number: u32) -> bool {
        let here = |pid: &ClientPid| pid.worker == self.place.worker && pid.instance == self.config.listen.instance_id;
        let named = ClientPid::decode(number).filter(here).and_then(|pid| self.client_numbered(pid.slot));
        let Some(id) = named else { return false };
        self.end_by_command(id);
        true
    }

    /// In PostgreSQL's words for pg_terminate_backend().
    fn end_by_command(&mut self, id: ClientId) {
        let message = "terminating connection due to administrator command";
        let error = PgError::fatal(SqlState::ADMIN_SHUTDOWN, message);
        self.fatal(id, &error.detail("It was ended on pgweir's console."));
    }

    /// Servers of a database, or of all, are closed as soon as they are free: those at rest at once.
    pub fn reconnect(&mut self, database: Option<&str>) {
        for group in self.groups_of(database) {
            for pool in self.pools_of(group) {
                self.close_rest(pool);
            }
            for server in self.servers_of(group) {
                self.servers.get_mut(server).into_iter().for_each(|server| server.retire = true);
            }
            let Some(listener) = self.groups[group].listener.as_mut() else { continue };
            listener.in_the_way = true;
            listener.wake.notify_one();
        }
    }

    /// Clients of a database, or of all, get no server from now on; who has one keeps it up to the end of the transaction.
    pub fn pause(&mut self, database: Option<&str>) {
        match database {
            Some(name) => drop(self.paused.databases.insert(name.to_owned())),
            None => self.paused.all = true,
        }
        self.follow_pauses();
    }

    /// They get servers again. Without a name whatever is paused ends.
    pub fn resume(&mut self, database: Option<&str>) {
        match database {
            Some(name) => drop(self.paused.databases.remove(name)),
            None => self.paused = Paused::default(),
        }
        self.follow_pauses();
    }

    fn follow_pauses(&mut self) {
        for group in self.groups_of(None) {
            let paused = self.paused.is(&self.groups[group].database);
            for pool in self.pools_of(group) {
                self.pools[pool].paused = paused;
                if paused {
                    self.close_rest(pool);
                } else {
                    self.grow(pool);
                }
            }
        }
    }

    /// How many servers of a database, or of all, are open or being opened.
    pub fn servers_in(&self, database: Option<&str>) -> usize {
        let pools: Vec<PoolId> = self.groups_of(database).into_iter().flat_map(|group| self.pools_of(group)).collect();
        let own = self.servers.values().filter(|server| server.own && pools.contains(&server.pool)).count();
        let counted = pools.iter().map(|&pool| self.pools[pool].slice.open() + self.pools[pool].slice.opening());
        own + counted.sum::<usize>()
    }

    /// Ends all clients of a database, or of all, and closes its servers, whatever they do. It stays paused.
    pub fn kill(&mut self, database: Option<&str>) {
        self.pause(database);
        for group in self.groups_of(database) {
            let is_its = |id: &ClientId| self.clients.get(*id).is_some_and(|client: &Client| client.group == group);
            let clients: Vec<ClientId> = self.clients.ids().filter(is_its).collect();
            clients.into_iter().for_each(|id| self.end_by_command(id));
            for server in self.servers_of(group) {
                if self.servers.get(server).is_some_and(|server| server.use_ != Use::Idle) {
                    self.lose(server, "pgweir: the connection was ended on the console");
                }
            }
        }
    }

    fn groups_of(&self, database: Option<&str>) -> Vec<GroupId> {
        let is_its = |id: &GroupId| database.is_none_or(|name| self.groups[*id].database == name);
        self.groups.ids().filter(is_its).collect()
    }

    fn servers_of(&self, group: GroupId) -> Vec<ServerId> {
        let is_its = |id: &ServerId| self.servers.get(*id).is_some_and(|server| self.pools[server.pool].group == group);
        self.servers.ids().filter(is_its).collect()
    }
}
