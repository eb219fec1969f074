//! What workers tell each other of databases: that one is to be left, that what is in one has changed.
//! Must never grow: a wish that nobody has read within a thousand others is void.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};

/// Wishes that are kept. Each is uttered anew as long as it lasts, ten times a second.
const KEPT: usize = 1000;

/// A database on a server that is to have no session of pgweir's at rest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wish {
    /// The server's port. Its host may be spelled in many ways, and to close a few servers at rest elsewhere does no harm.
    pub port: u16,
    /// Its name on the server; empty: it may be any.
    pub database: String,
}

/// What is wished for, by all workers of the process.
#[derive(Debug, Default)]
pub struct Wishes {
    /// How many were ever uttered.
    count: AtomicU64,
    newest: Mutex<VecDeque<Wish>>,
    /// How often a schema was seen to change.
    changes: AtomicU64,
}

impl Wishes {
    /// Tells all workers, this one too.
    pub fn utter(&self, wish: Wish) {
        let mut newest = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
        newest.push_back(wish);
        if newest.len() > KEPT {
            newest.pop_front();
        }
        self.count.fetch_add(1, Relaxed);
    }

    /// A statement that changes a schema is sent, or its transaction has ended.
    pub fn schema_changes(&self) {
        self.changes.fetch_add(1, Relaxed);
    }

    /// How often [`Wishes::schema_changes`] was said, by any worker.
    pub fn changes(&self) -> u64 {
        self.changes.load(Relaxed)
    }

    /// What was wished for since the caller has `heard` so many; oldest first. Takes no lock if that is nothing.
    pub fn since(&self, heard: &mut u64) -> Vec<Wish> {
        if self.count.load(Relaxed) == *heard {
            return Vec::new();
        }
        let newest = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
        let count = self.count.load(Relaxed);
        let new = usize::try_from(count.saturating_sub(*heard)).unwrap_or(KEPT);
        *heard = count;
        newest.iter().skip(newest.len().saturating_sub(new)).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everybody_hears_each_wish_once() {
        let wishes = Wishes::default();
        let wish = |n: usize| Wish { port: 1, database: n.to_string() };
        let (mut one, mut other) = (0, 0);
        assert_eq!(wishes.since(&mut one), []);
        wishes.utter(wish(1));
        assert_eq!(wishes.since(&mut one), [wish(1)]);
        wishes.utter(wish(2));
        assert_eq!(wishes.since(&mut one), [wish(2)]);
        assert_eq!(wishes.since(&mut other), [wish(1), wish(2)]);
        (0..2 * KEPT).for_each(|n| wishes.utter(wish(n)));
        let heard = wishes.since(&mut one);
        assert_eq!((heard.len(), heard.last()), (KEPT, Some(&wish(2 * KEPT - 1))));
        assert_eq!(wishes.since(&mut one), []);
    }
}
