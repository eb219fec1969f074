//! A session of its own, in transaction mode: what a client has set, made and locked is there at every statement, on whatever server.
//! It must never be enough that a statement works: what it says is compared with a direct connection.
#![allow(clippy::unwrap_used)]

#[path = "../common/mod.rs"]
mod common;
#[path = "../differential/dice.rs"]
mod dice;

mod answers;
mod direct;
mod functions;
mod hidden;
mod identity;
mod leaks;
mod listen;
mod neighbours;
mod oracle;
mod pids;
mod pins;
mod player;
mod program;
mod sequences;
mod settings;
mod shrink;
mod stale;
mod tools;
mod unread;
mod words;
