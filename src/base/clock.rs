//! Time as the data path sees it: microseconds and milliseconds since the process started.
//! Must never read the wall clock; deadlines and latencies are monotonic.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

static START: OnceLock<Instant> = OnceLock::new();

/// Microseconds since the first call in this process (`CLOCK_MONOTONIC`).
pub fn now_us() -> u64 {
    #[cfg(test)]
    if let Some(now_us) = paused::now_us() {
        return now_us;
    }
    START.get_or_init(Instant::now).elapsed().as_micros() as u64
}

/// A deadline in microseconds of [`now_us`]; `None` never comes. A zero duration disables it,
/// as everywhere in the configuration.
pub fn deadline(now_us: u64, after: Duration) -> Option<u64> {
    (!after.is_zero()).then(|| now_us.saturating_add(after.as_micros() as u64))
}

/// A clock that only tests move.
#[cfg(test)]
pub mod paused {
    use std::cell::Cell;
    use std::time::Duration;

    thread_local!(static NOW_US: Cell<Option<u64>> = const { Cell::new(None) });

    pub(super) fn now_us() -> Option<u64> {
        NOW_US.get()
    }

    /// Stands still for this thread as long as it lives.
    pub struct Paused(());

    impl Paused {
        /// Far from 0, which means "never" in places.
        #[allow(clippy::new_without_default, reason = "it acts on the thread")]
        pub fn new() -> Self {
            NOW_US.set(Some(1_000_000_000));
            Self(())
        }

        /// Moves it on.
        pub fn advance(&self, by: Duration) {
            NOW_US.set(NOW_US.get().map(|now_us| now_us + by.as_micros() as u64));
        }
    }

    impl Drop for Paused {
        fn drop(&mut self) {
            NOW_US.set(None);
        }
    }
}
