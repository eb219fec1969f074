//! Numbers of the cache that processes share: of all workers together.
//! Must never be touched where an answer is found in the process itself.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicU64};

use super::counters::SharedCounter;

/// Declares reasons with their names in the metrics.
macro_rules! reasons {
    ($(#[$doc:meta])* $name:ident { $($(#[$of:meta])* $reason:ident = $word:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name { $($(#[$of])* $reason,)+ }

        impl $name {
            /// All of them, each with its name.
            pub const ALL: &[(Self, &str)] = &[$((Self::$reason, $word),)+];
        }
    };
}

reasons! {
    /// Why no answer came from there.
    RemoteMiss {
        /// There is none.
        Absent = "absent",
        /// Another process was about to put one there, and did not in time.
        Waited = "waited",
        /// It is too old.
        Expired = "expired",
        /// It is not connected, or failed so often that it is not asked.
        Down = "down",
        /// `max_lookups` are under way.
        Busy = "busy",
        /// It did not answer in time.
        Timeout = "timeout",
        /// It answered with an error, or was lost.
        Error = "error",
        /// What it had is not whole, or of another version.
        Malformed = "malformed",
        /// What it had was not sealed with this secret under this key.
        Forged = "forged",
        /// What it had is longer than `max_entry_bytes`.
        Long = "long",
        /// It is from before everything was lost that was said not to count any more.
        Void = "void",
        /// The catalog of the database is not known well enough.
        Schema = "schema",
    }
}

reasons! {
    /// What became of an answer that was to be put there.
    RemoteWrite {
        /// It is there.
        Kept = "kept",
        /// An older one was taken away instead, as it is too long.
        Removed = "removed",
        /// As of a lookup.
        Down = "down",
        /// `max_writes` are under way.
        Full = "full",
        /// It was not said to be there in time; it may be.
        Timeout = "timeout",
        /// It answered with an error, or was lost.
        Error = "error",
        /// Its time was over.
        Late = "late",
    }
}

/// Numbers of one process.
#[derive(Debug, Default)]
pub struct RemoteCounters {
    /// Answers that came from there.
    pub hits: SharedCounter,
    /// Time that lookups took, of whatever outcome, microseconds.
    pub lookup_us: SharedCounter,
    /// How often the breaker opened.
    pub opened: SharedCounter,
    /// Workers that have a connection which they use.
    pub up: AtomicU64,
    used: AtomicBool,
    misses: [SharedCounter; RemoteMiss::ALL.len()],
    writes: [SharedCounter; RemoteWrite::ALL.len()],
}

impl RemoteCounters {
    /// There is such a cache.
    pub fn set_used(&self) {
        self.used.store(true, Relaxed);
    }

    /// Whether there ever was one.
    pub fn is_used(&self) -> bool {
        self.used.load(Relaxed)
    }

    /// Lookups without an answer, for this reason.
    pub fn miss(&self, why: RemoteMiss) -> &SharedCounter {
        &self.misses[why as usize]
    }

    /// Lookups without an answer, for whatever reason.
    pub fn missed(&self) -> u64 {
        self.misses.iter().map(SharedCounter::get).sum()
    }

    /// Writes that ended so.
    pub fn write(&self, outcome: RemoteWrite) -> &SharedCounter {
        &self.writes[outcome as usize]
    }
}
