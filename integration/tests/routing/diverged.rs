//! A replica that went on without the others: it has what nobody else has, and not what the others have.
//! It must never take for agreement what lies before the fork.

use integration::{Cluster, DATABASE, Stop};

use crate::common::{Client, Conf, eventually, metric};
use crate::sight::pause;

#[test]
fn a_replica_past_the_fork_of_a_promotion_serves_nobody() {
    let sql = "CREATE TABLE t (id int, v int); INSERT INTO t VALUES (1, 0); GRANT ALL ON t TO app;
        CREATE TABLE ballast (x text)";
    let cluster = Cluster::builder().replicas(2).sql(sql).start().unwrap();
    let pgweir = Conf::trust(&cluster).size(3).start();
    let mut client = Client::connect(pgweir.port());
    let [promoted, strays] = [0, 1].map(|n| &cluster.replicas()[n]);
    let up = |host: &str| metric(&pgweir, "pgweir_pool_transactions_total", &[("host", host)]) > 0.0;
    eventually("both replicas take reads", || {
        client.query("SELECT v FROM t").unwrap();
        up(&promoted.address()) && up(&strays.address())
    });
    // One gets no more, the other does.
    promoted.query("ALTER SYSTEM SET primary_conninfo = ''").unwrap();
    promoted.query("SELECT pg_reload_conf()").unwrap();
    promoted.wait_true("SELECT NOT EXISTS (SELECT FROM pg_stat_wal_receiver)").unwrap();
    cluster
        .primary()
        .query_in(DATABASE, "INSERT INTO ballast SELECT repeat('x', 1000) FROM generate_series(1, 5000)")
        .unwrap();
    let position = cluster.primary().position().unwrap();
    strays.wait_true(&format!("SELECT pg_last_wal_replay_lsn() >= '{position}'")).unwrap();
    cluster.primary().stop(Stop::Immediate).unwrap();
    promoted.promote().unwrap();
    eventually("it takes writes", || client.query("UPDATE t SET v = 0").is_ok());
    for v in 1..60 {
        client.query(&format!("UPDATE t SET v = {v}")).unwrap();
        for _ in 0..5 {
            assert_eq!(client.query("SELECT v FROM t"), Ok(vec![vec![v.to_string()]]));
        }
    }
    assert!(pgweir.log().contains("may follow an older timeline"), "{}", pgweir.log());
}

#[test]
fn who_waited_for_a_replica_in_vain_does_not_wait_again_at_once() {
    let sql = "CREATE TABLE t (id int, v int); INSERT INTO t VALUES (1, 0); GRANT ALL ON t TO app";
    let cluster = Cluster::builder().replicas(1).sql(sql).start().unwrap();
    let pgweir = Conf::trust(&cluster).size(3).pool("read_wait = \"200ms\"").start();
    let mut client = Client::connect(pgweir.port());
    eventually("the replica takes reads", || {
        client.query("SELECT v FROM t").unwrap();
        metric(&pgweir, "pgweir_pool_transactions_total", &[("role", "replica")]) > 0.0
    });
    pause(&cluster, 0, true);
    client.query("UPDATE t SET v = 1").unwrap();
    // A read on the primary alone shows what the replica lacks.
    let began = std::time::Instant::now();
    for _ in 0..100 {
        assert_eq!(client.query("SELECT v FROM t"), Ok(vec![vec!["1".to_owned()]]));
    }
    // Waiting each time it would be 20 s.
    let took = began.elapsed();
    assert!(took.as_secs() < 8, "{took:?}");
}
