//! Floor 7: the stats port: `/metrics` for Prometheus, `/pins`, `/healthz`, `/readyz`, and what is said of the cache.
//! Never takes a lock that a query can wait for, and runs on the control thread only.

pub mod http;
pub mod prometheus;

mod cache;
mod family;
mod hosts;
mod invalidate;
mod pins;
mod pools;
mod process;
mod queries;
mod remote;
mod streams;

pub use http::serve;
pub use prometheus::Exporter;

#[cfg(test)]
mod tests;
