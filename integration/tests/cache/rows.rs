//! An answer that reads one row by its key ends when that row changes, and not when another does.
//! It must never take an answer for untouched before a change of its table was heard of: another answer has ended by it.

use std::time::Instant;

use integration::wire::Script;
use integration::{Cluster, DATABASE, Pgweir};

use crate::common::client::outcome;
use crate::common::{Client, eventually};
use crate::logical::{SETUP, kept, logical_conf, turns_to};
use crate::{ask, ask_sql, builder, bypasses, direct, reason, start, unnamed};

const UUID: &str = "123e4567-e89b-12d3-a456-426614174000";

const TABLES: &str = "CREATE TABLE pair (b uuid, v text, a bigint, PRIMARY KEY (a, b));
    INSERT INTO pair SELECT '123e4567-e89b-12d3-a456-426614174000', 'pair ' || n, n FROM generate_series(1, 9) n;
    CREATE TABLE part (id int, side int, v text, PRIMARY KEY (id, side)) PARTITION BY LIST (side);
    CREATE TABLE part_l PARTITION OF part FOR VALUES IN (0); CREATE TABLE part_r PARTITION OF part FOR VALUES IN (1);
    INSERT INTO part SELECT n, 0, 'part ' || n FROM generate_series(1, 9) n;
    CREATE TABLE whole (id int PRIMARY KEY, v text); INSERT INTO whole SELECT n, 'whole ' || n FROM generate_series(1, 9) n;
    ALTER TABLE whole REPLICA IDENTITY FULL;
    CREATE TABLE second (id int PRIMARY KEY, k int NOT NULL, v text); INSERT INTO second SELECT n, n, 'second ' || n FROM generate_series(1, 9) n;
    CREATE UNIQUE INDEX second_k ON second (k); ALTER TABLE second REPLICA IDENTITY USING INDEX second_k;
    CREATE TABLE word (id text PRIMARY KEY, v text); INSERT INTO word SELECT n, 'word ' || n FROM generate_series(1, 9) n;
    CREATE VIEW turned AS SELECT 10 - id AS id, v FROM item WHERE id < 10;
    CREATE FUNCTION looks(int) RETURNS text LANGUAGE sql IMMUTABLE AS 'SELECT v FROM item WHERE id = $1';
    GRANT ALL ON ALL TABLES IN SCHEMA public TO app; ALTER ROLE app REPLICATION";

fn cluster() -> Cluster {
    builder().setting("wal_level", "logical").sql(TABLES).sql(SETUP).start().unwrap()
}

/// This is done past pgweir, and was heard of, as an answer has ended that hangs on all rows of the table.
fn done(cluster: &Cluster, pgweir: &Pgweir, client: &mut Client, table: &str, sql: &str) {
    let key = match table {
        "pair" => "a",
        "part" => "side",
        "second" => "k",
        "word" => "length(id)",
        _ => "id",
    };
    let all = format!("SELECT string_agg(v, ','), sum({key}) FROM {table}");
    let before = kept(pgweir, client, &all);
    direct(cluster, sql);
    assert_ne!(before, cluster.primary().query_in(DATABASE, &all).unwrap(), "{sql} changes nothing of {table}");
    eventually("the change is heard of", || client.query(&all).unwrap() != before);
}

#[test]
fn it_ends_with_its_row_and_not_with_another() {
    let cluster = cluster();
    let pgweir = start(&logical_conf(&cluster, ""));
    let mut client = Client::connect(pgweir.port());
    let pair = &format!("SELECT v FROM pair WHERE b = '{}' AND a = 1", UUID.to_uppercase());
    for (read, table, others, own) in [
        (
            "SELECT v, id FROM item WHERE id = 5",
            "item",
            &[
                "UPDATE item SET v = 'x' WHERE id <> 5",
                "DELETE FROM item WHERE id > 900",
                "INSERT INTO item VALUES (5000, 'new')",
            ][..],
            &[
                "UPDATE item SET v = 'y' WHERE id = 5",
                "DELETE FROM item WHERE id = 5",
                "INSERT INTO item VALUES (5, 'again')",
                // It loses the key, and another gets it.
                "UPDATE item SET id = 6000 WHERE id = 5",
                "UPDATE item SET id = 5 WHERE id = 5000",
                // More than are told apart.
                "INSERT INTO item SELECT n, 'many' FROM generate_series(10000, 15000) n; UPDATE item SET v = v || 'z'",
            ][..],
        ),
        (
            pair,
            "pair",
            &["UPDATE pair SET v = 'x' WHERE a > 1", "UPDATE pair SET a = 20 WHERE a = 2"],
            &["UPDATE pair SET v = 'y' WHERE a = 1", "DELETE FROM pair WHERE a = 1"],
        ),
        (
            "SELECT p.v, p.side FROM part AS p WHERE p.side = 0 AND p.id = 5 LIMIT 1",
            "part",
            &["UPDATE part SET v = 'x' WHERE id <> 5", "UPDATE part SET side = 1 WHERE id = 4"],
            // It moves to another part, and back.
            &[
                "UPDATE part SET side = 1 WHERE id = 5",
                "UPDATE part SET side = 0 WHERE id = 5",
                "UPDATE part_l SET v = 'y' WHERE id = 5",
            ],
        ),
        (
            "SELECT v FROM second WHERE k = 5",
            "second",
            &["UPDATE second SET v = 'x' WHERE k <> 5", "UPDATE second SET k = 40 WHERE k = 4"],
            &[
                "UPDATE second SET v = 'y' WHERE k = 5",
                "UPDATE second SET k = 50 WHERE k = 5",
                "UPDATE second SET k = 5 WHERE k = 40",
            ],
        ),
        (
            "SELECT count(*) FROM item WHERE id = 5 AND v <> ''",
            "item",
            &["UPDATE item SET v = 'w' WHERE id = 6"],
            &["TRUNCATE item"],
        ),
    ] {
        kept(&pgweir, &mut client, read);
        for sql in others {
            done(&cluster, &pgweir, &mut client, table, sql);
            let before = reason(&pgweir, "misses", "changed");
            assert!(ask_sql(&pgweir, &mut client, read).1, "{read} after {sql}: {:?}", bypasses(&pgweir));
            assert_eq!(reason(&pgweir, "misses", "changed"), before, "{read} after {sql}");
        }
        for sql in own {
            let before = kept(&pgweir, &mut client, read);
            direct(&cluster, sql);
            let (written, right) = (Instant::now(), cluster.primary().query_in(DATABASE, read).unwrap());
            assert_ne!(before, right, "{sql} changes nothing of {read}");
            turns_to(&pgweir, &mut client, read, written, &right);
        }
    }
}

/// Whichever way the key was given.
#[test]
fn parameters_are_keys() {
    let cluster = cluster();
    let pgweir = start(&logical_conf(&cluster, ""));
    let mut client = Client::connect(pgweir.port());
    let sql = "SELECT v FROM item WHERE id = $1";
    let parse = |kind: u32| [sql.as_bytes(), b"\0\0\x01", &kind.to_be_bytes()].concat();
    let binary = |kind: u32, value: &[u8]| {
        let bind = [b"\0\0\0\x01\0\x01\0\x01", &(value.len() as u32).to_be_bytes()[..], value, b"\0\0"].concat();
        Script::new().raw(b'P', &[b"\0", &parse(kind)[..]].concat()).raw(b'B', &bind).execute("", 0).sync()
    };
    let mut scripts = vec![unnamed(sql, &[Some("7")]), unnamed(sql, &[Some(" +07 ")])];
    scripts.extend([binary(0, &7i32.to_be_bytes()), binary(20, &7i64.to_be_bytes()), binary(21, &7i16.to_be_bytes())]);
    for script in &scripts {
        eventually("it is kept", || ask(&pgweir, &mut client, script).1);
    }
    done(&cluster, &pgweir, &mut client, "item", "UPDATE item SET v = 'other' WHERE id <> 7");
    for (number, script) in scripts.iter().enumerate() {
        let (frames, hit) = ask(&pgweir, &mut client, script);
        assert!(hit && outcome(&frames).unwrap() == [["item 7"]], "{number}: {:?}", bypasses(&pgweir));
    }
    done(&cluster, &pgweir, &mut client, "item", "UPDATE item SET v = 'seven' WHERE id = 7");
    for (number, script) in scripts.iter().enumerate() {
        let (frames, hit) = ask(&pgweir, &mut client, script);
        assert!(!hit && outcome(&frames).unwrap() == [["seven"]], "{number}");
    }
}

/// What may show other rows, or rows that are told otherwise, ends with any row of its tables.
#[test]
fn what_is_not_certain_hangs_on_all_rows() {
    let cluster = cluster();
    let pgweir = start(&logical_conf(&cluster, ""));
    let mut client = Client::connect(pgweir.port());
    for (read, table, sql) in [
        ("SELECT v FROM item WHERE id = 5 OR id = 6", "item", "UPDATE item SET v = 'a' WHERE id = 6"),
        ("SELECT v FROM item WHERE id <= 5 AND id >= 5", "item", "UPDATE item SET v = 'b' WHERE id = 6"),
        ("SELECT v FROM item WHERE id = 5.0", "item", "UPDATE item SET v = 'c' WHERE id = 6"),
        ("SELECT v, looks(6) FROM item WHERE id = 5", "item", "UPDATE item SET v = 'd' WHERE id = 6"),
        ("SELECT v, (SELECT max(v) FROM item) FROM item WHERE id = 5", "item", "UPDATE item SET v = 'e' WHERE id = 6"),
        ("SELECT v FROM turned WHERE id = 5", "item", "UPDATE item SET v = 'f' WHERE id = 6"),
        ("SELECT v FROM turned WHERE id = 4", "item", "UPDATE item SET v = 'g' WHERE id = 6"),
        ("SELECT v FROM whole WHERE id = 5", "whole", "UPDATE whole SET v = 'h' WHERE id = 6"),
        ("SELECT v FROM second WHERE id = 5", "second", "UPDATE second SET v = 'i' WHERE id = 6"),
        ("SELECT v FROM part WHERE id = 5", "part", "UPDATE part SET v = 'j' WHERE id = 6"),
        ("SELECT v FROM word WHERE id = '5'", "word", "UPDATE word SET v = 'k' WHERE id = '6'"),
        (
            "SELECT v FROM item WHERE id = 5 AND id IN (SELECT id FROM item)",
            "item",
            "UPDATE item SET v = 'l' WHERE id = 6",
        ),
    ] {
        kept(&pgweir, &mut client, read);
        done(&cluster, &pgweir, &mut client, table, sql);
        assert!(!ask_sql(&pgweir, &mut client, read).1, "{read}");
    }
}

/// Another key, or another way to tell rows, past pgweir: nothing is missed, and then the new one counts.
#[test]
fn another_key_is_noticed() {
    let cluster = cluster();
    let pgweir = start(&logical_conf(&cluster, ""));
    let mut client = Client::connect(pgweir.port());
    let read = "SELECT v FROM second WHERE id = 5";
    for (number, change) in [
        "ALTER TABLE second REPLICA IDENTITY DEFAULT",
        "ALTER TABLE second RENAME COLUMN k TO l; ALTER TABLE second RENAME COLUMN id TO k; ALTER TABLE second RENAME COLUMN l TO id",
        "ALTER TABLE second DROP CONSTRAINT second_pkey; ALTER TABLE second ADD PRIMARY KEY (id)",
        "ALTER TABLE second ALTER COLUMN id TYPE bigint",
        "ALTER TABLE second REPLICA IDENTITY FULL",
        "ALTER TABLE second REPLICA IDENTITY USING INDEX second_k",
    ]
    .into_iter()
    .enumerate()
    {
        kept(&pgweir, &mut client, read);
        direct(&cluster, change);
        for turn in 0..3 {
            direct(&cluster, &format!("UPDATE second SET v = 'turn {number} {turn}' WHERE id = 5"));
            let (written, right) = (Instant::now(), vec![vec![format!("turn {number} {turn}")]]);
            turns_to(&pgweir, &mut client, read, written, &right);
        }
    }
}
