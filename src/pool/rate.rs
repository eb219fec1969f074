//! So many a second, for all workers together.
//! Must never be locked on the data path: whoever takes has the bucket.
//!
//! The generic cell rate algorithm (ITU-T I.371, 5.4): one number says when the bucket would be full again; who takes
//! moves it on by the time that one costs, and may as long as it is not too far ahead.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError, Weak};

/// A second, nanoseconds.
const SECOND: u64 = 1_000_000_000;

/// So many a second; as many may come at once.
#[derive(Debug)]
pub struct Bucket {
    /// What one costs, nanoseconds.
    cost: u64,
    /// When all will be paid, nanoseconds of the clock that [`Bucket::take`] is given.
    paid: AtomicU64,
}

impl Bucket {
    /// `rate` is at least 1, and at most a thousand million.
    #[must_use]
    pub fn new(rate: u32) -> Self {
        Self { cost: SECOND / u64::from(rate.max(1)), paid: AtomicU64::new(0) }
    }

    /// Takes one, if there is one at `now_us`.
    pub fn take(&self, now_us: u64) -> bool {
        let now = now_us.saturating_mul(1000);
        let after = |paid: u64| {
            let after = paid.max(now) + self.cost;
            (after <= now + SECOND).then_some(after)
        };
        self.paid.fetch_update(Relaxed, Relaxed, after).is_ok()
    }
}

/// What a bucket is for: database, name of the rule, rate.
type Key = (String, String, u32);

/// All buckets of the process. A bucket lives as long as somebody has it.
#[derive(Debug, Default)]
pub struct Rates(Mutex<HashMap<Key, Weak<Bucket>>>);

impl Rates {
    /// The bucket of the rule `rule` of `database`, of whom `rate` may pass each second.
    pub fn bucket(&self, database: &str, rule: &str, rate: u32) -> Arc<Bucket> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|_, bucket| bucket.strong_count() > 0);
        let key = (database.to_owned(), rule.to_owned(), rate);
        if let Some(bucket) = all.get(&key).and_then(Weak::upgrade) {
            return bucket;
        }
        let bucket = Arc::new(Bucket::new(rate));
        all.insert(key, Arc::downgrade(&bucket));
        bucket
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_a_second_as_at_once() {
        let bucket = Bucket::new(5);
        let taken = |now_us| (0..100).take_while(|_| bucket.take(now_us)).count();
        assert_eq!(taken(0), 5);
        assert_eq!(taken(199_999), 0);
        assert_eq!(taken(200_000), 1);
        assert_eq!(taken(800_000), 3);
        assert_eq!(taken(60_000_000), 5);
        // Asking in vain costs nothing.
        assert_eq!((60_000_001..60_200_000).step_by(1000).filter(|&now| bucket.take(now)).count(), 0);
        assert!(bucket.take(60_200_000));
    }

    #[test]
    fn workers_share_a_rule() {
        let rates = Rates::default();
        let (one, same) = (rates.bucket("d", "#1", 3), rates.bucket("d", "#1", 3));
        let other = rates.bucket("d", "#2", 3);
        assert!(Arc::ptr_eq(&one, &same) && !Arc::ptr_eq(&one, &other));
        assert!(one.take(0) && same.take(0) && one.take(0) && !same.take(0) && other.take(0));
        drop((one, same));
        assert!(rates.bucket("d", "#1", 3).take(0));
    }
}
