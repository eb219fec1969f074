//! Who gets which server when, and what a slow reader costs.
//! Must never assume an order of connections that the relay does not promise.

use super::model::{self, Backend};
use super::rig::{Rig, config, letters};
use super::speech::*;
use crate::relay::BACKLOG_BYTES;
use crate::relay::catalog::Trust;
use crate::wire::build;
use crate::wire::tag::server;

const ONE: &str = "default_pool_size = 1";

/// A rig with this many clients logged in and nothing heard.
pub fn with_clients(pool: &str, clients: usize) -> Rig {
    let mut rig = Rig::new(pool);
    for _ in 0..clients {
        let peer = rig.arrive(&[]);
        assert_eq!(letters(&rig.heard(peer)), "SKZI");
    }
    rig
}

#[test]
fn one_server_serves_everybody_in_turn() {
    let mut rig = with_clients(ONE, 3);
    for n in 0..9 {
        assert_eq!(letters(&rig.send(n % 3, &query("select 1"))), "TDCZI");
    }
    assert_eq!(rig.hosts.len(), 1);
    rig.assert_at_rest();
}

#[test]
fn waiters_are_served_in_the_order_of_arrival() {
    let mut rig = with_clients(ONE, 5);
    rig.send(0, &query("begin"));
    for peer in [3, 1, 4, 2] {
        rig.send(peer, &query(&format!("select {peer}")));
    }
    assert_eq!(rig.relay.pools[0].slice.waiting(), 4);
    rig.send(0, &query("commit"));
    assert_eq!(rig.ran(), ["begin", "commit", "select 3", "select 1", "select 4", "select 2"]);
    rig.assert_at_rest();
}

#[test]
fn a_waiter_that_hangs_up_is_passed_over() {
    let mut rig = with_clients(ONE, 4);
    rig.send(0, &query("begin"));
    rig.send(1, &query("select 1"));
    rig.send(2, &query("select 2"));
    rig.leave(1);
    assert!(rig.is_gone(1));
    rig.send(3, &[query("select 3"), terminate()].concat());
    rig.send(0, &query("commit"));
    assert_eq!(letters(&rig.heard(2)), "TDCZI");
    assert!(!rig.ran().contains(&"select 1"), "the query of a client that had left ran");
}

#[test]
fn many_clients_that_wait_for_the_first_server_all_come_in() {
    let mut rig = Rig::new(ONE);
    rig.hold_opens = true;
    let peers: Vec<usize> = (0..5000).map(|_| rig.arrive_only(&[])).collect();
    rig.run();
    assert_eq!(rig.opens.len(), 1);
    rig.open(rig.opens[0]);
    rig.run();
    for &peer in &peers {
        assert_eq!(letters(&rig.heard(peer)), "SKZI");
    }
    rig.assert_at_rest();
}

#[test]
fn no_more_servers_than_the_pool_may_have() {
    let mut rig = with_clients("default_pool_size = 3", 8);
    for peer in 0..8 {
        rig.push(peer, &query("begin"));
    }
    rig.run();
    assert_eq!((rig.hosts.len(), rig.relay.pools[0].slice.waiting()), (3, 5));
    for peer in 0..8 {
        rig.send(peer, &query("commit"));
    }
    for peer in 0..8 {
        rig.send(peer, &query("commit"));
    }
    rig.assert_at_rest();
}

#[test]
fn a_slow_reader_stops_its_server_and_nobody_else() {
    let mut rig = with_clients("default_pool_size = 2", 2);
    rig.room(0, 0);
    let rows = 5000;
    let sql = format!("select {rows} rows wide");
    rig.send(0, &query(&sql));
    let held = rig.relay.clients.get(rig.peers[0].id.unwrap()).unwrap().conn.backlog();
    // What is read at once may come on top of the bound.
    assert!(held > 0 && held <= BACKLOG_BYTES + crate::relay::READ_BYTES, "{held} bytes held for a slow reader");
    let unread: usize = rig.hosts.iter().map(|host| host.mem.ends().input.len()).sum();
    assert!(unread > 4_000_000, "the server was read on: {unread} bytes left");
    assert_eq!(letters(&rig.send(1, &query("select 1"))), "TDCZI");
    let want = Backend::default().feed(&query(&sql));
    let mut heard = Vec::new();
    while heard.len() < want.len() {
        rig.room(0, 70_000);
        rig.run();
        let some = rig.heard(0);
        assert!(!some.is_empty(), "stalled after {} of {} bytes", heard.len(), want.len());
        heard.extend(some);
    }
    assert_eq!(heard, want);
    rig.assert_at_rest();
}

#[test]
fn a_slow_server_stops_its_client() {
    let mut rig = with_clients(ONE, 1);
    rig.hosts[0].mem.ends().write_room = Some(0);
    rig.send(0, &query("copy t from stdin"));
    rig.hosts[0].mem.ends().write_room = Some(1000);
    rig.hosts[0].wake();
    rig.run();
    assert_eq!(letters(&rig.heard(0)), "G");
    let data = plain(b'd', &[b'x'; 50_000]);
    for _ in 0..100 {
        rig.push(0, &data);
    }
    rig.push(0, &plain(b'c', b""));
    rig.run();
    let server = rig.relay.servers.get(rig.hosts[0].id).unwrap();
    let held = server.conn.backlog();
    assert!(held > 0 && held <= BACKLOG_BYTES + crate::relay::READ_BYTES, "{held} bytes held for a slow server");
    for _ in 0..400 {
        rig.hosts[0].mem.ends().write_room = Some(50_000);
        rig.hosts[0].wake();
        rig.run();
    }
    assert_eq!(letters(&rig.heard(0)), "CZI");
    rig.assert_at_rest();
}

#[test]
fn a_server_that_dies_at_rest_is_never_handed_out() {
    let mut rig = with_clients(ONE, 1);
    rig.die(0);
    assert!(rig.is_closed(0));
    assert_eq!(letters(&rig.send(0, &query("select 1"))), "TDCZI");
    assert_eq!(rig.hosts.len(), 2);
    rig.assert_at_rest();
}

#[test]
fn a_server_that_says_goodbye_at_rest_is_never_handed_out() {
    let mut rig = with_clients(ONE, 1);
    let mut bye = Vec::new();
    model::error(&mut bye, "FATAL", "57P01");
    for n in [3, bye.len()] {
        let host = rig.hosts.len() - 1;
        rig.say(host, &bye[..n]);
        assert!(rig.is_closed(host));
        assert_eq!(letters(&rig.send(0, &query("select 1"))), "TDCZI");
    }
}

#[test]
fn a_server_that_dies_in_use_takes_only_its_client_along() {
    let mut rig = with_clients("default_pool_size = 2", 2);
    rig.send(1, &query("begin"));
    let held = rig.hosts.len() - 1;
    rig.send(0, &query("begin"));
    let other = (0..rig.hosts.len()).find(|&at| at != held && rig.hosts[at].backend.status == b'T').unwrap();
    rig.heard(0);
    rig.heard(1);
    rig.hosts[other].answering = false;
    rig.send(0, &query("select 1"));
    rig.die(other);
    assert_eq!(letters(&rig.heard(0)), "E(08006)");
    assert!(rig.is_gone(0));
    assert_eq!(letters(&rig.send(1, &query("commit"))), "CZI");
    rig.assert_at_rest();
}

#[test]
fn a_client_hears_one_farewell_not_two() {
    let mut rig = with_clients(ONE, 1);
    rig.hosts[0].answering = false;
    rig.send(0, &query("select 1"));
    let mut bye = Vec::new();
    model::error(&mut bye, "FATAL", "57P01");
    rig.say(0, &bye);
    rig.die(0);
    assert_eq!(letters(&rig.heard(0)), "E(57P01)");
    assert!(rig.is_gone(0));
}

#[test]
fn nothing_is_said_into_the_middle_of_a_row() {
    let mut rig = with_clients(ONE, 1);
    rig.hosts[0].answering = false;
    rig.send(0, &query("select 1"));
    let answer = Backend::default().feed(&query("select 1 rows wide"));
    rig.say(0, &answer[..200]);
    rig.die(0);
    assert_eq!(rig.heard(0), answer[..200], "an error was written into the middle of a message");
    assert!(rig.is_gone(0));
}

#[test]
fn a_server_that_announces_its_end_behind_a_reply_is_not_handed_on() {
    let mut rig = with_clients(ONE, 2);
    rig.hosts[0].answering = false;
    rig.send(0, &query("select 1"));
    rig.send(1, &query("select 2"));
    let mut said = Backend::default().feed(&query("select 1"));
    model::error(&mut said, "FATAL", "57P01");
    rig.say(0, &said);
    rig.die(0);
    assert_eq!(letters(&rig.heard(1)), "TDCZI", "the waiter was given a dying server");
}

/// PostgreSQL warns when another of its processes has crashed, and sends what it had kept of an answer with that.
#[test]
fn a_warning_of_the_end_behind_a_reply_is_the_affair_of_who_stays() {
    for (sql, heard) in [("select 1", "TDCZI"), ("begin", "CZTNE(08006)")] {
        let mut rig = with_clients(ONE, 1);
        rig.hosts[0].answering = false;
        rig.send(0, &query(sql));
        let mut said = Backend::default().feed(&query(sql));
        model::says(&mut said, server::NOTICE, "WARNING", "57P02");
        rig.say(0, &said);
        rig.die(0);
        assert_eq!((letters(&rig.heard(0)), rig.is_gone(0)), (heard.into(), sql == "begin"), "{sql}");
    }
}

#[test]
fn what_follows_a_reply_in_pieces_does_not_keep_the_server() {
    let mut rig = with_clients(ONE, 2);
    rig.hosts[0].answering = false;
    rig.send(0, &query("select 1"));
    rig.send(1, &query("select 2"));
    let mut said = Backend::default().feed(&query("select 1"));
    let whole = said.len();
    build::parameter_status(&mut said, b"TimeZone", b"UTC");
    rig.hosts[0].answering = true;
    rig.hosts[0].mem.ends().output.clear();
    rig.say(0, &said[..whole + 3]);
    rig.say(0, &said[whole + 3..]);
    assert_eq!(letters(&rig.heard(1)), "TDCZI", "the server stayed with a client that is done");
    rig.assert_at_rest();
}

/// The end comes with the answer to what pgweir asks behind a statement, and the client's next request is there already.
#[test]
fn an_end_that_no_client_was_told_is_told_at_the_next_request() {
    let mut rig = with_clients(ONE, 1);
    rig.hosts[0].answering = false;
    rig.send(0, &query("select own()"));
    let step = |rig: &mut Rig| {
        let sent = std::mem::take(&mut rig.hosts[0].mem.ends().output);
        rig.hosts[0].backend.feed(&sent)
    };
    let answer = step(&mut rig);
    rig.say(0, &answer);
    assert_eq!(letters(&rig.heard(0)), "TDCZI");
    rig.send(0, &query("select 2"));
    let mut answer = step(&mut rig);
    assert!(!answer.is_empty(), "nothing was asked");
    model::error(&mut answer, "FATAL", "57P01");
    rig.say(0, &answer);
    rig.die(0);
    let heard = letters(&rig.heard(0));
    assert!(heard == "TDCZI" || heard == "E(08006)", "{heard:?}");
}

#[test]
fn nonsense_from_a_server_ends_both_connections() {
    let mut rig = with_clients(ONE, 2);
    rig.hosts[0].answering = false;
    rig.send(0, &query("select 1"));
    rig.say(0, b"K\0\0\0\x04");
    assert_eq!(letters(&rig.heard(0)), "E(08006)");
    assert!(rig.is_gone(0) && rig.is_closed(0));
    assert_eq!(letters(&rig.send(1, &query("select 1"))), "TDCZI");
}

#[test]
fn a_server_that_announces_its_end_behind_a_clients_settings_does_not_keep_it_out() {
    let mut rig = with_clients(ONE, 1);
    rig.hosts[0].answering = false;
    let peer = rig.arrive(&[("application_name", "x")]);
    let asked = std::mem::take(&mut rig.hosts[0].mem.ends().output);
    let mut answer = rig.hosts[0].backend.feed(&asked);
    model::error(&mut answer, "FATAL", "57P01");
    rig.say(0, &answer);
    assert_eq!(letters(&rig.heard(peer)), "SSKZI");
    assert!(rig.is_closed(0));
    assert_eq!(letters(&rig.send(peer, &query("select 1"))), "TDCZI");
}

#[test]
fn while_the_code_of_one_database_is_asked_others_may_be_due() {
    let mut rig =
        Rig::of(&config("default_pool_size = 1").replace("catalog_refresh = 0\n", "catalog_refresh = \"60s\"\n"));
    for _ in 0..2 {
        let peer = rig.arrive(&[]);
        rig.heard(peer);
    }
    rig.send(0, &query("begin"));
    rig.tell(1, &query("select 1"));
    let now_us = crate::base::clock::now_us();
    rig.relay.catalogs.change(0, |catalog| {
        (catalog.trust, catalog.code.fingerprint) = (Trust::Full, Box::from(&b"known"[..]));
        (catalog.since_us, catalog.due_us) = (Some(now_us), u64::MAX);
    });
    rig.relay.catalogs.due_us = 0;
    assert_eq!(letters(&rig.send(0, &query("commit"))), "CZI");
    assert_eq!(letters(&rig.heard(1)), "TDCZI");
}
