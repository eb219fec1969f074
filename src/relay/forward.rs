//! A client's bytes on their way to its server.
//! Must never put a message on the wire without entering the reply it owes, nor the reverse.

use super::attach::{NO_STATEMENT, UNNAMED};
use super::client::{Rest, State, Unnamed};
use super::lease::{Lease, Target};
pub(super) use super::message::Message;
pub(super) use super::outgoing::Outgoing;
use super::release::Farewell;
use super::run::Before;
use super::server::UnnamedOn;
use super::shapes::Look;
use super::unserved::no_replica;
use super::{ClientId, LOOK_BYTES, OWED, READ_BYTES, Relay, Server, ServerId};
use crate::flow::expect::{Expect, Kind, Origin};
use crate::flow::requests::{Batch, End};
use crate::sql::verdict::Effects;
use crate::wire::error::{PgError, SqlState};
use crate::wire::frame::{HEADER, Header, cstr};
use crate::wire::tag::client as tag;

/// What became of one message.
pub(super) enum Taken {
    /// `n` of its bytes were taken; all of them unless it is passed on as it comes.
    Bytes(usize),
    /// It must be whole, or at least its head, before anything can be done.
    More,
    /// The client broke the protocol.
    Bad(PgError),
    /// The client says goodbye.
    Leave,
}

impl Relay {
    /// Takes what can be taken of `data`, the bytes a client sent, and says how much that was.
    pub(super) fn pump(&mut self, id: ClientId, data: &[u8]) -> usize {
        self.shapes.forget_last();
        self.single = None;
        let mut at = 0;
        while let Some(rest) = data.get(at..)
            && !rest.is_empty()
            && let Some(client) = self.clients.get_mut(id)
        {
            match client.state {
                State::Attached(server) => return at + self.forward(id, server, rest),
                State::Idle if !client.rest.is_empty() => {
                    let n = client.rest.take(rest.len());
                    at += n;
                }
                State::Idle if client.skipping => match self.skip(id, rest) {
                    Some(n) => at += n,
                    None => return at,
                },
                State::Idle => match self.begin(id, rest) {
                    Some(n) => at += n,
                    None => return at,
                },
                State::Waiting { .. } | State::Riding(_) => return at,
                State::Closing { .. } => return data.len(),
            }
        }
        at
    }

    /// Looks at the front of an idle client's bytes. `Some(n)`: `n` bytes are done with, and there
    /// may be more to do; `None`: nothing can be done now.
    fn begin(&mut self, id: ClientId, data: &[u8]) -> Option<usize> {
        let whole = match self.front(data) {
            Ok(Batch::Incomplete) => return None,
            // Nothing was asked for that could be answered: no server is needed for it.
            Ok(Batch::Whole { len: HEADER, end: End::Flush }) => return Some(HEADER),
            Ok(Batch::Whole { len, end }) => Some((len, end)),
            Ok(Batch::Oversize) => None,
            // A server that is not copying drops these without a word, so it need not see them.
            Ok(Batch::Stray { total }) => {
                self.clients.get_mut(id)?.rest = Rest::dropped(total);
                return Some(0);
            }
            Ok(Batch::Terminate) => {
                self.hang_up(id, Farewell::Terminated);
                return None;
            }
            Ok(Batch::Unknown(other)) => {
                self.violation(id, &format!("invalid frontend message type {other}"));
                return None;
            }
            Err(bad) => {
                self.violation(id, &bad.to_string());
                return None;
            }
        };
        let end = whole.map(|(_, end)| end);
        if !self.move_to_successor(id) {
            return None;
        }
        if let Some(done) = self.refuse_blocked(id, data, end) {
            return done;
        }
        if let Some(done) = self.steer(id, data, end) {
            return done;
        }
        if let Some(done) = self.answer_block(id, data, end) {
            return Some(done);
        }
        self.asks_current = false;
        let target = match end {
            Some(end) => self.target(id, data, end),
            None => self.target_unseen(id),
        };
        let target = self.target_unopened(id, target, data);
        if self.asks_current && target != Target::Primary {
            self.must_be_current(id);
        }
        match whole {
            Some((len, end)) => {
                if let Some(done) = self.consult(id, data, len, end) {
                    return done;
                }
            }
            None => self.fill_abandoned(id),
        }
        let target = if self.fills_fenced(id) { Target::Primary } else { target };
        let pool = self.choose(id, target);
        if target != Target::Primary && !self.is_where_it_should(id, pool) && self.waits_for_replica(id, target) {
            return None;
        }
        let Some(pool) = pool else {
            let ruled = target != Target::OnlyReplica && self.is_ruled(id);
            let error = if ruled { self.nobody_serves(id) } else { no_replica(target) };
            return self.spare_or_fail(id, data, whole, &error);
        };
        if let Some((len, end)) = whole
            && self.board(id, pool, data, len, end)
        {
            return None;
        }
        match self.lease(id, pool) {
            Lease::Server(server) => {
                self.clients.get_mut(id)?.mid_batch = true;
                self.attach(id, server).then_some(0)
            }
            Lease::Waits => None,
            Lease::Refused(error) => self.spare_or_fail(id, data, whole, &error),
        }
    }

    /// Forwards messages to the server that the client holds.
    pub(super) fn forward(&mut self, id: ClientId, server: ServerId, data: &[u8]) -> usize {
        if self.servers.get(server).is_none_or(Server::is_reserved) {
            return 0;
        }
        let mut out = Outgoing::new(data, std::mem::take(&mut self.tx));
        let mut at = 0;
        let mut end = None;
        while let Some(rest) = data.get(at..)
            && !rest.is_empty()
        {
            match self.next_message(id, server, at, &mut out) {
                Taken::Bytes(n) => at += n,
                Taken::More => break,
                last => {
                    end = Some(last);
                    break;
                }
            }
        }
        out.edit_end(at);
        let flushed = out.flushed;
        self.put_on_wire(server, out);
        self.undo_dropped(server, None);
        if flushed {
            // Answers that the server will never give may be all that is owed now.
            self.deliver(server, &[]);
        }
        match end {
            Some(Taken::Bad(error)) => self.fatal(id, &error),
            Some(_) => self.hang_up(id, Farewell::Terminated),
            None => {
                // The tail of a message that came behind the last reply.
                if at > 0 && self.servers.get(server).is_some_and(|this| this.inbox.is_empty()) {
                    self.finish(server);
                }
                return at;
            }
        }
        data.len()
    }

    /// One write for everything: the range as it came if nothing was edited, else the copy.
    fn put_on_wire(&mut self, server: ServerId, out: Outgoing<'_>) {
        if let Some(this) = self.servers.get_mut(server) {
            let bytes = out.bytes();
            if !bytes.is_empty() {
                let pool = &self.pools[this.pool];
                pool.counters.total_received.add(bytes.len() as u64);
                if !this.send(bytes) {
                    this.wake();
                }
            }
        }
        let mut tx = out.tx;
        tx.clear();
        if tx.capacity() > 2 * READ_BYTES {
            tx = Vec::new();
        }
        self.tx = tx;
    }

    fn next_message(&mut self, id: ClientId, server: ServerId, at: usize, out: &mut Outgoing<'_>) -> Taken {
        let data = out.data.get(at..).unwrap_or_default();
        let Some(client) = self.clients.get_mut(id) else { return Taken::More };
        if !client.rest.is_empty() {
            let n = client.rest.take(data.len());
            if client.rest.drop {
                out.edit(at, n);
            }
            return Taken::Bytes(n);
        }
        let mid_batch = client.mid_batch;
        if mid_batch && self.servers.get(server).is_some_and(|s| s.replies.owed() > OWED) {
            let message = "pgweir: too many messages without a Sync between them";
            return Taken::Bad(PgError::fatal(SqlState::PROGRAM_LIMIT, message));
        }
        let header = match Header::peek(data, self.max_message()) {
            Ok(Some(header)) => header,
            Ok(None) => return Taken::More,
            Err(bad) => return Taken::Bad(PgError::fatal(SqlState::PROTOCOL_VIOLATION, bad.to_string())),
        };
        let begins = mid_batch || (self.may_follow(id, server, data) && self.settings_first(id, server, at, out));
        if !begins {
            return Taken::More;
        }
        let message = Message { at, header, data };
        let lent = self.servers.get(server).is_some_and(|this| this.again.is_lent());
        out.begins = !mid_batch || lent;
        if out.begins {
            out.kept_from = self.batch_begins(id, server, lent).then_some(at);
            out.movable = self.may_be_moved(id, server, lent);
            out.may_fail = out.movable;
        }
        match header.tag {
            tag::QUERY => self.forward_query(id, server, &message, out),
            tag::PARSE => self.forward_parse(id, server, &message, out),
            tag::BIND => self.forward_bind(id, server, &message, out),
            tag::DESCRIBE => self.forward_describe(id, server, &message, out),
            tag::CLOSE => {
                if let (Some(portal), Some(this)) = (closes_portal(message.body_here()), self.servers.get_mut(server)) {
                    this.notes.iter_mut().for_each(|notes| notes.bind(portal, None));
                }
                self.forward_close(id, server, &message, out)
            }
            tag::EXECUTE => {
                self.note_execute(server, &message);
                let Some(client) = self.clients.get(id) else { return Taken::More };
                if client.prepared.as_ref().is_some_and(|names| names.watches_portals()) {
                    return self.forward_clearing(id, server, &message, out);
                }
                self.expect(id, server, Kind::Execute, Origin::Client, NO_STATEMENT, client.bound);
                self.pass(id, &message)
            }
            tag::SYNC | tag::FLUSH if header.total != HEADER => bad("Sync or Flush with a body"),
            tag::SYNC => {
                self.expect(id, server, Kind::Sync, Origin::Client, NO_STATEMENT, 0);
                self.batch_over(id, server);
                if let Some(from) = out.kept_from.take()
                    && out.may_fail
                    && let (Some(this), Some(batch)) = (self.servers.get_mut(server), out.data.get(from..at + HEADER))
                {
                    this.again.keep(batch, out.movable);
                }
                Taken::Bytes(HEADER)
            }
            tag::FLUSH => {
                out.kept_from = None;
                out.flushed = true;
                Taken::Bytes(HEADER)
            }
            tag::FUNCTION_CALL if !self.fence_lets_unseen(id, server) => Taken::More,
            tag::FUNCTION_CALL => {
                self.note_write(id);
                self.take_effects(id, Effects::OPAQUE, b"");
                self.note_call(id, server);
                self.expect(id, server, Kind::Call, Origin::Client, NO_STATEMENT, 0);
                self.batch_over(id, server);
                self.pass(id, &message)
            }
            tag::COPY_DATA | tag::COPY_DONE | tag::COPY_FAIL => {
                if let Some(this) = self.servers.get_mut(server) {
                    this.replies.copy_sent(header.tag != tag::COPY_DATA);
                }
                self.pass(id, &message)
            }
            tag::TERMINATE => Taken::Leave,
            other => bad(&format!("invalid frontend message type {other}")),
        }
    }

    fn forward_query(
        &mut self,
        id: ClientId,
        server: ServerId,
        message: &Message<'_>,
        out: &mut Outgoing<'_>,
    ) -> Taken {
        let (look, sql) = match message.body() {
            Some(body) => {
                let Some((sql, _)) = cstr(body) else { return bad("Query without a terminator") };
                let conforming = self.clients.get(id).is_none_or(|client| client.conforming);
                (self.shapes.look(sql, conforming), sql)
            }
            None if message.header.total <= LOOK_BYTES => return Taken::More,
            // Whatever it is, it may leave something in the session.
            None => (Look::long(Effects::SET_SESSION.union(Effects::OPAQUE)), &[][..]),
        };
        let Ok(restated) = self.restated(id, server, look.effects, sql, None) else { return Taken::More };
        let look = match self.before_run(id, server, look, sql, message, out) {
            Before::Runs(look) => look,
            Before::Waits => return Taken::More,
            Before::Barred(barred) => return self.refuse_query(id, server, message, barred, out),
        };
        // A simple query discards the unnamed statement (exec_simple_query).
        self.set_unnamed(id, server, Unnamed::Nothing, UnnamedOn::Nobody);
        self.note_query(id, server, &look, sql, message);
        self.expect(id, server, Kind::Query, Origin::Client, UNNAMED, look.shape);
        self.changed_unnamed(server);
        if look.effects.any(Effects::DISCARD_ALL.union(Effects::DEALLOCATE))
            && let Some(this) = self.servers.get_mut(server)
        {
            this.replies.changes_names();
            this.discarding |= look.effects.any(Effects::DISCARD_ALL);
        }
        self.batch_over(id, server);
        if out.may_fail
            && let Some(from) = out.kept_from.take()
            && let Some(query) = out.data.get(from..message.at + message.header.total)
            && let Some(this) = self.servers.get_mut(server)
        {
            this.again.keep(query, out.movable);
        }
        if let Some(taken) = self.forward_followed(id, server, message, look.effects, sql, out) {
            return taken;
        }
        match restated {
            Some(restated) => self.restate_query(id, server, message, restated, out),
            None => self.pass(id, message),
        }
    }

    /// Takes as much of the message as is here, unchanged; the rest follows as it comes.
    pub(super) fn pass(&mut self, id: ClientId, message: &Message<'_>) -> Taken {
        let n = message.header.total.min(message.data.len());
        if let Some(client) = self.clients.get_mut(id) {
            client.rest = Rest::passed(message.header.total - n);
        }
        Taken::Bytes(n)
    }

    pub(super) fn expect(
        &mut self,
        id: ClientId,
        server: ServerId,
        kind: Kind,
        origin: Origin,
        statement: u32,
        shape: u64,
    ) {
        let sent_us = self.now_us;
        self.enter(
            id,
            server,
            Expect { kind, origin, owner: id.index(), statement, cookie: shape, sent_us, name: 0, note: 0 },
        );
    }

    /// Enters the reply owed for a message that is being forwarded.
    pub(super) fn enter(&mut self, id: ClientId, server: ServerId, mut entry: Expect) {
        if let Some(this) = self.servers.get_mut(server) {
            if let Some(notes) = this.notes.as_deref_mut() {
                entry.note = notes.enter(&entry);
            }
            if this.began_us == 0 {
                this.began_us = self.now_us;
            }
            this.replies.expect(entry);
            this.again.begun();
        }
        if let Some(client) = self.clients.get_mut(id) {
            client.mid_batch = true;
        }
    }

    pub(super) fn batch_over(&mut self, id: ClientId, server: ServerId) {
        if let Some(client) = self.clients.get_mut(id) {
            client.mid_batch = false;
        }
        if let Some(this) = self.servers.get_mut(server) {
            this.batch_tick = this.tick;
        }
        // What was void from the start must be taken back before the next batch changes anything.
        self.undo_dropped(server, None);
    }

    /// A protocol violation: the client is told and the connection ends.
    pub(super) fn violation(&mut self, id: ClientId, what: &str) {
        self.fatal(id, &PgError::fatal(SqlState::PROTOCOL_VIOLATION, what.to_owned()));
    }
}

pub(super) fn bad(what: &str) -> Taken {
    Taken::Bad(PgError::fatal(SqlState::PROTOCOL_VIOLATION, what.to_owned()))
}

/// The portal that a Close closes.
fn closes_portal(body: &[u8]) -> Option<&[u8]> {
    body.strip_prefix(b"P").and_then(cstr).map(|(portal, _)| portal)
}
