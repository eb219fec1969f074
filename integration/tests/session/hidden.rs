//! Code that no statement names: behind operators, casts, defaults, checks, indexes, aggregates, views of settings.
//! It must never be enough that the client which runs it sees what it does: on no server may another find it.

use std::sync::OnceLock;

use integration::wire::Script;
use integration::{Cluster, Pgweir};

use crate::common::client::{outcome, tags};
use crate::common::{Client, Conf, asks, eventually, know, metric};

/// `f` leaves a setting and a lock; immutable, so that indexes and generated columns may call it.
const CODE: &[&str] = &[
    "CREATE FUNCTION f(t text) RETURNS text LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN
       PERFORM set_config('app.left', 'left', false), pg_advisory_lock(4711); RETURN t; END $$",
    "CREATE FUNCTION is(t text) RETURNS bool LANGUAGE sql AS $$ SELECT f(t) = t $$",
    // Built-in functions that no text names.
    "CREATE AGGREGATE seeds(text, bool) (SFUNC = set_config, STYPE = text, INITCOND = 'app.left')",
    "CREATE OPERATOR @@! (RIGHTARG = bigint, FUNCTION = pg_advisory_lock)",
    "CREATE OPERATOR @+@ (LEFTARG = int, RIGHTARG = int, FUNCTION = pg_try_advisory_lock)",
    "CREATE FUNCTION defaulted(t text DEFAULT set_config('app.left', 'left', false)) RETURNS text LANGUAGE sql AS 'SELECT t'",
    "CREATE FUNCTION defaulted_too(t text DEFAULT f('x')) RETURNS text LANGUAGE plpgsql AS 'BEGIN RETURN t; END'",
    "CREATE FUNCTION other_name(bigint) RETURNS bool LANGUAGE internal IMMUTABLE AS 'pg_try_advisory_lock_int8'",
    // What is stored with a table.
    "CREATE TABLE indexed (t text)",
    "INSERT INTO indexed VALUES ('a')",
    "CREATE TABLE partial (t text)",
    "CREATE TABLE constrained (t text CHECK (is(t)))",
    "CREATE TABLE generated (t text, g text GENERATED ALWAYS AS (f(t)) STORED)",
    "CREATE TABLE ruled (t text)",
    "CREATE RULE r AS ON INSERT TO ruled DO ALSO SELECT f('rule')",
    "CREATE TABLE parted (t text) PARTITION BY LIST (f(t))",
    "CREATE TABLE parted_a PARTITION OF parted DEFAULT",
    "CREATE TABLE plain (t text)",
    "CREATE TABLE altered (t varchar)",
    "INSERT INTO altered VALUES ('a')",
    "CREATE TABLE guarded (t text)",
    "CREATE POLICY p ON guarded USING (is(t))",
    "ALTER TABLE guarded ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY",
    "INSERT INTO plain VALUES ('a'), ('b')",
    "CREATE MATERIALIZED VIEW stored AS SELECT f(t) AS t FROM plain WITH NO DATA",
    "CREATE TABLE deferred (t text)",
    "CREATE FUNCTION fires() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM f('x'); RETURN NULL; END $$",
    "CREATE CONSTRAINT TRIGGER c AFTER INSERT ON deferred DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION fires()",
    // Settings by way of views.
    "CREATE VIEW my_settings AS SELECT name, setting FROM pg_settings WHERE name = 'work_mem'",
    "CREATE VIEW nested AS SELECT setting FROM my_settings",
    "CREATE TABLE switch (t text)",
    "CREATE RULE s AS ON INSERT TO switch DO ALSO UPDATE pg_settings SET setting = NEW.t WHERE name = 'work_mem'",
    // Texts that are read otherwise.
    "SET standard_conforming_strings = off; SET escape_string_warning = off;
     CREATE FUNCTION escapes() RETURNS text LANGUAGE plpgsql SET standard_conforming_strings = off AS $body$ BEGIN
       RETURN '\\'' || set_config('app.left', 'left', false) || '\\''; END $body$",
    "CREATE FUNCTION hides() RETURNS text LANGUAGE plpgsql SET standard_conforming_strings = off AS $body$ DECLARE x text = '\\'';
       BEGIN PERFORM pg_advisory_lock(4712); x = '\\''; RETURN x; END $body$",
    // Shadows.
    "CREATE SCHEMA shadow",
    "CREATE FUNCTION shadow.lower(t text) RETURNS text LANGUAGE sql AS $$ SELECT f(t) $$",
    "CREATE FUNCTION atomic(t text) RETURNS text LANGUAGE sql BEGIN ATOMIC SELECT defaulted(); END",
    "CREATE FUNCTION attribute(p plain) RETURNS text LANGUAGE sql AS $$ SELECT f(p.t) $$",
    "CREATE PROCEDURE commits() LANGUAGE plpgsql AS $$ BEGIN PERFORM f('a'); COMMIT; PERFORM 1; ROLLBACK; END $$",
    "CREATE FUNCTION makes() RETURNS int LANGUAGE plpgsql AS $$ BEGIN CREATE TABLE IF NOT EXISTS plain (t text); RETURN 1; END $$",
    "GRANT ALL ON ALL TABLES IN SCHEMA public, shadow TO PUBLIC",
    "CREATE INDEX i ON indexed (f(t))",
    "CREATE INDEX j ON partial (t) WHERE f(t) = 'a'",
    // What who plans a read computes.
    "CREATE TABLE ranged (n int, t text) PARTITION BY RANGE (n)",
    "CREATE TABLE ranged_a PARTITION OF ranged (CHECK (f('x') IS NOT NULL AND n > 0)) FOR VALUES FROM (0) TO (10)",
    "CREATE TABLE surveyed (t text, u text)",
    "CREATE STATISTICS survey ON (t || f('x')), u FROM surveyed",
    "GRANT ALL ON ranged, surveyed TO PUBLIC",
    "CREATE FUNCTION tabled() RETURNS int LANGUAGE plpgsql SET search_path = pg_temp AS $$ BEGIN CREATE TABLE x (n int); RETURN 1; END $$",
    "CREATE ROLE boss SUPERUSER LOGIN",
];

/// What no statement names at all: how it is made, what runs it, how it is taken away.
const ALWAYS: &[(&str, &[&str], &str)] = &[
    (
        "CREATE CAST (bigint AS boolean) WITH FUNCTION pg_try_advisory_lock(bigint)",
        &["SELECT 5::bigint::boolean"],
        "DROP CAST (bigint AS boolean)",
    ),
    (
        "CREATE TYPE box_of AS (t text);
         CREATE FUNCTION same(a box_of, b box_of) RETURNS bool LANGUAGE sql AS $$ SELECT f(a.t) = b.t $$;
         CREATE OPERATOR = (LEFTARG = box_of, RIGHTARG = box_of, FUNCTION = same)",
        &[
            "SELECT b IN (b, b) FROM (SELECT '(a)'::box_of AS b) c",
            "SELECT nullif(b, b) FROM (SELECT '(a)'::box_of AS b) c",
            "SELECT CASE b WHEN b THEN 1 END FROM (SELECT '(a)'::box_of AS b) c",
        ],
        "DROP TYPE box_of CASCADE",
    ),
    (
        "CREATE DOMAIN checked AS text CHECK (is(VALUE)); CREATE DOMAIN inner_one AS checked;
         CREATE TYPE composite AS (a int, d inner_one); CREATE TABLE rows_of (c composite)",
        &[
            "SELECT 'a'::checked",
            "SELECT 'a'::inner_one",
            "SELECT (json_populate_record(NULL::composite, '{\"d\": \"a\"}')).a",
            "SELECT (jsonb_populate_record(c, '{\"d\": \"a\"}')).a FROM (SELECT c FROM rows_of UNION ALL SELECT NULL) r",
            "SELECT '(1,a)'::composite",
            "INSERT INTO rows_of SELECT '(1,a)'",
            "SELECT ARRAY['a']::inner_one[]",
        ],
        "DROP DOMAIN checked CASCADE; DROP TABLE rows_of",
    ),
];

const ACTS: &[&str] = &[
    "SELECT seeds('left', false)",
    "SELECT @@! 5::bigint",
    "SELECT 5 @+@ 6",
    "SELECT defaulted()",
    "SELECT defaulted_too()",
    "SELECT other_name(7)",
    "INSERT INTO indexed VALUES ('b')",
    "INSERT INTO partial VALUES ('b')",
    "INSERT INTO constrained VALUES ('b')",
    "INSERT INTO generated VALUES ('b')",
    "COPY (SELECT f('a')) TO STDOUT",
    "INSERT INTO ruled VALUES ('b')",
    "INSERT INTO parted VALUES ('b')",
    "BEGIN; INSERT INTO deferred VALUES ('b'); COMMIT",
    "REFRESH MATERIALIZED VIEW stored",
    "REINDEX INDEX i",
    "REINDEX TABLE indexed",
    "CLUSTER indexed USING i",
    "ALTER TABLE plain ADD COLUMN added text DEFAULT f('x'); ALTER TABLE plain DROP COLUMN added",
    "ALTER TABLE altered ALTER t TYPE text USING f(t)",
    "CREATE INDEX made ON plain (f(t)); DROP INDEX made",
    "CREATE TABLE made AS SELECT f('a'); DROP TABLE made",
    "UPDATE my_settings SET setting = '9216'",
    "UPDATE nested SET setting = '9216'",
    "INSERT INTO switch VALUES ('9216')",
    "WITH u AS (SELECT 1) UPDATE nested SET setting = '9216'",
    "SELECT escapes()",
    "SELECT hides()",
    "SET search_path = shadow, pg_catalog, public; SELECT lower('A'); RESET search_path",
    "BEGIN; SET LOCAL search_path = shadow, pg_catalog, public; SELECT lower(t) FROM plain; COMMIT",
    "SELECT atomic('a')",
    "SELECT p.attribute FROM plain p",
    "SELECT ('a'::text).f",
    "SELECT (t).f FROM plain",
    "SELECT u.f FROM unnest(ARRAY['a']) u",
    "SELECT (4713::bigint).pg_try_advisory_lock",
    "CALL commits()",
    "DO $$ BEGIN PERFORM f('a'); END $$",
    "CREATE TEMP TABLE made (t text DEFAULT f('a')); INSERT INTO made DEFAULT VALUES; DROP TABLE made",
    "PREPARE q AS SELECT set_config('app.left', 'left', false); EXECUTE q; DEALLOCATE q",
    "EXPLAIN ANALYZE SELECT f('a')",
    "BEGIN; DECLARE c CURSOR FOR SELECT f(t) FROM plain; FETCH c; COMMIT",
    "SELECT tabled()",
    "SELECT * FROM ranged WHERE n > 3",
    "SELECT t || 'x' FROM surveyed WHERE u = 'a' GROUP BY t || 'x'",
];

fn cluster() -> &'static Cluster {
    static CLUSTER: OnceLock<Cluster> = OnceLock::new();
    CLUSTER.get_or_init(start)
}

fn start() -> Cluster {
    CODE.iter().fold(Cluster::builder(), |cluster, sql| cluster.sql(sql)).start().unwrap()
}

const LOOK: &str = "SELECT concat(current_setting('app.left', true), ' ', current_setting('work_mem'), ' ',
    (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()) +
    (SELECT count(*) FROM pg_depend WHERE refclassid = 'pg_namespace'::regclass AND refobjid = pg_my_temp_schema()))";

fn boss(pgweir: &Pgweir) -> Client {
    Client::connect_with(pgweir.port(), &[("user", "boss")])
}

fn assert_clean(pgweir: &Pgweir, what: &str) {
    let (mut two, mut three) = (boss(pgweir), boss(pgweir));
    for _ in 0..3 {
        assert_eq!(two.value(LOOK), " 4MB 0", "{what}");
        assert_eq!(three.value(LOOK), " 4MB 0", "{what}");
    }
}

fn conf() -> Conf {
    conf_of(cluster())
}

fn conf_of(cluster: &Cluster) -> Conf {
    Conf::trust(cluster).user("boss", "").size(2).pool("server_order = \"rotate\"")
}

/// It leaves something, else it proves nothing: that is looked at on a connection of its own. And nobody else sees that.
fn assert_left_alone(cluster: &Cluster, pgweir: &Pgweir, act: &str) {
    let mut direct = Client::connect_with(cluster.primary().port(), &[("user", "boss")]);
    direct.query(act).unwrap_or_else(|error| panic!("{act}: {error}"));
    assert_ne!(direct.value(LOOK), " 4MB 0", "{act} leaves nothing");
    drop(direct);
    let mut one = boss(pgweir);
    one.query(act).unwrap_or_else(|error| panic!("{act}: {error}"));
    assert_clean(pgweir, act);
    drop(one);
    assert_clean(pgweir, act);
}

#[test]
fn what_no_statement_names_reaches_nobody() {
    let pgweir = conf().start();
    let mut idle = boss(&pgweir);
    for act in ACTS {
        eventually("what does nothing costs nothing", || !asks(&pgweir, &mut idle, "SELECT count(*) FROM plain"));
        assert_left_alone(cluster(), &pgweir, act);
    }
}

/// What anything may run is feared of everything, as long as it is there.
#[test]
fn what_anything_may_run_reaches_nobody() {
    // Other tests are not to fear it.
    let cluster = start();
    let pgweir = conf_of(&cluster).pool("catalog_refresh = \"1s\"").start();
    let direct = |sql: &str| cluster.primary().query_in(integration::DATABASE, sql).unwrap();
    let mut idle = boss(&pgweir);
    for (make, acts, drop) in ALWAYS {
        eventually("it is known to be gone", || !asks(&pgweir, &mut idle, "SELECT count(*) FROM plain"));
        direct(make);
        eventually("it is known", || asks(&pgweir, &mut idle, "SELECT count(*) FROM plain"));
        acts.iter().for_each(|act| assert_left_alone(&cluster, &pgweir, act));
        // What must be alone in its batch is left alone, though it may draw from sequences now, and somebody reads those.
        let _ = idle.query("SELECT lastval()");
        let alone = Script::new().parse("", "ROLLBACK PREPARED 'nobody'").bind("", "", &[]).execute("", 0).sync();
        assert!(outcome(&idle.run(&alone)).unwrap_err().starts_with("42704"));
        direct(drop);
    }
}

/// The path may be the session's from its start.
#[test]
fn what_a_search_path_makes_temporary_is_found() {
    let pgweir = conf().start();
    let mut one = Client::connect_with(pgweir.port(), &[("user", "boss"), ("options", "-c search_path=pg_temp")]);
    one.query("CREATE TABLE x (n int)").unwrap();
    assert_clean(&pgweir, "a table");
    assert_eq!(one.value("SELECT count(*) FROM x"), "0");
}

/// Before the code was read for the first time, too.
#[test]
fn the_very_first_statement_counts() {
    for act in ["INSERT INTO constrained VALUES ('b')", "INSERT INTO switch VALUES ('9216')", "SELECT 5 @+@ 6"] {
        let pgweir = conf().start();
        let mut one = boss(&pgweir);
        one.query(act).unwrap();
        assert_clean(&pgweir, act);
    }
}

/// Made through pgweir, used by the next statement.
#[test]
fn an_index_that_calls_code_is_new_code() {
    let pgweir = conf().start();
    let mut one = boss(&pgweir);
    one.query("CREATE TABLE later (t text)").unwrap();
    assert_clean(&pgweir, "the table");
    one.query("CREATE INDEX k ON later (f(t))").unwrap();
    assert_clean(&pgweir, "the index");
    one.query("INSERT INTO later VALUES ('a')").unwrap();
    assert_clean(&pgweir, "its use");
    one.query("DROP TABLE later").unwrap();
}

/// Statements that clients share are there for the next, also in a transaction, where nothing could be run again.
#[test]
fn code_that_deallocates_takes_nothing_from_others() {
    let pgweir = Conf::trust(cluster()).user("boss", "").size(1).start();
    let (mut one, mut two) = (boss(&pgweir), boss(&pgweir));
    let run = |client: &mut Client| {
        client.query("BEGIN").unwrap();
        let frames = client.run(&Script::new().bind("", "shared", &[]).execute("", 0).sync());
        client.query("COMMIT").unwrap();
        assert_eq!(tags(&frames), "2DCZ");
    };
    let by_name = "DO $$ DECLARE s text; BEGIN
        SELECT name INTO s FROM pg_prepared_statements WHERE statement = 'SELECT 42';
        EXECUTE format('DEALLOCATE %I', s); END $$";
    two.run(&Script::new().parse("other", "SELECT 43").sync());
    two.run(&Script::new().parse("shared", "SELECT 42").sync());
    run(&mut two);
    for code in ["DO $$ BEGIN DEALLOCATE ALL; END $$", by_name, "DO $$ BEGIN EXECUTE 'DEALLOCATE ALL'; END $$"] {
        one.query(code).unwrap();
        run(&mut two);
    }
    // Its own are gone, as on a direct connection: they can be prepared anew.
    one.run(&Script::new().parse("mine", "SELECT 1").sync());
    one.query("DO $$ BEGIN DEALLOCATE ALL; END $$").unwrap();
    assert_eq!(tags(&one.run(&Script::new().parse("mine", "SELECT 1").sync())), "1Z");
}

/// The names of the protocol, and those of SQL, across leases.
#[test]
fn what_was_prepared_runs_unseen_and_reaches_nobody() {
    let sets = "SELECT set_config('app.left', 'left', false)";
    let locks = "SELECT pg_advisory_lock(4711)";
    let long = |sql: &str| format!("{sql} /* {} */", "x".repeat(300_000));
    for refresh in ["", "catalog_refresh = 0"] {
        let pgweir = conf().pool(refresh).start();
        for sql in [sets, locks] {
            let act = |what: &str, act: &dyn Fn(&mut Client)| {
                let mut one = boss(&pgweir);
                act(&mut one);
                assert_clean(&pgweir, &format!("{what}: {sql}"));
            };
            act("by SQL", &|one| {
                one.query(&format!("PREPARE q AS {sql}")).unwrap();
                one.query("EXECUTE q").unwrap();
                one.query("DEALLOCATE q").unwrap();
            });
            act("under a name that is its server's affair", &|one| {
                one.query("PREPARE q AS SELECT 1").unwrap();
                one.run(&Script::new().parse("own", sql).sync());
                one.run(&Script::new().bind("", "own", &[]).execute("", 0).sync());
                one.query("DEALLOCATE ALL").unwrap();
            });
            act("under a name that became that", &|one| {
                one.run(&Script::new().parse("brought", sql).sync());
                one.query("EXPLAIN EXECUTE brought").unwrap();
                one.query("EXECUTE brought").unwrap();
                one.query("DEALLOCATE brought").unwrap();
            });
            act("too long to be looked at", &|one| drop(one.query(&long(sql)).unwrap()));
            act("too long, unnamed", &|one| {
                one.run(&Script::new().parse("", &long(sql)).sync());
                assert_clean(&pgweir, "before it is bound");
                let frames = one.run(&Script::new().bind("", "", &[]).execute("", 0).sync());
                assert_eq!(tags(&frames), "2DCZ", "{sql}");
            });
        }
    }
}

/// A trigger that somebody else makes runs before its code is known: what it left goes as soon as that is.
#[test]
fn code_made_past_us_is_forgotten_when_it_is_known() {
    let cluster = Cluster::builder()
        .sql("CREATE TABLE public.fish (id int); GRANT ALL ON public.fish TO PUBLIC")
        .start()
        .unwrap();
    let pgweir = Conf::trust(&cluster).size(1).pool("catalog_refresh = \"1s\"").start();
    let (mut one, mut two) = (Client::connect(pgweir.port()), Client::connect(pgweir.port()));
    know(&pgweir);
    let trigger = "CREATE FUNCTION sets() RETURNS trigger LANGUAGE plpgsql AS
          $$ BEGIN PERFORM set_config('app.left', 'left', false); RETURN NULL; END $$;
        CREATE TRIGGER t AFTER INSERT ON public.fish FOR EACH ROW EXECUTE FUNCTION sets()";
    cluster.primary().query_in(integration::DATABASE, trigger).unwrap();
    one.query("INSERT INTO public.fish VALUES (1)").unwrap();
    eventually("it is gone", || two.value("SELECT coalesce(current_setting('app.left', true), '')").is_empty());
}

/// What others make that runs no code is no reason to begin anew.
#[test]
fn tables_made_past_us_close_no_server() {
    let cluster = Cluster::builder().start().unwrap();
    let pgweir = Conf::trust(&cluster).size(1).pool("catalog_refresh = \"1s\"").start();
    let mut client = Client::connect(pgweir.port());
    know(&pgweir);
    let server = client.value("SELECT 0 + pg_backend_pid()");
    let reads = || metric(&pgweir, "pgweir_pool_catalog_reads_total", &[]);
    cluster.primary().query_in(integration::DATABASE, "CREATE TABLE scratch (n int PRIMARY KEY)").unwrap();
    // The look that finds it, the reading, and the look after that.
    let before = reads();
    eventually("it was read", || client.value("SELECT 1") == "1" && reads() >= before + 3.0);
    assert_eq!(client.value("SELECT 0 + pg_backend_pid()"), server);
}
