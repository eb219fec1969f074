//! Floor 3: sockets, TLS and addresses.
//! Must never know a PostgreSQL message.

pub mod dial;
pub mod inherit;
pub mod listen;
#[cfg(any(test, feature = "simulation"))]
pub mod mem;
pub mod plain;
pub mod proxy;
pub mod socket;
pub mod tls;
