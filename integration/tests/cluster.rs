//! The library itself: what it starts works, and nothing of it stays behind.
//! A test here must never look at processes or directories of other tests.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use integration::{Cluster, DATABASE, Hba, PASSWORD, Redis, Stop, USER, wire::Wire};

/// Process ids of everything that works inside `root`.
fn processes_in(root: &Path) -> Vec<String> {
    let ours = |entry: &fs::DirEntry| fs::read_link(entry.path().join("cwd")).is_ok_and(|cwd| cwd.starts_with(root));
    let all = fs::read_dir("/proc").unwrap().flatten();
    all.filter(ours).map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !holds() {
        assert!(Instant::now() < deadline, "not within 20 seconds: {what}");
        thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn replicas_have_the_data_of_the_primary_and_refuse_writes() {
    let cluster = Cluster::builder().replicas(2).sql("CREATE TABLE fish (name text)").start().unwrap();
    cluster.primary().query_in(DATABASE, "INSERT INTO fish VALUES ('trout'), ('pike')").unwrap();
    cluster.wait_caught_up().unwrap();
    for replica in cluster.replicas() {
        assert_eq!(replica.value_in(DATABASE, "SELECT count(*) FROM fish").unwrap(), "2");
        let refused = replica.query_in(DATABASE, "INSERT INTO fish VALUES ('eel')").unwrap_err();
        assert!(refused.to_string().contains("25006"), "{refused}");
    }
}

#[test]
fn a_promoted_replica_takes_writes_after_the_primary_was_killed() {
    let cluster = Cluster::builder().replicas(1).sql("CREATE TABLE fish (name text)").start().unwrap();
    cluster.primary().kill();
    assert!(cluster.primary().query("SELECT 1").is_err());
    let replica = &cluster.replicas()[0];
    replica.promote().unwrap();
    replica.query_in(DATABASE, "INSERT INTO fish VALUES ('eel')").unwrap();
    cluster.primary().start().unwrap();
    assert_eq!(cluster.primary().value_in(DATABASE, "SELECT count(*) FROM fish").unwrap(), "0");
}

#[test]
fn a_restarted_server_keeps_its_port_and_data() {
    let cluster = Cluster::builder().start().unwrap();
    let primary = cluster.primary();
    let (port, id) = (primary.port(), primary.id());
    primary.query_in(DATABASE, "CREATE TABLE kept AS SELECT 7 AS n").unwrap();
    primary.restart().unwrap();
    assert_eq!(primary.port(), port);
    assert_ne!(primary.id(), id);
    assert_eq!(primary.value_in(DATABASE, "SELECT n FROM kept").unwrap(), "7");
    primary.stop(Stop::Fast).unwrap();
    assert_eq!(primary.id(), None);
}

#[test]
fn counters_are_the_servers_own() {
    let cluster = Cluster::builder().start().unwrap();
    let before = cluster.primary().counters(DATABASE).unwrap();
    let mut session = Wire::connect(cluster.primary().port(), USER, DATABASE, "").unwrap();
    for _ in 0..20 {
        session.query("SELECT 1").unwrap();
    }
    // A backend that ends reports what it had not yet reported.
    drop(session);
    eventually("20 commits", || cluster.primary().counters(DATABASE).unwrap().commits >= before.commits + 20);
}

#[test]
fn every_authentication_is_the_one_asked_for() {
    for (hba, first) in [(Hba::Trust, 0), (Hba::Password, 3), (Hba::Md5, 5), (Hba::Scram, 10)] {
        let cluster = Cluster::builder().auth(hba).start().unwrap();
        let mut wire = Wire::tcp(cluster.primary().port()).unwrap();
        let body = format!("\0\x03\0\0user\0{USER}\0database\0{DATABASE}\0\0");
        let length = (body.len() as u32 + 4).to_be_bytes();
        wire.write(&[&length[..], body.as_bytes()].concat()).unwrap();
        let answer = wire.read().unwrap();
        assert_eq!((answer.tag, answer.body[3]), (b'R', first), "{hba:?}");
    }
}

#[test]
fn a_wrong_password_is_refused() {
    let cluster = Cluster::builder().auth(Hba::Password).start().unwrap();
    let port = cluster.primary().port();
    assert!(Wire::connect(port, USER, DATABASE, PASSWORD).is_ok());
    let refused = Wire::connect(port, USER, DATABASE, "wrong").err().unwrap();
    assert!(refused.to_string().contains("28P01"), "{refused}");
}

#[test]
fn tls_is_offered_when_asked_for_only() {
    const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f];
    for (tls, answer) in [(false, b'N'), (true, b'S')] {
        let cluster = Cluster::builder().tls(tls).start().unwrap();
        let mut wire = Wire::tcp(cluster.primary().port()).unwrap();
        wire.write(&SSL_REQUEST).unwrap();
        assert_eq!(wire.read_byte().unwrap(), answer);
    }
}

#[test]
fn redis_answers() {
    let redis = Redis::start().unwrap();
    assert!(redis.command("SET a b").unwrap().starts_with("+OK"));
    assert!(redis.command("GET a").unwrap().ends_with("b\r\n"));
}

#[test]
fn a_dropped_cluster_leaves_nothing() {
    let cluster = Cluster::builder().replicas(1).start().unwrap();
    let folders: Vec<PathBuf> = cluster.nodes().map(|node| node.socket_folder().to_owned()).collect();
    assert!(folders.iter().all(|folder| !processes_in(folder).is_empty()));
    drop(cluster);
    for folder in folders {
        eventually("its backends are gone", || processes_in(&folder).is_empty());
        assert!(!folder.exists());
    }
}

#[test]
fn a_panicking_test_leaves_nothing() {
    let folder = thread::spawn(|| {
        let cluster = Cluster::builder().start().unwrap();
        std::panic::panic_any(cluster.primary().socket_folder().to_owned());
    });
    let folder = folder.join().unwrap_err().downcast::<PathBuf>().unwrap();
    eventually("its backends are gone", || processes_in(&folder).is_empty());
    assert!(!folder.exists());
}

#[test]
fn a_cluster_outlives_the_thread_that_started_it() {
    let start = || {
        // A child of that thread with the same wish: when it has been signalled, so has every other that asked for it.
        let mut witness = Command::new("setpriv");
        let witness = witness.args(["--pdeathsig", "KILL", "--", "cat"]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut witness = witness.spawn().unwrap();
        // It has said its wish to the kernel when it copies.
        let mut echo = [0];
        witness.stdin.as_mut().unwrap().write_all(b"x").unwrap();
        witness.stdout.as_mut().unwrap().read_exact(&mut echo).unwrap();
        (Cluster::builder().start().unwrap(), witness)
    };
    let (cluster, mut witness) = thread::spawn(start).join().unwrap();
    assert_eq!(witness.wait().unwrap().signal(), Some(9));
    assert_eq!(cluster.primary().value_in("postgres", "SELECT 1").unwrap(), "1");
}

fn killed_owner_leaves_nothing(signal: &str) {
    let mut owner = Command::new(env!("CARGO_BIN_EXE_hold")).stdout(Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(owner.stdout.take().unwrap()).lines().map_while(Result::ok);
    let root = lines.filter_map(|line| line.strip_prefix("held in ").map(PathBuf::from)).next().unwrap();
    assert!(processes_in(&root).len() > 3);
    Command::new("kill").args([signal, &owner.id().to_string()]).status().unwrap();
    owner.wait().unwrap();
    eventually("its processes are gone", || processes_in(&root).is_empty());
    eventually("its directory is gone", || !root.exists());
}

#[test]
fn an_owner_killed_by_sigkill_leaves_nothing() {
    killed_owner_leaves_nothing("-KILL");
}

#[test]
fn an_owner_interrupted_leaves_nothing() {
    killed_owner_leaves_nothing("-INT");
}
