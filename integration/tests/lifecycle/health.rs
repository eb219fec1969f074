//! What an orchestrator sees: `/healthz`, `/readyz`, `/metrics`.
//! It must never need a client for the health of a server to be known.

use std::time::Duration;

use crate::common::{Client, Conf, eventually, metric, within};
use crate::{cluster, conf};
use integration::{Cluster, Signal, Stop};

#[test]
fn the_primary_is_looked_at_without_any_client() {
    let cluster = Cluster::builder().start().unwrap();
    cluster.primary().stop(Stop::Fast).unwrap();
    let pgweir = Conf::trust(&cluster).start();
    // Down before anybody asked for it.
    eventually("it is not ready", || pgweir.get("/readyz").unwrap().0 == 503);
    let (status, body) = pgweir.get("/readyz").unwrap();
    assert_eq!(status, 503);
    assert!(body.contains("primary unreachable") && body.contains("\"app\""), "{body}");
    assert_eq!(pgweir.get("/healthz").unwrap().0, 200);
    cluster.primary().start().unwrap();
    eventually("it is ready", || pgweir.get("/readyz").unwrap().0 == 200);
    cluster.primary().stop(Stop::Fast).unwrap();
    eventually("it is not ready again", || pgweir.get("/readyz").unwrap().0 == 503);
    assert_eq!(metric(&pgweir, "pgweir_primary_reachable", &[("database", "app")]), 0.0);
    cluster.primary().start().unwrap();
    eventually("it is ready again", || pgweir.get("/readyz").unwrap().0 == 200);
    assert_eq!(metric(&pgweir, "pgweir_primary_reachable", &[("database", "app")]), 1.0);
}

#[test]
fn while_draining_it_is_alive_but_not_ready() {
    let pgweir = conf().top("shutdown_timeout = \"60s\"").start();
    eventually("it is ready", || pgweir.get("/readyz").unwrap().0 == 200);
    let mut client = Client::connect(pgweir.port());
    client.query("BEGIN").unwrap();
    pgweir.signal(Signal::TERM);
    eventually("it is draining", || pgweir.get("/readyz").unwrap().0 == 503);
    assert!(pgweir.get("/readyz").unwrap().1.contains("draining"));
    assert_eq!(pgweir.get("/healthz").unwrap().0, 200);
    assert_eq!(metric(&pgweir, "pgweir_draining", &[]), 1.0);
    client.query("COMMIT").unwrap();
    assert!(pgweir.wait(Duration::from_secs(20)).unwrap().success());
}

/// The log of the server stays as it would be without pgweir: a health check is not a failed login.
#[test]
fn looking_after_the_primary_leaves_no_trace_in_its_log() {
    let pgweir = conf().start();
    eventually("it is ready", || pgweir.get("/readyz").unwrap().0 == 200);
    let log = cluster().primary().log();
    for complaint in ["invalid length of startup packet", "incomplete startup packet", "could not accept SSL"] {
        assert!(!log.contains(complaint), "{log}");
    }
}

#[test]
fn metrics_count_what_was_done() {
    let pgweir = conf().size(3).start();
    let mut client = Client::connect(pgweir.port());
    client.query("CREATE TABLE counted (n int)").unwrap();
    for n in 0..7 {
        client.query(&format!("INSERT INTO counted SELECT * FROM generate_series(1, {n})")).unwrap();
    }
    assert_eq!(client.query("SELECT n FROM counted").unwrap().len(), 21);
    client.query("SELECT 1/0").unwrap_err();
    client.query("BEGIN").unwrap();
    client.query("SELECT 5").unwrap();
    client.query("COMMIT").unwrap();
    let of_shape = |name: &str, part: &str| {
        let samples = integration::metrics::parse(&pgweir.metrics().unwrap()).unwrap();
        let fits =
            samples.iter().filter(|sample| sample.name == name && sample.label("query").to_lowercase().contains(part));
        fits.map(|sample| sample.value).sum::<f64>()
    };
    assert_eq!(of_shape("pgweir_query_calls_total", "insert into counted"), 7.0);
    assert_eq!(of_shape("pgweir_query_rows_total", "select n from counted"), 21.0);
    let errors = metric(&pgweir, "pgweir_query_errors_total", &[]);
    assert_eq!(errors, 1.0);
    assert_eq!(metric(&pgweir, "pgweir_pool_logins_total", &[("user", "app")]), 1.0);
    assert_eq!(metric(&pgweir, "pgweir_pool_queries_total", &[("database", "app")]), 13.0);
    assert_eq!(metric(&pgweir, "pgweir_pool_transactions_total", &[("database", "app")]), 11.0);
    assert_eq!(metric(&pgweir, "pgweir_panics_total", &[]), 0.0);
    within(Duration::from_secs(5), "the gauges follow", || {
        let of = |state: &str| metric(&pgweir, "pgweir_pool_servers", &[("state", state)]);
        of("idle") == 1.0 && of("active") == 0.0 && metric(&pgweir, "pgweir_pool_clients", &[("state", "idle")]) == 1.0
    });
}

#[test]
fn what_is_not_there_is_not_found() {
    let pgweir = conf().start();
    assert_eq!(pgweir.get("/nothing").unwrap().0, 404);
    assert_eq!(pgweir.get("/").unwrap().0, 200);
    assert_eq!(pgweir.get("/metrics").unwrap().0, 200);
}
