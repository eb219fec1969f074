//! Writes that pass through any pgweir, counted in Redis around what they do: what fenced answers are held against.
//! Must never call an answer good that lacks a write of which anybody could know.
//!
//! # What is counted
//!
//! In a hash of Redis, per table (by its OID), for everything at once ([`ALL`]) and for the schema ([`SCHEMA`]): `b`, writes begun, and `e`, writes ended. Neither
//! ever falls. Before a statement that may change rows goes to its server, `b` is raised for all that it may change ([`crate::sql::writes`]), and only when Redis has
//! said that it is, it goes. When the transaction has ended, and its outcome is known, `e` is raised for the same; nobody waits for that. As long as `b ≠ e`
//! some write is *in doubt*.
//!
//! - A *fill* takes a stamp: for all tables that its answer hangs on, and for everything, a `b` that equals its `e`, as Redis has told before the query was sent
//!   to the primary. How long before does not matter: an older one only makes the answer useless.
//! - A *hit* asks Redis for each of these `b`, after its client has asked: it is given only if none has changed since its stamp. Requests that come while a
//!   question is under way share the next one.
//!
//! # Theorem
//!
//! An answer given shows every write through any pgweir of which anybody was told before its client asked, or which anybody could see by then.
//!
//! Say `w` changed one of its tables, and was visible before the client asked; its `b` was raised before that, as it went to the server later. So the hit's question
//! sees a `b` that counts `w`, and, as the answer is given, so does its stamp; whose `e` equals that `b`, hence counts `w`: `w` had ended before the stamp was
//! taken, and was visible to the query that was sent afterwards, to the primary. ∎ Every other write that is not shown is one that nobody can have seen.
//!
//! *What another process has kept* has its life and its counts with it ([`super::remote::hold`]), which are as true here. But in a life there may be writes that nobody has counted (see below). Who
//! sees that they are over begins another session; so of others' answers those count that began later than that.
//!
//! What passes by every pgweir is not counted: of that the time that answers are good for is the only bound. So are writes through a pgweir that is configured
//! otherwise, and replication into the database.
//!
//! # What is not as it was
//!
//! *Redis.* The hash has Redis' own number of its run in its name, and in it its *life*, a word drawn by who made it: one that was restarted, from whatever file, emptied, or has
//! evicted it, has another, and no stamp of before counts. Each process also counts its own beats there, and asks with each question whether they are all still there: a hash that has
//! gone back in time is thrown away. A new life knows nothing of writes that have begun in another. So nobody stamps or gives anything in it until every process that is
//! *present* has entered its own; who is present is known from PostgreSQL, where each holds an advisory lock for as long as it lives.
//!
//! *A process that cannot reach Redis* still has to write. It says so where all can see it: with another advisory lock on the primary. Everybody asks the primary for
//! these locks several times a second, and gives nothing when the last answer is older than [`SIGHT`], or showed such a lock. So when it has held the lock for that
//! long and somewhat more, nobody gives anything, and it writes as if there was no fence: its writes wait once for somewhat more than a second and then not at all. When it
//! reaches Redis again it enters what is still under way, and lets go; whoever sees that begins anew, with nothing. If it has gone instead, and when a process
//! starts, as it cannot know who has gone before, all that runs in the database is waited for first. Who reaches neither Redis nor the primary with
//! its own connection refuses to write after [`PATIENCE`]: the only thing that it can do that is right.
//!
//! *Several Redis*, of which one has taken the other's place while some still reach that. Each process says with a lock that all share who have their counts in the same hash which that is, and
//! then waits until it has seen that nobody has another, or for [`STEP_ASIDE`], before it counts anything there. Nobody gives anything as long as the locks show anybody elsewhere.
//! So whoever gives an answer has seen, at most [`SIGHT`] ago, nobody elsewhere; and who has gone elsewhere since has not written yet.
//!
//! *A process that dies* leaves writes in doubt. The others see that it is no longer present. They note which transactions run on the primary, and when all
//! of these are over, its writes are, too; the same is done for one's own when a connection to a server was lost on its way. Only what gets to
//! the server later than that, out of a socket of a process that is not there any more, is missed: [`GRACE`] is waited before they look.
//!
//! # What it costs
//!
//! A write: one exchange with Redis before its first statement that writes, per transaction. A hit: a share of one. A miss: nothing. A process and database: one
//! connection to the primary and one to Redis. The lock in here is held for a moment when a write begins and ends.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use tokio::sync::Notify;
use tokio::time::timeout;

use super::remote::link::Link;
use crate::base::clock::now_us;

/// Stands for every table.
pub const ALL: u32 = 0;
/// Stands for what tables, views and functions there are, and what they do.
pub const SCHEMA: u32 = 1;

/// How old what is known of locks may be.
pub const SIGHT: Duration = Duration::from_millis(800);
/// How long who writes without a fence has waited before.
pub const STEP_ASIDE: Duration = Duration::from_secs(1);
/// How long a write waits at most before it is refused.
pub const PATIENCE: Duration = Duration::from_secs(10);
/// How long after a process has gone its last bytes may take to its servers.
pub const GRACE: Duration = Duration::from_secs(2);

/// Writes begun and ended, as they were told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// Begun.
    pub begun: u64,
    /// Ended.
    pub ended: u64,
}

impl Count {
    /// None is in doubt.
    #[must_use]
    pub fn is_settled(self) -> bool {
        self.begun == self.ended
    }
}

/// Under what an answer is good: see the head of this file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fenced {
    /// In which session of the process it was taken.
    pub session: u64,
    /// By table, ascending: how many writes had begun.
    pub begun: Box<[(u32, u64)]>,
}

impl Fenced {
    /// Whether none has begun since, by what was just told.
    #[must_use]
    pub fn holds(&self, session: u64, told: &BTreeMap<u32, Count>) -> bool {
        let same = |(table, begun): &(u32, u64)| told.get(table).is_some_and(|count| count.begun == *begun);
        self.session == session && self.begun.iter().all(same)
    }
}

/// From when the process has entered itself in Redis until anything goes wrong with that.
pub struct Session {
    /// Another one each time: nothing that was stamped in one counts in the next.
    pub number: u64,
    /// Name of the hash.
    pub hash: String,
    /// What stands there.
    pub life: String,
    /// When it began, microseconds: whatever was written without a fence, or in doubt for ever, was visible by then.
    pub since_us: u64,
    /// The process.
    pub process: u32,
    /// The way there; none in tests.
    pub link: Option<Link>,
    /// How long an answer is waited for.
    pub limit: Duration,
}

impl Session {
    /// Whether counts of this life, that were told before an answer began, count here: all that nobody counted there was over when the session began.
    #[must_use]
    pub fn counts(&self, life: &str, began_us: u64) -> bool {
        *self.life == *life && began_us > self.since_us
    }
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Session({})", self.number)
    }
}

/// Writes under way.
#[derive(Debug, Default)]
struct UnderWay {
    next: u64,
    /// What each may change, as Redis has it.
    all: BTreeMap<u64, Box<str>>,
    /// Those whose outcome nobody will tell.
    lost: Vec<u64>,
}

/// What a process knows of the fence around one database; shared by who keeps it and all workers.
#[derive(Debug, Default)]
pub struct Fence {
    /// Held by who keeps it, or tries to.
    pub turn: tokio::sync::Mutex<()>,
    session: ArcSwapOption<Session>,
    /// The session in which all that are present have entered what they write.
    good: AtomicU64,
    /// When the locks were asked for that showed nobody who writes without a fence, microseconds; 0: they show one, or nothing is known.
    clear_us: AtomicU64,
    /// Since when writes may go without, microseconds; 0: they may not.
    open_us: AtomicU64,
    /// Somebody wants them to.
    wanted: AtomicBool,
    /// Own beats that Redis has counted.
    beats: AtomicU64,
    /// Changes of the schema as they were told last: begun and ended, 32 bits each.
    schema: AtomicU64,
    under_way: Mutex<UnderWay>,
    /// Rung when whoever keeps it has to look.
    pub bell: Notify,
    changed: Notify,
    /// Writes that were fenced, that went without, and that were refused.
    pub raised: AtomicU64,
    /// See there.
    pub unfenced: AtomicU64,
    /// See there.
    pub refused: AtomicU64,
}

/// What is said of tables in Redis: their numbers, with commas.
#[must_use]
pub fn listed(tables: &[u32]) -> Box<str> {
    let mut text = String::new();
    for table in tables {
        let _ = write!(text, "{}{table}", if text.is_empty() { "" } else { "," });
    }
    text.into()
}

impl Fence {
    fn ways(&self) -> MutexGuard<'_, UnderWay> {
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner)
    }

    // === what workers say and ask ===

    /// A write of this begins: its number.
    pub fn begins(&self, tables: &[u32]) -> u64 {
        let mut ways = self.ways();
        ways.next += 1;
        let number = ways.next;
        ways.all.insert(number, listed(tables));
        number
    }

    /// These have ended, or never went to a server.
    pub fn ended(&self, numbers: &[u64]) {
        let mut ways = self.ways();
        numbers.iter().for_each(|number| drop(ways.all.remove(number)));
    }

    /// The server that had these is lost: nobody will say what became of them.
    pub fn lost(&self, numbers: &[u64]) {
        self.ways().lost.extend(numbers);
        self.bell.notify_one();
    }

    /// How many are under way.
    pub fn under_way(&self) -> usize {
        self.ways().all.len()
    }

    /// The session, if there is one.
    pub fn session(&self) -> Option<Arc<Session>> {
        self.session.load_full()
    }

    /// The session in which answers may be stamped and given now.
    pub fn serves(&self) -> Option<Arc<Session>> {
        let clear_us = self.clear_us.load(Acquire);
        let is_clear = clear_us > 0 && now_us().saturating_sub(clear_us) <= SIGHT.as_micros() as u64;
        self.session().filter(|session| is_clear && self.good.load(Acquire) == session.number)
    }

    /// Writes may go without a fence now.
    pub fn is_open(&self) -> bool {
        let open_us = self.open_us.load(Acquire);
        open_us > 0 && now_us() >= open_us
    }

    /// Redis was not reached, or says something else, in this session: it is over.
    pub fn fails(&self, session: u64) {
        if self.session.load().as_ref().is_some_and(|known| known.number == session) {
            self.ends();
            self.wanted.store(true, Release);
            self.bell.notify_one();
        }
    }

    /// Waits until something is another than before, or a moment.
    pub async fn changes(&self) {
        self.wanted.store(true, Release);
        self.bell.notify_one();
        let _ = timeout(Duration::from_millis(10), self.changed.notified()).await;
    }

    /// Own beats that Redis must have.
    pub fn beats(&self) -> u64 {
        self.beats.load(Acquire)
    }

    /// What was told of changes of the schema. If it is something else than before, that is made known before it counts.
    pub fn sees_schema(&self, count: Count, changed: impl FnOnce()) {
        let told = packed(count);
        if self.schema.load(Acquire) != told {
            changed();
            self.schema.store(told, Release);
        }
    }

    /// That is what was told last, and none is in doubt.
    pub fn is_of_schema(&self, count: Count) -> bool {
        count.is_settled() && self.schema.load(Acquire) == packed(count)
    }

    /// What was told last.
    pub fn schema(&self) -> Count {
        let told = self.schema.load(Acquire);
        Count { begun: told >> 32, ended: told & u64::from(u32::MAX) }
    }

    // === what its keeper says and asks ===

    /// All that are under way, in ascending order, and the greatest number given so far.
    pub fn all(&self) -> (u64, Vec<(u64, Box<str>)>) {
        let ways = self.ways();
        (ways.next, ways.all.iter().map(|(number, tables)| (*number, tables.clone())).collect())
    }

    /// Those that were lost since this was called last.
    pub fn take_lost(&self) -> Vec<u64> {
        std::mem::take(&mut self.ways().lost)
    }

    /// Whether somebody wants to write and cannot.
    pub fn take_wanted(&self) -> bool {
        self.wanted.swap(false, AcqRel)
    }

    /// The process has entered itself; Redis has counted so many of its beats.
    pub fn enters(&self, session: Session, beats: u64) {
        self.beats.store(beats, Release);
        self.session.store(Some(Arc::new(session)));
        self.changed.notify_waiters();
    }

    /// Redis has counted another beat.
    pub fn beat(&self, beats: u64) {
        self.beats.store(beats, Release);
    }

    /// Everybody who is present has entered himself in what this session is of.
    pub fn is_good(&self, session: u64) {
        self.good.store(session, Release);
    }

    /// The session is over.
    pub fn ends(&self) {
        self.good.store(0, Release);
        self.session.store(None);
        self.changed.notify_waiters();
    }

    /// Locks that were asked for at this time show nobody who writes without a fence; 0: somebody does, or nothing is known.
    pub fn clear(&self, asked_us: u64) {
        self.clear_us.store(asked_us, Release);
    }

    /// From then on writes may go without, microseconds; 0: not any more.
    pub fn opens(&self, from_us: u64) {
        self.open_us.store(from_us, Release);
        self.changed.notify_waiters();
    }

    /// Whether it is open, or about to be.
    pub fn opening(&self) -> bool {
        self.open_us.load(Relaxed) > 0
    }
}

fn packed(count: Count) -> u64 {
    (count.begun << 32) | (count.ended & u64::from(u32::MAX))
}

#[cfg(test)]
#[path = "fence_tests.rs"]
mod tests;
