//! What was written, and which answers show it.
//! Must never say that one does that may be older.

use crate::cache::{Source, Stamp};
use crate::pool::cluster::{Cluster, Floor};

/// The last write of a client, or what others say was written.
#[derive(Debug)]
pub(super) struct Wrote {
    /// When it had been answered, microseconds.
    at_us: u64,
    /// What a replica must have replayed.
    floor: Floor,
    /// When all replicas were first seen to have it; 0: not yet.
    spread_us: u64,
}

impl Wrote {
    /// That was answered by now.
    pub fn new(at_us: u64, floor: Floor) -> Self {
        Self { at_us, floor, spread_us: 0 }
    }

    /// When it had been answered, microseconds.
    pub fn at_us(&self) -> u64 {
        self.at_us
    }

    /// Whether an answer of this stamp certainly shows it.
    pub fn is_in(&mut self, stamp: Stamp, cluster: &Cluster, now_us: u64) -> bool {
        match stamp.source {
            Source::Primary => stamp.began_us > self.at_us,
            Source::Replica(lsn) => {
                self.floor = cluster.settle(self.floor);
                match self.floor {
                    Floor::At(floor) => lsn >= floor,
                    Floor::After(_) => false,
                    Floor::None => {
                        if self.spread_us == 0 {
                            self.spread_us = now_us;
                        }
                        stamp.began_us > self.spread_us
                    }
                }
            }
        }
    }
}
