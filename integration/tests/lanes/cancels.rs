//! Who asks to be cancelled is, and nobody else.
//! It must never take a request for cancelled that was answered before.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use integration::wire::Script;

use crate::common::client::{outcome, tags};
use crate::common::{Client, eventually, metric};
use crate::{
    Asker, WAYS, Way, cluster, conf, conf_with, guard, read_of, rides, start, waiting_for, warm, warm_askers, warm_sql,
};

const CANCELLED: &str = "57014 canceling statement due to user request";

fn cancel(port: u16, request: &[u8]) {
    let mut carrier = Client::tcp(port);
    carrier.write(request);
    carrier.read_to_end();
}

/// One that waits for a lock, others going on all the time.
#[test]
fn a_blocked_head_is_cancelled_alone() {
    const TABLE: &str = "guarded_4";
    let pgweir = start(&conf(cluster()).size(8));
    warm_askers(&pgweir);
    warm_sql(&pgweir, &[&read_of(TABLE)]);
    let (port, stop) = (pgweir.port(), AtomicBool::new(false));
    thread::scope(|scope| {
        for number in 0..8 {
            let stop = &stop;
            scope.spawn(move || {
                let mut asker = Asker::new(port, number);
                while !stop.load(Ordering::Relaxed) {
                    asker.ask(WAYS[asker.turn % 3]);
                }
            });
        }
        let mut blocked = Client::connect(port);
        for _ in 0..4 {
            let mut holder = guard(cluster(), TABLE);
            blocked.send(&Script::new().query(&read_of(TABLE)));
            eventually("it waits", || waiting_for(cluster(), TABLE) == 1);
            cancel(port, &blocked.cancel_request());
            let answer = blocked.ready(1);
            assert_eq!(outcome(&answer).unwrap_err(), CANCELLED);
            assert_eq!(tags(&answer), "EZ");
            holder.query("COMMIT").unwrap();
            assert_eq!(blocked.value(&read_of(TABLE)), "guarded 7");
        }
        stop.store(true, Ordering::Relaxed);
    });
}

/// One that stands behind a blocked one is answered at once, and its session goes on; what it had asked is answered to nobody.
#[test]
fn who_stands_behind_is_cancelled_at_once() {
    const TABLE: &str = "guarded_5";
    // One lane, and much patience with its head.

    let pgweir = start(&conf_with(cluster(), "3s").size(8).pool("max_lanes = 1"));
    warm_askers(&pgweir);
    warm_sql(&pgweir, &[&read_of(TABLE)]);
    let port = pgweir.port();
    let (mut blocked, mut behind) = (Client::connect(port), Asker::new(port, 1));
    for way in WAYS {
        behind.ask(way);
        let mut holder = guard(cluster(), TABLE);
        blocked.send(&Script::new().query(&read_of(TABLE)));
        eventually("it waits", || waiting_for(cluster(), TABLE) == 1);
        let (script, _) = behind.question(way);
        behind.client.send(&script);
        eventually("both are in the lane", || metric(&pgweir, "pgweir_pool_lane_riders", &[]) == 2.0);
        let began = Instant::now();
        cancel(port, &behind.client.cancel_request());
        let answer = behind.client.ready(1);
        let took = began.elapsed();
        assert_eq!(outcome(&answer).unwrap_err(), CANCELLED, "{way:?}");
        assert_eq!(tags(&answer), "EZ");
        assert_eq!(waiting_for(cluster(), TABLE), 1, "the head of the lane had its answer: {took:?}");
        // The next of the same client stands in the same lane, with the dropped one before it.
        let (script, right) = behind.question(way);
        behind.client.send(&script);
        cancel(port, &blocked.cancel_request());
        assert_eq!(outcome(&blocked.ready(1)).unwrap_err(), CANCELLED);
        let answer = behind.client.ready(1);
        behind.check(&answer, &right, way).unwrap();
        holder.query("COMMIT").unwrap();
        behind.ask(way);
        assert_eq!(blocked.value(&read_of(TABLE)), "guarded 7");
    }
}

/// Requests rain on half of the clients, whose reads all take long enough to be hit; the others must not feel one.
#[test]
fn a_storm_hits_only_whom_it_is_meant_for() {
    let pgweir = start(&conf_with(cluster(), "200ms").size(4));
    let sql = |mark: &str| format!("SELECT '{mark}' AS mark, count(*) FROM generate_series(1, 4000)");
    let text = "SELECT $1::text AS mark, count(*) FROM generate_series(1, 4000)";
    let extended = |mark: &str| Script::new().bind("", "count", &[Some(mark)]).execute("", 0).sync();
    let connect = || {
        let mut client = Client::connect(pgweir.port());
        client.run(&Script::new().parse("count", text).sync());
        client
    };
    let mut first = connect();
    warm(&pgweir, &mut first, &Script::new().query(&sql("x")));
    warm(&pgweir, &mut first, &extended("x"));
    let (port, before, until) = (pgweir.port(), rides(&pgweir), Instant::now() + Duration::from_millis(1500));
    let clients: Vec<Client> = (0..20).map(|_| connect()).collect();
    let requests: Vec<Vec<u8>> = clients.iter().map(Client::cancel_request).collect();
    let asked: Vec<AtomicU64> = (0..20).map(|_| AtomicU64::new(0)).collect();
    let (cancelled, served) = (AtomicU64::new(0), AtomicU64::new(0));
    thread::scope(|scope| {
        for (number, mut client) in clients.into_iter().enumerate() {
            let (asked, cancelled, served) = (&asked[number], &cancelled, &served);
            scope.spawn(move || {
                let (mut hits, mut turn) = (0, 0);
                while Instant::now() < until {
                    turn += 1;
                    let mark = format!("{number}/{turn}");
                    let way = if turn % 2 == 0 { Way::Simple } else { Way::Named };
                    let script = if way == Way::Simple { Script::new().query(&sql(&mark)) } else { extended(&mark) };
                    match outcome(&client.run(&script)) {
                        Ok(rows) => {
                            assert_eq!(rows, [[mark, "4000".into()]]);
                            served.fetch_add(1, Ordering::Relaxed);
                        }
                        Err(error) => {
                            assert_eq!(error, CANCELLED, "client {number}");
                            hits += 1;
                            let asked = asked.load(Ordering::SeqCst);
                            assert!(hits <= asked, "client {number} was cancelled {hits} times, asked for {asked}");
                            cancelled.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                }
            });
        }
        for canceller in 0..3 {
            let (asked, requests) = (&asked, &requests);
            scope.spawn(move || {
                for number in (canceller * 2..).step_by(2).map(|number| number % 20) {
                    if Instant::now() >= until {
                        return;
                    }
                    asked[number].fetch_add(1, Ordering::SeqCst);
                    cancel(port, &requests[number]);
                }
            });
        }
    });
    let (cancelled, served, rode) = (cancelled.into_inner(), served.into_inner(), rides(&pgweir) - before);
    println!("{cancelled} cancelled, {served} served, {rode} in lanes");
    assert!(cancelled > 20 && served > 150 && rode > 100.0, "{cancelled} cancelled, {served} served, {rode} in lanes");
    // Nothing is left of it.
    assert_eq!(Client::connect(port).value("SELECT 'after'"), "after");
    eventually("all servers rest", || metric(&pgweir, "pgweir_pool_servers", &[("state", "active")]) == 0.0);
}
