//! What the text of a statement does not tell: views, functions, operators, policies and tables, by the database's catalog.
//! It must never accept a right answer from the wrong server.

use std::process::Command;

use crate::common::client::outcome;
use crate::common::{Client, Conf, eventually, metric};
use crate::{Went, mark, runs, until_read, went};
use integration::wire::Script;
use integration::{Cluster, Pgweir};

const SCHEMA: &str = "
CREATE TABLE fish (id int PRIMARY KEY, name text); INSERT INTO fish SELECT n, 'fish ' || n FROM generate_series(1, 100) n;
CREATE TABLE notes (t text); CREATE SEQUENCE numbers; CREATE TABLE x_seq (id int); INSERT INTO x_seq VALUES (1);
CREATE UNLOGGED TABLE fast (id int); CREATE TABLE parent (id int); CREATE UNLOGGED TABLE child () INHERITS (parent);
CREATE TABLE parted (id int) PARTITION BY RANGE (id);
CREATE TABLE parted_1 PARTITION OF parted FOR VALUES FROM (0) TO (10);
CREATE UNLOGGED TABLE parted_2 PARTITION OF parted FOR VALUES FROM (10) TO (20);
CREATE TABLE whole (id int) PARTITION BY RANGE (id); CREATE TABLE whole_1 PARTITION OF whole FOR VALUES FROM (0) TO (10);
CREATE EXTENSION file_fdw; CREATE SERVER files FOREIGN DATA WRAPPER file_fdw;
CREATE FOREIGN TABLE far (a text) SERVER files OPTIONS (filename '/dev/null', format 'csv');
CREATE VIEW over_far AS SELECT count(*) FROM far;
CREATE VIEW locking AS SELECT id FROM fish WHERE id = 1 FOR UPDATE; CREATE VIEW over_locking AS SELECT * FROM locking;
CREATE VIEW drawing AS SELECT nextval('numbers') > 0 AS n; CREATE VIEW node AS SELECT pg_is_in_recovery() AS standby;
CREATE VIEW stats AS SELECT count(*) > 0 FROM pg_stat_activity; CREATE VIEW at AS SELECT is_called FROM numbers;
CREATE VIEW plain AS SELECT count(*) FROM fish; CREATE VIEW over_plain AS SELECT * FROM plain;
CREATE VIEW dice AS SELECT random() < 2 AS yes; CREATE VIEW schemas AS SELECT count(*) > 0 FROM information_schema.schemata;
CREATE MATERIALIZED VIEW kept AS SELECT nextval('numbers') AS n, pg_is_in_recovery() AS standby;
CREATE FUNCTION pure(int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT $1 + 1';
CREATE FUNCTION looks() RETURNS bigint LANGUAGE sql STABLE AS 'SELECT count(*) FROM fish';
CREATE FUNCTION scans() RETURNS bigint LANGUAGE plpgsql AS 'BEGIN RETURN (SELECT count(*) FROM fish); END';
CREATE FUNCTION writes() RETURNS text LANGUAGE plpgsql AS 'BEGIN INSERT INTO notes VALUES (1); RETURN ''w''; END';
CREATE FUNCTION swallows() RETURNS text LANGUAGE plpgsql AS
  'BEGIN INSERT INTO notes VALUES (1); RETURN ''w''; EXCEPTION WHEN OTHERS THEN RETURN ''swallowed''; END';
CREATE FUNCTION draws() RETURNS text LANGUAGE plpgsql STABLE AS 'BEGIN PERFORM nextval(''numbers''); RETURN ''d''; END';
CREATE FUNCTION wraps() RETURNS text LANGUAGE sql STABLE AS 'SELECT draws()';
CREATE FUNCTION other() RETURNS int LANGUAGE sql STABLE SECURITY DEFINER AS 'SELECT 1';
CREATE FUNCTION dynamic() RETURNS int LANGUAGE plpgsql STABLE AS 'DECLARE n int; BEGIN EXECUTE ''SELECT '' || 1 INTO n; RETURN n; END';
CREATE FUNCTION tree() RETURNS bigint LANGUAGE sql STABLE RETURN (SELECT count(*) FROM fish);
CREATE FUNCTION tree_locks() RETURNS int LANGUAGE sql BEGIN ATOMIC SELECT id FROM fish WHERE id = 1 FOR UPDATE; END;
CREATE FUNCTION tree_writes() RETURNS text LANGUAGE sql BEGIN ATOMIC INSERT INTO notes VALUES (1) RETURNING 'w'; END;
CREATE FUNCTION tree_node() RETURNS bool LANGUAGE sql STABLE RETURN pg_is_in_recovery();
CREATE FUNCTION advisory() RETURNS text LANGUAGE sql AS 'SELECT ''l'' FROM (SELECT pg_advisory_xact_lock(4711)) x';
CREATE FUNCTION lies() RETURNS bool LANGUAGE plpgsql IMMUTABLE AS 'BEGIN RETURN pg_is_in_recovery(); END';
CREATE FUNCTION same(int, int) RETURNS bool LANGUAGE sql IMMUTABLE AS 'SELECT $1 = $2';
CREATE FUNCTION note(int, int) RETURNS text LANGUAGE plpgsql AS 'BEGIN RETURN writes(); END';
CREATE OPERATOR === (LEFTARG = int, RIGHTARG = int, FUNCTION = same);
CREATE OPERATOR !!! (LEFTARG = int, RIGHTARG = int, FUNCTION = note);
CREATE FUNCTION add_up(int, int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT $1 + $2';
CREATE AGGREGATE total(int) (SFUNC = add_up, STYPE = int, INITCOND = '0');
CREATE FUNCTION add_note(int, int) RETURNS int LANGUAGE plpgsql AS 'BEGIN PERFORM writes(); RETURN $1 + $2; END';
CREATE AGGREGATE total_noted(int) (SFUNC = add_note, STYPE = int, INITCOND = '0');
CREATE TABLE guarded (id int); INSERT INTO guarded VALUES (1);
CREATE FUNCTION guard() RETURNS bool LANGUAGE plpgsql AS 'BEGIN INSERT INTO notes VALUES (2); RETURN true; END';
CREATE POLICY guards ON guarded USING (guard()); ALTER TABLE guarded ENABLE ROW LEVEL SECURITY;
CREATE TABLE open_to (id int); CREATE POLICY opens ON open_to USING (id = 1); ALTER TABLE open_to ENABLE ROW LEVEL SECURITY;
CREATE FUNCTION full_name(fish) RETURNS text LANGUAGE plpgsql AS 'BEGIN RETURN writes(); END';
CREATE SCHEMA x; CREATE FUNCTION x.now() RETURNS int LANGUAGE plpgsql AS 'BEGIN INSERT INTO notes VALUES (3); RETURN 3; END';
CREATE TABLE x.fish (id int); INSERT INTO x.fish VALUES (4711); CREATE UNLOGGED TABLE x.notes (t text);
GRANT ALL ON ALL TABLES IN SCHEMA public, x TO app; GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO app;
GRANT ALL ON SCHEMA public, x TO app;";

const P: Went = Went::Primary;
const R: Went = Went::Replicas;

/// Statement, where it runs, its only value if that is to be looked at.
const CASES: &[(&str, Went, &str)] = &[
    // Relations.
    ("SELECT count(*) FROM fish", R, "100"),
    ("SELECT count(*) FROM fast", P, "0"),
    ("SELECT count(*) FROM parent", P, "0"),
    ("SELECT count(*) FROM parted", P, "0"),
    ("SELECT count(*) FROM parted_1", R, "0"),
    ("SELECT count(*) FROM whole", R, "0"),
    ("SELECT count(*) FROM far", P, "0"),
    ("SELECT * FROM over_far", P, "0"),
    ("SELECT last_value > 0 FROM numbers", P, "t"),
    ("SELECT count(*) FROM numbers", P, "1"),
    ("SELECT id FROM x_seq", R, "1"),
    ("WITH a_seq AS (SELECT 5 AS n) SELECT n FROM a_seq", R, "5"),
    ("SELECT id FROM x.fish", R, "4711"),
    ("SELECT count(*) FROM x.notes", P, "0"),
    ("TABLE made_up", P, "!42P01"),
    // Views.
    ("SELECT * FROM plain", R, "100"),
    ("SELECT * FROM over_plain", R, "100"),
    ("SELECT * FROM dice", R, "t"),
    ("SELECT standby FROM kept", R, "f"),
    ("SELECT * FROM locking", P, "1"),
    ("SELECT * FROM over_locking", P, "1"),
    ("SELECT * FROM drawing", P, "t"),
    ("SELECT * FROM node", P, "f"),
    ("SELECT * FROM stats", P, "t"),
    ("SELECT * FROM schemas", P, "t"),
    ("SELECT * FROM at", P, "t"),
    // Functions.
    ("SELECT pure(1)", R, "2"),
    ("SELECT public.pure(2)", R, "3"),
    ("SELECT looks()", R, "100"),
    ("SELECT * FROM scans()", R, "100"),
    ("SELECT tree()", R, "100"),
    ("SELECT total(id) FROM fish", R, "5050"),
    ("SELECT writes()", P, "w"),
    ("SELECT swallows()", P, "w"),
    ("SELECT draws()", P, "d"),
    ("SELECT wraps()", P, "d"),
    ("SELECT other()", P, "1"),
    ("SELECT dynamic()", P, "1"),
    ("SELECT tree_locks()", P, "1"),
    ("SELECT tree_writes()", P, "w"),
    ("SELECT tree_node()", P, "f"),
    ("SELECT advisory()", P, "l"),
    ("SELECT lies()", P, "f"),
    ("SELECT total_noted(id) FROM fish WHERE id < 3", P, "3"),
    ("SELECT x.now()", P, "3"),
    ("SELECT pg_catalog.now() > '2020-01-01'", R, "t"),
    ("SELECT fish.full_name FROM fish WHERE id = 1", P, "w"),
    ("SELECT made_up(1)", P, "!42883"),
    // Operators and policies.
    ("SELECT 1 === 1", R, "t"),
    ("SELECT 1 OPERATOR(public.===) 2", R, "f"),
    ("SELECT 1 !!! 1", P, "w"),
    ("SELECT id FROM guarded", P, "1"),
    ("SELECT count(*) FROM open_to", R, "0"),
    // EXPLAIN and COPY are judged as what they explain and copy.
    ("EXPLAIN (COSTS OFF) SELECT 1 FROM plain LIMIT 0", R, ""),
    ("EXPLAIN (COSTS OFF) SELECT * FROM locking", P, ""),
    ("COPY (SELECT looks()) TO STDOUT", R, ""),
    ("COPY fish TO STDOUT", R, ""),
    ("COPY numbers TO STDOUT", P, "!42809"),
    ("COPY fast TO STDOUT", P, ""),
    // What section 1.3 of routing-and-cache.md lists beyond these.
    ("SELECT * INTO taken FROM fish", P, ""),
    ("SELECT pg_notify('c', 'x')", P, ""),
    ("SELECT lo_create(0) > 0", P, "t"),
    ("SELECT txid_current() > 0", P, "t"),
    ("SELECT pg_current_xact_id() IS NULL", P, "f"),
    ("SELECT pg_logical_emit_message(true, 'a', 'b') IS NULL", P, "f"),
    ("SELECT pg_catalog.pg_try_advisory_xact_lock(1)", P, "t"),
    ("COPY (SELECT nextval('numbers')) TO STDOUT", P, ""),
    ("COPY fish TO '/nowhere/x.csv'", P, "!42501"),
    ("WITH d AS (UPDATE fish SET name = name WHERE id = 1 RETURNING id) SELECT * FROM d", P, "1"),
    ("WITH d AS (DELETE FROM notes RETURNING *) SELECT count(*) >= 0 FROM d", P, "t"),
    ("SELECT id FROM (SELECT * FROM fish WHERE id = 1 FOR UPDATE) x", P, "1"),
    ("MERGE INTO notes USING fish ON false WHEN MATCHED THEN DELETE", P, ""),
    ("SELECT nextval('numbers') > 0", P, "t"),
    ("SELECT inet_server_addr() IS NULL AND pg_is_in_recovery()", P, "f"),
    ("SELECT count(*) >= 0 FROM pg_stat_activity", P, "t"),
    ("SHOW transaction_read_only", P, "off"),
    ("SELECT current_setting('search_path') <> ''", R, "t"),
    ("SELECT current_setting('transaction_read_only')", P, "off"),
    ("SELECT pg_catalog.current_setting('in_hot_standby', true)", P, "off"),
    ("SELECT current_setting(lower('In_Hot_Standby'))", P, "off"),
    ("SELECT current_setting('app.tenant', true) IS NULL", R, "t"),
    ("TRUNCATE notes", P, ""),
];

fn start_cluster() -> Cluster {
    Cluster::builder().replicas(2).setting("log_statement", "all").sql(SCHEMA).start().unwrap()
}

/// pgweir, and a client whose worker knows the catalog.
fn start(cluster: &Cluster) -> (Pgweir, Client) {
    let pgweir = Conf::trust(cluster).size(3).pool("catalog_refresh = \"1s\"").start();
    let mut client = Client::connect(pgweir.port());
    leaves(cluster, &mut client, "start", "SELECT pure(1)");
    (pgweir, client)
}

/// Waits until this goes to a replica; it may go to the primary until then, but nowhere else fail.
fn leaves(cluster: &Cluster, client: &mut Client, name: &str, sql: &str) {
    let mut attempt = 0;
    eventually(&format!("{sql} leaves the primary ({name})"), || {
        attempt += 1;
        let mark = mark(&format!("{name}, {sql}, {attempt}."));
        client.query(&format!("{mark} {sql}")).unwrap();
        went(cluster, &mark) == Went::Replicas
    });
}

/// Waits until replicas have what the client wrote.
fn settle(cluster: &Cluster, client: &mut Client, name: &str) {
    until_read(cluster, client, name, |runs| runs[1..].iter().any(|count| *count > 0));
}

fn check(sql: &str, expected: &str, got: Result<Vec<Vec<String>>, String>) {
    match (expected.strip_prefix('!'), got) {
        (Some(code), Err(error)) => assert!(error.starts_with(code), "{sql}: {error}"),
        (Some(_), Ok(rows)) => panic!("{sql}: {rows:?}"),
        (None, Ok(rows)) => assert!(expected.is_empty() || rows == [[expected]], "{sql}: {rows:?}"),
        (None, Err(error)) => panic!("{sql}: {error}"),
    }
}

#[test]
fn every_statement_goes_where_it_is_right() {
    let cluster = start_cluster();
    let (_pgweir, mut client) = start(&cluster);
    for (number, (sql, wanted, value)) in CASES.iter().enumerate() {
        let simple = mark(&format!("simple {number}."));
        check(sql, value, client.query(&format!("{simple} {sql}")));
        assert_eq!(went(&cluster, &simple), *wanted, "{sql}");
        if *wanted == P {
            settle(&cluster, &mut client, &format!("simple {number}."));
        }
        if sql.contains(" INTO taken") {
            continue;
        }
        let extended = mark(&format!("extended {number}."));
        let script = Script::new().parse("", &format!("{extended} {sql}")).bind("", "", &[]).execute("", 0).sync();
        check(sql, value, outcome(&client.run(&script)));
        // What fails to be prepared is not logged as executed.
        if !value.starts_with('!') {
            assert_eq!(went(&cluster, &extended), *wanted, "{sql}");
        }
        if *wanted == P {
            settle(&cluster, &mut client, &format!("extended {number}."));
        }
    }
}

/// Batches and transactions of section 1.3 and section 7.
#[test]
fn batches_go_where_all_of_them_are_right() {
    let cluster = start_cluster();
    let (_pgweir, mut client) = start(&cluster);
    let both = mark("read and write");
    client.query(&format!("{both} SELECT 1; INSERT INTO notes VALUES ('x')")).unwrap();
    assert_eq!(went(&cluster, &both), P);
    client.query("BEGIN ISOLATION LEVEL SERIALIZABLE READ ONLY").unwrap();
    let serializable = mark("serializable");
    assert_eq!(client.value(&format!("{serializable} SELECT count(*) FROM fish")), "100");
    client.query("COMMIT").unwrap();
    assert_eq!(went(&cluster, &serializable), P);
    settle(&cluster, &mut client, "serializable");
    // An INSERT that was prepared, by Bind alone, behind a SELECT.
    let insert = mark("prepared insert");
    outcome(&client.run(&Script::new().parse("i", &format!("{insert} INSERT INTO notes VALUES ($1)")).sync())).unwrap();
    settle(&cluster, &mut client, "prepared insert");
    client.query("SELECT count(*) FROM fish").unwrap();
    outcome(&client.run(&Script::new().bind("", "i", &[Some("x")]).execute("", 0).sync())).unwrap();
    assert_eq!(went(&cluster, &insert), P);
    settle(&cluster, &mut client, "inserted");
    // Behind a Flush a write may follow.
    let flushed = mark("flushed");
    let read = Script::new().parse("", &format!("{flushed} SELECT 1")).bind("", "", &[]).execute("", 0).flush();
    client.send(&read);
    let write = Script::new().parse("", "INSERT INTO notes VALUES ('y')").bind("", "", &[]).execute("", 0).sync();
    outcome(&client.run(&write)).unwrap();
    assert_eq!(went(&cluster, &flushed), P);
    // One function that writes keeps the whole batch.
    settle(&cluster, &mut client, "flushed");
    let mixed = mark("mixed");
    let batch = Script::new().parse("", &format!("{mixed} SELECT pure(1)")).bind("", "", &[]).execute("", 0);
    let batch = batch.parse("", "SELECT writes()").bind("", "", &[]).execute("", 0).sync();
    outcome(&client.run(&batch)).unwrap();
    assert_eq!(went(&cluster, &mixed), P);
}

/// Whatever the search_path: all things of a name count. And what is temporary is where it was made.
#[test]
fn names_that_mean_several_things() {
    let cluster = start_cluster();
    let (_pgweir, mut client) = start(&cluster);
    client.query("SET search_path = x, pg_catalog").unwrap();
    leaves(&cluster, &mut client, "other path", "SELECT id FROM fish");
    assert_eq!(client.value("SELECT id FROM fish"), "4711");
    assert_eq!(client.value("SELECT now()"), "3");
    client.query("RESET search_path").unwrap();
    assert_eq!(client.value("SELECT count(*) FROM fish"), "100");
    settle(&cluster, &mut client, "path");
    client.query("CREATE TEMP TABLE fish (id int)").unwrap();
    let shadowed = mark("shadowed");
    assert_eq!(client.value(&format!("{shadowed} SELECT count(*) FROM fish")), "0");
    assert_eq!(went(&cluster, &shadowed), P);
    let copied = mark("copied");
    client.query(&format!("{copied} COPY fish TO STDOUT")).unwrap();
    assert_eq!(went(&cluster, &copied), P);
    client.query("DROP TABLE pg_temp.fish").unwrap();
}

/// Code that is made, replaced and dropped while clients call it: no call fails, none goes where it is wrong.
#[test]
fn code_that_changes() {
    let cluster = start_cluster();
    let (pgweir, mut client) = start(&cluster);
    client.query("CREATE FUNCTION fresh() RETURNS text LANGUAGE sql STABLE AS 'SELECT ''old'''").unwrap();
    leaves(&cluster, &mut client, "made here", "SELECT fresh()");
    let replaced = "CREATE OR REPLACE FUNCTION fresh() RETURNS text LANGUAGE plpgsql VOLATILE AS
        'BEGIN INSERT INTO notes VALUES (''fresh''); RETURN ''new''; END'";
    client.query(replaced).unwrap();
    for round in 0..10 {
        let mark = mark(&format!("replaced {round}."));
        assert_eq!(client.value(&format!("{mark} SELECT fresh()")), "new");
        assert_eq!(went(&cluster, &mark), P);
    }
    assert_eq!(client.value("SELECT count(*) FROM notes"), "10");
    let sql = "CREATE FUNCTION theirs() RETURNS text LANGUAGE sql STABLE AS 'SELECT ''t'''; CREATE TABLE late (id int);
        CREATE SEQUENCE late_numbers; GRANT ALL ON late, late_numbers TO app";
    cluster.primary().query_in("app", sql).unwrap();
    leaves(&cluster, &mut client, "made by others", "SELECT theirs()");
    leaves(&cluster, &mut client, "made by others", "SELECT count(*) FROM late");
    let counted = mark("late numbers");
    client.query(&format!("{counted} SELECT * FROM late_numbers")).unwrap();
    assert_eq!(went(&cluster, &counted), P);
    // A table that becomes unlogged is not on replicas any more.
    cluster.primary().query_in("app", "ALTER TABLE late SET UNLOGGED").unwrap();
    eventually("the table stays", || {
        let mark = mark("unlogged");
        assert_eq!(client.value(&format!("{mark} SELECT count(*) FROM late")), "0");
        metric(&pgweir, "pgweir_pool_catalog_reads_total", &[]) > 3.0 && runs(&cluster, &mark)[0] > 3
    });
}

/// A volatile implicit cast may be in any statement: what leaves the primary is run again there, however long it is.
#[test]
fn a_volatile_cast_leaves_what_can_be_run_again() {
    let cluster = start_cluster();
    let (_pgweir, mut client) = start(&cluster);
    let long = format!("SELECT length('{}')", "x".repeat(20_000));
    leaves(&cluster, &mut client, "long", &long);
    let sql = "CREATE TYPE kind AS ENUM ('a', 'b');
        CREATE FUNCTION to_kind(int) RETURNS kind LANGUAGE plpgsql VOLATILE AS 'BEGIN RETURN ''a''; END';
        CREATE CAST (int AS kind) WITH FUNCTION to_kind(int) AS IMPLICIT";
    cluster.primary().query_in("app", sql).unwrap();
    leaves(&cluster, &mut client, "cast", "SELECT 1::kind");
    leaves(&cluster, &mut client, "long with the cast", &long);
    assert_eq!(client.value(&long), "20000");
}

/// Before the catalog is known nobody can tell that these are not for a standby.
#[test]
fn the_first_statements_of_all_are_right() {
    let cluster = start_cluster();
    for (number, sql) in
        ["SELECT * FROM numbers", "SELECT standby FROM node", "SELECT count(*) FROM far"].iter().enumerate()
    {
        let pgweir = Conf::trust(&cluster).size(3).start();
        let first = mark(&format!("first {number}."));
        Client::connect(pgweir.port()).query(&format!("{first} {sql}")).unwrap();
        assert_eq!(went(&cluster, &first), P, "{sql}");
    }
}

/// Schemas change names, and what was a table's is a sequence's.
#[test]
fn schemas_that_are_renamed() {
    let cluster = start_cluster();
    let sql = "CREATE SCHEMA y; CREATE SEQUENCE y.fish; GRANT ALL ON SCHEMA y TO app; GRANT ALL ON y.fish TO app";
    cluster.primary().query_in("app", sql).unwrap();
    cluster.wait_caught_up().unwrap();
    let (_pgweir, mut client) = start(&cluster);
    leaves(&cluster, &mut client, "before", "SELECT * FROM x.fish");
    let sql = "ALTER SCHEMA x RENAME TO z; ALTER SCHEMA y RENAME TO x; ALTER SCHEMA z RENAME TO y";
    cluster.primary().query_in("app", sql).unwrap();
    leaves(&cluster, &mut client, "after", "SELECT * FROM y.fish");
    let sequence = mark("sequence");
    client.query(&format!("{sequence} SELECT * FROM x.fish")).unwrap();
    assert_eq!(went(&cluster, &sequence), P);
}

/// Where clients only read nobody comes back from the primary: the catalog is asked for nevertheless.
#[test]
fn a_worker_of_readers_asks_for_the_catalog() {
    let cluster = start_cluster();
    let pgweir = Conf::trust(&cluster).size(3).pool("catalog_refresh = \"1s\"").start();
    let mut client = Client::connect(pgweir.port());
    let reads = || metric(&pgweir, "pgweir_pool_catalog_reads_total", &[]);
    eventually("it is read", || reads() > 0.0);
    let before = reads();
    eventually("it is read again and again", || {
        client.query("SELECT count(*) FROM fish").unwrap();
        reads() > before + 1.0
    });
}

#[test]
fn explain_route_asks_the_catalog() {
    let cluster = start_cluster();
    let (pgweir, _client) = start(&cluster);
    let explain = |sql: &str| {
        let mut command = Command::new(integration::proxy::program().unwrap());
        command.arg("explain-route").arg("--config").arg(pgweir.config_file()).args(["--user", "app", sql]);
        String::from_utf8(command.output().unwrap().stdout).unwrap()
    };
    for (sql, verdict, reason) in [
        ("SELECT * FROM fish", "replica", "pure_read"),
        ("SELECT looks()", "replica", "stable_read"),
        ("SELECT * FROM over_locking", "primary", "view_locks_rows"),
        ("SELECT * FROM far", "primary", "foreign_table"),
        ("SELECT * FROM parted", "primary", "unlogged_table"),
        ("SELECT writes()", "primary", "volatile_function"),
        ("SELECT other()", "primary", "security_definer"),
        ("SELECT dynamic()", "primary", "unseen_code"),
        ("SELECT * FROM numbers", "primary", "sequence"),
        ("SELECT * FROM made_up", "primary", "unknown_relation"),
        ("SELECT nextval('numbers')", "primary", "function_denied"),
    ] {
        let told = explain(sql);
        assert!(told.contains(&format!("verdict:   {verdict}\n")), "{sql}:\n{told}");
        assert!(told.contains(&format!("reason:    {reason} (")), "{sql}:\n{told}");
    }
    cluster.primary().stop(integration::Stop::Fast).unwrap();
    let told = explain("SELECT looks()");
    assert!(told.contains("reason:    function_unknown (") && told.contains("the grammar alone decides"), "{told}");
}
