//! What the stream of a database's changes has told: how new what is known of them is, and up to where fresh answers show everything.
//! Must never say that something is known before all marks are set that belong to it.
//!
//! Answers that hang on a stream ([`Traced`]) are good as long as nothing of what they hang on has changed, and are looked after in no other
//! way: who gives one compares numbers, and nothing is ever taken out of a store because of a write. The stream is `relay::stream`'s, one
//! per process and database: a temporary logical slot on the primary, read with `pgoutput`.
//!
//! # What is known when
//!
//! - `commit x` ends at `end(x)` in the write-ahead log. It is *visible* when a snapshot shows it; that may be long after it was written,
//!   and later than commits behind it ([`super::unseen`]). The stream brings commits in the order of their ends, all those that end
//!   behind `F`, the slot's consistent point, visible or not (of two-phase commits: the end of COMMIT PREPARED).
//! - A *heartbeat* `j` begins at time `σj` of this process's clock. On an ordinary connection to the primary, in this order: the position
//!   `lj` up to which the log is written, a snapshot `Sj`, and a message into the log, in a transaction of its own. When that comes back
//!   through the stream, everything that ended before it has come before.
//! - **Marks** ([`super::marks`]): for each commit of which the stream has told, `mark[s] ≥ end(x)` for each slot `s` of what it changed.
//!
//! # Up to where an answer shows everything: `r`
//!
//! *From a replica*: what it had replayed before the read began. A replica shows a commit once it has replayed it, waiting for nobody.
//!
//! *From the primary*: the greatest `rj = min(lj, end(x) − 1 for each x that the stream has brought and Sj does not show)` known before
//! the read began. Say `x` ends at or before `rj`. If it ends behind `F`, the stream has brought it, as `rj ≤ lj`, and so `Sj` shows it,
//! or `rj` would be smaller. If it ends before `F` the stream never will; but then its number is smaller than that of a transaction that
//! begins after the slot was made (`gate`), and no heartbeat counts before its snapshot's `xmin` is behind the gate: that shows it, if
//! it has committed. (The slot itself does not wait for such a commit, if it began late enough.) Either way it is visible from `Sj` on,
//! hence in every snapshot of a read that begins later on that server.
//!
//! # Theorem
//!
//! An answer given at time `t` shows everything of its tables that anybody could see, or was told of, before `fresh`, and
//! `t − fresh ≤ max_staleness`.
//!
//! Given is an answer only if: (1) `fresh = σj` of a heartbeat that has come back; (2) `F ≤ r`; (3) `mark[s] ≤ r` for all `s` that it hangs
//! on. Say `x` changed one of its tables, and somebody saw it, or was told of its commit, before `σj`. Its record was in the log before
//! that, hence before the message of `j`: `end(x) < end(j)`. Either `end(x) ≤ F ≤ r`, and it is shown. Or the stream has brought it before
//! `j`; its mark was set before `σj` was published (release), and who gives the answer has read `fresh` first (acquire), so it sees
//! `mark[s] ≥ end(x)`, and with (3) `end(x) ≤ r`: it is shown. ∎
//!
//! - *Synchronous replication*, where a commit is in the log and waits: an answer that was filled meanwhile has `r < end(x)`, as no `Sj`
//!   shows `x`, but its slot has the mark: it is never given. The heartbeats themselves wait for no standby (`synchronous_commit = local`).
//! - *Subtransactions* are changes of their top-level transaction, of which alone the stream and `Sj` speak. *Asynchronous commits* come
//!   before the heartbeat's in the log, which is made durable with all that is before it.
//! - *Who gives an answer* takes the time from the beginning of its turn, which is some milliseconds ago at most.
//! - *A stream that was lost*: nothing is published any more. The next one voids everything of before ([`Dependency::Life`]): whose `r` is of
//!   another history, after a failover or a restore, is never compared.
//! - *What another process has kept* has its history and its `r` with it ([`super::remote::hold`]). (1) to (3) are asked of it here, with the slots that this process finds for the statement: `r` is
//!   true of the answer, whoever has found it out. Its schema is the one of its key.
//!
//! # What an answer hangs on
//!
//! What reads a row by its whole replica identity, as `WHERE id = 5`, hangs on the rows of that key, all others on all rows of their tables; of each change of which
//! the key is told, the old one and the new, both are marked, of others all rows ([`super::row`]).
//!
//! That is found in the catalog (`relay::traced`), and is right as of when that was read. Event triggers of the operator's
//! (`config/cache.sql`) write a message at each change of the schema; its commit marks [`Dependency::Schema`], on which every answer hangs,
//! and no heartbeat behind it counts until a snapshot shows it, the catalogs of all workers are told to be read again, and what began
//! before is void. From then on nothing is traced until they were. So it is with the first heartbeat of a stream that counts: of what the
//! schema became before, nobody has told. Without triggers, and for what they do not see (roles, memberships, settings of roles), a summary
//! of all that is compared every `catalog_refresh`: so long, and `max_staleness`, such changes may stay unnoticed. Each heartbeat says whether
//! the publication is another; then the stream ends, and the next one begins with everything void, as what was changed while a table was
//! out of it has not come.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64};

use arc_swap::ArcSwap;

use super::marks::{Dependency, Marks};
use super::row::Identity;

/// What an answer hangs on, and up to where it shows everything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Traced {
    /// Slots of [`Marks`].
    pub slots: Box<[u32]>,
    /// Which write-ahead log that is of: another one's positions say nothing of it.
    pub history: u64,
    /// It shows all commits of that which end here or before.
    pub lsn: u64,
}

/// A relation, as far as the publication is concerned.
#[derive(Debug)]
pub struct Table {
    /// Its name, with its schema.
    pub name: Box<str>,
    /// Why its changes do not come, if they do not.
    pub lack: Option<Box<str>>,
    /// It has rows of its own: it is no view, and not cut into partitions.
    pub has_rows: bool,
    /// By what its rows are told, as far as answers can hang on one; of a table in partitions, by what they should be.
    pub identity: Option<Identity>,
    /// That was logged.
    told: AtomicBool,
}

impl Table {
    /// A relation of this name; `lack`: why its changes do not come.
    #[must_use]
    pub fn new(name: &str, lack: Option<&str>, has_rows: bool) -> Self {
        Self { name: name.into(), lack: lack.map(Box::from), has_rows, identity: None, told: AtomicBool::new(false) }
    }

    /// The same, whose rows are told by this.
    #[must_use]
    pub fn told_by(self, identity: Option<Identity>) -> Self {
        Self { identity, ..self }
    }
}

impl PartialEq for Table {
    fn eq(&self, other: &Self) -> bool {
        let all = |it: &Self| (it.has_rows, it.identity.clone());
        (&self.name, &self.lack, all(self)) == (&other.name, &other.lack, all(other))
    }
}

/// All relations by OID.
pub type Tables = HashMap<u32, Table>;

/// What is known of the changes of one database; shared by the stream, which writes, and all workers.
#[derive(Debug)]
pub struct Feed {
    database: Box<str>,
    marks: Arc<Marks>,
    /// Held by who follows the stream, or tries to.
    pub turn: tokio::sync::Mutex<()>,
    /// Which write-ahead log positions are of; 0: none.
    history: AtomicU64,
    /// Timeline of that.
    timeline: AtomicU32,
    /// The slot's consistent point.
    since: AtomicU64,
    /// When positions of it had gone back, microseconds: told apart from what they were. 0: never.
    turned: AtomicU64,
    /// All that ends here or before is visible on the primary.
    safe: AtomicU64,
    /// Everything that was visible by then is marked, microseconds; 0: nothing is known.
    fresh_us: AtomicU64,
    /// Somebody has asked since it was looked at last.
    used: AtomicBool,
    tables: ArcSwap<Tables>,
    /// How often `tables` was replaced; 0: never.
    version: AtomicU64,
}

impl Feed {
    /// Of a database of which nothing is known.
    #[must_use]
    pub fn new(database: &str, marks: Arc<Marks>) -> Self {
        Self {
            database: database.into(),
            marks,
            turn: tokio::sync::Mutex::default(),
            history: AtomicU64::new(0),
            timeline: AtomicU32::new(0),
            since: AtomicU64::new(0),
            turned: AtomicU64::new(0),
            safe: AtomicU64::new(0),
            fresh_us: AtomicU64::new(0),
            used: AtomicBool::new(false),
            tables: ArcSwap::default(),
            version: AtomicU64::new(0),
        }
    }

    // === what the stream says ===

    /// A stream has begun: it will bring what ends behind `since` of this history. What was kept before is void.
    pub fn begins(&self, history: u64, timeline: u32, since: u64, now_us: u64) {
        self.ends();
        self.void(now_us);
        // Positions have gone back: the files are others, of the same server and timeline. Nothing that was marked before is meant.
        if since < self.safe.load(Relaxed).max(self.since.load(Relaxed)) {
            self.turned.store(now_us, Relaxed);
        }
        let history = (history ^ self.turned.load(Relaxed)).max(1);
        self.safe.store(0, Relaxed);
        self.since.store(since, Relaxed);
        self.timeline.store(timeline, Relaxed);
        self.history.store(history, Release);
    }

    /// The stream is lost: nothing is known from now on.
    pub fn ends(&self) {
        self.fresh_us.store(0, Relaxed);
        self.history.store(0, Release);
    }

    /// A commit that ends here has changed this.
    pub fn changed(&self, what: Dependency<'_>, end: u64) {
        self.marks.changed(what.slot(&self.database, self.history.load(Relaxed)), end);
    }

    /// What began by then is void.
    pub fn void(&self, now_us: u64) {
        self.marks.void(Dependency::Life.slot(&self.database, 0), now_us);
    }

    /// The publication was read.
    pub fn set_tables(&self, tables: Tables) {
        for (oid, before) in self.tables.load().iter() {
            let told = before.told.load(Relaxed);
            tables.get(oid).into_iter().for_each(|table| table.told.store(told, Relaxed));
        }
        self.tables.store(Arc::new(tables));
        self.version.fetch_add(1, Release);
    }

    /// A heartbeat of `sent_us` has come back, and everything before it is marked. All that ends at `safe` or before is visible on the primary.
    pub fn beats(&self, sent_us: u64, safe: u64) {
        self.safe.fetch_max(safe, Release);
        self.fresh_us.store(sent_us, Release);
    }

    /// Whether somebody has asked since this was called last.
    pub fn take_used(&self) -> bool {
        self.used.swap(false, Relaxed)
    }

    // === what workers ask ===

    /// Everything that was visible by then is known, microseconds; 0: nothing is. What is asked of marks afterwards is as new.
    pub fn fresh_us(&self) -> u64 {
        // A line that nobody writes to stays with all who read it.
        if !self.used.load(Relaxed) {
            self.used.store(true, Relaxed);
        }
        self.fresh_us.load(Acquire)
    }

    /// The timeline whose changes it tells of.
    pub fn timeline(&self) -> u32 {
        self.timeline.load(Relaxed)
    }

    /// Whether nothing that the answer hangs on has changed, of what was known when [`Feed::fresh_us`] was asked.
    pub fn holds(&self, traced: &Traced, began_us: u64) -> bool {
        traced.lsn >= self.since.load(Relaxed) && self.marks.hold(&traced.slots, traced.lsn, began_us)
    }

    /// The publication, and the number of that state of it; `None` while it was never read.
    pub fn tables(&self) -> Option<(Arc<Tables>, u64)> {
        let version = self.version();
        (version > 0).then(|| (self.tables.load_full(), version))
    }

    /// How often the publication was read anew.
    pub fn version(&self) -> u64 {
        self.version.load(Acquire)
    }

    /// What a read that is about to begin, on a replica that has replayed so much or on the primary, will hang on: these relations, and what
    /// every answer of the database does. `None` while nothing is known.
    pub fn trace(&self, relations: &[u32], replayed: Option<u64>) -> Option<Traced> {
        self.trace_all(relations.iter().map(|oid| Dependency::Relation(*oid)), replayed)
    }

    /// The same of a read of what has one key in these relations, each with the key as [`super::row`] has it.
    pub fn trace_rows(&self, keys: &[(u32, u64)], replayed: Option<u64>) -> Option<Traced> {
        let both = |(oid, key): &(u32, u64)| [Dependency::Rows(*oid), Dependency::Row(*oid, *key)];
        self.trace_all(keys.iter().flat_map(both), replayed)
    }

    fn trace_all<'a>(&self, of: impl Iterator<Item = Dependency<'a>>, replayed: Option<u64>) -> Option<Traced> {
        let history = self.history.load(Acquire);
        let lsn = replayed.unwrap_or_else(|| self.safe.load(Acquire));
        let all = [Dependency::Life, Dependency::Schema].into_iter();
        let slots = all.chain(of).map(|it| it.slot(&self.database, history)).collect();
        // Another stream may have begun in between.
        let is_of_it = history != 0 && self.history.load(Acquire) == history;
        (is_of_it && lsn > 0).then_some(Traced { slots, history, lsn })
    }

    /// Says once in the log that the changes of this relation do not come, if they do not.
    pub fn complain(&self, table: &Table) {
        if let Some(lack) = &table.lack
            && !table.told.load(Relaxed)
            && !table.told.swap(true, Relaxed)
        {
            let database = &*self.database;
            tracing::warn!(database, table = &*table.name, "answers that hang on it are not kept: {lack}");
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_good_until_something_of_it_changes() {
        let feed = Feed::new("shop", Arc::default());
        assert!(feed.trace(&[16384], Some(900)).is_none() && feed.fresh_us() == 0 && feed.tables().is_none());
        feed.begins(7, 1, 500, 10);
        assert!(feed.trace(&[16384], None).is_none(), "nothing is known to be visible on the primary");
        let old = feed.trace(&[16384], Some(499)).unwrap();
        assert!(!feed.holds(&old, 11), "what came before the stream is not known");
        feed.beats(20, 600);
        let (item, other) = (feed.trace(&[16384], None).unwrap(), feed.trace(&[16385], None).unwrap());
        assert!(item.lsn == 600 && feed.holds(&item, 21) && feed.holds(&other, 21) && feed.fresh_us() == 20);
        feed.changed(Dependency::Relation(16384), 650);
        assert!(!feed.holds(&item, 21) && feed.holds(&other, 21));
        // An older bound takes nothing back.
        feed.beats(30, 550);
        assert_eq!(feed.trace(&[], None).unwrap().lsn, 600);
        feed.beats(40, 700);
        assert!(feed.holds(&feed.trace(&[16384], None).unwrap(), 41));
        feed.changed(Dependency::Schema, 701);
        assert!(!feed.holds(&other, 21) && feed.holds(&feed.trace(&[16385], Some(701)).unwrap(), 41));
        feed.void(50);
        assert!(!feed.holds(&feed.trace(&[16385], Some(800)).unwrap(), 50));
    }

    #[test]
    fn nothing_outlives_its_stream() {
        let feed = Feed::new("shop", Arc::default());
        feed.begins(7, 1, 500, 10);
        feed.beats(20, 600);
        feed.changed(Dependency::Relation(16384), 550);
        let kept = feed.trace(&[16384], None).unwrap();
        feed.ends();
        assert!(feed.fresh_us() == 0 && feed.trace(&[16384], Some(900)).is_none());
        // Restored from before: positions begin anew, further down.
        feed.begins(8, 2, 100, 30);
        assert!(!feed.holds(&kept, 20), "{kept:?}");
        assert!(feed.trace(&[16384], None).is_none());
        feed.beats(40, 110);
        let kept = feed.trace(&[16384], None).unwrap();
        feed.changed(Dependency::Relation(16384), 105);
        assert!(feed.holds(&kept, 41), "marks of another history are not in the way");
        // From a copy of the files, on the same timeline.
        feed.begins(8, 2, 90, 50);
        feed.beats(60, 95);
        let kept = feed.trace(&[16384], None).unwrap();
        assert!(feed.holds(&kept, 61), "nor are those of positions that have gone back");
        feed.changed(Dependency::Relation(16384), 97);
        assert!(!feed.holds(&kept, 61));
    }
}
