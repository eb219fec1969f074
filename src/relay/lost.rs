//! Servers that end while a client has them.
//! Must never end a client's session without a word, nor with two.

use super::server::Use;
use super::{Client, Relay, ServerId};
use crate::wire::error::{PgError, SqlState};

impl Relay {
    /// An end that the server announces unasked is the affair of a client that is in a transaction there or keeps
    /// the server, but not of one that has not been welcomed yet.
    pub(super) fn hears_farewell(&self, server: ServerId) -> bool {
        let owner = self.servers.get(server).and_then(super::Server::owner).and_then(|id| self.clients.get(id));
        owner.is_some_and(|client| client.arriving.is_none()) && self.stays(server)
    }

    /// The server has announced its end unasked. Whether its client is not to be told: then, should it come to use the
    /// connection all the same, it will be told that this is gone.
    pub(super) fn is_untold(&mut self, server: ServerId) -> bool {
        let untold = !self.hears_farewell(server);
        if untold && let Some(this) = self.servers.get_mut(server) {
            this.replies.was_not_told();
        }
        untold
    }

    /// The connection is gone, or no longer makes sense. Its client, if it has one, is told.
    pub(super) fn lose(&mut self, server: ServerId, why: &str) {
        self.host_loses(server);
        if self.servers.get(server).is_some_and(|this| this.use_ == Use::Shared) {
            return self.lose_lane(server, why);
        }
        if self.goes_elsewhere(server) {
            return;
        }
        let Some(this) = self.servers.get(server) else { return };
        let (owner, silently) = (this.owner(), this.replies.must_end_silently());
        if let Some(id) = owner
            && self.tracer.is_some()
        {
            self.trace_lost(server, id);
        }
        let half = owner.and_then(|id| self.clients.get(id)).is_some_and(Client::is_mid_message);
        if let Some(this) = self.servers.get_mut(server) {
            this.cut_off |= half;
        }
        self.discard(server);
        if let Some(id) = owner {
            let error = PgError::fatal(SqlState::CONNECTION_FAILURE, why.to_owned());
            self.end(id, if silently { None } else { Some(&error) });
        }
    }
}
