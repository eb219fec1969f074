//! How a server comes back from a client, and how either of them goes.
//! Must never put a server into its pool that is not clean.

use std::rc::Rc;

use super::attach::NO_STATEMENT;
use super::client::State;
use super::server::{UnnamedOn, Use};
use super::{Client, ClientId, LOOK_BYTES, PoolId, Relay, ServerId, Todo};
use crate::flow::expect::{Expect, Kind, Origin};
use crate::flow::requests::{Batch, End};
use crate::meter::Role;
use crate::pool::slice::Next;
use crate::sql::verdict::Effects;
use crate::wire::build;
use crate::wire::error::{PgError, SqlState};

/// How a client goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Farewell {
    /// It said goodbye.
    Terminated,
    /// Its connection broke or was ended.
    Lost,
}

/// How long a closing client may take to read its last error, microseconds.
const CLOSING_US: u64 = 5_000_000;

impl Relay {
    /// The client is done with its server: it is idle again, and the server goes back.
    pub(super) fn release(&mut self, server: ServerId) {
        let owner = self.servers.get(server).and_then(super::Server::owner);
        if let Some(id) = owner {
            let on_primary = self.pool_of(server).is_some_and(|pool| pool.role == Role::Primary);
            self.raise_floor(id, on_primary);
        }
        if let Some(client) = owner.and_then(|id| self.clients.get_mut(id)) {
            client.state = State::Idle;
            client.changed = false;
            client.active_us = self.now_us;
            if !client.inbox.is_empty() || self.draining {
                client.wake();
            }
        }
        self.give_back(server);
    }

    /// Puts a server nobody uses any more into its pool, or closes it.
    fn give_back(&mut self, server: ServerId) {
        let Some(this) = self.servers.get_mut(server) else { return };
        if this.cancels > 0 {
            this.use_ = Use::Cooling;
            return;
        }
        if this.retire || !this.is_clean() {
            self.discard(server);
            return;
        }
        this.use_ = Use::Idle;
        this.replies.trim();
        this.rested_us = self.now_us;
        let pool = this.pool;
        self.put(pool, server);
    }

    /// Puts a clean server into its pool, or into the hands of who waits for one.
    pub(super) fn put(&mut self, pool: PoolId, server: ServerId) {
        loop {
            match self.pools[pool].slice.put(server) {
                // A loop, not a recursion: thousands may wait to be let in.
                Next::Attach(client, server) if !self.grant(client, server) => {}
                Next::Close(server) => return self.drop_server(server),
                Next::Attach(..) | Next::Rests => return,
            }
        }
    }

    /// The oldest waiter gets the server, and its request is written to it in this turn. False if
    /// it does not need one (any more).
    fn grant(&mut self, id: ClientId, server: ServerId) -> bool {
        // Waiters leave the queue before they go; if one did not, the server must not be lost.
        let Some(client) = self.clients.get_mut(id) else { return false };
        if client.arriving.is_some() && client.params.reported.borrow().is_some() {
            // Others with the same settings have come in since.
            client.state = State::Idle;
            // What it sent behind its login has waited as well.
            client.wake();
            self.welcome(id);
            return false;
        }
        client.mid_batch = client.arriving.is_none();
        if self.attach(id, server) {
            self.pump_inbox(id);
        }
        true
    }

    /// Acts on the bytes a client has waiting.
    pub(super) fn pump_inbox(&mut self, id: ClientId) {
        let Some(client) = self.clients.get_mut(id) else { return };
        let mut inbox = std::mem::take(&mut client.inbox);
        let used = self.pump(id, &inbox);
        let Some(client) = self.clients.get_mut(id) else { return };
        // Its socket was not read any more, so nothing but this tells its task that there is room.
        if inbox.len() > LOOK_BYTES && used > 0 {
            client.wake();
        }
        if used < inbox.len() {
            inbox.drain(..used);
            client.inbox = inbox;
        }
    }

    /// Closes a server that is in use or of no use, and makes room for another.
    pub(super) fn discard(&mut self, server: ServerId) {
        let Some(this) = self.servers.get(server) else { return };
        let pool = this.pool;
        if this.use_ == Use::Idle {
            self.pools[pool].slice.remove_idle(&server);
        } else {
            self.pools[pool].slice.lost();
        }
        self.drop_server(server);
        self.grow(pool);
    }

    /// Closes a server that was just taken out of its slice.
    pub(super) fn discard_idle(&mut self, server: ServerId) {
        self.drop_server(server);
    }

    fn drop_server(&mut self, server: ServerId) {
        let Some(mut this) = self.servers.remove(server) else { return };
        self.pools[this.pool].counters.total_server_closes.add(1);
        // Politely, so that the server does not log a lost connection; but never into the middle of
        // a message, which these bytes might complete.
        if !this.replies.busy() && this.conn.backlog() == 0 {
            let mut bye = Vec::new();
            build::message(&mut bye, crate::wire::tag::client::TERMINATE, |_| {});
            let _ = this.conn.send(&bye);
        }
        this.wake();
    }

    /// Opens servers for those who wait, as far as the pool may.
    pub(super) fn grow(&mut self, pool: PoolId) {
        if self.pools[pool].retry_us > self.now_us {
            return;
        }
        while self.pools[pool].slice.wants_one_more() {
            self.todo.push(Todo::Open(pool));
        }
    }

    /// The client has gone: nothing of it stays.
    pub(super) fn hang_up(&mut self, id: ClientId, how: Farewell) {
        let Some(client) = self.clients.remove(id) else { return };
        client.wake();
        let unfinished = client.mid_batch || client.rest.bytes > 0;
        self.part_from(id, client.state, client.pinned, unfinished, how);
    }

    /// The session ends with an error that the client is told first.
    pub(super) fn fatal(&mut self, id: ClientId, error: &PgError) {
        let held = self.clients.get(id).and_then(Client::server).and_then(|server| self.servers.get(server));
        let silently = held.is_some_and(|server| server.replies.must_end_silently());
        self.end(id, if silently { None } else { Some(error) });
    }

    /// The session ends, after this error if there is one.
    pub(super) fn end(&mut self, id: ClientId, error: Option<&PgError>) {
        let Some(client) = self.clients.get_mut(id) else { return };
        if matches!(client.state, State::Closing { .. }) {
            return;
        }
        let before = std::mem::replace(&mut client.state, State::Closing { until_us: self.now_us + CLOSING_US });
        let mut out = Vec::new();
        if let Some(arriving) = client.arriving.take() {
            out = arriving.prefix;
        }
        if let Some(error) = error {
            error.encode(&mut out);
        }
        client.inbox = Vec::new();
        let _ = client.conn.send(&out);
        client.wake();
        let pinned = client.pinned;
        let unfinished = client.mid_batch || client.rest.bytes > 0;
        self.part_from(id, before, pinned, unfinished, Farewell::Lost);
    }

    fn part_from(&mut self, id: ClientId, state: State, pinned: Effects, unfinished: bool, how: Farewell) {
        match state {
            State::Idle | State::Closing { .. } => {}
            State::Waiting { pool, .. } => {
                self.pools[pool].slice.leave(&id);
            }
            State::Attached(server) => self.abandon(server, pinned, unfinished, how),
        }
    }

    /// A server whose client has gone: as it is if it is clean, after a rollback and reset if it
    /// only stands in a transaction or holds session state, else cancelled and closed.
    fn abandon(&mut self, server: ServerId, pinned: Effects, unfinished: bool, how: Farewell) {
        let Some(this) = self.servers.get_mut(server) else { return };
        if this.replies.busy() || unfinished || this.conn.backlog() > 0 || !this.inbox.is_empty() {
            // What was asked for before a goodbye is done, as on a direct connection: the server
            // finishes it before it finds the connection closed.
            if this.replies.busy() && how == Farewell::Lost {
                let key = this.key.clone();
                self.todo.push(Todo::CancelGone(this.pool, key));
            }
            self.discard(server);
            return;
        }
        let rollback = this.replies.status() != b'I';
        if !rollback && pinned.is_empty() {
            self.give_back(server);
            return;
        }
        let mut out = Vec::new();
        if rollback {
            self.clean_with(server, &mut out, "ROLLBACK");
        }
        if !pinned.is_empty() {
            self.clean_with(server, &mut out, "DISCARD ALL");
            if let Some(this) = self.servers.get_mut(server) {
                this.forget_prepared();
                this.unnamed = UnnamedOn::Nobody;
                this.params = Rc::clone(&self.groups[self.pools[this.pool].group].no_params);
            }
        }
        if let Some(this) = self.servers.get_mut(server) {
            this.use_ = Use::Cleaning;
            if !this.send(&out) {
                self.discard(server);
            }
        }
    }

    fn clean_with(&mut self, server: ServerId, out: &mut Vec<u8>, sql: &str) {
        build::query(out, sql.as_bytes());
        if let Some(this) = self.servers.get_mut(server) {
            this.replies.expect(Expect {
                kind: Kind::Query,
                origin: Origin::Injected,
                owner: u32::MAX,
                statement: NO_STATEMENT,
                cookie: 0,
                sent_us: self.now_us,
            });
        }
    }

    /// A cancel request has reached its end: a server that was only kept back for it is free.
    pub fn cancelled(&mut self, server: ServerId) {
        self.now_us = crate::base::clock::now_us();
        let Some(this) = self.servers.get_mut(server) else { return };
        this.cancels = this.cancels.saturating_sub(1);
        if this.cancels == 0 && this.use_ == Use::Cooling {
            self.give_back(server);
        }
    }

    /// Cancels what a client is still waiting to have done: no server need know.
    fn cancel_waiting(&mut self, id: ClientId) {
        let Some(client) = self.clients.get_mut(id) else { return };
        let State::Waiting { pool, .. } = client.state else { return };
        if client.arriving.is_some() {
            return;
        }
        let message = "canceling statement due to user request";
        let mut inbox = std::mem::take(&mut client.inbox);
        let front = self.front(&inbox);
        let Ok(Batch::Whole { len, end: End::Query | End::Call | End::Sync }) = front else {
            return self.fatal(id, &PgError::fatal(SqlState::QUERY_CANCELED, message));
        };
        self.pools[pool].slice.leave(&id);
        inbox.drain(..len);
        let mut out = Vec::new();
        PgError::error(SqlState::QUERY_CANCELED, message).encode(&mut out);
        build::ready(&mut out, b'I');
        if let Some(client) = self.clients.get_mut(id) {
            client.state = State::Idle;
            client.inbox = inbox;
            client.send(&out);
            client.wake();
        }
    }

    /// Lets a client's cancel request through. Returns whether a server will be bothered with it:
    /// the caller then hears of its end when `done` of the [`Todo`] is dropped.
    pub fn cancel(&mut self, slot: u32, key: &[u8]) -> bool {
        let Some(id) = self.clients.id_at(slot) else { return false };
        let Some(client) = self.clients.get(id) else { return false };
        if !client.key.matches(key) {
            return false;
        }
        let Some(server) = client.server() else {
            self.cancel_waiting(id);
            return false;
        };
        let Some(this) = self.servers.get_mut(server) else { return false };
        // One under way is enough; and what only tries settings is not the client's query.
        if !this.replies.busy() || this.cancels > 0 || this.prior.is_some() {
            return false;
        }
        this.cancels += 1;
        self.pools[this.pool].counters.total_cancels.add(1);
        self.todo.push(Todo::Cancel(server));
        true
    }
}
