//! SQL that takes every name of a prepared statement away: DEALLOCATE ALL, DISCARD ALL.
//! Must never take away a name that the client gives behind it.
//!
//! As a simple query nothing that names a statement follows it before it is answered. In the extended
//! protocol a Parse may follow in the same batch, which cannot be held up: there the names go when the
//! Execute is forwarded, the client's and the server's, and come back if it turns out not to have run.

use super::attach::ALL;
use super::forward::{Message, Outgoing, Taken};
use super::prepared::whole_missing;
use super::statements::Statement;
use super::{ClientId, Relay, ServerId};
use crate::config::SessionState;
use crate::flow::expect::{Expect, Kind, Origin};
use crate::flow::replies::Outcome;
use crate::sql::prepared::deallocates_all;
use crate::sql::verdict::Effects;
use crate::wire::frame::cstr;

impl Relay {
    /// A portal is being bound to this statement, if that is known.
    pub(super) fn note_clearing(&mut self, id: ClientId, portal: &[u8], statement: Option<&Statement>) {
        let Some(client) = self.clients.get_mut(id) else { return };
        let clears = statement.is_some_and(|statement| {
            let effects = statement.look.effects;
            effects.any(Effects::DISCARD_ALL)
                || (effects.any(Effects::DEALLOCATE) && deallocates_all(statement.sql(), client.conforming))
        });
        if clears {
            if let Some(names) = self.names_of(id) {
                names.clearing = Some(portal.into());
            }
        } else if let Some(names) = &mut client.prepared
            && names.clearing.as_deref() == Some(portal)
        {
            names.clearing = None;
        }
    }

    /// An Execute while there is a portal that takes all names away.
    pub(super) fn forward_clearing(
        &mut self,
        id: ClientId,
        server: ServerId,
        message: &Message<'_>,
        out: &mut Outgoing<'_>,
    ) -> Taken {
        let Some(body) = message.body() else { return whole_missing(message) };
        let Some(client) = self.clients.get_mut(id) else { return Taken::More };
        let clears = client.prepared.as_ref().is_some_and(|names| names.clearing.is_some());
        if clears && self.must_wait(server, b"any") {
            return Taken::More;
        }
        let Some(client) = self.clients.get_mut(id) else { return Taken::More };
        let mut entry = Expect {
            kind: Kind::Execute,
            origin: Origin::Client,
            owner: id.index(),
            statement: super::attach::NO_STATEMENT,
            cookie: client.bound,
            sent_us: self.now_us,
            name: 0,
            note: 0,
        };
        let clears = |portal: &[u8]| cstr(body).is_some_and(|(name, _)| name == portal);
        if let Some(names) = &mut client.prepared
            && names.clearing.as_deref().is_some_and(clears)
        {
            let all = names.take_all();
            if self.servers.get(server).is_none_or(|s| !s.replies.names_owed() && !s.replies.has_dropped()) {
                names.renames.clear();
            }
            (entry.statement, entry.name) = (ALL, all.len() as u32);
            names.renames.extend(all.into_iter().map(|(name, statement)| (name, Some(statement))));
        }
        self.enter(id, server, entry);
        if entry.statement == ALL {
            self.changed_names(server);
            if let Some(this) = self.servers.get_mut(server) {
                let before = (std::mem::take(&mut this.prepared), std::mem::take(&mut this.outdated));
                this.before_clearing.push(before);
            }
        }
        let taken = self.pass(id, message);
        if let Some((portal, _)) = cstr(body) {
            self.follow_execute(id, server, portal, message, out);
        }
        taken
    }

    /// The names are gone on the server, all but those that it is still to make.
    pub(super) fn names_cleared(
        &mut self,
        server: ServerId,
        owner: Option<ClientId>,
        entry: &Expect,
        outcome: Outcome,
    ) {
        let Some(this) = self.servers.get_mut(server) else { return };
        let early = entry.statement == ALL;
        if early {
            this.before_clearing.drain(..this.before_clearing.len().min(1));
        } else {
            this.forget_prepared();
        }
        this.unnamed = super::server::UnnamedOn::Nobody;
        let group = self.pools.get(this.pool).and_then(|pool| self.groups.get(pool.group));
        let looks_away = group.filter(|group| group.terms.session_state == SessionState::PgBouncer);
        if outcome.discarded_all {
            this.onto = None;
        }
        if outcome.discarded_all
            && let Some(group) = group
        {
            this.smudged = None;
            this.discarded = true;
            this.params = std::rc::Rc::clone(&group.no_params);
            if entry.kind == Kind::Execute && looks_away.is_none() {
                // Start values follow at once, those that whoever acts now may set; also if that client has gone meanwhile.
                this.smudged = Some(owner.unwrap_or_default());
            }
        }
        // What was sent behind it may have left something again, which must not be let go of.
        let alone = this.replies.is_last();
        let own =
            this.replies.entries().filter(|entry| entry.kind == Kind::Parse && entry.statement == super::attach::OWN);
        let own = own.count() as u32;
        let Some(client) = owner.and_then(|id| self.clients.get_mut(id)) else { return };
        if outcome.discarded_all {
            client.params = std::rc::Rc::clone(looks_away.map_or(&client.start, |group| &group.no_params));
        }
        if outcome.discarded_all && alone {
            client.pinned = Effects::NONE;
            client.touched = None;
        }
        if outcome.discarded_all
            && let Some(id) = owner
        {
            self.stop_listening_at_all(id);
        }
        let Some(client) = owner.and_then(|id| self.clients.get_mut(id)) else { return };
        let Some(names) = &mut client.prepared else { return };
        names.own = own;
        names.unsure &= !alone;
        if !early {
            names.take_all();
            names.renames = Vec::new();
        }
        if alone && names.len() == 0 {
            client.prepared = None;
        }
    }
}
