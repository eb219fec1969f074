//! Statements that stand for those of their shape, and the trace in which each of them can be seen.
//! Must never be kept of a statement that is not recorded: nothing would be found there.

/// A statement that was recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exemplar {
    /// Number of its trace.
    pub trace: [u8; 16],
    /// Number of its span there.
    pub span: [u8; 8],
    /// When it was over, µs of [`crate::base::clock`].
    pub done_us: u64,
    /// Its wait for a server, µs.
    pub wait_us: u64,
    /// From its sending to the first byte of its answer, µs.
    pub first_us: u64,
    /// From its sending to the end of its answer, µs.
    pub server_us: u64,
}

/// Ends of the classes of time, µs: whatever is usual, those that took unusually long stay.
const ENDS_US: [u64; 4] = [1_000, 10_000, 100_000, 1_000_000];

/// The last one of each class of time, a decade wide.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Exemplars([Option<Exemplar>; ENDS_US.len() + 1]);

impl Exemplars {
    /// These and one more.
    #[must_use]
    pub fn with(mut self, one: Exemplar) -> Self {
        let total_us = one.wait_us.saturating_add(one.server_us);
        let class = ENDS_US.iter().take_while(|end| **end <= total_us).count();
        self.0.get_mut(class).into_iter().for_each(|of| *of = Some(one));
        self
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Exemplar> {
        self.0.iter().flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slow_ones_are_not_pushed_out_by_fast_ones() {
        let one =
            |done_us, server_us| Exemplar { trace: [1; 16], span: [2; 8], done_us, wait_us: 1, first_us: 1, server_us };
        let all = [one(1, 5), one(2, 2_000_000), one(3, 999), one(4, 7), one(5, 50_000)];
        let all = all.into_iter().fold(Exemplars::default(), Exemplars::with);
        assert_eq!(all.iter().map(|one| one.done_us).collect::<Vec<_>>(), [4, 3, 5, 2]);
    }
}
