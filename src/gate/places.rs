//! How many clients each database and each user has.
//! Must never forget a client while it lives, nor remember a name for ever after its last one.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;

use crate::relay::Seat;

/// Names kept without looking whether they are still needed.
const NAMES: usize = 1024;

/// Clients by name. They are counted without a limit too: one may be set later.
#[derive(Default)]
pub(super) struct Places(RefCell<HashMap<String, Arc<AtomicU32>, foldhash::fast::RandomState>>);

impl Places {
    /// A place of `name` under `limit`, given back when the client goes; `None` if there is none
    /// left.
    pub(super) fn take(&self, name: &str, limit: u32) -> Option<Seat> {
        let mut names = self.0.borrow_mut();
        if let Some(taken) = names.get(name) {
            return Seat::take(taken, limit);
        }
        if names.len() == names.capacity() && names.len() >= NAMES {
            // Each seat holds on to its count.
            names.retain(|_, taken| Arc::strong_count(taken) > 1);
        }
        let taken = names.entry(name.to_owned()).or_default();
        Seat::take(taken, limit)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn each_name_has_its_own_places() {
        let places = Places::default();
        let a = [places.take("a", 2), places.take("a", 2)];
        assert!(a.iter().all(Option::is_some));
        assert!(places.take("a", 2).is_none());
        let b = places.take("b", 1);
        assert!(b.is_some() && places.take("b", 1).is_none());
        // Whoever came without a limit counts under one.
        let c: Vec<_> = (0..3).map(|_| places.take("c", u32::MAX).unwrap()).collect();
        assert!(places.take("c", 3).is_none() && places.take("c", 4).is_some());
        drop((a, c));
        assert!(places.take("a", 2).is_some() && places.take("c", 1).is_some());
    }

    #[test]
    fn names_go_with_their_last_client() {
        let places = Places::default();
        let kept = places.take("kept", u32::MAX).unwrap();
        for n in 0..100_000 {
            drop(places.take(&n.to_string(), u32::MAX));
        }
        assert!(places.0.borrow().len() < 8 * NAMES);
        assert!(places.take("kept", 1).is_none());
        drop(kept);
        assert!(places.take("kept", 1).is_some());
    }
}
