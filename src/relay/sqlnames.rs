//! SQL's PREPARE, EXECUTE and DEALLOCATE beside the statements of the protocol: one name space, as PostgreSQL has it.
//! Must never let a name that SQL made outlive the client that made it.
//!
//! Servers know the protocol's statements under shared names, so SQL that names one would not find
//! it. Before such SQL runs the statement is prepared on the server under the client's own name,
//! and from then on the server alone knows what that name means: the client keeps the server until
//! no such name is left.

use std::rc::Rc;

use super::attach::{NO_STATEMENT, OWN};
use super::forward::Outgoing;
use super::names::Names;
use super::statements::{PREFIX, Statement};
use super::{ClientId, Relay, ServerId};
use crate::flow::expect::{Kind, Origin};
use crate::flow::replies::Outcome;
use crate::sql::prepared::prepared_names;
use crate::sql::verdict::Effects;
use crate::wire::build;

/// Effects of SQL that names prepared statements.
pub(super) const NAMING: Effects = Effects::PREPARE.union(Effects::EXECUTE).union(Effects::DEALLOCATE);

/// Effects of SQL that may take all names away.
pub(super) const CLEARING: Effects = Effects::DEALLOCATE.union(Effects::DISCARD_ALL);

/// A name of the client's and what it means.
type Named = (Box<[u8]>, Rc<Statement>);

impl Relay {
    /// Before `sql` runs: the client's statements that it names are put in front of `at` under
    /// their own names. False if it must wait, as nobody can tell yet whether that would work.
    pub(super) fn bring_named(
        &mut self,
        id: ClientId,
        server: ServerId,
        sql: &[u8],
        at: usize,
        out: &mut Outgoing<'_>,
    ) -> bool {
        if self.looks_away(id) {
            return true;
        }
        if self.must_wait(server, b"any") {
            return false;
        }
        let (named, unsure) = self.named_in(id, sql);
        if unsure {
            self.take_effects(id, Effects::PREPARE, b"");
            self.names_of(id).inspect_mut(|names| names.unsure = true);
        }
        let Some(this) = self.servers.get(server) else { return true };
        if named.is_empty() {
            return true;
        }
        if this.replies.batch_owed() {
            return false;
        }
        // PostgreSQL refuses whatever it is.
        if this.replies.refuses_all() {
            return true;
        }
        for (name, statement) in named {
            out.edit(at, 0);
            build::parse(&mut out.tx, &name, &statement.tail);
            self.rename(id, server, &name, None);
            self.expect(id, server, Kind::Parse, Origin::Injected, OWN, statement.look.shape);
            self.changed_names(server);
            self.names_of(id).inspect_mut(|names| names.own += 1);
            // Once the server alone knows what the name means nobody sees it run.
            let look = self.look_into(id, statement.look, statement.sql()).0;
            self.take_effects(id, look.effects.union(Effects::PREPARE), statement.sql());
        }
        true
    }

    /// The same in front of a Query. Should a statement not be prepared any more, the server would
    /// read over everything up to a Sync, which therefore follows.
    pub(super) fn bring_for_query(
        &mut self,
        id: ClientId,
        server: ServerId,
        sql: &[u8],
        at: usize,
        out: &mut Outgoing<'_>,
    ) -> bool {
        let edited = out.tx.len();
        if !self.bring_named(id, server, sql, at, out) {
            return false;
        }
        // Behind messages without a Sync of the client's it would end their transaction.
        if out.begins && out.tx.len() > edited {
            build::sync(&mut out.tx);
            self.expect(id, server, Kind::Sync, Origin::Injected, NO_STATEMENT, 0);
        }
        true
    }

    /// Statements of the client's that `sql` names, each once; and whether names that pgweir
    /// itself uses on servers, or that cannot be read, are among what it names.
    fn named_in(&self, id: ClientId, sql: &[u8]) -> (Vec<Named>, bool) {
        let mut named: Vec<Named> = Vec::new();
        let mut unsure = false;
        let Some(client) = self.clients.get(id) else { return (named, unsure) };
        // Code that is not visible may have prepared something too.
        unsure |= client.changed && !client.pinned.any(Effects::PREPARE);
        prepared_names(sql, client.conforming, |name| {
            let Some(name) = name else { return unsure = true };
            unsure |= name.starts_with(PREFIX);
            if let Some(statement) = client.prepared.as_ref().and_then(|names| names.get(name))
                && named.iter().all(|(known, _)| **known != *name)
            {
                named.push((name.into(), Rc::clone(statement)));
            }
        });
        (named, unsure)
    }

    /// Whether SQL that executes something would have the client's statements made its server's affair.
    pub(super) fn brings(&self, id: ClientId, sql: &[u8]) -> bool {
        let (named, unsure) = self.named_in(id, sql);
        unsure || !named.is_empty()
    }

    /// Whether new names of the client's are its server's affair, as SQL has made some there.
    pub(super) fn has_own_names(&self, id: ClientId) -> bool {
        self.clients.get(id).is_some_and(|client| client.pinned.any(Effects::PREPARE))
    }

    /// The client's names, made if there are none yet.
    pub(super) fn names_of(&mut self, id: ClientId) -> Option<&mut Names> {
        let tally = self.statements.tally();
        let client = self.clients.get_mut(id)?;
        Some(client.prepared.get_or_insert_with(|| Box::new(Names::new(tally))))
    }

    /// SQL has made a name or taken one away.
    pub(super) fn count_own_names(&mut self, id: ClientId, outcome: Outcome) {
        if !outcome.prepared && !outcome.deallocated {
            return;
        }
        let Some(names) = self.names_of(id) else { return };
        names.own = if outcome.prepared { names.own.saturating_add(1) } else { names.own.saturating_sub(1) };
    }

    /// Nothing is under way: a client that kept its server only for names which are gone does not
    /// keep it any longer.
    pub(super) fn let_go_of_names(&mut self, id: ClientId) {
        let Some(client) = self.clients.get_mut(id) else { return };
        match &mut client.prepared {
            Some(names) if names.own > 0 || names.unsure => return,
            Some(names) => names.executes = Effects::NONE,
            None => {}
        }
        client.pinned = client.pinned.without(Effects::PREPARE);
    }
}

/// Looks through an option and changes what is in it.
trait InspectMut<T> {
    fn inspect_mut(self, change: impl FnOnce(&mut T));
}

impl<T> InspectMut<T> for Option<&mut T> {
    fn inspect_mut(self, change: impl FnOnce(&mut T)) {
        if let Some(value) = self {
            change(value);
        }
    }
}
