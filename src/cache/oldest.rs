//! The keys of a tenant's answers, oldest first.
//! Must never grow by more than what is kept, nor take long at once.
//!
//! Each has the number of its answer. One that goes by itself is not taken out here: it is found to be gone, or another to be in its place,
//! on a round through all keys, of which each new key makes some steps. So a round is over when half as many were added as it began with; there are never more keys than three times those that
//! were kept at most.

use std::collections::VecDeque;

use super::key::Owned;

/// Steps of a round for each new key: more than one, or it would not end.
const STEPS: usize = 3;

/// The keys, in order.
#[derive(Debug, Default)]
pub struct Oldest {
    /// Older than `rest`. This round has seen that they are kept.
    seen: VecDeque<(Owned, u64)>,
    /// The others.
    rest: VecDeque<(Owned, u64)>,
    /// Number of the newest.
    newest: u64,
}

impl Oldest {
    /// Adds a key; the number of its answer. `is_kept`: whether the answer of another is still there.
    pub fn push(&mut self, key: Owned, is_kept: impl Fn(&Owned, u64) -> bool) -> u64 {
        for _ in 0..STEPS {
            match self.rest.pop_front() {
                Some((key, number)) if is_kept(&key, number) => self.seen.push_back((key, number)),
                Some(_) => {}
                None => std::mem::swap(&mut self.seen, &mut self.rest),
            }
        }
        self.newest += 1;
        self.rest.push_back((key, self.newest));
        self.newest
    }

    /// The oldest, and the number of its answer.
    pub fn pop(&mut self) -> Option<(Owned, u64)> {
        self.seen.pop_front().or_else(|| self.rest.pop_front())
    }

    /// Gives the oldest another chance: it is the newest now.
    pub fn again(&mut self, key: Owned, number: u64) {
        self.rest.push_back((key, number));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::key::Hashed;

    fn key(n: u32) -> Owned {
        Hashed::new(&n.to_be_bytes()).to_owned()
    }

    fn number(key: &Owned) -> u32 {
        u32::from_be_bytes((**key).try_into().unwrap())
    }

    #[test]
    fn keys_come_in_their_order_and_those_that_went_are_dropped() {
        let mut oldest = Oldest::default();
        // Of all that were added every tenth stays, and the last hundred.
        let kept = |now: u32| move |key: &Owned, _| number(key).is_multiple_of(10) || number(key) + 100 > now;
        for n in 0..10_000 {
            oldest.push(key(n), kept(n));
            let most = 3 * (n as usize / 10 + 100);
            let keys = oldest.seen.len() + oldest.rest.len();
            assert!(keys <= most + STEPS, "{keys} after {n}");
        }
        let mut before = None;
        let mut multiples = 0;
        while let Some((key, _)) = oldest.pop() {
            let n = number(&key);
            assert!(before < Some(n), "{n} behind {before:?}");
            before = Some(n);
            multiples += u32::from(n.is_multiple_of(10));
        }
        assert_eq!((multiples, before), (1000, Some(9999)));
    }

    #[test]
    fn one_key_whose_answer_is_renewed_stays_one() {
        let mut oldest = Oldest::default();
        let mut newest = 0;
        for _ in 0..1000 {
            newest = oldest.push(key(1), |_, number| number == newest);
        }
        assert!(oldest.seen.len() + oldest.rest.len() <= STEPS);
    }
}
