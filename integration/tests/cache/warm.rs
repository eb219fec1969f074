//! Answers are in the cache before anybody asks: at the start, on a schedule, and when an operator says so.
//! It must never take an answer for warmed up that a client of the test had asked for.

use integration::wire::Script;
use integration::{Cluster, DATABASE, Pgweir};

use crate::common::client::outcome;
use crate::common::{Client, Conf, eventually, metric};
use crate::flight::{guard, waiting_for};
use crate::signals::console;
use crate::{ask, ask_sql, builder, conf, direct, unnamed};

fn warming(cluster: &Cluster, cache: &str, lists: &[String]) -> Conf {
    let lists: String =
        lists.iter().map(|list| format!("\n[[cache.warm_up]]\ndatabase = \"{DATABASE}\"\n{list}\n")).collect();
    conf(cluster, &format!("mode = \"on\"\n{cache}{lists}\n[console]\nadmin_users = [\"root\"]"))
        .user("root", "")
        .size(10)
}

fn list(queries: &[&str], more: &str) -> String {
    format!("user = \"app\"\nqueries = {queries:?}\n{more}")
}

fn queries(pgweir: &Pgweir, outcome: &str) -> f64 {
    metric(pgweir, "pgweir_cache_warm_up_queries_total", &[("outcome", outcome)])
}

#[test]
fn the_first_client_finds_what_was_asked_at_the_start() {
    let cluster = builder().start().unwrap();
    let read = |id: usize| format!("SELECT v FROM item WHERE id = {id}");
    let (one, two) = (read(1), read(2));
    let lists = [
        list(&[&one, "SELECT random()", "SELECT nothing FROM item"], ""),
        list(&[&two], "protocol = \"extended\""),
        list(&["SELECT v FROM spot"], "settings = { search_path = \"b\" }"),
    ];
    let pgweir = warming(&cluster, "ttl = \"1h\"", &lists).start();
    eventually("all was asked", || queries(&pgweir, "kept") + queries(&pgweir, "failed") >= 5.0);
    assert_eq!((queries(&pgweir, "kept"), queries(&pgweir, "failed")), (3.0, 2.0));
    let log = pgweir.log();
    assert!(log.lines().any(|line| line.contains("query=2") && line.contains("volatile")), "{log}");
    assert!(log.lines().any(|line| line.contains("query=3") && line.contains("42703")), "{log}");
    let mut client = Client::connect(pgweir.port());
    assert_eq!(ask_sql(&pgweir, &mut client, &one), (vec![vec!["item 1".into()]], true));
    let (frames, hit) = ask(&pgweir, &mut client, &unnamed(&two, &[]));
    assert_eq!((outcome(&frames).unwrap(), hit), (vec![vec!["item 2".into()]], true));
    let mut other =
        Client::connect_with(pgweir.port(), &[("user", "app"), ("database", DATABASE), ("search_path", "b")]);
    assert_eq!(ask_sql(&pgweir, &mut other, "SELECT v FROM spot"), (vec![vec!["b".into()]], true));
    // Who asks otherwise, or is somebody else, asks a server.
    assert!(!ask_sql(&pgweir, &mut client, &two).1);
    let mut stranger = Client::connect_with(pgweir.port(), &[("user", "other"), ("database", DATABASE)]);
    assert!(!ask_sql(&pgweir, &mut stranger, &one).1);
    let shown = console(&pgweir, "root").query("SHOW CACHE").unwrap();
    assert!(shown[0].windows(2).any(|pair| pair == ["3", "2"]), "{shown:?}");
}

/// As often as answers live, and half of their time is over by then.
#[test]
fn what_is_asked_again_in_time_never_ends() {
    let cluster = builder().start().unwrap();
    let sql = "SELECT v FROM item WHERE id = 5";
    let pgweir = warming(&cluster, "ttl = \"4s\"", &[list(&[sql], "every = \"1s\"")]).start();
    eventually("it was asked", || queries(&pgweir, "kept") >= 1.0);
    direct(&cluster, "UPDATE item SET v = 'changed' WHERE id = 5");
    let mut client = Client::connect(pgweir.port());
    let mut changed = false;
    while queries(&pgweir, "kept") < 7.0 {
        let (rows, hit) = ask_sql(&pgweir, &mut client, sql);
        assert!(hit, "after {} times", queries(&pgweir, "kept"));
        changed |= rows == [["changed"]];
    }
    assert!(changed);
}

/// An operator has it asked, and hears when it is done and what is not; no more than was said at once.
#[test]
fn an_operator_has_it_asked() {
    let cluster = builder().start().unwrap();
    let sqls: Vec<String> = (1..8).map(|id| format!("SELECT v FROM guarded WHERE id = {id}")).collect();
    let sqls: Vec<&str> = sqls.iter().map(String::as_str).collect();
    let pgweir = warming(&cluster, "ttl = \"1h\"", &[list(&sqls, "concurrency = 3")]).start();
    eventually("all was asked", || queries(&pgweir, "kept") == 7.0);
    let mut admin = console(&pgweir, "root");
    admin.query("INVALIDATE ALL").unwrap();
    let mut holder = guard(&cluster, "guarded");
    admin.send(&Script::new().query(&format!("WARM CACHE {DATABASE}")));
    eventually("three ask at once", || waiting_for(&cluster, "guarded") == 3);
    holder.query("COMMIT").unwrap();
    assert_eq!(outcome(&admin.ready(1)), Ok(vec![]));
    assert_eq!(queries(&pgweir, "kept"), 14.0);
    let mut client = Client::connect(pgweir.port());
    assert_eq!(ask_sql(&pgweir, &mut client, sqls[6]), (vec![vec!["guarded 7".into()]], true));
    direct(&cluster, "ALTER TABLE guarded RENAME v TO w");
    admin.query("INVALIDATE ALL").unwrap();
    let error = admin.query("WARM CACHE").unwrap_err();
    assert!(error.starts_with("55000"), "{error}");
    assert!(console(&pgweir, "root").query("WARM CACHE nothing").unwrap_err().starts_with("3D000"));
}

/// By changes, where the stream must first flow.
#[test]
fn it_waits_until_changes_are_followed() {
    let cluster = builder()
        .setting("wal_level", "logical")
        .sql("ALTER ROLE app REPLICATION")
        .sql(crate::logical::SETUP)
        .start()
        .unwrap();
    let sql = "SELECT v FROM item WHERE id = 9";
    let pgweir = warming(&cluster, "invalidation = \"logical\"", &[list(&[sql], "")]).start();
    eventually("all was asked", || queries(&pgweir, "kept") + queries(&pgweir, "failed") >= 1.0);
    assert_eq!(queries(&pgweir, "kept"), 1.0, "{}", pgweir.log());
    assert!(ask_sql(&pgweir, &mut Client::connect(pgweir.port()), sql).1);
}
