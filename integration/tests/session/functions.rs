//! Sessions changed by code that a statement only names: functions, triggers, views, defaults.
//! It must never be enough that the client sees its own: on the other servers nobody may, and what is harmless costs nothing.

use std::sync::OnceLock;

use integration::wire::Script;
use integration::{Cluster, DATABASE, Pgweir};

use crate::common::{Client, Conf, asks, eventually, metric, questions};

const CODE: &[&str] = &[
    "CREATE FUNCTION login(u text) RETURNS void LANGUAGE plpgsql AS $$ BEGIN PERFORM set_config('app.user', u, false); END $$",
    "CREATE FUNCTION outer_login(u text) RETURNS text LANGUAGE sql AS $$ SELECT login(u)::text $$",
    "CREATE FUNCTION atomic_login() RETURNS text LANGUAGE sql BEGIN ATOMIC SELECT login('atomic')::text; END",
    "CREATE PROCEDURE enter(u text) LANGUAGE plpgsql AS $$ BEGIN PERFORM login(u); END $$",
    "CREATE FUNCTION dynamic(u text) RETURNS void LANGUAGE plpgsql AS $$ BEGIN EXECUTE 'SET app.\"user\" = ' || quote_literal(u); END $$",
    "CREATE FUNCTION harmless(n int) RETURNS int LANGUAGE plpgsql AS $$ BEGIN RETURN n + 1; END $$",
    "CREATE FUNCTION locks(n int) RETURNS int LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_advisory_lock(n); RETURN n; END $$",
    "CREATE FUNCTION tables() RETURNS int LANGUAGE plpgsql AS $$ BEGIN CREATE TEMP TABLE made AS SELECT 5 AS n; RETURN 1; END $$",
    "CREATE FUNCTION on_insert() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM login(NEW.v); RETURN NEW; END $$",
    "CREATE TABLE watched (v text)",
    "GRANT ALL ON SCHEMA public TO PUBLIC",
    "CREATE TABLE plain (v text)",
    "CREATE TRIGGER t BEFORE INSERT ON watched FOR EACH ROW EXECUTE FUNCTION on_insert()",
    "CREATE VIEW seen AS SELECT outer_login('view') AS v",
    "CREATE VIEW seen_again AS SELECT * FROM seen",
    "CREATE TABLE defaults (n int, v text DEFAULT outer_login('default'))",
    "GRANT ALL ON ALL TABLES IN SCHEMA public TO PUBLIC",
];

fn cluster() -> &'static Cluster {
    static CLUSTER: OnceLock<Cluster> = OnceLock::new();
    CLUSTER.get_or_init(|| CODE.iter().fold(Cluster::builder(), |cluster, sql| cluster.sql(sql)).start().unwrap())
}

/// Starts with servers in turn, and waits until the database's code is known.
fn start(size: usize) -> Pgweir {
    let pgweir = Conf::trust(cluster()).size(size).pool("server_order = \"rotate\"").start();
    let mut client = Client::connect(pgweir.port());
    eventually("the code is known", || !asks(&pgweir, &mut client, "SELECT harmless(1)"));
    pgweir
}

/// On every server of the pool the client has this user, and the other client none, or its own.
fn assert_user(one: &mut Client, two: &mut Client, user: &str, other: &str) {
    for _ in 0..6 {
        assert_eq!(one.value("SELECT current_setting('app.user', true)"), user);
        assert_eq!(two.value("SELECT current_setting('app.user', true)"), other);
    }
}

#[test]
fn what_is_harmless_is_not_asked_about() {
    let pgweir = start(2);
    let mut client = Client::connect(pgweir.port());
    let before = questions(&pgweir);
    for n in 0..50 {
        assert_eq!(client.value(&format!("SELECT harmless({n})")), (n + 1).to_string());
        client.query("INSERT INTO plain VALUES ('x')").unwrap();
        client.query("SELECT count(*) FROM watched").unwrap();
        client.run(&Script::new().parse("", "SELECT harmless($1)").bind("", "", &[Some("1")]).execute("", 0).sync());
    }
    assert_eq!(questions(&pgweir), before);
    assert!(asks(&pgweir, &mut client, "SELECT login('x')"));
}

#[test]
fn what_code_sets_follows_the_client() {
    let pgweir = start(3);
    for (sql, user) in [
        ("SELECT login('a')", "a"),
        ("SELECT public.outer_login('b')", "b"),
        ("SELECT atomic_login()", "atomic"),
        ("CALL enter('c')", "c"),
        ("INSERT INTO watched VALUES ('trigger')", "trigger"),
        ("WITH x AS (INSERT INTO watched VALUES ('cte') RETURNING 1) SELECT * FROM x", "cte"),
        ("SELECT * FROM seen", "view"),
        ("SELECT * FROM seen_again", "view"),
        ("INSERT INTO defaults (n) VALUES (1)", "default"),
        ("BEGIN; SELECT login('kept'); SAVEPOINT s; SELECT login('undone'); ROLLBACK TO s; COMMIT", "kept"),
    ] {
        let (mut one, mut two) = (Client::connect(pgweir.port()), Client::connect(pgweir.port()));
        two.query("SELECT login('other')").unwrap();
        one.query(sql).unwrap();
        assert_user(&mut one, &mut two, user, "other");
        let mut third = Client::connect(pgweir.port());
        assert_user(&mut one, &mut third, user, "");
    }
}

#[test]
fn a_statement_that_is_prepared_follows_too() {
    let pgweir = start(3);
    let (mut one, mut two) = (Client::connect(pgweir.port()), Client::connect(pgweir.port()));
    one.run(&Script::new().parse("s", "SELECT login($1)").sync());
    for user in ["a", "b"] {
        one.run(&Script::new().bind("", "s", &[Some(user)]).execute("", 0).sync());
        assert_user(&mut one, &mut two, user, "");
    }
}

#[test]
fn sql_that_is_put_together_is_asked_about() {
    let pgweir = start(2);
    let (mut one, mut two) = (Client::connect(pgweir.port()), Client::connect(pgweir.port()));
    assert!(asks(&pgweir, &mut one, "SELECT dynamic('d')"));
    assert_user(&mut one, &mut two, "d", "");
}

#[test]
fn what_code_leaves_in_a_server_keeps_it() {
    let pgweir = start(2);
    let (mut one, mut two) = (Client::connect(pgweir.port()), Client::connect(pgweir.port()));
    one.query("SELECT locks(4711)").unwrap();
    for _ in 0..4 {
        assert_eq!(two.value("SELECT pg_try_advisory_lock(4711)"), "f");
    }
    assert_eq!(one.value("SELECT pg_advisory_unlock(4711)"), "t");
    one.query("SELECT tables()").unwrap();
    for _ in 0..4 {
        assert_eq!(one.value("SELECT n FROM made"), "5");
        assert!(two.query("SELECT n FROM made").is_err());
    }
}

#[test]
fn code_that_is_replaced_is_seen_by_the_next_statement() {
    let pgweir = start(3);
    let (mut one, mut two) = (Client::connect(pgweir.port()), Client::connect(pgweir.port()));
    let function = |body: &str| {
        format!("CREATE OR REPLACE FUNCTION turns() RETURNS text LANGUAGE plpgsql AS $$ BEGIN {body} END $$")
    };
    for round in 0..5 {
        one.query(&function("RETURN 1;")).unwrap();
        eventually("it is known to be harmless", || !asks(&pgweir, &mut one, "SELECT turns()"));
        one.query(&function(&format!("RETURN set_config('app.round{round}', 'set', false);"))).unwrap();
        one.query("SELECT turns()").unwrap();
        for _ in 0..6 {
            assert_eq!(one.value(&format!("SELECT current_setting('app.round{round}', true)")), "set");
            assert_eq!(two.value(&format!("SELECT current_setting('app.round{round}', true)")), "");
        }
    }
    // A trigger on a table that had none, made by another client.
    one.query("CREATE TABLE later (v text)").unwrap();
    two.query("CREATE TRIGGER t BEFORE INSERT ON later FOR EACH ROW EXECUTE FUNCTION on_insert()").unwrap();
    one.query("INSERT INTO later VALUES ('later')").unwrap();
    assert_user(&mut one, &mut two, "later", "");
    one.query("DROP TABLE later; DROP FUNCTION turns").unwrap();
}

#[test]
fn in_the_same_transaction_new_code_counts() {
    let pgweir = start(2);
    let (mut one, mut two) = (Client::connect(pgweir.port()), Client::connect(pgweir.port()));
    one.query("BEGIN").unwrap();
    one.query(
        "CREATE FUNCTION brief() RETURNS text LANGUAGE sql AS 'SELECT set_config(''app.user'', ''brief'', false)'",
    )
    .unwrap();
    one.query("SELECT brief()").unwrap();
    one.query("DROP FUNCTION brief").unwrap();
    one.query("COMMIT").unwrap();
    assert_user(&mut one, &mut two, "brief", "");
}

/// What others change is seen within the period.
#[test]
fn code_changed_by_others_is_found() {
    let pgweir = Conf::trust(cluster()).size(2).pool("catalog_refresh = \"1s\"").start();
    let direct = |sql: &str| cluster().primary().query_in(DATABASE, sql).unwrap();
    direct("CREATE FUNCTION outside() RETURNS text LANGUAGE sql AS $$ SELECT 'x' $$");
    let mut one = Client::connect(pgweir.port());
    eventually("it is known to be harmless", || !asks(&pgweir, &mut one, "SELECT outside()"));
    direct(
        "CREATE OR REPLACE FUNCTION outside() RETURNS text LANGUAGE sql AS $$ SELECT set_config('app.o', 'y', false) $$",
    );
    eventually("it is known to set something", || asks(&pgweir, &mut one, "SELECT outside()"));
    direct("DROP FUNCTION outside");
}

#[test]
fn turned_off_it_reads_nothing() {
    let pgweir = Conf::trust(cluster()).size(2).pool("catalog_refresh = 0").start();
    let mut client = Client::connect(pgweir.port());
    for _ in 0..10 {
        assert!(asks(&pgweir, &mut client, "SELECT harmless(1)"));
    }
    assert_eq!(metric(&pgweir, "pgweir_pool_catalog_reads_total", &[]), 0.0);
}
