//! The table of routes and reasons, after routing-and-cache.md 1.2 to 1.4.
//! Must never contain a statement whose expected route was copied from the classifier's answer instead of from PostgreSQL's behaviour.
#![allow(clippy::unwrap_used)]

use super::*;
use crate::sql::shape::scan;

fn verdict_of(sql: &str) -> Verdict {
    classify(sql.as_bytes(), &scan(sql.as_bytes(), true))
}

/// Checks rows of (statement, reason code); the route follows from the section. Of functions, operators and sequences that are not built in
/// the catalog has the last word: see `footing_tests.rs`.
fn check(route: Route, rows: &[(&str, &str)]) {
    for (sql, code) in rows {
        let verdict = verdict_of(sql);
        let asks = route == Route::Primary && ["function_unknown", "operator_unknown", "sequence"].contains(code);
        let route = if asks { Route::Catalog } else { route };
        assert_eq!((verdict.route, verdict.reason.code()), (route, *code), "{sql}\n{verdict:?}");
    }
}

#[test]
fn reads_go_to_a_replica() {
    let pure = "SELECT 1
        SELECT abalance FROM pgbench_accounts WHERE aid = 12345
        SELECT * FROM t WHERE a = $1 AND b IN (1, 2, 3) ORDER BY c DESC LIMIT 10
        VALUES (1, 'a'), (2, 'b')
        TABLE t
        (SELECT 1) UNION ALL (SELECT 2)
        ((SELECT a FROM t))
        WITH x AS (SELECT 1 AS a) SELECT * FROM x
        WITH RECURSIVE r(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r WHERE n < 9) SELECT * FROM r
        WITH insert AS (SELECT 1) TABLE insert
        WITH x AS MATERIALIZED (SELECT 1) (SELECT * FROM x)
        SELECT count(*), sum(a), max(b) FILTER (WHERE c) FROM t GROUP BY ROLLUP (d)
        SELECT row_number() OVER (PARTITION BY a ORDER BY b), last_value(a) OVER w FROM t WINDOW w AS (ORDER BY a)
        SELECT now(), current_timestamp, current_user
        SELECT pg_catalog.now(), pg_catalog.count(*) FROM t
        SELECT extract(year FROM d), d AT TIME ZONE 'UTC', overlay('abc' PLACING 'x' FROM 1), substring('abc' FROM 2) FROM t
        SELECT coalesce(a, b), nullif(a, 1), greatest(1, 2), CASE WHEN a THEN 1 ELSE 2 END FROM t
        SELECT a::numeric(10, 2), cast(b AS varchar(5)) FROM t AS x(a, b)
        SELECT * FROM a JOIN b USING (id) LEFT JOIN LATERAL (SELECT * FROM c WHERE c.id = a.id) q ON true
        SELECT * FROM generate_series(1, 10) AS g(n), unnest(ARRAY[1, 2]) WITH ORDINALITY
        SELECT * FROM t TABLESAMPLE BERNOULLI (10)
        SELECT data->>'a', data @> '{}', data ? 'b', data #> '{a,b}' FROM docs
        SELECT jsonb_agg(x), json_build_object('a', 1), to_jsonb(t) FROM t
        SELECT * FROM json_to_recordset('[]') AS x(a int, b text)
        SELECT * FROM JSON_TABLE('[]'::jsonb, '$[*]' COLUMNS (a int PATH '$.a')) jt
        SELECT string_agg(a, ',' ORDER BY b), percentile_cont(0.5) WITHIN GROUP (ORDER BY x) FROM t
        SELECT EXISTS (SELECT 1 FROM t), ARRAY(SELECT a FROM t), (SELECT max(a) FROM t)
        SELECT 'FOR UPDATE', \"for\", a AS \"into\" FROM t
        SELECT lower(a) || '%' FROM t WHERE b LIKE 'x%' AND c ~ '^a' AND d BETWEEN 1 AND 2
        SELECT * FROM app.pg_things
        SELECT date_trunc('day', ts), age(ts), to_char(ts, 'YYYY') FROM t
        SELECT * FROM t FETCH FIRST 5 ROWS ONLY
        SELECT * FROM t FOR READ ONLY
        SELECT a, grouping(a) FROM t GROUP BY GROUPING SETS ((a), ())
        SELECT has_table_privilege('t', 'select'), version(), current_database()
        SELECT -1, +2, - 3, a - 1 FROM t;
        SELECT xmlelement(name a, 1)
        SELECT 1 OPERATOR(pg_catalog.+) 2
        EXPLAIN SELECT * FROM t
        EXPLAIN (VERBOSE, FORMAT JSON) SELECT * FROM t
        EXPLAIN (ANALYZE, BUFFERS) SELECT * FROM t
        EXPLAIN ANALYZE VERBOSE TABLE t";
    for sql in pure.lines().map(str::trim) {
        check(Route::Replica, &[(sql, "pure_read")]);
        assert!(verdict_of(sql).effects.is_empty(), "{sql}");
    }
    check(
        Route::Replica,
        &[
            ("COPY t TO STDOUT", "pure_read"),
            ("COPY app.t (a, b) TO STDOUT WITH (FORMAT csv, HEADER)", "pure_read"),
            ("COPY (SELECT * FROM t WHERE a IN (SELECT 1)) TO STDOUT", "pure_read"),
            ("COPY (TABLE t) TO STDOUT (FORMAT binary)", "pure_read"),
            ("SELECT random()", "volatile_read"),
            ("SELECT gen_random_uuid()", "volatile_read"),
            ("SELECT pg_sleep(1)", "volatile_read"),
            ("SELECT clock_timestamp(), timeofday()", "volatile_read"),
            ("SELECT pg_size_pretty(pg_total_relation_size('t'))", "volatile_read"),
        ],
    );
}

#[test]
fn what_only_looks_like_a_read_goes_to_the_primary() {
    check(
        Route::Primary,
        &[
            // routing-and-cache.md 1.3, statements that peers get wrong.
            ("SELECT * INTO t2 FROM t1", "select_into"),
            ("SELECT app.do_write(1)", "function_unknown"),
            ("SELECT pg_notify('c', 'x')", "function_denied"),
            ("SELECT lo_create(0)", "function_denied"),
            ("SELECT txid_current()", "function_denied"),
            ("SELECT pg_current_xact_id()", "function_denied"),
            ("SELECT pg_logical_emit_message(true, 'a', 'b')", "function_denied"),
            ("SELECT pg_catalog.pg_try_advisory_lock(1)", "function_denied"),
            ("SELECT ('s'::text).nextval", "function_denied"),
            ("SELECT (1).pg_try_advisory_xact_lock", "function_denied"),
            ("SELECT $1.pg_backend_pid", "function_denied"),
            ("SELECT u.setseed FROM unnest($1::float8[]) AS u", "function_denied"),
            ("SELECT (a).b.f FROM t", "function_unknown"),
            ("SELECT 1; INSERT INTO t VALUES (1)", "many_statements"),
            ("BEGIN ISOLATION LEVEL SERIALIZABLE READ ONLY", "begin_serializable"),
            ("COPY (SELECT nextval('s')) TO STDOUT", "function_denied"),
            ("COPY (DELETE FROM t RETURNING *) TO STDOUT", "select_into"),
            ("COPY (WITH d AS (DELETE FROM t RETURNING *) TABLE d) TO STDOUT", "select_into"),
            ("COPY (SELECT * FROM t FOR UPDATE) TO STDOUT", "locking"),
            ("COPY pg_stat_activity TO STDOUT", "catalog_relation"),
            ("COPY orders_id_seq TO STDOUT", "sequence"),
            ("COPY (SELECT f()) TO STDOUT", "function_unknown"),
            ("COPY (SELECT 1) TO PROGRAM 'cat'", "copy"),
            ("COPY (SELECT 1) TO '/srv/x.csv'", "copy"),
            ("COPY t TO '/srv/x.csv'", "copy"),
            ("SELECT last_value FROM seq", "sequence"),
            ("SELECT * FROM orders_id_seq", "sequence"),
            ("WITH d AS (UPDATE t SET a = 1 RETURNING *) SELECT * FROM d", "data_modifying_cte"),
            ("WITH d AS (DELETE FROM t RETURNING *) SELECT * FROM d", "data_modifying_cte"),
            ("SELECT nextval('s')", "function_denied"),
            ("SELECT * FROM (SELECT * FROM t FOR UPDATE) x", "locking"),
            ("MERGE INTO t USING s ON t.a = s.a WHEN MATCHED THEN DELETE", "write"),
            ("UPDATE a SET bal = 1", "write"),
            ("SELECT x.now()", "function_unknown"),
            // 1.2 and 1.4: silently wrong on a standby.
            ("SELECT * FROM t FOR UPDATE", "locking"),
            ("SELECT * FROM t FOR NO KEY UPDATE SKIP LOCKED", "locking"),
            ("SELECT * FROM t FOR SHARE OF t", "locking"),
            ("SELECT * FROM t WHERE a IN (SELECT b FROM u FOR /* x */ KEY SHARE NOWAIT)", "locking"),
            ("SELECT pg_advisory_lock(1)", "function_denied"),
            ("SELECT pg_advisory_xact_lock(1)", "function_denied"),
            ("SELECT setval('s', 1)", "function_denied"),
            ("SELECT currval('s')", "function_denied"),
            ("SELECT set_config('a.b', '1', true)", "function_denied"),
            ("SELECT setseed(0.5)", "function_denied"),
            ("SELECT pg_export_snapshot()", "function_denied"),
            ("SELECT pg_read_file('x')", "function_denied"),
            ("SELECT * FROM pg_ls_dir('.')", "function_denied"),
            ("SELECT pg_terminate_backend(1)", "function_denied"),
            ("SELECT pg_reload_conf()", "function_denied"),
            ("SELECT pg_switch_wal()", "function_denied"),
            ("SELECT pg_promote()", "function_denied"),
            ("SELECT pg_stat_reset()", "function_denied"),
            ("SELECT pg_backend_pid()", "function_denied"),
            ("SELECT inet_server_addr()", "function_denied"),
            ("SELECT pg_is_in_recovery()", "function_denied"),
            ("SELECT pg_current_wal_lsn()", "function_denied"),
            ("SELECT pg_last_wal_replay_lsn()", "function_denied"),
            ("SELECT query_to_xml('select nextval(''s'')', true, true, '')", "function_denied"),
            ("SELECT table_to_xml('t', true, true, '')", "function_denied"),
            ("SELECT ts_rewrite('a'::tsquery, 'select 1')", "function_denied"),
            ("SELECT dblink_exec('x', 'y')", "function_unknown"),
            ("SELECT pg_create_logical_replication_slot('a', 'b')", "function_denied"),
            ("SELECT * FROM pg_stat_activity", "catalog_relation"),
            ("SELECT * FROM pg_catalog.pg_locks", "catalog_relation"),
            ("SELECT * FROM information_schema.tables", "catalog_relation"),
            ("SELECT * FROM t JOIN pg_settings ON true", "catalog_relation"),
            ("SELECT * FROM (WITH pg_locks AS (SELECT 1) TABLE pg_locks) s, pg_locks", "catalog_relation"),
            ("SELECT * FROM pg_temp.t", "temporary_relation"),
            ("SELECT is_called FROM s", "sequence"),
            ("SELECT \"log_cnt\" FROM s", "sequence"),
            ("SELECT \"nextval\"('s')", "function_denied"),
            ("SELECT NEXTVAL ( 's' )", "function_denied"),
            ("SELECT U&\"next\\0076al\"('s')", "unicode_name"),
            ("SELECT 1 OPERATOR(app.+) 2", "operator_unknown"),
            ("SELECT my_agg(a) FROM t", "function_unknown"),
            ("EXPLAIN SELECT my_function()", "function_unknown"),
            ("EXPLAIN ANALYZE SELECT nextval('s')", "function_denied"),
            ("EXPLAIN INSERT INTO t VALUES (1)", "explain_of_write"),
            ("EXPLAIN ANALYZE DELETE FROM t", "explain_of_write"),
            ("EXPLAIN CREATE TABLE x AS SELECT 1", "explain_of_write"),
            ("EXPLAIN EXECUTE p", "explain_of_write"),
            ("EXPLAIN WITH d AS (DELETE FROM t RETURNING *) SELECT * FROM d", "data_modifying_cte"),
            ("SELECT 1; SELECT 2", "many_statements"),
            ("BEGIN; SELECT 1; COMMIT", "many_statements"),
            ("", "empty"),
            (" ; -- nothing", "empty"),
            ("SELEC 1", "unparsable"),
            ("SELECT 'open", "unparsable"),
        ],
    );
}

#[test]
fn everything_else_goes_to_the_primary_or_follows() {
    check(
        Route::Primary,
        &[
            ("INSERT INTO t VALUES (1)", "write"),
            ("WITH x AS (SELECT 1) INSERT INTO t SELECT * FROM x", "write"),
            ("DELETE FROM t", "write"),
            ("TRUNCATE t", "ddl"),
            ("COPY t FROM STDIN", "copy"),
            ("CALL p(1)", "opaque"),
            ("DO $$ BEGIN END $$", "opaque"),
            ("CREATE TABLE t (a int)", "ddl"),
            ("CREATE INDEX ON t (a)", "ddl"),
            ("CREATE RULE r AS ON INSERT TO t DO ALSO (DELETE FROM u; DELETE FROM v)", "ddl"),
            ("CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT CASE WHEN true THEN 1 END; SELECT 2; END", "ddl"),
            ("ALTER TABLE t ADD b int", "ddl"),
            ("DROP TABLE t", "ddl"),
            ("GRANT SELECT ON t TO u", "ddl"),
            ("COMMENT ON TABLE t IS 'x'", "ddl"),
            ("SECURITY LABEL ON TABLE t IS 'x'", "ddl"),
            ("LOCK TABLE t IN SHARE MODE", "locking"),
            ("VACUUM t", "maintenance"),
            ("ANALYZE t", "maintenance"),
            ("REINDEX TABLE t", "maintenance"),
            ("CLUSTER t", "maintenance"),
            ("REFRESH MATERIALIZED VIEW v", "maintenance"),
            ("CHECKPOINT", "maintenance"),
            ("PREPARE TRANSACTION 'x'", "two_phase"),
            ("COMMIT PREPARED 'x'", "two_phase"),
            ("LISTEN c", "session_object"),
            ("NOTIFY c, 'x'", "session_object"),
            ("UNLISTEN *", "session_object"),
            ("SHOW transaction_read_only", "session"),
            ("SET search_path = a, b", "session"),
            ("RESET ALL", "session"),
            ("DISCARD ALL", "session"),
            ("LOAD 'x'", "session"),
            ("PREPARE p AS SELECT 1", "session_object"),
            ("EXECUTE p(1)", "session_object"),
            ("DEALLOCATE p", "session_object"),
            ("DECLARE c CURSOR FOR SELECT 1", "session_object"),
            ("BEGIN", "begin_read_write"),
            ("START TRANSACTION ISOLATION LEVEL REPEATABLE READ", "begin_read_write"),
            ("BEGIN READ ONLY, READ WRITE", "begin_read_write"),
            ("BEGIN TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY", "begin_repeatable_read"),
            ("SET TRANSACTION READ WRITE", "read_write_requested"),
            ("SET TRANSACTION SNAPSHOT 'x'", "read_write_requested"),
            ("SET LOCAL transaction_read_only = off", "read_write_requested"),
        ],
    );
    check(
        Route::BeginReadOnly,
        &[
            ("BEGIN READ ONLY", "begin_read_only"),
            ("START TRANSACTION READ ONLY", "begin_read_only"),
            ("BEGIN ISOLATION LEVEL READ COMMITTED READ ONLY", "begin_read_only"),
        ],
    );
    let follow = "COMMIT\nEND\nROLLBACK\nABORT\nSAVEPOINT a\nRELEASE a\nROLLBACK TO a\nFETCH 1 FROM c\nMOVE 1 FROM c\nCLOSE c\n\
        SET LOCAL a.b = 1\nSET CONSTRAINTS ALL DEFERRED\nSET TRANSACTION READ ONLY";
    for sql in follow.lines() {
        check(Route::FollowTransaction, &[(sql, "in_transaction")]);
    }
}

/// What a setting is on a standby is not what it is on the primary, but for those of the session.
#[test]
fn which_setting_is_asked_for() {
    for (sql, route, reason) in [
        ("SELECT current_setting('app.tenant')", Route::Replica, Reason::SessionSetting),
        ("SELECT * FROM t WHERE tenant = current_setting('App.Tenant', true)", Route::Replica, Reason::SessionSetting),
        ("SELECT pg_catalog.current_setting('TimeZone')", Route::Replica, Reason::SessionSetting),
        ("SELECT current_setting('transaction_read_only')", Route::Primary, Reason::NodeSetting),
        ("SELECT current_setting('app.a'), \"current_setting\"('port')", Route::Primary, Reason::NodeSetting),
        ("SELECT current_setting($1)", Route::Primary, Reason::NodeSetting),
        ("SELECT current_setting(name) FROM t", Route::Primary, Reason::NodeSetting),
        ("SELECT current_setting(E'app.a')", Route::Primary, Reason::NodeSetting),
    ] {
        let verdict = classify(sql.as_bytes(), &scan(sql.as_bytes(), true));
        assert_eq!((verdict.route, verdict.reason), (route, reason), "{sql}");
        assert!(!verdict.follows_from_shape() && !verdict.may_write(), "{sql}");
    }
}
