//! Answers come from the cache, and are what PostgreSQL would have said: on real servers, seen from clients and from the metrics.
//! It must never take for a hit what was none: a test that says so has seen the count of hits move.
#![allow(clippy::unwrap_used)]

#[path = "../common/mod.rs"]
mod common;

mod ahead;
mod apart;
mod bounds;
mod fenced;
mod flight;
mod fresh;
mod l2;
mod l2_flight;
mod l2_gone;
mod l2_grades;
mod l2_kinds;
mod l2_signals;
mod logical;
mod never;
mod replicas;
mod rows;
mod serve;
mod shadow;
mod signals;
mod signals_notify;
mod stale;
mod truncate;
mod verify;
mod warm;

use std::sync::OnceLock;

use common::client::outcome;
use common::{Client, Conf, metric};
use integration::wire::{Frame, Script};
use integration::{Cluster, DATABASE, Pgweir};

const TABLES: &str = "CREATE TABLE item (id int PRIMARY KEY, v text);
    INSERT INTO item SELECT n, 'item ' || n FROM generate_series(1, 1000) n;
    CREATE TABLE mine (id int PRIMARY KEY, v int); INSERT INTO mine SELECT n, 0 FROM generate_series(1, 100) n;
    CREATE TABLE long AS SELECT n AS id, repeat('x', 1000) AS v FROM generate_series(1, 1000) n;
    CREATE TABLE kinds (at timestamptz, f float8, b bytea, i interval);
    INSERT INTO kinds VALUES ('2024-02-03 12:00:00+00', 0.1::float8 + 0.2, '\\x0061ff', '1 day 02:00');
    CREATE ROLE other LOGIN; CREATE ROLE reader NOLOGIN; GRANT reader TO app;
    CREATE SCHEMA app AUTHORIZATION app; CREATE SCHEMA other AUTHORIZATION other; CREATE SCHEMA a; CREATE SCHEMA b;
    CREATE TABLE app.place AS SELECT 'of app' AS v; CREATE TABLE other.place AS SELECT 'of other' AS v;
    CREATE TABLE a.spot AS SELECT 'a' AS v; CREATE TABLE b.spot AS SELECT 'b' AS v;
    CREATE TABLE secret (owner text, v text); ALTER TABLE secret ENABLE ROW LEVEL SECURITY;
    CREATE POLICY own ON secret USING (owner = current_user);
    INSERT INTO secret VALUES ('app', 'secret of app'), ('reader', 'secret of reader'), ('other', 'secret of other');
    ALTER TABLE secret FORCE ROW LEVEL SECURITY;
    CREATE VIEW secrets WITH (security_invoker = true) AS SELECT * FROM secret;
    CREATE FUNCTION drawn() RETURNS float8 LANGUAGE sql VOLATILE AS 'SELECT random()';
    CREATE VIEW chance AS SELECT id, drawn() AS v FROM item WHERE id < 3;
    CREATE TABLE guarded AS SELECT n AS id, 'guarded ' || n AS v FROM generate_series(1, 100) n;
    CREATE TABLE guarded_too AS SELECT * FROM guarded;
    GRANT ALL ON ALL TABLES IN SCHEMA public, a, b TO app, reader, other; GRANT ALL ON SCHEMA public, a, b TO app, reader, other;
    GRANT ALL ON ALL TABLES IN SCHEMA app TO app; GRANT ALL ON ALL TABLES IN SCHEMA other TO other; ANALYZE";

fn builder() -> integration::cluster::Builder {
    Cluster::builder().setting("log_statement", "all").sql(TABLES)
}

/// One cluster for the tests that leave its tables as they are.
fn cluster() -> &'static Cluster {
    static CLUSTER: OnceLock<Cluster> = OnceLock::new();
    CLUSTER.get_or_init(|| builder().start().unwrap())
}

/// A cache with these lines besides.
fn conf(cluster: &Cluster, lines: &str) -> Conf {
    // A hit that is compared instead is none.
    let verify = if lines.contains("verify = ") { "" } else { "verify = 0\n" };
    Conf::trust(cluster).user("other", "").rest(&format!("[cache]\n{verify}{lines}"))
}

/// pgweir on one worker, which knows what its database's code does.
fn start(conf: &Conf) -> Pgweir {
    let pgweir = conf.clone().top("workers = 1").start();
    common::know(&pgweir);
    pgweir
}

/// pgweir in front of the shared cluster, which keeps answers for so long that nothing expires.
fn lasting() -> Pgweir {
    start(&conf(cluster(), "mode = \"on\"\nttl = \"1h\""))
}

fn count(pgweir: &Pgweir, what: &str) -> f64 {
    metric(pgweir, &format!("pgweir_cache_{what}_total"), &[])
}

fn hits(pgweir: &Pgweir) -> f64 {
    count(pgweir, "hits")
}

fn reason(pgweir: &Pgweir, what: &str, reason: &str) -> f64 {
    metric(pgweir, &format!("pgweir_cache_{what}_total"), &[("reason", reason)])
}

/// Runs a script, and says whether its answer came from the cache.
fn ask(pgweir: &Pgweir, client: &mut Client, script: &Script) -> (Vec<Frame>, bool) {
    let before = hits(pgweir);
    let frames = client.run(script);
    (frames, hits(pgweir) > before)
}

/// The same of a simple query and its rows.
fn ask_sql(pgweir: &Pgweir, client: &mut Client, sql: &str) -> (Vec<Vec<String>>, bool) {
    let (frames, hit) = ask(pgweir, client, &Script::new().query(sql));
    (outcome(&frames).unwrap_or_else(|error| panic!("{sql}: {error}")), hit)
}

/// Past pgweir, as the superuser.
fn direct(cluster: &Cluster, sql: &str) {
    cluster.primary().query_in(DATABASE, sql).unwrap();
}

/// A statement in the extended protocol: prepared without a name, bound to values, described and executed.
fn unnamed(sql: &str, values: &[Option<&str>]) -> Script {
    Script::new().parse("", sql).bind("", "", values).describe(b'P', "").execute("", 0).sync()
}

/// Why the cache was not asked.
fn bypasses(pgweir: &Pgweir) -> Vec<(&'static str, f64)> {
    let reasons = [
        "verdict",
        "volatile",
        "moment",
        "session",
        "batch",
        "ttl",
        "stalled",
        "unpublished",
        "untraced",
        "doubt",
        "rare",
    ];
    let all = reasons.map(|why| (why, reason(pgweir, "bypasses", why)));
    all.into_iter().filter(|(_, count)| *count > 0.0).collect()
}
