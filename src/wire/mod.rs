//! Floor 1: PostgreSQL's frontend/backend protocol as bytes.
//! Must never touch a socket or keep state between messages.

pub mod build;
pub mod error;
pub mod frame;
pub mod lsn;
pub mod pgoutput;
pub mod pid;
pub mod startup;
pub mod tag;
