//! TRUNCATE through pgweir takes rows away, and with them what was kept of its tables; nothing else.
//! It must never name a table that something else in the same test changes.

use std::time::{Duration, Instant};

use integration::{Cluster, DATABASE, Redis};

use crate::common::{Client, eventually};
use crate::{ask_sql, builder, bypasses, conf, direct, fenced, logical, start};

const TABLES: &str = "CREATE TABLE parent (id int PRIMARY KEY); INSERT INTO parent SELECT generate_series(1, 9);
    CREATE TABLE line (id int PRIMARY KEY, parent int REFERENCES parent); INSERT INTO line SELECT n, n FROM generate_series(1, 9) n;
    CREATE TABLE leaf (id int PRIMARY KEY, line int REFERENCES line); INSERT INTO leaf SELECT n, n FROM generate_series(1, 9) n;
    CREATE TABLE emptied (id int PRIMARY KEY, n int); INSERT INTO emptied VALUES (1, 0);
    CREATE FUNCTION notes() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN UPDATE emptied SET n = n + 1; RETURN NULL; END';
    CREATE TRIGGER notes AFTER TRUNCATE ON leaf EXECUTE FUNCTION notes();
    GRANT ALL ON ALL TABLES IN SCHEMA public TO app";

const READS: [&str; 3] = ["SELECT count(*) FROM mine", "SELECT count(*) FROM line", "SELECT v FROM item WHERE id = 1"];

fn cluster() -> Cluster {
    builder()
        .sql(TABLES)
        .sql(logical::SETUP)
        .setting("wal_level", "logical")
        .sql("ALTER ROLE app REPLICATION")
        .start()
        .unwrap()
}

/// What is good for a time stays for others, as with any write; who has written sees it at once, and what it reads besides is kept.
#[test]
fn it_is_a_write_like_any_other() {
    let cluster = cluster();
    let pgweir = start(&conf(&cluster, "mode = \"on\"\nttl = \"1h\""));
    let (mut reader, mut writer) = (Client::connect(pgweir.port()), Client::connect(pgweir.port()));
    for (script, right) in [
        ("TRUNCATE mine", ["0", "9", "item 1"]),
        ("BEGIN; TRUNCATE mine; INSERT INTO mine VALUES (1, 1); COMMIT", ["1", "9", "item 1"]),
        ("TRUNCATE mine RESTART IDENTITY CASCADE; SELECT 1", ["0", "9", "item 1"]),
        ("/* why */ TRUNCATE ONLY mine, leaf", ["0", "9", "item 1"]),
        ("TRUNCATE parent CASCADE", ["0", "0", "item 1"]),
    ] {
        let before = READS.map(|sql| {
            reader.query(sql).unwrap();
            let (rows, hit) = ask_sql(&pgweir, &mut reader, sql);
            assert!(hit, "{sql}: {:?}", bypasses(&pgweir));
            rows
        });
        writer.query(script).unwrap_or_else(|error| panic!("{script}: {error}"));
        for (sql, before) in READS.iter().zip(before) {
            assert_eq!(ask_sql(&pgweir, &mut reader, sql), (before, true), "{sql} after {script}");
        }
        for (sql, right) in READS.iter().zip(right) {
            let (rows, hit) = ask_sql(&pgweir, &mut writer, sql);
            assert!(!hit && rows == [[right]], "{sql} after {script}: {rows:?}");
        }
    }
}

/// The stream tells of it as it does of rows.
#[test]
fn the_stream_says_what_it_has_emptied() {
    let cluster = cluster();
    let pgweir = start(&logical::logical_conf(&cluster, ""));
    let (mut reader, mut writer) = (Client::connect(pgweir.port()), Client::connect(pgweir.port()));
    READS.iter().for_each(|sql| drop(logical::kept(&pgweir, &mut reader, sql)));
    writer.query("TRUNCATE line CASCADE").unwrap();
    let written = Instant::now();
    assert_eq!(writer.value(READS[1]), "0");
    loop {
        let began = Instant::now();
        if reader.value(READS[1]) == "0" {
            break;
        }
        assert!(began < written + Duration::from_millis(400), "after {:?}", began - written);
    }
    for sql in [READS[0], READS[2]] {
        assert!(ask_sql(&pgweir, &mut reader, sql).1, "{sql}: {:?}", bypasses(&pgweir));
    }
}

/// Where writes are fenced it is what it empties by way of foreign keys, and what triggers do on the way, and no more.
#[test]
fn the_fence_is_around_what_it_empties() {
    let (cluster, redis) = (cluster(), Redis::start().unwrap());
    let (one, two) = (fenced::fenced(&cluster, &redis), fenced::fenced(&cluster, &redis));
    let (mut writer, mut reader) = (Client::connect(one.port()), Client::connect(two.port()));
    let changed = ["SELECT count(*) FROM leaf", "SELECT n FROM emptied"];
    for script in ["TRUNCATE parent CASCADE", "INSERT INTO leaf VALUES (1)", "TRUNCATE leaf"] {
        let before = changed.map(|sql| fenced::kept(&two, &mut reader, sql));
        let others = [READS[0], READS[2]];
        others.iter().for_each(|sql| drop(fenced::kept(&two, &mut reader, sql)));
        writer.query(script).unwrap_or_else(|error| panic!("{script}: {error}"));
        let right = changed.map(|sql| cluster.primary().query_in(DATABASE, sql).unwrap());
        assert_ne!(before, right, "{script}");
        assert_eq!(changed.map(|sql| reader.query(sql).unwrap()), right, "{script}");
        if script.starts_with("TRUNCATE") {
            others.iter().for_each(|sql| fenced::stays(&two, &mut reader, sql, script));
        }
    }
}

/// What comes and goes with a session is nobody else's, and what else changes the schema still voids everything.
#[test]
fn what_changes_the_schema_still_does() {
    let cluster = cluster();
    direct(&cluster, "ALTER TABLE mine OWNER TO app");
    let pgweir = start(&conf(&cluster, "mode = \"on\"\nttl = \"1h\""));
    let (mut reader, mut writer) = (Client::connect(pgweir.port()), Client::connect(pgweir.port()));
    writer.query("CREATE TEMP TABLE own (n int)").unwrap();
    let sql = READS[2];
    eventually("it is kept", || ask_sql(&pgweir, &mut reader, sql).1);
    writer.query("TRUNCATE own").unwrap();
    assert!(ask_sql(&pgweir, &mut reader, sql).1);
    writer.query("BEGIN; TRUNCATE mine; ALTER TABLE mine ADD COLUMN w int; COMMIT").unwrap();
    assert!(!ask_sql(&pgweir, &mut reader, sql).1);
}
