//! Clients with settings of their own, on servers they share.
//! Must never accept a statement that ran under another client's settings.

use super::pooling::with_clients;
use super::rig::{Rig, letters};
use super::speech::*;

const ONE: &str = "default_pool_size = 1";

fn shows(rig: &mut Rig, peer: usize, name: &str) -> String {
    let heard = rig.send(peer, &query(&format!("show {name}")));
    assert_eq!(letters(&heard), "TDCZI");
    // Behind RowDescription's 27 bytes and DataRow's header, count and length.
    String::from_utf8_lossy(&heard[27 + 11..]).split('C').next().unwrap().to_owned()
}

#[test]
fn two_clients_alternate_on_one_server() {
    let mut rig = Rig::new(ONE);
    let a = rig.arrive(&[("application_name", "one"), ("work_mem", "1")]);
    let b = rig.arrive(&[("application_name", "two")]);
    let c = rig.arrive(&[]);
    assert!(String::from_utf8_lossy(&rig.heard(a)).contains("application_name\0one\0"));
    assert!(String::from_utf8_lossy(&rig.heard(b)).contains("application_name\0two\0"));
    rig.heard(c);
    for _ in 0..3 {
        assert_eq!(
            (shows(&mut rig, a, "application_name"), shows(&mut rig, a, "work_mem")),
            ("one".into(), "1".into())
        );
        assert_eq!((shows(&mut rig, b, "application_name"), shows(&mut rig, b, "work_mem")), ("two".into(), "".into()));
        assert_eq!((shows(&mut rig, c, "application_name"), shows(&mut rig, c, "work_mem")), ("".into(), "".into()));
    }
    assert_eq!(rig.hosts.len(), 1);
    rig.assert_at_rest();
}

#[test]
fn proven_settings_travel_with_the_request() {
    let mut rig = Rig::new(ONE);
    let a = rig.arrive(&[("work_mem", "1")]);
    let b = rig.arrive(&[("work_mem", "2")]);
    rig.heard(a);
    rig.heard(b);
    rig.hosts[0].answering = false;
    rig.send(a, &query("select 1"));
    let sent = String::from_utf8_lossy(&rig.hosts[0].mem.ends().output).into_owned();
    let (settings, request) = (sent.find("set_config").unwrap(), sent.find("select 1").unwrap());
    assert!(settings < request, "{sent:?}");
    rig.hosts[0].answering = true;
    rig.run();
    assert_eq!(letters(&rig.heard(a)), "TDCZI");
    // The same client again: nothing to say about settings.
    rig.hosts[0].answering = false;
    rig.send(a, &query("select 2"));
    assert_eq!(rig.hosts[0].mem.ends().output, query("select 2"));
}

#[test]
fn refused_settings_end_the_login_in_the_servers_words() {
    let mut rig = Rig::new(ONE);
    let bad = rig.arrive(&[("work_mem", "refused")]);
    assert_eq!(letters(&rig.heard(bad)), "E(22023)");
    assert!(rig.is_gone(bad));
    let good = rig.arrive(&[("work_mem", "1")]);
    assert!(letters(&rig.heard(good)).ends_with("KZI"));
    assert_eq!(shows(&mut rig, good, "work_mem"), "1");
    rig.assert_at_rest();
}

#[test]
fn settings_proven_while_waiting_let_a_client_in_without_a_trace() {
    // Two clients with the same new settings wait; one proves them on one server, then another
    // server, with other settings, becomes free for the second.
    let mut rig = with_clients("default_pool_size = 2", 2);
    rig.send(0, &query("begin"));
    rig.send(1, &query("begin"));
    let a = rig.arrive(&[("work_mem", "5")]);
    let b = rig.arrive(&[("work_mem", "5")]);
    let c = rig.arrive(&[("work_mem", "6")]);
    rig.send(0, &query("commit"));
    rig.send(1, &query("commit"));
    for peer in [a, b, c] {
        assert_eq!(letters(&rig.heard(peer)), "SKZI");
    }
    for (peer, value) in [(a, "5"), (c, "6"), (b, "5")] {
        assert_eq!(shows(&mut rig, peer, "work_mem"), value);
    }
    rig.assert_at_rest();
    assert_eq!(rig.relay.pools[0].counters.total_server_closes.get(), 0, "a good server was thrown away");
}

#[test]
fn discard_all_keeps_a_clients_settings() {
    let mut rig = Rig::new(ONE);
    let a = rig.arrive(&[("work_mem", "1")]);
    let b = rig.arrive(&[]);
    rig.heard(a);
    rig.heard(b);
    rig.send(a, &query("set app.x = 3"));
    rig.send(a, &query("discard all"));
    rig.heard(a);
    assert_eq!(shows(&mut rig, b, "app.x"), "", "DISCARD ALL did not end the client's hold");
    assert_eq!(shows(&mut rig, a, "work_mem"), "1");
    rig.assert_at_rest();
}

/// A client with start values whose server has had others since, and a server that refuses them from now on.
fn refused_now() -> (Rig, usize) {
    let mut rig = Rig::new(ONE);
    let a = rig.arrive(&[("work_mem", "1")]);
    let b = rig.arrive(&[]);
    rig.heard(a);
    rig.heard(b);
    shows(&mut rig, b, "work_mem");
    rig.hosts[0].backend.refuses.push("1".into());
    (rig, a)
}

#[test]
fn what_is_sent_behind_settings_that_are_refused_does_not_run() {
    let insert = "insert into t values (1)";
    let unnamed = [parse("", insert), bind("", ""), execute("", 0), sync()].concat();
    let rolls_back = [parse("", "rollback"), bind("", ""), execute("", 0)].concat();
    for request in [
        query(insert),
        query(&format!("commit; {insert}")),
        unnamed.clone(),
        [rolls_back, unnamed].concat(),
        [query("rollback"), query(insert)].concat(),
    ] {
        let (mut rig, a) = refused_now();
        assert_eq!(letters(&rig.send(a, &request)), "E(22023)", "{:?}", String::from_utf8_lossy(&request));
        assert!(rig.is_gone(a));
        assert!(!rig.ran().contains(&insert), "{:?}", rig.ran());
    }
}

#[test]
fn what_follows_a_reset_is_not_heard_of() {
    let again = "SELECT pg_catalog.set_config(E'work_mem',E'1',false)";
    let extended = [parse("", "reset work_mem"), bind("", ""), execute("", 0), sync()].concat();
    let two = [parse("a", "reset work_mem"), bind("p", "a"), parse("", "show work_mem"), bind("", ""), execute("p", 0)];
    for (request, heard, ran) in [
        (query("reset work_mem"), "CZI", vec!["reset work_mem", again]),
        (
            query("reset work_mem -- so be it"),
            "CZI",
            vec!["reset work_mem", "SELECT pg_catalog.set_config(E'work_mem',E'1',false) -- so be it"],
        ),
        (
            query("select 1; reset work_mem; show work_mem"),
            "TDCCTDCZI",
            vec!["select 1", "reset work_mem", again, "show work_mem"],
        ),
        (query("reset geqo"), "CZI", vec!["reset geqo"]),
        (extended, "12CZI", vec!["reset work_mem", again]),
        ([two.concat(), execute("", 0), sync()].concat(), "1212CDCZI", vec!["reset work_mem", again, "show work_mem"]),
    ] {
        let mut rig = Rig::new(ONE);
        let a = rig.arrive(&[("work_mem", "1")]);
        rig.heard(a);
        let before = rig.ran().len();
        assert_eq!(letters(&rig.send(a, &request)), heard, "{:?}", String::from_utf8_lossy(&request));
        assert_eq!(rig.ran()[before..], ran[..]);
        assert_eq!(shows(&mut rig, a, "work_mem"), "1");
        rig.assert_at_rest();
    }
}
