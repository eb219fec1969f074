//! Read-your-writes: how far a replica must have come to serve a client.
//! Must never let a client read from a replica that may lack what the client wrote.
//!
//! After a client has written, its *floor* is a position in the write-ahead log that its commit cannot lie behind:
//! `pg_current_wal_insert_lsn()` asked of the primary after the ReadyForQuery of the write. One connection per primary
//! asks for everybody: whoever finished before the question was sent is covered by the answer, so the cost does not
//! grow with the number of writes. Another connection per replica asks for `pg_last_wal_replay_lsn()`; once that has
//! reached a position, every snapshot taken on the replica afterwards sees the commits before it. Until then the
//! client reads from the primary. Old answers are only conservative: positions grow.

use std::rc::Rc;
use std::time::Duration;

use tokio::sync::Notify;

use super::{ClientId, GroupId, PoolId, Relay};

/// Position in the write-ahead log, in bytes.
pub type Lsn = u64;

/// Pause between two questions to the primary while clients wait for an answer: at most 500 a second.
pub const PRIMARY_PAUSE: Duration = Duration::from_millis(2);
/// Pause between two questions to a replica while clients wait for it to catch up.
pub const REPLICA_PAUSE: Duration = Duration::from_millis(5);
/// Pause while nobody waits: how soon a replica that died, hangs or was promoted is noticed.
pub const IDLE_PAUSE: Duration = Duration::from_secs(1);

/// What a client must see.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Floor {
    /// Anything: it has written nothing that some replica may lack.
    #[default]
    None,
    /// Its write, whose position is in the answer to the first question after this one.
    After(u64),
    /// Everything up to here.
    At(Lsn),
}

/// Positions of one group's servers, as last told.
#[derive(Debug, Default)]
pub struct Positions {
    /// Questions sent to the primary.
    asked: u64,
    /// Number and answer of the last question that was answered.
    answered: (u64, Lsn),
    /// How far each replica has replayed; 0 if it does not say.
    replayed: Vec<Lsn>,
    /// Somebody waits for an answer of the primary.
    pub wanted: Rc<Notify>,
    /// A client was sent to the primary because the replicas are behind.
    pub behind: bool,
    /// The connection that asks the primary is in somebody's way.
    pub in_the_way: bool,
    /// Wakes the tasks that ask the replicas when that begins.
    pub stirred: Rc<Notify>,
}

impl Positions {
    /// Of a group with `replicas` replicas.
    pub fn new(replicas: usize) -> Self {
        Self { replayed: vec![0; replicas], ..Self::default() }
    }

    /// The connection that asks the primary is to be opened anew.
    pub fn step_aside(&mut self) {
        self.in_the_way = true;
        self.wanted.notify_one();
    }

    /// A question is about to be sent to the primary; its number.
    pub fn ask(&mut self) -> u64 {
        self.asked += 1;
        self.asked
    }

    /// The primary answered question `number`.
    pub fn answer(&mut self, number: u64, lsn: Lsn) {
        self.answered = (number, lsn);
    }

    /// A replica said how far it is; `None` if it does not answer, or is no replica any more.
    pub fn replay(&mut self, replica: usize, lsn: Option<Lsn>) {
        if let Some(place) = self.replayed.get_mut(replica) {
            *place = lsn.unwrap_or(0);
        }
    }

    /// The replica answers.
    pub fn is_up(&self, replica: usize) -> bool {
        self.replayed.get(replica).is_some_and(|&lsn| lsn > 0)
    }

    /// The floor of a client that has just written.
    pub fn wrote(&mut self) -> Floor {
        self.wanted.notify_one();
        Floor::After(self.asked)
    }

    /// A floor as far as it is known by now.
    pub fn settle(&mut self, floor: Floor) -> Floor {
        let floor = match floor {
            Floor::After(number) if self.answered.0 > number => Floor::At(self.answered.1),
            other => other,
        };
        match floor {
            Floor::At(lsn) if self.replayed.iter().all(|&replayed| replayed >= lsn) => Floor::None,
            Floor::At(_) => {
                if !std::mem::replace(&mut self.behind, true) {
                    self.stirred.notify_waiters();
                }
                floor
            }
            Floor::None | Floor::After(_) => floor,
        }
    }

    /// Whether the replica may serve a client with this floor.
    pub fn serves(&self, replica: usize, floor: Floor) -> bool {
        match (floor, self.replayed.get(replica)) {
            (Floor::After(_), _) | (_, None | Some(0)) => false,
            (Floor::None, Some(_)) => true,
            (Floor::At(lsn), Some(&replayed)) => replayed >= lsn,
        }
    }
}

impl Relay {
    /// Notes that the client's lease wrote, or may have.
    pub(super) fn note_write(&mut self, id: ClientId) {
        if let Some(client) = self.clients.get_mut(id) {
            client.wrote = true;
        }
    }

    /// A transaction of the client's has ended: from now on it must see what it wrote.
    pub(super) fn raise_floor(&mut self, id: ClientId, on_primary: bool) {
        let Some(client) = self.clients.get_mut(id) else { return };
        let group = &mut self.groups[client.group];
        if std::mem::take(&mut client.wrote) && on_primary && !group.replicas.is_empty() {
            client.floor = group.positions.wrote();
        }
    }

    /// The positions of a group, for the tasks that ask its servers.
    pub fn positions(&mut self, group: GroupId) -> &mut Positions {
        &mut self.groups[group].positions
    }

    /// The pools of a group whose positions are to be asked for: the primary's and the replicas'.
    pub fn watched(&self, group: GroupId) -> (PoolId, Vec<PoolId>) {
        let group = &self.groups[group];
        (group.primary, group.replicas.clone())
    }

    /// The group is out of use: nobody needs to ask for it any more.
    pub fn is_retired(&self, group: GroupId) -> bool {
        self.groups.get(group).is_none_or(|group| group.retired)
    }

    /// One of the tasks that ask for a group's positions has ended.
    pub fn unwatch(&mut self, group: GroupId) {
        if let Some(group) = self.groups.get_mut(group) {
            group.asks = group.asks.saturating_sub(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_writer_reads_from_the_primary_until_a_replica_has_its_commit() {
        let mut positions = Positions::new(2);
        positions.replay(0, Some(100));
        positions.replay(1, Some(100));
        assert!(positions.serves(0, Floor::None));
        // A question already under way was sent before the write ended.
        let early = positions.ask();
        let floor = positions.wrote();
        positions.answer(early, 90);
        assert_eq!(positions.settle(floor), floor);
        assert!(!positions.serves(0, floor));
        let late = positions.ask();
        positions.answer(late, 150);
        let floor = positions.settle(floor);
        assert_eq!(floor, Floor::At(150));
        assert!(!positions.serves(0, floor));
        positions.replay(1, Some(151));
        assert!(positions.serves(1, floor) && !positions.serves(0, floor));
        assert_eq!(positions.settle(floor), Floor::At(150));
        positions.replay(0, Some(150));
        assert_eq!(positions.settle(floor), Floor::None);
    }

    #[test]
    fn a_replica_that_does_not_answer_serves_nobody() {
        let mut positions = Positions::new(1);
        assert!(!positions.serves(0, Floor::None));
        positions.replay(0, Some(5));
        assert!(positions.serves(0, Floor::None));
        positions.replay(0, None);
        assert!(!positions.serves(0, Floor::None) && !positions.is_up(0));
    }
}
