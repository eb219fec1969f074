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
pub(crate) mod hosts;
mod invalidate;
mod openmetrics;
mod pins;
mod pools;
mod port;
mod process;
mod protobuf;
mod queries;
mod remote;
mod rows;
mod streams;
mod wrong;

pub use api::{Advice, Insights, Site, advise, joined_plans};
pub use guard::{Guard, server_tls};
pub use http::serve;
pub use openmetrics::Format;
pub use prometheus::Exporter;

#[cfg(test)]
mod tests;
