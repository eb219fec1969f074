//! Answers that are large, and clients that do not read them.
//! It must never read an answer that it says is not read.

use std::fs;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use integration::Pgweir;
use integration::wire::Script;

use crate::common::client::outcome;
use crate::common::{Client, eventually, within};
use crate::{Asker, WAYS, cluster, conf, rides, start, unfit, warm_askers, warm_sql};

const BLOB: &str = "SELECT v FROM blob WHERE id = 1";

fn blob(id: usize) -> String {
    format!("SELECT v FROM blob WHERE id = {id}")
}

#[test]
fn large_answers_leave_the_lanes() {
    let pgweir = start(&conf(cluster()).size(3));
    let mut client = Client::connect(pgweir.port());
    for _ in 0..400 {
        let answer = client.value("SELECT repeat('x', 70000) FROM item WHERE id = 1");
        assert_eq!(answer.len(), 70_000);
    }
    assert_eq!(rides(&pgweir), 0.0, "{:?}", unfit(&pgweir));
    // What was small until now.
    warm_sql(&pgweir, &[BLOB]);
    let before = rides(&pgweir);
    (0..300).for_each(|_| assert_eq!(client.value(&blob(7)).len(), 200_000));
    assert!(rides(&pgweir) < before + 200.0);
    let before = rides(&pgweir);
    assert_eq!(client.value(&blob(3)), "short 3");
    assert_eq!(rides(&pgweir), before);
}

/// Now and then one is large: it is whole, and so are those before and behind it.
#[test]
fn a_large_answer_among_small_ones_is_whole() {
    let pgweir = start(&conf(cluster()).size(3));
    warm_sql(&pgweir, &[BLOB]);
    let mut first = Client::connect(pgweir.port());
    (0..1500).for_each(|_| assert_eq!(first.value(BLOB), "short 1"));
    let (port, before) = (pgweir.port(), rides(&pgweir));
    let large: String = "long".repeat(50_000);
    crate::common::crowd(10, move |number| {
        let mut client = Client::connect(port);
        for turn in 0..120 {
            let id = if number == 3 && turn % 10 == 5 { 7 } else { 100 + number * 50 + turn % 50 };
            let right = if id == 7 { large.clone() } else { format!("short {id}") };
            assert!(client.value(&blob(id)) == right, "client {number}, turn {turn}");
        }
    });
    assert!(rides(&pgweir) > before + 500.0, "{:?}", unfit(&pgweir));
}

fn memory_mib(pgweir: &Pgweir) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", pgweir.id())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() / 1024
}

/// Clients ask in a lane for what is too large to be kept for them, and do not read it. Others go on; and what is not read waits at
/// the server, not in pgweir.
#[test]
fn who_does_not_read_holds_up_nobody() {
    let pgweir = start(&conf(cluster()).size(6));
    warm_askers(&pgweir);
    warm_sql(&pgweir, &[BLOB]);
    let mut first = Client::connect(pgweir.port());
    (0..1500).for_each(|_| assert_eq!(first.value(BLOB), "short 1"));
    let (port, stop, answers) = (pgweir.port(), AtomicBool::new(false), AtomicU64::new(0));
    let before = memory_mib(&pgweir);
    thread::scope(|scope| {
        for number in 0..8 {
            let (stop, answers) = (&stop, &answers);
            scope.spawn(move || {
                let mut asker = Asker::new(port, number);
                while !stop.load(Ordering::Relaxed) {
                    asker.ask(WAYS[asker.turn % 3]);
                    answers.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let mut mute: Vec<Client> = (0..3).map(|_| Client::connect(port)).collect();
        let rode = rides(&pgweir);
        for client in &mut mute {
            // 60 MB.
            client.send(&Script::new().query(&blob(8)));
            let seen = answers.load(Ordering::Relaxed);
            within(Duration::from_secs(10), "others go on", || answers.load(Ordering::Relaxed) > seen + 300);
        }
        let after = memory_mib(&pgweir);
        println!("{before} MiB before, {after} MiB after, {} rides", rides(&pgweir) - rode);
        stop.store(true, Ordering::Relaxed);
        assert!(after < before + 30, "{before} MiB before, {after} MiB after");
        // They read after all.
        for client in &mut mute {
            let rows = outcome(&client.ready(1)).unwrap();
            assert!(rows[0][0] == "long".repeat(15_000_000));
        }
    });
    eventually("all is sent", || memory_mib(&pgweir) < before + 60);
}
