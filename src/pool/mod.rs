//! Floor 5: who gets a server, and when one more is opened.
//! Must never do I/O or know what a server or a client is made of.

mod alike;
pub mod breaker;
pub mod budget;
pub mod cluster;
pub mod clusters;
pub mod heartbeat;
mod held_up;
mod line;
pub mod member;
pub mod place;
pub mod rate;
pub mod sight;
pub mod slice;
pub mod vacate;
