//! Deadlocks (40P01): whose statement the server has ended, and whose it waited for.
//! Must never cost anything but an error, nor name a value of a statement's.
//!
//! The error names the process that was waited for. It may serve a client of another worker: what is known goes from one worker to the next
//! until one knows that process, and stays there, or with the last. The server tells the error before it lets its locks go (`EmitErrorReport`
//! in front of `AbortCurrentTransaction`, src/backend/tcop/postgres.c), so that the other statement still runs then, or has just ended.

use std::sync::Arc;

use super::pids::Errand;
use super::server::{Server, Use};
use super::{Relay, ServerId};
use crate::config::Endpoint;
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
    /// Shape and text of what ran in the session that it waited for; `None` if that is not one of this process'.
    pub other: Option<(u64, Arc<str>)>,
    /// How often.
    pub count: u64,
    /// When last, µs of [`crate::base::clock`].
    pub last_us: u64,
}

/// One of which the other side is looked for, on its way from worker to worker.
#[derive(Debug)]
pub struct HalfKnown {
    deadlock: Deadlock,
    /// Where the session is that was waited for, and what may be the number of its process.
    endpoint: Endpoint,
    numbers: Vec<u32>,
    /// So many workers do not know it.
    asked: u8,
}

/// Those of a worker.
#[derive(Debug, Default)]
pub(super) struct Deadlocks(Vec<Deadlock>);

impl Deadlock {
    /// Adds this to one of the same statements; gives it back where there is none.
    pub(super) fn join(self, all: &mut [Self]) -> Option<Self> {
        let other = |it: &Self| it.other.as_ref().map(|(shape, _)| *shape);
        let same = |it: &&mut Self| {
            it.shape == self.shape && other(it) == other(&self) && it.database == self.database && it.user == self.user
        };
        let Some(known) = all.iter_mut().find(same) else { return Some(self) };
        known.count += self.count;
        known.last_us = known.last_us.max(self.last_us);
        None
    }
}

impl Deadlocks {
    fn note(&mut self, new: Deadlock) {
        let Some(new) = new.join(&mut self.0) else { return };
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
        let group = &self.groups[pool.group];
        let deadlock = Deadlock {
            database: group.database.clone(),
            user: group.user.clone(),
            host: Arc::clone(&pool.counters.target.host),
            shape: entry.cookie,
            text: self.shapes.text(entry.cookie),
            other: None,
            count: 1,
            last_us: self.now_us,
        };
        let numbers = numbers(message).into_iter().filter(|number| *number != own).collect();
        let endpoint = pool.dial.endpoint.clone();
        self.looks_for_other(Box::new(HalfKnown { deadlock, endpoint, numbers, asked: 0 }));
    }

    /// Another worker does not know the other side of one, or this one has not looked yet.
    pub fn looks_for_other(&mut self, mut half: Box<HalfKnown>) {
        let lent = |id: u32| {
            let lent = self.servers.values().filter(|server| matches!(server.use_, Use::Lent(_)));
            let mut meant = lent.filter(|server| server.key.pid == id);
            meant.find(|server| self.pools[server.pool].dial.endpoint == half.endpoint).map(Server::speaks)
        };
        let other = half.numbers.iter().find_map(|number| lent(*number));
        half.asked += 1;
        if other.is_none() && half.asked < self.place.workers {
            return self.send((self.place.worker + 1) % self.place.workers, Errand::Deadlock(half));
        }
        half.deadlock.other = other.map(|shape| (shape, self.shapes.text(shape)));
        self.deadlocks.note(half.deadlock);
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
