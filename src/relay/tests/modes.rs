//! Session, transaction and statement mode.
//! Must never let a client of one mode feel the rules of another.

use super::pooling::with_clients;
use super::rig::{Rig, config, letters};
use super::speech::*;
use crate::relay::Whom;

#[test]
fn in_session_mode_a_server_stays_until_its_client_goes() {
    let mut rig = with_clients("default_pool_size = 1\npool_mode = \"session\"", 1);
    let waits = rig.arrive(&[]);
    let leaves = rig.arrive(&[]);
    assert_eq!(letters(&rig.send(0, &query("select 1"))), "TDCZI");
    rig.send(waits, &query("select 2"));
    assert_eq!(rig.heard(waits), b"", "it came in without a server");
    rig.leave(leaves);
    assert!(rig.is_gone(leaves));
    rig.send(0, &[parse("a", "select 3"), sync()].concat());
    rig.leave(0);
    assert_eq!(letters(&rig.heard(waits)), "SKZITDCZI");
    assert_eq!(rig.ran(), ["select 1", "DISCARD ALL", "select 2"]);
    rig.send(waits, &terminate());
    rig.assert_at_rest();
}

#[test]
fn in_session_mode_a_client_is_told_the_process_of_its_server() {
    let mut rig = Rig::new("default_pool_size = 2\npool_mode = \"session\"");
    let peers = [rig.arrive(&[("a.b", "1")]), rig.arrive(&[("a.b", "1")])];
    for (peer, pid) in peers.into_iter().zip([100u32, 101]) {
        let heard = rig.heard(peer);
        let at = heard.iter().position(|byte| *byte == b'K').unwrap();
        assert_eq!(heard[at + 5..at + 9], pid.to_be_bytes());
        let id = rig.peers[peer].id.unwrap();
        let key = &heard[at + 9..at + 13];
        assert_eq!(rig.relay.find(Whom::Process(pid), key), Some(id));
        assert_eq!(rig.relay.find(Whom::Process(201 - pid), key), None, "by the secret of another");
        assert_eq!(rig.relay.find(Whom::Process(pid), b"nope"), None);
    }
    // Both were tried before their clients came in.
    assert_eq!(rig.ran().iter().filter(|sql| sql.contains("set_config")).count(), 2);
}

#[test]
fn by_pgbouncers_rules_a_session_gets_its_server_with_its_first_request() {
    let lines = "default_pool_size = 1\npool_mode = \"session\"\nsession_state = \"pgbouncer\"";
    let mut rig = with_clients(lines, 2);
    assert_eq!(letters(&rig.send(0, &query("select 1"))), "TDCZI");
    rig.send(1, &query("select 2"));
    assert_eq!(rig.heard(1), b"", "a session shared its server");
    rig.leave(0);
    assert_eq!(letters(&rig.heard(1)), "TDCZI");
}

#[test]
fn the_reset_query_is_the_operators() {
    for (reset, expected) in
        [("", vec!["select 1", "select 2"]), ("RESET ALL", vec!["select 1", "RESET ALL", "select 2"])]
    {
        let lines = format!("default_pool_size = 1\npool_mode = \"session\"\nserver_reset_query = \"{reset}\"");
        let mut rig = with_clients(&lines, 1);
        rig.arrive(&[]);
        rig.send(0, &query("select 1"));
        rig.send(0, &terminate());
        rig.send(1, &query("select 2"));
        assert_eq!(rig.ran(), expected);
        rig.send(1, &terminate());
        rig.assert_at_rest();
    }
}

#[test]
fn statement_mode_refuses_open_transactions() {
    let mut rig = with_clients("default_pool_size = 1\npool_mode = \"statement\"", 2);
    assert_eq!(letters(&rig.send(0, &query("select 1"))), "TDCZI");
    assert_eq!(letters(&rig.send(0, &query("begin"))), "CZTE(0A000)");
    assert!(rig.is_gone(0));
    assert_eq!(letters(&rig.send(1, &query("select 2"))), "TDCZI");
    assert_eq!(rig.ran(), ["select 1", "begin", "ROLLBACK", "select 2"]);
    rig.assert_at_rest();
}

#[test]
fn the_user_decides_before_the_database_before_all() {
    let text = config("pool_mode = \"session\"").replace("[users.app]\n", "[users.app]\npool_mode = \"transaction\"\n");
    let mut rig = Rig::of(&text);
    rig.arrive(&[]);
    rig.send(0, &query("select 1"));
    rig.assert_at_rest();
}
