//! A lane: a server on which the reads of several clients stand one behind the other.
//! Must never give a client anything but the answer to its own request, nor keep one waiting behind what does not end.
//!
//! A client alone with a server has it do nothing most of the time: a request goes in, an answer comes out, and PostgreSQL goes to
//! sleep and is woken again. Requests that only read, and each end in an implicit transaction of their own, can be written to one
//! connection together; PostgreSQL answers them one after the other, and one read brings several answers. Who rides
//! ([`super::board`]) keeps its request until the answer has come, so that it can be sent to another server at any time; what then
//! still comes of the first is dropped ([`super::alight`]). Any error is a reason for that: what fails is run again on a server of
//! its client's own, where everything is as it would be without lanes, and the client hears of that one.
//!
//! A lane is a lease that others may join, no more: the server comes from its pool with the first rider and goes back with the last,
//! so that who needs a server to himself finds as many as before.

use std::collections::VecDeque;
use std::rc::Rc;

use super::statements::Statement;
use super::{ClientId, PoolId, Relay, ServerId};
use crate::wire::error::SqlState;

/// Most requests on the wire of one lane, whatever they are expected to take: their answers must fit into the server's socket
/// while it is not read.
pub(super) const DEPTH: usize = 64;

/// How long a server is a lane at most, microseconds.
const LASTS_US: u64 = 1_000_000;

/// What a request needs on its way, found out once.
#[derive(Debug)]
pub(super) struct Fare {
    /// Its shape.
    pub shape: u64,
    /// The statement that it prepares or binds.
    pub statement: Option<Rc<Statement>>,
    /// Bytes of it at the front of its client's inbox.
    pub bytes: usize,
    /// What it is expected to take, microseconds.
    pub usual_us: u32,
    /// Of what was known of the code of the database then.
    pub epoch: u32,
}

/// What has become of a request so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// Nothing of its answer has left.
    Rides,
    /// Some of its answer has left, so that it cannot be run again.
    Told,
    /// It has failed, and will be run again.
    Fails,
}

/// A request in a lane.
#[derive(Debug)]
pub(super) struct Rider {
    /// Whose; nobody's if it was sent elsewhere, or not wanted any more.
    pub client: ClientId,
    /// What it is.
    pub fare: Fare,
    /// When it came to the lane, microseconds.
    pub came_us: u64,
    /// How it goes.
    pub fate: Fate,
    /// Its client has asked to cancel it, or it has run too long: its error is the client's.
    pub cancelled: bool,
    /// It has taken longer than it should.
    pub late: bool,
    /// It has failed so, whoever is told.
    pub failed: Option<SqlState>,
    /// So many bytes of its answer have left.
    pub told: usize,
    /// Rows of its answer.
    pub rows: u64,
}

/// The riders of a server.
#[derive(Debug, Default)]
pub(super) struct Lane {
    /// Those on the wire, oldest first, and those about to be there.
    pub riders: VecDeque<Rider>,
    /// Those who come next.
    pub queue: VecDeque<Rider>,
    /// What all of them are expected to take, microseconds.
    pub load_us: u64,
    /// What those on the wire are expected to take, or about to be there.
    pub wire_us: u64,
    /// Nobody comes any more.
    pub closed: bool,
    /// Its head stalls.
    pub stalled: bool,
    /// A request to cancel its head was sent, which may hit whoever comes behind.
    pub struck: bool,
    /// Since when the server is one, microseconds.
    pub since_us: u64,
    /// Requests to be written, those of the newest riders on the wire.
    pub out: Vec<u8>,
    /// How many those are.
    pub unwritten: usize,
    /// What has come of the head's answer.
    pub held: Vec<u8>,
}

impl Lane {
    /// Whether another may go onto the wire: who is there delays it by less than the limit.
    pub fn has_room(&self, delay_us: u64) -> bool {
        !self.closed && self.queue.is_empty() && self.takes(delay_us)
    }

    /// The same for the first of the queue.
    pub fn takes(&self, delay_us: u64) -> bool {
        self.riders.is_empty() || (self.wire_us <= delay_us && self.riders.len() < DEPTH)
    }

    /// One more on the wire, or about to be.
    pub fn push(&mut self, rider: Rider) {
        self.wire_us += u64::from(rider.fare.usual_us);
        self.unwritten += 1;
        self.riders.push_back(rider);
    }

    /// The head is done with.
    pub fn pop(&mut self) -> Option<Rider> {
        let rider = self.riders.pop_front()?;
        let usual_us = u64::from(rider.fare.usual_us);
        self.wire_us -= usual_us;
        self.load_us -= usual_us;
        Some(rider)
    }

    /// Nobody is there, and nobody comes.
    pub fn is_empty(&self) -> bool {
        self.riders.is_empty() && self.queue.is_empty()
    }

    /// The client that is being sent an answer which has not come in whole: more is read only if it reads on.
    pub fn told(&self) -> Option<ClientId> {
        self.riders.front().filter(|rider| rider.fate == Fate::Told).map(|rider| rider.client)
    }

    /// This client's request.
    pub fn find(&mut self, id: ClientId) -> Option<&mut Rider> {
        self.riders.iter_mut().chain(&mut self.queue).find(|rider| rider.client == id)
    }

    /// Empty again; the buffers stay.
    pub fn reset(&mut self) {
        self.riders.clear();
        self.queue.clear();
        self.out.clear();
        self.held.clear();
        (self.load_us, self.wire_us, self.unwritten) = (0, 0, 0);
        (self.closed, self.stalled, self.struck) = (false, false, false);
    }
}

impl Relay {
    /// How long what stands before a read in a lane may be expected to take, microseconds.
    pub(super) fn lane_delay_us(&self) -> u64 {
        self.config.pool.lanes.delay.as_micros() as u64
    }

    /// What counts as fast, microseconds.
    pub(super) fn lane_fast_us(&self) -> u64 {
        self.config.pool.lanes.fast.as_micros() as u64
    }

    /// Nobody comes to this lane any more: who has not been sent yet goes elsewhere, and the server back once all others are
    /// answered.
    pub(super) fn close_lane(&mut self, server: ServerId) {
        let Some(this) = self.servers.get_mut(server) else { return };
        let Some(lane) = this.lane.as_deref_mut() else { return };
        lane.closed = true;
        let queue = std::mem::take(&mut lane.queue);
        lane.load_us = lane.wire_us;
        let pool = this.pool;
        self.pools[pool].lanes.retain(|lane| *lane != server);
        for rider in queue {
            self.goes_elsewhere_from(rider.client, server, false);
        }
    }

    /// Somebody needs a server for himself and there is none: lanes make room, but for one as long as others have servers, too.
    pub(super) fn yield_lanes(&mut self, pool: PoolId) {
        let this = &self.pools[pool];
        if this.lanes.len() > 1 || this.slice.open() <= this.lanes.len() {
            this.lanes.last().copied().into_iter().for_each(|server| self.close_lane(server));
        }
    }

    /// Lets servers come back to their pools now and then however many ride: what is due for a server is seen to there, and
    /// somebody may need it more.
    pub(super) fn renew_lanes(&mut self) {
        for server in self.lanes.open.clone() {
            let Some(this) = self.servers.get(server) else { continue };
            let Some(lane) = this.lane.as_deref().filter(|lane| !lane.closed) else { continue };
            let wanted = self.pools[this.pool].stakes.iter().any(|stake| stake.is_pressed() || stake.is_wanted());
            if wanted || lane.since_us + LASTS_US <= self.now_us {
                self.close_lane(server);
            }
        }
    }

    /// A server has answered everybody: it goes back to its pool.
    pub(super) fn end_lane(&mut self, server: ServerId) {
        let Some(this) = self.servers.get_mut(server) else { return };
        let pool = this.pool;
        this.lane.as_deref_mut().into_iter().for_each(Lane::reset);
        self.pools[pool].lanes.retain(|lane| *lane != server);
        self.lanes.ended(server);
        if !self.read_code(server) {
            self.give_back(server);
        }
    }
}
