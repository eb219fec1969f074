//! What could leave something behind, or hangs on the session it runs in, never shares a server.
//! It must never ask so rarely that it would not ride in any case.

use std::collections::HashSet;

use integration::Cluster;
use integration::wire::Script;

use crate::common::Client;
use crate::{cluster, conf, rides, start, unfit, warm, warm_sql};

#[test]
fn what_is_not_a_pure_read_never_rides() {
    let pgweir = start(&conf(cluster()).size(3));
    let mut client = Client::connect(pgweir.port());
    let sqls = [
        "SELECT random() FROM item WHERE id = 1",
        "SELECT nextval('counter')",
        "SELECT gen_random_uuid()",
        "SELECT clock_timestamp()",
        "SELECT v FROM item WHERE id = 1 FOR UPDATE",
        "SELECT v FROM item WHERE id = 1 FOR KEY SHARE",
        "SELECT pg_backend_pid()",
        "SELECT pg_try_advisory_xact_lock(5)",
        "SELECT pg_try_advisory_lock_shared(6)",
        "SELECT notes(1)",
        "SELECT v FROM item WHERE id = notes(1)",
        "WITH n AS (INSERT INTO log VALUES (2, 2) RETURNING id) SELECT id FROM n",
        "INSERT INTO log VALUES (2, 2)",
        "SELECT set_config('work_mem', '5MB', true)",
        "SELECT pg_notify('lanes', 'x')",
        "SELECT txid_current() IS NULL",
        "SELECT pg_sleep(0)",
        "SELECT pg_is_in_recovery()",
        "SELECT count(*) FROM pg_locks",
        "SELECT count(*) FROM pg_prepared_statements",
        "SELECT count(*) FROM pg_cursors",
        "SHOW work_mem",
        "EXPLAIN ANALYZE INSERT INTO log VALUES (2, 2)",
        "LOCK TABLE log",
        "DO 'BEGIN END'",
    ];
    for sql in sqls {
        let before = rides(&pgweir);
        for turn in 0..110 {
            let text = if turn % 2 == 0 { sql.to_owned() } else { sql.replace("= 1", "= 2") };
            let answer = client.query(&text);
            assert!(answer.is_ok() || sql.starts_with("LOCK"), "{sql}: {answer:?}");
        }
        assert_eq!(rides(&pgweir), before, "{sql}");
        // By the extended protocol just as little.
        let script = Script::new().parse("", sql).bind("", "", &[]).execute("", 0).sync();
        (0..110).for_each(|_| drop(client.run(&script)));
        assert_eq!(rides(&pgweir), before, "{sql}, extended");
        client.query("SELECT pg_advisory_unlock_all()").unwrap();
    }
}

/// The temporary table of a client hides another that others read in lanes.
#[test]
fn temporary_tables_are_their_clients() {
    let pgweir = start(&conf(cluster()).size(4));
    let mut client = Client::connect(pgweir.port());
    let sql = "SELECT v FROM item WHERE id = 4";
    warm(&pgweir, &mut client, &Script::new().query(sql));
    let mut own = Client::connect(pgweir.port());
    own.query("CREATE TEMP TABLE item (id int, v text); INSERT INTO item VALUES (4, 'own')").unwrap();
    let before = rides(&pgweir);
    for _ in 0..150 {
        assert_eq!(own.value(sql), "own");
    }
    assert_eq!(rides(&pgweir), before);
    for _ in 0..150 {
        assert_eq!(client.value(sql), "item 4");
    }
    assert!(rides(&pgweir) > before);
    own.query("DROP TABLE item").unwrap();
    assert_eq!(own.value(sql), "item 4");
}

/// What extensions of PostgreSQL's own bring for their types (input and output, casts) keeps nothing out of lanes.
#[test]
fn types_of_known_extensions_ride() {
    let sql = "CREATE EXTENSION citext; CREATE EXTENSION hstore; CREATE EXTENSION ltree; CREATE EXTENSION cube; CREATE EXTENSION pg_trgm;
        CREATE EXTENSION btree_gist; CREATE EXTENSION intarray; CREATE EXTENSION unaccent; CREATE EXTENSION pgcrypto; CREATE EXTENSION \"uuid-ossp\";
        CREATE TABLE mail (id int PRIMARY KEY, address citext); INSERT INTO mail VALUES (1, 'Me@Example.org');
        CREATE TABLE plain (id int PRIMARY KEY, v text); INSERT INTO plain VALUES (1, 'one'); GRANT ALL ON mail, plain TO app";
    let cluster = Cluster::builder().sql(sql).start().unwrap();
    let pgweir = start(&conf(&cluster));
    warm_sql(
        &pgweir,
        &["SELECT v FROM plain WHERE id = 1", "SELECT address FROM mail WHERE address = 'me@example.ORG'"],
    );
}

/// Each ends in a transaction of its own, so each has a time of its own.
#[test]
fn the_time_is_each_requests_own() {
    let pgweir = start(&conf(cluster()).size(2));
    let mut client = Client::connect(pgweir.port());
    let sql = "SELECT now(), v FROM item WHERE id = 1";
    warm(&pgweir, &mut client, &Script::new().query(sql));
    let port = pgweir.port();
    let before = rides(&pgweir);
    let times: Vec<String> = crate::common::crowd(10, move |_| {
        let mut client = Client::connect(port);
        let mut times: Vec<String> = (0..60).map(|_| client.value(sql)).collect();
        assert!(times.is_sorted(), "{times:?}");
        times.dedup();
        times
    })
    .into_iter()
    .flatten()
    .collect();
    assert!(rides(&pgweir) > before + 200.0, "{:?}", unfit(&pgweir));
    let different: HashSet<&String> = times.iter().collect();
    assert!(different.len() > 300, "{} times", different.len());
}
