//! A client's turn: its socket has something to say or room to hear.
//! Must never take so many bytes in one turn that others starve.

use std::io;
use std::task::{Context, Poll};

use super::client::State;
use super::release::Farewell;
use super::{BACKLOG_BYTES, ClientId, LOOK_BYTES, OWED, READS_PER_TURN, Relay};
use crate::base::clock;
use crate::wire::error::{PgError, SqlState};

impl Relay {
    /// Ready when the client is gone and its task should end.
    pub fn client_turn(&mut self, id: ClientId, cx: &mut Context<'_>) -> Poll<()> {
        let Some(client) = self.clients.get_mut(id) else { return Poll::Ready(()) };
        if client.waker.as_ref().is_none_or(|waker| !waker.will_wake(cx.waker())) {
            client.waker = Some(cx.waker().clone());
        }
        if client.conn.backlog() > 0 && !self.drain_client(id, cx) {
            return Poll::Ready(());
        }
        let Some(client) = self.clients.get(id) else { return Poll::Ready(()) };
        match client.state {
            State::Closing { .. } if client.conn.backlog() == 0 => {
                self.clients.remove(id);
                self.backlogs.forget(id);
                return Poll::Ready(());
            }
            State::Closing { .. } => return Poll::Pending,
            _ if !client.inbox.is_empty() => {
                self.now_us = clock::now_us();
                self.pump_inbox(id);
            }
            _ => {}
        }
        self.read_client(id, cx)
    }

    fn read_client(&mut self, id: ClientId, cx: &mut Context<'_>) -> Poll<()> {
        for _ in 0..READS_PER_TURN {
            if self.leave_if_draining(id) {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            let Some(client) = self.clients.get(id) else { return Poll::Ready(()) };
            if matches!(client.state, State::Closing { .. }) {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            if !self.has_room(id) {
                return Poll::Pending;
            }
            let mut rx = std::mem::take(&mut self.rx);
            let read = match self.clients.get_mut(id) {
                Some(client) => client.conn.poll_read(cx, &mut rx),
                None => Poll::Pending,
            };
            let outcome = match read {
                Poll::Ready(Ok(0)) => Some(Err(io::ErrorKind::UnexpectedEof.into())),
                Poll::Ready(Ok(n)) => {
                    self.now_us = clock::now_us();
                    self.received(id, rx.get(..n).unwrap_or_default());
                    Some(Ok(n))
                }
                Poll::Ready(Err(error)) => Some(Err(error)),
                Poll::Pending => None,
            };
            self.rx = rx;
            match outcome {
                None => return Poll::Pending,
                Some(Ok(_)) => {}
                Some(Err(error)) => {
                    tracing::debug!("client connection ended: {error}");
                    self.now_us = clock::now_us();
                    self.hang_up(id, Farewell::Lost);
                    return Poll::Ready(());
                }
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Acts on bytes just read. Almost always nothing is left of them and nothing is copied.
    fn received(&mut self, id: ClientId, bytes: &[u8]) {
        let Some(client) = self.clients.get_mut(id) else { return };
        client.active_us = self.now_us;
        if client.inbox.is_empty() {
            let used = self.pump(id, bytes);
            if let Some(rest) = bytes.get(used..)
                && !rest.is_empty()
                && let Some(client) = self.clients.get_mut(id)
            {
                if client.inbox.capacity() == 0 {
                    client.inbox = self.spare.pop().unwrap_or_default();
                }
                client.inbox.extend_from_slice(rest);
            }
        } else {
            client.inbox.extend_from_slice(bytes);
            self.pump_inbox(id);
        }
    }

    /// Whether more may be read from the client: what was read must have somewhere to go.
    fn has_room(&mut self, id: ClientId) -> bool {
        let Some(client) = self.clients.get(id) else { return false };
        if let State::Attached(server) = client.state
            && let Some(server) = self.servers.get_mut(server)
            && server.replies.owed() > OWED
        {
            server.crowded = true;
            return false;
        }
        let held = match client.state {
            State::Attached(server) => self.servers.get(server).map_or(0, |server| server.conn.backlog()),
            State::Idle | State::Waiting { .. } | State::Riding(_) | State::Closing { .. } => 0,
        };
        client.inbox.len() <= LOOK_BYTES && held <= BACKLOG_BYTES
    }

    /// Writes what waits for the client; wakes its server if that waited too. False if the
    /// connection is gone.
    fn drain_client(&mut self, id: ClientId, cx: &mut Context<'_>) -> bool {
        let Some(client) = self.clients.get_mut(id) else { return false };
        let drained = client.conn.poll_drain(cx);
        if let Poll::Ready(Err(error)) = drained {
            tracing::debug!("client connection broke: {error}");
            self.now_us = clock::now_us();
            self.hang_up(id, Farewell::Lost);
            return false;
        }
        if client.conn.backlog() <= BACKLOG_BYTES / 2
            && let State::Attached(server) | State::Riding(server) = client.state
            && let Some(server) = self.servers.get_mut(server)
            && std::mem::take(&mut server.stalled)
        {
            server.wake();
        }
        if drained.is_ready() {
            self.note_drained(id);
        }
        self.hear(id);
        true
    }

    /// While shutting down a client goes as soon as it is between transactions.
    fn leave_if_draining(&mut self, id: ClientId) -> bool {
        if !self.draining || !self.clients.get(id).is_some_and(|client| self.is_at_rest(client)) {
            return false;
        }
        let message = "terminating connection due to administrator command";
        self.fatal(id, &PgError::fatal(SqlState::ADMIN_SHUTDOWN, message).detail("pgweir is shutting down"));
        true
    }
}
