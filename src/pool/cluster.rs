//! The hosts that hold a database, what each was seen to be, and which one takes writes; shared by all workers.
//! Must never call primary a host that was not seen to be one, nor one that another's timeline has left behind.
//!
//! One connection per host asks (`relay::watch`), whichever worker it lives on, and what it hears is kept here in atomics
//! that every worker reads. A host takes writes if it says that it is not in recovery, on the newest timeline that any
//! host was ever seen on: a promotion begins a new one (`StartupXLOG` in src/backend/access/transam/xlog.c), so an old
//! primary that comes back is known by its own.
//!
//! Positions: after a client has written its floor is the number of the last question that was sent to the primary by
//! then; the answer to a later one is a position which the commit cannot lie behind.

use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

pub use super::alike::Changed;
use super::alike::Settings;
pub use super::clusters::Clusters;
use super::heartbeat::{self, Heartbeats};
pub use super::member::{Member, Says, Standing};
pub use super::sight::{Floor, Lsn, Seen, Sight};
use crate::base::clock;
use crate::config::{Endpoint, Roles};

/// How long the first host that says it is the primary waits for the others to say what they are.
const PATIENCE: Duration = Duration::from_secs(1);
/// No host.
const NONE: usize = usize::MAX;

/// The hosts of one or more databases.
#[derive(Debug)]
pub struct Cluster {
    /// In the order of the configuration.
    pub members: Box<[Member]>,
    roles: Roles,
    /// Its members are asked what they are.
    watched: bool,
    /// Number of the member that takes writes, or [`NONE`].
    primary: AtomicUsize,
    /// Goes up whenever a member's standing or the primary changes.
    changes: AtomicU64,
    /// The newest timeline that was ever seen, also by those whose hosts these were before.
    pub(super) newest: Arc<AtomicU32>,
    /// Where that began, or before: up to here all have the same. 0 if nobody saw it begin.
    pub(super) fork: AtomicU64,
    /// Questions for the position of the primary, and the last that was answered, with the answer.
    asked: AtomicU64,
    answered: AtomicU64,
    position: AtomicU64,
    /// How far the primary is known to have written; 0 if that is not known.
    pub(super) written: AtomicU64,
    /// Clients that wait for a replica for a moment.
    readers: AtomicU64,
    pub(super) roles_set_us: AtomicU64,
    pub(super) deciding: Mutex<Deciding>,
}

#[derive(Debug, Default)]
pub(super) struct Deciding {
    /// When a member first said that it is the primary, while others have said nothing yet.
    since: Option<Instant>,
    /// Two claim to be the primary, and that was logged.
    disputed: bool,
    /// Where the primary was when.
    beats: Heartbeats,
    /// What each member's settings are.
    pub(super) settings: Settings,
    /// Rung when something has changed.
    bells: Vec<Weak<Notify>>,
}

impl Cluster {
    /// Of these hosts, the first of which is the primary if that is declared. A single one is not asked at all.
    #[must_use]
    pub fn new(endpoints: impl Iterator<Item = Endpoint>, roles: Roles) -> Self {
        let endpoints: Vec<Endpoint> = endpoints.collect();
        Self::of(&endpoints, roles, endpoints.len() > 1)
    }

    /// Of hosts that were found out: a single one may be anything.
    #[must_use]
    pub(super) fn found(endpoints: &[Endpoint]) -> Self {
        Self::of(endpoints, Roles::Found, true)
    }

    fn of(endpoints: &[Endpoint], roles: Roles, watched: bool) -> Self {
        let alone = !watched;
        let standing = if alone { Standing::Primary } else { Standing::Unknown };
        Self {
            members: endpoints.iter().map(|endpoint| Member::new(endpoint.clone(), standing)).collect(),
            roles,
            watched,
            primary: AtomicUsize::new(if alone || roles == Roles::Declared { 0 } else { NONE }),
            changes: AtomicU64::new(1),
            newest: Arc::default(),
            fork: AtomicU64::new(0),
            asked: AtomicU64::new(0),
            answered: AtomicU64::new(0),
            position: AtomicU64::new(0),
            written: AtomicU64::new(0),
            readers: AtomicU64::new(0),
            roles_set_us: AtomicU64::new(0),
            deciding: Mutex::default(),
        }
    }

    /// Whether its members are to be asked what they are.
    #[must_use]
    pub fn is_watched(&self) -> bool {
        self.watched
    }

    /// The same hosts as those of `before`, more or fewer: what was seen of these a moment ago holds for as long, and
    /// nobody has to wait until all were asked again. An older timeline than one seen there is never believed.
    pub(super) fn succeed(&mut self, before: &Self, now_us: u64) {
        let of_before = before.deciding.lock().unwrap_or_else(PoisonError::into_inner);
        for (number, member) in self.members.iter_mut().enumerate() {
            let Some(at) = before.members.iter().position(|it| it.endpoint == member.endpoint) else { continue };
            let known = before.members.get(at).is_some_and(|it| member.succeed(it, now_us));
            if known && before.primary() == Some(at) {
                self.primary.store(number, SeqCst);
                self.written.store(before.written.load(SeqCst), SeqCst);
            }
        }
        if let Ok(deciding) = self.deciding.get_mut() {
            deciding.beats = of_before.beats.clone();
        }
        self.fork.store(before.fork.load(SeqCst), SeqCst);
    }

    /// Whether this member takes itself for the primary, and another one's timeline has left it behind.
    #[must_use]
    pub fn is_left_behind(&self, number: usize) -> bool {
        let member = self.members.get(number).filter(|member| member.standing() == Standing::Primary);
        member.is_some_and(|member| member.timeline.load(SeqCst) < self.newest.load(SeqCst))
    }

    /// The member that takes writes, if there is one for certain.
    #[must_use]
    pub fn primary(&self) -> Option<usize> {
        Some(self.primary.load(SeqCst)).filter(|&number| number != NONE)
    }

    /// The newest timeline that was seen; 0 where none is asked for.
    #[must_use]
    pub fn newest_timeline(&self) -> u32 {
        self.newest.load(SeqCst)
    }

    /// How far a member has replayed for certain.
    #[must_use]
    pub fn replayed(&self, number: usize) -> Lsn {
        let member = self.members.get(number).filter(|member| member.is_certain());
        member.map_or(0, |member| member.replayed.load(SeqCst))
    }

    /// How often anything has changed.
    #[must_use]
    pub fn changes(&self) -> u64 {
        self.changes.load(SeqCst)
    }

    /// Rings `bell` from now on when something changes.
    pub fn tell(&self, bell: &Arc<Notify>) {
        let mut deciding = self.deciding.lock().unwrap_or_else(PoisonError::into_inner);
        deciding.bells.retain(|known| known.strong_count() > 0);
        if !deciding.bells.iter().any(|known| std::ptr::eq(known.as_ptr(), Arc::as_ptr(bell))) {
            deciding.bells.push(Arc::downgrade(bell));
        }
    }

    /// A member has answered its `question`.
    pub fn heard(&self, number: usize, question: u64, says: Says) {
        let Some(member) = self.members.get(number) else { return };
        let mut deciding = self.deciding.lock().unwrap_or_else(PoisonError::into_inner);
        let standing = if says.standby { Standing::Standby } else { Standing::Primary };
        if says.timeline > member.timeline.swap(says.timeline, SeqCst) {
            member.begins_anew();
        }
        if says.timeline > self.newest.fetch_max(says.timeline, SeqCst) {
            // Who is promoted has replayed no less than it said before.
            let replayed = if says.standby { 0 } else { member.replayed.load(SeqCst) };
            self.fork.store(replayed, SeqCst);
        }
        member.replayed_by(question, if says.standby { says.lsn } else { 0 }, says.shown);
        let now_us = clock::now_us();
        member.is_heard(now_us);
        let before = member.standing.swap(standing as u8, SeqCst);
        if before == Standing::Down as u8 {
            member.is_back(now_us);
        }
        self.decide(&mut deciding, before != standing as u8);
        if says.standby {
            member.is_behind_since(deciding.beats.passed(says.lsn));
            self.look_at_line(member);
        } else if self.primary() == Some(number) {
            deciding.beats.note(says.lsn, now_us);
            self.written.fetch_max(heartbeat::end(says.lsn), SeqCst);
            member.is_behind_since(0);
            // What it did as a replica says nothing of it now.
            member.breaker.works(u64::MAX);
        }
    }

    /// The connection on which a member was asked is gone.
    pub fn is_lost(&self, number: usize) {
        self.members.get(number).into_iter().for_each(Member::is_doubted);
    }

    /// A member does not answer: it is not there, or does not say anything in time.
    pub fn is_down(&self, number: usize) {
        let Some(member) = self.members.get(number) else { return };
        let mut deciding = self.deciding.lock().unwrap_or_else(PoisonError::into_inner);
        member.replayed.store(0, SeqCst);
        let before = member.standing.swap(Standing::Down as u8, SeqCst);
        self.decide(&mut deciding, before != Standing::Down as u8);
    }

    /// A member would not say what it is to whoever asked: it stays what it was, or its silence is as good as an answer.
    pub fn is_silent(&self, number: usize) {
        let mut deciding = self.deciding.lock().unwrap_or_else(PoisonError::into_inner);
        let unknown = self.members.get(number).filter(|member| member.standing() == Standing::Unknown);
        unknown.into_iter().for_each(|member| member.standing.store(Standing::Down as u8, SeqCst));
        self.decide(&mut deciding, unknown.is_some());
    }

    /// Something has happened to a member that may have changed what it is.
    pub fn hurry(&self) {
        if self.is_watched() {
            self.members.iter().for_each(Member::hurry);
        }
    }

    fn decide(&self, deciding: &mut Deciding, changed: bool) {
        let before = self.primary.load(SeqCst);
        let after = match self.roles {
            Roles::Declared => 0,
            Roles::Found => self.elected(deciding, before),
        };
        self.primary.store(after, SeqCst);
        if before != after {
            match self.members.get(after) {
                Some(member) => tracing::info!(
                    server = %member.endpoint, timeline = member.timeline.load(SeqCst), "the server takes writes"
                ),
                None => tracing::warn!("no server takes writes at the moment"),
            }
            deciding.beats.forget();
            self.written.store(0, SeqCst);
            // Who waited for an answer of the one before waits for one of this.
            self.members.iter().for_each(Member::want);
            self.look_at_settings(&deciding.settings);
        }
        if changed || before != after {
            self.changes.fetch_add(1, SeqCst);
            deciding.bells.iter().filter_map(Weak::upgrade).for_each(|bell| bell.notify_one());
        }
    }

    fn elected(&self, deciding: &mut Deciding, before: usize) -> usize {
        let newest = self.newest.load(SeqCst);
        let claims = |member: &Member| member.standing() == Standing::Primary && member.timeline.load(SeqCst) >= newest;
        let claimants: Vec<usize> =
            (0..self.members.len()).filter(|&n| self.members.get(n).is_some_and(claims)).collect();
        let disputed = claimants.len() > 1;
        if disputed && !std::mem::replace(&mut deciding.disputed, true) {
            let hosts = claimants.iter().filter_map(|&n| self.members.get(n)).map(|it| it.endpoint.to_string());
            let hosts = hosts.collect::<Vec<_>>().join(", ");
            tracing::error!("several servers say that they are the primary, on one timeline: {hosts}");
        }
        deciding.disputed &= disputed;
        match claimants[..] {
            [] => {
                deciding.since = None;
                NONE
            }
            _ if claimants.contains(&before) => before,
            [one] => {
                let since = *deciding.since.get_or_insert_with(Instant::now);
                let unheard = self.members.iter().any(|member| member.standing() == Standing::Unknown);
                if unheard && since.elapsed() < PATIENCE { NONE } else { one }
            }
            _ => NONE,
        }
    }

    /// A question for the position of the primary is about to be sent; its number.
    pub fn ask(&self) -> u64 {
        self.asked.fetch_add(1, SeqCst) + 1
    }

    /// A member answered question `number`. Void if it is not, or no longer, the primary.
    pub fn answer(&self, member: usize, number: u64, lsn: Lsn) {
        let deciding = self.deciding.lock().unwrap_or_else(PoisonError::into_inner);
        if self.primary.load(SeqCst) == member {
            // In this order: who sees the number sees a position that is no older.
            self.position.store(heartbeat::certain_end(lsn), SeqCst);
            self.answered.store(number, SeqCst);
            self.written.fetch_max(heartbeat::end(lsn), SeqCst);
        }
        drop(deciding);
        self.ring_for_readers();
    }

    /// A standby said how far it is by its `question`.
    pub fn replay(&self, number: usize, question: u64, lsn: Lsn, shown: Lsn) {
        if let Some(member) = self.members.get(number) {
            member.replayed_by(question, lsn, shown);
            self.look_at_line(member);
            // Only who is behind can have caught up.
            if member.lag_us(u64::MAX) > 0 {
                let deciding = self.deciding.lock().unwrap_or_else(PoisonError::into_inner);
                member.is_behind_since(deciding.beats.passed(lsn));
            }
        }
        self.ring_for_readers();
    }

    /// Somebody waits for a moment until a replica may serve it: bells are rung at each answer until
    /// [`Cluster::waits_no_more`].
    pub fn waits(&self) {
        self.readers.fetch_add(1, SeqCst);
    }

    /// One of them does not wait any more.
    pub fn waits_no_more(&self) {
        self.readers.fetch_sub(1, SeqCst);
    }

    fn ring_for_readers(&self) {
        if self.readers.load(SeqCst) > 0 {
            let deciding = self.deciding.lock().unwrap_or_else(PoisonError::into_inner);
            deciding.bells.iter().filter_map(Weak::upgrade).for_each(|bell| bell.notify_one());
        }
    }

    /// The floor of a client that has just written.
    #[must_use]
    pub fn wrote(&self) -> Floor {
        let floor = Floor::After(self.asked.load(SeqCst));
        if let Some(primary) = self.primary().and_then(|number| self.members.get(number)) {
            primary.want();
        }
        floor
    }

    /// A floor as far as it is known by now.
    #[must_use]
    pub fn settle(&self, floor: Floor) -> Floor {
        let floor = match floor {
            Floor::None => return Floor::None,
            Floor::After(number) if self.answered.load(SeqCst) > number => Floor::At(self.position.load(SeqCst)),
            other => other,
        };
        if let Floor::At(lsn) = floor {
            // One that is down may come back and be behind.
            let primary = self.primary();
            let others = self.members.iter().enumerate().filter(|&(number, _)| Some(number) != primary);
            let has_it = |member: &Member| {
                let has = member.standing() == Standing::Standby
                    && !self.may_stray(member)
                    && member.replayed.load(SeqCst) >= lsn
                    && member.is_certain();
                if !has && member.standing() == Standing::Standby {
                    member.want();
                }
                has
            };
            // All of them are looked at.
            if others.fold(true, |all, (_, member)| has_it(member) && all) {
                return Floor::None;
            }
        }
        floor
    }

    /// What a client has seen that has just read from this member: another has that only if it has replayed what this one
    /// says when it is asked after now.
    #[must_use]
    pub fn read_from(&self, number: usize) -> Option<Seen> {
        let asked = self.members.get(number)?.asked.load(SeqCst);
        Seen::new(number, asked)
    }

    /// Whether the member may serve reads of a client that has seen so much: it is a standby, and not too far behind. The
    /// floor must be settled.
    #[must_use]
    pub fn serves(&self, number: usize, sight: &Sight) -> bool {
        let Some(member) = self.members.get(number).filter(|member| self.is_able(member)) else { return false };
        let replayed = member.replayed.load(SeqCst);
        let has_floor = match sight.floor {
            Floor::After(_) => false,
            Floor::None => replayed > 0,
            Floor::At(lsn) => replayed >= lsn,
        };
        has_floor
            && sight.last.is_none_or(|seen| {
                let question = seen.question();
                seen.member() == number
                    || self.members.get(seen.member()).is_some_and(|last| {
                        last.standing() == Standing::Standby
                            && last.answered.load(SeqCst) > question
                            && replayed >= last.shown.load(SeqCst)
                    })
            })
    }

    /// A client would rather have been served by another replica than the one that it read from last: it may be, as soon as
    /// that has said how far it is.
    pub fn would_switch(&self, sight: &Sight) {
        let last = sight.last.and_then(|seen| self.members.get(seen.member()));
        last.into_iter().for_each(Member::want);
    }

    /// By how many bytes the member has replayed less than the primary is known to have written.
    #[must_use]
    pub fn lag_bytes(&self, number: usize) -> u64 {
        let replayed = self.members.get(number).map_or(0, |member| member.replayed.load(SeqCst));
        self.written.load(SeqCst).saturating_sub(replayed)
    }

    /// How far the member is known to have come in the write-ahead log.
    #[must_use]
    pub fn position(&self, number: usize) -> Option<Lsn> {
        let lsn = match self.primary() {
            Some(primary) if primary == number => self.written.load(SeqCst),
            _ => self.members.get(number)?.replayed.load(SeqCst),
        };
        (lsn > 0).then_some(lsn)
    }

    /// Whether every member has been asked what it is.
    #[must_use]
    pub fn is_known(&self) -> bool {
        self.members.iter().all(|member| member.standing() != Standing::Unknown)
    }

    /// Whether any standby answers.
    #[must_use]
    pub fn has_standby(&self) -> bool {
        self.members.iter().any(|member| member.standing() == Standing::Standby)
    }
}

#[cfg(test)]
#[path = "cluster_tests.rs"]
mod tests;
