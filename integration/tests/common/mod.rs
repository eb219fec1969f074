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
