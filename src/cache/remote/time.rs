//! Redis' clock, by which processes tell each other when an answer began.
//! Must never make an answer younger than it is.
//!
//! A process's own clock means nothing to another, and the system's clocks of two machines agree only if somebody sees to it; but all of them ask the same Redis, and
//! that says what time it has (TIME). Asked at `s` and answered at `r` of our clock, it had its time `t` somewhere in between: ours is behind Redis' by no less than
//! `t - r` and no more than `t - s`. Who keeps an answer takes the least, who reads it the most, so that each rounds to the older
//! side by the time that its own question took.
//!
//! With several servers, of a cluster or one after the other, it is the least and the most of all that are masters; each process asks all of them, so
//! that whichever clock the one took, the other's bounds enclose it. Where a server takes another's place its clock may differ
//! by [`SLACK_US`] before an answer could look younger than it is.

/// What servers' clocks may differ by, and what each answer is taken to be older for it, microseconds.
pub const SLACK_US: u64 = 100_000;

/// By how much Redis' clock is ahead of ours, microseconds: at least, and at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Skew {
    least_us: i64,
    most_us: i64,
}

impl Skew {
    /// A server was asked at `sent_us`, has said `told_us`, and that had come at `received_us`.
    #[must_use]
    pub fn new(sent_us: u64, told_us: u64, received_us: u64) -> Self {
        let ahead = |of_us: u64| told_us.cast_signed().saturating_sub(of_us.cast_signed());
        Self { least_us: ahead(received_us), most_us: ahead(sent_us) }
    }

    /// That of this and another server.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self { least_us: self.least_us.min(other.least_us), most_us: self.most_us.max(other.most_us) }
    }

    /// A moment of our clock in Redis' time: not later.
    #[must_use]
    pub fn remote_us(self, local_us: u64) -> u64 {
        local_us.saturating_add_signed(self.least_us)
    }

    /// A moment of our clock in Redis' time: not earlier.
    #[must_use]
    pub fn remote_most_us(self, local_us: u64) -> u64 {
        local_us.saturating_add_signed(self.most_us)
    }

    /// A moment of Redis' time on our clock: not earlier, and [`SLACK_US`] after that.
    #[must_use]
    pub fn local_most_us(self, remote_us: u64) -> u64 {
        let local_us = remote_us.cast_signed().saturating_sub(self.least_us).saturating_add_unsigned(SLACK_US);
        u64::try_from(local_us).unwrap_or(0)
    }

    /// A moment of Redis' time on our clock: not later, and [`SLACK_US`] before that. Negative if our clock had not begun yet.
    #[must_use]
    pub fn local_us(self, remote_us: u64) -> i64 {
        remote_us.cast_signed().saturating_sub(self.most_us).saturating_sub_unsigned(SLACK_US)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Whatever two clocks show and however long questions take, and whichever of two servers either asks.
        #[test]
        fn nothing_gets_younger(
            (writer, reader) in (0u64..1 << 50, 0u64..1 << 50),
            servers in proptest::collection::vec(0u64..1 << 50, 1..4),
            took in proptest::collection::vec((0u64..20_000, 0u64..20_000), 8),
            began in 10_000_000u64..20_000_000,
        ) {
            // True time starts at 0; a clock shows it and what it is ahead of it.
            let skew = |ahead: u64, took: &[(u64, u64)]| {
                let each = servers.iter().zip(took).map(|(server, (there, back))| {
                    let sent = 5_000_000;
                    Skew::new(sent + ahead, sent + there + server, sent + there + back + ahead)
                });
                each.reduce(Skew::and).unwrap()
            };
            // What was said then is not taken for said before.
            let said = skew(writer, &took[..4]).remote_most_us(began + writer);
            let heard = skew(reader, &took[4..]).local_most_us(said);
            prop_assert!(heard >= (began + reader) + SLACK_US);
            let remote = skew(writer, &took[..4]).remote_us(began + writer);
            let seen = skew(reader, &took[4..]).local_us(remote);
            prop_assert!(seen.saturating_add_unsigned(SLACK_US) <= (began + reader).cast_signed());
        }
    }

    #[test]
    fn it_is_older_by_no_more_than_the_questions_took() {
        let written = Skew::new(1_000, 5_001_500, 2_000).remote_us(3_000);
        assert_eq!(written, 5_002_500);
        let slack = SLACK_US.cast_signed();
        assert_eq!(Skew::new(0, 1_000_000, 1_000).local_us(5_002_500), 4_002_500 - slack);
        // Before there was a clock here.
        assert_eq!(Skew::new(0, 5_010_000, 0).local_us(written), -7_500 - slack);
    }
}
