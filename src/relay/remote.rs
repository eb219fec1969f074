//! Answers that other processes have kept, for clients whose own process has none.
//! Must never make a client wait for Redis twice for the same, nor believe it about a schema that this process has not seen.
//!
//! What is not in the process's own cache is looked up in the shared one ([`crate::cache::remote`]) as a flight (`super::fill`) whose leader is
//! not a client but the lookup: whoever asks the same meanwhile waits with the first, for no longer than the timeout. If an answer comes, all of them are
//! served from it; if none does, the first of them asks a server and the others follow that one.
//!
//! Not looked up is what the process has, but is older than its client's own write ([`Miss::Older`]): the process has put that very
//! answer there, another would have to have read the same since the write, and most clients read right after they have written. So it is with a client whose
//! last write is more recent than any answer from there can be.
//!
//! *Schema.* The key of an answer begins with the number of changes of the schema that went through this process, which says nothing to others. In its
//! place the key there has what the catalog said last (`schema.sql`): a hash over all that the meaning of a text hangs on. Who has changed the
//! schema through this process does not ask, nor give, anything there until the catalog was read again; who changed it elsewhere is noticed by the next look, `catalog_refresh`
//! at the latest, as for everything else that is known of the catalog; what is known for longer than that is not used. So an answer from before a
//! change is found only by a process that has not seen the change yet, for that time at most, and never by the one that made it. When a look
//! shows a change, what this process itself has kept is void, too.
//!
//! *Good until something changes.* What an answer hangs on is found here, as for one of the process's own; what is found there is up to where it shows everything of that
//! ([`crate::cache::remote::hold`]). So it counts if it would if this process had read it then. It was read under the schema of its key, or under a newer one, of which whoever kept it had
//! not heard; then this process finds it only while it has not heard of that either, and voids it when it does, before anything counts that is as new ([`crate::cache::feed`]).
//!
//! *One flight.* A lookup that finds nothing has told the other processes that this one asks a server; they wait with theirs ([`crate::cache::remote`]), for as long as such reads
//! usually take (`super::usual`) and a little longer. If no answer comes of it they are told that, too.
//!
//! *Order.* In one process an answer never takes the place of a newer one. There it may, as nobody orders what processes write: a client whose process has lost its own
//! copy may be told an older state of the same than before, by no more than the time that answers are good for (or `max_staleness`; behind a fence, never); never one from before its own last write.

use std::sync::Arc;

use super::asked::Asked;
use super::flights::{Landing, Leader};
use super::task::Shared;
use super::traced::{Trace, Useless, hold_kind};
use super::{ClientId, GroupId, Relay, Todo};
use crate::base::clock;
use crate::cache::key::{Hashed, Owned};
use crate::cache::remote::time::SLACK_US;
use crate::cache::remote::{FAST_US, Found, Keep};
use crate::cache::{Demand, Entry, Put, Remote, Stamp, Store, answer};
use crate::config::{Cache, CacheMode};
use crate::meter::{Miss, RemoteMiss};
use crate::pool::cluster::Cluster;

/// How much longer than `catalog_refresh` what the catalog said is good for, microseconds: who is busy is asked a little later.
const GRACE_US: u64 = 10_000_000;
/// A lookup that has not landed by then never will, microseconds.
pub(super) const LOST_US: u64 = 30_000_000;

/// What a catalog said of its schema.
#[derive(Debug)]
pub(super) struct Schema {
    /// How often the schema had been changed through this process when it was asked.
    pub epoch: u64,
    /// When that was.
    pub asked_us: u64,
    /// What it said.
    pub text: Box<[u8]>,
}

/// A question to the shared cache.
#[derive(Debug)]
pub struct Lookup {
    /// The key in this process, by which its flight is known, and the flight's number.
    key: Owned,
    number: u64,
    group: GroupId,
    /// The key in all processes.
    shared: Box<[u8]>,
    longest: usize,
    /// What an answer may be taken back by.
    deps: Arc<[u32]>,
    /// How long it usually takes a server, microseconds, if that is known.
    usual_us: Option<u64>,
    /// What it will hang on here; `None`: it is good for its time.
    trace: Option<Box<Trace>>,
}

/// What the keys of processes that share answers must have in common: what a session's own write makes void is known of these hosts only.
pub(super) fn shared_with(cluster: &Cluster, splits: bool) -> Box<[u8]> {
    let mut hosts: Vec<String> = cluster.members.iter().map(|member| member.endpoint.to_string()).collect();
    hosts.sort_unstable();
    format!("{}{}", if splits { "reads " } else { "" }, hosts.join(" ")).into_bytes().into()
}

/// What a turn leaves to be done with the shared cache.
pub enum Far {
    /// Connect to it.
    Run(std::rc::Rc<Remote>),
    /// Ask it.
    Look(Lookup),
    /// Give it an answer.
    Keep(Keep),
    /// Take away what it has under this key.
    Remove(Box<[u8]>),
    /// Let nobody wait any more for what is under this key.
    GiveUp(Box<[u8]>),
}

/// Does it.
pub async fn run(relay: Shared, far: Far) {
    let remote = relay.borrow().remote.clone();
    match (far, remote) {
        (Far::Run(remote), _) => remote.run().await,
        (Far::Look(lookup), remote) => {
            let found = match remote {
                Some(remote) => {
                    let is_void = |found: &Found| relay.borrow().is_void(&lookup, found);
                    remote.look(&lookup.shared, lookup.longest, lookup.usual_us, is_void).await
                }
                None => None,
            };
            super::task::guarded(&relay, |relay| relay.looked_up(&lookup, found));
            super::task::run_todo(&relay, None);
        }
        (Far::Keep(keep), Some(remote)) => remote.keep(keep).await,
        (Far::Remove(key), Some(remote)) => remote.remove(&key).await,
        (Far::GiveUp(key), Some(remote)) => remote.give_up(&key).await,
        (Far::Keep(_) | Far::Remove(_) | Far::GiveUp(_), None) => {}
    }
}

impl Relay {
    /// Connects to the shared cache of the configuration, if it is another than before.
    pub(super) fn reach_remote(&mut self, cache: &Cache) {
        let wanted = cache.redis.as_ref().filter(|_| cache.mode == CacheMode::On);
        if self.remote.as_ref().map(|remote| remote.config()) == wanted {
            return;
        }
        if let Some(before) = self.remote.take() {
            before.end();
        }
        self.remote = wanted.map(|redis| {
            self.registry.remote.set_used();
            let (counters, signals) = (Arc::clone(&self.registry.remote), Arc::clone(self.place.caches.signals()));
            std::rc::Rc::new(Remote::new(redis.clone(), counters, signals))
        });
        self.todo.extend(self.remote.clone().map(|remote| Todo::Far(Far::Run(remote))));
    }

    /// What a key of this process's cache, of a client of the group, is in all processes, of an answer that is good by this ([`super::traced::hold_kind`]); `None` while the catalog
    /// says nothing.
    pub(super) fn shared_key(&mut self, group: GroupId, key: &[u8], store: &Store, kind: u8) -> Option<Box<[u8]>> {
        let number = self.groups.get(group)?.catalog;
        let refresh_us = self.config.pool.catalog_refresh?.as_micros() as u64;
        let catalog = self.catalogs.all.get(number)?;
        let known = catalog.shown.as_ref().filter(|schema| {
            schema.epoch == store.epoch()
                && self.now_us < schema.asked_us.saturating_add(refresh_us).saturating_add(GRACE_US)
        });
        let Some(schema) = known else {
            self.look_soon(number);
            return None;
        };
        let rest = key.get(super::asked::EPOCH_BYTES..)?;
        let hosts = &self.groups.get(group)?.shared_with;
        let mut shared = Vec::with_capacity(17 + schema.text.len() + hosts.len() + rest.len());
        shared.push(kind);
        for part in [&schema.text, hosts] {
            shared.extend_from_slice(&(part.len() as u64).to_be_bytes());
            shared.extend_from_slice(part);
        }
        shared.extend_from_slice(rest);
        Some(shared.into())
    }

    /// Has the client wait for what the shared cache says, if that is asked.
    pub(super) fn looks_up(
        &mut self,
        id: ClientId,
        store: &Store,
        key: Hashed<'_>,
        miss: Miss,
        (asked, trace): (&Asked, &mut Option<Box<Trace>>),
    ) -> bool {
        let Some(remote) = self.remote.clone() else { return false };
        if miss == Miss::Older || self.flights.is_taken(key) {
            return false;
        }
        let now_us = self.now_us;
        let Some(client) = self.clients.get_mut(id) else { return false };
        let group = client.group;
        let usual_us = self.usual.of(self.groups[group].catalog, asked.shape);
        // What was there a moment ago most probably stands there, too, and does not count.
        if miss == Miss::Changed && usual_us.is_some_and(|usual_us| usual_us < FAST_US) {
            return false;
        }
        if client.caching().wrote_since(now_us.saturating_sub(SLACK_US)) || !remote.is_open() {
            return false;
        }
        let Some(shared) = self.shared_key(group, &key, store, hold_kind(trace.as_deref())) else {
            self.registry.remote.miss(RemoteMiss::Schema).add(1);
            return false;
        };
        self.followed += 1;
        let (key, number) = (key.to_owned(), self.followed);
        self.flights.begin(&key, Leader::Lookup { number, since_us: now_us });
        self.waits_for_flight(id, key.as_ref());
        let (longest, deps) = (store.longest(), self.deps_of(group, asked.shape, &asked.tags));
        self.note_signals(group);
        let trace = trace.take();
        self.todo.push(Todo::Far(Far::Look(Lookup { key, number, group, shared, longest, deps, usual_us, trace })));
        true
    }

    /// Whether what was found does not count here.
    fn is_void(&self, lookup: &Lookup, found: &Found) -> bool {
        let known = self.groups.get(lookup.group).is_some();
        let trace = || self.trace_of_found(lookup.group, lookup.trace.as_deref(), (&found.hold, found.began_us));
        known && trace().err() == Some(Useless::Void)
    }

    /// The shared cache has answered, or has not.
    fn looked_up(&mut self, lookup: &Lookup, found: Option<Found>) {
        self.now_us = clock::now_us();
        let Lookup { key, number, .. } = lookup;
        let is_it = |leader: Leader| matches!(leader, Leader::Lookup { number: it, .. } if it == *number);
        if !self.flights.get(key.as_ref()).is_some_and(|flight| is_it(flight.leader)) {
            return;
        }
        let entry = found.and_then(|found| self.take_over(lookup, found));
        // Also if this process has no room for it.
        self.landed = entry.map(|entry| (key.clone(), entry));
        self.lands(key.as_ref(), is_it, Landing::LookedUp);
        let found = self.landed.take().is_some();
        // Who was to ask a server does not, or not for this: nobody is to wait for it.
        if !found && !self.flights.is_taken(key.as_ref()) {
            self.shares_nothing(Some(lookup.shared.clone()));
        }
    }

    /// Keeps an answer that another process has kept.
    fn take_over(&mut self, lookup: &Lookup, found: Found) -> Option<Arc<Entry>> {
        let Lookup { key, deps, trace, .. } = lookup;
        let (store, group) = (self.cache.clone()?, lookup.group);
        let stamp = Stamp { began_us: found.began_us, source: found.source };
        if self.groups.get(group).is_none() || !self.shows_signals(group, stamp) {
            return None;
        }
        let (traced, fenced) = self.trace_of_found(group, trace.as_deref(), (&found.hold, found.began_us)).ok()?;
        // Who waits for a fence finds it nowhere else.
        let demand = if fenced.is_some() { Demand::Wanted } else { Demand::Unknown };
        let this = self.groups.get_mut(group)?;
        let tenant = Arc::clone(this.tenant.get_or_insert_with(|| store.tenant(&this.key, &this.database)));
        // Somebody had seen it before it was found, and it was on its way to us since: what begins now is newer.
        let done_us = self.now_us.saturating_sub(1);
        let rows = answer::rows(&found.answer);
        let entry = Entry::new(key.len(), (found.answer, rows), stamp, done_us, found.ttl_us, tenant);
        let entry = Arc::new(entry.traced(traced).fenced(fenced).hanging_on(Arc::clone(deps)));
        let stands = self.stands(group, key, &entry);
        (stands && store.put(key.clone(), Arc::clone(&entry), demand) != Put::Older).then_some(entry)
    }

    /// Gives the shared cache an answer of this process, if it is to have it.
    pub(super) fn shares(&mut self, group: GroupId, shared: Option<Box<[u8]>>, entry: &Entry) {
        let Some((key, remote)) = shared.zip(self.remote.as_ref()) else { return };
        let Some(hold) = self.hold_of(group, entry).filter(|_| remote.takes()) else {
            return self.shares_nothing(Some(key));
        };
        let (answer, Stamp { began_us, source }) = (entry.answer.clone(), entry.stamp);
        self.todo.push(Todo::Far(Far::Keep(Keep { key, answer, began_us, source, ttl_us: entry.ttl_us, hold })));
    }

    /// Nothing comes of what was asked for the shared cache as well.
    pub(super) fn shares_nothing(&mut self, shared: Option<Box<[u8]>>) {
        if let Some(key) = shared
            && self.remote.as_ref().is_some_and(|remote| remote.config().one_flight)
        {
            self.todo.push(Todo::Far(Far::GiveUp(key)));
        }
    }

    /// The shared cache is not to have an answer any more: there is a newer one, which is too long to be kept.
    pub(super) fn shares_none(&mut self, shared: Option<Box<[u8]>>) {
        if let Some((key, remote)) = shared.zip(self.remote.as_ref())
            && remote.takes()
        {
            self.todo.push(Todo::Far(Far::Remove(key)));
        }
    }
}
