//! Redis killed, stopped, started again, full: every request is answered, none waits for longer than the timeout.
//! It must never measure a wait on an idle machine only: bounds are the timeout and what a busy one may add.

use std::thread;
use std::time::{Duration, Instant};

use integration::{Redis, Signal};

use crate::cluster;
use crate::common::{Client, eventually, metric};
use crate::l2::{fill, found, is_up, missed, of, reads, sharing, up, wrote};

/// What a query may take beyond the timeout: the server's own time, and that of a busy machine.
const BUSY: Duration = Duration::from_millis(1500);

fn opened(pgweir: &integration::Pgweir) -> f64 {
    metric(pgweir, "pgweir_cache_redis_breaker_opened_total", &[])
}

fn sql(id: usize) -> String {
    format!("SELECT v FROM item WHERE id = {id}")
}

/// A question that nobody has asked before, of any number, and its answer.
pub fn another(number: &mut usize) -> (String, String) {
    *number += 1;
    let id = *number % 900 + 1;
    (format!("SELECT v FROM item WHERE id = {id} AND {number} > 0"), format!("item {id}"))
}

#[test]
fn killed_and_back() {
    let mut redis = Redis::start().unwrap();
    let pgweir = up(&of(cluster(), &redis));
    let mut client = Client::connect(pgweir.port());
    let mut number = 0;
    let mut all_are_answered = |until: &mut dyn FnMut() -> bool| {
        let deadline = Instant::now() + Duration::from_secs(30);
        while !until() {
            let (sql, right) = another(&mut number);
            let begun = Instant::now();
            assert_eq!(client.value(&sql), right);
            assert!(begun.elapsed() < BUSY, "{:?}", begun.elapsed());
            assert!(Instant::now() < deadline);
        }
    };
    for _ in 0..2 {
        redis.kill().unwrap();
        all_are_answered(&mut || !is_up(&pgweir));
        let before = missed(&pgweir, "down");
        all_are_answered(&mut || missed(&pgweir, "down") > before + 20.0);
        redis.start_again().unwrap();
        all_are_answered(&mut || is_up(&pgweir));
        let before = wrote(&pgweir, "kept");
        all_are_answered(&mut || wrote(&pgweir, "kept") > before);
    }
    assert!(opened(&pgweir) >= 2.0 || pgweir.log().contains("Redis is gone"), "{}", pgweir.log());
}

/// While it is stopped some wait for the timeout, then nobody does; when it goes on it is used again.
#[test]
fn stopped_nobody_waits_for_long() {
    const TIMEOUT: Duration = Duration::from_millis(300);
    let redis = Redis::start().unwrap();
    let conf = sharing(cluster(), &[redis.address()], "timeout = \"300ms\"");
    let one = up(&conf);
    let mut first = Client::connect(one.port());
    fill(&one, &mut first, &sql(901));
    let two = up(&conf);
    let clients: Vec<_> = (0..8).map(|_| Client::connect(two.port())).collect();
    redis.signal(Signal::STOP);
    let workers: Vec<_> = clients
        .into_iter()
        .enumerate()
        .map(|(number, mut client)| {
            thread::spawn(move || {
                let mut longest = Duration::ZERO;
                for turn in 0..40 {
                    let id = number * 100 + turn + 1;
                    let begun = Instant::now();
                    assert_eq!(client.value(&sql(id)), format!("item {id}"));
                    longest = longest.max(begun.elapsed());
                }
                longest
            })
        })
        .collect();
    for worker in workers {
        let longest = worker.join().unwrap();
        assert!(longest < TIMEOUT + BUSY, "{longest:?}");
    }
    assert!(opened(&two) == 1.0 && !is_up(&two));
    let timeouts = missed(&two, "timeout");
    assert!((1.0..=16.0).contains(&timeouts), "{timeouts}");
    // Nobody waits any more: a hundred reads take less than one timeout each, by far.
    let mut client = Client::connect(two.port());
    let begun = Instant::now();
    for id in 1..=100 {
        assert_eq!(client.value(&format!("{} AND true", sql(id))), format!("item {id}"));
    }
    assert!(begun.elapsed() < TIMEOUT * 20, "{:?}", begun.elapsed());
    assert_eq!(missed(&two, "timeout"), timeouts);
    redis.signal(Signal::CONT);
    eventually("it is asked again", || is_up(&two));
    assert!(reads(&two, &mut client, &sql(901)).1);
    // What was sent to it while it was stopped it has done since: what it has is as old as it is.
    assert_eq!((missed(&two, "forged"), missed(&two, "malformed")), (0.0, 0.0));
}

/// A write that a stopped server executes late does not make an answer younger.
#[test]
fn a_late_write_is_no_younger() {
    let redis = Redis::start().unwrap();
    let conf = sharing(cluster(), &[redis.address()], "timeout = \"200ms\"");
    let one = up(&conf);
    let mut client = Client::connect(one.port());
    redis.signal(Signal::STOP);
    let begun = Instant::now();
    assert_eq!(client.value(&format!("/* pgweir: ttl=4s */ {}", sql(950))), "item 950");
    eventually("the write was sent", || wrote(&one, "timeout") >= 1.0);
    thread::sleep(Duration::from_secs(5).saturating_sub(begun.elapsed()));
    redis.signal(Signal::CONT);
    eventually("it has it now", || !redis.names().unwrap_or_default().is_empty());
    redis.ask(&["PERSIST", &redis.names().unwrap()[0]]).unwrap();
    let two = up(&conf);
    assert!(!reads(&two, &mut Client::connect(two.port()), &sql(950)).1);
    assert_eq!(missed(&two, "expired"), 1.0);
}

#[test]
fn full_it_keeps_nothing_new_and_says_so() {
    let redis = Redis::start().unwrap();
    let one = up(&of(cluster(), &redis));
    let mut client = Client::connect(one.port());
    fill(&one, &mut client, &sql(1));
    redis.ask(&["CONFIG", "SET", "maxmemory-policy", "noeviction"]).unwrap();
    redis.ask(&["CONFIG", "SET", "maxmemory", "1"]).unwrap();
    for id in 2..40 {
        assert_eq!(client.value(&sql(id)), format!("item {id}"));
    }
    eventually("it has said no", || wrote(&one, "error") == 38.0);
    // What it has is as good as ever.
    assert!(is_up(&one) && opened(&one) == 0.0);
    let two = up(&of(cluster(), &redis));
    assert!(reads(&two, &mut Client::connect(two.port()), &sql(1)).1);
    assert_eq!(one.log().matches("Redis keeps nothing new").count(), 1);
    redis.ask(&["CONFIG", "SET", "maxmemory", "0"]).unwrap();
    fill(&one, &mut client, &sql(41));
}

/// A reload goes over to another Redis, and to none.
#[test]
fn a_reload_changes_it() {
    let [here, there] = [(); 2].map(|()| Redis::start().unwrap());
    let pgweir = up(&of(cluster(), &here));
    let mut client = Client::connect(pgweir.port());
    fill(&pgweir, &mut client, &sql(1));
    pgweir.reload(&of(cluster(), &there).top("workers = 1").text()).unwrap();
    let mut id = 1;
    eventually("it goes to the other", || {
        id += 1;
        client.value(&sql(id));
        there.names().unwrap().len() > 2
    });
    assert!(is_up(&pgweir));
    pgweir.reload(&crate::conf(cluster(), "mode = \"on\"\nttl = \"1h\"").top("workers = 1").text()).unwrap();
    eventually("it goes nowhere", || !is_up(&pgweir));
    let before = (missed(&pgweir, "down"), found(&pgweir));
    assert_eq!(client.value(&sql(800)), "item 800");
    assert_eq!((missed(&pgweir, "down"), found(&pgweir)), before);
}
