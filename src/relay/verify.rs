//! Whether what the cache gives is what servers would say: a sampled share of hits runs instead, and is compared.
//! Must never take for wrong what is within the promise, nor forget an answer that is not before that was found out.
//!
//! A hit that is chosen (`verify` of `[cache]`) is not given: its client gets the real answer, which also takes the place of what was kept. If the two
//! differ the question is what was promised.
//!
//! *By a time alone* it was that this was the answer at some moment no longer ago, under whatever schema there was then. Whether it was nobody can tell
//! afterwards: other rows may have been written meanwhile, past pgweir or not, and columns changed. So one difference proves nothing, and neither do many: a table
//! that is written to all the time looks as a function does that is called immutable and is not. Such differences are counted as changed and nothing else
//! comes of them; how many there are says what the time costs. (In shadow mode, which is there to find out, they are called mismatches, with their age in the log.)
//!
//! *By the grade `logical`* it was that nothing had changed of what the answer hangs on, and that can be told. The real answer shows no less than the kept one
//! if it is known up to a position no earlier (`r`, [`crate::cache::feed`]); otherwise nothing follows. When a heartbeat has come back that was sent after
//! the real answer had come, all changes are marked that this can show. If none of them touched what the kept one hangs on, both were to be the same:
//! then nothing of that shape is given for the time being. What is left to explain it is what no trigger has told of, roles or a schema without event triggers, for
//! which the stream's task looks every `catalog_refresh`, voiding everything if it finds some. If it did not, the answer hangs on something that is not in
//! its key, or that the catalog did not say it reads. That is a *mismatch*: no answer of its shape is kept or given any more in that database, by no worker,
//! until the configuration is loaded again.

use std::sync::Arc;

use super::{GroupId, Relay};
use crate::cache::{Entry, Feed, Stamp, Traced};
use crate::config::CacheMode;
use crate::meter::PoolCounters;

/// So many differences may wait to be explained; what comes beyond is taken for explained.
const DOUBTS: usize = 64;
/// What was neither explained nor found wrong so long after it could have been is taken for explained, microseconds.
const PATIENCE_US: u64 = 60_000_000;
/// How much longer than `catalog_refresh` the stream's task may take to look, microseconds.
const GRACE_US: u64 = 1_000_000;

/// Two answers that differ.
pub(super) struct Doubt {
    shape: u64,
    counters: Arc<PoolCounters>,
    /// When the real one had come, microseconds.
    done_us: u64,
    /// How old the kept one was, microseconds.
    age_us: u64,
    /// What the kept one hangs on, and when it began.
    feed: Arc<Feed>,
    traced: Traced,
    began_us: u64,
    /// Its shape is kept no more, for the time being.
    is_suspended: bool,
}

/// What is to be thought of a difference.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    /// Nobody can say yet.
    Open,
    Explained,
    /// Only what nobody tells of can explain it.
    Suspicious,
    Wrong,
}

impl Relay {
    /// Whether this hit is one of those that are compared.
    pub(super) fn is_verified(&mut self) -> bool {
        let share = self.config.cache.verify;
        if share <= 0.0 {
            return false;
        }
        self.draw() < share
    }

    /// A number from 0 up to 1, which is never reached.
    pub(super) fn draw(&mut self) -> f64 {
        // Marsaglia's xorshift: any number but 0 goes on for ever.
        self.dice ^= self.dice << 13;
        self.dice ^= self.dice >> 7;
        self.dice ^= self.dice << 17;
        ((self.dice >> 32) as f64) / (u64::from(u32::MAX) + 1) as f64
    }

    /// The real answer has come in place of a kept one; `real`: what it hangs on.
    pub(super) fn is_compared(
        &mut self,
        (group, shape): (GroupId, u64),
        kept: &Entry,
        (stamp, answer): (Stamp, &[u8]),
        real: Option<&Traced>,
    ) {
        let counters = &self.pools[self.groups[group].primary].counters;
        let is_same = *kept.answer == *answer;
        let age_us = stamp.began_us.saturating_sub(kept.stamp.began_us);
        if self.config.cache.mode != CacheMode::On {
            let count = if is_same { &counters.cache.shadow_matches } else { &counters.cache.shadow_mismatches };
            count.add(1);
            if !is_same {
                let (database, text) = (&self.groups[group].database, self.shapes.text(shape));
                let shape = format!("{shape:016x}");
                tracing::warn!(database, shape, age_us, "the cache would have given another answer: {text}");
            }
            return;
        }
        if is_same {
            return counters.cache.verified_same.add(1);
        }
        let shows_it = |traced: &&Traced| real.is_some_and(|real| real.lsn >= traced.lsn);
        let traced = kept.traced.as_ref().filter(shows_it);
        match (traced, &self.groups[group].feed) {
            (Some(traced), Some(feed)) if self.doubts.len() < DOUBTS => {
                let (counters, feed, traced) = (Arc::clone(counters), Arc::clone(feed), traced.clone());
                let (done_us, began_us, is_suspended) = (self.now_us, kept.stamp.began_us, false);
                self.doubts.push(Doubt { shape, counters, done_us, age_us, feed, traced, began_us, is_suspended });
            }
            _ => counters.cache.verified_changed.add(1),
        }
    }

    /// Looks whether differences can be explained by now.
    pub(super) fn sweep_doubts(&mut self) {
        if self.doubts.is_empty() {
            return;
        }
        let refresh_us = self.config.pool.catalog_refresh.map_or(0, |refresh| refresh.as_micros() as u64);
        for mut doubt in std::mem::take(&mut self.doubts) {
            let verdict = doubt.verdict(self.now_us, refresh_us);
            match verdict {
                Verdict::Open => self.doubts.push(doubt),
                Verdict::Suspicious => {
                    if !std::mem::replace(&mut doubt.is_suspended, true) {
                        self.suspend(&doubt, false);
                    }
                    self.doubts.push(doubt);
                }
                Verdict::Explained => {
                    doubt.counters.cache.verified_changed.add(1);
                    if doubt.is_suspended
                        && let Some(store) = &self.cache
                    {
                        store.enable(&doubt.counters.target.database, doubt.shape);
                    }
                }
                Verdict::Wrong => self.is_wrong(&doubt),
            }
        }
    }

    fn suspend(&self, doubt: &Doubt, certain: bool) {
        if let Some(store) = &self.cache {
            store.disable(&doubt.counters.target.database, doubt.shape, certain);
        }
    }

    fn is_wrong(&self, doubt: &Doubt) {
        doubt.counters.cache.mismatches.add(1);
        self.suspend(doubt, true);
        let (database, text) = (&*doubt.counters.target.database, self.shapes.text(doubt.shape));
        tracing::error!(
            database,
            shape = format!("{:016x}", doubt.shape),
            age_us = doubt.age_us,
            "the cache had what no server would have said: no answer to this is kept any more until a reload: {text}"
        );
    }
}

impl Doubt {
    fn verdict(&self, now_us: u64, refresh_us: u64) -> Verdict {
        let looked_us = self.done_us.saturating_add(refresh_us).saturating_add(GRACE_US);
        // First how far everything is known, then what is.
        let fresh_us = self.feed.fresh_us();
        if !self.feed.holds(&self.traced, self.began_us) || now_us > looked_us.saturating_add(PATIENCE_US) {
            return Verdict::Explained;
        }
        match fresh_us {
            fresh_us if fresh_us > looked_us => Verdict::Wrong,
            fresh_us if fresh_us > self.done_us => Verdict::Suspicious,
            _ => Verdict::Open,
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::cache::marks::Dependency;
    use crate::meter::PoolTarget;

    fn doubt() -> Doubt {
        let feed = Arc::new(Feed::new("shop", Arc::default()));
        feed.begins(7, 1, 500, 1);
        feed.beats(10, 600);
        let traced = feed.trace(&[16384], None).unwrap();
        let target = PoolTarget { database: "shop".into(), user: "u".into(), host: "h".into(), pool: "default".into() };
        Doubt {
            shape: 5,
            counters: Arc::new(PoolCounters::new(target)),
            done_us: 100,
            age_us: 80,
            feed,
            traced,
            began_us: 20,
            is_suspended: false,
        }
    }

    #[test]
    fn a_difference_is_wrong_only_if_nothing_explains_it() {
        let refresh_us = 1_000;
        let late_us = 100 + refresh_us + GRACE_US + 1;
        let doubt = doubt();
        assert_eq!(doubt.verdict(110, refresh_us), Verdict::Open, "a change may be on its way");
        doubt.feed.beats(101, 700);
        assert_eq!(doubt.verdict(120, refresh_us), Verdict::Suspicious);
        doubt.feed.changed(Dependency::Relation(16385), 650);
        doubt.feed.beats(late_us, 800);
        assert_eq!(doubt.verdict(late_us + 1, refresh_us), Verdict::Wrong);
        doubt.feed.changed(Dependency::Relation(16384), 590);
        assert_eq!(doubt.verdict(late_us + 1, refresh_us), Verdict::Wrong, "both show it");
        doubt.feed.changed(Dependency::Relation(16384), 650);
        assert_eq!(doubt.verdict(late_us + 1, refresh_us), Verdict::Explained);
    }

    #[test]
    fn what_cannot_be_found_out_is_no_mismatch() {
        let doubt = doubt();
        assert_eq!(doubt.verdict(100 + GRACE_US + PATIENCE_US + 1, 0), Verdict::Explained, "nothing is heard");
        doubt.feed.void(50);
        assert_eq!(doubt.verdict(110, 0), Verdict::Explained, "something changed that has no place in the log");
    }
}
