//! Starts a cluster and a Redis, says where, and waits to be killed: for the tests of cleaning up.
//! It must never clean up by itself while the test watches.
#![allow(clippy::unwrap_used, reason = "a test's own program: to fail loudly is right")]

use integration::{Cluster, Redis, Run};

fn main() {
    let cluster = Cluster::builder().replicas(1).start().unwrap();
    let redis = Redis::start().unwrap();
    println!("held in {}", Run::current().unwrap().root().display());
    std::thread::sleep(std::time::Duration::from_secs(120));
    drop((cluster, redis));
}
