//! Numbers of the cache of answers, per database and user: what it gave, and why it did not.
//! Must never cost more than one addition per batch, and nothing where the cache is off.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicU64};

use super::counters::{Counter, Gauge, SharedCounter};

/// Why the cache was not asked for the answer to a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bypass {
    /// It is not certain that it only reads.
    Verdict,
    /// Its answer hangs on more than data and settings: the time, chance, row level security, catalogs, the connection.
    Volatile,
    /// A constant or parameter may name a moment, such as `'today'`.
    Moment,
    /// A transaction, or a session that has more than settings and prepared statements.
    Session,
    /// It is not one statement, bound and executed once and whole.
    Batch,
    /// Nobody says for how long its answer may be kept, or that it may not.
    Ttl,
    /// What is known of changes is too old, or nothing is: with `invalidation = "logical"`, as all that follow.
    Stalled,
    /// It hangs on a table whose changes do not come: one that is not in the publication.
    Unpublished,
    /// What it hangs on is not known for certain: the schema has changed, and is about to be read.
    Untraced,
    /// With `invalidation = "fenced"`: what it hangs on is being written to, or nothing was told of it yet.
    Doubt,
    /// An answer of its shape was not what it should have been: none of them is kept until a reload.
    Disabled,
    /// Hardly anything of its shape is asked for twice, and this was not asked for before.
    Rare,
}

impl Bypass {
    /// Its name for people.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Verdict => "verdict",
            Self::Volatile => "volatile",
            Self::Moment => "moment",
            Self::Session => "session",
            Self::Batch => "batch",
            Self::Ttl => "ttl",
            Self::Stalled => "stalled",
            Self::Unpublished => "unpublished",
            Self::Untraced => "untraced",
            Self::Doubt => "doubt",
            Self::Disabled => "disabled",
            Self::Rare => "rare",
        }
    }
}

/// Why the cache had no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Miss {
    /// There is none.
    Absent,
    /// Its time is over.
    Expired,
    /// It may be older than what its client has written.
    Older,
    /// Something that it hangs on was changed.
    Changed,
    /// Somebody has said that it does not count any more, or nobody hears who might say so.
    Signalled,
}

impl Miss {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Absent, Self::Expired, Self::Older, Self::Changed, Self::Signalled];

    /// Its name for people.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Absent => "absent",
            Self::Expired => "expired",
            Self::Older => "older",
            Self::Changed => "changed",
            Self::Signalled => "signalled",
        }
    }
}

/// Why an answer was not kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unkept {
    /// It is longer than `max_entry_bytes`.
    Long,
    /// It is an error, or holds a notice or something else that is no answer.
    Other,
    /// What it hangs on was not known any more when it began to run.
    Untraced,
    /// It is a replica's that may not have had yet what somebody has said was changed.
    Behind,
    /// Others would have to go for it, and it was asked for once.
    Once,
    /// What is kept may be newer.
    Older,
}

/// Numbers of one database and user on one worker.
#[derive(Debug, Default)]
pub struct CacheCounters {
    /// Batches answered from the cache.
    pub hits: Counter,
    /// Batches that waited for the answer to another client's, and got that.
    pub followed: Counter,
    /// Of those, answers whose time was over, which another client was about to renew.
    pub stale_updating: Counter,
    /// Of those, answers whose time was over, as no server gave another.
    pub stale_error: Counter,
    /// Answers that a client asked for anew though their time was not over.
    pub early: Counter,
    /// Bytes of answers from the cache.
    pub hit_bytes: Counter,
    /// Answers kept.
    pub fills: Counter,
    /// In shadow mode: real answers that were what the cache had.
    pub shadow_matches: Counter,
    /// In shadow mode: those that were not.
    pub shadow_mismatches: Counter,
    /// Hits that were compared with the real answer: it was the same.
    pub verified_same: Counter,
    /// It was another, as something had changed meanwhile, or may have: within what is promised.
    pub verified_changed: Counter,
    /// It was another, and nothing had changed: the shape is kept no more.
    pub mismatches: Counter,
    misses: [Counter; Miss::ALL.len()],
    bypasses: [Counter; Bypass::Rare as usize + 1],
    unkept: [Counter; Unkept::Older as usize + 1],
}

impl CacheCounters {
    /// Batches whose answer was not in the cache for this reason.
    pub fn miss(&self, why: Miss) -> &Counter {
        &self.misses[why as usize]
    }

    /// Batches for which the cache was not asked for this reason.
    pub fn bypass(&self, why: Bypass) -> &Counter {
        &self.bypasses[why as usize]
    }

    /// Batches for which the cache was not asked, for whatever reason.
    pub fn bypassed(&self) -> u64 {
        self.bypasses.iter().map(Counter::get).sum()
    }

    /// Answers that were not kept, for whatever reason.
    pub fn refused(&self) -> u64 {
        self.unkept.iter().map(Counter::get).sum()
    }

    /// Answers that were not kept for this reason.
    pub fn unkept(&self, why: Unkept) -> &Counter {
        &self.unkept[why as usize]
    }
}

/// Numbers of the stream of a database's changes; whoever follows it writes them.
#[derive(Debug, Default)]
pub struct StreamNumbers {
    /// Somebody follows it, or tries to.
    pub wanted: AtomicBool,
    /// It flows.
    pub flows: AtomicBool,
    /// Everything before was known last, microseconds of the process's clock; 0: never.
    pub fresh_us: AtomicU64,
    /// Changes of rows.
    pub rows: SharedCounter,
    /// Relations emptied.
    pub truncates: SharedCounter,
    /// Changes of the schema, or of rights, that were told of or found.
    pub schema: SharedCounter,
    /// Times that everything kept became void, as a stream began.
    pub begins: SharedCounter,
}

impl StreamNumbers {
    /// How old what is known is at this time, microseconds; `None`: nothing ever was.
    pub fn age_us(&self, now_us: u64) -> Option<u64> {
        let fresh_us = self.fresh_us.load(Relaxed);
        (fresh_us > 0).then(|| now_us.saturating_sub(fresh_us))
    }
}

/// How old the answers of a database may be, as the configuration has it.
#[derive(Debug, Default)]
pub struct CacheBound {
    /// By the stream of its changes, not by their time alone.
    pub logical: AtomicBool,
    /// By fenced writes; then it is of those alone.
    pub fenced: AtomicBool,
    /// Microseconds; 0: nobody has set one.
    pub us: AtomicU64,
}

/// What was said of answers that do not count any more; whoever hears it counts.
#[derive(Debug, Default)]
pub struct SignalNumbers {
    /// On the console.
    pub console: SharedCounter,
    /// To the stats port.
    pub http: SharedCounter,
    /// By notifications.
    pub notify: SharedCounter,
    /// Notifications that nobody understands: everything of the database went.
    pub garbled: SharedCounter,
}

/// What was asked ahead for a database, statement by statement; the control thread counts.
#[derive(Debug, Default)]
pub struct WarmNumbers {
    /// Times that all of it was asked.
    pub runs: SharedCounter,
    /// Answers that were in the cache then.
    pub kept: SharedCounter,
    /// Statements whose answer was not, for whatever reason.
    pub failed: SharedCounter,
}

/// Numbers of the store that all workers share; each of them sets them now and then.
#[derive(Debug, Default)]
pub struct CacheGauges {
    /// Answers kept.
    pub entries: Gauge,
    /// Their bytes, with their keys.
    pub bytes: Gauge,
}
