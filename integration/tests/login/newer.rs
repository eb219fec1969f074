//! What only PostgreSQL 18 and newer can be asked: direct TLS, protocol 3.2, and what it reports beyond older versions.
//! It must never take pgweir's own listener for a server.

use std::io::{self, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, channel};
use std::thread;

use crate::common::client::{Ssl, said};
use crate::common::{Client, Conf, eventually};
use crate::{SECRET, assert_discreet};
use integration::wire::{Frame, Script};
use integration::{Cluster, Hba, PASSWORD, USER};

/// First byte of a TLS record that holds a handshake (RFC 8446, 5.1).
const HANDSHAKE: u8 = 22;

/// A way to a server that tells how each connection began.
fn spied(upstream: u16) -> (u16, Receiver<u8>) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let (tell, told) = channel();
    thread::spawn(move || {
        for client in listener.incoming() {
            let (client, server) = (client.unwrap(), TcpStream::connect(("127.0.0.1", upstream)).unwrap());
            let mut first = [0];
            // A connection that says nothing has not begun.
            if client.peek(&mut first).is_ok_and(|count| count == 1) {
                let _ = tell.send(first[0]);
            }
            for (mut from, mut to) in [(client.try_clone().unwrap(), server.try_clone().unwrap()), (server, client)] {
                thread::spawn(move || {
                    let _ = io::copy(&mut from, &mut to);
                    let _ = to.flush();
                    let _ = to.shutdown(Shutdown::Write);
                });
            }
        }
    });
    (port, told)
}

fn encrypted() -> Cluster {
    let builder = Cluster::builder().newer().auth(Hba::Scram).tls(true);
    builder.hba("hostssl all all 127.0.0.0/8 scram-sha-256\nhostnossl all all 127.0.0.0/8 reject").start().unwrap()
}

/// pgweir before `port` with this way to begin TLS, everything checked that can be.
fn towards(cluster: &Cluster, port: u16, negotiation: &str) -> Conf {
    let lines = format!(
        "primary = \"localhost:{port}\"\nserver_tls_sslmode = \"verify-full\"\nserver_tls_ca_file = \"{}\"\n\
         server_tls_negotiation = \"{negotiation}\"\nserver_channel_binding = \"require\"",
        cluster.certificates().unwrap().ca.display()
    );
    let conf = Conf::database_only(&lines).listen("auth_type = \"trust\"").size(1);
    conf.user(USER, &format!("password = \"{PASSWORD}\"")).rest("[log]\nlevel = \"trace\"")
}

#[test]
fn direct_tls_to_a_server() {
    let cluster = encrypted();
    for (negotiation, at_once) in [("direct", true), ("postgres", false)] {
        let (port, told) = spied(cluster.primary().port());
        let pgweir = towards(&cluster, port, negotiation).start();
        let mut client = Client::connect(pgweir.port());
        assert_eq!(client.value("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()"), "t", "{negotiation}");
        // Among those that only look whether the host is there.
        let seen: Vec<u8> = told.try_iter().collect();
        assert_eq!(seen.contains(&HANDSHAKE), at_once, "{negotiation}: {seen:?}");
        // A cancel request finds the server as well.
        client.send(&Script::new().query("SELECT pg_sleep(50)"));
        let sleeps = "SELECT count(*) = 1 FROM pg_stat_activity WHERE wait_event = 'PgSleep'";
        eventually("the query runs", || cluster.primary().value_in("postgres", sleeps).unwrap() == "t");
        let mut carrier = Client::tcp(pgweir.port());
        carrier.write(&client.cancel_request());
        assert_eq!(carrier.read_to_end(), b"");
        let error = client.ready(1).into_iter().find(|frame| frame.tag == b'E').unwrap();
        assert_eq!(said(&error), "57014 canceling statement due to user request");
        assert_eq!(client.value("SELECT 1"), "1");
        assert_discreet(&pgweir.log());
    }
}

/// PostgreSQL ends the connection without a word; the client hears why.
#[test]
fn direct_tls_to_a_server_without_tls() {
    let encrypted = encrypted();
    let plain = Cluster::builder().newer().start().unwrap();
    let pgweir = towards(&encrypted, plain.primary().port(), "direct").start();
    let mut client = Client::tcp(pgweir.port());
    client.startup(0, &[]);
    let error = said(&client.welcome().unwrap_err());
    assert!(error.starts_with("08006") && error.contains("TLS handshake failed"), "{error}");
    assert!(!error.contains(SECRET) && !error.contains(PASSWORD), "{error}");
}

/// Each version and set of options is answered as the server itself does, and has as long a key.
#[test]
fn versions_and_options_are_negotiated_as_the_server_does() {
    let cluster = Cluster::builder().newer().start().unwrap();
    let pgweir = Conf::trust(&cluster).start();
    let one: &[(&str, &str)] = &[("_pq_.one", "1")];
    let two: &[(&str, &str)] = &[("_pq_.one", ""), ("application_name", "between"), ("_pq_.two", "2")];
    for minor in [0, 1, 2, 3, 9999] {
        for options in [&[], one, two] {
            let answers = |port: u16| {
                let mut client = Client::tcp(port);
                client.startup(minor, options);
                let frames = client.welcome().unwrap();
                let at = frames.iter().position(|frame| frame.tag == b'v');
                let told: Vec<Frame> = frames.into_iter().filter(|frame| frame.tag == b'v').collect();
                assert_eq!(client.value("SELECT 1"), "1");
                (at, told, client.key.len())
            };
            assert_eq!(answers(pgweir.port()), answers(cluster.primary().port()), "3.{minor} {options:?}");
        }
    }
}

/// `search_path` is reported since version 18.
#[test]
fn what_is_reported_is_what_the_server_reports() {
    let cluster = Cluster::builder().newer().start().unwrap();
    let pgweir = Conf::trust(&cluster).size(1).start();
    let told = |port: u16| {
        let mut client = Client::connect_with(port, &[("search_path", "one, public"), ("DateStyle", "German")]);
        let mut all = vec![client.parameters.clone()];
        for sql in ["SET search_path = two", "SELECT 1", "BEGIN; SET LOCAL search_path = three", "ROLLBACK"] {
            client.query(sql).unwrap();
            all.push(client.parameters.clone());
        }
        all
    };
    let first = told(pgweir.port());
    assert_eq!(first[0].get("search_path").map(String::as_str), Some("one, public"));
    assert_eq!(first, told(cluster.primary().port()));
    // And the next client of that server has its own.
    let mut next = Client::connect(pgweir.port());
    assert_eq!(next.value("SHOW search_path"), "\"$user\", public");
    assert_eq!(next.parameters, Client::connect(cluster.primary().port()).parameters);
}

/// A client that begins TLS itself, with the longest keys there are, before a server that does so too.
#[test]
fn direct_tls_on_both_sides() {
    let cluster = encrypted();
    let files = cluster.certificates().unwrap();
    let pgweir = towards(&cluster, cluster.primary().port(), "direct").tls("require", files).start();
    let mut client = Client::tls(pgweir.port(), &files.ca, Ssl::Direct).unwrap();
    client.startup(2, &[]);
    client.welcome().unwrap();
    assert_eq!(client.key.len(), 4 + 32);
    assert_eq!(client.value("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()"), "t");
}
