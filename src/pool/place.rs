//! On which workers the slices of a pool live.
//! Must never depend on anything but its arguments: the gate and every worker must agree.

use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
use std::sync::Arc;

use super::budget::Budgets;
use super::cluster::Clusters;
use super::rate::Rates;
use super::vacate::Wishes;
use crate::audit::Desk;
use crate::cache::Caches;
use crate::trace;

/// Servers that a slice should have: fewer are better shared by all clients of the pool, as one
/// worker keeps that many busy by itself.
const SERVERS_PER_SLICE: u32 = 4;

/// Where one worker stands among all of a process.
#[derive(Clone, Debug)]
pub struct Place {
    /// Its number, from 0.
    pub worker: u8,
    /// How many there are.
    pub workers: u8,
    /// The limits that they share.
    pub budgets: Arc<Budgets>,
    /// Databases that are to be left.
    pub wishes: Arc<Wishes>,
    /// The hosts of databases.
    pub clusters: Arc<Clusters>,
    /// Rates that rules allow.
    pub rates: Arc<Rates>,
    /// Answers that are kept.
    pub caches: Arc<Caches>,
    /// Where lines of the audit log are handed in.
    pub audit: Arc<Desk>,
    /// Where statements that are traced are handed in.
    pub traces: Arc<trace::Desk>,
}

impl Place {
    /// The only worker of a process.
    #[must_use]
    pub fn alone() -> Self {
        Self {
            worker: 0,
            workers: 1,
            budgets: Arc::default(),
            wishes: Arc::default(),
            clusters: Arc::default(),
            rates: Arc::default(),
            caches: Arc::default(),
            audit: Arc::default(),
            traces: Arc::default(),
        }
    }

    /// Over how many workers a pool of `pool_size` servers is cut: one per four servers.
    #[must_use]
    pub fn slices(&self, pool_size: u32) -> u8 {
        slices(pool_size, self.workers)
    }

    /// This worker's part of the `min` servers that a pool keeps warm.
    #[must_use]
    pub fn part_of(&self, min: u32, database: &str, user: &str, pool_size: u32) -> u32 {
        let slices = u32::from(self.slices(pool_size));
        let number = homes(database, user, pool_size, self.workers).position(|home| home == self.worker);
        number.map_or(0, |number| min / slices + u32::from((number as u32) < min % slices))
    }

    /// A slice of this pool lives here.
    #[must_use]
    pub fn is_home(&self, database: &str, user: &str, pool_size: u32) -> bool {
        homes(database, user, pool_size, self.workers).any(|home| home == self.worker)
    }
}

fn slices(pool_size: u32, workers: u8) -> u8 {
    (pool_size / SERVERS_PER_SLICE).clamp(1, u32::from(workers.max(1))) as u8
}

/// The workers on which the slices of a pool live, distinct, starting at one that depends on the
/// names only.
pub fn homes(database: &str, user: &str, pool_size: u32, workers: u8) -> impl Iterator<Item = u8> {
    let workers = workers.max(1);
    let hasher = BuildHasherDefault::<DefaultHasher>::default();
    let first = (hasher.hash_one((database, user)) % u64::from(workers)) as u8;
    (0..slices(pool_size, workers)).map(move |n| (first + n) % workers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pool_is_cut_as_its_servers_allow() {
        for (size, workers, expected) in [(1, 8, 1), (4, 8, 1), (8, 8, 2), (20, 8, 5), (20, 2, 2), (100, 8, 8)] {
            let homes: Vec<u8> = homes("d", "u", size, workers).collect();
            assert_eq!(homes.len(), expected, "{size} servers, {workers} workers");
            assert!(homes.iter().all(|home| *home < workers));
            assert!(homes.iter().collect::<std::collections::BTreeSet<_>>().len() == expected);
        }
    }
}
