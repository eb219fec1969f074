//! How many servers of a pool are lanes: as many as make its reads faster.
//! Must never allow fewer than one, nor decide by a moment in which fewer would have done.
//!
//! More lanes are more backends at work. Where PostgreSQL has processors to spare that is more reads in a second; where it has none
//! they only take them from each other, and fewer lanes, whose backends find the next request waiting, are faster. How many
//! processors there are, and who else works there, nobody tells. So it is tried: while the lanes are asked for more than they take
//! within `lane_delay`, now and then more of them and fewer are tried for a moment, and what was answered meanwhile decides. More must
//! bring at least half of what as many more processors would, and fewer may cost no more than that. Such hill climbing sizes thread
//! pools, too (Hellerstein, Morrison, Eilebrecht: "Applying Control Theory in the Real World: Experience With Building a Controller
//! for the .NET Thread Pool", 2009).

/// Lanes allowed at first.
const FIRST: u32 = 2;
/// For how long it is looked on at a number of lanes, microseconds.
const SPAN_US: u64 = 40_000;
/// What comes first after a change says nothing, microseconds.
const SETTLE_US: u64 = 5_000;
/// Pause between two trials, microseconds: they take about a tenth of the time.
const PAUSE_US: u64 = 1_000_000;
/// The same behind one that brought something.
const QUICK_US: u64 = 50_000;

/// What is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Nothing.
    Rest,
    /// As many as usual.
    Same,
    More,
    Fewer,
}

/// The number of lanes of one pool.
#[derive(Clone, Debug)]
pub(super) struct LaneCount {
    count: u32,
    phase: Phase,
    /// When the phase counts from, microseconds; of [`Phase::Rest`] when it may end.
    since_us: u64,
    /// What was answered since, in microseconds of what it usually takes.
    answered_us: u64,
    /// The same with the usual number, in millionths of the time.
    usual: u64,
    /// A read has found no lane with room since.
    pressed: bool,
}

impl Default for LaneCount {
    fn default() -> Self {
        Self { count: FIRST, phase: Phase::Rest, since_us: 0, answered_us: 0, usual: 0, pressed: false }
    }
}

impl LaneCount {
    /// So many lanes there may be now, of at most `most`.
    pub fn allowed(&self, most: u32) -> u32 {
        let count = match self.phase {
            Phase::Rest | Phase::Same => self.count,
            Phase::More => self.count + self.step(),
            Phase::Fewer => self.count - self.step(),
        };
        count.clamp(1, most.max(1))
    }

    /// A read has found no lane with room.
    pub fn presses(&mut self) {
        self.pressed = true;
    }

    /// Reads were answered that usually take so long, microseconds.
    pub fn answered(&mut self, usual_us: u64) {
        self.answered_us += usual_us;
    }

    /// Time goes on. To be told every few milliseconds while there are lanes.
    pub fn goes_on(&mut self, now_us: u64, most: u32) {
        if now_us < self.since_us {
            (self.answered_us, self.pressed) = (0, false);
            return;
        }
        let lasts_us = now_us - self.since_us;
        if self.phase != Phase::Rest && lasts_us < SPAN_US {
            return;
        }
        let done = self.answered_us.saturating_mul(1_000_000) / lasts_us.max(1);
        let pressed = std::mem::take(&mut self.pressed);
        // Half of what so many processors more or fewer would make.
        let half = self.usual / u64::from(self.count) * u64::from(self.step()) / 2;
        match self.phase {
            Phase::Rest if pressed => self.looks_at(Phase::Same, now_us),
            Phase::Rest => {}
            _ if !pressed || lasts_us > 2 * SPAN_US => self.rests(now_us + PAUSE_US),
            Phase::Same => {
                self.usual = done;
                let next = if self.count < most { Phase::More } else { Phase::Fewer };
                self.looks_at(next, now_us);
            }
            Phase::More if done > self.usual + half => {
                self.count = self.allowed(most);
                self.rests(now_us + QUICK_US);
            }
            Phase::More => self.looks_at(Phase::Fewer, now_us),
            Phase::Fewer => {
                if done + half > self.usual {
                    self.count = self.allowed(most);
                }
                self.rests(now_us + PAUSE_US);
            }
        }
    }

    fn step(&self) -> u32 {
        match self.count {
            1 if self.phase == Phase::Fewer => 0,
            count => (count / 4).max(1),
        }
    }

    fn looks_at(&mut self, phase: Phase, now_us: u64) {
        self.phase = phase;
        self.rests_until(now_us + SETTLE_US);
    }

    fn rests(&mut self, until_us: u64) {
        self.phase = Phase::Rest;
        self.rests_until(until_us);
    }

    fn rests_until(&mut self, since_us: u64) {
        (self.since_us, self.answered_us, self.pressed) = (since_us, 0, false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads for more than there are processors, with what else a machine does; for so many seconds.
    fn run(lanes: &mut LaneCount, from_s: u64, seconds: u64, processors: u32, most: u32) {
        let mut noise = 12_345u64;
        for now_ms in from_s * 1_000..(from_s + seconds) * 1_000 {
            noise = noise.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let at_work = lanes.allowed(most).min(processors);
            lanes.answered(u64::from(at_work) * (800 + (noise >> 33) % 400));
            lanes.presses();
            lanes.goes_on(now_ms * 1_000, most);
        }
    }

    #[test]
    fn there_are_as_many_as_processors() {
        for processors in [1, 2, 3, 4, 8, 16] {
            let mut lanes = LaneCount::default();
            run(&mut lanes, 0, 30, processors, 100);
            let rest = lanes.count;
            assert!((processors..=processors + processors.div_ceil(8)).contains(&rest), "{rest} for {processors}");
            run(&mut lanes, 30, 30, 4, 100);
            assert!((4..=5).contains(&lanes.count), "{} for 4, of {rest}", lanes.count);
        }
    }

    #[test]
    fn there_are_no_more_than_allowed_and_at_least_one() {
        let mut lanes = LaneCount::default();
        run(&mut lanes, 0, 20, 16, 5);
        assert_eq!(lanes.allowed(5), 5);
        assert_eq!((lanes.allowed(3), lanes.allowed(0)), (3, 1));
    }

    #[test]
    fn nothing_is_tried_while_there_is_room() {
        let mut lanes = LaneCount::default();
        for now_ms in 0..10_000 {
            lanes.answered(500);
            lanes.goes_on(now_ms * 1_000, 10);
            assert_eq!(lanes.allowed(10), FIRST);
        }
    }

    #[test]
    fn what_was_not_looked_at_decides_nothing() {
        let mut lanes = LaneCount::default();
        lanes.presses();
        lanes.goes_on(1, 10);
        assert_eq!(lanes.phase, Phase::Same);
        lanes.presses();
        lanes.goes_on(5_000_000, 10);
        assert_eq!(lanes.phase, Phase::Rest);
    }
}
