//! A hit is the answer that PostgreSQL gave before, byte for byte, and costs no server.
//! It must never compare an answer with itself: the first one comes from a server.

use integration::wire::{Frame, Script};

use crate::common::client::{outcome, tags};
use crate::common::{Client, Conf, eventually};
use crate::{DATABASE, ask, ask_sql, bypasses, cluster, conf, count, hits, lasting, start, unnamed};

/// A Bind of the unnamed portal with text values, and results in binary.
fn bind_binary(statement: &str, values: &[&str]) -> Script {
    let mut body = [b"\0", statement.as_bytes(), b"\0\0\0"].concat();
    body.extend_from_slice(&(values.len() as u16).to_be_bytes());
    for value in values {
        body.extend_from_slice(&(value.len() as u32).to_be_bytes());
        body.extend_from_slice(value.as_bytes());
    }
    body.extend_from_slice(&[0, 1, 0, 1]);
    Script::new().raw(b'B', &body)
}

fn log_of(sql: &str) -> usize {
    cluster().primary().log().matches(sql).count()
}

#[test]
fn a_repeated_read_needs_no_server() {
    let pgweir = lasting();
    let sql = "SELECT v, id FROM item WHERE id IN (7, 8) /* served */";
    let mut clients = [Client::connect(pgweir.port()), Client::connect(pgweir.port())];
    let (first, hit) = ask(&pgweir, &mut clients[0], &Script::new().query(sql));
    assert!(!hit && tags(&first) == "TDDCZ", "{}", tags(&first));
    for client in &mut clients {
        for _ in 0..3 {
            let (frames, hit) = ask(&pgweir, client, &Script::new().query(sql));
            assert!(hit, "{:?}", bypasses(&pgweir));
            assert_eq!(frames, first);
        }
    }
    assert_eq!(log_of("/* served */"), 1);
    // What applications note beside it does not matter, what they ask does.
    let (_, hit) = ask_sql(&pgweir, &mut clients[0], "/*trace='1'*/ SELECT v, id FROM item WHERE id IN (7, 8)");
    assert!(hit);
    let (rows, hit) = ask_sql(&pgweir, &mut clients[0], "SELECT v, id FROM item WHERE id IN (8)");
    assert!(!hit && rows == [["item 8", "8"]]);
}

#[test]
fn off_is_the_default_and_without_a_time_nothing_is_kept() {
    for lines in ["", "mode = \"on\""] {
        let pgweir = start(&conf(cluster(), lines));
        let mut client = Client::connect(pgweir.port());
        for _ in 0..3 {
            assert!(!ask_sql(&pgweir, &mut client, "SELECT v FROM item WHERE id = 1").1);
        }
        assert_eq!(count(&pgweir, "fills"), 0.0);
    }
}

/// The same of all ways to ask for it; each is answered in its own messages.
#[test]
fn every_way_of_asking_gets_its_own_messages() {
    let pgweir = lasting();
    let sql = "SELECT id, v FROM item WHERE id = $1";
    let mut client = Client::connect(pgweir.port());
    outcome(&client.run(&Script::new().parse("named", sql).sync())).unwrap();
    let seven = [Some("7")];
    let ways = [
        (Script::new().query("SELECT id, v FROM item WHERE id = 7"), "TDCZ"),
        (unnamed(sql, &seven), "12TDCZ"),
        (Script::new().parse("", sql).bind("", "", &seven).execute("", 0).sync(), "12DCZ"),
        (Script::new().parse("", sql).describe(b'S', "").bind("", "", &seven).execute("", 0).sync(), "1tT2DCZ"),
        (Script::new().bind("", "named", &seven).execute("", 0).sync(), "2DCZ"),
        (Script::new().bind("", "named", &seven).describe(b'P', "").execute("", 0).sync(), "2TDCZ"),
        (bind_binary("named", &["7"]).describe(b'P', "").execute("", 0).sync(), "2TDCZ"),
    ];
    let mut direct = Client::connect(cluster().primary().port());
    outcome(&direct.run(&Script::new().parse("named", sql).sync())).unwrap();
    for (number, (script, expected)) in ways.iter().enumerate() {
        let right: Vec<Frame> = direct.run(script);
        for turn in 0..3 {
            let (frames, hit) = ask(&pgweir, &mut client, script);
            assert_eq!(tags(&frames), *expected, "way {number}, turn {turn}");
            assert_eq!(frames, right, "way {number}, turn {turn}");
            assert!(turn == 0 || hit, "way {number}, turn {turn}: {:?}", bypasses(&pgweir));
        }
    }
    // Prepared without a name and prepared by one are the same question, text and binary are not.
    let fills = count(&pgweir, "fills");
    let (frames, hit) = ask(&pgweir, &mut client, &bind_binary("named", &["8"]).execute("", 0).sync());
    assert!(!hit && frames[1].row()[0].as_deref() == Some(&8u32.to_be_bytes()[..]));
    // It is sent before it is kept, and counted then.
    eventually("it is kept", || count(&pgweir, "fills") == fills + 1.0);
}

/// What follows a hit finds the session as a server would have left it.
#[test]
fn the_unnamed_statement_is_the_one_that_was_hit() {
    let pgweir = lasting();
    let mut client = Client::connect(pgweir.port());
    let (five, six) = ("SELECT v FROM item WHERE id = 5", "SELECT v FROM item WHERE id = 6");
    client.run(&unnamed(five, &[]));
    client.run(&unnamed(six, &[]));
    assert!(ask(&pgweir, &mut client, &unnamed(five, &[])).1);
    // Past the cache, and to a server that knows nothing of that Parse.
    let again = Script::new().bind("", "", &[]).execute("", 5).sync();
    assert_eq!(outcome(&client.run(&again)).unwrap(), [["item 5"]]);
    // A simple query discards it.
    client.query("SELECT v FROM item WHERE id = 9").unwrap();
    client.run(&unnamed(five, &[]));
    assert!(ask_sql(&pgweir, &mut client, "SELECT v FROM item WHERE id = 9").1);
    let error = outcome(&client.run(&Script::new().bind("", "", &[]).execute("", 0).sync())).unwrap_err();
    assert!(error.starts_with("26000"), "{error}");
}

#[test]
fn a_pipeline_of_hits_and_misses_is_answered_in_order() {
    let pgweir = lasting();
    let mut client = Client::connect(pgweir.port());
    for id in (0..40).step_by(2) {
        client.query(&format!("SELECT v FROM item WHERE id = {}", id + 100)).unwrap();
    }
    let before = hits(&pgweir);
    for _ in 0..5 {
        let script = (0..40)
            .fold(Script::new(), |script, id| script.query(&format!("SELECT v FROM item WHERE id = {}", id + 100)));
        client.send(&script);
        let rows = outcome(&client.ready(40)).unwrap();
        let right: Vec<_> = (0..40).map(|id| [format!("item {}", id + 100)]).collect();
        assert_eq!(rows, right);
    }
    assert!(hits(&pgweir) > before, "{:?}", bypasses(&pgweir));
}

/// The shortest of all times that are said counts, and none of them has to be said everywhere.
#[test]
fn rules_users_and_comments_say_for_how_long() {
    let rules = format!(
        "[[databases.{DATABASE}.rules]]\ntable = \"item\"\ncache_ttl = \"menu\"\n[[databases.{DATABASE}.rules]]\n\
         table = \"kinds\"\ncache_ttl = 0\n"
    );
    let conf = Conf::trust(cluster()).user("other", "cache_ttl = 0").rest(&rules);
    let pgweir =
        start(&conf.rest("[cache]\nmode = \"on\"\nverify = 0\n[cache.strategies]\nmenu = \"30m\"\nnothing = 0"));
    let mut client = Client::connect(pgweir.port());
    let mut twice = |sql: &str| [ask_sql(&pgweir, &mut client, sql).1, ask_sql(&pgweir, &mut client, sql).1];
    assert_eq!(twice("SELECT v FROM item WHERE id = 1"), [false, true]);
    assert_eq!(twice("/* pgweir: ttl=0 */ SELECT v FROM item WHERE id = 2"), [false, false]);
    assert_eq!(twice("/* pgweir: ttl=nothing */ SELECT v FROM item WHERE id = 2"), [false, false]);
    assert_eq!(twice("/* pgweir: ttl=menue */ SELECT v FROM item WHERE id = 2"), [false, false]);
    assert_eq!(twice("SELECT v FROM long WHERE id = 1"), [false, false]);
    assert_eq!(twice("/* pgweir: ttl=60 tag=menu */ SELECT v FROM long WHERE id = 1"), [false, true]);
    assert_eq!(twice("/* pgweir: ttl=60 */ SELECT f FROM kinds"), [false, false]);
    let mut other = Client::connect_with(pgweir.port(), &[("user", "other")]);
    for _ in 0..2 {
        assert!(!ask_sql(&pgweir, &mut other, "SELECT v FROM item WHERE id = 1").1);
    }
}
