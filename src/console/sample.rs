//! What databases have done since the start, and in the last whole `stats_period`.
//! Must never keep more than two moments.

use std::collections::BTreeMap;
use std::rc::Rc;

use super::Console;
use super::table::Value;
use crate::base::clock;
use crate::meter::PoolCounters;

/// How many numbers there are of a database.
pub(super) const NUMBERS: usize = 11;
/// In the order of `SHOW STATS`.
const FIELDS: [fn(&PoolCounters) -> u64; NUMBERS] = [
    |p| p.total_server_assignment_count.get(),
    |p| p.total_xact_count.get(),
    |p| p.total_query_count.get(),
    |p| p.total_received.get(),
    |p| p.total_sent.get(),
    |p| p.total_xact_time_us.get(),
    |p| p.total_query_time_us.get(),
    |p| p.total_wait_time_us.get(),
    |p| p.total_client_parse_count.get(),
    |p| p.total_server_parse_count.get(),
    |p| p.total_bind_count.get(),
];
const ASSIGNMENTS: usize = 0;
const XACTS: usize = 1;
pub(super) const QUERIES: usize = 2;

/// Numbers of a database.
pub(super) type Numbers = [u64; NUMBERS];

/// All databases at a moment.
#[derive(Debug, Default)]
struct Sample {
    at_us: u64,
    totals: BTreeMap<String, Numbers>,
}

/// The last two moments.
#[derive(Debug, Default)]
pub(super) struct Samples {
    older: Sample,
    newer: Sample,
}

impl Samples {
    fn push(&mut self, at_us: u64, totals: BTreeMap<String, Numbers>) {
        self.older = std::mem::replace(&mut self.newer, Sample { at_us, totals });
    }

    /// What a database did between the two: per second for what is counted, per item for times. All zero before there
    /// are two.
    pub fn averages(&self, database: &str) -> Numbers {
        self.averaged(self.did(database))
    }

    /// The same of all databases together.
    pub fn averages_of_all(&self) -> Numbers {
        let all = self.newer.totals.keys().map(|database| self.did(database));
        self.averaged(all.fold([0; NUMBERS], |mut sum, did| {
            sum.iter_mut().zip(did).for_each(|(sum, number)| *sum = sum.saturating_add(number));
            sum
        }))
    }

    fn did(&self, database: &str) -> Numbers {
        let [mut did, older] =
            [&self.newer, &self.older].map(|sample| sample.totals.get(database).copied().unwrap_or_default());
        // A pool that is gone has taken its numbers with it.
        did.iter_mut().zip(older).for_each(|(now, before)| *now = now.saturating_sub(before));
        did
    }

    fn averaged(&self, did: Numbers) -> Numbers {
        let period_us = self.newer.at_us.saturating_sub(self.older.at_us);
        if period_us == 0 || self.older.at_us == 0 {
            return [0; NUMBERS];
        }
        let per = |total: u64, items: u64| total.checked_div(items).unwrap_or(0);
        let per_second =
            |count: u64| (u128::from(count) * 1_000_000 / u128::from(period_us)).try_into().unwrap_or(u64::MAX);
        let [assignments, xacts, queries, received, sent, xact_us, query_us, wait_us, client, server, binds] = did;
        [
            per_second(assignments),
            per_second(xacts),
            per_second(queries),
            per_second(received),
            per_second(sent),
            per(xact_us, did[XACTS]),
            per(query_us, did[QUERIES]),
            per(wait_us, did[ASSIGNMENTS]),
            per_second(client),
            per_second(server),
            per_second(binds),
        ]
    }
}

/// Takes a sample whenever `stats_period` has passed.
pub(super) async fn run(console: Rc<Console>) {
    loop {
        console.samples.borrow_mut().push(clock::now_us().max(1), console.totals());
        tokio::time::sleep(console.config().console.stats_period).await;
    }
}

impl Console {
    /// Since the start, of all databases of the configuration and those that still have servers.
    pub(super) fn totals(&self) -> BTreeMap<String, Numbers> {
        let mut totals: BTreeMap<String, Numbers> =
            self.config().databases.keys().map(|name| (name.clone(), [0; NUMBERS])).collect();
        for pool in self.about.registry.pools().iter() {
            let sums = totals.entry(pool.target.database.to_string()).or_default();
            sums.iter_mut().zip(FIELDS).for_each(|(sum, field)| *sum += field(pool));
        }
        // The console is a database to those who look at it.
        let own = totals.entry("pgbouncer".to_owned()).or_default();
        own[XACTS] = self.commands.get();
        own[QUERIES] = self.commands.get();
        totals
    }
}

/// Values of a row.
pub(super) fn values(numbers: Numbers) -> impl Iterator<Item = Value> {
    numbers.into_iter().map(Value::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn averages_are_of_the_last_whole_period() {
        let mut samples = Samples::default();
        let at = |numbers: Numbers| BTreeMap::from([("d".to_owned(), numbers)]);
        assert_eq!(samples.averages("d"), [0; NUMBERS]);
        samples.push(1_000_000, at([1000; NUMBERS]));
        assert_eq!(samples.averages("d"), [0; NUMBERS], "one moment is no period");
        let mut numbers = [1000; NUMBERS];
        // In two seconds: 4 assignments, 6 transactions of 50 µs, 10 statements, 2000 bytes, 12 µs of waiting.
        for (at, more) in [(0, 4), (1, 6), (2, 10), (3, 2000), (5, 300), (6, 100), (7, 12), (10, 3)] {
            numbers[at] += more;
        }
        samples.push(3_000_000, at(numbers));
        assert_eq!(samples.averages("d"), [2, 3, 5, 1000, 0, 50, 10, 3, 0, 0, 1]);
        assert_eq!(samples.averages("e"), [0; NUMBERS]);
        // Numbers that went back with a pool.
        samples.push(4_000_000, at([0; NUMBERS]));
        assert_eq!(samples.averages("d"), [0; NUMBERS]);
    }
}
