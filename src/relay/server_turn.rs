//! A server's turn: its socket has something to say or room to hear.
//! Must never read on while its client's backlog is full.

use std::task::{Context, Poll};

use super::server::Use;
use super::{BACKLOG_BYTES, READS_PER_TURN, Relay, ServerId};
use crate::base::clock;

impl Relay {
    /// Ready when the connection is gone and its task should end.
    pub fn server_turn(&mut self, server: ServerId, cx: &mut Context<'_>) -> Poll<()> {
        let Some(this) = self.servers.get_mut(server) else { return Poll::Ready(()) };
        if this.waker.as_ref().is_none_or(|waker| !waker.will_wake(cx.waker())) {
            this.waker = Some(cx.waker().clone());
        }
        if this.conn.backlog() > 0 && !self.drain_server(server, cx) {
            return Poll::Ready(());
        }
        self.flush_lane(server);
        for _ in 0..READS_PER_TURN {
            if self.owner_is_full(server) {
                return Poll::Pending;
            }
            let Some(this) = self.servers.get_mut(server) else { return Poll::Ready(()) };
            let mut rx = std::mem::take(&mut self.rx);
            // The beginning of a message, read before, goes in front of what comes now.
            let held = this.inbox.len();
            if let Some(front) = rx.get_mut(..held) {
                front.copy_from_slice(&this.inbox);
            }
            let read = this.conn.poll_read(cx, rx.get_mut(held..).unwrap_or_default());
            let outcome = match read {
                Poll::Pending => None,
                Poll::Ready(Ok(0)) => Some(Err("closed by the server".to_owned())),
                Poll::Ready(Err(error)) => Some(Err(error.to_string())),
                Poll::Ready(Ok(n)) => {
                    this.inbox.clear();
                    self.now_us = clock::now_us();
                    self.took(server, rx.get(..held + n).unwrap_or_default());
                    Some(Ok(()))
                }
            };
            self.rx = rx;
            match outcome {
                None => return Poll::Pending,
                Some(Ok(())) => {}
                Some(Err(why)) => {
                    self.gone(server, &why);
                    return Poll::Ready(());
                }
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Handles bytes just read; keeps what is the beginning of a message.
    fn took(&mut self, server: ServerId, bytes: &[u8]) {
        let shared = self.servers.get(server).is_some_and(|this| this.use_ == Use::Shared);
        let used = if shared { self.deliver_to_riders(server, bytes) } else { self.deliver(server, bytes) };
        let rest = bytes.get(used..).unwrap_or_default();
        let Some(this) = self.servers.get_mut(server) else { return };
        if !rest.is_empty() {
            this.inbox.extend_from_slice(rest);
        } else if this.inbox.capacity() > 0 && this.inbox.is_empty() {
            this.inbox = Vec::new();
        }
        if matches!(this.use_, Use::Cleaning { .. }) {
            self.clean(server);
        } else if this.use_ == Use::Idle && (this.retire || !this.inbox.is_empty()) {
            // A server at rest has nothing to say but its end.
            self.discard(server);
        }
    }

    /// The connection ended.
    fn gone(&mut self, server: ServerId, why: &str) {
        self.now_us = clock::now_us();
        let Some(this) = self.servers.get(server) else { return };
        if this.use_ == Use::Idle {
            tracing::info!(server = %self.name_of(server), "a server connection at rest ended: {why}");
        } else {
            tracing::warn!(server = %self.name_of(server), "a server connection in use ended: {why}");
        }
        self.lose(server, &format!("pgweir: connection to server {} lost: {why}", self.name_of(server)));
    }

    fn owner_is_full(&mut self, server: ServerId) -> bool {
        let Some(this) = self.servers.get(server) else { return false };
        let told = || this.lane.as_deref()?.told();
        let reader = this.owner().or_else(told).and_then(|id| self.clients.get(id));
        let backlog = reader.map_or(0, |client| client.conn.backlog());
        let full = backlog > BACKLOG_BYTES;
        if let Some(this) = self.servers.get_mut(server) {
            this.stalled = full;
        }
        full
    }

    fn drain_server(&mut self, server: ServerId, cx: &mut Context<'_>) -> bool {
        let Some(this) = self.servers.get_mut(server) else { return false };
        if let Poll::Ready(Err(error)) = this.conn.poll_drain(cx) {
            self.gone(server, &error.to_string());
            return false;
        }
        if this.conn.backlog() <= BACKLOG_BYTES / 2
            && let Some(client) = this.owner().and_then(|id| self.clients.get(id))
        {
            client.wake();
        }
        true
    }
}
