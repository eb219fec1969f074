//! Who needs a server to himself gets one, however many ride.
//! It must never end riders before what they are said to keep waiting has been served.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::common::Client;
use crate::{Asker, WAYS, cluster, conf, rides, start, warm_askers};

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
