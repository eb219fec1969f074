//! Limits in time hold in lanes as they do elsewhere.
//! It must never set a limit that a busy machine alone could reach.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use integration::wire::Script;

use crate::common::client::outcome;
use crate::common::{Client, eventually};
use crate::{Asker, Rides, WAYS, cluster, conf, guard, read_of, start, waiting_for, warm_askers, warm_sql};

/// A read that waits for a lock ends when its time is over; those behind it do not notice.
#[test]
fn a_head_that_takes_too_long_is_cancelled() {
    const TABLE: &str = "guarded_6";
    let pgweir = start(&conf(cluster()).size(5).pool("query_timeout = \"1s\""));
    warm_askers(&pgweir);
    warm_sql(&pgweir, &[&read_of(TABLE)]);
    let (port, stop) = (pgweir.port(), AtomicBool::new(false));
    thread::scope(|scope| {
        for number in 0..6 {
            let stop = &stop;
            scope.spawn(move || {
                let mut asker = Asker::new(port, number);
                while !stop.load(Ordering::Relaxed) {
                    asker.ask(WAYS[asker.turn % 3]);
                }
            });
        }
        let mut holder = guard(cluster(), TABLE);
        let (mut client, before, began) = (Client::connect(port), Rides::of(&pgweir), Instant::now());
        let error = client.query(&read_of(TABLE)).unwrap_err();
        assert_eq!(error, "57014 canceling statement due to statement timeout");
        let took = began.elapsed();
        assert!((950..3500).contains(&took.as_millis()), "{took:?}");
        println!("{error} after {took:?}, {:?}", Rides::of(&pgweir).since(before));
        holder.query("COMMIT").unwrap();
        assert_eq!(client.value(&read_of(TABLE)), "guarded 7");
        stop.store(true, Ordering::Relaxed);
    });
}

/// PostgreSQL's own limit, which a client has set: its error, once, after its time and not twice that.
#[test]
fn the_servers_own_limits_hold() {
    const TABLE: &str = "guarded_7";
    let pgweir = start(&conf(cluster()).size(5));
    let mut client = Client::connect(pgweir.port());
    client.query("SET statement_timeout = '700ms'").unwrap();
    crate::warm(&pgweir, &mut client, &Script::new().query(&read_of(TABLE)));
    for _ in 0..2 {
        let mut holder = guard(cluster(), TABLE);
        let began = Instant::now();
        let error = client.query(&read_of(TABLE)).unwrap_err();
        let took = began.elapsed();
        assert_eq!(error, "57014 canceling statement due to statement timeout");
        assert!((650..1350).contains(&took.as_millis()), "{took:?}");
        holder.query("COMMIT").unwrap();
        (0..150).for_each(|_| assert_eq!(client.value(&read_of(TABLE)), "guarded 7"));
    }
}

/// What is not to be had in time is not asked for twice.
#[test]
fn the_servers_limit_for_locks_holds_once() {
    const TABLE: &str = "guarded_10";
    let pgweir = start(&conf(cluster()).size(5));
    let mut client = Client::connect(pgweir.port());
    client.query("SET lock_timeout = '700ms'").unwrap();
    crate::warm(&pgweir, &mut client, &Script::new().query(&read_of(TABLE)));
    let (mut holder, began) = (guard(cluster(), TABLE), Instant::now());
    let error = client.query(&read_of(TABLE)).unwrap_err();
    let took = began.elapsed();
    assert_eq!(error, "55P03 canceling statement due to lock timeout");
    assert!((650..1350).contains(&took.as_millis()), "{took:?}");
    holder.query("COMMIT").unwrap();
    assert_eq!(client.value(&read_of(TABLE)), "guarded 7");
}

/// A read alone is a transaction, and its session ends as that of any other would; its server goes on.
#[test]
fn a_transaction_that_takes_too_long_ends_its_session() {
    const TABLE: &str = "guarded_11";
    let pgweir = start(&conf(cluster()).size(1).pool("transaction_timeout = \"1s\""));
    warm_sql(&pgweir, &[&read_of(TABLE)]);
    let (mut holder, mut client) = (guard(cluster(), TABLE), Client::connect(pgweir.port()));
    let mut other = Asker::new(pgweir.port(), 1);
    client.send(&Script::new().query(&read_of(TABLE)));
    let error = client.read().unwrap();
    assert_eq!((error.field(b'C').as_deref(), error.field(b'S').as_deref()), (Some("25P04"), Some("FATAL")));
    assert!(client.read().is_none(), "it has ended");
    // Also while the table is locked.
    (0..30).for_each(|turn| other.ask(WAYS[turn % 3]));
    holder.query("COMMIT").unwrap();
}

/// A client whose request is in a lane is not idle.
#[test]
fn who_waits_in_a_lane_is_not_idle() {
    const TABLE: &str = "guarded_8";
    let pgweir = start(&conf(cluster()).size(5).pool("client_idle_timeout = \"1s\""));
    warm_sql(&pgweir, &[&read_of(TABLE)]);
    let mut holder = guard(cluster(), TABLE);
    let mut client = Client::connect(pgweir.port());
    client.send(&Script::new().query(&read_of(TABLE)));
    eventually("it waits", || waiting_for(cluster(), TABLE) == 1);
    // Longer than a client may be idle.
    assert!(!client.speaks_within(Duration::from_millis(2500)));
    client.patience(Duration::from_secs(60));
    holder.query("COMMIT").unwrap();
    assert_eq!(outcome(&client.ready(1)).unwrap(), [["guarded 7"]]);
    // And then it is.
    assert_eq!(client.read().unwrap().field(b'C').unwrap(), "57P01");
}

/// A shutdown that waits for transactions waits for riders, and gives them their answers.
#[test]
fn a_shutdown_lets_riders_finish() {
    const TABLE: &str = "guarded_9";
    let pgweir = start(&conf(cluster()).size(5));
    warm_sql(&pgweir, &[&read_of(TABLE)]);
    let mut holder = guard(cluster(), TABLE);
    let mut client = Client::connect(pgweir.port());
    client.send(&Script::new().query(&read_of(TABLE)));
    eventually("it waits", || waiting_for(cluster(), TABLE) == 1);
    pgweir.signal(rustix::process::Signal::TERM);
    assert!(!client.speaks_within(Duration::from_millis(300)));
    client.patience(Duration::from_secs(60));
    holder.query("COMMIT").unwrap();
    assert_eq!(outcome(&client.ready(1)).unwrap(), [["guarded 7"]]);
    assert!(pgweir.wait(Duration::from_secs(20)).unwrap().success());
}
