//! Clients that wait for the answer to another one's batch, by the key of that batch.
//! Must never take one key for another.

use std::collections::HashMap;

use super::ClientId;
use crate::cache::key::{Hashed, Owned};

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
    /// A client of another worker.
    Abroad {
        /// See [`super::abroad`].
        alike: u64,
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

/// One batch, and who waits for it.
#[derive(Debug)]
pub(super) struct Flight {
    key: Owned,
    pub leader: Leader,
    /// Each with its number.
    pub followers: Vec<(ClientId, u64)>,
}

/// All of them. By hash, which is there already: of two keys with the same one flies, and the other's batch runs by itself.
#[derive(Debug, Default)]
pub(super) struct Flights(HashMap<u64, Flight, foldhash::fast::RandomState>);

impl Flights {
    pub fn get(&self, key: Hashed<'_>) -> Option<&Flight> {
        self.0.get(&key.hash()).filter(|flight| flight.key.as_ref() == key)
    }

    pub fn get_mut(&mut self, key: Hashed<'_>) -> Option<&mut Flight> {
        self.0.get_mut(&key.hash()).filter(|flight| flight.key.as_ref() == key)
    }

    /// Nobody may lead under this key: somebody does.
    pub fn is_taken(&self, key: Hashed<'_>) -> bool {
        self.0.contains_key(&key.hash())
    }

    /// This one leads from now on. False if it does not, as somebody else does.
    pub fn begin(&mut self, key: &Owned, leader: Leader) -> bool {
        let vacant = !self.is_taken(key.as_ref());
        if vacant {
            self.0.insert(key.as_ref().hash(), Flight { key: key.clone(), leader, followers: Vec::new() });
        }
        vacant
    }

    /// Nobody leads under this key any more, if it is for him that others wait.
    pub fn end(&mut self, key: Hashed<'_>, is_it: impl FnOnce(Leader) -> bool) -> Option<Flight> {
        let is_it = self.get(key).is_some_and(|flight| is_it(flight.leader));
        if is_it { self.0.remove(&key.hash()) } else { None }
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The keys of those whose leader is such.
    pub fn led_by(&self, is_such: impl Fn(Hashed<'_>, Leader) -> bool) -> Vec<Owned> {
        self.0
            .values()
            .filter(|flight| is_such(flight.key.as_ref(), flight.leader))
            .map(|flight| flight.key.clone())
            .collect()
    }
}
