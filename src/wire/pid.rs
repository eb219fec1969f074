//! The process id that a client is told, by which its cancel request finds it again.
//! Must never be 0 nor negative: clients take that for "no process".
//!
//! ```text
//!  bit 31      30 … 25      24 … 19    18 … 0
//!  passed on   worker + 1   instance   slot + 1
//! ```
//!
//! It is never the id of a process of the server's: Linux counts those to 2²² at most (`PID_MAX_LIMIT` in
//! include/linux/threads.h), so that a client which hands this number to `pg_cancel_backend` or `pg_terminate_backend`
//! hits nobody else. Numbers up to that one are such processes, and are told to clients that keep theirs.
//!
//! A client is only ever told numbers without bit 31. An instance that passes a request on to a
//! peer sets it, and whoever receives it so never passes it on again: however wrong `[peers]` may
//! be, no request goes in circles.

const INSTANCE_BITS: u32 = 6;
const WORKER_BITS: u32 = 6;
const SLOT_BITS: u32 = 19;
const PASSED_ON: u32 = 1 << 31;

/// Highest process id of a server's: `PID_MAX_LIMIT`.
const PROCESS_MAX: u32 = 1 << 22;

/// Whether a number may be the process id of a server's, so that it is none that we have made.
#[must_use]
pub fn is_process(pid: u32) -> bool {
    (1..=PROCESS_MAX).contains(&pid)
}

/// The number as an instance passes it on.
#[must_use]
pub fn passed_on(pid: u32) -> u32 {
    pid | PASSED_ON
}

/// The number as the client was told it.
#[must_use]
pub fn not_passed_on(pid: u32) -> u32 {
    pid & !PASSED_ON
}

/// Whether an instance has passed a request with this number on.
#[must_use]
pub fn is_passed_on(pid: u32) -> bool {
    pid & PASSED_ON != 0
}

/// Workers of one process, at most: 63.
pub const WORKERS_MAX: u8 = (1 << WORKER_BITS) - 1;
/// Clients on one worker, at most: 524,287.
pub const SLOTS_MAX: usize = (1 << SLOT_BITS) - 1;

/// Whom a cancel key belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientPid {
    /// `instance_id` of the process, 0 to 63.
    pub instance: u8,
    /// Number of the worker, below [`WORKERS_MAX`].
    pub worker: u8,
    /// Slot of the client on it, below [`SLOTS_MAX`].
    pub slot: u32,
    /// The request was passed on by a peer.
    pub passed_on: bool,
}

impl ClientPid {
    /// The number as it stands in BackendKeyData and CancelRequest. What does not fit is cut off.
    #[must_use]
    pub fn encode(self) -> u32 {
        let field = |value: u32, bits: u32| value & ((1 << bits) - 1);
        let worker = field(u32::from(self.worker) + 1, WORKER_BITS) << (INSTANCE_BITS + SLOT_BITS);
        let instance = field(self.instance.into(), INSTANCE_BITS) << SLOT_BITS;
        let passed_on = if self.passed_on { PASSED_ON } else { 0 };
        passed_on | instance | worker | field(self.slot.wrapping_add(1), SLOT_BITS)
    }

    /// Takes a number apart; `None` for one that no client was ever told.
    #[must_use]
    pub fn decode(pid: u32) -> Option<Self> {
        let field = |shift: u32, bits: u32| (pid >> shift) & ((1 << bits) - 1);
        Some(Self {
            instance: field(SLOT_BITS, INSTANCE_BITS) as u8,
            worker: field(INSTANCE_BITS + SLOT_BITS, WORKER_BITS).checked_sub(1)? as u8,
            slot: field(0, SLOT_BITS).checked_sub(1)?,
            passed_on: pid & PASSED_ON != 0,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_come_back() {
        for instance in [0, 1, 63] {
            for worker in [0, 1, WORKERS_MAX - 1] {
                for slot in [0, 1, SLOTS_MAX as u32 - 1] {
                    for passed_on in [false, true] {
                        let pid = ClientPid { instance, worker, slot, passed_on };
                        assert_eq!(ClientPid::decode(pid.encode()), Some(pid));
                        assert_eq!(pid.encode() as i32 > 1 << 22, !passed_on, "{pid:?}");
                        assert!(!is_process(not_passed_on(pid.encode())), "{pid:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn a_number_without_a_slot_or_a_worker_is_nobody() {
        for pid in [0, 1 << 31, 1 << 19, 63 << 25, 1 << 19 | 7] {
            assert_eq!(ClientPid::decode(pid), None);
        }
    }

    #[test]
    fn bits_are_where_the_picture_has_them() {
        let pid = ClientPid { instance: 0b10_0001, worker: 0b01_0010, slot: 6, passed_on: false };
        assert_eq!(pid.encode(), 0b01_0011 << 25 | 0b10_0001 << 19 | 7);
    }
}
