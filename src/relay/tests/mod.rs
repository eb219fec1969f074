//! The relay against a model of PostgreSQL, on sockets in memory.
//! Must never sleep for a fixed time, nor depend on another test.
#![allow(clippy::unwrap_used)]
