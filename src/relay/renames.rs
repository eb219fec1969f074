//! Names of prepared statements while the server's answer is open, and their return after an error.
//! Must never let a batch use a name that an unanswered batch before it changes.

use std::rc::Rc;

use super::attach::{ALL, NO_STATEMENT, OWN, UNNAMED};
use super::client::Unnamed;
use super::names::Names;
use super::server::UnnamedOn;
use super::statements::Statement;
use super::stock::closed;
use super::{Client, ClientId, Relay, ServerId};
use crate::flow::expect::{Expect, Kind, Origin};

/// What a name means to a client.
pub(super) enum Named {
    /// This statement.
    Known(Rc<Statement>),
    /// The unnamed statement of a text that was not kept.
    Unkept,
    /// Nothing.
    Unknown,
}

impl Relay {
    /// What the client means by `name` on this server.
    pub(super) fn meaning(&self, id: ClientId, server: ServerId, name: &[u8]) -> Named {
        let Some(client) = self.clients.get(id) else { return Named::Unknown };
        if name.is_empty() {
            let here = self.servers.get(server).is_some_and(|s| s.unnamed == UnnamedOn::Client(id));
            return match &client.unnamed {
                Unnamed::Known(statement) => Named::Known(Rc::clone(statement)),
                Unnamed::There { .. } if here => Named::Unkept,
                Unnamed::There { .. } | Unnamed::Nothing => Named::Unknown,
            };
        }
        match client.prepared.as_ref().and_then(|prepared| prepared.get(name)) {
            Some(statement) => Named::Known(Rc::clone(statement)),
            None => Named::Unknown,
        }
    }

    /// Whether what `name` means hangs on an earlier batch that the server has not answered yet.
    pub(super) fn must_wait(&self, server: ServerId, name: &[u8]) -> bool {
        self.servers.get(server).is_some_and(|this| this.replies.names_unsettled(name.is_empty()))
    }

    pub(super) fn changed_names(&mut self, server: ServerId) {
        if let Some(this) = self.servers.get_mut(server) {
            this.replies.changes_names();
        }
    }

    pub(super) fn changed_unnamed(&mut self, server: ServerId) {
        if let Some(this) = self.servers.get_mut(server) {
            this.replies.changes_unnamed();
        }
    }

    /// From now on the client's unnamed statement is this; what it was is remembered until the server
    /// has answered.
    pub(super) fn set_unnamed(&mut self, id: ClientId, server: ServerId, to: Unnamed, on: UnnamedOn) {
        let (Some(client), Some(this)) = (self.clients.get_mut(id), self.servers.get_mut(server)) else { return };
        if !this.replies.busy() && !this.replies.has_dropped() {
            this.unnamed_before.clear();
        }
        this.unnamed_before.push(std::mem::replace(&mut client.unnamed, to));
        this.unnamed = on;
    }

    /// From now on `name` means this to the client; what it meant is remembered until the server
    /// has answered.
    pub(super) fn rename(&mut self, id: ClientId, server: ServerId, name: &[u8], statement: Option<Rc<Statement>>) {
        let settled = self.servers.get(server).is_none_or(|s| !s.replies.names_owed() && !s.replies.has_dropped());
        let Some(client) = self.clients.get_mut(id) else { return };
        let tally = self.statements.tally();
        let names = client.prepared.get_or_insert_with(|| Box::new(Names::new(tally)));
        if settled {
            names.renames.clear();
        }
        let before = names.set(name, statement);
        names.renames.push((name.into(), before));
    }

    /// Takes back what was assumed of messages that the server, after an error, never looked at.
    /// `failed` is the one that it did look at.
    pub(super) fn undo_dropped(&mut self, server: ServerId, failed: Option<&Expect>) {
        let Some(this) = self.servers.get_mut(server) else { return };
        if !this.replies.has_dropped() {
            return;
        }
        let dropped = this.replies.dropped();
        let unnamed_again = !this.replies.is_unnamed_void();
        let (mut renames, mut own, mut unnamed) = (0, 0, 0);
        // Newest first: of a statement closed to make room and prepared again, the Close counts.
        for entry in dropped.into_iter().rev() {
            match (entry.kind, entry.origin, entry.statement) {
                (_, _, NO_STATEMENT) => {}
                // A later batch has prepared another since.
                (_, origin, UNNAMED) => {
                    unnamed += usize::from(origin == Origin::Client);
                    if !unnamed_again {
                        this.unnamed = UnnamedOn::Nobody;
                    }
                }
                (_, _, ALL) => {
                    renames += entry.name as usize;
                    if let Some((prepared, outdated)) = this.before_clearing.pop() {
                        (this.prepared, this.outdated) = (prepared, outdated);
                    }
                }
                (Kind::Parse, origin, OWN) => {
                    own += 1;
                    renames += usize::from(origin == Origin::Injected);
                }
                (Kind::Parse, origin, number) => {
                    renames += usize::from(origin != Origin::Injected);
                    if origin != Origin::Faked {
                        this.prepared.remove(number);
                    }
                }
                (Kind::Close, Origin::Faked, _) => renames += 1,
                (Kind::Close, Origin::Injected, number) => match closed(entry.cookie) {
                    Some(bytes) => this.prepared.insert_oldest(number, bytes),
                    None => this.outdated.push(number),
                },
                _ => {}
            }
        }
        let Some(client) = this.owner().and_then(|id| self.clients.get_mut(id)) else { return };
        // Those still owed are newer: what they change from is what was before those that are void.
        let owed = this.replies.owed_of(UNNAMED);
        let log = &mut this.unnamed_before;
        let void = log.len().saturating_sub(owed + unnamed)..log.len().saturating_sub(owed);
        let before = log.drain(void).next();
        let at = log.len().saturating_sub(owed);
        // A Parse that fails has taken the one before it away (exec_parse_message in postgres.c). One that pgweir put in
        // front has done so on the server, but the client never sent it.
        let parse =
            |entry: &Expect| entry.kind == Kind::Parse && entry.statement == UNNAMED && entry.origin == Origin::Client;
        let before = before.map(|before| if failed.is_some_and(parse) { Unnamed::Nothing } else { before });
        if let Some(before) = before {
            *log.get_mut(at).unwrap_or(&mut client.unnamed) = before;
        }
        if let Some(prepared) = &mut client.prepared {
            prepared.own = prepared.own.saturating_sub(own);
        }
        // They are the newest changes: no other batch may change names before this one is answered.
        client.take_back_renames(renames);
    }
}

impl Client {
    /// Takes back the newest `count` changes of what a name means.
    pub(super) fn take_back_renames(&mut self, count: usize) {
        let Some(prepared) = &mut self.prepared else { return };
        let from = prepared.renames.len().saturating_sub(count);
        for (name, before) in prepared.renames.split_off(from).into_iter().rev() {
            prepared.set(&name, before);
        }
    }

    /// What names meant before does not matter any more.
    pub(super) fn forget_renames(&mut self) {
        if let Some(prepared) = &mut self.prepared {
            prepared.renames.clear();
        }
    }
}
