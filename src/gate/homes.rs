//! Which worker a client goes to: one of those where its pool lives, the one with the fewest.
//! Must never send a client where its pool has no slice.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::config::Config;
use crate::pool::place;
use crate::relay::Seat;

/// Clients of each pool on each of its workers.
#[derive(Debug, Default)]
pub(super) struct Homes(RefCell<HashMap<(String, String), Vec<Home>>>);

/// A worker, and how many clients of a pool it has.
type Home = (u8, Arc<AtomicU32>);

/// Pools remembered before those without a client are forgotten.
const REMEMBERED: usize = 1000;

impl Homes {
    /// The worker for one more client, and its place there, which is given back on drop.
    pub fn choose(&self, database: &str, user: &str, config: &Config, workers: usize) -> (usize, Seat) {
        let mut pools = self.0.borrow_mut();
        let size = config.terms(database, user).pool_size;
        let key = (database.to_owned(), user.to_owned());
        if pools.len() > REMEMBERED && !pools.contains_key(&key) {
            pools.retain(|_, homes| homes.iter().any(|(_, clients)| clients.load(Ordering::Relaxed) > 0));
        }
        let homes = pools.entry(key).or_default();
        // Its size may have changed since.
        let mut least: Option<(u32, u8, Arc<AtomicU32>)> = None;
        for home in place::homes(database, user, size, workers as u8) {
            let known = homes.iter().find(|(worker, _)| *worker == home).map(|(_, clients)| Arc::clone(clients));
            let clients = known.unwrap_or_else(|| {
                let clients = Arc::default();
                homes.push((home, Arc::clone(&clients)));
                clients
            });
            let n = clients.load(Ordering::Relaxed);
            if least.as_ref().is_none_or(|(fewest, ..)| n < *fewest) {
                least = Some((n, home, clients));
            }
        }
        let (_, home, clients) = least.unwrap_or_default();
        (usize::from(home), Seat::count(&clients))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_are_spread_over_the_homes_of_their_pool() {
        let text = "[databases.d]\nprimary = \"h\"\n[users.u]\npassword = \"p\"";
        let config = Config::parse(text, "f.toml").unwrap_or_else(|problems| panic!("{problems}"));
        let homes = Homes::default();
        let mut clients: Vec<_> = (0..10).map(|_| homes.choose("d", "u", &config, 2)).collect();
        let on = |clients: &[(usize, Seat)], worker| clients.iter().filter(|(home, _)| *home == worker).count();
        assert_eq!((on(&clients, 0), on(&clients, 1)), (5, 5));
        clients.retain(|(home, _)| *home == 1);
        let next: Vec<_> = (0..5).map(|_| homes.choose("d", "u", &config, 2).0).collect();
        assert_eq!(next, [0, 0, 0, 0, 0].map(|_: i32| 0), "those who left make room");
    }
}
