//! Replication connections: PostgreSQL's own programs through pgweir.
//! It must never be content with a connection: what was replicated is looked at.

use std::fs;

use integration::command;
use integration::wire::Script;
use integration::{Cluster, DATABASE, USER};

use crate::common::client::{outcome, said, tags};
use crate::common::{Client, Conf, eventually, metric};

fn cluster() -> Cluster {
    let right = format!("ALTER ROLE {USER} REPLICATION");
    Cluster::builder().setting("wal_level", "logical").sql(&right).start().unwrap()
}

fn port_of(pgweir: &integration::Pgweir) -> String {
    pgweir.port().to_string()
}

#[test]
fn a_base_backup_with_its_log() {
    let own = cluster();
    own.primary()
        .query_in(DATABASE, "CREATE TABLE kept AS SELECT generate_series(1, 1000) AS x; GRANT ALL ON kept TO app")
        .unwrap();
    let pgweir = Conf::trust(&own).size(1).start();
    let target = tempfile::tempdir().unwrap();
    let program = integration::postgres::bin().unwrap().join("pg_basebackup");
    let mut backup = command(program).unwrap();
    backup.args(["-h", "127.0.0.1", "-p", &port_of(&pgweir), "-U", USER, "-X", "stream", "-c", "fast", "--no-sync"]);
    let done = backup.arg("-D").arg(target.path().join("copy")).output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let version = fs::read_to_string(target.path().join("copy/PG_VERSION")).unwrap();
    assert!(!version.trim().is_empty());
    // They were servers of their own: the pool of one has opened none for them.
    let mut client = Client::connect(pgweir.port());
    assert_eq!(client.value("SELECT count(*) FROM kept"), "1000");
    eventually("they are closed", || {
        own.primary().value_in("postgres", "SELECT count(*) FROM pg_stat_replication").unwrap() == "0"
    });
}

#[test]
fn logical_changes_as_they_happen() {
    let own = cluster();
    own.primary().query_in(DATABASE, &format!("CREATE TABLE seen (x int); GRANT ALL ON seen TO {USER}")).unwrap();
    let pgweir = Conf::trust(&own).start();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("changes");
    let mut receive = command(integration::postgres::bin().unwrap().join("pg_recvlogical")).unwrap();
    receive.args(["-h", "127.0.0.1", "-p", &port_of(&pgweir), "-U", USER, "-d", DATABASE, "--slot", "s"]);
    receive.args(["--create-slot", "--start", "-P", "test_decoding", "-F", "1", "-f"]).arg(&file);
    let mut child = receive.spawn().unwrap();
    let active = "SELECT count(*) FROM pg_replication_slots WHERE active";
    eventually("it streams", || own.primary().value_in("postgres", active).unwrap() == "1");
    let mut client = Client::connect(pgweir.port());
    client.query("INSERT INTO seen SELECT generate_series(1, 500)").unwrap();
    let text = || fs::read_to_string(&file).unwrap_or_default();
    eventually("all changes have come", || text().contains("x[integer]:500"));
    assert_eq!(text().matches("INSERT").count(), 500);
    child.kill().unwrap();
    child.wait().unwrap();
    eventually("its server goes with it", || own.primary().value_in("postgres", active).unwrap() == "0");
}

#[test]
fn commands_and_queries_of_a_logical_connection() {
    let own = cluster();
    let pgweir = Conf::trust(&own).size(1).start();
    let mut walsender = Client::connect_with(pgweir.port(), &[("replication", "database"), ("application_name", "w")]);
    assert_eq!(walsender.parameters["application_name"], "w");
    let identified = walsender.query("IDENTIFY_SYSTEM").unwrap();
    assert_eq!(identified[0][3], DATABASE);
    assert_eq!(walsender.value("SELECT 1 + 1"), "2");
    assert!(walsender.query("START_REPLICATION SLOT nowhere LOGICAL 0/0").is_err());
    assert_eq!(walsender.value("SELECT 3"), "3", "it does not live on");
    // The pool's only server is free for others meanwhile.
    assert_eq!(Client::connect(pgweir.port()).value("SELECT 4"), "4");
    // A cancel request finds it.
    walsender.send(&Script::new().query("SELECT pg_sleep(60)"));
    let sleeping = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep(60)' AND state = 'active'";
    eventually("it sleeps", || own.primary().value_in("postgres", sleeping).unwrap() == "1");
    Client::tcp(pgweir.port()).write(&walsender.cancel_request());
    assert!(outcome(&walsender.ready(1)).unwrap_err().starts_with("57014"));
}

#[test]
fn without_the_right_or_the_room_it_is_refused() {
    let own = Cluster::builder().start().unwrap();
    let pgweir = Conf::trust(&own).database("max_db_connections = 1").start();
    let refused = |replication: &str| {
        let mut client = Client::tcp(pgweir.port());
        client.startup(0, &[("replication", replication)]);
        said(&client.welcome().expect_err("it came in"))
    };
    assert!(refused("database").starts_with("42501"), "the server's own words");
    let mut holder = Client::connect(pgweir.port());
    holder.query("BEGIN").unwrap();
    assert!(refused("database").starts_with("53300"));
    assert_eq!(tags(&holder.run(&Script::new().query("COMMIT"))), "CZ");
}

/// A reload counts connections anew; those of replication are not among a pool's own.
#[test]
fn it_counts_after_a_reload_too() {
    let own = cluster();
    let conf = Conf::trust(&own).database("max_db_connections = 2").pool("catalog_refresh = 0");
    let pgweir = conf.clone().size(4).start();
    let mut walsender = Client::tcp(pgweir.port());
    walsender.startup(0, &[("replication", "database")]);
    walsender.welcome().unwrap();
    let mut holder = Client::connect(pgweir.port());
    holder.query("BEGIN").unwrap();
    pgweir.reload(&conf.size(5).text()).unwrap();
    eventually("it is read", || metric(&pgweir, "pgweir_config_reloads_total", &[("outcome", "ok")]) == 1.0);
    let mut third = Client::connect(pgweir.port());
    third.send(&Script::new().query("SELECT 'third'"));
    let clients = |state| metric(&pgweir, "pgweir_pool_clients", &[("state", state)]);
    eventually("it waits", || clients("active") >= 1.0 && clients("waiting") == 1.0);
    walsender.send(&Script::new().raw(b'X', b""));
    assert_eq!(outcome(&third.ready(1)).unwrap(), [["third"]]);
}
