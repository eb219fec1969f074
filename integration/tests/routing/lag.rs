//! Replicas that are behind, really: replay that was paused, or is delayed by the server itself.
//! It must never wait for time to pass where a number tells that it has.

use crate::common::{Client, Conf, eventually, metric};
use crate::{mark, runs, start_cluster, start_with};
use integration::{Cluster, Pgweir, Postgres};

fn lag(pgweir: &Pgweir, what: &str, host: &Postgres) -> f64 {
    metric(pgweir, &format!("pgweir_host_replay_lag_{what}"), &[("host", &host.address())])
}

/// Somebody writes, and not through pgweir.
fn write(cluster: &Cluster) {
    cluster.primary().query_in("app", "UPDATE fish SET name = name || '.' WHERE id = 1").unwrap();
}

/// Where reads of new clients run.
fn reads(cluster: &Cluster, pgweir: &Pgweir, name: &str, count: usize) -> Vec<usize> {
    let mark = mark(name);
    for _ in 0..count {
        Client::connect(pgweir.port()).query(&format!("SELECT 1 {mark}")).unwrap();
    }
    runs(cluster, &mark)
}

#[test]
fn a_replica_that_is_behind_too_long_takes_no_reads() {
    let cluster = start_cluster();
    let conf = Conf::trust(&cluster).size(5).database("max_replica_lag = \"1s\"");
    let (pgweir, _client) = start_with(&cluster, &conf);
    let (slow, other) = (&cluster.replicas()[0], &cluster.replicas()[1]);
    slow.query("SELECT pg_wal_replay_pause()").unwrap();
    // Nobody writes: nobody is behind, however long ago the last write was.
    let counts = reads(&cluster, &pgweir, "idle", 40);
    assert!(counts[0] == 0 && counts[1] > 0 && counts[2] > 0, "{counts:?}");
    write(&cluster);
    eventually("it is seen to be behind", || lag(&pgweir, "seconds", slow) > 1.0);
    let counts = reads(&cluster, &pgweir, "behind", 40);
    assert_eq!((counts[0], counts[1], counts[2]), (0, 0, 40));
    assert!(lag(&pgweir, "bytes", slow) > 0.0);
    // The primary has been idle since; who has everything is not behind.
    eventually("more time passes", || lag(&pgweir, "seconds", slow) > 2.5);
    assert_eq!((lag(&pgweir, "seconds", other), lag(&pgweir, "bytes", other)), (0.0, 0.0));
    slow.query("SELECT pg_wal_replay_resume()").unwrap();
    eventually("it takes reads again", || reads(&cluster, &pgweir, "again", 4)[1] > 0);
    assert_eq!(lag(&pgweir, "seconds", slow), 0.0);
}

#[test]
fn a_replica_that_is_too_many_bytes_behind_takes_no_reads() {
    let cluster = start_cluster();
    let conf = Conf::trust(&cluster).size(5).database("max_replica_lag_bytes = \"64KiB\"");
    let (pgweir, _client) = start_with(&cluster, &conf);
    let slow = &cluster.replicas()[0];
    slow.query("SELECT pg_wal_replay_pause()").unwrap();
    write(&cluster);
    eventually("it is a little behind", || lag(&pgweir, "bytes", slow) > 0.0);
    let counts = reads(&cluster, &pgweir, "little", 40);
    assert!(counts[1] > 0, "{counts:?}");
    cluster.primary().query_in("app", "CREATE TABLE much AS SELECT * FROM generate_series(1, 10000)").unwrap();
    eventually("it is far behind", || lag(&pgweir, "bytes", slow) > 65_536.0);
    assert_eq!(reads(&cluster, &pgweir, "much", 40)[1], 0);
    slow.query("SELECT pg_wal_replay_resume()").unwrap();
    eventually("it takes reads again", || reads(&cluster, &pgweir, "again", 4)[1] > 0);
}

/// What the server itself delays is what is measured, on another clock.
#[test]
fn lag_in_time_is_how_long_replay_is_delayed() {
    let cluster = start_cluster();
    let (pgweir, _client) = start_with(&cluster, &Conf::trust(&cluster).size(5));
    let slow = &cluster.replicas()[0];
    slow.query("ALTER SYSTEM SET recovery_min_apply_delay = '3s'").unwrap();
    slow.query("SELECT pg_reload_conf()").unwrap();
    let mut seen = Vec::new();
    // Somebody writes all the time, so that without the delay there would be none.
    eventually("the delay has set in", || {
        write(&cluster);
        seen.push(lag(&pgweir, "seconds", slow));
        seen.iter().filter(|lag| **lag > 2.5).count() > 20
    });
    let most = seen.iter().copied().fold(0.0, f64::max);
    println!("{most} s at most");
    // One check more, and what a loaded machine adds.
    assert!(most < 6.0, "{seen:?}");
    assert!(lag(&pgweir, "seconds", &cluster.replicas()[1]) < 2.0);
}

#[test]
fn reads_fail_without_a_replica_if_they_are_to() {
    let cluster = start_cluster();
    let fails = Conf::trust(&cluster).size(5).database("max_replica_lag = \"1s\"\nno_replica = \"fail\"");
    let (pgweir, mut client) = start_with(&cluster, &fails);
    for replica in cluster.replicas() {
        replica.query("SELECT pg_wal_replay_pause()").unwrap();
    }
    // Who waits for what it has written itself reads from the primary: there are replicas.
    client.query("UPDATE fish SET name = 'x' WHERE id = 1").unwrap();
    assert_eq!(client.value("SELECT name FROM fish WHERE id = 1"), "x");
    eventually("none is near enough", || {
        Client::connect(pgweir.port())
            .query("SELECT 1")
            .is_err_and(|error| error.contains("57P03") && error.contains("no replica may serve"))
    });
    // A write is no read, and who wants the primary gets it.
    client.query("UPDATE fish SET name = 'y' WHERE id = 1").unwrap();
    assert_eq!(client.value("/* pgweir: primary */ SELECT name FROM fish WHERE id = 1"), "y");
    let falls_back = Conf::trust(&cluster).size(5).database("max_replica_lag = \"1s\"");
    pgweir.reload(&falls_back.text()).unwrap();
    let mark = mark("falls back");
    eventually("the primary reads", || {
        let _ = Client::connect(pgweir.port()).query(&format!("SELECT 1 {mark}"));
        runs(&cluster, &mark)[0] > 0
    });
    assert_eq!(runs(&cluster, &mark)[1..], [0, 0]);
    for replica in cluster.replicas() {
        replica.query("SELECT pg_wal_replay_resume()").unwrap();
    }
    eventually("replicas read again", || reads(&cluster, &pgweir, "again", 4)[1..].iter().sum::<usize>() > 0);
}
