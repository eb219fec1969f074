//! A statement that is about to run: what must come before it, and what it leaves behind.
//! Must never let one run whose effects were not noted.

use super::forward::{Message, Outgoing};
use super::inventory::{ASKING, HIDDEN, SETTING};
use super::pins::Barred;
use super::shapes::{LONG, Look};
use super::sqlnames::NAMING;
use super::{ClientId, Relay, ServerId};
use crate::sql::defines::spells_definition;
use crate::sql::verdict::Effects;
use crate::wire::tag::client as tag;

/// Effects of statements that end a transaction, also a failed one.
const ENDING: Effects = Effects::COMMIT.union(Effects::ROLLBACK).union(Effects::ROLLBACK_TO).union(Effects::TWO_PHASE);

/// Effects of statements that no reset undoes: a server is closed behind them.
pub(super) const LASTING: Effects = Effects::LOAD.union(Effects::SETSEED);

/// What becomes of a statement that is about to run.
pub(super) enum Before {
    /// It may; with what is known of it and of the code that it calls.
    Runs(Look),
    /// It must wait.
    Waits,
    /// It must not.
    Barred(Barred),
}

impl Relay {
    /// A statement with this text is about to run, by `message`: a Query, or a Bind. Puts in front of it what must be
    /// there, and notes what it does.
    pub(super) fn before_run(
        &mut self,
        id: ClientId,
        server: ServerId,
        look: Look,
        sql: &[u8],
        message: &Message<'_>,
        out: &mut Outgoing<'_>,
    ) -> Before {
        let is_fenced = self.is_fenced(id);
        if !is_fenced
            && look.only_reads()
            && !self.shapes.stays(look.shape)
            && !self.catalogs.watching
            && let Some(client) = self.clients.get_mut(id)
            && client.pinned.is_empty()
            && self.blocks.is_none()
        {
            client.saw = true;
            return Before::Runs(look);
        }
        if (look.shape == LONG || look.effects.any(ENDING))
            && let Some(this) = self.servers.get_mut(server)
        {
            this.replies.rescues();
        }
        if self.must_settle(server, look) {
            return Before::Waits;
        }
        if let Some(barred) = self.bar(id, server, &look, sql) {
            return Before::Barred(barred);
        }
        let (own, grammar) = (look.effects, look);
        let (look, code) = self.look_into(id, look, sql);
        if code.is_some()
            && let Some(barred) = self.bar_code(id, server, own, &look)
        {
            return Before::Barred(barred);
        }
        if is_fenced && !self.fence_lets(id, server, (&grammar, &look), code.as_deref(), sql) {
            return Before::Waits;
        }
        let (at, before) = (message.at, out.tx.len());
        let brought = self.before_statement(id, server, look.effects, Some(sql), at, out)
            && self.mind_sequences(id, server, &look, sql, at, out)
            && (!look.effects.any(NAMING)
                || match message.header.tag {
                    tag::QUERY => self.bring_for_query(id, server, sql, at, out),
                    _ => self.bring_named(id, server, sql, at, out),
                });
        if !brought {
            if out.tx.len() > before {
                self.has_begun(id, server);
            }
            return Before::Waits;
        }
        self.take_look(id, &look, code.as_deref(), sql);
        if look.effects.any(HIDDEN) && spells_definition(message.data) {
            self.note_defines(id, sql);
        }
        Before::Runs(look)
    }

    /// Something is on its way that is good only in front of the statement, which must still wait: the client's turn on
    /// its server has begun, as with a lease. Else the answer to what came in front would end the turn and undo it.
    fn has_begun(&mut self, id: ClientId, server: ServerId) {
        let (Some(client), Some(this)) = (self.clients.get_mut(id), self.servers.get_mut(server)) else { return };
        if !std::mem::replace(&mut client.mid_batch, true) {
            this.again.lent();
        }
    }

    /// Notes what a statement about to run, with this text if that is known, does to the session.
    pub(super) fn take_effects(&mut self, id: ClientId, effects: Effects, sql: &[u8]) {
        if effects.is_empty() {
            return;
        }
        self.touch(id, effects, sql);
        if effects.any(Effects::PREPARE)
            && let Some(names) = self.names_of(id)
        {
            names.executes |= effects.intersection(ASKING);
        }
        let pins = self.pins(id, effects);
        let Some(client) = self.clients.get_mut(id) else { return };
        client.pinned |= pins;
        if pins.any(LASTING)
            && let Some(this) = client.server().and_then(|server| self.servers.get_mut(server))
        {
            this.retire = true;
        }
        // What follows a setting in its transaction is read under it.
        client.changed |= effects.any(SETTING.union(Effects::SET_LOCAL).union(Effects::OPAQUE));
    }

    /// This statement may not be sent before the settings in front of it are answered: it would, or might, end the
    /// transaction that fails if they are refused.
    pub(super) fn must_settle(&self, server: ServerId, look: Look) -> bool {
        (look.shape == LONG || look.effects.any(ENDING)) && self.servers.get(server).is_some_and(|this| this.settling)
    }
}
