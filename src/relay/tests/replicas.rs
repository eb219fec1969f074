//! Reads on a replica, and what keeps a client there.
//! Must never leave a client waiting for a server that it has.

use super::rig::{Rig, letters};
use super::speech::*;
use crate::pool::cluster::Says;
use crate::relay::GroupId;

fn group(rig: &Rig) -> GroupId {
    rig.relay.groups.ids().next().unwrap()
}

/// The replica has what any client wrote.
fn catches_up(rig: &Rig) {
    let cluster = &rig.relay.groups[group(rig)].cluster;
    let number = cluster.ask();
    cluster.answer(0, number, 1);
    cluster.heard(1, number, Says { standby: true, lsn: 1, shown: 1, timeline: 1 });
}

fn with_replica() -> Rig {
    let text = super::rig::config("default_pool_size = 2");
    let text =
        text.replace("server_tls_sslmode", "replicas = [\"127.0.0.1:2\"]\nroles = \"declared\"\nserver_tls_sslmode");
    let mut rig = Rig::of(&text);
    let peer = rig.arrive(&[]);
    rig.heard(peer);
    catches_up(&rig);
    rig
}

#[test]
fn reads_go_to_the_replica_and_writes_do_not() {
    let mut rig = with_replica();
    assert_eq!(letters(&rig.send(0, &query("select 1"))), "TDCZI");
    assert_eq!(letters(&rig.send(0, &query("insert into t values (1)"))), "CZI");
    // What it wrote the replica may lack.
    assert_eq!(letters(&rig.send(0, &query("select 2"))), "TDCZI");
    let on_replica: Vec<_> =
        rig.hosts.iter().filter(|host| host.pool.index() == 1).flat_map(|host| &host.backend.ran).collect();
    assert_eq!(on_replica, ["select 1"]);
    // In one write, the batch behind a read that goes elsewhere.
    catches_up(&rig);
    let batches = [query("select 3"), query("insert into t values (1)"), query("select 4")].concat();
    assert_eq!(letters(&rig.send(0, &batches)), "TDCZICZITDCZI");
    rig.assert_at_rest();
}

#[test]
fn a_session_held_on_a_replica_is_answered_there() {
    let mut rig = with_replica();
    // Sets something for the session inside a transaction that a replica took.
    rig.send(0, &[parse("", "/* pgweir: replica */ begin read only"), run(""), sync()].concat());
    rig.send(0, &query("set app.x = 1"));
    rig.send(0, &query("commit"));
    assert_ne!(letters(&rig.send(0, &query("insert into t values (1)"))), "", "waits for ever");
}
