//! Numbers per statement shape as formats need them: by pool and by who answered, the workers' added up.
//! Never shows a text longer than [`TEXT_CHARS_MAX`], whatever a client sent.

use std::sync::Arc;

use super::family::BOUNDS_US;
use crate::meter::{Counter, ERROR_CLASSES, Exemplar, HistogramSnapshot, Phase, Registry, ShapeStats, ShapeSum};

/// Longest `query` label in characters.
const TEXT_CHARS_MAX: usize = 200;
/// Quantiles shown at the internal resolution.
pub(super) const QUANTILES: [f64; 3] = [0.5, 0.95, 0.99];
/// The phases of the histogram; all of it is one as well, since quantiles of parts do not add up.
const PHASES: [Phase; 5] = Phase::ALL;

/// A family of counters: its name, what it is, and its number.
type Count = (&'static str, &'static str, fn(&Row) -> u64);

/// Families with one counter per shape.
pub(super) const COUNTS: [Count; 4] = [
    ("pgweir_query_calls_total", "Statements finished, also with an error, by shape.", |row| row.calls),
    ("pgweir_query_errors_total", "Statements that ended in an error, by shape.", |row| row.errors),
    ("pgweir_query_rows_total", "Rows returned or affected, by shape.", |row| row.rows),
    ("pgweir_query_answer_bytes_total", "Bytes of answers, by shape.", |row| row.bytes),
];
/// Errors by class of SQLSTATE, of those that had any.
pub(super) const CLASSES: (&str, &str) =
    ("pgweir_query_errors_by_class_total", "Statements that ended in an error, by shape and class of SQLSTATE.");
/// Quantiles: a summary.
pub(super) const LATENCIES: (&str, &str) = (
    "pgweir_query_latency_seconds",
    "Quantiles since start, off by at most 6 %, of the time of statements by shape: wait plus server.",
);
/// Histograms.
pub(super) const DURATIONS: (&str, &str) = (
    "pgweir_query_duration_seconds",
    "Time of statements by shape, in all (wait plus server) and split into phases: wait for a server, to the first byte, to the last, and of those whose client kept it waiting, that.",
);

/// One shape of one pool with one that answers, all workers.
pub(super) struct Row {
    first: Arc<ShapeStats>,
    /// What the shape is called.
    pub shape: String,
    calls: u64,
    /// Those that are in [`Row::total_us`] and [`Row::quantiles_us`].
    pub timed: u64,
    errors: u64,
    /// By class, those that there are.
    pub errors_of: Vec<(&'static str, u64)>,
    rows: u64,
    bytes: u64,
    /// Time in all, µs.
    pub total_us: u64,
    /// By [`QUANTILES`].
    pub quantiles_us: [u64; QUANTILES.len()],
    phases: [Spread; PHASES.len()],
}

/// How long a phase took.
pub(super) struct Spread {
    /// How many took no longer than each of [`BOUNDS_US`].
    pub buckets: [u64; BOUNDS_US.len()],
    pub count: u64,
    pub sum_us: u64,
    /// At the internal resolution, where that is shown.
    pub all: Option<HistogramSnapshot>,
    /// What can be seen in a trace, the newest of each bucket: number of the bucket and time, µs. The last bucket has no bound.
    pub exemplars: Vec<(usize, u64, Exemplar)>,
}

impl Spread {
    fn new(sum: &HistogramSnapshot, fine: bool, exemplars: Vec<(usize, u64, Exemplar)>) -> Self {
        let all = fine.then(|| sum.clone());
        Self { buckets: sum.cumulative(&BOUNDS_US), count: sum.count, sum_us: sum.sum_us, all, exemplars }
    }
}

/// The newest of these in each bucket of a phase.
fn exemplars(known: &[Exemplar], phase: Phase) -> Vec<(usize, u64, Exemplar)> {
    let took_us = |one: &Exemplar| match phase {
        Phase::Wait => Some(one.wait_us),
        Phase::FirstByte => Some(one.first_us),
        Phase::Server => Some(one.server_us),
        Phase::Total => Some(one.wait_us + one.server_us),
        // How long a client reads is known only when its statement was told of.
        Phase::Write => None,
    };
    let bucket = |us: u64| BOUNDS_US.iter().take_while(|bound| **bound < us).count();
    let all = known.iter().filter_map(|one| took_us(one).map(|us| (bucket(us), us, *one)));
    let mut all: Vec<_> = all.collect();
    all.sort_by_key(|(bucket, _, one)| (*bucket, std::cmp::Reverse(one.done_us)));
    all.dedup_by_key(|(bucket, ..)| *bucket);
    all
}

impl Row {
    /// All that were called; `fine`: at the internal resolution, too.
    pub fn all(registry: &Registry, fine: bool) -> Vec<Self> {
        let mut sum = HistogramSnapshot::default();
        let by_target = ShapeSum::all(registry).into_iter().flat_map(|shape| shape.by_target().into_values());
        by_target.filter_map(|shape| Self::new(shape.entries(), &mut sum, fine)).collect()
    }

    /// Those that take the most time in all, with at most so many series; and how many series the others would be.
    pub fn most(mut rows: Vec<Self>, max_series: usize) -> (Vec<Self>, usize) {
        let all: usize = rows.iter().map(Self::series).sum();
        if all <= max_series {
            return (rows, 0);
        }
        rows.sort_by_key(|row| std::cmp::Reverse(row.total_us));
        let mut shown = 0;
        rows.retain(|row| {
            let fits = shown + row.series() <= max_series;
            shown += if fits { row.series() } else { 0 };
            fits
        });
        (rows, all - shown)
    }

    /// How many series it is in text; in the form with native histograms they are fewer.
    pub fn series(&self) -> usize {
        COUNTS.len() + self.errors_of.len() + QUANTILES.len() + 2 + self.phases().count() * (BOUNDS_US.len() + 3)
    }

    /// Adds up the entries of one shape; `sum` is scratch space.
    fn new(entries: &[Arc<ShapeStats>], sum: &mut HistogramSnapshot, fine: bool) -> Option<Self> {
        let first = Arc::clone(entries.first()?);
        let add = |value: fn(&ShapeStats) -> u64| entries.iter().map(|stats| value(stats)).sum();
        let errors = add(|stats| stats.errors.get());
        let classes = ERROR_CLASSES.iter().enumerate().filter(|_| errors > 0);
        let of = |at: usize| entries.iter().map(|stats| stats.errors_of.get(at).map_or(0, Counter::get)).sum::<u64>();
        let errors_of = classes.map(|(at, class)| (*class, of(at))).filter(|(_, count)| *count > 0).collect();
        let merge = |phase: Phase, sum: &mut HistogramSnapshot| {
            sum.clear();
            entries.iter().for_each(|stats| stats.add_to(phase, sum));
        };
        let known: Vec<Exemplar> = entries
            .iter()
            .filter_map(|stats| stats.exemplars())
            .flat_map(|all| all.iter().copied().collect::<Vec<_>>())
            .collect();
        let phases = PHASES.map(|phase| {
            merge(phase, sum);
            Spread::new(sum, fine, exemplars(&known, phase))
        });
        // The last of them is that of the whole.
        let (timed, total_us, quantiles_us) = (sum.count, sum.sum_us, QUANTILES.map(|q| sum.quantile(q)));
        let (calls, rows) = (add(|stats| stats.calls.get()), add(|stats| stats.rows.get()));
        let (bytes, shape) = (add(|stats| stats.bytes.get()), ShapeSum::name(first.shape));
        Some(Self { first, shape, calls, timed, errors, errors_of, rows, bytes, total_us, quantiles_us, phases })
    }

    /// Labels that all series have.
    pub fn names(&self) -> [(&'static str, &str); 4] {
        let pool = &self.first.pool;
        [
            ("database", &*pool.database),
            ("user", &*pool.user),
            ("shape", &*self.shape),
            ("target", self.first.target.name()),
        ]
    }

    /// The `query` label.
    pub fn query(&self) -> &str {
        let text = &self.first.text;
        let end = text.char_indices().nth(TEXT_CHARS_MAX).map_or(text.len(), |(at, _)| at);
        text.get(..end).unwrap_or_default()
    }

    /// The phases, without that of clients where none kept an answer waiting.
    pub fn phases(&self) -> impl Iterator<Item = (Phase, &Spread)> {
        let all = PHASES.into_iter().zip(&self.phases);
        all.filter(|(phase, spread)| *phase != Phase::Write || spread.count > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_stands_for_its_bucket() {
        let one =
            |done_us, server_us| Exemplar { trace: [1; 16], span: [2; 8], done_us, wait_us: 0, first_us: 7, server_us };
        let known = [one(3, 100), one(9, 40), one(5, 101), one(4, 31_000_000), one(6, 30_000_000)];
        let found = |phase| {
            exemplars(&known, phase).into_iter().map(|(bucket, us, one)| (bucket, us, one.done_us)).collect::<Vec<_>>()
        };
        assert_eq!(found(Phase::Server), [(0, 40, 9), (1, 101, 5), (11, 30_000_000, 6), (12, 31_000_000, 4)]);
        assert_eq!(found(Phase::FirstByte), [(0, 7, 9)]);
        assert!(found(Phase::Write).is_empty());
    }
}
