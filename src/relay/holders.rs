//! Clients that hold a server for long: those idle in a transaction, and those that seem to have forgotten it.
//! Must never look at anything but what is there, nor name a value of a statement's.

use std::net::SocketAddr;
use std::sync::Arc;

use super::server::Server;
use super::{ClientId, Relay};

/// Idle in a transaction for less is not worth a word, µs.
const IDLE_US: u64 = 1_000_000;
/// A server that is held for less for any other reason, µs.
const HELD_US: u64 = 5_000_000;
/// A server that a session keeps between its transactions, which says nothing for less, µs: it may be about to go on.
const QUIET_US: u64 = 60_000_000;
/// Most that are listed of a worker, the longest first.
const MOST: usize = 100;

/// Why a client holds a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holds {
    /// It has begun a transaction and says nothing.
    IdleInTransaction,
    /// It is in a transaction and goes on.
    Transaction,
    /// It is in none, and keeps the server: what it has left there, or its pool mode.
    Session,
}

/// A client that holds a server.
#[derive(Clone, Debug)]
pub struct Holder {
    /// The process id that the client was told.
    pub pid: u32,
    /// Name of the database as clients give it.
    pub database: String,
    /// Name of the user.
    pub user: String,
    /// What the client calls itself.
    pub application_name: String,
    /// Where it comes from; `None` for a unix socket.
    pub client: Option<SocketAddr>,
    /// The server.
    pub host: Arc<str>,
    /// Why.
    pub why: Holds,
    /// The transaction has failed.
    pub failed: bool,
    /// For how long it has held the server, µs.
    pub held_us: u64,
    /// For how long it has said nothing, µs; 0 while something runs.
    pub idle_us: u64,
    /// The last statement that it ran, or that runs.
    pub shape: u64,
    /// Its text without values.
    pub text: Arc<str>,
}

impl Server {
    /// Shape of what runs on it, else of what ran last.
    pub(super) fn speaks(&self) -> u64 {
        self.replies.entries().map(|entry| entry.cookie).find(|shape| *shape != 0).unwrap_or(self.ran)
    }
}

impl Relay {
    /// Those that have held a server for long, the longest first.
    pub(super) fn holders(&self) -> Vec<Holder> {
        let lent = self.servers.values().filter(|server| !server.own);
        let mut all: Vec<(u64, Holds, ClientId, &Server)> = lent.filter_map(|server| self.held(server)).collect();
        all.sort_by_key(|(held_us, ..)| std::cmp::Reverse(*held_us));
        all.truncate(MOST);
        all.into_iter().filter_map(|(held_us, why, id, server)| self.holder(held_us, why, id, server)).collect()
    }

    /// For how long it has been held and why, if that is long.
    fn held<'a>(&self, server: &'a Server) -> Option<(u64, Holds, ClientId, &'a Server)> {
        let id = server.owner()?;
        let client = self.clients.get(id)?;
        let busy = server.replies.busy();
        let since = |then_us: u64| self.now_us.saturating_sub(then_us);
        let (held_us, why) = match server.replies.status() {
            b'I' if busy => (since(server.began_us), Holds::Transaction),
            b'I' if since(client.active_us) < QUIET_US => return None,
            b'I' => {
                let since_us = client.pin.as_ref().map_or(self.came_us(client.number), |pin| pin.since_us());
                (since(since_us), Holds::Session)
            }
            _ if busy || since(client.active_us) < IDLE_US => (since(server.began_us), Holds::Transaction),
            _ => (since(server.began_us), Holds::IdleInTransaction),
        };
        let least_us = if why == Holds::IdleInTransaction { IDLE_US } else { HELD_US };
        (server.began_us > 0 || why == Holds::Session).then_some(())?;
        (held_us >= least_us).then_some((held_us, why, id, server))
    }

    fn holder(&self, held_us: u64, why: Holds, id: ClientId, server: &Server) -> Option<Holder> {
        let client = self.clients.get(id)?;
        let group = &self.groups[client.group];
        let name = client.params.settings.iter().find(|(name, _)| name == b"application_name");
        let shape = server.speaks();
        Some(Holder {
            pid: self.told_pid(id),
            database: group.database.clone(),
            user: group.user.clone(),
            application_name: name.map_or_else(String::new, |(_, value)| String::from_utf8_lossy(value).into_owned()),
            client: self.comes_from(client.number).or(client.conn.socket().ends().0),
            host: Arc::clone(&self.pools[server.pool].counters.target.host),
            why,
            failed: server.replies.status() == b'E',
            held_us,
            idle_us: if server.replies.busy() { 0 } else { self.now_us.saturating_sub(client.active_us) },
            shape,
            text: self.shapes.text(shape),
        })
    }
}
