//! Makes a program that fails smaller.
//! It must never add anything, only leave steps out, and messages of a batch.

use std::time::{Duration, Instant};

use crate::player::Failure;
use crate::program::{Act, Message, SESSIONS, Step};

struct Shrink<F> {
    steps: Vec<Step>,
    failure: Failure,
    fails: F,
    until: Instant,
}

/// Leaves out whatever is not needed for a failure, for at most `limit`: what stands behind it, sessions, runs of steps, steps, messages.
pub fn shrink(
    steps: Vec<Step>,
    failure: Failure,
    limit: Duration,
    fails: impl Fn(&[Step]) -> Option<Failure>,
) -> (Vec<Step>, Failure) {
    let mut all = Shrink { steps, failure, fails, until: Instant::now() + limit };
    let end = all.failure.at;
    all.keep(|at, _| at <= end);
    for session in 0..SESSIONS {
        all.keep(|_, step| step.session != session);
    }
    let mut size = all.steps.len() / 2;
    while size > 0 {
        let (mut from, before) = (0, all.steps.len());
        while from < all.steps.len() {
            if !all.keep(|at, _| at < from || at >= from + size) {
                from += size;
            }
        }
        if size > 1 || all.steps.len() == before {
            size /= 2;
        }
    }
    all.messages();
    (all.steps, all.failure)
}

impl<F: Fn(&[Step]) -> Option<Failure>> Shrink<F> {
    /// Keeps only some steps, if the program fails like that too.
    fn keep(&mut self, keep: impl Fn(usize, &Step) -> bool) -> bool {
        let kept = self.steps.iter().enumerate().filter(|(at, step)| keep(*at, step));
        let fewer: Vec<Step> = kept.map(|(_, step)| step.clone()).collect();
        fewer.len() < self.steps.len() && self.attempt(fewer)
    }

    fn attempt(&mut self, fewer: Vec<Step>) -> bool {
        if Instant::now() > self.until {
            return false;
        }
        let Some(failure) = (self.fails)(&fewer).filter(|failure| failure.is_like(&self.failure)) else { return false };
        self.steps = fewer;
        self.failure = failure;
        true
    }

    /// Leaves messages out of batches that end in Sync, which has to stay: nothing would be answered.
    fn messages(&mut self) {
        for at in 0..self.steps.len() {
            for n in (0..20).rev() {
                let mut fewer = self.steps.clone();
                let Act::Say(batch) = &mut fewer[at].act else { break };
                if matches!(batch.messages.last(), Some(Message::Sync)) && n + 1 < batch.messages.len() {
                    batch.messages.remove(n);
                    self.attempt(fewer);
                }
            }
        }
    }
}
