//! Who may not share servers does not.
//! It must never ask less often than others need to ride.

use integration::wire::Script;
use integration::{DATABASE, USER};

use crate::common::{Client, Conf};
use crate::{cluster, conf, rides, start, warm};

const SQL: &str = "SELECT v FROM item WHERE id = 3";

fn rides_of(conf: &Conf, parameters: &[(&str, &str)], sql: &str) -> f64 {
    let pgweir = start(conf);
    let mut client = Client::connect_with(pgweir.port(), parameters);
    for _ in 0..300 {
        assert_eq!(client.value(sql), "item 3");
    }
    rides(&pgweir)
}

/// Waits until it rides.
fn rides_under(conf: &Conf, parameters: &[(&str, &str)], sql: &str) {
    let pgweir = start(conf);
    let mut client = Client::connect_with(pgweir.port(), parameters);
    warm(&pgweir, &mut client, &Script::new().query(sql));
}

#[test]
fn switches_turn_them_off() {
    let rule = |lines: &str| conf(cluster()).rest(&format!("[[databases.{DATABASE}.rules]]\n{lines}"));
    let plain = || Conf::trust(cluster()).top("workers = 1").pool("lane_fast = \"20ms\"");
    let off = [
        ("pool", plain().pool("lanes = false")),
        ("database", conf(cluster()).database("lanes = false")),
        ("user", conf(cluster()).user(USER, "lanes = false")),
        ("mode of the user", conf(cluster()).user(USER, "pool_mode = \"session\"")),
        ("state", conf(cluster()).pool("session_state = \"pgbouncer\"")),
        ("rule", rule("table = \"item\"\nlanes = false\n")),
    ];
    for (what, conf) in off {
        assert_eq!(rides_of(&conf, &[], SQL), 0.0, "{what}");
    }
    let on = [
        ("default", plain()),
        ("user over pool", plain().pool("lanes = false").user(USER, "lanes = true")),
        ("rule for others", rule("table = \"guarded\"\nlanes = false\n")),
    ];
    for (what, conf) in on {
        println!("{what}");
        rides_under(&conf, &[], SQL);
    }
}

/// A rule for an application, whose batches go past those of others.
#[test]
fn a_rule_is_for_those_it_names() {
    let rule = format!("[[databases.{DATABASE}.rules]]\napplication_name = \"report*\"\nlanes = false\n");
    let conf = conf(cluster()).rest(&rule);
    assert_eq!(rides_of(&conf, &[("application_name", "reports")], SQL), 0.0);
    rides_under(&conf, &[("application_name", "shop")], SQL);
}

#[test]
fn a_comment_asks_for_a_server_of_its_own() {
    assert_eq!(rides_of(&conf(cluster()), &[], &format!("/* pgweir: alone */ {SQL}")), 0.0);
    assert_eq!(rides_of(&conf(cluster()), &[], &format!("{SQL} -- pgweir: alone")), 0.0);
    rides_under(&conf(cluster()), &[], &format!("/* alone */ {SQL}"));
}
