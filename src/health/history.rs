//! The last hour: what all databases together did in each ten seconds of it.
//! Must never grow: the oldest goes when the newest comes.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use super::reading::{Reading, Traffic};
use crate::meter::Registry;

/// Between two points.
pub const STEP: Duration = Duration::from_secs(10);
/// Points of an hour.
const POINTS_MAX: usize = 360;
/// Upper ends of the rows of the heat map, µs: two an octave would be finer than a screen; the last row has no end.
pub const HEAT_BOUNDS_US: [u64; 19] = [
    128, 256, 512, 1024, 2048, 4096, 8192, 16_384, 32_768, 65_536, 131_072, 262_144, 524_288, 1_048_576, 2_097_152,
    4_194_304, 8_388_608, 16_777_216, 33_554_432,
];

/// What was done in one step.
#[derive(Clone, Debug, Default)]
pub struct Point {
    /// Its end, seconds since 1970.
    pub at_unix_s: f64,
    /// How long it was, seconds.
    pub length_s: f64,
    /// Statements.
    pub calls: u64,
    /// Of these, failed.
    pub errors: u64,
    /// Quantiles of their time, µs: 0.5, 0.95, 0.99; 0 if there was none.
    pub quantiles_us: [u64; 3],
    /// Batches that the cache answered.
    pub hits: u64,
    /// Batches that it was asked for in vain.
    pub misses: u64,
    /// Clients that had a server, at its end.
    pub active: u64,
    /// Clients that waited for one, at its end.
    pub waiting: u64,
    /// How many statements took up to each of [`HEAT_BOUNDS_US`], and how many longer.
    pub heat: [u32; HEAT_BOUNDS_US.len() + 1],
}

impl Point {
    fn of(registry: &Registry, all: &Traffic, length_us: u64, at_unix_s: f64) -> Self {
        let mut heat = [0; HEAT_BOUNDS_US.len() + 1];
        for (low, _, count) in all.time.occupied() {
            let row = HEAT_BOUNDS_US.partition_point(|bound| *bound <= low);
            if let Some(cell) = heat.get_mut(row) {
                *cell = u32::saturating_add(*cell, u32::try_from(count).unwrap_or(u32::MAX));
            }
        }
        let pools = registry.pools();
        Self {
            at_unix_s,
            length_s: length_us as f64 / 1e6,
            calls: all.time.count,
            errors: all.errors,
            quantiles_us: [0.5, 0.95, 0.99].map(|q| all.time.quantile(q)),
            hits: all.hits,
            misses: all.misses,
            active: pools.iter().map(|pool| pool.clients_active.get()).sum(),
            waiting: pools.iter().map(|pool| pool.clients_waiting.get()).sum(),
            heat,
        }
    }
}

/// The last hour.
#[derive(Debug, Default)]
pub(super) struct History {
    last: Option<Reading>,
    points: VecDeque<Arc<Point>>,
}

impl History {
    /// Takes note of a reading; the points there are now, the oldest first, if that made one.
    pub(super) fn note(&mut self, registry: &Registry, at_us: u64, at_unix_s: f64) -> Option<Vec<Arc<Point>>> {
        let due = self.last.as_ref().is_none_or(|last| at_us.saturating_sub(last.at_us) >= STEP.as_micros() as u64);
        if !due {
            return None;
        }
        let now = Reading::take(registry, at_us);
        if let Some(last) = self.last.replace(now)
            && let Some(now) = &self.last
        {
            let mut all = Traffic::default();
            now.since(&last).values().for_each(|traffic| all.add(traffic));
            if self.points.len() == POINTS_MAX {
                self.points.pop_front();
            }
            self.points.push_back(Arc::new(Point::of(registry, &all, at_us.saturating_sub(last.at_us), at_unix_s)));
        }
        Some(self.points.iter().cloned().collect())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::meter::{ErrorClass, Place, Sample, ShapeTable};
    use crate::wire::error::SqlState;

    #[test]
    fn a_point_is_what_was_done_in_its_step_and_there_are_no_more_than_an_hours() {
        let registry = Registry::new();
        let mut table = ShapeTable::new(8);
        registry.add_shapes(table.view());
        let pool = table.add_place(Place::test("d", "u"));
        let mut run = |server_us, error: bool| {
            let error = error.then(|| ErrorClass::of(SqlState::INTERNAL));
            let slot = table.slot(pool, 1, || "SELECT 1".to_owned());
            table.record(slot, &Sample { server_us, rows: 1, error, ..Sample::default() });
        };
        let mut history = History::default();
        let step_us = STEP.as_micros() as u64;
        run(1_000_000, false);
        assert!(history.note(&registry, 5, 0.0).unwrap().is_empty(), "one reading is no step");
        run(100, false);
        run(3000, true);
        assert!(history.note(&registry, step_us, 1.0).is_none(), "not yet");
        let points = history.note(&registry, 5 + step_us, 10.0).unwrap();
        let point = &points[0];
        assert_eq!((points.len(), point.calls, point.errors, point.length_s), (1, 2, 1, 10.0));
        assert!(point.quantiles_us[2].abs_diff(3000) < 180, "{point:?}");
        assert_eq!((point.heat[0], point.heat[5], point.heat.iter().sum::<u32>()), (1, 1, 2));
        for n in 2..400 {
            history.note(&registry, 5 + n * step_us, n as f64);
        }
        let points = history.note(&registry, 5 + 400 * step_us, 400.0).unwrap();
        assert_eq!((points.len(), points[0].at_unix_s, points[359].at_unix_s), (360, 41.0, 400.0));
        assert_eq!(points[359].calls, 0);
    }
}
