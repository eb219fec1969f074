//! What all workers know of statements, by shape and pool.
//! Must never keep a worker waiting: it reads what they write.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use foldhash::fast::RandomState;

use super::histogram::HistogramSnapshot;
use super::registry::Registry;
use super::sample::{Phase, PoolLabel, Target};
use super::shape_stats::ShapeStats;

/// The numbers of one shape in one pool, of each worker that has them and by who answered; never empty.
#[derive(Clone, Debug)]
pub struct ShapeSum(Vec<Arc<ShapeStats>>);

impl ShapeSum {
    /// Every shape with a call, by pool; `other` too.
    #[must_use]
    pub fn all(registry: &Registry) -> Vec<Self> {
        let mut index: HashMap<(Option<u64>, Arc<PoolLabel>), usize, RandomState> = HashMap::default();
        let mut all: Vec<Self> = Vec::new();
        for view in registry.shapes().iter() {
            view.for_each(|stats| {
                if stats.calls.get() == 0 {
                    return;
                }
                let at = *index.entry((stats.shape, Arc::clone(&stats.pool))).or_insert(all.len());
                match all.get_mut(at) {
                    Some(sum) => sum.0.push(Arc::clone(stats)),
                    None => all.push(Self(vec![Arc::clone(stats)])),
                }
            });
        }
        all
    }

    /// What is the same for all workers: shape, pool, text.
    #[must_use]
    pub fn first(&self) -> Option<&ShapeStats> {
        self.0.first().map(|stats| &**stats)
    }

    /// Of each worker, and by who answered.
    #[must_use]
    pub fn entries(&self) -> &[Arc<ShapeStats>] {
        &self.0
    }

    /// A number of all workers.
    #[must_use]
    pub fn sum(&self, number: impl Fn(&ShapeStats) -> u64) -> u64 {
        self.0.iter().map(|stats| number(stats)).sum()
    }

    /// A phase of all workers.
    #[must_use]
    pub fn merged(&self, phase: Phase) -> HistogramSnapshot {
        let mut all = HistogramSnapshot::default();
        self.0.iter().for_each(|stats| stats.add_to(phase, &mut all));
        all
    }

    /// The same by who answered.
    #[must_use]
    pub fn by_target(&self) -> BTreeMap<Target, Self> {
        let mut by: BTreeMap<Target, Self> = BTreeMap::new();
        for stats in &self.0 {
            by.entry(stats.target.clone()).or_insert_with(|| Self(Vec::new())).0.push(Arc::clone(stats));
        }
        by
    }

    /// What the shape is called: 16 hexadecimal digits, or `other`.
    #[must_use]
    pub fn name(shape: Option<u64>) -> String {
        shape.map_or_else(|| "other".to_owned(), |shape| format!("{shape:016x}"))
    }
}
