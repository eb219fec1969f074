//! Shapes that had to leave the table, and are remembered for one statement that took very long, or for many that failed.
//! Must never remember more than twice its bound, nor cost more than two comparisons where a shape is not remarkable.
//!
//! What a table ranks by, time in all, says nothing of what is rare and takes a minute, or is cheap and always fails. A shape that is displaced
//! stays visible here, with its numbers, as long as it is among so many by its longest statement, or among so many by its errors; it is
//! counted on when it comes again.

use std::cmp::Reverse;
use std::sync::Arc;

use super::shape_stats::ShapeStats;
use super::shapes::Key;

/// So many by each of the two.
const MOST: usize = 50;
/// But no more than a part of the slots of its table.
const PART: usize = 8;

/// Those of a table.
#[derive(Debug)]
pub(super) struct Notables {
    most: usize,
    all: Vec<(Key, Arc<ShapeStats>)>,
    /// What the longest statement must take beyond, µs, and the errors must be, to get in.
    least: (u64, u64),
}

impl Notables {
    /// For a table with so many slots.
    pub fn new(capacity: usize) -> Self {
        Self { most: MOST.min(capacity / PART), all: Vec::new(), least: (0, 0) }
    }

    /// Those that readers are to see.
    pub fn shown(&self) -> Vec<Arc<ShapeStats>> {
        self.all.iter().map(|(_, stats)| Arc::clone(stats)).collect()
    }

    /// One is displaced. What is not remembered (any more): that one, or another in its place.
    pub fn offer(&mut self, key: Key, stats: Arc<ShapeStats>) -> Option<(Key, Arc<ShapeStats>)> {
        let (max_us, errors) = (stats.max_us(), stats.errors.get());
        if self.most == 0 || (max_us <= self.least.0 && errors <= self.least.1) {
            return Some((key, stats));
        }
        self.all.push((key, stats));
        let fallen = if self.all.len() > 2 * self.most { self.least_remarkable() } else { None };
        self.settle();
        fallen
    }

    /// Takes out one that has come again.
    pub fn take(&mut self, key: &Key) -> Option<Arc<ShapeStats>> {
        let at = self.all.iter().position(|(known, _)| known == key)?;
        let (_, stats) = self.all.swap_remove(at);
        self.settle();
        Some(stats)
    }

    /// One that is not among the first by either: there is one, as the two have no more places than that.
    fn least_remarkable(&mut self) -> Option<(Key, Arc<ShapeStats>)> {
        let (by_max, by_errors) = self.ranks();
        let at =
            by_max.iter().skip(self.most).find(|at| !by_errors.iter().take(self.most).any(|other| other == *at))?;
        Some(self.all.swap_remove(*at))
    }

    /// Places in the list, the first by the longest statement first, and by errors.
    fn ranks(&self) -> (Vec<usize>, Vec<usize>) {
        let sorted = |key: &dyn Fn(&ShapeStats) -> u64| {
            let mut places: Vec<usize> = (0..self.all.len()).collect();
            places.sort_by_cached_key(|at| self.all.get(*at).map(|(_, stats)| Reverse(key(stats))));
            places
        };
        (sorted(&ShapeStats::max_us), sorted(&|stats| stats.errors.get()))
    }

    fn settle(&mut self) {
        let (by_max, by_errors) = self.ranks();
        let last = |places: &[usize], key: &dyn Fn(&ShapeStats) -> u64| {
            let last = places.get(self.most.wrapping_sub(1)).and_then(|at| self.all.get(*at));
            last.map_or(0, |(_, stats)| key(stats))
        };
        self.least = (last(&by_max, &ShapeStats::max_us), last(&by_errors, &|stats| stats.errors.get()));
    }
}
