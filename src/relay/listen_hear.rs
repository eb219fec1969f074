//! Notifications on their way to the clients that listen.
//! Must never tell a client anything in the middle of a message or of a transaction, nor change the order.
//!
//! PostgreSQL tells a session of notifications between transactions only (ProcessNotifyInterrupt in
//! src/backend/commands/async.c), and before the ReadyForQuery of the one that has just ended
//! (src/backend/tcop/postgres.c). What comes while a client's transaction or request is under way waits that long.

use super::client::State;
use super::listen::{Channel, Listens, Mark, number};
use super::listen_over::Stage;
use super::{BACKLOG_BYTES, Client, ClientId, GroupId, Relay, ServerId};
use crate::wire::error::PgError;
use crate::wire::frame::{HEADER, Header, be_u32, cstr};
use crate::wire::{build, tag};

/// What may wait for one client, bytes; notifications beyond it are dropped, and the client is told that.
pub(super) const QUEUE_BYTES: usize = 1 << 20;

/// A notification taken apart.
pub(super) struct Notification<'a> {
    pub pid: u32,
    pub channel: &'a [u8],
    pub payload: &'a [u8],
}

impl<'a> Notification<'a> {
    /// Reads the body of a NotificationResponse.
    pub fn parse(body: &'a [u8]) -> Option<Self> {
        let pid = be_u32(body)?;
        let (channel, rest) = cstr(body.get(4..)?)?;
        let (payload, _) = cstr(rest)?;
        Some(Self { pid, channel, payload })
    }

    /// The message, with another process id.
    pub fn from(&self, pid: u32) -> Vec<u8> {
        let mut out = Vec::with_capacity(HEADER + 6 + self.channel.len() + self.payload.len());
        build::message(&mut out, tag::server::NOTIFICATION, |out| {
            out.extend_from_slice(&pid.to_be_bytes());
            build::cstr(out, self.channel);
            build::cstr(out, self.payload);
        });
        out
    }
}

impl Listens {
    /// Puts a message behind those that wait; false if there is no room.
    pub(super) fn push(&mut self, message: &[u8]) -> bool {
        let fits = self.dropped == 0 && self.queue.len() + message.len() <= QUEUE_BYTES;
        if fits {
            self.queue.extend_from_slice(message);
        } else {
            self.dropped += 1;
        }
        fits
    }

    /// Takes everything that waits.
    pub(super) fn take(&mut self) -> Vec<u8> {
        let mut all = std::mem::take(&mut self.queue);
        let dropped = std::mem::take(&mut self.dropped);
        if dropped > 0 {
            let message =
                format!("pgweir: {dropped} notifications were dropped because too many waited for this client");
            PgError::notice(message)
                .hint("Shorter transactions, or a client that reads as it is told.")
                .encode(&mut all);
        }
        all
    }

    /// Something waits.
    pub(super) fn is_waiting(&self) -> bool {
        !self.queue.is_empty() || self.dropped > 0
    }

    /// Drops what waits of these channels: PostgreSQL would not tell it either any more.
    pub(super) fn forget_queued(&mut self, gone: &[Channel]) {
        let mut kept = Vec::new();
        let mut rest = &self.queue[..];
        while let Ok(Some(header)) = Header::peek(rest, usize::MAX)
            && let Some((message, after)) = rest.split_at_checked(header.total)
        {
            let body = message.get(HEADER..).unwrap_or_default();
            let of_gone = header.tag == tag::server::NOTIFICATION
                && Notification::parse(body).is_some_and(|it| gone.iter().any(|name| **name == *it.channel));
            if !of_gone {
                kept.extend_from_slice(message);
            }
            rest = after;
        }
        self.queue = kept;
    }
}

impl Relay {
    /// The listener of a group has heard something.
    pub(super) fn heard(&mut self, group: GroupId, body: &[u8]) {
        self.now_us = crate::base::clock::now_us();
        let Some(notification) = Notification::parse(body) else { return };
        let Some(this) = self.groups.get_mut(group) else { return };
        let Some(listener) = &mut this.listener else { return };
        if notification.channel == listener.marker.as_bytes() {
            let Some(number) = number(notification.payload) else { return };
            return match listener.marked(number) {
                Some(Mark::Over(server)) => self.mark_heard(server, number),
                Some(Mark::Onto(server, id)) => self.onto_heard(server, id),
                None => {}
            };
        }
        let audience = listener.audience(notification.channel);
        let message = notification.from(self.told_for(group, notification.pid));
        for id in audience {
            self.tell(id, &message);
        }
    }

    /// Tells a client at once, or as soon as that is possible.
    fn tell(&mut self, id: ClientId, message: &[u8]) {
        self.note_told(id);
        let Some(client) = self.clients.get(id) else { return };
        let counters = std::sync::Arc::clone(&self.pools[self.groups[client.group].primary].counters);
        let now = self.may_hear(client);
        let Some(client) = self.clients.get_mut(id) else { return };
        let handing = client.server().and_then(|server| self.servers.get_mut(server)?.handing.as_deref_mut());
        let told = match (handing, &mut client.listens) {
            // Behind all that its server has heard before the mark.
            (Some(Stage::Leaving(leaving)), _) if leaving.joined => leaving.hear(message),
            (_, Some(listens)) if now && !listens.is_waiting() => {
                client.send(message);
                counters.total_notifications.add(1);
                return;
            }
            (_, Some(listens)) => listens.push(message),
            (_, None) => return,
        };
        counters.total_notifications.add(u64::from(told));
        counters.total_notifications_queued.add(u64::from(told));
        counters.total_notifications_dropped.add(u64::from(!told));
    }

    /// Between transactions, with nothing owed, and reading what it is sent.
    fn may_hear(&self, client: &Client) -> bool {
        let rests = match client.state {
            State::Idle | State::Waiting { .. } => client.arriving.is_none(),
            State::Riding(_) | State::Closing { .. } => false,
            State::Attached(server) => self.servers.get(server).is_some_and(|this| {
                let busy = this.replies.busy() || this.replies.status() != b'I' || this.prior.is_some();
                !busy && this.asking.is_none() && this.handing.is_none() && !client.mid_batch
            }),
        };
        rests && client.conn.backlog() <= BACKLOG_BYTES
    }

    /// Tells a client what waits for it, if it may be told now.
    pub(super) fn hear(&mut self, id: ClientId) {
        let Some(client) = self.clients.get(id) else { return };
        if !client.listens.as_ref().is_some_and(|listens| listens.is_waiting()) || !self.may_hear(client) {
            return;
        }
        if let Some(client) = self.clients.get_mut(id)
            && let Some(listens) = &mut client.listens
        {
            let all = listens.take();
            if listens.channels.is_empty() {
                client.listens = None;
            }
            client.send(&all);
        }
    }

    /// What goes in front of the ReadyForQuery that ends a transaction; `None` for nothing. True if the
    /// ReadyForQuery itself must wait: what was notified before comes before it.
    pub(super) fn before_ready(&mut self, server: ServerId, owner: Option<ClientId>) -> Option<(Vec<u8>, bool)> {
        let this = self.servers.get_mut(server)?;
        let id = owner?;
        let client = self.clients.get_mut(id)?;
        let listens = client.listens.as_mut()?;
        if this.replies.status() != b'I' {
            return None;
        }
        // Nothing comes behind what it says: if something is owed yet, that is it.
        let busy = this.replies.busy();
        let speaks = this.speaker.as_mut().filter(|speaker| speaker.client == id && !busy);
        let fresh = speaks.is_some_and(|speaker| std::mem::take(&mut speaker.fresh));
        // Nor does PostgreSQL say that it is ready before it has told of all that was committed before.
        let listens_there = !listens.channels.is_empty() && this.onto.is_none();
        if (fresh || listens_there)
            && !busy
            && let Some(listener) = self.groups[client.group].listener.as_mut().filter(|listener| listener.up)
        {
            this.handing = Some(Box::new(Stage::Hearing));
            listener.wait(server);
            return Some((Vec::new(), true));
        }
        listens.is_waiting().then(|| (listens.take(), false))
    }

    /// A notification on a server that is lent: for its client, if that listens there itself.
    pub(super) fn heard_on_lease(&mut self, server: ServerId, owner: Option<ClientId>, bytes: &[u8]) -> Vec<u8> {
        let body = bytes.get(HEADER..).unwrap_or_default();
        let (Some(id), Some(notification)) = (owner, Notification::parse(body)) else { return Vec::new() };
        if self.clients.get(id).is_none_or(|client| self.keeps(client)) {
            return bytes.to_vec();
        }
        let (Some(this), Some(client)) = (self.servers.get_mut(server), self.clients.get_mut(id)) else {
            return Vec::new();
        };
        let group = client.group;
        let listener = self.groups[group].listener.as_ref();
        if listener.is_some_and(|listener| notification.channel == listener.marker.as_bytes()) {
            let Some(number) = number(notification.payload) else { return Vec::new() };
            match (this.handing.as_deref_mut(), this.onto.as_deref_mut()) {
                (Some(Stage::Leaving(leaving)), _) => leaving.left |= leaving.mark == number,
                (_, Some(onto)) if !onto.here && onto.marks.contains(&number) => {
                    // What came before has come from the listener too.
                    onto.here = true;
                    onto.held.clear();
                    self.onto_settled(server, id);
                }
                _ => {}
            }
            return Vec::new();
        }
        if matches!(this.handing.as_deref(), Some(Stage::Leaving(leaving)) if leaving.left) {
            return Vec::new();
        }
        let own = notification.pid == this.key.pid;
        let holds = this.onto.as_ref().is_some_and(|onto| !onto.is_settled());
        let told = this.onto.is_none()
            && client.listens.as_ref().is_some_and(|it| it.channels.iter().any(|name| **name == *notification.channel));
        if told {
            return Vec::new();
        }
        self.note_told(id);
        let pid = if own { self.told_pid(id) } else { self.told_late_for(group, notification.pid, id) };
        let message = notification.from(pid);
        let (Some(this), Some(client)) = (self.servers.get_mut(server), self.clients.get_mut(id)) else {
            return Vec::new();
        };
        match (&mut this.onto, &mut client.listens) {
            (Some(onto), _) if holds => {
                onto.hold(&message);
                Vec::new()
            }
            // Behind what waits.
            (_, Some(listens)) if listens.is_waiting() => {
                listens.push(&message);
                Vec::new()
            }
            _ => message,
        }
    }

    /// Tells those concerned that something may have passed unheard.
    pub(super) fn tell_missed(&mut self, group: GroupId) {
        let Some(this) = self.groups.get_mut(group) else { return };
        let missed = this.listener.as_mut().map(|listener| listener.take_missed()).unwrap_or_default();
        if missed.is_empty() {
            return;
        }
        let database = &this.database;
        let message = format!(
            "pgweir: notifications may have been missed: the connection that listens on database \"{database}\" \
             was interrupted and is open again"
        );
        let mut notice = Vec::new();
        PgError::notice(message).hint("Look for what they would have told of.").encode(&mut notice);
        for id in missed {
            if self.clients.get(id).is_some_and(|client| client.listens.is_some()) {
                self.tell(id, &notice);
            }
        }
    }
}
