//! Servers that die under their riders: reads are asked again elsewhere, and nobody hears of it.
//! It must never end before the killing has met servers at work.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use integration::wire::Script;
use integration::{Cluster, DATABASE};
use rustix::process::{Pid, Signal, kill_process};

use crate::common::client::tags;
use crate::common::{Client, eventually, metric};
use crate::{Asker, Rides, TABLES, WAYS, conf, start, warm_askers};

/// All server processes again and again: no answer lost, none twice, none wrong, and next to nobody hears of it.
#[test]
fn terminated_backends_are_nobodys_errors() {
    let cluster = Cluster::builder().sql(TABLES).start().unwrap();
    let pgweir = start(&conf(&cluster).size(4).pool("server_login_retry = \"100ms\""));
    warm_askers(&pgweir);
    let (port, before) = (pgweir.port(), Rides::of(&pgweir));
    let (until, errors) = (Instant::now() + Duration::from_millis(1800), AtomicU64::new(0));
    let mut admin = cluster.primary().admin("postgres").unwrap();
    let kill = format!("SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname = '{DATABASE}'");
    thread::scope(|scope| {
        // What they prepare is no read: they do that in peace.
        let askers: Vec<_> = (0..20).map(|number| Asker::new(port, number)).collect();
        for (number, mut asker) in askers.into_iter().enumerate() {
            let errors = &errors;
            scope.spawn(move || {
                while Instant::now() < until {
                    if let Err(error) = asker.try_ask(WAYS[asker.turn % 3]) {
                        println!("client {number}, turn {}: {error}", asker.turn);
                        assert!(error.starts_with("57P01 terminating connection"), "{error}");
                        errors.fetch_add(1, Ordering::Relaxed);
                        break;
                    }
                }
                // Nothing comes that nobody asked for.
                assert!(!asker.client.speaks_within(Duration::from_millis(50)));
            });
        }
        while Instant::now() < until {
            admin.query(&kill).unwrap();
            // The pace of the killing.
            thread::sleep(Duration::from_millis(70));
        }
    });
    let went = Rides::of(&pgweir).since(before);
    println!("{went:?}");
    assert!(went.rides > 1000.0 && went.repeats > 0.0, "{went:?}");
    // Who had a server to himself when that was terminated hears of it, as without lanes; who rode does not.
    assert!(errors.into_inner() as f64 * 10.0 <= went.repeats, "{went:?}");
    eventually("all servers rest", || metric(&pgweir, "pgweir_pool_servers", &[("state", "active")]) == 0.0);
}

/// A backend that is killed takes all others with it, and the server for a while. What can be said then is said; and what is
/// answered is right.
#[test]
fn a_crash_of_the_server_makes_no_answer_wrong() {
    let cluster = Cluster::builder().sql(TABLES).start().unwrap();
    let pgweir = start(&conf(&cluster).size(4).pool("server_login_retry = \"100ms\"").pool("query_wait_notify = 0"));
    warm_askers(&pgweir);
    let (port, stop, served) = (pgweir.port(), AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| {
        for number in 0..20 {
            let (stop, served) = (&stop, &served);
            scope.spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    if let Some(asker) = connect(port, number) {
                        ask_until_it_ends(asker, stop, served);
                    }
                }
            });
        }
        let before = served.load(Ordering::Relaxed);
        eventually("served", || served.load(Ordering::Relaxed) > before + 300);
        let sql = format!("SELECT pid FROM pg_stat_activity WHERE datname = '{DATABASE}' LIMIT 1");
        let pid: i32 = cluster.primary().value_in("postgres", &sql).unwrap().parse().unwrap();
        kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
        let before = served.load(Ordering::Relaxed);
        eventually("served again", || served.load(Ordering::Relaxed) > before + 300);
        stop.store(true, Ordering::Relaxed);
    });
}

/// What a client may hear while the server restarts.
const RESTARTS: [&str; 6] = ["57P01", "57P02", "57P03", "08006", "08001", "53300"];

/// `None` while nobody comes in.
fn connect(port: u16, number: usize) -> Option<Asker> {
    let mut client = Client::tcp(port);
    client.startup(0, &[]);
    client.welcome().ok()?;
    let sql = "SELECT $1::text AS mark, v FROM item WHERE id = $2";
    (tags(&client.run(&Script::new().parse("find", sql).sync())) == "1Z").then_some(Asker { client, number, turn: 0 })
}

fn ask_until_it_ends(mut asker: Asker, stop: &AtomicBool, served: &AtomicU64) {
    while !stop.load(Ordering::Relaxed) {
        match asker.try_ask(WAYS[asker.turn % 3]) {
            Ok(()) => {
                served.fetch_add(1, Ordering::Relaxed);
            }
            Err(error) if error == "the connection ended" => return,
            Err(error) => {
                assert!(RESTARTS.contains(&error.get(..5).unwrap_or_default()), "{error}");
                if !error.starts_with("57P03") {
                    return;
                }
            }
        }
    }
}
