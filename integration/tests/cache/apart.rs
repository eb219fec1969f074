//! Who is somebody else, or reads under other settings, gets other answers.
//! It must never tell clients apart by their texts: all ask the same.

use integration::DATABASE;

use crate::common::client::{outcome, said};
use crate::common::{Client, crowd, metric};
use crate::{ask, ask_sql, builder, bypasses, cluster, conf, count, hits, lasting, start, unnamed};

#[test]
fn tenants_never_see_each_others_rows() {
    let cluster = builder().start().unwrap();
    cluster.primary().query("CREATE DATABASE second").unwrap();
    cluster
        .primary()
        .query_in(
            "second",
            "CREATE SCHEMA app; CREATE TABLE app.place AS SELECT 'of second' AS v;
        GRANT ALL ON SCHEMA app TO app; GRANT ALL ON app.place TO app",
        )
        .unwrap();
    let rest = format!("[databases.second]\n{}\n", cluster.config_lines());
    let pgweir = start(&conf(&cluster, "mode = \"on\"\nttl = \"1h\"").rest(&rest));
    let whose = [("app", DATABASE, "of app"), ("other", DATABASE, "of other"), ("app", "second", "of second")];
    let mut clients: Vec<_> = whose
        .map(|(user, database, right)| {
            (Client::connect_with(pgweir.port(), &[("user", user), ("database", database)]), right)
        })
        .into();
    // The catalog of the second database is read when somebody comes back from there.
    crate::common::eventually("all are served from the cache", || {
        let before = hits(&pgweir);
        for (client, right) in &mut clients {
            assert_eq!(client.value("SELECT v FROM place"), *right);
        }
        hits(&pgweir) == before + 3.0
    });
    let port = pgweir.port();
    crowd(12, move |number| {
        let (user, database, right) = whose[number % 3];
        let mut client = Client::connect_with(port, &[("user", user), ("database", database)]);
        for _ in 0..50 {
            assert_eq!(client.value("SELECT v FROM place"), right);
            assert_eq!(outcome(&client.run(&unnamed("SELECT v FROM place", &[]))).unwrap(), [[right]]);
        }
    });
    for (user, database, _) in whose {
        let hits = metric(&pgweir, "pgweir_cache_hits_total", &[("user", user), ("database", database)]);
        assert!(hits > 100.0, "{hits} of {user} in {database}: {:?}", bypasses(&pgweir));
    }
}

/// Who may not read a table is told so, whoever has read it before.
#[test]
fn what_a_role_may_not_read_it_is_not_told() {
    let pgweir = lasting();
    let mut client = Client::connect(pgweir.port());
    let sql = "SELECT v FROM app.place";
    client.query(sql).unwrap();
    assert!(ask_sql(&pgweir, &mut client, sql).1);
    let mut other = Client::connect_with(pgweir.port(), &[("user", "other")]);
    for _ in 0..2 {
        assert!(other.query(sql).unwrap_err().starts_with("42501"));
    }
    client.query("SET ROLE reader").unwrap();
    for _ in 0..2 {
        assert!(client.query(sql).unwrap_err().starts_with("42501"));
    }
    client.query("RESET ROLE").unwrap();
    assert!(ask_sql(&pgweir, &mut client, sql).1);
}

/// Each of these settings changes what comes out, and each answer is kept for those who have it.
#[test]
fn other_settings_are_other_answers() {
    let pgweir = lasting();
    let kinds = "SELECT at, f, b, i FROM kinds";
    let cases = [
        ("", kinds),
        ("SET DateStyle = 'German'", kinds),
        ("SET TimeZone = 'Asia/Tokyo'", kinds),
        ("SET TimeZone = 'Asia/Tokyo'; SET DateStyle = 'SQL, DMY'", kinds),
        ("SET extra_float_digits = 0", kinds),
        ("SET bytea_output = 'escape'", kinds),
        ("SET IntervalStyle = 'iso_8601'", kinds),
        ("SET search_path = a, public", "SELECT v, current_user FROM spot"),
        ("SET search_path = b, public", "SELECT v, current_user FROM spot"),
        ("SET search_path = b, public; SET ROLE reader", "SELECT v, current_user FROM spot"),
        ("SET ROLE reader; SET search_path = a", "SELECT v, current_user FROM spot"),
        ("SET standard_conforming_strings = off", "SELECT 'a' || E'\\\\' || v FROM item WHERE id = 1"),
    ];
    let mut kept = Vec::new();
    for (settings, sql) in cases {
        let mut direct = Client::connect(cluster().primary().port());
        direct.query(&format!("SELECT 1;{settings}")).unwrap();
        let right = direct.query(sql).unwrap();
        let mut client = Client::connect(pgweir.port());
        client.query(&format!("SELECT 1;{settings}")).unwrap();
        let (rows, hit) = ask_sql(&pgweir, &mut client, sql);
        assert_eq!(rows, right, "{settings}");
        assert!(!hit, "{settings}: kept under other settings");
        kept.push((client, settings, sql, right));
    }
    for (client, settings, sql, right) in &mut kept {
        let (rows, hit) = ask_sql(&pgweir, client, sql);
        assert_eq!(rows, *right, "{settings}");
        // A text with a backslash may name a moment, for all that is known.
        assert_eq!(hit, !sql.contains('\\'), "{settings}: {:?}", bypasses(&pgweir));
    }
    // Given at login they are the same.
    let mut client = Client::connect_with(pgweir.port(), &[("options", "-c datestyle=German")]);
    let (rows, _) = ask_sql(&pgweir, &mut client, kinds);
    assert_eq!(rows, kept[1].3);
    // Of these nothing hangs on.
    client = Client::connect_with(pgweir.port(), &[("application_name", "another")]);
    client.query("SET statement_timeout = '1min'").unwrap();
    let (rows, hit) = ask_sql(&pgweir, &mut client, kinds);
    assert!(hit && rows == kept[0].3);
}

/// Parameters, their types and their formats are part of the question.
#[test]
fn other_parameters_are_other_answers() {
    let pgweir = lasting();
    let mut client = Client::connect(pgweir.port());
    let sql = "SELECT coalesce($1, 'none')";
    for (value, right) in [(Some("a"), "a"), (Some(""), ""), (None, "none"), (Some("aa"), "aa")] {
        for turn in 0..2 {
            let (frames, hit) = ask(&pgweir, &mut client, &unnamed(sql, &[value]));
            assert_eq!(outcome(&frames).unwrap(), [[right]], "{value:?}");
            assert_eq!(hit, turn == 1, "{value:?}: {:?}", bypasses(&pgweir));
        }
    }
    // A type that is given: int4, text.
    for (oid, right) in [(23u32, "integer"), (25, "text")] {
        let mut body = b"\0SELECT pg_typeof($1)\0\0\x01".to_vec();
        body.extend_from_slice(&oid.to_be_bytes());
        let script = integration::wire::Script::new().raw(b'P', &body).bind("", "", &[Some("1")]).execute("", 0).sync();
        for turn in 0..2 {
            let (frames, hit) = ask(&pgweir, &mut client, &script);
            let error = frames.iter().find(|frame| frame.tag == b'E').map(said);
            assert_eq!((outcome(&frames).unwrap(), hit), (vec![vec![right.to_owned()]], turn == 1), "{oid} {error:?}");
        }
    }
    assert!(count(&pgweir, "fills") >= 6.0);
}
