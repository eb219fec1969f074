//! pgweir: a PostgreSQL proxy.

pub mod app;
pub mod auth;
pub mod base;
pub mod config;
pub mod export;
pub mod flow;
pub mod gate;
pub mod meter;
pub mod net;
pub mod pool;
pub mod relay;
pub mod server;
pub mod sql;
pub mod wire;
pub mod worker;
