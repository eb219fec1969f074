//! Commits that the stream has brought and that a snapshot may not show yet, and up to where a snapshot shows everything.
//! Must never take the order of the write-ahead log for the order in which commits become visible.
//!
//! A commit is in the log first, and is visible once its process has left the list of those that run (`ProcArrayEndTransaction` behind
//! `RecordTransactionCommit` in src/backend/access/transam/xact.c). In between it may wait for a synchronous standby for as long as it
//! takes, while others that come behind it in the log become visible.

/// What a snapshot shows: `pg_current_snapshot()`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// All transactions before this one have ended.
    pub xmin: u64,
    /// This one and all behind it it does not show.
    pub xmax: u64,
    /// Nor those between that ran, in ascending order. Of subtransactions only their parent is here, as in the stream.
    running: Vec<u64>,
}

impl Snapshot {
    /// Reads `xmin:xmax:xip,xip` (`pg_snapshot_out` in src/backend/utils/adt/xid8funcs.c).
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split(':');
        let (xmin, xmax) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
        let listed = parts.next()?.split(',').filter(|xid| !xid.is_empty());
        let mut running = listed.map(|xid| xid.parse().ok()).collect::<Option<Vec<u64>>>()?;
        running.sort_unstable();
        parts.next().is_none().then_some(Self { xmin, xmax, running })
    }

    /// The whole number of a transaction of which the stream tells the lower half: no two in use are 2^31 apart.
    fn whole(&self, xid: u32) -> u64 {
        let distance = (self.xmax as u32).wrapping_sub(xid).cast_signed();
        self.xmax.wrapping_sub(i64::from(distance).cast_unsigned())
    }

    /// Whether it shows what this transaction, which has committed, has done.
    #[must_use]
    pub fn shows(&self, xid: u32) -> bool {
        let xid = self.whole(xid);
        xid < self.xmin || (xid < self.xmax && self.running.binary_search(&xid).is_err())
    }
}

/// Commits that no snapshot was seen to show.
#[derive(Debug, Default)]
pub struct Unseen(Vec<(u32, u64)>);

impl Unseen {
    /// The stream has brought this commit, which ends at `end`.
    pub fn add(&mut self, xid: u32, end: u64) {
        self.0.push((xid, end));
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// There are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Up to where every snapshot shows all commits from the taking of this one on, if the stream has brought all that end up to `written`:
    /// what it does not show is behind that. Forgets what it shows.
    pub fn safe(&mut self, snapshot: &Snapshot, written: u64) -> u64 {
        self.0.retain(|(xid, _)| !snapshot.shows(*xid));
        self.0.iter().map(|(_, end)| end.saturating_sub(1)).fold(written, u64::min)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn snapshots_show_what_has_ended_by_then() {
        let snapshot = Snapshot::parse("10:20:10,14,15").unwrap();
        let shown: Vec<u32> = (8..23).filter(|xid| snapshot.shows(*xid)).collect();
        assert_eq!(shown, [8, 9, 11, 12, 13, 16, 17, 18, 19]);
        assert_eq!(Snapshot::parse("5:5:").unwrap(), Snapshot { xmin: 5, xmax: 5, running: Vec::new() });
        for bad in ["", "5", "5:6", "5:6:x", "5:6::", "a:6:", "5:6:7:8"] {
            assert_eq!(Snapshot::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn numbers_of_transactions_go_round() {
        let first = (3u64 << 32) + 5;
        let snapshot = Snapshot::parse(&format!("{}:{}:{}", first - 20, first, first - 20)).unwrap();
        // One before the numbers began anew, and the one that runs since.
        assert!(snapshot.shows((first - 10) as u32) && !snapshot.shows((first - 20) as u32));
        assert!(snapshot.shows(1) && !snapshot.shows(5) && !snapshot.shows(9));
    }

    #[test]
    fn a_commit_that_waits_holds_the_rest_back() {
        let mut unseen = Unseen::default();
        for (xid, end) in [(11, 100), (12, 200), (13, 300)] {
            unseen.add(xid, end);
        }
        // The first waits for a standby; the others are visible.
        let waiting = Snapshot::parse("11:14:11").unwrap();
        assert_eq!((unseen.safe(&waiting, 350), unseen.len()), (99, 1));
        assert_eq!(unseen.safe(&Snapshot::parse("14:14:").unwrap(), 400), 400);
        assert!(unseen.is_empty());
        // What came behind the question stays.
        unseen.add(20, 900);
        assert_eq!((unseen.safe(&Snapshot::parse("20:20:").unwrap(), 850), unseen.len()), (850, 1));
    }
}
