//! The number that a client is told, and who is meant by one.
//! Must never take a client for another because two servers have processes of the same number.
//!
//! A client that keeps its server to its end has it from its login on, and is told the process id that this server has:
//! what it is told is then true for whoever looks at the server. All others are told a number that no process has. They
//! come back as late as those of processes do: whoever has kept one of a client that left must not hit the next.

use std::collections::HashMap;
use std::net::SocketAddr;

use super::client::Key;
use super::{ClientId, GroupId, Relay};
use crate::config::{PoolMode, SessionState};
use crate::wire::pid::{ClientPid, SLOTS_MAX, is_process};

/// Who is meant by a number that a client was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whom {
    /// The client with this number on its worker.
    Slot(u32),
    /// A client that was told the process id of its server.
    Process(u32),
}

/// The clients of a worker by number.
#[derive(Debug, Default)]
pub(super) struct Numbers {
    /// With the second in which each came in: here it costs four bytes, in a client eight.
    clients: HashMap<u32, (ClientId, u32), foldhash::fast::RandomState>,
    /// Where those come from whom a proxy brought: few have one, or all.
    from: HashMap<u32, SocketAddr, foldhash::fast::RandomState>,
    last: Option<u32>,
}

/// Numbers of clients that have left may be remembered, so many at least.
const STALE: usize = 1024;

impl Relay {
    /// Clients of this group have a server from login to goodbye, as on a direct connection. PgBouncer lends the
    /// server with the first request, in session mode too.
    pub(super) fn is_direct(&self, group: GroupId) -> bool {
        let terms = &self.groups[group].terms;
        terms.pool_mode == PoolMode::Session && terms.session_state != SessionState::PgBouncer
    }

    /// The number that a client was told.
    pub(super) fn told_pid(&self, id: ClientId) -> u32 {
        let Some(client) = self.clients.get(id) else { return 0 };
        let real = client.own || self.is_direct(client.group);
        let server = client.server().filter(|_| real).and_then(|server| self.servers.get(server));
        // What stands behind may be a pooler that tells numbers of its own.
        if let Some(server) = server.filter(|server| is_process(server.key.pid)) {
            return server.key.pid;
        }
        let instance = self.config.listen.instance_id;
        ClientPid { instance, worker: self.place.worker, slot: client.number, passed_on: false }.encode()
    }

    /// A secret for a client; `real` if it will be told the process id of a server. That does not say which of several
    /// instances it is with, so that the secret says it then.
    pub(super) fn key_for(&self, minor: u32, real: bool) -> Result<Key, aws_lc_rs::error::Unspecified> {
        let instance = (real && !self.config.peers.is_empty()).then_some(self.config.listen.instance_id);
        Key::random(minor, instance)
    }

    /// The next number that no client has, from a random one on.
    pub(super) fn new_number(&mut self) -> Result<u32, aws_lc_rs::error::Unspecified> {
        let mut first = [0; 4];
        if self.numbers.last.is_none() {
            aws_lc_rs::rand::fill(&mut first)?;
        }
        let mut number = self.numbers.last.unwrap_or_else(|| u32::from_ne_bytes(first) % SLOTS_MAX as u32);
        loop {
            number = (number + 1) % SLOTS_MAX as u32;
            if self.client_numbered(number).is_none() {
                self.numbers.last = Some(number);
                return Ok(number);
            }
        }
    }

    /// The client has its number from now on.
    pub(super) fn number(&mut self, id: ClientId, number: u32, from: Option<SocketAddr>) {
        let (Numbers { clients: numbers, from: known, .. }, clients) = (&mut self.numbers, &self.clients);
        if numbers.len() > STALE + 2 * clients.len() {
            numbers.retain(|_, (id, _)| clients.get(*id).is_some());
            known.retain(|number, _| numbers.contains_key(number));
        }
        numbers.insert(number, (id, (self.now_us / 1_000_000) as u32));
        match from {
            Some(from) => drop(known.insert(number, from)),
            None => drop(known.remove(&number)),
        }
    }

    /// When the client with this number came in, microseconds; to the second.
    pub(super) fn came_us(&self, number: u32) -> u64 {
        self.numbers.clients.get(&number).map_or(0, |(_, second)| u64::from(*second) * 1_000_000)
    }

    /// Where the client with this number comes from, if a proxy said so.
    pub(super) fn comes_from(&self, number: u32) -> Option<SocketAddr> {
        self.numbers.from.get(&number).copied()
    }

    /// The client that has this number.
    pub(super) fn client_numbered(&self, number: u32) -> Option<ClientId> {
        let (id, _) = self.numbers.clients.get(&number).copied()?;
        self.clients.get(id).is_some().then_some(id)
    }

    /// The client that was told this number and this secret.
    pub fn find(&self, whom: Whom, key: &[u8]) -> Option<ClientId> {
        let is_it = |id: &ClientId| self.clients.get(*id).is_some_and(|client| client.key.matches(key));
        match whom {
            Whom::Slot(number) => self.client_numbered(number).filter(is_it),
            Whom::Process(pid) => {
                let owners = self.servers.values().filter(|server| server.key.pid == pid);
                owners.filter_map(super::Server::owner).filter(|id| self.told_pid(*id) == pid).find(is_it)
            }
        }
    }
}
