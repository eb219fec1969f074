//! Configurations that replace pools again and again: what is left of those before.
//! Must never end with more than the last configuration needs.

use std::sync::Arc;
use std::time::Duration;

use super::rig::{Rig, config, letters};
use super::speech::*;
use crate::base::clock::paused::Paused;
use crate::config::Config;

fn reload(rig: &mut Rig, text: &str) {
    let config = Config::parse(text, "test.toml").unwrap_or_else(|problems| panic!("{problems}"));
    rig.relay.reconfigure(Arc::new(config));
    rig.run();
}

/// What the relay and the metrics keep: groups, pools, hosts, series of pools, databases and users of statements.
fn kept(rig: &Rig) -> [usize; 5] {
    let relay = &rig.relay;
    let mut labels = std::collections::HashSet::new();
    relay.registry.shapes()[0].for_each(|entry| {
        labels.insert(std::sync::Arc::clone(&entry.pool));
    });
    [
        relay.groups.values().count(),
        relay.pools.values().count(),
        relay.hosts.len(),
        relay.registry.pools().len(),
        labels.len(),
    ]
}

#[test]
fn replaced_pools_are_freed_with_their_last_client_and_server() {
    let base = config("default_pool_size = 2\nmin_pool_size = 1");
    let mut rig = Rig::of(&base);
    let peers: Vec<usize> = (0..2).map(|_| rig.arrive(&[])).collect();
    peers.iter().for_each(|&peer| drop(rig.heard(peer)));
    let mut places = Vec::new();
    for n in 0..20 {
        // A transaction lives through each of them, on the server that it began on.
        assert_eq!(letters(&rig.send(0, &query("begin"))), "CZT");
        let there = format!("127.0.0.1:{}", 1 + (n + 1) % 3);
        reload(&mut rig, &base.replace("127.0.0.1:1", &there));
        assert_eq!(letters(&rig.send(1, &query("select 1"))), "TDCZI");
        rig.relay.sweep();
        rig.run();
        assert_eq!(kept(&rig), [2, 2, 2, 2, 1], "reload {n}, the pool before is in use");
        assert_eq!(letters(&rig.send(0, &query("commit"))), "CZI");
        assert_eq!(letters(&rig.send(0, &query("select 1"))), "TDCZI");
        rig.relay.sweep();
        rig.run();
        assert_eq!(kept(&rig), [1, 1, 1, 1, 1], "reload {n}");
        assert_eq!(&*rig.relay.registry.pools()[0].target.host, there);
        places.push((rig.relay.groups.slots(), rig.relay.pools.slots(), rig.relay.server_count()));
    }
    assert!(places.iter().all(|&place| place.0 <= 2 && place.1 <= 2 && place.2 <= 2), "{places:?}");
    rig.assert_at_rest();
}

/// The successor of a pool on the same server goes on counting where it ended.
#[test]
fn sums_do_not_go_back_at_a_reload() {
    let base = config("default_pool_size = 2");
    let mut rig = Rig::of(&base);
    let peer = rig.arrive(&[]);
    let other = rig.arrive(&[]);
    let sum = |rig: &Rig| rig.relay.registry.pools().iter().map(|pool| pool.total_query_count.get()).sum::<u64>();
    for n in 0..6u64 {
        let mode = ["session", "transaction"][n as usize % 2];
        rig.send(peer, &query("begin"));
        reload(&mut rig, &base.replace("[pool]", &format!("[pool]\npool_mode = \"{mode}\"")));
        rig.send(other, &query("select 1"));
        rig.relay.sweep();
        rig.run();
        let pools = rig.relay.registry.pools();
        assert_eq!(pools.len(), 1, "one server, one series");
        let servers = pools[0].servers_active.get() + pools[0].servers_idle.get();
        assert_eq!(servers, rig.relay.server_count() as u64, "gauges of both are added up");
        rig.send(peer, &query("commit"));
        rig.send(peer, &query("select 1"));
        rig.relay.sweep();
        rig.run();
        assert_eq!(sum(&rig), 4 * (n + 1));
    }
}

#[test]
fn a_database_that_is_gone_leaves_nothing() {
    let clock = Paused::new();
    let base = config("default_pool_size = 2");
    let mut rig = Rig::of(&base);
    let peer = rig.arrive(&[]);
    rig.send(peer, &query("select 1"));
    rig.hold_opens = true;
    rig.send(peer, &query("begin"));
    let waits = rig.arrive_only(&[]);
    rig.tell(waits, &query("select 2"));
    let held = rig.opens.len();
    reload(&mut rig, &base.replace("databases.db", "databases.another"));
    rig.relay.sweep();
    rig.run();
    assert_eq!(kept(&rig)[..4], [1, 1, 1, 1]);
    rig.heard(peer);
    assert_eq!(letters(&rig.send(peer, &query("commit"))), "CZI");
    assert_eq!(letters(&rig.send(peer, &query("select 1"))), "E(3D000)");
    for pool in std::mem::take(&mut rig.opens) {
        rig.open(pool);
    }
    rig.run();
    assert!(held <= 1);
    rig.leave(waits);
    clock.advance(Duration::from_secs(6));
    rig.relay.sweep();
    rig.run();
    rig.relay.sweep();
    assert_eq!(kept(&rig)[..4], [0, 0, 0, 0]);
    assert_eq!((rig.relay.server_count(), rig.relay.client_count()), (0, 0));
}
