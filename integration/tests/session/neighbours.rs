//! Databases that are copied, renamed and dropped while pools keep servers in them.
//! It must never be the test that closes those servers.

use std::time::{Duration, Instant};

use integration::wire::Script;
use integration::{Cluster, DATABASE, Pgweir};

use crate::common::client::said;
use crate::common::{Client, Conf, crowd, eventually, metric};

fn start(pool: &str, workers: usize) -> (Cluster, Pgweir) {
    let cluster = Cluster::builder()
        .replicas(1)
        .sql("CREATE DATABASE one")
        .sql("CREATE DATABASE two")
        .sql("CREATE ROLE boss SUPERUSER LOGIN")
        .start()
        .unwrap();
    let lines = cluster.config_lines();
    let rest = ["one", "two"].map(|name| format!("[databases.{name}]\n{lines}")).join("\n");
    let conf = Conf::trust(&cluster).top(&format!("workers = {workers}")).user("boss", "").pool(pool).rest(&rest);
    let pgweir = conf.start();
    (cluster, pgweir)
}

fn boss(pgweir: &Pgweir, database: &str) -> Client {
    Client::connect_with(pgweir.port(), &[("user", "boss"), ("database", database)])
}

/// Leaves `count` servers at rest in `database`, of both users.
fn fill(pgweir: &Pgweir, database: &'static str, count: usize) {
    let port = pgweir.port();
    crowd(count, move |number| {
        let user = if number % 2 == 0 { "boss" } else { integration::USER };
        let mut client = Client::connect_with(port, &[("user", user), ("database", database)]);
        client.query("BEGIN; SELECT pg_sleep(0.2); COMMIT").unwrap();
    });
    let idle = || metric(pgweir, "pgweir_pool_servers", &[("database", database), ("state", "idle")]);
    eventually("servers rest", || idle() > 1.0);
}

#[test]
fn servers_at_rest_are_in_nobodys_way() {
    for (pool, workers) in [("", 1), ("server_order = \"rotate\"", 3), ("min_pool_size = 2", 2)] {
        let (cluster, pgweir) = start(pool, workers);
        let mut client = boss(&pgweir, DATABASE);
        for sql in ["CREATE DATABASE copy TEMPLATE one", "DROP DATABASE copy", "ALTER DATABASE one RENAME TO three"] {
            fill(&pgweir, "one", 8);
            let began = Instant::now();
            client.query(sql).unwrap_or_else(|error| panic!("{sql}: {error}"));
            // PostgreSQL alone would have given up after five seconds.
            assert!(began.elapsed() < Duration::from_secs(4), "{sql}: {:?}", began.elapsed());
        }
        cluster.primary().query("ALTER DATABASE three RENAME TO one").unwrap();
        // A client that has written nothing may be sent to the replica.
        cluster.wait_caught_up().unwrap();
        assert_eq!(boss(&pgweir, "one").value("SELECT current_database()"), "one");
        // Extended, and of the client's own database.
        fill(&pgweir, "two", 8);
        let batch = Script::new().parse("", "DROP DATABASE IF EXISTS \"two\"").bind("", "", &[]).execute("", 0).sync();
        let frames = client.run(&batch);
        assert!(frames.iter().all(|frame| frame.tag != b'E'), "{}", said(&frames[0]));
        fill(&pgweir, DATABASE, 8);
        client.query(&format!("CREATE DATABASE again WITH TEMPLATE = {DATABASE}")).unwrap();
        assert_eq!(client.value("SELECT 1"), "1");
    }
}

#[test]
fn a_server_in_use_stands_and_a_refusal_closes_nothing() {
    let (_cluster, pgweir) = start("", 2);
    fill(&pgweir, "one", 4);
    let closes = || metric(&pgweir, "pgweir_pool_server_closes_total", &[("database", "one")]);
    let mut weak = Client::connect_with(pgweir.port(), &[("database", DATABASE)]);
    for _ in 0..20 {
        assert!(weak.query("DROP DATABASE one").unwrap_err().starts_with("42501"));
    }
    assert_eq!(closes(), 0.0);
    let mut holder = boss(&pgweir, "one");
    holder.query("BEGIN").unwrap();
    let mut client = boss(&pgweir, DATABASE);
    assert!(client.query("DROP DATABASE one").unwrap_err().starts_with("55006"));
    assert_eq!(holder.value("SELECT 7"), "7");
    // It ends while another waits for it.
    client.send(&Script::new().query("DROP DATABASE one"));
    holder.query("COMMIT").unwrap();
    let frames = client.ready(1);
    assert_eq!(frames[0].tag, b'C', "{}", said(&frames[0]));
    assert!(holder.query("SELECT 8").is_err());
}

#[test]
fn neither_a_spelling_nor_a_literal_nor_who_listened_is_in_the_way() {
    let cluster =
        Cluster::builder().sql("CREATE DATABASE one").sql("CREATE ROLE boss SUPERUSER LOGIN").start().unwrap();
    let port = cluster.primary().port();
    let rest = format!("[databases.spelled]\nprimary = \"localhost:{port}\"\ndbname = \"one\"\n");
    let pgweir = Conf::trust(&cluster).user("boss", "").rest(&rest).start();
    let mut client = boss(&pgweir, DATABASE);
    for sql in ["CREATE DATABASE copy TEMPLATE 'one'", "DROP DATABASE one"] {
        let mut listens = boss(&pgweir, "spelled");
        listens.query("LISTEN c").unwrap();
        listens.query("SELECT 1").unwrap();
        eventually("the shared connection listens", || metric(&pgweir, "pgweir_pool_listening_clients", &[]) == 1.0);
        listens.query("UNLISTEN c").unwrap();
        fill(&pgweir, "spelled", 6);
        let began = Instant::now();
        client.query(sql).unwrap_or_else(|error| panic!("{sql}: {error}"));
        assert!(began.elapsed() < Duration::from_secs(4), "{sql}: {:?}", began.elapsed());
    }
}
