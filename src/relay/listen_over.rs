//! How the channels of a client go over from the server it holds to the listener of its group.
//! Must never leave a moment in which neither of the two hears, nor tell the client anything twice.
//!
//! The listener listens first; then the server sends a mark to both, on a channel only these two know. What
//! the server hears before the mark is the client's, and what the listener hears behind it. Last the server
//! stops to listen and is free. The client waits for that only if it asks on at once.

use super::attach::NO_STATEMENT;
use super::listen::{Channel, Listener, Listens, MARKER, Mark};
use super::server::UnnamedOn;
use super::{ClientId, Relay, Server, ServerId};
use crate::flow::expect::{Expect, Kind, Origin};
use crate::flow::params::Settings;
use crate::sql::verdict::Effects;
use crate::wire::build;

/// What a server is being kept for beside its client's requests.
#[derive(Debug)]
pub enum Stage {
    /// A round of the listener shows which transactions that gave up channels are committed. With the
    /// channels that the server has said there are.
    Settling(Vec<Channel>),
    /// The listener is about to listen to the new channels.
    Joining(Leaving),
    /// The server sends the mark, and gives its channels up.
    Leaving(Leaving),
    /// The ReadyForQuery is kept back until the listener has heard what the transaction before it sent.
    Hearing,
    /// The client's NOTIFY waits until what the client before it sent on this server has been heard, or its UNLISTEN
    /// until everything has.
    Yielding,
}

/// Channels on their way.
#[derive(Debug, Default)]
pub struct Leaving {
    /// What the client did not listen to before.
    new: Vec<Channel>,
    /// Number of the mark: the channel carries those of others too.
    pub mark: u64,
    /// Answers of the server still to come.
    owed: u32,
    /// The round of the listener at whose end it has heard the mark for certain; once all answers are there.
    round: Option<u64>,
    /// The server has heard the mark: nothing that it hears from now on is for the client.
    pub left: bool,
    /// So has the listener.
    pub joined: bool,
    /// What it has told since.
    later: Listens,
    /// Something went wrong, and the client may miss something.
    failed: bool,
}

impl Leaving {
    /// Keeps what the listener tells behind the mark. False if there is no room.
    pub fn hear(&mut self, message: &[u8]) -> bool {
        self.later.push(message)
    }

    /// Sees whether the mark can still come.
    fn fail_unless_heard(&mut self, listener: Option<&Listener>) {
        let lost = match (listener, self.round) {
            (Some(listener), Some(round)) => listener.is_done(round),
            (Some(_), None) => false,
            (None, _) => true,
        };
        self.failed |= lost && !self.joined || self.owed == 0 && !self.left;
    }
}

impl Server {
    /// It has answered a hidden query. True if that is what a hand-over waited for.
    pub(super) fn hand_answered(&mut self) -> bool {
        let Some(Stage::Leaving(leaving)) = self.handing.as_deref_mut() else { return false };
        leaving.owed = leaving.owed.saturating_sub(1);
        leaving.owed == 0
    }
}

impl Relay {
    /// Takes over the channels that a server has said there are. True if that goes on by itself and ends as
    /// an answer does.
    pub(super) fn hand_over(&mut self, server: ServerId, id: ClientId, listed: Vec<Channel>) -> bool {
        let (Some(this), Some(client)) = (self.servers.get_mut(server), self.clients.get(id)) else { return false };
        if listed.is_empty() && this.onto.is_none() {
            return false;
        }
        let unsettled = this.onto.as_ref().is_some_and(|onto| !onto.there);
        let listener = self.groups[client.group].listener.as_mut().filter(|listener| listener.up);
        if unsettled && let Some(listener) = listener {
            listener.wait(server);
            this.handing = Some(Box::new(Stage::Settling(listed)));
            return true;
        }
        self.settle_channels(server, id, listed)
    }

    fn settle_channels(&mut self, server: ServerId, id: ClientId, mut listed: Vec<Channel>) -> bool {
        let (Some(this), Some(client)) = (self.servers.get_mut(server), self.clients.get_mut(id)) else { return false };
        let nothing = listed.is_empty();
        listed.retain(|name| !name.starts_with(MARKER.as_bytes()));
        let onto = this.onto.take().unwrap_or_default();
        let mut gone = Vec::new();
        let mut kept = Vec::new();
        if let Some(listens) = &mut client.listens {
            listens.queue.extend_from_slice(&onto.held);
            if onto.there || onto.here {
                // It is committed: what the server says is all there is.
                let listener = self.groups[client.group].listener.as_mut();
                listener.into_iter().for_each(|listener| listener.mute(id, &listens.channels));
                gone = std::mem::take(&mut listens.channels);
                gone.retain(|name| !listed.contains(name));
            }
            kept.clone_from(&listens.channels);
        }
        self.stop_listening(id, &gone);
        if nothing {
            return false;
        }
        if listed.is_empty() {
            // Only to marks.
            self.leave_server(server, Leaving::default());
            return true;
        }
        let Some(client) = self.clients.get_mut(id) else { return false };
        client.pinned |= Effects::LISTEN;
        let group = client.group;
        let base = self.groups[group].base.as_deref().unwrap_or_default();
        if !same_encoding(&client.params.settings, base) || self.groups[group].retired {
            // Its names and payloads are written in another encoding than the listener's.
            return false;
        }
        let new: Vec<Channel> = listed.into_iter().filter(|name| !kept.contains(name)).collect();
        let Some(listener) = self.listener_of(group) else { return false };
        if !listener.up {
            if !listener.homeless.contains(&id) {
                listener.homeless.push(id);
            }
            return false;
        }
        listener.join(id, &new, false);
        let there = listener.listens_to(&new);
        let leaving = Leaving { new, ..Leaving::default() };
        if there {
            self.leave_server(server, leaving);
        } else {
            listener.wait(server);
            if let Some(this) = self.servers.get_mut(server) {
                this.handing = Some(Box::new(Stage::Joining(leaving)));
            }
        }
        true
    }

    /// The listener hears the new channels: now the server stops to.
    fn leave_server(&mut self, server: ServerId, mut leaving: Leaving) {
        let Some(this) = self.servers.get(server) else { return };
        let group = self.pools[this.pool].group;
        let mut sql = Vec::new();
        if leaving.new.is_empty() {
            // What it hears the client has heard from the listener all the time.
            (leaving.left, leaving.joined) = (true, true);
        } else if let Some(listener) = self.listener_of(group) {
            let (number, mark) = listener.mark(Mark::Over(server));
            leaving.mark = number;
            sql.push(format!("LISTEN \"{}\"; {mark}", listener.marker));
        }
        sql.push("UNLISTEN *".to_owned());
        leaving.owed = sql.len() as u32;
        for sql in sql {
            self.put_hidden(server, sql.as_bytes());
        }
        if let Some(this) = self.servers.get_mut(server) {
            this.handing = Some(Box::new(Stage::Leaving(leaving)));
        }
    }

    /// Sends a query whose answer nobody sees.
    fn put_hidden(&mut self, server: ServerId, sql: &[u8]) {
        let mut out = Vec::new();
        build::query(&mut out, sql);
        self.expect_hidden(server);
        if let Some(this) = self.servers.get_mut(server)
            && !this.send(&out)
        {
            this.wake();
        }
    }

    /// Enters the answer to a query of pgweir's own that may fail.
    pub(super) fn expect_hidden(&mut self, server: ServerId) {
        let sent_us = self.now_us;
        let Some(this) = self.servers.get_mut(server) else { return };
        this.unnamed = UnnamedOn::Nobody;
        let owner = this.owner().map_or(u32::MAX, |id| id.index());
        let kind = Kind::Query;
        this.replies.expect(Expect {
            kind,
            origin: Origin::Asked,
            owner,
            statement: NO_STATEMENT,
            cookie: 0,
            sent_us,
            name: 0,
            note: 0,
        });
    }

    /// A hidden query has failed.
    pub(super) fn hand_failed(&mut self, server: ServerId) {
        let Some(this) = self.servers.get_mut(server) else { return };
        if let Some(Stage::Leaving(leaving)) = this.handing.as_deref_mut() {
            leaving.failed = true;
        }
    }

    /// The listener has heard the mark of this server: what comes now is for its client.
    pub(super) fn mark_heard(&mut self, server: ServerId, number: u64) {
        let Some(this) = self.servers.get_mut(server) else { return };
        let (Some(id), Some(Stage::Leaving(leaving))) = (this.owner(), this.handing.as_deref_mut()) else { return };
        if leaving.mark != number {
            return;
        }
        leaving.joined = true;
        let new = leaving.new.clone();
        let group = self.pools[this.pool].group;
        if let Some(listener) = self.listener_of(group) {
            listener.join(id, &new, true);
        }
        self.hand_on(server);
    }

    /// Goes on with whatever the server is kept for: a round is done, or an answer has come.
    pub(super) fn hand_on(&mut self, server: ServerId) {
        let Some(this) = self.servers.get_mut(server) else { return };
        let (Some(id), Some(stage)) = (this.owner(), this.handing.take()) else { return };
        let group = self.pools[this.pool].group;
        match *stage {
            Stage::Settling(listed) => {
                if !self.settle_channels(server, id, listed) {
                    self.handed(server, id);
                }
            }
            Stage::Joining(leaving) => {
                let Some(listener) = self.groups[group].listener.as_mut() else { return self.handed(server, id) };
                if !listener.up {
                    listener.leave(id, &leaving.new);
                    listener.homeless.push(id);
                    self.handed(server, id);
                } else if listener.listens_to(&leaving.new) {
                    self.leave_server(server, leaving);
                } else {
                    listener.wait(server);
                    this.handing = Some(Box::new(Stage::Joining(leaving)));
                }
            }
            Stage::Leaving(mut leaving) => {
                let listener = self.groups[group].listener.as_mut().filter(|listener| listener.up);
                leaving.fail_unless_heard(listener.as_deref().map(|listener| &**listener));
                if leaving.owed == 0 && (leaving.joined || leaving.failed) {
                    return self.left_server(server, id, leaving);
                }
                if leaving.owed == 0 && leaving.round.is_none() {
                    leaving.round = listener.map(|listener| listener.wait(server));
                }
                this.handing = Some(Box::new(Stage::Leaving(leaving)));
            }
            Stage::Hearing => {
                if let Some(speaker) = &mut this.speaker {
                    speaker.is_heard();
                }
                let mut out = self.take_queue(id);
                build::ready(&mut out, b'I');
                if let Some(client) = self.clients.get_mut(id) {
                    client.send(&out);
                    if !client.inbox.is_empty() {
                        client.wake();
                    }
                }
                self.finish(server);
            }
            Stage::Yielding => {
                this.speaker = None;
                self.hear(id);
                self.pump_inbox(id);
            }
        }
    }

    /// The server listens no more: the listener does.
    fn left_server(&mut self, server: ServerId, id: ClientId, leaving: Leaving) {
        let Some(client) = self.clients.get_mut(id) else { return };
        client.pinned = client.pinned.without(Effects::LISTEN);
        let listens = client.listens.get_or_insert_default();
        listens.channels.extend(leaving.new.iter().cloned());
        listens.queue.extend_from_slice(&leaving.later.queue);
        listens.dropped += leaving.later.dropped;
        let group = client.group;
        if leaving.failed
            && let Some(listener) = self.listener_of(group)
        {
            listener.join(id, &leaving.new, true);
            listener.misses(id);
        }
        self.handed(server, id);
    }

    /// Nothing more is to be done: the client may go on, or the server go.
    fn handed(&mut self, server: ServerId, id: ClientId) {
        self.hear(id);
        self.part_or_stay(server, id);
    }

    /// The listener is there: whoever kept a server for want of one is asked again.
    pub(super) fn take_homeless(&mut self, group: super::GroupId) {
        let Some(listener) = self.groups.get_mut(group).and_then(|group| group.listener.as_mut()) else { return };
        for id in std::mem::take(&mut listener.homeless) {
            let Some(client) = self.clients.get_mut(id) else { continue };
            let Some(server) = client.server().filter(|_| client.pinned.any(Effects::LISTEN)) else { continue };
            client.touched.get_or_insert_default().effects |= Effects::LISTEN;
            self.finish(server);
        }
    }

    /// Everything that waits for a client, whether it may be told now or not.
    fn take_queue(&mut self, id: ClientId) -> Vec<u8> {
        let listens = self.clients.get_mut(id).and_then(|client| client.listens.as_mut());
        listens.map(|listens| listens.take()).unwrap_or_default()
    }
}

/// The session reads and writes in the encoding that servers begin with: names as PostgreSQL compares them
/// (`clean_encoding_name` in src/common/encnames.c).
fn same_encoding(settings: &Settings, base: &[(Vec<u8>, Vec<u8>)]) -> bool {
    let name = |settings: &[(Vec<u8>, Vec<u8>)]| {
        let (_, value) = settings.iter().find(|(name, _)| name.eq_ignore_ascii_case(b"client_encoding"))?;
        let clean: Vec<u8> =
            value.iter().filter(|byte| byte.is_ascii_alphanumeric()).map(u8::to_ascii_lowercase).collect();
        Some(if clean == b"unicode" { b"utf8".to_vec() } else { clean })
    };
    name(settings).is_none_or(|own| name(base) == Some(own))
}
