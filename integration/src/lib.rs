//! Real PostgreSQL clusters on loopback, with pgweir in front of them, for tests and for the demo.
//! It must never leave a process or a directory behind, however it ends; see [`run`].
//!
//! ```no_run
//! use integration::{Cluster, Hba, Pgweir};
//!
//! # fn main() -> integration::Result<()> {
//! let cluster = Cluster::builder().replicas(2).auth(Hba::Scram).tls(true).start()?;
//! let config = format!("[databases.app]\n{}", cluster.config_lines());
//! let pgweir = Pgweir::start(&config)?; // … with [listen] port = {port} and [stats] address = "127.0.0.1:{stats_port}"
//! println!("{}", pgweir.metrics()?);
//! # Ok(())
//! # }
//! ```
//!
//! Everything blocks and uses plain threads: a test may bring any runtime, or none. Nothing here needs a test to run alone.

pub mod certs;
pub mod cluster;
pub mod error;
mod halt;
pub mod http;
pub mod link;
pub mod metrics;
pub mod names;
pub mod patroni;
pub mod port;
pub mod postgres;
mod process;
pub mod proxy;
pub mod redis;
pub mod run;
mod script;
mod succession;
pub mod wire;

pub use certs::{Certificates, Identity};
pub use cluster::{Builder, Cluster, DATABASE, Hba, PASSWORD, USER};
pub use error::{Error, Result};
pub use link::{Link, Way};
pub use names::Names;
pub use patroni::Patroni;
pub use postgres::{Counters, Postgres, Stop};
pub use process::command;
pub use proxy::Pgweir;
pub use redis::{Redis, RedisCluster, Sentinels};
pub use run::Run;
pub use rustix::process::Signal;
