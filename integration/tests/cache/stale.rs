//! Answers whose time is over are given where that is configured: while one client renews them, or no server answers.
//! It must never find one given that its client, or anybody else, has reason not to be told.

use std::time::Duration;

use integration::wire::Script;
use integration::{DATABASE, Stop};

use crate::ahead::asks_anew;
use crate::common::client::outcome;
use crate::common::{Client, eventually};
use crate::flight::{guard, waiting_for};
use crate::signals::console;
use crate::{ask_sql, builder, conf, direct, reason, start};

#[test]
fn one_renews_and_the_others_are_given_the_old_meanwhile() {
    let cluster = builder().start().unwrap();
    let lines = "mode = \"on\"\nttl = \"1s\"\nstale_while_revalidate = \"1h\"";
    let pgweir = start(&conf(&cluster, lines).size(10));
    let [mut first, mut other, mut writer] = [(); 3].map(|()| Client::connect(pgweir.port()));
    let sql = "SELECT v FROM guarded WHERE id = 50";
    assert_eq!(first.value(sql), "guarded 50");
    let mut holder = guard(&cluster, "guarded");
    holder.query("UPDATE guarded SET v = 'new' WHERE id = 50").unwrap();
    asks_anew(&mut first, sql, "guarded 50");
    eventually("it waits for a server's answer", || waiting_for(&cluster, "guarded") == 1);
    for _ in 0..10 {
        assert_eq!(ask_sql(&pgweir, &mut other, sql), (vec![vec!["guarded 50".into()]], true));
    }
    assert_eq!(reason(&pgweir, "stale", "updating"), 10.0);
    // Who has written since is not told what may be older, however urgent.
    writer.query("UPDATE mine SET v = 1 WHERE id = 50").unwrap();
    writer.send(&Script::new().query(sql));
    assert!(!writer.speaks_within(Duration::from_millis(500)));
    holder.query("COMMIT").unwrap();
    for client in [&mut first, &mut writer] {
        assert_eq!(outcome(&client.ready(1)).unwrap(), [["new"]]);
    }
    assert_eq!(other.value(sql), "new");
}

/// Without the setting nobody is.
#[test]
fn nobody_is_given_the_old_unasked() {
    let cluster = builder().start().unwrap();
    let pgweir =
        start(&conf(&cluster, "mode = \"on\"\nttl = \"500ms\"").pool("query_wait_timeout = \"500ms\"").size(4));
    let [mut first, mut other] = [(); 2].map(|()| Client::connect(pgweir.port()));
    let sql = "SELECT v FROM guarded WHERE id = 51";
    assert_eq!(first.value(sql), "guarded 51");
    let mut holder = guard(&cluster, "guarded");
    asks_anew(&mut first, sql, "guarded 51");
    other.send(&Script::new().query(sql));
    assert!(!other.speaks_within(Duration::from_millis(500)));
    holder.query("COMMIT").unwrap();
    assert_eq!(outcome(&first.ready(1)).unwrap(), [["guarded 51"]]);
    assert_eq!(outcome(&other.ready(1)).unwrap(), [["guarded 51"]]);
    cluster.stop(Stop::Fast).unwrap();
    let mut errors = 0;
    eventually("there is no answer", || {
        errors += usize::from(first.query(sql).is_err());
        errors > 0
    });
    assert_eq!((reason(&pgweir, "stale", "updating"), reason(&pgweir, "stale", "error")), (0.0, 0.0));
}

/// The database is gone for a while: what was kept is given, but to nobody who must not be told it.
#[test]
fn the_old_is_given_while_no_server_answers() {
    let cluster = builder().start().unwrap();
    let lines = "mode = \"on\"\nttl = \"500ms\"\n[console]\nadmin_users = [\"app\"]";
    let conf = conf(&cluster, lines).pool("query_wait_timeout = \"1s\"").size(4);
    let pgweir = start(&conf.database("cache_stale_if_error = \"1h\""));
    let [mut client, mut other, mut writer] = [(); 3].map(|()| Client::connect(pgweir.port()));
    let read = |id: usize| format!("SELECT v FROM item WHERE id = {id}");
    for id in 60..63 {
        assert_eq!(client.value(&read(id)), format!("item {id}"));
    }
    writer.query("UPDATE mine SET v = 1 WHERE id = 60").unwrap();
    cluster.stop(Stop::Fast).unwrap();
    let stale = || reason(&pgweir, "stale", "error");
    for client in [&mut client, &mut other] {
        let before = stale();
        eventually("the old answer stands in", || {
            assert_eq!(client.value(&read(60)), "item 60");
            stale() > before
        });
    }
    for id in 60..63 {
        assert_eq!(client.value(&read(id)), format!("item {id}"));
    }
    // What was never kept there is none of, nor is what the client's own write may have changed.
    assert!(client.query(&read(64)).unwrap_err().starts_with("53300"));
    assert!(writer.query(&read(60)).unwrap_err().starts_with("53300"));
    console(&pgweir, "app").query(&format!("INVALIDATE TABLE item IN {DATABASE}")).unwrap();
    assert!(client.query(&read(61)).unwrap_err().starts_with("53300"));
    let shown = console(&pgweir, "app").query("SHOW CACHE").unwrap();
    assert!(shown[0][3].contains("1h more while no server answers"), "{shown:?}");
    cluster.primary().start().unwrap();
    direct(&cluster, "UPDATE item SET v = 'changed' WHERE id = 62");
    eventually("a server answers again", || client.query(&read(62)) == Ok(vec![vec!["changed".into()]]));
}

/// The server fails in the middle: the client hears nothing of it, but for what it has asked for itself.
#[test]
fn the_old_stands_in_for_an_error() {
    let cluster = builder().start().unwrap();
    let pgweir = start(&conf(&cluster, "mode = \"on\"\nttl = \"500ms\"\nstale_if_error = \"1h\"").size(8));
    let [mut first, mut follower] = [(); 2].map(|()| Client::connect(pgweir.port()));
    let sql = "SELECT v FROM guarded WHERE id = 52";
    assert_eq!(first.value(sql), "guarded 52");
    let mut holder = guard(&cluster, "guarded");
    asks_anew(&mut first, sql, "guarded 52");
    eventually("it waits for a server's answer", || waiting_for(&cluster, "guarded") == 1);
    let expired = reason(&pgweir, "misses", "expired");
    follower.send(&Script::new().query(sql));
    eventually("another has asked", || reason(&pgweir, "misses", "expired") > expired);
    let end = "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE NOT granted AND relation = 'guarded'::regclass";
    cluster.primary().query_in(DATABASE, end).unwrap();
    for client in [&mut first, &mut follower] {
        assert_eq!(outcome(&client.ready(1)).unwrap(), [["guarded 52"]]);
    }
    assert_eq!(reason(&pgweir, "stale", "error"), 2.0);
    // A cancel request is meant.
    asks_anew(&mut first, sql, "guarded 52");
    Client::tcp(pgweir.port()).write(&first.cancel_request());
    assert!(outcome(&first.ready(1)).unwrap_err().starts_with("57014"));
    // So is what is wrong with the statement.
    holder.query("COMMIT").unwrap();
    direct(&cluster, "ALTER TABLE guarded RENAME v TO w");
    assert!(first.query(sql).unwrap_err().starts_with("42703"));
}
