//! What somebody says does not count any more is given to nobody: by table, tag, shape and database, on the console and over HTTP.
//! It must never take for gone what was not there: each read was a hit right before.

use integration::http::{get, post};
use integration::wire::Script;
use integration::{Cluster, DATABASE, Pgweir};

use crate::common::client::outcome;
use crate::common::{Client, Conf, eventually, metric};
use crate::{ask_sql, builder, conf, count, direct, hits, reason, start};

const MORE: &str = "CREATE VIEW shown AS SELECT v, id FROM item; CREATE VIEW deeper AS SELECT count(*) AS n FROM shown;
    CREATE FUNCTION looks_up(int) RETURNS text LANGUAGE sql IMMUTABLE AS 'SELECT v FROM item WHERE id = $1';
    CREATE TABLE whole (id int PRIMARY KEY, v text) PARTITION BY RANGE (id);
    CREATE TABLE half PARTITION OF whole FOR VALUES FROM (0) TO (100); INSERT INTO whole VALUES (1, 'half');
    CREATE TABLE \"Odd.One\" AS SELECT 1 AS id; GRANT ALL ON ALL TABLES IN SCHEMA public TO app";

pub fn cluster() -> Cluster {
    builder().sql(MORE).start().unwrap()
}

/// With somebody on the console.
pub fn heard(cluster: &Cluster, lines: &str) -> Conf {
    let console = "[console]\nadmin_users = [\"root\"]\nstats_users = [\"watcher\"]\n";
    conf(cluster, lines).user("root", "").user("watcher", "").rest(console)
}

pub fn console(pgweir: &Pgweir, user: &str) -> Client {
    Client::connect_with(pgweir.port(), &[("user", user), ("database", "pgweir")])
}

const LASTING: &str = "mode = \"on\"\nttl = \"1h\"\n";

/// Reads until the answer comes from the cache.
pub fn warm(pgweir: &Pgweir, client: &mut Client, sql: &str) -> Vec<Vec<String>> {
    let mut rows = Vec::new();
    eventually(sql, || {
        let (now, hit) = ask_sql(pgweir, client, sql);
        rows = now;
        hit
    });
    rows
}

/// The first statement of each is what is read; the tags stand in comments.
const READS: [&str; 9] = [
    "SELECT v FROM item WHERE id = 1",
    "SELECT n FROM deeper",
    "SELECT looks_up(2)",
    "SELECT v FROM half",
    "SELECT v FROM whole WHERE id = 1",
    "/* pgweir: tag=menu tag=long */ SELECT v FROM mine WHERE id = 1",
    "/* pgweir: tag=list */ SELECT v FROM mine WHERE id = 2",
    "SELECT v FROM a.spot",
    "SELECT id FROM \"Odd.One\"",
];

/// Has everything in the cache, does this, and says which of the reads were gone.
fn gone(pgweir: &Pgweir, client: &mut Client, what: impl FnOnce()) -> Vec<usize> {
    for sql in READS {
        warm(pgweir, client, sql);
    }
    what();
    let mut gone = Vec::new();
    for (number, sql) in READS.iter().enumerate() {
        let before = reason(pgweir, "misses", "signalled");
        let (_, hit) = ask_sql(pgweir, client, sql);
        assert_eq!(reason(pgweir, "misses", "signalled") - before, f64::from(u8::from(!hit)), "{sql}");
        if !hit {
            gone.push(number);
        }
    }
    gone
}

fn shape_of(admin: &mut Client, text: &str) -> String {
    let rows = admin.query("SHOW QUERIES").unwrap();
    rows.iter().find(|row| row.last().is_some_and(|query| query.to_lowercase().contains(text))).unwrap()[0].clone()
}

#[test]
fn on_the_console_and_over_http() {
    let cluster = cluster();
    let pgweir = start(&heard(&cluster, LASTING));
    let (mut client, mut admin) = (Client::connect(pgweir.port()), console(&pgweir, "root"));
    READS.iter().for_each(|sql| drop(client.query(sql).unwrap()));
    let shape = shape_of(&mut admin, "from whole");
    let all: Vec<usize> = (0..READS.len()).collect();
    let stats = pgweir.stats_port();
    for (said, json, expected) in [
        // Through views, and what functions read.
        ("TABLE item", r#"{"table":"item"}"#, &[0, 1, 2][..]),
        ("TABLE Public.Item IN app", r#"{"database":"app","table":"item","schema":"public"}"#, &[0, 1, 2]),
        ("TABLE other.item", r#"{"table":"other.item"}"#, &[]),
        ("TABLE \"Item\"", r#"{"table":"Item"}"#, &[]),
        ("TABLE shown", r#"{"table":"shown"}"#, &[1]),
        // A part goes with the whole, and the whole with a part.
        ("TABLE whole", r#"{"table":"public.whole"}"#, &[3, 4]),
        ("TABLE half", r#"{"table":"half","tenant_id":7}"#, &[3, 4]),
        ("TABLE spot", r#"{"table":"spot"}"#, &[7]),
        ("TABLE a.spot", r#"{"table":"a.spot"}"#, &[7]),
        // What has the name of something that is read, in any schema, is taken to be read.
        ("TABLE b.spot", r#"{"table":"b.spot"}"#, &[7]),
        ("TABLE c.spot", r#"{"table":"c.spot"}"#, &[]),
        ("TABLE \"Odd.One\"", r#"{"table":"Odd.One"}"#, &[8]),
        ("TAG menu", r#"{"tag":"menu"}"#, &[5]),
        ("TAG list IN app", r#"{"tag":"list","database":"app"}"#, &[6]),
        ("TAG none", r#"{"tag":"none"}"#, &[]),
        (&format!("SHAPE {shape}"), &format!(r#"{{"shape":"{shape}"}}"#), &[4]),
        ("PATTERN 'select v from item where id = *'", r#"{"pattern":"SELECT v FROM item WHERE id = *"}"#, &[0]),
        ("PATTERN '*FROM mine*' IN app", r#"{"pattern":"*FROM mine*","database":"app"}"#, &[5, 6]),
        ("PATTERN 'm*u'", r#"{"pattern":"m*u"}"#, &[5]),
        ("PATTERN 'li*'", r#"{"pattern":"LI*"}"#, &[6]),
        ("PATTERN 'FROM item'", r#"{"pattern":"FROM item"}"#, &[]),
        ("PATTERN '*'", r#"{"pattern":"*"}"#, &all[..]),
        ("DATABASE app", r#"{"all":true,"database":"app"}"#, &all[..]),
        ("ALL", r#"{"all":true}"#, &all[..]),
    ] {
        let by_word = gone(&pgweir, &mut client, || {
            assert_eq!(admin.query(&format!("INVALIDATE {said}")), Ok(vec![]), "{said}");
        });
        assert_eq!(by_word, expected, "{said}");
        let by_http = gone(&pgweir, &mut client, || {
            let (status, body) = post(stats, "/api/cache/invalidate", json).unwrap();
            assert!(status == 200 && body.contains("invalidated"), "{json}: {status} {body}");
        });
        assert_eq!(by_http, expected, "{json}");
    }
    for source in ["console", "http"] {
        assert_eq!(metric(&pgweir, "pgweir_cache_signals_total", &[("source", source)]), 24.0);
    }
    assert!(pgweir.log().contains("invalidated on the console") && pgweir.log().contains("invalidated over HTTP"));
}

#[test]
fn who_may_not_or_says_nothing_is_told_so() {
    let cluster = cluster();
    let pgweir = start(&heard(&cluster, LASTING));
    let (mut client, mut admin) = (Client::connect(pgweir.port()), console(&pgweir, "root"));
    let stats = pgweir.stats_port();
    let gone = gone(&pgweir, &mut client, || {
        let mut watcher = console(&pgweir, "watcher");
        assert!(watcher.query("INVALIDATE ALL").unwrap_err().starts_with("42501"));
        for (sql, code) in [
            ("INVALIDATE", "42601"),
            ("INVALIDATE TABLE a.b.c", "42601"),
            ("INVALIDATE TAG", "42601"),
            ("INVALIDATE ALL IN app", "42601"),
            ("INVALIDATE SHAPE menu", "22P02"),
            ("INVALIDATE PATTERN ''", "22P02"),
            ("INVALIDATE PATTERN 'a\\b'", "22P02"),
            ("INVALIDATE DATABASE none", "3D000"),
            ("INVALIDATE TABLE item IN none", "3D000"),
        ] {
            let error = admin.query(sql).unwrap_err();
            assert!(error.starts_with(code), "{sql}: {error}");
        }
        for (json, status) in [
            ("{", 400),
            ("{}", 422),
            (r#"{"pattern":""}"#, 422),
            (r#"{"pattern":"a\\b"}"#, 422),
            (r#"{"all":true,"database":"none"}"#, 404),
        ] {
            let (found, body) = post(stats, "/api/cache/invalidate", json).unwrap();
            assert!(found == status && body.contains("\"error\""), "{json}: {found} {body}");
        }
        let (status, body) = get(stats, "/api/cache/invalidate").unwrap();
        assert!(status == 405 && body.contains("only POST"), "{status} {body}");
    });
    assert_eq!(gone, [0usize; 0]);
}

/// The stale-set race: a read that began before the signal is kept after it, and given to nobody.
#[test]
fn what_is_under_way_does_not_survive() {
    let cluster = cluster();
    let pgweir = start(&heard(&cluster, LASTING).size(20));
    let (mut client, mut admin) = (Client::connect(pgweir.port()), console(&pgweir, "root"));
    for said in ["TABLE guarded", "ALL", "DATABASE app", "TAG slow", "PATTERN \"*guarded*\""] {
        let sql = format!("/* pgweir: tag=slow */ SELECT v FROM guarded WHERE id = 7 AND v <> '{said}'");
        let mut holder = Client::connect(cluster.primary().port());
        holder.query("BEGIN; LOCK TABLE guarded IN ACCESS EXCLUSIVE MODE").unwrap();
        client.send(&Script::new().query(&sql));
        let waits = "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'guarded'::regclass";
        eventually("it waits", || cluster.primary().value_in(DATABASE, waits).unwrap() == "1");
        admin.query(&format!("INVALIDATE {said}")).unwrap();
        let fills = count(&pgweir, "fills");
        holder.query("COMMIT").unwrap();
        assert_eq!(outcome(&client.ready(1)).unwrap(), [["guarded 7"]]);
        eventually("it is kept", || count(&pgweir, "fills") > fills);
        direct(&cluster, &format!("UPDATE guarded SET v = 'guarded ' || 'after {said}' WHERE id = 7"));
        assert_eq!(ask_sql(&pgweir, &mut client, &sql), (vec![vec![format!("guarded after {said}")]], false), "{said}");
        assert!(ask_sql(&pgweir, &mut client, &sql).1);
        direct(&cluster, "UPDATE guarded SET v = 'guarded 7' WHERE id = 7");
    }
}

/// What carries different tags is kept apart, or a signal for one would not reach who asks with the other.
#[test]
fn a_tag_is_part_of_the_question() {
    let cluster = cluster();
    let pgweir = start(&heard(&cluster, LASTING));
    let (mut client, mut admin) = (Client::connect(pgweir.port()), console(&pgweir, "root"));
    let (plain, tagged) = ("SELECT v FROM item WHERE id = 5", "SELECT v FROM item WHERE id = 5 -- pgweir: tag=five");
    let extended = crate::unnamed("SELECT v FROM item WHERE id = $1 /* pgweir: tag=five */", &[Some("5")]);
    warm(&pgweir, &mut client, plain);
    assert!(!ask_sql(&pgweir, &mut client, tagged).1);
    assert!(ask_sql(&pgweir, &mut client, "/*pgweir:tag=five,tag=five*/ SELECT v FROM item WHERE id = 5").1);
    client.run(&extended);
    assert!(crate::ask(&pgweir, &mut client, &extended).1);
    admin.query("INVALIDATE TAG five").unwrap();
    assert!(!ask_sql(&pgweir, &mut client, tagged).1 && ask_sql(&pgweir, &mut client, plain).1);
    assert!(!crate::ask(&pgweir, &mut client, &extended).1);
}

/// A view that was made anew reads something else; a table that nobody knew yet is reached as well.
#[test]
fn what_answers_read_is_known_as_the_schema_is() {
    let cluster = cluster();
    let pgweir = start(&heard(&cluster, LASTING));
    let (mut client, mut admin) = (Client::connect(pgweir.port()), console(&pgweir, "root"));
    client.query("CREATE VIEW app.mixed AS SELECT v FROM item WHERE id = 9").unwrap();
    warm(&pgweir, &mut client, "SELECT v FROM app.mixed");
    client.query("CREATE OR REPLACE VIEW app.mixed AS SELECT long.v FROM kinds, long WHERE id = 9").unwrap();
    client.query("CREATE TABLE app.fresh AS SELECT 1 AS v").unwrap();
    for (sql, table) in [("SELECT v FROM app.mixed", "long"), ("SELECT v FROM app.fresh", "app.fresh")] {
        warm(&pgweir, &mut client, sql);
        admin.query(&format!("INVALIDATE TABLE {table}")).unwrap();
        assert!(!ask_sql(&pgweir, &mut client, sql).1, "{sql}");
    }
}

/// What a replica says that has not replayed yet what a signal was about is not kept.
#[test]
fn a_replica_that_is_behind_brings_nothing_back() {
    let cluster = builder().replicas(1).start().unwrap();
    let pgweir = start(&heard(&cluster, LASTING).pool("read_wait = 0"));
    let (mut reader, mut admin) = (Client::connect(pgweir.port()), console(&pgweir, "root"));
    let sql = "SELECT v FROM item WHERE id = 77";
    warm(&pgweir, &mut reader, sql);
    cluster.replicas()[0].query("SELECT pg_wal_replay_pause()").unwrap();
    direct(&cluster, "UPDATE item SET v = 'new' WHERE id = 77");
    admin.query("INVALIDATE TABLE item").unwrap();
    for _ in 0..20 {
        // As old as its replica is, but never from the cache.
        let (rows, hit) = ask_sql(&pgweir, &mut reader, sql);
        assert!(!hit || rows == [["new"]], "{rows:?}");
    }
    assert!(reason(&pgweir, "unkept", "behind") > 0.0, "{}", pgweir.metrics().unwrap());
    cluster.replicas()[0].query("SELECT pg_wal_replay_resume()").unwrap();
    eventually("it is kept again", || ask_sql(&pgweir, &mut reader, sql) == (vec![vec!["new".to_owned()]], true));
}

/// `SHOW CACHE` says what is promised and what came of it, and the metrics say the same.
#[test]
fn the_console_shows_what_the_cache_does() {
    let cluster = cluster();
    let two =
        format!("[databases.second]\nprimary = \"127.0.0.1:{}\"\ndbname = \"{DATABASE}\"\n", cluster.primary().port());
    let lines = "mode = \"on\"\nttl = \"1h\"\nmax_bytes = \"1MB\"\nmax_entry_bytes = \"100kB\"\n";
    let own = format!("{two}cache_invalidation = \"logical\"\ncache_max_staleness = \"700ms\"\n");
    let pgweir = start(&heard(&cluster, lines).rest(&own));
    let (mut client, mut watcher) = (Client::connect(pgweir.port()), console(&pgweir, "watcher"));
    let mut shown = |columns: &str| {
        let rows = watcher.query("SHOW CACHE").unwrap();
        let names = "database mode invalidation bound stream stream_age_us signals entries bytes max_bytes hits misses absent \
            expired older changed signalled bypasses hit_ratio fills evictions refused verified mismatches disabled early stale warmed warm_failed redis \
            redis_hits redis_misses";
        let names: Vec<&str> = names.split_ascii_whitespace().collect();
        assert_eq!(rows.iter().map(Vec::len).collect::<Vec<_>>(), [names.len(); 3]);
        let at = |name: &str| names.iter().position(|it| *it == name).unwrap();
        let wanted: Vec<usize> = columns.split_ascii_whitespace().map(at).collect();
        rows.iter()
            .map(|row| wanted.iter().map(|&at| row[at].clone()).collect::<Vec<_>>().join("|"))
            .collect::<Vec<_>>()
    };
    assert_eq!(shown("database mode invalidation"), ["app|on|ttl", "second|on|logical", "*|on|"]);
    let bounds = shown("bound");
    assert!(bounds[0].starts_with("1h old at most") && bounds[1].contains("700ms ago"), "{bounds:?}");
    let bound = |database| metric(&pgweir, "pgweir_cache_bound_seconds", &[("database", database)]);
    assert_eq!((bound("app"), bound("second")), (3600.0, 0.7));
    let sql = "SELECT v FROM item WHERE id = 9";
    warm(&pgweir, &mut client, sql);
    (0..3).for_each(|_| drop(client.query(sql).unwrap()));
    let numbers = shown("hits misses absent fills hit_ratio").remove(0);
    let [all, misses, absent, fills] =
        [hits(&pgweir), count(&pgweir, "misses"), reason(&pgweir, "misses", "absent"), count(&pgweir, "fills")];
    assert_eq!(numbers, format!("{all}|{misses}|{absent}|{fills}|{:.4}", all / (all + misses)));
    // More than there is room for.
    for id in 0..300 {
        client.query(&format!("SELECT v FROM long WHERE id <= 20 AND id <> -{id}")).unwrap();
    }
    let of = |name: &str| metric(&pgweir, name, &[("database", "app")]);
    let names = ["pgweir_cache_database_entries", "pgweir_cache_database_bytes", "pgweir_cache_evictions_total"];
    let mut held: Vec<f64> = Vec::new();
    eventually("both say the same", || {
        // The last one is kept when its client has it.
        let row = shown("entries bytes evictions").remove(0);
        held = row.split('|').map(|number| number.parse().unwrap()).collect();
        names.map(of) == held[..]
    });
    assert!(held[0] > 10.0 && held[1] > 300_000.0 && held[1] <= 1e6 && held[2] > 0.0, "{held:?}");
    assert_eq!(shown("max_bytes"), ["1000000"; 3]);
    assert_eq!(shown("entries signals redis redis_hits")[1..], ["0|||", &format!("{}|||", held[0])]);
}

/// Values are part of a statement, whichever way they were sent; other statements and other values stay.
#[test]
fn a_pattern_is_for_values_too() {
    let cluster = cluster();
    let pgweir = start(&heard(&cluster, LASTING));
    let (mut client, mut admin) = (Client::connect(pgweir.port()), console(&pgweir, "root"));
    let (sql, other) = ("SELECT v FROM item WHERE id = $1", "SELECT id FROM item WHERE id = $1");
    // In binary it is four bytes of an integer, which the driver says it is.
    let mut body = [b"\0", sql.as_bytes(), b"\0\0\x01"].concat();
    body.extend_from_slice(&23u32.to_be_bytes());
    let bind = |id: i32| [&b"\0\0\0\x01\0\x01\0\x01\0\0\0\x04"[..], &id.to_be_bytes(), b"\0\0"].concat();
    let binary = |id| Script::new().raw(b'P', &body).raw(b'B', &bind(id)).execute("", 0).sync();
    let scripts: [Script; 6] = [
        crate::unnamed(sql, &[Some("7")]),
        crate::unnamed(sql, &[Some("77")]),
        crate::unnamed(other, &[Some("7")]),
        binary(7),
        binary(77),
        Script::new().query("SELECT v FROM item WHERE id = 7"),
    ];
    for (pattern, gone) in [
        ("select v from item where id = $1 (7)", vec![0, 3]),
        ("*(7)", vec![0, 2, 3]),
        ("select v from item where id = 7", vec![5]),
        ("*(77)", vec![1, 4]),
        ("*(7", vec![]),
        ("*= $1*", vec![0, 1, 2, 3, 4]),
    ] {
        for script in &scripts {
            eventually("it is kept", || crate::ask(&pgweir, &mut client, script).1);
        }
        admin.query(&format!("INVALIDATE PATTERN '{pattern}'")).unwrap();
        let mut found = Vec::new();
        for (number, script) in scripts.iter().enumerate() {
            let (frames, hit) = crate::ask(&pgweir, &mut client, script);
            assert_eq!(outcome(&frames).unwrap().len(), 1);
            if !hit {
                found.push(number);
            }
        }
        assert_eq!(found, gone, "{pattern}");
    }
}
