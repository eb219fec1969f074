//! Answers that are good until something of them changes, whoever changes it: never older than `max_staleness`.
//! It must never take for fresh what was only not asked for: a test that says so has seen a hit before.

use std::process::Command;
use std::time::{Duration, Instant};

use integration::{Cluster, Pgweir};

use crate::common::{Client, Conf, PATIENCE, crowd, eventually, metric};
use crate::{ask_sql, builder, bypasses, conf, count, direct, hits, reason, start};

/// What the operator runs.
pub const SETUP: &str = include_str!("../../../config/cache.sql");

/// How old an answer may be.
const BOUND: Duration = Duration::from_millis(400);

const MORE: &str = "ALTER ROLE app REPLICATION;
    CREATE TABLE part (id int PRIMARY KEY, v text) PARTITION BY RANGE (id);
    CREATE TABLE part_low PARTITION OF part FOR VALUES FROM (0) TO (100);
    CREATE TABLE part_high PARTITION OF part FOR VALUES FROM (100) TO (200); INSERT INTO part VALUES (1, 'low'), (101, 'high');
    CREATE TABLE base (id int PRIMARY KEY, v text); INSERT INTO base VALUES (1, 'base');
    CREATE TABLE child (PRIMARY KEY (id)) INHERITS (base); INSERT INTO child VALUES (2, 'child');
    CREATE TABLE parent (id int PRIMARY KEY); INSERT INTO parent SELECT generate_series(1, 9);
    CREATE TABLE line (id int PRIMARY KEY, parent int REFERENCES parent ON DELETE CASCADE); INSERT INTO line SELECT n, n FROM generate_series(1, 9) n;
    CREATE TABLE source (id int PRIMARY KEY); CREATE TABLE total (id int PRIMARY KEY, n int); INSERT INTO total VALUES (1, 0);
    CREATE FUNCTION add_up() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN UPDATE total SET n = n + 1; RETURN NULL; END';
    CREATE TRIGGER add_up AFTER INSERT ON source FOR EACH ROW EXECUTE FUNCTION add_up();
    CREATE VIEW deep AS SELECT b.v AS v, t.n FROM base b, total t; CREATE VIEW deeper AS SELECT max(n) AS n FROM deep;
    CREATE FUNCTION looks_up(int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT n FROM total WHERE id = $1';
    CREATE UNLOGGED TABLE loose (id int PRIMARY KEY); INSERT INTO loose VALUES (1);
    CREATE TABLE no_key AS SELECT 1 AS id; CREATE MATERIALIZED VIEW frozen AS SELECT * FROM item;
    GRANT ALL ON ALL TABLES IN SCHEMA public TO app";

fn logical_builder() -> integration::cluster::Builder {
    let prepared = builder().setting("wal_level", "logical").setting("max_prepared_transactions", "5");
    prepared.sql(MORE)
}

pub fn cluster() -> Cluster {
    logical_builder().sql(SETUP).start().unwrap()
}

pub fn logical_conf(cluster: &Cluster, lines: &str) -> Conf {
    let bound = BOUND.as_millis();
    conf(cluster, &format!("mode = \"on\"\ninvalidation = \"logical\"\nmax_staleness = \"{bound}ms\"\n{lines}"))
}

fn logical(cluster: &Cluster) -> Pgweir {
    start(&logical_conf(cluster, ""))
}

/// Waits until an answer is kept, and gives it.
pub fn kept(pgweir: &Pgweir, client: &mut Client, sql: &str) -> Vec<Vec<String>> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match ask_sql(pgweir, client, sql) {
            (rows, true) => return rows,
            _ => assert!(Instant::now() < deadline, "never kept: {sql}: {:?}\n{}", bypasses(pgweir), pgweir.log()),
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// What it reads is `right` at once, or within the bound of `since`; and is kept again.
pub fn turns_to(pgweir: &Pgweir, client: &mut Client, sql: &str, since: Instant, right: &[Vec<String>]) {
    loop {
        let began = Instant::now();
        let rows = client.query(sql).unwrap();
        if rows == right {
            break;
        }
        assert!(began < since + BOUND, "{sql}: {rows:?} after {:?}, not {right:?}", began - since);
    }
    assert_eq!(kept(pgweir, client, sql), right, "{sql}");
}

/// The walsender that brings the changes.
pub fn walsender(cluster: &Cluster) -> Option<String> {
    let sql = "SELECT pid FROM pg_stat_replication WHERE application_name = 'pgweir cache' ORDER BY backend_start DESC LIMIT 1";
    cluster.primary().query(sql).unwrap().into_iter().flatten().next()
}

pub fn signal(pid: &str, name: &str) {
    assert!(Command::new("kill").args([name, pid]).status().unwrap().success());
}

#[test]
fn whatever_changes_what_an_answer_shows_is_seen_within_the_bound() {
    let cluster = cluster();
    let pgweir = logical(&cluster);
    let mut client = Client::connect(pgweir.port());
    for (read, write) in [
        ("SELECT v FROM item WHERE id = 1", "UPDATE item SET v = 'other' WHERE id = 1"),
        ("SELECT count(*) FROM item", "INSERT INTO item VALUES (0, 'new')"),
        ("SELECT count(*) FROM item", "DELETE FROM item WHERE id = 0"),
        ("SELECT count(*) FROM item WHERE id < 0", "COPY item (id) FROM PROGRAM 'echo -1'"),
        (
            "SELECT v FROM item WHERE id = 2",
            "BEGIN; SAVEPOINT a; UPDATE item SET v = 'sub' WHERE id = 2; RELEASE a; COMMIT",
        ),
        (
            "SELECT v FROM item WHERE id = 3",
            "BEGIN; UPDATE item SET v = 'two' WHERE id = 3; PREPARE TRANSACTION 'x'; COMMIT PREPARED 'x'",
        ),
        ("SELECT v FROM part ORDER BY id", "UPDATE part_high SET v = 'higher'"),
        ("SELECT v FROM part_low", "UPDATE part SET v = 'lower' WHERE id = 1"),
        ("SELECT count(*) FROM part_high", "TRUNCATE part"),
        ("SELECT v FROM base ORDER BY id", "UPDATE child SET v = 'grown'"),
        ("SELECT v FROM child", "UPDATE base SET v = 'all'"),
        ("SELECT count(*) FROM line", "DELETE FROM parent WHERE id = 5"),
        ("SELECT count(*) FROM line l JOIN parent p ON p.id = l.parent", "TRUNCATE parent CASCADE"),
        ("SELECT n FROM total", "INSERT INTO source VALUES (1)"),
        ("SELECT n FROM deeper", "INSERT INTO source VALUES (2)"),
        ("SELECT looks_up(1)", "INSERT INTO source VALUES (3)"),
        ("WITH t AS (SELECT n FROM total) SELECT (SELECT n FROM t), count(*) FROM base", "UPDATE total SET n = 70"),
    ] {
        let before = kept(&pgweir, &mut client, read);
        let mut admin = cluster.primary().admin(integration::DATABASE).unwrap();
        write.split("; ").for_each(|sql| drop(admin.query(sql).unwrap()));
        let written = Instant::now();
        let right = cluster.primary().query_in(integration::DATABASE, read).unwrap();
        assert_ne!(before, right, "{write} changes nothing of {read}");
        turns_to(&pgweir, &mut client, read, written, &right);
    }
    assert!(metric(&pgweir, "pgweir_cache_marks_total", &[("kind", "row")]) > 10.0);
    assert!(metric(&pgweir, "pgweir_cache_marks_total", &[("kind", "truncate")]) > 0.0);
    assert!(metric(&pgweir, "pgweir_cache_stream_up", &[]) == 1.0 && reason(&pgweir, "misses", "changed") > 10.0);
    assert!(metric(&pgweir, "pgweir_cache_staleness_seconds", &[]) < 10.0);
}

/// What nobody changes is given for ever, and a write through pgweir is seen by its client at once.
#[test]
fn only_a_change_ends_an_answer() {
    let cluster = cluster();
    let pgweir = logical(&cluster);
    let (mut reader, mut writer) = (Client::connect(pgweir.port()), Client::connect(pgweir.port()));
    let (of_item, of_mine) = ("SELECT v FROM item WHERE id = 7", "SELECT v FROM mine WHERE id = 7");
    kept(&pgweir, &mut reader, of_item);
    for turn in 1..20 {
        writer.query("UPDATE mine SET v = v + 1 WHERE id = 7").unwrap();
        assert_eq!(writer.value(of_mine), turn.to_string());
        let (served, stalled) = (hits(&pgweir), reason(&pgweir, "bypasses", "stalled"));
        assert_eq!(reader.value(of_item), "item 7");
        // Counted when it was sent. On a loaded machine the stream may be late; that is the only reason not to have it.
        eventually("it is from the cache", || {
            hits(&pgweir) > served || reason(&pgweir, "bypasses", "stalled") > stalled
        });
    }
    assert_eq!(kept(&pgweir, &mut reader, of_mine), [["19"]]);
    // A time ends it as well.
    let timed = "/* pgweir: ttl=300ms */ SELECT v FROM item WHERE id = 8";
    kept(&pgweir, &mut reader, timed);
    let expired = reason(&pgweir, "misses", "expired");
    eventually("its time is over", || {
        reader.query(timed).unwrap();
        reason(&pgweir, "misses", "expired") > expired
    });
}

#[test]
fn what_no_stream_tells_of_is_not_kept() {
    let cluster = cluster();
    let pgweir = logical(&cluster);
    let mut client = Client::connect(pgweir.port());
    kept(&pgweir, &mut client, "SELECT v FROM item WHERE id = 1");
    let mut expected = reason(&pgweir, "bypasses", "unpublished");
    for sql in [
        "SELECT id FROM no_key",
        "SELECT n.id FROM item i JOIN no_key n USING (id)",
        "SELECT count(*) FROM long",
        "SELECT count(*) FROM frozen",
    ] {
        for _ in 0..3 {
            assert!(!ask_sql(&pgweir, &mut client, sql).1, "{sql}");
        }
        expected += 3.0;
        assert_eq!(reason(&pgweir, "bypasses", "unpublished"), expected, "{sql}: {:?}", bypasses(&pgweir));
    }
    for sql in [
        "SELECT count(*) FROM loose",
        "SELECT count(*) FROM pg_class",
        "SELECT count(*) FROM information_schema.tables",
    ] {
        (0..3).for_each(|_| assert!(!ask_sql(&pgweir, &mut client, sql).1, "{sql}"));
    }
    assert_eq!(pgweir.log().matches("public.no_key").count(), 1, "{}", pgweir.log());
    // Who says how old it may be gets that.
    let timed = "/* pgweir: ttl=1h */ SELECT id FROM no_key";
    client.query(timed).unwrap();
    direct(&cluster, "UPDATE no_key SET id = 2");
    let served = hits(&pgweir);
    assert_eq!(client.value(timed), "1");
    eventually("it is from the cache", || hits(&pgweir) > served);
    // Out of the publication: at once. And in again, with what was changed meanwhile.
    let read = "SELECT v FROM base ORDER BY id";
    kept(&pgweir, &mut client, read);
    direct(&cluster, "ALTER PUBLICATION pgweir DROP TABLE child");
    let altered = Instant::now();
    direct(&cluster, "UPDATE child SET v = 'unseen'");
    eventually("it is not kept any more", || client.query(read).unwrap()[1][0] == "unseen");
    assert!(altered.elapsed() < 2 * BOUND, "{:?}", altered.elapsed());
    let unpublished = reason(&pgweir, "bypasses", "unpublished");
    eventually("it is not kept any more", || {
        client.query(read).unwrap();
        reason(&pgweir, "bypasses", "unpublished") > unpublished
    });
    direct(&cluster, "UPDATE child SET v = 'meanwhile'; ALTER PUBLICATION pgweir ADD TABLE child");
    assert_eq!(kept(&pgweir, &mut client, read)[1][0], "meanwhile");
}

#[test]
fn a_stream_that_stands_still_is_never_believed() {
    let cluster = cluster();
    let pgweir = logical(&cluster);
    let mut client = Client::connect(pgweir.port());
    let sql = "SELECT v FROM item WHERE id = 1";
    for (turn, way) in ["stopped", "terminated"].iter().enumerate() {
        kept(&pgweir, &mut client, sql);
        let pid = walsender(&cluster).unwrap();
        match *way {
            "stopped" => signal(&pid, "-STOP"),
            _ => direct(&cluster, &format!("SELECT pg_terminate_backend({pid})")),
        }
        let value = format!("changed {turn}");
        direct(&cluster, &format!("UPDATE item SET v = '{value}' WHERE id = 1"));
        let written = Instant::now();
        let stalled = reason(&pgweir, "bypasses", "stalled");
        eventually("the cache steps aside, or knows", || {
            let began = Instant::now();
            let seen = client.value(sql);
            assert!(seen == value || began < written + BOUND, "{seen} after {:?}", began - written);
            seen == value && (*way != "stopped" || reason(&pgweir, "bypasses", "stalled") > stalled + 5.0)
        });
        if *way == "stopped" {
            signal(&pid, "-CONT");
        }
        assert_eq!(kept(&pgweir, &mut client, sql), [[value]]);
    }
    // Nothing retains what nobody will read.
    let slots = || cluster.primary().value_in("postgres", "SELECT count(*) FROM pg_replication_slots").unwrap();
    eventually("the slot of before is gone", || slots() == "1");
    drop(pgweir);
    eventually("the slots are gone", || slots() == "0");
}

/// A walsender that never says anything again: another takes its place.
#[test]
fn a_dead_stream_is_replaced() {
    let cluster = cluster();
    let pgweir = logical(&cluster);
    let mut client = Client::connect(pgweir.port());
    let sql = "SELECT v FROM item WHERE id = 1";
    kept(&pgweir, &mut client, sql);
    let pid = walsender(&cluster).unwrap();
    signal(&pid, "-STOP");
    direct(&cluster, "UPDATE item SET v = 'changed' WHERE id = 1");
    assert!(metric(&pgweir, "pgweir_cache_stream_begins_total", &[]) == 1.0);
    eventually("another stream", || metric(&pgweir, "pgweir_cache_stream_begins_total", &[]) == 2.0);
    assert_eq!(kept(&pgweir, &mut client, sql), [["changed"]]);
    signal(&pid, "-CONT");
}

/// The commit is in the log, and the stream has told of it, but nobody sees it yet, while others behind it are seen.
#[test]
fn a_commit_that_waits_to_be_visible_is_not_lost() {
    let waits = logical_builder().setting("synchronous_standby_names", "nobody").setting("synchronous_commit", "local");
    // Heartbeats wait for nobody, whatever holds for their role.
    let cluster = waits.sql(SETUP).sql("ALTER ROLE app SET synchronous_commit = on").start().unwrap();
    let pgweir = logical(&cluster);
    let mut client = Client::connect(pgweir.port());
    let sql = "SELECT v FROM item WHERE id = 1";
    kept(&pgweir, &mut client, sql);
    let rows = || metric(&pgweir, "pgweir_cache_marks_total", &[("kind", "row")]);
    let before = rows();
    std::thread::scope(|scope| {
        let cluster = &cluster;
        let late = "SET synchronous_commit = on; UPDATE item SET v = 'late' WHERE id = 1";
        let waiting = scope.spawn(move || direct(cluster, late));
        eventually("the stream tells of it", || rows() > before);
        // Who need not wait goes on, behind it in the log.
        direct(cluster, "UPDATE mine SET v = 5 WHERE id = 1");
        let (fills, served) = (count(&pgweir, "fills"), hits(&pgweir));
        let asked = Instant::now();
        while asked.elapsed() < 3 * BOUND {
            assert_eq!(client.value(sql), "item 1", "nobody can see it yet");
        }
        assert!(count(&pgweir, "fills") > fills, "{:?}", bypasses(&pgweir));
        assert!(hits(&pgweir) == served, "what was filled meanwhile hangs on a commit that it does not show");
        assert!(!waiting.is_finished());
        direct(cluster, "ALTER SYSTEM SET synchronous_standby_names = ''");
        direct(cluster, "SELECT pg_reload_conf()");
        waiting.join().unwrap();
        // Whose waiting has ended sees it at once.
        assert_eq!(client.value(sql), "late");
    });
    assert_eq!(kept(&pgweir, &mut client, sql), [["late"]]);
}

#[test]
fn changes_of_the_schema_past_pgweir_are_seen_within_the_bound() {
    let cluster = cluster();
    let pgweir = logical(&cluster);
    let mut client = Client::connect(pgweir.port());
    client.query("SET search_path = app, public").unwrap();
    let rows =
        |rows: &[&[&str]]| rows.iter().map(|row| row.iter().map(|&v| v.to_owned()).collect()).collect::<Vec<Vec<_>>>();
    for (read, change, right) in [
        (
            "SELECT * FROM base",
            "ALTER TABLE base ADD COLUMN n int DEFAULT 5",
            &[&["1", "base", "5"][..], &["2", "child", "5"]][..],
        ),
        (
            "SELECT count(*) FROM part",
            "CREATE TABLE part_top PARTITION OF part FOR VALUES FROM (200) TO (300)",
            &[&["2"]],
        ),
        ("SELECT count(*) FROM part", "INSERT INTO part VALUES (201, 'top')", &[&["3"]]),
        ("SELECT count(*) FROM part", "DELETE FROM part_top", &[&["2"]]),
        ("SELECT n FROM deeper", "CREATE OR REPLACE VIEW deeper AS SELECT count(*)::int AS n FROM parent", &[&["9"]]),
        ("SELECT n FROM deeper", "DELETE FROM parent WHERE id = 1", &[&["8"]]),
        (
            "SELECT v FROM item WHERE id = 1",
            "CREATE TABLE app.item (id int PRIMARY KEY, v text); INSERT INTO app.item VALUES (1, 'in front'); \
             GRANT ALL ON app.item TO app; ALTER PUBLICATION pgweir ADD TABLE app.item",
            &[&["in front"]],
        ),
        ("SELECT v FROM item WHERE id = 1", "UPDATE app.item SET v = 'changed'", &[&["changed"]]),
        ("SELECT v FROM item WHERE id = 1", "DROP TABLE app.item", &[&["item 1"]]),
    ] {
        kept(&pgweir, &mut client, read);
        direct(&cluster, change);
        turns_to(&pgweir, &mut client, read, Instant::now(), &rows(right));
    }
    let read = "SELECT v FROM item WHERE id = 2";
    kept(&pgweir, &mut client, read);
    direct(&cluster, "REVOKE SELECT ON item FROM app, reader");
    let revoked = Instant::now();
    loop {
        let began = Instant::now();
        let outcome = client.query(read);
        if outcome.is_err() {
            break;
        }
        assert!(began < revoked + BOUND, "read {:?} after it was revoked", began - revoked);
    }
    // What is temporary is nobody's affair.
    let changes = || metric(&pgweir, "pgweir_cache_marks_total", &[("kind", "schema")]);
    let revoked = changes();
    direct(&cluster, "GRANT SELECT ON item TO app");
    eventually("the stream tells of the grant", || changes() > revoked);
    kept(&pgweir, &mut client, read);
    let before = changes();
    let passing = "CREATE TEMP TABLE passing (id int); ALTER TABLE passing ADD n int; CREATE INDEX ON passing (n); DROP TABLE passing";
    direct(&cluster, passing);
    direct(&cluster, "UPDATE mine SET v = 9 WHERE id = 1");
    kept(&pgweir, &mut client, "SELECT v FROM mine WHERE id = 1");
    assert_eq!(changes(), before);
}

/// Without triggers, and of what they do not see.
#[test]
fn rights_are_looked_at_now_and_then() {
    let cluster = logical_builder().sql("CREATE PUBLICATION pgweir FOR TABLE item").start().unwrap();
    let pgweir = start(&logical_conf(&cluster, "").pool("catalog_refresh = \"1s\""));
    let mut client = Client::connect(pgweir.port());
    let read = "SELECT * FROM item WHERE id = 2";
    kept(&pgweir, &mut client, read);
    direct(&cluster, "ALTER TABLE item ADD COLUMN n int DEFAULT 7");
    eventually("the column is noticed", || client.query(read).unwrap() == [["2", "item 2", "7"]]);
    direct(&cluster, "REVOKE ALL ON item FROM app");
    kept(&pgweir, &mut client, read);
    direct(&cluster, "REVOKE reader FROM app");
    eventually("it is noticed that it is in the role no more", || client.query(read).is_err());
}

/// A reader must see what was answered to somebody longer ago than the bound, whoever wrote it where.
#[test]
fn nothing_is_ever_older_than_the_bound() {
    const TABLES: usize = 60;
    let tables: String = (0..TABLES)
        .map(|n| format!("CREATE TABLE counter{n} (id int PRIMARY KEY, v int); INSERT INTO counter{n} VALUES (1, 0);"))
        .collect();
    let grants = "GRANT ALL ON ALL TABLES IN SCHEMA public TO app";
    let cluster = logical_builder().sql(&tables).sql(grants).sql(SETUP).start().unwrap();
    let pgweir = start(&logical_conf(&cluster, "").size(8));
    kept(&pgweir, &mut Client::connect(pgweir.port()), "SELECT v FROM counter0");
    // For each, when which value had been answered.
    let answered: Vec<std::sync::Mutex<Vec<(Instant, i32)>>> = (0..TABLES).map(|_| Default::default()).collect();
    let (port, past) = (pgweir.port(), cluster.primary().port());
    let ends = Instant::now() + Duration::from_secs(20);
    let reads: usize = crowd(10, move |number| {
        let (mut through, mut beside) = (Client::connect(port), Client::connect(past));
        let (mut dice, mut reads) = (number as u64 + 1, 0);
        while Instant::now() < ends {
            dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let (roll, table) = ((dice >> 33) % 20, (dice >> 40) as usize % TABLES);
            if roll < 6 {
                let client = if roll < 3 { &mut through } else { &mut beside };
                let sql = format!("UPDATE counter{table} SET v = v + 1 RETURNING v");
                let value = client.value(&sql).parse().unwrap();
                answered[table].lock().unwrap().push((Instant::now(), value));
            } else {
                let began = Instant::now();
                let seen: i32 = through.value(&format!("SELECT v FROM counter{table}")).parse().unwrap();
                let answered = answered[table].lock().unwrap();
                let old = answered.iter().filter(|(at, _)| *at + BOUND < began);
                let least = old.map(|(_, value)| *value).max().unwrap_or(0);
                assert!(
                    seen >= least,
                    "client {number}: {seen} of counter{table}, where {least} was known {BOUND:?} before"
                );
                reads += 1;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        reads
    })
    .into_iter()
    .sum();
    let served = hits(&pgweir);
    assert!(served > reads as f64 / 20.0, "{served} hits of {reads} reads: {:?}", bypasses(&pgweir));
}
