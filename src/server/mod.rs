//! Floor 4: opening, and cancelling on, connections to PostgreSQL servers.
//! Must never hold a connection beyond its opening: what is open belongs to the relay.

pub mod cancel;
pub mod explain;
pub mod login;
pub mod open;
pub mod position;
pub mod probe;
pub mod replication;
pub mod rows;
pub mod stream;
pub mod talk;
pub mod user;
