//! Clients that leave at every point: what becomes of their server.
//! Must never accept that a trace of one client meets another.

use super::pooling::with_clients;
use super::rig::{Rig, letters};
use super::speech::*;
use crate::relay::Whom;
use crate::wire::error::{PgError, SqlState};

const ONE: &str = "default_pool_size = 1";

/// The next client is served, and by which server.
fn next_is_served(rig: &mut Rig, peer: usize) -> usize {
    rig.heard(peer);
    assert_eq!(letters(&rig.send(peer, &query("select 99"))), "TDCZI");
    rig.assert_at_rest();
    rig.hosts.iter().position(|host| host.backend.ran.iter().any(|sql| sql == "select 99")).unwrap()
}

#[test]
fn while_idle_or_politely() {
    let mut rig = with_clients(ONE, 3);
    rig.send(0, &query("select 1"));
    rig.leave(0);
    rig.send(1, &terminate());
    assert!(rig.is_gone(0) && rig.is_gone(1));
    assert_eq!(next_is_served(&mut rig, 2), 0);
    assert!(!rig.hosts[0].backend.ended);
}

#[test]
fn while_its_query_runs() {
    let mut rig = with_clients(ONE, 2);
    rig.hosts[0].answering = false;
    rig.send(0, &query("select 1"));
    rig.send(1, &query("select 2"));
    rig.leave(0);
    assert_eq!(rig.cancels, [rig.hosts[0].id], "a client that left has its query go on");
    rig.hosts[0].answering = true;
    rig.run();
    assert_eq!(rig.heard(1), b"", "handed on although the cancel request may still hit");
    rig.finish_cancels();
    assert_eq!(letters(&rig.heard(1)), "TDCZI", "the answer to another client's query, or none");
    assert_eq!(next_is_served(&mut rig, 1), 0);
}

#[test]
fn while_its_query_runs_in_a_transaction() {
    let mut rig = with_clients(ONE, 2);
    rig.send(0, &query("begin"));
    rig.hosts[0].answering = false;
    rig.send(0, &query("select 1"));
    rig.send(1, &query("select 2"));
    rig.leave(0);
    let mut canceled = Vec::new();
    super::model::error(&mut canceled, "ERROR", "57014");
    crate::wire::build::ready(&mut canceled, b'E');
    rig.hosts[0].mem.ends().output.clear();
    rig.hosts[0].backend.status = b'E';
    rig.say(0, &canceled);
    rig.hosts[0].answering = true;
    rig.finish_cancels();
    assert_eq!(rig.ran(), ["begin", "ROLLBACK", "select 2"]);
    assert_eq!(letters(&rig.heard(1)), "TDCZI");
    assert_eq!(next_is_served(&mut rig, 1), 0);
}

#[test]
fn while_its_query_runs_having_said_goodbye() {
    let mut rig = with_clients(ONE, 2);
    rig.hosts[0].answering = false;
    rig.send(0, &[query("insert into t"), terminate()].concat());
    assert!(rig.cancels.is_empty(), "what was asked for before a goodbye was cancelled");
    rig.hosts[0].answering = true;
    rig.run();
    assert_eq!(rig.ran(), ["insert into t"]);
    assert_eq!(next_is_served(&mut rig, 1), 0);
}

#[test]
fn a_query_that_cannot_be_cancelled_costs_its_server() {
    let mut rig = with_clients(ONE, 2);
    rig.hosts[0].answering = false;
    rig.send(0, &query("select 1"));
    rig.leave(0);
    rig.finish_cancels();
    for id in [rig.hosts[0].id] {
        if let Some(server) = rig.relay.servers.get_mut(id) {
            server.use_ = crate::relay::server::Use::Cleaning { until_us: 0 };
        }
    }
    rig.relay.sweep();
    assert!(rig.is_closed(0));
    assert_eq!(next_is_served(&mut rig, 1), 1);
}

#[test]
fn inside_a_transaction() {
    for last in ["select 1", "select 1/0"] {
        let mut rig = with_clients(ONE, 2);
        rig.send(0, &query("begin"));
        rig.send(0, &query(last));
        rig.send(1, &query("select 2"));
        rig.leave(0);
        assert_eq!(rig.ran()[2..], ["ROLLBACK", "select 2"]);
        assert_eq!(letters(&rig.heard(1)), "TDCZI");
        assert_eq!(next_is_served(&mut rig, 1), 0);
        assert!(rig.cancels_gone.is_empty());
    }
}

#[test]
fn with_session_state() {
    let mut rig = with_clients(ONE, 2);
    rig.send(0, &[parse("a", "select 5"), sync()].concat());
    rig.send(0, &query("set app.tenant = 7"));
    rig.send(0, &query("listen news"));
    rig.send(1, &query("show app.tenant"));
    assert_eq!(rig.heard(1), b"", "another client was let into a session with state");
    rig.leave(0);
    assert_eq!(rig.ran(), ["set app.tenant = 7", "listen news", "DISCARD ALL", "show app.tenant"]);
    assert!(!String::from_utf8_lossy(&rig.heard(1)).contains('7'), "state of another client leaked");
    assert_eq!(next_is_served(&mut rig, 1), 0);
}

#[test]
fn with_session_state_that_cannot_be_cleared() {
    let mut rig = with_clients(ONE, 2);
    rig.send(0, &query("listen news"));
    rig.send(1, &query("show app.tenant"));
    rig.hosts[0].answering = false;
    rig.leave(0);
    let mut refusal = Vec::new();
    super::model::error(&mut refusal, "ERROR", "57014");
    crate::wire::build::ready(&mut refusal, b'I');
    rig.say(0, &refusal);
    assert!(rig.is_closed(0), "a session that could not be cleared was used again");
    assert_eq!(letters(&rig.heard(1)), "TDCZI");
    assert_eq!(next_is_served(&mut rig, 1), 1);
}

#[test]
fn with_half_a_message_sent() {
    // Longer than what is looked at as a whole, so that it is passed on as it comes.
    let long = query(&format!("select {}", "1".repeat(crate::relay::LOOK_BYTES)));
    for missing in [1, 2, 5, 100_000] {
        let mut rig = with_clients(ONE, 2);
        rig.send(0, &long[..long.len() - missing]);
        assert!(rig.hosts[0].backend.mid_message(), "nothing was passed on");
        rig.leave(0);
        assert!(rig.is_closed(0), "a server with half a message was kept");
        rig.run();
        assert!(rig.ran().is_empty(), "the half message was completed");
        assert_eq!(next_is_served(&mut rig, 1), 1);
    }
    // Short: nothing of it has reached a server.
    let mut rig = with_clients(ONE, 2);
    rig.send(0, &query("select 1")[..8]);
    rig.leave(0);
    assert_eq!(next_is_served(&mut rig, 1), 0);
}

#[test]
fn with_an_open_batch() {
    let mut rig = with_clients(ONE, 2);
    rig.send(0, &[parse("", "select 1"), flush()].concat());
    rig.leave(0);
    assert_eq!(next_is_served(&mut rig, 1), 0);
}

#[test]
fn during_copy() {
    let mut rig = with_clients(ONE, 2);
    rig.send(0, &query("copy t from stdin"));
    rig.send(0, &plain(b'd', b"row"));
    rig.leave(0);
    assert!(rig.is_closed(0));
    assert_eq!(next_is_served(&mut rig, 1), 1);
}

#[test]
fn copy_data_behind_an_error_does_not_hold_the_server() {
    let mut rig = with_clients(ONE, 2);
    rig.tell(0, &query("copy t from stdin"));
    rig.tell(0, &plain(b'd', b"bad"));
    let late = plain(b'd', &[b'x'; 100]);
    assert_eq!(letters(&rig.heard(0)), "GE(22P04)ZI");
    rig.send(0, &late[..50]);
    rig.send(0, &late[50..]);
    rig.send(0, &plain(b'c', b""));
    assert_eq!(next_is_served(&mut rig, 1), 0);
    assert_eq!(letters(&rig.send(0, &query("select 1"))), "TDCZI");
}

#[test]
fn the_tail_of_copy_data_behind_an_error_does_not_hold_the_server() {
    let mut rig = with_clients(ONE, 2);
    rig.tell(0, &query("copy t from stdin"));
    let late = plain(b'd', &[b'x'; 100]);
    rig.hosts[0].answering = false;
    rig.tell(0, &[plain(b'd', b"bad"), late[..50].to_vec()].concat());
    rig.hosts[0].answering = true;
    rig.run();
    assert_eq!(letters(&rig.heard(0)), "GE(22P04)ZI");
    rig.send(0, &late[50..]);
    assert_eq!(next_is_served(&mut rig, 1), 0);
}

#[test]
fn a_cancel_holds_the_server_back_until_it_is_over() {
    let mut rig = with_clients(ONE, 2);
    rig.hosts[0].answering = false;
    rig.send(0, &query("select 1"));
    let id = rig.peers[0].id.unwrap();
    let (number, key) = rig.relay.clients.get(id).map(|it| (it.number, it.key.bytes().to_vec())).unwrap();
    assert_eq!(rig.relay.find(Whom::Slot(number), b"nope"), None);
    assert_eq!(rig.relay.find(Whom::Slot(number), &key), Some(id));
    assert_eq!(rig.relay.find(Whom::Slot(number + 1), &key), None);
    assert!(rig.relay.cancel(id));
    rig.hosts[0].answering = true;
    rig.run();
    assert_eq!(letters(&rig.heard(0)), "TDCZI");
    rig.send(1, &query("select 2"));
    assert_eq!(rig.heard(1), b"", "a late cancel could hit another client's query");
    assert_eq!(rig.cancels.len(), 1);
    let server = rig.cancels[0];
    rig.relay.cancelled(server);
    rig.run();
    assert_eq!(letters(&rig.heard(1)), "TDCZI");
    // Idle: nothing to cancel.
    assert!(!rig.relay.cancel(id));
}

#[test]
fn a_cancel_hits_the_clients_query_and_not_the_settings_in_front() {
    let mut rig = Rig::new(ONE);
    let a = rig.arrive(&[("work_mem", "1")]);
    let b = rig.arrive(&[("work_mem", "2")]);
    rig.heard(a);
    rig.heard(b);
    rig.hosts[0].answering = false;
    rig.send(a, &query("select 1"));
    let id = rig.peers[a].id.unwrap();
    let server = rig.relay.clients.get(id).unwrap().server().unwrap();
    assert!(rig.relay.servers.get(server).unwrap().settling);
    assert!(!rig.relay.cancel(id), "it would hit the settings");
    rig.run();
    assert_eq!(rig.cancels.len(), 0);
    // The settings are there, and the query runs.
    rig.say(0, &[b"C\0\0\0\x0bSELECT\0".as_slice(), b"Z\0\0\0\x05I"].concat());
    rig.run();
    assert_eq!(rig.cancels, [server]);
    let mut refusal = Vec::new();
    PgError::error(SqlState::QUERY_CANCELED, "canceling statement due to user request").encode(&mut refusal);
    rig.say(0, &[refusal.as_slice(), b"Z\0\0\0\x05I"].concat());
    rig.run();
    assert_eq!(letters(&rig.heard(a)), "E(57014)ZI");
    assert!(!rig.is_gone(a));
}

#[test]
fn discard_all_does_not_let_go_of_what_came_behind_it() {
    let mut rig = with_clients(ONE, 2);
    rig.send(0, &[query("discard all"), query("listen news")].concat());
    rig.tell(1, &query("select 1"));
    assert_eq!(letters(&rig.heard(1)), "", "another client ran in a session with state of the first");
    rig.leave(0);
    assert_eq!(letters(&rig.heard(1)), "TDCZI");
    rig.assert_at_rest();
}

#[test]
fn a_lone_flush_keeps_no_server() {
    let mut rig = with_clients(ONE, 2);
    rig.send(0, b"H\0\0\0\x04");
    assert_eq!(letters(&rig.send(1, &query("select 1"))), "TDCZI");
    rig.assert_at_rest();
}

#[test]
fn a_client_in_the_queue_can_cancel_and_goes_on() {
    let mut rig = with_clients(ONE, 2);
    rig.send(0, &query("begin"));
    rig.tell(1, &query("select 1"));
    let id = rig.peers[1].id.unwrap();
    assert!(!rig.relay.cancel(id), "no server need know");
    rig.run();
    assert_eq!(letters(&rig.heard(1)), "E(57014)ZI");
    rig.send(0, &query("commit"));
    assert!(!rig.ran().contains(&"select 1"), "it ran although it was cancelled");
    assert_eq!(next_is_served(&mut rig, 1), 0);
}

#[test]
fn a_batch_that_never_ends_is_refused() {
    let mut rig = with_clients(ONE, 2);
    let pair = [parse("a", "select 1"), close(b'S', "a")].concat().repeat(2000);
    for _ in 0..100 {
        if rig.is_gone(0) {
            break;
        }
        rig.push(0, &pair);
        rig.run();
    }
    assert_eq!(letters(&rig.heard(0)).rsplit('E').next(), Some("(54000)"));
    rig.heard(1);
    rig.finish_cancels();
    assert_eq!(letters(&rig.send(1, &query("select 99"))), "TDCZI");
}

/// What nobody can see into may have left anything: the server is asked, and what it does not tell is cleared before
/// somebody else's first statement. Prepared statements stay.
#[test]
fn traces_of_what_cannot_be_seen_are_cleared() {
    for opaque in ["do $$x$$", "call f()", "select unheard_of(1)"] {
        let mut rig = with_clients(ONE, 2);
        rig.send(0, &[parse("a", "select 5"), sync()].concat());
        rig.heard(0);
        rig.send(0, &query(opaque));
        assert_eq!(rig.ran(), [opaque]);
        let used = [bind("", "a"), execute("", 0), sync()].concat();
        rig.heard(0);
        assert_eq!(letters(&rig.send(0, &used)), "2DCZI");
        assert_eq!(rig.hosts[0].backend.statement_count(), 1, "prepared statements were lost");
        rig.send(1, &query("select 2"));
        let cleared = ["RESET ROLE", "RESET SESSION AUTHORIZATION", "RESET ALL", "DISCARD SEQUENCES", "select 2"];
        assert_eq!(rig.ran()[2..], cleared);
        rig.heard(1);
        assert_eq!(next_is_served(&mut rig, 1), 0);
    }
    // A client that leaves inside such a transaction leaves no more.
    let mut rig = with_clients(ONE, 2);
    rig.send(0, &query("begin"));
    rig.send(0, &query("select unheard_of(1)"));
    rig.leave(0);
    assert!(rig.ran()[2..].contains(&"DISCARD ALL"), "{:?}", rig.ran());
    assert_eq!(next_is_served(&mut rig, 1), 0);
}

/// Behind an error nothing is owed for the messages that the server reads over, not even for half of one.
#[test]
fn half_a_message_is_not_made_whole_by_a_goodbye() {
    let mut rig = with_clients(ONE, 2);
    assert_eq!(letters(&rig.send(0, &[bind("", "nosuch"), flush()].concat())), "E(26000)");
    rig.hosts[0].answering = false;
    let half = &execute("", 0)[..5];
    rig.tell(0, half);
    rig.leave(0);
    assert!(rig.is_closed(0));
    assert_eq!(rig.hosts[0].mem.ends().output, half);
}
