//! What happens to primaries, and who takes over.
//! It must never promote a standby that lacks what another one has: that would lose commits without anybody's fault but its own.

use std::thread;
use std::time::{Duration, Instant};

use crate::books::Books;
use crate::common::Client;
use crate::people::WATCHED;
use crate::{Front, KNOWN_AFTER, THROUGH_PGWEIR, until, write};
use integration::{Cluster, Link, Postgres, Stop, Way};

/// What happens to a primary before a standby is promoted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Nothing: it goes on as if it were the primary.
    Promotion,
    /// All of its processes are killed.
    Crash,
    /// It is shut down at once.
    Shutdown,
    /// Its processes stand still, and later go on where they were.
    Pause,
    /// Nothing goes through to it or back from it any more.
    Partition,
    /// It gets every request, and nobody gets its answers.
    Mute,
}

/// The servers, and which of them is the primary.
pub struct Stage<'a> {
    nodes: Vec<&'a Postgres>,
    links: &'a [Link],
    front: &'a Front,
    primary: usize,
    /// The primary before.
    old: usize,
    /// How long the old primary's log was before the fault.
    logged: u64,
    eras: u64,
}

impl<'a> Stage<'a> {
    pub fn new(cluster: &'a Cluster, links: &'a [Link], front: &'a Front) -> Self {
        Self { nodes: cluster.nodes().collect(), links, front, primary: 0, old: 0, logged: 0, eras: 0 }
    }

    /// Does that to the primary, and promotes a standby after a while that it takes somebody to decide it; when the new primary has committed for the first time.
    pub fn strike(&mut self, fault: Fault, outage: Duration, books: &Books) -> Instant {
        self.old = self.primary;
        let old = self.nodes[self.old];
        self.logged = old.log_length();
        match fault {
            Fault::Promotion => {}
            Fault::Crash => old.crash(),
            Fault::Shutdown => old.stop(Stop::Immediate).unwrap(),
            Fault::Pause => old.pause(),
            Fault::Partition => self.links[self.old].drop_all(),
            Fault::Mute => self.links[self.old].silence(Way::Back),
        }
        // Of a primary that is gone a client that comes now must not notice anything but that it waits.
        let gone = THROUGH_PGWEIR && matches!(fault, Fault::Crash | Fault::Shutdown);
        let newcomer = gone.then(|| Client::connect(self.front.port()));
        thread::scope(|scope| {
            let waiting = newcomer.map(|mut client| scope.spawn(move || write(&mut client, books)));
            if fault != Fault::Promotion {
                thread::sleep(outage);
            }
            let promoted = self.promote();
            if let Some(waiting) = waiting {
                assert_eq!(waiting.join().unwrap(), Ok(()), "{fault:?}: a client that came meanwhile");
            }
            promoted
        })
    }

    fn promote(&mut self) -> Instant {
        let standbys: Vec<usize> = (0..self.nodes.len()).filter(|number| *number != self.old).collect();
        // From here on the old primary gets no commit acknowledged, whatever it believes.
        for standby in &standbys {
            self.nodes[*standby].follow_nobody().unwrap();
        }
        let most = standbys.iter().copied().max_by_key(|standby| self.nodes[*standby].received().unwrap()).unwrap();
        let new = self.nodes[most];
        // It does so before the promotion too, so that the first commit after it need not wait.
        for standby in standbys.into_iter().filter(|standby| *standby != most) {
            self.nodes[standby].follow(new).unwrap();
        }
        new.promote().unwrap();
        let ended = Instant::now();
        self.eras += 1;
        new.query_in(integration::DATABASE, &format!("UPDATE era SET n = {}", self.eras)).unwrap();
        let promoted = Instant::now();
        println!("{} is the primary, and commits after {:?}", new.name(), promoted - ended);
        self.primary = most;
        self.front.lead_to(&self.links[most]);
        promoted
    }

    /// Waits until the other standby has replayed the newest era too.
    pub fn await_era(&self) {
        let sql = format!("SELECT n = {} FROM era", self.eras);
        let others = (0..self.nodes.len()).filter(|number| *number != self.old);
        for node in others.map(|number| self.nodes[number]) {
            crate::common::eventually("the era is everywhere", || {
                node.value_in(integration::DATABASE, &sql).is_ok_and(|value| value == "t")
            });
        }
    }

    /// The old primary is there again as it was, for a while: nothing that clients began after the promotion was known reaches it.
    pub fn old_one_comes_back(&self, fault: Fault, promoted: Instant, books: &Books) {
        let old = self.nodes[self.old];
        match fault {
            Fault::Promotion => {}
            Fault::Crash | Fault::Shutdown => old.start().unwrap(),
            Fault::Pause => old.resume(),
            Fault::Partition | Fault::Mute => self.links[self.old].mend(),
        }
        assert_eq!(old.value_in("postgres", "SELECT pg_is_in_recovery()").unwrap(), "f");
        // Nothing to wait for: it shall not happen for so long, and money flows meanwhile.
        until(Instant::now().max(promoted + KNOWN_AFTER) + WATCHED);
        let strayed = books.begun_after(promoted + KNOWN_AFTER, &old.log_since(self.logged));
        assert!(strayed.is_empty(), "{fault:?}: the old primary got {strayed:?}");
    }

    /// The old primary becomes a standby of the new one.
    pub fn old_one_rejoins(&self) {
        self.nodes[self.old].rejoin(self.nodes[self.primary]).unwrap();
    }

    /// The new primary.
    pub fn standing(&self) -> Option<&'a Postgres> {
        self.nodes.get(self.primary).copied()
    }

    /// All servers, once they have the same.
    pub fn settled(&self) -> Vec<&'a Postgres> {
        let position = self.nodes[self.primary].value_in("postgres", "SELECT pg_current_wal_flush_lsn()").unwrap();
        let sql = format!("SELECT NOT pg_is_in_recovery() OR pg_last_wal_replay_lsn() >= '{position}'");
        self.nodes.iter().for_each(|node| node.wait_true(&sql).unwrap());
        self.nodes.clone()
    }
}
