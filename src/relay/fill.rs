//! Answers on their way to a client that are kept as well, and clients that wait for such an answer instead of asking themselves.
//! Must never keep an answer that is not whole, nor let anybody wait for one that will not come.
//!
//! The first to ask what is not in the cache leads; who asks the same while it runs, on the same worker or
//! another ([`super::abroad`]), follows: it waits, and asks the cache again when the answer is there, and a server if that does not do for
//! it: nobody follows twice. What becomes of the leader otherwise,
//! an error above all, is nobody else's affair: then each of the others asks a server. Where processes share a cache a lookup there may lead
//! as well ([`super::remote`]).

use std::sync::Arc;

use super::asked::Asked;
use super::client::State;
use super::flights::{Landing, Leader};
use super::remote::LOST_US;
use super::traced::{Trace, hold_kind};
use super::{ClientId, Relay, ServerId};
use crate::cache::answer::{Answer, Scan};
use crate::cache::key::{Hashed, Owned};
use crate::cache::{Demand, Entry, Outcome, Put, Source, Stamp, Store};
use crate::meter::{Miss, Role, Unkept};

/// An answer that is to be kept when it has come.
#[derive(Debug)]
pub(super) struct Fill {
    /// Under what.
    pub key: Owned,
    /// For how long, microseconds.
    pub ttl_us: u64,
    /// Shape of the statement.
    pub shape: u64,
    /// Others may wait for it.
    leads: bool,
    /// It is worth keeping, whether they do or not.
    worth: bool,
    /// As of when it is; `None` until it is sent to a server.
    pub stamp: Option<Stamp>,
    /// What it hangs on; `None`: it is good for its time.
    pub trace: Option<Box<Trace>>,
    /// Slots of its tags, and of all that it may be taken back by as soon as it is sent.
    pub tags: Box<[u32]>,
    pub deps: Arc<[u32]>,
    /// What has come of it.
    bytes: Vec<u8>,
    scan: Scan,
    /// What the cache has, which the answer should be.
    expected: Option<Arc<Entry>>,
    /// The cache has what may be given if nobody answers.
    pub renews: bool,
    /// Its key in the cache that processes share, if it is to be kept there as well.
    pub shared: Option<Box<[u8]>>,
}

impl Relay {
    /// The answer to the client's batch is to be kept under this key.
    pub(super) fn fills(
        &mut self,
        id: ClientId,
        store: &Store,
        key: Hashed<'_>,
        (asked, miss): (&Asked, Option<Miss>),
        (expected, trace): (Option<Arc<Entry>>, Option<Box<Trace>>),
    ) {
        let key = key.to_owned();
        let Some(client) = self.clients.get_mut(id) else { return };
        let group_id = client.group;
        let leads = expected.is_none() && self.flights.begin(&key, Leader::Client(id));
        let shares = expected.is_none() && self.remote.is_some();
        let kind = hold_kind(trace.as_deref());
        let shared = if shares { self.shared_key(group_id, &key, store, kind) } else { None };
        let this = &mut self.groups[group_id];
        let tenant = this.tenant.get_or_insert_with(|| store.tenant(&this.key, &this.database));
        let Some(client) = self.clients.get_mut(id) else { return };
        let is_wanted = miss != Some(Miss::Absent) || client.warms().is_some();
        let worth = is_wanted || store.admits(key.as_ref(), tenant);
        let (ttl_us, shape) = (asked.ttl_us, asked.shape);
        client.caching().fill = Some(Box::new(Fill {
            key,
            ttl_us,
            shape,
            leads,
            worth,
            stamp: None,
            trace,
            tags: asked.tags.clone(),
            deps: Arc::default(),
            bytes: Vec::new(),
            scan: Scan::default(),
            expected,
            renews: asked.renews,
            shared,
        }));
    }

    /// Has the client wait for the answer to the same batch of another, if there is one whose answer will do for it.
    pub(super) fn follows(&mut self, id: ClientId, key: Hashed<'_>) -> bool {
        let Some(leader) = self.flights.get(key).map(|flight| flight.leader) else { return false };
        if let Leader::Abroad { alike } = leader
            && self.alike(id) != Some(alike)
        {
            return false;
        }
        if let Leader::Client(leader) = leader {
            let (Some(client), Some(lead)) = (self.clients.get(id), self.clients.get(leader)) else { return false };
            // Also what the answer does not hang on: who may wait longer would have others wait as long.
            let alike =
                client.params.rides_with(&lead.params) && client.course == lead.course && client.group == lead.group;
            if leader == id || !alike {
                return false;
            }
        }
        self.is_leading(key, leader) && self.waits_for_flight(id, key)
    }

    /// The client waits for what becomes of a flight.
    pub(super) fn waits_for_flight(&mut self, id: ClientId, key: Hashed<'_>) -> bool {
        let (Some(client), Some(flight)) = (self.clients.get_mut(id), self.flights.get_mut(key)) else { return false };
        let pool = self.groups[client.group].primary;
        self.followed += 1;
        client.state = State::Waiting { pool, since_us: self.now_us, notified: false };
        client.caching().follows = self.followed;
        flight.followers.push((id, self.followed));
        true
    }

    pub(super) fn is_leading(&self, key: Hashed<'_>, leader: Leader) -> bool {
        let leader = match leader {
            Leader::Client(leader) => leader,
            Leader::Lookup { since_us, .. } => return self.now_us.saturating_sub(since_us) < LOST_US,
            Leader::Abroad { .. } => return self.is_led_abroad(key),
        };
        let Some(client) = self.clients.get(leader) else { return false };
        let runs = matches!(client.state, State::Waiting { .. } | State::Attached(_) | State::Riding(_));
        runs && client.cache.as_ref().and_then(|cache| cache.fill.as_ref()).is_some_and(|fill| fill.leads)
    }

    /// The client's batch is about to be sent to this server.
    pub(super) fn fill_begins(&mut self, id: ClientId, server: ServerId) {
        let Some(client) = self.clients.get_mut(id) else { return };
        let Some(fill) = client.cache.as_mut().and_then(|cache| cache.fill.as_mut()) else { return };
        let Some(this) = self.servers.get(server) else { return };
        let pool = &self.pools[this.pool];
        if this.opened_us <= self.groups[pool.group].cluster.roles_set_us() {
            // It has other settings of its role or database than a new connection.
            let fill = self.clients.get_mut(id).and_then(|client| client.caching().fill.take());
            return self.unkept(id, fill, Unkept::Older);
        }
        let source = match pool.role {
            Role::Primary => Source::Primary,
            Role::Replica => Source::Replica(self.groups[client.group].cluster.replayed(pool.number)),
        };
        fill.stamp = Some(Stamp { began_us: self.now_us, source });
        fill.bytes.clear();
        fill.scan = Scan::default();
        self.trace_begins(id, source);
        self.deps_begin(id);
    }

    /// The client was sent these bytes of a server.
    pub(super) fn fill_hears(&mut self, id: ClientId, bytes: &[u8]) {
        let Some(client) = self.clients.get_mut(id) else { return };
        let Some(fill) = client.cache.as_mut().and_then(|cache| cache.fill.as_mut()) else { return };
        if fill.stamp.is_none() {
            return;
        }
        if bytes.is_empty() {
            return;
        }
        if !fill.worth && fill.shared.is_none() && fill.bytes.is_empty() && !self.is_waited_for(id) {
            let fill = self.clients.get_mut(id).and_then(|client| client.caching().fill.take());
            if fill.as_ref().is_some_and(|fill| !fill.leads) {
                self.must_see_no_older(id);
            }
            return self.unkept(id, fill, Unkept::Once);
        }
        let longest = self.cache.as_ref().map_or(0, |store| store.longest());
        let Some(client) = self.clients.get_mut(id) else { return };
        let Some(fill) = client.cache.as_mut().and_then(|cache| cache.fill.as_mut()) else { return };
        // Most come at once, and are not gathered first.
        let all = if fill.bytes.is_empty() {
            bytes
        } else {
            fill.bytes.extend_from_slice(bytes);
            &fill.bytes
        };
        let looked = fill.scan.look(all);
        let why = match looked {
            Answer::Partial if all.len() <= longest => {
                if fill.bytes.is_empty() {
                    fill.bytes.extend_from_slice(bytes);
                }
                return;
            }
            Answer::Whole { parse, len, .. } if len - parse <= longest => None,
            Answer::Whole { .. } | Answer::Partial => Some(Unkept::Long),
            Answer::Other => Some(Unkept::Other),
        };
        let Some(mut fill) = client.caching().fill.take() else { return };
        match (why, looked) {
            (None, Answer::Whole { parse, len, rows }) => {
                let gathered = std::mem::take(&mut fill.bytes);
                let all = if gathered.is_empty() { bytes } else { &gathered };
                self.keep(id, fill, (all.get(parse..len).unwrap_or_default(), rows));
            }
            (why, _) => {
                let why = why.unwrap_or(Unkept::Other);
                if why == Unkept::Long {
                    let shared = fill.shared.take();
                    self.shares_none(shared);
                    self.cache.iter().for_each(|store| store.remove(fill.key.as_ref()));
                }
                self.unkept(id, Some(fill), why);
            }
        }
    }

    /// The answer is whole.
    fn keep(&mut self, id: ClientId, mut fill: Box<Fill>, (answer, rows): (&[u8], u64)) {
        let Some(group) = self.clients.get(id).map(|client| client.group) else { return };
        let (Some(store), Some(stamp)) = (self.cache.clone(), fill.stamp) else { return };
        let trace = fill.trace.take();
        if trace.as_ref().is_some_and(|trace| trace.traced.is_none() && trace.fenced.is_none()) {
            return self.unkept(id, Some(fill), Unkept::Untraced);
        }
        if !self.shows_signals(group, stamp) {
            return self.unkept(id, Some(fill), Unkept::Behind);
        }
        let (traced, fenced) = trace.map(|trace| (trace.traced, trace.fenced)).unwrap_or_default();
        if let Some(expected) = &fill.expected {
            self.is_compared((group, fill.shape), expected, (stamp, answer), traced.as_ref());
        }
        let worth = fill.worth || self.is_waited_for_under(fill.key.as_ref());
        let answer = (bytes::Bytes::copy_from_slice(answer), rows);
        let this = &mut self.groups[group];
        let tenant = this.tenant.get_or_insert_with(|| store.tenant(&this.key, &this.database));
        let entry = Entry::new(fill.key.len(), answer, stamp, self.now_us, fill.ttl_us, Arc::clone(tenant));
        let shared = fill.shared.take();
        let took_us = self.now_us.saturating_sub(stamp.began_us);
        if shared.is_some() {
            self.usual.took(self.groups[group].catalog, fill.shape, took_us);
        }
        let entry = entry.taking(took_us).traced(traced).fenced(fenced);
        let entry = Arc::new(entry.hanging_on(Arc::clone(&fill.deps)));
        let demand = if worth { Demand::Wanted } else { Demand::None };
        let put = store.put(fill.key.clone(), Arc::clone(&entry), demand);
        match put {
            Put::Kept => self.cache_counters(group).fills.add(1),
            Put::Once => self.cache_counters(group).unkept(Unkept::Once).add(1),
            Put::Older => {
                self.must_see_no_older(id);
                self.cache_counters(group).unkept(Unkept::Older).add(1);
            }
        }
        self.warmed(id, Outcome::Kept);
        // What was changed while it ran counts nowhere.
        let held = self.holds(group, &fill.key.as_ref(), &entry);
        if put == Put::Older || matches!(held, Err(Miss::Changed | Miss::Signalled)) {
            self.shares_nothing(shared)
        } else {
            self.shares(group, shared, &entry)
        }
        self.fill_ends(id, Some(fill), Landing::Kept);
    }

    /// Whether others wait for the answer to the client's batch.
    fn is_waited_for(&self, id: ClientId) -> bool {
        let fill = self.clients.get(id).and_then(|client| client.cache.as_ref()?.fill.as_ref());
        fill.is_some_and(|fill| self.is_waited_for_under(fill.key.as_ref()))
    }

    fn is_waited_for_under(&self, key: Hashed<'_>) -> bool {
        let here = self.flights.get(key).is_some_and(|flight| !flight.followers.is_empty());
        here || self.is_waited_for_abroad(key)
    }

    /// The answer is not kept.
    fn unkept(&mut self, id: ClientId, fill: Option<Box<Fill>>, why: Unkept) {
        if let Some(client) = self.clients.get(id) {
            self.cache_counters(client.group).unkept(why).add(1);
        }
        self.warmed(id, Outcome::Unkept(why));
        self.fill_ends(id, fill, Landing::Failed);
    }

    /// The client was told what may be newer than what is kept under the same key.
    fn must_see_no_older(&mut self, id: ClientId) {
        let now_us = self.now_us;
        let Some(client) = self.clients.get_mut(id) else { return };
        let floor = self.groups[client.group].floor_of_write();
        client.caching().has_written(now_us, floor);
    }

    /// Nothing more comes of this. Who has waited for it goes on.
    pub(super) fn fill_ends(&mut self, id: ClientId, fill: Option<Box<Fill>>, landing: Landing) {
        let Some(mut fill) = fill else { return };
        if landing == Landing::Failed {
            let shared = fill.shared.take();
            self.shares_nothing(shared);
        }
        if fill.leads {
            self.lands(fill.key.as_ref(), |leader| leader == Leader::Client(id), landing);
        }
    }

    /// The client goes, or its batch will not be answered.
    pub(super) fn fill_abandoned(&mut self, id: ClientId) {
        let Some(caching) = self.clients.get_mut(id).and_then(|client| client.cache.as_mut()) else { return };
        (caching.follows, caching.spared, caching.looked) = (0, false, false);
        let fill = caching.fill.take();
        self.fill_ends(id, fill, Landing::Failed);
    }

    /// What such a leader has asked for has come, or will not.
    pub(super) fn lands(&mut self, key: Hashed<'_>, is_it: impl FnOnce(Leader) -> bool, landing: Landing) {
        let Some(flight) = self.flights.end(key, is_it) else { return };
        if matches!(flight.leader, Leader::Client(_)) {
            self.tells_abroad(key, landing);
        }
        for (follower, number) in flight.followers {
            let Some(client) = self.clients.get_mut(follower) else { continue };
            let waits = matches!(client.state, State::Waiting { .. });
            // It may have been cancelled, and wait for something else by now.
            let caching = client.cache.as_mut().filter(|caching| waits && caching.follows == number);
            let Some(caching) = caching else { continue };
            (caching.follows, caching.alone, caching.looked, caching.spared) = (
                0,
                matches!(landing, Landing::Failed | Landing::Kept),
                landing == Landing::LookedUp,
                landing == Landing::Spared,
            );
            client.state = State::Idle;
            self.pump_inbox(follower);
        }
    }

    /// Lets those go on whose leader was lost on its way, or had to give up waiting.
    pub(super) fn sweep_flights(&mut self) {
        if let Some(store) = &self.cache {
            self.registry.cache.entries.set(store.len() as u64);
            self.registry.cache.bytes.set(store.bytes());
            store.look_for_room();
        }
        if self.flights.is_empty() {
            return;
        }
        for key in self.flights.led_by(|key, leader| !self.is_leading(key, leader)) {
            self.lands(key.as_ref(), |_| true, Landing::Failed);
        }
    }
}
