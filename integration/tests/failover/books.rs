//! What clients were told about their transfers, held against what a server has.
//! It must never trust a sum alone: a transfer applied twice leaves every sum as it was.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use integration::{DATABASE, Postgres};

pub const ACCOUNTS: i64 = 20;
pub const BALANCE: i64 = 1_000;

/// What a client knows of its transfer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It was told that it is committed.
    Acknowledged,
    /// It never asked for the commit.
    Abandoned,
    /// It asked, and was told nothing to rely on.
    Doubtful,
}

/// A row of the ledger.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Row {
    id: usize,
    giver: i64,
    taker: i64,
    amount: i64,
}

/// Everything that was begun, numbered from 0, and when; transfers have a fate once it is known.
#[derive(Debug, Default)]
pub struct Books(Mutex<Vec<(Instant, Option<Fate>)>>);

impl Books {
    fn entries(&self) -> MutexGuard<'_, Vec<(Instant, Option<Fate>)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Something that writes is about to be sent: its number, which servers log as part of the statement, as `'T17'`.
    pub fn begin(&self) -> usize {
        let mut entries = self.entries();
        entries.push((Instant::now(), None));
        entries.len() - 1
    }

    pub fn end(&self, id: usize, fate: Fate) {
        self.entries()[id].1 = Some(fate);
    }

    fn count(&self, fate: Fate) -> usize {
        self.entries().iter().filter(|(_, known)| *known == Some(fate)).count()
    }

    pub fn acknowledged(&self) -> usize {
        self.count(Fate::Acknowledged)
    }

    pub fn in_doubt(&self) -> usize {
        self.count(Fate::Doubtful)
    }

    /// Those of the numbers in a server's log that were begun after `moment`.
    pub fn begun_after(&self, moment: Instant, log: &str) -> Vec<usize> {
        let entries = self.entries();
        let numbers = log.split("'T").skip(1).filter_map(|rest| rest.split_once('\'')?.0.parse().ok());
        numbers.filter(|number: &usize| entries.get(*number).is_some_and(|(begun, _)| *begun > moment)).collect()
    }

    /// Holds the books against a server.
    pub fn check(&self, node: &Postgres) {
        let number = |text: &String| text.parse::<i64>().unwrap();
        let rows = node.query_in(DATABASE, "SELECT substr(id, 2), giver, taker, amount FROM ledger").unwrap();
        let ledger: Vec<Row> = rows
            .iter()
            .map(|row| Row {
                id: row[0].parse().unwrap(),
                giver: number(&row[1]),
                taker: number(&row[2]),
                amount: number(&row[3]),
            })
            .collect();
        let balances = node.query_in(DATABASE, "SELECT balance FROM account ORDER BY id").unwrap();
        let balances: Vec<i64> = balances.iter().map(|row| number(&row[0])).collect();
        let fates: BTreeMap<usize, Fate> =
            self.entries().iter().enumerate().filter_map(|(id, (_, fate))| Some((id, (*fate)?))).collect();
        assert_eq!(faults(&fates, &ledger, &balances), [] as [String; 0], "{}", node.name());
    }
}

/// Everything in which a server's tables and what clients were told disagree.
fn faults(fates: &BTreeMap<usize, Fate>, ledger: &[Row], balances: &[i64]) -> Vec<String> {
    let mut found = Vec::new();
    let mut times: BTreeMap<usize, usize> = BTreeMap::new();
    let mut expected = vec![BALANCE; ACCOUNTS as usize];
    for row in ledger {
        *times.entry(row.id).or_default() += 1;
        expected[row.giver as usize] -= row.amount;
        expected[row.taker as usize] += row.amount;
    }
    let twice = times.iter().filter(|(_, times)| **times > 1);
    found.extend(twice.map(|(id, times)| format!("transfer {id} was applied {times} times")));
    for (id, fate) in fates {
        match (fate, times.contains_key(id)) {
            (Fate::Acknowledged, false) => found.push(format!("transfer {id} was acknowledged, and is lost")),
            (Fate::Abandoned, true) => found.push(format!("transfer {id} was never to be committed, and is there")),
            _ => {}
        }
    }
    if balances != expected {
        found.push(format!("balances are {balances:?}, and by the ledger {expected:?}"));
    }
    let sum: i64 = balances.iter().sum();
    if sum != ACCOUNTS * BALANCE {
        found.push(format!("all balances together are {sum}"));
    }
    found
}

#[test]
fn every_disagreement_is_found() {
    let fates = BTreeMap::from([(0, Fate::Acknowledged), (1, Fate::Abandoned), (2, Fate::Doubtful)]);
    let row = |id| Row { id, giver: 0, taker: 1, amount: 5 };
    let balances = |times: i64| {
        let mut balances = vec![BALANCE; ACCOUNTS as usize];
        balances[0] -= 5 * times;
        balances[1] += 5 * times;
        balances
    };
    let kinds = |ledger: &[Row], balances: &[i64]| {
        let found = faults(&fates, ledger, balances);
        ["lost", "never to be", "2 times", "by the ledger", "together"]
            .map(|kind| found.iter().any(|text| text.contains(kind)))
    };
    assert_eq!(kinds(&[row(0)], &balances(1)), [false; 5]);
    assert_eq!(kinds(&[row(0), row(2)], &balances(2)), [false; 5]);
    assert_eq!(kinds(&[row(2)], &balances(1)), [true, false, false, false, false]);
    assert_eq!(kinds(&[row(0), row(1)], &balances(2)), [false, true, false, false, false]);
    assert_eq!(kinds(&[row(0), row(0)], &balances(2)), [false, false, true, false, false]);
    // Applied again without its row.
    assert_eq!(kinds(&[row(0)], &balances(2)), [false, false, false, true, false]);
    assert_eq!(kinds(&[row(0)], &[BALANCE; ACCOUNTS as usize - 1]), [false, false, false, true, true]);
}
