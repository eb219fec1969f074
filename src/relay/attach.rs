//! Puts a client and a server together, settings first.
//! Must never let a statement run under settings that are not its client's.

use std::rc::Rc;

use super::client::{SentBack, State};
use super::forward::Outgoing;
use super::reported::apart;
use super::server::Use;
use super::{ClientId, Relay, ServerId};
use crate::config::SessionState;
use crate::flow::expect::{Expect, Kind, Origin};
use crate::flow::params::{guarded, transition};
use crate::wire::build;
use crate::wire::error::{PgError, ServerError};

/// No prepared statement is concerned.
pub(super) const NO_STATEMENT: u32 = u32::MAX;
/// The unnamed statement is concerned.
pub(super) const UNNAMED: u32 = u32::MAX - 1;
/// A statement under the client's own name is concerned.
pub(super) const OWN: u32 = u32::MAX - 2;
/// All named statements are concerned; the entry's name is how many the client had.
pub(super) const ALL: u32 = u32::MAX - 3;

impl Relay {
    /// Lends `server` to the client. False while the client's settings are being tried on the
    /// server, or its transaction is being opened there: its bytes must wait until [`Relay::settled`].
    pub(super) fn attach(&mut self, id: ClientId, server: ServerId) -> bool {
        let now_us = self.now_us;
        self.fill_begins(id, server);
        let (Some(client), Some(this)) = (self.clients.get_mut(id), self.servers.get_mut(server)) else {
            return false;
        };
        let role = self.pools[this.pool].role;
        (this.opening, this.cancel_next) = (false, false);
        // Elsewhere the role of this name may be another one by now.
        let acts = client.params.acts && client.last.of(role) != server;
        client.last.note(role, server);
        let counters = &self.pools[this.pool].counters;
        if let State::Waiting { since_us, .. } = client.state {
            client.waited_us = now_us.saturating_sub(since_us);
            counters.total_wait_time_us.add(client.waited_us);
        } else {
            client.waited_us = 0;
        }
        counters.total_server_assignment_count.add(1);
        client.state = State::Attached(server);
        (client.paid, client.current, client.sent_back) = (false, false, SentBack::Nowhere);
        client.active_us = now_us;
        this.use_ = Use::Lent(id);
        this.again.lent();
        let same = Rc::ptr_eq(&client.params, &this.params) && this.smudged.is_none_or(|by| by == id) && !acts;
        let unopened = client.unopened.is_there();
        if same {
            self.groups[client.group].accepted(&client.params, &this.status);
            if !unopened {
                return true;
            }
        }
        let opens = unopened && self.must_open(id, server);
        let mut ahead = std::mem::take(&mut self.tx);
        let proven = same || self.change_settings(id, server, &mut ahead);
        if proven && opens {
            self.open_transaction(id, server, &mut ahead);
        }
        self.tx = ahead;
        let follows = proven && !opens;
        if !follows && let Some(this) = self.servers.get_mut(server) {
            let sent = this.send(&self.tx);
            self.tx.clear();
            if !sent {
                this.wake();
            }
        }
        follows
    }

    /// Puts into `out` what gives the server its client's settings. True if a request may follow at once: a server
    /// has accepted these settings before, and should this one refuse them it refuses what follows as well. False:
    /// they must be tried first.
    pub(super) fn change_settings(&mut self, id: ClientId, server: ServerId, out: &mut Vec<u8>) -> bool {
        let (Some(client), Some(this)) = (self.clients.get(id), self.servers.get_mut(server)) else { return true };
        let smudged = this.smudged.is_some_and(|by| by != id);
        let (from, to) = (&this.params.settings, &client.params.settings);
        let sql = match self.groups[client.group].terms.session_state {
            SessionState::PgBouncer => apart(from, to),
            SessionState::Transparent | SessionState::Strict => transition(from, to, smudged),
        };
        let before = std::mem::replace(&mut this.params, Rc::clone(&client.params));
        if sql.is_empty() {
            self.groups[client.group].accepted(&client.params, &this.status);
            return true;
        }
        // Who has yet to come in has no request that they could be ahead of.
        let proven = client.params.reported.borrow().is_some() && client.arriving.is_none();
        if proven {
            build::query(out, guarded(&sql).as_bytes());
            this.settling = true;
        } else {
            build::query(out, sql.as_bytes());
            this.prior = Some(before);
        }
        this.unnamed = super::server::UnnamedOn::Nobody;
        this.replies.expect(Expect {
            kind: Kind::Query,
            origin: Origin::Injected,
            owner: id.index(),
            statement: NO_STATEMENT,
            cookie: 0,
            sent_us: self.now_us,
            name: 0,
            note: 0,
        });
        proven
    }

    /// The client has other settings than its server: they are put in front of the message at `at`, which begins
    /// a transaction. True if that may follow at once.
    pub(super) fn settings_first(&mut self, id: ClientId, server: ServerId, at: usize, out: &mut Outgoing<'_>) -> bool {
        let (Some(client), Some(this)) = (self.clients.get(id), self.servers.get(server)) else { return true };
        if this.discarding && this.replies.busy() && !client.start.settings.is_empty() {
            return false;
        }
        if Rc::ptr_eq(&client.params, &this.params) || client.own {
            return true;
        }
        if this.replies.busy() || this.replies.status() != b'I' {
            return true;
        }
        out.edit(at, 0);
        self.change_settings(id, server, &mut out.tx)
    }

    /// The server has changed its settings.
    pub(super) fn settings_changed(&mut self, server: ServerId) {
        let Some(this) = self.servers.get_mut(server) else { return };
        if this.settling || this.prior.is_some() {
            this.smudged = this.smudged.filter(|by| this.use_ == Use::Lent(*by));
        }
        this.settling = false;
    }

    /// The settings of a lease came through: the client's own bytes may follow.
    pub(super) fn settled(&mut self, server: ServerId) {
        let Some(this) = self.servers.get_mut(server) else { return };
        let Some(id) = this.owner() else { return };
        this.prior = None;
        self.groups[self.pools[this.pool].group].accepted(&this.params, &this.status);
        let Some(client) = self.clients.get(id) else { return };
        if client.arriving.is_some() {
            self.come_in(id, server);
        } else if self.must_open(id, server) {
            let mut out = Vec::new();
            self.open_transaction(id, server, &mut out);
            self.servers
                .get_mut(server)
                .into_iter()
                .filter_map(|this| (!this.send(&out)).then_some(this))
                .for_each(|this| this.wake());
        } else {
            self.pump_inbox(id);
        }
    }

    /// The server refused the settings, all of them as one transaction: what was in force before
    /// still is. The client hears the server's own words. Settings that a server had accepted
    /// before were sent ahead of a request, which may have run without them: then both go.
    pub(super) fn not_settled(&mut self, server: ServerId, error: &ServerError) {
        let Some(this) = self.servers.get_mut(server) else { return };
        // What a client left behind could not be cleared away.
        let Some(id) = this.owner() else {
            // Its message may hold a setting's value.
            let (server_name, sqlstate) =
                (&self.pools[this.pool].dial.endpoint, String::from_utf8_lossy(&error.code.0));
            tracing::warn!(server = %server_name, %sqlstate, "a server could not be reset and is closed");
            return self.discard(server);
        };
        if self.goes_elsewhere(server) {
            return;
        }
        let Some(this) = self.servers.get_mut(server) else { return };
        let told = PgError::fatal(error.code, error.message.clone());
        match this.prior.take() {
            Some(prior) if !this.replies.busy() => this.params = prior,
            _ => {
                self.discard(server);
                if let Some(client) = self.clients.get_mut(id) {
                    client.state = State::Idle;
                }
            }
        }
        self.fatal(id, &told);
    }
}
