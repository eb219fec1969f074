//! Time as the data path sees it: microseconds and milliseconds since the process started.
//! Must never read the wall clock; deadlines and latencies are monotonic.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

static START: OnceLock<Instant> = OnceLock::new();

/// Microseconds since the first call in this process (`CLOCK_MONOTONIC`).
pub fn now_us() -> u64 {
    START.get_or_init(Instant::now).elapsed().as_micros() as u64
}

/// A deadline in microseconds of [`now_us`]; `None` never comes. A zero duration disables it,
/// as everywhere in the configuration.
pub fn deadline(now_us: u64, after: Duration) -> Option<u64> {
    (!after.is_zero()).then(|| now_us.saturating_add(after.as_micros() as u64))
}
