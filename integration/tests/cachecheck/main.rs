//! The cache under everything at once: 40 clients, two pgweirs and one Redis, writes through pgweir and past it, by cascades, triggers and partitions,
//! changes of the schema, of rights, roles and search paths, and whatever fails; each grade of invalidation is held to its bound.
//! It must never judge by anything but what writers were told and what readers saw.
//!
//! Some seconds for each grade; `PGWEIR_LONG=1` makes it ten minutes, `PGWEIR_SECONDS` any other time. `--nocapture` shows the figures.
#![allow(clippy::unwrap_used)]

#[path = "../common/mod.rs"]
mod common;

mod dice;
mod faults;
mod model;
mod reads;
mod session;
mod tables;
mod writes;

use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use integration::{Cluster, Redis};

use common::{Client, Conf, eventually, metric};
use faults::Scene;
use model::{Kind, Tally};
use session::{Bounds, Session, World};

const SETUP: &str = include_str!("../../../config/cache.sql");
const CLIENTS: usize = 40;
/// Between two requests of a client, on average.
const PAUSE: Duration = Duration::from_millis(50);
const SECOND: Duration = Duration::from_secs(1);

/// They are measured by how soon they are told of what they do: one at a time.
static TURN: Mutex<()> = Mutex::new(());

fn time() -> Duration {
    let chosen = std::env::var("PGWEIR_SECONDS").ok().and_then(|text| text.parse().ok());
    let usual = if std::env::var_os("PGWEIR_LONG").is_some() { 600 } else { 17 };
    Duration::from_secs(chosen.unwrap_or(usual))
}

fn scene(lines: &str, is_logical: bool) -> Scene {
    let builder = Cluster::builder().setting("max_prepared_transactions", "50").setting("max_connections", "250");
    let builder = builder.setting("wal_level", "logical").sql(&tables::sql()).sql(SETUP);
    let cluster = builder.sql("ALTER ROLE app REPLICATION; ALTER ROLE other REPLICATION").start().unwrap();
    let redis = Redis::start_with(&["--enable-debug-command", "local"]).unwrap();
    let (at, secret) = (redis.address(), "what only these processes share: 42");
    let cache = format!("[cache]\nmode = \"on\"\nverify = 0.01\n{lines}\n");
    let redis_lines = format!("[cache.redis]\nhosts = [\"{at}\"]\nsecret = \"{secret}\"\ntimeout = \"300ms\"\n");
    let conf = Conf::trust(&cluster)
        .user("other", "")
        .size(15)
        .pool("slow_query = 0")
        .top("workers = 2")
        .rest(&cache)
        .rest(&redis_lines);
    let scene = Scene::new(cluster, redis, conf.text(), is_logical);
    for pgweir in scene.pgweirs.iter().flatten() {
        common::know(pgweir);
        let mut client = Client::connect(pgweir.port());
        eventually("answers are kept", || {
            client.query("SELECT v FROM plain7 WHERE id = 1").unwrap();
            metric(pgweir, "pgweir_cache_hits_total", &[]) > 0.0
        });
    }
    scene
}

/// Lets all sessions end, also when something else has failed.
struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, SeqCst);
    }
}

/// Runs everything, and says what came of it.
fn check(name: &str, lines: &str, apart: bool, bounds: Bounds) -> (Tally, Scene) {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let mut scene = scene(lines, name == "logical");
    let world = World::new(apart, bounds, scene.ports(), scene.cluster.primary().port());
    let tally = thread::scope(|scope| {
        let sessions: Vec<_> = (0..CLIENTS)
            .map(|number| {
                let world = &world;
                scope.spawn(move || Session::new(world, number).runs(PAUSE))
            })
            .collect();
        let ends = Ends(&world.ends);
        scene.suffers(time(), &world.is_busy);
        drop(ends);
        sessions.into_iter().fold(Tally::default(), |sum, session| sum.and(&session.join().unwrap()))
    });
    let (served, complaints) = (scene.served(), world.complaints());
    let share = 100.0 * served.hits / tally.reads as f64;
    eprintln!("{name}: {tally:?}\n{served:?}: hits {share:.1} %; else {:?}", scene.reasons());
    let found = (tally.stale, tally.wrong, tally.backward);
    assert!(complaints.is_empty() && found == (0, 0, 0), "{found:?} stale, wrong, own:\n{}", complaints.join("\n"));
    let (reads, writes) = (tally.reads as f64, (tally.through + tally.past) as f64);
    assert!(reads > 20.0 * time().as_secs_f64() && writes > reads / 8.0, "{reads} reads, {writes} writes");
    assert!(served.hits > reads / 50.0 && served.shared > reads / 1000.0, "{served:?} of {reads}");
    assert!((tally.failed as f64) < reads / 100.0, "{tally:?}");
    for (kind, [written, read]) in Kind::ALL.iter().zip(tally.kinds) {
        assert!(read > 0 && (written > 0 || *kind == Kind::Own || kind.is_rare()), "{kind:?}: {written}, {read}");
    }
    drop(complaints);
    (tally, scene)
}

#[test]
fn by_a_time_nothing_is_older_than_that() {
    check("ttl", "ttl = \"1s\"", false, Bounds { through: SECOND, past: SECOND });
}

#[test]
fn by_a_stream_nothing_is_older_than_the_bound() {
    let lines = "invalidation = \"logical\"\nmax_staleness = \"500ms\"";
    let (_, scene) = check("logical", lines, false, Bounds { through: SECOND / 2, past: SECOND / 2 });
    let served = scene.served();
    assert!(served.stalled > 10.0 && served.mismatches == 0.0, "{served:?}");
}

#[test]
fn by_a_fence_nothing_lacks_a_write_through_pgweir() {
    let bounds = Bounds { through: Duration::ZERO, past: SECOND };
    let (_, scene) = check("fenced", "invalidation = \"fenced\"", true, bounds);
    assert!(scene.served().stalled > 10.0, "{:?}", scene.served());
}
