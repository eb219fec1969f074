//! The library's ways to break a cluster: promotion, rejoining, links, pauses. Each does what it says to real servers.
//! A test here must never need pgweir.
#![allow(clippy::unwrap_used)]

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use integration::wire::Wire;
use integration::{Cluster, DATABASE, Link, Postgres, USER, Way};

fn start(replicas: usize) -> Cluster {
    Cluster::builder().replicas(replicas).sql("CREATE TABLE fish (name text)").start().unwrap()
}

fn fish(node: &Postgres) -> String {
    node.value_in(DATABASE, "SELECT count(*) FROM fish").unwrap()
}

fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !holds() {
        assert!(Instant::now() < deadline, "not within 20 seconds: {what}");
        thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_standby_takes_over_the_other_follows_and_the_lost_primary_rejoins() {
    let cluster = start(2);
    let (old, [new, other]) = (cluster.primary(), cluster.replicas()) else { panic!("two replicas") };
    for round in 1..=2 {
        let (old, new) = if round == 1 { (old, new) } else { (new, old) };
        new.follow_nobody().unwrap();
        other.follow_nobody().unwrap();
        // Nobody gets it any more.
        old.query_in(DATABASE, "INSERT INTO fish VALUES ('lost')").unwrap();
        assert!(new.received().unwrap() >= other.received().unwrap());
        other.follow(new).unwrap();
        old.crash();
        new.promote().unwrap();
        new.query_in(DATABASE, "INSERT INTO fish VALUES ('kept')").unwrap();
        eventually("the other standby has it", || fish(other) == round.to_string());
        // As it was.
        old.start().unwrap();
        assert_eq!(fish(old), (round).to_string());
        assert_eq!(old.value_in("postgres", "SELECT pg_is_in_recovery()").unwrap(), "f");
        old.rejoin(new).unwrap();
        assert_eq!(old.value_in("postgres", "SELECT pg_is_in_recovery()").unwrap(), "t");
        assert_eq!(fish(old), round.to_string());
    }
}

#[test]
fn replay_is_delayed_and_paused() {
    let cluster = start(1);
    let (primary, replica) = (cluster.primary(), &cluster.replicas()[0]);
    let insert = || primary.query_in(DATABASE, "INSERT INTO fish VALUES ('eel')").map(|_| Instant::now()).unwrap();
    replica.delay_replay(700).unwrap();
    let written = insert();
    eventually("it is replayed", || fish(replica) == "1");
    assert!(written.elapsed() > Duration::from_millis(600), "{:?}", written.elapsed());
    replica.delay_replay(0).unwrap();
    let written = insert();
    eventually("it is replayed", || fish(replica) == "2");
    assert!(written.elapsed() < Duration::from_millis(600), "{:?}", written.elapsed());
    replica.pause_replay().unwrap();
    let received = replica.received().unwrap();
    insert();
    eventually("it is received", || replica.received().unwrap() > received);
    assert_eq!(fish(replica), "2");
    replica.resume_replay().unwrap();
    eventually("it is replayed", || fish(replica) == "3");
}

#[test]
fn a_paused_server_goes_on_where_it_was() {
    let cluster = start(0);
    let primary = cluster.primary();
    let port = primary.port();
    let mut session = Wire::connect(port, USER, DATABASE, "").unwrap();
    primary.pause();
    let asked = Instant::now();
    // The kernel of a server that hangs takes both.
    let reader = thread::spawn(move || (session.query("SELECT 7").unwrap(), Instant::now()));
    let newcomer = thread::spawn(move || Wire::connect(port, USER, DATABASE, "").map(|_| Instant::now()).unwrap());
    // Not a wait for anything: silence has no event.
    thread::sleep(Duration::from_millis(300));
    assert!(!reader.is_finished() && !newcomer.is_finished());
    let resumed = Instant::now();
    primary.resume();
    let (rows, at) = reader.join().unwrap();
    assert_eq!(rows, [["7"]]);
    assert!(at > resumed && newcomer.join().unwrap() > resumed && asked < resumed);
    // And a paused one can be stopped.
    primary.pause();
    primary.crash();
    primary.start().unwrap();
}

/// A socket that reads for a short time.
fn socket(link: &Link) -> TcpStream {
    let socket = TcpStream::connect(("127.0.0.1", link.port())).unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    socket
}

#[test]
fn a_link_is_silent_each_way_and_loses_nothing() {
    let server = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let link = Link::to(server.local_addr().unwrap().port()).unwrap();
    let mut near = socket(&link);
    let (mut far, _) = server.accept().unwrap();
    far.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    let hears = |socket: &mut TcpStream| {
        let mut bytes = [0; 3];
        socket.read(&mut bytes).map(|count| String::from_utf8_lossy(&bytes[..count]).into_owned())
    };
    let silent = |socket: &mut TcpStream| hears(socket).is_err_and(|error| error.kind() == ErrorKind::WouldBlock);
    link.silence(Way::Forth);
    near.write_all(b"one").unwrap();
    far.write_all(b"two").unwrap();
    assert_eq!(hears(&mut near).unwrap(), "two");
    assert!(silent(&mut far));
    link.mend();
    assert_eq!(hears(&mut far).unwrap(), "one");
    link.drop_all();
    // Not even that a side has gone is heard.
    far.write_all(b"bye").unwrap();
    drop(far);
    assert!(silent(&mut near));
    let mut late = socket(&link);
    assert!(silent(&mut late));
    link.mend();
    assert_eq!(hears(&mut near).unwrap(), "bye");
    assert_eq!(hears(&mut near).unwrap(), "");
    // Who came while it was silent is connected now.
    let (mut far, _) = server.accept().unwrap();
    far.write_all(b"yes").unwrap();
    assert_eq!(hears(&mut late).unwrap(), "yes");
    link.drop_all();
    link.reset();
    assert_eq!(hears(&mut late).unwrap_err().kind(), ErrorKind::ConnectionReset);
    assert_eq!(hears(&mut far).unwrap_err().kind(), ErrorKind::ConnectionReset);
    link.mend();
    link.refuse();
    let mut refused = socket(&link);
    assert_eq!(hears(&mut refused).unwrap_err().kind(), ErrorKind::ConnectionReset);
    let elsewhere = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    link.mend();
    link.lead_to(elsewhere.local_addr().unwrap().port());
    let mut near = socket(&link);
    elsewhere.accept().unwrap().0.write_all(b"new").unwrap();
    assert_eq!(hears(&mut near).unwrap(), "new");
}
