//! Lanes when something goes wrong in them: cancels that come late, heads that stall, reads that are run again.
//! Must never need to be fast: the clock stands still.

use std::sync::Arc;
use std::time::Duration;

use super::rig::{Host, Rig, config, letters};
use super::speech::*;
use crate::base::clock::paused::Paused;
use crate::config::Config;
use crate::relay::catalog::Trust;
use crate::relay::lane::Lane;
use crate::relay::server::Use;
use crate::wire::build;
use crate::wire::error::{PgError, SqlState};

/// Two clients ride on the first server, which does not answer; a second server would.
fn two_ride(text: &str) -> Rig {
    let mut rig = Rig::of(text);
    for _ in 0..2 {
        let peer = rig.arrive(&[]);
        rig.heard(peer);
    }
    rig.ride();
    assert_eq!(letters(&rig.send(0, &query("select 1"))), "TDCZI");
    rig.hosts[0].answering = false;
    for peer in [0, 1] {
        rig.tell(peer, &query("select 2"));
    }
    let lane = rig.relay.servers.get(rig.hosts[0].id).unwrap().lane.as_deref().unwrap();
    assert_eq!(lane.riders.len(), 2);
    rig
}

/// An answer without rows.
fn answer() -> Vec<u8> {
    [plain(b'C', b"SELECT 0\0"), plain(b'Z', b"I")].concat()
}

fn look(rig: &mut Rig) {
    rig.relay.look_at_lanes();
    rig.run();
}

#[test]
fn who_is_hit_by_anothers_cancel_runs_again_however_late() {
    let clock = Paused::new();
    let mut rig = two_ride(&config("default_pool_size = 2"));
    rig.relay.cancel(rig.peers[0].id.unwrap());
    rig.run();
    assert_eq!(rig.cancels, [rig.hosts[0].id]);
    rig.say(0, &answer());
    assert_eq!(letters(&rig.heard(0)), "CZI");
    clock.advance(Duration::from_millis(200));
    let mut hit = plain(b'E', b"SERROR\0C57014\0Mcanceling statement due to user request\0\0");
    build::ready(&mut hit, b'I');
    rig.say(0, &hit);
    assert_eq!(letters(&rig.heard(1)), "TDCZI");
}

#[test]
fn what_nobody_waits_for_is_cancelled_one_after_the_other() {
    let clock = Paused::new();
    let mut rig = two_ride(&config("default_pool_size = 3"));
    for _ in 0..2 {
        clock.advance(Duration::from_millis(100));
        look(&mut rig);
    }
    // It was served elsewhere.
    assert_eq!(letters(&rig.heard(1)), "TDCZI");
    look(&mut rig);
    assert!(rig.cancels.is_empty(), "the head's client waits for it");
    rig.say(0, &answer());
    look(&mut rig);
    assert!(rig.cancels.is_empty(), "it has only begun");
    clock.advance(Duration::from_millis(100));
    look(&mut rig);
    look(&mut rig);
    assert_eq!(rig.cancels, [rig.hosts[0].id]);
}

#[test]
fn a_read_that_is_run_again_counts_once_for_its_rate() {
    let _clock = Paused::new();
    let rule = "[[databases.db.rules]]\nuser = [\"app\"]\nrate = 1\n";
    let mut rig = Rig::of(&(config("default_pool_size = 2") + rule));
    let peer = rig.arrive(&[]);
    rig.heard(peer);
    rig.ride();
    assert_eq!(letters(&rig.send(peer, &query("select too much"))), "TE(53200)ZI");
    assert_eq!(rig.relay.registry.pools()[0].lanes.repeats.get(), 1);
}

#[test]
fn who_waited_because_of_a_stall_goes_before_who_comes_later() {
    let clock = Paused::new();
    let mut rig = Rig::of(&config("default_pool_size = 2"));
    for peer in (0..4).map(|_| rig.arrive(&[])).collect::<Vec<_>>() {
        rig.heard(peer);
    }
    for text in ["begin", "commit"] {
        [0, 1].iter().for_each(|&peer| drop(rig.send(peer, &query(text))));
    }
    rig.ride();
    assert_eq!(rig.hosts.len(), 2);
    rig.hosts.iter_mut().for_each(|host| host.answering = false);
    let riders = |rig: &Rig| -> Vec<Vec<_>> {
        let lane = |host: &Host| rig.relay.servers.get(host.id).and_then(|this| this.lane.as_deref());
        let clients = |lane: &Lane| lane.riders.iter().map(|rider| rider.client).collect();
        rig.hosts.iter().map(|host| lane(host).map_or_else(Vec::new, clients)).collect()
    };
    let ids: Vec<_> = rig.peers.iter().map(|peer| peer.id.unwrap()).collect();
    // One lane stalls.
    let (stalls, other) = (query("select 3"), query("select 3 where true"));
    rig.tell(0, &stalls);
    let at = riders(&rig).iter().position(|riders| *riders == [ids[0]]).unwrap();
    for _ in 0..3 {
        clock.advance(Duration::from_millis(100));
        look(&mut rig);
    }
    // Another does not.
    rig.tell(1, &other);
    assert_eq!(riders(&rig)[1 - at], [ids[1]]);
    rig.tell(2, &stalls);
    assert_eq!(riders(&rig)[1 - at], [ids[1]], "its shape has stalled a lane");
    let out_us = rig.relay.lanes.out_until_us - crate::base::clock::now_us();
    clock.advance(Duration::from_micros(out_us + 1));
    rig.tell(3, &other);
    assert_eq!(riders(&rig)[1 - at], ids[1..]);
}

#[test]
fn lanes_are_looked_at_seldom_until_somebody_stands_behind_another() {
    let mut rig = Rig::of(&config("default_pool_size = 2"));
    for _ in 0..2 {
        let peer = rig.arrive(&[]);
        rig.heard(peer);
    }
    rig.ride();
    assert_eq!(rig.relay.look_at_lanes(), None);
    assert_eq!(letters(&rig.send(0, &query("select 1"))), "TDCZI");
    rig.hosts[0].answering = false;
    rig.relay.lanes.rests = true;
    rig.tell(0, &query("select 2"));
    assert_eq!((rig.relay.look_at_lanes(), rig.relay.lanes.rests), (Some(false), true), "it is alone");
    rig.tell(1, &query("select 2"));
    assert_eq!(
        (rig.relay.look_at_lanes(), rig.relay.lanes.rests),
        (Some(true), false),
        "the second waits for the first"
    );
}

#[test]
fn who_waits_for_its_turn_under_a_rate_does_not_ride_before() {
    let clock = Paused::new();
    let rule = "[[databases.db.rules]]\nuser = [\"app\"]\nrate = 2\n";
    let mut rig = Rig::of(&(config("default_pool_size = 2") + rule));
    for _ in 0..2 {
        let peer = rig.arrive(&[]);
        rig.heard(peer);
    }
    rig.ride();
    rig.send(0, &query("begin"));
    assert_eq!(letters(&rig.send(1, &query("select 1"))), "TDCZI");
    assert_eq!(letters(&rig.send(1, &query("select 2"))), "", "two in a second");
    // As it is when it once found no lane, and was served otherwise.
    let pool = rig.hosts[0].pool;
    rig.relay.hopes(rig.peers[1].id.unwrap(), pool, 0);
    assert_eq!(letters(&rig.send(0, &query("commit"))), "CZI");
    assert_eq!(letters(&rig.heard(1)), "");
    let idle: Vec<_> = rig.relay.pools[pool].slice.idle().copied().collect();
    assert!(idle.iter().all(|id| rig.relay.servers.get(*id).unwrap().use_ == Use::Idle), "{idle:?}");
    clock.advance(Duration::from_secs(1));
    rig.relay.sweep();
    rig.run();
    assert_eq!(letters(&rig.heard(1)), "TDCZI");
}

#[test]
fn a_session_that_ends_in_the_middle_of_a_row_ends_without_a_word() {
    let _clock = Paused::new();
    let mut rig = two_ride(&config("default_pool_size = 2"));
    let row = plain(b'D', &vec![b'x'; 300_000]);
    let half = row.get(..200_000).unwrap();
    rig.say(0, half);
    assert_eq!(rig.heard(0).len(), half.len());
    let error = PgError::fatal(SqlState::QUERY_CANCELED, "too long");
    rig.relay.fatal(rig.peers[0].id.unwrap(), &error);
    rig.run();
    assert_eq!(rig.heard(0), b"");
    rig.relay.fatal(rig.peers[1].id.unwrap(), &error);
    rig.run();
    assert_eq!(letters(&rig.heard(1)), "E(57014)");
}

#[test]
fn who_stood_in_a_lane_when_code_was_changed_is_looked_at_again() {
    let _clock = Paused::new();
    let mut rig = Rig::of(&config("default_pool_size = 1\nlane_delay = \"1us\""));
    for _ in 0..3 {
        let peer = rig.arrive(&[]);
        rig.heard(peer);
    }
    rig.ride();
    assert_eq!(letters(&rig.send(0, &query("select 1"))), "TDCZI");
    rig.hosts[0].answering = false;
    (0..3).for_each(|peer| rig.tell(peer, &query("select 2")));
    let lane = |rig: &Rig| {
        let lane = rig.relay.servers.get(rig.hosts[0].id).unwrap().lane.as_deref();
        lane.map_or((0, 0), |lane| (lane.riders.len(), lane.queue.len()))
    };
    assert_eq!(lane(&rig), (2, 1));
    rig.relay.catalogs.change(0, |catalog| catalog.trust = Trust::Stale);
    rig.say(0, &answer());
    assert_eq!(lane(&rig), (1, 0), "it waits for a server of its own");
    rig.say(0, &answer());
    assert_eq!(lane(&rig), (0, 0));
    rig.say(0, &answer());
    assert_eq!((0..3).map(|peer| letters(&rig.heard(peer))).collect::<Vec<_>>(), ["CZI"; 3]);
}

#[test]
fn limits_in_time_have_their_own_words() {
    let clock = Paused::new();
    let mut rig = two_ride(&config("default_pool_size = 2\nquery_timeout = \"1s\"\ntransaction_timeout = \"3s\""));
    clock.advance(Duration::from_secs(1));
    rig.relay.sweep();
    rig.run();
    assert_eq!(rig.cancels, [rig.hosts[0].id]);
    let mut error = plain(b'E', b"SERROR\0C57014\0Mcanceling statement due to user request\0\0");
    build::ready(&mut error, b'I');
    rig.say(0, &error);
    let told = String::from_utf8(rig.heard(0)).unwrap();
    assert!(told.contains("Mcanceling statement due to statement timeout\0"), "{told:?}");
    assert!(told.contains("HThe limit is pgweir's query_timeout, 1000 ms.\0"), "{told:?}");
    // Who is hit by that runs again, in the words of nobody.
    let hit = error;
    rig.say(0, &hit);
    assert_eq!(letters(&rig.heard(1)), "TDCZI");
}

#[test]
fn a_transaction_of_one_read_has_the_limit_of_transactions() {
    let clock = Paused::new();
    let mut rig = two_ride(&config("default_pool_size = 2\ntransaction_timeout = \"1s\""));
    clock.advance(Duration::from_secs(1));
    rig.relay.sweep();
    rig.run();
    assert_eq!(rig.cancels, [rig.hosts[0].id]);
    assert_eq!(letters(&rig.heard(0)), "E(25P04)");
    rig.say(0, &answer());
    rig.say(0, &answer());
    assert_eq!(letters(&rig.heard(1)), "CZI");
    rig.hosts[0].answering = true;
    assert_eq!(letters(&rig.send(1, &query("select 1"))), "TDCZI");
}

#[test]
fn settings_that_may_differ_are_taken_from_a_reload() {
    let _clock = Paused::new();
    let strict = config("default_pool_size = 1\nlane_settings = []");
    let mut rig = Rig::of(&strict);
    for name in ["one", "two"] {
        let peer = rig.arrive(&[("application_name", name)]);
        rig.heard(peer);
    }
    let free = strict.replace("lane_settings = []", "");
    for (text, together) in [(&strict, 1), (&free, 2), (&strict, 1)] {
        rig.relay
            .reconfigure(Arc::new(Config::parse(text, "test.toml").unwrap_or_else(|problems| panic!("{problems}"))));
        rig.run();
        rig.ride();
        assert_eq!(letters(&rig.send(0, &query("select 1"))), "TDCZI");
        rig.hosts[0].answering = false;
        (0..2).for_each(|peer| rig.tell(peer, &query("select 2")));
        let lane = rig.relay.servers.get(rig.hosts[0].id).unwrap().lane.as_deref().unwrap();
        assert_eq!(lane.riders.len(), together);
        rig.hosts[0].answering = true;
        rig.run();
        assert_eq!([0, 1].map(|peer| letters(&rig.heard(peer))), ["TDCZI"; 2]);
    }
}
