//! `SHOW SLOW`, its line in the log and its place in the API: what took long, where, for whom.
//! It must never call slow what was not: marks are far from what things take.

use integration::Cluster;
use integration::wire::Script;

use crate::common::client::tags;
use crate::common::{Client, Conf, eventually, metric};

#[test]
fn what_took_long_is_shown_with_its_times_and_never_its_values() {
    let cluster = Cluster::builder().start().unwrap();
    let pgweir = Conf::trust(&cluster)
        .size(1)
        .pool("slow_query = \"1m\"")
        .user("root", "")
        .user("app", "slow_query = \"300ms\"")
        .rest("[console]\nstats_users = [\"root\"]\n")
        .start();
    let start = [("user", "app"), ("database", "app"), ("application_name", "shop")];
    let (mut first, mut second) =
        (Client::connect_with(pgweir.port(), &start), Client::connect_with(pgweir.port(), &start));
    first.query("SELECT 'fast'").unwrap();
    first.query("SELECT pg_sleep(0.4), 'secret' -- a='1'").unwrap();
    // One that waits for the only server while the other has it.
    first.query("BEGIN").unwrap();
    let waits = std::thread::spawn(move || second.query("SELECT 'waited'").unwrap());
    let is_waiting = || metric(&pgweir, "pgweir_pool_oldest_wait_seconds", &[("user", "app")]) > 0.35;
    eventually("it has waited", is_waiting);
    first.query("COMMIT").unwrap();
    waits.join().unwrap();
    let mut console = Client::connect_with(pgweir.port(), &[("user", "root"), ("database", "pgweir")]);
    let rows = console.query("SHOW SLOW").unwrap();
    let texts: Vec<&str> = rows.iter().map(|row| &*row[16]).collect();
    assert_eq!(texts, ["select ?", "select pg_sleep(?), ?"], "{rows:?}");
    assert!(rows.iter().all(|row| row[2..4] == ["app", "app"] && row[5] == "primary" && row[15] == "shop"), "{rows:?}");
    let us = |row: usize, column: usize| rows[row][column].parse::<u64>().unwrap();
    // total, wait, server
    assert!(us(0, 7) > 300_000 && us(0, 9) < 300_000, "{rows:?}");
    assert!(
        us(1, 7) < 300_000 && us(1, 8) >= 400_000 && us(1, 9) >= us(1, 8) && us(1, 6) == us(1, 7) + us(1, 9),
        "{rows:?}"
    );
    assert!(rows[0][14].starts_with("127.0.0.1:"), "{rows:?}");
    assert_eq!([&rows[0][17..], &rows[1][17..]], [["off", "", ""], ["off", "a='1'", ""]], "{rows:?}");
    assert_eq!(metric(&pgweir, "pgweir_pool_slow_queries_total", &[("user", "app")]), 2.0);
    let log = pgweir.log();
    let line = log.lines().find(|line| line.contains("a statement was slow")).unwrap();
    assert!(line.contains("select pg_sleep(?), ?") && line.contains("application_name=\"shop\""), "{line}");
    assert!(!log.contains("secret") && !log.contains("waited"), "{log}");
}

#[test]
fn comments_the_cache_and_values_that_are_asked_for_are_shown() {
    let cluster = Cluster::builder().start().unwrap();
    let pgweir = Conf::trust(&cluster)
        .pool("slow_query = \"80ms\"\nslow_query_parameter_bytes = 60")
        .user("root", "")
        .rest("[console]\nstats_users = [\"root\"]\n[cache]\nmode = \"on\"\nttl = \"1m\"\nverify = 0\n")
        .start();
    let mut client = Client::connect(pgweir.port());
    let mut console = Client::connect_with(pgweir.port(), &[("user", "root"), ("database", "pgweir")]);
    eventually("the catalog is read, so that the cache is asked", || {
        client.query("SELECT 4").unwrap();
        metric(&pgweir, "pgweir_cache_hits_total", &[("user", "app")]) > 0.0
    });
    // Long enough for anybody, and one whose answer can be kept.
    let counts = "SELECT count(*) FROM generate_series(1, 4000000) /*route='%2Fexport',who='all',x=''*/";
    for _ in 0..2 {
        client.query(&format!("/* pgweir: ttl=30s, tag=n */ {counts}")).unwrap();
        let row = console.query("SHOW SLOW").unwrap().remove(0);
        assert_eq!(row[17..19], ["miss:absent", "pgweir='ttl=30s, tag=n',route='/export',who='all',x=''"]);
        assert_eq!(row[19], "/* pgweir: ttl=30s, tag=n */ SELECT count(*) FROM generate_s…");
    }
    let counts = console.query("SHOW SLOW WHERE query LIKE 'select count%'").unwrap();
    assert_eq!(counts.len(), 1, "a hit was slow");
    // Prepared, in two portals, of which the first runs behind the second; and not looked up, being in a transaction.
    client.query("BEGIN").unwrap();
    let text = "SELECT pg_sleep($1), $2::text /*action='prepared'*/";
    let script = Script::new()
        .parse("one", text)
        .bind("p", "one", &[Some("0.15"), Some("o'ne")])
        .bind("q", "one", &[Some("0"), None])
        .execute("q", 0)
        .sync()
        .execute("p", 0)
        .sync();
    client.send(&script);
    assert_eq!(tags(&client.ready(2)), "122DCZDCZ");
    let row = console.query("SHOW SLOW").unwrap().remove(0);
    assert_eq!(row[16..], ["select pg_sleep(?), ?::text", "unasked", "action='prepared'", "$1 = '0.15', $2 = 'o''ne'"]);
    client.query("COMMIT").unwrap();
    // The unnamed statement, in a later batch than its Parse.
    client.run(&Script::new().parse("", text).sync());
    client.run(&Script::new().bind("", "", &[Some("0.1"), None]).execute("", 0).sync());
    let row = console.query("SHOW SLOW").unwrap().remove(0);
    assert_eq!(row[17..], ["bypass:batch", "action='prepared'", "$1 = '0.1', $2 = NULL"]);
    let log = pgweir.log();
    assert!(log.lines().any(|line| line.contains("cache=\"bypass:batch\"") && line.contains("$2 = NULL")), "{log}");
    assert!(row[11].is_empty(), "{row:?}");
    // The first row is there long before the error.
    let fails = "SELECT 1 / (n - 200000) FROM generate_series(1, 200000) n WHERE n = 1 OR pg_sleep(0.1 * (n / 200000)::int) IS NOT NULL";
    assert!(client.query(fails).unwrap_err().starts_with("22012"));
    let failed = console.query("SHOW SLOW").unwrap().remove(0);
    let us = |column: usize| failed[column].parse::<u64>().unwrap();
    assert!(failed[11] == "22012" && us(9) > 100_000 && us(8) < us(9), "{failed:?}");
    assert!(pgweir.log().lines().any(|line| line.contains("sqlstate=\"22012\"") && line.contains("first_byte_ms=")));
    let (status, answer) = pgweir.get("/api/database/slow-statements?limit=1&database=app").unwrap();
    let answer: serde_json::Value = serde_json::from_str(&answer).unwrap();
    let one = &answer["statements"][0];
    assert_eq!((status, &one["sqlstate"], &one["cache"]), (200, &"22012".into(), &failed[17].as_str().into()));
    let (_, answer) = pgweir.get("/api/database/slow-statements?limit=2&database=app").unwrap();
    let answer: serde_json::Value = serde_json::from_str(&answer).unwrap();
    let one = &answer["statements"][1];
    let shown = [&one["cache"], &one["parameters"], &one["sqlstate"]];
    assert_eq!(shown, [&row[17].as_str().into(), &row[19].as_str().into(), &serde_json::Value::Null]);
    assert_eq!(one["tags"], serde_json::json!([{"key": "action", "value": "prepared"}]), "{answer:#}");
    for (asked, status) in [("?limit=101", 400), ("?database=nowhere", 404), ("?by=calls", 400)] {
        assert_eq!(pgweir.get(&format!("/api/database/slow-statements{asked}")).unwrap().0, status, "{asked}");
    }
}
