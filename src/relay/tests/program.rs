//! Random client programs: through the relay they must read exactly what the model alone answers.
//! Must never use a random number that its seed does not give.

use super::model::Backend;
use super::rig::{Rig, letters};
use super::speech::*;

/// xorshift64*: the program of a seed is the same for ever.
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }
    pub fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % sides
    }
    fn pick<'a>(&mut self, of: &[&'a str]) -> &'a str {
        of[self.roll(of.len())]
    }
}

const SQL: &[&str] =
    &["select 1", "select 2", "select 7 rows", "select 1/0", "insert into t values (1)", "select 3 rows wide", ""];
const NAMES: &[&str] = &["a", "b", "c", "d"];

/// A program as the parts that are written at once.
fn program(dice: &mut Dice, parts: usize) -> Vec<Vec<u8>> {
    let mut open = false;
    let mut all: Vec<Vec<u8>> = Vec::new();
    for _ in 0..parts {
        let part = match dice.roll(10) {
            0 => simple(dice),
            1 => by_name(dice, open),
            2 if open => {
                open = false;
                query(dice.pick(&["commit", "rollback"]))
            }
            2 => {
                open = true;
                query("begin")
            }
            3 => [simple(dice), simple(dice), batch(dice, true, open)].concat(),
            4..=5 => [batch(dice, true, open), batch(dice, true, open), batch(dice, true, open)].concat(),
            6 => [batch(dice, false, open), flush(), batch(dice, true, open)].concat(),
            7 => [batch(dice, false, open), simple(dice), sync()].concat(),
            _ => batch(dice, true, open),
        };
        all.push(part);
    }
    all.push(query("rollback"));
    // As long as SQL's names are there the client keeps its server.
    all.push(query("deallocate all"));
    all
}

fn simple(dice: &mut Dice) -> Vec<u8> {
    match dice.roll(8) {
        0 => query("select 1; select 1/0; select 2"),
        1 => query("nosuch"),
        2 => query("select 1; insert into t values (1)"),
        3 => query("copy t to stdout"),
        4 => [query("copy t from stdin"), plain(b'd', b"row"), plain(b'd', b"row"), plain(b'c', b"")].concat(),
        5 => plain(b'F', &[0; 12]),
        _ => query(dice.pick(SQL)),
    }
}

/// SQL that makes, uses and drops names of prepared statements, which are those of the protocol too.
fn by_name(dice: &mut Dice, in_transaction: bool) -> Vec<u8> {
    let name = dice.pick(NAMES);
    match dice.roll(10) {
        0..=2 => query(&format!("prepare {name} as {}", dice.pick(&SQL[..4]))),
        3..=5 => query(&format!("execute {name}")),
        6 | 7 => query(&format!("deallocate {name}")),
        8 if !in_transaction => query("discard all"),
        _ => query("deallocate all"),
    }
}

/// Messages of the extended protocol, with a Sync at the end or not. In a failed transaction a Bind with too many
/// parameters hears of that or of the failure, by what its server has: a known difference.
fn batch(dice: &mut Dice, ends: bool, in_transaction: bool) -> Vec<u8> {
    let mut out = Vec::new();
    for _ in 0..1 + dice.roll(4) {
        let name = dice.pick(NAMES);
        out.extend(match dice.roll(14) {
            0 | 1 => [parse("", dice.pick(SQL)), bind("", ""), describe(b'P', ""), execute("", 0)].concat(),
            2 | 3 => [parse(name, dice.pick(SQL)), describe(b'S', name)].concat(),
            4 | 5 => run(name),
            6 => [bind("p", name), execute("p", 2), execute("p", 0), close(b'P', "p")].concat(),
            7 => close(b'S', name),
            8 => parse(name, "nosuch"),
            11 if !in_transaction => bind_one("", name),
            12 => [parse("", "deallocate all"), run("")].concat(),
            9 => [close(b'S', name), parse(name, dice.pick(SQL)), run(name)].concat(),
            10 => [describe(b'S', name), describe(b'P', "none")].concat(),
            _ => [parse(name, dice.pick(SQL)), run(name)].concat(),
        });
    }
    if ends {
        out.extend(sync());
    }
    out
}

/// What the model alone answers.
fn direct(program: &[Vec<u8>]) -> (Vec<u8>, u64) {
    let mut backend = Backend::default();
    let heard = program.iter().flat_map(|part| backend.feed(part)).collect();
    (heard, backend.answers)
}

/// How the programs of a trial meet.
struct Trial {
    seed: u64,
    pool: &'static str,
    clients: usize,
    read_max: usize,
    /// Everything is written at once instead of part by part, interleaved.
    at_once: bool,
    /// Reads share servers.
    rides: bool,
}

fn attempt(trial: &Trial) {
    let mut dice = Dice::new(trial.seed);
    let mut rig = Rig::new(trial.pool);
    rig.read_max = trial.read_max;
    let programs: Vec<_> = (0..trial.clients).map(|_| program(&mut dice, 6)).collect();
    let peers: Vec<usize> = programs.iter().map(|_| rig.arrive(&[])).collect();
    for &peer in &peers {
        assert!(letters(&rig.heard(peer)).ends_with("KZI"));
    }
    let mut heard = vec![Vec::new(); peers.len()];
    let mut next = vec![0; peers.len()];
    while next.iter().zip(&programs).any(|(next, program)| *next < program.len()) {
        let who = dice.roll(peers.len());
        let take = if trial.at_once { programs[who].len() } else { 1 };
        if trial.rides {
            rig.ride();
        }
        for _ in 0..take {
            if let Some(part) = programs[who].get(next[who]) {
                rig.push(peers[who], part);
                next[who] += 1;
            }
        }
        if dice.roll(3) > 0 {
            rig.run();
        }
    }
    rig.run();
    let mut answers = 0;
    for (at, &peer) in peers.iter().enumerate() {
        heard[at].extend(rig.heard(peer));
        let (want, count) = direct(&programs[at]);
        let asked: Vec<String> = programs[at].iter().map(|part| letters(part)).collect();
        assert_eq!(
            letters(&heard[at]),
            letters(&want),
            "seed {} client {at} asked {asked:?} {:?}",
            trial.seed,
            programs[at]
                .iter()
                .map(|part| String::from_utf8_lossy(part).replace(|c: char| c < ' ', "."))
                .collect::<Vec<_>>()
        );
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).replace(&"w".repeat(1000), "W");
        assert_eq!(text(&heard[at]), text(&want), "seed {} client {at}", trial.seed);
        answers += count;
    }
    rig.assert_at_rest();
    let counters = &rig.relay.pools[0].counters;
    assert_eq!(counters.total_query_count.get(), answers, "seed {}: statements counted and answered", trial.seed);
    assert_eq!(counters.total_logins.get(), trial.clients as u64);
    let open = counters.total_server_opens.get() - counters.total_server_closes.get();
    assert_eq!(open as usize, rig.relay.server_count());
}

fn seeds() -> std::ops::Range<u64> {
    match std::env::var("PGWEIR_SEED").ok().and_then(|n| n.parse().ok()) {
        Some(seed) => seed..seed + 1,
        None => 0..300,
    }
}

#[test]
fn programs_read_what_they_would_read_directly() {
    for seed in seeds() {
        let pool = if seed % 2 == 0 { "default_pool_size = 1" } else { "default_pool_size = 2" };
        attempt(&Trial { seed, pool, clients: 3, read_max: 0, at_once: false, rides: false });
    }
}

#[test]
fn pipelines_read_what_they_would_read_directly() {
    for seed in seeds() {
        let pool = if seed % 2 == 0 { "default_pool_size = 1" } else { "default_pool_size = 2" };
        attempt(&Trial { seed: seed + 10_000, pool, clients: 3, read_max: 0, at_once: true, rides: false });
    }
}

#[test]
fn fragmentation_never_shows() {
    for seed in seeds() {
        let read_max = [1, 2, 3, 7, 64][seed as usize % 5];
        attempt(&Trial {
            seed,
            pool: "default_pool_size = 1",
            clients: 2,
            read_max,
            at_once: seed % 3 == 0,
            rides: false,
        });
    }
}

#[test]
fn few_statements_per_server_never_show() {
    for seed in seeds() {
        let pool = "default_pool_size = 1\nmax_prepared_statements = 2";
        attempt(&Trial { seed, pool, clients: 3, read_max: 0, at_once: seed % 2 == 0, rides: false });
    }
}

#[test]
fn sharing_never_shows() {
    for seed in seeds() {
        let pool =
            ["default_pool_size = 1", "default_pool_size = 2", "default_pool_size = 3\nmax_prepared_statements = 2"];
        let (pool, read_max) = (pool[seed as usize % 3], [0, 0, 1, 7, 64][seed as usize % 5]);
        attempt(&Trial { seed: seed + 20_000, pool, clients: 6, read_max, at_once: false, rides: true });
    }
}
