//! What all workers know of statements, by shape and pool.
//! Must never keep a worker waiting: it reads what they write.

use std::collections::HashMap;
use std::sync::Arc;

use foldhash::fast::RandomState;

use super::histogram::{Histogram, HistogramSnapshot};
use super::registry::Registry;
use super::shapes::{PoolLabel, ShapeStats};

/// The numbers of one shape in one pool, of each worker that has them; never empty.
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

    /// Of each worker.
    #[must_use]
    pub fn entries(&self) -> &[Arc<ShapeStats>] {
        &self.0
    }

    /// A number of all workers.
    #[must_use]
    pub fn sum(&self, number: impl Fn(&ShapeStats) -> u64) -> u64 {
        self.0.iter().map(|stats| number(stats)).sum()
    }

    /// A histogram of all workers.
    #[must_use]
    pub fn merged(&self, part: impl Fn(&ShapeStats) -> &Histogram) -> HistogramSnapshot {
        let mut all = HistogramSnapshot::default();
        self.0.iter().for_each(|stats| part(stats).add_to(&mut all));
        all
    }

    /// What the shape is called: 16 hexadecimal digits, or `other`.
    #[must_use]
    pub fn name(shape: Option<u64>) -> String {
        shape.map_or_else(|| "other".to_owned(), |shape| format!("{shape:016x}"))
    }
}
