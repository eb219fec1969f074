//! What must never be kept is not, whatever the configuration says.
//! It must never be content with an answer that happens to be right: the reason is counted.

use integration::wire::Script;

use crate::common::Client;
use crate::common::client::outcome;
use crate::{ask, ask_sql, builder, bypasses, conf, direct, hits, lasting, reason, start, unnamed};

/// Asked three times; none is a hit, and each is counted for this reason.
fn never(pgweir: &integration::Pgweir, client: &mut Client, script: &Script, why: &str, what: &str) {
    let before = reason(pgweir, "bypasses", why);
    for _ in 0..3 {
        let (frames, hit) = ask(pgweir, client, script);
        outcome(&frames).unwrap_or_else(|error| panic!("{what}: {error}"));
        assert!(!hit, "{what}");
    }
    assert_eq!(reason(pgweir, "bypasses", why), before + 3.0, "{what}: {:?}", bypasses(pgweir));
}

#[test]
fn what_hangs_on_the_time_on_chance_or_on_catalogs() {
    let pgweir = lasting();
    let mut client = Client::connect(pgweir.port());
    for (sql, why) in [
        ("SELECT now()", "volatile"),
        ("SELECT id, current_date FROM item WHERE id = 1", "volatile"),
        ("SELECT random()", "volatile"),
        ("SELECT * FROM chance", "verdict"),
        ("SELECT drawn()", "verdict"),
        ("SELECT v::timestamptz FROM (VALUES ('today')) AS x(v)", "volatile"),
        ("SELECT (v).timestamptz FROM (VALUES ('today'::text)) AS x(v)", "volatile"),
        ("SELECT (1::bigint).pg_try_advisory_xact_lock", "verdict"),
        ("SELECT (at).age FROM kinds", "volatile"),
        ("SELECT has_table_privilege('item', 'SELECT')", "volatile"),
        ("SELECT 'item'::regclass", "volatile"),
        ("SELECT relname FROM pg_class WHERE relname = 'item'", "verdict"),
        ("SELECT id FROM item TABLESAMPLE BERNOULLI (1)", "volatile"),
        ("SELECT current_setting('application_name')", "volatile"),
        ("SELECT v FROM item WHERE id = 1 FOR UPDATE", "verdict"),
        ("SELECT pg_advisory_xact_lock(1)", "verdict"),
        ("SHOW timezone", "verdict"),
        ("EXPLAIN SELECT 1", "volatile"),
        ("SELECT 1; SELECT 2", "verdict"),
        ("UPDATE item SET v = v WHERE id = 1000", "verdict"),
        ("SELECT date 'today'", "moment"),
        ("SELECT 'Tomorrow 10:00'::timestamptz", "moment"),
        ("SELECT at FROM kinds WHERE at < 'now'", "moment"),
        ("SELECT date 'to'\n'day'", "moment"),
        ("SELECT date U&'!0074oday' UESCAPE '!'", "moment"),
    ] {
        never(&pgweir, &mut client, &Script::new().query(sql), why, sql);
    }
    for (sql, value) in [("SELECT $1::date", "today"), ("SELECT at FROM kinds WHERE at < $1", " NOW ")] {
        never(&pgweir, &mut client, &unnamed(sql, &[Some(value)]), "moment", sql);
    }
    // The same shape with a day that stays where it is.
    let day = unnamed("SELECT $1::date", &[Some("2024-02-03")]);
    outcome(&client.run(&day)).unwrap();
    assert!(ask(&pgweir, &mut client, &day).1, "{:?}", bypasses(&pgweir));
}

#[test]
fn rows_behind_policies() {
    let pgweir = lasting();
    for sql in ["SELECT v FROM secret", "SELECT v FROM secrets", "SELECT count(*) FROM secret WHERE v LIKE 'secret%'"] {
        let mut client = Client::connect(pgweir.port());
        let before = hits(&pgweir);
        for role in ["app", "reader", "app"] {
            client.query(&format!("SET ROLE {role}")).unwrap();
            for _ in 0..2 {
                let right = if sql.contains("count") { "1".into() } else { format!("secret of {role}") };
                assert_eq!(client.query(sql).unwrap(), [[right]], "{sql} as {role}");
            }
        }
        assert_eq!(hits(&pgweir), before, "{sql}");
    }
    assert!(reason(&pgweir, "bypasses", "volatile") > 0.0, "{:?}", bypasses(&pgweir));
}

/// A table comes under policies while its rows are kept: through pgweir at once, past it when the catalog is read again.
#[test]
fn policies_that_come_later() {
    let cluster = builder().start().unwrap();
    let pgweir = start(&conf(&cluster, "mode = \"on\"\nttl = \"1h\""));
    let mut client = Client::connect(pgweir.port());
    client.query("CREATE TABLE app.late AS SELECT 1 AS n").unwrap();
    let read = "SELECT n FROM app.late";
    crate::common::eventually("it is kept", || {
        assert_eq!(client.value(read), "1");
        ask_sql(&pgweir, &mut client, read).1
    });
    client
        .query("ALTER TABLE app.late ENABLE ROW LEVEL SECURITY; ALTER TABLE app.late FORCE ROW LEVEL SECURITY")
        .unwrap();
    for _ in 0..3 {
        let (rows, hit) = ask_sql(&pgweir, &mut client, read);
        assert!(rows.is_empty() && !hit);
    }
    direct(&cluster, "CREATE POLICY all_of_it ON app.late USING (true)");
    for _ in 0..3 {
        let (rows, hit) = ask_sql(&pgweir, &mut client, read);
        assert!(rows == [["1"]] && !hit);
    }
}

/// In a transaction, and where the session has something that others have not.
#[test]
fn sessions_that_have_more_than_settings() {
    let pgweir = lasting();
    let read = "SELECT v FROM item WHERE id = 20";
    let mut client = Client::connect(pgweir.port());
    client.query(read).unwrap();
    assert!(ask_sql(&pgweir, &mut client, read).1);
    client.query("BEGIN").unwrap();
    assert!(!ask_sql(&pgweir, &mut client, read).1);
    client.query("COMMIT").unwrap();
    assert!(ask_sql(&pgweir, &mut client, read).1);
    client.query("CREATE TEMP TABLE item AS SELECT 20 AS id, 'mine' AS v").unwrap();
    for _ in 0..2 {
        assert_eq!(ask_sql(&pgweir, &mut client, read), (vec![vec!["mine".into()]], false));
    }
    client.query("DROP TABLE item").unwrap();
    assert_eq!(client.value(read), "item 20");
    client.query("LISTEN channel").unwrap();
    assert!(!ask_sql(&pgweir, &mut client, read).1);
    // Portions of an answer, and portals that stay.
    let mut client = Client::connect(pgweir.port());
    let portion = Script::new().parse("", "SELECT v FROM item").bind("", "", &[]).execute("", 2).sync();
    never(&pgweir, &mut client, &portion, "batch", "a portion");
    let twice = Script::new().parse("", read).bind("", "", &[]).execute("", 0).execute("", 0).sync();
    never(&pgweir, &mut client, &twice, "batch", "twice");
    let named = Script::new().parse("", read).bind("p", "", &[]).execute("p", 0).sync();
    never(&pgweir, &mut client, &named, "batch", "a named portal");
}

/// Errors and notices are not answers.
#[test]
fn errors_and_notices() {
    let pgweir = lasting();
    let mut client = Client::connect(pgweir.port());
    let before = hits(&pgweir);
    for _ in 0..3 {
        assert!(client.query("SELECT 1 / (id - 1) FROM item WHERE id = 1").unwrap_err().starts_with("22012"));
    }
    assert!(reason(&pgweir, "unkept", "other") >= 2.0);
    assert_eq!(hits(&pgweir), before);
}
