//! What a replica cannot run, the primary runs, and the client does not notice.
//! It must never be the client's repetition that succeeds.

use crate::common::client::{outcome, tags};
use crate::common::{Client, Conf, eventually, metric};
use crate::{Went, cluster, mark, runs, start, start_cluster, start_with, went};
use integration::wire::Script;
use integration::{Cluster, Pgweir};

const REFUSALS: &str = "pgweir_pool_replica_refusals_total";

fn refusals(pgweir: &Pgweir) -> f64 {
    metric(pgweir, REFUSALS, &[])
}

fn pause(cluster: &Cluster, function: &str) {
    for replica in cluster.replicas() {
        replica.query(&format!("SELECT {function}()")).unwrap();
    }
}

/// A writing statement that somebody took for a read is refused once; then it is known.
#[test]
fn what_a_replica_refuses_is_remembered() {
    let (pgweir, mut client) = start();
    let wished = mark("pgweir: replica") + &mark("refused once");
    let sql = format!("{wished} SELECT nextval('counter') > 0 AS yes, 'remembered' AS word");
    for _ in 0..5 {
        assert_eq!(client.query(&sql).unwrap(), [["t", "remembered"]]);
    }
    let runs = runs(cluster(), &wished);
    assert_eq!((runs[0], runs[1] + runs[2]), (5, 1), "{runs:?}");
    assert_eq!(refusals(&pgweir), 1.0);
}

/// If rows have left before a replica refuses, the client sees the error: once.
#[test]
fn what_a_replica_refuses_late_is_remembered_too() {
    let (_pgweir, mut client) = start();
    let wished = mark("pgweir: replica") + &mark("refused late");
    let sql =
        format!("{wished} SELECT CASE WHEN n = 50000 THEN nextval('counter') END FROM generate_series(1, 50000) n");
    let error = client.query(&sql).unwrap_err();
    assert!(error.starts_with("25006"), "{error}");
    assert_eq!(client.query(&sql).unwrap().len(), 50_000);
    assert_eq!(went(cluster(), &wished), Went::Both);
}

/// What was prepared on a replica and is outdated there is prepared anew there.
#[test]
fn results_that_change_their_type() {
    let cluster = start_cluster();
    let (pgweir, mut client) = start_with(&cluster, &Conf::trust(&cluster).size(1));
    let all = mark("all of it");
    let parse = Script::new().parse("a", &format!("{all} SELECT * FROM fish WHERE id = 7")).sync();
    assert_eq!(tags(&client.run(&parse)), "1Z");
    let read = Script::new().bind("", "a", &[]).execute("", 0).sync();
    for _ in 0..4 {
        assert_eq!(outcome(&client.run(&read)).unwrap(), [["7", "fish 7"]]);
    }
    cluster.primary().query_in("app", "ALTER TABLE fish ADD COLUMN size int DEFAULT 3").unwrap();
    cluster.wait_caught_up().unwrap();
    for _ in 0..4 {
        assert_eq!(outcome(&client.run(&read)).unwrap(), [["7", "fish 7", "3"]]);
    }
    assert_eq!((went(&cluster, &all), refusals(&pgweir)), (Went::Replicas, 0.0));
}

/// In every form of the extended protocol, names and parameters included; and what was prepared stays usable.
#[test]
fn batches_of_the_extended_protocol() {
    let (pgweir, mut client) = start();
    let sql = format!("{} SELECT setval('counter', $1::int), $2", mark("pgweir: replica"));
    let unnamed =
        Script::new().parse("", &sql).bind("", "", &[Some("500"), Some("a")]).describe(b'P', "").execute("", 0);
    let frames = client.run(&unnamed.sync());
    assert_eq!((tags(&frames).as_str(), outcome(&frames).unwrap()), ("12TDCZ", vec![vec!["500".into(), "a".into()]]));
    let other = sql.replace("$2", "$2 AS named");
    // This one has written nothing, so that replicas may serve it.
    let mut client = Client::connect(pgweir.port());
    let named =
        Script::new().parse("n", &other).describe(b'S', "n").bind("", "n", &[Some("501"), Some("b")]).execute("", 0);
    let frames = client.run(&named.sync());
    assert_eq!((tags(&frames).as_str(), outcome(&frames).unwrap()), ("1tT2DCZ", vec![vec!["501".into(), "b".into()]]));
    let again = Script::new().bind("", "n", &[Some("502"), Some("c")]).execute("", 0).sync();
    assert_eq!(outcome(&client.run(&again)).unwrap(), [["502", "c"]]);
    assert_eq!(refusals(&pgweir), 2.0);
}

/// An error that the primary would report as well is reported once, by the primary.
#[test]
fn errors_are_the_primarys() {
    let (pgweir, mut client) = start();
    let missing = mark("no such column");
    let error = client.query(&format!("{missing} SELECT no_such_column FROM fish")).unwrap_err();
    assert!(error.starts_with("42703"), "{error}");
    // Statements are logged before they are looked at.
    assert_eq!(went(cluster(), &missing), Went::Both);
    let divided = mark("divided by zero");
    // One that the primary has shown nothing, which a busy replica might not have yet.
    let mut client = Client::connect(pgweir.port());
    assert!(client.query(&format!("{divided} SELECT 1 / (id - id) FROM fish")).unwrap_err().starts_with("22012"));
    assert_eq!(went(cluster(), &divided), Went::Replicas);
}

/// What somebody else has just made is not on a replica that is behind: it is read from the primary, which has it.
#[test]
fn tables_and_columns_that_replicas_do_not_have_yet() {
    let cluster = start_cluster();
    let (pgweir, mut client) = start_with(&cluster, &Conf::trust(&cluster).size(3));
    // Each its own: what one was shown by the primary it does not look for elsewhere.
    let (mut second, mut third) = (Client::connect(pgweir.port()), Client::connect(pgweir.port()));
    pause(&cluster, "pg_wal_replay_pause");
    let sql = "CREATE TABLE pike (id int); INSERT INTO pike VALUES (7); GRANT ALL ON pike TO app; CREATE SCHEMA lake;
        ALTER TABLE fish ADD COLUMN colour text DEFAULT 'red'";
    cluster.primary().query_in("app", sql).unwrap();
    assert_eq!(client.value("SELECT id FROM pike"), "7");
    assert_eq!(second.value("SELECT colour FROM fish WHERE id = 3"), "red");
    let script = Script::new().parse("p", "SELECT id + $1::int FROM pike").bind("", "p", &[Some("1")]).execute("", 0);
    assert_eq!(outcome(&third.run(&script.sync())).unwrap(), [["8"]]);
    // A table that the catalog does not have yet is not even looked for there.
    assert!((1.0..=3.0).contains(&refusals(&pgweir)));
    pause(&cluster, "pg_wal_replay_resume");
    cluster.wait_caught_up().unwrap();
    // Not for ever: such a refusal is no reason to stay away.
    let later = mark("later");
    eventually("replicas read it", || {
        assert_eq!(client.value(&format!("{later} SELECT id FROM pike")), "7");
        went(&cluster, &later) != Went::Primary
    });
}

/// A read in the way of replay is cancelled there.
#[test]
fn reads_that_replay_cancels() {
    let cluster = start_cluster();
    for replica in cluster.replicas() {
        replica.query("ALTER SYSTEM SET max_standby_streaming_delay = 0").unwrap();
        replica.query("SELECT pg_reload_conf()").unwrap();
    }
    let (pgweir, mut client) = start_with(&cluster, &Conf::trust(&cluster).size(3));
    let slow = mark("slow");
    client.send(&Script::new().query(&format!("{slow} SELECT count(*) FROM fish, pg_sleep(1)")));
    eventually("it runs", || went(&cluster, &slow) == Went::Replicas);
    cluster.primary().query_in("app", "BEGIN; LOCK TABLE fish IN ACCESS EXCLUSIVE MODE; COMMIT").unwrap();
    assert_eq!(outcome(&client.ready(1)).unwrap(), [["100"]]);
    assert_eq!((refusals(&pgweir), went(&cluster, &slow)), (1.0, Went::Both));
}

/// Requests sent without waiting for answers: each is answered once, in order.
#[test]
fn what_comes_behind_waits() {
    let (_pgweir, mut client) = start();
    let reads = |n: usize| format!("SELECT {n} FROM fish WHERE id = 1");
    let writes = |n: usize| format!("/* pgweir: replica */ SELECT {n} + 0 * setval('counter', 900 + {n})");
    let mut script = Script::new();
    for n in 0..30 {
        script = script.query(&if n % 3 == 1 { writes(n) } else { reads(n) });
    }
    client.send(&script);
    for n in 0..30 {
        assert_eq!(outcome(&client.ready(1)).unwrap(), [[n.to_string()]]);
    }
}

/// A client's settings that a replica does not accept yet are no reason to end the client.
#[test]
fn settings_that_replicas_do_not_know_yet() {
    let cluster = start_cluster();
    let (_pgweir, mut client) = start_with(&cluster, &Conf::trust(&cluster).size(3));
    pause(&cluster, "pg_wal_replay_pause");
    cluster
        .primary()
        .query_in("app", "CREATE ROLE angler; GRANT angler TO app; GRANT SELECT ON fish TO angler")
        .unwrap();
    let mut other = Client::connect(_pgweir.port());
    client.query("SET ROLE angler").unwrap();
    for _ in 0..4 {
        assert_eq!(client.value("SELECT current_user FROM fish WHERE id = 1"), "angler");
        assert_eq!(other.value("SELECT current_user FROM fish WHERE id = 1"), "app");
    }
    pause(&cluster, "pg_wal_replay_resume");
}
