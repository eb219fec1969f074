//! One host: what it was seen to be, how far it has come, and how it does.
//! Must never take a lock on the data path: everything that is read there is an atomic.

use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64};
use std::sync::{Arc, Mutex};

use tokio::sync::Notify;

use super::breaker::Breaker;
use super::cluster::Lsn;
use super::held_up::HeldUp;
use crate::base::clock;
use crate::config::Endpoint;

/// What a host was seen to be when it was asked last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Standing {
    /// It was not asked yet.
    Unknown,
    /// It does not answer.
    Down,
    /// It follows another.
    Standby,
    /// It is not in recovery.
    Primary,
}

/// What a host says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Says {
    /// It is in recovery.
    pub standby: bool,
    /// How far it has replayed, or written; 0 if it does not say.
    pub lsn: Lsn,
    /// What nobody can have read more than there.
    pub shown: Lsn,
    /// Its timeline; 0 if it does not say.
    pub timeline: u32,
}

/// One host.
#[derive(Debug)]
pub struct Member {
    /// Where it is.
    pub endpoint: Endpoint,
    /// Held by who asks it.
    pub asking: tokio::sync::Mutex<()>,
    /// Wakes who asks it: somebody waits for an answer, or something has happened to it.
    pub wake: Notify,
    /// What real traffic says of it.
    pub breaker: Arc<Breaker>,
    pub(super) standing: AtomicU8,
    pub(super) timeline: AtomicU32,
    /// The newest timeline on which it was seen where the primary was.
    pub(super) follows: AtomicU32,
    /// It was said that it may follow an older timeline.
    pub(super) strays: AtomicBool,
    /// It has other settings than the primary.
    pub(super) unlike: AtomicBool,
    pub(super) replayed: AtomicU64,
    /// What nobody can have read more than there, by the same answer.
    pub(super) shown: AtomicU64,
    /// What it must have replayed to be read from again, and the last question that was sent to it before that was so: the
    /// connection that asks it was lost, and a standby that has crashed begins further back than it was.
    due: AtomicU64,
    due_after: AtomicU64,
    /// Questions sent to it, and the last of them that was answered.
    pub(super) asked: AtomicU64,
    pub(super) answered: AtomicU64,
    /// When the last one was sent, and when the last that was answered, microseconds.
    asked_us: AtomicU64,
    as_of_us: AtomicU64,
    /// When it answered last what it is, microseconds.
    heard_us: AtomicU64,
    /// When the primary was first seen to be further than this has replayed, as of its last answer, microseconds; 0 if it
    /// has all that was seen.
    behind_us: AtomicU64,
    /// When it came back after it was away, microseconds; 0 if it never was.
    back_us: AtomicU64,
    /// How long statements take on it, microseconds.
    latency_us: AtomicU64,
    /// As a primary: transactions are under READ COMMITTED there unless somebody says otherwise.
    read_committed: AtomicBool,
    /// Somebody waits for its position.
    wanted: AtomicBool,
    /// It is to be asked at once what it is.
    hurried: AtomicBool,
    /// The connection that asks it is in somebody's way.
    in_the_way: AtomicBool,
    /// Who waits for tables there.
    pub(super) held_up: Mutex<HeldUp>,
    pub(super) locks_wanted: AtomicBool,
}

impl Member {
    pub(super) fn new(endpoint: Endpoint, standing: Standing) -> Self {
        Self {
            endpoint,
            asking: tokio::sync::Mutex::default(),
            wake: Notify::new(),
            breaker: Arc::default(),
            standing: AtomicU8::new(standing as u8),
            timeline: AtomicU32::new(0),
            follows: AtomicU32::new(0),
            strays: AtomicBool::new(false),
            unlike: AtomicBool::new(false),
            replayed: AtomicU64::new(0),
            shown: AtomicU64::new(0),
            due: AtomicU64::new(0),
            due_after: AtomicU64::new(0),
            asked: AtomicU64::new(0),
            answered: AtomicU64::new(0),
            asked_us: AtomicU64::new(0),
            as_of_us: AtomicU64::new(0),
            heard_us: AtomicU64::new(0),
            behind_us: AtomicU64::new(0),
            back_us: AtomicU64::new(0),
            latency_us: AtomicU64::new(0),
            read_committed: AtomicBool::new(false),
            wanted: AtomicBool::new(false),
            hurried: AtomicBool::new(false),
            in_the_way: AtomicBool::new(false),
            held_up: Mutex::default(),
            locks_wanted: AtomicBool::new(false),
        }
    }

    /// It has answered what it is.
    pub(super) fn is_heard(&self, now_us: u64) {
        self.heard_us.store(now_us, Relaxed);
    }

    /// Takes over what was seen of the same host for another cluster, if that was a moment ago; whether it was.
    pub(super) fn succeed(&mut self, before: &Self, now_us: u64) -> bool {
        /// Several of the shortest usual intervals, and less than it takes to decide on a promotion.
        const MOMENT_US: u64 = 2_000_000;
        let copy = |to: &AtomicU64, from: &AtomicU64| to.store(from.load(SeqCst), SeqCst);
        copy(&self.back_us, &before.back_us);
        copy(&self.latency_us, &before.latency_us);
        self.breaker = Arc::clone(&before.breaker);
        let heard_us = before.heard_us.load(Relaxed);
        if before.standing() == Standing::Unknown || heard_us == 0 || now_us.saturating_sub(heard_us) > MOMENT_US {
            return false;
        }
        copy(&self.heard_us, &before.heard_us);
        copy(&self.replayed, &before.replayed);
        copy(&self.shown, &before.shown);
        copy(&self.due, &before.due);
        copy(&self.behind_us, &before.behind_us);
        self.timeline.store(before.timeline.load(SeqCst), SeqCst);
        self.unlike.store(before.unlike.load(SeqCst), SeqCst);
        self.follows.store(before.follows.load(SeqCst), SeqCst);
        self.standing.store(before.standing() as u8, SeqCst);
        true
    }

    /// What it was seen to be.
    pub fn standing(&self) -> Standing {
        match self.standing.load(SeqCst) {
            s if s == Standing::Down as u8 => Standing::Down,
            s if s == Standing::Standby as u8 => Standing::Standby,
            s if s == Standing::Primary as u8 => Standing::Primary,
            _ => Standing::Unknown,
        }
    }

    /// Says whether transactions are under READ COMMITTED there for everybody who says nothing else.
    pub fn tell_read_committed(&self, is: bool) {
        self.read_committed.store(is, Relaxed);
    }

    /// Whether they were when it was asked last, as a primary.
    pub fn is_read_committed(&self) -> bool {
        self.read_committed.load(Relaxed)
    }

    /// A question is about to be sent to it; its number.
    pub fn ask(&self) -> u64 {
        self.asked_us.store(clock::now_us(), Relaxed);
        self.asked.fetch_add(1, SeqCst) + 1
    }

    /// It has replayed so much by question `number`.
    pub(super) fn replayed_by(&self, number: u64, lsn: Lsn, shown: Lsn) {
        if lsn >= self.due.load(SeqCst) && number > self.due_after.load(SeqCst) {
            self.due.store(0, SeqCst);
        }
        // In this order: who sees the number sees a position that is no older.
        self.replayed.store(lsn, SeqCst);
        self.shown.store(shown, SeqCst);
        self.answered.store(number, SeqCst);
        self.as_of_us.store(self.asked_us.load(Relaxed), Relaxed);
    }

    /// Whether it was asked after this time, microseconds, and had not replayed so much.
    pub(super) fn lacked(&self, lsn: Lsn, after_us: u64) -> bool {
        self.as_of_us.load(Relaxed) > after_us && self.replayed.load(SeqCst) < lsn
    }

    /// Nobody knows whether it goes on where it was: first it must have again what it may have shown.
    pub(super) fn is_doubted(&self) {
        self.due_after.store(self.asked.load(SeqCst), SeqCst);
        self.due.fetch_max(self.shown.load(SeqCst), SeqCst);
    }

    /// It follows another timeline: positions of the one before say nothing.
    pub(super) fn begins_anew(&self) {
        self.due.store(0, SeqCst);
    }

    /// Whether it has, as far as is known, all that was ever read from it.
    pub(super) fn is_certain(&self) -> bool {
        self.due.load(SeqCst) == 0
    }

    /// Somebody waits for its position; says so once.
    pub fn take_wanted(&self) -> bool {
        self.wanted.swap(false, SeqCst)
    }

    /// It is to be asked at once what it is.
    pub fn take_hurried(&self) -> bool {
        self.hurried.swap(false, SeqCst)
    }

    /// The connection that asks it is to be closed.
    pub fn take_in_the_way(&self) -> bool {
        self.in_the_way.swap(false, SeqCst)
    }

    pub(super) fn want(&self) {
        // The one who asks is woken once per answer, by whoever is first.
        if !self.wanted.swap(true, SeqCst) {
            self.wake.notify_one();
        }
    }

    /// The connection that asks it is in somebody's way.
    pub fn step_aside(&self) {
        self.in_the_way.store(true, SeqCst);
        self.wake.notify_one();
    }

    /// Something has happened to it.
    pub fn hurry(&self) {
        self.hurried.store(true, SeqCst);
        self.wake.notify_one();
    }

    /// Its timeline; 0 if it is not known.
    pub fn timeline(&self) -> u32 {
        self.timeline.load(SeqCst)
    }

    /// Since when it has been behind; 0: it is not.
    pub(super) fn is_behind_since(&self, us: u64) {
        self.behind_us.store(us, Relaxed);
    }

    /// How long ago the primary was where this has not come to yet, microseconds; 0 if it had all that was known when it
    /// was asked last. As precise as the hosts are asked often.
    pub fn lag_us(&self, now_us: u64) -> u64 {
        match self.behind_us.load(Relaxed) {
            0 => 0,
            since_us => now_us.saturating_sub(since_us),
        }
    }

    /// It was away and takes part again.
    pub fn is_back(&self, now_us: u64) {
        self.back_us.store(now_us.max(1), Relaxed);
    }

    /// How much of its share of reads it is to have, in thousandths: little when it has just come back, all of it
    /// `slow_start_us` later.
    pub fn share(&self, now_us: u64, slow_start_us: u64) -> u32 {
        /// Or nothing would ever warm it.
        const LEAST: u64 = 20;
        let back_us = self.back_us.load(Relaxed);
        let for_us = now_us.saturating_sub(back_us);
        if back_us == 0 || for_us >= slow_start_us {
            return 1000;
        }
        (for_us.saturating_mul(1000) / slow_start_us).clamp(LEAST, 1000) as u32
    }

    /// Notes how long statements take on it, microseconds.
    pub fn takes(&self, us: u64) {
        self.latency_us.store(us, Relaxed);
    }

    /// What was noted last; 0 if nothing was.
    pub fn latency_us(&self) -> u64 {
        self.latency_us.load(Relaxed)
    }
}
