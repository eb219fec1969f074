//! Who is on a worker, for the console: pools, clients and servers as rows of plain values.
//! Must never be asked for on the data path, nor list so many at once that a client feels it.

use std::collections::HashMap;
use std::mem::size_of;
use std::net::SocketAddr;

use super::client::{Client, State};
use super::group::{Group, Pool};
use super::server::{Server, Use};
use super::{ClientId, PoolId, Relay, ServerId};
use crate::config::PoolMode;
use crate::meter::Role;
use crate::wire::pid::ClientPid;

/// Clients or servers listed at once: each costs about a microsecond, most of it two questions to the kernel.
const PAGE: u32 = 250;

/// One pool of a worker: the servers of one host for one database and user.
#[derive(Clone, Debug)]
pub struct PoolRow {
    /// Name of the database as clients give it.
    pub database: String,
    /// Name of the user.
    pub user: String,
    /// Role of the host.
    pub role: Role,
    /// When clients give their server back.
    pub mode: PoolMode,
    /// Clients that hold a server or ride in a lane.
    pub clients_active: u32,
    /// Clients without a request under way; counted at the primary's pool.
    pub clients_idle: u32,
    /// Clients in the queue.
    pub clients_waiting: u32,
    /// Servers that a client has.
    pub active: u32,
    /// Servers at rest.
    pub idle: u32,
    /// Servers being reset after a client was lost.
    pub cleaning: u32,
    /// Servers that cannot be lent yet because a cancel request is under way that might hit them.
    pub cooling: u32,
    /// Cancel requests under way.
    pub cancels: u32,
    /// Servers being opened.
    pub opening: u32,
    /// How long the oldest waiter has waited, µs.
    pub maxwait_us: u64,
}

/// What a connection is, as `SHOW CLIENTS` and `SHOW SERVERS` of PgBouncer have it. Times are those of [`crate::base::clock`].
#[derive(Clone, Debug, Default)]
pub struct Row {
    /// Whose.
    pub user: String,
    /// To which database.
    pub database: String,
    /// `none`, or `logical` or `physical` for a replication connection.
    pub replication: &'static str,
    /// What it does.
    pub state: &'static str,
    /// The other end; `None` for a unix socket, and for one that is gone.
    pub peer: Option<SocketAddr>,
    /// This end.
    pub local: Option<SocketAddr>,
    /// It is a unix socket.
    pub is_unix: bool,
    /// When it began.
    pub since_us: u64,
    /// When it last had something to do.
    pub request_us: u64,
    /// For how long it has waited for a server, µs.
    pub wait_us: u64,
    /// It is closed as soon as it is free.
    pub close_needed: bool,
    /// What stands for it in this list and the other.
    pub key: String,
    /// The key of the connection at the other side of pgweir, empty if there is none.
    pub link: String,
    /// Process id of the server, or of a client on the unix socket; 0 if unknown.
    pub pid: u32,
    /// Protocol and cipher, empty without TLS.
    pub tls: String,
    /// What it calls itself.
    pub application_name: String,
    /// Statements prepared by name.
    pub prepared: u32,
    /// Number among all clients of the process; 0 for a server.
    pub id: u32,
    /// Bytes received that are yet to be acted on.
    pub received: u32,
    /// Bytes that the socket would not take yet.
    pub unsent: u32,
}

/// How many of something there are, and how large one is.
#[derive(Clone, Copy, Debug)]
pub struct Slots {
    /// What.
    pub name: &'static str,
    /// Bytes of one, without what it points to.
    pub size: usize,
    /// In use.
    pub used: usize,
    /// Made and free.
    pub free: usize,
}

/// A worker at one moment.
#[derive(Clone, Debug, Default)]
pub struct Census {
    /// Its pools.
    pub pools: Vec<PoolRow>,
    /// Its tables.
    pub slots: Vec<Slots>,
    /// Servers that are closed as soon as they are free, by the name of their database.
    pub leaving: Vec<String>,
}

/// Which connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Of clients.
    Clients,
    /// To servers.
    Servers,
}

impl Relay {
    /// Does something for the console.
    pub fn attend(&mut self, what: impl FnOnce(&mut Self)) {
        self.now_us = crate::base::clock::now_us();
        what(self);
    }

    /// What is here.
    pub fn census(&self) -> Census {
        let mut rows: HashMap<u32, PoolRow> = self.pools.ids().map(|id| (id.index(), self.pool_row(id))).collect();
        for client in self.clients.values() {
            let primary = self.groups[client.group].primary;
            let (pool, of) = match client.state {
                State::Idle => (primary, 0),
                State::Attached(server) | State::Riding(server) => {
                    (self.servers.get(server).map_or(primary, |server| server.pool), 1)
                }
                State::Waiting { pool, .. } => (pool, 2),
                State::Closing { .. } => continue,
            };
            let Some(row) = rows.get_mut(&pool.index()) else { continue };
            *[&mut row.clients_idle, &mut row.clients_active, &mut row.clients_waiting][of] += 1;
        }
        let mut leaving = Vec::new();
        for server in self.servers.values() {
            let Some(row) = rows.get_mut(&server.pool.index()) else { continue };
            row.cancels += server.cancels;
            match server.use_ {
                Use::Idle => row.idle += 1,
                Use::Lent(_) | Use::Shared => row.active += 1,
                Use::Cleaning { .. } => row.cleaning += 1,
                Use::Cooling => row.cooling += 1,
            }
            if server.retire {
                leaving.push(row.database.clone());
            }
        }
        let slots = [
            table::<Client>("client", self.clients.len(), self.clients.slots()),
            table::<Server>("server", self.servers.len(), self.servers.slots()),
            table::<Pool>("pool", self.pools.len(), self.pools.slots()),
            table::<Group>("group", self.groups.len(), self.groups.slots()),
        ];
        Census { pools: rows.into_values().collect(), slots: slots.into(), leaving }
    }

    fn pool_row(&self, id: PoolId) -> PoolRow {
        let pool = &self.pools[id];
        let group = &self.groups[pool.group];
        PoolRow {
            database: group.database.clone(),
            user: group.user.clone(),
            role: pool.role,
            mode: group.terms.pool_mode,
            clients_active: 0,
            clients_idle: 0,
            clients_waiting: 0,
            active: 0,
            idle: 0,
            cleaning: 0,
            cooling: 0,
            cancels: 0,
            opening: pool.slice.opening() as u32,
            maxwait_us: self.waited_us(id),
        }
    }

    /// The connections of one side from this place on, and the place where to go on.
    pub fn list(&self, side: Side, from: u32) -> (Vec<Row>, Option<u32>) {
        let slots = match side {
            Side::Clients => self.clients.slots(),
            Side::Servers => self.servers.slots(),
        };
        let end = from.saturating_add(PAGE).min(slots);
        let row = |index| match side {
            Side::Clients => self.clients.id_at(index).map(|id| self.client_row(id)),
            Side::Servers => self.servers.id_at(index).map(|id| self.server_row(id)),
        };
        ((from..end).filter_map(row).flatten().collect(), (end < slots).then_some(end))
    }

    /// Tells a connection from all others of the process.
    fn key(&self, kind: &str, id: &impl std::fmt::Debug) -> String {
        format!("{kind}{}.{id:?}", self.place.worker)
    }

    fn client_row(&self, id: ClientId) -> Option<Row> {
        let client = self.clients.get(id)?;
        let group = &self.groups[client.group];
        let (server, state, wait_us) = match client.state {
            State::Idle => (None, "idle", 0),
            State::Waiting { since_us, .. } => (None, "waiting", self.now_us.saturating_sub(since_us)),
            State::Attached(server) | State::Riding(server) => (Some(server), "active", 0),
            State::Closing { .. } => (None, "active", 0),
        };
        let setting = |wanted: &[u8]| client.params.settings.iter().find(|(name, _)| name == wanted);
        let name = setting(b"application_name").map(|(_, value)| String::from_utf8_lossy(value).into_owned());
        let instance = self.config.listen.instance_id;
        let socket = client.conn.socket();
        let (peer, local) = socket.ends();
        Some(Row {
            user: group.user.clone(),
            database: group.database.clone(),
            replication: replication(client),
            state,
            peer: self.comes_from(client.number).or(peer),
            local,
            is_unix: socket.is_unix(),
            since_us: self.came_us(client.number),
            request_us: client.active_us,
            wait_us,
            close_needed: matches!(client.state, State::Closing { .. }),
            key: self.key("c", &id),
            link: server.map_or_else(String::new, |server| self.key("s", &server)),
            pid: socket.peer_pid().unwrap_or(0),
            tls: socket.tls_parameters().unwrap_or_default(),
            application_name: name.unwrap_or_default(),
            prepared: client.prepared.as_ref().map_or(0, |names| names.len() as u32),
            id: ClientPid { instance, worker: self.place.worker, slot: client.number, passed_on: false }.encode(),
            received: client.inbox.len() as u32,
            unsent: client.conn.backlog() as u32,
        })
    }

    fn server_row(&self, id: ServerId) -> Option<Row> {
        let server = self.servers.get(id)?;
        let group = &self.groups[self.pools[server.pool].group];
        let owner = server.owner();
        let state = match server.use_ {
            Use::Idle => "idle",
            Use::Lent(_) | Use::Shared => "active",
            Use::Cleaning { .. } => "tested",
            Use::Cooling => "being_canceled",
        };
        let name = server.status.iter().find(|(name, _)| name == b"application_name");
        let socket = server.conn.socket();
        let (peer, local) = socket.ends();
        Some(Row {
            user: self.pools[server.pool].dial.user.clone(),
            database: group.database.clone(),
            replication: owner.and_then(|owner| self.clients.get(owner)).map_or("none", replication),
            state: if server.cancels > 0 && state == "active" { "active_cancel" } else { state },
            peer,
            local,
            is_unix: socket.is_unix(),
            since_us: server.opened_us,
            request_us: server.began_us.max(server.rested_us).max(server.done_us),
            wait_us: 0,
            close_needed: server.retire,
            key: self.key("s", &id),
            link: owner.map_or_else(String::new, |owner| self.key("c", &owner)),
            pid: server.key.pid,
            tls: socket.tls_parameters().unwrap_or_default(),
            application_name: name.map_or_else(String::new, |(_, name)| String::from_utf8_lossy(name).into_owned()),
            prepared: server.prepared.len() as u32,
            id: 0,
            received: server.inbox.len() as u32,
            unsent: server.conn.backlog() as u32,
        })
    }
}

/// What a client's connection replicates.
fn replication(client: &Client) -> &'static str {
    match (client.own, client.logical) {
        (false, _) => "none",
        (true, true) => "logical",
        (true, false) => "physical",
    }
}

fn table<T>(name: &'static str, used: usize, made: u32) -> Slots {
    Slots { name, size: size_of::<T>(), used, free: (made as usize).saturating_sub(used) }
}
