//! How a server comes back from a client, and how either of them goes.
//! Must never put a server into its pool that is not clean.

use std::rc::Rc;

use super::attach::NO_STATEMENT;
use super::client::{Rest, State};
use super::inventory::HIDDEN;
use super::server::{Left, UnnamedOn, Use};
use super::{Client, ClientId, LOOK_BYTES, PoolId, Relay, ServerId, Todo};
use crate::config::PoolMode;
use crate::flow::expect::{Expect, Kind, Origin};
use crate::pool::budget::Stake;
use crate::pool::slice::Next;
use crate::wire::build;
use crate::wire::error::PgError;

/// How a client goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Farewell {
    /// It said goodbye.
    Terminated,
    /// Its connection broke or was ended.
    Lost,
}

/// What matters of a client that goes to the server that it leaves.
struct Parting {
    state: State,
    /// Of a message whose beginning was forwarded.
    rest: Rest,
    /// Messages without their Sync were forwarded.
    mid_batch: bool,
    /// What its session has, or may have, left.
    leaves: Left,
}

impl Parting {
    fn of(client: &Client, state: State, keeps: bool) -> Self {
        let leaves = match &client.touched {
            _ if keeps || client.is_bound() => Left::Session,
            // It may have prepared something, too.
            Some(touched) if touched.effects.any(HIDDEN) => Left::Session,
            Some(_) => Left::Traces,
            None => Left::Nothing,
        };
        Self { state, rest: client.rest, mid_batch: client.mid_batch, leaves }
    }
}

/// What DISCARD ALL does (src/backend/commands/discard.c) but for plans and prepared statements, which
/// are pgweir's own: those stay.
const RESET_TRACES: &str = "CLOSE ALL; RESET SESSION AUTHORIZATION; RESET ALL; UNLISTEN *; \
    SELECT pg_catalog.pg_advisory_unlock_all(); DISCARD TEMP; DISCARD SEQUENCES";

/// How long a server may take to become clean after a client was lost, microseconds.
const CLEANING_US: u64 = 10_000_000;

/// Buffers kept for the next clients that wait, and how large they may be: 1 MiB in all.
pub(super) const SPARES: usize = 256;
pub(super) const SPARE_BYTES: usize = 4096;

/// How long a closing client may take to read its last error, microseconds.
const CLOSING_US: u64 = 5_000_000;

impl Relay {
    /// The client is done with its server: it is idle again, and the server goes back.
    pub(super) fn release(&mut self, server: ServerId) {
        let owner = self.servers.get(server).and_then(super::Server::owner);
        if let Some(id) = owner {
            self.note_seen(id, server);
        }
        if let Some(client) = owner.and_then(|id| self.clients.get_mut(id)) {
            client.state = State::Idle;
            client.changed = false;
            client.pin = None;
            client.draws.released();
            client.active_us = self.now_us;
            if !client.inbox.is_empty() || self.draining {
                client.wake();
            }
        }
        self.spoken(server);
        if !self.read_code(server) {
            self.give_back(server);
        }
    }

    /// Puts a server nobody uses any more into its pool, or closes it.
    pub(super) fn give_back(&mut self, server: ServerId) {
        let Some(this) = self.servers.get_mut(server) else { return };
        if this.cancels > 0 || this.aimed > 0 {
            this.use_ = Use::Cooling;
            return;
        }
        if this.retire || !this.is_clean() {
            self.discard(server);
            return;
        }
        this.use_ = Use::Idle;
        self.notes_over(server, u64::MAX);
        let Some(this) = self.servers.get(server) else { return };
        if this.guard.is_some() {
            self.guard_ends(server);
        }
        let Some(this) = self.servers.get_mut(server) else { return };
        this.unnamed_before.clear();
        this.replies.trim();
        this.rested_us = self.now_us;
        let pool = this.pool;
        self.put(pool, server);
    }

    /// Puts a clean server into its pool, or into the hands of who waits for one.
    pub(super) fn put(&mut self, pool: PoolId, server: ServerId) {
        if self.pools[pool].is_held() {
            self.pools[pool].slice.lost();
            return self.drop_server(server);
        }
        let stakes = &self.pools[pool].stakes;
        if stakes.iter().any(|stake| stake.is_pressed() && stake.must_give_up()) {
            // Another pool starves for want of a connection, and this one has more than its part.
            self.pools[pool].slice.lost();
            return self.drop_server(server);
        }
        if self.begins_for_hopefuls(pool, server) {
            return;
        }
        loop {
            match self.pools[pool].slice.put(server) {
                // A loop, not a recursion: thousands may wait to be let in.
                Next::Attach(client, server) if !self.grant(client, server) => {}
                Next::Close(server) => return self.drop_server(server),
                Next::Rests if self.pools[pool].stakes.iter().any(Stake::is_wanted) => return self.spare(pool),
                Next::Attach(..) | Next::Rests => return,
            }
        }
    }

    /// The oldest waiter gets the server, and its request is written to it in this turn. False if
    /// it does not need one (any more).
    fn grant(&mut self, id: ClientId, server: ServerId) -> bool {
        // Waiters leave the queue before they go; if one did not, the server must not be lost.
        let Some(group) = self.clients.get(id).map(|client| client.group) else { return false };
        let direct = self.is_direct(group);
        let Some(client) = self.clients.get_mut(id) else { return false };
        let arrives = client.arriving.is_some();
        if arrives && client.params.reported.borrow().is_some() && !direct {
            // Others with the same settings have come in since.
            client.state = State::Idle;
            // What it sent behind its login has waited as well.
            client.wake();
            self.welcome(id);
            return false;
        }
        if !arrives && let Some(used) = self.board_waiting(id, server) {
            return used;
        }
        let Some(client) = self.clients.get_mut(id) else { return false };
        client.mid_batch = !arrives;
        match self.attach(id, server) {
            true if arrives => self.come_in(id, server),
            true => self.pump_inbox(id),
            false => {}
        }
        true
    }

    /// Acts on the bytes a client has waiting.
    pub(super) fn pump_inbox(&mut self, id: ClientId) {
        let Some(client) = self.clients.get_mut(id) else { return };
        let mut inbox = std::mem::take(&mut client.inbox);
        let used = self.pump(id, &inbox);
        let Some(client) = self.clients.get_mut(id) else { return };
        client.late = false;
        // Its socket was not read any more, so nothing but this tells its task that there is room.
        if inbox.len() > LOOK_BYTES && used > 0 {
            client.wake();
        }
        if used < inbox.len() {
            inbox.drain(..used);
            client.inbox = inbox;
        } else if inbox.capacity() <= SPARE_BYTES && self.spare.len() < SPARES {
            // For the next who has to wait: queueing must not cost an allocation each time.
            inbox.clear();
            self.spare.push(inbox);
        }
    }

    /// Closes a server that is in use or of no use, and makes room for another.
    pub(super) fn discard(&mut self, server: ServerId) {
        let Some(this) = self.servers.get(server) else { return };
        let pool = this.pool;
        match this.use_ {
            _ if this.own => {}
            Use::Idle => {
                self.pools[pool].slice.remove_idle(&server);
            }
            Use::Lent(_) | Use::Shared | Use::Cleaning { .. } | Use::Cooling => self.pools[pool].slice.lost(),
        }
        self.drop_server(server);
        self.grow(pool);
    }

    /// Closes a server that was just taken out of its slice.
    pub(super) fn drop_server(&mut self, server: ServerId) {
        self.notes_lost(server);
        let Some(this) = self.servers.get(server) else { return };
        if this.guard.is_some() {
            let is_over = !this.replies.busy() && this.replies.status() == b'I';
            if is_over { self.guard_ends(server) } else { self.guard_lost(server) }
        }
        let Some(mut this) = self.servers.remove(server) else { return };
        if let Some(reading) = this.reading.take() {
            self.code_lost(&reading);
        }
        let pool = &self.pools[this.pool];
        pool.counters.total_server_closes.add(1);
        pool.stakes.iter().filter(|stake| !this.own || stake.spans_pools()).for_each(Stake::give);
        // Politely, so that the server does not log a lost connection; but never into the middle of
        // a message, which these bytes might complete.
        if !this.replies.busy() && !this.cut_off && this.conn.backlog() == 0 {
            let mut bye = Vec::new();
            build::message(&mut bye, crate::wire::tag::client::TERMINATE, |_| {});
            let _ = this.conn.send(&bye);
        }
        this.wake();
    }

    /// The client has gone: nothing of it stays.
    pub(super) fn hang_up(&mut self, id: ClientId, how: Farewell) {
        self.note_definitions(id);
        self.fill_abandoned(id);
        self.stop_listening_at_all(id);
        let Some(client) = self.clients.remove(id) else { return };
        self.backlogs.forget(id);
        client.wake();
        let parting = Parting::of(&client, client.state, self.keeps(&client));
        self.part_from(id, parting, how);
    }

    /// The session ends with an error that the client is told first.
    pub(super) fn fatal(&mut self, id: ClientId, error: &PgError) {
        let of_lane = |client: &Client| match client.state {
            State::Riding(server) => {
                let lane = self.servers.get(server)?.lane.as_deref()?;
                // Of whose answer some has left.
                (lane.told() == Some(id)).then_some(server)
            }
            _ => None,
        };
        let server = self.clients.get(id).and_then(|client| client.server().or_else(|| of_lane(client)));
        let held = server.and_then(|server| self.servers.get(server));
        let silently = held.is_some_and(|server| server.replies.must_end_silently());
        self.end(id, if silently { None } else { Some(error) });
    }

    /// The session ends, after this error if there is one.
    pub(super) fn end(&mut self, id: ClientId, error: Option<&PgError>) {
        self.note_definitions(id);
        self.fill_abandoned(id);
        let Some(client) = self.clients.get(id) else { return };
        if matches!(client.state, State::Closing { .. }) {
            return;
        }
        let parting = Parting::of(client, client.state, self.keeps(client));
        self.stop_listening_at_all(id);
        let Some(client) = self.clients.get_mut(id) else { return };
        client.state = State::Closing { until_us: self.now_us + CLOSING_US };
        client.pin = None;
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
        self.part_from(id, parting, Farewell::Lost);
    }

    fn part_from(&mut self, id: ClientId, client: Parting, how: Farewell) {
        match client.state {
            State::Idle | State::Closing { .. } => {}
            State::Waiting { pool, .. } => {
                self.pools[pool].slice.leave(&id);
            }
            State::Attached(server) => self.abandon(server, &client, how),
            State::Riding(server) => self.leaves_lane(id, server),
        }
    }

    /// A server whose client has gone. What the client asked for before a goodbye is done, as on a
    /// direct connection; what a client asked for that was lost is cancelled. Then the server is
    /// rolled back and reset as needed, and goes back only if it comes out of that clean.
    fn abandon(&mut self, server: ServerId, client: &Parting, how: Farewell) {
        let Some(this) = self.servers.get_mut(server) else { return };
        // A message cut off in the middle, or data that never ends, cannot be made good.
        let cut_off = client.rest.is_forwarded();
        this.cut_off = cut_off;
        (this.asking, this.opening, this.cancel_next) = (None, false, false);
        if this.handing.take().is_some()
            && let Some(listener) = self.groups[self.pools[this.pool].group].listener.as_mut()
        {
            listener.forget(server);
        }
        this.onto = None;
        let hopeless = cut_off || this.own || this.replies.is_copying() || this.prior.is_some();
        let cancel = this.replies.busy() && how == Farewell::Lost;
        if hopeless {
            if cancel {
                let key = this.key.clone();
                self.todo.push(Todo::CancelGone(this.pool, key));
            }
            return self.discard(server);
        }
        if this.stalled {
            // What its client did not read is read over now.
            this.wake();
        }
        this.left = this.left.max(client.leaves);
        let until_us = if cancel { self.now_us + CLEANING_US } else { u64::MAX };
        this.use_ = Use::Cleaning { until_us };
        if cancel {
            this.cancels += 1;
            self.todo.push(Todo::Cancel(server));
        }
        if client.mid_batch {
            let mut sync = Vec::new();
            build::sync(&mut sync);
            self.inject(server, &sync, Kind::Sync);
        }
        self.clean(server);
    }

    /// The next step of cleaning a server that nobody holds, once the one before is done.
    pub(super) fn clean(&mut self, server: ServerId) {
        let Some(this) = self.servers.get_mut(server) else { return };
        if this.replies.busy() || this.cancels > 0 {
            return;
        }
        if this.reading.is_some() && self.code_read(server) {
            return;
        }
        let Some(this) = self.servers.get_mut(server) else { return };
        let until_us = match this.use_ {
            Use::Cleaning { until_us } => until_us.min(self.now_us + CLEANING_US),
            Use::Idle | Use::Lent(_) | Use::Shared | Use::Cooling => return,
        };
        let sql = if this.replies.status() != b'I' {
            "ROLLBACK"
        } else {
            let group = &self.groups[self.pools[this.pool].group];
            let left = std::mem::take(&mut this.left);
            if left > Left::Nothing {
                this.params = Rc::clone(&group.no_params);
            }
            match (left, group.terms.pool_mode) {
                (Left::Nothing, _) => "",
                (Left::Traces, PoolMode::Transaction | PoolMode::Statement) => RESET_TRACES,
                (Left::Session, PoolMode::Transaction | PoolMode::Statement) => "DISCARD ALL",
                (Left::Traces | Left::Session, PoolMode::Session) => &self.config.pool.server_reset_query,
            }
        };
        if sql.is_empty() {
            return self.give_back(server);
        }
        let mut out = Vec::new();
        build::query(&mut out, sql.as_bytes());
        this.use_ = Use::Cleaning { until_us };
        this.unnamed = UnnamedOn::Nobody;
        self.inject(server, &out, Kind::Query);
    }

    /// Sends a message of pgweir's own to a server that nobody holds.
    fn inject(&mut self, server: ServerId, bytes: &[u8], kind: Kind) {
        let Some(this) = self.servers.get_mut(server) else { return };
        this.replies.expect(Expect {
            kind,
            origin: Origin::Injected,
            owner: u32::MAX,
            statement: NO_STATEMENT,
            cookie: 0,
            sent_us: self.now_us,
            name: 0,
            note: 0,
        });
        if !this.send(bytes) {
            self.discard(server);
        }
    }

    /// A cancel request has reached its end: a server that was only kept back for it is free.
    pub fn cancelled(&mut self, server: ServerId) {
        self.now_us = crate::base::clock::now_us();
        let Some(this) = self.servers.get_mut(server) else { return };
        this.cancels = this.cancels.saturating_sub(1);
        match this.use_ {
            Use::Cooling => self.give_back(server),
            Use::Cleaning { .. } => self.clean(server),
            Use::Idle | Use::Lent(_) | Use::Shared => {}
        }
    }

    /// Lets a client's cancel request through. Returns whether a server will be bothered with it:
    /// the caller then hears of its end when `done` of the [`Todo`] is dropped.
    pub fn cancel(&mut self, id: ClientId) -> bool {
        let Some(client) = self.clients.get(id) else { return false };
        if let State::Riding(server) = client.state {
            return self.cancel_riding(id, server);
        }
        let Some(server) = client.server() else {
            self.cancel_waiting(id);
            return false;
        };
        let Some(this) = self.servers.get_mut(server) else { return false };
        this.again.is_cancelled();
        // One under way is enough; and what asks for settings comes behind the client's query.
        if !this.replies.busy() || this.cancels > 0 || this.asking.is_some() || this.handing.is_some() {
            return false;
        }
        if this.is_being_set_up() {
            this.cancel_next = true;
            return false;
        }
        self.cancel_on(server);
        true
    }

    fn cancel_on(&mut self, server: ServerId) {
        let Some(this) = self.servers.get_mut(server) else { return };
        this.cancels += 1;
        self.pools[this.pool].counters.total_cancels.add(1);
        self.todo.push(Todo::Cancel(server));
    }

    /// Passes on a cancel request that came while something else ran in front of what it means, if that runs now.
    pub(super) fn cancel_behind(&mut self, server: ServerId) {
        let Some(this) = self.servers.get_mut(server) else { return };
        if this.cancel_next && !this.is_being_set_up() {
            this.cancel_next = false;
            if this.replies.busy() && this.cancels == 0 {
                self.cancel_on(server);
            }
        }
    }
}
