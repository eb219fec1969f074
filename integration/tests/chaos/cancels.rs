//! Cancel storm: requests rain on half of the clients; the other half must never feel one.
//! It must never count a query as cancelled that was not asked to be.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Instant;

use integration::Cluster;

use crate::books::{assert_at_rest, lock, watch};
use crate::common::{Client, Conf, metric};
use crate::{duration, is_long};

const CLIENTS: usize = 200;
const SERVERS: usize = 10;
/// Threads that send cancel requests.
const CANCELLERS: usize = 8;

/// One client as those who cancel it know it.
#[derive(Default)]
struct Victim {
    /// Requests sent for it.
    asked: AtomicU64,
}

#[test]
fn a_cancel_storm_hits_only_whom_it_is_meant_for() {
    let cluster = Cluster::builder().sql("CREATE TABLE seen (owner text); GRANT ALL ON seen TO app").start().unwrap();
    let pgweir = Conf::trust(&cluster)
        .size(SERVERS)
        .pool("query_wait_timeout = \"60s\"\nlanes = true\nlane_fast = \"50ms\"")
        .start();
    let (port, until) = (pgweir.port(), Instant::now() + duration());
    let clients: Vec<Client> = (0..CLIENTS).map(|_| Client::connect(port)).collect();
    // Those with an even number are victims.
    let requests: Vec<Vec<u8>> = clients.iter().map(Client::cancel_request).collect();
    let victims: Vec<Victim> = (0..CLIENTS).map(|_| Victim::default()).collect();
    let (stop, cancelled, served) = (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0));
    thread::scope(|scope| {
        scope.spawn(|| lock(&cluster, until));
        scope.spawn(|| watch(&pgweir, SERVERS as u64, CLIENTS as u64, &stop));
        for number in 0..CANCELLERS {
            let (requests, victims) = (&requests, &victims);
            scope.spawn(move || {
                let mut draw = number as u64 + 1;
                while Instant::now() < until {
                    // The constants of Knuth's MMIX generator.
                    draw = draw.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                    let who = (draw >> 33) as usize % CLIENTS / 2 * 2;
                    victims[who].asked.fetch_add(1, Ordering::SeqCst);
                    let mut carrier = Client::tcp(port);
                    carrier.write(&requests[who]);
                    carrier.read_to_end();
                }
            });
        }
        let askers: Vec<_> = clients
            .into_iter()
            .enumerate()
            .map(|(number, client)| {
                let (victims, cancelled, served) = (&victims, &cancelled, &served);
                scope.spawn(move || {
                    let (hits, answers) = ask(number, client, &victims[number], until);
                    cancelled.fetch_add(hits, Ordering::Relaxed);
                    served.fetch_add(answers, Ordering::Relaxed);
                })
            })
            .collect();
        for asker in askers {
            asker.join().unwrap();
        }
        stop.store(true, Ordering::Relaxed);
    });
    let (cancelled, served) = (cancelled.into_inner(), served.into_inner());
    let rides = metric(&pgweir, "pgweir_pool_lane_rides_total", &[]);
    println!("{cancelled} cancelled, {served} served, {rides} rides");
    assert!(rides > 1000.0 || !is_long(), "{rides} reads shared a server");
    assert!(cancelled > 0 && served > 100, "{cancelled} cancelled, {served} served");
    assert_at_rest(&pgweir, &cluster);
}

/// How many of the client's queries were cancelled and how many answered.
fn ask(number: usize, mut client: Client, victim: &Victim, until: Instant) -> (u64, u64) {
    let (mut cancelled, mut served) = (0, 0);
    while Instant::now() < until {
        let mark = format!("{number}/{served}");
        // Two of three share a server with those of others, and are hit there by what is meant for them, if anything is.
        let from = match (served + cancelled) % 3 {
            0 => "pg_sleep(0.01)",
            1 => "generate_series(1, 3000) n HAVING count(n) > 0",
            // What somebody's lock stalls.
            _ => "seen HAVING count(*) >= 0",
        };
        match client.query(&format!("SELECT '{mark}' FROM {from}")) {
            Ok(rows) => {
                assert_eq!(rows, [[mark]]);
                served += 1;
            }
            Err(error) => {
                assert!(error.starts_with("57014"), "client {number}: {error}");
                cancelled += 1;
                let asked = victim.asked.load(Ordering::SeqCst);
                assert!(cancelled <= asked, "client {number} was cancelled {cancelled} times, asked for {asked}");
            }
        }
    }
    (cancelled, served)
}
