//! Which standbys may have left the line of the newest timeline: what they have replayed is not what the primary has.
//! Must never trust a position beyond the point where that timeline began, unless its host was seen on it.

use std::sync::atomic::Ordering::SeqCst;

use super::cluster::{Cluster, Lsn, Member};

impl Cluster {
    /// Whether a standby may have replayed what is no part of the newest timeline, where positions mean something else: it is past the
    /// point where that began, and has not been seen on it. What a standby says of its timeline may be as old as its last restart point
    /// unless the login may read `pg_stat_wal_receiver`; to be where the primary of the newest is says as much.
    pub(super) fn may_stray(&self, member: &Member) -> bool {
        let (newest, timeline) = (self.newest.load(SeqCst), member.timeline.load(SeqCst));
        timeline != 0
            && timeline.max(member.follows.load(SeqCst)) < newest
            && member.replayed.load(SeqCst) > self.fork.load(SeqCst)
    }

    /// How far the primary is known to have written; 0 if that is not known.
    #[must_use]
    pub fn written(&self) -> Lsn {
        self.written.load(SeqCst)
    }

    /// Whether any standby is known to have replayed so much.
    #[must_use]
    pub fn has_come_to(&self, lsn: Lsn) -> bool {
        self.members.iter().any(|member| self.is_able(member) && member.replayed.load(SeqCst) >= lsn)
    }

    /// Whether replicas that serve reads lack so much, by what they were asked after this time, microseconds: not that nobody has asked.
    #[must_use]
    pub fn lacks(&self, lsn: Lsn, after_us: u64) -> bool {
        !self.has_come_to(lsn) && self.members.iter().any(|member| self.is_able(member) && member.lacked(lsn, after_us))
    }

    /// A standby has said where it is.
    pub(super) fn look_at_line(&self, member: &Member) {
        let newest = self.newest.load(SeqCst);
        let written = self.written.load(SeqCst);
        let primary = self.primary().and_then(|number| self.members.get(number));
        let is_newest = primary.is_some_and(|primary| primary.timeline.load(SeqCst) == newest);
        if is_newest && written > 0 && member.replayed.load(SeqCst) == written {
            member.follows.store(newest, SeqCst);
        }
        let strays = self.may_stray(member);
        if strays != member.strays.swap(strays, SeqCst) && strays {
            tracing::warn!(
                server = %member.endpoint, timeline = newest,
                "the standby may follow an older timeline: it serves no reads until it is seen on this one \
                 (a login that may read pg_stat_wal_receiver, as members of pg_monitor may, sees that sooner)"
            );
        }
    }
}
