//! An answer that is kept, and as of when it is.
//! Must never say that an answer is newer than is certain.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Mutex};

use bytes::Bytes;

use super::feed::Traced;
use super::fence::Fenced;
use super::oldest::Oldest;

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
#[derive(Debug)]
pub struct Tenant {
    /// Name of the database as clients give it.
    database: Box<str>,
    /// Answers that are kept for it, or are about to be.
    entries: AtomicU64,
    /// Bytes that are kept for it.
    bytes: AtomicU64,
    /// Answers that had to go for others.
    evicted: AtomicU64,
    /// Some had to go for others of its own, and there was no room since.
    full: AtomicBool,
    /// Keys of its answers, where there is a limit to those.
    pub(super) oldest: Mutex<Oldest>,
}

/// What is kept for a tenant, or for all of a database.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Account {
    /// Answers.
    pub entries: u64,
    /// Their bytes, with their keys.
    pub bytes: u64,
    /// Answers that had to go for others since the process began.
    pub evicted: u64,
}

impl Tenant {
    /// Of a database, with nothing kept.
    #[must_use]
    pub fn new(database: &str) -> Self {
        let (entries, bytes, evicted, full, oldest) = Default::default();
        Self { database: database.into(), entries, bytes, evicted, full, oldest }
    }

    /// The database.
    #[must_use]
    pub fn database(&self) -> &str {
        &self.database
    }

    /// Bytes that are kept for it.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Relaxed)
    }

    /// What is kept for it.
    #[must_use]
    pub fn account(&self) -> Account {
        let [entries, bytes, evicted] = [&self.entries, &self.bytes, &self.evicted].map(|it| it.load(Relaxed));
        Account { entries, bytes, evicted }
    }

    /// Its answers have to go for others, or no more.
    pub(super) fn set_full(&self, full: bool) {
        if self.full.load(Relaxed) != full {
            self.full.store(full, Relaxed);
        }
    }

    /// Whether they have to, where it may have so many bytes.
    pub(super) fn is_full(&self, most: u64) -> bool {
        let full = self.full.load(Relaxed);
        if full && self.bytes() < most / 8 * 7 {
            self.set_full(false);
            return false;
        }
        full
    }

    /// One of its answers has to go for another.
    pub(super) fn evicts(&self) {
        self.evicted.fetch_add(1, Relaxed);
    }
}

/// What an answer costs beside its key and its bytes: its own struct, counts of references, places in the tables.
const OVERHEAD: usize = size_of::<Entry>() + 160;

/// An answer that is kept. While it lives its bytes are on its tenant's account.
#[derive(Debug)]
pub struct Entry {
    /// The messages, from the one behind ParseComplete up to and with ReadyForQuery.
    pub answer: Bytes,
    /// Its rows, as its CommandComplete has them.
    pub rows: u64,
    /// As of when.
    pub stamp: Stamp,
    /// When it had come, microseconds: somebody has seen it by then, and what it shows may be as new.
    pub done_us: u64,
    /// For how long it is good, microseconds, counted from [`Stamp::began_us`].
    pub ttl_us: u64,
    /// How long a server took for it, microseconds; 0: nobody knows.
    pub took_us: u32,
    /// What it hangs on; `None`: it is good for its time, whatever changes.
    pub traced: Option<Traced>,
    /// What writes it lies behind; `None`: it is good for its time, whoever writes.
    pub fenced: Option<Box<Fenced>>,
    /// Slots of what whoever is asked may take back: see [`super::signal`]. Shared by the answers of a shape, where none has a tag.
    pub deps: Arc<[u32]>,
    /// What it costs, with its key.
    pub(super) bytes: u64,
    tenant: Arc<Tenant>,
    /// It was held against all patterns up to this one: see [`super::pattern`].
    pub(super) cleared: AtomicU64,
    /// Its number among its tenant's: see [`super::oldest`].
    pub(super) number: AtomicU64,
    /// Somebody was told it since it was looked at last: see [`super::store`].
    pub(super) used: AtomicBool,
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.tenant.bytes.fetch_sub(self.bytes, Relaxed);
        self.tenant.entries.fetch_sub(1, Relaxed);
    }
}

impl Entry {
    /// An answer that was just got, with so many rows, to be kept under a key of so many bytes.
    pub fn new(
        key_bytes: usize,
        (answer, rows): (Bytes, u64),
        stamp: Stamp,
        done_us: u64,
        ttl_us: u64,
        tenant: Arc<Tenant>,
    ) -> Self {
        let bytes = (key_bytes + answer.len() + OVERHEAD) as u64;
        tenant.bytes.fetch_add(bytes, Relaxed);
        tenant.entries.fetch_add(1, Relaxed);
        let (traced, fenced, deps, used) = (None, None, Arc::default(), AtomicBool::new(false));
        let [cleared, number] = [0, 0].map(AtomicU64::new);
        Self {
            answer,
            rows,
            stamp,
            done_us,
            ttl_us,
            took_us: 0,
            traced,
            fenced,
            deps,
            bytes,
            tenant,
            cleared,
            number,
            used,
        }
    }

    /// The same, for which a server took so long, microseconds.
    #[must_use]
    pub fn taking(mut self, took_us: u64) -> Self {
        self.took_us = u32::try_from(took_us).unwrap_or(u32::MAX);
        self
    }

    /// The same, which goes when one of these does ([`super::signal::deps`]).
    #[must_use]
    pub fn hanging_on(mut self, deps: Arc<[u32]>) -> Self {
        self.deps = deps;
        self
    }

    /// The same, which is good as long as nothing of this has changed.
    #[must_use]
    pub fn traced(mut self, traced: Option<Traced>) -> Self {
        self.costs(traced.as_ref().map_or(0, |traced| size_of_val(&*traced.slots)));
        self.traced = traced;
        self
    }

    /// The same, which is good as long as none of these is written to.
    #[must_use]
    pub fn fenced(mut self, fenced: Option<Box<Fenced>>) -> Self {
        self.costs(fenced.as_ref().map_or(0, |fenced| size_of_val(&*fenced.begun) + size_of::<Fenced>()));
        self.fenced = fenced;
        self
    }

    /// So many bytes more.
    fn costs(&mut self, more: usize) {
        // All workers share the account.
        if more > 0 {
            self.tenant.bytes.fetch_add(more as u64, Relaxed);
            self.bytes += more as u64;
        }
    }

    /// Whether it is still good for somebody who wants none that is older than `ttl_us`.
    pub fn is_good(&self, now_us: u64, ttl_us: u64) -> bool {
        self.left_us(now_us, ttl_us) > 0
    }

    /// For how much longer, microseconds; 0: it is not.
    pub fn left_us(&self, now_us: u64, ttl_us: u64) -> u64 {
        ttl_us.min(self.ttl_us).saturating_sub(now_us.saturating_sub(self.stamp.began_us))
    }

    /// Whether its time is not over, or not for longer than `more_us`.
    pub fn is_within(&self, now_us: u64, ttl_us: u64, more_us: u64) -> bool {
        now_us.saturating_sub(self.stamp.began_us) < ttl_us.min(self.ttl_us).saturating_add(more_us)
    }

    /// Somebody is told it.
    pub fn is_used(&self) {
        // A line that nobody writes to stays with all who read it.
        if !self.used.load(Relaxed) {
            self.used.store(true, Relaxed);
        }
    }

    /// It has to go for another.
    pub(super) fn is_evicted(&self) {
        self.tenant.evicts();
    }

    pub(super) fn tenant(&self) -> &Arc<Tenant> {
        &self.tenant
    }
}
