//! When the primary was where, on pgweir's own clock: how far a replica is behind in time.
//! Must never look at a clock of a server's, nor take a primary that writes nothing for one whose replicas are behind.
//!
//! The primary's position is noted each time that it is asked what it is, with the time. A replica is as far behind as
//! it is since the oldest position was noted that it has not replayed yet: at least that, and at most one interval more.
//! `now() - pg_last_xact_replay_timestamp()` would grow while nobody writes, and compares the clocks of two machines.

use std::collections::VecDeque;

use super::cluster::Lsn;

/// Most positions that are kept: two minutes at two a second. Older ones are thinned out, so that of a replica which is
/// hours behind that much is known too.
const MOST: usize = 256;
/// Bytes of a page of the write-ahead log (`XLOG_BLCKSZ`), as all packages have it.
const PAGE: u64 = 8192;
/// Bytes of the header of a page, and of the first page of a segment (`SizeOfXLogShortPHD`, `SizeOfXLogLongPHD` in
/// src/include/access/xlog_internal.h).
const HEADERS: [u64; 2] = [24, 40];

/// Where the primary was seen, oldest first.
#[derive(Clone, Debug, Default)]
pub struct Heartbeats(VecDeque<(Lsn, u64)>);

impl Heartbeats {
    /// The primary is here now.
    pub fn note(&mut self, lsn: Lsn, now_us: u64) {
        let lsn = end(lsn);
        if lsn == 0 || self.0.back().is_some_and(|(last, _)| *last >= lsn) {
            return;
        }
        if self.0.len() >= MOST {
            self.thin();
        }
        self.0.push_back((lsn, now_us.max(1)));
    }

    /// Every second one of the older half goes, but not the oldest.
    fn thin(&mut self) {
        let mut at = 0;
        self.0.retain(|_| {
            at += 1;
            at > MOST / 2 || at % 2 == 1
        });
    }

    /// Another primary: nothing that was seen of the one before says anything.
    pub fn forget(&mut self) {
        self.0.clear();
    }

    /// When the primary was first seen further than this; 0 if it was not.
    #[must_use]
    pub fn passed(&self, replayed: Lsn) -> u64 {
        let at = self.0.partition_point(|(lsn, _)| *lsn <= replayed);
        self.0.get(at).map_or(0, |(_, us)| *us)
    }
}

/// Where the last record ends. Where the next one would begin is behind the header of a page, if the last one has filled
/// the page before (`XLogBytePosToRecPtr` in src/backend/access/transam/xlog.c): no replica gets there before it is written.
#[must_use]
pub fn end(lsn: Lsn) -> Lsn {
    if HEADERS.contains(&(lsn % PAGE)) { lsn - lsn % PAGE } else { lsn }
}

/// The same, but no lower than the last record's end for certain: so far behind the start of a page that it might be the
/// longer header, the rest of a record may end that began on the page before.
#[must_use]
pub fn certain_end(lsn: Lsn) -> Lsn {
    if lsn % PAGE == HEADERS[0] { lsn - HEADERS[0] } else { lsn }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replica_is_behind_since_the_first_position_that_it_lacks() {
        let mut beats = Heartbeats::default();
        assert_eq!(beats.passed(0), 0);
        for n in 1..=10 {
            beats.note(n * 100, n * 1000);
        }
        assert_eq!([1000, 999, 550, 100, 5].map(|lsn| beats.passed(lsn)), [0, 10_000, 6_000, 2_000, 1_000]);
    }

    #[test]
    fn behind_the_header_of_a_page_is_nothing_yet() {
        for (lsn, last, certain) in [
            (8192, 8192, 8192),
            (8216, 8192, 8192),
            (8232, 8192, 8232),
            (8240, 8240, 8240),
            (1 << 24 | 40, 1 << 24, 1 << 24 | 40),
        ] {
            assert_eq!((end(lsn), certain_end(lsn)), (last, certain), "{lsn}");
        }
    }

    #[test]
    fn a_primary_that_writes_nothing_leaves_nobody_behind() {
        let mut beats = Heartbeats::default();
        (1..1000).for_each(|n| beats.note(100, n * 1000));
        assert_eq!(beats.passed(100), 0);
        // Its first write after a long time has only just been made.
        beats.note(200, 1_000_000);
        assert_eq!(beats.passed(100), 1_000_000);
    }

    #[test]
    fn a_page_that_has_only_its_header_is_no_write() {
        assert_eq!(
            [0x300_0028, 0x300_2018, 0x300_2019, 0x300_2000, 24].map(end),
            [0x300_0000, 0x300_2000, 0x300_2019, 0x300_2000, 0]
        );
        let mut beats = Heartbeats::default();
        beats.note(0x300_0028, 1);
        assert_eq!(beats.passed(0x300_0000), 0);
    }

    #[test]
    fn old_positions_are_thinned_out_and_the_oldest_stays() {
        let mut beats = Heartbeats::default();
        // A day, twice a second.
        for n in 1..=172_800 {
            beats.note(n, n * 500_000);
        }
        assert!(beats.0.len() <= MOST);
        assert_eq!(beats.passed(0), 500_000);
        // The last minute is known precisely, and an hour well enough.
        for ago in 0..120 {
            let lsn = 172_800 - ago;
            assert_eq!(beats.passed(lsn - 1), lsn * 500_000, "{ago}");
        }
        let hour_us = (172_800 - 7_200) * 500_000;
        assert!(beats.passed(172_800 - 7_200) < hour_us + hour_us / 2);
    }
}
