//! Prepared statements: one name space per client, one set of shared statements per server.
//! Must never let a client reach a statement that it has not prepared itself.
//!
//! A named statement gets a name made from its content's number on servers. Where a server has it
//! already the client's Parse is not sent and ParseComplete is made up at its place; where a
//! server lacks what a Bind names, a Parse is put in front of the Bind in the same write.
//! What PostgreSQL would refuse is sent in a form that it refuses for the same reason: a second
//! Parse of a name, a Bind of an unknown one.

use std::rc::Rc;

use super::attach::{NO_STATEMENT, OWN, UNNAMED};
use super::client::Unnamed;
use super::follow::FOLLOWED;
use super::forward::{Message, Outgoing, Taken, bad};
use super::inventory::HIDDEN;
use super::renames::Named;
use super::restate::replace_parse;
use super::retell::{not_ours, sql_of};
use super::run::Before;
use super::server::UnnamedOn;
use super::shapes::{LONG, Look};
use super::sqlnames::{CLEARING, NAMING};
use super::statements::{PREFIX, ServerName, Statement, Under};
use super::{ClientId, LOOK_BYTES, Relay, ServerId};
use crate::flow::expect::{Kind, Origin};
use crate::sql::verdict::Effects;
use crate::wire::frame::{HEADER, cstr};

/// A statement that nobody here has seen: it may do anything.
const UNSEEN: Look = Look::long(Effects::SET_SESSION.union(Effects::OPAQUE));

/// Longest name of a statement or portal that is waited for.
const NAME_BYTES: usize = 16 * 1024;

/// A text that was looked for among those known.
pub(super) struct Found {
    pub known: Option<Rc<Statement>>,
    pub under: Under,
    pub look: Look,
    pub shareable: bool,
}

impl Relay {
    /// The shared statement for a Parse behind its name.
    pub(super) fn statement_for(&mut self, id: ClientId, tail: &[u8]) -> Rc<Statement> {
        let found = self.find_text(id, tail);
        self.keep_text(tail, found)
    }

    /// Looks for the text of a Parse behind its name.
    pub(super) fn find_text(&mut self, id: ClientId, tail: &[u8]) -> Found {
        self.hear_of_changes();
        let (under, changed) = match self.clients.get(id) {
            Some(client) => {
                let under = Under { conforming: client.conforming, settings: Rc::clone(&client.params.meaning) };
                (under, client.changed || client.is_bound())
            }
            None => (Under { conforming: true, settings: Rc::default() }, true),
        };
        // Under settings of the session's or transaction's own the text may mean anything.
        let known = if changed { None } else { self.statements.find(tail, &under) };
        let look = match &known {
            Some(known) => known.look,
            None => self.shapes.look(sql_of(tail), under.conforming),
        };
        Found { known, under, look, shareable: !changed }
    }

    pub(super) fn keep_text(&mut self, tail: &[u8], found: Found) -> Rc<Statement> {
        match found {
            Found { known: Some(known), .. } => known,
            Found { under, look, shareable: true, .. } => self.statements.add(tail, under, look),
            Found { under, look, .. } => self.statements.alone(tail, under, look),
        }
    }

    pub(super) fn forward_parse(
        &mut self,
        id: ClientId,
        server: ServerId,
        message: &Message<'_>,
        out: &mut Outgoing<'_>,
    ) -> Taken {
        let Some((name, mut tail)) = cstr(message.body_here()) else { return head_missing(message) };
        let whole = message.body().is_some();
        if !whole && message.header.total <= LOOK_BYTES {
            return Taken::More;
        }
        if !name.is_empty() && self.must_wait(server, name) {
            return Taken::More;
        }
        let mut found = self.find_text(id, tail);
        let restated = if whole { self.restated_parse(id, &found, tail) } else { None };
        if let Some(restated) = &restated {
            tail = restated;
            found = self.find_text(id, tail);
        }
        if whole && found.look.effects.any(NAMING) && !self.bring_named(id, server, sql_of(tail), message.at, out) {
            return Taken::More;
        }
        if whole && !self.before_statement(id, server, found.look.effects, None, message.at, out) {
            return Taken::More;
        }
        self.note_parse(id, server, found.look.commented, sql_of(tail));
        if name.is_empty() {
            let tail = whole.then_some(tail);
            let taken = self.parse_unnamed(id, server, message, tail, found);
            return restated.map_or(taken, |tail| replace_parse(message, b"", &tail, out));
        }
        let taken = self.clients.get(id).and_then(|client| client.prepared.as_ref()?.get(name).cloned());
        if let Some(taken) = taken {
            return self.parse_taken(id, server, message, name, whole.then_some((tail, found)), &taken, out);
        }
        if !whole || self.has_own_names(id) {
            let look = if whole { self.look_into(id, found.look, sql_of(tail)).0 } else { UNSEEN };
            let taken = self.parse_own(id, server, message, &look);
            return restated.as_ref().map_or(taken, |tail| replace_parse(message, name, tail, out));
        }
        if let Some(limit) = self.limit_passed(id, name, tail, found.known.is_some()) {
            return self.refuse(id, server, message, limit, out);
        }
        self.parse_named(id, server, message, name, (tail, restated.is_some()), found, out)
    }

    #[allow(clippy::too_many_arguments, reason = "the parts of one message, taken apart by its only caller")]
    fn parse_named(
        &mut self,
        id: ClientId,
        server: ServerId,
        message: &Message<'_>,
        name: &[u8],
        (tail, restated): (&[u8], bool),
        found: Found,
        out: &mut Outgoing<'_>,
    ) -> Taken {
        let Some(this) = self.servers.get_mut(server) else { return Taken::More };
        let number = found.known.as_ref().map_or(NO_STATEMENT, |known| known.id);
        this.tick += 1;
        let there = this.prepared.touch(number, this.tick);
        let failed = this.replies.status() == b'E';
        if there && this.replies.batch_owed() {
            // If that leaves a failed transaction PostgreSQL refuses what would be answered here.
            return Taken::More;
        }
        self.count_parse(server);
        let statement = self.keep_text(tail, found);
        self.rename(id, server, name, Some(Rc::clone(&statement)));
        if there && !failed {
            self.expect(id, server, Kind::Parse, Origin::Faked, statement.id, statement.look.shape);
            self.changed_names(server);
            out.edit(message.at, message.header.total);
            return Taken::Bytes(message.header.total);
        }
        if there {
            self.close_again(id, server, statement.id, message.at, out);
        }
        self.make_room(id, server, tail.len(), message.at, out);
        self.note_prepared(server, &statement);
        self.expect(id, server, Kind::Parse, Origin::Client, statement.id, statement.look.shape);
        self.changed_names(server);
        if restated {
            return replace_parse(message, ServerName::of(statement.id).bytes(), tail, out);
        }
        self.renamed(id, message, name, statement.id, HEADER, out)
    }

    /// A Parse under the client's own name: its server already holds names that SQL made, or the
    /// text is too long to be kept here. The client stays with that server.
    fn parse_own(&mut self, id: ClientId, server: ServerId, message: &Message<'_>, look: &Look) -> Taken {
        self.count_parse(server);
        // Nobody sees what it is when it runs.
        self.take_effects(id, look.effects.union(Effects::PREPARE), b"");
        if let Some(names) = self.names_of(id) {
            names.own += 1;
        }
        self.expect(id, server, Kind::Parse, Origin::Client, OWN, look.shape);
        self.changed_names(server);
        self.pass(id, message)
    }

    pub(super) fn count_parse(&self, server: ServerId) {
        self.pool_of(server).inspect(|pool| pool.counters.total_client_parse_count.add(1));
    }

    fn parse_unnamed(
        &mut self,
        id: ClientId,
        server: ServerId,
        message: &Message<'_>,
        tail: Option<&[u8]>,
        found: Found,
    ) -> Taken {
        let (unnamed, on, shape) = match tail {
            Some(tail) => {
                let statement = self.keep_text(tail, found);
                let (number, shape) = (statement.id, statement.look.shape);
                (Unnamed::Known(statement), UnnamedOn::Statement(number), shape)
            }
            None => (Unnamed::There { used: false }, UnnamedOn::Client(id), LONG),
        };
        if shape == LONG {
            // It is to be found there again by whoever binds it in another batch.
            self.take_effects(id, UNSEEN.effects, b"");
        }
        self.set_unnamed(id, server, unnamed, on);
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
        if !matches!(named, Named::Known(_)) && self.must_settle(server, UNSEEN) {
            return Taken::More;
        }
        let is_unseen = matches!(named, Named::Unkept) || (matches!(named, Named::Unknown) && self.has_own_names(id));
        if is_unseen && !self.fence_lets_unseen(id, server) {
            return Taken::More;
        }
        let Ok(restated) = self.restated_bind(id, server, &named, message) else { return Taken::More };
        let mut number = NO_STATEMENT;
        let shape = match &named {
            Named::Known(statement) => {
                let look = match self.before_run(id, server, statement.look, statement.sql(), message, out) {
                    Before::Runs(look) => look,
                    Before::Waits => return Taken::More,
                    Before::Barred(barred) => return self.refuse_bind(id, server, message, barred, out),
                };
                if look.effects.any(Effects::SET_CONFIG.union(HIDDEN)) {
                    self.touch_parameters(id, body);
                }
                if name.is_empty() {
                    self.ensure_unnamed(id, server, statement, message.at, out);
                    number = statement.id;
                } else {
                    self.pool_of(server).inspect(|pool| pool.counters.total_bind_count.add(1));
                    number = self.ensure_prepared(id, server, statement, message.at, out);
                    out.may_fail = true;
                }
                statement.look.shape
            }
            Named::Unkept => {
                self.note_write(id);
                self.take_effects(id, UNSEEN.effects, b"");
                if let Some(client) = self.clients.get_mut(id) {
                    client.unnamed = Unnamed::There { used: true };
                }
                LONG
            }
            Named::Unknown => {
                if name.is_empty() {
                    self.without_unnamed(id, server, message.at, out);
                } else if self.has_own_names(id) {
                    self.note_write(id);
                    self.take_effects(id, Effects::EXECUTE, b"");
                }
                0
            }
        };
        let clears = match &named {
            Named::Known(statement) => Some(&**statement),
            Named::Unkept | Named::Unknown => None,
        };
        if let Some(client) = self.clients.get_mut(id) {
            client.bound = shape;
            if clears.is_some_and(|it| it.look.effects.any(CLEARING.union(FOLLOWED)))
                || client.prepared.as_ref().is_some_and(|names| names.watches_portals())
            {
                self.note_clearing(id, portal, clears);
                self.note_followed(id, portal, clears);
            }
        }
        self.note_bind(id, server, body, &named);
        if let (Named::Known(statement), Some(restated)) = (&named, restated) {
            return self.restate_bind(id, server, message, name, statement, restated, out);
        }
        self.expect_called(id, server, Kind::Bind, (number, name), shape);
        let offset = HEADER + portal.len() + 1;
        match named {
            Named::Known(_) if !name.is_empty() => self.renamed(id, message, name, number, offset, out),
            Named::Known(_) | Named::Unkept => self.pass(id, message),
            Named::Unknown => self.unknown(id, message, name, offset, out),
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
        let mut number = NO_STATEMENT;
        match &named {
            Named::Known(statement) if name.is_empty() => {
                self.ensure_unnamed(id, server, statement, message.at, out);
                number = statement.id;
            }
            Named::Known(statement) => {
                number = self.ensure_prepared(id, server, statement, message.at, out);
                out.may_fail = true;
            }
            Named::Unknown if name.is_empty() => self.without_unnamed(id, server, message.at, out),
            Named::Unknown | Named::Unkept => {}
        }
        self.expect_called(id, server, Kind::Describe, (number, name), shape);
        match named {
            Named::Known(_) if !name.is_empty() => self.renamed(id, message, name, number, HEADER + 1, out),
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
            Some(_) => self.set_unnamed(id, server, Unnamed::Nothing, UnnamedOn::Nobody),
            None => {}
        }
        let what = if name.is_some_and(<[u8]>::is_empty) { UNNAMED } else { NO_STATEMENT };
        self.expect(id, server, Kind::Close, Origin::Client, what, 0);
        if what == UNNAMED {
            self.changed_unnamed(server);
        }
        match name {
            Some(name) if name.starts_with(PREFIX) => self.unknown(id, message, name, HEADER + 1, out),
            _ => self.pass(id, message),
        }
    }

    /// Takes a message whose statement name, at `offset` in it, becomes that of statement `number`.
    pub(super) fn renamed(
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
        if name.starts_with(PREFIX) {
            return self.with_name(id, message, name, &not_ours(name), offset, out);
        }
        // Under its own name: only what SQL made for this client can have it.
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
        out.rename(message.at, &message.header, name.len(), new, offset);
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
pub(super) fn whole_missing(message: &Message<'_>) -> Taken {
    if message.header.total > NAME_BYTES {
        return bad("Describe, Execute or Close of more than 16 KiB");
    }
    Taken::More
}
