//! Bounds in memory and time: large rows, resting servers.
//! It must never measure more than the process of pgweir itself.

use crate::common::client::outcome;
use crate::common::{Client, Conf, eventually, metric};
use crate::{cluster, conf};
use integration::wire::Script;
use integration::{Cluster, DATABASE, Pgweir};
use std::fs;

/// Resident memory, in bytes; the highest so far with `VmHWM`.
fn memory(pgweir: &Pgweir, which: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", pgweir.id())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(which)?.strip_prefix(':')).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

const LIMIT: u64 = 64 << 20;

/// One value of 50 MB, read by somebody who stops in the middle of it until the server cannot write any more.
#[test]
fn a_large_row_and_a_slow_reader() {
    let pgweir = conf().size(1).start();
    let mut client = Client::connect(pgweir.port());
    client.send(&Script::new().query("SELECT repeat('x', 50 * 1024 * 1024) /* large */"));
    assert_eq!(client.read().unwrap().tag, b'T');
    let stuck = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%/* large */' AND wait_event = 'ClientWrite'";
    eventually("the server waits", || cluster().primary().value_in("postgres", stuck).unwrap() == "1");
    assert!(memory(&pgweir, "VmRSS") < LIMIT, "{}", memory(&pgweir, "VmRSS"));
    let frames = client.ready(1);
    assert_eq!(frames[0].row()[0].as_ref().unwrap().len(), 50 << 20);
    assert!(memory(&pgweir, "VmHWM") < LIMIT, "{}", memory(&pgweir, "VmHWM"));
    assert_eq!(client.value("SELECT 1"), "1");
}

/// One who leaves in the middle of it: the server is soon another's.
#[test]
fn a_slow_reader_that_leaves() {
    let pgweir = conf().size(1).start();
    let mut client = Client::connect(pgweir.port());
    client.send(&Script::new().query("SELECT repeat('x', 50 * 1024 * 1024) /* left */"));
    assert_eq!(client.read().unwrap().tag, b'T');
    let stuck = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%/* left */' AND wait_event = 'ClientWrite'";
    eventually("the server waits", || cluster().primary().value_in("postgres", stuck).unwrap() == "1");
    client.vanish();
    let began = std::time::Instant::now();
    assert_eq!(Client::connect(pgweir.port()).value("SELECT 1"), "1");
    // It was once waited for until a cancelled statement may be ended by force, 10 s.
    assert!(began.elapsed().as_secs() < 5, "{:?}", began.elapsed());
}

/// As much the other way.
#[test]
fn a_large_parameter() {
    let pgweir = conf().size(1).start();
    let mut client = Client::connect(pgweir.port());
    let value = "v".repeat(50 << 20);
    let script = Script::new().parse("", "SELECT length($1::text)").bind("", "", &[Some(&value)]).execute("", 0).sync();
    for _ in 0..3 {
        assert_eq!(outcome(&client.run(&script)), Ok(vec![vec![(50 << 20).to_string()]]));
    }
    assert!(memory(&pgweir, "VmHWM") < LIMIT, "{}", memory(&pgweir, "VmHWM"));
}

/// Many answers at once that nobody reads.
#[test]
fn many_slow_readers() {
    let pgweir = conf().size(10).start();
    let clients: Vec<Client> = (0..10)
        .map(|_| {
            let mut client = Client::connect(pgweir.port());
            client.send(&Script::new().query("SELECT repeat('y', 10000) FROM generate_series(1, 5000) /* many */"));
            client
        })
        .collect();
    let stuck = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%/* many */' AND wait_event = 'ClientWrite'";
    eventually("the servers wait", || cluster().primary().value_in("postgres", stuck).unwrap() == "10");
    assert!(memory(&pgweir, "VmHWM") < LIMIT, "{}", memory(&pgweir, "VmHWM"));
    for mut client in clients {
        assert_eq!(outcome(&client.ready(1)).unwrap().len(), 5000);
    }
    assert!(memory(&pgweir, "VmHWM") < LIMIT, "{}", memory(&pgweir, "VmHWM"));
}

#[test]
fn servers_that_rest_too_long_are_closed() {
    let cluster = Cluster::builder().start().unwrap();
    let pgweir = Conf::trust(&cluster).size(5).pool("server_idle_timeout = \"500ms\"").start();
    let mut client = Client::connect(pgweir.port());
    assert_eq!(client.value("SELECT 1"), "1");
    assert_eq!(cluster.primary().counters(DATABASE).unwrap().backends, 1);
    eventually("it is closed", || cluster.primary().counters(DATABASE).unwrap().backends == 0);
    assert_eq!(client.value("SELECT 2"), "2");
    // Politely: no complaint about a lost connection.
    assert!(!cluster.primary().log().contains("unexpected EOF"));
}

#[test]
fn servers_are_replaced_when_they_are_old() {
    let cluster = Cluster::builder().start().unwrap();
    let pgweir = Conf::trust(&cluster).size(1).pool("server_lifetime = \"500ms\"").start();
    let mut client = Client::connect(pgweir.port());
    let first = client.value("SELECT 0 + pg_backend_pid()");
    eventually("it is another", || client.value("SELECT 0 + pg_backend_pid()") != first);
    assert!(metric(&pgweir, "pgweir_pool_server_closes_total", &[]) >= 1.0);
}

#[test]
fn idle_clients_are_sent_away() {
    let pgweir = conf().size(1).pool("client_idle_timeout = \"500ms\"\nidle_transaction_timeout = \"700ms\"").start();
    let mut idle = Client::connect(pgweir.port());
    let mut inside = Client::connect(pgweir.port());
    inside.query("BEGIN").unwrap();
    let code = |client: &mut Client| client.read().unwrap().field(b'C').unwrap();
    assert_eq!(code(&mut idle), "57P01");
    assert_eq!(code(&mut inside), "25P03");
    assert!(inside.read().is_none());
    // Its server is free again.
    let mut other = Client::connect(pgweir.port());
    assert_eq!(other.value("SELECT 'x' FROM pg_sleep(1)"), "x");
}

/// As much the other way: a parameter of 50 MB, and a COPY, towards a server that is not reading because it waits for a lock.
#[test]
fn large_messages_towards_a_slow_server() {
    let pgweir = conf().size(2).start();
    let mut holder = Client::connect(pgweir.port());
    holder.query("CREATE TABLE swallowed (text text)").unwrap();
    holder.query("BEGIN; LOCK TABLE swallowed IN ACCESS EXCLUSIVE MODE").unwrap();
    let mut client = Client::connect(pgweir.port());
    let mut script = Script::new().query("COPY swallowed FROM STDIN");
    let line = ["z".repeat(65_535), "\n".into()].concat();
    for _ in 0..800 {
        script = script.copy_data(line.as_bytes());
    }
    let mut writer = client.second();
    let writing = std::thread::spawn(move || writer.send(&script.copy_done()));
    let waits = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'COPY swallowed%' AND wait_event_type = 'Lock'";
    eventually("the server waits", || cluster().primary().value_in("postgres", waits).unwrap() == "1");
    holder.query("COMMIT").unwrap();
    outcome(&client.ready(1)).unwrap();
    writing.join().unwrap();
    let value = "v".repeat(50 << 20);
    let script = Script::new().parse("", "SELECT length($1::text)").bind("", "", &[Some(&value)]).execute("", 0).sync();
    assert_eq!(outcome(&client.run(&script)), Ok(vec![vec![(50 << 20).to_string()]]));
    assert!(memory(&pgweir, "VmHWM") < LIMIT, "{}", memory(&pgweir, "VmHWM"));
}
