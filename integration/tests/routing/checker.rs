//! Many sessions that write and read at once while replicas lag by ever other times: each sees what it wrote, and never less than it saw.
//! It must never take its own word for where a read was served: the servers' tables count who looked into them.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::common::{Client, Conf, eventually, metric};
use integration::wire::Script;
use integration::{Cluster, DATABASE, Pgweir};

const SESSIONS: usize = 50;
/// The longest delay of replay, in milliseconds.
const DELAY: u32 = 500;

/// How long each phase lasts.
fn phase() -> Duration {
    Duration::from_secs(if std::env::var_os("PGWEIR_LONG").is_some() { 300 } else { 4 })
}

/// Numbers without order worth the name (`splitmix64`, Steele et al. 2014).
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % limit
    }
}

/// What sessions have done and seen.
#[derive(Debug, Default, Clone, Copy)]
struct Seen {
    reads: u64,
    writes: u64,
    /// Reads that lacked what the session had written.
    stale: u64,
    /// Reads that showed less than the session had read before.
    backward: u64,
}

impl Seen {
    fn and(self, other: Self) -> Self {
        Self {
            reads: self.reads + other.reads,
            writes: self.writes + other.writes,
            stale: self.stale + other.stale,
            backward: self.backward + other.backward,
        }
    }
}

/// A session: a counter of its own, and what it knows of everybody's.
struct Session {
    number: usize,
    client: Client,
    dice: Dice,
    /// What it has last read of each counter; of its own: what it has written.
    known: [u64; SESSIONS],
    seen: Seen,
}

impl Session {
    fn new(number: usize, port: u16) -> Self {
        let (client, dice) = (Client::connect(port), Dice(number as u64));
        Self { number, client, dice, known: [0; SESSIONS], seen: Seen::default() }
    }

    /// Adds one to its own counter: by a statement, or in a transaction, in either protocol.
    fn write(&mut self) {
        let number = self.number;
        let update = format!("UPDATE counter SET n = n + 1 WHERE id = {number}");
        match self.dice.below(3) {
            0 => drop(self.client.query(&update).unwrap()),
            1 => drop(self.client.query(&format!("BEGIN; {update}; COMMIT")).unwrap()),
            _ => {
                let script = Script::new().parse("", "UPDATE counter SET n = n + 1 WHERE id = $1::int");
                let script = script.bind("", "", &[Some(&number.to_string())]).execute("", 0).sync();
                crate::common::client::outcome(&self.client.run(&script)).unwrap();
            }
        }
        self.known[number] += 1;
        self.seen.writes += 1;
    }

    fn read(&mut self, of: usize) {
        let value = if self.dice.below(2) == 0 {
            self.client.query(&format!("SELECT n FROM counter WHERE id = {of}"))
        } else {
            let script = Script::new().parse("", "SELECT n FROM counter WHERE id = $1::int");
            let script = script.bind("", "", &[Some(&of.to_string())]).execute("", 0).sync();
            crate::common::client::outcome(&self.client.run(&script))
        };
        let value: u64 = value.unwrap()[0][0].parse().unwrap();
        self.seen.reads += 1;
        let known = &mut self.known[of];
        if of == self.number {
            assert!(value <= *known, "session {of} reads {value} of its own counter, and has written {known}");
            self.seen.stale += u64::from(value < *known);
        } else {
            self.seen.backward += u64::from(value < *known);
            *known = value.max(*known);
        }
    }

    /// One write for about `every` statements; half of the reads are of its own counter, the others of few others, again and again.
    fn turn(&mut self, every: u64) {
        if self.dice.below(every) == 0 {
            self.write();
        } else if self.dice.below(2) == 0 {
            self.read(self.number);
        } else {
            let other = 1 + self.dice.below(3) as usize;
            self.read((self.number + other) % SESSIONS);
        }
    }
}

fn start() -> (Cluster, Pgweir) {
    // Every look into the table is by its key, so that it is counted.
    let sql = format!(
        "CREATE TABLE counter (id int PRIMARY KEY, n bigint NOT NULL) WITH (fillfactor = 10);
         INSERT INTO counter SELECT id, 0 FROM generate_series(0, {SESSIONS} - 1) id; GRANT ALL ON counter TO app"
    );
    let cluster = Cluster::builder().replicas(2).sql(&sql).start().unwrap();
    let pgweir = Conf::trust(&cluster).size(10).start();
    // Until the catalog is read all reads are the primary's, and who has read there waits for replicas to have what it saw.
    let opened = |host: &str| metric(&pgweir, "pgweir_pool_servers", &[("host", host), ("state", "idle")]) > 0.0;
    let mut client = Client::connect(pgweir.port());
    eventually("reads leave the primary", || {
        client.query("SELECT 1").unwrap();
        cluster.replicas().iter().any(|replica| opened(&replica.address()))
    });
    (cluster, pgweir)
}

/// All sessions take turns for the length of a phase while `meanwhile` is done again and again.
fn sessions(port: u16, every: u64, mut meanwhile: impl FnMut()) -> Seen {
    let (until, over) = (Instant::now() + phase(), AtomicBool::new(false));
    thread::scope(|scope| {
        let closing = Closing(&over);
        let work = |number: usize| {
            let mut session = Session::new(number, port);
            while !over.load(Ordering::Relaxed) {
                session.turn(every);
            }
            session.seen
        };
        let threads: Vec<_> = (0..SESSIONS).map(|number| scope.spawn(move || work(number))).collect();
        while Instant::now() < until && threads.iter().all(|thread| !thread.is_finished()) {
            meanwhile();
        }
        drop(closing);
        threads.into_iter().map(|thread| thread.join().unwrap()).fold(Seen::default(), Seen::and)
    })
}

/// Sends everybody home when dropped, also by a test that fails: who never goes home would be waited for.
pub struct Closing<'a>(pub &'a AtomicBool);

impl Drop for Closing<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// `one_of`: of so many reads one may go back in time. PostgreSQL ships a commit before the primary shows it: who sees
/// it on a standby that keeps up, and then reads on the primary, may be there before it (`CommitTransaction` in
/// src/backend/access/transam/xact.c: the record is flushed before the transaction leaves the array of those that run).
fn check(seen: Seen, one_of: Option<u64>) {
    assert!(seen.reads > 1_000 && seen.writes > 100, "{seen:?}: too few to prove anything");
    assert_eq!(seen.stale, 0, "{seen:?}");
    assert!(seen.backward <= one_of.map_or(0, |reads| seen.reads / reads), "{seen:?}");
}

/// How often each server's table was looked into, primary first. Exact only when the backends that did it have ended.
pub fn looks(cluster: &Cluster, table: &str) -> Vec<u64> {
    let sql = format!(
        "SELECT coalesce(sum(coalesce(seq_scan, 0) + coalesce(idx_scan, 0)), 0) FROM pg_stat_user_tables
         WHERE relname = '{table}'"
    );
    cluster.nodes().map(|node| node.value_in(DATABASE, &sql).unwrap().parse().unwrap()).collect()
}

#[test]
fn sessions_read_their_writes_while_replicas_lag() {
    let (cluster, pgweir) = start();
    let mut dice = Dice(7);
    let seen = sessions(pgweir.port(), 4, || {
        for replica in cluster.replicas() {
            replica.delay_replay(dice.below(u64::from(DELAY) + 1) as u32).unwrap();
        }
        // The pace of the changes: long enough for a delay to be felt, short enough for many.
        thread::sleep(Duration::from_millis(300));
    });
    println!("lagging: {seen:?}");
    // A replica may be let go without delay: 5 of 1,457,000 were seen where others kept the processors busy.
    check(seen, Some(100_000));
    drop(pgweir);
    // Replicas that always lag serve who has not written of late.
    let mut asked = Vec::new();
    eventually("both replicas have served", || {
        asked = looks(&cluster, "counter");
        asked[1] > 0 && asked[2] > 0
    });
    println!("lagging: looked into the table: {asked:?}");
}

#[test]
fn replicas_that_keep_up_serve_the_reads() {
    let (cluster, pgweir) = start();
    let before: u64 = looks(&cluster, "counter").iter().sum();
    let seen = sessions(pgweir.port(), 10, || thread::sleep(Duration::from_millis(50)));
    // On two processors that are always busy the one who commits may be kept from its next step for long: 7 of 28,888 were seen, and 32 of
    // 1,150,000 where less went on.
    check(seen, Some(1_000));
    // Backends report what they did when they end.
    drop(pgweir);
    let all = seen.reads + seen.writes;
    let mut asked = Vec::new();
    eventually("all is counted", || {
        asked = looks(&cluster, "counter");
        asked.iter().sum::<u64>() - before >= all
    });
    let share = (asked[1] + asked[2]) as f64 / seen.reads as f64;
    println!("keeping up: {seen:?}, looked into the table: {asked:?}, by replicas: {share:.3}");
    // A session that has written reads from the primary until a replica is known to have it: the slower the machine, the longer.
    let least = if phase() > Duration::from_secs(10) { 0.8 } else { 0.6 };
    assert!(share >= least, "{share}: {seen:?} {asked:?}");
}
