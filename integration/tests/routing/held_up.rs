//! Reads behind locks that replay holds while it stands still.
//! Its servers must never be stopped: a read that is held up has to be found by what it waits for.

use std::time::Duration;

use crate::common::client::outcome;
use crate::common::{Client, Conf, eventually, metric};
use crate::sight::pause;
use crate::{Went, mark, start_cluster, start_with, went};
use integration::DATABASE;
use integration::wire::Script;

#[test]
fn a_read_that_replay_keeps_waiting_runs_on_the_primary() {
    let cluster = start_cluster();
    let (pgweir, mut client) = start_with(&cluster, &Conf::trust(&cluster).size(3));
    let mut writer = cluster.primary().admin(DATABASE).unwrap();
    writer.query("BEGIN; INSERT INTO fish VALUES (101, 'new'); LOCK TABLE fish IN ACCESS EXCLUSIVE MODE").unwrap();
    // A commit sends the log on its way, with the lock in it.
    cluster.primary().query_in(DATABASE, "CREATE TABLE flushed ()").unwrap();
    for (number, replica) in cluster.replicas().iter().enumerate() {
        let locks = "SELECT count(*) > 0 FROM pg_locks WHERE mode = 'AccessExclusiveLock' AND locktype = 'relation'";
        replica.wait_true(locks).unwrap();
        pause(&cluster, number, true);
    }
    writer.query("COMMIT").unwrap();
    // Whoever only takes long is left alone.
    let mut other = Client::connect(pgweir.port());
    let long = mark("only long");
    other.send(&Script::new().query(&format!("{long} /* pgweir: replica */ SELECT pg_sleep(4)::text")));
    let held_up = mark("held up");
    let mut late = Client::connect(pgweir.port());
    assert_eq!(client.value(&format!("{held_up} SELECT count(*) FROM fish")), "101");
    assert_eq!(went(&cluster, &held_up), Went::Both);
    // Who cancels his statement hears that it was.
    let cancelled = mark("cancelled");
    late.send(&Script::new().query(&format!("{cancelled} SELECT max(id) FROM fish")));
    eventually("it waits", || went(&cluster, &cancelled) == Went::Replicas);
    Client::tcp(pgweir.port()).write(&late.cancel_request());
    let frames = late.ready(1);
    assert_eq!(outcome(&frames).unwrap_err().get(..5), Some("57014"));
    assert_eq!(went(&cluster, &cancelled), Went::Replicas);
    other.patience(Duration::from_secs(20));
    assert!(outcome(&other.ready(1)).is_ok());
    assert_eq!(went(&cluster, &long), Went::Replicas);
    assert!(metric(&pgweir, "pgweir_pool_replica_refusals_total", &[]) >= 1.0);
    (0..2).for_each(|replica| pause(&cluster, replica, false));
}
