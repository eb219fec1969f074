//! Since when a database's own notifications are heard, by which applications say what does not count any more.
//! Must never say that they are heard before the server has said so, nor while nobody can be certain.
//!
//! What comes while nobody listens is lost: PostgreSQL keeps no notifications for who may come. So an answer counts only if it began after
//! the connection that listens now had begun to; `relay::hear` holds that connection.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

/// What is known of the notifications of one database; shared by who listens and all workers.
#[derive(Debug, Default)]
pub struct Hearing {
    /// Held by who listens, or tries to.
    pub turn: tokio::sync::Mutex<()>,
    /// Since when, microseconds of the process's clock; 0: nobody listens.
    since_us: AtomicU64,
}

impl Hearing {
    /// Everything is heard that is said after this time.
    pub fn begins(&self, now_us: u64) {
        self.since_us.store(now_us.max(1), Relaxed);
    }

    /// Nobody listens any more.
    pub fn ends(&self) {
        self.since_us.store(0, Relaxed);
    }

    /// Since when, microseconds of the process's clock; 0: nobody listens.
    #[must_use]
    pub fn since_us(&self) -> u64 {
        self.since_us.load(Relaxed)
    }

    /// Whether everything was heard that was said of an answer that began then.
    #[must_use]
    pub fn covers(&self, began_us: u64) -> bool {
        let since_us = self.since_us.load(Relaxed);
        since_us > 0 && since_us < began_us
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_began_while_somebody_listens_counts() {
        let hearing = Hearing::default();
        assert!(!hearing.covers(5) && hearing.since_us() == 0);
        hearing.begins(10);
        assert!(hearing.since_us() == 10 && hearing.covers(11) && !hearing.covers(10));
        hearing.ends();
        assert!(!hearing.covers(11) && hearing.since_us() == 0);
        hearing.begins(20);
        assert!(!hearing.covers(11) && hearing.covers(21));
    }
}
