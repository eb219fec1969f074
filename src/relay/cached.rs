//! Answers from the cache, for clients that need no server for them.
//! Must never give an answer that may be older than what its client has written, nor one that hangs on what is not in its key.
//!
//! A batch that rides in a lane ([`super::board`]) is nearly one whose answer can be kept: one statement, which certainly only reads, of a
//! session that is nothing but its settings. Beyond that its answer must hang on nothing else ([`crate::sql::kept`]), and somebody must
//! have said for how long it is good. What it hangs on is its key, with what makes all that was kept void: the timeline, and how often the
//! schema was changed from here.
//!
//! *Own writes.* An answer has a stamp from before its execution began. One from the primary shows whatever was committed by then: it is for
//! those whose last write was answered earlier. One from a replica shows what that had replayed: it is for those whose write lies within
//! ([`super::floor`]). A client that reads in turn what is kept and what is not may meet an older state behind a newer one, by no more than
//! the time that answers are good for; but of the same key from the same server none: an answer takes the place of another only if it
//! certainly is newer, and who was told one that does not is told no older one any more ([`crate::cache::Store::put`]). So is who was told one
//! that is not kept, while another's may come to be.

use std::sync::Arc;

use super::catalog::Trust;
use super::client::Client;
use super::fill::Fill;
use super::flights::Landing;
use super::given::{Found, Service};
use super::slow::WhyRun;
use super::wrote::Wrote;
use super::{ClientId, GroupId, Relay};
use crate::cache::key::Hashed;
use crate::cache::{Entry, Outcome, Stamp, Store, Warming};
use crate::config::CacheMode;
use crate::flow::requests::End;
use crate::meter::{Bypass, CacheCounters};
use crate::pool::cluster::{Cluster, Floor};

/// What a client has to do with the cache.
#[derive(Debug, Default)]
pub(super) struct Caching {
    /// The answer to the batch at hand is to be kept.
    pub fill: Option<Box<Fill>>,
    /// What it wrote last.
    wrote: Option<Box<Wrote>>,
    /// Something that may have written was forwarded in this lease.
    pub writes: bool,
    /// Number by which it waits for another's answer; 0: it does not.
    pub follows: u64,
    /// Nobody's answer but its own will do for the batch at hand.
    pub alone: bool,
    /// The cache that processes share has said that it has no answer for the batch at hand.
    pub looked: bool,
    /// No server answers its batch: what stands in for an answer will do ([`super::stand_in`]).
    pub spared: bool,
    /// What it runs changes the schema.
    pub alters: bool,
    /// It asks only so that the answers are kept.
    pub warms: Option<Arc<Warming>>,
    /// Why the batch at hand is not answered from the cache; `None` before that is known, and for what is not looked up.
    pub why: Option<WhyRun>,
    /// When that was looked at first, and last, microseconds; the former 0 once it was told of.
    pub asked_us: u64,
    pub why_us: u64,
    /// What a fence has said of an answer, and when, microseconds; `None`: it could not be asked.
    pub checked: Option<(u64, Arc<Entry>, Option<bool>)>,
}

impl Caching {
    /// Of a client that asks only so that the answers are kept.
    pub fn warming(warms: Arc<Warming>) -> Self {
        Self { warms: Some(warms), ..Self::default() }
    }

    /// Its lease is over.
    pub fn released(&mut self, now_us: u64, floor: impl FnOnce() -> Floor) {
        if std::mem::take(&mut self.writes) {
            self.has_written(now_us, floor());
        }
    }

    /// It has written, or been told of a write.
    pub fn has_written(&mut self, now_us: u64, floor: Floor) {
        let wrote = Wrote::new(now_us, floor);
        match &mut self.wrote {
            Some(known) => **known = wrote,
            none => *none = Some(Box::new(wrote)),
        }
    }

    /// Whether it has written later than then.
    pub fn wrote_since(&self, then_us: u64) -> bool {
        self.wrote.as_ref().is_some_and(|wrote| wrote.at_us() >= then_us)
    }

    /// The servers are others: positions of before say nothing.
    pub fn moved(&mut self, now_us: u64, to: &Cluster) {
        if self.wrote.is_some() {
            self.has_written(now_us, to.wrote());
        }
    }

    /// Whether an answer of this stamp certainly shows what it wrote.
    pub fn sees(&mut self, stamp: Stamp, cluster: &Cluster, now_us: u64) -> bool {
        self.wrote.as_mut().is_none_or(|wrote| wrote.is_in(stamp, cluster, now_us))
    }
}

impl Relay {
    /// Answers the batch of `len` bytes at the front of an idle client's bytes from the cache, or has it wait for another's answer to the
    /// same. `Some`: it does not run now; what [`Relay::pump`] is told. Else its answer may be kept when it comes.
    pub(super) fn consult(&mut self, id: ClientId, data: &[u8], len: usize, end: End) -> Option<Option<usize>> {
        let client = self.clients.get_mut(id)?;
        let store = match &self.cache {
            Some(store) if self.groups[client.group].terms.caches => store.clone(),
            _ => {
                self.fill_abandoned(id);
                return None;
            }
        };
        let now_us = self.now_us;
        let caching = client.caching();
        caching.follows = 0;
        if caching.why.is_none() {
            caching.asked_us = now_us;
        }
        let (before, spared) = (caching.fill.take(), std::mem::take(&mut caching.spared));
        // Whoever else comes to ask before this is over has a key of his own.
        let mut key = std::mem::take(&mut self.key);
        let (done, goes_on) = self.consult_with(id, &store, &mut key, data, (len, end), (before.as_deref(), spared));
        if goes_on {
            // It comes a second time, having been elsewhere.
            self.clients.get_mut(id)?.caching().fill = before;
        } else {
            let landing = match done {
                Some(Some(_)) if spared => Landing::Spared,
                Some(Some(_)) => Landing::Kept,
                _ => Landing::Failed,
            };
            self.fill_ends(id, before, landing);
        }
        self.key = key;
        done
    }

    /// What [`Relay::consult`] says, and whether what the client had begun to keep goes on.
    fn consult_with(
        &mut self,
        id: ClientId,
        store: &Store,
        key: &mut Vec<u8>,
        data: &[u8],
        (len, end): (usize, End),
        (before, spared): (Option<&Fill>, bool),
    ) -> (Option<Option<usize>>, bool) {
        let Some(group) = self.clients.get(id).map(|client| client.group) else { return (None, false) };
        let mut asked = match self.asked(id, store, key, data.get(..len).unwrap_or_default(), end) {
            Ok(asked) => asked,
            Err(bypass) => return self.bypasses(id, group, bypass),
        };
        if store.is_disabled(&self.groups[group].database, asked.shape) {
            return self.bypasses(id, group, Bypass::Disabled);
        }
        let key = Hashed::new(key);
        let found = self.found(id, store, key, &asked);
        let Some(found) = self.fence_says(id, (key, store), found) else { return (Some(None), false) };
        let Some(client) = self.clients.get_mut(id) else { return (None, false) };
        let caching = client.caching();
        let (looked, alone) = (std::mem::take(&mut caching.looked), std::mem::take(&mut caching.alone));
        let missed_before = matches!(caching.why, Some(WhyRun::Missed(_)));
        asked.follows = alone;
        let miss = found.as_ref().err().copied();
        if self.is_left_alone(id, (store, key), asked.shape, miss, looked) {
            return self.bypasses(id, group, Bypass::Rare);
        }
        let serves = self.config.cache.mode == CacheMode::On;
        // What it is compared with, and why it is not given.
        let (expected, miss) = match found {
            Ok(found) if serves => match self.service(id, key, found, &asked, (data.len() > len, spared)) {
                Service::Given(entry) => {
                    self.answer_from(id, &entry, asked, len);
                    return (Some(Some(len)), false);
                }
                Service::Compared(entry) => (Some(entry), None),
                Service::Renewed(miss) => {
                    asked.renews = true;
                    (None, miss)
                }
            },
            Ok(Found::Good(entry) | Found::Late(entry)) => (Some(entry), None),
            Err(miss) => (None, Some(miss)),
        };
        self.runs_as(
            id,
            if expected.is_some() { WhyRun::Compared } else { miss.map_or(WhyRun::Renewed, WhyRun::Missed) },
        );
        let trace = match self.trace(group, &asked, &key) {
            Ok(trace) => trace,
            Err(bypass) => return self.bypasses(id, group, bypass),
        };
        if let Some(miss) = miss
            && !missed_before
        {
            self.cache_counters(group).miss(miss).add(1);
        }
        if before.is_some_and(|fill| fill.key.as_ref() == key) {
            return (None, true);
        }
        let Some(client) = self.clients.get_mut(id) else { return (None, false) };
        if data.len() > len {
            // What is asked behind it without waiting would be taken for a part of its answer, or wait for it. It is told something newer
            // than what is kept.
            client.caching().writes = true;
            return (None, false);
        }
        if serves && expected.is_none() && !alone && self.follows(id, key) {
            return (Some(None), false);
        }
        let mut trace = trace;
        if let Some(miss) = miss
            && serves
            && !alone
            && !looked
            && self.looks_up(id, store, key, miss, (&asked, &mut trace))
        {
            return (Some(None), false);
        }
        if serves && expected.is_none() && !alone && self.follows_abroad(id, key) {
            return (Some(None), false);
        }
        self.fills(id, store, key, (&asked, miss), (expected, trace));
        (None, false)
    }

    /// The batch runs, and has nothing to do with the cache: what [`Relay::consult_with`] says then.
    fn bypasses(&mut self, id: ClientId, group: GroupId, why: Bypass) -> (Option<Option<usize>>, bool) {
        self.cache_counters(group).bypass(why).add(1);
        self.runs_as(id, WhyRun::Bypassed(why));
        if self.clients.get(id).is_some_and(|client| client.warms().is_some()) {
            let catalog = self.catalogs.all.get(self.groups[group].catalog);
            let is_known = catalog.is_some_and(|catalog| catalog.epoch > 0 && catalog.trust == Trust::Full);
            let may_be_unknown = matches!(why, Bypass::Verdict | Bypass::Volatile | Bypass::Session);
            let outcome = if may_be_unknown && !is_known { Outcome::Unknown } else { Outcome::Bypassed(why) };
            self.warmed(id, outcome);
        }
        (None, false)
    }

    fn runs_as(&mut self, id: ClientId, why: WhyRun) {
        let now_us = self.now_us;
        let caching = self.clients.get_mut(id).map(Client::caching);
        caching.into_iter().for_each(|cache| (cache.why, cache.why_us) = (Some(why), now_us));
    }

    /// Whoever asks only so that answers are kept hears what became of this one.
    pub(super) fn warmed(&self, id: ClientId, outcome: Outcome) {
        self.clients.get(id).and_then(|client| client.warms()).into_iter().for_each(|warms| warms.tell(outcome));
    }

    pub(super) fn cache_counters(&self, group: GroupId) -> &CacheCounters {
        &self.pools[self.groups[group].primary].counters.cache
    }
}
