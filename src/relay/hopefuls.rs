//! Who could ride in a lane, but came when there was none.
//! Must never keep a server from who waits at the front because every other one is kept.
//!
//! Such a read stands in the queue of its pool, perhaps behind statements that take long, for each of which a server must come
//! free. One lane can serve all such reads meanwhile: so the next server that comes free becomes one, out of turn, and whoever
//! stands in the queue for nothing else gets in.

use super::client::State;
use super::{ClientId, PoolId, Relay, ServerId};
use crate::flow::requests::Batch;

impl Relay {
    /// The client's batch finds no lane in this pool, and will stand in its queue.
    pub(super) fn hopes(&mut self, id: ClientId, pool: PoolId) {
        let this = &mut self.pools[pool];
        // Some have been served, or have gone, and are still here.
        if this.hopefuls.len() > 2 * this.slice.waiting() + 64 {
            let clients = &self.clients;
            this.hopefuls.retain(|&id| clients.get(id).is_some_and(|client| client.waits_in(pool)));
        }
        this.hopefuls.push_back(id);
    }

    /// A server comes free in this pool: whether it is a lane now, for those who hope for one.
    pub(super) fn begins_for_hopefuls(&mut self, pool: PoolId, server: ServerId) -> bool {
        let this = &mut self.pools[pool];
        if this.hopefuls.is_empty() || !this.lanes.is_empty() || std::mem::take(&mut this.owed) {
            return false;
        }
        while let Some(id) = self.pools[pool].hopefuls.pop_front() {
            if self.boards_from_queue(id, pool, |this| this.begins_lane(id, pool, server)) {
                self.take_aboard(pool);
                return true;
            }
        }
        false
    }

    /// There is a lane: who hoped for one gets in. Who cannot waits on for a server.
    pub(super) fn take_aboard(&mut self, pool: PoolId) {
        while let Some(id) = self.pools[pool].hopefuls.pop_front() {
            self.boards_from_queue(id, pool, |this| this.lane_for(id, pool).ok());
        }
    }

    /// A client that waits in the pool's queue leaves it for a lane, if it fits into one.
    fn boards_from_queue(
        &mut self,
        id: ClientId,
        pool: PoolId,
        lane: impl FnOnce(&mut Self) -> Option<ServerId>,
    ) -> bool {
        if self.clients.get(id).is_none_or(|client| !client.waits_in(pool) || client.arriving.is_some()) {
            return false;
        }
        self.boards_at_front(id, lane).is_some() && self.pools[pool].slice.leave(&id)
    }

    /// The batch at the front of the client's bytes gets into the lane that is chosen for it, if it may ride: which one.
    pub(super) fn boards_at_front(
        &mut self,
        id: ClientId,
        lane: impl FnOnce(&mut Self) -> Option<ServerId>,
    ) -> Option<ServerId> {
        let data = std::mem::take(&mut self.clients.get_mut(id)?.inbox);
        let fare = match self.front(&data) {
            Ok(Batch::Whole { len, end }) => self.fare(id, &data, len, end).ok(),
            _ => None,
        };
        let lane = fare.and_then(|fare| {
            let lane = lane(self)?;
            self.get_in(id, lane, &data, fare);
            Some(lane)
        });
        if let Some(client) = self.clients.get_mut(id) {
            client.inbox = data;
        }
        lane
    }
}

impl super::Client {
    /// It stands in the queue of this pool.
    fn waits_in(&self, pool: PoolId) -> bool {
        matches!(self.state, State::Waiting { pool: its, .. } if its == pool)
    }
}
