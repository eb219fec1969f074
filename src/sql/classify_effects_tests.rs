//! Effects and kinds of statements, and texts made to do harm.
//! Must never take an effect for granted that the statement's documentation does not name.
#![allow(clippy::unwrap_used)]

use super::*;
use crate::sql::shape::scan;
use crate::sql::verdict::StatementKind as S;

fn verdict_of(sql: &str) -> Verdict {
    classify(sql.as_bytes(), &scan(sql.as_bytes(), true))
}

#[test]
fn effects_and_kinds() {
    type E = Effects;
    let rows: &[(&str, S, Effects)] = &[
        ("BEGIN", S::Begin, E::BEGIN),
        ("START TRANSACTION READ ONLY", S::Begin, E::BEGIN),
        ("COMMIT AND CHAIN", S::Commit, E::COMMIT | E::CHAIN),
        ("END AND NO CHAIN", S::Commit, E::COMMIT),
        ("ABORT", S::Rollback, E::ROLLBACK),
        ("ROLLBACK WORK TO SAVEPOINT a", S::RollbackTo, E::ROLLBACK_TO),
        ("SAVEPOINT a", S::Savepoint, E::SAVEPOINT),
        ("RELEASE SAVEPOINT a", S::Release, E::RELEASE),
        ("SET a = 1", S::Set, E::SET_SESSION),
        ("SET SESSION a TO 1", S::Set, E::SET_SESSION),
        ("SET TIME ZONE 'UTC'", S::Set, E::SET_SESSION),
        ("SET ROLE u", S::Set, E::SET_SESSION),
        ("SET SESSION AUTHORIZATION u", S::Set, E::SET_SESSION),
        ("SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY", S::Set, E::SET_SESSION),
        ("SET LOCAL ROLE u", S::Set, E::SET_LOCAL),
        ("SET TRANSACTION ISOLATION LEVEL SERIALIZABLE", S::SetTransaction, E::SET_LOCAL),
        ("RESET a", S::Reset, E::RESET),
        ("SELECT set_config('a', 'b', false)", S::Select, E::SET_CONFIG),
        ("SELECT set_config('a', 'b', true)", S::Select, E::SET_LOCAL),
        ("SELECT set_config('a', (SELECT max(b) FROM t), true)", S::Select, E::SET_LOCAL),
        ("SELECT set_config('a', 'b', $1)", S::Select, E::SET_CONFIG),
        ("SELECT set_config('a', 'b', true AND false)", S::Select, E::SET_CONFIG),
        ("SELECT set_config(is_local => true, setting_name => 'a', new_value => 'b')", S::Select, E::SET_CONFIG),
        ("WITH x AS (SELECT pg_catalog.set_config('a', 'b', false)) SELECT 1 FROM x", S::Select, E::SET_CONFIG),
        ("SELECT 1 WHERE EXISTS (SELECT \"set_config\"('a', 'b', 'f'))", S::Select, E::SET_CONFIG),
        ("INSERT INTO t VALUES (1) RETURNING set_config('a', 'b', false)", S::Insert, E::SET_CONFIG),
        ("EXPLAIN ANALYZE SELECT set_config('a', 'b', false)", S::Explain, E::SET_CONFIG),
        ("EXPLAIN SELECT set_config('a', 'b', false)", S::Explain, E::NONE),
        ("EXPLAIN (ANALYZE false) SELECT nextval('s')", S::Explain, E::NONE),
        ("EXPLAIN (COSTS, ANALYZE 1) SELECT nextval('s')", S::Explain, E::SEQUENCE_STATE),
        ("LISTEN c", S::Listen, E::LISTEN),
        ("UNLISTEN c", S::Unlisten, E::UNLISTEN),
        ("PREPARE p AS SELECT nextval('s')", S::Prepare, E::PREPARE | E::SEQUENCE_STATE),
        ("EXECUTE p", S::Execute, E::EXECUTE),
        ("CREATE TABLE t AS EXECUTE p", S::Ddl, E::DDL | E::EXECUTE),
        ("DEALLOCATE ALL", S::Deallocate, E::DEALLOCATE),
        ("DISCARD ALL", S::Discard, E::DISCARD_ALL),
        ("DISCARD TEMP", S::Discard, E::DISCARD),
        ("CREATE TEMP TABLE t (a int)", S::Ddl, E::DDL | E::TEMP),
        ("CREATE LOCAL TEMPORARY TABLE t (a int) ON COMMIT DROP", S::Ddl, E::DDL | E::TEMP | E::TEMP_ON_COMMIT_DROP),
        ("CREATE OR REPLACE TEMP VIEW v AS SELECT 1", S::Ddl, E::DDL | E::TEMP),
        ("CREATE TEMP SEQUENCE s", S::Ddl, E::DDL | E::TEMP),
        ("CREATE TABLE pg_temp.t AS SELECT 1", S::Ddl, E::DDL | E::TEMP),
        ("CREATE FUNCTION pg_temp.f() RETURNS int LANGUAGE sql AS 'select 1'", S::Ddl, E::DDL | E::TEMP),
        ("CREATE TABLE t (id int DEFAULT nextval('s'))", S::Ddl, E::DDL),
        ("CREATE TABLE t AS SELECT nextval('s')", S::Ddl, E::DDL | E::SEQUENCE_STATE),
        ("CREATE VIEW v AS SELECT nextval('s')", S::Ddl, E::DDL),
        ("SELECT 1 AS a INTO TEMP t", S::Select, E::DDL | E::TEMP),
        ("SELECT a INTO TEMPORARY TABLE t FROM u", S::Select, E::DDL | E::TEMP),
        ("SELECT a INTO t FROM u", S::Select, E::DDL),
        ("WITH x AS (INSERT INTO t VALUES (1) RETURNING *) SELECT * FROM x", S::Select, E::NONE),
        ("DROP TABLE t", S::Ddl, E::DDL | E::DROP),
        ("DECLARE c CURSOR WITH HOLD FOR SELECT 1", S::Declare, E::HOLD_CURSOR),
        ("DECLARE c CURSOR WITHOUT HOLD FOR SELECT 1", S::Declare, E::NONE),
        ("DECLARE c CURSOR FOR SELECT pg_advisory_lock(1)", S::Declare, E::ADVISORY_LOCK),
        ("SELECT pg_try_advisory_lock_shared(1, 2)", S::Select, E::ADVISORY_LOCK),
        ("SELECT pg_advisory_unlock_all()", S::Select, E::ADVISORY_UNLOCK),
        ("SELECT pg_advisory_xact_lock(1)", S::Select, E::NONE),
        ("LOAD 'x'", S::Load, E::LOAD),
        ("SELECT setseed(0)", S::Select, E::SETSEED),
        ("INSERT INTO t VALUES (nextval('s'))", S::Insert, E::SEQUENCE_STATE),
        ("SELECT lastval()", S::Select, E::SEQUENCE_READ),
        ("DO 'begin end'", S::Do, E::OPAQUE),
        ("CALL p()", S::Call, E::OPAQUE | E::UNKNOWN_FUNCTION),
        ("COPY t FROM STDIN", S::Copy, E::COPY),
        ("COMMIT PREPARED 'x'", S::TwoPhase, E::TWO_PHASE),
        ("SELECT my_function()", S::Select, E::UNKNOWN_FUNCTION),
        ("UPDATE t SET a = 1 RETURNING app.f(a)", S::Update, E::UNKNOWN_FUNCTION),
        ("UPDATE t SET a = 1 RETURNING lower(a), cast(b AS numeric(3))", S::Update, E::NONE),
        ("DECLARE c CURSOR FOR SELECT my_function()", S::Declare, E::UNKNOWN_FUNCTION),
        (
            "BEGIN; SET LOCAL a = 1; SELECT nextval('s'); COMMIT",
            S::Many,
            E::BEGIN | E::SET_LOCAL | E::SEQUENCE_STATE | E::COMMIT,
        ),
        ("SELECT 1; LISTEN c", S::Many, E::LISTEN),
        ("SELEC set_config('a', 'b', false)", S::Unknown, E::SET_CONFIG),
        ("WITH x AS (SELECT 1) DELETE FROM t", S::Delete, E::NONE),
        ("TABLE t", S::Select, E::NONE),
        ("CLOSE c", S::Close, E::CLOSE_CURSOR),
    ];
    for (sql, kind, effects) in rows {
        let verdict = verdict_of(sql);
        assert_eq!((verdict.kind, verdict.effects), (*kind, *effects), "{sql}");
    }
}

#[test]
fn hostile_text_is_judged_without_harm() {
    let nested = |n: usize| format!("SELECT {}1{}", "(".repeat(n), ")".repeat(n));
    let chain = format!("SELECT {}1", "1+".repeat(20_000));
    let selects = format!("{}1{}", "SELECT (".repeat(2_000), ")".repeat(2_000));
    let unions = format!("SELECT 1{}", " UNION ALL SELECT 1".repeat(3_000));
    for sql in [
        nested(30_000),
        chain,
        selects,
        unions,
        "(".repeat(60_000),
        "SELECT '".into(),
        "/*".repeat(30_000),
        "CASE ".repeat(10_000),
    ] {
        let handle = std::thread::Builder::new().stack_size(2 << 20);
        let verdict = handle.spawn(move || verdict_of(&sql)).unwrap().join().unwrap();
        assert!(verdict.route == Route::Primary || verdict.reason == Reason::PureRead, "{verdict:?}");
    }
    let long = format!("SELECT set_config('a', '{}', false)", "x".repeat(PARSE_LIMIT_BYTES));
    let verdict = verdict_of(&long);
    assert_eq!((verdict.reason, verdict.effects), (Reason::TooLong, Effects::SET_CONFIG));
    assert!(!verdict.follows_from_shape());
    let verdict = verdict_of(&format!("{}SELECT 1", "EXPLAIN ".repeat(120_000)));
    assert_eq!(verdict.reason, Reason::TooLong);
    let verdict = verdict_of(&"set_config(".repeat(90_000));
    assert!(verdict.effects.has(Effects::SET_CONFIG));
    let verdict = verdict_of(&format!("SELECT '{}'", "x".repeat(SCAN_LIMIT_BYTES)));
    assert!(verdict.effects.has(Effects::OPAQUE));
    let deep = format!("SELECT {}nextval('s'){}", "(".repeat(30_000), ")".repeat(30_000));
    let verdict = verdict_of(&deep);
    assert_eq!(verdict.route, Route::Primary);
    assert!(verdict.reason != Reason::TooDeep || verdict.effects.has(Effects::SEQUENCE_STATE), "{verdict:?}");
}

#[test]
fn text_that_is_not_utf8() {
    let judge = |sql: &[u8], conforming| classify(sql, &scan(sql, conforming));
    assert_eq!(judge(b"SELECT 'caf\xe9' FROM t", true).reason, Reason::PureRead);
    assert_eq!(judge(b"SELECT caf\xe9 FROM t", true).reason, Reason::Encoding);
    // In SJIS the backslash is half a character and the string ends; taken bytewise, LISTEN would be inside of it.
    let sjis = b"SELECT E'\x95\\'; LISTEN x; --'";
    let verdict = judge(sjis, true);
    assert_eq!((verdict.route, verdict.reason), (Route::Primary, Reason::Encoding));
    assert_ne!(scan(sjis, true).shape, scan(b"SELECT 'a'", true).shape);
    let old_style = b"SELECT 'it\\'s'";
    assert_eq!(judge(old_style, false).reason, Reason::PureRead);
    assert_eq!(judge(old_style, true).reason, Reason::Unparsable);
}
