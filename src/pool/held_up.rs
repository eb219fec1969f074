//! Who waits on a standby for a lock that replay holds: the commit that ends it may be long past on the primary.
//! Must never be asked for without need: to list locks takes locks.

use std::sync::PoisonError;
use std::sync::atomic::Ordering::Relaxed;

use super::member::Member;

/// No host is asked more often, microseconds.
const PAUSE_US: u64 = 500_000;

/// What a standby said last of the waits for tables there.
#[derive(Debug, Default)]
pub(super) struct HeldUp {
    /// When it was asked for, microseconds.
    wanted_us: u64,
    /// When it was answered, microseconds.
    heard_us: u64,
    /// Who waits.
    pids: Vec<u32>,
}

impl Member {
    /// Whether process `pid` was seen to wait for a table there, at some time after `since_us`. Nobody knows yet: the host is asked.
    pub fn is_held_up(&self, pid: u32, since_us: u64, now_us: u64) -> bool {
        let mut held_up = self.held_up.lock().unwrap_or_else(PoisonError::into_inner);
        if held_up.heard_us > since_us && held_up.pids.contains(&pid) {
            return true;
        }
        if now_us.saturating_sub(held_up.wanted_us) > PAUSE_US {
            held_up.wanted_us = now_us;
            drop(held_up);
            self.locks_wanted.store(true, Relaxed);
            self.hurry();
        }
        false
    }

    /// Somebody wants to know who waits for tables there; says so once.
    pub fn take_locks_wanted(&self) -> bool {
        self.locks_wanted.swap(false, Relaxed)
    }

    /// These wait; it was asked no earlier than `asked_us`.
    pub fn holds_up(&self, pids: Vec<u32>, asked_us: u64) {
        let mut held_up = self.held_up.lock().unwrap_or_else(PoisonError::into_inner);
        (held_up.pids, held_up.heard_us) = (pids, asked_us);
    }
}
