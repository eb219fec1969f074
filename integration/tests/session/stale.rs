//! Prepared statements behind changes of the schema: nobody, who came before or after, meets what was there before.
//! It must never be enough that old statements work: who prepares a text anew gets what a direct connection gets.

use std::sync::OnceLock;

use integration::Cluster;
use integration::wire::{Frame, Script};

use crate::common::{Client, Conf};

fn cluster() -> &'static Cluster {
    static CLUSTER: OnceLock<Cluster> = OnceLock::new();
    CLUSTER.get_or_init(|| Cluster::builder().sql("CREATE DATABASE plain OWNER app").start().unwrap())
}

const SET_UP: &str = "
    DROP FUNCTION IF EXISTS twice(int); DROP FUNCTION IF EXISTS twice(text);
    DROP TABLE IF EXISTS goods; DROP TYPE IF EXISTS size; DROP SCHEMA IF EXISTS later CASCADE;
    CREATE TYPE size AS (wide int); CREATE TABLE goods (n int, s size); INSERT INTO goods VALUES (1, '(2)');
    CREATE OR REPLACE FUNCTION twice(n int) RETURNS int LANGUAGE sql AS 'SELECT 2 * n';
    CREATE SCHEMA later; CREATE TABLE later.goods (n text, s int); INSERT INTO later.goods VALUES ('1', 5)";

const CHANGES: &[&str] = &[
    "ALTER TABLE goods ALTER n TYPE text",
    "ALTER TABLE goods ALTER n TYPE bigint",
    "ALTER TYPE size ADD ATTRIBUTE high int",
    "DROP TABLE goods; CREATE TABLE goods (n text, s int); INSERT INTO goods VALUES ('1', 3)",
    "BEGIN; DROP TABLE goods; CREATE TABLE goods (s text, n numeric); COMMIT",
    "ALTER TABLE goods RENAME n TO m; ALTER TABLE goods ADD n text DEFAULT '1'",
    "DROP FUNCTION twice(int); CREATE FUNCTION twice(n text) RETURNS text LANGUAGE sql AS 'SELECT n || n'",
    "BEGIN; ALTER TABLE goods ALTER n TYPE text; ROLLBACK",
];

const TEXTS: &[&str] = &[
    "SELECT * FROM goods",
    "SELECT n FROM goods WHERE n = $1",
    "INSERT INTO goods (n) VALUES ($1)",
    "SELECT twice($1)",
];

/// What is said of a statement and its run, without where in the sources an error came up.
fn gist(frames: &[Frame]) -> Vec<String> {
    let error = |frame: &Frame| ["C", "M"].map(|code| frame.field(code.as_bytes()[0]).unwrap_or_default()).join(" ");
    // Numbers of tables and types that were made anew are others.
    let told = frames.iter().map(|frame| match frame.tag {
        b'E' => error(frame),
        b'T' => format!("T{}", frame.body[..2].iter().map(u8::to_string).collect::<String>()),
        tag => format!("{} {:?}", char::from(tag), frame.body),
    });
    told.collect()
}

/// Prepares each text under its own name and runs it, batch by batch or all in one write.
fn prepare(client: &mut Client, pipelined: bool) -> Vec<Vec<String>> {
    let batches = TEXTS.iter().enumerate().map(|(number, sql)| {
        let name = format!("s{number}");
        Script::new().parse(&name, sql).describe(b'S', &name).sync()
    });
    let all = batches.chain((0..TEXTS.len()).map(execute));
    if pipelined {
        let bytes: Vec<u8> = all.flat_map(|batch| batch.bytes().to_vec()).collect();
        client.write(&bytes);
        return (0..2 * TEXTS.len()).map(|_| gist(&client.ready(1))).collect();
    }
    all.map(|batch| gist(&client.run(&batch))).collect()
}

fn execute(number: usize) -> Script {
    let values: &[Option<&str>] = if TEXTS[number].contains('$') { &[Some("1")] } else { &[] };
    Script::new().bind("", &format!("s{number}"), values).describe(b'P', "").execute("", 0).sync()
}

#[test]
fn who_prepares_after_a_change_meets_what_is_there_now() {
    for order in ["rotate", "newest"] {
        for (at, change) in CHANGES.iter().enumerate() {
            let pgweir = Conf::trust(cluster())
                .size(3)
                .top("workers = 2")
                .pool(if order == "rotate" { "server_order = \"rotate\"" } else { "" })
                .start();
            let pipelined = at % 2 == 1;
            let connect = |port: u16, database: &str| Client::connect_with(port, &[("database", database)]);
            let mut told = Vec::new();
            for (port, database) in [(pgweir.port(), integration::DATABASE), (cluster().primary().port(), "plain")] {
                let mut first = connect(port, database);
                first.query(SET_UP).unwrap();
                let mut olds: Vec<_> = (0..4).map(|_| connect(port, database)).collect();
                for old in &mut olds {
                    prepare(old, pipelined);
                }
                first.query("DELETE FROM goods WHERE ctid <> (SELECT min(ctid) FROM goods)").unwrap();
                first.query(change).unwrap();
                // Who was there already may prepare a text under another name, or anew.
                let mut old = olds.pop().unwrap();
                old.query("DEALLOCATE ALL").unwrap();
                let again = prepare(&mut old, pipelined);
                first.query("DELETE FROM goods WHERE ctid <> (SELECT min(ctid) FROM goods)").unwrap();
                let new = prepare(&mut connect(port, database), pipelined);
                first.query("DELETE FROM goods WHERE ctid <> (SELECT min(ctid) FROM goods)").unwrap();
                let simple = first.query("SELECT * FROM goods");
                // What was prepared before still runs where a direct connection lets it run.
                let kept: Vec<_> =
                    olds.iter_mut().map(|old| crate::common::client::outcome(&old.run(&execute(0)))).collect();
                told.push((again, new, simple));
                let runs = kept.iter().all(Result::is_ok) || database == "plain";
                assert!(runs, "{change}: the statement of before does not run: {kept:?}");
            }
            assert_eq!(told[0], told[1], "{order}: {change}");
        }
    }
}

/// Names mean something else under another search_path, at once and for what was prepared before.
#[test]
fn a_search_path_changes_what_prepared_names_mean() {
    let pgweir = Conf::trust(cluster()).size(3).pool("server_order = \"rotate\"").start();
    let mut first = Client::connect(pgweir.port());
    first.query("DROP SCHEMA IF EXISTS a, b CASCADE; CREATE SCHEMA a; CREATE SCHEMA b").unwrap();
    first.query("CREATE TABLE a.x (n int); CREATE TABLE b.x (n text, m int); INSERT INTO a.x VALUES (1); INSERT INTO b.x VALUES ('b', 2)").unwrap();
    let mut clients: Vec<_> = (0..4).map(|_| Client::connect(pgweir.port())).collect();
    for path in ["a", "b", "a"] {
        for (number, client) in clients.iter_mut().enumerate() {
            client.query(&format!("SET search_path = {path}")).unwrap();
            if path == "a" && number % 2 == 0 {
                client.query("DEALLOCATE ALL").unwrap();
                client.run(&Script::new().parse("p", "SELECT * FROM x").sync());
            }
        }
        for (number, client) in clients.iter_mut().enumerate() {
            let named = if number % 2 == 0 { "p" } else { "" };
            let script = Script::new();
            let script = if named.is_empty() { script.parse("", "SELECT * FROM x") } else { script };
            let frames = client.run(&script.bind("", named, &[]).describe(b'P', "").execute("", 0).sync());
            let rows = crate::common::client::outcome(&frames).unwrap();
            let expected = if path == "a" { vec!["1"] } else { vec!["b", "2"] };
            assert_eq!(rows, [expected], "{path}, client {number}");
            assert_eq!(client.value("SELECT * FROM x"), rows[0][0]);
        }
    }
}
