//! A primary that hangs, or is cut off, for a while, and nobody is promoted: it goes on, and so does everybody.
//! It must never take longer than clients wait for a primary (`failover_wait`).

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use crate::common::Client;
use crate::people::Closing;
use crate::{Front, start_cluster};
use integration::{Link, Postgres};

/// Clients that write and read while `trouble` lasts; none is told anything, as none would be by the primary itself.
fn nobody_notices(trouble: impl FnOnce(&Postgres, &Link)) {
    let cluster = start_cluster();
    let links = cluster.links().unwrap();
    let front = Front::start(&links);
    let (port, over) = (front.port(), AtomicBool::new(false));
    thread::scope(|scope| {
        let work = |number: usize| {
            let (mut client, mut done) = (Client::connect(port), 0);
            while !over.load(Ordering::Relaxed) {
                done += 1;
                let sql = format!("UPDATE probe SET mark = '{done}' WHERE id = {number}");
                client.query(&sql).unwrap_or_else(|error| panic!("write {done} of client {number}: {error}"));
                assert_eq!(client.value(&format!("SELECT mark FROM probe WHERE id = {number}")), done.to_string());
            }
            done
        };
        let threads: Vec<_> = (0..6).map(|number| scope.spawn(move || work(number))).collect();
        let closing = Closing(&over);
        trouble(cluster.primary(), &links[0]);
        // Everybody has time to notice, had they been told.
        thread::sleep(Duration::from_secs(1));
        drop(closing);
        let done: usize = threads.into_iter().map(|thread| thread.join().unwrap()).sum();
        println!("{done} writes");
        assert!(done > 100, "{done} writes are too few to prove anything");
    });
    let written = "SELECT count(*) FROM probe WHERE mark <> ''";
    assert_eq!(cluster.primary().value_in(integration::DATABASE, written).unwrap(), "6");
}

/// How long the primary is away: longer than a server may be silent (`check_timeout`), and shorter than clients wait.
const AWAY: Duration = Duration::from_secs(7);

#[test]
fn a_primary_that_hangs_for_a_while() {
    nobody_notices(|primary, _| {
        thread::sleep(Duration::from_secs(1));
        primary.pause();
        thread::sleep(AWAY);
        primary.resume();
    });
}

#[test]
fn a_primary_that_is_cut_off_for_a_while() {
    nobody_notices(|_, link| {
        thread::sleep(Duration::from_secs(1));
        link.drop_all();
        thread::sleep(AWAY);
        link.mend();
    });
}
