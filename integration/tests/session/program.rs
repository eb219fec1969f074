//! Random statements about session state, one at a time.
//! It must never make a statement whose answer hangs on other sessions or on the clock.

use crate::dice::Dice;

/// What a session that runs a program may hold at the moment, as far as the generator must know.
#[derive(Debug, Default)]
pub struct Session {
    /// A transaction is open.
    pub block: bool,
    /// Things that live in the server, made and not taken away for certain.
    pub holds: bool,
}

const VALUES: &[(&str, &[&str])] = &[
    ("work_mem", &["'4MB'", "'5MB'", "6144", "'8192kB'"]),
    ("statement_timeout", &["'100s'", "0", "'2min'"]),
    ("search_path", &["a", "b, public", "'a', \"b\"", "\"$user\", public", "''"]),
    ("timezone", &["'UTC'", "'Asia/Tokyo'", "'Europe/Berlin'"]),
    ("datestyle", &["'ISO, DMY'", "'SQL, MDY'", "German"]),
    ("application_name", &["'one'", "'it''s'", "'x; DROP TABLE y --'", "'\\'"]),
    ("app.tenant", &["'7'", "'a''b'", "''", "'\\\\x\\n'"]),
    ("app.other", &["1", "on"]),
    ("extra_float_digits", &["0", "3"]),
    ("client_min_messages", &["warning", "notice"]),
    ("standard_conforming_strings", &["on", "off"]),
    ("default_transaction_isolation", &["'serializable'", "'read committed'"]),
    ("role", &["one", "two", "none"]),
];

/// What shows everything that a program can change. PostgreSQL cannot forget the name of a setting that an
/// application made up: where somebody had one it is empty instead of unknown, as after a RESET.
pub const SHOW: &str = "SELECT current_setting('work_mem'), current_setting('statement_timeout'), current_setting('search_path'), \
    current_setting('timezone'), current_setting('datestyle'), current_setting('application_name'), nullif(current_setting('app.tenant', true), ''), \
    nullif(current_setting('app.other', true), ''), nullif(current_setting('app.hidden', true), ''), current_setting('extra_float_digits'), \
    current_setting('client_min_messages'), current_setting('standard_conforming_strings'), current_setting('default_transaction_isolation'), \
    current_setting('role'), current_user, session_user, current_schemas(false), current_setting('transaction_isolation'), \
    (SELECT count(*) FROM pg_listening_channels()), \
    (SELECT count(*) FROM pg_prepared_statements WHERE from_sql), (SELECT count(*) FROM pg_cursors WHERE is_holdable), \
    (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()), to_regclass('pg_temp.t') IS NULL";

/// The next statement of a session; when not `may_hold`, none that would keep a server.
pub fn statement(dice: &mut Dice, session: &mut Session, may_hold: bool) -> String {
    if session.block && dice.once_in(4) {
        return finish(dice, session);
    }
    match dice.roll(24) {
        0..=4 => SHOW.into(),
        5..=9 => setting(dice),
        10 => format!(
            "SELECT set_config('{}', {}, {})",
            "app.tenant",
            dice.pick(&["'8'", "''"]),
            dice.pick(&["true", "false"])
        ),
        11 => format!("RESET {}", VALUES[dice.roll(VALUES.len())].0),
        12 => dice
            .pick(&[
                "RESET ALL",
                "DISCARD ALL",
                "RESET SESSION AUTHORIZATION",
                "RESET ROLE",
                "DISCARD SEQUENCES",
                "SET SESSION AUTHORIZATION DEFAULT",
            ])
            .into(),
        13 => dice
            .pick(&[
                "SELECT 1/0",
                "SELEC",
                "SET work_mem = 'much'",
                "SET nothing_like_it = 1",
                "SET role = nobody_at_all",
            ])
            .into(),
        14 => format!("SET SESSION AUTHORIZATION {}", dice.pick(&["one", "two"])),
        15 => hidden(dice).into(),
        16 => "SELECT which || '' AS which FROM t_where".into(),
        17 => dice
            .pick(&[
                "SELECT '2024-02-03'::date::text",
                "SELECT now() = now(), 'a\\\\b'",
                "SELECT 0.1::float8 + 0.2::float8",
            ])
            .into(),
        18 | 19 if may_hold || session.holds => {
            session.holds = true;
            held(dice).into()
        }
        // What sets a start value again behind a RESET counts as the transaction's first query: its isolation
        // level cannot be changed behind that any more.
        20 if session.block => dice.pick(&["BEGIN", "START TRANSACTION"]).into(),
        20 if may_hold => {
            session.block = true;
            dice.pick(&["BEGIN", "BEGIN ISOLATION LEVEL REPEATABLE READ", "START TRANSACTION"]).into()
        }
        21 | 22 if session.block => {
            dice.pick(&["SAVEPOINT s", "ROLLBACK TO s", "RELEASE s", "SET TRANSACTION READ ONLY"]).into()
        }
        23 if session.holds && !session.block => {
            session.holds = false;
            "DISCARD ALL".into()
        }
        _ => setting(dice),
    }
}

fn finish(dice: &mut Dice, session: &mut Session) -> String {
    session.block = false;
    dice.pick(&["COMMIT", "ROLLBACK", "END", "ABORT"]).into()
}

/// Ends everything that keeps a server.
pub fn let_go(session: &mut Session) -> [&'static str; 2] {
    *session = Session::default();
    ["ROLLBACK", "DISCARD ALL"]
}

fn setting(dice: &mut Dice) -> String {
    let (name, values) = VALUES[dice.roll(VALUES.len())];
    let value = dice.pick(values);
    match dice.roll(8) {
        0 | 1 => format!("SET LOCAL {name} = {value}"),
        2 => format!("SET SESSION {name} TO {value}"),
        3 => format!("SET {name} TO DEFAULT"),
        4 => dice
            .pick(&[
                "SET TIME ZONE 'Asia/Tokyo'",
                "SET TIME ZONE 3",
                "SET SCHEMA 'b'",
                "SET NAMES 'UTF8'",
                "SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL SERIALIZABLE",
            ])
            .into(),
        5 => format!("SET {name} = {value}; SET work_mem = '7MB'"),
        _ => format!("SET {name} = {value}"),
    }
}

/// Settings that no one statement's beginning tells of.
fn hidden(dice: &mut Dice) -> &'static str {
    dice.pick(&[
        "DO $$ BEGIN PERFORM set_config('work_mem', '9MB', false); END $$",
        "DO $$ BEGIN PERFORM set_config('app.hidden', 'h', false); END $$",
        "DO $$ BEGIN SET search_path = a; RAISE EXCEPTION 'no'; EXCEPTION WHEN OTHERS THEN NULL; END $$",
        "SELECT tells('app.tenant', '9')",
        "SELECT tells('work_mem', '10MB')",
        "UPDATE pg_settings SET setting = '12345' WHERE name = 'statement_timeout'",
        "SELECT count(*) FROM (SELECT set_config('work_mem', '11MB', false)) x",
    ])
}

/// What lives in a server.
fn held(dice: &mut Dice) -> &'static str {
    dice.pick(&[
        "CREATE TEMP TABLE IF NOT EXISTS t (n int)",
        "CREATE TEMP TABLE t ON COMMIT DROP AS SELECT 1 AS n",
        "DROP TABLE IF EXISTS t",
        "INSERT INTO t VALUES (1)",
        "SELECT count(*) FROM t",
        "DISCARD TEMP",
        "SELECT pg_advisory_lock(pg_backend_pid())",
        "SELECT pg_try_advisory_lock(2)",
        "SELECT pg_advisory_unlock(pg_backend_pid())",
        "SELECT pg_advisory_unlock_all()",
        "LISTEN c",
        "UNLISTEN c",
        "UNLISTEN *",
        "PREPARE p AS SELECT current_setting('work_mem')",
        "PREPARE q AS SELECT set_config('work_mem', '12MB', false)",
        "EXECUTE p",
        "EXECUTE q",
        "DEALLOCATE p",
        "DEALLOCATE ALL",
        "DECLARE c CURSOR WITH HOLD FOR SELECT generate_series(1, 5)",
        "FETCH 2 FROM c",
        "CLOSE c",
        "CLOSE ALL",
    ])
}
