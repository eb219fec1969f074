//! Reads whose answer another worker is asking for already: one flight for the process.
//! Must never have a client wait for a worker that does not know of it.
//!
//! The flights of a worker ([`super::flights`]) are its own affair; which worker leads is written down for all ([`crate::cache::aloft`]).
//! Who finds another there waits with a flight whose leader is that worker, and is told by mail what became of it. It asks the cache, which all
//! workers share, then, and a server if the answer does not do.

use std::hash::BuildHasher;

use super::flights::{Landing, Leader};
use super::{ClientId, Errand, Relay};
use crate::base::clock;
use crate::cache::aloft::Turn;
use crate::cache::key::{HASHES, Hashed, Owned};

/// What became of what other workers wait for.
#[derive(Debug)]
pub struct Landed {
    key: Owned,
    is_kept: bool,
}

impl Relay {
    /// Has the client wait for the answer to the same batch of another on another worker, if there is one; else others may wait for this
    /// client's, which is about to be kept.
    pub(super) fn follows_abroad(&mut self, id: ClientId, key: Hashed<'_>) -> bool {
        if !self.is_one_of_many() || self.flights.is_taken(key) {
            return false;
        }
        let Some(alike) = self.alike(id) else { return false };
        if self.place.caches.aloft().turn(key, self.place.worker, alike) != Turn::Waits {
            return false;
        }
        self.flights.begin(&key.to_owned(), Leader::Abroad { alike });
        self.waits_for_flight(id, key)
    }

    /// What clients of different workers have in common that may wait for each other, besides what their keys say.
    pub(super) fn alike(&self, id: ClientId) -> Option<u64> {
        self.clients.get(id).map(|client| HASHES.hash_one((client.course, &*client.params.riding.borrow())))
    }

    /// Whether another worker asks for this.
    pub(super) fn is_led_abroad(&self, key: Hashed<'_>) -> bool {
        self.is_one_of_many() && self.place.caches.aloft().is_led_elsewhere(key, self.place.worker)
    }

    /// Something went wrong: nobody waits for what this worker may not come back to.
    pub(super) fn forgets_abroad(&self) {
        self.place.caches.aloft().forget(self.place.worker);
    }

    /// Whether clients of other workers wait for this.
    pub(super) fn is_waited_for_abroad(&self, key: Hashed<'_>) -> bool {
        self.is_one_of_many() && self.place.caches.aloft().is_waited_for(key, self.place.worker)
    }

    /// What this worker has asked for has come, or will not.
    pub(super) fn tells_abroad(&self, key: Hashed<'_>, landing: Landing) {
        if !self.is_one_of_many() {
            return;
        }
        let is_kept = landing == Landing::Kept;
        for worker in self.place.caches.aloft().over(key, self.place.worker) {
            self.send(worker, Errand::Landed(Landed { key: key.to_owned(), is_kept }));
        }
    }

    /// Another worker's answer has come, or will not.
    pub fn landed_abroad(&mut self, landed: &Landed) {
        self.now_us = clock::now_us();
        let landing = if landed.is_kept { Landing::Kept } else { Landing::Failed };
        self.lands(landed.key.as_ref(), |leader| matches!(leader, Leader::Abroad { .. }), landing);
    }

    fn is_one_of_many(&self) -> bool {
        self.place.workers > 1
    }
}
