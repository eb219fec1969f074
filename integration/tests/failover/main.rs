//! Money is transferred while primaries crash, hang, are cut off and come back as they were: none is lost, none is made, and only who
//! was in the middle of a transaction notices.
//! It must never demand of pgweir what the servers do not promise: commits wait for a standby, and the most advanced one is promoted.
#![allow(clippy::unwrap_used)]

#[path = "../common/mod.rs"]
mod common;

mod books;
mod faults;
mod hiccup;
mod hidden;
mod patroni;
mod people;

use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use common::client::outcome;
use common::{Client, Conf};
use integration::cluster::host_lines;
use integration::wire::Script;
use integration::{Cluster, Link, Pgweir, USER};

use books::{ACCOUNTS, BALANCE, Books};
use faults::{Fault, Stage};
use people::Bank;

/// What clients connect to: pgweir, of which everything here is demanded; or a link that is led to each new primary by hand and resets
/// its connections, which proves the books and the faults, and of which nothing is demanded that only pgweir can do.
const THROUGH_PGWEIR: bool = true;

/// A promotion is known to pgweir after so long; until then it may believe the old primary.
const KNOWN_AFTER: Duration = Duration::from_secs(1);
/// The first write succeeds so long after a promotion's end.
const WRITES_AFTER: Duration = Duration::from_secs(2);

const TRANSFERRING: usize = 8;
const READING: usize = 3;
const IDLE: usize = 4;
/// Those who read what they write, by their rows of the table `probe`; row 0 is the probe's.
const FAITHFUL: std::ops::Range<usize> = 1..5;

/// What clients connect to.
pub enum Front {
    /// Which finds out for itself.
    Pgweir(Box<Pgweir>),
    /// Which is told.
    Link(Link),
}

impl Front {
    fn start(links: &[Link]) -> Self {
        if !THROUGH_PGWEIR {
            return Self::Link(Link::to(links[0].port()).unwrap());
        }
        let lines = host_lines(&links.iter().map(Link::address).collect::<Vec<_>>());
        let conf = Conf::database_only(&lines).pool("failover_wait = \"10s\"").size(10);
        Self::Pgweir(Box::new(conf.listen("auth_type = \"trust\"").user(USER, "").start()))
    }

    /// Where clients connect to.
    pub fn port(&self) -> u16 {
        match self {
            Self::Pgweir(pgweir) => pgweir.port(),
            Self::Link(link) => link.port(),
        }
    }

    /// There is a new primary, at the other end of `link`; pgweir finds that out for itself.
    pub fn lead_to(&self, primary: &Link) {
        if let Self::Link(link) = self {
            link.lead_to(primary.port());
            link.reset();
        }
    }
}

fn start_cluster() -> Cluster {
    let builder = Cluster::builder().replicas(2).sql(&schema()).setting("log_statement", "all");
    builder.setting("synchronous_standby_names", "ANY 1 (primary, replica1, replica2)").start().unwrap()
}

fn schema() -> String {
    // Amounts are taken in the order of accounts, so that transfers never wait for each other in a circle.
    format!(
        "CREATE TABLE account (id int PRIMARY KEY, balance bigint NOT NULL);
         INSERT INTO account SELECT id, {BALANCE} FROM generate_series(0, {ACCOUNTS} - 1) id;
         CREATE TABLE ledger (id text NOT NULL, giver int, taker int, amount bigint);
         CREATE TABLE probe (id int PRIMARY KEY, mark text); INSERT INTO probe SELECT generate_series(0, 99), '';
         CREATE TABLE era (n bigint NOT NULL); INSERT INTO era VALUES (0);
         CREATE FUNCTION transfer(id text, giver int, taker int, amount bigint) RETURNS void LANGUAGE plpgsql AS $$
         BEGIN
             INSERT INTO ledger VALUES (id, giver, taker, amount);
             UPDATE account a SET balance = balance + CASE a.id WHEN giver THEN -amount ELSE amount END
                 WHERE a.id = least(giver, taker);
             UPDATE account a SET balance = balance + CASE a.id WHEN giver THEN -amount ELSE amount END
                 WHERE a.id = greatest(giver, taker);
         END $$;
         GRANT ALL ON ALL TABLES IN SCHEMA public TO app"
    )
}

/// Which faults, one after the other, and how long there is no primary.
fn schedule() -> Vec<(Fault, Duration)> {
    let rounds = if std::env::var_os("PGWEIR_LONG").is_some() { 20 } else { 2 };
    let all = [Fault::Partition, Fault::Crash, Fault::Promotion, Fault::Pause, Fault::Shutdown, Fault::Mute];
    // Once in a while for longer than pgweir waits for a server that is silent (check_timeout), and never as long as failover_wait.
    let outages = [1, 1, 1, 7, 1].map(Duration::from_secs);
    all.into_iter().cycle().zip(outages.into_iter().cycle()).take(rounds).collect()
}

/// Clients that do nothing while all this happens, and have something to lose: a setting, and a prepared statement.
fn idle_clients(port: u16) -> Vec<Client> {
    let settle = |number: usize| {
        let mut client = Client::connect(port);
        client.query(&format!("SET application_name = 'idle {number}'")).unwrap();
        let script = Script::new().parse("name", "SELECT current_setting('application_name') WHERE $1 = 1").sync();
        outcome(&client.run(&script)).unwrap();
        client
    };
    (0..IDLE).map(settle).collect()
}

/// What the client has is still there.
fn recall(client: &mut Client, number: usize) -> Result<(), String> {
    let rows = outcome(&client.run(&Script::new().bind("", "name", &[Some("1")]).execute("", 0).sync()))?;
    let found = rows == [[format!("idle {number}")]];
    if found { Ok(()) } else { Err(format!("the setting is {rows:?}")) }
}

#[test]
fn the_bank_survives_its_primaries() {
    let cluster = start_cluster();
    let links = cluster.links().unwrap();
    let front = Front::start(&links);
    let (books, bank) = (Books::default(), Bank::new(front.port(), Duration::ZERO));
    let mut idle = idle_clients(front.port());
    let mut stage = Stage::new(&cluster, &links, &front);
    thread::scope(|scope| {
        // Whatever happens here, the others are told to go home.
        let _closing = bank.closing();
        for number in 0..TRANSFERRING {
            let (books, bank) = (&books, &bank);
            scope.spawn(move || bank.transfers(number, books));
        }
        for _ in 0..READING {
            scope.spawn(|| bank.reads());
        }
        for number in FAITHFUL {
            let (books, bank) = (&books, &bank);
            scope.spawn(move || bank.reads_its_writes(number, books));
        }
        scope.spawn(|| bank.probes(&books));
        for (round, (fault, outage)) in schedule().into_iter().enumerate() {
            let acknowledged = books.acknowledged();
            common::eventually("money flows", || books.acknowledged() > acknowledged + 50);
            let promoted = stage.strike(fault, outage, &books);
            let idle_reads: Vec<_> =
                idle.iter_mut().enumerate().map(|(number, client)| recall(client, number)).collect();
            let written = bank.first_write_after(promoted);
            println!(
                "round {round}: {fault:?} for {outage:?}, first write {written:?} after, {} acknowledged",
                books.acknowledged()
            );
            stage.await_era();
            bank.raise_era(promoted + KNOWN_AFTER, round as u64 + 1);
            let idle_writes: Vec<_> = idle.iter_mut().map(|client| write(client, &books)).collect();
            if THROUGH_PGWEIR {
                assert!(written < WRITES_AFTER, "{fault:?}: the first write came {written:?} after the promotion");
                assert!(idle_reads.iter().chain(&idle_writes).all(Result::is_ok), "{idle_reads:?} {idle_writes:?}");
            } else {
                idle = idle_clients(front.port());
            }
            stage.old_one_comes_back(fault, promoted, &books);
            stage.old_one_rejoins();
        }
    });
    let complaints = bank.complaints();
    println!("{} acknowledged, {} in doubt, {complaints:?}", books.acknowledged(), books.in_doubt());
    for node in stage.settled() {
        books.check(node);
    }
    if THROUGH_PGWEIR {
        assert_eq!(complaints.readers, [] as [String; 0]);
        let wrong: Vec<_> = complaints.writers.keys().filter(|said| !people::may_be_tried_again(said)).collect();
        assert!(wrong.is_empty(), "{wrong:?}");
    }
    assert!(bank.read.load(Ordering::Relaxed) > 100, "too few reads to prove anything");
}

/// A client that was idle writes.
pub fn write(client: &mut Client, books: &Books) -> Result<(), String> {
    let id = books.begin();
    client.query(&format!("UPDATE probe SET mark = 'T{id}' WHERE id = {}", 50 + id % 50)).map(|_| ())
}

/// Waits for a moment, not for an event.
pub fn until(moment: Instant) {
    thread::sleep(moment.saturating_duration_since(Instant::now()));
}
