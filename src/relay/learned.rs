//! How fast and how small statements of a shape have been seen to be: whether they may share a server.
//! Must never take a busy machine for a slow statement, nor one slow execution for an exception.
//!
//! Where more servers work than there are processors every statement takes longer than it needs, now and then by the time in which
//! others had the processor. So one counts as slow only if it took longer than the limit times the servers at work beside it, and
//! what is usual is taken from the faster ones. That would let anything pass on a large machine: so no more than four others count
//! where one of four must be fast; and whoever truly stalls a lane leaves it for a while ([`Learned::stalled`]).

use crate::meter::Unfit;

/// Executions behind which something is known: of fewer nothing could be said about one in a hundred.
const ENOUGH: u16 = 100;
/// Executions after which what was seen before counts half.
const WINDOW: u16 = 4096;
/// Replies of more bytes are no load for a lane.
pub const LARGE_BYTES: usize = 64 * 1024;
/// Fixed point of the estimates: parts of a microsecond.
const PARTS: u32 = 16;
/// At most so many servers beside a statement make what it usually takes look longer than it is.
const CROWD: usize = 4;
/// A shape stays out of the lanes for so many times as long as it has stalled one, but no longer than [`OUT_US`]; twice as long each
/// time, up to 64 times.
const OUT: u64 = 8;
/// The longest that it stays out the first time, microseconds.
const OUT_US: u64 = 1_000_000;
/// So many stalls among the last few thousand executions are nobody's fault while others of the shape get on.
const ALLOWED: u8 = 3;
/// How long it stays out while it stalls one, microseconds, if no other gets on.
const STALLING_US: u64 = 5_000;
/// A stall is more than a pause of the machine if it takes so many times what counts as fast; of half as many it is not known yet.
const STALL: u64 = 32;

/// One execution.
#[derive(Clone, Copy, Debug)]
pub struct Run {
    /// How long it took, microseconds.
    pub took_us: u64,
    /// So many servers were at work, its own included.
    pub busy: usize,
    /// Its reply is no load for a lane.
    pub large: bool,
    /// It was in a lane.
    pub rode: bool,
    /// When it was over, microseconds.
    pub done_us: u64,
}

/// What is known of a shape.
#[derive(Clone, Copy, Debug, Default)]
pub struct Learned {
    runs: u16,
    /// Of those, over the limit.
    slow: u16,
    /// Of those, with a large reply.
    large: u16,
    /// How often it stalled a lane lately.
    stalls: u8,
    /// First quartile of the time on a server, in parts of a microsecond.
    quartile: u32,
    /// 99th percentile of the time in lanes, in parts of a microsecond.
    p99: u32,
    /// Out of the lanes until then, microseconds.
    out_until_us: u64,
    /// When it last had stalled one, microseconds.
    stalled_us: u64,
    /// When one was last over, microseconds.
    done_us: u64,
}

impl Learned {
    /// Seen often enough, and never slow.
    #[cfg(test)]
    pub fn light() -> Self {
        Self { runs: ENOUGH, ..Self::default() }
    }

    /// One was executed.
    pub fn ran(&mut self, run: Run, fast_us: u64) {
        if self.runs >= WINDOW {
            (self.runs, self.slow, self.large) = (self.runs / 2, self.slow / 2, self.large / 2);
            self.stalls = self.stalls.saturating_sub(1);
        }
        self.runs += 1;
        self.done_us = run.done_us;
        let busy = run.busy.max(if run.rode { CROWD } else { 1 });
        self.slow += u16::from(run.took_us >= fast_us.saturating_mul(busy as u64));
        self.large += u16::from(run.large);
        let took = u32::try_from(run.took_us).unwrap_or(u32::MAX / PARTS).saturating_mul(PARTS);
        let needed = took / busy.min(CROWD) as u32;
        if self.runs == 1 {
            self.quartile = needed;
        }
        step(&mut self.quartile, needed, 1, 3);
        if run.rode {
            step(&mut self.p99, took, 99, 1);
        }
    }

    /// Enough have been seen.
    pub fn is_known(&self) -> bool {
        self.runs >= ENOUGH
    }

    /// It may share a server.
    pub fn is_light(&self, fast_us: u64, now_us: u64) -> bool {
        self.is_known()
            && u64::from(self.usual_us()) < fast_us
            && u32::from(self.slow.max(self.large)) * 100 <= u32::from(self.runs)
            && self.out_until_us <= now_us
    }

    /// Nothing, if it may share a server; else why it may not yet, or not now.
    pub fn unfit(&self, fast_us: u64, now_us: u64) -> Option<Unfit> {
        if self.is_light(fast_us, now_us) {
            return None;
        }
        Some(match self.is_known() {
            true if self.out_until_us > now_us => Unfit::Stalled,
            true => Unfit::Slow,
            false => Unfit::Unknown,
        })
    }

    /// It is out of the lanes for having stalled one until then, microseconds.
    pub fn out_until_us(&self) -> u64 {
        self.out_until_us
    }

    /// What one needs of a server, as far as is known, microseconds; at least 1. The first quartile, as what is above is mostly
    /// the time in which others had the processor.
    pub fn usual_us(&self) -> u32 {
        (self.quartile / PARTS).max(1)
    }

    /// How long one may take in a lane before others are taken out from behind it, microseconds: four times what 99 of 100
    /// take, but at least twice and at most eight times what counts as fast.
    pub fn patience_us(&self, fast_us: u64) -> u64 {
        u64::from(self.p99 / PARTS * 4).clamp(2 * fast_us, 8 * fast_us)
    }

    /// It has kept a lane from others for so long, and does so still. `alone`: no other lane is being stalled.
    pub fn stalls(&mut self, for_us: u64, fast_us: u64, now_us: u64, alone: bool) {
        let gets_on = alone && self.was_over_since(now_us.saturating_sub(for_us));
        if for_us * 2 > STALL * fast_us && !gets_on {
            self.out_until_us = self.out_until_us.max(now_us + STALLING_US);
        }
    }

    /// It has kept a lane from others for so long, in all. To be told before [`Learned::ran`].
    pub fn stalled(&mut self, for_us: u64, fast_us: u64, now_us: u64) {
        if for_us <= STALL * fast_us {
            return;
        }
        let began_us = now_us.saturating_sub(for_us);
        // What stops the machine stops all lanes at once: that is one stall.
        if self.stalls == 0 || self.stalled_us <= began_us {
            self.stalls = (self.stalls + 1).min(7);
        }
        self.stalled_us = now_us;
        if self.was_over_since(began_us) && self.stalls <= ALLOWED {
            return;
        }
        let out_us = (for_us * OUT).min(OUT_US) << (self.stalls - 1);
        self.out_until_us = self.out_until_us.max(now_us + out_us);
    }

    /// Others of the shape have got on meanwhile: it is not its table that is locked, say, but a processor that was away.
    fn was_over_since(&self, began_us: u64) -> bool {
        self.done_us > began_us
    }
}

/// Moves an estimate of a quantile towards what was seen: `up` to `down` are the odds that something is below it
/// (Ma, Muthukrishnan, Sandler: "Frugal Streaming for Estimating Quantiles", 2013, with steps relative to the estimate).
fn step(estimate: &mut u32, seen: u32, up: u32, down: u32) {
    let unit = *estimate / (64 * up.max(down)) + 1;
    if seen > *estimate {
        *estimate = estimate.saturating_add(unit * up).min(seen);
    } else {
        *estimate = estimate.saturating_sub(unit * down).max(seen);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(took_us: u64, busy: usize) -> Run {
        Run { took_us, busy, large: false, rode: false, done_us: 0 }
    }

    fn after(runs: impl IntoIterator<Item = u64>, busy: usize) -> Learned {
        let mut learned = Learned::default();
        runs.into_iter().for_each(|took_us| learned.ran(run(took_us, busy), 1000));
        learned
    }

    #[test]
    fn enough_must_have_been_seen() {
        assert!(!after([50; 99], 1).is_light(1000, 0));
        assert!(after([50; 100], 1).is_light(1000, 0));
        assert!(!after([1000; 5000], 1).is_light(1000, 0));
    }

    #[test]
    fn few_slow_ones_are_enough_to_stay_out() {
        for (every, light) in [(20, false), (40, false), (500, true)] {
            let runs = (0..5000u64).map(|n| if n.is_multiple_of(every) { 50_000 } else { 100 });
            assert_eq!(after(runs, 1).is_light(1000, 0), light, "one of {every}");
        }
    }

    #[test]
    fn a_busy_machine_is_no_reason() {
        // 20 servers on a few processors: most take a fraction of a millisecond, some several.
        let busy = |n: u64| if n.is_multiple_of(10) { 5_000 } else { 300 + n % 700 };
        assert!(after((0..5000).map(busy), 20).is_light(1000, 0));
        assert!(!after((0..5000).map(busy), 1).is_light(1000, 0));
        // On a large one what always takes long is slow all the same.
        assert!(!after([20_000; 5000], 100).is_light(1000, 0));
    }

    #[test]
    fn estimates_are_near_the_truth() {
        let mut learned = Learned::default();
        for took_us in (0..20_000).map(|n| (n * 7919) % 400) {
            learned.ran(run(took_us, 1), 1000);
            step(&mut learned.p99, took_us as u32 * PARTS, 99, 1);
        }
        assert!((80..=120).contains(&learned.usual_us()), "{}", learned.usual_us());
        assert!((330..=400).contains(&(learned.p99 / PARTS)), "{}", learned.p99 / PARTS);
        assert_eq!(learned.patience_us(100), 800);
        assert_eq!(learned.patience_us(1000), 2000);
    }

    #[test]
    fn who_stalls_is_out_for_longer_each_time() {
        let mut learned = after([50; 200], 1);
        // A pause of the machine.
        learned.stalled(20_000, 1000, 0);
        assert!(learned.is_light(1000, 0));
        learned.stalls(20_000, 1000, 0, true);
        assert!(!learned.is_light(1000, STALLING_US - 1) && learned.is_light(1000, STALLING_US));
        let (first, second) = (1_000_000, 3_000_000);
        learned.stalled(50_000, 1000, first);
        // Another lane was stalled at the same time.
        learned.stalled(40_000, 1000, first + 5_000);
        assert!(!learned.is_light(1000, first + 399_999) && learned.is_light(1000, first + 400_000));
        learned.stalled(50_000, 1000, second);
        assert!(!learned.is_light(1000, second + 799_999) && learned.is_light(1000, second + 800_000));
        learned.stalled(10_000_000, 1000, 2 * second + 10_000_000);
        let out_us = 2 * second + 10_000_000 + 4 * OUT_US;
        assert!(!learned.is_light(1000, out_us - 1) && learned.is_light(1000, out_us));
    }
    #[test]
    fn one_that_stalls_while_others_get_on_stays() {
        let mut learned = after([50; 200], 1);
        for turn in 1..=4 {
            let now_us = turn * 1_000_000;
            learned.ran(Run { done_us: now_us - 10_000, ..run(50, 1) }, 1000);
            learned.stalls(50_000, 1000, now_us, true);
            assert!(learned.is_light(1000, now_us));
            learned.stalled(50_000, 1000, now_us);
            assert_eq!(learned.is_light(1000, now_us), turn <= u64::from(ALLOWED), "turn {turn}");
        }
    }
}
