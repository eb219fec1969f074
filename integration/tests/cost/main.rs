//! What pgweir costs, counted on the running program: system calls per transaction, memory per idle client, memory of large messages.
//! It must never count what a program beside it does.
#![allow(clippy::unwrap_used)]

#[path = "../common/mod.rs"]
mod common;

mod calls;
mod held;
mod idle;
mod large;

use std::fs;
use std::sync::OnceLock;

use common::Conf;
use integration::{Cluster, Pgweir};

/// One cluster for all tests here.
fn cluster() -> &'static Cluster {
    static CLUSTER: OnceLock<Cluster> = OnceLock::new();
    CLUSTER.get_or_init(|| Cluster::builder().start().unwrap())
}

fn conf() -> Conf {
    Conf::trust(cluster())
}

/// A line of a file of `/proc/PID`, in bytes.
fn memory(pgweir: &Pgweir, file: &str, which: &str) -> u64 {
    let text = fs::read_to_string(format!("/proc/{}/{file}", pgweir.id())).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(which)?.strip_prefix(':')).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}
