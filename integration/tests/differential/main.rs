//! Differential: random protocol programs are played to PostgreSQL itself and through pgweir, and both must have said the same.
//! It must never compare less than every byte: what may differ is replaced, never skipped (see `normal`).
//!
//! Several sessions run at once over fewer servers, so that a program meets servers that others have used. `PGWEIR_SEED=N` plays
//! one program; `PGWEIR_LONG=1` plays for minutes. A program that fails is made shorter before it is shown.
#![allow(clippy::unwrap_used)]

#[path = "../common/mod.rs"]
mod common;

mod dice;
mod extended;
mod normal;
mod player;
mod program;

use std::fmt::Write as _;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use common::{Conf, eventually, metric};
use dice::Dice;
use integration::{Cluster, DATABASE, Pgweir, USER};
use player::{Door, play};
use program::{Mode, Step};

/// Sessions at one time.
const SESSIONS: u64 = 5;
/// Servers for them: fewer.
const SERVERS: usize = 3;

/// How often a shorter program is tried before it counts as one that shows nothing.
const TRIES: usize = 4;

/// How long a program that fails is made shorter.
const SHORTENING: Duration = Duration::from_secs(30);

/// How long one way of connecting is tried.
fn duration() -> Duration {
    Duration::from_secs(if std::env::var_os("PGWEIR_LONG").is_some() { 100 } else { 3 })
}

fn tables() -> String {
    let mut sql = String::new();
    for n in 0..SESSIONS {
        let _ = write!(
            sql,
            "CREATE TABLE t{n} (id int PRIMARY KEY, s text); GRANT ALL ON t{n} TO {USER};\
             CREATE SEQUENCE s{n}; GRANT ALL ON SEQUENCE s{n} TO {USER};"
        );
    }
    sql
}

fn conf(cluster: &Cluster) -> Conf {
    let files = cluster.certificates().unwrap();
    Conf::trust(cluster).tls("allow", files).size(SERVERS)
}

/// One way to reach pgweir, and the same way to reach the server.
struct Trial<'a> {
    cluster: &'a Cluster,
    pgweir: &'a Pgweir,
    mode: Mode,
    tls: bool,
    minor: u32,
}

impl Trial<'_> {
    fn door(&self, port: u16) -> Door {
        let ca = self.tls.then(|| self.cluster.certificates().unwrap().ca.clone());
        Door { port, ca, minor: self.minor }
    }

    /// What differs, if anything does.
    fn difference(&self, steps: &[Step]) -> Option<String> {
        let direct = play(&self.door(self.cluster.primary().port()), steps);
        // `DIRECT=1` tells what PostgreSQL itself says differently from time to time.
        let alone = std::env::var_os("DIRECT").is_some();
        let port = if alone { self.cluster.primary().port() } else { self.pgweir.port() };
        let pooled = play(&self.door(port), steps);
        normal::difference(&direct, &pooled)
    }

    fn attempt(&self, seed: u64, table: u64) -> Result<usize, String> {
        let steps = program::program(&mut Dice::new(seed), self.mode, table);
        let crashes = self.crashes();
        let Some(first) = self.difference(&steps) else { return Ok(steps.len()) };
        if self.crashes() > crashes || first.contains("57P03") {
            // PostgreSQL itself crashed, which ends everybody's sessions: nothing can be compared.
            eventually("PostgreSQL is back", || self.cluster.primary().admin("postgres").is_ok());
            return Ok(0);
        }
        println!("PGWEIR_SEED={seed} differs; making it shorter\n{first}");
        let (steps, last) = self.shorter(steps);
        let mut text = format!("PGWEIR_SEED={seed} {:?} tls {} 3.{}\n", self.mode, self.tls, self.minor);
        for (at, step) in steps.iter().enumerate() {
            let _ = writeln!(text, "{at:4} {step:?}");
        }
        Err(format!("{text}{}", last.unwrap_or(format!("(not again) {first}"))))
    }

    /// How often a process of PostgreSQL's crashed. Version 15 does so now and then, on a portal in a failed transaction.
    fn crashes(&self) -> usize {
        self.cluster.primary().log().matches("was terminated by signal").count()
    }

    /// Leaves out what is not needed for the difference.
    fn shorter(&self, mut steps: Vec<Step>) -> (Vec<Step>, Option<String>) {
        // What servers have prepared already differs from time to time.
        // Nor is it a difference that a batch whose end was left out is not answered by either.
        let differs = |steps: &[Step]| self.difference(steps).filter(|text| !text.starts_with(normal::SILENT));
        let again = |steps: &[Step]| (0..TRIES).find_map(|_| differs(steps));
        let mut last = again(&steps);
        let (mut size, until) = (steps.len() / 2, Instant::now() + SHORTENING);
        while size > 0 && last.is_some() {
            let mut at = program::PRELUDE;
            while at + size <= steps.len() && Instant::now() < until {
                let mut fewer = steps.clone();
                fewer.drain(at..at + size);
                match again(&fewer) {
                    Some(text) => (steps, last) = (fewer, Some(text)),
                    None => at += size,
                }
            }
            size /= 2;
        }
        for number in program::PRELUDE..steps.len() {
            let mut part = 0;
            while part < steps[number].count() && Instant::now() < until && last.is_some() {
                // A batch without its Sync would run into the next.
                if steps[number].is_sync(part) {
                    part += 1;
                    continue;
                }
                let mut fewer = steps.clone();
                fewer[number] = steps[number].without(part);
                match again(&fewer) {
                    Some(text) => (steps, last) = (fewer, Some(text)),
                    None => part += 1,
                }
            }
        }
        (steps, last)
    }

    /// Holds locks on what programs read and write, one after the other, for longer than anybody rides behind.
    fn stall(&self, until: Instant) {
        let mut client = None;
        for table in (0..SESSIONS).cycle() {
            if Instant::now() >= until {
                return;
            }
            let sql = format!("BEGIN; LOCK TABLE t{table} IN ACCESS EXCLUSIVE MODE; SELECT pg_sleep(0.02); COMMIT");
            // It may crash, as everybody may.
            client = client.or_else(|| self.cluster.primary().admin(DATABASE).ok());
            client = client.take_if(|client| client.query(&sql).is_ok());
            thread::sleep(Duration::from_millis(60));
        }
    }

    /// Plays programs in all sessions for `limit`; the number of steps compared.
    fn run(&self, limit: Duration) -> u64 {
        let chosen = std::env::var("PGWEIR_SEED").ok().and_then(|text| text.parse::<u64>().ok());
        let base =
            chosen.unwrap_or_else(|| SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64 >> 10);
        println!("{:?} tls {} 3.{}: seeds from {base}", self.mode, self.tls, self.minor);
        let until = Instant::now() + limit;
        let (next, steps, failed) = (AtomicU64::new(base), AtomicU64::new(0), AtomicBool::new(false));
        let void = AtomicU64::new(0);
        thread::scope(|scope| {
            scope.spawn(|| self.stall(until));
            for table in 0..if chosen.is_some() { 1 } else { SESSIONS } {
                let (next, steps, failed, void) = (&next, &steps, &failed, &void);
                scope.spawn(move || {
                    while Instant::now() < until && !failed.load(Ordering::Relaxed) {
                        let seed = next.fetch_add(1, Ordering::Relaxed);
                        match self.attempt(seed, table) {
                            Ok(0) => void.fetch_add(1, Ordering::Relaxed),
                            Ok(count) => steps.fetch_add(count as u64, Ordering::Relaxed),
                            Err(text) => {
                                assert!(failed.swap(true, Ordering::Relaxed), "{text}");
                                return;
                            }
                        };
                        if chosen.is_some() {
                            return;
                        }
                    }
                });
            }
        });
        let (programs, void) = (next.into_inner() - base, void.into_inner());
        println!("{programs} programs, {} steps, {void} programs void", steps.load(Ordering::Relaxed));
        // A crash voids what all sessions were doing.
        assert!(void <= SESSIONS * 2 + programs / 10, "{void} of {programs} programs could not be compared");
        steps.into_inner()
    }
}

/// How many reads shared a server.
fn both_say_the_same(mode: Mode, lines: &str, ways: &[(bool, u32)]) -> f64 {
    // A statement that clients share may have been executed so often that its plan no longer depends on its parameters, and then fails
    // in Execute instead of Bind.
    let builder = Cluster::builder().tls(true).setting("plan_cache_mode", "force_custom_plan");
    let cluster = builder.sql(&tables()).start().unwrap();
    let pgweir = conf(&cluster).pool(lines).start();
    for &(tls, minor) in ways {
        let steps = Trial { cluster: &cluster, pgweir: &pgweir, mode, tls, minor }.run(duration());
        assert!(steps > 0);
    }
    let rides = metric(&pgweir, "pgweir_pool_lane_rides_total", &[]);
    println!("{rides} rides");
    rides
}

#[test]
fn transaction_mode_says_what_the_server_says() {
    let ways = [(false, 0), (true, 2), (true, 0), (false, 2)];
    let lines = "server_order = \"rotate\"\nlanes = true\nlane_fast = \"50ms\"";
    let rides = both_say_the_same(Mode::Transaction, lines, &ways);
    let is_long = std::env::var_os("PGWEIR_LONG").is_some();
    assert!(rides > 0.0 || !is_long, "no read shared a server");
}

#[test]
fn session_mode_says_what_the_server_says() {
    both_say_the_same(Mode::Session, "pool_mode = \"session\"", &[(false, 2), (true, 0)]);
}

/// Without transactions, of which there are none in this mode.
#[test]
fn statement_mode_says_what_the_server_says() {
    both_say_the_same(Mode::Statement, "pool_mode = \"statement\"", &[(true, 2), (false, 0)]);
}
