//! Answers of a lane on their way to the clients that ride in it, and riders who leave it before they have one.
//! Must never send a client a byte of what answers another, nor run again what was told in part.

use std::ops::Range;
use std::rc::Rc;

use tokio::sync::Notify;

use super::again::{is_of_replicas, missing};
use super::board::PIPELINES;
use super::client::{Losses, SentBack, State};
use super::lane::{Fate, Lane, Rider};
use super::learned::LARGE_BYTES;
use super::release::{SPARE_BYTES, SPARES};
use super::server::Use;
use super::{ClientId, Relay, ServerId};
use crate::flow::expect::{Expect, Origin};
use crate::flow::replies::{Event, Step};
use crate::meter::{Role, SlotId};
use crate::wire::error::{ServerError, SqlState};

/// An error that comes later is the client's, as far as it could have come on any server: to run a statement twice that is
/// ended by its own time limit would take twice as long, microseconds.
const LONG_US: u64 = 100_000;

/// A request whose answer has come.
#[derive(Debug)]
pub(super) struct Landed {
    pub rider: Rider,
    /// What of the answer had come before.
    pub held: Vec<u8>,
    /// Where the rest of it is in what was read now.
    pub rest: Range<usize>,
    /// Where it is counted, once it is.
    pub slot: Option<SlotId>,
}

/// The lanes of a worker.
#[derive(Debug, Default)]
pub(super) struct Lanes {
    /// All servers that are lanes, those too that take nobody any more.
    pub open: Vec<ServerId>,
    /// Until then some shape is out of them for having stalled one, microseconds.
    pub out_until_us: u64,
    /// A task looks after them.
    watched: bool,
    /// It looks seldom: nobody stands behind anybody.
    pub rests: bool,
    /// Rung when that is over.
    pub bell: Rc<Notify>,
    /// Answers of the turn under way; empty between turns.
    landed: Vec<Landed>,
}

impl Lanes {
    /// One more.
    pub fn opened(&mut self, server: ServerId) {
        self.open.push(server);
    }

    /// One less.
    pub fn ended(&mut self, server: ServerId) {
        self.open.retain(|open| *open != server);
    }

    /// Whether a task is to be started that looks after them.
    pub fn take_unwatched(&mut self) -> bool {
        !std::mem::replace(&mut self.watched, true)
    }

    /// Somebody stands behind another, or would like to ride and cannot.
    pub fn are_needed(&mut self) {
        if std::mem::take(&mut self.rests) {
            self.bell.notify_one();
        }
    }

    /// That task has ended.
    pub fn unwatched(&mut self) {
        self.watched = false;
    }
}

/// Whether an error is the statement's own wherever it runs: what it is told to compute, whom it asks, or how it is written (the classes
/// are those of appendix A of PostgreSQL's documentation).
fn is_of_statement(code: SqlState) -> bool {
    const CLASSES: [&[u8]; 6] = [b"21", b"22", b"2F", b"38", b"42", b"P0"];
    code.0.get(..2).is_some_and(|class| CLASSES.contains(&class))
}

impl Relay {
    /// Handles bytes of a server that is a lane; returns how many were taken.
    pub(super) fn deliver_to_riders(&mut self, server: ServerId, data: &[u8]) -> usize {
        let Some(mut lane) = self.servers.get_mut(server).and_then(|this| this.lane.take()) else { return data.len() };
        let mut landed = std::mem::take(&mut self.lanes.landed);
        let (mut from, mut at, mut fault) = (0, 0, None);
        while let Some(this) = self.servers.get_mut(server) {
            let rest = data.get(at..).unwrap_or_default();
            let (n, keeps) = match this.replies.step(rest) {
                Step::More => break,
                Step::Forward(n) => (n, true),
                Step::Drop(n) => (n, false),
                // Nothing is left out of what goes into a lane.
                Step::Fake(_) => {
                    fault = Some("a reply that was not owed");
                    break;
                }
                Step::Fault(what) => {
                    fault = Some(what);
                    break;
                }
                Step::Event { n, swallow, event } => {
                    match self.lane_event(server, &mut lane, &event, rest.get(..n).unwrap_or_default()) {
                        Heard::Kept => (n, !swallow),
                        Heard::Dropped => (n, false),
                        Heard::Retold(instead) => {
                            lane.held.extend_from_slice(data.get(from..at).unwrap_or_default());
                            lane.held.extend_from_slice(&instead);
                            at += n;
                            from = at;
                            continue;
                        }
                        Heard::Landed => {
                            at += n;
                            let held = std::mem::take(&mut lane.held);
                            landed.extend(lane.pop().map(|rider| Landed { rider, held, rest: from..at, slot: None }));
                            from = at;
                            continue;
                        }
                        Heard::Nonsense(what) => {
                            fault = Some(what);
                            break;
                        }
                    }
                }
            };
            if !keeps {
                lane.held.extend_from_slice(data.get(from..at).unwrap_or_default());
                from = at + n;
            }
            at += n;
        }
        lane.held.extend_from_slice(data.get(from..at).unwrap_or_default());
        self.pass_held(server, &mut lane);
        if let Some(this) = self.servers.get_mut(server) {
            this.lane = Some(lane);
        }
        self.land(server, data, at, &mut landed);
        landed.clear();
        self.lanes.landed = landed;
        if let Some(what) = fault {
            tracing::warn!(server = %self.name_of(server), "closing a connection whose server broke the protocol: {what}");
            self.lose(server, &format!("pgweir: the server broke the protocol: {what}"));
        }
        at
    }

    fn lane_event(&mut self, server: ServerId, lane: &mut Lane, event: &Event, bytes: &[u8]) -> Heard {
        match event {
            Event::Ready(entry, b'I') if entry.origin == Origin::Client => {
                self.servers.get_mut(server).into_iter().for_each(|this| this.overdue = false);
                Heard::Landed
            }
            Event::Ready(..) | Event::CopyIn | Event::Row => Heard::Nonsense("an answer that no read has"),
            Event::Completed(entry, outcome) => {
                if let (Some(rider), Origin::Client) = (lane.riders.front_mut(), entry.origin) {
                    rider.rows += outcome.rows;
                }
                Heard::Kept
            }
            // A setting changed for all sessions: all who ride are told, as each of them would be by a server of its own.
            Event::Parameter => {
                let riders = lane.riders.iter().filter(|rider| rider.fate == Fate::Rides).chain(&lane.queue);
                self.lane_parameter(server, riders.map(|rider| rider.client), bytes);
                Heard::Dropped
            }
            // Of a channel that nobody here listens to.
            Event::Notification => Heard::Dropped,
            Event::Failed(entry, error) => {
                self.rider_fails(server, lane, entry.as_ref(), error, bytes);
                let told = lane.riders.front().filter(|rider| rider.fate != Fate::Fails).map(|rider| rider.client);
                let retold = told.and_then(|_| self.retold(server, told, event, bytes));
                retold.map_or(Heard::Kept, Heard::Retold)
            }
        }
    }

    /// The head's request has failed: it will be run again, unless some of its answer has left, or the error is its own for certain.
    fn rider_fails(
        &mut self,
        server: ServerId,
        lane: &mut Lane,
        entry: Option<&Expect>,
        error: &ServerError,
        bytes: &[u8],
    ) {
        let now_us = self.now_us;
        let Some(this) = self.servers.get_mut(server) else { return };
        if lane.riders.front().is_none_or(|rider| rider.fate != Fate::Told) {
            this.replies.was_not_told();
        }
        let began_us = lane.riders.front().map_or(now_us, |rider| rider.came_us).max(this.done_us);
        let put_in = |entry: &Expect| entry.origin == Origin::Injected;
        // What was put in for it others may rely on who come behind.
        this.retire |= error.fatal || (entry.is_some_and(put_in) && lane.riders.len() > 1);
        let stray = lane.struck && error.code == SqlState::QUERY_CANCELED;
        // A lock that was not to be had in time is not to be had elsewhere, but on another host.
        let elsewhere = error.code != SqlState(*b"55P03") || self.pools[this.pool].role == Role::Replica;
        let mut of_lane = error.fatal || (is_of_replicas(error) && elsewhere) || stray;
        if let Some(entry) = entry
            && let Some(missing) = missing(entry, error, bytes)
        {
            of_lane = true;
            self.forget_prepared_on(server, lane.riders.front().map(|rider| rider.client), entry.statement, missing);
        }
        self.undo_dropped(server, entry);
        // Its settings are the lane's.
        let client = lane.riders.front().and_then(|rider| self.clients.get(rider.client));
        let has_limit =
            client.is_some_and(|it| it.params.settings.iter().any(|(name, _)| name == b"statement_timeout"));
        let times_out = has_limit && error.code == SqlState::QUERY_CANCELED;
        let Some(rider) = lane.riders.front_mut() else { return };
        let long = now_us.saturating_sub(began_us) > LONG_US;
        let own = rider.cancelled || (!of_lane && (long || is_of_statement(error.code) || times_out));
        rider.failed = Some(error.code);
        if rider.fate == Fate::Rides && !own {
            rider.fate = Fate::Fails;
        }
    }

    /// What has come of the head's answer goes to its client if it is long, and to nobody if nobody wants it.
    fn pass_held(&mut self, server: ServerId, lane: &mut Lane) {
        let Some(rider) = lane.riders.front_mut() else { return lane.held.clear() };
        let client = self.clients.get_mut(rider.client).filter(|client| client.state == State::Riding(server));
        match (rider.fate, client) {
            (Fate::Fails, _) | (_, None) => lane.held.clear(),
            (Fate::Rides, _) if lane.held.len() <= LARGE_BYTES => {}
            (_, Some(client)) if !lane.held.is_empty() => {
                rider.fate = Fate::Told;
                rider.told += lane.held.len();
                client.send(&lane.held);
                let (id, fills) = (rider.client, client.fills());
                self.pool_of(server).inspect(|pool| pool.counters.total_sent.add(lane.held.len() as u64));
                if fills {
                    self.fill_hears(id, &lane.held);
                }
                lane.held.clear();
            }
            _ => {}
        }
    }

    /// Counts what has come, sends on who waits, gives the server back if nobody does, and only then writes to clients: the next
    /// requests are at the server while these answers are still being copied. `taken` bytes of `data` are understood: the server
    /// goes back only if nothing of it is left, which would be read as the next client's.
    fn land(&mut self, server: ServerId, data: &[u8], taken: usize, landed: &mut [Landed]) {
        if !landed.is_empty() {
            self.count_landed(server, landed);
            for one in &*landed {
                self.gets_out(one, server);
            }
        }
        let Some(pool) = self.servers.get(server).map(|this| this.pool) else { return };
        self.fill_lane(server);
        let ended = self.servers.get(server).is_some_and(|this| this.lane.as_deref().is_some_and(Lane::is_empty));
        if ended && taken == data.len() {
            self.end_lane(server);
        }
        for one in landed {
            let Some(client) = self.clients.get_mut(one.rider.client) else { continue };
            if one.rider.fate == Fate::Fails {
                self.pump_inbox(one.rider.client);
                continue;
            }
            let rest = data.get(one.rest.clone()).unwrap_or_default();
            if one.held.is_empty() {
                client.send(rest);
            } else {
                client.send(&[&one.held, rest].concat());
            }
            let (more, fills) = (!client.inbox.is_empty(), client.fills());
            if more || self.draining {
                client.wake();
            }
            self.pools[pool].counters.total_sent.add((one.held.len() + rest.len()) as u64);
            if fills {
                self.fill_hears(one.rider.client, &one.held);
                self.fill_hears(one.rider.client, rest);
            }
            self.note_sent(one.rider.client, one.slot);
        }
    }

    /// The request is answered, or about to be run again: its client is between transactions.
    fn gets_out(&mut self, one: &Landed, server: ServerId) {
        let id = one.rider.client;
        let again = one.rider.fate == Fate::Fails;
        let Some(client) = self.clients.get_mut(id).filter(|client| client.state == State::Riding(server)) else {
            return;
        };
        client.state = State::Idle;
        client.sent_back = if again { SentBack::Alone } else { SentBack::Nowhere };
        client.losses.rode = true;
        if again {
            return;
        }
        client.losses = Losses::default();
        client.paid = false;
        client.active_us = self.now_us;
        client.saw = true;
        client.cache.iter_mut().for_each(|cache| cache.why = None);
        let bytes = one.rider.fare.bytes;
        if client.inbox.len() > bytes {
            client.inbox.drain(..bytes);
            client.pipelines = PIPELINES;
        } else {
            let mut inbox = std::mem::take(&mut client.inbox);
            if inbox.capacity() <= SPARE_BYTES && self.spare.len() < SPARES {
                inbox.clear();
                self.spare.push(inbox);
            }
        }
        self.note_seen(id, server);
    }

    /// Who waits in the lane follows those who have been answered, and all is written.
    pub(super) fn fill_lane(&mut self, server: ServerId) {
        let delay_us = self.lane_delay_us();
        let queued =
            self.servers.get(server).filter(|this| this.lane.as_deref().is_some_and(|lane| !lane.queue.is_empty()));
        let epoch =
            queued.map(|this| self.groups[self.pools[this.pool].group].catalog).and_then(|at| self.lane_epoch(at));
        while let Some(this) = self.servers.get_mut(server)
            && let Some(lane) = this.lane.as_deref_mut()
            && lane.takes(delay_us)
            && let Some(rider) = lane.queue.pop_front()
        {
            let outdated = Some(rider.fare.epoch) != epoch;
            if outdated || self.clients.get(rider.client).is_none() {
                lane.load_us -= u64::from(rider.fare.usual_us);
                // What its text stands for may have been changed since: that is found out anew.
                self.goes_elsewhere_from(rider.client, server, false);
                continue;
            }
            let Some(client) = self.clients.get_mut(rider.client) else { continue };
            let inbox = std::mem::take(&mut client.inbox);
            let id = rider.client;
            self.send_aboard(server, &inbox, rider);
            if let Some(client) = self.clients.get_mut(id) {
                client.inbox = inbox;
            }
        }
        self.flush_lane(server);
    }

    /// Writes the requests that are to be written.
    pub(super) fn flush_lane(&mut self, server: ServerId) {
        let Some(this) = self.servers.get_mut(server).filter(|this| this.use_ == Use::Shared) else { return };
        let Some(lane) = this.lane.as_deref_mut().filter(|lane| !lane.out.is_empty()) else { return };
        lane.unwritten = 0;
        let mut out = std::mem::take(&mut lane.out);
        let counters = &self.pools[this.pool].counters;
        counters.total_received.add(out.len() as u64);
        counters.lanes.writes.add(1);
        if !this.send(&out) {
            this.wake();
        }
        out.clear();
        if let Some(lane) = this.lane.as_deref_mut() {
            lane.out = out;
        }
    }

    /// The rider's request goes to another server, `alone` to one that it shares with nobody.
    pub(super) fn goes_elsewhere_from(&mut self, id: ClientId, server: ServerId, alone: bool) {
        let Some(client) = self.clients.get_mut(id).filter(|client| client.state == State::Riding(server)) else {
            return;
        };
        client.state = State::Idle;
        client.losses.rode = true;
        if alone {
            client.sent_back = SentBack::Alone;
        }
        self.pump_inbox(id);
    }

    /// The client does not wait for its answer any more.
    pub(super) fn leaves_lane(&mut self, id: ClientId, server: ServerId) {
        let Some(this) = self.servers.get_mut(server) else { return };
        if this.stalled {
            // What it did not read is read over now.
            this.wake();
        }
        let Some(lane) = this.lane.as_deref_mut() else { return };
        if let Some(at) = lane.queue.iter().position(|rider| rider.client == id) {
            let rider = lane.queue.remove(at);
            lane.load_us -= rider.map_or(0, |rider| u64::from(rider.fare.usual_us));
        } else if let Some(rider) = lane.find(id) {
            rider.client = ClientId::default();
        }
    }

    /// Cancels what the client has in a lane. Whether the server will be bothered with it.
    pub(super) fn cancel_riding(&mut self, id: ClientId, server: ServerId) -> bool {
        let Some(this) = self.servers.get_mut(server) else { return false };
        let pool = this.pool;
        let Some(lane) = this.lane.as_deref_mut() else { return false };
        let written = lane.riders.len() > lane.unwritten;
        let head = lane.riders.front_mut().filter(|rider| rider.client == id && written);
        let Some(head) = head else {
            // Nothing of it runs: the client is told at once, and whatever comes is dropped.
            self.leaves_lane(id, server);
            if let Some(client) = self.clients.get_mut(id) {
                client.state = State::Waiting { pool, since_us: self.now_us, notified: false };
            }
            self.cancel_waiting(id);
            return false;
        };
        if std::mem::replace(&mut head.cancelled, true) {
            return false;
        }
        // It may hit whoever comes next, who is then run again; nobody new comes until that is over.
        lane.struck = true;
        this.cancels += 1;
        self.pools[pool].counters.total_cancels.add(1);
        self.todo.push(super::Todo::Cancel(server));
        self.close_lane(server);
        true
    }
}

/// What an event in a lane comes to.
enum Heard {
    /// Its bytes belong to the head's answer.
    Kept,
    /// They are for nobody.
    Dropped,
    /// This belongs there at their place.
    Retold(Vec<u8>),
    /// The head's answer is whole.
    Landed,
    /// That cannot be.
    Nonsense(&'static str),
}
