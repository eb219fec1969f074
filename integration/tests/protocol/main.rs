//! The wire protocol as clients speak it, well or badly, against what PostgreSQL itself answers.
//! It must never depend on the order of its tests: they share one cluster, each with a pgweir and tables of its own.
#![allow(clippy::unwrap_used)]

#[path = "../common/mod.rs"]
mod common;

mod cancel;
mod copy;
mod malformed;
mod negotiation;
mod pipeline;
mod prepared;
mod prepared_sql;
mod session;

use std::path::PathBuf;
use std::sync::OnceLock;

use common::{Client, Conf};
use integration::{Cluster, Pgweir};

/// One cluster for all tests here: trust, with TLS.
fn cluster() -> &'static Cluster {
    static CLUSTER: OnceLock<Cluster> = OnceLock::new();
    CLUSTER.get_or_init(|| Cluster::builder().tls(true).start().unwrap())
}

fn ca() -> PathBuf {
    cluster().certificates().unwrap().ca.clone()
}

fn conf() -> Conf {
    Conf::trust(cluster())
}

/// pgweir with TLS for those who ask.
fn with_tls() -> Pgweir {
    conf().tls("allow", cluster().certificates().unwrap()).start()
}

/// The same session with PostgreSQL itself.
fn direct() -> Client {
    Client::connect(cluster().primary().port())
}

fn assert_serves(pgweir: &Pgweir) {
    assert_eq!(Client::connect(pgweir.port()).value("SELECT 41 + 1"), "42");
}
