//! Limits at the door: how many may come, how long they may take, what they hear of databases.
//! It must never let somebody learn of a database before they have proved who they are.

use std::time::{Duration, Instant};

use crate::common::client::said;
use crate::common::{Client, Conf, eventually};
use crate::{methods, trusting};
use integration::wire::Script;

fn refused(port: u16, parameters: &[(&str, &str)]) -> String {
    let mut client = Client::tcp(port);
    client.startup(0, parameters);
    let error = client.welcome().unwrap_err();
    assert_eq!(error.field(b'S').as_deref(), Some("FATAL"));
    said(&error)
}

#[test]
fn one_client_too_many_is_told_so() {
    let pgweir = Conf::trust(trusting()).listen("max_client_conn = 2").start();
    let mut first = Client::connect(pgweir.port());
    let second = Client::connect(pgweir.port());
    for _ in 0..3 {
        let error = refused(pgweir.port(), &[]);
        assert!(error.starts_with("53300"), "{error}");
    }
    // A cancel request is always let in.
    let key = first.cancel_request();
    first.send(&Script::new().query("SELECT pg_sleep(50) /* full house */"));
    let sql = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%/* full house */' AND state = 'active' AND pid <> pg_backend_pid()";
    eventually("it runs", || trusting().primary().value_in("postgres", sql).unwrap() == "1");
    let mut carrier = Client::tcp(pgweir.port());
    carrier.write(&key);
    assert_eq!(carrier.read_to_end(), b"");
    assert!(said(&first.ready(1)[1]).starts_with("57014"));
    // A place that becomes free is taken again.
    drop(second);
    eventually("a place is free", || {
        let mut client = Client::tcp(pgweir.port());
        client.startup(0, &[]);
        client.welcome().is_ok()
    });
}

#[test]
fn a_login_that_takes_too_long_is_ended() {
    let pgweir = Conf::trust(trusting()).listen("client_login_timeout = \"300ms\"\nmax_client_conn = 2").start();
    let started = Instant::now();
    let mut silent = Client::tcp(pgweir.port());
    let mut slow = Client::tcp(pgweir.port());
    slow.write(&[0, 0]);
    let _ = silent.read_to_end();
    let _ = slow.read_to_end();
    assert!(started.elapsed() >= Duration::from_millis(250) && started.elapsed() < Duration::from_secs(20));
    // Their places are free again.
    assert_eq!(Client::connect(pgweir.port()).value("SELECT 1"), "1");
    // Whoever has logged in has all the time there is.
    let mut client = Client::connect(pgweir.port());
    assert_eq!(client.value("SELECT 'x' FROM pg_sleep(0.6)"), "x");
}

/// Without proof nobody hears whether a database exists.
#[test]
fn an_unknown_database_is_told_after_the_login_only() {
    let pgweir = methods("md5").start();
    let attempt = |database: &str| {
        let mut client = Client::tcp(pgweir.port());
        client.startup(0, &[("user", "plain"), ("database", database)]);
        let request = client.read().unwrap();
        assert_eq!((request.tag, request.body[3]), (b'R', 5));
        client.send(&Script::new().raw(b'p', b"md5d41d8cd98f00b204e9800998ecf8427e\0"));
        said(&client.read().unwrap())
    };
    assert_eq!(attempt("nowhere"), attempt("app"));
    assert!(attempt("nowhere").starts_with("28P01"));
    let pgweir = methods("trust").start();
    let error = refused(pgweir.port(), &[("user", "plain"), ("database", "nowhere")]);
    assert_eq!(error, "3D000 database \"nowhere\" does not exist");
    let error = refused(pgweir.port(), &[("user", "stranger"), ("database", "nowhere")]);
    assert!(error.starts_with("28"), "{error}");
}

/// Without a database the user's name is meant, as with PostgreSQL.
#[test]
fn the_database_defaults_to_the_users_name() {
    let pgweir = Conf::trust(trusting()).start();
    let mut client = Client::tcp(pgweir.port());
    client.startup(0, &[("database", "")]);
    client.welcome().unwrap();
    assert_eq!(client.value("SELECT current_database()"), "app");
}

/// The server's own words: pgweir passes replication on to a server of the client's own.
#[test]
fn replication_without_the_right_is_refused() {
    let pgweir = Conf::trust(trusting()).start();
    for value in ["true", "database", "on", "1"] {
        let error = refused(pgweir.port(), &[("replication", value)]);
        assert!(error.starts_with("42501") || error.starts_with("28000"), "{error}");
    }
}
