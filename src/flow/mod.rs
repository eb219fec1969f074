//! Floor 2: what passes over a connection, as state machines on bytes.
//! Must never do I/O, read a clock or know who is connected.

mod copy;
pub mod expect;
mod names;
pub mod params;
pub mod replies;
pub mod requests;
pub mod step;
pub mod values;
mod veils;
