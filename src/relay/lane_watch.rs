//! Looks after the lanes: who stalls one keeps nobody waiting.
//! Must never send anything elsewhere but reads of which nothing was told.

use std::rc::Rc;
use std::time::Duration;

use super::client::State;
use super::lane::Fate;
use super::sweep::{GRACE_US, not_cancelled, past, transaction_timeout};
use super::task::{Shared, guarded, run_todo};
use super::{ClientId, Relay, ServerId, Todo};
use crate::base::clock;

/// How often lanes are looked at. A head that is late must be so twice: what had come by the first time has been read by then.
const PERIOD: Duration = Duration::from_millis(1);
/// The same while nobody stands behind anybody, for whom it would matter.
const REST: Duration = Duration::from_millis(10);
/// Looks at which that was so, behind which it is taken to stay so.
const CALM: u32 = 20;
/// Looks without a lane behind which nobody looks until there is one.
const QUIET: u32 = 20;
/// How long a pool's queue may stand still before the last lane makes room, microseconds.
const STANDSTILL_US: u64 = 10_000;
/// Looks after the lanes of a worker as long as there are any.
pub(super) async fn run(relay: Shared) {
    let bell = Rc::clone(&relay.borrow().lanes.bell);
    let (mut quiet, mut calm) = (0, 0);
    while quiet < QUIET {
        if calm < CALM {
            tokio::time::sleep(PERIOD).await;
        } else {
            // Who is alone pays for each look: it is a wake-up of this thread between two of its requests.
            relay.borrow_mut().lanes.rests = true;
            if tokio::time::timeout(REST, bell.notified()).await.is_ok() {
                calm = 0;
            }
            relay.borrow_mut().lanes.rests = false;
        }
        match guarded(&relay, Relay::look_at_lanes).flatten() {
            Some(true) => (quiet, calm) = (0, 0),
            Some(false) => (quiet, calm) = (0, calm + 1),
            None => quiet += 1,
        }
        run_todo(&relay, None);
    }
    relay.borrow_mut().lanes.unwatched();
}

impl Relay {
    /// Takes out who stands behind a head that stalls. If there is any lane: whether somebody stands behind another, or waits for one.
    pub fn look_at_lanes(&mut self) -> Option<bool> {
        if self.lanes.open.is_empty() {
            return None;
        }
        self.now_us = clock::now_us();
        let fast_us = self.lane_fast_us();
        self.look_at_queues();
        self.look_at_counts();
        let is_stalled = |server: &&ServerId| {
            self.servers.get(**server).and_then(|this| this.lane.as_deref()).is_some_and(|lane| lane.stalled)
        };
        let alone = self.lanes.open.iter().filter(is_stalled).count() == 1;
        let (mut at, mut matters) = (0, false);
        while let Some(&server) = self.lanes.open.get(at) {
            at += 1;
            let Some(this) = self.servers.get_mut(server) else { continue };
            let pool = &self.pools[this.pool];
            let catalog = self.groups[pool.group].catalog;
            let Some(lane) = this.lane.as_deref_mut() else { continue };
            matters |= lane.riders.len() > 1 || !lane.queue.is_empty() || lane.stalled || pool.slice.waiting() > 0;
            let Some(head) = lane.riders.front_mut() else { continue };
            let works_us = self.now_us.saturating_sub(head.came_us.max(this.done_us));
            if lane.stalled {
                if let Some(learned) = self.shapes.learns(head.fare.shape, catalog) {
                    learned.stalls(works_us, fast_us, self.now_us, alone);
                    self.lanes.out_until_us = self.lanes.out_until_us.max(learned.out_until_us());
                }
                // Nobody wants to know any more, or was served elsewhere: one after the other, until the server is free.
                let patience_us = self.shapes.learned(head.fare.shape, catalog).patience_us(fast_us);
                if works_us > patience_us && head.client == ClientId::default() && this.cancels == 0 {
                    lane.struck = true;
                    this.cancels += 1;
                    self.todo.push(Todo::Cancel(server));
                }
                continue;
            }
            let patience_us = self.shapes.learned(head.fare.shape, catalog).patience_us(fast_us);
            if works_us > patience_us && std::mem::replace(&mut head.late, true) {
                self.stall(server);
            }
        }
        Some(matters)
    }

    /// Lets each pool have as many lanes as it should.
    fn look_at_counts(&mut self) {
        let most = self.config.pool.lanes.max;
        for at in (0..self.lanes.open.len()).rev() {
            let server = self.lanes.open.get(at).and_then(|&server| self.servers.get(server));
            let Some(this) = server.map(|this| &mut self.pools[this.pool]) else { continue };
            this.lane_count.goes_on(self.now_us, most);
            if this.lanes.len() > this.lane_count.allowed(most) as usize
                && let Some(server) = this.lanes.last().copied()
            {
                self.close_lane(server);
            }
        }
    }

    /// A pool whose other servers are all kept, by transactions that do nothing, say, has only lanes to serve who waits.
    fn look_at_queues(&mut self) {
        for at in (0..self.lanes.open.len()).rev() {
            let Some(pool) = self.lanes.open.get(at).and_then(|&server| self.servers.get(server)).map(|this| this.pool)
            else {
                continue;
            };
            let this = &mut self.pools[pool];
            let front = this.slice.waiters().next().copied().unwrap_or_default();
            let Some(State::Waiting { since_us, .. }) = self.clients.get(front).map(|client| client.state) else {
                continue;
            };
            if front != this.front.0 {
                this.front = (front, self.now_us);
            } else if self.now_us.saturating_sub(this.front.1.max(since_us)) >= STANDSTILL_US
                && let Some(server) = this.lanes.last().copied()
            {
                this.front.1 = self.now_us;
                this.owed = true;
                self.close_lane(server);
            }
        }
    }

    /// The head takes too long: everybody behind it is run elsewhere.
    fn stall(&mut self, server: ServerId) {
        let Some(this) = self.servers.get_mut(server) else { return };
        let pool = this.pool;
        let Some(lane) = this.lane.as_deref_mut() else { return };
        lane.stalled = true;
        let mut moved = Vec::new();
        for rider in lane.riders.iter_mut().skip(1).filter(|rider| rider.fate == Fate::Rides) {
            moved.push(std::mem::take(&mut rider.client));
        }
        let counters = &self.pools[pool].counters;
        counters.lanes.stalls.add(1);
        counters.lanes.resends.add(moved.len() as u64);
        self.close_lane(server);
        // What they stand before may be what the head stands before: each on its own.
        for id in moved {
            self.goes_elsewhere_from(id, server, true);
        }
    }

    /// Applies limits in time to the head of a lane.
    pub(super) fn sweep_lane(&mut self, server: ServerId) {
        let Some(this) = self.servers.get(server) else { return };
        let Some(head) = this.lane.as_deref().and_then(|lane| lane.riders.front()) else { return };
        let id = head.client;
        let works_us = self.now_us.saturating_sub(head.came_us.max(this.done_us));
        let transaction = self.groups[self.pools[this.pool].group].terms.transaction_timeout;
        let Some(limit) = self.query_timeout(this, id).into_iter().chain(transaction).min() else { return };
        if !past(Some(limit), works_us) {
            return;
        }
        let is_there = self.clients.get(id).is_some();
        if past(Some(limit), works_us.saturating_sub(GRACE_US)) {
            if is_there {
                self.fatal(id, &not_cancelled());
            }
            return self.lose(server, "pgweir: a statement could not be cancelled");
        }
        let pool = this.pool;
        if !is_there || !self.cancel_riding(id, server) {
            return;
        }
        self.pools[pool].counters.total_query_timeouts.add(1);
        if past(transaction, works_us) {
            return self.fatal(id, &transaction_timeout());
        }
        self.servers.get_mut(server).into_iter().for_each(|this| this.overdue = true);
        self.host_fails(pool);
    }
}
