//! What is prepared on a server: taught where it lacks something, closed where there is too much.
//! Must never close what the batch being forwarded has used, nor share what was read under settings of a transaction.

use std::rc::Rc;

use super::attach::{NO_STATEMENT, UNNAMED};
use super::forward::Outgoing;
use super::server::UnnamedOn;
use super::statements::{ServerName, Statement, Under};
use super::{ClientId, Relay, ServerId};
use crate::flow::expect::{Kind, Origin};
use crate::sql::replaces::replaces;
use crate::wire::build;

/// What the entry of a Close put in remembers: bytes of the text, and whether it must not be used
/// any more.
fn closing(bytes: usize, outdated: bool) -> u64 {
    (bytes as u64) << 1 | u64::from(outdated)
}

/// Reads it back: bytes of a statement that is still good.
pub(super) fn closed(cookie: u64) -> Option<usize> {
    (cookie & 1 == 0).then_some((cookie >> 1) as usize)
}

impl Relay {
    /// Puts a Parse in front of `at` if the server lacks the statement, and returns the number by
    /// which the server knows it.
    pub(super) fn ensure_prepared(
        &mut self,
        id: ClientId,
        server: ServerId,
        statement: &Rc<Statement>,
        at: usize,
        out: &mut Outgoing<'_>,
    ) -> u32 {
        let renewed = self.under_own_settings(id, statement);
        let statement = renewed.as_ref().unwrap_or(statement);
        let Some(this) = self.servers.get_mut(server) else { return statement.id };
        this.tick += 1;
        if this.prepared.touch(statement.id, this.tick) {
            return statement.id;
        }
        let changed = self.clients.get(id).is_some_and(|client| client.changed);
        let statement = if changed && statement.shared {
            // It would be read under settings that are only this transaction's.
            let alone = self.statements.copy_alone(statement);
            if let Some(names) = self.clients.get_mut(id).and_then(|client| client.prepared.as_mut()) {
                names.replace(statement.id, &alone);
            }
            alone
        } else {
            Rc::clone(statement)
        };
        self.make_room(id, server, statement.tail.len(), at, out);
        self.prepare_first(id, server, &statement, at, out);
        statement.id
    }

    /// Puts a Parse of the statement in front of `at`.
    pub(super) fn prepare_first(
        &mut self,
        id: ClientId,
        server: ServerId,
        statement: &Statement,
        at: usize,
        out: &mut Outgoing<'_>,
    ) {
        self.note_prepared(server, statement);
        out.edit(at, 0);
        build::parse(&mut out.tx, ServerName::of(statement.id).bytes(), &statement.tail);
        self.expect(id, server, Kind::Parse, Origin::Injected, statement.id, statement.look.shape);
        self.changed_names(server);
    }

    /// The statement as it is read under the client's settings, if those are others now than when it was
    /// prepared. PostgreSQL looks names up again too when the search_path has changed
    /// (`RevalidateCachedQuery` in src/backend/utils/cache/plancache.c).
    fn under_own_settings(&mut self, id: ClientId, statement: &Rc<Statement>) -> Option<Rc<Statement>> {
        let client = self.clients.get_mut(id)?;
        if client.changed || !statement.shared || statement.is_under(&client.params.meaning) {
            return None;
        }
        let under = Under { conforming: client.conforming, settings: Rc::clone(&client.params.meaning) };
        let own = match self.statements.find(&statement.tail, &under) {
            Some(known) => known,
            None => self.statements.add(&statement.tail, under, statement.look),
        };
        if let Some(names) = &mut client.prepared {
            names.replace(statement.id, &own);
        }
        Some(own)
    }

    /// Puts a Parse of the client's unnamed statement in front of `at` if the server's is another.
    pub(super) fn ensure_unnamed(
        &mut self,
        id: ClientId,
        server: ServerId,
        statement: &Statement,
        at: usize,
        out: &mut Outgoing<'_>,
    ) {
        let client = self.clients.get(id);
        let changed = client.is_some_and(|client| client.changed);
        let Some(this) = self.servers.get_mut(server) else { return };
        if this.unnamed == UnnamedOn::Statement(statement.id) {
            return;
        }
        // Read under settings of this transaction it is nobody else's, nor this client's later.
        let is_own = client.is_some_and(|client| statement.is_under(&client.params.meaning));
        let shareable = !statement.shared || (!changed && is_own);
        this.unnamed = if shareable { UnnamedOn::Statement(statement.id) } else { UnnamedOn::Nobody };
        out.edit(at, 0);
        build::parse(&mut out.tx, b"", &statement.tail);
        self.expect(id, server, Kind::Parse, Origin::Injected, UNNAMED, statement.look.shape);
        self.changed_unnamed(server);
    }

    /// Takes the unnamed statement away, whosever it is: PostgreSQL then says itself that there is none.
    pub(super) fn without_unnamed(&mut self, id: ClientId, server: ServerId, at: usize, out: &mut Outgoing<'_>) {
        if let Some(this) = self.servers.get_mut(server) {
            this.unnamed = UnnamedOn::Nobody;
        }
        out.edit(at, 0);
        build::close_statement(&mut out.tx, b"");
        self.expect(id, server, Kind::Close, Origin::Injected, NO_STATEMENT, 0);
    }

    pub(super) fn note_prepared(&mut self, server: ServerId, statement: &Statement) {
        self.pool_of(server).inspect(|pool| pool.counters.total_server_parse_count.add(1));
        if let Some(this) = self.servers.get_mut(server) {
            this.prepared.insert(statement.id, statement.tail.len(), this.tick);
        }
    }

    /// Closes what is outdated, and the statements used longest ago while the server has as many
    /// as it may or `more` bytes would be too many, but never one that the batch being forwarded
    /// has used (`reference/defects.md` entry 24).
    pub(super) fn make_room(&mut self, id: ClientId, server: ServerId, more: usize, at: usize, out: &mut Outgoing<'_>) {
        let limit = self.config.pool.max_prepared_statements as usize;
        let limit_bytes = self.config.pool.max_server_prepared_bytes as usize;
        while let Some(this) = self.servers.get_mut(server) {
            if let Some(number) = this.outdated.pop() {
                self.close_on(id, server, number, closing(0, true), at, out);
                continue;
            }
            if this.prepared.len() < limit && this.prepared.weight() + more <= limit_bytes {
                return;
            }
            match this.prepared.oldest() {
                Some((number, bytes, used)) if used <= this.batch_tick => {
                    this.prepared.remove(number);
                    self.close_on(id, server, number, closing(bytes, false), at, out);
                }
                _ => return,
            }
        }
    }

    /// Puts a Close of a statement in front of `at` that the server is to prepare again.
    pub(super) fn close_again(
        &mut self,
        id: ClientId,
        server: ServerId,
        number: u32,
        at: usize,
        out: &mut Outgoing<'_>,
    ) {
        let bytes = self.servers.get_mut(server).and_then(|this| this.prepared.remove(number)).unwrap_or(0);
        self.close_on(id, server, number, closing(bytes, false), at, out);
    }

    fn close_on(
        &mut self,
        id: ClientId,
        server: ServerId,
        number: u32,
        cookie: u64,
        at: usize,
        out: &mut Outgoing<'_>,
    ) {
        out.edit(at, 0);
        build::close_statement(&mut out.tx, ServerName::of(number).bytes());
        self.expect(id, server, Kind::Close, Origin::Injected, number, cookie);
        self.changed_names(server);
    }

    /// A statement is about to run that may change what the texts of others mean. PostgreSQL looks names up again for
    /// what is prepared, but keeps the types of its parameters; who prepares the text only now must get new ones.
    pub(super) fn note_replaced(&mut self, id: ClientId, sql: &[u8]) {
        let Some(client) = self.clients.get(id) else { return };
        if let Some(this) = client.server().and_then(|server| self.servers.get_mut(server))
            && replaces(sql, client.conforming)
        {
            // Now for this transaction, at its end for all others.
            this.replaces = true;
            self.place.wishes.schema_changes();
        }
    }

    /// No text that is prepared from now on shares what was prepared before the newest change of a schema.
    pub(super) fn hear_of_changes(&mut self) {
        let changes = self.place.wishes.changes();
        if self.changes_heard != changes {
            self.changes_heard = changes;
            self.statements.part();
            self.shapes.forget_refused();
        }
    }

    /// Shows how many statements there are, and their bytes.
    pub(super) fn statement_gauges(&self) {
        for pool in self.pools.values() {
            let counters = &pool.counters;
            for gauge in [
                &counters.server_statements,
                &counters.server_statement_bytes,
                &counters.client_statements,
                &counters.client_statement_bytes,
            ] {
                gauge.set(0);
            }
        }
        for server in self.servers.ids().filter_map(|id| self.servers.get(id)) {
            let counters = &self.pools[server.pool].counters;
            counters.server_statements.add(server.prepared.len() as u64);
            counters.server_statement_bytes.add(server.prepared.weight() as u64);
        }
        for client in self.clients.ids().filter_map(|id| self.clients.get(id)) {
            if let Some(names) = &client.prepared {
                let counters = &self.pools[self.groups[client.group].primary].counters;
                counters.client_statements.add(names.len() as u64);
                counters.client_statement_bytes.add(names.bytes() as u64);
            }
        }
    }
}
