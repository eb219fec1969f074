//! How clients and servers come into a worker.
//! Must never let a client query before a server has accepted its settings.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use super::cached::Caching;
use super::client::{Arriving, Losses, Rest, SentBack, State, Unnamed};
use super::lease::{Lease, Target};
use super::rules::Course;
use super::unopened::Unopened;
use super::{Client, ClientId, PoolId, Relay, Server, ServerId};
use crate::auth::ServerSecret;
use crate::base::clock;
use crate::cache::Warming;
use crate::flow::params::Settings;
use crate::meter::Role;
use crate::net::socket::{Conn, Socket};
use crate::pool::budget::Stake;
use crate::pool::cluster::Sight;
use crate::server::open::{OpenError, Opened};
use crate::sql::verdict::Effects;
use crate::sql::wish::Wish;
use crate::wire::build;
use crate::wire::error::{PgError, SqlState};
use crate::wire::pid::SLOTS_MAX;

/// Room for what PostgreSQL reports at the start of a session: about 400 bytes.
const WELCOME_BYTES: usize = 1024;

/// How long a server that says it is full is left alone at most for sessions with a server of their own, microseconds.
const FULL_US: u64 = 50_000;

/// A place under a limit, given back on drop.
#[derive(Debug)]
pub struct Seat(Arc<AtomicU32>);

impl Seat {
    /// A place without a limit, only to be counted.
    pub fn count(taken: &Arc<AtomicU32>) -> Self {
        taken.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(taken))
    }

    /// A place among at most `limit` that share `taken`.
    pub fn take(taken: &Arc<AtomicU32>, limit: u32) -> Option<Self> {
        let before = taken.fetch_add(1, Ordering::Relaxed);
        let seat = Self(Arc::clone(taken));
        (before < limit).then_some(seat)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Those of one client: of the process, of a worker's slice, of its database, of its user. In place: an allocation of its
/// own is 48 bytes of an idle client.
pub type Seats = [Option<Seat>; 4];

/// A client that has proved who it is.
#[derive(Debug)]
pub struct Arrival {
    /// Its connection, settled on no reactor.
    pub socket: Socket,
    /// Database it asked for.
    pub database: String,
    /// User it is.
    pub user: String,
    /// What opens servers for it, unless the database has a role of its own.
    pub secret: ServerSecret,
    /// Settings it starts with.
    pub settings: Settings,
    /// Minor protocol version.
    pub minor: u32,
    /// Messages to be sent ahead of the welcome, up to AuthenticationOk.
    pub prefix: Vec<u8>,
    /// What it sent behind its login.
    pub leftover: Vec<u8>,
    /// Value of the startup parameter `replication`, if the connection is for that.
    pub replication: Option<Vec<u8>>,
    /// Where it comes from, if that is not the other end of the socket.
    pub from: Option<SocketAddr>,
    /// Its places under limits of clients.
    pub seats: Seats,
    /// It asks only so that the answers are kept, and hears here whether they are.
    pub warms: Option<Arc<Warming>>,
}

impl Relay {
    /// Takes a client in. Its task must then be started; until its settings are known to be good
    /// it waits for a server like everybody else.
    pub fn arrive(&mut self, arrival: Arrival) -> Option<ClientId> {
        self.now_us = clock::now_us();
        let Arrival {
            socket, database, user, secret, settings, minor, mut prefix, leftover, replication, from, ..
        } = arrival;
        let cache = arrival.warms.map(Caching::warming).map(Box::new);
        let mut conn = Conn::new(socket);
        let room = (self.clients.len() < SLOTS_MAX).then_some(()).ok_or_else(|| {
            PgError::fatal(SqlState::TOO_MANY_CONNECTIONS, "pgweir: too many clients on one worker")
                .detail(format!("A worker takes {SLOTS_MAX}, so many as a cancel key can tell apart."))
                .hint("Lower max_client_conn, or spread the clients over several instances.")
        });
        let made = room.and_then(|()| self.group_for(&database, &user, Some(secret))).and_then(|group| {
            let key = self.key_for(minor, replication.is_some() || self.is_direct(group));
            let number = self.new_number();
            let made = key.and_then(|key| Ok((group, key, number?)));
            made.map_err(|_| PgError::fatal(SqlState::INTERNAL, "pgweir: the system gave no random bytes"))
        });
        let (group, key, number) = match made {
            Ok(made) => made,
            Err(error) => {
                error.encode(&mut prefix);
                if conn.send(&prefix).is_ok() && conn.backlog() > 0 {
                    self.todo.push(super::Todo::Refuse(conn));
                }
                return None;
            }
        };
        let logical = replication.as_deref() == Some(b"database");
        let own = replication.map(|value| self.own_dial(group, value, &settings));
        let params = if own.is_some() { Rc::default() } else { self.groups[group].intern(settings) };
        let id = self.clients.insert(Client {
            conn,
            waker: None,
            state: State::Idle,
            arriving: Some(Box::new(Arriving { prefix })),
            inbox: leftover,
            rest: Rest::default(),
            mid_batch: false,
            skipping: false,
            late: false,
            sent_back: SentBack::default(),
            losses: Losses::default(),
            course: Course::NONE,
            paid: false,
            reads: false,
            pipelines: 0,
            unopened: Unopened::default(),
            group,
            start: Rc::clone(&params),
            params,
            touched: None,
            listens: None,
            prepared: None,
            unnamed: Unnamed::Nothing,
            bound: 0,
            pinned: Effects::NONE,
            pin: None,
            culprit: 0,
            draws: Default::default(),
            last: Default::default(),
            sight: Sight::default(),
            wrote: false,
            saw: false,
            impatient: false,
            current: false,
            defines: false,
            cache,
            changed: false,
            conforming: true,
            waited_us: 0,
            active_us: self.now_us,
            number,
            key,
            own: own.is_some(),
            logical,
            _seats: arrival.seats,
        });
        self.number(id, number, from);
        match own {
            Some(dial) => self.ask_own(id, dial),
            None => self.greet(id),
        }
        // Only now onto the reactor: the welcome is on its way already, and what comes next is awaited.
        let settled = self.clients.get_mut(id).is_some_and(|client| client.conn.settle().is_ok());
        if !settled {
            self.hang_up(id, super::release::Farewell::Lost);
        }
        settled.then_some(id)
    }

    /// Welcomes a client whose settings are known to be good; otherwise gets a server to try them.
    pub(super) fn greet(&mut self, id: ClientId) {
        if !self.move_to_successor(id) {
            return;
        }
        let Some(client) = self.clients.get(id) else { return };
        let number = client.group;
        self.follow_cluster(number);
        let Some(client) = self.clients.get(id) else { return };
        let group = &self.groups[number];
        if group.base.is_some() && client.params.reported.borrow().is_some() && !self.is_direct(client.group) {
            self.welcome(id);
            return;
        }
        if let Some(error) = self.refused_session(id) {
            return self.fatal(id, &error.fatally());
        }
        let Some(pool) = self.choose(id, Target::Primary) else { return };
        match self.lease(id, pool) {
            Lease::Server(server) if self.attach(id, server) => self.come_in(id, server),
            Lease::Server(_) | Lease::Waits => {}
            Lease::Refused(error) => self.fatal(id, &error.fatally()),
        }
    }

    /// A server has accepted the settings of a client that is coming in.
    pub(super) fn come_in(&mut self, id: ClientId, server: ServerId) {
        self.welcome(id);
        match self.clients.get(id).is_some_and(|client| self.is_direct(client.group)) {
            true => self.pump_inbox(id),
            false => self.release(server),
        }
    }

    /// Sends everything from AuthenticationOk to ReadyForQuery.
    pub(super) fn welcome(&mut self, id: ClientId) {
        let Some(client) = self.clients.get_mut(id) else { return };
        let Some(arriving) = client.arriving.take() else { return };
        let group = &self.groups[client.group];
        self.pools[group.primary].counters.total_logins.add(1);
        let mut out = arriving.prefix;
        let params = Rc::clone(&client.params);
        let reported = params.reported.borrow();
        let own = reported.as_deref().unwrap_or_default();
        let base = group.base.as_deref().unwrap_or_default();
        // What the settings changed takes the place of what a server says at its start.
        let kept = base.iter().filter(|(name, _)| own.iter().all(|(other, _)| other != name));
        out.reserve(WELCOME_BYTES);
        for (name, value) in kept.chain(own) {
            // As `target_session_attrs` looks for (`PQconnectPoll` in src/interfaces/libpq/fe-connect.c): its reads run on no primary.
            let on_standby = name == b"in_hot_standby" && params.wish == Wish::Standby;
            let value = if on_standby { &b"on"[..] } else { value };
            build::parameter_status(&mut out, name, value);
            if name == b"standard_conforming_strings" {
                client.conforming = value == b"on";
            }
        }
        let key = client.key;
        build::backend_key(&mut out, self.told_pid(id), key.bytes());
        build::ready(&mut out, b'I');
        self.clients.get_mut(id).into_iter().for_each(|client| client.send(&out));
    }

    /// A server connection asked for is open. Its task must then be started.
    pub fn opened(&mut self, pool: PoolId, opened: Opened) -> ServerId {
        self.now_us = clock::now_us();
        let this = &mut self.pools[pool];
        this.works();
        this.counters.total_server_opens.add(1);
        let is_primary = this.role == Role::Primary;
        if let Some(health) = this.health.as_ref().filter(|_| is_primary) {
            health.set_primary_reachable(true);
        }
        let group = &mut self.groups[this.group];
        if group.base.is_none() || is_primary {
            group.base = Some(opened.parameters.clone());
        }
        this.slice.opened();
        let mut server = Server::new(pool, opened, Rc::clone(&group.no_params), self.now_us);
        server.retire = group.retired;
        let server = self.servers.insert(server);
        self.put(pool, server);
        server
    }

    /// A server connection asked for could not be opened.
    pub fn open_failed(&mut self, pool: PoolId, error: &OpenError) {
        self.now_us = clock::now_us();
        let longest_us = self.config.pool.server_login_retry.as_micros() as u64;
        // Who has a connection of his own may hang up at any time.
        let told_full = error.is_full() && self.is_direct(self.pools[pool].group);
        let this = &mut self.pools[pool];
        this.slice.open_failed();
        this.stakes.iter().for_each(Stake::give);
        this.counters.total_server_open_failures.add(1);
        // One refused user says nothing of the others; a host that does not answer does.
        let backoff = if error.is_permanent() || error.is_full() { &this.pause } else { &*this.host };
        backoff.failed(self.now_us, if told_full { longest_us.min(FULL_US) } else { longest_us });
        let is_replica = this.role == Role::Replica;
        if !error.is_permanent() && !error.is_full() {
            self.host_fails(pool);
        }
        let this = &mut self.pools[pool];
        if let Some(health) = this.health.as_ref().filter(|_| !is_replica)
            && this.slice.open() == 0
        {
            health.set_primary_reachable(false);
        }
        self.groups[this.group].cluster.hurry();
        tracing::warn!(server = %this.dial.endpoint, user = %this.dial.user, "could not open a server connection: {error}");
        let told = error.to_client(&this.dial);
        this.failure = Some(told.message.clone().into());
        self.spare_waiters(pool);
        let this = &mut self.pools[pool];
        // One of several that fail says little while the others are still on their way.
        let nobody_knows_it = self.groups[this.group].base.is_none() && this.slice.opening() == 0;
        if this.slice.open() == 0 && (error.is_permanent() || nobody_knows_it || is_replica) {
            self.turn_away(pool, is_replica, &told, usize::MAX);
        } else if told_full {
            let room = this.slice.room();
            // A session that begins hears what it would hear there, but for those whom the pool has no room for either.
            self.turn_away(pool, false, &told, room);
        }
    }

    /// At most so many do not wait in vain: readers of a replica that is down go elsewhere, all others are told.
    pub(super) fn turn_away(&mut self, pool: PoolId, elsewhere: bool, error: &PgError, most: usize) {
        for _ in 0..most {
            let Some(id) = self.pools[pool].slice.pop_waiter() else { return };
            if let Some(client) = self.clients.get_mut(id) {
                client.state = State::Idle;
            }
            if elsewhere {
                self.pump_inbox(id);
            } else {
                self.fatal(id, error);
            }
        }
    }

    /// A client of a replaced group moves to its successor between transactions. False if there is
    /// none: the client has been told.
    pub(super) fn move_to_successor(&mut self, id: ClientId) -> bool {
        let Some(client) = self.clients.get(id) else { return false };
        let old = &self.groups[client.group];
        if !old.retired {
            return true;
        }
        if old.ended {
            self.end_unknown(id);
            return false;
        }
        let (database, user) = (old.database.clone(), old.user.clone());
        let secret = self.inherited_secret(client.group);
        let (settings, start) = (client.params.settings.clone(), client.start.settings.clone());
        match self.group_for(&database, &user, secret) {
            Ok(group) => {
                let params = self.groups[group].intern(settings);
                let start = self.groups[group].intern(start);
                self.move_listening(id, self.clients.get(id).map_or(group, |client| client.group), group);
                let cluster = &self.groups[group].cluster;
                if let Some(client) = self.clients.get_mut(id) {
                    client.cache.iter_mut().for_each(|cache| cache.moved(self.now_us, cluster));
                    client.sight = client.sight.moved(&self.groups[client.group].cluster, cluster);
                    client.group = group;
                    client.params = params;
                    client.start = start;
                }
                true
            }
            Err(error) => {
                self.fatal(id, &error);
                false
            }
        }
    }
}
