//! What shapes have counted since an operator last said `RESET STATS`.
//! Must never set a counter back: it only remembers where it stood.

use super::by_shape::ShapeSum;
use super::histogram::HistogramSnapshot;
use super::sample::Phase;
use super::shape_stats::ShapeStats;

/// Where the numbers of an entry stood. As large as the entry: 8.8 KiB.
#[derive(Debug, Default)]
pub(super) struct Mark(Numbers);

/// What is counted.
#[derive(Clone, Debug, Default)]
struct Numbers {
    calls: u64,
    errors: u64,
    rows: u64,
    bytes: u64,
    total_us: u64,
    phases: [HistogramSnapshot; Phase::ALL.len()],
}

impl Numbers {
    fn of(stats: &ShapeStats) -> Self {
        Self {
            calls: stats.calls.get(),
            errors: stats.errors.get(),
            rows: stats.rows.get(),
            bytes: stats.bytes.get(),
            total_us: stats.total_us.get(),
            phases: Phase::ALL.map(|phase| stats.phase(phase)),
        }
    }

    fn add(&mut self, other: &Self) {
        self.calls += other.calls;
        self.errors += other.errors;
        self.rows += other.rows;
        self.bytes += other.bytes;
        self.total_us = self.total_us.wrapping_add(other.total_us);
        self.phases.iter_mut().zip(&other.phases).for_each(|(mine, theirs)| mine.merge(theirs));
    }

    fn since(self, before: &Self) -> Self {
        let mut phases = self.phases;
        phases.iter_mut().zip(&before.phases).for_each(|(now, then)| *now = now.since(then));
        Self {
            calls: self.calls.saturating_sub(before.calls),
            errors: self.errors.saturating_sub(before.errors),
            rows: self.rows.saturating_sub(before.rows),
            bytes: self.bytes.saturating_sub(before.bytes),
            total_us: self.total_us.saturating_sub(before.total_us),
            phases,
        }
    }
}

impl Mark {
    /// Where they stand now.
    pub fn of(stats: &ShapeStats) -> Self {
        Self(Numbers::of(stats))
    }

    /// Where they stood of an entry that has taken over the numbers of another.
    #[must_use]
    pub fn and(&self, other: &Self) -> Self {
        let mut sum = self.0.clone();
        sum.add(&other.0);
        Self(sum)
    }
}

/// The numbers of one shape in one pool, all workers and whoever answered, since `RESET STATS`, or since the start if nobody has said it.
#[derive(Clone, Debug, Default)]
pub struct Lately {
    /// Calls, also failed ones.
    pub calls: u64,
    /// Calls that failed.
    pub errors: u64,
    /// Rows returned or affected.
    pub rows: u64,
    /// Bytes of the replies.
    pub bytes: u64,
    /// Wait plus server time, µs.
    pub total_us: u64,
    /// Most time in µs that it may have had without being counted by itself.
    pub missed_us_max: u64,
    /// By [`Phase`]. The largest values are exact only before the first reset, and off by an eighth at most after it.
    phases: [HistogramSnapshot; Phase::ALL.len()],
}

impl Lately {
    /// How long this phase took.
    #[must_use]
    pub fn phase(&self, phase: Phase) -> &HistogramSnapshot {
        &self.phases[phase as usize]
    }
}

impl ShapeSum {
    /// Its numbers since the last reset; `None` if it was not called since then.
    #[must_use]
    pub fn lately(&self) -> Option<Lately> {
        let (mut sum, mut missed_us_max) = (Numbers::default(), 0);
        for stats in self.entries() {
            let now = Numbers::of(stats);
            match stats.mark().as_deref() {
                // What it had before it was counted by itself was before the reset, too.
                Some(Mark(before)) => sum.add(&now.since(before)),
                None => {
                    sum.add(&now);
                    missed_us_max += stats.missed_us_max;
                }
            }
        }
        let Numbers { calls, errors, rows, bytes, total_us, phases } = sum;
        (calls > 0).then_some(Lately { calls, errors, rows, bytes, total_us, missed_us_max, phases })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::meter::{Place, Registry, Sample, ShapeTable};

    fn called(table: &mut ShapeTable, pool: u32, shape: u64, server_us: u64) {
        let slot = table.slot(pool, shape, || format!("shape {shape}"));
        table.record(slot, &Sample { server_us, rows: 1, ..Sample::default() });
    }

    fn find(registry: &Registry, shape: Option<u64>) -> ShapeSum {
        let all = ShapeSum::all(registry);
        all.into_iter().find(|sum| sum.first().unwrap().shape == shape).unwrap()
    }

    #[test]
    fn a_reset_begins_anew_and_counters_go_on() {
        let registry = Registry::new();
        let mut table = ShapeTable::new(4);
        registry.add_shapes(table.view());
        let pool = table.add_place(Place::test("d", "u"));
        (0..10).for_each(|_| called(&mut table, pool, 7, 1_000_000));
        registry.reset_shapes();
        assert!(find(&registry, Some(7)).lately().is_none());
        (0..3).for_each(|_| called(&mut table, pool, 7, 100));
        let sum = find(&registry, Some(7));
        let lately = sum.lately().unwrap();
        assert_eq!((lately.calls, lately.rows, lately.total_us, lately.phase(Phase::Server).count), (3, 3, 300, 3));
        assert!(
            lately.phase(Phase::Total).max_us < 120 && lately.phase(Phase::Total).quantile(0.99) < 120,
            "{lately:?}"
        );
        assert_eq!(sum.sum(|stats| stats.calls.get()), 13);
        // A second one counts from there.
        registry.reset_shapes();
        called(&mut table, pool, 7, 5);
        assert_eq!(find(&registry, Some(7)).lately().unwrap().total_us, 5);
    }

    #[test]
    fn what_a_displaced_shape_had_before_stays_before() {
        let registry = Registry::new();
        let mut table = ShapeTable::new(1);
        registry.add_shapes(table.view());
        let pool = table.add_place(Place::test("d", "u"));
        (0..10).for_each(|_| called(&mut table, pool, 7, 1000));
        registry.reset_shapes();
        called(&mut table, pool, 7, 20);
        called(&mut table, pool, 8, 30);
        let other = find(&registry, None);
        assert_eq!(other.sum(|stats| stats.calls.get()), 11);
        let lately = other.lately().unwrap();
        assert_eq!((lately.calls, lately.total_us), (1, 20));
        assert!(lately.phase(Phase::Total).max_us < 23, "{lately:?}");
    }
}
