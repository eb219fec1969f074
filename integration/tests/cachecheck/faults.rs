//! What goes wrong in the middle: the stream stands still, Redis is stopped, killed, set back, a pgweir is killed.
//! It must never leave anything broken behind: who comes next finds all of it running.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread::sleep;
use std::time::{Duration, Instant};

use integration::metrics::parse;
use integration::port::Port;
use integration::{Cluster, Pgweir, Redis, Signal};

use crate::common::{metric, within};
use crate::dice::Dice;

/// What a pgweir has counted; of one that was killed, too.
#[derive(Debug, Default, Clone, Copy)]
pub struct Served {
    pub hits: f64,
    /// Of another pgweir's, by way of Redis.
    pub shared: f64,
    pub stalled: f64,
    pub unfenced: f64,
    pub mismatches: f64,
}

/// Both pgweirs, and what they need.
pub struct Scene {
    pub cluster: Cluster,
    pub redis: Redis,
    pub pgweirs: [Option<Pgweir>; 2],
    ports: [(Port, Port); 2],
    text: String,
    /// Of those that are gone.
    gone: Served,
    is_logical: bool,
}

#[derive(Debug, Clone, Copy)]
enum Fault {
    Stalled,
    Ended,
    RedisStopped,
    RedisKilled,
    RedisReloaded,
    PgweirKilled,
}

const FAULTS: [Fault; 6] =
    [Fault::Stalled, Fault::RedisReloaded, Fault::RedisKilled, Fault::PgweirKilled, Fault::RedisStopped, Fault::Ended];

impl Scene {
    pub fn new(cluster: Cluster, redis: Redis, text: String, is_logical: bool) -> Self {
        let ports = [(); 2].map(|()| (Port::reserve().unwrap(), Port::reserve().unwrap()));
        let mut scene =
            Self { cluster, redis, pgweirs: [None, None], ports, text, gone: Served::default(), is_logical };
        (0..2).for_each(|at| scene.starts(at));
        scene
    }

    fn starts(&mut self, at: usize) {
        let (port, stats) = self.ports[at].clone();
        self.pgweirs[at] = Some(Pgweir::start_on(&self.text, port, stats).unwrap());
    }

    pub fn ports(&self) -> [u16; 2] {
        [0, 1].map(|at: usize| self.ports[at].0.number())
    }

    /// Why those that run have not served what they were asked, most of it first.
    pub fn reasons(&self) -> Vec<(String, u64)> {
        let mut all = BTreeMap::new();
        for pgweir in self.pgweirs.iter().flatten() {
            for sample in parse(&pgweir.metrics().unwrap()).unwrap() {
                if ["pgweir_cache_misses_total", "pgweir_cache_bypasses_total"].contains(&sample.name.as_str()) {
                    *all.entry(sample.label("reason").to_owned()).or_insert(0) += sample.value as u64;
                }
            }
        }
        let mut all: Vec<_> = all.into_iter().filter(|(_, count)| *count > 0).collect();
        all.sort_by_key(|(_, count)| Reverse(*count));
        all
    }

    /// What all of them have counted.
    pub fn served(&self) -> Served {
        self.pgweirs.iter().flatten().fold(self.gone, |sum, pgweir| sum.and(pgweir))
    }

    /// Does its worst for so long, and then waits until both serve again.
    pub fn suffers(&mut self, time: Duration, is_busy: &AtomicBool) {
        let mut dice = Dice::new(7);
        within(Duration::from_secs(60), "both serve", || {
            self.pgweirs.iter().flatten().all(|pgweir| hits(pgweir) > 50.0)
        });
        let (began, is_long) = (Instant::now(), time > Duration::from_secs(60));
        let say = |what: &str| eprintln!("{:.3} s: {what}", began.elapsed().as_secs_f64());
        sleep(Duration::from_secs(4));
        for turn in 0.. {
            let fault = FAULTS[turn % FAULTS.len()];
            if began.elapsed() > time.saturating_sub(Duration::from_secs(2)) {
                break;
            }
            say(&format!("{fault:?}; so far {} hits; else {:?}", self.served().hits, self.reasons()));
            is_busy.store(is_long && dice.chance(25), SeqCst);
            self.suffers_one(fault, &mut dice);
            // What is kept needs some rest.
            sleep(Duration::from_millis(if is_long { 3000 + dice.below(8000) as u64 } else { 600 }));
            if turn % if is_long { 3 } else { 6 } == 1 {
                say("the schema changes");
                is_busy.store(true, SeqCst);
                sleep(Duration::from_millis(4500));
            }
            is_busy.store(false, SeqCst);
        }
        sleep(time.saturating_sub(began.elapsed()));
        let before = [0, 1].map(|at: usize| self.pgweirs[at].as_ref().map_or(0.0, hits));
        within(Duration::from_secs(60), "both serve again", || {
            [0, 1].iter().all(|at: &usize| self.pgweirs[*at].as_ref().map_or(0.0, hits) > before[*at] + 10.0)
        });
    }

    fn suffers_one(&mut self, fault: Fault, dice: &mut Dice) {
        match fault {
            Fault::Stalled if self.is_logical => {
                let pids = self.walsenders();
                let pids = if dice.chance(50) { &pids[..] } else { &pids[..pids.len().min(1)] };
                pids.iter().for_each(|pid| signal(pid, "-STOP"));
                sleep(Duration::from_millis(2500));
                pids.iter().for_each(|pid| signal(pid, "-CONT"));
            }
            Fault::Ended if self.is_logical => {
                let sql =
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_replication WHERE application_name = 'pgweir cache'";
                self.cluster.primary().query(sql).unwrap();
            }
            Fault::Stalled | Fault::Ended => {}
            Fault::RedisStopped => {
                self.redis.signal(Signal::STOP);
                sleep(Duration::from_secs(1));
                self.redis.signal(Signal::CONT);
            }
            // It has what it was told to save some time ago.
            Fault::RedisKilled => {
                self.redis.kill().unwrap();
                sleep(Duration::from_millis(500));
                self.redis.start_again().unwrap();
            }
            // It is the same one, and has what it had a moment ago, more than once.
            Fault::RedisReloaded => {
                self.redis.ask(&["SAVE"]).unwrap();
                for _ in 0..3 {
                    sleep(Duration::from_millis(400));
                    self.redis.ask(&["DEBUG", "RELOAD", "NOSAVE"]).unwrap();
                }
            }
            Fault::PgweirKilled => {
                let at = dice.below(2);
                if let Some(pgweir) = self.pgweirs[at].take() {
                    self.gone = self.gone.and(&pgweir);
                    pgweir.signal(Signal::KILL);
                    pgweir.wait(Duration::from_secs(10)).unwrap();
                }
                self.starts(at);
            }
        }
    }

    fn walsenders(&self) -> Vec<String> {
        let sql = "SELECT pid FROM pg_stat_replication WHERE application_name = 'pgweir cache'";
        self.cluster.primary().query(sql).unwrap().into_iter().flatten().collect()
    }
}

impl Served {
    fn and(self, pgweir: &Pgweir) -> Self {
        let of = |name: &str, labels: &[(&str, &str)]| metric(pgweir, name, labels);
        Self {
            hits: self.hits + hits(pgweir),
            shared: self.shared + of("pgweir_cache_redis_hits_total", &[]),
            stalled: self.stalled + of("pgweir_cache_bypasses_total", &[("reason", "stalled")]),
            unfenced: self.unfenced + of("pgweir_cache_fenced_writes_total", &[("outcome", "unfenced")]),
            mismatches: self.mismatches + of("pgweir_cache_mismatches_total", &[]),
        }
    }
}

fn hits(pgweir: &Pgweir) -> f64 {
    metric(pgweir, "pgweir_cache_hits_total", &[])
}

fn signal(pid: &str, name: &str) {
    assert!(Command::new("kill").args([name, pid]).status().unwrap().success());
}
