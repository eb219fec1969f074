//! LISTEN without a server of one's own: the channels of a group's clients, and the one connection that hears them.
//! Must never believe that somebody listens before a server has said so, nor let two connections tell a client the same.
//!
//! A LISTEN runs on the server that its client has, as it came: PostgreSQL decides what it means and whether it is
//! committed. At the end of the lease the server is asked which channels there are ([`super::inventory`]), and they
//! are handed over ([`super::listen_over`]) to a connection that all clients of the group share on this worker, always
//! to the primary: its [`Listener`]. What that one hears goes to every client concerned ([`super::listen_hear`]).
//!
//! PostgreSQL keeps one queue of notifications per database, read by all who listen in the same order
//! (src/backend/commands/async.c). So a notification on a channel of pgweir's own is a mark at the same place in what
//! two connections hear, and what is to be told by the one and what by the other is decided exactly.
//!
//! What the listener is to do is done in *rounds*, one query each, one at a time. PostgreSQL signals listeners before
//! it answers the COMMIT of who notifies, and a backend reads the queue before each ReadyForQuery: so a round begun
//! after a transaction was answered ends behind all its notifications.

use std::collections::HashMap;
use std::rc::Rc;

use tokio::sync::Notify;

use super::client::State;
use super::{ClientId, GroupId, Relay, ServerId, Todo};
use crate::sql::verdict::Effects;

/// Channels are listened to in portions of so many: a round must fit into the buffers of a socket, 64 bytes each.
const PORTION: usize = 256;

/// How the channel for marks begins.
pub(super) const MARKER: &str = "__pgweir_";

/// Name of a channel.
pub(super) type Channel = Box<[u8]>;

/// The channels of one client, and what waits for it.
#[derive(Debug, Default)]
pub struct Listens {
    /// Those that its group's listener tells it of.
    pub channels: Vec<Channel>,
    /// Messages that wait until they may be sent, whole and in order.
    pub queue: Vec<u8>,
    /// Notifications dropped since the client was last told so.
    pub dropped: u64,
    /// A round was done for the statement that is about to give channels up.
    pub has_heard: bool,
}

/// Who hears of a channel.
#[derive(Debug)]
struct Member {
    client: ClientId,
    /// Its mark has been heard: what comes is for it.
    live: bool,
}

#[derive(Debug, Default)]
struct Heard {
    members: Vec<Member>,
    /// The connection listens to it.
    listened: bool,
}

/// What a mark is for.
#[derive(Debug)]
pub(super) enum Mark {
    /// From here on the listener tells the client that holds this server.
    Over(ServerId),
    /// From here on this server tells its client, and the listener does not.
    Onto(ServerId, ClientId),
}

/// The connection that listens for all clients of a group, or is to be opened for that.
#[derive(Debug)]
pub struct Listener {
    /// Rung when there is something to do.
    pub(super) wake: Rc<Notify>,
    /// The channel for marks. Nobody can guess it, so nobody can forge them.
    pub(super) marker: String,
    /// The connection is there.
    pub(super) up: bool,
    /// It counts under the limits of connections.
    pub(super) placed: bool,
    /// Somebody needs the database without it, and nobody listened when that was said.
    pub(super) in_the_way: bool,
    channels: HashMap<Channel, Heard>,
    marks: HashMap<u64, Mark>,
    next_mark: u64,
    /// Rounds begun, and rounds done.
    begun: u64,
    done: u64,
    /// The last round that somebody needs.
    needed: u64,
    /// Channels that the round under way listens to.
    asked: Vec<Channel>,
    /// Servers whose clients wait for a round.
    waiting: Vec<(u64, ServerId)>,
    /// Clients that keep a server because there was no connection to take their channels.
    pub(super) homeless: Vec<ClientId>,
    /// Clients to be told that something may have passed unheard.
    missed: Vec<ClientId>,
}

impl Listener {
    fn new() -> Option<Self> {
        let mut bytes = [0; 12];
        aws_lc_rs::rand::fill(&mut bytes).ok()?;
        let marker = bytes.iter().fold(MARKER.to_owned(), |name, byte| name + &format!("{byte:02x}"));
        Some(Self {
            wake: Rc::default(),
            marker,
            up: false,
            placed: false,
            in_the_way: false,
            channels: HashMap::new(),
            marks: HashMap::new(),
            next_mark: 0,
            begun: 0,
            done: 0,
            needed: 0,
            asked: Vec::new(),
            waiting: Vec::new(),
            homeless: Vec::new(),
            missed: Vec::new(),
        })
    }

    /// Number of the round that begins next: once it is done, everything answered by now has been heard.
    pub(super) fn need_round(&mut self) -> u64 {
        self.needed = self.begun + 1;
        self.wake.notify_one();
        self.needed
    }

    /// Everything that the round was needed for has been heard.
    pub(super) fn is_done(&self, round: u64) -> bool {
        self.done >= round
    }

    /// The client of this server waits for the next round: its number. It ends within the time that an answer may
    /// take, or the connection is lost: either way the server's turn goes on ([`Relay::hand_on`]).
    pub(super) fn wait(&mut self, server: ServerId) -> u64 {
        let round = self.need_round();
        self.waiting.push((round, server));
        round
    }

    /// Nobody waits with this server any more.
    pub(super) fn forget(&mut self, server: ServerId) {
        self.waiting.retain(|(_, other)| *other != server);
    }

    /// A new mark: its number, and the SQL that sends it.
    pub(super) fn mark(&mut self, mark: Mark) -> (u64, String) {
        self.next_mark += 1;
        self.marks.insert(self.next_mark, mark);
        (self.next_mark, format!("NOTIFY \"{}\", '{}'", self.marker, self.next_mark))
    }

    /// What the mark of this number is for, once.
    pub(super) fn marked(&mut self, number: u64) -> Option<Mark> {
        self.marks.remove(&number)
    }

    /// Puts the client down for channels; they are told to it at once if `live`.
    pub(super) fn join(&mut self, client: ClientId, names: &[Channel], live: bool) {
        for name in names {
            let members = &mut self.channels.entry(name.clone()).or_default().members;
            match members.iter_mut().find(|member| member.client == client) {
                Some(member) => member.live |= live,
                None => members.push(Member { client, live }),
            }
        }
        self.wake.notify_one();
    }

    /// Tells the client nothing any more, but keeps its place.
    pub(super) fn mute(&mut self, client: ClientId, names: &[Channel]) {
        for name in names {
            let members = self.channels.get_mut(name).into_iter().flat_map(|heard| &mut heard.members);
            members.filter(|member| member.client == client).for_each(|member| member.live = false);
        }
    }

    /// Takes the client off all channels.
    pub(super) fn leave_all(&mut self, client: ClientId) {
        self.channels.values_mut().for_each(|heard| heard.members.retain(|member| member.client != client));
        self.wake.notify_one();
    }

    /// Takes the client off channels.
    pub(super) fn leave(&mut self, client: ClientId, names: &[Channel]) {
        for name in names {
            let Some(heard) = self.channels.get_mut(name) else { continue };
            heard.members.retain(|member| member.client != client);
            if heard.members.is_empty() {
                self.wake.notify_one();
            }
        }
    }

    /// The connection listens to all of them.
    pub(super) fn listens_to(&self, names: &[Channel]) -> bool {
        names.iter().all(|name| self.channels.get(name).is_some_and(|heard| heard.listened))
    }

    /// Whom a notification of this channel is for.
    pub(super) fn audience(&self, name: &[u8]) -> Vec<ClientId> {
        let members = self.channels.get(name).map_or(&[][..], |heard| &heard.members);
        members.iter().filter(|member| member.live).map(|member| member.client).collect()
    }

    /// How many channels there are.
    pub(super) fn channel_count(&self) -> usize {
        self.channels.len()
    }

    /// Nobody needs the connection.
    pub(super) fn is_idle(&self) -> bool {
        self.channels.values().all(|heard| heard.members.is_empty()) && self.homeless.is_empty()
    }

    /// SQL of the next round, if one is to be begun now; empty for one that only listens for its own end.
    pub(super) fn next_round(&mut self) -> Option<Vec<u8>> {
        if !self.up || self.begun != self.done {
            return None;
        }
        let mut sql = Vec::new();
        let gone = self.channels.iter().filter(|(_, heard)| heard.members.is_empty());
        let gone: Vec<Channel> = gone.map(|(name, _)| name.clone()).take(PORTION).collect();
        for name in gone {
            if self.channels.remove(&name).is_some_and(|heard| heard.listened) {
                sql.extend_from_slice(&[b"UNLISTEN ", &*quoted(&name), b";"].concat());
            }
        }
        let new = self.channels.iter().filter(|(_, heard)| !heard.listened);
        self.asked = new.map(|(name, _)| name.clone()).take(PORTION).collect();
        for name in &self.asked {
            sql.extend_from_slice(&[b"LISTEN ", &*quoted(name), b";"].concat());
        }
        if sql.is_empty() && self.needed <= self.begun {
            return None;
        }
        self.begun += 1;
        Some(sql)
    }

    /// The round under way is done. Returns who waited for it.
    pub(super) fn round_done(&mut self) -> Vec<ServerId> {
        self.done = self.begun;
        for name in std::mem::take(&mut self.asked) {
            if let Some(heard) = self.channels.get_mut(&name) {
                heard.listened = true;
            }
        }
        let done = self.done;
        let (ready, waiting) = std::mem::take(&mut self.waiting).into_iter().partition(|(round, _)| *round <= done);
        self.waiting = waiting;
        let ready: Vec<(u64, ServerId)> = ready;
        ready.into_iter().map(|(_, server)| server).collect()
    }

    /// Those who are to be told that something may have passed unheard, once everything is listened to again.
    pub(super) fn take_missed(&mut self) -> Vec<ClientId> {
        if self.missed.is_empty() || self.channels.values().any(|heard| !heard.listened) {
            return Vec::new();
        }
        std::mem::take(&mut self.missed)
    }

    /// The client is to be told that something may have passed unheard.
    pub(super) fn misses(&mut self, client: ClientId) {
        if !self.missed.contains(&client) {
            self.missed.push(client);
        }
        self.wake.notify_one();
    }

    /// The connection is gone: nothing is listened to, and nothing will be answered. Returns who waited.
    pub(super) fn lost(&mut self) -> Vec<ServerId> {
        // One that was never there may still come, for what is needed.
        if std::mem::take(&mut self.up) {
            self.done = self.begun.max(self.needed);
            self.begun = self.done;
        }
        self.asked.clear();
        self.marks.clear();
        let mut live: Vec<ClientId> = Vec::new();
        for heard in self.channels.values_mut() {
            heard.listened = false;
            live.extend(heard.members.iter().filter(|member| member.live).map(|member| member.client));
        }
        live.into_iter().for_each(|client| self.misses(client));
        std::mem::take(&mut self.waiting).into_iter().map(|(_, server)| server).collect()
    }
}

impl Relay {
    /// The listener of a group, made at the first use.
    pub(super) fn listener_of(&mut self, group: GroupId) -> Option<&mut Listener> {
        let this = self.groups.get_mut(group)?;
        if this.listener.is_none() {
            this.listener = Some(Box::new(Listener::new()?));
            this.asks += 1;
            self.todo.push(Todo::Listen(group));
        }
        this.listener.as_deref_mut()
    }

    /// Takes the client off channels that it listens to no more, and what waits of them.
    pub(super) fn stop_listening(&mut self, id: ClientId, gone: &[Channel]) {
        if gone.is_empty() {
            return;
        }
        let Some(client) = self.clients.get_mut(id) else { return };
        if let Some(listens) = &mut client.listens {
            listens.channels.retain(|name| !gone.contains(name));
            listens.forget_queued(gone);
            if listens.channels.is_empty() && listens.queue.is_empty() {
                client.listens = None;
            }
        }
        if let Some(listener) = self.groups.get_mut(client.group).and_then(|group| group.listener.as_mut()) {
            listener.leave(id, gone);
        }
    }

    /// The client listens to nothing any more: it has gone, or said DISCARD ALL.
    pub(super) fn stop_listening_at_all(&mut self, id: ClientId) {
        let Some(client) = self.clients.get_mut(id) else { return };
        if client.listens.take().is_none() && !client.pinned.any(Effects::LISTEN) {
            return;
        }
        if let Some(listener) = self.groups.get_mut(client.group).and_then(|group| group.listener.as_mut()) {
            listener.leave_all(id);
        }
    }

    /// A client at rest that listens does not wait for its next request to move to its group's successor.
    pub(super) fn follow_listener(&mut self, id: ClientId) {
        let Some(client) = self.clients.get(id).filter(|client| client.listens.is_some()) else { return };
        let group = &self.groups[client.group];
        if group.retired && !group.ended && client.state == State::Idle {
            self.move_to_successor(id);
        }
    }

    /// The client has moved to its group's successor, which listens from now on: perhaps to another server.
    pub(super) fn move_listening(&mut self, id: ClientId, from: GroupId, to: GroupId) {
        let Some(listens) = self.clients.get(id).and_then(|client| client.listens.as_ref()) else { return };
        let channels = listens.channels.clone();
        if let Some(listener) = self.groups.get_mut(from).and_then(|group| group.listener.as_mut()) {
            listener.leave(id, &channels);
        }
        if let Some(listener) = self.listener_of(to) {
            listener.join(id, &channels, true);
            listener.misses(id);
        }
    }
}

/// `name` as an identifier of SQL.
pub(super) fn quoted(name: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(name.len() + 2);
    out.push(b'"');
    for &byte in name {
        if byte == b'"' {
            out.push(byte);
        }
        out.push(byte);
    }
    out.push(b'"');
    out
}

/// The number of a mark.
pub(super) fn number(payload: &[u8]) -> Option<u64> {
    std::str::from_utf8(payload).ok()?.parse().ok()
}
