//! What the tests of pgweir's behaviour share: a raw client, a configuration, waiting for something to become true.
//! It must never wait a fixed time, nor hold state of one test that another could see.
#![allow(dead_code, reason = "every test program uses its own part of it")]

pub mod client;
pub mod conf;

use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, Instant};

use integration::Pgweir;
use integration::metrics::{Sample, parse};

pub use client::Client;
pub use conf::Conf;

/// How long anything may take to become true on a loaded machine.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Polls until `holds`.
pub fn eventually(what: &str, holds: impl FnMut() -> bool) {
    within(PATIENCE, what, holds);
}

/// Polls until `holds`, for at most `limit`.
pub fn within(limit: Duration, what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + limit;
    while !holds() {
        assert!(Instant::now() < deadline, "not within {limit:?}: {what}");
        thread::sleep(Duration::from_millis(10));
    }
}

/// The samples of a metric whose labels have all of `labels`, added up.
pub fn metric(pgweir: &Pgweir, name: &str, labels: &[(&str, &str)]) -> f64 {
    let samples = parse(&pgweir.metrics().unwrap()).unwrap();
    let fits = |sample: &&Sample| sample.name == name && labels.iter().all(|(key, value)| sample.label(key) == *value);
    samples.iter().filter(fits).map(|sample| sample.value).sum()
}

/// How often servers were asked what a client has left there.
pub fn questions(pgweir: &Pgweir) -> f64 {
    metric(pgweir, "pgweir_pool_session_questions_total", &[])
}

/// Runs a statement, and says whether the server was asked what it left.
pub fn asks(pgweir: &Pgweir, client: &mut Client, sql: &str) -> bool {
    let before = questions(pgweir);
    client.query(sql).unwrap();
    // Answers come in order: a question under way is counted by now.
    client.query("SELECT 1").unwrap();
    questions(pgweir) > before
}

/// Waits until the code of the default database is known: until then whatever runs is asked about, and may have done anything.
/// Each worker reads for itself, and clients who are there together are spread over them.
pub fn know(pgweir: &Pgweir) {
    let mut clients: Vec<Client> = (0..4).map(|_| Client::connect(pgweir.port())).collect();
    eventually("the code is known", || clients.iter_mut().all(|client| !asks(pgweir, client, "SELECT 1")));
}

/// Runs `work` in `count` threads that begin together; gives what each returned.
pub fn crowd<T: Send + 'static>(count: usize, work: impl Fn(usize) -> T + Send + Sync + 'static) -> Vec<T> {
    let (work, start) = (Arc::new(work), Arc::new(Barrier::new(count)));
    let threads: Vec<_> = (0..count)
        .map(|number| {
            let (work, start) = (Arc::clone(&work), Arc::clone(&start));
            thread::spawn(move || {
                start.wait();
                work(number)
            })
        })
        .collect();
    threads.into_iter().map(|thread| thread.join().unwrap()).collect()
}
