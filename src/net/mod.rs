//! Floor 3: sockets, TLS and addresses.
//! Must never know a PostgreSQL message.

pub mod dial;
#[cfg(any(test, feature = "simulation"))]
pub mod mem;
pub mod socket;
pub mod tls;
