//! Shapes of which hardly anything is asked for twice.
//! Must never take the cache from a shape that it helps for longer than it takes to see that.
//!
//! A lookup that finds nothing, and keeping what then comes for nobody, costs about a tenth of what a query costs; a hit saves all of it. So
//! of a shape that was hit less than once in 32 lookups only what was asked for before ([`super::seen`]) is kept: the others cost a lookup,
//! and what is asked for again is answered from the third time on. It is judged anew every few
//! thousand lookups, and leaves that state with one hit in 16.
//!
//! A lookup itself is a few in a hundred of a query's processor time. So a shape of which not one lookup in 256 was a hit rests: seven times
//! as many of its queries as are judged at once are not looked up at all. What that takes from it is at most what so few hits would save;
//! and as every query is looked up when it rests no more, whatever comes to be asked for again and again, by all or by one, is found then.

use std::fmt;

/// Shapes that are told apart: of two in the same place the one that was asked for last counts.
const PLACES: usize = 1024;
/// Lookups after which a shape is judged.
const WINDOW: u16 = 4096;
/// With fewer hits of so many lookups it becomes one of those, with more it is no more.
const POOR: u16 = WINDOW / 32;
const GOOD: u16 = WINDOW / 16;
/// With fewer hits than this it rests, for so many queries.
const HOPELESS: u16 = WINDOW / 256;
const REST: u16 = 7 * WINDOW;

#[derive(Clone, Copy, Debug, Default)]
struct Worth {
    shape: u64,
    asked: u16,
    hits: u16,
    poor: bool,
    /// So many more are not looked up.
    rests: u16,
}

impl Worth {
    fn asked(&mut self) {
        self.asked += 1;
        if self.asked == WINDOW {
            self.poor = self.hits < if self.poor { GOOD } else { POOR };
            self.rests = if self.hits < HOPELESS { REST } else { 0 };
            (self.asked, self.hits) = (0, 0);
        }
    }
}

/// What one worker has seen of shapes.
pub struct Worths(Box<[Worth]>);

impl fmt::Debug for Worths {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Worths({} places)", self.0.len())
    }
}

impl Default for Worths {
    fn default() -> Self {
        Self(vec![Worth::default(); PLACES].into())
    }
}

impl Worths {
    fn place(&mut self, shape: u64) -> Option<&mut Worth> {
        let at = usize::try_from(shape % PLACES as u64).unwrap_or_default();
        self.0.get_mut(at)
    }

    /// Something of this shape is asked for; whether that is not looked up.
    pub fn rests(&mut self, shape: u64) -> bool {
        let resting = self.place(shape).filter(|worth| worth.shape == shape && worth.rests > 0);
        resting.map(|worth| worth.rests -= 1).is_some()
    }

    /// Whether the last one was not.
    pub fn rested(&mut self, shape: u64) -> bool {
        self.place(shape).is_some_and(|worth| worth.shape == shape && worth.rests > 0)
    }

    /// Something of this shape was asked for and is not kept; whether that is hardly ever asked for twice.
    pub fn is_poor(&mut self, shape: u64) -> bool {
        let Some(worth) = self.place(shape) else { return false };
        if worth.shape != shape {
            *worth = Worth { shape, ..Worth::default() };
        }
        worth.asked();
        worth.poor
    }

    /// Something of it was, and is.
    pub fn is_hit(&mut self, shape: u64) {
        let worth = self.place(shape).filter(|worth| worth.shape == shape);
        if let Some(worth) = worth {
            worth.hits += 1;
            worth.asked();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many of so many lookups find nothing and the shape poor, every `hit`th being a hit.
    fn poor(worths: &mut Worths, lookups: u32, hit: u32) -> u32 {
        let mut poor = 0;
        for n in 1..=lookups {
            if n % hit == 0 {
                worths.is_hit(7);
            } else {
                poor += u32::from(worths.is_poor(7));
            }
        }
        poor
    }

    #[test]
    fn a_shape_is_poor_while_it_is_hardly_hit() {
        let mut worths = Worths::default();
        let window = u32::from(WINDOW);
        let misses = |of: std::ops::RangeInclusive<u32>, hit: u32| of.filter(|n| n % hit != 0).count() as u32;
        assert_eq!(poor(&mut worths, 4 * window, 30), 0);
        assert_eq!(poor(&mut worths, 4 * window, 40), misses(window..=4 * window, 40));
        // Between the two it stays what it is.
        assert_eq!(poor(&mut worths, 4 * window, 20), misses(1..=4 * window, 20));
        assert_eq!(poor(&mut worths, 4 * window, 10), misses(1..=window - 1, 10));
        assert_eq!(poor(&mut worths, 4 * window, 20), 0);
        assert_eq!(poor(&mut worths, 2 * window, 1000), misses(window..=2 * window, 1000));
        assert!(worths.rests(7));
        // Another one in its place knows nothing of it.
        assert!(!worths.is_poor(7 + PLACES as u64) && !worths.is_poor(7));
    }

    #[test]
    fn a_shape_rests_while_it_is_never_hit() {
        let mut worths = Worths::default();
        let window = u32::from(WINDOW);
        // How many of so many queries are looked up, every `hit`th of those being a hit.
        let looked_up = |worths: &mut Worths, queries: u32, hit: u32| {
            let mut looked_up = 0;
            for _ in 0..queries {
                if worths.rests(7) {
                    continue;
                }
                looked_up += 1;
                if looked_up % hit == 0 {
                    worths.is_hit(7);
                } else {
                    worths.is_poor(7);
                }
            }
            looked_up
        };
        assert_eq!(looked_up(&mut worths, 16 * window, 1000), 2 * window);
        // It comes to be asked for again: from when it rests no more all are looked up.
        assert_eq!(looked_up(&mut worths, window - 5, 2), window - 5);
        assert!(!worths.rests(7) && !worths.rested(7));
        assert_eq!(looked_up(&mut worths, 8 * window, 100), 8 * window);
        // Hardly ever is as good as never, one in 256 is not.
        assert_eq!(looked_up(&mut worths, 8 * window, 250), 8 * window);
        assert_eq!(looked_up(&mut worths, window + 5, u32::MAX), window + 5);
        assert!(worths.rested(7) && !worths.rested(7 + PLACES as u64) && !worths.rests(7 + PLACES as u64));
    }
}
