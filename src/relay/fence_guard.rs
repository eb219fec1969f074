//! Writes that are fenced: what [`crate::cache::fence`] asks of a worker that sends them.
//! Must never let a statement go that may change rows before everybody can know, nor call a write ended whose outcome is not known.
//!
//! What a statement may change the catalog says ([`crate::sql::writes`]), once per shape; while that is not up to date, as far as is known here, it may be
//! everything. Its *guard* is its server's: raised in front of the first statement of a transaction that needs it, widened by others, and lowered when nothing
//! is owed and no transaction is open any more. A server that is lost on its way leaves what it had to the fence's keeper.

use std::collections::BTreeSet;
use std::rc::Rc;
use std::sync::Arc;

use super::fence::Deed;
use super::shapes::{LONG, Look};
use super::{ClientId, Relay, ServerId, Todo};
use crate::base::clock;
use crate::cache::Fence;
use crate::cache::fence::{ALL, Count, SCHEMA, listed};
use crate::sql::code::Resolved;
use crate::sql::defines::may_define;
use crate::sql::verdict::{Effects, Route, StatementKind as K};
use crate::wire::error::{PgError, SqlState};

/// Effects of what may do more than anybody can see.
const BLIND: Effects = Effects::OPAQUE
    .union(Effects::UNKNOWN_FUNCTION)
    .union(Effects::EXECUTE)
    .union(Effects::LOAD)
    .union(Effects::TWO_PHASE);

/// Shapes remembered per catalog.
const MAX_SHAPES: usize = 20_000;

/// What stands between a server and everybody's answers.
#[derive(Debug)]
pub(super) struct Guard {
    fence: Arc<Fence>,
    /// Its writes, also the one that is being raised.
    numbers: Vec<u64>,
    /// What it covers, ascending.
    tables: BTreeSet<u32>,
    raising: Option<u64>,
}

/// Whether a text begins with this word; one behind a comment does not.
fn begins(sql: &[u8], word: &str) -> bool {
    sql.trim_ascii_start().get(..word.len()).is_some_and(|start| start.eq_ignore_ascii_case(word.as_bytes()))
}

impl Relay {
    /// Whether a statement may go now: `grammar` is what its text says, `look` what it does with the code that it runs. Else it is looked at again when it may.
    pub(super) fn fence_lets(
        &mut self,
        id: ClientId,
        server: ServerId,
        (grammar, look): (&Look, &Look),
        code: Option<&Resolved>,
        sql: &[u8],
    ) -> bool {
        let Some(group) = self.clients.get(id).map(|client| client.group) else { return true };
        let Some(fence) = self.fence_of(group) else { return true };
        let redefines = look.effects.any(Effects::DDL) && !look.effects.any(Effects::TEMP);
        let defines = redefines
            || code.is_some_and(|code| code.defines)
            || (look.effects.any(Effects::OPAQUE) && may_define(sql));
        if defines {
            return self.is_guarded(server, fence, &[ALL, SCHEMA]);
        }
        match self.written(id, &fence, grammar, look, sql) {
            Some(tables) => tables.is_empty() || self.is_guarded(server, fence, &tables),
            None => self.is_guarded(server, fence, &[ALL]),
        }
    }

    /// The same of a message that nobody can look into.
    pub(super) fn fence_lets_unseen(&mut self, id: ClientId, server: ServerId) -> bool {
        let Some(group) = self.clients.get(id).map(|client| client.group) else { return true };
        let Some(fence) = self.fence_of(group) else { return true };
        self.is_guarded(server, fence, &[ALL, SCHEMA])
    }

    /// The tables that a statement may change; `None`: it may be any.
    fn written(&mut self, id: ClientId, fence: &Fence, grammar: &Look, look: &Look, sql: &[u8]) -> Option<Rc<[u32]>> {
        match look.kind {
            K::Empty | K::Show | K::Set | K::SetTransaction | K::Reset | K::Begin | K::Commit | K::Rollback => {
                return Some(Rc::default());
            }
            K::RollbackTo | K::Savepoint | K::Release | K::Prepare | K::Deallocate | K::Fetch | K::Close => {
                return Some(Rc::default());
            }
            K::Listen | K::Unlisten | K::Notify | K::Discard | K::Lock => return Some(Rc::default()),
            // They change no row; what they compute anew may not have effects.
            K::Maintenance if ["vacuum", "analy", "checkpoint"].iter().any(|word| begins(sql, word)) => {
                return Some(Rc::default());
            }
            K::Ddl if grammar.effects.any(Effects::DDL) => return None,
            K::Unknown | K::TwoPhase | K::Execute | K::Do | K::Load | K::Maintenance => return None,
            K::Select | K::Insert | K::Update | K::Delete | K::Merge | K::Copy | K::Explain => {}
            K::Many | K::Declare | K::Call | K::Ddl => {}
        }
        if look.shape == LONG || look.effects.any(BLIND) {
            return None;
        }
        let client = self.clients.get(id)?;
        let (conforming, number) = (client.conforming, self.groups[client.group].catalog);
        if !self.is_current(number, fence) {
            return None;
        }
        let reads = grammar.route == Route::Replica && !grammar.writes;
        let catalog = self.catalogs.all.get_mut(number)?;
        let known = catalog.written.get(&(look.shape, reads)).cloned();
        known.unwrap_or_else(|| {
            let written = catalog.code.written(sql, conforming, reads).map(Rc::from);
            if catalog.written.len() >= MAX_SHAPES {
                catalog.written.clear();
            }
            catalog.written.insert((look.shape, reads), written.clone());
            written
        })
    }

    /// Whether a server is guarded around these tables. Else that is begun.
    fn is_guarded(&mut self, server: ServerId, fence: Arc<Fence>, tables: &[u32]) -> bool {
        let Some(this) = self.servers.get_mut(server) else { return true };
        let made = || Box::new(Guard { fence, numbers: Vec::new(), tables: BTreeSet::new(), raising: None });
        let guard = this.guard.get_or_insert_with(made);
        if guard.raising.is_some() {
            return false;
        }
        let has_all = guard.tables.contains(&ALL);
        let is_covered = |table: &u32| guard.tables.contains(table) || (has_all && *table != SCHEMA);
        let missing: Vec<u32> = tables.iter().copied().filter(|table| !is_covered(table)).collect();
        if missing.is_empty() {
            return true;
        }
        let number = guard.fence.begins(&missing);
        guard.numbers.push(number);
        guard.raising = Some(number);
        let (fence, tables) = (Arc::clone(&guard.fence), listed(&missing));
        // What is being raised covers nothing yet; what it will cover is found by its number.
        guard.tables.extend(&missing);
        self.todo.push(Todo::Fence(Deed::Raise { server, fence, number, tables }));
        false
    }

    /// A write is fenced, with what was told of the schema, or may go without; or nobody can let it go.
    pub(super) fn raised(
        &mut self,
        server: ServerId,
        fence: &Arc<Fence>,
        number: u64,
        outcome: Result<Option<Count>, ()>,
    ) {
        self.now_us = clock::now_us();
        let owner = self.servers.get(server).and_then(super::Server::owner);
        let guard = self.servers.get_mut(server).and_then(|this| this.guard.as_mut());
        let Some(guard) = guard.filter(|guard| guard.raising == Some(number)) else {
            // It was lost meanwhile, or its client has gone: nothing was sent.
            fence.ended(&[number]);
            return self.todo.push(Todo::Fence(Deed::Lower(Arc::clone(fence), vec![number])));
        };
        guard.raising = None;
        if let (Ok(Some(count)), Some(id)) = (outcome, owner)
            && let Some(group) = self.clients.get(id).map(|client| client.group)
        {
            self.sees_schema(group, fence, count);
        }
        if outcome.is_err() {
            let guard = self.servers.get_mut(server).and_then(|this| this.guard.as_mut());
            guard.into_iter().for_each(|guard| guard.tables.clear());
        }
        let Some(id) = owner else { return };
        if outcome.is_err() {
            let message = "pgweir: a write could not be announced to who keeps answers";
            let error = PgError::fatal(SqlState::CANNOT_CONNECT_NOW, message)
                .detail("Neither Redis nor the primary could be reached for that.");
            return self.fatal(id, &error);
        }
        self.pump_inbox(id);
    }

    /// A server owes nothing and has no transaction open: what it wrote has ended.
    pub(super) fn guard_ends(&mut self, server: ServerId) {
        let Some(guard) = self.servers.get_mut(server).and_then(|this| this.guard.take()) else { return };
        let Guard { fence, numbers, .. } = *guard;
        fence.ended(&numbers);
        self.todo.push(Todo::Fence(Deed::Lower(fence, numbers)));
    }

    /// A server is lost, and with it what became of what it wrote.
    pub(super) fn guard_lost(&mut self, server: ServerId) {
        if let Some(guard) = self.servers.get_mut(server).and_then(|this| this.guard.take()) {
            guard.fence.lost(&guard.numbers);
        }
    }
}
