//! Floor 7: the stats port: `/metrics` for Prometheus, `/pins`, `/healthz`, `/readyz`, the HTTP API, what is said of the cache, and the dashboard.
//! Never takes a lock that a query can wait for, and runs on the control thread only.

pub mod http;
pub mod prometheus;

mod alerts;
mod api;
mod cache;
mod dashboard;
mod family;
mod guard;
mod hosts;
mod invalidate;
mod pins;
mod pools;
mod port;
mod process;
mod queries;
mod remote;
mod streams;

pub use api::{Site, Verdicts};
pub use guard::{Guard, server_tls};
pub use http::serve;
pub use prometheus::Exporter;

#[cfg(test)]
mod tests;
