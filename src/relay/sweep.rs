//! Every limit in time, applied by one pass over everything ten times a second.
//! Must never be replaced by timers of single connections: they cost more than the transactions.

use std::time::Duration;

use super::client::State;
use super::release::Farewell;
use super::server::Use;
use super::{Client, ClientId, PoolId, Relay, Server, ServerId, Todo};
use crate::base::clock;
use crate::config::WaitAction;
use crate::wire::error::{PgError, SqlState};

/// How often [`Relay::sweep`] is to be called: the precision of every limit.
pub const PERIOD: Duration = Duration::from_millis(100);
/// How long a cancelled statement may take to end before its session is ended, microseconds.
pub(super) const GRACE_US: u64 = 5_000_000;

impl Relay {
    /// Applies every limit whose time has come.
    pub fn sweep(&mut self) {
        self.now_us = clock::now_us();
        self.free_retired();
        self.hear_code_changes();
        self.follow_clusters();
        self.sweep_rates();
        self.sweep_flights();
        self.sweep_doubts();
        for index in 0..self.pools.slots() {
            let Some(pool) = self.pools.id_at(index) else { continue };
            self.sweep_waiters(pool);
            self.notify_waiters(pool);
            self.sweep_idle_servers(pool);
            self.spare(pool);
            self.press(pool);
            self.tell_wants(pool);
            self.grow(pool);
        }
        self.renew_lanes();
        self.read_code_for_readers();
        self.sweep_servers();
        self.make_way();
        self.sweep_pids();
        self.sweep_clients();
        self.gauges();
        self.show_paces();
        self.show_pins();
    }

    /// How long the oldest waiter of a pool has waited, microseconds; 0 without one.
    pub(super) fn waited_us(&self, pool: PoolId) -> u64 {
        self.pools[pool].slice.first_waiter().map_or(0, |&id| self.waits_for_us(id))
    }

    fn waits_for_us(&self, id: ClientId) -> u64 {
        match self.clients.get(id).map(|client| client.state) {
            Some(State::Waiting { since_us, .. }) => self.now_us.saturating_sub(since_us),
            _ => u64::MAX,
        }
    }

    /// The queue is in the order of arrival and all have the same limit: only its head can be late.
    fn sweep_waiters(&mut self, pool: PoolId) {
        let (waits, barred) = (self.query_wait_timeout(pool), self.pools[pool].barred);
        let failover = barred.then_some(self.config.pool.failover_wait);
        let Some(limit) = waits.into_iter().chain(failover).min() else { return };
        while let Some(&id) = self.pools[pool].slice.first_waiter() {
            if self.waits_for_us(id) < limit.as_micros() as u64 {
                return;
            }
            if self.is_spared_waiting(id) {
                continue;
            }
            let error = if failover == Some(limit) { self.no_primary() } else { self.waited_too_long(pool) };
            match self.config.pool.query_wait_timeout_action {
                WaitAction::Error => {
                    if let Some(client) = self.clients.get_mut(id) {
                        client.late = true;
                    }
                    self.give_up_waiting(id, error);
                }
                WaitAction::Close => self.fatal(id, &error.fatally()),
            }
            // Both take it out of the queue; never loop on one that was not there to tell.
            self.pools[pool].slice.leave(&id);
        }
    }

    /// Tells those who have waited long that they wait.
    fn notify_waiters(&mut self, pool: PoolId) {
        let Some(limit) = self.config.pool.query_wait_notify else { return };
        let late = |id: &&ClientId| self.waits_for_us(**id) >= limit.as_micros() as u64;
        let late: Vec<ClientId> = self.pools[pool].slice.waiters().take_while(late).copied().collect();
        for id in late {
            let Some(client) = self.clients.get_mut(id) else { continue };
            if let State::Waiting { notified, .. } = &mut client.state
                && client.arriving.is_none()
                && !std::mem::replace(notified, true)
            {
                let mut out = Vec::new();
                PgError::notice("pgweir: no server connection is free yet; your request waits").encode(&mut out);
                client.send(&out);
            }
        }
    }

    /// Closes servers that have rested too long or are too old.
    fn sweep_idle_servers(&mut self, pool: PoolId) {
        let this = &self.pools[pool];
        let idle_us = micros(self.config.pool.server_idle_timeout);
        let life_us = micros(self.groups[this.group].terms.server_lifetime);
        let roles_set_us = self.groups[this.group].cluster.roles_set_us();
        let mut spare = this.slice.above_min();
        let is_late = |id: &ServerId| {
            self.servers.get(*id).is_some_and(|server| {
                // Up to a fifth earlier, by the connection's own key, so that a pool opened at once
                // does not end at once.
                let jitter = life_us / 1000 * u64::from(server.key.pid % 200);
                let unused = self.now_us.saturating_sub(server.rested_us) >= idle_us && spare > 0;
                spare -= usize::from(unused);
                let old = self.now_us.saturating_sub(server.opened_us) >= life_us.saturating_sub(jitter);
                unused || old || server.opened_us <= roles_set_us
            })
        };
        let late: Vec<ServerId> = this.slice.idle().copied().filter(is_late).collect();
        for server in late {
            self.discard(server);
        }
        while let Some(server) = self.pools[pool].slice.excess() {
            self.drop_server(server);
        }
    }

    /// Lets a pool use its reserve while its oldest waiter has waited long.
    fn press(&mut self, pool: PoolId) {
        let pressed = self.waited_us(pool) >= self.config.pool.reserve_pool_timeout.as_micros() as u64;
        self.pools[pool].slice.press(pressed);
    }

    /// Ends what takes too long on servers.
    fn sweep_servers(&mut self) {
        for index in 0..self.servers.slots() {
            let Some(id) = self.servers.id_at(index) else { continue };
            let Some(server) = self.servers.get(id) else { continue };
            match server.use_ {
                Use::Cleaning { until_us } if until_us <= self.now_us => self.discard(id),
                Use::Shared => self.sweep_lane(id),
                Use::Lent(client) if !server.own => {
                    self.let_go_of_sequences(client, id);
                    self.sweep_lent(id, client);
                }
                _ => {}
            }
        }
    }

    fn sweep_lent(&mut self, id: ServerId, client: ClientId) {
        let Some(server) = self.servers.get(id) else { return };
        let terms = &self.groups[self.pools[server.pool].group].terms;
        let (busy, open) = (server.replies.busy(), server.replies.status() != b'I');
        let lasts_us = self.now_us.saturating_sub(server.began_us);
        if past(terms.transaction_timeout, lasts_us) && (busy || open) && server.began_us > 0 {
            self.pools[server.pool].counters.total_query_timeouts.add(1);
            return self.fatal(client, &transaction_timeout());
        }
        let works_us = server.works_us(self.now_us);
        self.call_back_if_held_up(id, client, works_us);
        let Some(server) = self.servers.get(id) else { return };
        let limit = self.query_timeout(server, client);
        if !busy || !past(limit, works_us) || server.prior.is_some() {
            return;
        }
        let grace = limit.is_some_and(|limit| works_us < limit.as_micros() as u64 + GRACE_US);
        if !grace {
            return self.fatal(client, &not_cancelled());
        }
        if let Some(server) = self.servers.get_mut(id)
            && !std::mem::replace(&mut server.overdue, true)
        {
            server.cancels += 1;
            let pool = server.pool;
            self.pools[pool].counters.total_query_timeouts.add(1);
            self.host_fails(pool);
            self.todo.push(Todo::Cancel(id));
        }
    }

    fn sweep_clients(&mut self) {
        for index in 0..self.clients.slots() {
            let Some(id) = self.clients.id_at(index) else { continue };
            self.hear(id);
            self.follow_listener(id);
            let Some(client) = self.clients.get(id) else { continue };
            let terms = &self.groups[client.group].terms;
            let quiet_us = self.now_us.saturating_sub(client.active_us);
            match client.state {
                State::Closing { until_us } if until_us <= self.now_us => self.hang_up(id, Farewell::Lost),
                State::Idle | State::Attached(_) if self.draining && self.is_at_rest(client) => client.wake(),
                State::Waiting { .. } if self.groups[client.group].ended => self.end_unknown(id),
                State::Idle | State::Attached(_) if self.groups[client.group].ended && self.is_at_rest(client) => {
                    self.end_unknown(id);
                }
                State::Idle | State::Attached(_)
                    if past(terms.client_idle_timeout, quiet_us) && self.is_at_rest(client) && !client.own =>
                {
                    let message = "pgweir: idle for longer than client_idle_timeout";
                    self.fatal(id, &PgError::fatal(SqlState::ADMIN_SHUTDOWN, message));
                }
                State::Attached(_)
                    if past(terms.pin_idle_timeout, quiet_us) && client.is_bound() && self.is_at_rest(client) =>
                {
                    self.end_idle_pin(id);
                }
                State::Idle | State::Attached(_)
                    if past(terms.idle_transaction_timeout, quiet_us) && self.waits_for_client(client) =>
                {
                    let primary = self.groups[client.group].primary;
                    let pool =
                        client.server().and_then(|server| self.servers.get(server)).map_or(primary, |it| it.pool);
                    self.pools[pool].counters.total_query_timeouts.add(1);
                    let message = "pgweir: idle in transaction for longer than idle_transaction_timeout";
                    self.fatal(id, &PgError::fatal(SqlState::IDLE_TRANSACTION_TIMEOUT, message));
                }
                _ => {}
            }
        }
    }

    /// Ends the session of a user that a reload has taken away. PostgreSQL lets the sessions of a role that was dropped
    /// go on, but each of them is a process of its own: here they would be served by connections still to be opened.
    pub(super) fn end_unknown(&mut self, id: ClientId) {
        let message = "terminating connection due to administrator command";
        let detail = "pgweir's configuration no longer has this user";
        self.fatal(id, &PgError::fatal(SqlState::ADMIN_SHUTDOWN, message).detail(detail));
    }

    /// Between transactions, with nothing received that is still to be done.
    pub(super) fn is_at_rest(&self, client: &Client) -> bool {
        let held = match client.state {
            State::Idle if client.unopened.is_there() => return false,
            State::Idle => None,
            State::Attached(server) => self.servers.get(server),
            State::Waiting { .. } | State::Riding(_) | State::Closing { .. } => return false,
        };
        let server_rests = held.is_none_or(|server| {
            !server.replies.busy() && server.replies.status() == b'I' && !client.mid_batch && server.handing.is_none()
        });
        server_rests && client.inbox.is_empty() && client.rest.is_empty()
    }

    /// A transaction is open, or a batch without its Sync, and nothing is owed: it is the client's
    /// turn.
    fn waits_for_client(&self, client: &Client) -> bool {
        let Some(server) = client.server() else { return client.unopened.is_there() };
        self.servers
            .get(server)
            .is_some_and(|server| !server.replies.busy() && (server.replies.status() != b'I' || client.mid_batch))
    }

    fn gauges(&self) {
        for pool in self.pools.values() {
            let counters = &pool.counters;
            let servers = [&counters.servers_idle, &counters.servers_active, &counters.servers_connecting];
            let clients = [&counters.clients_waiting, &counters.clients_active, &counters.clients_idle];
            let listening = [&counters.clients_listening, &counters.channels_listened];
            let lanes = [&counters.lanes.open, &counters.lanes.riders];
            servers
                .into_iter()
                .chain(clients)
                .chain(listening)
                .chain(lanes)
                .chain([&counters.maxwait_us])
                .for_each(|gauge| gauge.set(0));
        }
        // Added up, as a retired pool and its successor count in one place.
        for id in self.pools.ids() {
            let pool = &self.pools[id];
            let (open, idle) = (pool.slice.open(), pool.slice.idle().len());
            let counters = &pool.counters;
            let lanes = pool.lanes.iter().filter_map(|&lane| self.servers.get(lane)?.lane.as_deref());
            counters.lanes.open.add(pool.lanes.len() as u64);
            counters.lanes.riders.add(lanes.map(|lane| lane.riders.len() + lane.queue.len()).sum::<usize>() as u64);
            counters.servers_idle.add(idle as u64);
            counters.servers_active.add((open - idle) as u64);
            counters.servers_connecting.add(pool.slice.opening() as u64);
            counters.clients_waiting.add(pool.slice.waiting() as u64);
            counters.maxwait_us.set(counters.maxwait_us.get().max(self.waited_us(id)));
        }
        self.statement_gauges();
        for group in self.groups.values() {
            let channels = group.listener.as_ref().map_or(0, |listener| listener.channel_count());
            let counters = &self.pools[group.primary].counters;
            counters.channels_listened.add(channels as u64);
            counters.clients_waiting.add(group.rules.as_ref().map_or(0, |rules| rules.waiting()));
        }
        for index in 0..self.clients.slots() {
            let Some(client) = self.clients.id_at(index).and_then(|id| self.clients.get(id)) else { continue };
            let primary = self.groups[client.group].primary;
            if client.listens.is_some() {
                self.pools[primary].counters.clients_listening.inc();
            }
            match client.state {
                State::Idle => self.pools[primary].counters.clients_idle.inc(),
                State::Attached(server) | State::Riding(server) => {
                    let pool = self.servers.get(server).map_or(primary, |server| server.pool);
                    self.pools[pool].counters.clients_active.inc();
                }
                State::Waiting { .. } | State::Closing { .. } => {}
            }
        }
    }

    /// Starts the end: clients go as they come to rest.
    pub fn drain(&mut self) {
        self.draining = true;
        self.sweep();
    }

    /// Ends every session, whatever it does.
    pub fn cut_off(&mut self) {
        let message = "terminating connection due to administrator command";
        let error = PgError::fatal(SqlState::ADMIN_SHUTDOWN, message).detail("pgweir's shutdown_timeout has passed");
        for id in self.clients.ids().collect::<Vec<_>>() {
            self.fatal(id, &error);
        }
    }
}

impl Server {
    /// How long it has worked on what it works on, microseconds.
    pub(super) fn works_us(&self, now_us: u64) -> u64 {
        self.replies.head().map_or(0, |head| now_us.saturating_sub(head.sent_us.max(self.done_us)))
    }
}

/// Transactions end so that take too long.
pub(super) fn transaction_timeout() -> PgError {
    let error = PgError::fatal(SqlState::TRANSACTION_TIMEOUT, "terminating connection due to transaction timeout");
    error.hint("The limit is pgweir's transaction_timeout.")
}

/// Sessions end so whose statement does not.
pub(super) fn not_cancelled() -> PgError {
    let message = "pgweir: a statement took longer than query_timeout and could not be cancelled";
    PgError::fatal(SqlState::QUERY_CANCELED, message)
}

/// Whether a limit has come, if there is one.
pub(super) fn past(limit: Option<Duration>, quiet_us: u64) -> bool {
    quiet_us >= micros(limit)
}

/// Microseconds of a limit; what is never reached if there is none.
fn micros(limit: Option<Duration>) -> u64 {
    limit.map_or(u64::MAX, |limit| limit.as_micros() as u64)
}
