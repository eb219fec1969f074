//! Single statements, by both protocols: which server runs them.
//! It must never take a statement for a read that could write.

use crate::common::client::{outcome, tags};
use crate::common::{Client, Conf, eventually};
use crate::{Went, cluster, mark, runs, start, went};
use integration::wire::Script;

const READS: &[&str] = &[
    "SELECT * FROM fish WHERE id = 3",
    "SELECT count(*), max(name) FROM fish",
    "SELECT 1",
    "VALUES (1), (2)",
    "TABLE pond",
    "WITH few AS (SELECT * FROM fish WHERE id < 5) SELECT * FROM few",
    "SELECT name FROM fish UNION ALL SELECT 'x' ORDER BY 1 LIMIT 3",
    "SELECT now() > '2020-01-01', upper(name), length(name) FROM fish WHERE id = 1",
    "SELECT (SELECT count(*) FROM fish f WHERE f.id < fish.id) FROM fish LIMIT 1",
    "SELECT 'FOR UPDATE; INSERT INTO fish'",
    "(SELECT 1)",
    "EXPLAIN SELECT * FROM fish",
    "COPY fish TO STDOUT",
    "COPY (SELECT id FROM fish) TO STDOUT (FORMAT csv)",
];

const WRITES: &[&str] = &[
    "INSERT INTO fish VALUES (1, 'x') ON CONFLICT DO NOTHING",
    "UPDATE fish SET name = name WHERE id = 1",
    "DELETE FROM fish WHERE id = -1",
    "SELECT * FROM fish WHERE id = 1 FOR UPDATE",
    "SELECT * FROM fish WHERE id = 1 FOR SHARE",
    "SELECT * FROM (SELECT * FROM fish WHERE id = 1 FOR NO KEY UPDATE) AS inner_one",
    "SELECT nextval('counter')",
    "SELECT 1 WHERE nextval('counter') > 0",
    "WITH gone AS (DELETE FROM fish WHERE id = -1 RETURNING *) SELECT * FROM gone",
    "WITH a AS (SELECT 1), b AS (UPDATE fish SET name = name WHERE id = 2 RETURNING id) SELECT * FROM a, b",
    "SELECT pg_advisory_lock(77), pg_advisory_unlock(77)",
    "SELECT pg_try_advisory_xact_lock(78)",
    "SELECT pg_current_wal_lsn()",
    "SELECT txid_current()",
    "CREATE TABLE IF NOT EXISTS other_fish (n int)",
    "LOCK TABLE fish IN SHARE MODE",
    "ANALYZE fish",
    "DO $$ BEGIN PERFORM 1; END $$",
    "SELECT 1; SELECT 2",
    "SELECT 1; UPDATE fish SET name = name WHERE id = 1",
    "EXPLAIN ANALYZE UPDATE fish SET name = name WHERE id = 1",
    "NOTIFY something",
    "REFRESH MATERIALIZED VIEW nothing_there",
    "TRUNCATE other_than_there",
    "SELECT lo_create(0)",
    "COPY (SELECT nextval('counter')) TO STDOUT",
    "SELECT pg_catalog.pg_try_advisory_lock(79), pg_catalog.pg_advisory_unlock(79)",
    "SELECT set_config('work_mem', '5MB', true)",
];

fn extended(name: &str, sql: &str) -> Script {
    let script = Script::new().parse(name, sql).describe(b'S', name);
    script.bind("", name, &[]).describe(b'P', "").execute("", 0).sync()
}

#[test]
fn reads_go_to_replicas_by_the_simple_protocol() {
    let (_pgweir, mut client) = start();
    for (number, sql) in READS.iter().enumerate() {
        let mark = mark(&format!("simple read {number}"));
        client.query(&format!("{mark} {sql}")).unwrap();
        assert_eq!(went(cluster(), &mark), Went::Replicas, "{sql}");
    }
}

#[test]
fn reads_go_to_replicas_by_the_extended_protocol() {
    let (_pgweir, mut client) = start();
    for (number, sql) in READS.iter().enumerate() {
        let mark = mark(&format!("extended read {number}"));
        outcome(&client.run(&extended("", &format!("{mark} {sql}")))).unwrap();
        assert_eq!(went(cluster(), &mark), Went::Replicas, "{sql}");
    }
}

#[test]
fn prepared_reads_go_to_both_replicas() {
    let (pgweir, mut client) = start();
    let mark = mark("prepared reads");
    let parse = Script::new().parse("s", &format!("{mark} SELECT name FROM fish WHERE id = $1")).sync();
    // One that never stops stays with the replica that it began with: the other may lack what that has shown.
    for round in 1..=40 {
        if round % 2 == 1 {
            client = Client::connect(pgweir.port());
            assert_eq!(tags(&client.run(&parse)), "1Z");
        }
        let id = round.to_string();
        let frames = client.run(&Script::new().bind("", "s", &[Some(&id)]).execute("", 0).sync());
        assert_eq!(outcome(&frames), Ok(vec![vec![format!("fish {id}")]]));
    }
    let runs = runs(cluster(), &mark);
    assert_eq!((runs[0], runs[1] + runs[2]), (0, 40), "{runs:?}");
    assert!(runs[1] > 0 && runs[2] > 0, "{runs:?}");
}

#[test]
fn reads_are_balanced() {
    let (pgweir, mut client) = start();
    let alone = mark("balanced, one client");
    for _ in 0..60 {
        client.query(&format!("{alone} SELECT 1")).unwrap();
    }
    let counts = runs(cluster(), &alone);
    assert_eq!((counts[0], counts[1] + counts[2]), (0, 60), "{counts:?}");
    let many = mark("balanced, many clients");
    let (port, text) = (pgweir.port(), format!("{many} SELECT count(*) FROM fish"));
    crate::common::crowd(12, move |_| {
        let mut client = Client::connect(port);
        for _ in 0..20 {
            assert_eq!(client.value(&text), "100");
        }
    });
    let counts = runs(cluster(), &many);
    assert_eq!((counts[0], counts[1] + counts[2]), (0, 240), "{counts:?}");
    assert!(counts[1] >= 60 && counts[2] >= 60, "{counts:?}");
}

#[test]
fn everything_else_goes_to_the_primary_by_the_simple_protocol() {
    let (_pgweir, mut client) = start();
    for (number, sql) in WRITES.iter().enumerate() {
        let mark = mark(&format!("simple write {number}"));
        // Some fail on the primary too; what counts is where they were tried.
        let _ = client.query(&format!("{mark} {sql}"));
        assert_eq!(went(cluster(), &mark), Went::Primary, "{sql}");
    }
}

#[test]
fn everything_else_goes_to_the_primary_by_the_extended_protocol() {
    let (_pgweir, mut client) = start();
    for (number, sql) in
        WRITES.iter().enumerate().filter(|(_, sql)| !sql.contains(';') && !sql.contains("nothing_there"))
    {
        if sql.contains("other_than_there") || sql.starts_with("DO ") || sql.starts_with("LOCK ") {
            continue;
        }
        let mark = mark(&format!("extended write {number}"));
        let frames = client.run(&extended("", &format!("{mark} {sql}")));
        assert!(outcome(&frames).is_ok(), "{sql}: {:?}", outcome(&frames));
        assert_eq!(went(cluster(), &mark), Went::Primary, "{sql}");
    }
}

/// SELECT INTO and what creates temporary tables: another client would not find them on a replica.
#[test]
fn tables_made_by_a_select_are_made_on_the_primary() {
    let (_pgweir, mut client) = start();
    let into = mark("select into");
    client.query(&format!("{into} SELECT * INTO caught FROM fish WHERE id < 4")).unwrap();
    assert_eq!(went(cluster(), &into), Went::Primary);
    let temporary = mark("temporary");
    client.query(&format!("{temporary} CREATE TEMP TABLE bucket AS SELECT * FROM fish WHERE id < 6")).unwrap();
    let read = mark("read the temporary table");
    assert_eq!(client.value(&format!("{read} SELECT count(*) FROM bucket")), "5");
    assert_eq!(went(cluster(), &read), Went::Primary);
}

/// Settings go with the reads of a session, wherever those go.
#[test]
fn a_session_reads_under_its_settings_on_replicas_too() {
    let (_pgweir, mut client) = start();
    client.query("SET search_path = nowhere, public").unwrap();
    let mut attempt = 0;
    eventually("reads go to replicas", || {
        attempt += 1;
        let read = mark(&format!("read with settings {attempt}."));
        assert_eq!(client.value(&format!("{read} SELECT current_setting('search_path')")), "nowhere, public");
        went(cluster(), &read) == Went::Replicas
    });
}

#[test]
fn routing_off_sends_everything_to_the_primary() {
    let pgweir = Conf::trust(cluster()).database("routing = \"off\"").start();
    let mut client = Client::connect(pgweir.port());
    let mark = mark("routing off");
    for _ in 0..10 {
        client.query(&format!("{mark} SELECT 1")).unwrap();
        outcome(&client.run(&extended("", &format!("{mark} SELECT 2")))).unwrap();
    }
    assert_eq!(runs(cluster(), &mark), [20, 0, 0]);
}

/// The settings of a client's start hold on replicas too.
#[test]
fn settings_hold_on_every_server() {
    let (pgweir, mut other) = start();
    let mut client = Client::connect_with(pgweir.port(), &[("options", "-c app.tenant=seven -c extra_float_digits=0")]);
    let mark = mark("settings");
    for _ in 0..10 {
        let sql = format!("{mark} SELECT current_setting('app.tenant'), current_setting('extra_float_digits')");
        assert_eq!(client.query(&sql), Ok(vec![vec!["seven".to_string(), "0".to_string()]]));
    }
    assert_eq!(went(cluster(), &mark), Went::Replicas);
    for _ in 0..10 {
        assert_eq!(other.value("SELECT coalesce(current_setting('app.tenant', true), '')"), "");
    }
}
