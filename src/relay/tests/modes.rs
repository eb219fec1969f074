//! Session, transaction and statement mode.
//! Must never let a client of one mode feel the rules of another.

use super::pooling::with_clients;
use super::rig::{Rig, config, letters};
use super::speech::*;

#[test]
fn in_session_mode_a_server_stays_until_its_client_goes() {
    let mut rig = with_clients("default_pool_size = 1\npool_mode = \"session\"", 2);
    assert_eq!(letters(&rig.send(0, &query("select 1"))), "TDCZI");
    rig.send(1, &query("select 2"));
    assert_eq!(rig.heard(1), b"", "a session shared its server");
    rig.send(0, &[parse("a", "select 3"), sync()].concat());
    rig.leave(0);
    assert_eq!(letters(&rig.heard(1)), "TDCZI");
    assert_eq!(rig.ran(), ["select 1", "DISCARD ALL", "select 2"]);
    rig.send(1, &terminate());
    rig.assert_at_rest();
}

#[test]
fn the_reset_query_is_the_operators() {
    for (reset, expected) in
        [("", vec!["select 1", "select 2"]), ("RESET ALL", vec!["select 1", "RESET ALL", "select 2"])]
    {
        let lines = format!("default_pool_size = 1\npool_mode = \"session\"\nserver_reset_query = \"{reset}\"");
        let mut rig = with_clients(&lines, 2);
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
