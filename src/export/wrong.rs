//! Wrong tokens, by the address that they come from: whoever shows too many is told to come later.
//! Must never grow beyond its bound, nor keep out those at the same address who were right before.
//!
//! Who is told to come later learns nothing of a token, not even whether it is right. Only one that was right from there already still
//! opens: on a loopback address, and behind one of a whole network, a program with a token of yesterday would lock all others out.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// So many wrong tokens may come at once.
const BURST: u32 = 10;
/// One more for each of these.
const PERIOD: Duration = Duration::from_secs(6);
/// Most addresses remembered, some 60 bytes each. When it is full the one that may show the most is forgotten.
const CAPACITY: usize = 4096;

/// What is known of an address.
#[derive(Debug)]
struct Record {
    /// When all that it may show is there again.
    blank: Instant,
    /// Numbers of the tokens that were right, as bits.
    right: u128,
}

/// All addresses from which tokens come.
#[derive(Debug, Default)]
pub(super) struct Wrong(Mutex<HashMap<IpAddr, Record>>);

impl Wrong {
    /// Whether somebody from there may show a token, which is the known one of this number or none. Else how long he is to wait.
    pub(super) fn may_show(&self, from: IpAddr, known: Option<usize>, now: Instant) -> Result<(), Duration> {
        let mut records = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let key = key(from);
        if records.len() >= CAPACITY && !records.contains_key(&key) {
            make_room(&mut records, now);
        }
        let record = records.entry(key).or_insert(Record { blank: now, right: 0 });
        // Beyond that many nobody is remembered as right, and all wait alike.
        let bit =
            known.map(|number| u32::try_from(number).ok().and_then(|number| 1_u128.checked_shl(number)).unwrap_or(0));
        if bit.is_some_and(|bit| record.right & bit != 0) {
            return Ok(());
        }
        let debt = record.blank.saturating_duration_since(now);
        let most = PERIOD * (BURST - 1);
        if debt > most {
            return Err(debt - most);
        }
        match bit {
            Some(bit) => record.right |= bit,
            None => record.blank = record.blank.max(now) + PERIOD,
        }
        Ok(())
    }

    /// Tokens have other numbers now.
    pub(super) fn forget(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).values_mut().for_each(|record| record.right = 0);
    }
}

/// Forgets those who have shown nothing wrong for long; if there are none, one of those who have shown the least.
fn make_room(records: &mut HashMap<IpAddr, Record>, now: Instant) {
    records.retain(|_, record| record.blank > now);
    if records.len() >= CAPACITY
        && let Some(least) = records.iter().min_by_key(|(_, record)| record.blank).map(|(key, _)| *key)
    {
        records.remove(&least);
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

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn too_many_wrong_tokens_are_told_to_come_later() {
        let (wrong, now) = (Wrong::default(), Instant::now());
        let one = address("2001:db8::1");
        for n in 0..BURST {
            assert_eq!(wrong.may_show(one, None, now), Ok(()), "{n}");
        }
        assert_eq!(wrong.may_show(one, None, now), Err(PERIOD));
        assert_eq!(wrong.may_show(address("2001:db8::ffff:2"), None, now), Err(PERIOD), "the same network");
        assert_eq!(wrong.may_show(address("2001:db8:0:1::1"), None, now), Ok(()));
        // A right one that has not been right from there says nothing either.
        assert_eq!(wrong.may_show(one, Some(0), now), Err(PERIOD));
        assert_eq!(wrong.may_show(one, None, now + PERIOD / 2), Err(PERIOD / 2));
        assert_eq!(wrong.may_show(one, None, now + PERIOD), Ok(()));
        assert_eq!(wrong.may_show(one, None, now + PERIOD), Err(PERIOD));
        let later = now + PERIOD * (BURST + 1);
        (0..BURST).for_each(|_| assert_eq!(wrong.may_show(one, None, later), Ok(())));
    }

    #[test]
    fn who_was_right_before_goes_on() {
        let (wrong, now) = (Wrong::default(), Instant::now());
        let one = address("127.0.0.1");
        assert_eq!(wrong.may_show(one, Some(1), now), Ok(()));
        (0..BURST).for_each(|_| wrong.may_show(address("::ffff:127.0.0.1"), None, now).unwrap());
        assert_eq!((wrong.may_show(one, Some(1), now), wrong.may_show(one, Some(0), now)), (Ok(()), Err(PERIOD)));
        assert_eq!(wrong.may_show(one, Some(1000), now), Err(PERIOD));
        wrong.forget();
        assert_eq!(wrong.may_show(one, Some(1), now), Err(PERIOD));
    }

    #[test]
    fn it_is_bounded() {
        let (wrong, now) = (Wrong::default(), Instant::now());
        let bad = address("10.9.9.9");
        (0..BURST).for_each(|_| wrong.may_show(bad, None, now).unwrap());
        for n in 0..2 * CAPACITY as u32 {
            wrong.may_show(IpAddr::V4(n.into()), None, now).unwrap();
        }
        assert_eq!(wrong.0.lock().unwrap().len(), CAPACITY);
        assert_eq!(wrong.may_show(bad, None, now), Err(PERIOD), "it has shown the most");
    }
}
