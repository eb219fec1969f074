//! The demo: a primary with two replicas, pgweir in front of them, pgbench through it, and a report of what happened.
//! It must never leave anything behind, at whatever moment it is stopped. `integration/demo` builds and runs it.

use std::collections::BTreeMap;
use std::process::{ExitCode, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use integration::metrics::{self, Sample};
use integration::port::Port;
use integration::postgres::bin;
use integration::{Cluster, Counters, Error, Hba, Pgweir, Postgres, Result, Run, command};
use tokio::signal::unix::{SignalKind, signal};

/// Name, role and password of the database of the demo.
const NAME: &str = "demo";
/// Longest part of a query shown in the report, in characters.
const QUERY_CHARS: usize = 70;
/// An idle backend reports its counters after ten seconds at the latest (`PGSTAT_IDLE_INTERVAL`).
const COUNTERS_LIMIT: Duration = Duration::from_secs(15);
const USAGE: &str = "\
Starts a throw-away PostgreSQL primary with two streaming replicas and pgweir in front of them, runs pgbench through it and reports.

Usage: integration/demo [--once] [--seconds N]

  --once       exit after the report instead of staying up until Ctrl-C
  --seconds N  length of each of the two pgbench runs, default 10";

/// Set once the report is printed: from then on a signal is the expected end.
static REPORTED: AtomicBool = AtomicBool::new(false);

#[derive(Debug, Clone, Copy)]
struct Options {
    once: bool,
    seconds: u32,
}

fn main() -> ExitCode {
    let options = match options() {
        Ok(Some(options)) => options,
        Ok(None) => {
            println!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            eprintln!("{error}\n\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    let code = wait(options).unwrap_or_else(|error| {
        eprintln!("demo: {error}");
        1
    });
    // Whatever the demo was doing is stopped from outside; nothing needs its cooperation.
    if let Ok(run) = Run::current() {
        run.destroy();
    }
    ExitCode::from(code)
}

fn options() -> Result<Option<Options>> {
    let mut options = Options { once: false, seconds: 10 };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        match word.as_str() {
            "--once" => options.once = true,
            "--seconds" => {
                let number = words.next().and_then(|text| text.parse().ok()).filter(|number| *number > 0);
                options.seconds = number.ok_or_else(|| Error::new("--seconds needs a positive number"))?;
            }
            "--help" | "-h" => return Ok(None),
            other => return Err(Error::new(format!("unknown option {other}"))),
        }
    }
    Ok(Some(options))
}

/// Runs the demo on a thread of its own until it is done or a signal comes; the exit status.
fn wait(options: Options) -> Result<u8> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Error::new(error.to_string()))?;
    runtime.block_on(async {
        let listen = |kind| signal(kind).map_err(|error| Error::new(format!("cannot listen for signals: {error}")));
        let mut interrupt = listen(SignalKind::interrupt())?;
        let mut terminate = listen(SignalKind::terminate())?;
        let mut hangup = listen(SignalKind::hangup())?;
        Run::current()?;
        let (done, outcome) = tokio::sync::oneshot::channel();
        thread::spawn(move || done.send(demo(options)));
        let status = tokio::select! {
            outcome = outcome => return outcome.unwrap_or_else(|_| Err(Error::new("it panicked"))).map(|()| 0),
            _ = interrupt.recv() => 130,
            _ = terminate.recv() => 143,
            _ = hangup.recv() => 129,
        };
        println!("\n==> stopping and removing everything");
        Ok(if REPORTED.load(Ordering::Relaxed) { 0 } else { status })
    })
}

fn demo(options: Options) -> Result<()> {
    let started = Instant::now();
    let step = |what: &str| println!("==> {:>5.1} s  {what}", started.elapsed().as_secs_f32());
    step("starting a primary and two streaming replicas");
    let (cluster, counts_statements) = start_cluster()?;
    step("filling pgbench's tables on the primary");
    pgbench(cluster.primary().port(), &["-i", "-q", "-s", "10"])?;
    cluster.wait_caught_up()?;
    step("starting pgweir");
    let pgweir = start_pgweir(&cluster)?;
    let dsn = format!("postgres://{NAME}:{NAME}@127.0.0.1:{}/{NAME}", pgweir.port());
    let stats = format!("http://127.0.0.1:{}/metrics", pgweir.stats_port());
    println!("\n    connect  psql {dsn}\n    stats    {stats}\n");

    let before = counts(&cluster, counts_statements)?;
    let seconds = options.seconds.to_string();
    step(&format!("pgbench through pgweir: TPC-B-like, 20 clients, {seconds} s"));
    let common = ["-n", "-c", "20", "-j", "2", "-P", "2", "-T", &seconds];
    let writes = pgbench(pgweir.port(), &[&common[..], &["-b", "tpcb-like"]].concat())?;
    step(&format!("pgbench through pgweir: select-only, prepared, 20 clients, {seconds} s"));
    let reads = pgbench(pgweir.port(), &[&common[..], &["-b", "select-only", "-M", "prepared"]].concat())?;
    step("waiting for the servers' own counters");
    let transactions = processed(&writes) + processed(&reads);
    let after = settled(&cluster, counts_statements, &before, transactions)?;

    println!("\nWhat pgbench did");
    for (name, said) in [("TPC-B-like", &writes), ("select-only", &reads)] {
        let (tps, latency) = (after_word(said, "tps = "), after_word(said, "latency average = "));
        println!(
            "    {name:<12} {:>9} transactions  {tps:>10} per second  {latency:>7} ms on average",
            processed(said)
        );
    }
    print_servers(&cluster, &before, &after, counts_statements);
    print_queries(&metrics::parse(&pgweir.metrics()?)?);
    REPORTED.store(true, Ordering::Relaxed);
    if options.once {
        return Ok(());
    }
    println!("\nStill up until Ctrl-C:\n    psql {dsn}\n    {stats}");
    loop {
        if let Some(status) = pgweir.ended() {
            return Err(Error::new(format!("pgweir ended: {status}\n{}", pgweir.log())));
        }
        thread::sleep(Duration::from_millis(200));
    }
}

/// The cluster, and whether its servers count statements (`pg_stat_statements` is an extension that may not be installed).
fn start_cluster() -> Result<(Cluster, bool)> {
    let counts_statements = bin()?.join("../lib/pg_stat_statements.so").exists();
    let mut builder = Cluster::builder().replicas(2).auth(Hba::Scram).setting("shared_buffers", "128MB");
    if counts_statements {
        builder = builder.setting("shared_preload_libraries", "pg_stat_statements");
    }
    builder = builder.sql(&format!("CREATE ROLE {NAME} LOGIN PASSWORD '{NAME}'"));
    let cluster = builder.sql(&format!("CREATE DATABASE {NAME} OWNER {NAME}")).start()?;
    if counts_statements {
        cluster.primary().query("CREATE EXTENSION pg_stat_statements")?;
        cluster.wait_caught_up()?;
    }
    Ok((cluster, counts_statements))
}

fn start_pgweir(cluster: &Cluster) -> Result<Pgweir> {
    let config = format!(
        "[listen]\nport = {{port}}\n[stats]\naddress = \"127.0.0.1:{{stats_port}}\"\n[databases.{NAME}]\n{}[users.{NAME}]\npassword = \"{NAME}\"\n",
        cluster.config_lines()
    );
    // The ports of the documentation, if they are free.
    Pgweir::start_on(&config, Port::reserve_near(6432)?, Port::reserve_near(9127)?)
}

/// Runs pgbench, showing its progress; what it says at the end.
fn pgbench(port: u16, words: &[&str]) -> Result<String> {
    let mut pgbench = command(bin()?.join("pgbench"))?;
    pgbench.args(["-h", "127.0.0.1", "-p", &port.to_string(), "-U", NAME]).args(words).arg(NAME);
    pgbench.env("PGPASSWORD", NAME).stdout(Stdio::piped()).stderr(Stdio::inherit());
    let child = pgbench.spawn().and_then(std::process::Child::wait_with_output);
    let done = child.map_err(|error| Error::new(format!("cannot run pgbench: {error}")))?;
    let said = String::from_utf8_lossy(&done.stdout).into_owned();
    if done.status.success() { Ok(said) } else { Err(Error::new(format!("pgbench failed: {}\n{said}", done.status))) }
}

fn after_word<'a>(said: &'a str, word: &str) -> &'a str {
    said.split_once(word).and_then(|(_, rest)| rest.split_whitespace().next()).unwrap_or("?")
}

fn processed(said: &str) -> u64 {
    let number = after_word(said, "transactions actually processed: ");
    number.split('/').next().and_then(|text| text.parse().ok()).unwrap_or(0)
}

/// What one server counted.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Count {
    database: Counters,
    statements: u64,
}

fn counts(cluster: &Cluster, statements: bool) -> Result<Vec<Count>> {
    cluster.nodes().map(|node| count(node, statements)).collect()
}

fn count(node: &Postgres, statements: bool) -> Result<Count> {
    let sql = format!(
        "SELECT coalesce(sum(calls), 0) FROM pg_stat_statements s JOIN pg_database d ON d.oid = s.dbid WHERE datname = '{NAME}'"
    );
    let statements = if statements { node.value_in("postgres", &sql)?.parse().unwrap_or(0) } else { 0 };
    Ok(Count { database: node.counters(NAME)?, statements })
}

fn commits(before: &Count, after: &Count) -> u64 {
    after.database.commits - before.database.commits
}

/// The counters once they include everything pgbench did; backends hold them back for a while.
fn settled(cluster: &Cluster, statements: bool, before: &[Count], transactions: u64) -> Result<Vec<Count>> {
    let deadline = Instant::now() + COUNTERS_LIMIT;
    loop {
        let after = counts(cluster, statements)?;
        let total: u64 = before.iter().zip(&after).map(|(before, after)| commits(before, after)).sum();
        if total >= transactions || Instant::now() > deadline {
            return Ok(after);
        }
        thread::sleep(Duration::from_millis(200));
    }
}

fn print_servers(cluster: &Cluster, before: &[Count], after: &[Count], statements: bool) {
    println!("\nWhat each server executed, by its own count");
    println!("    {:<10} {:>22} {:>26}", "", "pg_stat_database", "pg_stat_statements");
    for (node, (before, after)) in cluster.nodes().zip(before.iter().zip(after)) {
        let told = if statements {
            format!("{} statements", after.statements - before.statements)
        } else {
            "not installed".into()
        };
        println!("    {:<10} {:>9} transactions {:>26}", node.name(), commits(before, after), told);
    }
}

/// What pgweir measured of one shape.
#[derive(Default)]
struct Shape {
    query: String,
    calls: f64,
    seconds: f64,
    quantiles: BTreeMap<String, f64>,
}

/// The ten shapes that took the most time, waiting for a server included.
fn print_queries(samples: &[Sample]) {
    let mut shapes: BTreeMap<(&str, &str), Shape> = BTreeMap::new();
    for sample in samples.iter().filter(|sample| sample.label("database") == NAME) {
        // Not every family carries the text; the shape's hash is what joins them.
        let key = (sample.label("user"), sample.label("shape"));
        let shape = shapes.entry(key).or_default();
        if !sample.label("query").is_empty() {
            shape.query = sample.label("query").to_string();
        }
        match sample.name.as_str() {
            "pgweir_query_calls_total" => shape.calls += sample.value,
            "pgweir_query_duration_seconds_sum" if sample.label("phase") == "total" => shape.seconds += sample.value,
            "pgweir_query_latency_seconds" if sample.label("phase") == "total" => {
                shape.quantiles.insert(sample.label("quantile").to_string(), sample.value);
            }
            _ => {}
        }
    }
    let mut shapes: Vec<_> = shapes.into_iter().filter(|(_, shape)| shape.calls > 0.0).collect();
    shapes.sort_by(|(_, a), (_, b)| b.seconds.total_cmp(&a.seconds));
    println!("\nThe ten costliest query shapes, by pgweir's metrics (ms)");
    println!("    {:>9} {:>8} {:>8} {:>8} {:>8}  query", "calls", "total s", "p50", "p95", "p99");
    for (_, shape) in shapes.iter().take(10) {
        let ms = |quantile| {
            shape.quantiles.get(quantile).map_or_else(|| "?".to_string(), |seconds| format!("{:.2}", seconds * 1e3))
        };
        let (p50, p95, p99) = (ms("0.5"), ms("0.95"), ms("0.99"));
        let query: String =
            shape.query.split_whitespace().collect::<Vec<_>>().join(" ").chars().take(QUERY_CHARS).collect();
        println!("    {:>9} {:>8.2} {p50:>8} {p95:>8} {p99:>8}  {query}", shape.calls, shape.seconds);
    }
    if shapes.is_empty() {
        println!("    none");
    }
}
