//! What workers are asking servers for, so that others wait for the answer instead of asking as well.
//! Must never take one key for another, nor forget who waits.
//!
//! Each worker knows by itself who waits for what ([the relay's flights](crate::relay)); here is only which worker leads, and which others are
//! to be told what became of it. They are told by their mail, which they read behind the turn in which they began to wait.

use dashmap::DashMap;
use dashmap::mapref::entry::Entry;
use foldhash::fast::RandomState;

use super::key::{Hashed, Owned};

/// Number of a worker: less than 64.
type Worker = u8;

#[derive(Debug)]
struct Lead {
    key: Owned,
    worker: Worker,
    /// What clients must have in common besides the key to wait for each other.
    alike: u64,
    /// Workers that wait, one bit each.
    waiting: u64,
}

/// What a worker does that has no answer under a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// It asks, and others wait for it.
    Leads,
    /// It waits until it is told.
    Waits,
    /// It asks by itself.
    Alone,
}

/// All that is under way. By hash: of two keys with the same one the second is nobody's business.
#[derive(Debug, Default)]
pub struct Aloft(DashMap<u64, Lead, RandomState>);

impl Aloft {
    /// This worker is about to ask for this, for a client of this kind.
    pub fn turn(&self, key: Hashed<'_>, worker: Worker, alike: u64) -> Turn {
        match self.0.entry(key.hash()) {
            Entry::Vacant(vacant) => {
                vacant.insert(Lead { key: key.to_owned(), worker, alike, waiting: 0 });
                Turn::Leads
            }
            Entry::Occupied(mut lead) => {
                let lead = lead.get_mut();
                if lead.key.as_ref() != key || lead.worker == worker || lead.alike != alike {
                    return Turn::Alone;
                }
                lead.waiting |= 1 << worker;
                Turn::Waits
            }
        }
    }

    /// Whether other workers wait for what this one has asked for.
    pub fn is_waited_for(&self, key: Hashed<'_>, worker: Worker) -> bool {
        let is_ours = |lead: &Lead| lead.worker == worker && lead.key.as_ref() == key;
        self.0.get(&key.hash()).is_some_and(|lead| is_ours(&lead) && lead.waiting != 0)
    }

    /// Whether another worker than this one asks for it.
    pub fn is_led_elsewhere(&self, key: Hashed<'_>, worker: Worker) -> bool {
        self.0.get(&key.hash()).is_some_and(|lead| lead.worker != worker && lead.key.as_ref() == key)
    }

    /// It is not certain what this worker asks for.
    pub fn forget(&self, worker: Worker) {
        self.0.retain(|_, lead| lead.worker != worker);
    }

    /// This worker asks for it no more: who is to be told.
    pub fn over(&self, key: Hashed<'_>, worker: Worker) -> impl Iterator<Item = Worker> + use<> {
        let ours = self.0.remove_if(&key.hash(), |_, lead| lead.worker == worker && lead.key.as_ref() == key);
        let waiting = ours.map_or(0, |(_, lead)| lead.waiting);
        (0..64).filter(move |worker| waiting >> worker & 1 == 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_leads_and_those_who_wait_are_told_once() {
        let aloft = Aloft::default();
        let key = Hashed::new(b"key");
        assert_eq!(
            [1, 1, 2, 63, 3].map(|worker| aloft.turn(key, worker, u64::from(worker == 3))),
            [Turn::Leads, Turn::Alone, Turn::Waits, Turn::Waits, Turn::Alone]
        );
        assert_eq!(aloft.turn(Hashed::new(b"other"), 2, 0), Turn::Leads);
        assert!(aloft.is_waited_for(key, 1) && !aloft.is_waited_for(key, 2));
        assert!(!aloft.is_waited_for(Hashed::new(b"other"), 2));
        assert!(aloft.is_led_elsewhere(key, 2) && !aloft.is_led_elsewhere(key, 1));
        assert_eq!(aloft.over(key, 2).count(), 0);
        assert_eq!(aloft.over(key, 1).collect::<Vec<_>>(), [2, 63]);
        assert_eq!((aloft.over(key, 1).count(), aloft.0.len()), (0, 1));
        assert_eq!(aloft.turn(key, 2, 0), Turn::Leads);
        aloft.forget(2);
        assert!(aloft.0.is_empty());
    }
}
