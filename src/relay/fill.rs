//! Answers on their way to a client that are kept as well, and clients that wait for such an answer instead of asking themselves.
//! Must never keep an answer that is not whole, nor let anybody wait for one that will not come.
//!
//! The first to ask what is not in the cache leads; who asks the same while it runs, on the same worker, follows: it waits, and asks the
//! cache again when the answer is there, and a server if that does not do for it: nobody follows twice. What becomes of the leader otherwise, an error above all, is nobody else's affair: then each of
//! the others asks a server. Where processes share a cache a lookup there may lead as well ([`super::remote`]).

use std::collections::HashMap;
use std::sync::Arc;

use super::cached::Asked;
use super::client::State;
use super::remote::LOST_US;
use super::traced::Trace;
use super::{ClientId, Relay, ServerId};
use crate::cache::answer::{Answer, Scan};
use crate::cache::{Entry, Outcome, Source, Stamp, Store, Tenant};
use crate::meter::{Role, Unkept};

/// An answer that is to be kept when it has come.
#[derive(Debug)]
pub(super) struct Fill {
    /// Under what.
    pub key: Arc<[u8]>,
    /// For how long, microseconds.
    pub ttl_us: u64,
    /// Whose.
    tenant: Arc<Tenant>,
    /// Shape of the statement.
    pub shape: u64,
    /// Others wait for it.
    leads: bool,
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
    shared: Option<Box<[u8]>>,
}

/// For whom others wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Leader {
    Client(ClientId),
    /// A question to the cache that processes share.
    Lookup {
        number: u64,
        /// When it was asked, microseconds.
        since_us: u64,
    },
}

/// What those hear who have waited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Landing {
    /// The answer is kept.
    Kept,
    /// There is none, but what stands in for it will do.
    Spared,
    /// There is none: each has to ask by itself.
    Failed,
    /// The shared cache was asked.
    LookedUp,
}

/// Clients that wait for the answer to another one's batch.
#[derive(Debug)]
pub(super) struct Flight {
    pub leader: Leader,
    /// Each with its number.
    pub followers: Vec<(ClientId, u64)>,
}

/// By key.
pub(super) type Flights = HashMap<Arc<[u8]>, Flight, foldhash::fast::RandomState>;

impl Relay {
    /// The answer to the client's batch is to be kept under this key.
    pub(super) fn fills(
        &mut self,
        id: ClientId,
        store: &Store,
        key: &[u8],
        asked: &Asked,
        (expected, trace): (Option<Arc<Entry>>, Option<Box<Trace>>),
    ) {
        let key: Arc<[u8]> = Arc::from(key);
        let Some(client) = self.clients.get_mut(id) else { return };
        let group_id = client.group;
        let group = &mut self.groups[group_id];
        let tenant = Arc::clone(group.tenant.get_or_insert_with(|| store.tenant(&group.key, &group.database)));
        let leads = expected.is_none() && !self.flights.contains_key(&key);
        if leads {
            let leader = Leader::Client(id);
            self.flights.insert(Arc::clone(&key), Flight { leader, followers: Vec::new() });
        }
        let shares = expected.is_none() && self.remote.is_some();
        let shared = if shares { self.shared_key(group_id, &key, store) } else { None };
        let Some(client) = self.clients.get_mut(id) else { return };
        let (ttl_us, shape) = (asked.ttl_us, asked.shape);
        client.caching().fill = Some(Box::new(Fill {
            key,
            ttl_us,
            tenant,
            shape,
            leads,
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
    pub(super) fn follows(&mut self, id: ClientId, key: &[u8]) -> bool {
        let Some(leader) = self.flights.get(key).map(|flight| flight.leader) else { return false };
        if let Leader::Client(leader) = leader {
            let (Some(client), Some(lead)) = (self.clients.get(id), self.clients.get(leader)) else { return false };
            // Also what the answer does not hang on: who may wait longer would have others wait as long.
            let alike =
                client.params.rides_with(&lead.params) && client.course == lead.course && client.group == lead.group;
            if leader == id || !alike {
                return false;
            }
        }
        self.is_leading(leader) && self.waits_for_flight(id, key)
    }

    /// The client waits for what becomes of a flight.
    pub(super) fn waits_for_flight(&mut self, id: ClientId, key: &[u8]) -> bool {
        let (Some(client), Some(flight)) = (self.clients.get_mut(id), self.flights.get_mut(key)) else { return false };
        let pool = self.groups[client.group].primary;
        self.followed += 1;
        client.state = State::Waiting { pool, since_us: self.now_us, notified: false };
        client.caching().follows = self.followed;
        flight.followers.push((id, self.followed));
        true
    }

    pub(super) fn is_leading(&self, leader: Leader) -> bool {
        let leader = match leader {
            Leader::Client(leader) => leader,
            Leader::Lookup { since_us, .. } => return self.now_us.saturating_sub(since_us) < LOST_US,
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
        let longest = self.cache.as_ref().map_or(0, |store| store.longest());
        if bytes.is_empty() {
            return;
        }
        fill.bytes.extend_from_slice(bytes);
        let why = match fill.scan.look(&fill.bytes) {
            Answer::Whole { parse, len } if len - parse <= longest => return self.keep(id, parse, len),
            Answer::Partial if fill.bytes.len() <= longest => return,
            Answer::Whole { .. } | Answer::Partial => Unkept::Long,
            Answer::Other => Unkept::Other,
        };
        let mut fill = client.caching().fill.take();
        if let Some(fill) = fill.as_mut().filter(|_| why == Unkept::Long) {
            let shared = fill.shared.take();
            self.shares_none(shared);
        }
        if why == Unkept::Long
            && let (Some(store), Some(fill)) = (&self.cache, &fill)
        {
            store.remove(&fill.key);
        }
        self.unkept(id, fill, why);
    }

    /// The answer is whole.
    fn keep(&mut self, id: ClientId, parse: usize, len: usize) {
        let Some(client) = self.clients.get_mut(id) else { return };
        let group = client.group;
        let (Some(mut fill), Some(store)) = (client.caching().fill.take(), self.cache.clone()) else { return };
        let trace = fill.trace.take();
        if trace.as_ref().is_some_and(|trace| trace.traced.is_none() && trace.fenced.is_none()) {
            return self.unkept(id, Some(fill), Unkept::Untraced);
        }
        if fill.stamp.is_some_and(|stamp| !self.shows_signals(group, stamp)) {
            return self.unkept(id, Some(fill), Unkept::Behind);
        }
        let (Some(stamp), Some(answer)) = (fill.stamp, fill.bytes.get(parse..len)) else { return };
        let (traced, fenced) = trace.map(|trace| (trace.traced, trace.fenced)).unwrap_or_default();
        if let Some(expected) = &fill.expected {
            self.is_compared((group, fill.shape), expected, (stamp, answer), traced.as_ref());
        }
        self.cache_counters(group).fills.add(1);
        self.warmed(id, Outcome::Kept);
        let answer = bytes::Bytes::copy_from_slice(answer);
        let entry = Entry::new(fill.key.len(), answer, stamp, self.now_us, fill.ttl_us, Arc::clone(&fill.tenant));
        let shared = fill.shared.take().filter(|_| traced.is_none() && fenced.is_none());
        let took_us = self.now_us.saturating_sub(stamp.began_us);
        if shared.is_some() {
            self.usual.took(self.groups[group].catalog, fill.shape, took_us);
        }
        let entry = entry.taking(took_us).traced(traced).fenced(fenced);
        let entry = Arc::new(entry.hanging_on(Arc::clone(&fill.deps)));
        if store.put(Arc::clone(&fill.key), Arc::clone(&entry)) {
            self.shares(shared, &entry);
        } else {
            self.shares_nothing(shared);
            self.must_see_no_older(id);
        }
        self.fill_ends(id, Some(fill), Landing::Kept);
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
        if !fill.leads {
            return;
        }
        if self.flights.get(&fill.key).is_some_and(|flight| flight.leader == Leader::Client(id)) {
            self.lands(&fill.key, landing);
        }
    }

    /// The client goes, or its batch will not be answered.
    pub(super) fn fill_abandoned(&mut self, id: ClientId) {
        let Some(caching) = self.clients.get_mut(id).and_then(|client| client.cache.as_mut()) else { return };
        (caching.follows, caching.spared) = (0, false);
        let fill = caching.fill.take();
        self.fill_ends(id, fill, Landing::Failed);
    }

    pub(super) fn lands(&mut self, key: &[u8], landing: Landing) {
        let Some(flight) = self.flights.remove(key) else { return };
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
            let group = client.group;
            self.cache_counters(group).followed.add(u64::from(landing == Landing::Kept));
            self.pump_inbox(follower);
        }
    }

    /// Lets those go on whose leader was lost on its way, or had to give up waiting.
    pub(super) fn sweep_flights(&mut self) {
        if let Some(store) = &self.cache {
            self.registry.cache.entries.set(store.len() as u64);
            self.registry.cache.bytes.set(store.bytes());
        }
        if self.flights.is_empty() {
            return;
        }
        let lost = self.flights.iter().filter(|(_, flight)| !self.is_leading(flight.leader));
        for key in lost.map(|(key, _)| Arc::clone(key)).collect::<Vec<_>>() {
            self.lands(&key, Landing::Failed);
        }
    }
}
