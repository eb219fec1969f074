//! PostgreSQL's own programs through pgweir in transaction mode, on servers that take turns.
//! It must never be enough that they succeed: what they do is compared, and nothing of theirs may stay.

use std::path::Path;

use integration::{Cluster, DATABASE, Pgweir, USER, command, postgres};

use crate::common::{Client, Conf};

const SCHEMA: &str = "
    CREATE SCHEMA shop; CREATE TYPE shop.mood AS ENUM ('good', 'bad');
    CREATE TABLE shop.item (id serial PRIMARY KEY, name text NOT NULL, mood shop.mood, made timestamptz DEFAULT now());
    CREATE INDEX ON shop.item (name);
    INSERT INTO shop.item (name, mood) SELECT 'item ' || n, 'good' FROM generate_series(1, 5000) AS n;
    CREATE TABLE secret (owner name, n float8); ALTER TABLE secret ENABLE ROW LEVEL SECURITY;
    INSERT INTO secret VALUES ('app', 0.1), ('other', 1e-30);
    CREATE VIEW shop.names AS SELECT name FROM shop.item;
    CREATE FUNCTION shop.twice(n int) RETURNS int LANGUAGE sql AS 'SELECT 2 * n';
    SELECT lo_from_bytea(4711, 'large'); CREATE EXTENSION amcheck";

fn run(program: &str, port: u16, arguments: &[&str]) -> String {
    let path = postgres::bin().unwrap().join(program);
    let mut command = command(path).unwrap();
    command.args(["--host=127.0.0.1", &format!("--port={port}"), "--username=boss", "--no-password"]).args(arguments);
    let done = command.output().unwrap();
    let complaint = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success() && complaint.is_empty(), "{program} {arguments:?}: {}: {complaint}", done.status);
    String::from_utf8(done.stdout).unwrap()
}

/// A dump without what differs each time by design.
fn dump(port: u16, database: &str) -> String {
    let text = run("pg_dump", port, &["--dbname", database]);
    text.lines()
        .filter(|line| !line.starts_with("\\restrict") && !line.starts_with("\\unrestrict"))
        .collect::<Vec<_>>()
        .join("\n")
}

/// What a session may differ in from a fresh one.
const STATE: &str = "
    SELECT 'setting', name, setting FROM pg_settings WHERE source = 'session'
    UNION ALL SELECT 'prepared', name, statement FROM pg_prepared_statements WHERE NOT starts_with(name, '__pgweir')
    UNION ALL SELECT 'cursor', name, statement FROM pg_cursors WHERE name <> ''
    UNION ALL SELECT 'channel', c, '' FROM pg_listening_channels() AS c
    UNION ALL SELECT 'lock', objid::text, mode FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()
    UNION ALL SELECT 'temp', relname, '' FROM pg_class WHERE relnamespace = pg_my_temp_schema()
    UNION ALL SELECT 'role', session_user, current_user WHERE current_user <> 'boss' OR session_user <> 'boss'";

/// Every server of the pools of `database` is as it was opened.
fn nothing_stays(cluster: &Cluster, pgweir: &Pgweir, database: &str, after: &str) {
    let open = format!("SELECT count(*) FROM pg_stat_activity WHERE datname = '{database}' AND usename = 'boss'");
    let wanted: usize = cluster.primary().query(&open).unwrap()[0][0].parse().unwrap();
    let mut clients: Vec<_> = (0..wanted.max(1)).map(|_| boss(pgweir, database)).collect();
    let mut seen = std::collections::BTreeSet::new();
    // All at once, so that each has one of its own.
    for client in &mut clients {
        client.query("BEGIN").unwrap();
        seen.insert(client.value("SELECT 0 + pg_backend_pid()"));
        let state = client.query(STATE).unwrap();
        assert!(state.is_empty(), "left by {after} in {database}: {state:?}");
    }
    assert_eq!(seen.len(), clients.len());
    for client in &mut clients {
        client.query("COMMIT").unwrap();
    }
}

fn boss(pgweir: &Pgweir, database: &str) -> Client {
    Client::connect_with(pgweir.port(), &[("user", "boss"), ("database", database)])
}

#[test]
fn programs_of_postgresql_work_and_leave_nothing() {
    let cluster =
        Cluster::builder().sql("CREATE ROLE boss SUPERUSER LOGIN").sql("CREATE DATABASE copy").start().unwrap();
    cluster.primary().query_in(DATABASE, SCHEMA).unwrap();
    let lines = cluster.config_lines();
    let others =
        ["copy", "made", "postgres", "template1"].map(|name| format!("[databases.{name}]\n{lines}")).join("\n");
    let conf = Conf::trust(&cluster).user("boss", "").size(4).pool("server_order = \"rotate\"").rest(&others);
    let pgweir = conf.start();
    let (port, direct) = (pgweir.port(), cluster.primary().port());
    // Servers that have taken turns.
    let mut warm: Vec<_> = (0..4).map(|_| boss(&pgweir, DATABASE)).collect();
    warm.iter_mut().for_each(|client| drop(client.query("BEGIN").unwrap()));
    warm.iter_mut().for_each(|client| drop(client.query("COMMIT").unwrap()));
    drop(warm);

    let whole = dump(direct, DATABASE);
    for _ in 0..2 {
        assert_eq!(dump(port, DATABASE), whole);
        nothing_stays(&cluster, &pgweir, DATABASE, "pg_dump");
    }
    let folder = integration::Run::current().unwrap().root().join(format!("dump-{port}"));
    let folder: &str = Path::to_str(&folder).unwrap();
    run("pg_dump", port, &["--format=directory", "--jobs=3", "--file", folder, "--dbname", DATABASE]);
    nothing_stays(&cluster, &pgweir, DATABASE, "pg_dump --jobs");
    run("pg_restore", port, &["--jobs=3", "--dbname=copy", folder]);
    nothing_stays(&cluster, &pgweir, "copy", "pg_restore");
    assert_eq!(dump(direct, "copy"), whole);
    assert_eq!(dump(port, "copy"), whole);

    run("createdb", port, &["--template=copy", "made"]);
    assert_eq!(dump(port, "made"), whole);
    run("pg_amcheck", port, &["--jobs=2", "--database", DATABASE, "--heapallindexed"]);
    nothing_stays(&cluster, &pgweir, DATABASE, "pg_amcheck");
    run("vacuumdb", port, &["--analyze", "--jobs=2", "--quiet", DATABASE]);
    nothing_stays(&cluster, &pgweir, DATABASE, "vacuumdb");
    run("reindexdb", port, &["--quiet", "--jobs=2", "--schema=shop", DATABASE]);
    nothing_stays(&cluster, &pgweir, DATABASE, "reindexdb");
    run("clusterdb", port, &["--quiet", "--dbname", DATABASE]);
    run("dropdb", port, &["made"]);
    let names = cluster.primary().query("SELECT count(*) FROM pg_database WHERE datname = 'made'").unwrap();
    assert_eq!(names, [["0"]]);
    assert_eq!(dump(port, DATABASE), whole);
    // What the programs have set is nobody else's.
    let mut plain = Client::connect_with(port, &[("user", USER)]);
    assert_eq!(plain.value("SHOW search_path"), "\"$user\", public");
}
