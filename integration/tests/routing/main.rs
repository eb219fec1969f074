//! Reads go to replicas and everything else to the primary, seen from the servers: each logs the statements it runs.
//! It must never ask a server who it is through pgweir: such a question is for the primary.
#![allow(clippy::unwrap_used)]

#[path = "../common/mod.rs"]
mod common;

mod alike;
mod balance;
mod catalog;
mod checker;
mod consistency;
mod discover;
mod diverged;
mod elsewhere;
mod failures;
mod held_up;
mod hosts;
mod lag;
mod promotion;
mod readonly;
mod rules;
mod settings;
mod sight;
mod statements;
mod transactions;
mod unopened;
mod wishes;

use std::sync::OnceLock;

use common::{Client, Conf, eventually};
use integration::{Cluster, DATABASE, Pgweir};

/// A primary with two replicas, each of which logs every statement.
fn start_cluster() -> Cluster {
    let sql = "CREATE TABLE fish (id int PRIMARY KEY, name text); INSERT INTO fish SELECT n, 'fish ' || n FROM generate_series(1, 100) n;
        CREATE SEQUENCE counter; CREATE VIEW pond AS SELECT * FROM fish;
        CREATE FUNCTION own_function() RETURNS int LANGUAGE sql STABLE AS 'SELECT 1';
        GRANT ALL ON ALL TABLES IN SCHEMA public TO app; GRANT ALL ON SEQUENCE counter TO app; GRANT ALL ON SCHEMA public TO app";
    Cluster::builder().replicas(2).setting("log_statement", "all").sql(sql).start().unwrap()
}

/// One cluster for the tests that leave it as it is.
fn cluster() -> &'static Cluster {
    static CLUSTER: OnceLock<Cluster> = OnceLock::new();
    CLUSTER.get_or_init(start_cluster)
}

/// pgweir in front of the shared cluster, and a client.
fn start() -> (Pgweir, Client) {
    start_with(cluster(), &Conf::trust(cluster()).size(3))
}

/// pgweir and a client once every replica is known to be near enough to take reads.
fn start_with(cluster: &Cluster, conf: &Conf) -> (Pgweir, Client) {
    let pgweir = conf.start();
    let mut client = Client::connect(pgweir.port());
    until_read(cluster, &mut client, &format!("replicas of {}", pgweir.port()), |runs| {
        runs[1..].iter().all(|count| *count > 0)
    });
    (pgweir, client)
}

/// Reads until the servers have run the reads as wished: replicas take none before they have caught up with what the client wrote.
fn until_read(cluster: &Cluster, client: &mut Client, name: &str, wished: impl Fn(&[usize]) -> bool) {
    let mark = mark(&format!("awaiting {name}"));
    eventually(name, || {
        client.query(&format!("SELECT 1 {mark}")).unwrap();
        wished(&runs(cluster, &mark))
    });
}

/// Reads until a replica takes a read again.
fn settled(client: &mut Client, name: &str) {
    until_read(cluster(), client, name, |runs| runs[1..].iter().any(|count| *count > 0));
}

/// How often each server (primary first) has run a statement with this mark. PostgreSQL writes to its log before it runs a statement,
/// so what a client has an answer to is there.
fn runs(cluster: &Cluster, mark: &str) -> Vec<usize> {
    let counted = |log: String| log.lines().filter(|line| line.contains(mark) && is_run(line)).count();
    cluster.nodes().map(|node| counted(node.log())).collect()
}

/// A line about a statement that is executed, not one that quotes it in an error.
fn is_run(line: &str) -> bool {
    line.contains(&format!("@{DATABASE} ")) && (line.contains("LOG:  statement: ") || line.contains("LOG:  execute "))
}

/// A mark of its own for each statement of a test, as a comment.
fn mark(name: &str) -> String {
    format!("/* {name} */")
}

/// Where a statement that ran `times` went: all of it to the primary?
#[derive(Debug, PartialEq, Eq, Clone, Copy)]
enum Went {
    Primary,
    Replicas,
    Both,
    Nowhere,
}

fn went(cluster: &Cluster, mark: &str) -> Went {
    let runs = runs(cluster, mark);
    match (runs[0] > 0, runs[1..].iter().any(|count| *count > 0)) {
        (true, false) => Went::Primary,
        (false, true) => Went::Replicas,
        (true, true) => Went::Both,
        (false, false) => Went::Nowhere,
    }
}
