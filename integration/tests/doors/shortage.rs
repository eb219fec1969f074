//! File descriptors run out: clients are told, nothing spins, and it is over at once.
//! It must never lower a limit of the test itself.

use std::fs;
use std::time::{Duration, Instant};

use crate::common::client::{said, startup};
use crate::common::{Client, eventually, within};
use crate::{conf, start_after};
use integration::Pgweir;

/// Descriptors pgweir may have.
const LIMIT: usize = 64;

/// Processor time the process has used, in ticks of 10 ms (proc(5), fields 14 and 15 of stat).
fn ticks(pgweir: &Pgweir) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{}/stat", pgweir.id())).unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

fn open_descriptors(pgweir: &Pgweir) -> usize {
    fs::read_dir(format!("/proc/{}/fd", pgweir.id())).unwrap().count()
}

#[test]
fn descriptors_run_out_and_come_back() {
    let pgweir = start_after(&format!("ulimit -n {LIMIT}"), &conf().size(2));
    let mut first = Client::connect(pgweir.port());
    assert_eq!(first.value("SELECT 1"), "1");
    // More than there can be; those beyond wait in the system's queue.
    let mut crowd: Vec<Client> = (0..LIMIT + 20).map(|_| Client::tcp(pgweir.port())).collect();
    eventually("there are no more", || open_descriptors(&pgweir) >= LIMIT - 1);
    let before = (ticks(&pgweir), Instant::now());
    // Whoever is in works on.
    assert_eq!(first.value("SELECT 2"), "2");
    // The last ones are turned away with words, after a second.
    let mut last = crowd.pop().unwrap();
    last.write(&startup(0, &[]));
    let error = last.read().expect("it is told");
    assert_eq!(said(&error), "53300 sorry, too many clients already");
    assert!(error.field(b'H').unwrap().contains("LimitNOFILE"));
    let (used, passed) = (ticks(&pgweir) - before.0, before.1.elapsed());
    assert!(passed >= Duration::from_millis(300), "turned away after {passed:?}");
    assert!(used < 30 + passed.as_millis() as u64 / 50, "{used} ticks in {passed:?}: it spins");
    // It says so once, not once per attempt.
    assert_eq!(pgweir.log().matches("cannot accept connections for now").count(), 1, "{}", pgweir.log());
    // As soon as somebody leaves, somebody comes in.
    crowd.truncate(5);
    within(Duration::from_secs(5), "there is room", || {
        let mut client = Client::tcp(pgweir.port());
        client.startup(0, &[]);
        client.welcome().is_ok_and(|_| client.value("SELECT 3") == "3")
    });
    assert_eq!(first.value("SELECT 4"), "4");
    assert!(pgweir.metrics().unwrap().contains("pgweir_"));
}

/// A shortage that is over within the second costs nobody a connection.
#[test]
fn a_short_shortage_is_waited_out() {
    let pgweir = start_after(&format!("ulimit -n {LIMIT}"), &conf().size(2));
    assert_eq!(Client::connect(pgweir.port()).value("SELECT 1"), "1");
    let began = Instant::now();
    let mut crowd: Vec<Client> = (0..LIMIT).map(|_| Client::tcp(pgweir.port())).collect();
    eventually("there are no more", || open_descriptors(&pgweir) >= LIMIT - 1);
    let mut waiting = crowd.pop().unwrap();
    waiting.startup(0, &[]);
    drop(crowd);
    match waiting.welcome() {
        Ok(_) => assert_eq!(waiting.value("SELECT 1"), "1"),
        // On a machine so slow that it was no short one.
        Err(error) => assert!(began.elapsed() >= Duration::from_secs(1), "{}", said(&error)),
    }
}
