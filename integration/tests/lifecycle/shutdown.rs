//! SIGTERM and SIGINT: transactions end, idle clients go, nobody new comes.
//! It must never take longer than it was allowed.

use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::common::client::said;
use crate::common::{Client, eventually};
use crate::{cluster, conf};
use integration::wire::Script;
use integration::{Pgweir, Signal};

const SOON: Duration = Duration::from_secs(20);

fn refuses_connections(pgweir: &Pgweir) {
    eventually("nobody new comes in", || TcpStream::connect(("127.0.0.1", pgweir.port())).is_err());
}

/// The client is told 57P01 and nothing behind it.
fn is_sent_away(mut client: Client) {
    let frames = client.frames_to_end();
    assert_eq!(frames.len(), 1, "{frames:?}");
    assert_eq!(said(&frames[0]), "57P01 terminating connection due to administrator command");
    assert_eq!(frames[0].field(b'S').as_deref(), Some("FATAL"));
}

fn a_transaction_may_finish(signal: Signal) {
    let table = format!("finished_{}", signal.as_raw());
    let pgweir = conf().top("shutdown_timeout = \"60s\"").start();
    let mut busy = Client::connect(pgweir.port());
    busy.query(&format!("CREATE TABLE {table} (n int)")).unwrap();
    let idle = Client::connect(pgweir.port());
    busy.query("BEGIN").unwrap();
    busy.query(&format!("INSERT INTO {table} VALUES (1)")).unwrap();
    pgweir.signal(signal);
    refuses_connections(&pgweir);
    is_sent_away(idle);
    assert!(pgweir.ended().is_none());
    busy.query(&format!("INSERT INTO {table} VALUES (2)")).unwrap();
    busy.query("COMMIT").unwrap();
    is_sent_away(busy);
    assert_eq!(pgweir.wait(SOON).unwrap().code(), Some(0));
    let count = cluster().primary().value_in("app", &format!("SELECT count(*) FROM {table}")).unwrap();
    assert_eq!(count, "2");
}

#[test]
fn a_transaction_may_finish_after_sigterm() {
    a_transaction_may_finish(Signal::TERM);
}

#[test]
fn a_transaction_may_finish_after_sigint() {
    a_transaction_may_finish(Signal::INT);
}

#[test]
fn a_running_query_may_finish() {
    let pgweir = conf().start();
    let mut client = Client::connect(pgweir.port());
    client.send(&Script::new().query("SELECT 'slow' FROM pg_sleep(1.5)"));
    let sql = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(1.5)%' AND state = 'active' AND pid <> pg_backend_pid()";
    eventually("it runs", || cluster().primary().value_in("postgres", sql).unwrap() == "1");
    pgweir.signal(Signal::TERM);
    assert_eq!(crate::common::client::outcome(&client.ready(1)), Ok(vec![vec!["slow".to_string()]]));
    is_sent_away(client);
    assert_eq!(pgweir.wait(SOON).unwrap().code(), Some(0));
}

/// Those who already wait for a server are served.
#[test]
fn who_waits_is_served() {
    let pgweir = conf().size(1).start();
    let mut holder = Client::connect(pgweir.port());
    let mut waiter = Client::connect(pgweir.port());
    holder.query("BEGIN").unwrap();
    waiter.send(&Script::new().query("SELECT 'waited'"));
    // Both, as the numbers may still be those of the moment when the holder waited for its server.
    let clients = |state| crate::common::metric(&pgweir, "pgweir_pool_clients", &[("state", state)]);
    eventually("it waits", || (clients("active"), clients("waiting")) == (1.0, 1.0));
    pgweir.signal(Signal::TERM);
    refuses_connections(&pgweir);
    holder.query("COMMIT").unwrap();
    assert_eq!(crate::common::client::outcome(&waiter.ready(1)), Ok(vec![vec!["waited".to_string()]]));
    is_sent_away(waiter);
    is_sent_away(holder);
    assert_eq!(pgweir.wait(SOON).unwrap().code(), Some(0));
}

#[test]
fn an_idle_program_ends_at_once() {
    let pgweir = conf().top("shutdown_timeout = \"1h\"").start();
    let clients: Vec<Client> = (0..20).map(|_| Client::connect(pgweir.port())).collect();
    let started = Instant::now();
    pgweir.signal(Signal::TERM);
    clients.into_iter().for_each(is_sent_away);
    assert_eq!(pgweir.wait(SOON).unwrap().code(), Some(0));
    assert!(started.elapsed() < SOON);
}

fn is_cut(pgweir: &Pgweir, mut client: Client, table: &str) {
    let error = client.read().unwrap();
    assert_eq!(said(&error), "57P01 terminating connection due to administrator command");
    assert!(client.read().is_none());
    assert_eq!(pgweir.wait(SOON).unwrap().code(), Some(0));
    // What was begun is rolled back.
    let primary = cluster().primary();
    eventually("its locks are gone", || {
        let locks =
            format!("SELECT count(*) FROM pg_locks WHERE relation = '{table}'::regclass AND pid <> pg_backend_pid()");
        primary.value_in("app", &locks).unwrap() == "0"
    });
    assert_eq!(primary.value_in("app", &format!("SELECT count(*) FROM {table}")).unwrap(), "0");
}

fn in_transaction(pgweir: &Pgweir, table: &str) -> Client {
    let mut client = Client::connect(pgweir.port());
    client.query(&format!("CREATE TABLE {table} (n int)")).unwrap();
    client.query("BEGIN").unwrap();
    client.query(&format!("INSERT INTO {table} VALUES (1)")).unwrap();
    client
}

#[test]
fn shutdown_timeout_cuts_transactions_off() {
    let pgweir = conf().top("shutdown_timeout = \"500ms\"").start();
    let client = in_transaction(&pgweir, "cut_by_timeout");
    let started = Instant::now();
    pgweir.signal(Signal::TERM);
    is_cut(&pgweir, client, "cut_by_timeout");
    assert!(started.elapsed() >= Duration::from_millis(450));
}

#[test]
fn a_second_signal_ends_it_at_once() {
    let pgweir = conf().top("shutdown_timeout = \"1h\"").start();
    let client = in_transaction(&pgweir, "cut_by_signal");
    pgweir.signal(Signal::TERM);
    refuses_connections(&pgweir);
    assert!(pgweir.ended().is_none());
    pgweir.signal(Signal::INT);
    is_cut(&pgweir, client, "cut_by_signal");
}

/// Whoever is in the middle of a login when the end begins is not left hanging.
#[test]
fn a_login_in_the_middle_ends_too() {
    let pgweir = conf().top("shutdown_timeout = \"2s\"").start();
    let mut silent = Client::tcp(pgweir.port());
    silent.write(&[0, 0]);
    eventually("it was accepted", || crate::common::metric(&pgweir, "pgweir_accepted_connections_total", &[]) >= 2.0);
    pgweir.signal(Signal::TERM);
    let _ = silent.read_to_end();
    assert_eq!(pgweir.wait(SOON).unwrap().code(), Some(0));
}
