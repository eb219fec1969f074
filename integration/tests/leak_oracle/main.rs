//! Leak oracle: 50 clients share 5 servers for 20 seconds, and each sees only its own rows and answers.
//! No answer may ever be accepted without its marker having been looked at.
//!
//! Half of the clients speak the bare protocol (pipelines with many Syncs, errors in between, COPY, portals read in pieces), half
//! are tokio-postgres (named statements, transactions, concurrent queries). Twenty more ask one thing at a time, so that their reads share
//! servers, which somebody stalls by locks. Every value carries the client's name and a number
//! that is used once; statements have the same names in all clients but different texts, which is what a proxy confuses first.
//! `DIRECT=1` runs it against PostgreSQL alone, `PGWEIR_LONG=1` for five minutes.
#![allow(clippy::unwrap_used)]

mod bare;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::SinkExt;
use futures_util::future::join_all;
use integration::{Cluster, DATABASE, PASSWORD, Pgweir, USER};
use tokio::time::timeout;
use tokio_postgres::{Client, NoTls};

use crate::bare::Bare;

const CLIENTS: usize = 50;
/// Those who ask one thing at a time.
const ALONE: usize = 20;
const SERVERS: usize = 5;
const TABLE: &str = "CREATE TABLE seen (owner text, n bigint); GRANT ALL ON seen TO app";

fn duration() -> Duration {
    Duration::from_secs(if std::env::var_os("PGWEIR_LONG").is_some() { 300 } else { 20 })
}

/// A tokio-postgres client: statements prepared once and used to the end, concurrent queries, transactions, COPY.
async fn driver(number: usize, port: u16, until: Instant) -> u64 {
    let name = format!("driver-{number}");
    let config = format!("host=127.0.0.1 port={port} user={USER} dbname={DATABASE} password={PASSWORD}");
    let (mut client, connection) = tokio_postgres::connect(&config, NoTls).await.unwrap();
    let connection = tokio::spawn(connection);
    let kept = client.prepare(&format!("SELECT '{name} got ' || $1::text")).await.unwrap();
    let mut checked = 0;
    let mut n = 0u64;
    while Instant::now() < until {
        n += 1;
        let marks: Vec<String> = (0..8).map(|i| format!("{name}/{n}.{i}")).collect();
        // Concurrent queries of one client are pipelined.
        let ask = async |mark: &String| {
            let row = client.query_one(&kept, &[mark]).await.unwrap();
            assert_eq!(row.get::<_, String>(0), format!("{name} got {mark}"));
        };
        join_all(marks.iter().map(ask)).await;
        let failure = client.query(&format!("SELECT \"{}\"", marks[0]), &[]).await.unwrap_err();
        assert!(failure.as_db_error().unwrap().message().contains(&marks[0]), "{name}: {failure}");
        transaction(&mut client, &marks[1], n).await;
        checked += 12;
    }
    drop(client);
    connection.await.unwrap().unwrap();
    checked
}

async fn transaction(client: &mut Client, mark: &str, n: u64) {
    let transaction = client.transaction().await.unwrap();
    let insert = "INSERT INTO seen VALUES ($1, $2)";
    assert_eq!(transaction.execute(insert, &[&mark, &(n as i64)]).await.unwrap(), 1);
    let sink = transaction.copy_in("COPY seen FROM STDIN").await.unwrap();
    tokio::pin!(sink);
    sink.send(Bytes::from(format!("{mark}\t1\n{mark}\t2\n"))).await.unwrap();
    assert_eq!(sink.finish().await.unwrap(), 2);
    let count = "SELECT count(*) FROM seen WHERE owner = $1";
    assert_eq!(transaction.query_one(count, &[&mark]).await.unwrap().get::<_, i64>(0), 3);
    transaction.rollback().await.unwrap();
    assert_eq!(client.query_one(count, &[&mark]).await.unwrap().get::<_, i64>(0), 0);
}

fn config(cluster: &Cluster) -> String {
    format!(
        "[listen]\nport = {{port}}\nauth_type = \"trust\"\n[stats]\naddress = \"127.0.0.1:{{stats_port}}\"\n\
         [pool]\ndefault_pool_size = {SERVERS}\nlanes = true\nlane_fast = \"50ms\"\n[databases.{DATABASE}]\n{}[users.{USER}]\npassword = \"{PASSWORD}\"\n",
        cluster.config_lines()
    )
}

/// Holds a lock on what others read, again and again, for longer than anybody rides behind.
fn lock(cluster: &Cluster, until: Instant) {
    let mut client = cluster.primary().admin(DATABASE).unwrap();
    while Instant::now() < until {
        client.query("BEGIN; LOCK TABLE seen IN ACCESS EXCLUSIVE MODE; SELECT pg_sleep(0.04); COMMIT").unwrap();
        thread::sleep(Duration::from_millis(300));
    }
}

fn run(cluster: &Cluster, port: u16) -> u64 {
    let until = Instant::now() + duration();
    let checked = Arc::new(AtomicU64::new(0));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    thread::scope(|scope| {
        scope.spawn(|| lock(cluster, until));
        for number in CLIENTS..CLIENTS + ALONE {
            let checked = Arc::clone(&checked);
            scope.spawn(move || {
                let mut bare = Bare::alone(number, port);
                while Instant::now() < until {
                    bare.turn_alone();
                }
                checked.fetch_add(bare.leave(), Ordering::Relaxed);
            });
        }
        for number in 0..CLIENTS / 2 {
            let checked = Arc::clone(&checked);
            scope.spawn(move || {
                let mut bare = Bare::new(number, port);
                while Instant::now() < until {
                    bare.turn();
                }
                checked.fetch_add(bare.leave(), Ordering::Relaxed);
            });
        }
        let tasks: Vec<_> = (0..CLIENTS / 2)
            .map(|number| runtime.spawn(async move { timeout(duration() * 3, driver(number, port, until)).await }))
            .collect();
        for task in tasks {
            checked.fetch_add(
                runtime.block_on(task).unwrap().expect("a client waits for an answer that does not come"),
                Ordering::Relaxed,
            );
        }
    });
    checked.load(Ordering::Relaxed)
}

#[test]
fn fifty_clients_on_five_servers_see_only_their_own() {
    let cluster = Cluster::builder().sql(TABLE).start().unwrap();
    let (proxy, port) = if std::env::var_os("DIRECT").is_some() {
        (None, cluster.primary().port())
    } else {
        let proxy = Pgweir::start(&config(&cluster)).unwrap();
        let port = proxy.port();
        (Some(proxy), port)
    };
    let checked = run(&cluster, port);
    println!("{checked} answers checked");
    assert!(checked > 5_000, "only {checked} answers: too few to prove anything");
    let left = cluster.primary().value_in(DATABASE, "SELECT count(*) FROM seen").unwrap();
    assert_eq!(left, "0", "rows of a rolled back transaction were kept");
    if let Some(proxy) = proxy {
        let count = |what: &str| {
            let samples = integration::metrics::parse(&proxy.metrics().unwrap()).unwrap();
            let of = |sample: &&integration::metrics::Sample| sample.name == format!("pgweir_pool_lane_{what}_total");
            samples.iter().filter(of).map(|sample| sample.value).sum::<f64>()
        };
        let (rides, stalls) = (count("rides"), count("stalls"));
        println!("{rides} of them shared a server, {stalls} stalls");
        assert!(
            rides > 500.0 && (stalls > 0.0 || std::env::var_os("PGWEIR_LONG").is_none()),
            "{rides} rides and {stalls} stalls: too few to prove anything"
        );
        let servers = cluster.primary().counters(DATABASE).unwrap().backends;
        assert!(servers <= SERVERS as u64 + 1, "{servers} server connections, pool size {SERVERS}");
    }
}
