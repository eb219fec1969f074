//! What time brings: limits that pass, pools that may try again, gauges.
//! Must never be needed for a transaction to go on: the data path sets no timer.

use std::time::Duration;

use super::client::State;
use super::release::Farewell;
use super::{Client, ClientId, PoolId, Relay, ServerId};
use crate::base::clock;
use crate::wire::error::{PgError, SqlState};

/// How often [`Relay::sweep`] is to be called: the precision of every limit.
pub const PERIOD: Duration = Duration::from_millis(100);

impl Relay {
    /// Applies every limit whose time has come.
    pub fn sweep(&mut self) {
        self.now_us = clock::now_us();
        for pool in 0..self.pools.len() {
            self.sweep_waiters(pool);
            self.sweep_idle_servers(pool);
            self.grow(pool);
        }
        self.sweep_clients();
        self.gauges();
    }

    /// The queue is in the order of arrival and all have the same limit: only its head can be late.
    fn sweep_waiters(&mut self, pool: PoolId) {
        let Some(limit) = self.config.pool.query_wait_timeout else { return };
        while let Some(&id) = self.pools[pool].slice.first_waiter() {
            let since = match self.clients.get(id).map(|client| client.state) {
                Some(State::Waiting { since_us, .. }) => since_us,
                _ => 0,
            };
            if self.now_us.saturating_sub(since) < limit.as_micros() as u64 {
                return;
            }
            self.pools[pool].counters.total_query_wait_timeouts.add(1);
            let message = format!("pgweir: no server connection became free within {} s", limit.as_secs_f32());
            let hint =
                "The limit is query_wait_timeout; more connections are allowed by default_pool_size or pool_size.";
            self.fatal(id, &PgError::fatal(SqlState::TOO_MANY_CONNECTIONS, message).hint(hint));
            // `fatal` takes it out of the queue; never loop on one that was not there to tell.
            self.pools[pool].slice.leave(&id);
        }
    }

    /// Closes servers that have rested too long or are too old.
    fn sweep_idle_servers(&mut self, pool: PoolId) {
        let idle_us = self.config.pool.server_idle_timeout.map_or(u64::MAX, |limit| limit.as_micros() as u64);
        let life_us = self.config.pool.server_lifetime.as_micros() as u64;
        let late: Vec<ServerId> = self.pools[pool]
            .slice
            .idle()
            .iter()
            .copied()
            .filter(|&id| {
                self.servers.get(id).is_some_and(|server| {
                    // Up to a fifth earlier, by the connection's own key, so that a pool opened at
                    // once does not end at once.
                    let jitter = life_us / 1000 * u64::from(server.key.pid % 200);
                    self.now_us.saturating_sub(server.rested_us) >= idle_us
                        || self.now_us.saturating_sub(server.opened_us) >= life_us - jitter
                })
            })
            .collect();
        for server in late {
            self.discard(server);
        }
    }

    fn sweep_clients(&mut self) {
        let idle = self.config.pool.client_idle_timeout;
        let in_transaction = self.config.pool.idle_transaction_timeout;
        let ids: Vec<ClientId> = self.clients.ids().collect();
        for id in ids {
            let Some(client) = self.clients.get(id) else { continue };
            let quiet_us = self.now_us.saturating_sub(client.active_us);
            match client.state {
                State::Closing { until_us } if until_us <= self.now_us => self.hang_up(id, Farewell::Lost),
                State::Idle if self.draining && client.inbox.is_empty() => client.wake(),
                State::Idle if past(idle, quiet_us) => {
                    let message = "pgweir: idle for longer than client_idle_timeout";
                    self.fatal(id, &PgError::fatal(SqlState::ADMIN_SHUTDOWN, message));
                }
                State::Attached(server) if past(in_transaction, quiet_us) && self.waits_for_client(client, server) => {
                    if let Some(pool) = self.pool_of(server) {
                        pool.counters.total_query_timeouts.add(1);
                    }
                    let message = "pgweir: idle in transaction for longer than idle_transaction_timeout";
                    self.fatal(id, &PgError::fatal(SqlState(*b"25P03"), message));
                }
                _ => {}
            }
        }
    }

    /// A transaction is open, or a batch without its Sync, and nothing is owed: it is the client's
    /// turn.
    fn waits_for_client(&self, client: &Client, server: ServerId) -> bool {
        self.servers
            .get(server)
            .is_some_and(|server| !server.replies.busy() && (server.replies.status() != b'I' || client.mid_batch))
    }

    fn gauges(&self) {
        for pool in &self.pools {
            let (open, idle) = (pool.slice.open(), pool.slice.idle().len());
            let counters = &pool.counters;
            counters.servers_idle.set(idle as u64);
            counters.servers_active.set((open - idle) as u64);
            counters.servers_connecting.set(pool.slice.opening() as u64);
            counters.clients_waiting.set(pool.slice.waiting() as u64);
            counters.clients_active.set((open - idle) as u64);
            counters.clients_idle.set(0);
            let oldest = pool.slice.first_waiter().and_then(|&id| self.clients.get(id)).map(|client| client.state);
            let wait_us = match oldest {
                Some(State::Waiting { since_us, .. }) => self.now_us.saturating_sub(since_us),
                _ => 0,
            };
            counters.maxwait_us.set(wait_us);
        }
        self.statement_gauges();
        for id in self.clients.ids() {
            if let Some(client) = self.clients.get(id)
                && client.state == State::Idle
            {
                self.pools[self.groups[client.group].primary].counters.clients_idle.inc();
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

fn past(limit: Option<Duration>, quiet_us: u64) -> bool {
    limit.is_some_and(|limit| quiet_us >= limit.as_micros() as u64)
}
