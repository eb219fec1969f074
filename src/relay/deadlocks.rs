//! Deadlocks (40P01): whose statement the server has ended, and whose it waited for.
//! Must never cost anything but an error, nor name a value of a statement's.

use std::sync::Arc;

use super::server::{Server, Use};
use super::{Relay, ServerId};
use crate::flow::expect::Expect;
use crate::wire::frame::{HEADER, cstr};

/// Most pairs of statements that are remembered; then the one is forgotten that was seen longest ago.
const MOST: usize = 100;

/// Two statements that were in each other's way.
#[derive(Clone, Debug)]
pub struct Deadlock {
    /// Name of the database as clients give it.
    pub database: String,
    /// Name of the user whose statement was ended.
    pub user: String,
    /// The server.
    pub host: Arc<str>,
    /// Shape of the statement that was ended.
    pub shape: u64,
    /// Its text without values.
    pub text: Arc<str>,
    /// Shape and text of what ran in the session that it waited for; `None` if that is not one of this worker's.
    pub other: Option<(u64, Arc<str>)>,
    /// How often.
    pub count: u64,
    /// When last, µs of [`crate::base::clock`].
    pub last_us: u64,
}

/// Those of a worker.
#[derive(Debug, Default)]
pub(super) struct Deadlocks(Vec<Deadlock>);

impl Deadlocks {
    fn note(&mut self, new: Deadlock) {
        let other = |it: &Deadlock| it.other.as_ref().map(|(shape, _)| *shape);
        let same = |it: &&mut Deadlock| {
            it.shape == new.shape && other(it) == other(&new) && it.database == new.database && it.user == new.user
        };
        if let Some(known) = self.0.iter_mut().find(same) {
            known.count += 1;
            known.last_us = new.last_us;
            return;
        }
        if self.0.len() >= MOST
            && let Some((oldest, _)) = self.0.iter().enumerate().min_by_key(|(_, it)| it.last_us)
        {
            self.0.swap_remove(oldest);
        }
        self.0.push(new);
    }

    /// All of them.
    pub(super) fn all(&self) -> Vec<Deadlock> {
        self.0.clone()
    }

    pub(super) fn forget(&mut self) {
        self.0.clear();
    }
}

/// The numbers in the detail of an ErrorResponse, in whatever language it is: processes, and what they wait for.
fn numbers(message: &[u8]) -> Vec<u32> {
    let mut fields = message.get(HEADER..).unwrap_or_default();
    while let Some((&field, rest)) = fields.split_first() {
        let Some((value, rest)) = cstr(rest).filter(|_| field != 0) else { break };
        if field == b'D' {
            let digits = value.split(|byte| !byte.is_ascii_digit()).filter(|digits| !digits.is_empty());
            return digits.filter_map(|digits| std::str::from_utf8(digits).ok()?.parse().ok()).collect();
        }
        fields = rest;
    }
    Vec::new()
}

impl Relay {
    /// A statement was ended by this error.
    #[cold]
    pub(super) fn is_deadlocked(&mut self, server: ServerId, entry: &Expect, message: &[u8]) {
        let Some(this) = self.servers.get(server) else { return };
        let (pool, own) = (&self.pools[this.pool], this.key.pid);
        pool.counters.total_deadlocks.add(1);
        let lent_there = |id: u32| {
            let lent = self.servers.values().filter(|other| matches!(other.use_, Use::Lent(_)));
            let mut meant = lent.filter(|other| other.key.pid == id && id != own);
            meant.find(|other| self.pools[other.pool].dial.endpoint == pool.dial.endpoint).map(Server::speaks)
        };
        let other = numbers(message).into_iter().find_map(lent_there);
        let group = &self.groups[pool.group];
        let new = Deadlock {
            database: group.database.clone(),
            user: group.user.clone(),
            host: Arc::clone(&pool.counters.target.host),
            shape: entry.cookie,
            text: self.shapes.text(entry.cookie),
            other: other.map(|shape| (shape, self.shapes.text(shape))),
            count: 1,
            last_us: self.now_us,
        };
        self.deadlocks.note(new);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::build;

    #[test]
    fn numbers_are_found_in_any_language() {
        let mut message = Vec::new();
        build::message(&mut message, b'E', |out| {
            out.extend_from_slice(b"SERROR\0C40P01\0MDeadlock entdeckt 99\0");
            out.extend_from_slice(
                b"DProzess 70 wartet auf ShareLock auf Transaktion 750; blockiert von Prozess 71.\0\0",
            );
        });
        assert_eq!(numbers(&message), [70, 750, 71]);
        assert!(numbers(&message[..20]).is_empty());
    }

    #[test]
    fn the_same_pair_is_counted_and_the_oldest_forgotten() {
        let deadlock = |shape, other: Option<u64>, last_us| Deadlock {
            database: "d".into(),
            user: "u".into(),
            host: "h".into(),
            shape,
            text: "".into(),
            other: other.map(|shape| (shape, "".into())),
            count: 1,
            last_us,
        };
        let mut all = Deadlocks::default();
        for (shape, other) in [(1, Some(2)), (1, Some(2)), (1, None)] {
            all.note(deadlock(shape, other, 5));
        }
        let counts: Vec<u64> = all.all().iter().map(|it| it.count).collect();
        assert_eq!(counts, [2, 1]);
        (0..MOST as u64).for_each(|n| all.note(deadlock(10 + n, None, 10 + n)));
        assert!(all.all().len() == MOST && all.all().iter().all(|it| it.shape >= 10));
    }
}
