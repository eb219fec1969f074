//! Log-linear latency histogram: 1 µs to 67 s, 8 sub-buckets per octave.
//! Never allocates, locks or reads a clock on the recording side.
//!
//! The layout is that of HdrHistogram (Gil Tene) with three bits of mantissa: values below 16 µs have a bucket
//! each (exact), above that an octave `[2^e, 2^(e+1))` is cut into 8 equal parts. A bucket is represented by the
//! harmonic mean of its ends, which makes the worst relative error `(hi - lo) / (hi + lo) <= 1/17 = 5.9 %`; the
//! arithmetic middle would give 1/16 = 6.25 %. Values of 2^26 µs (67.1 s) and more share one last bucket, whose
//! quantiles are reported as the largest value seen.

use super::counters::Counter;

/// Sub-buckets per octave, as a power of two (2^3 = 8).
const SUB_BITS: u32 = 3;
/// Sub-buckets per octave.
const SUB: usize = 1 << SUB_BITS;
/// First exponent that is no longer resolved: 2^26 µs = 67.1 s, the first power of two above 64 s.
const EXPONENT_END: u32 = 26;
/// Index of the bucket for everything of 2^26 µs and more.
const OVERFLOW: usize = SUB * (EXPONENT_END - SUB_BITS + 1) as usize;
/// Number of buckets, including the overflow bucket.
pub const BUCKETS: usize = OVERFLOW + 1;
/// Smallest value, in µs, that falls into the overflow bucket.
pub const OVERFLOW_US: u64 = 1 << EXPONENT_END;

/// Bucket of a value in µs; always below [`BUCKETS`].
const fn bucket_of(us: u64) -> usize {
    if us < SUB as u64 {
        return us as usize;
    }
    let exponent = 63 - us.leading_zeros();
    if exponent >= EXPONENT_END {
        return OVERFLOW;
    }
    let sub = (us >> (exponent - SUB_BITS)) as usize & (SUB - 1);
    SUB * (exponent - SUB_BITS + 1) as usize + sub
}

/// Smallest and largest value in µs that fall into a bucket.
const fn edges(bucket: usize) -> (u64, u64) {
    if bucket < SUB {
        return (bucket as u64, bucket as u64);
    }
    if bucket >= OVERFLOW {
        return (OVERFLOW_US, u64::MAX);
    }
    let shift = bucket / SUB - 1;
    let low = ((SUB + bucket % SUB) as u64) << shift;
    (low, low + (1 << shift) - 1)
}

/// The value in µs that stands for all values of a bucket: the harmonic mean of its ends, rounded.
const fn representative(bucket: usize) -> u64 {
    let (low, high) = edges(bucket);
    if bucket >= OVERFLOW || low == high {
        return low;
    }
    let sum = low + high;
    (2 * low * high + sum / 2) / sum
}

/// [`representative`] of every bucket, as readers go through all of them for each shape.
static REPRESENTATIVES: [u64; BUCKETS] = {
    let mut table = [0; BUCKETS];
    let mut bucket = 0;
    while bucket < BUCKETS {
        table[bucket] = representative(bucket);
        bucket += 1;
    }
    table
};

/// A histogram with one writer and any number of readers. 1.6 KiB, fixed.
#[derive(Debug)]
pub struct Histogram {
    sum_us: Counter,
    max_us: Counter,
    buckets: [Counter; BUCKETS],
}

impl Default for Histogram {
    fn default() -> Self {
        Self::new()
    }
}

impl Histogram {
    /// An empty histogram.
    pub fn new() -> Self {
        Self { sum_us: Counter::new(), max_us: Counter::new(), buckets: [const { Counter::new() }; BUCKETS] }
    }

    /// Counts one value in µs. Only the owning thread may call this: a second writer loses updates.
    pub fn record(&self, us: u64) {
        if let Some(bucket) = self.buckets.get(bucket_of(us)) {
            bucket.add(1);
        }
        self.sum_us.add(us);
        if us > self.max_us.get() {
            self.max_us.set(us);
        }
    }

    /// Adds all of `other`, which may have another writer; `self` must be the caller's own.
    pub fn absorb(&self, other: &Histogram) {
        for (mine, theirs) in self.buckets.iter().zip(&other.buckets) {
            let count = theirs.get();
            if count != 0 {
                mine.add(count);
            }
        }
        self.sum_us.add(other.sum_us.get());
        self.max_us.set(self.max_us.get().max(other.max_us.get()));
    }

    /// A copy to compute with. `count` is the sum of the copied buckets, so the two never disagree; `sum_us` and
    /// `max_us` may be apart from it by the samples that were recorded while the copy was made.
    pub fn snapshot(&self) -> HistogramSnapshot {
        let mut copy = HistogramSnapshot::default();
        self.add_to(&mut copy);
        copy
    }

    /// Sum of the values, µs.
    pub fn sum_us(&self) -> u64 {
        self.sum_us.get()
    }

    /// The largest value, µs.
    pub fn max_us(&self) -> u64 {
        self.max_us.get()
    }

    /// Adds a snapshot of this histogram to `sum`, without a temporary. Behind the bucket of the largest value nothing is read: of
    /// thousands of histograms most would be cold memory without a value in it.
    pub fn add_to(&self, sum: &mut HistogramSnapshot) {
        let max_us = self.max_us.get();
        for (total, bucket) in sum.buckets.iter_mut().zip(&self.buckets).take(bucket_of(max_us) + 1) {
            let count = bucket.get();
            *total += count;
            sum.count += count;
        }
        sum.sum_us = sum.sum_us.wrapping_add(self.sum_us.get());
        sum.max_us = sum.max_us.max(max_us);
    }
}

/// The numbers of one or several histograms at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistogramSnapshot {
    /// Number of values; always the sum of the buckets.
    pub count: u64,
    /// Sum of the values in µs (exact, not from the buckets).
    pub sum_us: u64,
    /// Largest value in µs (exact).
    pub max_us: u64,
    buckets: Box<[u64; BUCKETS]>,
}

impl Default for HistogramSnapshot {
    fn default() -> Self {
        Self { count: 0, sum_us: 0, max_us: 0, buckets: Box::new([0; BUCKETS]) }
    }
}

impl HistogramSnapshot {
    /// The value in µs at or below which the share `q` (0 to 1, clamped) of the values lies, by nearest rank.
    /// Within 6 % of the exact value below 67.1 s, exact below 16 µs; 0 if nothing was recorded.
    pub fn quantile(&self, q: f64) -> u64 {
        if self.count == 0 {
            return 0;
        }
        // f64 holds counts up to 2^53 exactly; beyond that the rank is off by less than the error of a bucket.
        let rank = ((q.clamp(0.0, 1.0) * self.count as f64).ceil() as u64).clamp(1, self.count);
        let mut seen = 0;
        for (bucket, count) in self.buckets.iter().enumerate() {
            seen += count;
            if seen >= rank && bucket < OVERFLOW {
                return representative(bucket).min(self.max_us);
            }
        }
        self.max_us
    }

    /// What has come since `before`, an earlier snapshot of the same. Its `max_us` is the upper end of its highest bucket, or what
    /// was the largest ever, if that is less.
    #[must_use]
    pub fn since(&self, before: &HistogramSnapshot) -> Self {
        let mut since = Self::default();
        for (bucket, (sum, (now, then))) in
            since.buckets.iter_mut().zip(self.buckets.iter().zip(before.buckets.iter())).enumerate()
        {
            // A reader may meet a shape on its way from one entry to another.
            *sum = now.saturating_sub(*then);
            since.count += *sum;
            if *sum > 0 {
                since.max_us = edges(bucket).1.min(self.max_us);
            }
        }
        since.sum_us = self.sum_us.saturating_sub(before.sum_us);
        since
    }

    /// How many values are at or above `us`; a bucket counts as a whole, by its smallest value.
    #[must_use]
    pub fn at_least(&self, us: u64) -> u64 {
        self.occupied().filter(|(low, ..)| *low >= us).map(|(.., count)| count).sum()
    }

    /// So many values of nothing more.
    pub fn add_zeros(&mut self, count: u64) {
        self.buckets[0] += count;
        self.count += count;
    }

    /// Adds the numbers of another snapshot.
    pub fn merge(&mut self, other: &HistogramSnapshot) {
        for (mine, theirs) in self.buckets.iter_mut().zip(other.buckets.iter()) {
            *mine += theirs;
        }
        self.count += other.count;
        self.sum_us = self.sum_us.wrapping_add(other.sum_us);
        self.max_us = self.max_us.max(other.max_us);
    }

    /// For each bound in µs (ascending) the number of values at or below it, as Prometheus' `le` buckets want it.
    ///
    /// A bucket counts as a whole, by its representative, so each number is exact for a bound that differs from the
    /// one asked for by at most 6 %. Values of 67.1 s and more are in no bound below that, only in `count`.
    pub fn cumulative<const N: usize>(&self, bounds_us: &[u64; N]) -> [u64; N] {
        let mut counts = [0; N];
        let mut seen = 0;
        let mut buckets = REPRESENTATIVES.iter().zip(self.used()).peekable();
        for (count, bound) in counts.iter_mut().zip(bounds_us) {
            while let Some((_, n)) = buckets.next_if(|(middle, _)| *middle <= bound) {
                seen += n;
            }
            *count = seen;
        }
        counts
    }

    /// Back to nothing, keeping the memory.
    pub fn clear(&mut self) {
        self.buckets.iter_mut().take(bucket_of(self.max_us) + 1).for_each(|bucket| *bucket = 0);
        (self.count, self.sum_us, self.max_us) = (0, 0, 0);
    }

    /// The buckets up to that of the largest value: behind it there is nothing.
    fn used(&self) -> impl Iterator<Item = &u64> {
        self.buckets.iter().take(bucket_of(self.max_us) + 1)
    }

    /// The non-empty buckets as (the µs that stand for all of them, count), ascending.
    pub fn representatives(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        let all = REPRESENTATIVES.iter().zip(self.used());
        all.filter(|(_, count)| **count != 0).map(|(us, count)| (*us, *count))
    }

    /// The non-empty buckets as (smallest µs, largest µs, count), ascending.
    pub fn occupied(&self) -> impl Iterator<Item = (u64, u64, u64)> + '_ {
        let nonzero = self.used().enumerate().filter(|(_, n)| **n != 0);
        nonzero.map(|(bucket, count)| {
            let (low, high) = edges(bucket);
            (low, high, *count)
        })
    }
}

#[cfg(test)]
#[path = "histogram_tests.rs"]
mod tests;
