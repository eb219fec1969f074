//! Who needs a server to himself gets one, however many ride.
//! It must never end riders before what they are said to keep waiting has been served.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::common::{Client, eventually, metric};
use crate::{Asker, WAYS, cluster, conf, rides, start, warm_askers, warm_sql};

/// An application holds a transaction open on one connection and writes on another, while others read all the time: with lanes
/// off it would get the second server in its turn.
#[test]
fn a_writer_gets_the_last_server_from_riders() {
    for size in [1, 2] {
        let pgweir = start(&conf(cluster()).size(size));
        warm_askers(&pgweir);
        let (port, stop) = (pgweir.port(), AtomicBool::new(false));
        let mut writer = Client::connect(port);
        writer.patience(Duration::from_secs(10));
        // All servers but one.
        let held: Vec<Client> = (1..size)
            .map(|_| {
                let mut client = Client::connect(port);
                client.query("BEGIN").unwrap();
                client.query("SELECT count(*) FROM item").unwrap();
                client
            })
            .collect();
        let before = rides(&pgweir);
        let mut waits = Vec::new();
        thread::scope(|scope| {
            for number in 0..16 {
                let stop = &stop;
                scope.spawn(move || {
                    let mut asker = Asker::new(port, number);
                    while !stop.load(Ordering::Relaxed) {
                        asker.ask(WAYS[asker.turn % 3]);
                    }
                });
            }
            for n in 0..8 {
                let began = Instant::now();
                let late = writer.query(&format!("INSERT INTO log VALUES ({n}, {size})"));
                waits.push(began.elapsed());
                if late.is_err() {
                    break;
                }
            }
            stop.store(true, Ordering::Relaxed);
            drop(held);
        });
        println!("{size} servers: {:?} at most, {} rides", waits.iter().max(), rides(&pgweir) - before);
        assert_eq!(waits.len(), 8, "{size} servers: {waits:?}");
        assert!(waits.iter().all(|wait| *wait < Duration::from_millis(700)), "{size} servers: {waits:?}");
    }
}

/// A read that comes when every server is kept and there is no lane does not stand behind all the slow statements that came before
/// it: the next server that comes free is a lane for it, and for others like it.
#[test]
fn a_fast_read_does_not_wait_for_all_slow_ones_before_it() {
    const READ: &str = "SELECT v FROM item WHERE id = 7";
    const SLOW: usize = 14;
    let pgweir = start(&conf(cluster()).size(2));
    warm_sql(&pgweir, &[READ]);
    let (port, done) = (pgweir.port(), AtomicUsize::new(0));
    let waiting = || metric(&pgweir, "pgweir_pool_clients", &[("state", "waiting")]);
    let before = rides(&pgweir);
    let mut readers: Vec<_> = (0..6).map(|_| Client::connect(port)).collect();
    thread::scope(|scope| {
        for _ in 0..SLOW {
            scope.spawn(|| {
                Client::connect(port).query("SELECT pg_sleep(0.3)").unwrap();
                done.fetch_add(1, Ordering::Relaxed);
            });
        }
        eventually("all others wait", || waiting() as usize == SLOW - 2);
        for reader in &mut readers {
            scope.spawn(|| {
                assert_eq!(reader.query(READ).unwrap(), [["item 7"]]);
                let before_it = done.load(Ordering::Relaxed);
                assert!(before_it <= SLOW / 2, "{before_it} slow statements came first");
            });
        }
    });
    assert_eq!(rides(&pgweir) - before, 6.0);
}
