//! How the channels of a client come back onto the server it holds, in front of a statement about channels.
//! Must never be done for a client that does not listen yet: it has nothing to bring.
//!
//! LISTEN, UNLISTEN and pg_listening_channels mean what they mean on a connection of one's own only if the server
//! listens to all that the client listens to. So it is made to, in front of the statement and within its
//! transaction, together with a mark: if both are rolled back nothing has happened, if they are committed the server
//! alone tells the client from the mark on, and at the end of the lease what it says it listens to is the truth.

use super::client::Unnamed;
use super::listen::{Mark, quoted};
use super::listen_hear::QUEUE_BYTES;
use super::{ClientId, Relay, ServerId};
use crate::sql::nesting::{Nesting, nesting};
use crate::sql::verdict::Effects;

/// What is known of the change.
#[derive(Debug, Default)]
pub struct Onto {
    /// The server has heard the mark.
    pub here: bool,
    /// So has the listener, which is silent for the client from then on.
    pub there: bool,
    /// Numbers of the marks sent: only one that is not rolled back is heard. The channel carries those of others too.
    pub marks: Vec<u64>,
    /// It has been sent, and not been undone as far as is known.
    sent: bool,
    /// Savepoints made since.
    since: Vec<Box<[u8]>>,
    /// What the server has told before both have.
    pub held: Vec<u8>,
}

impl Onto {
    /// The server alone tells the client.
    pub fn is_settled(&self) -> bool {
        self.here && self.there
    }

    /// Keeps a message until both have heard the mark; they do so within milliseconds, and what is too much is dropped.
    pub fn hold(&mut self, message: &[u8]) {
        if self.held.len() + message.len() <= QUEUE_BYTES {
            self.held.extend_from_slice(message);
        }
    }
}

impl Relay {
    /// Queries that bring the client's channels onto the server, if there is something to bring. `None`: the
    /// statement must wait.
    pub(super) fn comes_onto(
        &mut self,
        id: ClientId,
        server: ServerId,
        effects: Effects,
        begins: bool,
    ) -> Option<Vec<Vec<u8>>> {
        let none = Some(Vec::new());
        let (Some(client), Some(this)) = (self.clients.get_mut(id), self.servers.get_mut(server)) else { return none };
        let changes = effects.any(Effects::LISTEN.union(Effects::UNLISTEN));
        let Some(listens) = client.listens.as_ref().filter(|listens| !listens.channels.is_empty()) else { return none };
        let sent = this.onto.as_ref().is_some_and(|onto| onto.sent || onto.there);
        let there = matches!(client.unnamed, Unnamed::There { .. });
        if sent || !begins || !(changes || effects.any(Effects::LISTENING)) || there {
            return none;
        }
        if this.replies.batch_owed() {
            return None;
        }
        let listener = self.groups[client.group].listener.as_mut().filter(|listener| listener.up);
        let Some(listener) = listener else { return none };
        let marker = &listener.marker;
        let mut sql = vec![format!("LISTEN \"{marker}\";").into_bytes()];
        match this.replies.status() {
            // It has heard the mark by then, and must not show that it listens for it.
            b'I' => sql.push(format!("UNLISTEN \"{marker}\"").into_bytes()),
            // What is listened to in a transaction does not show before its end.
            b'T' if changes => {}
            _ => return none,
        }
        let (number, mark) = listener.mark(Mark::Onto(server, id));
        if let Some(first) = sql.first_mut() {
            for name in &listens.channels {
                first.extend_from_slice(&[b"LISTEN ", &*quoted(name), b";"].concat());
            }
            first.extend_from_slice(mark.as_bytes());
        }
        let onto = this.onto.get_or_insert_default();
        (onto.sent, onto.since) = (true, Vec::new());
        onto.marks.push(number);
        client.touched.get_or_insert_default().effects |= Effects::LISTEN;
        Some(sql)
    }

    /// Follows what may undo that the channels were brought.
    pub(super) fn follow_savepoints(&mut self, id: ClientId, server: ServerId, sql: &[u8]) {
        let (Some(client), Some(this)) = (self.clients.get(id), self.servers.get_mut(server)) else { return };
        let Some(onto) = this.onto.as_mut().filter(|onto| onto.sent && !onto.there) else { return };
        let open = this.replies.status() != b'I';
        for step in nesting(sql, client.conforming) {
            match step {
                Nesting::Savepoint(name) => onto.since.push(name),
                Nesting::Release(name) => {
                    let at = onto.since.iter().rposition(|known| *known == name);
                    at.into_iter().for_each(|at| onto.since.truncate(at));
                }
                Nesting::RollbackTo(name) => match onto.since.iter().rposition(|known| *known == name) {
                    Some(at) => onto.since.truncate(at + 1),
                    // Made before.
                    None => onto.sent &= !open,
                },
                Nesting::Rollback => onto.sent &= !open,
            }
        }
    }

    /// The listener has heard the mark: it is silent for the client from now on.
    pub(super) fn onto_heard(&mut self, server: ServerId, id: ClientId) {
        let (Some(this), Some(client)) = (self.servers.get_mut(server), self.clients.get(id)) else { return };
        if this.owner() != Some(id) {
            return;
        }
        let (Some(onto), Some(listens)) = (&mut this.onto, &client.listens) else { return };
        onto.there = true;
        if let Some(listener) = self.groups[client.group].listener.as_mut() {
            listener.mute(id, &listens.channels);
        }
        self.onto_settled(server, id);
        self.hear(id);
    }

    /// What the server has told goes behind what the listener told before.
    pub(super) fn onto_settled(&mut self, server: ServerId, id: ClientId) {
        let (Some(this), Some(client)) = (self.servers.get_mut(server), self.clients.get_mut(id)) else { return };
        let Some(onto) = this.onto.as_mut().filter(|onto| onto.is_settled()) else { return };
        let held = std::mem::take(&mut onto.held);
        if !held.is_empty() {
            client.listens.get_or_insert_default().queue.extend_from_slice(&held);
        }
    }
}
