//! How often something may happen per address or name: token buckets in a table of fixed size.
//! Must never grow with the number of addresses an attacker has.
//!
//! A bucket is kept as one number, the time at which it will be full again (the "theoretical
//! arrival time" of the generic cell rate algorithm, ITU-T I.371): taking a token moves it on by
//! the time one token needs to come back, and there is no token if that would be more than a whole
//! bucket ahead. A bucket that is full again needs no entry.
//!
//! The table is an array of small sets. An entry that finds its set full takes the place of the one
//! that is full again soonest: what many addresses can gain by that is one fresh bucket each, which
//! each of them has anyway.

use std::cell::RefCell;
use std::hash::{BuildHasher, Hash};
use std::net::IpAddr;

use crate::base::clock;

/// Sets; with [`WAYS`] entries of 16 bytes each the table has 256 KiB, allocated at first use.
const SETS: usize = 4096;
const WAYS: usize = 4;
const SECOND_US: u64 = 1_000_000;

/// Tokens come back at `per_second`, up to `burst`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rate {
    /// Not 0.
    pub per_second: u32,
    /// Not 0.
    pub burst: u32,
}

impl Rate {
    /// `per_second`, and as many at once; `None` for 0, which is no limit.
    pub(super) fn of(per_second: u32) -> Option<Self> {
        (per_second > 0).then_some(Self { per_second, burst: per_second })
    }
}

#[derive(Clone, Copy, Default)]
struct Bucket {
    /// Hash of whose it is.
    key: u64,
    /// When it is full again, microseconds; 0 in an entry never used.
    full_us: u64,
}

/// Buckets of many.
#[derive(Default)]
pub(super) struct Rates {
    /// Secret of the process: which addresses share a set cannot be guessed.
    hasher: foldhash::quality::RandomState,
    sets: RefCell<Vec<[Bucket; WAYS]>>,
}

impl Rates {
    /// Takes a token if there is one.
    pub(super) fn take(&self, whose: impl Hash, rate: Rate) -> bool {
        self.take_at(whose, rate, clock::now_us())
    }

    /// Whether there is a token to be taken.
    pub(super) fn has(&self, whose: impl Hash, rate: Rate) -> bool {
        self.find(&whose, clock::now_us(), |full_us, now_us| (full_us, left(full_us, now_us, rate)))
    }

    fn take_at(&self, whose: impl Hash, rate: Rate, now_us: u64) -> bool {
        if self.sets.borrow().is_empty() {
            self.sets.borrow_mut().resize(SETS, Default::default());
        }
        self.find(&whose, now_us, |full_us, now_us| match left(full_us, now_us, rate) {
            true => (full_us.max(now_us) + SECOND_US / u64::from(rate.per_second), true),
            false => (full_us, false),
        })
    }

    /// Hands the bucket's time to `act` and keeps what that makes of it.
    fn find(&self, whose: &impl Hash, now_us: u64, act: impl FnOnce(u64, u64) -> (u64, bool)) -> bool {
        let key = self.hasher.hash_one(whose);
        let mut sets = self.sets.borrow_mut();
        let Some(set) = sets.get_mut(key as usize % SETS) else { return true };
        let own = set.iter().position(|bucket| bucket.key == key && bucket.full_us > 0);
        let soonest = || (0..WAYS).min_by_key(|&way| set[way].full_us).unwrap_or(0);
        let before = own.map_or(0, |way| set[way].full_us);
        let (full_us, outcome) = act(before, now_us);
        if full_us != before {
            let way = own.unwrap_or_else(soonest);
            set[way] = Bucket { key, full_us };
        }
        outcome
    }
}

/// Whether a bucket that is full again at `full_us` has a token now.
fn left(full_us: u64, now_us: u64, rate: Rate) -> bool {
    let token_us = SECOND_US / u64::from(rate.per_second);
    full_us.saturating_sub(now_us) + token_us <= token_us * u64::from(rate.burst)
}

/// Who shares a bucket: one IPv4 address, or one IPv6 /64, of which a single host has all
/// addresses (RFC 4291 section 2.5.1; RFC 6177 has sites get at least one).
pub(super) fn neighbourhood(address: IpAddr) -> u64 {
    match address.to_canonical() {
        // The block ::/64 has no global addresses, so nobody else is in there.
        IpAddr::V4(address) => u64::from(address.to_bits()),
        IpAddr::V6(address) => (address.to_bits() >> 64) as u64 | 1 << 63,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: u64 = 1_000_000_000;

    #[test]
    fn a_burst_and_then_the_rate() {
        let rates = Rates::default();
        let rate = Rate { per_second: 10, burst: 3 };
        let taken = |from: u64, count: u64| (0..count).filter(|n| rates.take_at("a", rate, from + n)).count();
        assert_eq!(taken(NOW, 50), 3);
        assert!(rates.take_at("b", rate, NOW), "somebody else's bucket is full");
        assert_eq!(taken(NOW + 50_000, 1), 0);
        assert_eq!(taken(NOW + 100_000, 5), 1);
        assert_eq!(taken(NOW + 10 * SECOND_US, 50), 3, "it never holds more than the burst");
    }

    #[test]
    fn looking_takes_nothing() {
        let rates = Rates::default();
        let rate = Rate { per_second: 1, burst: 2 };
        for _ in 0..10 {
            assert!(rates.has("a", rate));
        }
        assert!(rates.take("a", rate) && rates.has("a", rate) && rates.take("a", rate));
        assert!(!rates.has("a", rate) && !rates.take("a", rate));
        assert!(rates.has("b", rate));
    }

    #[test]
    fn one_host_is_one_neighbourhood() {
        let of = |text: &str| neighbourhood(text.parse().unwrap_or(IpAddr::from([0; 4])));
        assert_eq!(of("2001:db8:0:1::1"), of("2001:db8:0:1:ffff::2"));
        assert_ne!(of("2001:db8:0:1::1"), of("2001:db8:0:2::1"));
        assert_ne!(of("10.0.0.1"), of("10.0.0.2"));
        assert_eq!(of("::ffff:10.0.0.1"), of("10.0.0.1"));
        assert_ne!(of("::1"), of("0.0.0.1"));
    }

    /// A hundred thousand addresses cost no more memory than one, and do not free one that attacks.
    #[test]
    fn many_addresses_share_what_there_is() {
        let rates = Rates::default();
        let rate = Rate { per_second: 1, burst: 5 };
        for n in 0..100_000u32 {
            assert!(rates.take_at(n, rate, NOW));
            // It uses up its bucket, and everything that comes back.
            rates.take_at("attacker", rate, NOW);
        }
        assert_eq!(rates.sets.borrow().len(), SETS);
        assert!(!rates.take_at("attacker", rate, NOW));
    }

    proptest! {
        /// Never more than the burst and what came back since the beginning.
        #[test]
        fn the_rate_holds(per_second in 1..2000u32, burst in 1..50u32, gaps in proptest::collection::vec(0..200_000u64, 1..200)) {
            let rates = Rates::default();
            let (mut now_us, mut taken) = (NOW, 0u64);
            for gap in gaps {
                now_us += gap;
                taken += u64::from(rates.take_at(7, Rate { per_second, burst }, now_us));
                let token_us = SECOND_US / u64::from(per_second);
                prop_assert!(taken <= u64::from(burst) + (now_us - NOW) / token_us);
            }
            prop_assert!(taken > 0);
        }
    }
}
