//! The clients of the bank: who transfers, who reads, who tries again and again whether writes are possible.
//! It must never try a transfer twice under one number: whether it was applied twice by others could not be told.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::books::{ACCOUNTS, BALANCE, Books, Fate};
use crate::common::Client;
use crate::common::client::{outcome, said};
use crate::{KNOWN_AFTER, THROUGH_PGWEIR, until};
use integration::wire::{Frame, Script};

/// What clients were told that they should not have been, or may be.
#[derive(Debug, Default, Clone)]
pub struct Complaints {
    /// Errors of those who write, as `CODE message`, and how often.
    pub writers: BTreeMap<String, usize>,
    /// Errors of those who only read, and answers that cannot be right.
    pub readers: Vec<String>,
}

/// The clients that come and go by themselves.
pub struct Bank {
    port: u16,
    /// How long everybody rests between two turns.
    pace: Duration,
    over: AtomicBool,
    complaints: Mutex<Complaints>,
    /// When the probe's writes succeeded.
    written: Mutex<Vec<Instant>>,
    /// Every server that counts has reached this era.
    era: AtomicU64,
    /// Reads that were answered.
    pub read: AtomicU64,
    /// The longest of them, in microseconds.
    longest_read: AtomicU64,
}

/// Sends everybody home when dropped.
pub struct Closing<'a>(pub &'a AtomicBool);

impl Drop for Closing<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// An error after which a transaction may be tried again: the connection (class 08), shutdown and crash (57P01 to 57P03), serialization.
pub fn may_be_tried_again(said: &str) -> bool {
    said.starts_with("08") || ["57P01 ", "57P02 ", "57P03 ", "40001 "].iter().any(|code| said.starts_with(code))
}

/// The error among the frames, or that there is no end of the answer; the frames otherwise.
fn answer(frames: Vec<Frame>) -> Result<Vec<Frame>, String> {
    outcome(&frames).map(|_| frames)
}

impl Bank {
    pub fn new(port: u16, pace: Duration) -> Self {
        Self {
            port,
            pace,
            over: AtomicBool::new(false),
            complaints: Mutex::default(),
            written: Mutex::default(),
            era: AtomicU64::new(0),
            read: AtomicU64::new(0),
            longest_read: AtomicU64::new(0),
        }
    }

    pub fn closing(&self) -> Closing<'_> {
        Closing(&self.over)
    }

    pub fn complaints(&self) -> Complaints {
        println!("the longest read took {} ms", self.longest_read.load(Ordering::Relaxed) / 1000);
        self.complaints.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn is_open(&self) -> bool {
        !self.over.load(Ordering::Relaxed)
    }

    /// Rests; false once the bank has closed.
    fn next_turn(&self) -> bool {
        thread::sleep(self.pace);
        self.is_open()
    }

    fn writer_complains(&self, said: String) {
        *self.complaints.lock().unwrap_or_else(PoisonError::into_inner).writers.entry(said).or_default() += 1;
    }

    fn reader_complains(&self, said: String) {
        self.complaints.lock().unwrap_or_else(PoisonError::into_inner).readers.push(said);
    }

    /// A new connection; `None` when the bank has closed before there was one. pgweir takes clients whatever its servers do.
    fn enter(&self) -> Option<Client> {
        while self.is_open() {
            let mut client = Client::tcp(self.port);
            client.startup(0, &[]);
            let frames = client.ready(1);
            if frames.last().is_some_and(|frame| frame.tag == b'Z') {
                return Some(client);
            }
            if THROUGH_PGWEIR {
                let error = frames.iter().find(|frame| frame.tag == b'E').map_or("nothing".into(), said);
                self.reader_complains(format!("at login: {error}"));
            }
            thread::sleep(Duration::from_millis(20));
        }
        None
    }

    /// Transfers until the bank closes.
    pub fn transfers(&self, number: usize, books: &Books) {
        let Some(mut client) = self.enter() else { return };
        let mut turn = number;
        while self.next_turn() {
            turn += 1;
            let id = books.begin();
            let (fate, error) = transfer(&mut client, id, turn);
            books.end(id, fate);
            let Some(error) = error else { continue };
            // A transaction that failed on a server that lives has to be ended; one that is no more ends with a warning.
            let ended = client.query("ROLLBACK").is_err();
            self.writer_complains(error);
            if ended {
                let Some(next) = self.enter() else { return };
                client = next;
            }
        }
    }

    /// Reads until the bank closes: the sum of all balances, and the era.
    pub fn reads(&self) {
        let Some(mut client) = self.enter() else { return };
        while self.next_turn() {
            let (era, asked) = (self.era.load(Ordering::Acquire), Instant::now());
            let answer = client.query("SELECT sum(balance), (SELECT n FROM era) FROM account");
            match answer {
                Ok(rows) => {
                    self.read.fetch_add(1, Ordering::Relaxed);
                    self.longest_read.fetch_max(asked.elapsed().as_micros() as u64, Ordering::Relaxed);
                    if rows[0][0] != (ACCOUNTS * BALANCE).to_string() {
                        self.reader_complains(format!("the sum is {}", rows[0][0]));
                    }
                    let seen: u64 = rows[0][1].parse().unwrap();
                    if seen < era {
                        self.reader_complains(format!("read of era {seen} when all servers had reached {era}"));
                    }
                }
                Err(error) => {
                    self.reader_complains(error);
                    // Whoever goes on reading is the better witness, also of a connection that is no more.
                    let Some(next) = self.enter() else { return };
                    client = next;
                }
            }
        }
    }

    /// Writes and reads it back until the bank closes, `number` being its own row.
    pub fn reads_its_writes(&self, number: usize, books: &Books) {
        let Some(mut client) = self.enter() else { return };
        while self.next_turn() {
            let mark = format!("T{}", books.begin());
            let written = client.query(&format!("UPDATE probe SET mark = '{mark}' WHERE id = {number}"));
            // What became of a write that failed is not known, and need not be.
            let read = client.query(&format!("SELECT mark FROM probe WHERE id = {number}"));
            match (&written, &read) {
                (Ok(_), Ok(rows)) if *rows != [[mark.clone()]] => {
                    self.reader_complains(format!("read {rows:?} after {mark} was written"));
                }
                // The connection may have ended with the write.
                (Ok(_), Err(error)) => self.reader_complains(format!("after a write: {error}")),
                _ => {}
            }
            if let Err(error) = written {
                self.writer_complains(error);
            }
            if read.is_err() {
                let Some(next) = self.enter() else { return };
                client = next;
            }
        }
    }

    /// Writes again and again, and remembers when it succeeded.
    pub fn probes(&self, books: &Books) {
        let Some(mut client) = self.enter() else { return };
        while self.next_turn() {
            let id = books.begin();
            match client.query(&format!("UPDATE probe SET mark = 'T{id}' WHERE id = 0")) {
                Ok(_) => self.written.lock().unwrap_or_else(PoisonError::into_inner).push(Instant::now()),
                Err(error) => {
                    self.writer_complains(error);
                    if client.query("SELECT 1").is_err() {
                        let Some(next) = self.enter() else { return };
                        client = next;
                    }
                }
            }
            // The pace of the probe, and so how exact it is.
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// How long after `promoted` the probe's first write succeeded.
    pub fn first_write_after(&self, promoted: Instant) -> Duration {
        let first = || {
            let written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
            written.iter().find(|at| **at > promoted).copied()
        };
        crate::common::eventually("writes are possible again", || first().is_some());
        first().unwrap() - promoted
    }

    /// From `moment` on nobody may read of an earlier era.
    pub fn raise_era(&self, moment: Instant, era: u64) {
        until(moment);
        self.era.store(era, Ordering::Release);
    }
}

/// Transfers an amount in one of three ways: statement by statement, all in one message, or by a function. What became of it, and the
/// error if there was one.
fn transfer(client: &mut Client, id: usize, turn: usize) -> (Fate, Option<String>) {
    let (giver, taker, amount) =
        (id as i64 * 7 % ACCOUNTS, (id as i64 * 7 + 1 + id as i64 % 13) % ACCOUNTS, 1 + id % 9);
    let change = |account: i64| {
        let sign = if account == giver { '-' } else { '+' };
        format!("UPDATE account SET balance = balance {sign} {amount} WHERE id = {account}")
    };
    let ledger = format!("INSERT INTO ledger VALUES ('T{id}', {giver}, {taker}, {amount})");
    let steps = ["BEGIN".into(), ledger, change(giver.min(taker)), change(giver.max(taker)), "COMMIT".into()];
    let doubtful = |frames: Vec<Frame>| match answer(frames) {
        Ok(frames) => {
            // A transaction that had failed would be rolled back by its COMMIT, without an error.
            let commands: Vec<_> = frames.iter().filter_map(Frame::command).collect();
            assert!(commands.last().is_some_and(|tag| tag == "COMMIT" || tag == "SELECT 1"), "{commands:?}");
            (Fate::Acknowledged, None)
        }
        Err(error) => (Fate::Doubtful, Some(error)),
    };
    match turn % 3 {
        0 => {
            let (commit, before) = steps.split_last().unwrap();
            for step in before {
                if let Err(error) = client.query(step) {
                    return (Fate::Abandoned, Some(error));
                }
            }
            doubtful(client.run(&Script::new().query(commit)))
        }
        1 => doubtful(client.run(&Script::new().query(&steps.join(";")))),
        _ => {
            let script = Script::new().parse("", &format!("SELECT transfer('T{id}', $1::int, $2::int, $3::bigint)"));
            let values = [giver.to_string(), taker.to_string(), amount.to_string()];
            let script =
                script.bind("", "", &values.each_ref().map(|value| Some(value.as_str()))).execute("", 0).sync();
            doubtful(client.run(&script))
        }
    }
}

/// How long an old primary is watched after pgweir must know better.
pub const WATCHED: Duration = KNOWN_AFTER;
