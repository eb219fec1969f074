//! An answer that is kept, and as of when it is.
//! Must never say that an answer is newer than is certain.

use std::collections::VecDeque;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Mutex};

use bytes::Bytes;

use super::feed::Traced;

/// Where an answer comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The primary: it shows all that was committed before its execution began.
    Primary,
    /// A replica, which had replayed the write-ahead log up to this position before the execution began.
    Replica(u64),
}

/// As of when an answer is, at the least. Known before its execution began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// When it had not begun yet, microseconds of the process's clock.
    pub began_us: u64,
    /// Where it ran.
    pub source: Source,
}

/// Who may be told an answer: one user of one database. Shared by its answers.
#[derive(Debug, Default)]
pub struct Tenant {
    /// Bytes that are kept for it.
    bytes: AtomicU64,
    /// Keys of its answers, oldest first; of some the answer has gone. Held by who keeps an answer of its.
    pub(super) oldest: Mutex<VecDeque<Arc<[u8]>>>,
}

impl Tenant {
    /// Bytes that are kept for it.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Relaxed)
    }
}

/// What an answer costs beside its key and its bytes: its own struct, counts of references, places in the tables.
const OVERHEAD: usize = size_of::<Entry>() + 160;

/// An answer that is kept. While it lives its bytes are on its tenant's account.
#[derive(Debug)]
pub struct Entry {
    /// The messages, from the one behind ParseComplete up to and with ReadyForQuery.
    pub answer: Bytes,
    /// As of when.
    pub stamp: Stamp,
    /// When it had come, microseconds: somebody has seen it by then, and what it shows may be as new.
    pub done_us: u64,
    /// For how long it is good, microseconds, counted from [`Stamp::began_us`].
    pub ttl_us: u64,
    /// What it hangs on; `None`: it is good for its time, whatever changes.
    pub traced: Option<Traced>,
    /// What it costs, with its key.
    pub(super) bytes: u64,
    tenant: Arc<Tenant>,
    /// Somebody was told it since it was looked at last: see [`super::store`].
    pub(super) used: AtomicBool,
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.tenant.bytes.fetch_sub(self.bytes, Relaxed);
    }
}

impl Entry {
    /// An answer that was just got, to be kept under a key of so many bytes.
    pub fn new(key_bytes: usize, answer: Bytes, stamp: Stamp, done_us: u64, ttl_us: u64, tenant: Arc<Tenant>) -> Self {
        let bytes = (key_bytes + answer.len() + OVERHEAD) as u64;
        tenant.bytes.fetch_add(bytes, Relaxed);
        Self { answer, stamp, done_us, ttl_us, traced: None, bytes, tenant, used: AtomicBool::new(false) }
    }

    /// The same, which is good as long as nothing of this has changed.
    #[must_use]
    pub fn traced(mut self, traced: Option<Traced>) -> Self {
        let more = traced.as_ref().map_or(0, |traced| size_of_val(&*traced.slots)) as u64;
        self.tenant.bytes.fetch_add(more, Relaxed);
        self.bytes += more;
        self.traced = traced;
        self
    }

    /// Whether it is still good for somebody who wants none that is older than `ttl_us`.
    pub fn is_good(&self, now_us: u64, ttl_us: u64) -> bool {
        now_us.saturating_sub(self.stamp.began_us) < ttl_us.min(self.ttl_us)
    }

    /// Somebody is told it.
    pub fn is_used(&self) {
        // A line that nobody writes to stays with all who read it.
        if !self.used.load(Relaxed) {
            self.used.store(true, Relaxed);
        }
    }

    pub(super) fn tenant(&self) -> Arc<Tenant> {
        Arc::clone(&self.tenant)
    }
}
