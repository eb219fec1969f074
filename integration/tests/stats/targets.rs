//! Who has answered the statements of a shape, and where their time went: told apart, as clients made them so.
//! It must never hold pgweir to a time that the machine decides: only to what statements and clients take at least.

use std::time::{Duration, Instant};

use integration::wire::Script;
use integration::{DATABASE, Pgweir, Redis};
use serde_json::Value;

use crate::common::{Client, Conf, eventually, know, metric};
use crate::{client, cluster, conf, json, only, ready};

/// How long a client does not read, and a statement sleeps.
const LONG: Duration = Duration::from_millis(300);

/// The shape of the statements with this text, wherever it was run; when so many were counted.
fn shape(pgweir: &Pgweir, text: &str, calls: u64) -> Value {
    let mut found = Value::Null;
    eventually("they are counted", || {
        let all = json(pgweir, "/api/queries?limit=1000");
        let is_it = |it: &&Value| it["query"].as_str().unwrap().contains(text);
        found = all["queries"].as_array().unwrap().iter().find(is_it).cloned().unwrap_or_default();
        found["calls_total"].as_u64() == Some(calls)
    });
    let of_it = json(pgweir, &format!("/api/queries/{}", found["shape"].as_str().unwrap()));
    only(&of_it["pools"], |_| true)
}

fn of_target(shape: &Value, is_it: impl Fn(&str) -> bool) -> Value {
    only(&shape["targets"], |it| is_it(it["target"].as_str().unwrap()))
}

fn seconds(value: &Value, phase: &str, key: &str) -> f64 {
    value[phase][key].as_f64().unwrap()
}

#[test]
fn who_has_answered_is_told_apart() {
    let redis = Redis::start().unwrap();
    let start = || {
        let secret = "0123456789abcdef0123456789abcdef";
        let redis = format!("hosts = [\"{}\"]\nsecret = \"{secret}\"\ntimeout = \"2s\"", redis.address());
        let lines = format!("[cache]\nmode = \"on\"\nttl = \"1h\"\nverify = 0\n[cache.redis]\n{redis}");
        let pgweir = Conf::trust(cluster()).top("workers = 1").rest(&lines).start();
        ready(&pgweir);
        know(&pgweir);
        eventually("Redis is there", || metric(&pgweir, "pgweir_cache_redis_up", &[]) == 1.0);
        pgweir
    };
    let table = "CREATE TABLE IF NOT EXISTS told_apart AS SELECT n FROM generate_series(1, 3) n; GRANT ALL ON told_apart TO app";
    cluster().primary().query_in(DATABASE, table).unwrap();
    let read = "SELECT n AS one_of_three FROM told_apart ORDER BY n";
    let pgweir = start();
    know(&pgweir);
    let mut one = client(&pgweir);
    let hits = || metric(&pgweir, "pgweir_cache_hits_total", &[]) as u64;
    let (before, mut calls) = (hits(), 2);
    eventually("it is kept there", || {
        one.query(read).unwrap();
        calls += 1;
        metric(&pgweir, "pgweir_cache_redis_writes_total", &[("outcome", "kept")]) > 0.0
    });
    one.query(read).unwrap();
    calls += 1;
    let hits = hits() - before;
    assert!(hits > 0);
    one.query(&format!("/* pgweir: primary ttl=0 */ {read}")).unwrap();
    one.query(&format!("/* pgweir: replica ttl=0 */ {read}")).unwrap();
    let all = shape(&pgweir, "one_of_three", calls);
    let kept = of_target(&all, |name| name == "l1");
    assert_eq!((kept["calls_total"].as_u64(), kept["rows_total"].as_u64()), (Some(hits), Some(3 * hits)));
    assert!(kept["bytes_total"].as_u64() >= Some(50 * hits), "{kept}");
    let primary = of_target(&all, |name| name == "primary");
    let replica = of_target(&all, |name| name.starts_with("127.0.0.1:"));
    for one in [&primary, &replica] {
        assert_eq!(one["rows_total"].as_u64(), one["calls_total"].as_u64().map(|calls| calls * 3), "{all:#}");
    }
    // Another process finds it in the cache that they share.
    let other = start();
    client(&other).query(read).unwrap();
    let there = shape(&other, "one_of_three", 1);
    let found = of_target(&there, |name| name == "l2");
    assert_eq!((found["calls_total"].as_u64(), found["rows_total"].as_u64()), (Some(1), Some(3)));
    assert!(seconds(&found, "time", "max_seconds") > 0.0, "Redis was asked: {found}");
    let name = there["numbers"]["shape"].as_str().unwrap();
    let label = [("target", "l2"), ("phase", "server"), ("shape", name)];
    assert_eq!(metric(&other, "pgweir_query_duration_seconds_count", &label), 1.0);
}

#[test]
fn where_the_time_goes_is_told_apart() {
    let pgweir = conf().start();
    ready(&pgweir);
    // The first row is more than PostgreSQL keeps back, the second takes its time.
    let early = "SELECT CASE WHEN n = 1 THEN repeat('x', 50000) ELSE 'late' || pg_sleep(1.5) END AS early FROM generate_series(1, 2) n";
    let late = "SELECT 'late' || pg_sleep(0.3) AS late";
    let mut one = client(&pgweir);
    one.query(early).unwrap();
    one.query(late).unwrap();
    let (early, late) = (shape(&pgweir, "as early", 1), shape(&pgweir, "as late", 1));
    let first = |it: &Value| seconds(&it["numbers"], "first_byte", "max_seconds");
    let server = |it: &Value| seconds(&it["numbers"], "server", "max_seconds");
    assert!(server(&early) >= 1.5 && server(&late) >= 0.3, "{early:#}");
    // Unless the machine stands still for so long right then.
    assert!(server(&early) - first(&early) >= 0.5, "{early:#}");
    assert!(first(&late) >= 0.3 && first(&late) <= server(&late), "{late:#}");
    assert!(early["numbers"]["bytes_total"].as_u64() > Some(50_000));
    for quick in [&early, &late] {
        assert_eq!(seconds(&quick["numbers"], "write", "max_seconds"), 0.0, "{quick:#}");
    }
}

/// Each statement of a pipeline has its own time, and its own bytes.
#[test]
fn statements_of_a_pipeline_are_told_apart() {
    let pgweir = conf().start();
    ready(&pgweir);
    let [slow, quick] = ["SELECT pg_sleep(0.3) AS slow_part", "SELECT repeat('y', 9000) AS quick_part"]
        .map(|sql| Script::new().parse("", sql).bind("", "", &[]).execute("", 0).sync());
    let mut one = client(&pgweir);
    let began = Instant::now();
    one.write(&[quick.bytes(), slow.bytes(), quick.bytes()].concat());
    one.ready(3);
    let took = began.elapsed().as_secs_f64();
    let (slow, quick) = (shape(&pgweir, "slow_part", 1), shape(&pgweir, "quick_part", 2));
    let server = |it: &Value| seconds(&it["numbers"], "server", "sum_seconds");
    let both = server(&slow) + server(&quick);
    // Who counts all from their sending says more than all have taken.
    assert!(both >= 0.3 && both <= took, "{took}: {quick:#} {slow:#}");
    // It begins when pgweir reads the answer in front, which a busy machine puts off; but not for so long.
    assert!(server(&slow) >= 0.2, "{slow:#}");
    let bytes = |it: &Value| it["numbers"]["bytes_total"].as_u64().unwrap();
    assert!((18_000..19_000).contains(&bytes(&quick)) && bytes(&slow) < 500, "{quick:#} {slow:#}");
}

/// PostgreSQL keeps the answers of a batch until its Sync: all of them come with one read. Each statement has what it usually needs.
#[test]
fn statements_of_a_batch_have_what_they_usually_need() {
    let pgweir = conf().start();
    ready(&pgweir);
    let mut one = client(&pgweir);
    let run = |script: Script, sql| script.parse("", sql).bind("", "", &[]).execute("", 0);
    let [slow, quick] = ["SELECT pg_sleep(0.3) AS last_part", "SELECT 1 AS first_part"];
    one.run(&run(Script::new(), quick).sync());
    one.run(&run(run(run(Script::new(), quick), quick), slow).sync());
    let (slow, quick) = (shape(&pgweir, "last_part", 1), shape(&pgweir, "first_part", 3));
    let server = |it: &Value| seconds(&it["numbers"], "server", "sum_seconds");
    assert!(server(&slow) >= 0.2, "{slow:#} {quick:#}");
    // Of neither anything is known: half of the time is either's.
    let [slow, quick] = ["SELECT pg_sleep(0.4) AS other, 1", "SELECT 1 AS strange"];
    one.run(&run(run(Script::new(), quick), slow).sync());
    let server = |text| server(&shape(&pgweir, text, 1));
    assert!(
        server("as other") >= 0.2 && server("as strange") >= 0.2,
        "{} {}",
        server("as other"),
        server("as strange")
    );
}

/// What a replica has answered is not counted as the primary's.
#[test]
fn bytes_are_those_of_who_has_answered() {
    let pgweir = conf().database("lanes = false").start();
    ready(&pgweir);
    know(&pgweir);
    let sent = |role| metric(&pgweir, "pgweir_pool_sent_bytes_total", &[("role", role)]);
    let mut one = client(&pgweir);
    let mut before = sent("primary");
    eventually("a replica answers", || {
        let of_replica = sent("replica");
        before = sent("primary");
        one.query("SELECT repeat('r', 5000)").unwrap();
        sent("replica") - of_replica >= 5_000.0
    });
    assert!(sent("primary") - before < 1_000.0);
}

#[test]
fn a_client_that_does_not_read_is_told_apart() {
    let pgweir = conf().start();
    ready(&pgweir);
    let mut one = Client::connect(pgweir.port());
    one.send(&Script::new().query("SELECT repeat('z', 1000) AS unread FROM generate_series(1, 30000)"));
    let (mut sent, mut since) = (0.0, Instant::now());
    // What it takes is bounded, so that it stands still while nobody reads.
    eventually("nothing more is taken for a while", || {
        let before = std::mem::replace(&mut sent, metric(&pgweir, "pgweir_pool_sent_bytes_total", &[]));
        if sent != before {
            since = Instant::now();
        }
        sent > 0.0 && since.elapsed() > LONG
    });
    one.ready(1);
    let unread = shape(&pgweir, "as unread", 1);
    let least = LONG.as_secs_f64();
    assert!(seconds(&unread["numbers"], "write", "max_seconds") >= least, "{unread:#}");
    assert!(seconds(&unread["numbers"], "server", "max_seconds") >= least, "{unread:#}");
    assert!(metric(&pgweir, "pgweir_query_duration_seconds_sum", &[("phase", "write")]) >= least);
}

#[test]
fn errors_are_told_apart_by_their_class() {
    let pgweir = conf().rest("[console]\nstats_users = [\"app\"]\n").start();
    ready(&pgweir);
    let mut one = client(&pgweir);
    for value in ["0", "0", "'none'"] {
        one.query(&format!("SELECT 1 / {value} AS fails")).unwrap_err();
    }
    one.query("SELECT 1 / 1 AS fails").unwrap();
    let classes = |text| shape(&pgweir, text, 4)["numbers"]["errors_by_class"].clone();
    assert_eq!(classes("as fails"), serde_json::json!({ "22": 3 }));
    one.query("SELECT nosuch AS missing").unwrap_err();
    let missing = shape(&pgweir, "as missing", 1);
    assert_eq!(missing["numbers"]["errors_by_class"], serde_json::json!({ "42": 1 }));
    assert_eq!(metric(&pgweir, "pgweir_query_errors_by_class_total", &[("class", "22")]), 3.0);
    let mut console = Client::connect_with(pgweir.port(), &[("database", "pgweir")]);
    let name = only(&json(&pgweir, "/api/queries")["queries"], |it| it["query"].as_str().unwrap().contains("as fails"));
    let rows = console.query(&format!("SHOW SHAPE {}", name["shape"].as_str().unwrap())).unwrap();
    let item = |name: &str| rows.iter().find(|row| row[3] == name).map(|row| row[4].clone());
    assert_eq!(item("errors_22").as_deref(), Some("3"));
    let calls: u64 =
        rows.iter().filter(|row| row[3].ends_with(": calls")).map(|row| row[4].parse::<u64>().unwrap()).sum();
    assert_eq!(calls, 4);
}

#[test]
fn nothing_is_measured_where_that_is_off() {
    cluster().primary().query_in(DATABASE, "CREATE ROLE told LOGIN").unwrap();
    let pgweir = conf().pool("stats = \"off\"").pool("slow_query = \"1ms\"").user("told", "stats = \"on\"").start();
    ready(&pgweir);
    let mut one = client(&pgweir);
    let mut other = Client::connect_with(pgweir.port(), &[("user", "told")]);
    other.query("SELECT 1 AS measured, pg_sleep(0.01)").unwrap();
    for _ in 0..200 {
        // So often that it may share a server.
        one.query("SELECT 1 AS unmeasured").unwrap();
    }
    one.query("SELECT 1 AS unmeasured, pg_sleep(0.01)").unwrap();
    let counted = |user| metric(&pgweir, "pgweir_pool_queries_total", &[("user", user)]);
    eventually("they are counted", || counted(integration::USER) >= 201.0 && counted("told") == 1.0);
    shape(&pgweir, "as measured", 1);
    let text = |path: &str, part: &str| json(&pgweir, path).to_string().contains(part);
    assert!(!text("/api/queries?limit=1000", "as unmeasured"));
    assert!(text("/api/database/slow-queries", "as measured") && !text("/api/database/slow-queries", "as unmeasured"));
}

#[test]
fn what_no_server_has_taken_is_counted() {
    let pgweir = conf().size(1).pool("query_wait_timeout = \"300ms\"").start();
    ready(&pgweir);
    let (mut holds, mut waits) = (client(&pgweir), client(&pgweir));
    holds.query("BEGIN").unwrap();
    waits.query("SELECT 1 AS in_vain").unwrap_err();
    holds.query("ROLLBACK").unwrap();
    let in_vain = &shape(&pgweir, "as in_vain", 1)["numbers"];
    assert_eq!(in_vain["errors_by_class"], serde_json::json!({ "53": 1 }), "{in_vain:#}");
    assert!(seconds(in_vain, "wait", "max_seconds") >= 0.3, "{in_vain:#}");
    assert_eq!(seconds(in_vain, "server", "sum_seconds"), 0.0, "{in_vain:#}");
    assert!(json(&pgweir, "/api/database/slow-queries").to_string().contains("as in_vain"));
}
