//! What is counted of one shape in one place.
//! Never counts a call more than once, nor takes back what it has counted.

use std::sync::Arc;

use arc_swap::ArcSwapOption;

use super::counters::Counter;
use super::exemplar::Exemplars;
use super::histogram::{Histogram, HistogramSnapshot};
use super::lately::Mark;
use super::sample::{ERROR_CLASSES, ErrorClass, Phase, Place, PoolLabel, Sample, Target};

/// Numbers of one shape in one place on one worker, or of a place's `other`.
#[derive(Debug)]
pub struct ShapeStats {
    /// Shape (hash of the token stream); none for the entry that collects displaced shapes.
    pub shape: Option<u64>,
    /// Database and user.
    pub pool: Arc<PoolLabel>,
    /// Who has answered.
    pub target: Target,
    /// Normalised text, at most [`super::shapes::TEXT_BYTES_MAX`] bytes; empty for `other`.
    pub text: Box<str>,
    /// Most time in µs this shape can have had before it entered the table: 0 if the numbers are complete.
    pub missed_us_max: u64,
    /// Calls, also failed ones.
    pub calls: Counter,
    /// Calls that failed.
    pub errors: Counter,
    /// The same by [`super::ERROR_CLASSES`].
    pub errors_of: [Counter; ERROR_CLASSES.len()],
    /// Rows returned or affected.
    pub rows: Counter,
    /// Bytes of the replies.
    pub bytes: Counter,
    /// Wait plus server time, µs: what the table ranks by.
    pub total_us: Counter,
    /// Calls that did not wait.
    at_once: Counter,
    /// By [`Phase`]. [`Phase::Wait`] and [`Phase::Write`] have those only that waited, or were not written at once.
    pub(super) phases: [Histogram; Phase::ALL.len()],
    /// Where all of them stood at the last reset, if there was one since it entered.
    mark: ArcSwapOption<Mark>,
    /// Those that can be seen in a trace; `None` while there are no traces.
    pub(super) exemplars: ArcSwapOption<Exemplars>,
}

impl ShapeStats {
    pub(super) fn new(shape: Option<u64>, place: &Place, text: Box<str>, missed_us_max: u64) -> Self {
        Self {
            shape,
            pool: Arc::clone(&place.pool),
            target: place.target.clone(),
            text,
            missed_us_max,
            calls: Counter::new(),
            errors: Counter::new(),
            errors_of: Default::default(),
            rows: Counter::new(),
            bytes: Counter::new(),
            total_us: Counter::new(),
            at_once: Counter::new(),
            phases: Default::default(),
            mark: ArcSwapOption::empty(),
            exemplars: ArcSwapOption::empty(),
        }
    }

    pub(super) fn record(&self, sample: &Sample) {
        self.ended(sample.wait_us, sample.wait_us.saturating_add(sample.server_us), sample.error);
        self.rows.add(sample.rows);
        self.bytes.add(sample.bytes);
        let [_, first, server, ..] = &self.phases;
        first.record(sample.first_us);
        server.record(sample.server_us);
    }

    /// What is counted of one that no server has had, too.
    pub(super) fn ended(&self, wait_us: u64, total_us: u64, error: Option<ErrorClass>) {
        self.calls.add(1);
        if let Some(class) = error {
            self.errors.add(1);
            self.errors_of.get(class.number()).into_iter().for_each(|of| of.add(1));
        }
        self.total_us.add(total_us);
        let [wait, .., total] = &self.phases;
        match wait_us {
            0 => self.at_once.add(1),
            _ => wait.record(wait_us),
        }
        total.record(total_us);
    }

    pub(super) fn absorb(&self, other: &ShapeStats) {
        self.calls.add(other.calls.get());
        self.errors.add(other.errors.get());
        self.errors_of.iter().zip(&other.errors_of).for_each(|(mine, theirs)| mine.add(theirs.get()));
        self.rows.add(other.rows.get());
        self.bytes.add(other.bytes.get());
        self.total_us.add(other.total_us.get());
        self.at_once.add(other.at_once.get());
        self.phases.iter().zip(&other.phases).for_each(|(mine, theirs)| mine.absorb(theirs));
        // Reset and displaced at one moment it may be counted as of before for once.
        if let Some(theirs) = other.mark() {
            self.mark.rcu(|mine| match mine {
                Some(mine) => Some(Arc::new(mine.and(&theirs))),
                None => Some(Arc::clone(&theirs)),
            });
        }
    }

    /// The longest that one took, µs.
    pub(super) fn max_us(&self) -> u64 {
        self.phases.get(Phase::Total as usize).map_or(0, Histogram::max_us)
    }

    /// Mean server time, µs; 0 if nothing was counted.
    pub(super) fn mean_us(&self) -> u64 {
        let server = self.phases.get(Phase::Server as usize).map_or(0, Histogram::sum_us);
        server.checked_div(self.calls.get()).unwrap_or(0)
    }

    /// Adds how long this phase took in each call; of [`Phase::Write`] in those whose client kept an answer waiting.
    pub fn add_to(&self, phase: Phase, sum: &mut HistogramSnapshot) {
        self.phases.get(phase as usize).into_iter().for_each(|all| all.add_to(sum));
        if phase == Phase::Wait {
            sum.add_zeros(self.at_once.get());
        }
    }

    /// How long this phase took in each call.
    pub fn phase(&self, phase: Phase) -> HistogramSnapshot {
        let mut all = HistogramSnapshot::default();
        self.add_to(phase, &mut all);
        all
    }

    /// Calls that can be seen in a trace.
    pub fn exemplars(&self) -> Option<Arc<Exemplars>> {
        self.exemplars.load_full()
    }

    /// Where its numbers stood at the last reset.
    pub(super) fn mark(&self) -> Option<Arc<Mark>> {
        self.mark.load_full()
    }

    pub(super) fn reset(&self) {
        self.mark.store(Some(Arc::new(Mark::of(self))));
    }
}
