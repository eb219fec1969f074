//! The program from start to end: checking, starting, reloading, stopping, and what it says of itself meanwhile.
//! It must never rely on how long something takes, only on what is true afterwards.
#![allow(clippy::unwrap_used)]

#[path = "../common/mod.rs"]
mod common;

mod health;
mod reload;
mod shutdown;
mod start;

use std::sync::OnceLock;

use common::Conf;
use integration::Cluster;

/// One cluster for the tests that leave it running.
fn cluster() -> &'static Cluster {
    static CLUSTER: OnceLock<Cluster> = OnceLock::new();
    CLUSTER.get_or_init(|| Cluster::builder().start().unwrap())
}

fn conf() -> Conf {
    Conf::trust(cluster())
}
