//! Statements that pgweir put into a client's Query: which of its answers must not leave.
//! Must never hide an answer to a statement of the client's.

use std::collections::VecDeque;

use super::expect::Ring;

/// The Query messages owed that hold statements of pgweir's own, oldest first.
#[derive(Debug, Default)]
pub(super) struct Veils(VecDeque<Veil>);

#[derive(Debug)]
struct Veil {
    /// Number of the Query in the ring.
    query: u64,
    /// How many of its statements are complete. Each that runs completes exactly once.
    complete: u32,
    /// Those of them that are pgweir's own, in order.
    hidden: Vec<Hidden>,
}

/// A statement of pgweir's own in a client's Query.
#[derive(Clone, Copy, Debug)]
pub struct Hidden {
    /// Which of the statements it is, counted from 0.
    pub nth: u32,
    /// Where it begins in the text that is sent, in characters from 1.
    pub from: u32,
    /// How many characters it has.
    pub len: u32,
}

impl Veils {
    /// Hides these statements of the newest entry.
    pub fn put(&mut self, hidden: Vec<Hidden>, ring: &Ring) {
        self.0.push_back(Veil { query: ring.next() - 1, complete: 0, hidden });
    }

    /// Whether what comes now answers a statement of pgweir's own.
    pub fn hide(&self, ring: &Ring) -> bool {
        let here = self.0.front().filter(|veil| veil.query == ring.first());
        here.is_some_and(|veil| veil.hidden.iter().any(|hidden| hidden.nth == veil.complete))
    }

    /// Where in the client's text a position is in what was sent; `None` if nothing was put in before it.
    pub fn position(&self, position: u32, ring: &Ring) -> Option<u32> {
        let veil = self.0.front().filter(|veil| veil.query == ring.first())?;
        let before = veil.hidden.iter().filter(|hidden| hidden.from < position);
        let put_in: u32 = before.map(|hidden| hidden.len.min(position - hidden.from)).sum();
        (put_in > 0).then(|| position - put_in)
    }

    /// A statement of the oldest entry is complete.
    pub fn completed(&mut self, ring: &Ring) {
        if let Some(veil) = self.0.front_mut().filter(|veil| veil.query == ring.first()) {
            veil.complete += 1;
        }
    }

    /// The oldest entry has been taken.
    pub fn end(&mut self, ring: &Ring) {
        if self.0.front().is_some_and(|veil| veil.query < ring.first()) {
            self.0.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::expect::{Expect, Kind, Origin};
    use super::*;

    #[test]
    fn hides_and_counts_only_what_was_put_in() {
        let mut ring = Ring::default();
        let mut veils = Veils::default();
        let query = Expect {
            kind: Kind::Query,
            origin: Origin::Client,
            owner: 0,
            statement: 0,
            cookie: 0,
            sent_us: 0,
            name: 0,
            note: 0,
        };
        for _ in 0..3 {
            ring.push(query);
        }
        // The newest is `ab;XYZ;c;XY;d`, with `;XYZ` and `;XY` put in.
        veils.put(vec![Hidden { nth: 1, from: 3, len: 4 }, Hidden { nth: 3, from: 9, len: 3 }], &ring);
        assert!(!veils.hide(&ring) && veils.position(13, &ring).is_none());
        ring.pop();
        ring.pop();
        let hidden: Vec<bool> = (0..5)
            .map(|_| {
                let hidden = veils.hide(&ring);
                veils.completed(&ring);
                hidden
            })
            .collect();
        assert_eq!(hidden, [false, true, false, true, false]);
        for (sent, own) in [(1, None), (2, None), (3, None), (7, Some(3)), (8, Some(4)), (10, Some(5)), (13, Some(6))] {
            assert_eq!(veils.position(sent, &ring), own, "{sent}");
        }
        ring.pop();
        veils.end(&ring);
        assert!(veils.0.is_empty());
    }
}
