//! Prepared statements: one name space per client, one set of shared statements per server.
//! Must never let a client reach a statement that it has not prepared itself.
//!
//! A named statement gets a name made from its content's number on servers. Where a server has it
//! already the client's Parse is not sent and ParseComplete is made up at its place; where a
//! server lacks what a Bind names, a Parse is put in front of the Bind in the same write.
//! What PostgreSQL would refuse is sent in a form that it refuses for the same reason: a second
//! Parse of a name, a Bind of an unknown one.

use std::rc::Rc;

use super::attach::{NO_STATEMENT, UNNAMED};
use super::client::Unnamed;
use super::forward::{Message, Outgoing, Taken, bad};
use super::renames::Named;
use super::server::UnnamedOn;
use super::shapes::Look;
use super::statements::{PREFIX, ServerName, Statement, Under};
use super::{ClientId, LOOK_BYTES, Relay, ServerId};
use crate::flow::expect::{Kind, Origin};
use crate::sql::verdict::Effects;
use crate::wire::build;
use crate::wire::frame::{HEADER, cstr};
use crate::wire::tag::client as tag;

/// Longest name of a statement or portal that is waited for.
const NAME_BYTES: usize = 16 * 1024;

impl Relay {
    /// The shared statement for a Parse behind its name.
    pub(super) fn statement_for(&mut self, id: ClientId, tail: &[u8]) -> Rc<Statement> {
        let (under, changed) = match self.clients.get(id) {
            Some(client) => {
                let under = Under { conforming: client.conforming, settings: Rc::clone(&client.params.meaning) };
                (under, client.changed || !client.pinned.is_empty())
            }
            None => (Under { conforming: true, settings: Rc::default() }, true),
        };
        if !changed && let Some(known) = self.statements.find(tail, &under) {
            return known;
        }
        let sql = cstr(tail).map_or(tail, |(sql, _)| sql);
        let look = self.shapes.look(sql, under.conforming);
        // Under settings of the session's or transaction's own the text may mean anything.
        if changed { self.statements.alone(tail, under, look) } else { self.statements.add(tail, under, look) }
    }

    pub(super) fn forward_parse(
        &mut self,
        id: ClientId,
        server: ServerId,
        message: &Message<'_>,
        out: &mut Outgoing<'_>,
    ) -> Taken {
        let Some((name, tail)) = cstr(message.body_here()) else { return head_missing(message) };
        let whole = message.body().is_some();
        if !whole && message.header.total <= LOOK_BYTES {
            return Taken::More;
        }
        if name.is_empty() {
            return self.parse_unnamed(id, server, message, whole.then_some(tail));
        }
        if self.must_wait(server, name) {
            return Taken::More;
        }
        self.pool_of(server).inspect(|pool| pool.counters.total_client_parse_count.add(1));
        let taken = self.clients.get(id).and_then(|client| client.prepared.as_ref()?.get(name).cloned());
        if let Some(taken) = taken {
            // The name is in use: PostgreSQL answers 42P05. It will if the same server-side name
            // is prepared twice.
            self.ensure_prepared(id, server, &taken, message.at, out);
            self.expect(id, server, Kind::Parse, Origin::Client, NO_STATEMENT, taken.look.shape);
            return self.renamed(id, message, name, taken.id, HEADER, out);
        }
        let statement = if whole {
            self.statement_for(id, tail)
        } else {
            // Not kept, so it cannot be prepared elsewhere: the client stays with this server.
            self.take_effects(id, Effects::PREPARE);
            self.statements.alone(&[], Under { conforming: true, settings: Rc::default() }, Look::long(Effects::NONE))
        };
        self.rename(id, server, name, Some(Rc::clone(&statement)));
        let Some(this) = self.servers.get_mut(server) else { return Taken::More };
        this.tick += 1;
        if let Some(used) = this.prepared.get_mut(&statement.id) {
            *used = this.tick;
            self.expect(id, server, Kind::Parse, Origin::Faked, statement.id, statement.look.shape);
            self.changed_names(server);
            out.edit(message.at, message.header.total);
            return Taken::Bytes(message.header.total);
        }
        self.make_room(id, server, message.at, out);
        self.note_prepared(server, statement.id);
        self.expect(id, server, Kind::Parse, Origin::Client, statement.id, statement.look.shape);
        self.changed_names(server);
        self.renamed(id, message, name, statement.id, HEADER, out)
    }

    fn parse_unnamed(&mut self, id: ClientId, server: ServerId, message: &Message<'_>, tail: Option<&[u8]>) -> Taken {
        let (unnamed, on, shape) = match tail {
            Some(tail) => {
                let statement = self.statement_for(id, tail);
                let (number, shape) = (statement.id, statement.look.shape);
                (Unnamed::Known(statement), UnnamedOn::Statement(number), shape)
            }
            None => (Unnamed::There, UnnamedOn::Client(id), super::shapes::LONG),
        };
        if let (Some(client), Some(this)) = (self.clients.get_mut(id), self.servers.get_mut(server)) {
            client.unnamed = unnamed;
            this.unnamed = on;
        }
        self.expect(id, server, Kind::Parse, Origin::Client, UNNAMED, shape);
        self.changed_unnamed(server);
        self.pass(id, message)
    }

    pub(super) fn forward_bind(
        &mut self,
        id: ClientId,
        server: ServerId,
        message: &Message<'_>,
        out: &mut Outgoing<'_>,
    ) -> Taken {
        let body = message.body_here();
        let Some((portal, rest)) = cstr(body) else { return head_missing(message) };
        let Some((name, _)) = cstr(rest) else { return head_missing(message) };
        if self.must_wait(server, name) {
            return Taken::More;
        }
        let named = self.meaning(id, server, name);
        let (shape, rename) = match &named {
            Named::Known(statement) => {
                self.take_look(id, &statement.look);
                if name.is_empty() {
                    self.ensure_unnamed(id, server, statement, message.at, out);
                    (statement.look.shape, None)
                } else {
                    self.pool_of(server).inspect(|pool| pool.counters.total_bind_count.add(1));
                    self.ensure_prepared(id, server, statement, message.at, out);
                    (statement.look.shape, Some(Some(statement.id)))
                }
            }
            Named::Unkept => {
                self.note_write(id);
                (super::shapes::LONG, None)
            }
            Named::Unknown => (0, Some(None)),
        };
        if let Some(client) = self.clients.get_mut(id) {
            client.bound = shape;
        }
        let number = match &named {
            Named::Known(statement) => statement.id,
            Named::Unkept | Named::Unknown => NO_STATEMENT,
        };
        self.expect(id, server, Kind::Bind, Origin::Client, number, shape);
        match rename {
            None => self.pass(id, message),
            Some(Some(number)) => self.renamed(id, message, name, number, HEADER + portal.len() + 1, out),
            Some(None) => self.unknown(id, message, name, HEADER + portal.len() + 1, out),
        }
    }

    pub(super) fn forward_describe(
        &mut self,
        id: ClientId,
        server: ServerId,
        message: &Message<'_>,
        out: &mut Outgoing<'_>,
    ) -> Taken {
        let Some(body) = message.body() else { return whole_missing(message) };
        let statement = match body.split_first() {
            Some((b'P', _)) => None,
            Some((b'S', name)) => match cstr(name) {
                Some((name, [])) => Some(name),
                _ => return bad("malformed Describe"),
            },
            _ => return bad("malformed Describe"),
        };
        let shape = self.clients.get(id).map_or(0, |client| client.bound);
        let Some(name) = statement else {
            self.expect(id, server, Kind::Describe, Origin::Client, NO_STATEMENT, shape);
            return self.pass(id, message);
        };
        if self.must_wait(server, name) {
            return Taken::More;
        }
        let named = self.meaning(id, server, name);
        if let Named::Known(statement) = &named {
            if name.is_empty() {
                self.ensure_unnamed(id, server, statement, message.at, out);
            } else {
                self.ensure_prepared(id, server, statement, message.at, out);
            }
        }
        self.expect(id, server, Kind::Describe, Origin::Client, NO_STATEMENT, shape);
        match named {
            Named::Known(statement) if !name.is_empty() => {
                self.renamed(id, message, name, statement.id, HEADER + 1, out)
            }
            Named::Known(_) | Named::Unkept => self.pass(id, message),
            Named::Unknown => self.unknown(id, message, name, HEADER + 1, out),
        }
    }

    pub(super) fn forward_close(
        &mut self,
        id: ClientId,
        server: ServerId,
        message: &Message<'_>,
        out: &mut Outgoing<'_>,
    ) -> Taken {
        let Some(body) = message.body() else { return whole_missing(message) };
        let name = match body.split_first() {
            Some((b'P', _)) => None,
            Some((b'S', name)) => match cstr(name) {
                Some((name, [])) => Some(name),
                _ => return bad("malformed Close"),
            },
            _ => return bad("malformed Close"),
        };
        if name.is_some_and(|name| self.must_wait(server, name)) {
            return Taken::More;
        }
        match name {
            Some(name) if !name.is_empty() => {
                // The shared statement stays on the server; only the client's name for it goes.
                // (A name that SQL's PREPARE made is the server's business.)
                if let Named::Known(statement) = self.meaning(id, server, name) {
                    self.rename(id, server, name, None);
                    self.expect(id, server, Kind::Close, Origin::Faked, statement.id, 0);
                    self.changed_names(server);
                    out.edit(message.at, message.header.total);
                    return Taken::Bytes(message.header.total);
                }
            }
            Some(_) => {
                if let (Some(client), Some(this)) = (self.clients.get_mut(id), self.servers.get_mut(server)) {
                    client.unnamed = Unnamed::Nothing;
                    this.unnamed = UnnamedOn::Nobody;
                }
            }
            None => {}
        }
        self.expect(id, server, Kind::Close, Origin::Client, NO_STATEMENT, 0);
        match name {
            Some(name) if name.starts_with(PREFIX) => self.unknown(id, message, name, HEADER + 1, out),
            _ => self.pass(id, message),
        }
    }

    /// Puts a Parse in front of `at` if the server lacks the statement.
    fn ensure_prepared(
        &mut self,
        id: ClientId,
        server: ServerId,
        statement: &Statement,
        at: usize,
        out: &mut Outgoing<'_>,
    ) {
        let Some(this) = self.servers.get_mut(server) else { return };
        this.tick += 1;
        if let Some(used) = this.prepared.get_mut(&statement.id) {
            *used = this.tick;
            return;
        }
        if !statement.is_kept() {
            return;
        }
        self.make_room(id, server, at, out);
        self.note_prepared(server, statement.id);
        out.edit(at, 0);
        build::message(&mut out.tx, tag::PARSE, |tx| {
            build::cstr(tx, ServerName::of(statement.id).bytes());
            tx.extend_from_slice(&statement.tail);
        });
        self.expect(id, server, Kind::Parse, Origin::Injected, statement.id, statement.look.shape);
        self.changed_names(server);
    }

    /// Puts a Parse of the client's unnamed statement in front of `at` if the server's is another.
    fn ensure_unnamed(
        &mut self,
        id: ClientId,
        server: ServerId,
        statement: &Statement,
        at: usize,
        out: &mut Outgoing<'_>,
    ) {
        let Some(this) = self.servers.get_mut(server) else { return };
        if this.unnamed == UnnamedOn::Statement(statement.id) {
            return;
        }
        this.unnamed = UnnamedOn::Statement(statement.id);
        out.edit(at, 0);
        build::parse(&mut out.tx, b"", &statement.tail);
        self.expect(id, server, Kind::Parse, Origin::Injected, UNNAMED, statement.look.shape);
        self.changed_unnamed(server);
    }

    fn note_prepared(&mut self, server: ServerId, statement: u32) {
        self.pool_of(server).inspect(|pool| pool.counters.total_server_parse_count.add(1));
        if let Some(this) = self.servers.get_mut(server) {
            this.prepared.insert(statement, this.tick);
        }
    }

    /// Closes statements used longest ago while the server has as many as it may, but never one
    /// that the batch being forwarded has used (`reference/defects.md` entry 24).
    fn make_room(&mut self, id: ClientId, server: ServerId, at: usize, out: &mut Outgoing<'_>) {
        let limit = self.config.pool.max_prepared_statements as usize;
        while let Some(this) = self.servers.get_mut(server)
            && this.prepared.len() >= limit
            && let Some((&number, &used)) = this.prepared.iter().min_by_key(|(_, used)| **used)
            && used <= this.batch_tick
        {
            this.prepared.remove(&number);
            out.edit(at, 0);
            build::close_statement(&mut out.tx, ServerName::of(number).bytes());
            self.expect(id, server, Kind::Close, Origin::Injected, number, 0);
            self.changed_names(server);
        }
    }

    /// Takes a message whose statement name, at `offset` in it, becomes that of statement `number`.
    fn renamed(
        &mut self,
        id: ClientId,
        message: &Message<'_>,
        name: &[u8],
        number: u32,
        offset: usize,
        out: &mut Outgoing<'_>,
    ) -> Taken {
        let new = ServerName::of(number);
        self.with_name(id, message, name, new.bytes(), offset, out)
    }

    /// Takes a message that names a statement the client does not have, under a name that no
    /// server has either: PostgreSQL then answers 26000.
    fn unknown(
        &mut self,
        id: ClientId,
        message: &Message<'_>,
        name: &[u8],
        offset: usize,
        out: &mut Outgoing<'_>,
    ) -> Taken {
        let pinned = self.clients.get(id).is_some_and(|client| client.pinned.any(Effects::PREPARE));
        if name.is_empty() {
            return self.with_name(id, message, name, b"unnamed", offset, out);
        }
        if name.starts_with(PREFIX) || !pinned {
            let shown = [b"?", name].concat();
            return self.with_name(
                id,
                message,
                name,
                if name.starts_with(PREFIX) { &shown } else { name },
                offset,
                out,
            );
        }
        self.pass(id, message)
    }

    fn with_name(
        &mut self,
        id: ClientId,
        message: &Message<'_>,
        name: &[u8],
        new: &[u8],
        offset: usize,
        out: &mut Outgoing<'_>,
    ) -> Taken {
        let end = offset + name.len() + 1;
        out.edit(message.at, end);
        let total = message.header.total - name.len() + new.len();
        out.tx.push(message.header.tag);
        out.tx.extend_from_slice(&((total - 1) as u32).to_be_bytes());
        out.tx.extend_from_slice(message.data.get(HEADER..offset).unwrap_or_default());
        out.tx.extend_from_slice(new);
        out.tx.push(0);
        self.pass(id, message)
    }
}

/// The names at the head of a message are not here yet, or never will be.
fn head_missing(message: &Message<'_>) -> Taken {
    if message.body().is_some() || message.data.len() > NAME_BYTES {
        return bad("statement or portal name without a terminator");
    }
    Taken::More
}

/// A short message is not whole yet, or claims to be long.
fn whole_missing(message: &Message<'_>) -> Taken {
    if message.header.total > NAME_BYTES {
        return bad("Describe or Close of more than 16 KiB");
    }
    Taken::More
}
