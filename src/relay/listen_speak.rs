//! Statements that concern channels, before they run; and who a notification's process id is for clients.
//! Must never take somebody else's notification for a client's own.
//!
//! A notification carries the process id of the server that ran the NOTIFY; clients compare it with the one they
//! were told at their start. Which client that was is known where the statement says NOTIFY or pg_notify: the server
//! remembers its *speaker* until the listener has heard everything it said. Where one speaker follows another
//! before that, and listens, it waits for a round; who does not listen never waits. What triggers and functions
//! send keeps the id of the server, and so does what several have sent by way of one while there is no listener.

use super::forward::Outgoing;
use super::listen_over::Stage;
use super::{ClientId, GroupId, Relay, Server, ServerId};
use crate::sql::verdict::Effects;
use crate::wire::build;
use crate::wire::tag::client as tag;

/// Statements that concern channels.
const CHANNELS: Effects = Effects::LISTEN.union(Effects::UNLISTEN).union(Effects::NOTIFY).union(Effects::LISTENING);

/// Statements by which what was put in front of one before may be undone.
const NESTING: Effects =
    Effects::SAVEPOINT.union(Effects::RELEASE).union(Effects::ROLLBACK_TO).union(Effects::ROLLBACK);

/// A Terminate.
const GOODBYE: &[u8] = &[tag::TERMINATE, 0, 0, 0, 4];

/// Whose a server's notifications are.
#[derive(Clone, Copy, Debug)]
pub struct Speaker {
    /// The client.
    pub client: ClientId,
    /// The process id it was told.
    pid: u32,
    /// Its transaction is not over yet.
    pub fresh: bool,
    /// The round of the listener behind which nothing of it is to come; `None` while it holds the server.
    until: Option<u64>,
}

impl Speaker {
    /// The listener has heard all that it has said.
    pub(super) fn is_heard(&mut self) {
        self.until = Some(0);
    }
}

impl Relay {
    /// A statement is about to be forwarded, at `at`: what it needs in front of it. With its text if it is about to
    /// run, too. False if it must wait.
    pub(super) fn before_statement(
        &mut self,
        id: ClientId,
        server: ServerId,
        effects: Effects,
        sql: Option<&[u8]>,
        at: usize,
        out: &mut Outgoing<'_>,
    ) -> bool {
        if effects.any(Effects::UNLISTEN) && out.begins && !self.hears_first(id, server) {
            return false;
        }
        let undone = effects.any(NESTING) && self.servers.get(server).is_some_and(|this| this.onto.is_some());
        if !(effects.any(CHANNELS) || undone) || self.clients.get(id).is_none_or(|client| self.keeps(client)) {
            return true;
        }
        if effects.any(Effects::LISTEN)
            && !self.looks_away(id)
            && let Some(group) = self.clients.get(id).map(|client| client.group)
        {
            // Before it is known what is listened to: from now on it matters for how long a speaker is heard.
            self.listener_of(group);
        }
        if effects.any(Effects::NOTIFY) && !self.speaks(id, server) {
            return false;
        }
        let Some(hidden) = self.comes_onto(id, server, effects, out.begins) else { return false };
        if !hidden.is_empty() {
            out.edit(at, 0);
            for sql in hidden {
                build::query(&mut out.tx, &sql);
                self.expect_hidden(server);
            }
        }
        if let Some(sql) = sql {
            self.follow_savepoints(id, server, sql);
        }
        true
    }

    /// The client is about to give up channels: first it hears of all that was committed before. False if it must wait.
    fn hears_first(&mut self, id: ClientId, server: ServerId) -> bool {
        let (Some(client), Some(this)) = (self.clients.get_mut(id), self.servers.get_mut(server)) else { return true };
        let Some(listens) = client.listens.as_mut().filter(|listens| !listens.channels.is_empty()) else { return true };
        let listener = self.groups[client.group].listener.as_mut().filter(|listener| listener.up);
        let (Some(listener), b'I') = (listener, this.replies.status()) else { return true };
        if std::mem::take(&mut listens.has_heard) || this.replies.batch_owed() {
            return true;
        }
        listens.has_heard = true;
        this.handing = Some(Box::new(Stage::Yielding));
        listener.wait(server);
        false
    }

    /// The client is about to notify. False if it must wait.
    fn speaks(&mut self, id: ClientId, server: ServerId) -> bool {
        let (pid, Some(this), Some(client)) = (self.told_pid(id), self.servers.get_mut(server), self.clients.get(id))
        else {
            return true;
        };
        let group = self.pools[this.pool].group;
        let listener = self.groups[group].listener.as_mut().filter(|listener| listener.up);
        let up = listener.is_some();
        if let Some(before) = this.speaker.filter(|before| before.client != id)
            && client.listens.is_some()
            && let Some(listener) = listener
            && before.until.is_none_or(|round| !listener.is_done(round))
        {
            this.handing = Some(Box::new(Stage::Yielding));
            listener.wait(server);
            return false;
        }
        // Who hears it without the listener, on a server of his own, hears it at any time: then nobody knows which of the
        // two has said it.
        let mixed = this.speaker.is_some_and(|before| before.client != id || before.pid == this.key.pid);
        let pid = if mixed && !up { this.key.pid } else { pid };
        this.speaker = Some(Speaker { client: id, pid, fresh: true, until: None });
        true
    }

    /// The client listens, and what it has under way on this server says something: it is told of that before it is told that the
    /// transaction is over, which can be held back only if nothing comes behind it. What belongs to a COPY does not come behind, and
    /// who leaves is told nothing.
    pub(super) fn is_to_hear_itself(&self, id: ClientId, server: ServerId, data: &[u8]) -> bool {
        let copies = matches!(data.first(), Some(&tag::COPY_DATA | &tag::COPY_DONE | &tag::COPY_FAIL));
        let speaks = |this: &Server| this.speaker.is_some_and(|speaker| speaker.client == id && speaker.fresh);
        self.clients.get(id).is_some_and(|client| client.listens.is_some())
            && self.servers.get(server).is_some_and(|this| this.replies.busy() && speaks(this))
            && !copies
            && !data.ends_with(GOODBYE)
    }

    /// A server goes back: what its speaker has said is heard within a round.
    pub(super) fn spoken(&mut self, server: ServerId) {
        let Some(this) = self.servers.get_mut(server) else { return };
        let Some(speaker) = this.speaker.as_mut().filter(|speaker| speaker.until.is_none()) else { return };
        let group = self.pools[this.pool].group;
        // One that is not there yet will need that round as well; until then who listens does so on a server of his own.
        match self.groups[group].listener.as_mut() {
            Some(listener) => speaker.until = Some(listener.need_round()),
            None => this.speaker = None,
        }
    }

    /// The process id that stands, for the listener of a group, for whoever notified by way of the server process `pid`.
    pub(super) fn told_for(&self, group: GroupId, pid: u32) -> u32 {
        let Some((server, speaker)) = self.speaker_at(group, pid) else { return pid };
        let listener = self.groups[self.pools[server.pool].group].listener.as_ref();
        let over = speaker.until.is_some_and(|round| listener.is_none_or(|listener| listener.is_done(round)));
        if over { pid } else { speaker.pid }
    }

    /// The same for a client that hears it on a server of its own: that may tell it later than the listener is told, and its speaker's
    /// time may be over by then. It is the last speaker's all the same, unless that is who hears it: it must not take a stranger's,
    /// which a trigger of his has sent, for its own.
    pub(super) fn told_late_for(&self, group: GroupId, pid: u32, hearing: ClientId) -> u32 {
        let last = self.speaker_at(group, pid).map(|(_, speaker)| speaker);
        last.filter(|speaker| speaker.client != hearing)
            .map_or_else(|| self.told_for(group, pid), |speaker| speaker.pid)
    }

    /// The server whose process this is, and who spoke on it last.
    fn speaker_at(&self, group: GroupId, pid: u32) -> Option<(&Server, Speaker)> {
        let host = &self.pools[self.groups[group].primary].dial;
        let is_it = |pool: super::PoolId| {
            let dial = &self.pools[pool].dial;
            dial.endpoint == host.endpoint && dial.dbname == host.dbname
        };
        let server = self.servers.values().find(|server| server.key.pid == pid && is_it(server.pool))?;
        Some((server, server.speaker?))
    }
}
