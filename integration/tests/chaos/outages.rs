//! Servers that die: backends one by one, and all at once with their server.
//! It must never end before pgweir has served again.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use integration::wire::Script;
use integration::{Cluster, DATABASE, Pgweir, Stop};

use crate::books::{Books, assert_at_rest, lock, watch};
use crate::common::{Client, Conf, metric};
use crate::worker::{Seen, Worker};
use crate::{duration, is_long};

const CLIENTS: usize = 30;
const SERVERS: usize = 5;

fn start() -> (Cluster, Pgweir) {
    let cluster = Cluster::builder().sql("CREATE TABLE seen (owner text); GRANT ALL ON seen TO app").start().unwrap();
    let conf =
        Conf::trust(&cluster).size(SERVERS).pool("server_login_retry = \"100ms\"\nlanes = true\nlane_fast = \"50ms\"");
    let pgweir = conf.start();
    (cluster, pgweir)
}

/// Workers ask while `harm` is done again and again; what they saw together.
fn under(cluster: &Cluster, pgweir: &Pgweir, vanishing: bool, mut harm: impl FnMut()) -> Seen {
    let (until, stop) = (Instant::now() + duration(), AtomicBool::new(false));
    let port = pgweir.port();
    let seen = thread::scope(|scope| {
        scope.spawn(|| lock(cluster, until));
        scope.spawn(|| watch(pgweir, SERVERS as u64, CLIENTS as u64 + 1_000, &stop));
        let work = |number: usize| {
            let mut worker = Worker::new(number, port);
            let mut turns = 0;
            while Instant::now() < until {
                worker.turn();
                turns += 1;
                if vanishing && turns % 17 == 0 {
                    worker.vanish();
                }
            }
            worker.seen
        };
        let workers: Vec<_> = (0..CLIENTS).map(|number| scope.spawn(move || work(number))).collect();
        while Instant::now() < until {
            harm();
        }
        let seen = workers
            .into_iter()
            .map(|worker| worker.join().unwrap())
            .fold(Seen::default(), |all, one| Seen { right: all.right + one.right, lost: all.lost + one.lost });
        stop.store(true, Ordering::Relaxed);
        seen
    });
    // With whatever connections it held.
    drop(harm);
    let rides = metric(pgweir, "pgweir_pool_lane_rides_total", &[]);
    println!("{seen:?}, {rides} rides");
    // In some seconds on a busy machine nothing may have been seen often enough to be known as fast.
    assert!(rides > 1000.0 || !is_long(), "{rides} reads shared a server");
    assert!(seen.right > 100, "{seen:?}: too few answers to prove anything");
    // It serves as if nothing had been.
    assert_eq!(Client::connect(port).value("SELECT 'after'"), "after");
    assert_at_rest(pgweir, cluster);
    assert_eq!(cluster.primary().value_in(DATABASE, "SELECT count(*) FROM seen").unwrap(), "0");
    seen
}

#[test]
fn backends_are_killed() {
    let (cluster, pgweir) = start();
    let sql = format!(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{DATABASE}' AND pid <> pg_backend_pid()
         ORDER BY random() LIMIT 1"
    );
    let mut admin = cluster.primary().admin("postgres").unwrap();
    let seen = under(&cluster, &pgweir, false, || {
        admin.query(&sql).unwrap();
        // The pace of the killing.
        thread::sleep(Duration::from_millis(60));
    });
    assert!(seen.lost > 0 && Books::of(&pgweir).closes > 0);
}

#[test]
fn the_server_is_restarted() {
    let (cluster, pgweir) = start();
    let mut how = [Stop::Fast, Stop::Immediate].into_iter().cycle();
    let seen = under(&cluster, &pgweir, false, || {
        cluster.primary().stop(how.next().unwrap()).unwrap();
        cluster.primary().start().unwrap();
        // Up for as long as it takes to be used again.
        let mut client = Worker::new(1000, pgweir.port());
        let deadline = Instant::now() + Duration::from_secs(20);
        while client.seen.right < 20 {
            assert!(Instant::now() < deadline, "not served again after a restart");
            client.turn();
        }
    });
    assert!(seen.lost > 0);
}

#[test]
fn clients_vanish() {
    let (cluster, pgweir) = start();
    let port = pgweir.port();
    let mut half = Vec::new();
    under(&cluster, &pgweir, true, move || {
        // Half-open: connected, or in the middle of a message, and silent; then gone.
        let mut client = Client::tcp(port);
        client.write(&[0, 0, 0]);
        half.push(client);
        let mut client = Client::connect(port);
        client.write(&Script::new().query("SELECT 1").bytes()[..7]);
        half.push(client);
        // Somebody who asks for much and reads nothing.
        let mut slow = Client::connect(port);
        slow.send(&Script::new().query("SELECT repeat('s', 10000) FROM generate_series(1, 2000)"));
        slow.vanish();
        if half.len() > 40 {
            half.drain(..30);
        }
        thread::sleep(Duration::from_millis(20));
    });
}

/// Readers that stop in the middle of a large answer hold their server, and nothing else.
#[test]
fn readers_are_slow() {
    let (cluster, pgweir) = start();
    let port = pgweir.port();
    let mut reader: Option<(Client, u32)> = None;
    under(&cluster, &pgweir, false, move || {
        let (mut client, mut left) = reader.take().unwrap_or_else(|| {
            let mut client = Client::connect(port);
            client.send(&Script::new().query("SELECT i::text || repeat('s', 20000) FROM generate_series(1, 1000) i"));
            (client, 1000)
        });
        for _ in 0..50 {
            let frame = client.read().unwrap();
            if frame.tag == b'D' {
                let number = 1001 - left;
                assert!(frame.row()[0].as_ref().unwrap().starts_with(format!("{number}s").as_bytes()));
                left -= 1;
            }
            if frame.tag == b'Z' {
                assert_eq!(left, 0);
                return;
            }
        }
        reader = Some((client, left));
        thread::sleep(Duration::from_millis(30));
    });
}
