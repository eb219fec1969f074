//! What a session has written or been shown it sees again, wherever it reads.
//! It must never take a replica's lag for granted: replay is stopped where it matters.

use std::time::Instant;

use crate::common::client::{outcome, tags};
use crate::common::{Client, Conf, PATIENCE, eventually, metric};
use crate::{Went, mark, runs, start_cluster, start_with, until_read, went};
use integration::wire::Script;
use integration::{Cluster, DATABASE, Stop};

/// Stops replay, or lets it go on.
pub(crate) fn pause(cluster: &Cluster, replica: usize, pause: bool) {
    let what = if pause { "pg_wal_replay_pause" } else { "pg_wal_replay_resume" };
    let server = &cluster.replicas()[replica];
    server.query(&format!("SELECT {what}()")).unwrap();
    if pause {
        server.wait_true("SELECT pg_get_wal_replay_pause_state() = 'paused'").unwrap();
    }
}

fn conf(cluster: &Cluster) -> Conf {
    Conf::trust(cluster).size(3)
}

/// A read on the primary shows what no replica has: the next one must not go back behind it.
#[test]
fn nobody_travels_back_in_time() {
    let cluster = start_cluster();
    let (pgweir, mut reader) = start_with(&cluster, &conf(&cluster));
    pause(&cluster, 0, true);
    pause(&cluster, 1, true);
    let mut writer = Client::connect(pgweir.port());
    writer.query("UPDATE fish SET name = 'new' WHERE id = 1").unwrap();
    // Its own writes.
    assert_eq!(writer.value("SELECT name FROM fish WHERE id = 1"), "new");
    // Others may see the old or the new, but not the old after the new.
    assert_eq!(reader.value("SELECT name FROM fish WHERE id = 1"), "fish 1");
    assert_eq!(reader.value("/* pgweir: primary */ SELECT name FROM fish WHERE id = 1"), "new");
    for _ in 0..20 {
        assert_eq!(reader.value("SELECT name FROM fish WHERE id = 1"), "new");
    }
    pause(&cluster, 0, false);
    pause(&cluster, 1, false);
    // And it leaves the primary again, though it never stops reading.
    let on = mark("on and on");
    let since = Instant::now();
    while runs(&cluster, &on)[1..] == [0, 0] {
        assert_eq!(reader.value(&format!("{on} SELECT name FROM fish WHERE id = 1")), "new");
        assert!(since.elapsed() < PATIENCE, "it reads from the primary for ever");
    }
}

/// Of two replicas one is behind: who has read from the other does not go there.
#[test]
fn from_replica_to_replica_only_forward() {
    let cluster = start_cluster();
    let (pgweir, _) = start_with(&cluster, &conf(&cluster));
    pause(&cluster, 1, true);
    cluster.primary().query_in(DATABASE, "UPDATE fish SET name = 'new' WHERE id = 2").unwrap();
    cluster.replicas()[0].wait_true("SELECT true").unwrap();
    let mut clients: Vec<Client> = (0..6).map(|_| Client::connect(pgweir.port())).collect();
    let mut seen = vec![false; clients.len()];
    for _ in 0..200 {
        for (client, seen) in clients.iter_mut().zip(&mut seen) {
            let new = client.value("SELECT name FROM fish WHERE id = 2") == "new";
            assert!(new || !*seen, "back in time");
            *seen |= new;
        }
    }
    assert!(seen.iter().any(|seen| *seen));
    pause(&cluster, 1, false);
}

/// What one session wrote another sees if it is told the position.
#[test]
fn a_position_is_passed_on() {
    let cluster = start_cluster();
    let (pgweir, mut other) = start_with(&cluster, &conf(&cluster));
    pause(&cluster, 0, true);
    pause(&cluster, 1, true);
    let mut writer = Client::connect(pgweir.port());
    writer.query("UPDATE fish SET name = 'new' WHERE id = 3").unwrap();
    let position = writer.value("SHOW pgweir.last_lsn");
    assert!(position.contains('/'), "{position}");
    // The same by the extended protocol, as drivers ask that describe a statement before they bind it.
    for name in ["", "lsn"] {
        let ask = Script::new().parse(name, "SHOW pgweir.last_lsn").describe(b'S', name).sync();
        assert_eq!(tags(&writer.run(&ask)), "1tTZ");
        for _ in 0..2 {
            let frames = writer.run(&Script::new().bind("", name, &[]).describe(b'P', "").execute("", 0).sync());
            assert!(outcome(&frames).unwrap()[0][0] >= position, "{position}");
        }
    }
    assert_eq!(other.value("SELECT name FROM fish WHERE id = 3"), "fish 3");
    other.query(&format!("SET pgweir.min_lsn = '{position}'")).unwrap();
    let after = mark("told the position");
    assert_eq!(other.value(&format!("{after} SELECT name FROM fish WHERE id = 3")), "new");
    assert_eq!(went(&cluster, &after), Went::Primary);
    let mut third = Client::connect_with(
        pgweir.port(),
        &[("user", "app"), ("database", DATABASE), ("options", &format!("-c pgweir.min_lsn={position}"))],
    );
    assert_eq!(third.value("SELECT name FROM fish WHERE id = 3"), "new");
    pause(&cluster, 0, false);
    pause(&cluster, 1, false);
}

/// The same where the read calls a function, which the catalog knows to read only.
#[test]
fn nobody_travels_back_in_time_by_way_of_a_function() {
    let cluster = start_cluster();
    let sql = "CREATE FUNCTION first_name() RETURNS text LANGUAGE sql STABLE AS 'SELECT name FROM fish WHERE id = 1'";
    cluster.primary().query_in(DATABASE, sql).unwrap();
    cluster.wait_caught_up().unwrap();
    let (_pgweir, mut reader) = start_with(&cluster, &conf(&cluster));
    let mut round = 0;
    eventually("the function is called on replicas", || {
        round += 1;
        let mark = mark(&format!("function {round}."));
        assert_eq!(reader.value(&format!("{mark} SELECT first_name()")), "fish 1");
        went(&cluster, &mark) == Went::Replicas
    });
    (0..2).for_each(|replica| pause(&cluster, replica, true));
    cluster.primary().query_in(DATABASE, "UPDATE fish SET name = 'new' WHERE id = 1").unwrap();
    assert_eq!(reader.value("/* pgweir: primary */ SELECT first_name()"), "new");
    for _ in 0..5 {
        assert_eq!(reader.value("SELECT first_name()"), "new");
    }
    (0..2).for_each(|replica| pause(&cluster, replica, false));
}

/// Who hears that something was committed finds it.
#[test]
fn a_notification_comes_before_nothing_that_it_tells_of() {
    let cluster = start_cluster();
    let (_pgweir, mut client) = start_with(&cluster, &conf(&cluster));
    client.query("LISTEN ponds").unwrap();
    until_read(&cluster, &mut client, "who listens", |runs| runs[1..].iter().any(|count| *count > 0));
    (0..2).for_each(|replica| pause(&cluster, replica, true));
    assert_eq!(client.value("SELECT name FROM fish WHERE id = 4"), "fish 4");
    cluster.primary().query_in(DATABASE, "UPDATE fish SET name = 'new' WHERE id = 4; NOTIFY ponds").unwrap();
    assert_eq!(client.read().unwrap().tag, b'A');
    for _ in 0..5 {
        assert_eq!(client.value("SELECT name FROM fish WHERE id = 4"), "new");
    }
    (0..2).for_each(|replica| pause(&cluster, replica, false));
    until_read(&cluster, &mut client, "who was told", |runs| runs[1..].iter().any(|count| *count > 0));
}

/// A standby that has crashed begins at its last restart point: what its clients have seen there is not there for now.
#[test]
fn a_replica_that_crashes_takes_nobody_back() {
    let cluster = start_cluster();
    let (pgweir, mut client) = start_with(&cluster, &conf(&cluster));
    let (one, two) = (&cluster.replicas()[0], &cluster.replicas()[1]);
    two.stop(Stop::Fast).unwrap();
    cluster.primary().query("CHECKPOINT").unwrap();
    let written = cluster.primary().position().unwrap();
    one.wait_true(&format!("SELECT pg_last_wal_replay_lsn() >= '{written}'")).unwrap();
    one.query("CHECKPOINT").unwrap();
    client.query("UPDATE fish SET name = 'new' WHERE id = 5").unwrap();
    let name = |client: &mut Client, mark: &str| client.value(&format!("{mark} SELECT name FROM fish WHERE id = 5"));
    let mut round = 0;
    eventually("the replica has it", || {
        round += 1;
        let mark = mark(&format!("before the crash {round}."));
        assert_eq!(name(&mut client, &mark), "new");
        went(&cluster, &mark) == Went::Replicas
    });
    // So that it comes back, and does not have it again soon.
    one.query("ALTER SYSTEM SET recovery_min_apply_delay = '1h'").unwrap();
    one.stop(Stop::Immediate).unwrap();
    one.start().unwrap();
    one.wait_true("SELECT pg_is_in_recovery()").unwrap();
    assert_eq!(one.value_in(DATABASE, "SELECT name FROM fish WHERE id = 5").unwrap(), "fish 5");
    let up = || metric(&pgweir, "pgweir_host_up", &[("host", &one.address())]) > 0.0;
    eventually("it is heard of", up);
    for _ in 0..20 {
        assert_eq!(name(&mut client, ""), "new");
    }
    one.query("ALTER SYSTEM RESET recovery_min_apply_delay").unwrap();
    one.query("SELECT pg_reload_conf()").unwrap();
    until_read(&cluster, &mut client, "has it again", |runs| runs[1] > 0);
}
