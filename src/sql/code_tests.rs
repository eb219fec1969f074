//! A catalog, and what statements do in it.
//! Must never need a server: what one says is written here by hand.

use super::*;
use crate::sql::defines::{may_define, spells_definition};

const LOGIN: &[&[&str]] = &[
    &["p", "p1", "app", "login", "fvp-"],
    &["s", "p1", "000000001", " u, false); END"],
    &["s", "p1", "000000000", "BEGIN PERFORM set_config('app.user',"],
    &["p", "p2", "app", "enter", "fvs-"],
    &["s", "p2", "000000000", "SELECT app.login($1)"],
    &["p", "p3", "app", "plus", "fip-"],
    &["s", "p3", "000000000", "BEGIN RETURN $1 + 1; END"],
    &["p", "p4", "app", "go", "pvp-"],
    &["s", "p4", "000000000", "BEGIN PERFORM pg_advisory_lock(1); END"],
    &["p", "p5", "app", "lower", "fvs-"],
    &["s", "p5", "000000000", "SELECT pg_advisory_lock(1)"],
];

fn resolve(code: &Code, sql: &str) -> Resolved {
    let scanned = crate::sql::shape::scan(sql.as_bytes(), true);
    let verdict = crate::sql::classify::classify(sql.as_bytes(), &scanned);
    code.resolve(sql.as_bytes(), true, verdict.effects)
}

#[test]
fn functions_do_what_they_call() {
    let code = Code::of_rows(LOGIN);
    for (sql, effects, names) in [
        ("SELECT login('x')", Effects::SET_CONFIG, 1),
        ("SELECT app.enter('x')", Effects::SET_CONFIG, 1),
        ("SELECT plus(1)", Effects::NONE, 0),
        ("SELECT plus(1), \"login\"(2)", Effects::SET_CONFIG, 1),
        ("CALL go()", Effects::ADVISORY_LOCK, 0),
        ("INSERT INTO t VALUES (1) RETURNING login(a)", Effects::SET_CONFIG, 1),
        ("SELECT app.lower('x')", Effects::ADVISORY_LOCK, 0),
        ("SELECT login FROM t", Effects::NONE, 0),
    ] {
        let resolved = resolve(&code, sql);
        assert_eq!(resolved.touch.effects, effects, "{sql}");
        assert_eq!((resolved.touch.names.len(), resolved.unheard), (names, false), "{sql}");
    }
    // By the name of a built-in one, so that the classifier does not say a word.
    assert!(code.watches());
    assert_eq!(resolve(&code, "SELECT lower(x) FROM t").touch.effects, Effects::ADVISORY_LOCK);
    assert_eq!(code.functions(b"plus").first().map(|it| (it.volatility, it.kind)), Some((Volatility::Immutable, b'f')));
}

#[test]
fn what_is_not_there_is_unknown() {
    let code = Code::of_rows(LOGIN);
    for sql in ["SELECT made_since(1)", "SELECT plus(1), made_since(2)", "CALL nothing()"] {
        let resolved = resolve(&code, sql);
        assert!(resolved.unheard && resolved.touch.effects.any(Effects::UNKNOWN_FUNCTION), "{sql}");
    }
    assert!(resolve(&code, "DO 'BEGIN END'").touch.effects.any(Effects::OPAQUE));
    assert!(resolve(&code, "SELECT U&\"\\0061\"()").touch.effects.any(Effects::UNKNOWN_FUNCTION));
}

#[test]
fn relations_run_code() {
    let mut rows = LOGIN[..3].to_vec();
    rows.extend_from_slice(&[
        &["r", "10", "app", "orders", "r"],
        &["r", "11", "app", "report", "v"],
        &["r", "12", "app", "items", "r"],
        &["e", "w10", "p1"],
        &["e", "r11", "p1"],
        &["b", "w12", "nextval"],
        // Who deletes an item deletes its orders.
        &["e", "w12", "w10"],
        &["p", "p9", "app", "fill", "fvp-"],
        &["s", "p9", "000000000", "BEGIN INSERT INTO orders VALUES (1); END"],
        &["p", "p8", "app", "look", "fvp-"],
        &["s", "p8", "000000000", "BEGIN PERFORM 1 FROM orders; END"],
        &["o", "o21", "app", "+|+"],
        &["e", "o21", "p1"],
    ]);
    let code = Code::of_rows(&rows);
    assert!(code.watches());
    let (none, sets) = (Effects::NONE, Effects::SET_CONFIG);
    for (sql, effects) in [
        ("SELECT * FROM orders", none),
        ("INSERT INTO orders VALUES (1)", sets),
        ("UPDATE app.orders SET a = 1", sets),
        ("WITH x AS (DELETE FROM orders RETURNING 1) SELECT * FROM x", sets),
        ("COPY orders FROM STDIN", sets | Effects::COPY),
        ("SELECT * FROM report", sets),
        ("DELETE FROM items", sets | Effects::SEQUENCE_STATE),
        ("SELECT fill()", sets),
        ("SELECT look()", none),
        ("SELECT a +|+ b FROM t", sets),
        ("SELECT 1", none),
    ] {
        assert_eq!(resolve(&code, sql).touch.effects, effects, "{sql}");
    }
}

#[test]
fn code_without_a_text_is_judged_by_what_it_says_of_itself() {
    let row = |flags: &'static str| Code::of_rows(&[&["p", "p1", "x", "f", flags]]);
    for (flags, unseen) in [
        ("fvc-", true),
        ("fic-", false),
        ("fsc-", false),
        ("fvc-pgcrypto", false),
        ("fvc-dblink", true),
        ("fsc-tablefunc", true),
        ("fvc-pg_trgm", true),
        ("fvi-", true),
        ("fii-", false),
        ("avi-", false),
    ] {
        let effects = resolve(&row(flags), "SELECT f(1)").touch.effects;
        assert_eq!(effects.any(Effects::UNKNOWN_FUNCTION), unseen, "{flags}");
    }
}

#[test]
fn circles_end() {
    let code = Code::of_rows(&[
        &["p", "p1", "x", "f", "fvp-"],
        &["s", "p1", "000000000", "BEGIN PERFORM g(); END"],
        &["p", "p2", "x", "g", "fvp-"],
        &["s", "p2", "000000000", "BEGIN PERFORM f(); PERFORM h(); END"],
        &["p", "p3", "x", "h", "fvp-"],
        &["s", "p3", "000000000", "BEGIN LISTEN x; END"],
    ]);
    for sql in ["SELECT f()", "SELECT g()", "SELECT h()"] {
        assert_eq!(resolve(&code, sql).touch.effects, Effects::LISTEN, "{sql}");
    }
}

#[test]
fn what_defines_code() {
    let code = Code::default();
    for (sql, defines) in [
        ("CREATE OR REPLACE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1'", true),
        ("CREATE TRIGGER t BEFORE INSERT ON x EXECUTE FUNCTION f()", true),
        ("CREATE VIEW v AS SELECT 1", true),
        ("CREATE TABLE t (a int DEFAULT f())", true),
        ("CREATE TABLE t (a int)", false),
        ("CREATE TEMP TABLE t (a serial)", false),
        ("CREATE INDEX ON t (a)", false),
        ("ALTER TABLE t ENABLE TRIGGER x", true),
        ("ALTER ROLE a SET b = 1", false),
        ("DROP FUNCTION f", false),
        ("SELECT 1 INTO t", false),
        ("CREATE TABLE t (a int); CREATE EXTENSION x", true),
        ("SELECT 1", false),
    ] {
        assert_eq!(resolve(&code, sql).defines, defines, "{sql}");
    }
    assert!(may_define(b"DO $$ BEGIN Create function .. $$") && !may_define(b"DO $$ BEGIN PERFORM 1; END $$"));
}

#[test]
fn too_much_is_not_looked_into() {
    let rows: &[&[&str]] = &[&["f", "1"], &["z", "99999999"], LOGIN[0], LOGIN[1]];
    let code = Code::new(&Code::facts(rows), |_, _| false);
    assert!(code.is_too_large && code.watches() && code.is_as(&Code::facts(&[&["f", "1"]])));
    for sql in ["SELECT login('x')", "INSERT INTO t VALUES (1)"] {
        assert!(resolve(&code, sql).touch.effects.any(Effects::UNKNOWN_FUNCTION), "{sql}");
    }
}

#[test]
fn garbage_is_no_panic() {
    for bytes in
        [&b""[..], b"\0", b"\0\x05\0\0\0\x01", b"\xff\xff\xff\xff\xff\xff", &Code::facts(&[&["p"], &["e"], &["s"]])]
    {
        let _ = Code::new(bytes, |_, _| false);
    }
}

#[test]
fn readers_of_global_tables_are_found_by_any_way() {
    let rows: &[&[&str]] = &[
        &["f", "1"],
        &["z", "100"],
        &["r", "1", "app", "part", "rp"],
        &["r", "2", "app", "whole", "pp"],
        &["e", "r2", "r1"],
        &["r", "3", "app", "shown", "vp"],
        &["e", "r3", "p4"],
        &["p", "p4", "app", "first", "fss-"],
        &["s", "p4", "000000000", "SELECT min(a) FROM app.part"],
        &["r", "5", "other", "part2", "rp"],
        &["o", "o6", "app", "<=>"],
        &["e", "o6", "p4"],
    ];
    let code = Code::new(&Code::facts(rows), |schema, name| schema == b"app" && name == b"part");
    for (sql, reads) in [
        ("SELECT * FROM part", true),
        ("TABLE app.\"part\"", true),
        ("SELECT * FROM WHOLE w", true),
        ("SELECT * FROM shown", true),
        ("SELECT first()", true),
        ("SELECT 1 <=> 2", true),
        ("SELECT * FROM U&\"p\\0061rt\"", true),
        ("SELECT * FROM part2", false),
        ("SELECT 'part', 1 <= 2", false),
    ] {
        assert_eq!(code.reads_globals(sql.as_bytes(), true), reads, "{sql}");
    }
    assert!(!Code::new(&Code::facts(rows), |_, _| false).reads_globals(b"SELECT * FROM part", true));
}

#[test]
fn definitions_are_found_in_what_is_handed_to_code() {
    for text in ["SELECT run('CREATE TABLE t ()')", "x\0\0\0\x20create\tor replace", "SELECT f(E'Alter/**/table')"] {
        assert!(spells_definition(text.as_bytes()), "{text}");
    }
    for text in ["SELECT f(created_at, altered) FROM t", "SELECT create", "", "re-crea te"] {
        assert!(!spells_definition(text.as_bytes()), "{text}");
    }
}
