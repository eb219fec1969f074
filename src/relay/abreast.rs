//! Statements of one client whose answers have come with one read: what each of them has needed.
//! Must never give more than has gone by, nor anything to what came before.
//!
//! PostgreSQL keeps answers until it has 8 KB of them, or the batch is over (`PQ_SEND_BUFFER_SIZE` in
//! src/backend/libpq/pqcomm.c): when each was ready nobody can tell. So each is given a part of the time since the one before as
//! its shape usually needs, and those of shapes that nothing is known of what is left, in equal parts.

use super::{Relay, ServerId};
use crate::flow::expect::{Expect, Kind, Origin};
use crate::flow::replies::Event;
use crate::wire::frame::Header;
use crate::wire::tag::server as tag;

/// A ReadyForQuery, which is all there is behind the last statement of a batch.
const READY: usize = 6;

/// Of a read: how many statements end with it that are not counted yet, and what they need together.
#[derive(Clone, Copy, Debug)]
pub(super) struct Abreast {
    left: u64,
    /// In the unit of `unknown`; 0 as long as none was counted.
    weight: u64,
    /// The weight of one of which nothing is known.
    unknown: u64,
}

impl Abreast {
    /// The statement of this event is over; others, too, if their ends are among what came `behind` it.
    pub fn of(event: &Event, behind: &[u8]) -> Option<Self> {
        let is_over = matches!(event, Event::Completed(..) | Event::Failed(Some(_), _));
        if behind.len() <= READY || !is_over {
            return None;
        }
        let others = ends(behind);
        (others > 0).then_some(Self { left: 1 + others, weight: 0, unknown: 1 })
    }

    /// One that usually needs `usual_us` is over: its part of `us`, which all that are left have needed.
    fn part(&mut self, usual_us: Option<u64>, us: u64) -> u64 {
        let own = usual_us.unwrap_or(self.unknown).max(1);
        let of = self.weight.max(own);
        self.weight = of - own;
        self.left -= 1;
        (u128::from(us) * u128::from(own) / u128::from(of)) as u64
    }
}

/// How many statements end in these bytes, which begin with a message.
fn ends(mut bytes: &[u8]) -> u64 {
    let mut count = 0;
    while let Ok(Some(header)) = Header::peek(bytes, usize::MAX) {
        let Some(rest) = bytes.get(header.total..) else { break };
        let ends = [tag::COMMAND_COMPLETE, tag::EMPTY_QUERY, tag::PORTAL_SUSPENDED, tag::ERROR].contains(&header.tag);
        count += u64::from(ends);
        bytes = rest;
    }
    count
}

impl Relay {
    /// When this statement was over, microseconds, that began at `began_us`.
    pub(super) fn over_us(&mut self, server: ServerId, entry: &Expect, began_us: u64) -> u64 {
        let now_us = self.now_us;
        let us = now_us.saturating_sub(began_us);
        let Some(this) = self.servers.get(server) else { return now_us };
        let Some(mut all) = this.abreast else { return now_us };
        let pool = &self.pools[this.pool];
        let place = pool.stats(&self.groups[pool.group]);
        let usual_us = |shape| self.shapes.usual_us(place, shape);
        let own_us = usual_us(entry.cookie);
        if all.weight == 0 {
            let is_run =
                |entry: &&Expect| entry.origin == Origin::Client && matches!(entry.kind, Kind::Query | Kind::Execute);
            // A Query stays until its ReadyForQuery: several statements of one text have one entry, and one shape.
            let own = usize::from(entry.kind == Kind::Query);
            let next = this.replies.entries().filter(is_run).skip(own).map(|entry| usual_us(entry.cookie));
            let others = next.chain(std::iter::repeat(own_us)).take(all.left.saturating_sub(1) as usize);
            let (mut known, mut unknown) = (0, 0);
            for usual_us in others.chain([own_us]) {
                match usual_us {
                    Some(us) => known += us.max(1),
                    None => unknown += 1,
                }
            }
            all.unknown = us.saturating_sub(known).checked_div(unknown).unwrap_or(0).max(1);
            all.weight = known + unknown * all.unknown;
        }
        let part_us = all.part(own_us, us);
        let is_last = all.left == 0;
        if let Some(this) = self.servers.get_mut(server) {
            this.abreast = Some(all).filter(|_| !is_last);
        }
        if is_last { now_us } else { began_us.min(now_us) + part_us }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_as_is_usual_and_all_of_it() {
        // 100 and 300 are usual, of the third nothing is known.
        let mut all = Abreast { left: 3, weight: 1_400, unknown: 1_000 };
        let mut left = 2_800;
        for (usual, wanted) in [(Some(100), 200), (None, 2_000), (Some(300), 600)] {
            let part = all.part(usual, left);
            assert_eq!(part, wanted);
            left -= part;
        }
        assert_eq!((left, all.left), (0, 0));
        // What is usual has changed meanwhile.
        let mut all = Abreast { left: 2, weight: 10, unknown: 1 };
        assert_eq!((all.part(Some(50), 7), all.part(Some(3), 0)), (7, 0));
    }

    #[test]
    fn ends_are_found_among_rows() {
        let message = |tag: u8, body: &[u8]| [&[tag][..], &(body.len() as u32 + 4).to_be_bytes(), body].concat();
        let rows = [message(b'C', b"SELECT 1\0"), message(b'D', b"CECC"), message(b's', b""), message(b'E', b"\0")];
        let all = [rows.concat(), message(b'Z', b"I"), message(b'C', b"SELECT 1\0")].concat();
        assert_eq!((ends(&all), ends(&all[..all.len() - 1]), ends(&message(b'Z', b"I"))), (4, 3, 0));
    }
}
