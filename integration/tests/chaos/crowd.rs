//! More connections than anybody should open, and fewer file descriptors than anybody should have.
//! It must never raise a limit of anything but this process and the pgweir it started.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use integration::{Cluster, Pgweir};
use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit, setrlimit};

use crate::books::assert_at_rest;
use crate::common::{Client, Conf, crowd, eventually};
use crate::is_long;

/// Threads that open connections.
const THREADS: usize = 10;

#[test]
fn a_storm_of_connections() {
    // Two descriptors each for a client here, one there.
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum }).unwrap();
    let count = if is_long() { 5_000 } else { 1_000 };
    let cluster = Cluster::builder().start().unwrap();
    let pgweir = Conf::trust(&cluster).size(20).start();
    let port = pgweir.port();
    let until = Instant::now() + crate::duration();
    let mut rounds = 0;
    while rounds == 0 || Instant::now() < until {
        let clients: Vec<Client> = crowd(THREADS, move |thread| {
            let connect = |number| {
                let mut client = Client::connect(port);
                let mark = format!("{thread}/{number}");
                assert_eq!(client.value(&format!("SELECT '{mark}'")), mark);
                client
            };
            (0..count / THREADS).map(connect).collect::<Vec<_>>()
        })
        .into_iter()
        .flatten()
        .collect();
        assert_eq!(clients.len(), count);
        // Everybody is still there, and so is everybody's own answer.
        for (number, mut client) in clients.into_iter().enumerate() {
            assert_eq!(client.value(&format!("SELECT {number} + 1")), (number + 1).to_string());
        }
        rounds += 1;
        assert_at_rest(&pgweir, &cluster);
    }
    println!("{rounds} times {count} connections");
}

fn descriptors(pgweir: &Pgweir) -> usize {
    fs::read_dir(format!("/proc/{}/fd", pgweir.id())).unwrap().count()
}

/// User and system time, in clock ticks (`proc(5)`, stat, fields 14 and 15).
fn ticks(pgweir: &Pgweir) -> u64 {
    let text = fs::read_to_string(format!("/proc/{}/stat", pgweir.id())).unwrap();
    let fields: Vec<&str> = text.rsplit(')').next().unwrap().split_whitespace().collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

/// Out of descriptors accepting pauses, without a busy loop; those who are in are served on, and others when there is room again.
#[test]
fn file_descriptors_run_out() {
    let cluster = Cluster::builder().start().unwrap();
    let pgweir = Conf::trust(&cluster).size(3).start();
    let port = pgweir.port();
    let mut inside: Vec<Client> = (0..5).map(|_| Client::connect(port)).collect();
    crowd(3, move |_| Client::connect(port).value("SELECT 1 FROM pg_sleep(0.1)"));
    let (room, pid) = (20, Pid::from_raw(pgweir.id() as i32));
    let before = getrlimit(Resource::Nofile);
    let most = descriptors(&pgweir) as u64 + room;
    prlimit(pid, Resource::Nofile, Rlimit { current: Some(most), maximum: before.maximum }).unwrap();
    let until = Instant::now() + crate::duration() / 2;
    let mut rounds = 0u64;
    while rounds < 2 || Instant::now() < until {
        let crowd: Vec<Client> = (0..3 * room).map(|_| Client::tcp(port)).collect();
        eventually("no descriptor is left", || descriptors(&pgweir) as u64 >= most);
        let (from, started) = (ticks(&pgweir), Instant::now());
        for number in 0..200 {
            for (who, client) in inside.iter_mut().enumerate() {
                let mark = format!("{rounds}/{number}/{who}");
                assert_eq!(client.value(&format!("SELECT '{mark}'")), mark);
            }
        }
        // A second in which nothing is asked: what is used then is used for nothing.
        let quiet = ticks(&pgweir);
        thread::sleep(Duration::from_secs(1));
        let wasted = ticks(&pgweir) - quiet;
        assert!(wasted < 40, "{wasted} ticks in an idle second, {} in {:?} before", quiet - from, started.elapsed());
        drop(crowd);
        eventually("there is room again", || (descriptors(&pgweir) as u64) < most - room / 2);
        let mut late = Client::connect(port);
        assert_eq!(late.value("SELECT 'late'"), "late");
        rounds += 1;
    }
    prlimit(pid, Resource::Nofile, before).unwrap();
    drop(inside);
    assert_at_rest(&pgweir, &cluster);
}
