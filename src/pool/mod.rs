//! Floor 5: who gets a server, and when one more is opened.
//! Must never do I/O or know what a server or a client is made of.

pub mod budget;
pub mod place;
pub mod slice;
pub mod vacate;
