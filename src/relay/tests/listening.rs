//! Notifications that come while the channels of a client are on their way from its server to the listener.
//! Must never need a connection that listens: who does has it in the tests on real servers.

use super::rig::{Rig, letters};
use super::speech::*;

/// A notification by server process `pid`.
fn notification(pid: u32) -> Vec<u8> {
    plain(b'A', &[&pid.to_be_bytes()[..], b"c\0x\0"].concat())
}

/// What the client was told as its process id.
fn told(rig: &Rig, peer: usize) -> u32 {
    rig.relay.told_pid(rig.peers[peer].id.unwrap())
}

/// A client has said LISTEN, and is told what happens on its server, which is yet to say what channels there are.
fn listening() -> Rig {
    let mut rig = Rig::new("default_pool_size = 2");
    for _ in 0..3 {
        rig.arrive(&[]);
    }
    rig.hosts[0].answering = false;
    rig.tell(0, &query("listen c"));
    rig.answer_now(0);
    assert!(letters(&rig.heard(0)).ends_with("CZI"));
    rig
}

#[test]
fn one_is_its_clients_also_before_it_is_known_who_listens() {
    let mut rig = listening();
    rig.send(1, &query("select pg_notify('c', 'x')"));
    let pid = rig.relay.servers.get(rig.hosts[1].id).unwrap().key.pid;
    // Another has the server in between.
    rig.send(2, &query("select 1"));
    rig.say(0, &notification(pid));
    assert_eq!(rig.heard(0), notification(told(&rig, 1)));
}

#[test]
fn one_is_nobody_elses() {
    let mut rig = listening();
    for peer in [1, 2] {
        rig.send(peer, &query("select pg_notify('c', 'x')"));
    }
    let pid = rig.relay.servers.get(rig.hosts[1].id).unwrap().key.pid;
    rig.say(0, &notification(pid));
    assert_eq!(rig.heard(0), notification(pid));
}

/// The connection that listens has heard everything, and says so, before the server of who listens itself has said what it heard.
#[test]
fn one_that_comes_late_is_its_clients() {
    let mut rig = listening();
    rig.send(1, &query("select pg_notify('c', 'x')"));
    let group = rig.relay.clients.get(rig.peers[1].id.unwrap()).unwrap().group;
    let listener = rig.relay.groups[group].listener.as_mut().unwrap();
    listener.up = true;
    assert!(listener.next_round().is_some() && listener.round_done().is_empty());
    let pid = rig.relay.servers.get(rig.hosts[1].id).unwrap().key.pid;
    rig.say(0, &notification(pid));
    assert_eq!(rig.heard(0), notification(told(&rig, 1)));
}
