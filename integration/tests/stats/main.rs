//! The stats port: who is let in, what the HTTP API says, alerts and whom they reach, the dashboard in a browser.
//! It must never compare two numbers that were asked for at different times while something runs.
#![allow(clippy::unwrap_used)]

#[path = "../common/mod.rs"]
mod common;

mod alerts;
mod api;
mod audit;
mod collector;
mod dashboard;
mod doors;
mod many;
mod percentiles;
mod prometheus;
mod targets;
mod told;
mod top;
mod traces;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::OnceLock;

use common::{Client, Conf, eventually};
use integration::{Cluster, Pgweir};
use serde_json::Value;

/// One cluster with a replica for the tests that leave it running.
fn cluster() -> &'static Cluster {
    static CLUSTER: OnceLock<Cluster> = OnceLock::new();
    CLUSTER.get_or_init(|| Cluster::builder().replicas(1).start().unwrap())
}

fn conf() -> Conf {
    Conf::trust(cluster())
}

/// An answer.
struct Answer {
    status: u16,
    /// In lower case.
    head: String,
    body: String,
}

/// One request over a stream, with these lines in its head, and its answer.
fn exchange(mut stream: impl Read + Write, request: &str, lines: &[&str], body: &str) -> Answer {
    // 1.0, so that the body simply ends with the connection.
    let head = format!("{request} HTTP/1.0\r\nContent-Length: {}\r\n", body.len());
    let lines: String = lines.iter().map(|line| format!("{line}\r\n")).collect();
    stream.write_all(format!("{head}{lines}\r\n{body}").as_bytes()).unwrap();
    let mut answer = Vec::new();
    // Over TLS the end may come without a goodbye.
    let _ = stream.read_to_end(&mut answer);
    let answer = String::from_utf8_lossy(&answer);
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no HTTP answer: {answer}"));
    let status = head.split_whitespace().nth(1).unwrap().parse().unwrap();
    Answer { status, head: head.to_lowercase(), body: body.to_owned() }
}

fn ask(pgweir: &Pgweir, request: &str, lines: &[&str]) -> Answer {
    let stream = TcpStream::connect(("127.0.0.1", pgweir.stats_port())).unwrap();
    exchange(stream, request, lines, "")
}

/// The JSON at a path.
fn json(pgweir: &Pgweir, path: &str) -> Value {
    let (status, body) = pgweir.get(path).unwrap();
    assert_eq!(status, 200, "{path}: {body}");
    serde_json::from_str(&body).unwrap()
}

/// The only value of a list for which this holds.
fn only(list: &Value, holds: impl Fn(&Value) -> bool) -> Value {
    let found: Vec<&Value> = list.as_array().unwrap().iter().filter(|it| holds(it)).collect();
    assert_eq!(found.len(), 1, "{list:#}");
    found[0].clone()
}

/// Waits until the program knows who its hosts are.
fn ready(pgweir: &Pgweir) {
    eventually("it is ready", || pgweir.get("/readyz").unwrap().0 == 200);
}

fn client(pgweir: &Pgweir) -> Client {
    Client::connect(pgweir.port())
}
