//! What reads must show is up to the operator: less than the session's own writes, or more.
//! It must never let replay go on where a read has to prove that it did not hang on it.

use crate::common::client::outcome;
use crate::common::{Client, Conf};
use crate::sight::pause;
use crate::{Went, mark, start_cluster, start_with, until_read, went};
use integration::DATABASE;
use integration::wire::Script;

/// Nothing is promised: not even what the session has just written.
#[test]
fn replicas_serve_as_they_are() {
    let cluster = start_cluster();
    let conf = Conf::trust(&cluster).size(3).database("consistency = \"off\"");
    let (pgweir, mut client) = start_with(&cluster, &conf);
    (0..2).for_each(|replica| pause(&cluster, replica, true));
    client.query("UPDATE fish SET name = 'new' WHERE id = 1").unwrap();
    let position = client.value("SHOW pgweir.last_lsn");
    let after = mark("after the write");
    for _ in 0..20 {
        assert_eq!(client.value(&format!("{after} SELECT name FROM fish WHERE id = 1")), "fish 1");
    }
    assert_eq!(went(&cluster, &after), Went::Replicas);
    // What is asked for in so many words is given.
    let mut other = Client::connect(pgweir.port());
    other.query(&format!("SET pgweir.min_lsn = '{position}'")).unwrap();
    assert_eq!(other.value("SELECT name FROM fish WHERE id = 1"), "new");
    (0..2).for_each(|replica| pause(&cluster, replica, false));
}

/// Reads of these tables show what others have written, also past pgweir, by whatever way they read them; and mostly
/// they leave the primary all the same.
#[test]
fn some_tables_are_the_same_for_all() {
    let cluster = start_cluster();
    let sql = "CREATE FUNCTION first_name() RETURNS text LANGUAGE sql STABLE AS 'SELECT name FROM fish WHERE id = 1';
        CREATE VIEW lake AS SELECT first_name() AS name; CREATE TABLE birds AS SELECT 'old' AS name;
        GRANT ALL ON ALL TABLES IN SCHEMA public TO app";
    cluster.primary().query_in(DATABASE, sql).unwrap();
    let conf = Conf::trust(&cluster).size(3).database("global_tables = [\"public.fish\"]").pool("read_wait = \"5s\"");
    let (_pgweir, mut client) = start_with(&cluster, &conf);
    let mut writer = cluster.primary().admin(DATABASE).unwrap();
    let reads = [
        "SELECT name FROM fish WHERE id = 1",
        "SELECT name FROM pond WHERE id = 1",
        "SELECT first_name()",
        "SELECT name FROM lake",
        "WITH f AS (TABLE fish) SELECT name FROM f WHERE id = 1",
    ];
    let global = mark("of all");
    for round in 0..100 {
        writer.query(&format!("UPDATE fish SET name = 'fish {round}' WHERE id = 1")).unwrap();
        let read = reads[round % reads.len()];
        assert_eq!(client.value(&format!("{global} {read}")), format!("fish {round}"), "{read}");
    }
    assert_eq!(went(&cluster, &global), Went::Replicas);
    // A transaction that only reads is current at each of its statements.
    let inside = mark("inside");
    client.query("BEGIN READ ONLY").unwrap();
    for round in 100..110 {
        writer.query(&format!("UPDATE fish SET name = 'fish {round}' WHERE id = 1")).unwrap();
        assert_eq!(client.value(&format!("{inside} {}", reads[round % 2])), format!("fish {round}"));
    }
    client.query("COMMIT").unwrap();
    assert_eq!(went(&cluster, &inside), Went::Replicas);
    (0..2).for_each(|replica| pause(&cluster, replica, true));
    // Other tables are as ever.
    writer.query("UPDATE birds SET name = 'new'; UPDATE fish SET name = 'last' WHERE id = 1").unwrap();
    assert_eq!(client.value("SELECT name FROM birds"), "old");
    (0..2).for_each(|replica| pause(&cluster, replica, false));
    assert_eq!(client.value(reads[1]), "last");
}

/// Without a replica that has it all in time the primary serves them.
#[test]
fn nobody_waits_for_long() {
    let cluster = start_cluster();
    let conf = Conf::trust(&cluster).size(3).database("global_tables = [\"fish\"]");
    let (_pgweir, mut client) = start_with(&cluster, &conf);
    (0..2).for_each(|replica| pause(&cluster, replica, true));
    cluster.primary().query_in(DATABASE, "UPDATE fish SET name = 'new' WHERE id = 2").unwrap();
    let late = mark("late");
    let sql = format!("{late} SELECT name FROM fish WHERE id = $1");
    assert_eq!(client.value("SELECT name FROM pond WHERE id = 2"), "new");
    let script = Script::new().parse("find", &sql).bind("", "find", &[Some("2")]).execute("", 0).sync();
    assert_eq!(outcome(&client.run(&script)).unwrap(), [["new"]]);
    assert_eq!(went(&cluster, &late), Went::Primary);
    (0..2).for_each(|replica| pause(&cluster, replica, false));
    until_read(&cluster, &mut client, "replicas again", |runs| runs[1..].iter().any(|count| *count > 0));
}
