//! Servers at rest that are in the way of CREATE, DROP or ALTER DATABASE are closed.
//! Must never close one that a client has, nor for a statement that was refused at once.
//!
//! PostgreSQL checks first who asks, and then waits for other sessions of the database to end, five seconds at most
//! (`CountOtherDBBackends` in src/backend/storage/ipc/procarray.c); new ones wait at their start for the statement. So
//! whoever is still at work on one after [`PATIENCE_US`] was not refused, and as long as it is at work nothing needs to be
//! run again: what comes to rest is closed, on all workers, and the statement goes on by itself.

use super::{Relay, Server};
use crate::pool::cluster::Member;
use crate::pool::vacate::Wish;

/// How long a statement must have been at work, microseconds.
const PATIENCE_US: u64 = 20_000;
/// So many replies owed are looked through for the statement at work: those before it in its batch come with its own.
const NEAR: usize = 16;

impl Relay {
    /// Makes room for what any worker's clients need to have for themselves.
    pub(super) fn make_way(&mut self) {
        for server in self.servers.values() {
            if let Some(wish) = self.wish_of(server) {
                self.place.wishes.utter(wish);
            }
        }
        for wish in self.place.wishes.since(&mut self.wishes_heard) {
            self.vacate(&wish);
        }
    }

    /// What the statement at work on this server waits for, if it is one that waits.
    fn wish_of(&self, server: &Server) -> Option<Wish> {
        if server.owner().is_none() || !server.replies.busy() || server.works_us(self.now_us) < PATIENCE_US {
            return None;
        }
        let database = server.replies.entries().take(NEAR).find_map(|entry| self.shapes.vacates(entry.cookie))?;
        Some(Wish { port: self.pools[server.pool].dial.endpoint.port, database })
    }

    /// Closes all servers at rest in this database, and connections that listen there for nobody.
    fn vacate(&mut self, wish: &Wish) {
        for index in 0..self.pools.slots() {
            let Some(pool) = self.pools.id_at(index) else { continue };
            let this = &self.pools[pool];
            let any = wish.database.is_empty();
            if this.dial.endpoint.port != wish.port || !(any || this.dial.dbname == wish.database) {
                continue;
            }
            let group = &mut self.groups[this.group];
            if group.primary == pool {
                group.cluster.members.iter().for_each(Member::step_aside);
                if let Some(listener) = group.listener.as_mut().filter(|listener| listener.is_idle()) {
                    listener.in_the_way = true;
                    listener.wake.notify_one();
                }
            }
            while let Some(server) = self.pools[pool].slice.pop_idle() {
                self.drop_server(server);
            }
        }
    }
}
