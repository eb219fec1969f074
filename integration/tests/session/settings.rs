//! Settings one by one: they follow the client, cost nothing once known, and go nowhere else.
//! It must never let a server be the same by luck: two clients hold all the others.

use integration::wire::Script;
use integration::{Cluster, DATABASE};
use std::sync::OnceLock;

use crate::common::client::tags;
use crate::common::{Client, Conf};

fn cluster() -> &'static Cluster {
    static CLUSTER: OnceLock<Cluster> = OnceLock::new();
    CLUSTER.get_or_init(|| Cluster::builder().start().unwrap())
}

#[test]
fn a_setting_frees_its_server_and_comes_back() {
    let pgweir = Conf::trust(cluster()).size(1).start();
    let (mut one, mut two) = (Client::connect(pgweir.port()), Client::connect(pgweir.port()));
    one.query("SET work_mem = '33MB'").unwrap();
    two.query("SET work_mem = '44MB'").unwrap();
    for _ in 0..3 {
        assert_eq!(one.value("SHOW work_mem"), "33MB");
        assert_eq!(two.value("SHOW work_mem"), "44MB");
    }
    one.query("BEGIN; SET work_mem = '55MB'; ROLLBACK").unwrap();
    assert_eq!(one.value("SHOW work_mem"), "33MB");
    one.query("RESET work_mem").unwrap();
    assert_eq!(one.value("SHOW work_mem"), "4MB");
    assert_eq!(two.value("SHOW work_mem"), "44MB");
}

#[test]
fn reset_goes_back_to_the_start() {
    let pgweir = Conf::trust(cluster()).size(1).start();
    let mut one = Client::connect_with(pgweir.port(), &[("options", "-c work_mem=20MB"), ("application_name", "a")]);
    for reset in ["RESET work_mem", "RESET ALL", "DISCARD ALL"] {
        one.query("SET work_mem = '33MB'").unwrap();
        assert_eq!(one.value("SHOW work_mem"), "33MB");
        one.query(reset).unwrap();
        assert_eq!(one.value("SHOW work_mem"), "20MB", "{reset}");
        assert_eq!(one.value("SHOW application_name"), "a", "{reset}");
    }
}

/// `sort_mem` is an old name of `work_mem` (`map_old_guc_names` in PostgreSQL's guc.c).
#[test]
fn a_setting_goes_back_by_any_of_its_names() {
    let pgweir = Conf::trust(cluster()).size(2).pool("server_order = \"rotate\"").start();
    let mut two = Client::connect(pgweir.port());
    for (options, start) in [("", "4MB"), ("-c work_mem=20MB", "20MB")] {
        for reset in [
            "reset u&\"w\\006frk_mem\"",
            "SET U&\"w!006frk_mem\" UESCAPE '!' TO DEFAULT; RESET work_mem",
            "RESET WORK_MEM",
        ] {
            let mut one = Client::connect_with(pgweir.port(), &[("options", options)]);
            one.query("SET work_mem = '33MB'").unwrap();
            one.query(reset).unwrap();
            for _ in 0..4 {
                assert_eq!(one.value("SHOW work_mem") + &two.value("SHOW work_mem"), format!("{start}4MB"), "{reset}");
            }
        }
    }
    let mut one = Client::connect(pgweir.port());
    one.query("SET work_mem = '33MB'").unwrap();
    assert_eq!(one.value("SHOW work_mem"), "33MB");
    one.query("RESET sort_mem").unwrap();
    for _ in 0..4 {
        assert_eq!(one.value("SHOW work_mem") + &two.value("SHOW work_mem"), "4MB4MB");
    }
}

#[test]
fn names_among_parameters_are_settings_too() {
    let pgweir = Conf::trust(cluster()).size(1).start();
    let (mut one, mut two) = (Client::connect(pgweir.port()), Client::connect(pgweir.port()));
    let script = Script::new()
        .parse("", "SELECT set_config($1, $2, false)")
        .bind("", "", &[Some("app.tenant"), Some("7")])
        .execute("", 0)
        .sync();
    one.run(&script);
    two.query("SET app.tenant = '8'").unwrap();
    assert_eq!(one.value("SELECT current_setting('app.tenant')"), "7");
    assert_eq!(two.value("SELECT current_setting('app.tenant')"), "8");
}

/// Settings that a server has accepted go ahead of a request: one that may end their transaction must not run without
/// them, however long it is.
#[test]
fn a_long_text_waits_for_the_settings_in_front() {
    let direct = |sql: &str| cluster().primary().query_in(DATABASE, sql).unwrap();
    direct("CREATE ROLE guest; GRANT guest TO app; CREATE TABLE witness (t text); GRANT ALL ON witness TO PUBLIC");
    let pgweir = Conf::trust(cluster()).size(1).start();
    for padding in [0, 300_000] {
        direct("GRANT guest TO app");
        let (mut one, mut two) = (Client::connect(pgweir.port()), Client::connect(pgweir.port()));
        one.query("SET ROLE guest").unwrap();
        for _ in 0..2 {
            assert_eq!(two.value("SELECT current_user") + &one.value("SELECT current_user"), "appguest");
        }
        two.query("SELECT 1").unwrap();
        direct("REVOKE guest FROM app");
        let sql = format!("COMMIT; INSERT INTO witness VALUES ('as somebody else') /* {} */", "x".repeat(padding));
        one.send(&Script::new().query(&sql));
        let frames = one.frames_to_end();
        assert_eq!(frames.last().unwrap().field(b'C').as_deref(), Some("42501"));
        assert!(direct("SELECT t FROM witness").is_empty(), "a text of {} bytes", sql.len());
    }
}

/// One that is too long to be carried about keeps its server, and nothing breaks.
#[test]
fn a_long_value_stays_where_it_is() {
    let pgweir = Conf::trust(cluster()).size(2).start();
    let (mut one, mut two) = (Client::connect(pgweir.port()), Client::connect(pgweir.port()));
    for bytes in [20_000, 100_000] {
        one.query(&format!("SET app.long = '{}'", "x".repeat(bytes))).unwrap();
        assert_eq!(two.value("SELECT current_setting('app.long', true)"), "");
        assert_eq!(one.value("SELECT length(current_setting('app.long'))"), bytes.to_string());
    }
    one.query("SET app.long = 'short'").unwrap();
    two.query("BEGIN").unwrap();
    assert_eq!(one.value("SELECT current_setting('app.long')"), "short");
}

/// What one client says in one text, and what another must not find on the same server; the first does.
#[test]
fn no_spelling_reaches_another_client() {
    let pgweir = Conf::trust(cluster()).size(2).pool("server_order = \"rotate\"").start();
    for (sql, look, left) in [
        ("BEGIN; SET work_mem = '33MB'; COMMIT; BEGIN; RESET work_mem; ROLLBACK", "SHOW work_mem", "33MB"),
        ("BEGIN; SET work_mem = '33MB'; COMMIT; BEGIN; RESET ALL; ROLLBACK", "SHOW work_mem", "33MB"),
        ("BEGIN; SET work_mem = '33MB'; SAVEPOINT a; RESET work_mem; ROLLBACK TO a; COMMIT", "SHOW work_mem", "33MB"),
        ("SELECT t.begin atomic FROM (SELECT 1 AS begin) t; SET work_mem = '33MB'", "SHOW work_mem", "33MB"),
        ("UPDATE \"pg_settings\" SET setting = '8192' WHERE name = 'work_mem'", "SHOW work_mem", "8MB"),
        (
            "WITH x AS (SELECT 1) UPDATE pg_settings SET setting = '8192' WHERE name = 'work_mem'",
            "SHOW work_mem",
            "8MB",
        ),
        ("EXPLAIN (ANALYZE) UPDATE pg_settings SET setting = '8192' WHERE name = 'work_mem'", "SHOW work_mem", "8MB"),
        ("SELECT set_config('app.' || 'one', 'mine', false)", "SELECT current_setting('app.one', true)", "mine"),
        ("SELECT set_config(E'app.\\x6fne', 'mine', false)", "SELECT current_setting('app.one', true)", "mine"),
        (
            "SET search_path = pg_temp, public; CREATE TABLE hidden AS SELECT 'mine' AS n",
            "SELECT n FROM hidden",
            "mine",
        ),
        (
            "BEGIN; SET LOCAL search_path = pg_temp; CREATE TABLE hidden AS SELECT 'mine' AS n; COMMIT",
            "SELECT n FROM pg_temp.hidden",
            "mine",
        ),
    ] {
        let (mut one, mut two) = (Client::connect(pgweir.port()), Client::connect(pgweir.port()));
        one.query(sql).unwrap();
        for _ in 0..4 {
            assert_eq!(one.value(look), left, "{sql}");
            let other = two.query(look).map(|rows| format!("{rows:?}"));
            assert!(!other.is_ok_and(|other| other.contains(left)), "{sql}");
        }
        drop(one);
        for _ in 0..4 {
            let other = two.query(look).map(|rows| format!("{rows:?}"));
            assert!(!other.is_ok_and(|other| other.contains(left)), "{sql}, after its client has left");
        }
    }
}

/// RESET that was rolled back in the text in which it was said.
#[test]
fn what_was_reset_in_vain_stays() {
    let pgweir = Conf::trust(cluster()).size(2).pool("server_order = \"rotate\"").start();
    for reset in ["RESET work_mem", "RESET ALL", "SET work_mem TO DEFAULT"] {
        let (mut one, mut two) = (Client::connect(pgweir.port()), Client::connect(pgweir.port()));
        one.query("SET work_mem = '33MB'").unwrap();
        one.query(&format!("BEGIN; {reset}; ROLLBACK")).unwrap();
        for _ in 0..4 {
            assert_eq!(one.value("SHOW work_mem"), "33MB", "{reset}");
            assert_eq!(two.value("SHOW work_mem"), "4MB", "{reset}");
        }
    }
}

#[test]
fn what_is_read_over_takes_nothing_back() {
    let pgweir = Conf::trust(cluster()).size(2).pool("min_pool_size = 2\nserver_order = \"rotate\"").start();
    let mut one = Client::connect(pgweir.port());
    let run = |script: Script, sql: &str| script.parse("", sql).bind("", "", &[]).execute("", 0);
    // The first ones are before the code of the database was read, when more is asked.
    for _ in 0..200 {
        one.query("SET work_mem = '33MB'; SET timezone = 'Asia/Tokyo'").unwrap();
        one.send(&run(Script::new(), "SELECT 1/0").flush());
        while one.read().unwrap().tag != b'E' {}
        // The error is known by now, and no Sync has ended what it makes the server read over.
        one.send(&run(run(Script::new(), "RESET work_mem"), "SET TIME ZONE LOCAL").sync());
        assert_eq!(tags(&one.ready(1)), "Z");
        let seen = one.query("SELECT current_setting('work_mem'), current_setting('timezone')").unwrap();
        assert_eq!(seen, [["33MB", "Asia/Tokyo"]]);
    }
}

/// DISCARD ALL is committed at once, what follows it is not.
#[test]
fn what_fails_behind_discard_all_leaves_the_start() {
    let pgweir = Conf::trust(cluster()).size(2).start();
    for fails in ["SELECT 1/0", "EXECUTE nothing"] {
        let mut client = Client::connect_with(pgweir.port(), &[("user", "app"), ("app.tenant", "start")]);
        client.query("SET app.tenant = 'own'").unwrap();
        // What came before makes that the server is asked.
        let script = Script::new().parse("", "SET work_mem = '5MB'").bind("", "", &[]).execute("", 0).sync();
        let script = script.parse("", "DISCARD ALL").bind("", "", &[]).execute("", 0);
        client.send(&script.parse("", fails).bind("", "", &[]).execute("", 0).sync());
        client.ready(2);
        assert_eq!(client.value("SELECT current_setting('app.tenant')"), "start", "{fails}");
        assert_eq!(client.value("SELECT current_setting('app.tenant')"), "start", "{fails}, later");
    }
}

/// PostgreSQL compiles a plan that costs more than `jit_above_cost`, and a plan costs more than anything that uses what
/// `enable_..` forbids: to answer a question of pgweir's took it the better part of a second.
#[test]
fn a_question_is_not_compiled_whatever_plans_cost() {
    let cluster = Cluster::builder().setting("jit", "on").start().unwrap();
    let pgweir = Conf::trust(&cluster).size(2).pool("server_order = \"rotate\"").start();
    let (mut one, mut two) = (Client::connect(pgweir.port()), Client::connect(pgweir.port()));
    for jit in ["on", "off"] {
        for forbidden in ["enable_seqscan", "enable_indexscan", "enable_bitmapscan"] {
            one.query(&format!("SET {forbidden} = off")).unwrap();
        }
        if jit == "off" {
            one.query("SET jit = off").unwrap();
        }
        // Of all that there may be, and of one thing.
        one.query("DO $$ BEGIN CREATE TEMP TABLE t (n int); END $$").unwrap();
        one.query("CREATE TEMP TABLE u (n int)").unwrap();
        let pid = one.value("SELECT concat(pg_backend_pid())");
        one.query("DROP TABLE t, u").unwrap();
        for _ in 0..4 {
            assert_eq!(one.value("SHOW jit"), jit);
            assert_eq!(one.value("SHOW enable_seqscan"), "off");
            assert_eq!(two.value("SHOW jit") + &two.value("SHOW enable_seqscan"), "onon");
        }
        let compiles = || std::fs::read_to_string(format!("/proc/{pid}/maps")).unwrap().contains("llvmjit");
        assert!(!compiles());
    }
    // What it would be like.
    one.query("RESET jit; CREATE TEMP TABLE t (n int); SELECT * FROM pg_depend LIMIT 1").unwrap();
    let compiled = "SELECT pg_jit_available()";
    let there = cluster.primary().query(compiled).unwrap() == [["t"]];
    let pid = one.value("SELECT concat(pg_backend_pid())");
    assert_eq!(std::fs::read_to_string(format!("/proc/{pid}/maps")).unwrap().contains("llvmjit"), there);
}
