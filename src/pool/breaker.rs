//! The circuit breaker of a host: after failures in a row it takes no reads for a while, then one that decides.
//! Must never be the reason why nobody serves a read: who asks it uses the host all the same if there is no other.
//!
//! Closed, open and half open as by M. Nygard, *Release It!* (2007). What counts are failures with nothing in between
//! that worked: among many users of a host a few statements that are too slow say nothing about it. All workers share
//! it. The atomics are read one by one: whoever comes in between opens or closes it a statement earlier or later.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicU32, AtomicU64};
use std::time::Duration;

/// Failures that lie further apart belong to different causes, microseconds.
const WINDOW_US: u64 = 10_000_000;
/// Longest pause, microseconds.
const LONGEST_US: u64 = 60_000_000;

/// When it opens, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Failures in a row; 0: never.
    pub failures: u32,
    /// The first pause, microseconds.
    pub pause_us: u64,
}

impl Limits {
    /// As configured.
    #[must_use]
    pub fn new(failures: u32, pause: Duration) -> Self {
        Self { failures, pause_us: pause.as_micros() as u64 }
    }
}

/// Whether reads may go to a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Yes.
    Closed,
    /// One was sent, and is to tell.
    HalfOpen,
    /// No.
    Open,
}

impl State {
    /// As shown.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::HalfOpen => "half_open",
            Self::Open => "open",
        }
    }
}

/// The breaker of one host. Times are microseconds of [`crate::base::clock::now_us`].
#[derive(Debug, Default)]
pub struct Breaker {
    /// In a row.
    failures: AtomicU32,
    /// When the first of them was.
    first_us: AtomicU64,
    /// When it opened; 0: it is closed.
    opened_us: AtomicU64,
    /// When it lets one more through.
    until_us: AtomicU64,
    /// One was let through.
    probes: AtomicU32,
    pause_us: AtomicU64,
    opens: AtomicU64,
}

impl Breaker {
    /// Where it stands.
    #[must_use]
    pub fn state(&self) -> State {
        match (self.opened_us.load(Relaxed), self.probes.load(Relaxed)) {
            (0, _) => State::Closed,
            (_, 0) => State::Open,
            _ => State::HalfOpen,
        }
    }

    /// How often it has opened, not counting failures of what was let through.
    #[must_use]
    pub fn opens(&self) -> u64 {
        self.opens.load(Relaxed)
    }

    /// Something failed on the host. True if that has opened it.
    pub fn fails(&self, now_us: u64, limits: Limits) -> bool {
        if limits.failures == 0 {
            return false;
        }
        match self.state() {
            // What was under way when it opened says nothing new.
            State::Open => false,
            State::HalfOpen => {
                let pause_us = self.pause_us.load(Relaxed).saturating_mul(2).min(LONGEST_US);
                self.open(now_us, pause_us);
                true
            }
            State::Closed => {
                let first = self.failures.load(Relaxed) == 0;
                if first || now_us.saturating_sub(self.first_us.load(Relaxed)) > WINDOW_US {
                    self.first_us.store(now_us, Relaxed);
                    self.failures.store(0, Relaxed);
                }
                let opens = self.failures.fetch_add(1, Relaxed) + 1 == limits.failures;
                if opens {
                    self.opens.fetch_add(1, Relaxed);
                    self.open(now_us, limits.pause_us);
                }
                opens
            }
        }
    }

    fn open(&self, now_us: u64, pause_us: u64) {
        self.pause_us.store(pause_us, Relaxed);
        self.until_us.store(now_us.saturating_add(pause_us), Relaxed);
        self.probes.store(0, Relaxed);
        self.opened_us.store(now_us.max(1), Relaxed);
    }

    /// Something worked that began at `began_us`. True if that has closed it.
    #[inline]
    pub fn works(&self, began_us: u64) -> bool {
        if self.failures.load(Relaxed) == 0 {
            return false;
        }
        let opened_us = self.opened_us.load(Relaxed);
        // What began before it opened was lucky, or slow; and who waited there already proves as little as who failed: the
        // one decides that is sent to try.
        if opened_us != 0 && (began_us <= opened_us || self.probes.load(Relaxed) == 0) {
            return false;
        }
        self.failures.store(0, Relaxed);
        self.opened_us.swap(0, Relaxed) != 0
    }

    /// Whether the caller, and nobody else, is to try the host now: its pause is over. One that never tells is followed
    /// by another after as long again.
    pub fn probe(&self, now_us: u64) -> bool {
        let until_us = self.until_us.load(Relaxed);
        if self.opened_us.load(Relaxed) == 0 || now_us < until_us {
            return false;
        }
        let next_us = now_us.saturating_add(self.pause_us.load(Relaxed));
        let mine = self.until_us.compare_exchange(until_us, next_us, Relaxed, Relaxed).is_ok();
        if mine {
            self.probes.store(1, Relaxed);
        }
        mine
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { failures: 3, pause_us: 1_000_000 };
    const S: u64 = 1_000_000;

    fn opened(at_us: u64) -> Breaker {
        let breaker = Breaker::default();
        assert_eq!([(); 3].map(|()| breaker.fails(at_us, LIMITS)), [false, false, true]);
        breaker
    }

    #[test]
    fn opens_after_failures_in_a_row() {
        let breaker = opened(S);
        assert_eq!((breaker.state(), breaker.opens()), (State::Open, 1));
    }

    #[test]
    fn what_works_in_between_keeps_it_closed() {
        let breaker = Breaker::default();
        for n in 0..100 {
            assert!(!breaker.fails(n, LIMITS) && !breaker.fails(n, LIMITS) && !breaker.works(n));
        }
    }

    #[test]
    fn failures_far_apart_do_not_add_up() {
        let breaker = Breaker::default();
        assert!((0..100).all(|n| !breaker.fails(n * 6 * S, LIMITS)));
    }

    #[test]
    fn one_is_let_through_after_the_pause_and_closes_it() {
        let breaker = opened(S);
        assert!(!breaker.probe(2 * S - 1));
        assert!(breaker.probe(2 * S));
        assert!(!breaker.probe(2 * S));
        assert_eq!(breaker.state(), State::HalfOpen);
        assert!(breaker.works(2 * S + 1));
        assert_eq!(breaker.state(), State::Closed);
        assert!(!breaker.works(3 * S));
        // As new.
        assert!(!breaker.fails(4 * S, LIMITS));
        assert_eq!(breaker.state(), State::Closed);
    }

    #[test]
    fn pauses_grow_while_it_fails() {
        let breaker = opened(S);
        let mut now_us = S;
        for pause_us in [1, 2, 4, 8, 16, 32, 60, 60].map(|s| s * S) {
            assert!(!breaker.probe(now_us + pause_us - 1));
            now_us += pause_us;
            assert!(breaker.probe(now_us));
            assert!(breaker.fails(now_us, LIMITS));
            assert_eq!(breaker.state(), State::Open);
        }
        assert_eq!(breaker.opens(), 1);
    }

    #[test]
    fn a_probe_that_never_tells_is_followed_by_another() {
        let breaker = opened(S);
        assert!(breaker.probe(2 * S));
        assert!(!breaker.probe(3 * S - 1));
        assert!(breaker.probe(3 * S));
    }

    #[test]
    fn what_began_before_it_opened_does_not_close_it() {
        let breaker = opened(S);
        assert!(!breaker.works(S));
        assert_eq!(breaker.state(), State::Open);
        // Nor what waited there already; the one does that is sent to try.
        assert!(!breaker.works(S + 1));
        assert!(breaker.probe(2 * S));
        assert!(breaker.works(2 * S + 1));
        assert_eq!(breaker.state(), State::Closed);
    }

    #[test]
    fn can_be_turned_off() {
        let breaker = Breaker::default();
        assert!((0..100).all(|_| !breaker.fails(1, Limits { failures: 0, pause_us: S })));
        assert_eq!(breaker.state(), State::Closed);
    }
}
