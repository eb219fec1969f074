//! The ways in: unix sockets, shared ports, PROXY headers, inherited sockets, and the limits at the door.
//! It must never leave a descriptor, a socket file or a process behind.
#![allow(clippy::unwrap_used)]

#[path = "../common/mod.rs"]
mod common;

mod limits;
mod manager;
mod proxied;
mod shared;
mod shortage;
mod unix;

use std::path::PathBuf;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use common::{Conf, eventually};
use integration::port::Port;
use integration::{Cluster, Pgweir, Run};

/// One cluster for all tests here: trust, with TLS.
fn cluster() -> &'static Cluster {
    static CLUSTER: OnceLock<Cluster> = OnceLock::new();
    CLUSTER.get_or_init(|| Cluster::builder().tls(true).start().unwrap())
}

fn conf() -> Conf {
    Conf::trust(cluster())
}

/// An empty directory, removed with the run.
fn folder() -> PathBuf {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let path = Run::current().unwrap().root().join(format!("d{}", NEXT.fetch_add(1, Ordering::Relaxed)));
    std::fs::create_dir(&path).unwrap();
    path
}

/// Starts pgweir after a shell script.
fn start_after(script: &str, conf: &Conf) -> Pgweir {
    Pgweir::start_after(script, &conf.text(), Port::reserve().unwrap(), Port::reserve().unwrap()).unwrap()
}

/// Waits until the query with this marker runs on the server.
fn await_running(marker: &str) {
    let sql = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE '%/* {marker} */%' AND pid <> pg_backend_pid()"
    );
    eventually("the query runs", || cluster().primary().value_in("postgres", &sql).unwrap() == "1");
}
