//! Who could ride in a lane, but came when there was none, or while its shape was out for having stalled one.
//! Must never keep a server from who waits at the front because every other one is kept.
//!
//! Such a read stands in the queue of its pool, perhaps behind statements that take long, for each of which a server must come
//! free. One lane can serve all such reads meanwhile: so the next server that comes free becomes one, out of turn, and whoever
//! stands in the queue for nothing else gets in.
//!
//! A shape that is back in the lanes brings those along who have waited meanwhile: with thousands of clients the queue is long, and who came
//! later would be served many times before them.

use super::client::State;
use super::{ClientId, PoolId, Relay, ServerId};
use crate::flow::requests::Batch;

/// Of so many it is looked at whether they may ride.
const LOOK: usize = 64;

impl Relay {
    /// The client's batch finds no lane in this pool, and will stand in its queue; until then, microseconds, it may not ride.
    pub(super) fn hopes(&mut self, id: ClientId, pool: PoolId, until_us: u64) {
        let this = &mut self.pools[pool];
        // Some have been served, or have gone, and are still here.
        if this.hopefuls.len() > 2 * this.slice.waiting() + 64 {
            let clients = &self.clients;
            this.hopefuls.retain(|&(id, _)| clients.get(id).is_some_and(|client| client.waits_in(pool)));
        }
        this.hopefuls.push_back((id, until_us));
    }

    /// A server comes free in this pool: whether it is a lane now, for those who hope for one.
    pub(super) fn begins_for_hopefuls(&mut self, pool: PoolId, server: ServerId) -> bool {
        let this = &mut self.pools[pool];
        if this.hopefuls.is_empty() || !this.lanes.is_empty() || std::mem::take(&mut this.owed) || !self.has_lanes(pool)
        {
            return false;
        }
        while let Some(id) = self.next_hopeful(pool) {
            if self.boards_from_queue(id, pool, |this| this.begins_lane(id, pool, server)) {
                self.take_aboard(pool);
                return true;
            }
        }
        false
    }

    /// There is a lane: who hoped for one gets in. Who cannot waits on for a server.
    pub(super) fn take_aboard(&mut self, pool: PoolId) {
        while let Some(id) = self.next_hopeful(pool) {
            self.boards_from_queue(id, pool, |this| this.lane_for(id, pool).ok());
        }
    }

    /// Somebody comes to the lanes of the pool: those who wait because of a stall that is over go first.
    pub(super) fn readmits(&mut self, pool: PoolId) {
        while self.pools[pool].hopefuls.front().is_some_and(|&(_, until_us)| until_us > 0)
            && !self.pools[pool].lanes.is_empty()
            && let Some(id) = self.next_hopeful(pool)
        {
            self.boards_from_queue(id, pool, |this| this.lane_for(id, pool).ok());
        }
    }

    /// The oldest of those that may ride by now.
    fn next_hopeful(&mut self, pool: PoolId) -> Option<ClientId> {
        let (now_us, clients) = (self.now_us, &self.clients);
        let hopefuls = &mut self.pools[pool].hopefuls;
        let waits = |id: ClientId| clients.get(id).is_some_and(|client| client.waits_in(pool));
        while hopefuls.pop_front_if(|(id, _)| !waits(*id)).is_some() {}
        let at = hopefuls.iter().take(LOOK).position(|(_, until_us)| *until_us <= now_us)?;
        hopefuls.remove(at).map(|(id, _)| id)
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
        // It may wait for something else: for the answer that another is being given, or for its turn under a rate.
        if self.pools[pool].slice.waiters().all(|waiter| *waiter != id) {
            return false;
        }
        let boards = self.boards_at_front(id, lane).is_some();
        if boards {
            self.pools[pool].slice.leave(&id);
        }
        boards
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
    /// It waits, perhaps in the queue of this pool.
    fn waits_in(&self, pool: PoolId) -> bool {
        matches!(self.state, State::Waiting { pool: its, .. } if its == pool)
    }
}
