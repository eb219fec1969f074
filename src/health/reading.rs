//! What all workers had counted at a moment.
//! Must never be compared with a later one but as the earlier: numbers grow.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::meter::{HistogramSnapshot, Miss, Phase, Registry, ShapeSum};

/// What a database did from the start to a moment, or between two.
#[derive(Clone, Debug, Default)]
pub(super) struct Traffic {
    /// Of all statements, wait included.
    pub(super) time: HistogramSnapshot,
    pub(super) errors: u64,
    /// Batches that the cache answered.
    pub(super) hits: u64,
    /// Batches that it was asked for in vain.
    pub(super) misses: u64,
}

impl Traffic {
    /// What has come since `before`; numbers of a pool that is gone went with it.
    pub(super) fn since(&self, before: &Self) -> Self {
        Self {
            time: self.time.since(&before.time),
            errors: self.errors.saturating_sub(before.errors),
            hits: self.hits.saturating_sub(before.hits),
            misses: self.misses.saturating_sub(before.misses),
        }
    }

    pub(super) fn add(&mut self, other: &Self) {
        self.time.merge(&other.time);
        self.errors += other.errors;
        self.hits += other.hits;
        self.misses += other.misses;
    }
}

/// All databases at a moment.
#[derive(Debug, Default)]
pub(super) struct Reading {
    /// Of the program's clock.
    pub(super) at_us: u64,
    pub(super) databases: BTreeMap<Arc<str>, Traffic>,
}

impl Reading {
    pub(super) fn take(registry: &Registry, at_us: u64) -> Self {
        let mut databases: BTreeMap<Arc<str>, Traffic> = BTreeMap::new();
        for shape in ShapeSum::all(registry) {
            let Some(first) = shape.first() else { continue };
            let traffic = databases.entry(Arc::clone(&first.pool.database)).or_default();
            shape.entries().iter().for_each(|stats| stats.add_to(Phase::Total, &mut traffic.time));
            traffic.errors += shape.sum(|stats| stats.errors.get());
        }
        for pool in registry.pools().iter() {
            let Some(traffic) = databases.get_mut(&pool.target.database) else { continue };
            traffic.hits += pool.cache.hits.get();
            traffic.misses += Miss::ALL.iter().map(|why| pool.cache.miss(*why).get()).sum::<u64>();
        }
        Self { at_us, databases }
    }

    /// What each database did since `before`.
    pub(super) fn since(&self, before: &Self) -> BTreeMap<Arc<str>, Traffic> {
        let nothing = Traffic::default();
        let did = |(name, now): (&Arc<str>, &Traffic)| {
            (Arc::clone(name), now.since(before.databases.get(name).unwrap_or(&nothing)))
        };
        self.databases.iter().map(did).collect()
    }
}
