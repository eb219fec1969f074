//! Who has failed to log in, and how often: answers come later and later, then not at all for a while.
//! Must never grow beyond its bound, nor punish one address for another.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::time::{Duration, Instant};

/// Most addresses remembered, some 100 bytes each. When it is full the one that failed longest ago is forgotten.
const CAPACITY: usize = 16_384;
/// Delay of the answer to the first failure; each further one doubles it.
const FIRST_DELAY: Duration = Duration::from_millis(50);
/// Longest delay.
const LONGEST_DELAY: Duration = Duration::from_secs(3);

/// Failures by address.
#[derive(Debug, Default)]
pub(super) struct Bans(HashMap<IpAddr, Record>);

#[derive(Debug)]
struct Record {
    failures: u32,
    last: Instant,
    until: Option<Instant>,
}

impl Bans {
    /// How much longer an address is refused.
    pub fn left(&self, address: IpAddr, now: Instant) -> Option<Duration> {
        let until = self.0.get(&key(address))?.until?;
        until.checked_duration_since(now).filter(|left| !left.is_zero())
    }

    /// Notes a failure; tells how long to wait with the answer. With the `max`th the address is refused for `ban`,
    /// and a success or that long without a failure makes it blank again.
    pub fn failed(&mut self, address: IpAddr, max: u32, ban: Duration, now: Instant) -> Duration {
        if max == 0 {
            return Duration::ZERO;
        }
        let key = key(address);
        if self.0.len() >= CAPACITY && !self.0.contains_key(&key) {
            self.make_room(ban, now);
        }
        let record = self.0.entry(key).or_insert(Record { failures: 0, last: now, until: None });
        if now.duration_since(record.last) > ban || record.until.is_some_and(|until| until <= now) {
            record.failures = 0;
            record.until = None;
        }
        record.failures = record.failures.saturating_add(1);
        record.last = now;
        if record.failures >= max {
            record.until = Some(now + ban);
        }
        FIRST_DELAY.saturating_mul(1 << (record.failures - 1).min(10)).min(LONGEST_DELAY)
    }

    /// Notes a success.
    pub fn succeeded(&mut self, address: IpAddr) {
        self.0.remove(&key(address));
    }

    fn make_room(&mut self, ban: Duration, now: Instant) {
        self.0.retain(|_, record| now.duration_since(record.last) <= ban);
        if self.0.len() >= CAPACITY
            && let Some(oldest) = self.0.iter().min_by_key(|(_, record)| record.last).map(|(key, _)| *key)
        {
            self.0.remove(&oldest);
        }
    }
}

/// An IPv6 host has a whole /64 to come from.
fn key(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << 64))),
        address => address,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const BAN: Duration = Duration::from_secs(60);

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn failures_are_answered_later_and_later_and_then_refused() {
        let (mut bans, now) = (Bans::default(), Instant::now());
        let one = address("10.0.0.1");
        let delays: Vec<_> = (0..4).map(|_| bans.failed(one, 4, BAN, now).as_millis()).collect();
        assert_eq!(delays, [50, 100, 200, 400]);
        assert_eq!(bans.left(one, now), Some(BAN));
        assert_eq!(bans.left(one, now + BAN / 2), Some(BAN / 2));
        assert_eq!(bans.left(one, now + BAN), None);
        assert_eq!(bans.failed(one, 4, BAN, now + BAN).as_millis(), 50, "blank again");
        assert_eq!(bans.left(one, now + BAN), None);
        assert_eq!(bans.left(address("10.0.0.2"), now), None);
        for _ in 0..40 {
            assert!(bans.failed(one, 1000, BAN, now + BAN) <= LONGEST_DELAY);
        }
    }

    #[test]
    fn a_success_or_time_makes_blank() {
        let (mut bans, now) = (Bans::default(), Instant::now());
        let one = address("::ffff:10.0.0.1");
        bans.failed(one, 2, BAN, now);
        bans.succeeded(address("10.0.0.1"));
        bans.failed(one, 2, BAN, now);
        assert_eq!(bans.left(one, now), None);
        bans.failed(one, 2, BAN, now + BAN * 2);
        assert_eq!(bans.left(one, now + BAN * 2), None);
        assert_eq!(bans.failed(one, 0, BAN, now), Duration::ZERO, "switched off");
    }

    #[test]
    fn an_ipv6_host_is_its_network() {
        let (mut bans, now) = (Bans::default(), Instant::now());
        bans.failed(address("2001:db8::1"), 1, BAN, now);
        assert!(bans.left(address("2001:db8::ffff:1"), now).is_some());
        assert!(bans.left(address("2001:db8:0:1::1"), now).is_none());
    }

    #[test]
    fn memory_is_bounded() {
        let (mut bans, now) = (Bans::default(), Instant::now());
        for number in 0..CAPACITY as u32 + 100 {
            bans.failed(IpAddr::V4(number.into()), 1, BAN, now + Duration::from_micros(number.into()));
        }
        assert_eq!(bans.0.len(), CAPACITY);
        assert!(bans.left(IpAddr::V4(0.into()), now).is_none() && bans.left(IpAddr::V4(200.into()), now).is_some());
    }
}
