//! Floor 0: small building blocks without knowledge of PostgreSQL.
//! Must never import another module of the crate.

pub mod calendar;
pub mod clock;
pub mod lru;
pub mod outbuf;
pub mod secret;
pub mod slab;
