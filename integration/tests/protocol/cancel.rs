//! Cancel requests: they end the query they are meant for and no other.
//! It must never take a query's slowness for its being cancelled.

use std::thread;
use std::time::{Duration, Instant};

use crate::common::client::Ssl;
use crate::common::client::{cancel_request, said};
use crate::common::{Client, eventually};
use crate::{ca, cluster, conf, with_tls};
use integration::wire::Script;

fn sleeps(marker: &str) -> String {
    format!("SELECT pg_sleep(50) /* {marker} */")
}

/// Waits until the query with this marker runs on the server.
fn await_running(marker: &str) {
    let sql = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE '%/* {marker} */' AND pid <> pg_backend_pid()"
    );
    eventually("the query runs", || cluster().primary().value_in("postgres", &sql).unwrap() == "1");
}

/// Sends a cancel request and waits until the connection that carried it has ended.
fn cancel(mut carrier: Client, request: &[u8]) {
    carrier.write(request);
    assert_eq!(carrier.read_to_end(), b"");
}

fn is_cancelled(mut client: Client, marker: &str, carrier: Client, request: &[u8]) {
    let started = Instant::now();
    client.send(&Script::new().query(&sleeps(marker)));
    await_running(marker);
    cancel(carrier, request);
    let frames = client.ready(1);
    let error = frames.iter().find(|frame| frame.tag == b'E').expect("an error");
    assert_eq!(said(error), "57014 canceling statement due to user request");
    assert!(started.elapsed() < Duration::from_secs(45));
    assert_eq!(client.value("SELECT 3"), "3");
}

#[test]
fn a_running_query_is_cancelled() {
    let pgweir = conf().size(2).start();
    let client = Client::connect(pgweir.port());
    let request = client.cancel_request();
    is_cancelled(client, "plain", Client::tcp(pgweir.port()), &request);
}

#[test]
fn a_running_query_is_cancelled_with_a_long_key() {
    let pgweir = conf().size(2).start();
    let mut client = Client::tcp(pgweir.port());
    client.startup(2, &[]);
    client.welcome().unwrap();
    let request = client.cancel_request();
    assert_eq!(request.len(), 12 + 32);
    is_cancelled(client, "long key", Client::tcp(pgweir.port()), &request);
}

#[test]
fn a_running_query_is_cancelled_over_tls() {
    let pgweir = with_tls();
    let mut client = Client::tls(pgweir.port(), &ca(), Ssl::Asked).unwrap();
    client.startup(0, &[]);
    client.welcome().unwrap();
    let carrier = Client::tls(pgweir.port(), &ca(), Ssl::Asked).unwrap();
    let request = client.cancel_request();
    is_cancelled(client, "tls", carrier, &request);
}

#[test]
fn a_wrong_key_cancels_nothing() {
    let pgweir = conf().size(2).start();
    let mut client = Client::connect(pgweir.port());
    client.send(&Script::new().query("SELECT 'done' FROM pg_sleep(2) /* wrong key */"));
    await_running("wrong key");
    let right = client.key.clone();
    let changed = |at: usize| {
        let mut key = right.clone();
        key[at] ^= 1;
        key
    };
    let shorter = right[..right.len() - 1].to_vec();
    let longer = [&right[..], &[0]].concat();
    let wrong = [changed(7), changed(4), changed(3), changed(0), shorter, longer, vec![0; 8], vec![0xff; 36]];
    for key in &wrong {
        cancel(Client::tcp(pgweir.port()), &cancel_request(key));
    }
    // A request cut short and one with a key longer than any are no requests at all.
    for key in [&right[..4], &right[..3], &[1; 300]] {
        cancel(Client::tcp(pgweir.port()), &cancel_request(key));
    }
    let frames = client.ready(1);
    assert_eq!(crate::common::client::outcome(&frames), Ok(vec![vec!["done".to_string()]]));
}

/// Nothing runs, so nothing is cancelled: not the client's next query, nor that of another who has its server by then.
#[test]
fn cancelling_an_idle_client_does_nothing() {
    let pgweir = conf().size(1).start();
    let mut client = Client::connect(pgweir.port());
    let request = client.cancel_request();
    for _ in 0..50 {
        assert_eq!(client.value("SELECT 1"), "1");
        cancel(Client::tcp(pgweir.port()), &request);
        assert_eq!(client.value("SELECT 'x' FROM pg_sleep(0.002)"), "x");
    }
}

/// A client that waits for a server has nothing to cancel there: whoever holds the server must not suffer.
#[test]
fn cancelling_a_waiting_client_leaves_the_running_query_alone() {
    let pgweir = conf().size(1).start();
    let mut holder = Client::connect(pgweir.port());
    let mut waiter = Client::connect(pgweir.port());
    holder.send(&Script::new().query("SELECT 'held' FROM pg_sleep(1) /* holder */"));
    await_running("holder");
    waiter.send(&Script::new().query("SELECT 'waited'"));
    cancel(Client::tcp(pgweir.port()), &waiter.cancel_request());
    assert_eq!(crate::common::client::outcome(&holder.ready(1)), Ok(vec![vec!["held".to_string()]]));
    // Whether the waiter is served or told 57014 is a matter of taste; it must not be left without an answer.
    let frames = waiter.ready(1);
    assert!(frames.last().is_some_and(|frame| frame.tag == b'Z' || frame.tag == b'E'));
}

/// Late requests must not hit the next owner of a server connection: two clients share one server, one is cancelled all the time.
#[test]
fn a_late_cancel_never_hits_the_next_client() {
    let pgweir = conf().size(1).start();
    let port = pgweir.port();
    let mut victim = Client::connect(port);
    let request = victim.cancel_request();
    let stop = Instant::now() + Duration::from_secs(4);
    let canceller = thread::spawn(move || {
        while Instant::now() < stop {
            cancel(Client::tcp(port), &request);
        }
    });
    let bystander = thread::spawn(move || {
        let mut client = Client::connect(port);
        let mut count = 0;
        while Instant::now() < stop {
            assert_eq!(client.query("SELECT 'mine' FROM pg_sleep(0.001)"), Ok(vec![vec!["mine".to_string()]]));
            count += 1;
        }
        count
    });
    let (mut cancelled, mut served) = (0, 0);
    while Instant::now() < stop {
        match victim.query("SELECT 1 FROM pg_sleep(0.002)") {
            Ok(_) => served += 1,
            Err(error) if error.starts_with("57014") => cancelled += 1,
            Err(error) => panic!("{error}"),
        }
    }
    canceller.join().unwrap();
    let others = bystander.join().unwrap();
    assert!(cancelled > 0 && others > 0, "{cancelled} cancelled, {served} served, {others} of the other");
}
