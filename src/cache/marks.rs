//! What was changed last, by what answers hang on: one array of slots for the process.
//! Must never forget a change: a slot only moves on.
//!
//! A slot stands for whatever hashes to it; that two things share one makes some answers void in vain, and none good that is not. The hash
//! is the same in every process, so that slots may be written down.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use xxhash_rust::xxh3::xxh3_64_with_seed;

/// How many slots there are: 1 MiB of them.
pub const SLOTS: usize = 1 << 16;

/// What an answer may hang on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dependency {
    /// The database as such: what makes everything kept of it void.
    Life,
    /// What is where and who may see it, as far as the database tells of it in the order of its commits.
    Schema,
    /// The rows of the relation with this OID.
    Relation(u32),
}

impl Dependency {
    /// Its slot. `history` tells write-ahead logs apart whose positions say nothing of each other.
    #[must_use]
    pub fn slot(self, database: &str, history: u64) -> u32 {
        let (kind, number, history) = match self {
            // Not of a history: it must be there when that ends.
            Self::Life => (0, 0, 0),
            Self::Schema => (1, 0, history),
            Self::Relation(oid) => (2, oid, history),
        };
        let mut bytes = [0; 5];
        bytes[0] = kind;
        bytes[1..].copy_from_slice(&u32::to_be_bytes(number));
        let seed = xxh3_64_with_seed(database.as_bytes(), history);
        (xxh3_64_with_seed(&bytes, seed) % SLOTS as u64) as u32
    }
}

#[derive(Debug, Default)]
struct Slot {
    /// Where the newest commit ended that has changed it.
    lsn: AtomicU64,
    /// Whatever began before is void, microseconds of the process's clock.
    us: AtomicU64,
}

/// The slots.
#[derive(Debug)]
pub struct Marks(Box<[Slot]>);

impl Default for Marks {
    fn default() -> Self {
        Self((0..SLOTS).map(|_| Slot::default()).collect())
    }
}

impl Marks {
    /// A commit that ends at `lsn` has changed this.
    pub fn changed(&self, slot: u32, lsn: u64) {
        if let Some(slot) = self.0.get(slot as usize) {
            slot.lsn.fetch_max(lsn, Relaxed);
        }
    }

    /// What hangs on this and began at or before `us` is void.
    pub fn void(&self, slot: u32, us: u64) {
        if let Some(slot) = self.0.get(slot as usize) {
            slot.us.fetch_max(us, Relaxed);
        }
    }

    /// Whether nothing of this has changed since: in commits that end behind `lsn`, or for who began at `began_us`. Whoever needs to see
    /// marks up to a certain one must have acquired what was released behind it: see [`super::feed`].
    #[must_use]
    pub fn hold(&self, slots: &[u32], lsn: u64, began_us: u64) -> bool {
        slots.iter().all(|slot| {
            let slot = self.0.get(*slot as usize);
            slot.is_some_and(|slot| slot.lsn.load(Relaxed) <= lsn && slot.us.load(Relaxed) < began_us)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_voids_what_does_not_show_it_and_nothing_else() {
        let marks = Marks::default();
        let slot = |oid| Dependency::Relation(oid).slot("shop", 7);
        let (a, b) = (slot(16384), slot(16385));
        assert!(a != b && marks.hold(&[a, b], 0, 1));
        marks.changed(a, 100);
        assert!(!marks.hold(&[b, a], 99, 1) && marks.hold(&[a, b], 100, 1) && marks.hold(&[b], 0, 1));
        // What is found out late of an older one changes nothing.
        marks.changed(a, 50);
        assert!(!marks.hold(&[a], 99, 1));
        marks.void(b, 10);
        assert!(!marks.hold(&[b], 100, 10) && marks.hold(&[b], 100, 11) && marks.hold(&[a], 100, 1));
        // No slot is no promise.
        assert!(!marks.hold(&[SLOTS as u32], 100, 100));
    }

    #[test]
    fn slots_are_of_a_database_and_a_history() {
        let relation = Dependency::Relation(16384);
        let slots =
            [relation.slot("a", 1), relation.slot("b", 1), relation.slot("a", 2), Dependency::Schema.slot("a", 1)];
        assert!((1..4).all(|n| !slots[n..].contains(&slots[n - 1])), "{slots:?}");
        assert_eq!(Dependency::Life.slot("a", 1), Dependency::Life.slot("a", 2));
        // Written down elsewhere: never another.
        assert_eq!(relation.slot("shop", 7), relation.slot("shop", 7));
    }
}
