//! Which of what the cache has a client is given: what is good, or what is over but still does; and who asks for it anew instead.
//! Must never give what its client's own last write is not in, nor what is void, whatever time is left.
//!
//! *Before the end.* The more often an answer is asked for, the more clients find at the same moment that its time is over. So each
//! hit asks anew, instead of being given the answer, with a probability that grows towards the end: if less is left than the answer took, times
//! `early_refresh`, times a number drawn from the exponential distribution (Vattani, Chierichetti, Lowenstein: Optimal Probabilistic Cache Stampede
//! Prevention, VLDB 2015). All others are given the old one meanwhile. Of `n` hits in the time that an answer takes none is drawn before the end with
//! probability `exp(-n * early_refresh)`: what is hot is always renewed ahead, what is asked for now and then is not. It costs a hit one comparison of numbers
//! that are there, and near the end a logarithm. What is renewed early is asked for as any miss is: the client that does it waits for a server, which it would not have had to;
//! if there is none at once it does not, and if its server fails the old answer stands in ([`super::stand_in`]). What another process has put into the cache that
//! they share is renewed by that one, which knows how long it took; the others find it there.
//!
//! *Behind the end.* With `stale_while_revalidate` one client asks anew, and as long as it waits all others are given the old one. With `stale_if_error`
//! everybody is while no server answers.

use std::sync::Arc;
use std::time::Duration;

use super::asked::Asked;
use super::client::{Losses, SentBack};
use super::{ClientId, GroupId, Relay};
use crate::cache::key::Hashed;
use crate::cache::{Entry, Outcome, Store};
use crate::config::CacheMode;
use crate::meter::Miss;
use crate::wire::build;
use crate::wire::frame::HEADER;
use crate::wire::tag;

/// What there is in the cache.
pub(super) enum Found {
    /// An answer whose time is not over.
    Good(Arc<Entry>),
    /// One whose time is, and that does while there is no other.
    Late(Arc<Entry>),
}

/// What becomes of a batch that there is an answer to.
pub(super) enum Service {
    /// It is given that.
    Given(Arc<Entry>),
    /// It runs, and what comes of it is compared.
    Compared(Arc<Entry>),
    /// It runs, and what comes of it takes the place of the old one; what that counts as.
    Renewed(Option<Miss>),
}

impl Relay {
    /// The answer that the cache has for the client, or why it has none.
    pub(super) fn found(&mut self, id: ClientId, store: &Store, key: Hashed<'_>, asked: &Asked) -> Result<Found, Miss> {
        let group = self.clients.get(id).ok_or(Miss::Absent)?.group;
        self.hears(group);
        let entry = match &self.landed {
            Some((landed, entry)) if landed.as_ref() == key => Arc::clone(entry),
            _ => store.get(key).ok_or(Miss::Absent)?,
        };
        let is_good = entry.is_good(self.now_us, asked.ttl_us);
        if !is_good {
            let more_us = self.stale_us(group);
            if !entry.is_within(self.now_us, u64::MAX, more_us) {
                store.forget(key, &entry);
            }
            if !entry.is_within(self.now_us, asked.ttl_us, more_us) {
                return Err(Miss::Expired);
            }
        }
        let held = self.holds(group, &key, &entry);
        if matches!(held, Err(Miss::Changed | Miss::Signalled)) {
            store.forget(key, &entry);
        }
        held?;
        if !self.shows_own(id, &entry) {
            return Err(Miss::Older);
        }
        Ok(if is_good { Found::Good(entry) } else { Found::Late(entry) })
    }

    /// Whether the answer certainly shows what the client wrote.
    pub(super) fn shows_own(&mut self, id: ClientId, entry: &Entry) -> bool {
        let Some(client) = self.clients.get_mut(id) else { return false };
        let cluster = &self.groups[client.group].cluster;
        client.caching().sees(entry.stamp, cluster, self.now_us)
    }

    /// How much longer than its time an answer does at most, microseconds.
    fn stale_us(&self, group: GroupId) -> u64 {
        if self.config.cache.mode != CacheMode::On {
            return 0;
        }
        let stale = &self.groups[group].terms.stale;
        micros(stale.while_revalidate.max(stale.if_error))
    }

    /// What becomes of the client's batch, to which there is an answer. `pipelines`: it has sent more behind it; `spared`: no server has
    /// answered it.
    pub(super) fn service(
        &mut self,
        id: ClientId,
        key: Hashed<'_>,
        found: Found,
        asked: &Asked,
        (pipelines, spared): (bool, bool),
    ) -> Service {
        let Some(group) = self.clients.get(id).map(|client| client.group) else { return Service::Renewed(None) };
        match found {
            Found::Good(entry) => {
                if spared || pipelines {
                    return Service::Given(entry);
                }
                if self.clients.get(id).is_some_and(|client| client.warms().is_some()) {
                    // By the next time it may be over.
                    let is_old = entry.left_us(self.now_us, asked.ttl_us) < entry.ttl_us.min(asked.ttl_us) / 2;
                    let renews = is_old && !self.is_asked_for(key);
                    return if renews { Service::Renewed(None) } else { Service::Given(entry) };
                }
                if self.is_verified() {
                    return Service::Compared(entry);
                }
                if self.is_due(&entry, asked.ttl_us) && !self.is_asked_for(key) && self.has_servers_free(group) {
                    self.cache_counters(group).early.add(1);
                    return Service::Renewed(None);
                }
                Service::Given(entry)
            }
            Found::Late(entry) => {
                let stale = self.groups[group].terms.stale;
                let is_within = |more| entry.is_within(self.now_us, asked.ttl_us, micros(more));
                if is_within(stale.if_error) && (spared || self.is_down(group)) {
                    self.cache_counters(group).stale_error.add(1);
                    return Service::Given(entry);
                }
                let here = || self.flights.get(key).is_some_and(|flight| self.is_leading(key, flight.leader));
                let renewing = || here() || self.is_led_abroad(key);
                if is_within(stale.while_revalidate) && renewing() {
                    self.cache_counters(group).stale_updating.add(1);
                    return Service::Given(entry);
                }
                Service::Renewed(Some(Miss::Expired))
            }
        }
    }

    /// Whether somebody asks for it anew already.
    fn is_asked_for(&self, key: Hashed<'_>) -> bool {
        self.flights.is_taken(key) || self.is_led_abroad(key)
    }

    /// Whether this hit is to be asked for anew before its end.
    fn is_due(&mut self, entry: &Entry, ttl_us: u64) -> bool {
        let left_us = entry.left_us(self.now_us, ttl_us) as f64;
        let early_us = f64::from(entry.took_us) * self.config.cache.early_refresh;
        left_us < early_us * FARTHEST && left_us < early_us * exponential(self.draw())
    }

    /// Nobody waits for a server of the group's, and there is one or can be.
    fn has_servers_free(&self, group: GroupId) -> bool {
        self.pools[self.groups[group].primary].slice.waiting() == 0 && !self.is_down(group)
    }

    /// Gives the client an answer that is kept.
    pub(super) fn answer_from(&mut self, id: ClientId, entry: &Entry, asked: Asked, len: usize) {
        let Some(client) = self.clients.get_mut(id) else { return };
        entry.is_used();
        let sent = entry.answer.len() + if asked.parses { HEADER } else { 0 };
        // Before it is sent: whoever has its answer finds it counted.
        let counters = &self.pools[self.groups[client.group].primary].counters;
        counters.total_received.add(len as u64);
        counters.total_sent.add(sent as u64);
        counters.total_query_count.add(1);
        counters.total_xact_count.add(1);
        counters.cache.hits.add(1);
        counters.cache.hit_bytes.add(sent as u64);
        if asked.parses {
            let mut out = std::mem::take(&mut self.tx);
            build::message(&mut out, tag::server::PARSE_COMPLETE, |_| {});
            out.extend_from_slice(&entry.answer);
            client.send(&out);
            out.clear();
            self.tx = out;
        } else {
            client.send(&entry.answer);
        }
        asked.unnamed.into_iter().for_each(|unnamed| client.unnamed = unnamed);
        let shape = asked.shape;
        (client.paid, client.current, client.sent_back) = (false, false, SentBack::Nowhere);
        client.losses = Losses::default();
        counters.cache.followed.add(u64::from(asked.follows));
        client.warms().into_iter().for_each(|warms| warms.tell(Outcome::Kept));
        if self.draining {
            client.wake();
        }
        let shared = self.landed.as_ref().is_some_and(|(_, landed)| std::ptr::eq(&raw const **landed, entry));
        self.count_kept(id, (shape, asked.parent), entry, sent, shared);
        if let Some(client) = self.clients.get_mut(id) {
            client.active_us = self.now_us;
            client.caching().why = None;
        }
    }
}

/// Larger than any number that [`exponential`] makes of 2^32 different ones.
const FARTHEST: f64 = 23.0;

/// A number of the exponential distribution with mean 1 for one drawn evenly from 0 up to 1.
fn exponential(drawn: f64) -> f64 {
    -(1.0 - drawn).ln()
}

pub(super) fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_of_the_exponential_distribution() {
        let largest = f64::from(u32::MAX) / (f64::from(u32::MAX) + 1.0);
        assert_eq!(exponential(0.0), 0.0);
        assert!(exponential(largest) > 22.0 && exponential(largest) < FARTHEST);
        let numbers = (0..1000).map(|n| exponential((f64::from(n) + 0.5) / 1000.0));
        let mean = numbers.clone().sum::<f64>() / 1000.0;
        assert!((mean - 1.0).abs() < 0.01, "{mean}");
        let beyond = numbers.filter(|number| *number > 3.0).count();
        assert_eq!(beyond, 50, "exp(-3) of them");
    }
}
