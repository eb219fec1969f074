//! Standbys that are promoted, primaries that die and come back.
//! It must never send a write to a server that another has taken the place of.

use std::time::{Duration, Instant};

use crate::common::client::outcome;
use crate::common::{Client, Conf, eventually};
use crate::{start_cluster, start_with};
use integration::wire::Script;
use integration::{Cluster, Postgres, Stop};

fn hosts(cluster: &Cluster) -> Conf {
    let servers = cluster.replicas().iter().chain([cluster.primary()]);
    let list: Vec<String> = servers.map(|server| format!("\"{}\"", server.address())).collect();
    Conf::database_only(&format!("hosts = [{}]", list.join(", ")))
        .listen("auth_type = \"trust\"")
        .user("app", "")
        .size(3)
}

fn rows(server: &Postgres) -> String {
    server.value_in(integration::DATABASE, "SELECT count(*) FROM fish").unwrap()
}

#[test]
fn the_primary_is_found_by_asking() {
    let cluster = start_cluster();
    let pgweir = hosts(&cluster).start();
    let mut client = Client::connect(pgweir.port());
    assert_eq!(client.query("INSERT INTO fish VALUES (101)"), Ok(vec![]));
    assert_eq!(rows(cluster.primary()), "101");
}

/// The primary dies: who is idle or about to begin waits, and goes on with the standby once that is promoted.
#[test]
fn a_standby_takes_over() {
    let cluster = start_cluster();
    let pgweir = hosts(&cluster).start();
    let mut idle = Client::connect(pgweir.port());
    idle.query("SELECT 1").unwrap();
    let mut open = Client::connect(pgweir.port());
    open.query("BEGIN").unwrap();
    open.query("INSERT INTO fish VALUES (102)").unwrap();
    let standby = &cluster.replicas()[0];
    cluster.primary().stop(Stop::Immediate).unwrap();
    let mut writer = Client::connect(pgweir.port());
    writer.send(&Script::new().query("INSERT INTO fish VALUES (103)"));
    // In a transaction it is an error, and one that tells to try again.
    let error = open.query("INSERT INTO fish VALUES (104)").unwrap_err();
    assert!(error.contains("57P0") || error.contains("08006"), "{error}");
    standby.promote().unwrap();
    let promoted = Instant::now();
    assert_eq!(outcome(&writer.ready(1)).unwrap(), Vec::<Vec<String>>::new());
    assert!(promoted.elapsed() < Duration::from_secs(2), "{:?}", promoted.elapsed());
    idle.query("INSERT INTO fish VALUES (105)").unwrap();
    assert_eq!(rows(standby), "102");
    // The old one comes back as it was.
    cluster.primary().start().unwrap();
    for n in 0..30 {
        idle.query(&format!("INSERT INTO fish VALUES ({})", 200 + n)).unwrap();
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(rows(standby), "132");
    assert_eq!(rows(cluster.primary()), "100");
}

/// A standby is promoted while the primary is still there: whoever is on the old one leaves it.
#[test]
fn the_newest_timeline_wins() {
    let cluster = start_cluster();
    let pgweir = hosts(&cluster).start();
    let mut client = Client::connect(pgweir.port());
    client.query("INSERT INTO fish VALUES (106)").unwrap();
    let mut open = Client::connect(pgweir.port());
    open.query("BEGIN").unwrap();
    open.query("INSERT INTO fish VALUES (107)").unwrap();
    let standby = &cluster.replicas()[1];
    standby.promote().unwrap();
    let insert = "INSERT INTO fish VALUES ((SELECT max(id) + 1 FROM fish))";
    eventually("the old primary is left", || {
        // What is under way there may or may not have happened.
        if let Err(error) = client.query(insert) {
            assert!(error.contains("08006"), "{error}");
            client = Client::connect(pgweir.port());
        }
        rows(standby).parse::<usize>().unwrap() > 101
    });
    let before = rows(cluster.primary());
    open.query("COMMIT").unwrap_err();
    for _ in 0..5 {
        client.query(insert).unwrap();
    }
    assert_eq!(rows(cluster.primary()), before);
}

/// Nobody takes writes: after `failover_wait` the client hears so, and lives on.
#[test]
fn a_wait_for_a_primary_ends() {
    let cluster = start_cluster();
    let (_pgweir, mut client) = start_with(&cluster, &hosts(&cluster).pool("failover_wait = \"1s\""));
    cluster.primary().stop(Stop::Immediate).unwrap();
    let said = client.query("INSERT INTO fish VALUES (108)").unwrap_err();
    assert!(said.contains("57P03"), "{said}");
    assert_eq!(client.query("SELECT count(*) FROM fish").unwrap(), [["100"]]);
    cluster.primary().start().unwrap();
    client.query("INSERT INTO fish VALUES (109)").unwrap();
}

/// None of the servers takes the login: the client hears that at once.
#[test]
fn a_login_that_no_server_takes() {
    let cluster = start_cluster();
    let servers = cluster.replicas().iter().chain([cluster.primary()]);
    let list: Vec<String> = servers.map(|server| format!("\"{}\"", server.address())).collect();
    let conf = Conf::database_only(&format!("hosts = [{}]", list.join(", "))).listen("auth_type = \"trust\"");
    let pgweir = conf.user("nobody", "").start();
    let started = Instant::now();
    let mut client = Client::tcp(pgweir.port());
    client.startup(0, &[("user", "nobody")]);
    let error = client.welcome().unwrap_err();
    let said = crate::common::client::said(&error);
    assert!(said.contains("role \"nobody\" does not exist"), "{said}");
    assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
}
