//! How long clients keep their answers from being written.
//! Must never cost those who read at once more than a comparison.

use std::collections::HashMap;

use super::{ClientId, Relay};
use crate::base::clock;
use crate::meter::SlotId;

/// Of a client that did not take all at once.
#[derive(Debug, Default)]
struct Backlog {
    /// Since when something is to be written, microseconds, if it is.
    since_us: Option<u64>,
    /// How long something was before, microseconds.
    waited_us: u64,
    /// The statement that it belongs to, once that was counted.
    slot: Option<SlotId>,
}

/// Clients with something still to be written, or written of an answer that is not whole.
#[derive(Debug, Default)]
pub(super) struct Backlogs(HashMap<ClientId, Backlog>);

impl Backlogs {
    /// Nobody has kept anything waiting.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The client has gone.
    pub fn forget(&mut self, id: ClientId) {
        if !self.0.is_empty() {
            self.0.remove(&id);
        }
    }

    /// Something was sent, and some of it was not taken if it is `full`. The statement that was counted with it, if one was. What is to be
    /// counted: a statement and its time.
    fn sent(&mut self, id: ClientId, full: bool, slot: Option<SlotId>, now_us: u64) -> Option<(SlotId, u64)> {
        if full {
            let this = self.0.entry(id).or_default();
            this.since_us.get_or_insert(now_us);
            this.slot = slot.or(this.slot);
            return None;
        }
        let this = self.0.get_mut(&id)?;
        this.slot = slot.or(this.slot);
        self.ends(id)
    }

    /// All was written.
    fn drained(&mut self, id: ClientId, now_us: u64) -> Option<(SlotId, u64)> {
        let this = self.0.get_mut(&id)?;
        this.waited_us += this.since_us.take().map_or(0, |since_us| now_us.saturating_sub(since_us));
        self.ends(id)
    }

    /// The statement of a client that has everything, if it was counted.
    fn ends(&mut self, id: ClientId) -> Option<(SlotId, u64)> {
        let slot = self.0.get(&id)?.slot?;
        self.0.remove(&id).map(|this| (slot, this.waited_us))
    }
}

impl Relay {
    /// Something was sent to the client with which this statement was counted, if one was.
    pub(super) fn note_sent(&mut self, id: ClientId, slot: Option<SlotId>) {
        let full = self.clients.get(id).is_some_and(|client| client.conn.backlog() > 0);
        if (full || !self.backlogs.is_empty())
            && let Some((slot, us)) = self.backlogs.sent(id, full, slot, self.now_us)
        {
            self.shapes.record_write(slot, us);
        }
    }

    /// All that was sent to the client was written.
    pub(super) fn note_drained(&mut self, id: ClientId) {
        if !self.backlogs.is_empty() {
            self.now_us = clock::now_us();
            if let Some((slot, us)) = self.backlogs.drained(id, self.now_us) {
                self.shapes.record_write(slot, us);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::meter::{Place, ShapeTable};

    #[test]
    fn the_time_of_an_answer_is_counted_with_its_statement() {
        let mut table = ShapeTable::new(2);
        let place = table.add_place(Place::test("d", "u"));
        let [slot, next] = [1, 2].map(|shape| table.slot(place, shape, String::new));
        let id = ClientId::default();
        let mut all = Backlogs::default();
        // At once, and nobody looks.
        assert_eq!(all.sent(id, false, Some(slot), 10), None);
        assert!(all.is_empty());
        // In the middle of an answer, twice, and its end at once.
        assert_eq!(all.sent(id, true, None, 20), None);
        assert_eq!(all.sent(id, true, None, 25), None);
        assert_eq!(all.drained(id, 30), None);
        assert_eq!(all.sent(id, true, None, 40), None);
        assert_eq!(all.drained(id, 45), None);
        assert_eq!(all.sent(id, false, Some(slot), 50), Some((slot, 15)));
        assert!(all.is_empty());
        // Its end is kept waiting, too; and then the next answer's.
        assert_eq!(all.sent(id, true, Some(slot), 60), None);
        assert_eq!(all.sent(id, true, Some(next), 65), None);
        assert_eq!(all.drained(id, 70), Some((next, 10)));
        assert_eq!(all.sent(id, true, None, 80), None);
        all.forget(id);
        assert!(all.is_empty());
    }
}
