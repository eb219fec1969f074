//! Many clients on few servers: who gets one when, what happens when either side dies, and that nothing passes from one to another.
//! It must never pass by luck: what is claimed is claimed for every run.
#![allow(clippy::unwrap_used)]

#[path = "../common/mod.rs"]
mod common;

mod bounds;
mod deaths;
mod modes;
mod queue;
mod replication;
mod sizing;
mod state;

use std::sync::OnceLock;

use common::Conf;
use integration::Cluster;

/// One cluster for the tests that leave it running and its connections alone.
fn cluster() -> &'static Cluster {
    static CLUSTER: OnceLock<Cluster> = OnceLock::new();
    CLUSTER.get_or_init(|| Cluster::builder().start().unwrap())
}

fn conf() -> Conf {
    Conf::trust(cluster())
}
