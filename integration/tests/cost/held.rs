//! Many idle clients beside some that work: the ones cost memory alone, the others do not notice.
//! It must never compare runs of different times: with and without the idle ones take turns.
//!
//! 2,000 beside 40; with `PGWEIR_LONG=1` 15,000 beside 500, and then speed is judged too. Meant for a release build then:
//! `PGWEIR_BIN=target/release/pgweir`.

use std::fs;
use std::net::TcpStream;

use integration::{DATABASE, Pgweir, Run, USER, command, postgres};

use crate::common::{eventually, metric};
use crate::conf;
use crate::idle::{BYTES, connect, many_descriptors, private};

/// Rounds, each without and with the idle clients; the median counts.
const ROUNDS: usize = 5;

fn long() -> bool {
    std::env::var_os("PGWEIR_LONG").is_some()
}

/// What one run of pgbench showed.
#[derive(Debug, Clone, Copy)]
struct Figures {
    /// Transactions per second.
    rate: f64,
    /// 99th percentile of latency, in µs.
    p99: f64,
    /// CPU time of pgweir per transaction, in µs.
    cpu: f64,
}

/// CPU time the process has had, in µs; the kernel counts it in hundredths of a second (`proc_pid_stat(5)`).
fn cpu(pgweir: &Pgweir) -> f64 {
    let text = fs::read_to_string(format!("/proc/{}/stat", pgweir.id())).unwrap();
    let fields: Vec<&str> = text.rsplit_once(')').unwrap().1.split_whitespace().collect();
    fields[11..13].iter().map(|ticks| ticks.parse::<f64>().unwrap()).sum::<f64>() * 10_000.0
}

fn pgbench(pgweir: &Pgweir, clients: usize, seconds: usize) -> Figures {
    let folder = Run::current().unwrap().folder("pgbench").unwrap();
    fs::write(folder.join("script"), "SELECT 1;\n").unwrap();
    let mut pgbench = command(postgres::bin().unwrap().join("pgbench")).unwrap();
    pgbench.current_dir(&folder).args([
        "-h",
        "127.0.0.1",
        "-p",
        &pgweir.port().to_string(),
        "-U",
        USER,
        "-n",
        "-f",
        "script",
    ]);
    pgbench.args(["-c", &clients.to_string(), "-j", "1", "-T", &seconds.to_string(), "-l", DATABASE]);
    let before = cpu(pgweir);
    let done = pgbench.output().unwrap();
    let spent = cpu(pgweir) - before;
    let said = String::from_utf8_lossy(&done.stdout).into_owned();
    assert!(done.status.success(), "{said}\n{}", String::from_utf8_lossy(&done.stderr));
    let number = |front: &str| {
        let line = said.lines().find_map(|line| line.strip_prefix(front)).unwrap_or_else(|| panic!("{front}: {said}"));
        line.split_whitespace().next().unwrap().parse::<f64>().unwrap()
    };
    assert!(number("number of failed transactions: ") < 1.0, "{said}");
    let mut latencies = Vec::new();
    for file in fs::read_dir(&folder).unwrap().flatten().filter(|file| file.file_name() != "script") {
        let text = fs::read_to_string(file.path()).unwrap();
        latencies.extend(text.lines().map(|line| line.split(' ').nth(2).unwrap().parse::<u32>().unwrap()));
    }
    latencies.sort_unstable();
    fs::remove_dir_all(&folder).unwrap();
    let p99 = f64::from(latencies[latencies.len() * 99 / 100]);
    Figures { rate: number("tps = "), p99, cpu: spent / latencies.len() as f64 }
}

fn median(runs: &[Figures], of: impl Fn(&Figures) -> f64) -> f64 {
    let mut all: Vec<f64> = runs.iter().map(of).collect();
    all.sort_by(f64::total_cmp);
    all[all.len() / 2]
}

#[test]
fn idle_clients_do_not_slow_those_that_work() {
    let _turn = many_descriptors();
    let (held, working, seconds, rounds) = if long() { (15_000, 500, 6, ROUNDS) } else { (2_000, 40, 1, 1) };
    let pgweir = conf().size(20).listen("max_client_conn = 16000").start();
    let present = |count: usize| {
        eventually("clients have come and gone", || metric(&pgweir, "pgweir_pool_clients", &[]) as usize == count);
    };
    // What there is once, as in `idle`: as many clients as will be held, gone again.
    pgbench(&pgweir, working, 1);
    let _ = (0..held).map(|_| connect(&pgweir)).collect::<Vec<TcpStream>>();
    let (mut without, mut with) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        present(0);
        without.push(pgbench(&pgweir, working, seconds));
        present(0);
        let idle: Vec<TcpStream> = (0..held).map(|_| connect(&pgweir)).collect();
        with.push(pgbench(&pgweir, working, seconds));
        present(held);
        drop(idle);
    }
    for (what, of) in [
        ("transactions per second", (|one: &Figures| one.rate) as fn(&Figures) -> f64),
        ("p99, µs", |one| one.p99),
        ("CPU µs per transaction", |one| one.cpu),
    ] {
        println!("{what}: {:.1} without, {:.1} with {held} idle clients", median(&without, of), median(&with, of));
    }
    if long() {
        let ratio = |of: fn(&Figures) -> f64| median(&with, of) / median(&without, of);
        assert!(ratio(|one| one.rate) > 0.9, "{without:?}\n{with:?}");
        assert!(ratio(|one| one.p99) < 1.25, "{without:?}\n{with:?}");
        assert!(ratio(|one| one.cpu) < 1.1, "{without:?}\n{with:?}");
    }
}

/// As [`crate::idle`], while others work.
#[test]
fn idle_clients_stay_small_while_others_work() {
    let _turn = many_descriptors();
    let (held, working) = if long() { (7_000, 500) } else { (1_500, 40) };
    let pgweir = conf().size(20).pool("min_pool_size = 20").listen("max_client_conn = 16000").start();
    let warm: Vec<TcpStream> = (0..held).map(|_| connect(&pgweir)).collect();
    // A server has buffers too.
    eventually("all servers are there", || metric(&pgweir, "pgweir_pool_servers", &[("state", "idle")]) as usize == 20);
    pgbench(&pgweir, working, 3);
    let before = private(&pgweir);
    let more: Vec<TcpStream> = (0..held).map(|_| connect(&pgweir)).collect();
    let fresh = private(&pgweir).saturating_sub(before) / held as u64;
    pgbench(&pgweir, working, 3);
    let later = private(&pgweir).saturating_sub(before) / held as u64;
    println!("{fresh} bytes per client, {later} after others have worked");
    assert!(fresh <= BYTES && later <= BYTES, "{fresh} bytes per client, {later} after others have worked");
    drop((warm, more));
}
