//! How long reads of a shape usually take a server, from their being sent until the whole answer has come: for whoever waits for one of another process.
//! Must never grow beyond its bound.

use std::collections::HashMap;

/// Shapes that are remembered; beyond that all are forgotten and learned anew.
const MAX_SHAPES: usize = 20_000;
/// What the newest weighs, as a part of all.
const PART: u64 = 8;

/// What was seen by one worker, by catalog and shape.
#[derive(Debug, Default)]
pub(super) struct Usual(HashMap<(usize, u64), u64, foldhash::fast::RandomState>);

impl Usual {
    /// One took so long, microseconds.
    pub fn took(&mut self, catalog: usize, shape: u64, us: u64) {
        if self.0.len() >= MAX_SHAPES && !self.0.contains_key(&(catalog, shape)) {
            self.0.clear();
        }
        let known = self.0.entry((catalog, shape)).or_insert(us);
        *known = (*known * (PART - 1) + us) / PART;
    }

    /// How long that is, microseconds; `None` if none was seen.
    pub fn of(&self, catalog: usize, shape: u64) -> Option<u64> {
        self.0.get(&(catalog, shape)).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_follows_what_is_seen() {
        let mut usual = Usual::default();
        assert_eq!(usual.of(0, 7), None);
        usual.took(0, 7, 8_000);
        assert_eq!((usual.of(0, 7), usual.of(1, 7), usual.of(0, 8)), (Some(8_000), None, None));
        usual.took(0, 7, 0);
        assert_eq!(usual.of(0, 7), Some(7_000));
        (0..50).for_each(|_| usual.took(0, 7, 100));
        assert!(usual.of(0, 7).is_some_and(|us| (100..120).contains(&us)));
        (0..MAX_SHAPES as u64).for_each(|shape| usual.took(1, shape, 1));
        assert!(usual.0.len() <= MAX_SHAPES && usual.of(0, 7).is_none());
    }
}
