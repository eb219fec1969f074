//! The relay against a model of PostgreSQL, on sockets in memory.
//! Must never sleep for a fixed time, nor depend on another test.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod actor;
mod cost;
mod leaving;
mod limits;
mod listening;
mod model;
mod modes;
mod pooling;
mod prepared;
mod program;
mod replicas;
mod retire;
mod riding;
mod rig;
mod settings;
mod simulation;
mod speech;
mod statements;
mod stops;
mod unnamed;
mod unopened;
