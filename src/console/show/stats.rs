//! `SHOW STATS` and its like.
//! Must never add up what is an average.

use super::super::Console;
use super::super::sample::{NUMBERS, values};
use super::super::table::{Value, row};
use super::Rows;

/// Names of the numbers in `SHOW TOTALS`.
const NAMES: [&str; NUMBERS] = [
    "server_assignment_count",
    "xact_count",
    "query_count",
    "client_bytes",
    "server_bytes",
    "xact_time",
    "query_time",
    "wait_time",
    "ps_client_parse_count",
    "ps_server_parse_count",
    "ps_bind_count",
];

impl Console {
    pub(super) fn stats(&self) -> Rows {
        let samples = self.samples.borrow();
        let row = |(name, totals): (String, _)| {
            let averages = samples.averages(&name);
            [Value::from(name)].into_iter().chain(values(totals)).chain(values(averages)).collect()
        };
        self.totals().into_iter().map(row).collect()
    }

    pub(super) fn stats_totals(&self) -> Rows {
        let row = |(name, totals): (String, _)| [Value::from(name)].into_iter().chain(values(totals)).collect();
        self.totals().into_iter().map(row).collect()
    }

    pub(super) fn stats_averages(&self) -> Rows {
        let samples = self.samples.borrow();
        let row = |name: String| {
            let averages = samples.averages(&name);
            [Value::from(name)].into_iter().chain(values(averages)).collect()
        };
        self.totals().into_keys().map(row).collect()
    }

    pub(super) fn total(&self) -> Rows {
        let samples = self.samples.borrow();
        let all = self.totals();
        let add = |mut sum: [u64; NUMBERS], numbers: [u64; NUMBERS]| {
            sum.iter_mut().zip(numbers).for_each(|(sum, number)| *sum = sum.saturating_add(number));
            sum
        };
        let totals = all.values().copied().fold([0; NUMBERS], add);
        let averages = samples.averages_of_all();
        let named = |prefix: &'static str, numbers: [u64; NUMBERS]| {
            NAMES.into_iter().zip(numbers).map(move |(name, number)| row![format!("{prefix}_{name}"), number])
        };
        named("total", totals).chain(named("avg", averages)).collect()
    }
}
