//! The texts that programs are made of.
//! It must never have one whose answer hangs on the clock, on a process id, or on what another session has made.

use crate::program::Start;

/// Users and startup parameters of the sessions, by user. `boss` is a superuser, `plain` may become `one`, `two` and `doomed`.
pub const STARTS: &[&[Start]] = &[
    &[
        ("boss", &[]),
        ("boss", &[("application_name", "first"), ("options", "-c work_mem=20MB")]),
        ("boss", &[("TimeZone", "America/Lima"), ("app.tenant", "start")]),
        ("boss", &[("search_path", "b"), ("client_encoding", "LATIN1"), ("datestyle", "SQL, DMY")]),
        ("boss", &[("options", "-c role=one -c extra_float_digits=0"), ("intervalstyle", "sql_standard")]),
        ("boss", &[("log_duration", "off"), ("options", "-c log_min_duration_statement=1h"), ("timezone", "<+03>-3")]),
    ],
    &[
        ("plain", &[]),
        (
            "plain",
            &[
                ("options", "-c search_path=a,public --statement-timeout=77s -c app.other=o\\ \\\\o"),
                ("application_name", "é x"),
            ],
        ),
        (
            "plain",
            &[
                ("work_mem", "9MB"),
                ("app.tenant", "käse"),
                ("client_encoding", "UTF8"),
                ("standard_conforming_strings", "off"),
            ],
        ),
        ("plain", &[("role", "two"), ("search_path", "\"$user\", a"), ("client_encoding", "WIN1252")]),
    ],
];

/// What, in a text in upper case, may leave a transaction open or something that keeps the server: things that live in it, and settings
/// that another server might refuse, might read otherwise, or whose name nobody but the application knows.
pub const HOLDING: &[&str] = &[
    "BEGIN",
    "START TRANSACTION",
    "CHAIN",
    "TEMP",
    "ADVISORY",
    "PREPARE",
    "EXECUTE",
    "HOLD",
    "NEXTVAL",
    "SETVAL",
    "CURRVAL",
    "LASTVAL",
    "SERIAL",
    "FETCH",
    "LO_",
    "CLIENT_ENCODING",
    "SET NAMES",
    "LOG_",
    "REPLICATION_ROLE",
    "DO ",
    "CALL ",
    "TELLS(",
    "BODY_",
    "DYNAMIC(",
    "DEFINER(",
    "TRIGGERS",
    "VIEWED",
    "QUERY_TO_XML",
    "DEFAULTS",
    "CHECKED",
    "DEFERRED",
    "RULED",
    "AGG_SETS",
    "@~",
    "TOLD_DOMAIN",
    "GUARDED",
    "ATOMIC_SETS",
    "LOCKS(",
    "LOAD",
    "SETSEED",
    "ODD NAME",
    "HID",
];

/// What is known to differ and left out, unless `PGWEIR_KNOWN=1`: why, and what is in the text of a batch, all of it, in upper case.
///
/// A pooled server's session began without its client's start values: only what pgweir puts behind a statement gives them back. So
/// what looks at them in between sees the server's defaults: the statement itself, and what the same text has behind code.
pub const KNOWN: &[(&str, &[&str])] = &[
    ("set_config(name, NULL, …) answers with the server's default", &["SET_CONFIG", "NULL"]),
    ("the same in a function", &["TELLS(", "NULL"]),
    ("the same with a parameter", &["SET_CONFIG", "NONE"]),
    ("the same with a parameter, in a function", &["TELLS(", "NONE"]),
    ("RESET counts as a query, behind which there is no isolation level to be set", &["RESET ", "ISOLATION LEVEL"]),
    ("the same", &["DEFAULT", "ISOLATION LEVEL"]),
    ("the same", &["LOCAL", "ISOLATION LEVEL"]),
    ("channels come back onto a server within the transaction", &["PREPARE TRANSACTION", "LISTEN"]),
    ("RESET in code, looked at by the same text", &["BEGIN RESET", ";"]),
    ("RESET in code that is put together, looked at by the same text", &["'RESET '", ";"]),
    ("RESET in a function, looked at by the same text", &["BODY_RESETS()", ";"]),
];

pub const VALUES: &[(&str, &[&str])] = &[
    ("work_mem", &["'4MB'", "'5MB'", "6144", "'8192kB'"]),
    ("statement_timeout", &["'100s'", "0", "'2min'"]),
    (
        "search_path",
        &[
            "a",
            "b, public",
            "'a', \"b\"",
            "\"$user\", public",
            "''",
            "evil, pg_catalog, a",
            "\"ö; x\", a",
            "pg_catalog, b",
        ],
    ),
    (
        "timezone",
        &["'UTC'", "'Asia/Tokyo'", "'Europe/Berlin'", "'<-07>+7'", "-3.5", "INTERVAL '+02:30' HOUR TO MINUTE"],
    ),
    ("datestyle", &["'ISO, DMY'", "'SQL, MDY'", "German", "'ISO'", "ymd"]),
    (
        "application_name",
        &["'one'", "'it''s'", "'x; DROP TABLE y --'", "'\\'", "'naïve'", "E'new\\nline'", "'\u{20ac}'"],
    ),
    ("app.tenant", &["'7'", "'a''b'", "''", "'\\\\x\\n'", "'größe'", "E'\\t\\x01'", "'日本'"]),
    ("app.other", &["1", "on", "'$1'", "'; RESET ALL; --'"]),
    ("\"App\".\"Mixed\"", &["'m'", "12.5"]),
    ("my.x.y", &["'deep'", "-1"]),
    ("a1.b$2", &["'dollar'", "2"]),
    ("app.ünï", &["'u'", "'ü'"]),
    ("extra_float_digits", &["0", "3"]),
    ("client_min_messages", &["warning", "notice", "log"]),
    ("standard_conforming_strings", &["on", "off"]),
    ("escape_string_warning", &["on", "off"]),
    ("client_encoding", &["'UTF8'", "'LATIN1'", "'WIN1252'", "SQL_ASCII", "'EUC_JP'", "unicode"]),
    ("default_transaction_isolation", &["'serializable'", "'read committed'"]),
    ("default_transaction_read_only", &["on", "off"]),
    ("default_transaction_deferrable", &["on", "off"]),
    ("intervalstyle", &["iso_8601", "postgres"]),
    ("bytea_output", &["escape", "hex"]),
    ("row_security", &["on", "off"]),
    ("lc_numeric", &["'C'", "'POSIX'"]),
    ("transform_null_equals", &["on", "off"]),
    ("geqo_seed", &["0.25", "1"]),
    ("vacuum_cost_delay", &["1.5", "'2ms'"]),
    ("role", &["one", "two", "none", "'two'", "doomed"]),
];

/// Names of startup parameters.
pub const STARTED: &[&str] = &[
    "work_mem",
    "application_name",
    "app.tenant",
    "timezone",
    "search_path",
    "client_encoding",
    "datestyle",
    "statement_timeout",
    "app.other",
    "role",
    "extra_float_digits",
    "intervalstyle",
    "standard_conforming_strings",
    "log_min_duration_statement",
];

/// What shows everything that a program can change. PostgreSQL cannot forget the name of a setting that an application made up: where
/// somebody had one it is empty instead of unknown, as after a RESET.
pub const SHOW: &str = "SELECT pg_catalog.current_setting('work_mem'), pg_catalog.current_setting('statement_timeout'), \
    pg_catalog.current_setting('search_path'), pg_catalog.current_setting('timezone'), pg_catalog.current_setting('datestyle'), \
    pg_catalog.current_setting('application_name'), pg_catalog.concat(pg_catalog.current_setting('app.tenant', true)), \
    pg_catalog.concat(pg_catalog.current_setting('app.other', true)), pg_catalog.concat(pg_catalog.current_setting('app.hidden', true)), \
    pg_catalog.concat(pg_catalog.current_setting('app.mixed', true)), pg_catalog.concat(pg_catalog.current_setting('my.x.y', true)), \
    pg_catalog.concat(pg_catalog.current_setting('a1.b$2', true)), pg_catalog.current_setting('extra_float_digits'), \
    pg_catalog.current_setting('client_min_messages'), pg_catalog.current_setting('standard_conforming_strings'), \
    pg_catalog.current_setting('client_encoding'), pg_catalog.current_setting('escape_string_warning'), \
    pg_catalog.current_setting('default_transaction_isolation'), pg_catalog.current_setting('default_transaction_read_only'), \
    pg_catalog.current_setting('intervalstyle'), pg_catalog.current_setting('bytea_output'), pg_catalog.current_setting('row_security'), \
    pg_catalog.current_setting('lc_numeric'), pg_catalog.current_setting('transform_null_equals'), pg_catalog.current_setting('geqo_seed'), \
    pg_catalog.current_setting('vacuum_cost_delay'), pg_catalog.current_setting('log_duration'), \
    pg_catalog.current_setting('session_replication_role'), pg_catalog.current_setting('log_min_duration_statement'), \
    pg_catalog.current_setting('role'), current_user, session_user, pg_catalog.current_schemas(false), \
    pg_catalog.current_setting('transaction_isolation'), pg_catalog.current_setting('transaction_read_only'), \
    (SELECT pg_catalog.count(*) FROM pg_catalog.pg_prepared_statements WHERE from_sql), \
    (SELECT pg_catalog.count(*) FROM pg_catalog.pg_cursors WHERE is_holdable), \
    (SELECT pg_catalog.count(*) FROM pg_catalog.pg_locks WHERE locktype OPERATOR(pg_catalog.=) 'advisory' \
     AND pid OPERATOR(pg_catalog.=) pg_catalog.pg_backend_pid()), pg_catalog.to_regclass('pg_temp.t') IS NULL";

/// All settings, but those that differ between any two servers and those that change with every statement,
/// and those of plpgsql, which once loaded stays loaded in its server.
pub const SHOW_ALL: &str = "SELECT name, setting FROM pg_catalog.pg_settings WHERE name OPERATOR(pg_catalog.<>) ALL (ARRAY['port', \
    'data_directory', 'config_file', 'hba_file', 'ident_file', 'unix_socket_directories', 'external_pid_file', 'cluster_name']) \
    AND name OPERATOR(pg_catalog.!~~) 'plpgsql.%' ORDER BY 1";

/// What looks at a session.
pub const SEEN: &[&str] = &[
    "SELECT which || '' AS which FROM t_where",
    SHOW_ALL,
    "SELECT '2024-02-03'::date::text",
    "SELECT now() = now(), 'a\\\\b'",
    "SELECT 0.1::float8 + 0.2::float8, '\\x00ff'::bytea, interval '1 day 2 hours'",
    "SELECT 'ä\u{20ac}', length('ä\u{20ac}'), octet_length('ä\u{20ac}')",
    "SELECT pg_catalog.concat(current_setting('app.ünï', true))",
    "SHOW work_mem",
    "SHOW TIME ZONE",
    "SHOW search_path",
    "SELECT generate_series(1, 3)",
    "SELECT NULL = NULL AS n",
    "SELECT count(*) FROM secret",
    "",
    "-- nothing",
];

pub const SETTINGS: &[&str] = &[
    "SET TIME ZONE 'Asia/Tokyo'",
    "SET TIME ZONE 3",
    "SET TIME ZONE LOCAL",
    "SET LOCAL TIME ZONE DEFAULT",
    "SET SCHEMA 'b'",
    "SET NAMES 'UTF8'",
    "SET NAMES 'LATIN1'",
    "SET NAMES",
    "SET XML OPTION DOCUMENT",
    "SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL SERIALIZABLE",
    "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY, DEFERRABLE",
    "SET SESSION CHARACTERISTICS AS TRANSACTION READ WRITE",
    "SET search_path FROM CURRENT",
    "SELECT set_config('app.tenant', '8', true)",
    "SELECT set_config('app.tenant', '', false)",
    "SELECT set_config('work_mem', '13MB', false), set_config('work_mem', '14MB', true), set_config('work_mem', '15MB', false)",
    "SELECT set_config('work_mem', '13MB', true), set_config('app.tenant', NULL, false)",
];

pub const RESETS: &[&str] = &[
    "RESET ALL",
    "DISCARD ALL",
    "RESET SESSION AUTHORIZATION",
    "RESET ROLE",
    "RESET TIME ZONE",
    "DISCARD SEQUENCES",
    "DISCARD PLANS",
    "SET SESSION AUTHORIZATION DEFAULT",
    "SET ROLE NONE",
];

pub const WRONG: &[&str] = &[
    "SELECT 1/0",
    "SELEC",
    "SET work_mem = 'much'",
    "SET nothing_like_it = 1",
    "SET role = nobody_at_all",
    "SET SESSION AUTHORIZATION nobody_at_all",
    "SET timezone = 'Mars/Base'",
    "SET client_encoding = 'MORSE'",
    "SET \"no dots; \" = 1",
    "SET app.\"odd name\" = 1",
    "SELECT set_config('app.1', 'x', false)",
    "SELECT set_config('port', '1', false)",
    "SET work_mem = '5MB'; SELECT 1/0",
    "SELECT set_config('work_mem', '16MB', false); SET work_mem = 'wrong'",
    "RESET nothing_like_it",
    "SET shared_buffers = '1GB'",
    "SELECT set_config('server_version', '99', false)",
];

pub const IDENTITY: &[&str] = &[
    "SET SESSION AUTHORIZATION one",
    "SET SESSION AUTHORIZATION two",
    "SET SESSION AUTHORIZATION 'plain'",
    "SET LOCAL SESSION AUTHORIZATION one",
    "SET LOCAL ROLE two",
    "SET ROLE one",
    "SET ROLE doomed",
    "SET ROLE 'one'",
    "SET SESSION ROLE two",
    "SET ROLE NONE",
    "SET ROLE one; SET work_mem = '17MB'",
    "SELECT set_config('role', 'two', false)",
    "SELECT set_config('session_authorization', 'one', false)",
    "SET SESSION AUTHORIZATION one; SET ROLE two",
];

/// Settings of superusers, and those that functions make on behalf of one.
pub const SUPER: &[&str] = &[
    "SET log_duration = on",
    "SET session_replication_role = replica",
    "SET session_replication_role TO DEFAULT",
    "SET LOCAL log_min_duration_statement = '30min'",
    "SET log_min_duration_statement = '20min'",
    "SELECT set_config('log_duration', 'off', false)",
    "RESET log_duration",
    "SET log_duration = on; SET ROLE one",
    "SELECT definer('log_duration', 'on')",
    "SELECT definer('work_mem', '18MB')",
    "SELECT definer('app.tenant', 'd')",
    "UPDATE pg_settings SET setting = 'on' WHERE name = 'log_duration'",
];

/// Settings that no one statement's beginning tells of.
pub const HIDDEN: &[&str] = &[
    "DO $$ BEGIN PERFORM set_config('work_mem', '9MB', false); END $$",
    "DO $$ BEGIN PERFORM set_config('app.hidden', 'h', false); END $$",
    "DO 'BEGIN PERFORM set_config(''app.hidden'', ''q'', false); END'",
    "DO E'BEGIN PERFORM set_config(\\'app.hidden\\', \\'e\\', false); END'",
    "DO LANGUAGE plpgsql $x$ BEGIN EXECUTE 'SET app.' || 'hidden = 5'; END $x$",
    "DO $$ BEGIN EXECUTE 'RESET ' || 'work_mem'; END $$",
    "DO $$ BEGIN RESET application_name; END $$",
    "DO $$ BEGIN RESET ALL; END $$",
    "DO $$ BEGIN SET LOCAL work_mem = '19MB'; END $$",
    "DO $$ BEGIN SET search_path = a; RAISE EXCEPTION 'no'; EXCEPTION WHEN OTHERS THEN NULL; END $$",
    "DO $$ BEGIN BEGIN SET work_mem = '21MB'; RAISE EXCEPTION 'no'; EXCEPTION WHEN OTHERS THEN NULL; END; SET app.other = 'kept'; END $$",
    "DO $$ BEGIN SET work_mem = '22MB'; COMMIT; SET work_mem = '23MB'; ROLLBACK; END $$",
    "DO $$ BEGIN SET ROLE one; END $$",
    "DO $$ BEGIN EXECUTE 'PREPARE hid AS SELECT current_setting(''work_mem'')'; END $$",
    "DO $$ BEGIN RAISE NOTICE 'tenant %', pg_catalog.concat(pg_catalog.current_setting('app.tenant', true)); END $$",
    "SELECT tells('app.tenant', '9')",
    "SELECT tells('work_mem', '10MB')",
    "SELECT tells('app.hidden', 'told')",
    "SELECT public.fixed()",
    "SELECT body_sets()",
    "SELECT body_resets()",
    "CALL proc_sets()",
    "SELECT dynamic('work_mem', '24MB')",
    "SELECT dynamic('app.hidden', 'dyn')",
    "INSERT INTO triggers DEFAULT VALUES",
    "SELECT * FROM viewed",
    "UPDATE pg_settings SET setting = '12345' WHERE name = 'statement_timeout'",
    "SELECT count(*) FROM (SELECT set_config('work_mem', '11MB', false)) x",
    "EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF, SUMMARY OFF) SELECT set_config('work_mem', '25MB', false)",
    "SELECT query_to_xml($q$SELECT set_config('app.hidden', 'xml', false)$q$, false, false, '') IS NULL",
    "INSERT INTO defaults DEFAULT VALUES",
    "INSERT INTO checked VALUES (1)",
    "INSERT INTO deferred VALUES (1)",
    "INSERT INTO ruled VALUES (1)",
    "SELECT agg_sets(which) FROM public.t_where",
    "SELECT 'app.hidden' OPERATOR(public.@~) 'operator'",
    "SELECT 'app.hidden'::told_domain",
    "SELECT count(*) FROM guarded",
    "SELECT atomic_sets()",
    "BEGIN; SAVEPOINT h; SELECT body_sets(); ROLLBACK TO h; COMMIT",
];

/// Names of settings as terms.
pub const NAME_TERMS: &[&str] = &[
    "E'app.hidden'",
    "E'app.\\x68idden'",
    "'app.' || 'hidden'",
    "'APP.Hidden'",
    "U&'app\\002Ehidden'",
    "U&'app!002Ehidden' UESCAPE '!'",
    "$$app.hidden$$",
    "$n$my.x.y$n$",
    "lower('WORK_MEM')",
    "'work' || '_mem'",
    "(SELECT name FROM names WHERE id = 1)",
    "(SELECT name FROM names WHERE id = 2)",
    "concat('a1', '.b$2')",
    "format('%s.%s', 'app', 'mixed')",
    "'app.' 'x'",
    "reverse('rehto.ppa')",
    "'TimeZone'::text",
    "'work_mem'::name::text",
    "chr(97) || 'pp.tenant'",
];

/// Values as terms; all are good for a setting that takes any text.
pub const VALUE_TERMS: &[&str] = &[
    "'26MB'",
    "'UTC'",
    "E'quo\\'te'",
    "'größe'",
    "$v$dollar $1 'x'$v$",
    "NULL",
    "''",
    "repeat('x', 300)",
    "repeat('ä', 9000)",
    "chr(228) || chr(8364)",
    "current_setting('search_path')",
    "'27' || 'MB'",
    "U&'\\00e4'",
];

/// Statements that take the name as their first parameter.
pub const BY_PARAMETER: &[(&str, &str)] = &[
    ("SELECT set_config($1, $2, false)", "app.tenant"),
    ("SELECT set_config($1, $2, false)", "work_mem"),
    ("SELECT set_config($1, $2, true)", "app.hidden"),
    ("SELECT set_config($1 || 'hidden', $2, false)", "app."),
    ("SELECT set_config('app.' || $1, $2, false)", "mixed"),
    ("SELECT set_config(lower($1), $2, false)", "MY.X.Y"),
    ("SELECT tells($1, $2)", "app.hidden"),
    ("SELECT tells($1, $2)", "timezone"),
    ("SELECT set_config(name, $2, false) FROM names WHERE id = $1::int", "2"),
    ("SELECT set_config($1, $2, false)", "application_name"),
    ("SELECT pg_catalog.concat(current_setting($1, true))", "app.hidden"),
    ("SELECT set_config($1, 'on', false)", "log_duration"),
];

/// Statements prepared under names of the protocol. None has a string with a backslash: it is read again on another server, under
/// the `standard_conforming_strings` of then.
pub const NAMED: &[(&str, &str)] = &[
    ("s1", "SELECT pg_catalog.current_setting('work_mem'), pg_catalog.current_setting('search_path')"),
    ("s2", "SELECT which || '' AS which FROM t_where"),
    ("s3", "SELECT set_config('work_mem', $1, false)"),
    ("s4", "SET work_mem = '28MB'"),
    ("s5", "RESET work_mem"),
    ("s6", "SELECT '2024-02-03'::date::text, 'ab'"),
    ("s7", "SELECT tells('app.hidden', $1)"),
    ("s8", "DISCARD ALL"),
];

pub const BEGINS: &[&str] = &[
    "BEGIN",
    "BEGIN ISOLATION LEVEL REPEATABLE READ",
    "START TRANSACTION",
    "BEGIN READ ONLY",
    "BEGIN; SET LOCAL work_mem = '29MB'",
    "BEGIN; SET work_mem = '30MB'",
];

pub const ENDS: &[&str] = &[
    "COMMIT",
    "ROLLBACK",
    "END",
    "ABORT",
    "COMMIT AND CHAIN",
    "ROLLBACK AND CHAIN",
    "COMMIT; SET work_mem = '31MB'",
    "ROLLBACK; RESET work_mem",
];

pub const SAVEPOINTS: &[&str] = &[
    "SAVEPOINT s",
    "SAVEPOINT s; SET work_mem = '32MB'",
    "ROLLBACK TO s",
    "RELEASE s",
    "SAVEPOINT t",
    "ROLLBACK TO t",
    "SET TRANSACTION READ ONLY",
    "BEGIN",
    "SET LOCAL work_mem = '33MB'",
    "RESET work_mem",
    "RESET ALL",
    "SET application_name TO DEFAULT",
];

/// What lives in a server. Its temporary schema stays there for others, empty: so nothing names it before it was made for certain.
pub const HELD: &[&str] = &[
    "CREATE TEMP TABLE IF NOT EXISTS t (n int)",
    "CREATE TEMP TABLE t ON COMMIT DROP AS SELECT 1 AS n",
    "SELECT 1 AS n INTO TEMP t",
    "DROP TABLE IF EXISTS t",
    "INSERT INTO t VALUES (1)",
    "SELECT count(*) FROM t",
    "DISCARD TEMP",
    "CREATE TEMP SEQUENCE IF NOT EXISTS ts",
    "CREATE FUNCTION pg_temp.f() RETURNS int LANGUAGE sql AS 'SELECT 5'; SELECT pg_temp.f()",
    // In the way of what everybody has.
    "CREATE TEMP TABLE t_where AS SELECT 'temporary' AS which",
    "CREATE TEMP VIEW t_where AS SELECT 'temporary view' AS which",
    "SELECT pg_advisory_lock(#)",
    "SELECT pg_advisory_lock_shared(#), pg_advisory_lock(#)",
    "SELECT pg_try_advisory_lock(pg_backend_pid(), 2)",
    "SELECT pg_advisory_xact_lock(#)",
    "SELECT pg_advisory_xact_lock_shared(#, 1)",
    "SELECT pg_advisory_unlock(#)",
    "SELECT pg_advisory_unlock_shared(#)",
    "SELECT pg_advisory_unlock(#), pg_advisory_unlock(#)",
    "SELECT pg_advisory_unlock_all()",
    "DO $$ BEGIN PERFORM pg_advisory_lock(#, 3); END $$",
    "SELECT locks(#)",
    "LISTEN c",
    "UNLISTEN c",
    "UNLISTEN *",
    "LISTEN \"Odd; channel\"",
    "DECLARE c CURSOR WITH HOLD FOR SELECT generate_series(1, 5)",
    "FETCH 2 FROM c",
    "CLOSE c",
    "CLOSE ALL",
    "DECLARE e CURSOR FOR SELECT generate_series(1, 5)",
    "FETCH 2 FROM e",
    "SELECT setseed(0.42)",
    "SELECT random()",
    "SELECT setseed(0.5), random()",
    "LOAD 'plpgsql'",
];

pub const PREPARED: &[&str] = &[
    "PREPARE p AS SELECT current_setting('work_mem')",
    "PREPARE q AS SELECT set_config('work_mem', '12MB', false)",
    "PREPARE r (text, text) AS SELECT set_config($1, $2, false)",
    "EXECUTE p",
    "EXECUTE q",
    "EXECUTE r('app.hidden', 'executed')",
    "EXECUTE r('work_mem', '34MB')",
    "EXECUTE hid",
    "PREPARE i AS INSERT INTO triggers DEFAULT VALUES",
    "PREPARE v AS SELECT * FROM viewed",
    "PREPARE t (text) AS SELECT tells('app.hidden', $1)",
    "EXECUTE i",
    "EXECUTE v",
    "EXECUTE t('prepared')",
    "EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF, SUMMARY OFF) EXECUTE q",
    "DEALLOCATE PREPARE q",
    "DEALLOCATE p",
    "DEALLOCATE ALL",
];

pub const SEQUENCES: &[&str] = &[
    "SELECT nextval('numbers') IS NULL",
    "SELECT nextval('numbers') - currval('numbers')",
    "SELECT currval('numbers') - lastval()",
    "SELECT currval('numbers') IS NULL",
    "INSERT INTO serials DEFAULT VALUES",
    "SELECT lastval() IS NULL",
    "DISCARD SEQUENCES",
];

/// Large objects. Their descriptors end with the transaction.
pub const LARGE: &[&str] = &[
    "SELECT lo_open(4711, 262144)",
    "BEGIN; SELECT lo_open(4711, 262144), loread(0, 3)",
    "SELECT lowrite(0, 'abc')",
    "SELECT lo_tell(0)",
    "SELECT lo_lseek(0, 1, 0), loread(0, 9)",
    "SELECT lo_close(0)",
];

/// What sessions tell each other: `@` is another number each time.
pub const TELLING: &[&str] = &[
    "LISTEN c",
    "LISTEN \"Odd; channel\"",
    "UNLISTEN c",
    "NOTIFY c, 'n@'",
    "NOTIFY c",
    "SELECT pg_notify('c', 'f@')",
    "NOTIFY \"Odd; channel\", 'o@'",
    "NOTIFY c, 'twice@'; NOTIFY c, 'twice@'; NOTIFY c, 'once@'",
    "BEGIN; NOTIFY c, 'never@'; ROLLBACK",
    "BEGIN; LISTEN c; NOTIFY c, 'own@'; COMMIT",
    "DO $$ BEGIN NOTIFY c, 'code@'; END $$",
    "SELECT * FROM pg_listening_channels() ORDER BY 1",
];

/// A transaction of two phases has a name of its own in each session: `#` is its number.
pub const TWO_PHASE: &[&str] = &[
    "BEGIN; SET work_mem = '35MB'; PREPARE TRANSACTION 'two#'",
    "PREPARE TRANSACTION 'two#'",
    "COMMIT PREPARED 'two#'",
    "ROLLBACK PREPARED 'two#'",
];

/// What a superuser does meanwhile, and to which role.
pub const ADMIN: &[(&str, &str)] = &[
    ("REVOKE one FROM plain", "one"),
    ("GRANT one TO plain", ""),
    ("DROP ROLE IF EXISTS doomed", "doomed"),
    ("DO $$ BEGIN REVOKE doomed FROM plain; EXCEPTION WHEN undefined_object THEN NULL; END $$", "doomed"),
];
