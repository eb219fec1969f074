//! What is prepared on a server: taught where it lacks something, closed where there is too much.
//! Must never close what the batch being forwarded has used, nor share what was read under settings of a transaction.

use std::rc::Rc;

use super::attach::{NO_STATEMENT, UNNAMED};
use super::forward::Outgoing;
use super::server::UnnamedOn;
use super::statements::{ServerName, Statement};
use super::{ClientId, Relay, ServerId};
use crate::flow::expect::{Kind, Origin};
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

    /// Puts a Parse of the client's unnamed statement in front of `at` if the server's is another.
    pub(super) fn ensure_unnamed(
        &mut self,
        id: ClientId,
        server: ServerId,
        statement: &Statement,
        at: usize,
        out: &mut Outgoing<'_>,
    ) {
        let changed = self.clients.get(id).is_some_and(|client| client.changed);
        let Some(this) = self.servers.get_mut(server) else { return };
        if this.unnamed == UnnamedOn::Statement(statement.id) {
            return;
        }
        // Read under settings of this transaction it is nobody else's, nor this client's later.
        let shareable = !(changed && statement.shared);
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
