//! Moments as the console shows them: `2026-11-22 04:30:00 UTC`.
//! Must never ask for a time zone: what is read on one machine is compared with what is read on another.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::base::calendar::Moment;
use crate::base::clock;

/// The moment that was `us` on the program's clock.
pub(super) fn moment(us: u64) -> String {
    let ago = Duration::from_micros(clock::now_us().saturating_sub(us));
    let at = SystemTime::now().checked_sub(ago).and_then(|at| at.duration_since(UNIX_EPOCH).ok());
    written(at.map_or(0, |since| since.as_secs()))
}

/// Seconds since 1970.
pub(super) fn written(seconds: u64) -> String {
    let moment = Moment::at(seconds);
    format!("{} {} UTC", moment.date(), moment.time())
}
