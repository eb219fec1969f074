//! Chaos on real servers: everything breaks that can break, and no answer may be wrong, no server and no client lost.
//! It must never let an answer pass unlooked at, nor count a failure as an answer.
//!
//! Some seconds each; `PGWEIR_LONG=1` makes it three minutes each.
#![allow(clippy::unwrap_used)]

#[path = "../common/mod.rs"]
mod common;

mod books;
mod cancels;
mod crowd;
mod outages;
mod worker;

use std::time::Duration;

/// How long each kind of chaos goes on.
fn duration() -> Duration {
    Duration::from_secs(if is_long() { 180 } else { 4 })
}

fn is_long() -> bool {
    std::env::var_os("PGWEIR_LONG").is_some()
}
