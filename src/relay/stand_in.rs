//! What the cache has instead of an error, for clients whose batch no server answers.
//! Must never keep from a client what its own cancel request has led to, nor what is wrong with its statement.
//!
//! Only of a batch that was asked anew although the cache had an answer that may be given: its time is over for no longer than `stale_if_error`, or was not when
//! it was asked anew ([`super::given`]). An error is that a server cannot be reached or is lost, that none becomes free in time, or that
//! it says of itself that it cannot (`08`, `53`, `57P`, `58`, `XX`). The batch goes back to where it came from, and the client asks the cache
//! again, which looks once more whether the answer counts: for this client, and at all.

use super::client::State;
use super::given::micros;
use super::{ClientId, GroupId, PoolId, Relay};
use crate::cache::Store;
use crate::flow::requests::End;
use crate::wire::error::PgError;

/// What a key begins with counts at this time.
fn is_current(store: &Store, key: &[u8]) -> bool {
    key.starts_with(&store.epoch().to_be_bytes())
}

impl Relay {
    /// Whether the client may be given an answer that is kept if its batch fails.
    pub(super) fn has_stand_in(&mut self, id: ClientId) -> bool {
        let (Some(client), Some(store)) = (self.clients.get(id), &self.cache) else { return false };
        let Some(fill) = client.cache.as_ref().and_then(|cache| cache.fill.as_ref()).filter(|fill| fill.renews) else {
            return false;
        };
        let (group, ttl_us) = (client.group, fill.ttl_us);
        if self.groups[group].terms.cache_fenced {
            return false;
        }
        let key = fill.key.clone();
        let Some(entry) = store.get(key.as_ref()).filter(|_| is_current(store, &key)) else { return false };
        let more_us = micros(self.groups[group].terms.stale.if_error);
        let is_within = entry.is_within(self.now_us, ttl_us, more_us);
        is_within && self.holds(group, &key, &entry).is_ok() && self.shows_own(id, &entry)
    }

    /// A client that waits in a queue is given what stands in for an answer, if there is something.
    pub(super) fn is_spared_waiting(&mut self, id: ClientId) -> bool {
        let Some(State::Waiting { pool, .. }) = self.clients.get(id).map(|client| client.state) else { return false };
        if !self.has_stand_in(id) {
            return false;
        }
        self.pools[pool].slice.leave(&id);
        if let Some(client) = self.clients.get_mut(id) {
            client.state = State::Idle;
            client.caching().spared = true;
        }
        self.pump_inbox(id);
        true
    }

    /// The pool has no server, and could not open one: who need not wait for that does not.
    pub(super) fn spare_waiters(&mut self, pool: PoolId) {
        if self.pools[pool].slice.open() > 0 || self.cache.is_none() {
            return;
        }
        for id in self.pools[pool].slice.waiters().copied().collect::<Vec<_>>() {
            self.is_spared_waiting(id);
        }
    }

    /// The batch at the front of an idle client's bytes cannot run: it is given what stands in for an answer, or told.
    pub(super) fn spare_or_fail(
        &mut self,
        id: ClientId,
        data: &[u8],
        whole: Option<(usize, End)>,
        error: &PgError,
    ) -> Option<usize> {
        if let Some((len, end)) = whole
            && self.has_stand_in(id)
        {
            self.clients.get_mut(id).into_iter().for_each(|client| client.caching().spared = true);
            if let Some(done) = self.consult(id, data, len, end) {
                return done;
            }
        }
        self.fail_batch(id, data, error)
    }

    /// No pool of the group has a server, and the last that was tried could not be opened.
    pub(super) fn is_down(&self, group: GroupId) -> bool {
        self.groups[group].numbered().all(|(_, pool)| {
            let this = &self.pools[pool];
            let is_tried_again = this.failure.is_some() && this.slice.opening() > 0;
            this.slice.open() == 0 && (is_tried_again || this.is_backing_off(self.now_us))
        })
    }
}
