//! Floor 7: the stats port: `/metrics` for Prometheus, `/pins`, `/healthz`, `/readyz`.
//! Never takes a lock that a query can wait for, and runs on the control thread only.

pub mod http;
pub mod prometheus;

mod family;
mod hosts;
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
