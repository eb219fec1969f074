//! Whether reads wait a moment for replicas, or are run on the primary at once.
//! Must never let everybody wait for what is far behind, nor give replicas up that only have much to do.

use crate::pool::cluster::{Cluster, Lsn};

/// Replicas that are behind by more than so many times what is waited for them are not waited for at all.
pub(super) const MOMENTS: u64 = 10;

/// Where the primary was.
#[derive(Clone, Copy)]
pub(super) struct Mark {
    pub lsn: Lsn,
    /// When that was known, microseconds.
    pub since_us: u64,
}

/// Whether replicas are worth waiting for: those that are far behind are so for a while, and all who wait would wait in vain.
/// That they were not asked, where servers or pgweir have too much to do, is not that they are behind.
#[derive(Default)]
pub(super) struct Patience {
    /// What somebody has waited for in vain, or what will tell whether they are behind any more.
    mark: Option<Mark>,
    lost: bool,
}

impl Patience {
    /// Somebody has waited for this in vain.
    pub fn wears(&mut self, cluster: &Cluster, mark: Mark, longest_us: u64) {
        let known = *self.mark.get_or_insert(mark);
        if cluster.has_come_to(known.lsn) {
            self.mark = Some(mark);
        } else {
            self.lost |= cluster.lacks(known.lsn, known.since_us + longest_us);
        }
    }

    /// Whether nobody is to wait at the moment.
    pub fn is_lost(&mut self, cluster: &Cluster, now_us: u64, longest_us: u64) -> bool {
        let Some(mark) = self.mark.filter(|_| self.lost) else { return false };
        if !cluster.has_come_to(mark.lsn) {
            return true;
        }
        let took_us = now_us.saturating_sub(mark.since_us);
        // Unless that took long, they are not behind any more.
        self.lost = took_us >= longest_us;
        self.mark = self.lost.then(|| Mark { lsn: cluster.written(), since_us: now_us });
        self.lost
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::base::clock;
    use crate::config::{Endpoint, Host, Roles};
    use crate::pool::cluster::Says;

    const LONGEST_US: u64 = 100_000;

    /// A primary and a replica.
    struct Two {
        clock: clock::paused::Paused,
        cluster: Cluster,
    }

    impl Two {
        fn new() -> Self {
            let hosts = ["a", "b"].map(|host| Endpoint { host: Host::Tcp(host.into()), port: 5432 });
            let two =
                Self { clock: clock::paused::Paused::new(), cluster: Cluster::new(hosts.into_iter(), Roles::Found) };
            two.hear(0, 100);
            two.hear(1, 100);
            two
        }

        /// So much later a member says where it is.
        fn hear(&self, number: usize, lsn: Lsn) {
            let question = self.cluster.members.get(number).unwrap().ask();
            self.cluster.heard(number, question, Says { standby: number == 1, lsn, shown: lsn, timeline: 1 });
        }

        fn passes(&self, us: u64) {
            self.clock.advance(std::time::Duration::from_micros(us));
        }

        fn is_lost(&self, patience: &mut Patience) -> bool {
            patience.is_lost(&self.cluster, clock::now_us(), LONGEST_US)
        }

        fn mark(&self, lsn: Lsn) -> Mark {
            Mark { lsn, since_us: clock::now_us() }
        }
    }

    #[test]
    fn a_replica_that_is_far_behind_is_not_waited_for_until_it_is_not() {
        let (two, mut patience) = (Two::new(), Patience::default());
        two.hear(0, 200);
        let mark = two.mark(200);
        two.passes(LONGEST_US / 2);
        two.hear(1, 150);
        patience.wears(&two.cluster, mark, LONGEST_US);
        assert!(!two.is_lost(&mut patience), "not for so long");
        two.passes(LONGEST_US);
        patience.wears(&two.cluster, mark, LONGEST_US);
        assert!(!two.is_lost(&mut patience), "nobody has asked since");
        two.hear(1, 150);
        patience.wears(&two.cluster, two.mark(300), LONGEST_US);
        assert!(two.is_lost(&mut patience));
        two.hear(0, 400);
        two.hear(1, 200);
        assert!(two.is_lost(&mut patience), "it has that now, but late: it is far behind yet");
        two.passes(10);
        two.hear(1, 400);
        assert!(!two.is_lost(&mut patience), "it comes to where the primary was at once");
    }

    #[test]
    fn who_always_comes_late_is_always_waited_for() {
        let (two, mut patience) = (Two::new(), Patience::default());
        for lsn in (200..2_000).step_by(100) {
            two.hear(0, lsn);
            let mark = two.mark(lsn);
            two.passes(LONGEST_US / 3);
            patience.wears(&two.cluster, mark, LONGEST_US);
            assert!(!two.is_lost(&mut patience));
            two.hear(1, lsn);
        }
    }
}
