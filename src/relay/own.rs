//! Replication connections: each has a server of its own, opened for it and closed with it.
//! Must never put such a server into a pool, nor lend it to anybody else.
//!
//! What a walsender speaks is the same protocol: simple queries, rows, and COPY in both directions
//! at once (CopyBoth), so the relay passes it on as it passes everything else.

use std::rc::Rc;

use super::client::State;
use super::group::ParamSet;
use super::server::Use;
use super::{ClientId, GroupId, PoolId, Relay, Server, ServerId, Todo};
use crate::flow::params::Settings;
use crate::pool::budget::Stake;
use crate::server::open::{Dial, OpenError, Opened};
use crate::wire::error::{PgError, SqlState};

impl Relay {
    /// How the server of a replication client is opened: with the client's own start settings.
    pub(super) fn own_dial(&self, group: GroupId, replication: Vec<u8>, settings: &Settings) -> Rc<Dial> {
        let mut startup = settings.clone();
        startup.push((b"replication".to_vec(), replication));
        Rc::new(self.pools[self.groups[group].primary].dial.with_startup(startup))
    }

    /// Has a server opened for this client alone, if limits allow one more.
    pub(super) fn ask_own(&mut self, id: ClientId, dial: Rc<Dial>) {
        let Some(client) = self.clients.get_mut(id) else { return };
        let group = client.group;
        let pool = self.groups[group].primary;
        client.state = State::Waiting { pool, since_us: self.now_us, notified: false };
        // The connections of a pool are shared; these are not, and count only where all are counted.
        if super::grow::take(self.shared_stakes(pool), false, true) {
            self.groups[group].asks += 1;
            self.todo.push(Todo::OpenOwn(id, group, dial));
        } else {
            let message = "pgweir: no server connection is free for replication";
            let error = PgError::fatal(SqlState::TOO_MANY_CONNECTIONS, message);
            self.fatal(id, &error.hint("The limit is max_db_connections or max_user_connections."));
        }
    }

    /// The server asked for is open. Its task must then be started, if there is one.
    pub fn opened_own(&mut self, id: ClientId, opened: Opened) -> Option<ServerId> {
        self.now_us = crate::base::clock::now_us();
        let client = self.clients.get_mut(id).filter(|client| matches!(client.state, State::Waiting { .. }))?;
        let group = &mut self.groups[client.group];
        group.asks = group.asks.saturating_sub(1);
        let pool = group.primary;
        self.pools[pool].counters.total_server_opens.add(1);
        let params = Rc::new(ParamSet::of_own(opened.parameters.clone()));
        client.params = Rc::clone(&params);
        let mut server = Server::new(pool, opened, params, self.now_us);
        server.own = true;
        server.use_ = Use::Lent(id);
        let server = self.servers.insert(server);
        client.state = State::Attached(server);
        self.welcome(id);
        self.pump_inbox(id);
        Some(server)
    }

    /// The server asked for could not be opened.
    pub fn own_failed(&mut self, id: ClientId, dial: &Dial, error: &OpenError) {
        self.now_us = crate::base::clock::now_us();
        tracing::warn!(server = %dial.endpoint, user = %dial.user, "could not open a replication connection: {error}");
        self.fatal(id, &error.to_client(dial));
    }

    /// Gives back what was taken for a server that was not opened.
    pub fn own_given_up(&mut self, group: GroupId) {
        self.groups[group].asks = self.groups[group].asks.saturating_sub(1);
        self.shared_stakes(self.groups[group].primary).for_each(Stake::give);
    }

    /// The limits of a pool under which connections outside it count too.
    pub(super) fn shared_stakes(&self, pool: PoolId) -> impl Iterator<Item = &Stake> + Clone {
        self.pools[pool].stakes.iter().filter(|stake| stake.spans_pools())
    }
}
