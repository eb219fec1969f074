//! The growing pause after failures to open a server.
//! Must never grow beyond what the operator allows.

use std::cell::Cell;

/// A growing pause after failures.
#[derive(Debug, Default)]
pub struct Backoff {
    /// Nothing is tried before this, microseconds.
    retry_us: Cell<u64>,
    /// In a row.
    failures: Cell<u32>,
}

impl Backoff {
    /// One more failure: 50 ms, 100 ms, … up to `longest_us`.
    pub(super) fn failed(&self, now_us: u64, longest_us: u64) {
        let failures = self.failures.get().saturating_add(1);
        self.failures.set(failures);
        let pause_us = 50_000u64.saturating_mul(1 << (failures - 1).min(20)).min(longest_us);
        self.retry_us.set(now_us.saturating_add(pause_us));
    }

    /// Nothing is tried before this, microseconds.
    pub(super) fn until_us(&self) -> u64 {
        self.retry_us.get()
    }

    /// What was in the way is gone.
    pub(super) fn over(&self) {
        self.retry_us.set(0);
        self.failures.set(0);
    }
}
