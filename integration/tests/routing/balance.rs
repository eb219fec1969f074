//! pgbench's reads over two replicas: each gets its half, seen from the servers.
//! It must never count what pgweir asks for itself.

use crate::checker::looks;
use crate::common::{Client, Conf, eventually, metric};
use integration::{Cluster, DATABASE, USER};

/// Length of a run, in seconds.
fn seconds() -> u64 {
    if std::env::var_os("PGWEIR_LONG").is_some() { 30 } else { 1 }
}

/// Runs pgbench's reads, at most `rate` of them a second (0: as many as go); how many there were.
fn reads(port: u16, mode: &str, rate: u32) -> u64 {
    let program = integration::postgres::bin().unwrap().join("pgbench");
    let mut pgbench = integration::command(program).unwrap();
    pgbench.args(["-n", "-S", "-M", mode, "-c", "16", "-j", "2", "-T", &seconds().to_string()]);
    if rate > 0 {
        pgbench.args(["-R", &rate.to_string()]);
    }
    pgbench.args(["-h", "127.0.0.1", "-p", &port.to_string(), "-U", USER, DATABASE]);
    let done = pgbench.output().unwrap();
    let said = String::from_utf8_lossy(&done.stdout);
    assert!(done.status.success(), "{said}{}", String::from_utf8_lossy(&done.stderr));
    let count = said.lines().find_map(|line| line.strip_prefix("number of transactions actually processed: ")).unwrap();
    count.parse().unwrap()
}

/// How many of a run's reads each server had, primary first.
fn shares(cluster: &Cluster, mode: &str, rate: u32) -> Vec<u64> {
    // A pgweir for each, whose backends end with it and then tell what they did.
    let pgweir = Conf::trust(cluster).size(20).start();
    let mut client = Client::connect(pgweir.port());
    // Replicas take reads once they are known to answer.
    let up = |host: &str| metric(&pgweir, "pgweir_pool_transactions_total", &[("host", host)]) > 0.0;
    eventually("both replicas take reads", || {
        client.query("SELECT 1").unwrap();
        cluster.replicas().iter().all(|replica| up(&replica.address()))
    });
    let before = looks(cluster, "pgbench_accounts");
    let count = reads(pgweir.port(), mode, rate);
    drop((client, pgweir));
    let mut shares = Vec::new();
    eventually("all is counted", || {
        let after = looks(cluster, "pgbench_accounts");
        shares = after.iter().zip(&before).map(|(after, before)| after - before).collect();
        shares.iter().sum::<u64>() >= count
    });
    println!("{mode}, at most {rate}/s: {count} reads, {shares:?}");
    assert!(count > 300, "{count} reads are too few to prove anything");
    assert!(shares[0] <= count / 20, "{mode}: nothing of it is for the primary: {shares:?}");
    shares
}

#[test]
fn reads_of_pgbench_are_shared_evenly() {
    // What pgbench -i makes, as far as its reads need it.
    let sql = "CREATE TABLE pgbench_accounts (aid int PRIMARY KEY, bid int, abalance int, filler char(84));
        INSERT INTO pgbench_accounts SELECT n, 1, 0, '' FROM generate_series(1, 100000) n;
        CREATE TABLE pgbench_branches (bid int PRIMARY KEY, bbalance int, filler char(88));
        INSERT INTO pgbench_branches VALUES (1, 0, ''); GRANT ALL ON ALL TABLES IN SCHEMA public TO app";
    let cluster = Cluster::builder().replicas(2).sql(sql).start().unwrap();
    // A second on processors that many tests share shows no more than that both are asked.
    let most = if seconds() > 1 { 10 } else { 80 };
    // At a rate that leaves every server time, none is slower than another but by chance.
    for mode in ["simple", "extended", "prepared"] {
        assert_even(mode, &shares(&cluster, mode, 1_000), most);
    }
    // As many as go: whoever gets more of the processors that all servers here share answers more, and is asked more.
    assert_even("all that go", &shares(&cluster, "simple", 0), most.max(30));
}

/// Neither replica has more than `most` per cent less than the other.
fn assert_even(what: &str, shares: &[u64], most: u64) {
    let (less, more) = (shares[1].min(shares[2]), shares[1].max(shares[2]));
    assert!(less * 100 >= more * (100 - most), "{what}: {shares:?}");
}
