//! How old an answer may be: no older than its time, than its client's own write, or than the schema.
//! It must never write through pgweir where it says that pgweir does not know.

use std::time::{Duration, Instant};

use crate::common::{Client, crowd, eventually};
use crate::{ask, ask_sql, builder, bypasses, conf, direct, hits, reason, start, unnamed};

#[test]
fn an_answer_is_good_for_its_time_and_no_longer() {
    let cluster = builder().start().unwrap();
    let pgweir = start(&conf(&cluster, "mode = \"on\"\nttl = \"2s\"\nearly_refresh = 0"));
    let mut client = Client::connect(pgweir.port());
    let sql = "SELECT v FROM item WHERE id = 1";
    let began = Instant::now();
    assert_eq!(client.value(sql), "item 1");
    direct(&cluster, "UPDATE item SET v = 'changed' WHERE id = 1");
    let (rows, hit) = ask_sql(&pgweir, &mut client, sql);
    assert!(hit && rows == [["item 1"]] || began.elapsed() > Duration::from_secs(2), "{:?}", bypasses(&pgweir));
    eventually("the old answer is not good any more", || client.value(sql) == "changed");
    let after = began.elapsed();
    assert!(after > Duration::from_millis(1900) && after < Duration::from_secs(10), "{after:?}");
    assert!(reason(&pgweir, "misses", "expired") >= 1.0);
    // Who wants a newer one gets it, and the others with him.
    client.query("/* pgweir: ttl=1h */ SELECT v FROM item WHERE id = 2").unwrap();
    direct(&cluster, "UPDATE item SET v = 'changed' WHERE id = 2");
    let newest = "/* pgweir: ttl=1us */ SELECT v FROM item WHERE id = 2";
    assert_eq!(ask_sql(&pgweir, &mut client, newest), (vec![vec!["changed".into()]], false));
}

/// Whatever else is kept, and whoever else reads or writes.
#[test]
fn own_writes_are_seen_at_once() {
    let cluster = builder().start().unwrap();
    for workers in [1, 2] {
        let conf = conf(&cluster, "mode = \"on\"\nttl = \"1h\"").size(8);
        let pgweir = if workers == 1 { start(&conf) } else { conf.top("workers = 2").start() };
        crate::common::know(&pgweir);
        let port = pgweir.port();
        crowd(8, move |number| {
            let mut client = Client::connect(port);
            let sql = "SELECT v FROM mine WHERE id = $1";
            let mut last = 0;
            for turn in 1..60 {
                // Two of them each.
                let id = (number / 2 + 1).to_string();
                let read = unnamed(sql, &[Some(&id)]);
                let seen =
                    |client: &mut Client| -> i32 { crate::outcome(&client.run(&read)).unwrap()[0][0].parse().unwrap() };
                let before = seen(&mut client);
                assert!(before >= last, "client {number}, turn {turn}: {before} after {last}");
                let wrote = match turn % 3 {
                    0 => {
                        client.query("BEGIN").unwrap();
                        let rows =
                            client.query(&format!("UPDATE mine SET v = v + 1 WHERE id = {id} RETURNING v")).unwrap();
                        client.query("COMMIT").unwrap();
                        rows
                    }
                    _ => client.query(&format!("UPDATE mine SET v = v + 1 WHERE id = {id} RETURNING v")).unwrap(),
                };
                last = wrote[0][0].parse().unwrap();
                let after = seen(&mut client);
                assert!(after >= last, "client {number}, turn {turn}: {after} after writing {last}");
                last = after;
                for _ in 0..3 {
                    let again = seen(&mut client);
                    assert!(again >= last, "client {number}, turn {turn}: {again} after {last}");
                    last = again;
                }
            }
        });
        assert!(hits(&pgweir) > 200.0, "{} hits: {:?}", hits(&pgweir), bypasses(&pgweir));
        assert!(reason(&pgweir, "misses", "older") > 50.0);
    }
}

/// Others are still told what is kept: only its own client's write makes an answer too old.
#[test]
fn a_write_is_nobody_elses_affair() {
    let cluster = builder().start().unwrap();
    let pgweir = start(&conf(&cluster, "mode = \"on\"\nttl = \"1h\""));
    let (mut reader, mut writer) = (Client::connect(pgweir.port()), Client::connect(pgweir.port()));
    let (sql, other) = ("SELECT v FROM mine WHERE id = 50", "SELECT v FROM item WHERE id = 50");
    [sql, other].iter().for_each(|sql| assert_eq!(reader.query(sql).unwrap().len(), 1));
    writer.query("UPDATE mine SET v = 7 WHERE id = 50").unwrap();
    assert_eq!(ask_sql(&pgweir, &mut reader, sql), (vec![vec!["0".into()]], true));
    // The writer's read brings the new one for all.
    assert_eq!(ask_sql(&pgweir, &mut writer, sql), (vec![vec!["7".into()]], false));
    assert_eq!(ask_sql(&pgweir, &mut reader, sql), (vec![vec!["7".into()]], true));
    assert_eq!(ask_sql(&pgweir, &mut writer, sql), (vec![vec!["7".into()]], true));
}

#[test]
fn what_was_kept_before_a_schema_change_is_void() {
    let cluster = builder().start().unwrap();
    let pgweir = start(&conf(&cluster, "mode = \"on\"\nttl = \"1h\""));
    let (mut one, mut two) = (Client::connect(pgweir.port()), Client::connect(pgweir.port()));
    one.query("CREATE TABLE app.thing AS SELECT 1 AS n").unwrap();
    let read = "SELECT * FROM app.thing";
    let kept = |one: &mut Client, two: &mut Client, right: &[&str]| {
        eventually("it is kept", || {
            assert_eq!(one.query(read).unwrap(), [right]);
            let (frames, hit) = ask(&pgweir, two, &integration::wire::Script::new().query(read));
            assert_eq!(crate::outcome(&frames).unwrap(), [right]);
            hit
        });
    };
    kept(&mut one, &mut two, &["1"]);
    one.query("ALTER TABLE app.thing ADD COLUMN m int DEFAULT 2").unwrap();
    assert_eq!(two.query(read).unwrap(), [["1", "2"]]);
    kept(&mut one, &mut two, &["1", "2"]);
    one.query("BEGIN; ALTER TABLE app.thing DROP COLUMN m; COMMIT").unwrap();
    assert_eq!(two.query(read).unwrap(), [["1"]]);
    kept(&mut one, &mut two, &["1"]);
    one.query("REVOKE ALL ON app.thing FROM app").unwrap();
    assert!(two.query(read).unwrap_err().starts_with("42501"));
    one.query("GRANT ALL ON app.thing TO app").unwrap();
    kept(&mut one, &mut two, &["1"]);
    // Another table comes in front of it.
    one.query("SET search_path = app, public").unwrap();
    eventually("it is kept", || {
        assert_eq!(one.value("SELECT v FROM item WHERE id = 1"), "item 1");
        ask_sql(&pgweir, &mut one, "SELECT v FROM item WHERE id = 1").1
    });
    two.query("CREATE TABLE app.item AS SELECT 1 AS id, 'another' AS v").unwrap();
    assert_eq!(one.value("SELECT v FROM item WHERE id = 1"), "another");
    // What is temporary is nobody else's.
    kept(&mut one, &mut two, &["1"]);
    Client::connect(pgweir.port()).query("CREATE TEMP TABLE passing (n int)").unwrap();
    assert!(ask_sql(&pgweir, &mut two, read).1);
}

/// A database that clients know by two names: what is changed by way of the one is changed for who reads by the other.
#[test]
fn a_change_by_another_name_of_the_database() {
    let cluster = builder().sql("CREATE VIEW app.shown AS SELECT 1 AS n").start().unwrap();
    cluster.primary().query_in(integration::DATABASE, "ALTER VIEW app.shown OWNER TO app").unwrap();
    let alias = format!("[databases.alias]\ndbname = \"{}\"\n{}", integration::DATABASE, cluster.config_lines());
    let pgweir = start(&conf(&cluster, "mode = \"on\"\nttl = \"1h\"").rest(&alias));
    let (mut one, mut two) =
        (Client::connect(pgweir.port()), Client::connect_with(pgweir.port(), &[("database", "alias")]));
    let read = "SELECT n FROM app.shown";
    for n in 1..4 {
        eventually("it is kept", || ask_sql(&pgweir, &mut one, read).1);
        assert_eq!(one.value(read), n.to_string());
        two.query(&format!("CREATE OR REPLACE VIEW app.shown AS SELECT {} AS n", n + 1)).unwrap();
        eventually("the change is there", || one.value(read) == (n + 1).to_string());
    }
}

/// Settings that stand in a file of the server's, and those of roles and databases, which connections have from their start.
#[test]
fn settings_of_the_server_and_of_roles() {
    let cluster = builder().start().unwrap();
    let pgweir = start(&conf(&cluster, "mode = \"on\"\nttl = \"1h\"").pool("min_pool_size = 2"));
    let mut client = Client::connect(pgweir.port());
    let (read, same) = ("SELECT 1 / 3::float8", "SELECT 1 / 3::float8 -- the same");
    let kept = |client: &mut Client| eventually("it is kept", || ask_sql(&pgweir, client, read).1);
    kept(&mut client);
    let long = client.value(read);
    direct(&cluster, "ALTER SYSTEM SET extra_float_digits = 0");
    direct(&cluster, "SELECT pg_reload_conf()");
    eventually("it is answered as it is now", || client.value(read) == "0.333333333333333");
    kept(&mut client);
    assert_eq!(client.value(read), "0.333333333333333");
    direct(&cluster, "ALTER SYSTEM RESET extra_float_digits");
    direct(&cluster, "SELECT pg_reload_conf()");
    eventually("it is answered as it was", || client.value(read) == long);
    kept(&mut client);
    assert_eq!(client.value(read), long);
    // Those who are connected go on as they were, and what they say is not kept.
    direct(&cluster, "ALTER ROLE app SET extra_float_digits = -5");
    eventually("servers are opened anew", || client.value(read) == "0.3333333333");
    kept(&mut client);
    assert_eq!((client.value(read), client.value(same)), ("0.3333333333".into(), "0.3333333333".into()));
}
